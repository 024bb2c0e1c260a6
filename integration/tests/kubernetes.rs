//! A control plane that follows a real cluster: what kubectl applies is served, and nothing valid
//! is lost while objects break, definitions go and come back, and the API server dies. Needs root,
//! and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromesh_integration::{
    kube_cluster::KubeCluster,
    plane::{self, ControlPlane, install_definitions},
    process::{Process, until},
};
use ferromesh_proto::{
    ResourceType,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

/// For a change of the cluster to reach a proxy, a busy machine allowed for.
const SOON: Duration = Duration::from_secs(30);
/// For what waits for the API server to come back, or for a definition to be found again.
const LATE: Duration = Duration::from_secs(90);

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints: [{addresses: [10.9.8.7], conditions: {ready: true}}]
ports: [{name: http, port: 8080, protocol: TCP}]
";

/// A VirtualService whose answers carry `mark`.
fn route(mark: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route: [{{destination: {{host: reviews}}}}]
    headers: {{response: {{set: {{x-mark: {mark}}}}}}}
"
    )
}

const SERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers:
  - {name: probe, image: local/probe:1, args: [serve], readinessProbe: {periodSeconds: 1, httpGet: {port: 8080}}}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// A Service without selector, and a slice that names a pod which is not there yet.
const EARLY: &str = "
apiVersion: v1
kind: Service
metadata: {name: early}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: early-1, labels: {kubernetes.io/service-name: early}}
addressType: IPv4
endpoints: [{addresses: [10.9.9.9], conditions: {ready: true}, targetRef: {kind: Pod, name: early, namespace: default}}]
ports: [{name: http, port: 8080, protocol: TCP}]
";

/// The pod of [`EARLY`], which nobody runs: its state is written by the test.
const EARLY_POD: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: latecomer}
---
apiVersion: v1
kind: Pod
metadata: {name: early, labels: {app: early, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: latecomer, schedulerName: nobody, containers: [{name: app, image: none}]}
";

/// A control plane of the cluster. Fields are dropped in order: the process before its folder.
struct Plane {
    process: Process,
    control: ControlPlane,
}

impl Plane {
    fn start(host: &'static str, cluster: &KubeCluster) -> Self {
        // The authority's state is kept there; a control plane that starts again finds it.
        let begin = Instant::now();
        // A young API server may refuse for a moment.
        while let Err(why) = cluster.try_kubectl(&["create", "namespace", "istio-system"])
            && !why.contains("AlreadyExists")
        {
            assert!(begin.elapsed() < LATE, "no root namespace: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let control = ControlPlane::of_cluster(host, &cluster.kubeconfig());
        Self { process: control.start(), control }
    }

    fn get(&self, path: &str) -> String {
        self.control.get(path).unwrap_or_default()
    }

    fn metrics(&self) -> String {
        self.control.metrics()
    }

    fn until_said(&self, limit: Duration, text: &str) {
        until(limit, text, || self.get("/api/v1/diagnostics").contains(text));
    }

    fn until_unsaid(&self, limit: Duration, text: &str) {
        until(limit, &format!("without {text}"), || {
            let said = self.get("/api/v1/diagnostics");
            !said.is_empty() && !said.contains(text)
        });
    }
}

/// A proxy's stream of one type.
struct Follower {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    has: BTreeMap<String, Bytes>,
}

impl Follower {
    async fn open(host: &str, kind: ResourceType, names: &[&str]) -> Self {
        let (requests, responses) = plane::subscribe(host, "follower", kind, names).await;
        Self { requests, responses, has: BTreeMap::new() }
    }

    async fn receive(&mut self) {
        let response =
            self.responses.message().await.expect("the stream goes on").expect("a response");
        for name in &response.removed_resources {
            self.has.remove(name);
        }
        for resource in response.resources {
            self.has.insert(resource.name, resource.resource.expect("a body").value);
        }
        let (type_url, response_nonce) = (response.type_url, response.nonce);
        let _ = self.requests.send(DeltaDiscoveryRequest {
            type_url,
            response_nonce,
            ..Default::default()
        });
    }

    fn contains(&self, text: &str) -> bool {
        self.has.values().any(|body| body.windows(text.len()).any(|bytes| bytes == text.as_bytes()))
    }

    /// Receives until some resource contains `text`, or none does.
    async fn until(&mut self, limit: Duration, text: &str, contained: bool) {
        let received = async {
            while self.contains(text) != contained {
                self.receive().await;
            }
        };
        let what = if contained { "sent" } else { "taken back" };
        timeout(limit, received)
            .await
            .unwrap_or_else(|_| panic!("{text} was not {what} within {limit:?}"));
    }

    /// Receives for a while: `text` must be there all the time.
    async fn keeps(&mut self, text: &str, time: Duration) {
        let received = async {
            loop {
                assert!(self.contains(text), "{text} was taken back");
                self.receive().await;
            }
        };
        let _ = timeout(time, received).await;
        assert!(self.contains(text), "{text} was taken back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_applies_is_served_and_outlives_mistakes_and_the_api_server() {
    let cluster = KubeCluster::up();
    let plane = Plane::start("127.80.60.1", &cluster);
    plane.until_said(SOON, "virtualservices.networking.istio.io");
    assert!(plane.metrics().contains("mesh_kubernetes_listed{kind=\"VirtualService\"} 0"));
    assert!(plane.metrics().contains("mesh_kubernetes_listed{kind=\"Pod\"} 1"));

    install_definitions(&cluster, SOON);
    cluster.apply(REVIEWS);
    cluster.apply(&route("first"));
    let mut routes = Follower::open(&plane.control.host, ResourceType::Route, &["80"]).await;
    routes.until(LATE, "first", true).await;
    plane.until_unsaid(SOON, "virtualservices.networking.istio.io");
    let mut endpoints = Follower::open(
        &plane.control.host,
        ResourceType::Endpoint,
        &["outbound|80||reviews.default.svc.cluster.local"],
    )
    .await;
    endpoints.until(SOON, "10.9.8.7", true).await;
    let (found, listing) = plane.control.administer(&["get", "virtualservices"]);
    assert!(found && listing.contains("reviews") && listing.contains("kubernetes"), "{listing}");
    let proxies: Value = serde_json::from_str(&plane.get("/api/v1/proxies")).expect("JSON");
    assert!(proxies.to_string().contains("follower.default"), "{proxies}");

    cluster.apply(&route("second"));
    routes.until(SOON, "second", true).await;

    // The API server refuses what the schema can tell, and the control plane what only it can tell.
    let wrong = route("third").replace("response:", "reply:");
    let file = plane.control.path("wrong.yaml");
    std::fs::write(&file, wrong).expect("a file");
    let refused = cluster.try_kubectl(&["apply", "--filename", file.to_str().expect("UTF-8")]);
    assert!(refused.expect_err("an unknown field").contains("reply"));
    cluster.apply(
        &route("third").replace("  - route:", "  - match: [{uri: {regex: \"(\"}}]\n    route:"),
    );
    plane.until_said(SOON, "spec.http[0].match[0].uri.regex");
    routes.keeps("second", Duration::from_secs(1)).await;
    cluster.apply(&route("fourth"));
    routes.until(SOON, "fourth", true).await;
    plane.until_unsaid(SOON, "spec.http[0].match[0].uri.regex");

    let yaml = plane.control.path("rest.yaml");
    std::fs::write(&yaml, route("by-rest")).expect("a file");
    let (stored, said) = plane.control.administer(&["apply", "-f", yaml.to_str().expect("UTF-8")]);
    assert!(!stored && said.contains("kubectl"), "{said}");

    // Dead, and without a history when it is back: every watch is told 410 Gone and lists anew.
    cluster.compact();
    cluster.restart("apiserver");
    routes.keeps("fourth", Duration::from_secs(3)).await;
    until(LATE, "the API server answers again", || {
        cluster.try_kubectl(&["get", "--raw", "/readyz"]).is_ok()
    });
    routes.keeps("fourth", Duration::from_secs(3)).await;
    cluster.apply(&route("fifth"));
    routes.until(LATE, "fifth", true).await;

    cluster.kubectl(&["delete", "virtualservice", "reviews"]);
    routes.until(SOON, "x-mark", false).await;
    assert!(plane.process.output().lines().all(|line| !line.contains("panicked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_goes_takes_its_objects_along_and_is_found_again() {
    let cluster = KubeCluster::up();
    let plane = Plane::start("127.80.61.1", &cluster);
    install_definitions(&cluster, SOON);
    cluster.apply(REVIEWS);
    cluster.apply(&route("before"));
    let mut routes = Follower::open(&plane.control.host, ResourceType::Route, &["80"]).await;
    routes.until(LATE, "before", true).await;

    // The same objects under an older version, as other tools write them.
    cluster.apply(&route("beta").replace("networking.istio.io/v1", "networking.istio.io/v1beta1"));
    routes.until(SOON, "beta", true).await;

    let definition = "virtualservices.networking.istio.io";
    cluster.kubectl(&["delete", "crd", definition, "--timeout=60s"]);
    routes.until(LATE, "x-mark", false).await;
    plane.until_said(LATE, definition);
    install_definitions(&cluster, SOON);
    cluster.apply(&route("after"));
    routes.until(LATE, "after", true).await;
    plane.until_unsaid(SOON, definition);

    // The mesh's own configuration, as Istio keeps it.
    let mesh = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: \"{text}\"}}\n"
        )
    };
    let mut listeners = Follower::open(&plane.control.host, ResourceType::Listener, &["*"]).await;
    listeners.until(SOON, "PassthroughCluster", true).await;
    cluster.apply(&mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    listeners.until(SOON, "PassthroughCluster", false).await;
    cluster.apply(&mesh("outboundTrafficPolicy: {mode: NOBODY}"));
    plane.until_said(SOON, "NOBODY");
    cluster.kubectl(&["delete", "configmap", "istio", "--namespace", "istio-system"]);
    listeners.until(SOON, "PassthroughCluster", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_and_go_or_come_late_and_an_unusable_secret_is_named_without_its_content() {
    let cluster = KubeCluster::up();
    let plane = Plane::start("127.80.62.1", &cluster);
    let cluster_name = "outbound|80||server.default.svc.cluster.local";
    cluster.load(&cluster.folder().join("probe.tar"));
    cluster.apply(SERVER);
    cluster.until_field("pod/server", ".status.conditions[?(@.type==\"Ready\")].status", "True");
    let address = cluster.kubectl(&["get", "pod/server", "--output", "jsonpath={.status.podIP}"]);
    let mut endpoints =
        Follower::open(&plane.control.host, ResourceType::Endpoint, &[cluster_name]).await;
    endpoints.until(SOON, &address, true).await;
    until(SOON, "the pod with its account", || {
        let workloads = plane.get("/api/v1/workloads");
        workloads.contains(&address) && workloads.contains("\"service_account\":\"default\"")
    });
    cluster.kubectl(&["delete", "pod", "server", "--grace-period=1"]);
    endpoints.until(SOON, &address, false).await;

    // A slice that is there before its pod: reachable at once, with the pod's identity once the pod
    // is known.
    cluster.apply(EARLY);
    let names = ["outbound|80||early.default.svc.cluster.local"];
    let mut early = Follower::open(&plane.control.host, ResourceType::Endpoint, &names).await;
    early.until(SOON, "10.9.9.9", true).await;
    assert!(!early.contains("tlsMode"));
    let mut clusters = Follower::open(&plane.control.host, ResourceType::Cluster, &["*"]).await;
    clusters.until(SOON, "early.default.svc.cluster.local", true).await;
    assert!(!clusters.contains("sa/latecomer"));
    cluster.apply(EARLY_POD);
    let state = "{\"status\": {\"phase\": \"Running\", \"podIP\": \"10.9.9.9\", \"podIPs\": [{\"ip\": \"10.9.9.9\"}]}}";
    cluster.kubectl(&[
        "patch",
        "pod/early",
        "--subresource=status",
        "--type=merge",
        "--patch",
        state,
    ]);
    early.until(SOON, "tlsMode", true).await;
    clusters.until(SOON, "sa/latecomer", true).await;

    let canaries =
        ["--from-literal=tls.crt=canary-certificate", "--from-literal=tls.key=canary-key"];
    let secret = ["create", "secret", "generic", "broken", "--type=kubernetes.io/tls"];
    cluster.kubectl(&[&secret[..], &canaries[..]].concat());
    plane.until_said(SOON, "unusable secret");
    for shown in
        [plane.get("/api/v1/diagnostics"), plane.get("/api/v1/objects"), plane.process.output()]
    {
        assert!(!shown.contains("canary") && !shown.contains("Y2FuYXJ5"), "{shown}");
    }
    cluster.kubectl(&["delete", "secret", "broken"]);
    plane.until_unsaid(SOON, "unusable secret");
}
