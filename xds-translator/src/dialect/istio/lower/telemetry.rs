//! Telemetry objects.

use std::{collections::BTreeMap, sync::Arc};

use super::provider::share;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        istio::telemetry::{AccessLogging, CustomTag, ModeMatch, Telemetry, Tracing, WorkloadMode},
        lowering::Lowering,
    },
    ir::{CallSide, LogRule, Selector, TagValue, TelemetryPolicy, TracingRule},
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

fn side(written: Option<&ModeMatch>) -> Option<CallSide> {
    match written?.mode {
        WorkloadMode::Both => None,
        WorkloadMode::Client => Some(CallSide::Client),
        WorkloadMode::Server => Some(CallSide::Server),
    }
}
