//! Rules of Telemetry objects, and of the tags of spans.

use super::{
    cel::check_expression, format::check_format, line::is_header_name, metric_label, own_cel,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{check_percent, each},
        istio::telemetry::{
            AccessLogging, CustomTag, Metrics, MetricsOverride, TagOperation, Telemetry, Tracing,
        },
    },
};

pub(in crate::dialect::istio) fn check(spec: &Telemetry, at: &mut Decoder) {
    if spec.selector.is_some() && (spec.target_ref.is_some() || !spec.target_refs.is_empty()) {
        at.invalid("`selector` and `targetRefs` exclude each other", None);
    }
    each("tracing", &spec.tracing, at, check_tracing);
    each("metrics", &spec.metrics, at, check_metrics);
    each("accessLogging", &spec.access_logging, at, check_log);
}

fn check_tracing(rule: &Tracing, at: &mut Decoder) {
    if let Some(percent) = rule.random_sampling {
        check_percent("randomSamplingPercentage", percent, at);
    }
    if let [first, _, ..] = &rule.providers[..] {
        let message = format!("spans go to one provider, which is `{}`", first.name);
        at.within("providers", |at| {
            at.remark(|path| Diagnostic::warning(Code::NoEffect, path, message));
        });
    }
    at.within("customTags", |at| {
        for (name, tag) in rule.custom_tags.iter().flatten() {
            at.within_key(name, |at| check_tag(tag, at));
        }
    });
}

fn check_tag(tag: &CustomTag, at: &mut Decoder) {
    let CustomTag { literal, environment, header, formatter } = tag;
    let given = [literal.is_some(), environment.is_some(), header.is_some(), formatter.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        at.invalid("exactly one of `literal`, `environment`, `header`, `formatter`", None);
    }
    if header.as_ref().is_some_and(|header| !is_tag_header(&header.name)) {
        at.within("header", |at| {
            at.within("name", |at| at.invalid("not the name of a header", None));
        });
    }
    if let Some(formatter) = formatter {
        at.within("formatter", |at| {
            at.within("value", |at| check_format(&formatter.value, at));
        });
    }
}

/// Pseudo headers count.
pub(super) fn is_tag_header(name: &str) -> bool {
    is_header_name(name.strip_prefix(':').unwrap_or(name))
}

fn check_metrics(metrics: &Metrics, at: &mut Decoder) {
    each("overrides", &metrics.overrides, at, check_override);
    if metrics.reporting_interval.is_some() {
        at.within("reportingInterval", |at| {
            at.remark(|path| {
                let message = "proxies report nothing at intervals: metrics are of the moment in \
                               which they are fetched";
                Diagnostic::info(Code::NotActedOn, path, message)
            });
        });
    }
}

fn check_override(written: &MetricsOverride, at: &mut Decoder) {
    if let Some(matches) = &written.matches
        && matches.metric.is_some()
        && matches.custom_metric.is_some()
    {
        at.within("match", |at| at.invalid("`metric` and `customMetric` exclude each other", None));
    }
    if written.metrics().is_empty() {
        at.within("match", |at| {
            at.remark(|path| {
                let message = "proxies have no such metric, so that nothing of it changes";
                Diagnostic::warning(Code::NoEffect, path, message)
            });
        });
    }
    at.within("tagOverrides", |at| {
        for name in written.tag_overrides.keys().filter(|name| !is_label_name(name)) {
            at.within_key(name, |at| at.invalid("not the name of a label", None));
        }
        for (name, tag) in &written.tag_overrides {
            at.within_key(name, |at| match (tag.operation, &*tag.value) {
                (TagOperation::Upsert, "") => at.missing("value", None),
                (TagOperation::Remove, value) if !value.is_empty() => {
                    at.within("value", |at| at.invalid("what is left out has no value", None));
                }
                (TagOperation::Remove, _) => {}
                (TagOperation::Upsert, value) => {
                    at.within("value", |at| metric_label::check(value, at));
                }
            });
        }
    });
}

/// Whether scrapers take a label of this name; `le` is what histograms say of themselves.
fn is_label_name(name: &str) -> bool {
    let first = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && rest && !name.starts_with("__") && name != "le"
}

fn check_log(rule: &AccessLogging, at: &mut Decoder) {
    if let Some(filter) = &rule.filter
        && !filter.expression.is_empty()
    {
        at.within("filter", |at| {
            at.within("expression", |at| {
                check_expression(&filter.expression, at);
                own_cel::remark(&filter.expression, |_| true, "listeners with such a log", at);
            });
        });
    }
}
