//! How those who make Istio's metrics are told what is different of them: the configuration of
//! Istio's filter `istio.stats`, and the log by which an Envoy without it tells its agent what it
//! has carried.
//!
//! ```text
//! control plane ──`istio.stats` {PluginConfig}──▶ a proxy that has it
//! control plane ──access log {StatsLog}──▶ Envoy ──entries──▶ its agent
//! ```

use std::collections::{BTreeMap, BTreeSet};

use prost_types::value::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Node metadata that says who makes a proxy's metrics.
pub const METRICS_MAKER: &str = "FERROMESH_METRICS";
/// The proxy itself: it has `istio.stats`.
pub const METRICS_BY_PROXY: &str = "proxy";
/// Its agent: the bootstrap has the cluster [`STATS_CLUSTER`].
pub const METRICS_BY_AGENT: &str = "agent";
/// The cluster of an agent that takes log entries for metrics.
pub const STATS_CLUSTER: &str = "ferromesh-stats";
/// The name of the filter.
pub const FILTER: &str = "istio.stats";
/// The type of its configuration.
pub const CONFIG_TYPE: &str = "stats.PluginConfig";

/// A metric of Istio's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Metric {
    /// Requests: `istio_requests_total`.
    Requests,
    /// How long they took: `istio_request_duration_milliseconds`.
    RequestDuration,
    /// Sizes of their bodies: `istio_request_bytes`.
    RequestBytes,
    /// Sizes of their answers' bodies: `istio_response_bytes`.
    ResponseBytes,
    /// Connections begun: `istio_tcp_connections_opened_total`.
    ConnectionsOpened,
    /// Connections ended: `istio_tcp_connections_closed_total`.
    ConnectionsClosed,
    /// Bytes of connections, towards who opened them: `istio_tcp_sent_bytes_total`.
    BytesSent,
    /// Bytes of connections, from who opened them: `istio_tcp_received_bytes_total`.
    BytesReceived,
}

impl Metric {
    /// Those of requests: one that is counted, and three with a distribution.
    pub const OF_REQUESTS: [Self; 4] =
        [Self::Requests, Self::RequestDuration, Self::RequestBytes, Self::ResponseBytes];
    /// Those of connections.
    pub const OF_CONNECTIONS: [Self; 4] =
        [Self::ConnectionsOpened, Self::ConnectionsClosed, Self::BytesSent, Self::BytesReceived];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::OF_REQUESTS.into_iter().chain(Self::OF_CONNECTIONS)
    }

    /// Its name with `istio_` before it.
    pub fn full_name(self) -> &'static str {
        match self {
            Self::Requests => "istio_requests_total",
            Self::RequestDuration => "istio_request_duration_milliseconds",
            Self::RequestBytes => "istio_request_bytes",
            Self::ResponseBytes => "istio_response_bytes",
            Self::ConnectionsOpened => "istio_tcp_connections_opened_total",
            Self::ConnectionsClosed => "istio_tcp_connections_closed_total",
            Self::BytesSent => "istio_tcp_sent_bytes_total",
            Self::BytesReceived => "istio_tcp_received_bytes_total",
        }
    }

    /// Its name as configurations write it.
    pub fn name(self) -> &'static str {
        &self.full_name()["istio_".len()..]
    }
}

/// What is different of metrics: `stats.PluginConfig` of Istio's proxy, as far as it is acted on.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// The host that a request names is not its service where none is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_host_header_fallback: bool,
    /// Later ones add to what earlier ones say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricConfig>,
}

/// What is different of some metrics.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricConfig {
    /// Which, without `istio_`; empty: all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// CEL expressions by the label that says what they give.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, String>,
    /// Labels that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags_to_remove: Vec<String>,
    /// Whether they are left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drop: bool,
}

impl PluginConfig {
    /// Every expression that a label says; sorted, unique. Values are told by their place in it.
    pub fn expressions(&self) -> Vec<&str> {
        let all = self.metrics.iter().flat_map(|metric| metric.dimensions.values());
        all.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// A configuration whose type only a text says: `xds.type.v3.TypedStruct`, as which the filter's is
/// sent, since the API that is shared has no type for it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypedStruct {
    /// The type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its fields.
    #[prost(message, optional, tag = "2")]
    pub value: Option<prost_types::Struct>,
}

impl prost::Name for TypedStruct {
    const PACKAGE: &'static str = "xds.type.v3";
    const NAME: &'static str = "TypedStruct";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

impl From<&PluginConfig> for TypedStruct {
    fn from(config: &PluginConfig) -> Self {
        let fields = serde_json::to_value(config).ok().and_then(|json| match to_value(json).kind {
            Some(Kind::StructValue(fields)) => Some(fields),
            _ => None,
        });
        let type_url = format!("type.googleapis.com/{CONFIG_TYPE}");
        Self { type_url, value: Some(fields.unwrap_or_default()) }
    }
}

impl TryFrom<TypedStruct> for PluginConfig {
    type Error = serde_json::Error;

    fn try_from(wrapped: TypedStruct) -> Result<Self, Self::Error> {
        let fields = wrapped.value.unwrap_or_default();
        let value = prost_types::Value { kind: Some(Kind::StructValue(fields)) };
        serde_json::from_value(from_value(value))
    }
}

fn to_value(json: Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(yes) => Kind::BoolValue(yes),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.into_iter().map(to_value).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields.into_iter().map(|(key, value)| (key, to_value(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

fn from_value(value: prost_types::Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(yes)) => yes.into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_value).collect(),
        Some(Kind::StructValue(of)) => {
            of.fields.into_iter().map(|(key, value)| (key, from_value(value))).collect()
        }
    }
}

/// What an Envoy's log for its agent is about; the log's name is its JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsLog {
    /// Whether the entries are of calls to the workload, else of calls of it.
    pub inbound: bool,
    /// What is different of the metrics.
    pub config: PluginConfig,
}

/// Tags of an entry, beside the values of expressions ([`value_tag`]).
pub mod tag {
    /// The SPIFFE id that the other side has proven.
    pub const PEER: &str = "peer";
    /// The workload at the other end, as endpoints' metadata `istio.workload` says.
    pub const WORKLOAD: &str = "workload";
    /// The services that were called, as clusters' metadata `istio.services` says, in JSON.
    pub const SERVICES: &str = "services";
    /// Response flags, between commas.
    pub const FLAGS: &str = "flags";
    /// The status of a gRPC request.
    pub const GRPC_STATUS: &str = "grpc_status";
}

/// The tag with the value of the expression in this place.
pub fn value_tag(place: usize) -> String {
    format!("value.{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_in_its_name_what_is_different() {
        let metric = |name: &str, value: &str| MetricConfig {
            name: name.into(),
            dimensions: [("path".to_owned(), value.to_owned())].into(),
            ..MetricConfig::default()
        };
        let metrics = ["request.path", "'a'", "request.path"].map(|value| metric("x", value));
        let config = PluginConfig { metrics: metrics.into(), ..PluginConfig::default() };
        assert_eq!(config.expressions(), ["'a'", "request.path"]);
        let wrapped = TypedStruct::from(&config);
        assert_eq!(PluginConfig::try_from(wrapped).expect("the same"), config);
        let log = StatsLog { inbound: true, config };
        let name = serde_json::to_string(&log).expect("JSON");
        assert_eq!(serde_json::from_str::<StatsLog>(&name).expect("the same"), log);
        let strange = r#"{"inbound":true,"config":{"definitions":[]}}"#;
        assert!(serde_json::from_str::<StatsLog>(strange).is_err());
    }
}
