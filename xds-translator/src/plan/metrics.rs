//! What is different of a proxy's metrics, merged from the policies in a view's key.
//!
//! Rules are Istio's (`Telemetry`, `metrics`): of providers the most special level that names any
//! decides, and of what is said of a metric the last word counts, label by label.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{MetricPlan, MetricsMaker, MetricsPlan, UnknownHosts};
use crate::ir::{
    CallSide, Metric, MetricChange, TelemetryDefaults, TelemetryPolicy, TelemetryProvider,
};

/// Who fetches metrics where nobody says otherwise.
const BY_DEFAULT: &str = "prometheus";

/// Plans the metrics of one side; `None`: those that the proxy has by itself, if it has any.
pub(super) fn plan(
    mesh: &TelemetryDefaults,
    policies: &[&TelemetryPolicy],
    maker: MetricsMaker,
    side: CallSide,
) -> Option<MetricsPlan> {
    let by_proxy = match maker {
        MetricsMaker::Nobody => return None,
        MetricsMaker::Proxy => true,
        MetricsMaker::Agent => false,
    };
    let unknown_hosts = match side {
        CallSide::Client => UnknownHosts::Named,
        CallSide::Server => UnknownHosts::Unnamed,
    };
    let changes = changes(mesh, policies, side);
    Some(MetricsPlan { by_proxy, side, unknown_hosts, changes })
}

/// What is different on one side, by metric.
fn changes(
    mesh: &TelemetryDefaults,
    policies: &[&TelemetryPolicy],
    side: CallSide,
) -> BTreeMap<Metric, MetricPlan> {
    let mut plans: BTreeMap<Metric, MetricPlan> = BTreeMap::new();
    for change in in_force(mesh, policies) {
        if change.side.is_some_and(|own| own != side) {
            continue;
        }
        for metric in &change.metrics {
            let plan = plans.entry(*metric).or_default();
            plan.dropped = change.dropped.unwrap_or(plan.dropped);
            let labels = change.labels.iter();
            plan.labels.extend(labels.map(|(name, change)| (name.clone(), change.clone())));
        }
    }
    plans.retain(|_, plan| *plan != MetricPlan::default());
    plans
}

/// Changes for a provider that fetches metrics and that is spoken of, the least special first. A
/// rule that names no provider speaks of those of the rule before it.
fn in_force<'a>(
    mesh: &TelemetryDefaults,
    policies: &[&'a TelemetryPolicy],
) -> Vec<&'a MetricChange> {
    let lower = |names: &[Arc<str>]| -> BTreeSet<String> {
        names.iter().map(|name| name.to_lowercase()).collect()
    };
    let named = |policy: &&TelemetryPolicy| -> BTreeSet<String> {
        policy.metrics.iter().flat_map(|rule| lower(&rule.providers)).collect()
    };
    let in_scope = policies.iter().rev().map(named).find(|names| !names.is_empty());
    let mut before = BTreeSet::from([BY_DEFAULT.to_owned()]);
    let mut found = Vec::new();
    for rule in policies.iter().flat_map(|policy| &policy.metrics) {
        if !rule.providers.is_empty() {
            before = lower(&rule.providers);
        }
        let mut fetching = before
            .iter()
            .filter(|name| matches!(mesh.provider(name), Some(TelemetryProvider::Metrics)));
        let spoken_of = |name: &String| in_scope.as_ref().is_none_or(|own| own.contains(name));
        if fetching.any(spoken_of) {
            found.extend(&rule.changes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::Kind,
        ir::{LabelChange, MetricsRule, Selector},
        plan::fixture::origin,
    };

    /// `PROVIDER,… | CHANGE …`; a change is `METRIC!`, `METRIC?` (there again), `METRIC+LABEL` or
    /// `METRIC-LABEL`, with `>` or `<` before it for one side; the metric `*` is all of them.
    fn rule(text: &str) -> MetricsRule {
        let (providers, changes) = text.split_once('|').expect("providers | changes");
        let providers = providers.trim().split(',').filter(|name| !name.is_empty());
        MetricsRule {
            at: "".into(),
            providers: providers.map(Into::into).collect(),
            changes: changes.split_whitespace().map(change).collect(),
        }
    }

    fn change(text: &str) -> MetricChange {
        let side = match text.chars().next() {
            Some('>') => Some(CallSide::Client),
            Some('<') => Some(CallSide::Server),
            _ => None,
        };
        let text = text.trim_start_matches(['>', '<']);
        let at = text.find(['!', '?', '+', '-']).expect("what is done");
        let (metric, done) = text.split_at(at);
        let metrics = Metric::all().filter(|own| metric == "*" || own.name() == metric);
        let label = Arc::from(&done[1..]);
        MetricChange {
            side,
            metrics: metrics.collect(),
            dropped: match &done[..1] {
                "!" => Some(true),
                "?" => Some(false),
                _ => None,
            },
            labels: match &done[..1] {
                "+" => [(label, LabelChange::Value("request.method".into()))].into(),
                "-" => [(label, LabelChange::Removed)].into(),
                _ => BTreeMap::new(),
            },
        }
    }

    /// What clients do with `requests_total`, in the same words; the rest is left out.
    fn requests(levels: &[&[&str]]) -> String {
        let policies: Vec<TelemetryPolicy> = levels
            .iter()
            .map(|rules| TelemetryPolicy {
                origin: origin(Kind::TELEMETRY, "shop", "t"),
                selector: Selector::default(),
                tracing: Vec::new(),
                access_logs: Vec::new(),
                metrics: rules.iter().map(|text| rule(text)).collect(),
            })
            .collect();
        let policies: Vec<&TelemetryPolicy> = policies.iter().collect();
        let providers = [
            ("prometheus", TelemetryProvider::Metrics),
            ("mine", TelemetryProvider::Metrics),
            ("stackdriver", TelemetryProvider::Other),
        ];
        let providers = providers.map(|(name, provider)| (name.into(), provider)).into();
        let mesh = TelemetryDefaults { providers, ..Default::default() };
        let plan = plan(&mesh, &policies, MetricsMaker::Proxy, CallSide::Client).expect("a plan");
        let Some(plan) = plan.changes.get(&Metric::Requests) else { return String::new() };
        let labels = plan.labels.iter().map(|(name, change)| match change {
            LabelChange::Value(_) => format!("+{name}"),
            LabelChange::Removed => format!("-{name}"),
        });
        let dropped = plan.dropped.then(|| "!".to_owned());
        dropped.into_iter().chain(labels).collect()
    }

    #[test]
    fn the_last_word_on_a_label_counts() {
        assert_eq!(requests(&[]), "");
        assert_eq!(requests(&[&["|*+a"]]), "+a");
        assert_eq!(requests(&[&["|*+a *-b"], &["|requests_total-a"]]), "-a-b");
        assert_eq!(requests(&[&["|request_bytes+a"]]), "");
        assert_eq!(requests(&[&["|<*+a"]]), "", "servers only");
        assert_eq!(requests(&[&["|>*+a"]]), "+a");
        assert_eq!(requests(&[&["|*!"]]), "!");
        assert_eq!(requests(&[&["|*!"], &["|requests_total?"]]), "");
    }

    #[test]
    fn of_providers_the_most_special_level_decides() {
        assert_eq!(requests(&[&["prometheus|*+a"]]), "+a");
        assert_eq!(requests(&[&["prometheus|*+a"], &["|*+b"]]), "+a+b", "it is inherited");
        assert_eq!(requests(&[&["prometheus|*+a"], &["MINE|*+b"]]), "+b", "names have no case");
        assert_eq!(requests(&[&["|*+a"], &["stackdriver|*+b"]]), "", "nobody fetches there");
        assert_eq!(requests(&[&["nobody|*+a"]]), "");
    }

    #[test]
    fn nobody_is_told_who_makes_no_metrics() {
        let mesh = TelemetryDefaults::default();
        let plan = |maker| plan(&mesh, &[], maker, CallSide::Server);
        assert_eq!(plan(MetricsMaker::Nobody), None);
        assert!(plan(MetricsMaker::Proxy).is_some_and(|plan| plan.by_proxy));
        assert!(plan(MetricsMaker::Agent).is_some_and(|plan| !plan.by_proxy));
    }
}
