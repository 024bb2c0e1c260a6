//! What is different of Istio's metrics: which of them are left out, and which labels they lose,
//! get, or have with other values.
//!
//! Spec: Istio's `stats.PluginConfig`.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

pub use ferromesh_proto::stats::Metric;
use ferromesh_proto::stats::PluginConfig;

use super::cel::Expression;

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
        let mut metrics: [MetricRule; 8] = Default::default();
        let expressions = config.expressions();
        for part in &config.metrics {
            let mut meant =
                Metric::all().filter(|m| part.name.is_empty() || m.name() == part.name).peekable();
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
