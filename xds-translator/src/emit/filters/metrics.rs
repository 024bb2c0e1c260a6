//! What makers of metrics are told: the filter of a proxy that makes them, or the log by which an
//! Envoy has its agent make them.

use std::sync::Arc;

use ferromesh_proto::stats::{
    FILTER, MetricConfig, PluginConfig, STATS_CLUSTER, StatsLog, TypedStruct, tag, value_tag,
};

use super::{http, network};
use crate::{
    emit::{
        access_log::named,
        any::duration,
        collector::grpc,
        pb::{
            accesslog::AccessLog,
            core,
            grpc_log::{
                CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
            },
            hcm::HttpFilter,
            listener::Filter,
            tracing::{CustomTag, custom_tag},
        },
    },
    ir::{CallSide, LabelChange},
    plan::{MetricsPlan, PlannedCollector, UnknownHosts},
};

/// How long entries wait for others.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(1);

/// The filter of a connection manager, where the proxy makes metrics that are not as usual.
pub(super) fn http_filter(plan: &MetricsPlan) -> Option<HttpFilter> {
    told(plan).map(|config| http(FILTER, &config))
}

/// The filter before a TCP proxy, likewise.
pub(in crate::emit) fn network_filter(plan: &MetricsPlan) -> Option<Filter> {
    told(plan).map(|config| network(FILTER, &config))
}

fn told(plan: &MetricsPlan) -> Option<TypedStruct> {
    if !plan.by_proxy || plan.changes.is_empty() {
        return None;
    }
    Some(TypedStruct::from(&config(plan)))
}

/// The log of a connection manager, where an agent makes the metrics.
pub(super) fn http_log(plan: &MetricsPlan) -> Option<AccessLog> {
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(common(plan)?),
        additional_request_headers_to_log: vec!["content-type".to_owned()],
        ..Default::default()
    };
    Some(named("envoy.access_loggers.http_grpc", &config))
}

/// The log of a TCP proxy, likewise.
pub(super) fn tcp_log(plan: &MetricsPlan) -> Option<AccessLog> {
    let config = TcpGrpcAccessLogConfig { common_config: Some(common(plan)?) };
    Some(named("envoy.access_loggers.tcp_grpc", &config))
}

fn common(plan: &MetricsPlan) -> Option<CommonGrpcAccessLogConfig> {
    if plan.by_proxy {
        return None;
    }
    let log = StatsLog { inbound: plan.side == CallSide::Server, config: config(plan) };
    let agent = PlannedCollector { cluster: STATS_CLUSTER.into(), host: STATS_CLUSTER.into() };
    Some(CommonGrpcAccessLogConfig {
        log_name: serde_json::to_string(&log).ok()?,
        grpc_service: Some(grpc(&agent)),
        transport_api_version: core::ApiVersion::V3 as i32,
        buffer_flush_interval: Some(duration(FLUSH)),
        custom_tags: tags(&log),
        ..Default::default()
    })
}

/// What an entry says beside what it says anyway.
fn tags(log: &StatsLog) -> Vec<CustomTag> {
    let peer = if log.inbound { "%DOWNSTREAM_PEER_URI_SAN%" } else { "%UPSTREAM_PEER_URI_SAN%" };
    let standard = [
        (tag::PEER, peer),
        (tag::WORKLOAD, "%UPSTREAM_METADATA(istio:workload)%"),
        (tag::SERVICES, "%CLUSTER_METADATA(istio:services)%"),
        (tag::FLAGS, "%RESPONSE_FLAGS%"),
        (tag::GRPC_STATUS, "%GRPC_STATUS_NUMBER%"),
    ];
    let standard = standard.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expressions = log.config.expressions().into_iter().enumerate();
    let values = expressions.map(|(place, text)| (value_tag(place), format!("%CEL({text})%")));
    let tag = |(tag, value)| CustomTag { tag, r#type: Some(custom_tag::Type::Value(value)) };
    standard.into_iter().chain(values).map(tag).collect()
}

fn config(plan: &MetricsPlan) -> PluginConfig {
    let metrics = plan.changes.iter().map(|(metric, plan)| {
        let values = plan.labels.iter().filter_map(|(name, change)| match change {
            LabelChange::Value(value) => Some((name.to_string(), value.to_string())),
            LabelChange::Removed => None,
        });
        let removed = plan.labels.iter().filter(|(_, change)| **change == LabelChange::Removed);
        MetricConfig {
            name: metric.name().to_owned(),
            dimensions: values.collect(),
            tags_to_remove: removed.map(|(name, _): (&Arc<str>, _)| name.to_string()).collect(),
            drop: plan.dropped,
        }
    });
    PluginConfig {
        disable_host_header_fallback: plan.unknown_hosts == UnknownHosts::Unnamed,
        metrics: metrics.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{emit::tests::check_part, ir::Metric, plan::MetricPlan};

    fn plan(by_proxy: bool) -> MetricsPlan {
        let labels = [
            ("path".into(), LabelChange::Value("request.url_path".into())),
            ("source_app".into(), LabelChange::Removed),
        ];
        let requests = MetricPlan { dropped: false, labels: labels.into() };
        let bytes = MetricPlan { dropped: true, ..MetricPlan::default() };
        MetricsPlan {
            by_proxy,
            side: CallSide::Server,
            unknown_hosts: UnknownHosts::Unnamed,
            changes: [(Metric::Requests, requests), (Metric::RequestBytes, bytes)].into(),
        }
    }

    #[test]
    fn a_proxy_that_makes_them_is_told_by_its_filter() {
        check_part(
            &http_filter(&plan(true)).expect("a filter"),
            r#"{"name": "istio.stats", "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/stats.PluginConfig",
                "value": {"disable_host_header_fallback": true, "metrics": [
                    {"name": "requests_total", "dimensions": {"path": "request.url_path"},
                        "tags_to_remove": ["source_app"]},
                    {"name": "request_bytes", "drop": true}]}}}"#,
        );
        assert_eq!((http_log(&plan(true)), tcp_log(&plan(true))), (None, None));
        let usual = MetricsPlan { changes: Default::default(), ..plan(true) };
        assert_eq!((http_filter(&usual), network_filter(&usual)), (None, None));
    }

    #[test]
    fn an_agent_is_told_by_a_log() {
        assert_eq!((http_filter(&plan(false)), network_filter(&plan(false))), (None, None));
        let usual = MetricsPlan { changes: Default::default(), ..plan(false) };
        assert!(tcp_log(&usual).is_some());
        let common = common(&plan(false)).expect("a log");
        let log: StatsLog = serde_json::from_str(&common.log_name).expect("what it is about");
        assert!(log.inbound && log.config == config(&plan(false)));
        let tags: Vec<_> = common.custom_tags.iter().map(|tag| tag.tag.as_str()).collect();
        assert_eq!(tags, ["peer", "workload", "services", "flags", "grpc_status", "value.0"]);
        check_part(
            &common.custom_tags[5],
            r#"{"tag": "value.0", "value": "%CEL(request.url_path)%"}"#,
        );
    }
}
