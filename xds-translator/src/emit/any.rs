//! Small values that every message needs: `Any`, wrappers, durations, extensions by name.

use std::time::Duration;

use prost::{Message, Name};

use super::pb::{core, protobuf, types};

/// Envoy's names of extensions end in these; the type inside decides, the name is what people see.
pub(super) mod names {
    pub(crate) const TLS: &str = "envoy.transport_sockets.tls";
    pub(crate) const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";
    pub(crate) const PROXY_PROTOCOL: &str = "envoy.transport_sockets.upstream_proxy_protocol";
    pub(crate) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    pub(crate) const DNS_CLUSTER: &str = "envoy.cluster.dns";
    pub(crate) const NAMED_CLUSTER: &str = "envoy.clusters.dynamic_forward_proxy";
    pub(crate) const FAULT: &str = "envoy.filters.http.fault";
    pub(crate) const ASK: &str = "envoy.filters.http.ext_authz";
    pub(crate) const NETWORK_ASK: &str = "envoy.filters.network.ext_authz";
    pub(crate) const TOKENS: &str = "envoy.filters.http.jwt_authn";
    pub(crate) const CORS: &str = "envoy.filters.http.cors";
}

/// A message with its type URL.
pub(super) fn any<T: Name + Message>(message: &T) -> protobuf::Any {
    protobuf::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

/// A transport socket: its name and configuration.
pub(super) fn transport_socket<T: Name + Message>(name: &str, config: &T) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(config))),
    }
}

/// A present number.
pub(super) fn uint32(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

/// A present number.
pub(super) fn uint64(value: u64) -> Option<protobuf::UInt64Value> {
    Some(protobuf::UInt64Value { value })
}

/// A present truth value.
pub(super) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

/// A duration, at most as long as Envoy's timers run (292 years).
pub(super) fn duration(value: Duration) -> protobuf::Duration {
    const LONGEST: i64 = 9_223_372_035;
    let seconds = i64::try_from(value.as_secs()).unwrap_or(LONGEST).min(LONGEST);
    protobuf::Duration { seconds, nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0) }
}

/// A percentage.
pub(super) fn percent(value: u32) -> types::Percent {
    types::Percent { value: f64::from(value) }
}

/// `parts` of a million as a percentage.
pub(super) fn percent_of_million(parts: u32) -> types::Percent {
    types::Percent { value: f64::from(parts) / 10_000.0 }
}

/// `parts` of a million.
pub(super) fn per_million(parts: u32) -> types::FractionalPercent {
    let denominator = types::fractional_percent::DenominatorType::Million as i32;
    types::FractionalPercent { numerator: parts, denominator }
}
