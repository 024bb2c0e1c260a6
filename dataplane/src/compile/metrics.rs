//! What is different of metrics: the configuration of Istio's filter `istio.stats`, which changes no
//! request and so takes part in no chain of filters.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::{
    envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpFilter, http_filter::ConfigType,
    },
    google::protobuf::Any,
};
use ferromesh_proto::stats::{CONFIG_TYPE, MetricConfig, PluginConfig, TypedStruct};
use prost::Message;

use super::{
    cel,
    field::{At, Invalid, type_name},
    filter::inner_type,
};
use crate::runtime::metric_rules::{MetricRules, OwnMetrics};

/// The configuration as Istio's control plane encodes it.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
    #[prost(message, repeated, tag = "8")]
    metrics: Vec<EncodedMetric>,
    /// Metrics of users' own.
    #[prost(bytes = "vec", repeated, tag = "9")]
    definitions: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedMetric {
    #[prost(btree_map = "string, string", tag = "1")]
    dimensions: BTreeMap<String, String>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    tags_to_remove: Vec<String>,
    #[prost(bool, tag = "5")]
    drop: bool,
}

/// Compiles what the filters of a connection manager say of metrics; nothing if they say nothing.
pub(super) fn of_filters(filters: &[HttpFilter]) -> Result<Option<Arc<OwnMetrics>>, Invalid> {
    for (place, filter) in filters.iter().enumerate() {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
        if inner_type(config).is_ok_and(|kind| kind == CONFIG_TYPE) {
            let place = format!("http_filters[{place}].typed_config");
            return compile(config).at(&place).map(Some);
        }
    }
    Ok(None)
}

/// Compiles the configuration of a filter.
pub(super) fn compile(config: &Any) -> Result<Arc<OwnMetrics>, Invalid> {
    let config = decode(config)?;
    let values = config.expressions().into_iter().map(cel::label);
    let values = values.collect::<Result<Vec<_>, Invalid>>().at("metrics")?;
    let rules = MetricRules::new(config).map_err(|e| Invalid::new(e.to_string()).at("metrics"))?;
    Ok(Arc::new(OwnMetrics { rules: Arc::new(rules), values }))
}

fn decode(config: &Any) -> Result<PluginConfig, Invalid> {
    let malformed = |error: prost::DecodeError| Invalid::new(error.to_string());
    if type_name(config) != CONFIG_TYPE {
        let wrapped = TypedStruct::decode(&*config.value).map_err(malformed)?;
        return PluginConfig::try_from(wrapped)
            .map_err(|error| Invalid::new(error.to_string()).at("value"));
    }
    let encoded = Encoded::decode(&*config.value).map_err(malformed)?;
    if !encoded.definitions.is_empty() {
        return Err(Invalid::new("not supported by this proxy").at("definitions"));
    }
    let metric = |metric: EncodedMetric| MetricConfig {
        name: metric.name,
        dimensions: metric.dimensions,
        tags_to_remove: metric.tags_to_remove,
        drop: metric.drop,
    };
    Ok(PluginConfig {
        disable_host_header_fallback: encoded.disable_host_header_fallback,
        metrics: encoded.metrics.into_iter().map(metric).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(kind: &str, value: Vec<u8>) -> Any {
        Any { type_url: format!("type.googleapis.com/{kind}"), value }
    }

    #[test]
    fn both_forms_say_the_same() {
        let metric = EncodedMetric {
            dimensions: [("path".to_owned(), "request.url_path".to_owned())].into(),
            name: "requests_total".to_owned(),
            ..EncodedMetric::default()
        };
        let encoded = Encoded { metrics: vec![metric], ..Encoded::default() };
        let encoded = packed(CONFIG_TYPE, encoded.encode_to_vec());
        let config = decode(&encoded).expect("a configuration");
        let wrapped = TypedStruct::from(&config).encode_to_vec();
        let wrapped = packed("xds.type.v3.TypedStruct", wrapped);
        assert_eq!(decode(&wrapped).expect("the same"), config);
        let compiled = compile(&wrapped).expect("metrics");
        assert_eq!((compiled.values.len(), compiled.asks_request_headers()), (1, false));
    }

    #[test]
    fn what_cannot_be_acted_on_is_refused_by_its_place() {
        let refused = |metric: MetricConfig| {
            let config = PluginConfig { metrics: vec![metric], ..PluginConfig::default() };
            let wrapped = TypedStruct::from(&config).encode_to_vec();
            let error = compile(&packed("xds.type.v3.TypedStruct", wrapped)).expect_err("refused");
            format!("{}: {}", error.field, error.reason)
        };
        let of_time = MetricConfig {
            dimensions: [("at".to_owned(), "request.time".to_owned())].into(),
            ..MetricConfig::default()
        };
        assert!(refused(of_time).contains("request.time gives no single value"));
        let messages = MetricConfig { name: "request_messages".into(), ..MetricConfig::default() };
        assert_eq!(refused(messages), "metrics: there is no metric request_messages");
        let own = Encoded { definitions: vec![Vec::new()], ..Encoded::default() };
        let error = compile(&packed(CONFIG_TYPE, own.encode_to_vec())).expect_err("refused");
        assert!(error.field.starts_with("definitions"), "{}", error.field);
    }
}
