//! Kinds of workloads and Services.

use std::time::Duration;

use ferromesh_integration::{mesh::Mesh, process::until};

use crate::{CALLERS, say};

/// One pod for each kind of probe, one kind of proxy each.
fn probed(kind: &str) -> String {
    let pod = |name: &str, probe: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}-{kind}, namespace: shop, labels: {{app: probed, ferromesh.io/proxy: {kind}}}}}
spec:
  containers:
  - name: app
    image: ferromesh/sample:0.1.0
    args: [serve, \"0.0.0.0:8080\", {name}, v1]
    ports: [{{name: web, containerPort: 8080}}]
    readinessProbe: {{periodSeconds: 1, {probe}}}
    livenessProbe: {{periodSeconds: 1, failureThreshold: 3, {probe}}}
    startupProbe: {{periodSeconds: 1, failureThreshold: 60, {probe}}}
---"
        )
    };
    let kinds = [
        ("http", "httpGet: {path: /healthy, port: web}"),
        ("grpc", "grpc: {port: 8080}"),
        ("tcp", "tcpSocket: {port: 8080}"),
        (
            "exec",
            "timeoutSeconds: 5, exec: {command: [/fm-peer, get, \"http://127.0.0.1:8080/\", \"1\"]}",
        ),
    ];
    kinds.map(|(name, probe)| pod(name, probe)).concat()
}

/// The policy of the namespace is STRICT by now.
pub(crate) fn every_kind_of_probe_passes_under_strict(mesh: &Mesh) {
    say("every kind of probe passes under STRICT");
    for kind in ["ferromesh", "envoy"] {
        mesh.cluster.apply(&probed(kind));
    }
    let wait = [
        "wait",
        "pods",
        "--selector=app=probed",
        "--namespace=shop",
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    mesh.cluster.try_kubectl(&wait).unwrap_or_else(|e| panic!("{e}\n{}", mesh.story("shop")));
    // An application that fails is found out: the probe reaches it, and not just the proxy.
    let broken = probed("ferromesh").replacen("[serve,", "[fail,", 1).replacen(
        "http-ferromesh",
        "broken",
        1,
    );
    mesh.cluster.apply(broken.split("---").next().expect("the first document"));
    let restarts = ".status.containerStatuses[?(@.name==\"app\")].started";
    mesh.until_status("shop", "pod/broken", restarts, |started| started == "false");
    let status = ".status.conditions[?(@.type==\"Ready\")].status";
    mesh.until_status("shop", "pod/broken", status, |ready| ready == "False");
    mesh.cluster.kubectl(&[
        "delete",
        "pods",
        "--selector=app=probed",
        "--namespace=shop",
        "--grace-period=1",
    ]);
}

pub(crate) fn a_job_ends(mesh: &Mesh) {
    say("a Job ends");
    for kind in ["ferromesh", "envoy"] {
        mesh.cluster.apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{name: once-{kind}, namespace: shop}}
spec:
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: once, ferromesh.io/proxy: {kind}}}}}
    spec:
      restartPolicy: Never
      containers: [{{name: app, image: \"ferromesh/sample:0.1.0\", args: [get, \"http://reviews.shop/\", \"10\"]}}]
"
        ));
        mesh.until_status("shop", &format!("job/once-{kind}"), ".status.succeeded", |count| {
            count == "1"
        });
        let said = mesh.cluster.kubectl(&[
            "logs",
            &format!("job/once-{kind}"),
            "--namespace=shop",
            "--container=app",
        ]);
        assert!(said.contains("\"200\":10"), "{said}");
    }
}

pub(crate) fn each_pod_of_a_headless_service_is_reached_by_name(mesh: &Mesh) {
    say("each pod of a headless Service is reached by name");
    mesh.cluster.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: store, namespace: shop}
spec: {clusterIP: None, selector: {app: store}, ports: [{name: http, port: 8080}, {name: tcp-raw, port: 9000}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: shop}
spec:
  serviceName: store
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      containers:
      - name: app
        image: ferromesh/sample:0.1.0
        args: [serve, \"0.0.0.0:8080\", $(NAME), v1]
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      - {name: raw, image: \"ferromesh/sample:0.1.0\", args: [tcp, \"0.0.0.0:9000\"]}
",
    );
    mesh.ready("shop", "statefulset/store");
    for caller in CALLERS {
        for pod in ["store-0", "store-1"] {
            mesh.until(caller, &format!("http://{pod}.store.shop:8080/"), &[], |answers| {
                answers.status(200) == 20
                    && answers.last["pod"] == pod
                    && answers.seen("x-forwarded-client-cert").contains("sa/storefront")
            });
            let address = format!("{pod}.store.shop:9000");
            until(Duration::from_secs(60), &format!("bytes to {address}"), || {
                mesh.peer(caller.0, caller.1, &["say", &address, "hello"])
                    .is_ok_and(|said| said.trim() == "hello")
            });
        }
    }
}

pub(crate) fn services_without_pods_of_their_own_work(mesh: &Mesh) {
    say("an ExternalName and a Service without selector work");
    mesh.cluster.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: outside, labels: {app: plain}}
spec:
  containers:
  - {name: app, image: \"ferromesh/sample:0.1.0\", args: [serve, \"0.0.0.0:8080\", plain, v1], readinessProbe: {periodSeconds: 1, tcpSocket: {port: 8080}}}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: outside}
spec: {selector: {app: plain}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: plain.outside.svc.cluster.local, ports: [{name: http, port: 8080}]}
",
    );
    mesh.until_status(
        "outside",
        "pod/plain",
        ".status.conditions[?(@.type==\"Ready\")].status",
        |s| s == "True",
    );
    let ip = mesh.cluster.kubectl(&[
        "get",
        "pod/plain",
        "--namespace=outside",
        "--output=jsonpath={.status.podIP}",
    ]);
    mesh.cluster.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: bare, namespace: shop}}
spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: bare-1, namespace: shop, labels: {{kubernetes.io/service-name: bare}}}}
addressType: IPv4
endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]
ports: [{{name: http, port: 8080, protocol: TCP}}]
"
    ));
    for caller in CALLERS {
        mesh.until(caller, "http://alias.shop:8080/", &[], |answers| answers.status(200) == 20);
        mesh.until(caller, "http://bare.shop/", &[], |answers| answers.status(200) == 20);
    }
}
