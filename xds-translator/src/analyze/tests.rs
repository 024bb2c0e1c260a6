//! The reference examples against the diagnostics that `EXPECT.md` beside them lists.

use proptest::prelude::*;

use super::*;
use crate::{
    diagnostic::{Code, Severity},
    dialect::{overlay, parse_files},
    snapshot::CredentialFact,
};

const BASE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/corpus/base.yaml"));

macro_rules! seed_files {
    ($($name:literal),+ $(,)?) => {
        const SEEDS: &[(&str, &str)] =
            &[$( ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/corpus/seeds/", $name, ".yaml"))) ),+];
    };
}

seed_files![
    "s0-01-architecture",
    "s0-02-istio-config",
    "s0-03-istio-traffic-management",
    "s0-04-istio-security",
    "s0-05-linkerd-config",
    "s0-06-istio-mtls",
    "s0-07-istio-circuit-breaker",
    "s0-08-linkerd-circuit-breaker",
    "s0-09-istio-retry",
    "s0-10-linkerd-retry",
    "s0-11-istio-canary",
    "s0-12-linkerd-canary",
    "s0-13-istio-tracing",
    "s0-14-linkerd-tracing",
    "s0-15-istio-production-resources",
    "s0-16-istio-monitoring",
    "s1-01-istio-setup",
    "s1-02-virtual-service-config",
    "s1-03-security-config",
    "s1-04-observability-config",
    "s2-01-istio-virtualservice",
    "s2-02-istio-destinationrule",
    "s2-03-istio-peerauthentication",
    "s2-04-istio-authorizationpolicy",
    "s2-05-linkerd-httproute",
    "s2-06-linkerd-serviceprofile",
    "s2-07-linkerd-authorizationpolicy",
    "s2-08-cilium-l7-policy",
    "s2-09-cilium-dns-egress",
    "s2-10-istio-zero-trust",
    "s2-11-flagger-canary",
    "s4-01-virtualservice",
    "s4-02-destinationrule",
    "s4-03-gateway",
    "s4-04-traffic-mirroring",
    "s4-05-mtls",
    "s4-06-authorizationpolicy",
    "s4-07-circuit-breaker",
    "s4-08-fault-injection",
    "s4-09-linkerd-serviceprofile",
    "s4-10-linkerd-trafficsplit",
    "s4-11-istio-multicluster",
];

fn seed(prefix: &str) -> (&'static str, &'static str) {
    *SEEDS.iter().find(|(name, _)| name.starts_with(prefix)).expect("a seed with this prefix")
}

/// The findings on base.yaml as one input set and the files as a later one.
fn findings(files: &[(&str, &str)]) -> Vec<Diagnostic> {
    let files = files.iter().map(|(name, text)| (*name, text.as_bytes()));
    analyze_input(
        &overlay([parse_files([("base", BASE.as_bytes())]), parse_files(files)]),
        &MeshDefaults::default(),
    )
}

/// The findings on one file.
fn alone(name: &str, text: &str) -> Vec<Diagnostic> {
    analyze_input(&parse_files([(name, text.as_bytes())]), &MeshDefaults::default())
}

/// `error VirtualService default/reviews spec.http[0].retry`
fn line(finding: &Diagnostic) -> String {
    let object = finding.object.as_ref().map_or("-".to_owned(), ToString::to_string);
    format!("{} {object} {}", finding.severity, finding.field).trim_end().to_owned()
}

/// Checks that the seeds beside base.yaml give exactly the expected errors, references and
/// warnings, and at least the expected infos.
fn check(seeds: &[&str], expected: &[&str]) {
    let files: Vec<_> = seeds.iter().map(|s| seed(s)).collect();
    let found = findings(&files);
    let printed = found.iter().map(|f| format!("  {f}\n")).collect::<String>();
    let mut lines: Vec<String> =
        found.iter().filter(|f| f.severity != Severity::Info).map(line).collect();
    let mut wanted: Vec<&str> =
        expected.iter().copied().filter(|e| !e.starts_with("info ")).collect();
    lines.sort();
    wanted.sort_unstable();
    assert_eq!(lines, wanted, "{seeds:?}:\n{printed}");
    for info in expected.iter().filter(|e| e.starts_with("info ")) {
        assert!(found.iter().any(|f| line(f) == *info), "{seeds:?}: no {info}\n{printed}");
    }
    for finding in found.iter().filter(|f| {
        files.iter().any(|(name, _)| f.position.as_ref().is_some_and(|p| &*p.file == *name))
    }) {
        assert!(
            finding.fix.is_some()
                || finding.severity == Severity::Info
                || finding.expected.is_some(),
            "no fix: {finding}"
        );
    }
}

/// What the example is fixed to beside base.yaml: lines that go and lines that come, without their
/// blanks.
#[track_caller]
fn check_fixed(prefix: &str, gone: &[&str], come: &[&str]) {
    let (name, text) = seed(prefix);
    let analyze = |texts: &Texts| findings(&[(name, &texts[name])]);
    let done = fix(Texts::from([(name.into(), text.to_owned())]), analyze);
    let new = &done.texts[name];
    let only_in = |some: &str, others: &str| -> Vec<String> {
        let others: Vec<&str> = others.lines().collect();
        let only = some.lines().filter(|line| !others.contains(line));
        only.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(only_in(text, new), gone, "{done:#?}");
    assert_eq!(only_in(new, text), come, "{done:#?}");
    let refused = done.findings.iter().find(|finding| finding.severity == Severity::Error);
    assert!(refused.is_none(), "{}", refused.expect("one"));
}

/// What `EXPECT.md` calls "Fixed", of the kinds that are served.
#[test]
fn examples_are_fixed_to_what_they_are_to_do() {
    check_fixed("s0-07", &["consecutiveGatewayFailure: 5"], &["consecutiveGatewayErrors: 5"]);
    check_fixed(
        "s0-09",
        &[
            "retry:",
            "retryOn:",
            "- 5xx",
            "- connect-failure",
            "- refused-stream",
            "- reset",
            "- retriable-4xx",
        ],
        &["retries:", "retryOn: \"5xx,connect-failure,refused-stream,reset,retriable-4xx\""],
    );
    check_fixed("s1-02", &["minRequestVolume: 10"], &[]);
    check_fixed("s1-03", &["audiences: api-service"], &["audiences: [api-service]"]);
    check_fixed(
        "s1-04",
        &["dimensions:", "- request.path", "- response.code", "- destination.service.name"],
        &[
            "overrides: [{match: {metric: ALL_METRICS}, tagOverrides: {request_path: {operation: UPSERT, value: request.url_path}}}]",
        ],
    );
}

#[test]
fn the_base_alone_has_no_mistakes() {
    check(&[], &[]);
}

#[test]
fn seeds_of_the_first_source_give_what_is_expected() {
    check(&["s0-01"], &["info Namespace service-mesh metadata.labels"]);
    check(&["s0-02"], &["info IstioOperator istio-system/istio-operator kind"]);
    check(&["s0-03"], &["info Gateway default/bookinfo-gateway spec.servers[0]"]);
    check(&["s0-04"], &[]);
    check(&["s0-06"], &["error-ref PeerAuthentication default/strict-mtls spec.selector"]);
    check(
        &["s0-07"],
        &[
            "error DestinationRule default/httpbin spec.trafficPolicy.outlierDetection.consecutiveGatewayFailure",
        ],
    );
    check(
        &["s0-09"],
        &[
            "error VirtualService default/reviews spec.http[0].retry",
            "error VirtualService default/reviews spec.http[0].retry.retryOn",
            "info VirtualService default/reviews spec.http[0].retry.retryOn",
            "error-ref VirtualService default/reviews spec.http[0].route[0].destination.subset",
        ],
    );
    check(&["s0-11"], &[]);
    check(
        &["s0-16"],
        &[
            "info Namespace monitoring metadata.labels",
            "info Service monitoring/prometheus spec.ports[0].name",
            "info Service monitoring/grafana spec.ports[0].name",
            "info Service monitoring/jaeger spec.ports[0].name",
            "info Service monitoring/jaeger spec.ports[1].name",
            "info Service monitoring/jaeger spec.ports[1].port",
        ],
    );
}

#[test]
fn seeds_of_the_other_sources_give_what_is_expected() {
    let injection = r#"metadata.labels["istio-injection"]"#;
    check(
        &["s1-01"],
        &[
            &format!("warn Namespace istio-system {injection}"),
            &format!("warn Namespace production {injection}"),
        ],
    );
    check(
        &["s1-02"],
        &[
            "info VirtualService production/api-service spec.hosts[1]",
            "info VirtualService production/api-service spec.http[0].retries",
            "info VirtualService production/api-service spec.http[2].retries",
            "error DestinationRule production/api-service spec.trafficPolicy.outlierDetection.minRequestVolume",
            "warn DestinationRule production/api-service spec.subsets[0].trafficPolicy.connectionPool",
            "warn DestinationRule production/api-service spec.subsets[1].trafficPolicy.connectionPool",
        ],
    );
    check(
        &["s1-03"],
        &[
            "error RequestAuthentication production/api-service-authn spec.jwtRules[0].audiences",
            "info RequestAuthentication production/api-service-authn spec",
        ],
    );
    check(
        &["s1-04"],
        &[
            "error Telemetry production/custom-logging spec.metrics[0].dimensions",
            "warn Telemetry production/custom-logging spec.metrics[0].dimensions[0]",
            "error-ref Telemetry production/custom-tracing spec",
            "warn Telemetry production/custom-tracing spec.tracing[0].providers[0].name",
            "info Telemetry production/custom-tracing spec.tracing[0].randomSamplingPercentage",
        ],
    );
    check(
        &["s2-02"],
        &[
            "warn DestinationRule default/backend-circuit-breaker spec.trafficPolicy.outlierDetection.consecutiveErrors",
        ],
    );
    check(&["s2-03"], &[]);
    check(&["s2-04"], &[]);
    check(&["s2-10"], &["info AuthorizationPolicy production/deny-all spec"]);
    for clean in ["s4-02", "s4-05", "s4-06", "s4-07", "s4-08"] {
        check(&[clean], &[]);
    }
}

#[test]
fn subsets_and_gateways_must_exist() {
    let subset = |route: &str| {
        format!("error-ref VirtualService production/myapp spec.{route}.destination.subset")
    };
    let myapp = ["http[0].route[0]", "http[1].route[0]", "http[1].route[1]", "http[2].route[0]"]
        .map(subset);
    let gateway = "error-ref VirtualService production/myapp spec.gateways[1]";
    let all: Vec<&str> = myapp.iter().map(String::as_str).chain([gateway]).collect();
    check(&["s4-01"], &all);
    check(&["s4-01", "s4-02"], &[gateway]);
    let secret = "error-ref Gateway production/myapp-gateway spec.servers[1].tls.credentialName";
    check(&["s4-01", "s4-02", "s4-03"], &[secret]);
    check(&["s4-03"], &[secret]);
    let mirror = ["route[0].destination.subset", "mirror.subset"]
        .map(|f| format!("error-ref VirtualService production/myapp-mirror spec.http[0].{f}"));
    check(&["s4-04"], &mirror.iter().map(String::as_str).collect::<Vec<_>>());
    check(&["s4-04", "s4-02"], &[]);
    let backend = [0, 1]
        .map(|i| format!("error-ref VirtualService default/backend-canary spec.http[0].route[{i}].destination.subset"));
    check(&["s2-01"], &backend.iter().map(String::as_str).collect::<Vec<_>>());
    let warn = "warn DestinationRule default/backend-circuit-breaker spec.trafficPolicy.outlierDetection.consecutiveErrors";
    check(
        &["s2-01", "s2-02"],
        &backend.iter().map(String::as_str).chain([warn]).collect::<Vec<_>>(),
    );
}

#[test]
fn two_rules_for_one_host_are_explained() {
    let host = |name: &str| format!("error-ref VirtualService production/{name} spec.hosts[0]");
    let (fault, mirror) = (host("myapp-fault"), host("myapp-mirror"));
    check(&["s4-04", "s4-08", "s4-02"], &[&fault, &mirror]);
    check(
        &["s4-07", "s4-02"],
        &["warn DestinationRule production/myapp-circuit-breaker spec.trafficPolicy"],
    );
    let found = findings(&[seed("s4-04"), seed("s4-08"), seed("s4-02")]);
    let lost = found.iter().find(|f| line(f) == mirror).expect("checked above");
    assert!(
        lost.message.contains("VirtualService production/myapp-fault")
            && lost.message.contains("http[0], http[1] apply"),
        "{lost}"
    );
}

#[test]
fn one_object_twice_in_one_input_is_an_error_and_the_first_serves() {
    check(
        &["s0-03", "s0-11"],
        &[
            "error VirtualService default/reviews",
            "error DestinationRule default/reviews",
            "info Gateway default/bookinfo-gateway spec.servers[0]",
        ],
    );
    check(&["s0-04", "s2-03"], &["info PeerAuthentication istio-system/default"]);
    check(&["s0-02", "s0-13"], &["error IstioOperator istio-system/istio-operator"]);
    let found = findings(&[seed("s0-03"), seed("s0-11")]);
    let duplicate = found
        .iter()
        .find(|f| line(f) == "error VirtualService default/reviews")
        .expect("checked above");
    assert_eq!(duplicate.position.as_ref().map(|p| &*p.file), Some(seed("s0-11").0));
    assert_eq!(duplicate.related[0].position.as_ref().map(|p| &*p.file), Some(seed("s0-03").0));
}

#[test]
fn a_credential_counts_only_where_the_gateway_runs() {
    let secret = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: myapp-tls-secret, namespace: {namespace}}}\ntype: Opaque\ndata: {{tls.crt: eA==, tls.key: eA==}}\n"
        )
    };
    let bad = |files: &[(&str, &str)]| {
        findings(files).into_iter().filter(|f| f.severity.fails_analysis()).collect::<Vec<_>>()
    };
    let (right, wrong) = (secret("istio-system"), secret("production"));
    assert_eq!(bad(&[seed("s4-03"), ("secret", &right)]), []);
    let found = bad(&[seed("s4-03"), ("secret", &wrong)]);
    assert!(found.len() == 1 && found[0].message.contains("but in production"), "{found:?}");
    let mutual = seed("s4-03").1.replace("mode: SIMPLE", "mode: MUTUAL");
    let found = bad(&[("gateway", &mutual), ("secret", &right)]);
    assert!(
        found.len() == 1 && found[0].message.starts_with("no CA for client certificates"),
        "{found:?}"
    );
    let with_ca = right.replace("tls.key:", "ca.crt: eA==, tls.key:");
    assert_eq!(bad(&[("gateway", &mutual), ("secret", &with_ca)]), []);
}

#[test]
fn a_credential_counts_without_its_secret() {
    let mutual = seed("s4-03").1.replace("mode: SIMPLE", "mode: MUTUAL");
    let parsed = overlay([
        parse_files([("base", BASE.as_bytes())]),
        parse_files([("gateway", mutual.as_bytes())]),
    ]);
    let known = |namespace: &str, holds_ca: bool| {
        let fact = CredentialFact { fingerprint: "".into(), not_after: 0, holds_ca };
        let credentials =
            Credentials::from([((namespace.into(), "myapp-tls-secret".into()), fact)]);
        let found = analyze(parsed.everything(), &credentials, &MeshDefaults::default());
        let bad =
            found.into_iter().filter(|f| f.code == Code::MissingCredential).map(|f| f.message);
        bad.collect::<Vec<_>>()
    };
    assert_eq!(known("istio-system", true), Vec::<String>::new());
    let found = known("istio-system", false);
    assert!(found.len() == 1 && found[0].starts_with("no CA for client certificates"), "{found:?}");
    let found = known("production", true);
    assert!(found.iter().any(|message| message.ends_with("but in production")), "{found:?}");
}

#[test]
fn valid_objects_are_lowered_without_an_error() {
    let found = alone("valid.yaml", include_str!("../dialect/testdata/valid.yaml"));
    let errors: Vec<String> =
        found.iter().filter(|f| f.severity == Severity::Error).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn lost_indentation_is_one_error_per_file() {
    for (name, text) in SEEDS.iter().filter(|(name, _)| !name.starts_with("s0")) {
        let flat = text.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>();
        let found = alone(name, &flat);
        assert!(
            found.len() == 1 && found[0].message.starts_with("indentation lost"),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn shell_lines_are_named_with_their_line() {
    let (name, text) = seed("s4-11");
    let pasted = format!(
        "{text}\nistioctl create-remote-secret --name=cluster2 \\\n  | kubectl apply -f -\n"
    );
    let found = alone(name, &pasted);
    let expected = u32::try_from(text.lines().count() + 2).expect("a short file");
    assert!(found.len() == 1 && found[0].message == "shell command inside YAML", "{found:?}");
    assert_eq!(found[0].position.as_ref().map(|p| p.line), Some(expected));
}

#[test]
fn an_archived_interface_is_named_with_what_took_its_place() {
    for name in ["s0-12", "s4-10"] {
        check(&[name], &[]);
        let found = findings(&[seed(name)]);
        let archived = found.iter().find(|f| f.code == Code::Deprecated);
        let archived = archived.unwrap_or_else(|| panic!("{name}: {found:?}"));
        assert!(line(archived).ends_with(" apiVersion"), "{name}: {archived:?}");
        assert!(archived.fix.as_ref().is_some_and(|fix| fix.contains("HTTPRoute")), "{archived:?}");
    }
}

#[test]
fn examples_of_profiles_and_policies_say_what_is_wrong_with_them() {
    check(&["s2-05"], &["warn HTTPRoute default/backend-canary spec.parentRefs[0].group"]);
    let profile = "ServiceProfile default/backend.production.svc.cluster.local";
    check(
        &["s2-06"],
        &[
            &format!("error {profile} spec.retryBudget.ttl"),
            &format!("warn {profile} spec.routes"),
            &format!("info {profile} metadata.namespace"),
            &format!("info {profile} apiVersion"),
        ],
    );
    let policy = "AuthorizationPolicy default/allow-frontend spec";
    check(
        &["s2-07"],
        &[
            &format!("error {policy}.targetRef.group"),
            &format!("error {policy}.requiredAuthenticationRefs[0].group"),
            &format!("warn {policy}.targetRef.name"),
            &format!("warn {policy}.requiredAuthenticationRefs[0].name"),
        ],
    );
    let profile = "ServiceProfile production/myapp.production.svc.cluster.local";
    check(
        &["s4-09"],
        &[&format!("warn {profile} spec.routes[1]"), &format!("info {profile} apiVersion")],
    );
    check_fixed("s2-05", &["- name: backend"], &["- group: core", "name: backend"]);
    check_fixed("s2-06", &[], &["ttl: 10s"]);
    let group = "group: policy.linkerd.io";
    check_fixed(
        "s2-07",
        &["- name: frontend-identity"],
        &[group, &format!("- {group}"), "name: frontend-identity"],
    );
}

#[test]
fn who_stands_behind_a_profile_is_told_so() {
    let annotated = "apiVersion: v1\nkind: Service\nmetadata: {name: myapp, namespace: production, \
                     annotations: {retry.linkerd.io/http: 5xx}}\nspec: {selector: {app: myapp}, \
                     ports: [{name: http, port: 80}]}\n";
    let told = |files: &[(&str, &str)]| -> Vec<String> {
        let found = findings(files);
        let behind = found.iter().filter(|f| f.code == Code::ConflictingHosts);
        behind.filter(|f| f.message.contains("comes first")).map(line).collect()
    };
    let service = ("annotated", annotated);
    assert_eq!(told(&[service]), [""; 0]);
    let annotations = "info Service production/myapp metadata.annotations";
    assert_eq!(told(&[service, seed("s4-09")]), [annotations]);
    let split = "info TrafficSplit production/myapp-canary spec.service";
    assert_eq!(told(&[service, seed("s4-09"), seed("s4-10")]), [annotations, split]);
}

#[test]
fn kinds_of_later_releases_are_named_and_nothing_else() {
    let later = ["s2-08", "s2-09", "s2-11"];
    for name in later {
        check(&[name], &[]);
        let found = findings(&[seed(name)]);
        assert!(
            found
                .iter()
                .any(|f| f.message.ends_with("is not supported yet") && line(f).ends_with(" kind")),
            "{name}: {found:?}"
        );
    }
    for name in ["s0-08", "s0-10"] {
        check(&[name], &["error - apiVersion"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cut_shuffled_and_doubled_examples_never_panic(picks in prop::collection::vec((0usize..SEEDS.len(), 0usize..80, 0usize..12), 1..12)) {
        let text: String = picks
            .iter()
            .flat_map(|(seed, line, indent)| SEEDS[*seed].1.lines().skip(*line).take(9).map(move |l| format!("{}{l}\n", " ".repeat(indent % 4))))
            .collect();
        let parsed = parse_files([("a.yaml", text.as_bytes()), ("b.yaml", SEEDS[picks[0].0].1.as_bytes())]);
        for finding in analyze_input(&parsed, &MeshDefaults::default()) {
            prop_assert!(!finding.to_string().is_empty());
        }
    }

    #[test]
    fn any_value_in_any_field_never_panics(seed in 0usize..SEEDS.len(), line in 0usize..90, value in "[ -~]{0,12}") {
        let text = SEEDS[seed].1.lines().enumerate().map(|(i, l)| match l.split_once(": ") {
            Some((key, _)) if i == line => format!("{key}: {value}\n"),
            _ => format!("{l}\n"),
        }).collect::<String>();
        drop(alone("a.yaml", &text));
    }
}

#[test]
fn the_ports_are_named_at_which_a_rule_on_http_meets_other_protocols() {
    let workload = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  selector: {app: db}
  ports: [{name: http, port: 80}, {name: mysql, port: 3306}, {name: tcp-x, port: 99, targetPort: x}, {name: auto, port: 7000}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, labels: {app: db, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: db, ports: [{name: x, containerPort: 9000}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
";
    let check = |spec: &str, expected: &[(Severity, &str, &str)]| {
        let findings = alone("a.yaml", &format!("{workload}spec: {spec}\n"));
        let findings: Vec<_> = findings.iter().filter(|f| f.code == Code::HttpOnly).collect();
        assert_eq!(findings.len(), expected.len(), "{spec}: {findings:?}");
        for (finding, (severity, field, part)) in findings.iter().zip(expected) {
            assert_eq!(
                (finding.severity, &*finding.field.to_string()),
                (*severity, *field),
                "{spec}"
            );
            assert!(finding.message.contains(part), "{spec}: {}", finding.message);
        }
    };
    let both =
        "at port 3306 (db.shop.svc.cluster.local:3306), port 9000 (db.shop.svc.cluster.local:99)";
    let path = "to: [{operation: {paths: [/a]}}]";
    check(
        &format!("{{action: DENY, rules: [{{{path}}}]}}"),
        &[(Severity::Warning, "spec.rules[0]", both)],
    );
    check(
        &format!("{{action: AUDIT, rules: [{{}}, {{{path}}}]}}"),
        &[(Severity::Info, "spec.rules[1]", both)],
    );
    check(
        &format!("{{rules: [{{{path}}}]}}"),
        &[(Severity::Info, "spec.rules[0]", "lets nobody in")],
    );
    check(
        &format!("{{action: CUSTOM, provider: {{name: x}}, rules: [{{{path}}}]}}"),
        &[(Severity::Warning, "spec.rules[0]", both)],
    );
    let ports =
        "{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['80', '9000']}}]}]}";
    check(ports, &[(Severity::Warning, "spec.rules[0]", "at port 9000 (")]);
    for silent in [
        "{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['80']}}]}]}",
        "{action: DENY, rules: [{to: [{operation: {paths: [/a]}}], when: [{key: destination.port, values: ['80']}]}]}",
        "{action: DENY, rules: [{from: [{source: {namespaces: [a]}}]}]}",
        "{selector: {matchLabels: {app: other}}, action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}",
    ] {
        check(silent, &[]);
    }
}

/// A Service and DestinationRule of `shop`, and a VirtualService of `client` that leads to a
/// subset; with what a mesh configuration and the first two say of who sees them.
fn hidden(mesh: &str, service: &str, backend: &str) -> Vec<Diagnostic> {
    let text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop, annotations: {{{service}}}}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: cart, namespace: shop}}
spec: {{host: cart, {backend} subsets: [{{name: v1, labels: {{version: v1}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart, namespace: client}}
spec:
  hosts: [cart.shop.svc.cluster.local]
  exportTo: [.]
  http: [{{route: [{{destination: {{host: cart.shop.svc.cluster.local, subset: v1}}}}]}}]
---
mesh: {{{mesh}}}
"
    );
    let found = alone("a.yaml", &text);
    found.into_iter().filter(|f| f.code == Code::MissingReference).collect()
}

#[test]
fn what_the_mesh_hides_is_missed_like_what_an_object_hides() {
    let seen = hidden("", "", "");
    assert_eq!(seen, []);
    let place = "spec.http[0].route[0].destination";
    let own = "networking.istio.io/exportTo: .";
    for (mesh, service, backend, field, other) in [
        ("defaultDestinationRuleExportTo: [.]", "", "", "subset", "DestinationRule shop/cart"),
        ("", "", "exportTo: [.],", "subset", "DestinationRule shop/cart"),
        ("defaultServiceExportTo: [.]", "", "", "host", "Service shop/cart"),
        ("", own, "", "host", "Service shop/cart"),
    ] {
        let found = hidden(mesh, service, backend);
        let [finding] = &found[..] else { panic!("{mesh}{service}{backend}: {found:?}") };
        assert_eq!(line(finding), format!("error-ref VirtualService client/cart {place}.{field}"));
        assert!(finding.message.contains("a client in namespace `client`"), "{finding}");
        assert_eq!(finding.related[0].object.to_string(), other);
    }
    // Said by the object, the mesh's default does not count.
    assert_eq!(hidden("defaultDestinationRuleExportTo: [.]", "", "exportTo: ['*'],"), []);
}

#[test]
fn clients_elsewhere_miss_what_the_author_sees() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, exportTo: [.], subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart, subset: v1}}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: client, labels: {istio-injection: enabled}}
";
    let missing = |text: &str| {
        let found = alone("a.yaml", text);
        found.into_iter().filter(|f| f.code == Code::MissingReference).collect::<Vec<_>>()
    };
    let found = missing(text);
    assert!(found.len() == 1 && found[0].message.contains("namespace `client`"), "{found:?}");
    assert_eq!(missing(&text.replace("name: client,", "name: kube-system,")), []);
    let own = text.replace("{hosts: [cart]", "{hosts: [cart], exportTo: [.]");
    assert_eq!(missing(&own), []);
}

#[test]
fn ports_are_the_ones_that_requests_are_sent_to() {
    let ports = |destination: &str| {
        let text = format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 9080}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: shop}}
spec:
  hosts: [ext.example.com]
  ports: [{{name: http, number: 8080, protocol: HTTP}}, {{name: tls, number: 443, protocol: TLS}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart, namespace: shop}}
spec: {{hosts: [cart], http: [{{route: [{{destination: {{host: {destination}}}}}]}}]}}
"
        );
        let found = alone("a.yaml", &text);
        let found = found.iter().filter(|f| f.code == Code::MissingReference);
        found.map(|f| f.to_string()).collect::<Vec<_>>()
    };
    for fine in ["cart", "cart, port: {number: 9080}", "ext.example.com, port: {number: 443}"] {
        assert_eq!(ports(fine), [""; 0], "{fine}");
    }
    for (wrong, part) in [
        ("ext.example.com, port: {number: 80}", "expected one of 443, 8080, got 80"),
        ("ext.example.com", "got none, which leads to port 9080"),
        ("cart, port: {number: 80}", "`cart.shop.svc.cluster.local` has no port 80"),
    ] {
        let found = ports(wrong);
        assert!(found.len() == 1 && found[0].contains(part), "{wrong}: {found:?}");
    }
}

/// A port of the split service that one of its backends has not.
pub(super) const ADMIN: &str = ", {name: http-admin, port: 81}";

/// A service whose traffic is split, with its backends; `matches` are lines of the split.
pub(super) fn split_cart(matches: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}{ADMIN}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: cart-v1, namespace: shop}}
spec: {{clusterIP: 10.0.0.2, ports: [{{name: http, port: 80}}]}}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {{name: cart, namespace: shop}}
spec:
  service: cart
{matches}  backends: [{{service: cart-v1, weight: 1}}, {{service: cart, weight: 1}}]
"
    )
}

#[test]
fn what_a_split_names_and_nobody_has_is_named() {
    let text = format!(
        "apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {{name: canary, namespace: shop}}
spec: {{matches: [{{name: canary, headers: [{{x-canary: \"1\"}}]}}]}}
---
{}",
        split_cart(
            "  matches: [{kind: HTTPRouteGroup, name: canary, apiGroup: specs.smi-spec.io}]\n"
        )
    );
    let missing = |text: &str| {
        let found = alone("a.yaml", text);
        let found = found.iter().filter(|f| f.code == Code::MissingReference);
        found.map(|f| f.field.to_string()).collect::<Vec<_>>()
    };
    // Where a backend lacks a port of the service, the others get its share, if there are any.
    assert_eq!(missing(&text), [""; 0]);
    assert_eq!(
        missing(&text.replace("cart, weight: 1", "cart, weight: 0")),
        ["spec.backends[0].service"]
    );
    let text = text.replace(ADMIN, "");
    let plain = text.replace("  matches: [{kind", "  # matches: [{kind");
    for text in [&text, &plain] {
        assert_eq!(
            missing(&text.replace("service: cart-v1", "service: gone")),
            ["spec.backends[0].service"]
        );
        assert_eq!(
            missing(&text.replace("{service: cart,", "{service: gone,")),
            ["spec.backends[1].service"]
        );
        assert_eq!(missing(&text.replace("  service: cart", "  service: gone")), ["spec.service"]);
    }
    assert_eq!(
        missing(&text.replace("Group, name: canary", "Group, name: x")),
        ["spec.matches[0].name"]
    );
}

/// An EnvoyFilter with these patches, beside a service with a workload.
fn patched(patches: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop}}
spec: {{clusterIP: 10.0.0.1, selector: {{app: cart}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: cart-0, namespace: shop, labels: {{app: cart}}}}
spec: {{serviceAccountName: cart, containers: [{{name: istio-proxy}}]}}
status: {{phase: Running, podIP: 10.1.0.1}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: filters, namespace: shop}}
spec: {{priority: 1, configPatches: [{patches}]}}
"
    );
    let parsed = parse_files([("a.yaml", text.as_bytes())]);
    let found = analyze_input(&parsed, &MeshDefaults::default()).into_iter();
    let about = |d: &Diagnostic| d.object.as_ref().is_some_and(|id| id.kind == Kind::ENVOY_FILTER);
    found.filter(about).map(|d| d.to_string()).collect()
}

#[test]
fn a_filter_that_asks_for_what_nobody_adds_is_told() {
    const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
    let ask = |context: &str| {
        format!(
            "{{applyTo: HTTP_FILTER, match: {{context: {context}}}, patch: {{operation: INSERT_FIRST, value: {{name: mark, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{LUA}']}}}}}}}}"
        )
    };
    let add = |context: &str| {
        format!(
            "{{applyTo: EXTENSION_CONFIG, match: {{context: {context}}}, patch: {{operation: ADD, value: {{name: mark, typed_config: {{'@type': '{LUA}'}}}}}}}}"
        )
    };
    let missing = "asks for the configuration `mark`, which nobody adds";
    let found = patched(&ask("SIDECAR_INBOUND"));
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert!(finding.contains(missing) && finding.contains("spec.configPatches[0]"), "{finding}");
    // A proxy finds in any of its views what it asks for.
    for context in ["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "ANY"] {
        let patches = [ask("SIDECAR_INBOUND"), add(context)].join(", ");
        assert_eq!(patched(&patches), Vec::<String>::new(), "{context}");
    }
    let found = patched(&[ask("SIDECAR_INBOUND"), add("GATEWAY")].join(", "));
    assert!(found.iter().any(|finding| finding.contains(missing)), "{found:?}");
}

#[test]
fn patches_that_change_nothing_are_said_and_others_are_not() {
    let header = "{operation: MERGE, value: {response_headers_to_remove: [a]}}";
    let host = |domain: &str| {
        format!(
            "{{applyTo: VIRTUAL_HOST, match: {{context: SIDECAR_OUTBOUND, routeConfiguration: {{name: '80'}}}}, patch: {{operation: ADD, value: {{name: given, domains: [{domain}]}}}}}}"
        )
    };
    let route = |context: &str, port: u16| {
        format!(
            "{{applyTo: HTTP_ROUTE, match: {{context: {context}, routeConfiguration: {{portNumber: {port}}}}}, patch: {header}}}"
        )
    };
    let cluster = |name: &str| {
        format!(
            "{{applyTo: CLUSTER, match: {{cluster: {{name: '{name}'}}}}, patch: {{operation: REMOVE}}}}"
        )
    };
    let given = "{applyTo: CLUSTER, patch: {operation: ADD, value: {name: BlackHoleCluster}}}";
    let table = [
        (route("SIDECAR_INBOUND", 80), None),
        (route("SIDECAR_OUTBOUND", 80), None),
        (route("SIDECAR_OUTBOUND", 81), Some("matches nothing of any proxy")),
        (route("GATEWAY", 80), Some("matches nothing of any proxy")),
        (
            cluster("outbound|80||cart.shop.svc.cluster.local"),
            Some("lead to `outbound|80||cart.shop.svc.cluster.local`, which this takes out"),
        ),
        (cluster("inbound|80||"), Some("lead to `inbound|80||`, which this takes out")),
        (cluster("outbound|81||cart.shop.svc.cluster.local"), Some("matches nothing")),
        (given.to_owned(), Some("adds nothing")),
        (host("given.example"), None),
        (host("cart.shop.svc.cluster.local"), Some("two virtual hosts would claim the domain")),
    ];
    for (patch, expected) in table {
        let found = patched(&patch);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{patch}"),
            Some(words) => {
                let [finding] = &found[..] else { panic!("{patch}: {found:?}") };
                assert!(finding.contains("spec.configPatches[0]"), "{finding}");
                assert!(finding.contains(words), "{finding}");
            }
        }
    }
}

/// A VirtualService that continues in another, with what the other says of itself and its rules.
fn continued(other: &str) -> Vec<String> {
    let text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop}}
spec: {{clusterIP: 10.1.0.1, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: root, namespace: shop}}
spec:
  hosts: [cart]
  http:
  - match: [{{uri: {{prefix: /cart}}}}]
    delegate: {{name: part, namespace: bank}}
  - route: [{{destination: {{host: cart}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
{other}
"
    );
    let found = alone("a.yaml", &text);
    let found = found.iter().filter(|f| f.severity <= Severity::Warning);
    found.map(|f| format!("{} {}", f.code, line(f))).collect()
}

#[test]
fn parts_that_cannot_be_continued_in_are_said_on_whoever_is_wrong() {
    let route = "route: [{destination: {host: cart.shop.svc.cluster.local}}]";
    let part = "metadata: {name: part, namespace: bank}";
    let missing = "FM0201 error-ref VirtualService shop/root spec.http[0].delegate";
    for (other, expected) in [
        (format!("{part}\nspec: {{http: [{{{route}}}]}}"), vec![]),
        (
            format!("metadata: {{name: other, namespace: bank}}\nspec: {{http: [{{{route}}}]}}"),
            vec![missing, "FM0207 warn VirtualService bank/other spec"],
        ),
        (format!("{part}\nspec: {{exportTo: [.], http: [{{{route}}}]}}"), vec![missing]),
        (format!("{part}\nspec: {{hosts: [a.test], http: [{{{route}}}]}}"), vec![missing]),
        (
            format!(
                "{part}\nspec: {{http: [{{match: [{{uri: {{prefix: /cart/v2}}}}], {route}}}, {{match: [{{uri: {{prefix: /}}}}], {route}}}]}}"
            ),
            vec!["FM0207 warn VirtualService bank/part spec.http[1]"],
        ),
        (
            format!(
                "{part}\nspec: {{http: [{{route: [{{destination: {{host: nowhere.test}}}}]}}]}}"
            ),
            vec![
                "FM0201 error-ref VirtualService bank/part spec.http[0].route[0].destination.host",
            ],
        ),
        (
            format!(
                "{part}\nspec: {{gateways: [mesh], tcp: [{{{route}}}], http: [{{delegate: {{name: x}}}}]}}"
            ),
            vec![
                "FM0103 error VirtualService bank/part spec.gateways",
                "FM0103 error VirtualService bank/part spec.tcp",
                "FM0103 error VirtualService bank/part spec.http[0].delegate",
                "FM0201 error-ref VirtualService bank/part spec.http[0].delegate",
            ],
        ),
    ] {
        let (mut got, mut expected) = (continued(&other), expected);
        got.sort();
        expected.sort_unstable();
        assert_eq!(got, expected, "{other}");
    }
}

/// Findings about policies that ask somebody, in a mesh with two providers of which only one has a
/// service with the port.
fn asked(policies: &str) -> Vec<String> {
    let mesh = "mesh:
  extensionProviders:
  - {name: opa, envoyExtAuthzGrpc: {service: opa.rules.svc.cluster.local, port: 9191}}
  - {name: late, envoyExtAuthzGrpc: {service: opa.rules.svc.cluster.local, port: 1}}
  - {name: gone, envoyExtAuthzHttp: {service: rules/gone.example.com, port: 80}}
---
apiVersion: v1
kind: Service
metadata: {name: opa, namespace: rules}
spec: {clusterIP: 10.96.0.9, ports: [{name: grpc, port: 9191}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}
";
    let found = findings(&[("mesh.yaml", mesh), ("policies.yaml", policies)]);
    let about = |f: &&Diagnostic| f.field.to_string() == "spec.provider.name";
    found.iter().filter(about).map(|f| format!("{}: {}", line(f), f.message)).collect()
}

#[test]
fn who_cannot_be_asked_is_named_where_a_policy_asks() {
    let policy = |name: &str, provider: &str, app: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}\n---\n"
        )
        .replace("\\\n", "\n")
    };
    assert!(asked(&policy("a", "opa", "cart")).is_empty());
    for (provider, reason) in [
        ("nobody", "is called `nobody`"),
        ("late", "no port 1"),
        ("gone", "no service has the host"),
    ] {
        let found = asked(&policy("a", provider, "cart"));
        assert!(found.len() == 1 && found[0].contains(reason), "{provider}: {found:?}");
    }
    let two = |app: &str| asked(&(policy("a", "opa", "cart") + &policy("b", "nobody", app)));
    let told = |found: &[String]| found.iter().filter(|f| f.contains("same workloads")).count();
    assert_eq!((told(&two("cart")), told(&two("other"))), (2, 0));
}

#[test]
fn limits_that_nobody_can_count_are_told() {
    let found = |service: &str, port: u16, mode: &str| -> Vec<String> {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: limiter, namespace: shop}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{{name: grpc, port: 8081}}, {{name: http, port: 80}}]}}\n\
             ---\napiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\n\
             metadata: {{name: a, namespace: shop}}\n\
             spec: {{global: {{service: {service}, port: {port}, domain: d, failureMode: {mode}, \
             descriptors: [{{by: [{{source: PATH}}]}}]}}}}\n"
        );
        let parsed = parse_files([("a.yaml", text.as_bytes())]);
        let found = analyze_input(&parsed, &MeshDefaults::default()).into_iter();
        let about =
            |d: &Diagnostic| d.object.as_ref().is_some_and(|id| id.kind == Kind::RATE_LIMIT);
        found.filter(about).map(|d| d.to_string()).collect()
    };
    assert_eq!(found("limiter", 8081, "DENY"), Vec::<String>::new());
    let table = [
        ("nobody", 8081, "DENY", "no service has the host `nobody.shop.svc.cluster.local`"),
        ("limiter", 99, "DENY", "has no port 99, so that every request is refused"),
        ("limiter", 80, "ALLOW", "is not declared to speak gRPC, so that nothing is limited"),
    ];
    for (service, port, mode, expected) in table {
        let found = found(service, port, mode);
        let [finding] = &found[..] else { panic!("{service}:{port}: {found:?}") };
        assert!(finding.contains("spec.global.") && finding.contains(expected), "{finding}");
    }
}

#[test]
fn what_is_in_a_namespace_that_is_not_seen_is_named_and_counts_for_nobody() {
    let text = |labels: &str| {
        format!(
            "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default}}\nspec: {{discoverySelectors: [{{matchLabels: {{mesh: in}}}}]}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: hidden, namespace: shop}}\nspec: {{host: cart}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: seen, namespace: istio-system}}\nspec: {{hosts: [a.test], http: [{{route: [{{destination: {{host: cart.shop.svc.cluster.local}}}}]}}]}}\n"
        )
    };
    let found = |labels: &str| -> Vec<String> {
        let parsed = parse_files([("a.yaml", text(labels).as_bytes())]);
        let findings = analyze_input(&parsed, &MeshDefaults::default());
        let wanted = [Code::NoEffect, Code::MissingReference];
        let told = findings.iter().filter(|finding| wanted.contains(&finding.code));
        let name = |finding: &Diagnostic| finding.object.as_ref().map(|id| id.name.to_string());
        told.filter_map(|finding| Some(format!("{} {}", name(finding)?, finding.field))).collect()
    };
    assert_eq!(found("mesh: in, istio-injection: enabled"), [""; 0]);
    let hidden = ["hidden metadata.namespace", "seen spec.http[0].route[0].destination.host"];
    assert_eq!(found("istio-injection: enabled"), hidden);
}

#[test]
fn tokens_that_nobody_must_have_are_said() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a-0, namespace: shop, labels: {app: a}}\n\
        spec: {containers: [{name: app}]}\nstatus: {phase: Running, podIP: 10.0.0.1}\n---\n";
    let login = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
        metadata: {name: login, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: a}}, jwtRules: [{issuer: a, jwksUri: 'https://a.test/keys'}]}\n---\n";
    let policy = |rules: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: who, namespace: shop}}\nspec: {{rules: {rules}}}\n"
        )
    };
    for (rules, expected) in [
        ("[{from: [{source: {principals: ['*']}}]}]", true),
        ("[{from: [{source: {requestPrincipals: ['*']}}]}]", false),
        ("[{when: [{key: 'request.auth.claims[sub]', values: [x]}]}]", false),
    ] {
        let found = alone("a.yaml", &format!("{pod}{login}{}", policy(rules)));
        let said = found.iter().any(|finding| finding.code == Code::OptionalTokens);
        assert_eq!(said, expected, "{rules}: {found:#?}");
    }
    let demanding = login.replace("jwksUri", "presence: REQUIRED, jwksUri");
    let found = alone("a.yaml", &format!("{pod}{demanding}"));
    assert!(!found.iter().any(|finding| finding.code == Code::OptionalTokens), "{found:#?}");
}

#[test]
fn labels_without_end_are_said_wherever_they_stand() {
    let telemetry = |spec: &str| {
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
             metadata: {{name: t, namespace: shop}}\nspec: {{metrics: [{{{spec}}}]}}\n"
        )
    };
    let tags = |value: &str| {
        format!("overrides: [{{tagOverrides: {{x: {{operation: UPSERT, value: {value}}}}}}}]")
    };
    for (spec, expected) in [
        (
            "dimensions: [response.code, request.path]".to_owned(),
            Some("spec.metrics[0].dimensions[1]"),
        ),
        (tags("request.url_path"), Some("spec.metrics[0].overrides[0].tagOverrides.x.value")),
        (tags("request.method"), None),
    ] {
        let found = alone("a.yaml", &telemetry(&spec));
        let mut said = found.iter().filter(|finding| finding.code == Code::UnboundedLabel);
        let at = said.next().map(|finding| finding.field.to_string());
        assert_eq!(at.as_deref(), expected, "{spec}: {found:#?}");
    }
}
