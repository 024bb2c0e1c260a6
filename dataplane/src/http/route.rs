//! One request from its head to its answer: normalised, named, filtered, routed.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    exchange::{Begin, Exchange, HTTP_2},
    filter::{self, Stop},
    forward, headers,
    normalize::{self, Normalized},
    outgoing::Outgoing,
    passing::Passing,
    reply::{self, Local, Reply},
    request::{self, Received, Upgrade, facts, levels},
    target::{self, Target},
    trace,
    upgrade::{self, Wanted},
    xfcc,
};
use crate::{
    codec::{framing::Misframed, progress::Progress},
    runtime::{
        HttpConnectionManager, RouteDecision,
        action::{Action, DirectResponse, Redirect},
        path::PathMatcher,
    },
    telemetry::Flags,
    worker::{ActiveConfig, downstream::Downstream},
};

/// How a connection stands to the configuration of the moment.
pub(super) struct Standing {
    /// Serves the request.
    pub(super) manager: Arc<HttpConnectionManager>,
    /// False when the configuration of today would not accept the connection any more.
    pub(super) accepted: bool,
}

/// Answers one request.
pub(super) async fn answer(
    downstream: &Rc<Downstream>,
    config: &Arc<ActiveConfig>,
    standing: Standing,
    request: Request<Incoming>,
) -> Reply {
    let Standing { manager, accepted } = standing;
    let version = request.version();
    let (exchange, outgoing, received, problem) = receive(downstream, &manager, request);
    // Who writes such a head may not mean the same end of the request as we do.
    let last = |reply| if received.http2 { reply } else { reply::closing(reply) };
    let (open, progress) = (is_open(&outgoing, &received), Rc::clone(&exchange.progress));
    let mut reply = match problem {
        _ if !accepted => Local::CHAIN_CHANGED.send(exchange),
        Some(Problem::Misframed(misframed)) => reply::misframed(exchange, misframed),
        Some(Problem::Unnamed(local)) => last(local.send_unread(exchange)),
        Some(Problem::Local(local)) => last(local.send(exchange)),
        Some(Problem::Redirect(path)) => redirect_to(exchange, 307, &path),
        None => filter(exchange, config, &manager, outgoing, received).await,
    };
    if let Some(rest) = open {
        reply = before_end(reply, rest, &progress).await;
    }
    reply::settle(&mut reply, version);
    reply
}

/// What is to be done with the rest of an HTTP/1 request that was answered before it came.
#[derive(Clone, Copy)]
enum Rest {
    /// It may be here already.
    Tried,
    /// The client waits to be asked for it (RFC 9110, section 10.1.1).
    Unasked,
}

fn is_open(outgoing: &Outgoing, received: &Received) -> Option<Rest> {
    let open = !received.http2 && received.body.as_ref().is_some_and(|body| !body.is_end_stream());
    let waits = || outgoing.headers.contains_key(header::EXPECT);
    open.then(|| if waits() { Rest::Unasked } else { Rest::Tried })
}

/// The answer to a request of which a part has not come is the last one on its connection: nobody
/// waits for the rest (RFC 9112, section 9.6).
async fn before_end(reply: Reply, rest: Rest, progress: &Progress) -> Reply {
    if matches!(rest, Rest::Tried) && reply.body().is_ours() {
        progress.take_rest().await;
    }
    if progress.has_rest() { reply::closing(reply) } else { reply }
}

/// Notes a request that is refused for its head; the answer is the codec's.
pub(crate) fn refuse(
    downstream: &Rc<Downstream>,
    manager: &Arc<HttpConnectionManager>,
    request: Request<Incoming>,
) {
    let (mut exchange, ..) = receive(downstream, manager, request);
    exchange.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR);
    exchange.details = "http2.too_many_headers".into();
    exchange.finish();
}

/// Why a request gets no further than its head.
enum Problem {
    Misframed(Misframed),
    /// It names nothing that can be asked for.
    Unnamed(Local),
    Local(Local),
    Redirect(String),
}

/// Reads a request's head: authority, path, the client's address and the headers that a proxy owns.
fn receive(
    downstream: &Rc<Downstream>,
    manager: &Arc<HttpConnectionManager>,
    mut request: Request<Incoming>,
) -> (Box<Exchange>, Outgoing, Received, Option<Problem>) {
    let of_hop = headers::has_hop_by_hop(request.headers());
    let extended = upgrade::extended(&mut request, &manager.upgrades);
    let over_http2 = extended.is_some();
    let wanted = match extended {
        Some(extended) => extended,
        None if of_hop => upgrade::wanted(&request, &manager.upgrades),
        None => Wanted::Nothing,
    };
    let upgrade = match wanted {
        Wanted::Nothing => Upgrade::Nothing,
        Wanted::Unknown => Upgrade::Unknown,
        Wanted::Offered(protocol) => Upgrade::Offered(protocol, hyper::upgrade::on(&mut request)),
    };
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    let misframed = misframed(downstream, &headers, parts.version, of_hop);
    let (authority, path, problem) =
        named(&parts.method, &parts.uri, &headers, parts.version, manager);
    let pretending = pretends_tls(&parts.uri, parts.version, downstream, manager)
        .then_some(Problem::Unnamed(Local::FORBIDDEN_SCHEME));
    let hides = of_hop && headers::hides(&headers, parts.uri.authority().is_some());
    let hiding = hides.then_some(Problem::Local(Local::BAD_REQUEST));
    headers.remove(header::HOST);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut headers);
    }
    if of_hop || over_http2 {
        headers::remove_hop_by_hop(&mut headers, upgrade.protocol());
    }
    let (remote, noted) = headers::forwarded(
        &mut headers,
        manager,
        downstream.facts.source,
        downstream.tls.is_some(),
    );
    let scheme = target::scheme(&parts.uri).unwrap_or(noted);
    headers::request_id(&mut headers, manager);
    let peer = downstream.facts.peer.as_deref();
    xfcc::apply(&mut headers, &manager.client_cert, peer, downstream.own_names());
    let outgoing = Outgoing { method: parts.method, scheme, authority, path, headers };
    let begin = Begin {
        method: outgoing.method.clone(),
        scheme,
        authority: outgoing.authority.clone(),
        path: outgoing.path.clone(),
        protocol: protocol_name(parts.version),
        remote,
        request_headers: manager.keeps_request_headers().then(|| outgoing.headers.clone()),
        is_grpc: is_grpc(&outgoing.headers),
    };
    let exchange = Exchange::new(Rc::clone(downstream), Arc::clone(manager), begin);
    let received = Received { body: Some(body), upgrade, http2: parts.version == Version::HTTP_2 };
    (
        exchange,
        outgoing,
        received,
        misframed.map(Problem::Misframed).or(pretending).or(problem).or(hiding),
    )
}

/// What stands in the way of knowing where the request ends: in its head, or in what the codec has
/// left out of it.
fn misframed(
    downstream: &Downstream,
    headers: &HeaderMap,
    version: Version,
    of_hop: bool,
) -> Option<Misframed> {
    let http1 = version < Version::HTTP_2;
    let swallowed = if http1 { downstream.seen.next_head() } else { None };
    // Of HTTP/1 the headers tell nothing more where there is no coding.
    swallowed.or_else(|| if of_hop || !http1 { Misframed::of(headers, version) } else { None })
}

/// Whether an HTTP/1 request to an edge in plaintext names a target that is to be had by TLS only
/// (RFC 9110 section 4.2.2). Inside of the mesh another proxy may have taken the TLS away.
fn pretends_tls(
    uri: &Uri,
    version: Version,
    downstream: &Downstream,
    manager: &HttpConnectionManager,
) -> bool {
    let at_edge = manager.use_remote_address;
    at_edge
        && version < Version::HTTP_2
        && target::scheme(uri) == Some("https")
        && downstream.tls.is_none()
}

/// Host and normalised path, and why they are not served.
fn named(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    manager: &HttpConnectionManager,
) -> (String, String, Option<Problem>) {
    let unnamed = |local| (String::new(), uri.path().to_owned(), Some(Problem::Unnamed(local)));
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
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next().map(HeaderValue::as_bytes), kinds.next()) else {
        return false;
    };
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// Finds the route, lets the filters and the route answer, and tells proxies before and behind ours
/// what it is about.
async fn filter(
    mut exchange: Box<Exchange>,
    config: &Arc<ActiveConfig>,
    manager: &HttpConnectionManager,
    mut outgoing: Outgoing,
    mut received: Received,
) -> Reply {
    let Some(routes) = config.route_config(&manager.routes) else {
        return Local::NO_ROUTE.send(exchange);
    };
    let mut passing = Passing::of(config, manager, routes, &mut exchange, &outgoing);
    let route = passing.found().map(|(_, route)| route);
    let told = trace::begin(&mut exchange, manager, route, &mut outgoing);
    let passed = match (&received.upgrade, route) {
        (Upgrade::Unknown, Some(_)) => Err(Stop::Local(Local::UPGRADE_REFUSED)),
        _ => filter::request(&mut exchange, &mut passing, &mut outgoing, &mut received).await,
    };
    trace::note_sent(&mut exchange, &outgoing);
    let reply = match (passed, &passing.decision) {
        (Err(stop), _) => stop.answer(exchange),
        (Ok(router), RouteDecision::Route { host, route }) => match &route.action {
            Action::Forward(action) => {
                let matched = passing.matched((host, route), router);
                forward::forward(exchange, &matched, action, outgoing, received).await
            }
            Action::Redirect(action) => redirect(exchange, action, &route.matching.path, &outgoing),
            Action::Direct(response) => direct(exchange, response),
        },
        (Ok(_), RouteDecision::RequireTls(_)) => {
            let anything = PathMatcher::Prefix { path: "/".into(), case_sensitive: true };
            redirect(exchange, &Redirect::to_https(), &anything, &outgoing)
        }
        (Ok(_), RouteDecision::NoRoute(_) | RouteDecision::NoHost) => {
            Local::NO_ROUTE.send(exchange)
        }
    };
    let mut reply = filter::response(passing, reply).await;
    if let Some((host, route)) = passing.found()
        && reply.body().is_ours()
    {
        let levels = levels(routes, host, route, passing.target);
        request::change_local_response(&levels, reply.headers_mut());
    }
    trace::answered(told, &mut reply);
    reply
}

fn direct(mut exchange: Box<Exchange>, response: &DirectResponse) -> Reply {
    exchange.details = "direct_response".into();
    reply::direct(exchange, response.status, response.body.clone())
}

fn redirect(
    exchange: Box<Exchange>,
    action: &Redirect,
    matched: &PathMatcher,
    outgoing: &Outgoing,
) -> Reply {
    let location = action.location(&facts(&exchange, outgoing), matched);
    redirect_to(exchange, action.status, &location)
}

fn redirect_to(mut exchange: Box<Exchange>, status: u16, location: &str) -> Reply {
    exchange.details = "direct_response".into();
    match HeaderValue::from_bytes(location.as_bytes()) {
        Ok(location) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location);
            match exchange.is_grpc {
                true => {
                    let mut reply = reply::grpc(exchange, status, "");
                    reply.headers_mut().extend(headers);
                    reply
                }
                false => reply::bodiless(exchange, status, headers),
            }
        }
        Err(_) => Local::BAD_REQUEST.send(exchange),
    }
}
