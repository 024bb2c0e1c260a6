//! Patches of route configurations, of their virtual hosts and of the routes in these.

use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::envoy::config::route::v3 as route;
use prost::Name;
use prost_reflect::DynamicMessage;

use super::{
    edit,
    merge::merge_patch,
    operation::{self, Elements, Target},
    report::Report,
};
use crate::{
    descriptors::pool,
    ir::{Patch, PatchSubject, RouteActionKind, RouteConfigurationMatch},
};

/// Changes a route configuration; every patch is about it.
pub(super) fn patch(table: &mut DynamicMessage, patches: &[&Arc<Patch>], report: &mut Report) {
    for patch in patches {
        if matches!(patch.subject, PatchSubject::RouteConfiguration(_))
            && let Some(message) = patch.message.as_ref().and_then(edit::open)
        {
            let before = table.clone();
            merge_patch(patch, table, &message);
            let hosts = edit::list(table, "virtual_hosts", |hosts| claimed_twice(hosts));
            match hosts {
                Some(domain) => {
                    *table = before;
                    if patch.guards {
                        edit::list(table, "virtual_hosts", |hosts| {
                            hosts.iter_mut().for_each(close)
                        });
                    }
                    report.refuse(patch, twice(&domain));
                }
                None => report.apply(patch),
            }
        }
    }
    edit::list(table, "virtual_hosts", |hosts| {
        for patch in patches {
            if let PatchSubject::VirtualHost(matches) = &patch.subject {
                on_hosts(patch, matches, hosts, report);
            }
        }
        for host in hosts {
            patch_routes(host, patches, report);
        }
    });
}

/// Changes one virtual host by patches that are about each by itself.
pub(super) fn patch_host(host: &mut DynamicMessage, patches: &[&Arc<Patch>], report: &mut Report) {
    for patch in patches {
        if let PatchSubject::VirtualHost(matches) = &patch.subject
            && is_host(matches, host)
            && let Some(message) = patch.message.as_ref().and_then(edit::open)
        {
            merge_patch(patch, host, &message);
            report.apply(patch);
        }
    }
    patch_routes(host, patches, report);
}

/// Changes virtual hosts, unless several would then claim one domain, or one would claim none:
/// proxies refuse the whole route configuration then.
fn on_hosts(
    patch: &Arc<Patch>,
    matches: &RouteConfigurationMatch,
    hosts: &mut Vec<DynamicMessage>,
    report: &mut Report,
) {
    let message = patch.message.as_ref().and_then(edit::open);
    let claims = message
        .is_some_and(|m| !patch.operation.merges() || !edit::texts(&m, "domains").is_empty());
    let before = claims.then(|| hosts.clone());
    let named = !(matches.host.is_empty() && matches.domain.is_empty());
    let target = Target { list: hosts, named, of: Elements::Others };
    if !operation::apply(patch, target, |host| is_host(matches, host)) {
        return;
    }
    match before.and_then(|before| Some((before, objection(hosts)?))) {
        Some((before, reason)) => {
            *hosts = before;
            if patch.guards {
                hosts.iter_mut().filter(|host| is_host(matches, host)).for_each(close);
            }
            report.refuse(patch, reason);
        }
        None => report.apply(patch),
    }
}

/// Takes the place of what a guard was to protect and cannot: every request is answered 503.
fn close(host: &mut DynamicMessage) {
    let closed = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::route::Action::DirectResponse(route::DirectResponseAction {
            status: 503,
            ..Default::default()
        })),
        ..Default::default()
    };
    edit::list(host, "routes", |routes| {
        routes.clear();
        let descriptor = pool().get_message_by_name(&route::Route::full_name());
        let opened = descriptor.map(DynamicMessage::new).and_then(|mut message| {
            message.transcode_from(&closed).ok()?;
            Some(message)
        });
        routes.extend(opened);
    });
}

fn twice(domain: &str) -> String {
    format!("two virtual hosts would claim the domain `{domain}`, which every proxy refuses")
}

/// Why every proxy would refuse these virtual hosts.
fn objection(hosts: &[DynamicMessage]) -> Option<String> {
    let bare = hosts.iter().find(|host| edit::texts(host, "domains").is_empty());
    match bare {
        Some(host) => Some(format!("`{}` would have no domain", edit::text(host, "name"))),
        None => claimed_twice(hosts).map(|domain| twice(&domain)),
    }
}

fn claimed_twice(hosts: &[DynamicMessage]) -> Option<String> {
    let mut claimed = BTreeSet::new();
    let mut all = hosts.iter().flat_map(|host| edit::texts(host, "domains"));
    all.find(|domain| !claimed.insert(domain.clone()))
}

fn is_host(matches: &RouteConfigurationMatch, host: &DynamicMessage) -> bool {
    let domain = || edit::texts(host, "domains").iter().any(|name| **name == *matches.domain);
    (matches.host.is_empty() || *matches.host == *edit::text(host, "name"))
        && (matches.domain.is_empty() || domain())
}

fn patch_routes(host: &mut DynamicMessage, patches: &[&Arc<Patch>], report: &mut Report) {
    for patch in patches {
        let PatchSubject::Route(matches) = &patch.subject else { continue };
        if !is_host(matches, host) {
            continue;
        }
        let named = !matches.route.is_empty() || matches.action.is_some();
        let changed = edit::list(host, "routes", |list| {
            let target = Target { list, named, of: Elements::Others };
            operation::apply(patch, target, |known| is_route(matches, known))
        });
        if changed {
            report.apply(patch);
        }
    }
}

fn is_route(matches: &RouteConfigurationMatch, known: &DynamicMessage) -> bool {
    let action = |kind: RouteActionKind| {
        let field = match kind {
            RouteActionKind::Forward => "route",
            RouteActionKind::Redirect => "redirect",
            RouteActionKind::Answer => "direct_response",
        };
        known.has_field_by_name(field)
    };
    (matches.route.is_empty() || *matches.route == *edit::text(known, "name"))
        && matches.action.is_none_or(action)
}
