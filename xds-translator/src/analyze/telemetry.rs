//! Providers that telemetry is to go to: whether they are there, and reached.

use std::{collections::BTreeSet, sync::Arc};

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind, Object,
        istio::{mesh_config::MeshConfig, telemetry::Telemetry},
    },
    ir::{Collector, LogRule, LogSink, TelemetryPolicy, TelemetryProvider, TracingRule},
    plan::{find_collector, told_by, unknown_providers},
    snapshot::{Item, Reader},
};

/// What a provider must be to take something.
type Fits = fn(&TelemetryProvider) -> bool;

const TAKES_SPANS: Fits = |provider| matches!(provider, TelemetryProvider::Tracer(_));
const FETCHES_METRICS: Fits = |provider| matches!(provider, TelemetryProvider::Metrics);
const TAKES_LOGS: Fits = |provider| matches!(provider, TelemetryProvider::Log(_));

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for item in input.items() {
        let Item::Telemetry(policy) = item else { continue };
        let id = &policy.origin.id;
        if input.is_wanted(id) {
            findings.extend(rules(input, policy).into_iter().map(|f| input.diagnose(id, f)));
        }
    }
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let Some(written) = object.content::<Telemetry>() else { continue };
        let found = unbounded(input, object, written);
        findings.extend(found.into_iter().map(|f| input.diagnose(&object.id, f)));
    }
    defaults(input, findings);
}

/// What requests say of themselves as they like: of each value comes a series of its own.
const UNBOUNDED: [&str; 5] =
    ["request.path", "request.url_path", "request.query", "request.id", "request.time"];

/// Labels with no end of values, where they are written, and where they stood in other releases.
fn unbounded(input: &Input<'_>, object: &Object, written: &Telemetry) -> Vec<Diagnostic> {
    let metrics = FieldPath::of("spec.metrics");
    let mut labels: Vec<(FieldPath, String)> = Vec::new();
    for (i, metric) in written.metrics.iter().enumerate() {
        let at = metrics.index(i).field("dimensions");
        let old = (0..).map(|j| at.index(j));
        let old = old.map_while(|at| Some((at.clone(), input.written(&object.id, &at)?)));
        labels.extend(old);
        for (j, one) in metric.overrides.iter().enumerate() {
            let at = metrics.index(i).field("overrides").index(j).field("tagOverrides");
            let tags = one.tag_overrides.iter();
            labels.extend(
                tags.map(|(name, tag)| {
                    (at.field(name.clone()).field("value"), tag.value.to_string())
                }),
            );
        }
    }
    labels.retain(|(_, label)| UNBOUNDED.contains(&label.as_str()));
    let found = labels.into_iter().map(|(at, label)| {
        let message =
            format!("`{label}` as a label is unbounded: every value is a series of its own");
        Diagnostic::warning(Code::UnboundedLabel, at, message)
            .fix("an attribute with few values, or a log entry")
    });
    found.collect()
}

fn rules(input: &Input<'_>, policy: &TelemetryPolicy) -> Vec<Diagnostic> {
    let tracing = policy.tracing.iter().flat_map(|rule| of_tracing(input, policy, rule));
    let logs = policy.access_logs.iter().flat_map(|rule| of_logs(input, policy, rule));
    let metrics = policy.metrics.iter().flat_map(|rule| {
        let at = FieldPath::of(&rule.at).field("providers");
        missing(input, &at, &rule.providers, FETCHES_METRICS)
    });
    tracing.chain(logs).chain(metrics).collect()
}

fn of_tracing(input: &Input<'_>, policy: &TelemetryPolicy, rule: &TracingRule) -> Vec<Diagnostic> {
    let at = FieldPath::of(&rule.at);
    let mut found = missing(input, &at.field("providers"), rule.provider.as_slice(), TAKES_SPANS);
    found.extend(unreached(input, policy, &at, rule.provider.as_slice()));
    if rule.sampling.is_some_and(|share| share.0 == 1_000_000) {
        let message = "a span for every request is costly where traffic is high";
        let at = at.field("randomSamplingPercentage");
        found.push(Diagnostic::info(Code::Costly, at, message));
    }
    found
}

fn of_logs(input: &Input<'_>, policy: &TelemetryPolicy, rule: &LogRule) -> Vec<Diagnostic> {
    let at = FieldPath::of(&rule.at);
    let mut found = missing(input, &at.field("providers"), &rule.providers, TAKES_LOGS);
    found.extend(unreached(input, policy, &at, &rule.providers));
    found
}

/// Providers that the mesh does not have, or that are for something else.
fn missing(input: &Input<'_>, at: &FieldPath, names: &[Arc<str>], fits: Fits) -> Vec<Diagnostic> {
    let mesh = &input.snapshot.mesh().telemetry;
    let wrong = unknown_providers(mesh, names, fits).into_iter().map(|(name, is_there)| {
        let place = names.iter().position(|own| own == name).unwrap_or_default();
        let at = at.index(place).field("name");
        if is_there {
            let message = format!("provider `{name}` is for something else; nothing goes there");
            return Diagnostic::warning(Code::MissingProvider, at, message);
        }
        let message = format!("the mesh has no provider `{name}`; nothing goes there");
        Diagnostic::warning(Code::MissingProvider, at, message)
            .fix(format!("`extensionProviders: [{{name: {name}, …}}]` in the mesh configuration"))
    });
    wrong.collect()
}

/// Providers whose service proxies of the policy's namespace do not find.
fn unreached(
    input: &Input<'_>,
    policy: &TelemetryPolicy,
    at: &FieldPath,
    names: &[Arc<str>],
) -> Vec<Diagnostic> {
    let reader = Reader::new(&input.snapshot);
    let namespace = &policy.origin.id.namespace;
    let mesh = &input.snapshot.mesh().telemetry;
    let mut found = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let told = mesh.provider(name).map(collectors).unwrap_or_default();
        let lost = told.into_iter().find(|c| find_collector(&reader, namespace, c).is_none());
        found.extend(lost.map(|collector| {
            let at = at.field("providers").index(place).field("name");
            Diagnostic::warning(Code::MissingReference, at, nobody(name, collector))
        }));
    }
    found
}

/// The services that a provider is.
fn collectors(provider: &TelemetryProvider) -> Vec<&Collector> {
    match provider {
        TelemetryProvider::Tracer(tracer) => told_by(tracer).collect(),
        TelemetryProvider::Log(sink) => sink.collector().into_iter().collect(),
        TelemetryProvider::Metrics | TelemetryProvider::Other => Vec::new(),
    }
}

fn nobody(name: &str, collector: &Collector) -> String {
    let Collector { host, port, .. } = collector;
    format!(
        "provider `{name}` is told at `{host}:{port}`, which no service has; nothing goes there"
    )
}

/// Providers that are used where nobody says otherwise, as proxies of the root namespace find them.
fn defaults(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    let mesh = &input.snapshot.mesh().telemetry;
    let used: BTreeSet<String> =
        mesh.tracing.iter().chain(&mesh.access_logs).map(|name| name.to_lowercase()).collect();
    let objects = input.objects().filter(|object| object.id.kind == Kind::MESH_CONFIG);
    for object in objects.filter(|object| input.is_wanted(&object.id)) {
        let Some(written) = object.content::<MeshConfig>() else { continue };
        let mut told = mesh.logs.iter().filter_map(LogSink::collector);
        if let Some(lost) = told.find(|c| find_collector(&reader, input.root(), c).is_none()) {
            let at = FieldPath::of("spec.defaultConfig.envoyAccessLogService");
            let message = nobody("envoyAccessLogService", lost);
            let finding = Diagnostic::warning(Code::MissingReference, at, message);
            findings.push(input.diagnose(&object.id, finding));
        }
        for (place, provider) in written.extension_providers.iter().enumerate() {
            let known = mesh.provider(&provider.name).map(collectors).unwrap_or_default();
            let mut known =
                known.into_iter().filter(|_| used.contains(&provider.name.to_lowercase()));
            if let Some(lost) = known.find(|c| find_collector(&reader, input.root(), c).is_none()) {
                let at = FieldPath::of("spec.extensionProviders").index(place);
                let message = nobody(&provider.name, lost);
                let finding = Diagnostic::warning(Code::MissingReference, at, message);
                findings.push(input.diagnose(&object.id, finding));
            }
        }
    }
}
