//! Rules of DestinationRules.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    label::{check_labels, check_selector},
    line::remark_refused_by_ours,
    locality::{check_locality, check_zone_aware},
    share::remark_deprecated,
    time::{check_duration, check_optional_duration},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{
            Audience, HostForm, check_export_to, check_host, check_percent, check_range, each,
            is_domain, is_label,
        },
        istio::destination_rule::{
            ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, CookieAttribute,
            DestinationRule, H2UpgradePolicy, HttpCookie, HttpPool, LoadBalancer, OutlierDetection,
            PortTrafficPolicy, TcpPool, TrafficPolicy, Tunnel, Warmup,
        },
    },
};

pub(in crate::dialect::istio) fn check(rule: &DestinationRule, at: &mut Decoder) {
    if !rule.host.is_empty() {
        at.within("host", |at| check_host(&rule.host, HostForm::Wildcard, at));
    }
    check_export_to(&rule.export_to, Audience::Somebody, at);
    check_selector("workloadSelector", rule.workload_selector.as_ref(), at);
    check_reach(rule, at);
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
        if !subset.name.is_empty() && !is_label(&subset.name) {
            at.within("name", |at| {
                at.invalid(format!("`{}` is not a subset name", subset.name), None)
            });
        }
        check_labels("labels", &subset.labels, at);
        if let Some(policy) = &subset.traffic_policy {
            at.within("trafficPolicy", |at| check_policy(policy, at));
        }
    });
}

/// Notes an `exportTo` beyond the namespace whose clients the rule selects.
fn check_reach(rule: &DestinationRule, at: &mut Decoder) {
    let own: Arc<str> = at.namespace().into();
    if rule.workload_selector.is_some()
        && rule.export_to.iter().any(|to| !(&**to == "." || *to == own))
    {
        at.within("exportTo", |at| {
            let fix = Some("`exportTo: [.]`, or take out `workloadSelector`".to_owned());
            at.invalid("`workloadSelector` selects clients of the rule's own namespace alone", fix);
        });
    }
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
    if let Some(tunnel) = &policy.tunnel {
        at.within("tunnel", |at| {
            check_tunnel(tunnel, at);
            remark_refused_by_ours("listeners that lead there", at);
        });
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
    if *policy == TrafficPolicy::default() {
        at.invalid("empty: at least one field must be given", Some("take it out".to_owned()));
    }
    remark_unknown_here(policy, at);
    remark_lost_tls(policy, at);
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        at.invalid("only one of `tunnel`, `proxyProtocol` may be given", None);
    }
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
        if *port == (PortTrafficPolicy { port: port.port.clone(), ..Default::default() }) {
            let fix = Some("take it out".to_owned());
            at.invalid("empty: at least one field beside `port` must be given", fix);
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
                            .instead(percent.round() as i64)
                    })
                });
            }
        });
    }
}

fn check_tunnel(tunnel: &Tunnel, at: &mut Decoder) {
    if !matches!(&*tunnel.protocol, "" | "CONNECT" | "POST") {
        let path = at.path().field("protocol");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a way to tunnel");
        at.note(finding.expected("`CONNECT` or `POST`", format!("`{}`", tunnel.protocol)));
    }
    let host = &*tunnel.target_host;
    // A missing host is noted already.
    if !host.is_empty() && !is_domain(host) && host.parse::<IpAddr>().is_err() {
        at.within("targetHost", |at| {
            at.invalid(format!("`{host}` is neither a host name nor an address"), None)
        });
    }
    if tunnel.target_port == 0 {
        check_range("targetPort", 0, 1..=65535, at);
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
        at.within("loadBalancer", |at| check_balancer(balancer, outlier.is_some(), at));
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

/// `ejects`: whether endpoints are ejected, without which nothing fails over.
fn check_balancer(balancer: &LoadBalancer, ejects: bool, at: &mut Decoder) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        at.invalid("only one of `simple`, `consistentHash` may be given", None);
    }
    if balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some() {
        at.invalid("only one of `localityLbSetting`, `zoneAwareLbSetting` may be given", None);
    }
    if let Some(hash) = &balancer.consistent_hash {
        at.within("consistentHash", |at| check_hash(hash, at));
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        at.within("localityLbSetting", |at| check_locality(locality, ejects, at));
    }
    if let Some(zones) = &balancer.zone_aware_lb_setting {
        at.within("zoneAwareLbSetting", |at| check_zone_aware(zones, ejects, at));
    }
    check_duration("warmupDurationSecs", balancer.warmup_duration_secs, at);
    if let Some(warmup) = &balancer.warmup {
        at.within("warmup", |at| check_warmup(warmup, at));
    }
}

fn check_warmup(warmup: &Warmup, at: &mut Decoder) {
    check_duration("duration", warmup.duration, at);
    check_percent("minimumPercent", warmup.minimum_percent.unwrap_or_default(), at);
    if let Some(aggression) = warmup.aggression.filter(|aggression| *aggression <= 0.0) {
        let path = at.path().field("aggression");
        let finding = Diagnostic::error(Code::InvalidValue, path, "out of range");
        at.note(finding.expected("more than 0", aggression.to_string()));
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
    if let Some(cookie) = &hash.http_cookie {
        at.within("httpCookie", |at| check_cookie(cookie, at));
    }
    check_table(hash, at);
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        at.invalid("only one of `ringHash`, `maglev` may be given", None);
    }
    if hash.minimum_ring_size.is_some_and(|size| size > 0) {
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            at.invalid("only one of `minimumRingSize`, `ringHash`, `maglev` may be given", None);
        }
        let instead = "`ringHash: {minimumRingSize: …}`";
        at.within("minimumRingSize", |at| remark_deprecated(instead, at));
    }
}

fn check_cookie(cookie: &HttpCookie, at: &mut Decoder) {
    let mut names = BTreeSet::new();
    each("attributes", &cookie.attributes, at, |attribute, at| {
        at.within("name", |at| match &*attribute.name {
            "" => at.invalid("empty", None),
            name if !names.insert(attribute.name.clone()) => {
                at.invalid(format!("a second attribute `{name}`"), None)
            }
            _ => {}
        });
    });
    check_attributes(&cookie.attributes, at);
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
    /// A prime, and the first that Istio does not take.
    const TOO_LARGE: u64 = 5_000_011;
    let ring = hash.ring_hash.as_ref().and_then(|r| r.minimum_ring_size).or(hash.minimum_ring_size);
    if let Some(size) = ring.filter(|size| *size > LARGEST_RING) {
        at.invalid(format!("a ring of {size} entries; at most {LARGEST_RING} are allowed"), None);
    }
    let Some(maglev) = &hash.maglev else { return };
    let size = maglev.table_size.unwrap_or_default();
    let nearest = (2..=size.clamp(2, TOO_LARGE - 1)).rev().find(|n| is_prime(*n));
    if nearest != Some(size) {
        let path = at.path().field("maglev").field("tableSize");
        let expected = format!("a prime number below {TOO_LARGE}");
        let got = maglev.table_size.map_or("nothing".to_owned(), |size| size.to_string());
        let mut finding =
            Diagnostic::error(Code::InvalidValue, path, "not a size for a Maglev table");
        finding = finding.expected(expected, got);
        finding.fix = nearest.filter(|_| size > 2).or(Some(65_537)).map(|n| n.to_string());
        at.note(finding);
    }
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

pub(super) fn check_pool(pool: &ConnectionPool, at: &mut Decoder) {
    if *pool == ConnectionPool::default() {
        at.invalid("empty: one of `tcp`, `http` must be given", Some("take it out".to_owned()));
    }
    if let Some(tcp) = &pool.tcp {
        at.within("tcp", |at| check_tcp(tcp, at));
    }
    if let Some(http) = &pool.http {
        at.within("http", |at| check_http(http, at));
    }
}

fn check_tcp(tcp: &TcpPool, at: &mut Decoder) {
    check_duration("connectTimeout", tcp.connect_timeout, at);
    check_duration("maxConnectionDuration", tcp.max_connection_duration, at);
    check_optional_duration("idleTimeout", tcp.idle_timeout, at);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        at.within("tcpKeepalive", |at| {
            check_duration("time", keepalive.time, at);
            check_duration("interval", keepalive.interval, at);
        });
    }
    check_count("maxConnections", tcp.max_connections, at);
}

fn check_http(http: &HttpPool, at: &mut Decoder) {
    for (field, count) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        check_count(field, count, at);
    }
    check_duration("idleTimeout", http.idle_timeout, at);
    if let Some(keepalive) = &http.http2_keep_alive {
        at.within("http2KeepAlive", |at| {
            for (field, duration) in
                [("interval", keepalive.interval), ("timeout", keepalive.timeout)]
            {
                match duration {
                    None => at.missing(field, None),
                    given => check_duration(field, given, at),
                }
            }
        });
    }
    if http.use_client_protocol == Some(true)
        && http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade)
    {
        at.invalid("`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other", None);
    }
}

/// Notes a count that no proxy takes: Istio's numbers are signed.
fn check_count(field: &'static str, count: Option<u32>, at: &mut Decoder) {
    if let Some(count) = count {
        check_range(field, i64::from(count), 0..=i64::from(i32::MAX), at);
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
        check_duration(field, duration, at);
    }
    let local = outlier.consecutive_local_origin_failures.unwrap_or_default();
    if local > 0 && outlier.split_external_local_origin_errors != Some(true) {
        at.within("consecutiveLocalOriginFailures", |at| {
            let fix = Some("`splitExternalLocalOriginErrors: true`".to_owned());
            at.invalid("counts only where `splitExternalLocalOriginErrors` is true", fix);
        });
    }
    each("outlierDetectionHttpErrorCodes", &outlier.http_error_codes, at, |code, at| {
        if !(100..=599).contains(code) {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a status code");
            at.note(finding.expected("100..=599", code.to_string()));
        }
    });
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
    check_authorities(tls, at);
    let files = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
    match tls.mode.unwrap_or_default() {
        ClientTlsMode::Mutual if !files && tls.credential_name.is_empty() => {
            at.invalid(
                "mode MUTUAL needs `clientCertificate` and `privateKey`, or `credentialName`",
                None,
            );
        }
        ClientTlsMode::IstioMutual
            if files
                || !tls.ca_certificates.is_empty()
                || !tls.ca_crl.is_empty()
                || !tls.credential_name.is_empty() =>
        {
            at.invalid(
                "mode ISTIO_MUTUAL uses the mesh's own certificates; no others may be given",
                Some("mode `MUTUAL`".to_owned()),
            );
        }
        _ => {}
    }
}

/// Notes certificates that are given twice, or that nothing would be verified with.
fn check_authorities(tls: &ClientTls, at: &mut Decoder) {
    let verifies = matches!(tls.mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual));
    let named = !tls.credential_name.is_empty();
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
        ("caCrl", &tls.ca_crl),
    ];
    for (field, _) in files.into_iter().filter(|(_, path)| verifies && named && !path.is_empty()) {
        let fix = Some("take it out: the credential holds it".to_owned());
        at.within(field, |at| at.invalid("excluded by `credentialName`", fix));
    }
    if tls.insecure_skip_verify == Some(true) && verifies {
        let of_credential = named && tls.mode == Some(ClientTlsMode::Simple);
        let given = [
            ("caCertificates", !tls.ca_certificates.is_empty()),
            ("caCrl", !tls.ca_crl.is_empty()),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("credentialName", of_credential),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            at.within(field, |at| {
                let fix = Some("take out `insecureSkipVerify`".to_owned());
                at.invalid("nothing is verified with it where `insecureSkipVerify` is true", fix);
            });
        }
    }
    check_config_map(&tls.credential_name, at);
}

/// Notes a ConfigMap of another namespace: `configmap://NAMESPACE/NAME` or `configmap://NAME`.
fn check_config_map(credential: &str, at: &mut Decoder) {
    let Some(rest) = credential.strip_prefix("configmap://") else { return };
    let own: Arc<str> = at.namespace().into();
    let (namespace, name) = rest.split_once('/').unwrap_or((&own, rest));
    if name.is_empty() || name.contains('/') || *namespace != *own {
        at.within("credentialName", |at| {
            let fix = Some(format!("`configmap://{own}/NAME`"));
            at.invalid("a ConfigMap is named in the rule's own namespace", fix);
        });
    }
}
