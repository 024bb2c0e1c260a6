//! Forwards a request: chooses the cluster, rewrites, watches the time limits, and passes the
//! answer on.
//!
//! The route's time limit spans all [`super::attempt`]s and the response's body; it starts when the
//! whole request was received, as in Envoy.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};

use super::{
    attempt::{Answer, Attempts, BodySource, Unanswered},
    exchange::Exchange,
    hash,
    headers::{
        GRPC_TIMEOUT, X_ENVOY_ATTEMPT_COUNT, X_ENVOY_ORIGINAL_PATH, X_ENVOY_SERVICE_TIME,
        has_hop_by_hop, names_upgrade, remove_hop_by_hop,
    },
    mirror,
    outgoing::Outgoing,
    overtime::{Over, TimeLimits},
    reply::{self, Local, Reply},
    request::{HostChange, Matched, Received, change_request, change_response, facts},
    response::ResponseBody,
    time_left::{TimeLeft, millis, parse_grpc_timeout},
    trace, upgrade,
};
use crate::{
    codec::{blame::UpstreamFault, progress::Progress},
    runtime::{
        Cluster,
        action::{Forward, HostRewrite},
        cluster::UpstreamProtocol,
        limits::BodyLimit,
        target::ClusterChoice,
    },
    telemetry::Flags,
    upstream::{
        connect::{AlpnSource, Purpose},
        outlier::Outcome,
    },
};

/// Forwards a request as a route says.
pub(crate) async fn forward(
    mut exchange: Box<Exchange>,
    matched: &Matched<'_>,
    action: &Forward,
    mut outgoing: Outgoing,
    received: Received,
) -> Reply {
    let Some(cluster) =
        choose_cluster(matched, action, &outgoing).and_then(|name| matched.config.cluster(&name))
    else {
        let missing =
            Local::new(action.cluster_not_found_status, "", Flags::NO_CLUSTER, "cluster_not_found");
        return missing.send(exchange);
    };
    exchange.cluster = Some(Arc::clone(cluster));
    let Received { body, upgrade, http2 } = received;
    let upgrade = upgrade.offered();
    let forbidden = upgrade.as_ref().is_some_and(|(protocol, _)| forbids(action, protocol));
    // Tunnels by CONNECT are not offered: passing the request on as if it were another would be a
    // hole.
    if forbidden || outgoing.method == Method::CONNECT {
        return Local::UPGRADE_REFUSED.send(exchange);
    }
    if rewrite(&exchange, matched, action, &mut outgoing) {
        exchange.note_changed(&outgoing);
    }
    trace::note_sent(&mut exchange, &outgoing);
    // Of the request as it is sent, as at Envoy.
    let chosen = if action.hash.is_empty() {
        hash::Chosen::default()
    } else {
        hash::choose(&action.hash, cluster, &facts(&exchange, &outgoing))
    };
    let limits = limits(&exchange, action, &outgoing);
    let policy = action.retry.as_ref().or(matched.host.retry.as_ref());
    let time = TimeLeft {
        whole: limits.response,
        per_try: policy.and_then(|policy| policy.per_try_timeout),
        is_told: !matched.router.suppress_envoy_headers,
        in_grpc: exchange.is_grpc && action.max_grpc_timeout.is_some(),
    };
    let mirrors = mirror::drawn(action, matched.config);
    let is_kept = policy.is_some_and(|policy| policy.retries > 0) || !mirrors.is_empty();
    let own = BodyLimit::in_force(matched.route.body_limit, matched.host.body_limit);
    let keep_body = is_kept.then(|| exchange.downstream.listener.buffer.of_body(own));
    let purpose = purpose(cluster, http2 && upgrade.is_none());
    // Over HTTP/2 that is another request (RFC 8441), which Envoy sends unasked and its peer resets;
    // we do not send it, nor a request that has lost what it asks for.
    let extends = upgrade.is_some() && purpose == Purpose::Http2;
    if extends && !cluster.connection.http.upgrades_http2 {
        return Local::of_fault(UpstreamFault::Reset).send(exchange);
    }
    let source = BodySource::new(body, purpose, keep_body, &exchange);
    let mut attempts = Attempts {
        matched,
        cluster,
        policy: policy.map(AsRef::as_ref),
        hash: chosen.hash,
        purpose,
        alpn: if matched.router.mesh_alpn { AlpnSource::Mesh } else { AlpnSource::Transport },
        time,
        endpoint_host: (action.host_rewrite == HostRewrite::Endpoint)
            .then(|| HostChange::of(matched, action)),
        outgoing,
        extends,
    };
    let mirrored = if mirrors.is_empty() || !attempts.has_endpoint(&exchange) {
        None
    } else {
        mirror::send(&exchange, matched, time, mirrors, &attempts.outgoing, &source)
    };
    let progress = Rc::clone(&exchange.progress);
    let answered = if limits.any() {
        let worker = Rc::clone(&exchange.downstream.worker);
        tokio::select! {
            answered = attempts.until_answered(&mut exchange, source) => answered,
            over = limits.overtime(&worker.deadlines, &progress) => {
                // Silence is nobody's fault; an endpoint that had its time is to blame.
                if over == Over::Response {
                    exchange.judge(Outcome::LocalOrigin);
                }
                Err(Unanswered::Local(told(over, &progress)))
            }
        }
    } else {
        attempts.until_answered(&mut exchange, source).await
    };
    match answered {
        // Any such answer would open the stream, and its body would be lost (RFC 8441 section 5).
        Ok(answer)
            if upgrade.is_some()
                && exchange.is_http2()
                && answer.response.status().is_success() =>
        {
            Local::of_fault(UpstreamFault::Protocol).send(exchange)
        }
        Ok(answer) => {
            let mut reply = pass_on(exchange, matched, answer, limits, upgrade);
            for cookie in chosen.cookies {
                reply.headers_mut().append(header::SET_COOKIE, cookie);
            }
            reply
        }
        Err(Unanswered::Downstream(fault)) => reply::part(exchange, fault),
        Err(Unanswered::Local(local)) => {
            if let Some(recording) = mirrored {
                recording.take_arrived().await;
            }
            local.send(exchange)
        }
    }
}

fn limits(exchange: &Exchange, action: &Forward, outgoing: &Outgoing) -> TimeLimits {
    let manager = &exchange.manager;
    let some = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
    TimeLimits {
        response: some(time_limit(action, exchange, outgoing)),
        idle: some(action.idle_timeout.or(manager.stream_idle_timeout)),
        request: some(manager.request_timeout),
    }
}

/// What a client is told whose time is over.
fn told(over: Over, progress: &Progress) -> Local {
    match over {
        Over::Response => Local::TIMEOUT,
        Over::Request => Local::REQUEST_TIMEOUT,
        Over::Idle if progress.has_ended() => Local::IDLE_TIMEOUT,
        Over::Idle => Local::IDLE_UPLOAD,
    }
}

fn choose_cluster(
    matched: &Matched<'_>,
    action: &Forward,
    outgoing: &Outgoing,
) -> Option<Arc<str>> {
    match (&action.cluster, matched.target) {
        (_, Some(target)) => Some(Arc::clone(&target.name)),
        (ClusterChoice::One(name), None) => Some(Arc::clone(name)),
        (ClusterChoice::Header(name), None) => {
            outgoing.headers.get(&**name)?.to_str().ok().map(Into::into)
        }
        (ClusterChoice::Weighted(_), None) => None,
    }
}

fn forbids(action: &Forward, protocol: &str) -> bool {
    action.upgrades.iter().any(|(name, allowed)| name.eq_ignore_ascii_case(protocol) && !allowed)
}

/// Header changes, then path and host, so that a change of headers sees the request as it came;
/// whether there were any.
fn rewrite(
    exchange: &Exchange,
    matched: &Matched<'_>,
    action: &Forward,
    outgoing: &mut Outgoing,
) -> bool {
    let mut changed = change_request(exchange, matched, outgoing);
    if let Some(path) = action.path_rewrite.apply(&outgoing.path, &matched.route.matching.path) {
        if !matched.router.suppress_envoy_headers
            && let Ok(original) = HeaderValue::from_bytes(outgoing.path.as_bytes())
        {
            outgoing.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        outgoing.path = path;
        changed = true;
    }
    let of_target = matched.target.and_then(|target| target.host_rewrite.as_ref());
    let host = match (of_target, &action.host_rewrite) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(host.to_string()),
        (None, HostRewrite::Header(name)) => outgoing
            .headers
            .get(&**name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned),
        (None, HostRewrite::Keep | HostRewrite::Endpoint) => None,
    };
    if let Some(host) = host {
        HostChange::of(matched, action).apply(outgoing, host);
        changed = true;
    }
    changed
}

/// The route's time limit, or what a gRPC client asks for where the route lets it. Zero is no
/// limit.
fn time_limit(action: &Forward, exchange: &Exchange, outgoing: &Outgoing) -> Option<Duration> {
    let Some(most) = action.max_grpc_timeout.filter(|_| exchange.is_grpc) else {
        return action.timeout;
    };
    let asked = outgoing.headers.get(GRPC_TIMEOUT).and_then(|asked| asked.to_str().ok());
    let asked = asked.and_then(parse_grpc_timeout).filter(|asked| !asked.is_zero());
    Some(match asked {
        Some(asked) if most.is_zero() => asked,
        Some(asked) => asked.min(most),
        None => most,
    })
}

fn purpose(cluster: &Cluster, http2: bool) -> Purpose {
    match cluster.connection.protocol {
        UpstreamProtocol::Http1 => Purpose::Http1,
        UpstreamProtocol::Http2 => Purpose::Http2,
        UpstreamProtocol::Downstream if http2 => Purpose::Http2,
        UpstreamProtocol::Downstream => Purpose::Http1,
    }
}

/// Passes a response on: headers changed as configured, the body streamed.
fn pass_on(
    mut exchange: Box<Exchange>,
    matched: &Matched<'_>,
    answer: Answer,
    limits: TimeLimits,
    upgrade: Option<(String, hyper::upgrade::OnUpgrade)>,
) -> Reply {
    let Answer { mut response, lease, holds, taken } = answer;
    exchange.details = Cow::Borrowed("via_upstream");
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut headers = std::mem::take(response.headers_mut());
    let protocol = match response.status() {
        // The stream is open by its status alone.
        _ if switching && exchange.is_http2() => None,
        _ if switching => upgrade.as_ref().map(|(protocol, _)| protocol.clone()),
        // It has to say to what (RFC 9110, section 15.5.22), as an option of the connection
        // (section 7.8); HTTP/2 has no word for it.
        StatusCode::UPGRADE_REQUIRED if !exchange.is_http2() && names_upgrade(&headers) => {
            let named = headers.get(header::UPGRADE).and_then(|named| named.to_str().ok());
            named.map(ToOwned::to_owned)
        }
        _ => None,
    };
    if protocol.is_some() || has_hop_by_hop(&headers) {
        remove_hop_by_hop(&mut headers, protocol.as_deref());
    }
    // Who answers before the request has ended was not waited for.
    if !matched.router.suppress_envoy_headers && exchange.progress.is_whole() && upgrade.is_none() {
        headers.insert(X_ENVOY_SERVICE_TIME, HeaderValue::from(millis(taken)));
    }
    if matched.host.attempt_count_in_response {
        headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
    }
    for level in matched.levels() {
        change_response(&exchange, &level.response, &mut headers);
    }
    reply::common(&mut headers, &exchange);
    let status = response.status().as_u16();
    exchange.note_response(status, &headers);
    match upgrade.filter(|_| switching) {
        Some((_, downstream)) => {
            let notes = exchange.notes.clone();
            let over_http2 = exchange.is_http2();
            upgrade::join(downstream, response, lease, holds, exchange);
            let status = if over_http2 { StatusCode::OK.as_u16() } else { status };
            let mut reply = reply::respond(status, headers, ResponseBody::settled(None));
            if !notes.is_empty() {
                reply.extensions_mut().insert(notes);
            }
            reply
        }
        None => {
            let body = ResponseBody::upstream(response.into_body(), lease, holds, limits, exchange);
            reply::respond(status, headers, body)
        }
    }
}
