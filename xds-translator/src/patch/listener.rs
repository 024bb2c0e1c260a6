//! Patches of listeners, of the filters of their chains, of the filters of HTTP connections, and of
//! the routes that listeners hold themselves.

use std::sync::Arc;

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::{
    edit,
    merge::merge_patch,
    operation::{self, Elements, Target},
    report::Report,
    route,
};
use crate::{
    emit,
    ir::{ChainCondition, ListenerMatch, Patch, PatchOperation, PatchSubject, PortNames},
};

/// Listeners that take what was redirected: their chains are for ports.
const REDIRECTED: [&str; 2] = ["virtualInbound", "virtualOutbound"];

const HTTP_CONNECTION: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Changes a listener and everything in it. `names`: what its ports are called.
pub(super) fn patch(
    listener: &mut DynamicMessage,
    names: &PortNames,
    patches: &[&Arc<Patch>],
    report: &mut Report,
) {
    let place = Place::of(listener, names);
    let captured = is_captured(listener);
    for patch in patches {
        if let PatchSubject::Listener(matches) = &patch.subject
            && place.is_named(matches)
            && matches.admits_port(place.port, names)
            && let Some(message) = patch.message.as_ref().and_then(edit::open)
        {
            merge_patch(patch, listener, &message);
            report.apply(patch);
        }
    }
    if is_captured(listener) != captured {
        edit::list(listener, "socket_options", |options| {
            options.extend(edit::dynamic(&emit::told_apart()));
        });
    }
    edit::list(listener, "listener_filters", |filters| {
        for patch in patches {
            if let PatchSubject::ListenerFilter(matches) = &patch.subject
                && place.is_meant(matches)
                && on_list(patch, filters, &matches.listener_filter, Elements::Others)
            {
                report.apply(patch);
            }
        }
    });
    let has_default = listener.has_field_by_name("default_filter_chain");
    edit::list(listener, "filter_chains", |chains| {
        patch_chains(&place, (chains, has_default), patches, report);
        chains.iter_mut().for_each(|chain| patch_chain(&place, chain, patches, report));
    });
    patch_default_chain(&place, listener, patches, report);
    if let Some(chain) = edit::child(listener, "default_filter_chain") {
        patch_chain(&place, chain, patches, report);
    }
}

/// Whether a listener is not opened. One that a patch opens, or keeps from being opened, needs other
/// sockets than it has without the patch.
fn is_captured(listener: &DynamicMessage) -> bool {
    let opened = edit::part(listener, "bind_to_port");
    opened.is_some_and(|on| on.get_field_by_name("value").and_then(|v| v.as_bool()) == Some(false))
}

/// Changes which chains there are, and what they are.
fn patch_chains(
    place: &Place<'_>,
    (chains, has_default): (&mut Vec<DynamicMessage>, bool),
    patches: &[&Arc<Patch>],
    report: &mut Report,
) {
    for patch in patches {
        let PatchSubject::FilterChain(matches) = &patch.subject else { continue };
        let adds = patch.operation == PatchOperation::Add;
        // What is added has no place among the chains yet by which it could be meant.
        if adds && !place.is_meant(matches) {
            continue;
        }
        let before = chains.clone();
        let target = Target { list: chains, named: true, of: Elements::Others };
        let meant = |chain: &DynamicMessage| place.admits(matches, &Chain::of(chain));
        if !operation::apply(patch, target, meant) {
            continue;
        }
        match objection(chains, has_default) {
            None => report.apply(patch),
            Some(reason) => {
                *chains = before;
                report.refuse(patch, reason.to_owned());
            }
        }
    }
}

/// Why every proxy would refuse a listener with these chains.
fn objection(chains: &[DynamicMessage], has_default: bool) -> Option<&'static str> {
    let matches: Vec<_> =
        chains.iter().map(|chain| edit::part(chain, "filter_chain_match")).collect();
    let equal = matches.iter().enumerate().any(|(i, own)| matches[..i].contains(own));
    if chains.is_empty() && !has_default {
        return Some("the listener would have no chain");
    }
    equal.then_some("two chains would match the same connections")
}

/// The chain that takes what no other does is changed as the others are; none is added to it.
fn patch_default_chain(
    place: &Place<'_>,
    listener: &mut DynamicMessage,
    patches: &[&Arc<Patch>],
    report: &mut Report,
) {
    const FIELD: &str = "default_filter_chain";
    for patch in patches {
        let PatchSubject::FilterChain(matches) = &patch.subject else { continue };
        let Some(chain) = edit::child(listener, FIELD) else { return };
        if patch.operation == PatchOperation::Add || !place.admits(matches, &Chain::of(chain)) {
            continue;
        }
        match patch.message.as_ref().and_then(edit::open) {
            Some(message) => merge_patch(patch, chain, &message),
            None if !listener.has_field_by_name("filter_chains") => {
                report.refuse(patch, "the listener would have no chain".to_owned());
                continue;
            }
            None => listener.clear_field_by_name(FIELD),
        }
        report.apply(patch);
    }
}

/// What conditions ask of a listener.
struct Place<'n> {
    name: String,
    port: Option<u16>,
    names: &'n PortNames,
}

impl<'n> Place<'n> {
    fn of(listener: &DynamicMessage, names: &'n PortNames) -> Self {
        let address = edit::part(listener, "address");
        let socket = address.and_then(|address| edit::part(&address, "socket_address"));
        let port = socket.and_then(|socket| number(&socket, "port_value"));
        Self { name: edit::text(listener, "name"), port, names }
    }

    fn is_named(&self, matches: &ListenerMatch) -> bool {
        matches.name.is_empty() || *matches.name == *self.name
    }

    /// Whether the listener is meant, by what is asked of it as a whole.
    fn is_meant(&self, matches: &ListenerMatch) -> bool {
        let redirected = REDIRECTED.contains(&&*self.name);
        self.is_named(matches) && (redirected || matches.admits_port(self.port, self.names))
    }

    /// Whether a chain of this listener is meant.
    fn admits(&self, matches: &ListenerMatch, chain: &Chain) -> bool {
        let port = match REDIRECTED.contains(&&*self.name) {
            true => chain.port,
            false => self.port,
        };
        self.is_named(matches)
            && matches.admits_port(port, self.names)
            && chain.satisfies(&matches.chain)
    }
}

/// What conditions ask of a filter chain.
struct Chain {
    name: String,
    port: Option<u16>,
    server_names: Vec<String>,
    transport: String,
    socket: String,
    alpn: Vec<String>,
}

impl Chain {
    fn of(chain: &DynamicMessage) -> Self {
        let matches = edit::part(chain, "filter_chain_match");
        let matches = matches.as_ref();
        let socket = edit::part(chain, "transport_socket");
        let port = matches.and_then(|m| edit::part(m, "destination_port"));
        Self {
            name: edit::text(chain, "name"),
            port: port.and_then(|port| number(&port, "value")),
            server_names: matches.map(|m| edit::texts(m, "server_names")).unwrap_or_default(),
            transport: matches.map(|m| edit::text(m, "transport_protocol")).unwrap_or_default(),
            socket: socket.map(|socket| edit::text(&socket, "name")).unwrap_or_default(),
            alpn: matches.map(|m| edit::texts(m, "application_protocols")).unwrap_or_default(),
        }
    }

    fn satisfies(&self, asked: &ChainCondition) -> bool {
        let text = |asked: &str, is: &str| asked.is_empty() || asked == is;
        text(&asked.name, &self.name)
            && text(&asked.transport, &self.transport)
            && text(&asked.socket, &self.socket)
            && (asked.sni.is_empty() || self.server_names.iter().any(|name| **name == *asked.sni))
            && asked.alpn.iter().all(|asked| self.alpn.iter().any(|name| **name == **asked))
            && asked.port.is_none_or(|port| self.port == Some(port))
    }
}

fn number(message: &DynamicMessage, field: &str) -> Option<u16> {
    let value = message.get_field_by_name(field)?;
    u16::try_from(value.as_u32()?).ok()
}

fn patch_chain(
    place: &Place<'_>,
    chain: &mut DynamicMessage,
    patches: &[&Arc<Patch>],
    report: &mut Report,
) {
    let facts = Chain::of(chain);
    edit::list(chain, "filters", |filters| {
        for patch in patches {
            let PatchSubject::NetworkFilter(matches) = &patch.subject else { continue };
            if place.admits(matches, &facts) && on_filters(patch, filters, &matches.filter) {
                report.apply(patch);
            }
        }
        for filter in filters {
            let name = edit::text(filter, "name");
            let about = |patch: &&&Arc<Patch>| match &patch.subject {
                PatchSubject::HttpFilter(matches) => {
                    place.admits(matches, &facts) && names(&matches.filter, &name)
                }
                subject => subject.routes().is_some(),
            };
            let about: Vec<&Arc<Patch>> = patches.iter().filter(about).copied().collect();
            patch_filter(filter, &about, report);
        }
    });
}

/// Changes the HTTP connection that a filter may be.
fn patch_filter(filter: &mut DynamicMessage, patches: &[&Arc<Patch>], report: &mut Report) {
    let Some(config) = edit::child(filter, "typed_config").filter(|_| !patches.is_empty()) else {
        return;
    };
    let opened = edit::unpack(config);
    let Some(mut connection) = opened.filter(|m| m.descriptor().full_name() == HTTP_CONNECTION)
    else {
        return;
    };
    let mut own = Report::default();
    edit::list(&mut connection, "http_filters", |filters| {
        for patch in patches {
            if let PatchSubject::HttpFilter(matches) = &patch.subject
                && on_filters(patch, filters, &matches.sub_filter)
            {
                own.apply(patch);
            }
        }
    });
    if let Some(routes) = edit::child(&mut connection, "route_config") {
        let name = edit::text(routes, "name");
        let about = |patch: &&&Arc<Patch>| patch.subject.routes().is_some_and(|m| m.admits(&name));
        let about: Vec<&Arc<Patch>> = patches.iter().filter(about).copied().collect();
        route::patch(routes, &about, &mut own);
    }
    if !own.is_empty() {
        edit::repack(config, &connection);
    }
    report.merge(own);
}

fn on_filters(patch: &Patch, filters: &mut Vec<DynamicMessage>, name: &str) -> bool {
    on_list(patch, filters, name, Elements::Filters)
}

fn on_list(patch: &Patch, filters: &mut Vec<DynamicMessage>, name: &str, of: Elements) -> bool {
    let target = Target { list: filters, named: !name.is_empty(), of };
    operation::apply(patch, target, |filter| {
        let own = filter.get_field_by_name("name");
        names(name, own.as_deref().and_then(Value::as_str).unwrap_or_default())
    })
}

/// Whether a condition names a filter, also by what Envoy called it before API v3
/// (`envoy.router`).
fn names(asked: &str, is: &str) -> bool {
    let former = || is.strip_prefix("envoy.filters.")?.split_once('.').map(|(_, name)| name);
    asked.is_empty()
        || asked == is
        || asked.strip_prefix("envoy.").is_some_and(|asked| former() == Some(asked))
}
