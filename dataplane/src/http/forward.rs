//! Forwards a request: chooses the cluster, rewrites, watches the time limits, and passes the answer on.
//!
//! The route's time limit spans all [`super::attempt`]s and the response's body; it starts when the whole request was
//! received, as in Envoy.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    attempt::{Answer, Attempts, BodySource, Unanswered},
    body::Progress,
    exchange::Exchange,
    hash,
    headers::{
        X_ENVOY_ATTEMPT_COUNT, X_ENVOY_EXPECTED_TIMEOUT, X_ENVOY_ORIGINAL_PATH, X_ENVOY_SERVICE_TIME, X_FORWARDED_HOST,
    },
    mirror,
    reply::{self, Local, Reply},
    response::{BodyLimits, ResponseBody},
    route::{Matched, Outgoing, Received, change_request, change_response, facts},
    upgrade,
};
use crate::{
    runtime::{
        Cluster,
        action::{Forward, HostRewrite},
        cluster::UpstreamProtocol,
        route::ClusterChoice,
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
    let Some(cluster) = choose_cluster(matched, action, &outgoing).and_then(|name| matched.config.cluster(&name))
    else {
        let missing = Local::new(action.cluster_not_found_status, "", Flags::NO_CLUSTER, "cluster_not_found");
        return missing.send(exchange);
    };
    exchange.cluster = Some(Arc::clone(cluster));
    let Received { body, upgrade, http2 } = received;
    let forbidden = upgrade.as_ref().is_some_and(|(protocol, _)| forbids(action, protocol));
    // Tunnels by CONNECT are not offered: passing the request on as if it were another would be a hole.
    if forbidden || outgoing.method == Method::CONNECT {
        return Local::UPGRADE_REFUSED.send(exchange);
    }
    let chosen = if action.hash.is_empty() {
        hash::Chosen::default()
    } else {
        hash::choose(&action.hash, cluster, &facts(&exchange, &outgoing))
    };
    rewrite(&exchange, matched, action, &mut outgoing);
    let limits = Limits::of(&exchange, action, &outgoing, upgrade.is_some());
    if let Some(limit) = limits.response.filter(|_| !matched.suppress_envoy_headers) {
        outgoing.headers.insert(X_ENVOY_EXPECTED_TIMEOUT, HeaderValue::from(millis(limit)));
    }
    let policy = action.retry.as_ref().or(matched.host.retry.as_ref()).filter(|_| upgrade.is_none());
    let mirrors = mirror::drawn(action, matched.config);
    let keep_body = policy.is_some_and(|policy| policy.retries > 0) || !mirrors.is_empty();
    let source = BodySource::new(body, http2, keep_body, &exchange);
    mirror::send(&exchange, mirrors, &outgoing, &source);
    let attempts = Attempts {
        matched,
        cluster,
        policy: policy.map(AsRef::as_ref),
        hash: chosen.hash,
        purpose: purpose(cluster, http2 && upgrade.is_none()),
        alpn: if matched.mesh_alpn { AlpnSource::Mesh } else { AlpnSource::Transport },
        endpoint_host: action.host_rewrite == HostRewrite::Endpoint,
        outgoing,
    };
    let progress = Rc::clone(&exchange.progress);
    let started = Instant::now();
    let answered = if limits.any() {
        tokio::select! {
            answered = attempts.until_answered(&mut exchange, source) => answered,
            local = limits.overtime(&progress) => {
                // Silence is nobody's fault; an endpoint that had its time is to blame.
                if local.flag == Flags::UPSTREAM_TIMEOUT {
                    exchange.judge(Outcome::LocalOrigin);
                }
                Err(Unanswered::Local(local))
            }
        }
    } else {
        attempts.until_answered(&mut exchange, source).await
    };
    match answered {
        Ok(answer) => {
            let limits = limits.of_body(started, progress.has_ended());
            let mut reply = pass_on(exchange, matched, answer, limits, upgrade);
            for cookie in chosen.cookies {
                reply.headers_mut().append(header::SET_COOKIE, cookie);
            }
            reply
        }
        Err(Unanswered::Downstream(fault)) => reply::part(exchange, fault),
        Err(Unanswered::Local(local)) => local.send(exchange),
    }
}

/// Time limits of one request.
struct Limits {
    /// For the whole response, from the end of the request.
    response: Option<Duration>,
    /// For silence, from the end of the request.
    idle: Option<Duration>,
    /// For receiving the request.
    request: Option<Duration>,
}

impl Limits {
    fn of(exchange: &Exchange, action: &Forward, outgoing: &Outgoing, is_upgrade: bool) -> Self {
        let manager = &exchange.manager;
        let some = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        Self {
            // An upgraded connection may last for ever.
            response: some(time_limit(action, exchange, outgoing)).filter(|_| !is_upgrade),
            idle: some(action.idle_timeout.or(manager.stream_idle_timeout)).filter(|_| !is_upgrade),
            request: some(manager.request_timeout),
        }
    }

    fn any(&self) -> bool {
        self.response.or(self.idle).or(self.request).is_some()
    }

    /// Ends with the answer to give when one of the limits is over.
    async fn overtime(&self, progress: &Progress) -> Local {
        let never = Duration::MAX;
        tokio::select! {
            () = async { progress.ended().await; sleep(self.response.unwrap_or(never)).await } => Local::TIMEOUT,
            () = async { progress.ended().await; sleep(self.idle.unwrap_or(never)).await } => Local::IDLE_TIMEOUT,
            () = still_receiving_after(self.request.unwrap_or(never), progress) => Local::REQUEST_TIMEOUT,
        }
    }

    /// What is left for the response's body. A request that is still being received leaves it all.
    fn of_body(&self, started: Instant, request_ended: bool) -> BodyLimits {
        let from = if request_ended { started } else { Instant::now() };
        BodyLimits {
            deadline: self.response.map(|limit| Box::pin(sleep_until(from + limit))),
            idle: self.idle.map(|limit| (limit, Box::pin(sleep(limit)))),
        }
    }
}

async fn still_receiving_after(limit: Duration, progress: &Progress) {
    sleep(limit).await;
    if progress.has_ended() {
        std::future::pending::<()>().await;
    }
}

fn choose_cluster(matched: &Matched<'_>, action: &Forward, outgoing: &Outgoing) -> Option<Arc<str>> {
    match (&action.cluster, matched.target) {
        (_, Some(target)) => Some(Arc::clone(&target.name)),
        (ClusterChoice::One(name), None) => Some(Arc::clone(name)),
        (ClusterChoice::Header(name), None) => outgoing.headers.get(&**name)?.to_str().ok().map(Into::into),
        (ClusterChoice::Weighted(_), None) => None,
    }
}

fn forbids(action: &Forward, protocol: &str) -> bool {
    action.upgrades.iter().any(|(name, allowed)| name.eq_ignore_ascii_case(protocol) && !allowed)
}

/// Header changes, then path and host, so that a change of headers sees the request as it came.
fn rewrite(exchange: &Exchange, matched: &Matched<'_>, action: &Forward, outgoing: &mut Outgoing) {
    change_request(exchange, matched, outgoing);
    if let Some(path) = action.path_rewrite.apply(&outgoing.path, &matched.route.matching.path) {
        if !matched.suppress_envoy_headers
            && let Ok(original) = HeaderValue::from_str(&outgoing.path)
        {
            outgoing.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        outgoing.path = path;
    }
    let of_target = matched.target.and_then(|target| target.host_rewrite.as_ref());
    let host = match (of_target, &action.host_rewrite) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(host.to_string()),
        (None, HostRewrite::Header(name)) => {
            outgoing.headers.get(&**name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
        }
        (None, HostRewrite::Keep | HostRewrite::Endpoint) => None,
    };
    if let Some(host) = host {
        replace_host(outgoing, host, action.append_forwarded_host);
    }
}

fn replace_host(outgoing: &mut Outgoing, host: String, keep_original: bool) {
    if keep_original && let Ok(original) = HeaderValue::from_str(&outgoing.authority) {
        outgoing.headers.append(X_FORWARDED_HOST, original);
    }
    outgoing.authority = host;
}

/// The route's time limit, or what a gRPC client asks for where the route lets it.
fn time_limit(action: &Forward, exchange: &Exchange, outgoing: &Outgoing) -> Option<Duration> {
    let asked = action.max_grpc_timeout.filter(|_| exchange.is_grpc).and_then(|most| {
        let asked = parse_grpc_timeout(outgoing.headers.get("grpc-timeout")?.to_str().ok()?)?;
        Some(if most.is_zero() { asked } else { asked.min(most) })
    });
    asked.or(action.timeout)
}

/// `8S`, `500m`… (gRPC over HTTP/2, "Timeout").
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = Some(digits).filter(|digits| digits.len() <= 8)?.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
    limits: BodyLimits,
    upgrade: Option<(String, hyper::upgrade::OnUpgrade)>,
) -> Reply {
    let Answer { mut response, lease, holds, taken } = answer;
    exchange.details = Cow::Borrowed("via_upstream");
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = upgrade.as_ref().filter(|_| switching).map(|(protocol, _)| protocol.clone());
    let mut headers = std::mem::take(response.headers_mut());
    super::headers::remove_hop_by_hop(&mut headers, protocol.as_deref());
    if !matched.suppress_envoy_headers {
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
            upgrade::join(downstream, response, lease, holds, exchange);
            reply::respond(status, headers, ResponseBody::empty(None))
        }
        None => {
            let body = ResponseBody::upstream(response.into_body(), lease, holds, limits, exchange);
            reply::respond(status, headers, body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read() {
        for (text, expected) in [
            ("8S", Some(Duration::from_secs(8))),
            ("500m", Some(Duration::from_millis(500))),
            ("1H", Some(Duration::from_secs(3600))),
            ("7u", Some(Duration::from_micros(7))),
            ("S", None),
            ("", None),
            ("123456789S", None),
            ("5x", None),
            ("5é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }
}
