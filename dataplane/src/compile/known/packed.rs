//! What an `Any` may hold, but for HTTP filters and what routes set for them.

use super::{
    super::connection_ask::CONNECTION_ASK,
    Message,
    access::NETWORK_RBAC,
    cluster::{CARES, DNS_CLUSTER},
    listener::{
        HTTP_INSPECTOR, MANAGER, ORIGINAL_DST_FILTER, PROXY_HEADER, TCP_PROXY, TLS_INSPECTOR,
    },
    log::FILE_LOG,
    protocol::HTTP_OPTIONS,
    route::{FILTER_CONFIG, OMIT_CANARY_HOSTS, PREVIOUS_HOSTS, PREVIOUS_PRIORITIES},
    tls::{ANNOUNCED, DOWNSTREAM_TLS, RAW_BUFFER, UPSTREAM_TLS},
};

/// Messages that are read out of an `Any`.
pub(super) static PACKED: &[&Message] = &[
    &MANAGER,
    &HTTP_OPTIONS,
    &UPSTREAM_TLS,
    &DOWNSTREAM_TLS,
    &RAW_BUFFER,
    &ANNOUNCED,
    &TCP_PROXY,
    &NETWORK_RBAC,
    &CONNECTION_ASK,
    &FILTER_CONFIG,
    &PREVIOUS_HOSTS,
    &OMIT_CANARY_HOSTS,
    &PREVIOUS_PRIORITIES,
    &TLS_INSPECTOR,
    &HTTP_INSPECTOR,
    &ORIGINAL_DST_FILTER,
    &PROXY_HEADER,
    &FILE_LOG,
    &DNS_CLUSTER,
    &CARES,
];

/// Configurations of what measures, tells or exchanges labels: without effect on which requests
/// pass, and where to.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    (
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "gRPC statistics of Envoy; ours count all alike",
    ),
    ("stats.PluginConfig", "of metrics, where it is read (`metrics`), and of no request"),
    ("io.istio.http.peer_metadata.Config", "labels of peers, for statistics"),
    (
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "ALPN per request, which our control plane says by filter state; without it the TLS \
         context's is offered",
    ),
    ("envoy.config.trace.v3.DatadogConfig", "spans in a form that is not made here"),
    ("envoy.config.trace.v3.SkyWalkingConfig", "spans in a form that is not made here"),
    // `istio-peer-exchange` is never agreed to, so that no byte of it is on the wire.
    ("envoy.tcp.metadataexchange.config.MetadataExchange", "labels of peers, for statistics"),
];

/// Why what has a configuration of this type does nothing to a request, if it is such a one.
pub fn without_effect(name: &str) -> Option<&'static str> {
    WITHOUT_EFFECT.iter().find(|(kind, _)| *kind == name).map(|(_, why)| *why)
}
