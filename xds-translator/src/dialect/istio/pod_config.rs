//! The annotation `proxy.istio.io/config`: what a pod says of its own proxy, in the words of the
//! mesh's `defaultConfig` ([`ProxyDefaults`]), and what of it a single pod can say.

use serde_json::Value;

pub use super::rules::{mesh::is_tag, variables::OURS as VARIABLES};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Segment, Severity},
    dialect::{
        decode::Decoder,
        istio::{
            lower::proxy::start,
            mesh_config::{InterceptionMode, ProxyDefaults},
            rules::mesh::check_start,
        },
        schema::Decode,
    },
    ir::ProxyStart,
    yaml,
};

/// What is acted on for one pod.
const OF_ONE_POD: &[&str] = &[
    "concurrency",
    "extraStatTags",
    "gatewayTopology",
    "holdApplicationUntilProxyStarts",
    "interceptionMode",
    "proxyMetadata",
    "proxyStatsMatcher",
    "statusPort",
    "terminationDrainDuration",
];
/// What lowering reads, where a mistake keeps no pod from starting.
const OF_LOWERING: &str = "gatewayTopology";
/// What is acted on for the whole mesh only, and where else it can be said.
const OF_THE_MESH: &[(&str, &str)] = &[
    ("envoyAccessLogService", "`defaultConfig` of the mesh configuration, or a Telemetry object"),
    ("proxyHeaders", "`defaultConfig` of the mesh configuration"),
    ("tracing", "`defaultConfig` of the mesh configuration, or a Telemetry object"),
    ("tracingServiceName", "`defaultConfig` of the mesh configuration"),
    ("zipkinAddress", "`defaultConfig` of the mesh configuration, or a Telemetry object"),
];

/// Reads the annotation's text; its mistakes are noted at the decoder's path.
///
/// What cannot be acted on as it is written is an error. What nobody knows, what can only mean one
/// thing although it is written in another form (`concurrency: "2"`), and mistakes in what is not
/// acted on for a pod, are warnings: the pod would run with Istio, and runs here as well.
pub fn read(text: &str, at: &mut Decoder) -> ProxyStart {
    start(decode(text, at))
}

fn decode(text: &str, at: &mut Decoder) -> ProxyDefaults {
    let written = match yaml::parse(text) {
        Ok(Some(node)) => node.to_json(),
        Ok(None) => return ProxyDefaults::default(),
        Err(error) => {
            at.invalid(format!("not YAML: line {}: {}", error.line, error.message), error.fix);
            return ProxyDefaults::default();
        }
    };
    let mut inner = Decoder::default();
    let config = ProxyDefaults::decode(&written, &mut inner);
    check_start(&config, &mut inner);
    let base = at.path();
    for finding in inner.finish() {
        at.note(weighed(finding, &base));
    }
    for (field, place) in OF_THE_MESH.iter().filter(|(field, _)| written.get(*field).is_some()) {
        let message = "accepted, but not acted on for a single pod";
        let finding = Diagnostic::warning(Code::NotActedOn, base.field(*field), message);
        at.note(finding.fix(format!("say it in {place}")));
    }
    if let Some(mode) = config.interception_mode.filter(|mode| *mode != InterceptionMode::Redirect)
    {
        at.note(only_redirection(base.field("interceptionMode"), mode.as_str()));
    }
    match without_unknown(&written) {
        Some(known) => ProxyDefaults::decode(&known, &mut Decoder::default()),
        None => config,
    }
}

/// The fields that exist, if there are others: a word that nobody knows is not acted on, whatever it
/// resembles.
fn without_unknown(written: &Value) -> Option<Value> {
    let Value::Object(mut fields) = written.clone() else { return None };
    let all = fields.len();
    let known = |name: &str| ProxyDefaults::SCHEMA.fields.iter().any(|field| field.name == name);
    fields.retain(|name, _| known(name));
    (fields.len() < all).then_some(Value::Object(fields))
}

/// What is wrong with the annotation's text, which stands at `field`.
pub fn check(text: &str, field: &FieldPath) -> Vec<Diagnostic> {
    let mut decoder = Decoder::default();
    read(text, &mut decoder);
    let found = decoder.finish().into_iter();
    found.map(|finding| Diagnostic { field: below(field, &finding.field), ..finding }).collect()
}

/// Other ways of interception would leave a pod outside of the mesh without a word.
pub fn only_redirection(field: FieldPath, mode: &str) -> Diagnostic {
    let message = "a pod with it is refused: its traffic would pass its proxy by";
    let finding = Diagnostic::error(Code::NotActedOn, field, message);
    finding.expected("REDIRECT, the only mode there is", format!("`{mode}`"))
}

/// A finding inside the text, as one of the annotation.
fn weighed(finding: Diagnostic, base: &FieldPath) -> Diagnostic {
    let top = match finding.field.0.first() {
        Some(Segment::Field(name)) => name.to_string(),
        _ => String::new(),
    };
    let whole = finding.field.is_empty();
    let acted_on = OF_ONE_POD.contains(&&*top) && top != OF_LOWERING;
    let refused = finding.code == Code::NotActedOn || whole || acted_on;
    let meant = finding.code == Code::UnknownField || finding.change.is_some();
    let severity = match finding.severity {
        Severity::Error if meant || !refused => Severity::Warning,
        severity => severity,
    };
    // The text is no part of the object's tree, so that nothing there can be changed by its path.
    Diagnostic { severity, field: below(base, &finding.field), change: None, ..finding }
}

fn below(base: &FieldPath, field: &FieldPath) -> FieldPath {
    FieldPath(base.0.iter().chain(&field.0).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_acted_on_or_there_is_a_word_about_it() {
        for field in ProxyDefaults::SCHEMA.fields {
            let spoken = field.idle.is_some() || field.refused.is_some();
            let of_the_mesh = OF_THE_MESH.iter().any(|(name, _)| *name == field.name);
            let acted_on = OF_ONE_POD.contains(&field.name);
            let ways = [spoken, of_the_mesh, acted_on].into_iter().filter(|way| *way).count();
            assert_eq!(ways, 1, "{}", field.name);
        }
    }

    #[test]
    fn words_about_a_pod_are_weighed_by_what_becomes_of_them() {
        for (text, expected) in [
            ("concurrency: 2", None),
            ("gatewayTopology: {numTrustedProxies: 1}", None),
            ("concurency: 2", Some((Severity::Warning, "did you mean `concurrency`?"))),
            ("nonsense: {a: b}", Some((Severity::Warning, "unknown field"))),
            ("concurrency: '2'", Some((Severity::Warning, "`2` without quotes"))),
            (
                "concurrency: two",
                Some((Severity::Error, "[\"proxy.istio.io/config\"].concurrency")),
            ),
            ("tracing: {sampling: 10}", Some((Severity::Warning, "not acted on for a single pod"))),
            (
                "gatewayTopology: {numTrustedProxies: many}",
                Some((Severity::Warning, "whole number")),
            ),
            ("interceptionMode: TPROXY", Some((Severity::Error, "REDIRECT, the only mode"))),
            ("interceptionMode: REDIRECT", None),
            (
                "proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}",
                Some((Severity::Warning, "proxyMetadata.ISTIO_META_DNS_CAPTURE")),
            ),
            (
                "proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true'}",
                Some((Severity::Warning, "no program of ours reads it")),
            ),
            ("proxyMetadata: {FERROMESH_DNS_DOMAIN: a.b}", None),
            (
                "proxyMetadata: {FERROMESH_DNS_DOMAN: a.b}",
                Some((Severity::Warning, "`FERROMESH_DNS_DOMAIN`")),
            ),
            ("proxyMetadata: {MINE: a}", None),
            ("proxyMetadata: {1A: a}", Some((Severity::Error, "not the name of a variable"))),
            ("proxyHeaders: {server: {disabled: true}}", Some((Severity::Warning, "single pod"))),
            ("extraStatTags: [a-b]", Some((Severity::Error, "letters, digits"))),
            ("proxyStatsMatcher: {inclusionRegexps: ['(']}", Some((Severity::Error, "regular"))),
            ("proxyStatsMatcher: {inclusionPrefixes: ['']}", Some((Severity::Error, "empty"))),
            ("statNameLength: 12", Some((Severity::Info, "no effect"))),
            ("caCertificatesPem: [x]", Some((Severity::Error, "own authority"))),
            ("a: b: c", Some((Severity::Error, "not YAML"))),
            ("- a", Some((Severity::Error, "an object"))),
            ("", None),
        ] {
            let field = FieldPath::of("metadata.annotations").field("proxy.istio.io/config");
            let found = check(text, &field);
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(found.is_empty(), "{text}: {said:?}"),
                Some((severity, word)) => {
                    assert_eq!(found.len(), 1, "{text}: {said:?}");
                    assert_eq!(found[0].severity, severity, "{text}: {said:?}");
                    assert!(said[0].contains(word), "{text}: {said:?}");
                }
            }
        }
    }

    #[test]
    fn a_word_that_nobody_knows_is_not_acted_on() {
        let config = read("concurency: 2\nstatusPort: 1", &mut Decoder::default());
        assert_eq!((config.threads, config.agent_port), (None, Some(1)));
        let config = read("concurrency: '2'", &mut Decoder::default());
        assert_eq!(config.threads, Some(2), "only one thing can be meant");
    }
}
