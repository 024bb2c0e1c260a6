//! Rules of DestinationRules.

use std::collections::BTreeSet;

use super::{
    check_percent, check_range, each,
    text::{HostForm, check_export_to, check_host},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        istio::destination_rule::{
            ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, DestinationRule, LoadBalancer, LocalityLbSetting,
            OutlierDetection, TrafficPolicy,
        },
    },
};

pub(super) fn check(rule: &DestinationRule, at: &mut Decoder) {
    if !rule.host.is_empty() {
        at.within("host", |at| check_host(&rule.host, HostForm::Wildcard, at));
    }
    check_export_to(&rule.export_to, at);
    if let Some(policy) = &rule.traffic_policy {
        at.within("trafficPolicy", |at| check_policy(policy, at));
    }
    let mut names = BTreeSet::new();
    each("subsets", &rule.subsets, at, |subset, at| {
        if !subset.name.is_empty() && !names.insert(subset.name.clone()) {
            at.within("name", |at| at.invalid(format!("a second subset `{}`", subset.name), None));
        }
        if subset.name.chars().any(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            at.within("name", |at| at.invalid(format!("`{}` is not a subset name", subset.name), None));
        }
        if let Some(policy) = &subset.traffic_policy {
            at.within("trafficPolicy", |at| check_policy(policy, at));
        }
    });
}

fn check_policy(policy: &TrafficPolicy, at: &mut Decoder) {
    check_blocks(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        at,
    );
    each("portLevelSettings", &policy.port_level_settings, at, |port, at| {
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
        at.within("retryBudget", |at| check_percent("percent", percent, at));
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
        at.within("warmup", |at| check_percent("minimumPercent", warmup.minimum_percent.unwrap_or_default(), at));
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
        let message =
            "exactly one of `httpHeaderName`, `httpCookie`, `useSourceIp`, `httpQueryParameterName` must be given";
        at.invalid(message, None);
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        at.invalid("only one of `ringHash`, `maglev` may be given", None);
    }
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
    if pool.tcp.as_ref().and_then(|t| t.connect_timeout).is_some_and(|t| t.as_millis() == 0) {
        at.within("tcp", |at| at.within("connectTimeout", |at| at.invalid("shorter than 1ms", None)));
    }
    if pool.http.as_ref().is_some_and(|h| {
        h.use_client_protocol == Some(true)
            && matches!(h.h2_upgrade_policy, Some(crate::dialect::istio::destination_rule::H2UpgradePolicy::Upgrade))
    }) {
        at.within("http", |at| {
            at.invalid("`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other", None)
        });
    }
}

pub(super) fn check_outlier(outlier: &OutlierDetection, at: &mut Decoder) {
    for (field, percent) in
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
    {
        if let Some(percent) = percent {
            check_range(field, i64::from(percent), 0..=100, at);
        }
    }
    for (field, duration) in [("interval", outlier.interval), ("baseEjectionTime", outlier.base_ejection_time)] {
        if duration.is_some_and(|d| d.as_millis() == 0) {
            at.within(field, |at| at.invalid("shorter than 1ms", None));
        }
    }
    if outlier.consecutive_errors.is_some() {
        let in_force = match outlier.consecutive_5xx_errors {
            Some(count) => format!("`consecutive5xxErrors: {count}` applies"),
            None => "`consecutive5xxErrors: 5` applies".to_owned(),
        };
        at.within("consecutiveErrors", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::Deprecated, path, format!("deprecated and without effect, {in_force}"))
                    .fix("`consecutive5xxErrors` or `consecutiveGatewayErrors`")
            });
        });
    }
}

fn check_tls(tls: &ClientTls, at: &mut Decoder) {
    let files = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
    match tls.mode {
        ClientTlsMode::Mutual if !files && tls.credential_name.is_empty() => {
            at.invalid("mode MUTUAL needs `clientCertificate` and `privateKey`, or `credentialName`", None);
        }
        ClientTlsMode::IstioMutual if files || !tls.ca_certificates.is_empty() || !tls.credential_name.is_empty() => {
            at.invalid(
                "mode ISTIO_MUTUAL uses the mesh's own certificates; no others may be given",
                Some("mode `MUTUAL`".to_owned()),
            );
        }
        _ => {}
    }
}
