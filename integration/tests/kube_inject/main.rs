//! The webhooks of a control plane, asked by a real API server: pods come back with their proxies,
//! mistakes are refused, and nothing stands still while the control plane is away. Needs root, and
//! what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

mod plane;

use ferromesh_integration::{
    kube_cluster::KubeCluster, plane::install_definitions, process::until,
};
use plane::{
    INJECTOR, Plane, SOON, Said, VALIDATOR, bundles, configurations, free_address, inject, kubectl,
    serial, until_told,
};
use serde_json::{Value, json};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reviews, labels: {app: reviews}}
spec:
  containers:
  - name: app
    image: local/probe:1
    ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {path: /live, port: http}}
    readinessProbe: {grpc: {port: 9000}}
";

#[test]
fn pods_are_injected_and_objects_judged_by_the_webhooks_of_a_cluster() {
    let cluster = KubeCluster::up();
    prepare(&cluster);
    let address = free_address();
    // The certificate's short life makes it change under the test.
    let mut plane = Plane::start(&cluster, &address, &["--leaf-ttl", "30s"]);
    cluster.apply(&configurations(&plane.webhooks));
    let root = until_told(&cluster, "");
    let certificate = serial(&address);
    until(SOON, "a first pod injected", || proxied(&create(&cluster, "shop", POD)).is_some());

    the_webhook_and_the_command_agree_and_twice_is_once(&cluster, &plane);
    only_who_asks_is_injected(&cluster);
    a_pod_that_asks_for_what_cannot_be_is_refused(&cluster);
    an_author_gains_nothing_by_words_about_the_proxy(&cluster);
    the_settings_are_followed(&cluster, &plane);
    mistakes_are_refused_and_doubts_are_warnings(&cluster);
    everything_is_counted(&plane);
    the_root_is_written_again_when_somebody_changes_it(&cluster, &root);
    until(SOON, "another certificate", || {
        let shown = serial(&address);
        !shown.is_empty() && shown != certificate
    });
    assert!(proxied(&create(&cluster, "shop", POD)).is_some(), "the new certificate is trusted");

    plane.kill();
    while_the_control_plane_is_away(&cluster);
    plane = Plane::start(&cluster, &address, &[]);
    until(SOON, "pods injected again", || proxied(&create(&cluster, "shop", POD)).is_some());
    assert_eq!(bundles(&cluster, VALIDATOR), [root.as_str()], "the mesh kept its root");
    plane.kill();
    a_new_root_is_told(&cluster, &address, &root);
}

fn prepare(cluster: &KubeCluster) {
    install_definitions(cluster, SOON);
    for (name, labels) in [
        ("istio-system", ""),
        ("plain", ""),
        ("shop", "istio-injection: enabled"),
        ("revised", "istio.io/rev: default"),
        ("elsewhere", "istio.io/rev: canary"),
        ("declined", "istio-injection: disabled"),
        ("stock", "istio-injection: enabled, ferromesh.io/proxy: envoy"),
        ("guarded", "istio-injection: enabled, pod-security.kubernetes.io/enforce: restricted"),
    ] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
        ));
        // Pods are not admitted before their account is there.
        until(SOON, "a service account", || {
            cluster.try_kubectl(&["get", "sa", "default", "-n", name]).is_ok()
        });
    }
}

/// What the API server would make of a pod.
fn create(cluster: &KubeCluster, namespace: &str, pod: &str) -> Said {
    kubectl(
        cluster,
        &[
            "create",
            "--dry-run=server",
            "--output",
            "json",
            "--namespace",
            namespace,
            "--filename",
            "-",
        ],
        pod,
    )
}

fn created(cluster: &KubeCluster, namespace: &str, pod: &str) -> Value {
    let said = create(cluster, namespace, pod);
    assert!(said.success, "{}", said.stderr);
    serde_json::from_str(&said.stdout).expect("JSON")
}

/// The image of a pod's proxy.
fn proxied(said: &Said) -> Option<String> {
    let pod: Value = serde_json::from_str(&said.stdout).ok()?;
    let containers = pod["spec"]["initContainers"].as_array()?;
    Some(containers.iter().find(|c| c["name"] == "istio-proxy")?["image"].as_str()?.to_owned())
}

/// A pod without what differs from one question to the next, or by namespace.
fn essence(mut pod: Value) -> Value {
    for field in ["namespace", "uid", "creationTimestamp", "managedFields"] {
        pod["metadata"].as_object_mut().expect("an object").remove(field);
    }
    // The API server adds its own volume before the webhook, or behind what came injected, under a
    // name by chance.
    let mut text = pod["spec"].to_string();
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    for name in volumes
        .iter()
        .filter_map(|v| v["name"].as_str())
        .filter(|name| name.starts_with("kube-api-access-"))
    {
        text = text.replace(name, "kube-api-access");
    }
    pod["spec"] = serde_json::from_str(&text).expect("JSON");
    sort(&mut pod["spec"]["volumes"]);
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
        containers.for_each(|container| sort(&mut container["volumeMounts"]));
    }
    pod
}

fn sort(list: &mut Value) {
    if let Some(items) = list.as_array_mut() {
        items.sort_by_key(ToString::to_string);
    }
}

fn the_webhook_and_the_command_agree_and_twice_is_once(cluster: &KubeCluster, plane: &Plane) {
    let by_webhook = essence(created(cluster, "shop", POD));
    let by_command = essence(created(cluster, "plain", &inject(plane, POD)));
    assert_eq!(by_webhook, by_command);
    let names = |list: &str| -> Vec<&str> {
        by_webhook["spec"][list]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect()
    };
    assert_eq!(
        (names("initContainers"), names("containers")),
        (vec!["istio-init", "istio-proxy"], vec!["app"])
    );
    let drain = json!({ "name": "FERROMESH_DRAIN_TIME", "value": "7s" });
    let variables =
        by_webhook["spec"]["initContainers"][1]["env"].as_array().expect("variables").clone();
    assert!(variables.contains(&drain), "the settings are used: {variables:?}");
    let probe = &by_webhook["spec"]["containers"][0]["livenessProbe"]["httpGet"];
    assert_eq!((&probe["path"], &probe["port"]), (&json!("/app-health/app/livez"), &json!(15020)));
    let again = essence(created(cluster, "shop", &created(cluster, "shop", POD).to_string()));
    assert_eq!(again, by_webhook);
}

fn only_who_asks_is_injected(cluster: &KubeCluster) {
    let labelled =
        |labels: &str| POD.replace("labels: {app: reviews}", &format!("labels: {{{labels}}}"));
    let (asking, declining) =
        (labelled("sidecar.istio.io/inject: 'true'"), labelled("sidecar.istio.io/inject: 'false'"));
    let of_revision = labelled("istio.io/rev: default");
    let own_word =
        POD.replace("labels:", "annotations: {sidecar.istio.io/inject: 'false'}, labels:");
    let on_the_node = POD.replace("spec:", "spec:\n  hostNetwork: true");
    for (what, namespace, pod, injected) in [
        ("an enabled namespace", "shop", POD, true),
        ("a namespace of our revision", "revised", POD, true),
        ("a namespace of another revision", "elsewhere", POD, false),
        ("a namespace that says nothing", "plain", POD, false),
        ("a pod that asks", "plain", &asking, true),
        ("a pod of our revision", "plain", &of_revision, true),
        ("a pod that asks where it is declined", "declined", &asking, false),
        ("a pod that declines", "shop", &declining, false),
        ("a pod that declines by annotation", "shop", &own_word, false),
        ("a pod on its node's network", "shop", &on_the_node, false),
        ("the cluster's own", "kube-system", &asking, false),
    ] {
        let said = create(cluster, namespace, pod);
        assert!(said.success, "{what}: {}", said.stderr);
        assert_eq!(proxied(&said).is_some(), injected, "{what}");
    }
    until(SOON, "the namespace's kind of proxy", || {
        proxied(&create(cluster, "stock", POD))
            .is_some_and(|image| image.starts_with("ferromesh/envoy:"))
    });
}

fn a_pod_that_asks_for_what_cannot_be_is_refused(cluster: &KubeCluster) {
    let pod = POD.replace("labels:", "annotations: {ferromesh.io/proxy: nginx}, labels:");
    let said = create(cluster, "shop", &pod);
    for words in ["ferromesh.io/proxy", "expected one of ferromesh, envoy, got `nginx`"] {
        assert!(!said.success && said.stderr.contains(words), "{}", said.stderr);
    }
    // What is asked for in vain is said, and the pod is made.
    let annotations = "annotations: {sidecar.istio.io/proxyCpu: '1', proxy.istio.io/config: 'concurency: 2'}, labels:";
    let said = create(cluster, "shop", &POD.replace("labels:", annotations));
    for words in ["`sidecar.istio.io/proxyCPU`", "did you mean `concurrency`"] {
        assert!(said.success && said.stderr.contains(words), "{}", said.stderr);
    }
}

/// What a pod says of its proxy by annotations is judged by the cluster as if it stood in the pod.
fn an_author_gains_nothing_by_words_about_the_proxy(cluster: &KubeCluster) {
    let door = |annotations: Value| {
        let mut all = json!({ "inject.istio.io/templates": "gateway" });
        all.as_object_mut()
            .expect("a map")
            .append(annotations.clone().as_object_mut().expect("a map"));
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "door", "annotations": all },
            "spec": {
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{ "name": "istio-proxy", "image": "auto" }],
            },
        })
        .to_string()
    };
    let plain = create(cluster, "guarded", &door(json!({})));
    assert!(plain.success, "{}", plain.stderr);
    let overrides = |container: &str| {
        let text = format!(r#"{{"containers":[{{"name":"istio-proxy",{container}}}]}}"#);
        door(json!({ "proxy.istio.io/overrides": text }))
    };
    let volume = r#"[{"name":"node","hostPath":{"path":"/"}}]"#;
    for (pod, words) in [
        (overrides(r#""securityContext":{"runAsUser":0,"runAsNonRoot":false}"#), "runAsNonRoot"),
        (
            overrides(r#""securityContext":{"privileged":true,"allowPrivilegeEscalation":true}"#),
            "privileged",
        ),
        (door(json!({ "sidecar.istio.io/userVolume": volume })), "hostPath"),
    ] {
        let said = create(cluster, "guarded", &pod);
        assert!(!said.success, "{pod}");
        for words in ["violates PodSecurity", words] {
            assert!(said.stderr.contains(words), "no {words:?} in {}", said.stderr);
        }
    }
    // What Istio's own pages show, a list, is taken.
    let volumes = json!({
        "sidecar.istio.io/userVolume": r#"[{"name":"certs","emptyDir":{}}]"#,
        "sidecar.istio.io/userVolumeMount": r#"[{"name":"certs","mountPath":"/etc/certs"}]"#,
    });
    let pod = created(cluster, "guarded", &door(volumes));
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/etc/certs"), "{pod:#}");
}

fn the_settings_are_followed(cluster: &KubeCluster, plane: &Plane) {
    std::fs::write(plane.settings(), "drainTime: 8s\n").expect("a file");
    until(SOON, "the new settings in pods", || {
        create(cluster, "shop", POD).stdout.contains("\"value\": \"8s\"")
    });
    let template = "templates: {tiered: {metadata: {labels: {tier: edge}}}}\ndrainTime: 7s\n";
    std::fs::write(plane.settings(), template).expect("a file");
    until(SOON, "settings with a template", || {
        create(cluster, "shop", POD).stdout.contains("\"value\": \"7s\"")
    });
    let asking = "annotations: {inject.istio.io/templates: 'sidecar,tiered'}, labels:";
    let tiered = created(cluster, "shop", &POD.replace("labels:", asking));
    assert_eq!(tiered["metadata"]["labels"]["tier"], "edge");
    std::fs::write(plane.settings(), "drianTime: 9s\n").expect("a file");
    plane.until_said("did you mean `drainTime`");
    assert!(
        create(cluster, "shop", POD).stdout.contains("\"value\": \"7s\""),
        "the last good settings stay"
    );
}

/// A VirtualService of `host` that sends everything to `destination`.
fn route(name: &str, host: &str, destination: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: shop, finalizers: [test.ferromesh.io/stays]}}
spec:
  hosts: ['{host}']
  http: [{{route: [{{destination: {{host: {destination}}}}}]}}]
"
    )
}

fn mistakes_are_refused_and_doubts_are_warnings(cluster: &KubeCluster) {
    let apply = |yaml: &str| kubectl(cluster, &["apply", "--filename", "-"], yaml);
    let refused = apply(&route("mistaken", "http://reviews", "reviews"));
    for words in [
        "error[FM0103]",
        "VirtualService shop/mistaken",
        "spec.hosts[0]",
        "a host, not a URL",
        "fix: `reviews`",
    ] {
        assert!(
            !refused.success && refused.stderr.contains(words),
            "no {words:?} in {}",
            refused.stderr
        );
    }
    let doubtful = apply(&route("doubtful", "reviews", "nowhere"));
    assert!(doubtful.success, "{}", doubtful.stderr);
    for words in ["Warning:", "FM0201", "nowhere"] {
        assert!(doubtful.stderr.contains(words), "no {words:?} in {}", doubtful.stderr);
    }
    let changed = apply(&route("doubtful", "http://reviews", "nowhere"));
    assert!(!changed.success, "a change for the worse is refused");
    // It goes, and who takes its finalizer off is asked nothing.
    cluster.kubectl(&["delete", "virtualservice", "doubtful", "-n", "shop", "--wait=false"]);
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&[
        "patch",
        "virtualservice",
        "doubtful",
        "-n",
        "shop",
        "--type",
        "merge",
        "-p",
        patch,
    ]);
    let filter = "
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: unknown, namespace: shop}
spec: {}
";
    let said = apply(filter);
    assert!(
        !said.stderr.contains("denied the request"),
        "what we do not serve is not ours to refuse: {}",
        said.stderr
    );
}

fn everything_is_counted(plane: &Plane) {
    let metrics = plane.metrics();
    for line in [
        "sidecar_injection_requests_total ",
        "sidecar_injection_success_total ",
        "sidecar_injection_failure_total 1",
        "sidecar_injection_skip_total ",
        "galley_validation_passed{group=\"networking.istio.io\",version=\"v1\",resource=\"virtualservices\"} 1",
        "galley_validation_failed{group=\"networking.istio.io\",version=\"v1\",resource=\"virtualservices\",reason=\"FM0103\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
}

fn the_root_is_written_again_when_somebody_changes_it(cluster: &KubeCluster, root: &str) {
    let patch = r#"[{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]"#;
    cluster.kubectl(&["patch", INJECTOR, "--type", "json", "-p", patch]);
    assert_eq!(until_told(cluster, ""), root);
    cluster.kubectl(&["delete", VALIDATOR]);
    let address =
        cluster.kubectl(&["get", INJECTOR, "-o", "jsonpath={.webhooks[0].clientConfig.url}"]);
    let address = address.trim_start_matches("https://").trim_end_matches("/inject");
    cluster.apply(&configurations(address));
    assert_eq!(until_told(cluster, ""), root);
}

fn while_the_control_plane_is_away(cluster: &KubeCluster) {
    assert!(create(cluster, "plain", POD).success, "who does not ask for a proxy needs nobody");
    assert!(!create(cluster, "shop", POD).success, "who asks for a proxy does not run without one");
    // Nobody is there to judge.
    cluster.apply(&route("unjudged", "http://reviews", "reviews"));
}

fn a_new_root_is_told(cluster: &KubeCluster, address: &str, old: &str) {
    cluster.kubectl(&["delete", "secret", "ferromesh-ca", "--namespace", "istio-system"]);
    let _plane = Plane::start(cluster, address, &["--new-root"]);
    until_told(cluster, old);
    until(SOON, "pods injected under the new root", || {
        proxied(&create(cluster, "shop", POD)).is_some()
    });
}
