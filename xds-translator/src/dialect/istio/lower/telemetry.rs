//! Telemetry objects.

use std::{collections::BTreeMap, sync::Arc};

use super::provider::share;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        istio::{
            rules::label_expression,
            telemetry::{
                AccessLogging, CustomTag, IstioMetric, Metrics, MetricsOverride, ModeMatch,
                TagOperation, Telemetry, Tracing, WorkloadMode,
            },
        },
        lowering::Lowering,
    },
    ir::{
        CallSide, LabelChange, LogRule, Metric, MetricChange, MetricsRule, Selector, TagValue,
        TelemetryPolicy, TracingRule,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn telemetry(&mut self, spec: &Telemetry) -> Option<Item> {
        if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
            let field = if spec.target_ref.is_some() { "targetRef" } else { "targetRefs" };
            let message =
                "telemetry of gateways, services and waypoints by reference is not served";
            let finding =
                Diagnostic::error(Code::NotActedOn, FieldPath::of("spec").field(field), message);
            self.note(finding.fix("a `selector` of the labels of their pods"));
            return None;
        }
        let selector = spec.selector.as_ref().map(|s| Selector::from(s.match_labels.clone()));
        Some(Item::Telemetry(Arc::new(TelemetryPolicy {
            origin: self.origin(),
            selector: selector.unwrap_or_default(),
            tracing: spec.tracing.iter().enumerate().map(|(i, rule)| tracing(i, rule)).collect(),
            access_logs: spec
                .access_logging
                .iter()
                .enumerate()
                .map(|(i, rule)| log(i, rule))
                .collect(),
            metrics: spec.metrics.iter().enumerate().map(|(i, rule)| metrics(i, rule)).collect(),
        })))
    }
}

fn tracing(index: usize, written: &Tracing) -> TracingRule {
    let tags = |tags: &BTreeMap<Arc<str>, CustomTag>| {
        let given = tags.iter().filter_map(|(name, tag)| Some((name.clone(), tag.value()?)));
        given.collect()
    };
    TracingRule {
        at: format!("spec.tracing[{index}]").into(),
        side: side(written.matches.as_ref()),
        provider: written.providers.first().map(|provider| provider.name.clone()),
        sampling: written.random_sampling.map(share),
        disabled: written.disabled,
        tags: written.custom_tags.as_ref().map(tags),
        by_request_id: written.by_request_id,
        workload_tags: written.enable_istio_tags,
        silent: written.disable_context_propagation,
    }
}

impl CustomTag {
    /// What the tag says; `None`: nothing.
    fn value(&self) -> Option<TagValue> {
        let literal = self.literal.as_ref().map(|l| TagValue::Literal(l.value.clone()));
        let environment = self.environment.as_ref();
        let environment =
            environment.map(|e| TagValue::Environment(e.name.clone(), e.default_value.clone()));
        let header = self.header.as_ref();
        let header = header.map(|h| TagValue::Header(h.name.clone(), h.default_value.clone()));
        let formatted = self.formatter.as_ref().map(|f| TagValue::Formatted(f.value.clone()));
        literal.or(environment).or(header).or(formatted)
    }
}

fn log(index: usize, written: &AccessLogging) -> LogRule {
    LogRule {
        at: format!("spec.accessLogging[{index}]").into(),
        side: side(written.matches.as_ref()),
        providers: written.providers.iter().map(|provider| provider.name.clone()).collect(),
        filter: written.filter.as_ref().map(|filter| filter.expression.clone()),
        disabled: written.disabled.unwrap_or_default(),
    }
}

fn metrics(index: usize, written: &Metrics) -> MetricsRule {
    MetricsRule {
        at: format!("spec.metrics[{index}]").into(),
        providers: written.providers.iter().map(|provider| provider.name.clone()).collect(),
        changes: written.overrides.iter().map(change).collect(),
    }
}

fn change(written: &MetricsOverride) -> MetricChange {
    let labels = written.tag_overrides.iter().map(|(name, tag)| {
        let change = match tag.operation {
            TagOperation::Upsert => {
                // One line: so Envoys read it.
                let line = label_expression(&tag.value).replace(['\n', '\r'], " ");
                LabelChange::Value(line.into())
            }
            TagOperation::Remove => LabelChange::Removed,
        };
        (name.clone(), change)
    });
    MetricChange {
        side: written.matches.as_ref().and_then(|matches| of_mode(matches.mode)),
        metrics: written.metrics(),
        dropped: written.disabled,
        labels: labels.collect(),
    }
}

impl MetricsOverride {
    /// The metrics that it is about; none, where proxies have no such metric.
    pub(in crate::dialect::istio) fn metrics(&self) -> Vec<Metric> {
        let Some(matches) = &self.matches else { return Metric::all().collect() };
        if let Some(custom) = matches.custom_metric.as_deref().filter(|name| !name.is_empty()) {
            let name = custom.strip_prefix("istio_").unwrap_or(custom);
            return Metric::all().filter(|metric| metric.name() == name).collect();
        }
        match matches.metric {
            None | Some(IstioMetric::All) => Metric::all().collect(),
            Some(IstioMetric::RequestCount) => vec![Metric::Requests],
            Some(IstioMetric::RequestDuration) => vec![Metric::RequestDuration],
            Some(IstioMetric::RequestSize) => vec![Metric::RequestBytes],
            Some(IstioMetric::ResponseSize) => vec![Metric::ResponseBytes],
            Some(IstioMetric::TcpOpened) => vec![Metric::ConnectionsOpened],
            Some(IstioMetric::TcpClosed) => vec![Metric::ConnectionsClosed],
            Some(IstioMetric::TcpSent) => vec![Metric::BytesSent],
            Some(IstioMetric::TcpReceived) => vec![Metric::BytesReceived],
            Some(IstioMetric::GrpcRequests | IstioMetric::GrpcResponses) => Vec::new(),
        }
    }
}

fn side(written: Option<&ModeMatch>) -> Option<CallSide> {
    of_mode(written?.mode)
}

fn of_mode(mode: WorkloadMode) -> Option<CallSide> {
    match mode {
        WorkloadMode::Both => None,
        WorkloadMode::Client => Some(CallSide::Client),
        WorkloadMode::Server => Some(CallSide::Server),
    }
}
