//! Injection as a whole: who is injected, what is refused, and that doing it twice changes nothing.

use serde_json::json;

use super::*;

fn pod(meta: Value, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "app", "image": "app:1" }]);
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec })
}

fn outcome(pod: &Value, namespace: &str) -> Result<Outcome, Vec<Diagnostic>> {
    let around = Surroundings { namespace, ..Surroundings::default() };
    inject(pod, &around, &InjectionSettings::default())
}

fn injected(pod: &Value) -> Value {
    match outcome(pod, "shop") {
        Ok(Outcome::Injected { pod, .. }) => pod,
        other => panic!("{other:?}"),
    }
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| pod::name(item).to_owned()).collect()
}

#[test]
fn a_pods_own_word_beats_all_but_the_nodes_network_and_the_clusters_namespaces() {
    let (yes, no) = (
        json!({ "sidecar.istio.io/inject": "true" }),
        json!({ "sidecar.istio.io/inject": "false" }),
    );
    let named = |labels: &Value, annotations: &Value| json!({ "name": "a", "labels": labels, "annotations": annotations });
    let none = json!({});
    for (meta, spec, namespace, expected) in [
        (named(&none, &none), json!({}), "shop", None),
        (named(&yes, &no), json!({}), "shop", None),
        (named(&no, &yes), json!({}), "shop", Some(Reason::SaysNo)),
        (named(&none, &no), json!({}), "shop", Some(Reason::SaysNo)),
        (named(&json!({ "sidecar.istio.io/inject": "" }), &none), json!({}), "shop", None),
        (named(&yes, &yes), json!({ "hostNetwork": true }), "shop", Some(Reason::HostNetwork)),
        (named(&yes, &yes), json!({}), "kube-system", Some(Reason::SystemNamespace)),
        (
            named(&none, &json!({ "sidecar.istio.io/status": "{\"revision\":\"x\"}" })),
            json!({}),
            "shop",
            Some(Reason::ByAnother),
        ),
    ] {
        let pod = pod(meta, spec);
        let left_alone = match outcome(&pod, namespace).expect("no mistakes") {
            Outcome::Injected { .. } => None,
            Outcome::LeftAlone(reason) => Some(reason),
        };
        assert_eq!(left_alone, expected, "{pod}");
    }
}

#[test]
fn a_selector_of_the_settings_leaves_pods_alone_that_do_not_ask() {
    let settings = InjectionSettings::default()
        .read("s", "neverInject: [{matchExpressions: [{key: app, operator: In, values: [batch]}]}]")
        .expect("good settings");
    for (labels, alone) in [
        (json!({ "app": "batch" }), true),
        (json!({ "app": "web" }), false),
        (json!({ "app": "batch", "sidecar.istio.io/inject": "true" }), false),
    ] {
        let pod = pod(json!({ "name": "a", "labels": labels }), json!({}));
        let outcome = inject(&pod, &Surroundings::default(), &settings).expect("no mistakes");
        assert_eq!(outcome == Outcome::LeftAlone(Reason::NeverInject), alone, "{pod}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_field_expectation_and_fix() {
    let annotated = |key: &str, value: &str| {
        pod(json!({ "name": "a", "annotations": { key: value } }), json!({}))
    };
    let proxy_alone = json!({ "containers": [{ "name": "istio-proxy", "image": "auto" }] });
    for (pod, words) in [
        (
            annotated("inject.istio.io/templates", "gatewy"),
            &["one of sidecar, gateway", "`gateway`"][..],
        ),
        (
            annotated("ferromesh.io/proxy", "nginx"),
            &["metadata.annotations[\"ferromesh.io/proxy\"]", "one of ferromesh, envoy"],
        ),
        (
            annotated("sidecar.istio.io/inject", "maybe"),
            &["sidecar.istio.io/inject", "true or false", "`maybe`"],
        ),
        (
            annotated("sidecar.istio.io/interceptionMode", "TPROXY"),
            &["expected REDIRECT", "`TPROXY`"],
        ),
        (
            annotated("proxy.istio.io/config", "interceptionMode: TPROXY"),
            &["expected REDIRECT", "`TPROXY`"],
        ),
        (
            annotated("inject.istio.io/templates", "grpc-agent"),
            &["no such template here", "use `sidecar`"],
        ),
        (
            annotated("inject.istio.io/templates", "sidecar,gateway"),
            &["must be said once", "got several"],
        ),
        (
            annotated(
                "proxy.istio.io/overrides",
                r#"{"containers":[{"name":"istio-proxy","env":"A"}]}"#,
            ),
            &["overrides\"][\"istio-proxy\"].env", "a list of objects"],
        ),
        (
            annotated("example.org/much", &"a".repeat(262_144)),
            &["metadata.annotations", "at most 262144 bytes"],
        ),
        (annotated("sidecar.istio.io/agentLogLevel", "loud"), &["one of none", "`loud`"]),
        (annotated("proxy.istio.io/overrides", "[]"), &["overrides", "in JSON"]),
        (annotated("sidecar.istio.io/userVolume", "a"), &["userVolume", "in JSON"]),
        (annotated("sidecar.istio.io/proxyCPU", "much"), &["proxyCPU", "100m", "`much`"]),
        (
            annotated("traffic.sidecar.istio.io/excludeInboundPorts", "80,0"),
            &["excludeInboundPorts", "`0`"],
        ),
        (
            annotated("traffic.sidecar.istio.io/excludeOutboundIPRanges", "a"),
            &["ranges such as", "`a`"],
        ),
        (
            annotated("proxy.istio.io/config", "concurrency: two"),
            &["[\"proxy.istio.io/config\"].concurrency"],
        ),
        (annotated("proxy.istio.io/config", "a: b: c"), &["not YAML"]),
        (
            annotated("sidecar.istio.io/logLevel", "info,rbac=loud"),
            &["logLevel", "one of trace", "`rbac=loud`"],
        ),
        (annotated("status.sidecar.istio.io/port", "high"), &["0..=65535", "`high`"]),
        (pod(json!({ "name": "a" }), proxy_alone), &["inject.istio.io/templates: gateway"]),
        (
            pod(json!({ "name": "a" }), json!({ "containers": "app" })),
            &["spec.containers", "a list of objects"],
        ),
        (
            pod(json!({ "name": "a", "labels": { "x": 1 } }), json!({})),
            &["metadata.labels", "a map of texts"],
        ),
        (json!({ "kind": "Pod" }), &["spec.containers"]),
    ] {
        let found = outcome(&pod, "shop")
            .expect_err("refused")
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        words
            .iter()
            .for_each(|word| assert!(found.contains(word), "{pod}: no {word:?} in {found}"));
        assert!(found.contains("Pod shop/"), "{found}");
    }
}

fn warnings(annotations: Value) -> Vec<String> {
    let pod = pod(json!({ "name": "a", "annotations": annotations }), json!({}));
    match outcome(&pod, "shop") {
        Ok(Outcome::Injected { warnings, .. }) => {
            warnings.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_asked_for_in_vain_is_named_and_the_pod_starts() {
    for (annotations, word) in [
        (json!({ "sidecar.istio.io/proxyCpu": "1" }), "`sidecar.istio.io/proxyCPU`"),
        (json!({ "sidecar.istio.io/discoveryAddress": "a:1" }), "settings of injection"),
        (json!({ "proxy.istio.io/config": "concurency: 2" }), "did you mean `concurrency`"),
        (json!({ "proxy.istio.io/config": "tracing: {sampling: 5}" }), "for a single pod"),
        (json!({ "proxy.istio.io/config": "extraStatTags: [a]" }), "keeps all of its statistics"),
        (json!({ "sidecar.istio.io/statsInclusionPrefixes": "a" }), "keeps all of its statistics"),
        (json!({ "sidecar.istio.io/agentLogLevel": "ca:debug" }), "no scope `ca`"),
        (
            json!({ "proxy.istio.io/overrides": "{\"containers\":[{\"name\":\"b\"}]}" }),
            "no container `b`",
        ),
        (
            json!({ "sidecar.istio.io/agentLogLevel": "debug", "sidecar.istio.io/logLevel": "info" }),
            "no agent of its own",
        ),
        (
            json!({ "ferromesh.io/proxy": "envoy", "sidecar.istio.io/logLevel": "info,rbac=debug" }),
            "on its agent alone",
        ),
        (
            json!({ "inject.istio.io/templates": "gateway", "sidecar.istio.io/rewriteAppHTTPProbers": "false" }),
            "no effect on a gateway",
        ),
        (json!({ "ferromesh.io/proxi": "envoy" }), "`ferromesh.io/proxy`"),
    ] {
        let said = warnings(annotations.clone());
        assert_eq!(said.len(), 1, "{annotations}: {said:?}");
        assert!(said[0].contains(word), "{annotations}: {said:?}");
    }
    for fine in [
        json!({ "sidecar.istio.io/proxyCPU": "1" }),
        // As Go reads it.
        json!({ "sidecar.istio.io/rewriteAppHTTPProbers": "T" }),
        json!({ "ferromesh.io/proxy": "envoy" }),
    ] {
        assert_eq!(warnings(fine.clone()), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_slip_in_a_namespaces_label_is_said_of_its_pods_which_start() {
    let labels = [("ferromesh.io/proxy".into(), "envoi".into())].into();
    let around = Surroundings { namespace_labels: Some(&labels), ..Surroundings::default() };
    let pod = pod(json!({ "name": "a" }), json!({}));
    let Ok(Outcome::Injected { warnings, .. }) =
        inject(&pod, &around, &InjectionSettings::default())
    else {
        panic!("it is injected")
    };
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(said.len() == 1 && said[0].contains("`ferromesh.io/proxy: envoi`"), "{said:?}");
}

#[test]
fn what_a_template_writes_into_a_pod_is_acted_on_as_if_its_author_had() {
    let settings = InjectionSettings::default()
        .read("s", "
templates:
  loud:
    metadata: {annotations: {sidecar.istio.io/logLevel: debug, prometheus.io/scrape: 'true', prometheus.io/port: '9000'}}
    spec: {containers: [{name: log, image: 'log:1', readinessProbe: {tcpSocket: {port: 80}}}]}
")
        .expect("good settings");
    let annotations = json!({ "inject.istio.io/templates": "sidecar,loud,loud" });
    let pod = pod(json!({ "name": "a", "annotations": annotations }), json!({}));
    let injected = |pod: &Value| match inject(pod, &Surroundings::default(), &settings) {
        Ok(Outcome::Injected { pod, .. }) => pod,
        other => panic!("{other:?}"),
    };
    let once = injected(&pod);
    let env = once["spec"]["initContainers"][1]["env"].as_array().expect("variables");
    let value = |name: &str| env.iter().find(|v| pod::name(v) == name).map(|v| v["value"].clone());
    assert_eq!(value("FERROMESH_LOG"), Some(json!("debug")));
    assert_eq!(value(scrape::VARIABLE), Some(json!(r#"{"path":"/metrics","port":"9000"}"#)));
    let probe = &once["spec"]["containers"][1]["readinessProbe"]["httpGet"];
    assert_eq!(probe["path"], "/app-health/log/readyz");
    assert_eq!(injected(&once), once, "injected twice");
}

#[test]
fn what_an_author_writes_costs_what_it_is_long() {
    let variables = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({ "name": format!("V{n}"), "value": "x" })).collect()
    };
    // As many as fit into a pod.
    let proxy = json!({ "name": "istio-proxy", "image": "auto", "env": variables(60_000) });
    let spec = json!({ "containers": [{ "name": "app" }, proxy] });
    let pod = injected(&pod(json!({ "name": "a" }), spec));
    let env = pod["spec"]["initContainers"][1]["env"].as_array().expect("variables").len();
    assert!(env > 60_000, "{env}");
}

#[test]
fn templates_of_the_settings_are_merged_into_pods_that_ask_for_them() {
    let settings = InjectionSettings::default()
        .read("s", "
templates:
  traced: {spec: {containers: [{name: istio-proxy, env: [{name: TRACED, value: 'yes'}]}, {name: log, image: 'log:1'}]}}
defaultTemplates: [sidecar, traced]
injectedAnnotations: {team: mesh}
")
        .expect("good settings");
    let containers = |annotations: Value| {
        let pod = pod(json!({ "name": "a", "annotations": annotations }), json!({}));
        let around = Surroundings::default();
        let Ok(Outcome::Injected { pod, .. }) = inject(&pod, &around, &settings) else {
            panic!("injected")
        };
        let Ok(Outcome::Injected { pod: again, .. }) = inject(&pod, &around, &settings) else {
            panic!("injected")
        };
        assert_eq!(pod, again, "injected twice");
        assert_eq!(pod["metadata"]["annotations"]["team"], "mesh");
        let traced = pod["spec"]["initContainers"][1]["env"]
            .as_array()
            .is_some_and(|env| env.iter().any(|variable| pod::name(variable) == "TRACED"));
        (names(&pod, "containers"), traced)
    };
    assert_eq!(containers(json!({})), (vec!["app".to_owned(), "log".to_owned()], true));
    let sidecar = json!({ "inject.istio.io/templates": "sidecar" });
    assert_eq!(containers(sidecar), (vec!["app".to_owned()], false));
    let both = json!({ "inject.istio.io/templates": "sidecar, traced" });
    assert!(containers(both).1);
}

#[test]
fn redirection_and_proxy_come_first_and_the_authors_containers_keep_their_order() {
    let spec = json!({
        "initContainers": [{ "name": "one" }, { "name": "two" }],
        "containers": [{ "name": "app" }, { "name": "istio-proxy", "image": "auto" }, { "name": "log" }],
    });
    let pod = injected(&pod(json!({ "name": "a" }), spec));
    assert_eq!(names(&pod, "initContainers"), ["istio-init", "istio-proxy", "one", "two"]);
    assert_eq!(names(&pod, "containers"), ["app", "log"]);
    assert_eq!(pod["spec"]["initContainers"][1]["restartPolicy"], "Always");
}

#[test]
fn a_pod_that_comes_back_with_another_webhooks_container_gains_only_what_that_needs() {
    let probe = json!({ "httpGet": { "path": "/", "port": 80 } });
    let spec = json!({ "containers": [{ "name": "app", "livenessProbe": probe }] });
    let once = injected(&pod(json!({ "name": "a" }), spec));
    assert_eq!(injected(&once), once);
    let mut more = once.clone();
    more["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "name": "log", "readinessProbe": probe }));
    more["spec"]["initContainers"]
        .as_array_mut()
        .expect("a list")
        .insert(0, json!({ "name": "vault" }));
    let twice = injected(&more);
    assert_eq!(names(&twice, "initContainers"), ["istio-init", "istio-proxy", "vault"]);
    assert_eq!(twice["spec"]["containers"][0], once["spec"]["containers"][0]);
    assert_eq!(
        twice["spec"]["containers"][1]["readinessProbe"]["httpGet"]["path"],
        "/app-health/log/readyz"
    );
    let told = probes::known(&twice["spec"]["initContainers"][1]);
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        ["/app-health/app/livez", "/app-health/log/readyz"]
    );
    assert_eq!(injected(&twice), twice);
}

#[test]
fn a_workload_is_called_by_its_labels_or_by_what_makes_its_pods() {
    let owned =
        |kind: &str, name: &str| json!([{ "kind": kind, "name": name, "controller": true }]);
    for (meta, name, revision) in [
        (json!({ "name": "a-0", "labels": { "app": "cart", "version": "v2" } }), "cart", "v2"),
        (
            json!({ "name": "a-0", "labels": { "app": "x", "service.istio.io/canonical-name": "cart" } }),
            "cart",
            "latest",
        ),
        (
            json!({ "generateName": "cart-7-", "labels": { "pod-template-hash": "7" }, "ownerReferences": owned("ReplicaSet", "cart-7") }),
            "cart",
            "latest",
        ),
        (
            json!({ "name": "x", "ownerReferences": owned("ReplicaSet", "cart-7") }),
            "cart-7",
            "latest",
        ),
        (
            json!({ "name": "x", "ownerReferences": owned("Job", "report-29384750") }),
            "report",
            "latest",
        ),
        (json!({ "name": "x", "ownerReferences": owned("Job", "once") }), "once", "latest"),
        (json!({ "generateName": "lone-" }), "lone", "latest"),
    ] {
        let labels = injected(&pod(meta, json!({})))["metadata"]["labels"].take();
        assert_eq!(labels["service.istio.io/canonical-name"], name);
        assert_eq!(labels["service.istio.io/canonical-revision"], revision);
        assert_eq!(labels["security.istio.io/tlsMode"], "istio");
    }
}

#[test]
fn what_is_asked_for_in_vain_is_said() {
    let annotations = json!({ "traffic.sidecar.istio.io/excludeInterfaces": "eth1" });
    let spec = json!({
        "securityContext": { "runAsUser": 1337 },
        "containers": [{ "name": "app", "securityContext": { "runAsUser": 1337 } }],
    });
    let Ok(Outcome::Injected { warnings, .. }) =
        outcome(&pod(json!({ "name": "a", "annotations": annotations }), spec), "shop")
    else {
        panic!("it is injected")
    };
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let fields = [
        "excludeInterfaces",
        "spec.securityContext.runAsUser",
        "spec.containers[0].securityContext.runAsUser",
    ];
    assert_eq!(said.len(), fields.len());
    said.iter().zip(fields).for_each(|(line, field)| assert!(line.contains(field), "{line}"));
}

/// The mesh's own containers of a pod with these annotations.
#[cfg(feature = "demo")]
fn containers_of_the_mesh(annotations: Value) -> Vec<Value> {
    let spec = json!({ "containers": [{ "name": "app", "readinessProbe": { "tcpSocket": { "port": 80 } } }] });
    let pod = injected(&pod(json!({ "name": "a", "annotations": annotations }), spec));
    let containers =
        pod::CONTAINER_LISTS.iter().filter_map(|list| pod["spec"][list].as_array()).flatten();
    containers.filter(|container| pod::name(container) != "app").cloned().collect()
}

#[cfg(feature = "demo")]
#[test]
fn the_proxy_knows_every_argument_and_variable_that_it_is_given() {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use ferromesh_dataplane::config::{Cli, parse};
    use ferromesh_xds_translator::dialect::istio::pod_config::VARIABLES;

    let program = Cli::command();
    let arguments = program
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .chain(program.get_arguments());
    let known: Vec<&str> = arguments.filter_map(|argument| argument.get_env()?.to_str()).collect();
    let read: BTreeSet<&str> = known.iter().copied().collect();
    assert_eq!(BTreeSet::from(VARIABLES), read, "what is said to be read, and what is");
    for (kind, template) in [
        ("ferromesh", "sidecar"),
        ("envoy", "sidecar"),
        ("ferromesh", "gateway"),
        ("envoy", "gateway"),
    ] {
        let containers = containers_of_the_mesh(json!({
            "ferromesh.io/proxy": kind, "inject.istio.io/templates": template,
            "prometheus.io/scrape": "true", "sidecar.istio.io/logLevel": "debug",
        }));
        for container in &containers {
            let given =
                container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            // What is required, and comes by variable.
            let required =
                ["--name", "a"].into_iter().filter(|_| pod::name(container) == pod::PROXY);
            let line: Vec<&str> =
                std::iter::once("ferromesh-proxy").chain(given).chain(required).collect();
            if let Err(error) = parse(line.iter().map(Into::into)) {
                panic!("{line:?}: {error}");
            }
            let variables = container["env"].as_array().into_iter().flatten().map(pod::name);
            variables.for_each(|name| assert!(known.contains(&name), "{name} is not known"));
        }
    }
}
