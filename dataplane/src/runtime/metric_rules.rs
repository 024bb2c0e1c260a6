//! What is different of Istio's metrics: which of them are left out, and which labels they lose,
//! get, or have with other values.
//!
//! Spec: Istio's `stats.PluginConfig`.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use ferromesh_proto::stats::PluginConfig;

use super::cel::Expression;

/// A metric of Istio's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// `istio_requests_total`.
    Requests,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestBytes,
    /// `istio_response_bytes`.
    ResponseBytes,
    /// `istio_tcp_connections_opened_total`.
    ConnectionsOpened,
    /// `istio_tcp_connections_closed_total`.
    ConnectionsClosed,
    /// `istio_tcp_sent_bytes_total`.
    BytesSent,
    /// `istio_tcp_received_bytes_total`.
    BytesReceived,
}

impl Metric {
    /// Those of requests: one that is counted, and three with a distribution.
    pub const OF_REQUESTS: [Self; 4] =
        [Self::Requests, Self::RequestDuration, Self::RequestBytes, Self::ResponseBytes];
    /// Those of connections.
    pub const OF_CONNECTIONS: [Self; 4] =
        [Self::ConnectionsOpened, Self::ConnectionsClosed, Self::BytesSent, Self::BytesReceived];

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

/// What becomes of a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelRule {
    /// It says the value of the expression in this place.
    Value(usize),
    /// It is left out.
    Removed,
}

/// What is different of metrics; equal if their configurations are.
#[derive(Debug)]
pub struct MetricRules {
    config: PluginConfig,
    hash: u64,
    /// By metric.
    metrics: [MetricRule; 8],
}

#[derive(Clone, Default, Debug)]
struct MetricRule {
    dropped: bool,
    /// Sorted by label.
    labels: Vec<(Arc<str>, LabelRule)>,
}

/// A metric that a configuration names and nobody has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no metric {0}")]
pub struct UnknownMetric(pub String);

impl MetricRules {
    /// The rules of a configuration; later parts of it add to what earlier ones say.
    ///
    /// # Errors
    /// [`UnknownMetric`] if it names one that proxies do not have.
    pub fn new(config: PluginConfig) -> Result<Self, UnknownMetric> {
        let all = || Metric::OF_REQUESTS.into_iter().chain(Metric::OF_CONNECTIONS);
        let mut metrics: [MetricRule; 8] = Default::default();
        let expressions = config.expressions();
        for part in &config.metrics {
            let mut meant =
                all().filter(|m| part.name.is_empty() || m.name() == part.name).peekable();
            if meant.peek().is_none() {
                return Err(UnknownMetric(part.name.clone()));
            }
            for metric in meant {
                let rule = &mut metrics[metric as usize];
                rule.dropped |= part.drop;
                for (label, text) in &part.dimensions {
                    let place = expressions.binary_search(&text.as_str()).unwrap_or_default();
                    rule.set(label, LabelRule::Value(place));
                }
                part.tags_to_remove.iter().for_each(|label| rule.set(label, LabelRule::Removed));
            }
        }
        let hash = rustc_hash::FxBuildHasher.hash_one(format!("{config:?}"));
        Ok(Self { hash, metrics, config })
    }

    /// The texts of the expressions whose values labels say, in their places.
    pub fn expressions(&self) -> Vec<&str> {
        self.config.expressions()
    }

    /// Whether a metric is left out.
    pub fn drops(&self, metric: Metric) -> bool {
        self.metrics[metric as usize].dropped
    }

    /// What becomes of the labels of a metric; sorted by label, unique.
    pub fn labels(&self, metric: Metric) -> &[(Arc<str>, LabelRule)] {
        &self.metrics[metric as usize].labels
    }

    /// Whether no metric is different.
    pub fn are_usual(&self) -> bool {
        self.metrics.iter().all(|rule| !rule.dropped && rule.labels.is_empty())
    }

    /// Whether the host that a request names is no service where none is known.
    pub fn ignores_hosts(&self) -> bool {
        self.config.disable_host_header_fallback
    }
}

/// Rules with what gives the values of labels.
#[derive(Debug)]
pub struct OwnMetrics {
    /// The rules.
    pub rules: Arc<MetricRules>,
    /// The expressions of [`MetricRules::expressions`], in their places.
    pub values: Vec<Expression>,
}

impl OwnMetrics {
    /// Whether any value may be of a header of the request.
    pub fn asks_request_headers(&self) -> bool {
        self.values.iter().any(Expression::asks_request_fields)
    }
}

impl MetricRule {
    fn set(&mut self, label: &str, rule: LabelRule) {
        match self.labels.binary_search_by(|(own, _)| (**own).cmp(label)) {
            Ok(place) => self.labels[place].1 = rule,
            Err(place) => self.labels.insert(place, (label.into(), rule)),
        }
    }
}

impl PartialEq for MetricRules {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.config == other.config
    }
}

impl Eq for MetricRules {}

impl Hash for MetricRules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::stats::MetricConfig;

    use super::*;

    #[test]
    fn later_parts_add_to_earlier_ones() {
        let part = |name: &str, label: &str, value: Option<&str>| MetricConfig {
            name: name.to_owned(),
            dimensions: value.map(|v| (label.to_owned(), v.to_owned())).into_iter().collect(),
            tags_to_remove: if value.is_none() { vec![label.to_owned()] } else { Vec::new() },
            drop: name == "request_bytes",
        };
        let config = PluginConfig {
            metrics: vec![
                part("", "b", Some("'y'")),
                part("", "a", Some("'x'")),
                part("requests_total", "b", None),
                part("request_bytes", "b", None),
            ],
            ..PluginConfig::default()
        };
        let rules = MetricRules::new(config.clone()).expect("rules");
        assert_eq!(rules.expressions(), ["'x'", "'y'"]);
        let of = |metric| {
            let labels = rules.labels(metric).iter();
            labels.map(|(label, rule)| (label.to_string(), *rule)).collect::<Vec<_>>()
        };
        let (a, b) = (("a".to_owned(), LabelRule::Value(0)), "b".to_owned());
        assert_eq!(of(Metric::Requests), [a.clone(), (b.clone(), LabelRule::Removed)]);
        assert_eq!(of(Metric::BytesSent), [a, (b, LabelRule::Value(1))]);
        assert!(rules.drops(Metric::RequestBytes) && !rules.drops(Metric::Requests));
        assert_eq!(rules, MetricRules::new(config).expect("rules"));
        let strange =
            PluginConfig { metrics: vec![part("messages", "a", None)], ..Default::default() };
        assert_eq!(MetricRules::new(strange).err(), Some(UnknownMetric("messages".to_owned())));
    }
}
