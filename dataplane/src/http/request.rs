//! A request on its way through a connection manager: what was received, what is going to be sent,
//! what it has found, and the changes of its headers that this asks for.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use smallvec::SmallVec;

use super::{
    exchange::Exchange,
    headers::{self, Pseudo, X_ENVOY_ORIGINAL_HOST, X_FORWARDED_HOST},
    outgoing::Outgoing,
};
use crate::{
    runtime::{
        RequestFacts, RouteConfig,
        action::Forward,
        filter::ForRouter,
        format::{HeaderMutations, HeaderOps},
        route::{Route, VirtualHost},
        target::WeightedCluster,
    },
    worker::ActiveConfig,
};

/// The parts of a request that are used up.
pub(super) struct Received {
    /// Nothing once filters look at it: then the exchange's progress has it.
    pub(super) body: Option<Incoming>,
    /// Whether the client wants to change to another protocol.
    pub(super) upgrade: Upgrade,
    pub(super) http2: bool,
}

/// The protocol to which a client wants to change.
pub(super) enum Upgrade {
    /// It wants to change to none.
    Nothing,
    /// To one that is not offered: no route takes the request.
    Unknown,
    /// To this one; and its side of the connection then.
    Offered(String, OnUpgrade),
}

impl Upgrade {
    /// The name of the protocol that is offered.
    pub(super) fn protocol(&self) -> Option<&str> {
        match self {
            Self::Offered(protocol, _) => Some(protocol),
            Self::Nothing | Self::Unknown => None,
        }
    }

    /// The protocol that is offered, and the client's side.
    pub(super) fn offered(self) -> Option<(String, OnUpgrade)> {
        match self {
            Self::Offered(protocol, client) => Some((protocol, client)),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// What a request has found on its way to the router.
pub(super) struct Matched<'a> {
    pub(super) config: &'a Arc<ActiveConfig>,
    pub(super) routes: &'a RouteConfig,
    pub(super) host: &'a VirtualHost,
    pub(super) route: &'a Route,
    /// The target that was drawn, where the route has several.
    pub(super) target: Option<&'a WeightedCluster>,
    /// What filters have left for the router.
    pub(super) router: ForRouter,
}

/// What matchers are told of a request.
pub(super) fn facts<'a>(exchange: &'a Exchange, outgoing: &'a Outgoing) -> RequestFacts<'a> {
    RequestFacts {
        connection: &exchange.downstream.facts,
        method: outgoing.method.as_str(),
        scheme: outgoing.scheme,
        authority: &outgoing.authority,
        path: &outgoing.path,
        remote_ip: exchange.remote.ip(),
        headers: &outgoing.headers,
        metadata: exchange.notes.metadata(),
    }
}

/// Header changes of every level.
pub(super) type Levels<'a> = SmallVec<[&'a HeaderMutations; 4]>;

/// Header changes from the innermost level outwards, or the reverse if the most specific shall win.
pub(super) fn levels<'a>(
    routes: &'a RouteConfig,
    host: &'a VirtualHost,
    route: &'a Route,
    target: Option<&'a WeightedCluster>,
) -> Levels<'a> {
    let outer = [&route.headers, &host.headers, &routes.headers];
    let mut levels: Levels<'a> =
        target.map(|target| &target.headers).into_iter().chain(outer).collect();
    if routes.most_specific_headers_win {
        levels.reverse();
    }
    levels
}

impl Matched<'_> {
    /// Header changes in the order in which they are made.
    pub(super) fn levels(&self) -> Levels<'_> {
        levels(self.routes, self.host, self.route, self.target)
    }
}

/// Changes the headers of an answer that no upstream has given: only what needs no rendering.
pub(super) fn change_local_response(levels: &Levels<'_>, headers: &mut HeaderMap) {
    for level in levels {
        headers::apply(&level.response, headers, None, |_, _| String::new());
    }
}

/// Applies request changes of every level; whether there are any.
pub(super) fn change_request(
    exchange: &Exchange,
    matched: &Matched<'_>,
    outgoing: &mut Outgoing,
) -> bool {
    let levels = matched.levels();
    if levels.iter().all(|level| level.request.is_empty()) {
        return false;
    }
    for level in levels {
        let Outgoing { headers, authority, path, .. } = &mut *outgoing;
        headers::apply(
            &level.request,
            headers,
            Some(Pseudo { authority, path }),
            |format, headers| exchange.entry(Some(headers)).render(format, ""),
        );
    }
    true
}

/// Applies changes of a request's header fields that a filter asks for.
pub(super) fn change_headers(exchange: &Exchange, ops: &HeaderOps, outgoing: &mut Outgoing) {
    headers::apply(ops, &mut outgoing.headers, None, |format, headers| {
        exchange.entry(Some(headers)).render(format, "")
    });
}

/// Applies response changes of one level to headers from upstream.
pub(super) fn change_response(exchange: &Exchange, ops: &HeaderOps, headers: &mut HeaderMap) {
    if !ops.is_empty() {
        headers::apply(ops, headers, None, |format, headers| {
            let mut entry = exchange.entry(exchange.request_headers.as_ref());
            entry.response_headers = Some(headers);
            entry.render(format, "")
        });
    }
}

/// In which headers the host is kept that another one replaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostChange {
    /// In `x-forwarded-host` (`append_x_forwarded_host`).
    forwarded: bool,
    /// In `x-envoy-original-host`.
    original: bool,
}

impl HostChange {
    pub(super) fn of(matched: &Matched<'_>, action: &Forward) -> Self {
        Self {
            forwarded: action.append_forwarded_host,
            original: !matched.router.suppress_envoy_headers,
        }
    }

    /// Replaces the host.
    pub(super) fn apply(self, outgoing: &mut Outgoing, host: String) {
        let before = std::mem::replace(&mut outgoing.authority, host);
        let Ok(before) = HeaderValue::from_str(&before) else { return };
        if self.forwarded {
            outgoing.headers.append(X_FORWARDED_HOST, before.clone());
        }
        if self.original {
            outgoing.headers.insert(X_ENVOY_ORIGINAL_HOST, before);
        }
    }
}
