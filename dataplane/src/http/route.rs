//! One request from its head to its answer: normalised, named, filtered, routed.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use smallvec::SmallVec;

use super::{
    cors::{self, Cors},
    exchange::{Begin, Exchange, HTTP_2},
    fault, forward,
    framing::Misframed,
    headers::{self, Pseudo},
    normalize::{self, Normalized},
    reply::{self, Local, Reply},
    serve::Standing,
    target::{self, Target},
    upgrade, xfcc,
};
use crate::{
    listen::accept::Downstream,
    runtime::{
        HttpConnectionManager, HttpFilter, RequestFacts, RouteConfig, RouteDecision, RuntimeConfig,
        action::{Action, Redirect, WeightedCluster},
        format::{HeaderMutations, HeaderOps},
        http::{AbortStatus, FaultConfig},
        route::{ClusterChoice, FilterOverrides, PathMatcher, Route, VirtualHost},
    },
    telemetry::Flags,
};

/// A request as it is going to be sent; changed on its way, copied for each attempt.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// The parts of a request that are used up.
pub(crate) struct Received {
    pub(crate) body: Incoming,
    /// The protocol to which the client wants to change, and its side of the connection then.
    pub(crate) upgrade: Option<(String, OnUpgrade)>,
    pub(crate) http2: bool,
}

/// What a request has found on its way to the router.
pub(crate) struct Matched<'a> {
    pub(crate) config: &'a Arc<RuntimeConfig>,
    pub(crate) routes: &'a RouteConfig,
    pub(crate) host: &'a VirtualHost,
    pub(crate) route: &'a Route,
    /// The target that was drawn, where the route has several.
    pub(crate) target: Option<&'a WeightedCluster>,
    /// The connection manager overrides ALPN by the cluster's metadata.
    pub(crate) mesh_alpn: bool,
    pub(crate) suppress_envoy_headers: bool,
}

/// Answers one request.
pub(crate) async fn answer(
    downstream: &Rc<Downstream>,
    config: &Arc<RuntimeConfig>,
    standing: Standing,
    request: Request<Incoming>,
) -> Reply {
    let Standing { manager, accepted } = standing;
    let (exchange, outgoing, received, problem) = receive(downstream, &manager, request);
    match problem {
        _ if !accepted => Local::CHAIN_CHANGED.send(exchange),
        Some(Problem::Misframed(misframed)) => misframed.answer(exchange),
        // Who writes such a head may not mean the same end of the request as we do.
        Some(Problem::Local(local)) if !received.http2 => reply::closing(local.send(exchange)),
        Some(Problem::Local(local)) => local.send(exchange),
        Some(Problem::Redirect(path)) => redirect_to(exchange, 307, &path),
        None => filter(exchange, config, &manager, outgoing, received).await,
    }
}

/// Notes a request that is refused for its head; the answer is the codec's.
pub(crate) fn refuse(downstream: &Rc<Downstream>, manager: &Arc<HttpConnectionManager>, request: Request<Incoming>) {
    let (mut exchange, ..) = receive(downstream, manager, request);
    exchange.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR);
    exchange.details = "http2.too_many_headers".into();
    exchange.finish();
    exchange.finish();
}

/// Why a request gets no further than its head.
enum Problem {
    Misframed(Misframed),
    Local(Local),
    Redirect(String),
}

/// Reads a request's head: authority, path, the client's address and the headers that a proxy owns.
fn receive(
    downstream: &Rc<Downstream>,
    manager: &Arc<HttpConnectionManager>,
    mut request: Request<Incoming>,
) -> (Box<Exchange>, Outgoing, Received, Option<Problem>) {
    let wanted = upgrade::wanted(&request, &manager.upgrades);
    let upgrade = wanted.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    let misframed = misframed(downstream, &headers, parts.version);
    let (authority, path, problem) = named(&parts.method, &parts.uri, &headers, parts.version, manager);
    headers.remove(header::HOST);
    headers::remove_hop_by_hop(&mut headers, upgrade.as_ref().map(|(protocol, _)| protocol.as_str()));
    let (remote, scheme) = headers::forwarded(&mut headers, manager, downstream.facts.source, downstream.tls.is_some());
    headers::request_id(&mut headers, manager);
    let own_names = downstream.tls.as_ref().map(|tls| &tls.local_uri_sans[..]).unwrap_or_default();
    xfcc::apply(&mut headers, &manager.client_cert, downstream.facts.peer.as_deref(), own_names);
    let outgoing = Outgoing { method: parts.method, scheme, authority, path, headers };
    let begin = Begin {
        method: outgoing.method.clone(),
        scheme,
        authority: outgoing.authority.clone(),
        path: outgoing.path.clone(),
        protocol: protocol_name(parts.version),
        remote,
        request_headers: (!manager.access_logs.is_empty()).then(|| outgoing.headers.clone()),
        is_grpc: is_grpc(&outgoing.headers),
    };
    let exchange = Exchange::new(Rc::clone(downstream), Arc::clone(manager), begin);
    let received = Received { body, upgrade, http2: parts.version == Version::HTTP_2 };
    (exchange, outgoing, received, misframed.map(Problem::Misframed).or(problem))
}

/// What stands in the way of knowing where the request ends: in its head, or in what the codec has left out of it.
fn misframed(downstream: &Downstream, headers: &HeaderMap, version: Version) -> Option<Misframed> {
    let swallowed = if version < Version::HTTP_2 { downstream.seen.next_head() } else { None };
    swallowed.or_else(|| Misframed::of(headers, version))
}

/// Host and normalised path, and why they are not served.
fn named(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    manager: &HttpConnectionManager,
) -> (String, String, Option<Problem>) {
    let unnamed = |local| (String::new(), uri.path().to_owned(), Some(Problem::Local(local)));
    if version < Version::HTTP_11 && !manager.accept_http_10 {
        return unnamed(Local::UPGRADE_REQUIRED);
    }
    let Target { authority, path } = match target::read(method, uri, headers, version) {
        Ok(target) => target,
        Err(local) => return unnamed(local),
    };
    let (path, problem) = match normalize::normalize(&path, manager) {
        Normalized::Path(path) => (path.into_owned(), None),
        Normalized::Redirect(to) => (path.to_string(), Some(Problem::Redirect(to))),
        Normalized::Refused => (path.to_string(), Some(Problem::Local(Local::PATH_REFUSED))),
    };
    (authority.to_owned(), path, problem)
}

fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => HTTP_2,
        _ => "HTTP/1.1",
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

pub(crate) fn facts<'a>(exchange: &'a Exchange, outgoing: &'a Outgoing) -> RequestFacts<'a> {
    RequestFacts {
        connection: &exchange.downstream.facts,
        method: outgoing.method.as_str(),
        scheme: outgoing.scheme,
        authority: &outgoing.authority,
        path: &outgoing.path,
        remote_ip: exchange.remote.ip(),
        headers: &outgoing.headers,
    }
}

/// Finds the route, then walks the filters; the last of them acts on the route.
async fn filter(
    mut exchange: Box<Exchange>,
    config: &Arc<RuntimeConfig>,
    manager: &HttpConnectionManager,
    outgoing: Outgoing,
    received: Received,
) -> Reply {
    let Some(routes) = config.route_config(&manager.routes) else { return Local::NO_ROUTE.send(exchange) };
    let decision = routes.find(&facts(&exchange, &outgoing), rand::random());
    if let RouteDecision::Route { route, .. } = &decision {
        exchange.route = Arc::clone(&route.name);
    }
    let target = weighted_target(&decision);
    let overrides = Overrides::of(&decision, target);
    let mut response_headers = HeaderMap::new();
    let mut mesh_alpn = false;
    let mut suppress_envoy_headers = false;
    for filter in &manager.filters {
        match filter {
            HttpFilter::Rbac(rbac) => {
                let rbac = overrides.rbac(rbac);
                if !rbac.is_none_or(|rbac| rbac.decide(&facts(&exchange, &outgoing)).is_allowed()) {
                    return Local::DENIED.send(exchange);
                }
            }
            HttpFilter::Fault(own) => {
                let config = overrides.fault().or(own.as_ref());
                if let Some(reply) = inject(&mut exchange, config.map(AsRef::as_ref), &outgoing).await {
                    return reply_with(exchange, reply);
                }
            }
            HttpFilter::Cors => {
                match overrides.cors().map(|policy| cors::judge(policy, &outgoing.method, &outgoing.headers)) {
                    Some(Cors::Preflight(headers)) => return reply::bodiless(exchange, 200, headers),
                    Some(Cors::Continue(headers)) => response_headers = headers,
                    None => {}
                }
            }
            HttpFilter::MeshAlpn => mesh_alpn = true,
            HttpFilter::Router { suppress_envoy_headers: suppress } => suppress_envoy_headers = *suppress,
        }
    }
    let mut reply = match decision {
        RouteDecision::Route { host, route } => {
            let matched = Matched { config, routes, host, route, target, mesh_alpn, suppress_envoy_headers };
            act(exchange, &matched, outgoing, received).await
        }
        RouteDecision::RequireTls(_) => {
            let anything = PathMatcher::Prefix { path: "/".into(), case_sensitive: true };
            redirect(exchange, &Redirect::to_https(), &anything, &outgoing)
        }
        RouteDecision::NoRoute(_) | RouteDecision::NoHost => Local::NO_ROUTE.send(exchange),
    };
    reply.headers_mut().extend(response_headers);
    reply
}

/// The target of a route that splits its requests; drawn once, for all attempts and settings.
fn weighted_target<'a>(decision: &RouteDecision<'a>) -> Option<&'a WeightedCluster> {
    let RouteDecision::Route { route: Route { action: Action::Forward(action), .. }, .. } = decision else {
        return None;
    };
    match &action.cluster {
        ClusterChoice::Weighted(clusters) => Some(clusters.pick(rand::random())),
        ClusterChoice::One(_) | ClusterChoice::Header(_) => None,
    }
}

/// Per-route settings of filters: the weighted target's, else the route's, else the virtual host's.
struct Overrides<'a>([Option<&'a FilterOverrides>; 3]);

impl<'a> Overrides<'a> {
    fn of(decision: &RouteDecision<'a>, target: Option<&'a WeightedCluster>) -> Self {
        match decision {
            RouteDecision::Route { host, route } => {
                Self([target.map(|target| &target.overrides), Some(&route.overrides), Some(&host.overrides)])
            }
            RouteDecision::NoRoute(host) | RouteDecision::RequireTls(host) => Self([Some(&host.overrides), None, None]),
            RouteDecision::NoHost => Self([None, None, None]),
        }
    }

    fn levels(&self) -> impl Iterator<Item = &'a FilterOverrides> {
        self.0.into_iter().flatten()
    }

    fn fault(&self) -> Option<&'a Arc<FaultConfig>> {
        self.levels().find_map(|level| level.fault.as_ref())
    }

    fn cors(&self) -> Option<&'a Arc<crate::runtime::http::CorsPolicy>> {
        self.levels().find_map(|level| level.cors.as_ref())
    }

    /// The RBAC in force; `None` where a route switches it off.
    fn rbac<'b>(&self, own: &'b Arc<crate::runtime::Rbac>) -> Option<&'b Arc<crate::runtime::Rbac>>
    where
        'a: 'b,
    {
        match self.levels().find_map(|level| level.rbac.as_ref()) {
            Some(replaced) => replaced.as_ref(),
            None => Some(own),
        }
    }
}

/// Waits if the request is to be delayed; answers if it is to be aborted.
async fn inject(exchange: &mut Exchange, config: Option<&FaultConfig>, outgoing: &Outgoing) -> Option<AbortStatus> {
    let faults = fault::draw(config?, &facts(exchange, outgoing), rand::random);
    if let Some(delay) = faults.delay {
        exchange.flag(Flags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    faults.abort
}

fn reply_with(mut exchange: Box<Exchange>, abort: AbortStatus) -> Reply {
    const BODY: &str = "fault filter abort";
    match abort {
        AbortStatus::Http(status) => {
            Local::new(status, BODY, Flags::FAULT_INJECTED, "fault_filter_abort").send(exchange)
        }
        AbortStatus::Grpc(status) => {
            exchange.flag(Flags::FAULT_INJECTED);
            exchange.details = "fault_filter_abort".into();
            reply::grpc_status(exchange, status, BODY)
        }
    }
}

async fn act(exchange: Box<Exchange>, matched: &Matched<'_>, outgoing: Outgoing, received: Received) -> Reply {
    match &matched.route.action {
        Action::Forward(action) => forward::forward(exchange, matched, action, outgoing, received).await,
        Action::Redirect(action) => {
            let mut reply = redirect(exchange, action, &matched.route.matching.path, &outgoing);
            matched.change_local_response(reply.headers_mut());
            reply
        }
        Action::Direct(direct) => {
            let mut exchange = exchange;
            exchange.details = "direct_response".into();
            let mut reply = reply::plain(exchange, direct.status, direct.body.clone());
            matched.change_local_response(reply.headers_mut());
            reply
        }
    }
}

impl Matched<'_> {
    /// Header changes from the innermost level outwards, or the reverse if the most specific shall win.
    pub(crate) fn levels(&self) -> SmallVec<[&HeaderMutations; 4]> {
        let outer = [&self.route.headers, &self.host.headers, &self.routes.headers];
        let mut levels: SmallVec<[&HeaderMutations; 4]> =
            self.target.map(|target| &target.headers).into_iter().chain(outer).collect();
        if self.routes.most_specific_headers_win {
            levels.reverse();
        }
        levels
    }

    /// Changes the headers of an answer that no upstream has given: only what needs no rendering.
    fn change_local_response(&self, headers: &mut HeaderMap) {
        for level in self.levels() {
            headers::apply(&level.response, headers, None, |_, _| String::new());
        }
    }
}

/// Applies request changes of every level.
pub(crate) fn change_request(exchange: &Exchange, matched: &Matched<'_>, outgoing: &mut Outgoing) {
    let levels = matched.levels();
    if levels.iter().all(|level| level.request.is_empty()) {
        return;
    }
    for level in levels {
        let Outgoing { headers, authority, path, .. } = &mut *outgoing;
        headers::apply(&level.request, headers, Some(Pseudo { authority, path }), |format, headers| {
            exchange.entry(Some(headers)).render(format, "")
        });
    }
}

/// Applies response changes of one level to headers from upstream.
pub(crate) fn change_response(exchange: &Exchange, ops: &HeaderOps, headers: &mut HeaderMap) {
    if !ops.is_empty() {
        headers::apply(ops, headers, None, |format, headers| {
            let mut entry = exchange.entry(exchange.request_headers.as_ref());
            entry.response_headers = Some(headers);
            entry.render(format, "")
        });
    }
}

fn redirect(exchange: Box<Exchange>, action: &Redirect, matched: &PathMatcher, outgoing: &Outgoing) -> Reply {
    let location = action.location(&facts(&exchange, outgoing), matched);
    redirect_to(exchange, action.status, &location)
}

fn redirect_to(mut exchange: Box<Exchange>, status: u16, location: &str) -> Reply {
    exchange.details = "direct_response".into();
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location);
            reply::bodiless(exchange, status, headers)
        }
        Err(_) => Local::BAD_REQUEST.send(exchange),
    }
}
