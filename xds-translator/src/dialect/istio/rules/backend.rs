//! Rules of DestinationRules.

use std::{collections::BTreeSet, time::Duration};

use super::line::remark_refused_by_ours;
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_export_to, check_host, check_percent, check_range, each},
        istio::destination_rule::{
            ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, CookieAttribute,
            DestinationRule, LoadBalancer, LocalityLbSetting, OutlierDetection, TrafficPolicy,
            Tunnel,
        },
    },
};

pub(in crate::dialect::istio) fn check(rule: &DestinationRule, at: &mut Decoder) {
    if !rule.host.is_empty() {
        at.within("host", |at| check_host(&rule.host, HostForm::Wildcard, at));
    }
    check_export_to(&rule.export_to, at);
    if let Some(policy) = &rule.traffic_policy {
        at.within("trafficPolicy", |at| check_policy(policy, at));
    }
    if rule.workload_selector.is_none() {
        remark_credentials(rule, at);
    }
    let mut names = BTreeSet::new();
    each("subsets", &rule.subsets, at, |subset, at| {
        if !subset.name.is_empty() && !names.insert(subset.name.clone()) {
            at.within("name", |at| at.invalid(format!("a second subset `{}`", subset.name), None));
        }
        if subset.name.chars().any(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        {
            at.within("name", |at| {
                at.invalid(format!("`{}` is not a subset name", subset.name), None)
            });
        }
        if let Some(policy) = &subset.traffic_policy {
            at.within("trafficPolicy", |at| check_policy(policy, at));
        }
    });
}

/// Says what sidecars do with the credentials of a rule that selects no clients: none of theirs is
/// named by it.
fn remark_credentials(rule: &DestinationRule, at: &mut Decoder) {
    let policy = |policy: Option<&TrafficPolicy>, at: &mut Decoder| {
        let Some(policy) = policy else { return };
        at.within("trafficPolicy", |at| {
            remark_credential(policy.tls.as_ref(), at);
            each("portLevelSettings", &policy.port_level_settings, at, |port, at| {
                remark_credential(port.tls.as_ref(), at);
            });
        });
    };
    policy(rule.traffic_policy.as_ref(), at);
    each("subsets", &rule.subsets, at, |subset, at| policy(subset.traffic_policy.as_ref(), at));
}

fn remark_credential(tls: Option<&ClientTls>, at: &mut Decoder) {
    let Some(tls) = tls.filter(|tls| !tls.credential_name.is_empty()) else { return };
    let instead = match tls.mode.unwrap_or_default() {
        ClientTlsMode::Mutual => "sidecars have no certificate to show, and their requests fail",
        ClientTlsMode::Simple => "sidecars trust the authorities of their system instead",
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return,
    };
    let message = format!("only gateways use it, since the rule selects no clients; {instead}");
    at.within("tls", |at| {
        at.within("credentialName", |at| {
            at.remark(|path| {
                Diagnostic::info(Code::NoEffect, path, message)
                    .fix("`workloadSelector` with the labels of the sidecars that are meant")
            });
        });
    });
}

/// Says which setting beside others our own proxy does not know.
fn remark_unknown_here(policy: &TrafficPolicy, at: &mut Decoder) {
    if policy.proxy_protocol.is_some() {
        at.within("proxyProtocol", |at| remark_refused_by_ours("clusters with it", at));
    }
    if let Some(tunnel) = &policy.tunnel {
        at.within("tunnel", |at| {
            check_tunnel(tunnel, at);
            remark_refused_by_ours("listeners that lead there", at);
        });
    }
}

fn check_tunnel(tunnel: &Tunnel, at: &mut Decoder) {
    let word = &*tunnel.protocol;
    if !["", "CONNECT", "POST"].iter().any(|known| known.eq_ignore_ascii_case(word)) {
        let path = at.path().field("protocol");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a way to ask for a tunnel");
        at.note(finding.expected("`CONNECT` or `POST`", format!("`{word}`")));
    }
    // What is missing is noted already.
    if !tunnel.target_host.is_empty() {
        at.within("targetHost", |at| check_host(&tunnel.target_host, HostForm::Exact, at));
    }
}

/// Says that blocks of ports, which replace those above whole, take TLS away.
fn remark_lost_tls(policy: &TrafficPolicy, at: &mut Decoder) {
    let upper = policy.tls.as_ref().and_then(|tls| tls.mode);
    let Some(mode) = upper.filter(|mode| *mode != ClientTlsMode::Disable) else { return };
    each("portLevelSettings", &policy.port_level_settings, at, |port, at| {
        if port.tls.is_none() {
            let message = format!(
                "replaces the blocks above whole, and so drops `tls: {{mode: {}}}`: connections to \
                 this port are plaintext unless the mesh secures them by itself",
                mode.as_str()
            );
            at.remark(|path| {
                Diagnostic::warning(Code::DropsSettings, path, message).fix("repeat `tls` here")
            });
        }
    });
}

fn check_policy(policy: &TrafficPolicy, at: &mut Decoder) {
    remark_unknown_here(policy, at);
    remark_lost_tls(policy, at);
    check_blocks(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        at,
    );
    let mut ports = BTreeSet::new();
    each("portLevelSettings", &policy.port_level_settings, at, |port, at| {
        if let Some(number) = port.port.as_ref().map(|p| p.number)
            && !ports.insert(number)
        {
            let message = format!("a second block for port {number}: the first holds");
            at.remark(|path| Diagnostic::warning(Code::NoEffect, path, message));
        }
        if port.port.as_ref().is_some_and(|p| p.number == 0) {
            at.within("port", |at| check_range("number", 0, 1..=65535, at));
        }
        check_blocks(
            port.load_balancer.as_ref(),
            port.connection_pool.as_ref(),
            port.outlier_detection.as_ref(),
            port.tls.as_ref(),
            at,
        );
    });
    if let Some(percent) = policy.retry_budget.as_ref().and_then(|b| b.percent) {
        at.within("retryBudget", |at| {
            check_percent("percent", percent, at);
            if percent.fract() != 0.0 {
                let message = format!("{percent} is no whole number: {} is taken", percent.round());
                at.within("percent", |at| {
                    at.remark(|path| {
                        Diagnostic::warning(Code::NoEffect, path, message)
                            .fix(format!("`{}`", percent.round()))
                    })
                });
            }
        });
    }
}

fn check_blocks(
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTls>,
    at: &mut Decoder,
) {
    if let Some(balancer) = balancer {
        at.within("loadBalancer", |at| check_balancer(balancer, at));
    }
    if let Some(pool) = pool {
        at.within("connectionPool", |at| check_pool(pool, at));
    }
    if let Some(outlier) = outlier {
        at.within("outlierDetection", |at| check_outlier(outlier, at));
    }
    if let Some(tls) = tls {
        at.within("tls", |at| check_tls(tls, at));
    }
}

fn check_balancer(balancer: &LoadBalancer, at: &mut Decoder) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        at.invalid("only one of `simple`, `consistentHash` may be given", None);
    }
    if let Some(hash) = &balancer.consistent_hash {
        at.within("consistentHash", |at| check_hash(hash, at));
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        at.within("localityLbSetting", |at| check_locality(locality, at));
    }
    if let Some(warmup) = &balancer.warmup {
        at.within("warmup", |at| {
            check_percent("minimumPercent", warmup.minimum_percent.unwrap_or_default(), at)
        });
    }
}

fn check_hash(hash: &ConsistentHash, at: &mut Decoder) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|given| **given).count() != 1 {
        let message = "exactly one of `httpHeaderName`, `httpCookie`, `useSourceIp`, `httpQueryParameterName` must be given";
        at.invalid(message, None);
    }
    for (field, name) in [
        ("httpHeaderName", hash.http_header_name.as_ref()),
        ("httpQueryParameterName", hash.http_query_parameter_name.as_ref()),
    ] {
        if name.is_some_and(|n| n.is_empty()) {
            at.within(field, |at| at.invalid("empty", None));
        }
    }
    if hash.http_cookie.as_ref().is_some_and(|c| c.name.is_empty()) {
        at.within("httpCookie", |at| at.within("name", |at| at.invalid("empty", None)));
    }
    if let Some(cookie) = &hash.http_cookie {
        at.within("httpCookie", |at| check_attributes(&cookie.attributes, at));
    }
    check_table(hash, at);
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        at.invalid("only one of `ringHash`, `maglev` may be given", None);
    }
}

/// Notes attributes that would end the header, or begin another attribute (RFC 6265 section 4.1.1).
fn check_attributes(attributes: &[CookieAttribute], at: &mut Decoder) {
    let fits = |text: &str| text.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b';');
    each("attributes", attributes, at, |attribute, at| {
        for (field, text, more) in
            [("name", &attribute.name, true), ("value", &attribute.value, false)]
        {
            if !fits(text) || (more && text.contains('=')) {
                at.within(field, |at| at.invalid("not a part of a cookie's attribute", None));
            }
        }
    });
}

/// Notes a table that Envoy refuses.
fn check_table(hash: &ConsistentHash, at: &mut Decoder) {
    const LARGEST_RING: u64 = 8 << 20;
    const LARGEST_MAGLEV: u64 = 5_000_011;
    let ring = hash.ring_hash.as_ref().and_then(|r| r.minimum_ring_size).or(hash.minimum_ring_size);
    if let Some(size) = ring.filter(|size| *size > LARGEST_RING) {
        at.invalid(format!("a ring of {size} entries; at most {LARGEST_RING} are allowed"), None);
    }
    let Some(size) = hash.maglev.as_ref().and_then(|m| m.table_size) else { return };
    let nearest = (2..=size.clamp(2, LARGEST_MAGLEV)).rev().find(|n| is_prime(*n));
    if nearest != Some(size) {
        let path = at.path().field("maglev").field("tableSize");
        let expected = format!("a prime number up to {LARGEST_MAGLEV}");
        let mut finding =
            Diagnostic::error(Code::InvalidValue, path, "not a size for a Maglev table");
        finding = finding.expected(expected, size.to_string());
        finding.fix = nearest.map(|n| n.to_string());
        at.note(finding);
    }
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

pub(super) fn check_locality(locality: &LocalityLbSetting, at: &mut Decoder) {
    if !locality.distribute.is_empty() && !locality.failover.is_empty() {
        at.invalid("only one of `distribute`, `failover` may be given", None);
    }
    each("distribute", &locality.distribute, at, |distribute, at| {
        let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 {
            let path = at.path().field("to");
            at.note(
                Diagnostic::error(Code::InvalidValue, path, "shares do not add up")
                    .expected("100 in sum", sum.to_string()),
            );
        }
    });
}

pub(super) fn check_pool(pool: &ConnectionPool, at: &mut Decoder) {
    if let Some(tcp) = &pool.tcp {
        at.within("tcp", |at| {
            check_millisecond("connectTimeout", tcp.connect_timeout, at);
            check_millisecond("maxConnectionDuration", tcp.max_connection_duration, at);
        });
    }
    /// Of HTTP/2 (RFC 9113 section 6.5.2, as Envoy takes it).
    const MOST_STREAMS: i64 = i32::MAX as i64;
    if let Some(streams) = pool.http.as_ref().and_then(|http| http.max_concurrent_streams) {
        at.within("http", |at| {
            check_range("maxConcurrentStreams", i64::from(streams), 0..=MOST_STREAMS, at)
        });
    }
    if let Some(keepalive) = pool.http.as_ref().and_then(|h| h.http2_keep_alive.as_ref()) {
        at.within("http", |at| {
            at.within("http2KeepAlive", |at| {
                check_millisecond("interval", keepalive.interval, at);
                check_millisecond("timeout", keepalive.timeout, at);
            });
        });
    }
    if pool.http.as_ref().is_some_and(|h| {
        h.use_client_protocol == Some(true)
            && matches!(
                h.h2_upgrade_policy,
                Some(crate::dialect::istio::destination_rule::H2UpgradePolicy::Upgrade)
            )
    }) {
        at.within("http", |at| {
            at.invalid(
                "`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other",
                None,
            )
        });
    }
}

pub(super) fn check_outlier(outlier: &OutlierDetection, at: &mut Decoder) {
    for (field, percent) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if let Some(percent) = percent {
            check_range(field, i64::from(percent), 0..=100, at);
        }
    }
    each("outlierDetectionHttpErrorCodes", &outlier.http_error_codes, at, |code, at| {
        if !(100..600).contains(code) {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a status");
            at.note(finding.expected("100 to 599", code.to_string()));
        }
    });
    if !outlier.http_error_codes.is_empty() {
        at.within("outlierDetectionHttpErrorCodes", |at| {
            remark_refused_by_ours("clusters with it", at)
        });
    }
    for (field, duration) in
        [("interval", outlier.interval), ("baseEjectionTime", outlier.base_ejection_time)]
    {
        check_millisecond(field, duration, at);
    }
    if outlier.consecutive_errors.is_some() {
        let in_force = match outlier.consecutive_5xx_errors {
            Some(count) => format!("`consecutive5xxErrors: {count}` applies"),
            None => "`consecutive5xxErrors: 5` applies".to_owned(),
        };
        at.within("consecutiveErrors", |at| {
            at.remark(|path| {
                Diagnostic::warning(
                    Code::Deprecated,
                    path,
                    format!("deprecated and without effect, {in_force}"),
                )
                .fix("`consecutive5xxErrors` or `consecutiveGatewayErrors`")
            });
        });
    }
}

/// Notes a duration that is given and shorter than a millisecond.
fn check_millisecond(field: &'static str, duration: Option<Duration>, at: &mut Decoder) {
    if duration.is_some_and(|d| d.as_millis() == 0) {
        at.within(field, |at| at.invalid("shorter than 1ms", None));
    }
}

/// Says that there is no TLS where `mode` is not given, and that what is written beside it does
/// nothing.
fn check_mode(tls: &ClientTls, at: &mut Decoder) {
    const WITHOUT: &str = "plaintext, without the mesh's own mutual TLS too";
    let bare = *tls == ClientTls { mode: tls.mode, ..ClientTls::default() };
    match tls.mode {
        None if bare => {
            let message = format!("without `mode` it is DISABLE: {WITHOUT}");
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message).fix(
                    "`mode: ISTIO_MUTUAL`, `mode: SIMPLE`, or `mode: DISABLE` if that is meant",
                )
            });
        }
        None => {
            let path = at.path().field("mode");
            let message =
                format!("missing, so that it is DISABLE ({WITHOUT}) and the rest does nothing");
            let expected = "SIMPLE, MUTUAL or ISTIO_MUTUAL beside other fields";
            let finding = Diagnostic::error(Code::MissingField, path, message);
            at.note(finding.expected(expected, "no mode").fix("`mode: SIMPLE`"));
        }
        Some(ClientTlsMode::Disable) if !bare => {
            let message = format!("mode DISABLE is {WITHOUT}: the other fields do nothing");
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message)
                    .fix("`mode: SIMPLE`, or take them out")
            });
        }
        Some(_) => {}
    }
}

fn check_tls(tls: &ClientTls, at: &mut Decoder) {
    /// A longer name fits into no hello.
    const LONGEST_NAME: usize = 255;
    if tls.sni.len() > LONGEST_NAME {
        at.within("sni", |at| at.invalid(format!("longer than {LONGEST_NAME} bytes"), None));
    }
    check_mode(tls, at);
    let files = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
    match tls.mode.unwrap_or_default() {
        ClientTlsMode::Mutual if !files && tls.credential_name.is_empty() => {
            at.invalid(
                "mode MUTUAL needs `clientCertificate` and `privateKey`, or `credentialName`",
                None,
            );
        }
        ClientTlsMode::IstioMutual
            if files || !tls.ca_certificates.is_empty() || !tls.credential_name.is_empty() =>
        {
            at.invalid(
                "mode ISTIO_MUTUAL uses the mesh's own certificates; no others may be given",
                Some("mode `MUTUAL`".to_owned()),
            );
        }
        _ => {}
    }
}
