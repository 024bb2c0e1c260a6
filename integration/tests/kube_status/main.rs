//! What the mesh says in the status of its objects in a real cluster: accepted, wrong in which
//! field, refused by which proxies; said once, by one replica, and by another when that one goes.
//! Needs root, and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

mod plane;

use std::{fmt::Write, time::Duration};

use ferromesh_integration::{
    certificate::self_signed, kube_cluster::KubeCluster, plane::install_definitions, process::until,
};
use ferromesh_proto::ResourceType;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use plane::{Plane, Proxy};

/// For a status to be right, a busy machine allowed for.
const SOON: Duration = Duration::from_secs(60);
/// For what waits for a Lease to be over, or for a definition to be found again.
const LATE: Duration = Duration::from_secs(120);
/// Objects applied at once.
const CROWD: usize = 500;
/// One of so many is wrong.
const WRONG: usize = 10;

/// A VirtualService whose rule matches `matching` and whose answers carry `mark`.
fn route(name: &str, matching: &str, mark: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}]
  http:
  - match: [{{uri: {matching}}}]
    route: [{{destination: {{host: reviews}}}}]
    headers: {{response: {{set: {{x-mark: {mark}}}}}}}
"
    )
}

const FINE: &str = "{prefix: /}";
const BROKEN: &str = "{regex: '('}";
const FIELD: &str = "spec.http[0].match[0].uri.regex";

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews}
";

/// A gateway whose pod runs, and whose credential is not there.
const DOOR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: door, namespace: default, labels: {app: door}}
spec: {nodeName: far-away, containers: [{name: app, image: local/none:1}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: default}
spec:
  selector: {app: door}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ['*']
    tls: {mode: SIMPLE, credentialName: door-cert}
";

fn read(cluster: &KubeCluster, object: &str) -> Value {
    let text = cluster.try_kubectl(&["get", object, "--namespace", "default", "--output", "json"]);
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// A condition of the present generation as `STATUS REASON: MESSAGE`; empty if the status speaks of
/// an older one.
fn condition(object: &Value, kind: &str) -> String {
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        return String::new();
    }
    let conditions = object["status"]["conditions"].as_array();
    let found =
        conditions.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

/// Waits until a condition begins with `expected`; the object.
fn until_said(cluster: &KubeCluster, object: &str, kind: &str, expected: &str) -> Value {
    let mut seen = Value::Null;
    until(SOON, &format!("{object} {kind}={expected}"), || {
        seen = read(cluster, object);
        condition(&seen, kind).starts_with(expected)
    });
    seen
}

fn leader<'a>(planes: &[&'a Plane]) -> Option<&'a Plane> {
    let mut leaders = planes.iter().filter(|plane| plane.leads());
    let first = leaders.next().copied();
    assert!(leaders.next().is_none(), "two leaders");
    first
}

/// Waits until one of them leads.
fn until_led<'a>(planes: &[&'a Plane]) -> &'a Plane {
    until(LATE, "led", || leader(planes).is_some());
    leader(planes).expect("it leads")
}

/// Objects that say what they should, and Events of what is wrong.
fn says_what_is_wrong_and_where(cluster: &KubeCluster) {
    cluster.apply(REVIEWS);
    cluster.apply(&route("reviews", FINE, "first"));
    until_said(cluster, "virtualservice/reviews", "Accepted", "True Accepted: in force");
    until_said(cluster, "virtualservice/reviews", "Programmed", "True Programmed");
    until_said(cluster, "destinationrule/reviews", "Accepted", "True Accepted");
    let table = cluster.kubectl(&["get", "virtualservices", "--namespace", "default"]);
    let columns = |line: usize| {
        table.lines().nth(line).unwrap_or_default().split_whitespace().collect::<Vec<_>>()
    };
    assert!(columns(0).contains(&"ACCEPTED") && columns(1).contains(&"True"), "{table}");

    cluster.apply(&route("reviews", BROKEN, "second"));
    let broken = until_said(
        cluster,
        "virtualservice/reviews",
        "Accepted",
        &format!("False InvalidValue: {FIELD}: "),
    );
    assert!(condition(&broken, "Programmed").starts_with("False NotAccepted"), "{broken:#}");
    let message = &broken["status"]["validationMessages"][0];
    assert_eq!(message["level"], "ERROR");
    assert_eq!(message["type"], json!({ "name": "InvalidValue", "code": "IST0106" }));
    let mut events = String::new();
    until(SOON, "an Event", || {
        let about = ["events", "--namespace", "default", "--for", "virtualservice/reviews"];
        events = cluster.kubectl(&about);
        events.contains("InvalidValue")
    });
    assert!(events.contains(FIELD), "{events}");

    cluster.apply(&route("reviews", FINE, "third"));
    let mended =
        until_said(cluster, "virtualservice/reviews", "Accepted", "True Accepted: in force");
    assert_eq!(mended["status"]["validationMessages"], json!([]));
}

/// What a proxy refuses is said with its name, until it takes another version; whichever replica it
/// is connected to.
async fn names_who_refuses(cluster: &KubeCluster, plane: &Plane, [now, next]: [&str; 2]) {
    let mut proxy = Proxy::open(plane.host, "grumbler", ResourceType::Route, "80").await;
    proxy.answer(now, Some("route 80: header x-mark is not to my taste")).await;
    let refused = until_said(
        cluster,
        "virtualservice/reviews",
        "Programmed",
        "False RefusedByProxy: refused by grumbler.default",
    );
    assert!(condition(&refused, "Programmed").contains("not to my taste"), "{refused:#}");
    assert!(condition(&refused, "Accepted").starts_with("True"), "{refused:#}");
    assert!(condition(&read(cluster, "destinationrule/reviews"), "Programmed").starts_with("True"));
    cluster.apply(&route("reviews", FINE, next));
    proxy.answer(next, None).await;
    until_said(cluster, "virtualservice/reviews", "Programmed", "True Programmed");
}

/// Endpoints that come and go, and touches that change nothing, cause no write.
async fn writes_nothing_when_nothing_changed(cluster: &KubeCluster, planes: [&Plane; 2]) {
    let count = || planes.map(Plane::writes);
    let version = || read(cluster, "virtualservice/reviews")["metadata"]["resourceVersion"].clone();
    let (writes, before) = (count(), version());
    let slice = |address: usize| {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: reviews-1, namespace: default, labels: {{kubernetes.io/service-name: reviews}}}}
addressType: IPv4
endpoints: [{{addresses: [10.9.8.{address}], conditions: {{ready: true}}}}]
ports: [{{name: http, port: 8080, protocol: TCP}}]
"
        )
    };
    let mut endpoints = Proxy::open(
        planes[0].host,
        "watcher",
        ResourceType::Endpoint,
        "outbound|80||reviews.default.svc.cluster.local",
    )
    .await;
    for address in 1..=8 {
        cluster.apply(&slice(address));
        endpoints.answer(&format!("10.9.8.{address}"), None).await;
    }
    assert_eq!((count(), version()), (writes, before.clone()));
    // What is not part of the specification is no new generation. That the metadata was seen shows
    // in what follows it.
    cluster.kubectl(&[
        "label",
        "virtualservice",
        "reviews",
        "--namespace",
        "default",
        "touched=yes",
    ]);
    cluster.apply(&route("later", FINE, "later"));
    until_said(cluster, "virtualservice/later", "Accepted", "True");
    assert_eq!(count().iter().sum::<u64>(), writes.iter().sum::<u64>() + 1);
    cluster.kubectl(&["delete", "virtualservice", "later", "--namespace", "default"]);
}

fn crowd(mark: &str) -> String {
    (0..CROWD).fold(String::new(), |mut yaml, i| {
        let matching = if i % WRONG == 0 { BROKEN } else { FINE };
        let _ = write!(yaml, "---{}", route(&format!("crowd-{i}"), matching, mark));
        yaml
    })
}

/// Whether every object of the crowd has a status of its present generation, and the right one.
fn crowd_is_judged(cluster: &KubeCluster) -> bool {
    let text =
        cluster.kubectl(&["get", "virtualservices", "--namespace", "default", "--output", "json"]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let number = |object: &Value| {
        object["metadata"]["name"].as_str()?.strip_prefix("crowd-")?.parse::<usize>().ok()
    };
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let crowd: Vec<(usize, &Value)> = items.iter().filter_map(|o| Some((number(o)?, o))).collect();
    let right = |(i, object): &(usize, &Value)| {
        condition(object, "Accepted").starts_with(if i % WRONG == 0 {
            "False InvalidValue"
        } else {
            "True Accepted"
        })
    };
    crowd.len() == CROWD && crowd.iter().all(right)
}

fn judges_a_crowd(cluster: &KubeCluster, planes: [&Plane; 2]) {
    let before: u64 = planes.map(Plane::writes).iter().sum();
    let file = cluster.folder().join("crowd.yaml");
    std::fs::write(&file, crowd("crowd")).expect("a file");
    cluster.kubectl(&["apply", "--server-side", "--filename", file.to_str().expect("UTF-8")]);
    until(LATE, "judged", || crowd_is_judged(cluster));
    let writes = planes.map(Plane::writes).iter().sum::<u64>() - before;
    assert_eq!(writes, u64::try_from(CROWD).expect("small"), "one write for each");
}

/// What the REST API writes stands in the API server, with its reasons when it refuses.
fn writes_through_the_api(cluster: &KubeCluster, plane: &Plane) {
    let (stored, said) = plane.apply(&route("by-rest", FINE, "rest"));
    assert!(stored, "{said}");
    let object = read(cluster, "virtualservice/by-rest");
    assert_eq!(object["spec"]["http"][0]["headers"]["response"]["set"]["x-mark"], "rest");
    let written = cluster.kubectl(&[
        "get",
        "virtualservice",
        "by-rest",
        "--namespace",
        "default",
        "--show-managed-fields",
        "--output",
        "jsonpath={.metadata.managedFields[*].manager}",
    ]);
    assert!(written.contains("ferromesh"), "{written}");
    until_said(cluster, "virtualservice/by-rest", "Accepted", "True");

    // Wrong for us, wrong for the API server, and another's.
    let (stored, said) = plane.apply(&route("by-rest", BROKEN, "rest"));
    assert!(!stored && said.contains(FIELD), "{said}");
    let (stored, said) = plane
        .apply(&route("by-rest", FINE, "rest").replace("namespace: default", "namespace: nowhere"));
    assert!(!stored && said.contains("API server refuses") && said.contains("nowhere"), "{said}");
    cluster.apply(&route("by-kubectl", FINE, "kubectl"));
    until_said(cluster, "virtualservice/by-kubectl", "Accepted", "True");
    let (stored, said) = plane.apply(&route("by-kubectl", FINE, "rest"));
    assert!(!stored && said.contains("conflict") && said.contains("kubectl"), "{said}");

    let (deleted, said) = plane.control.administer(&["delete", "virtualservice", "by-rest"]);
    assert!(deleted, "{said}");
    until(SOON, "gone", || read(cluster, "virtualservice/by-rest").is_null());
    let (deleted, said) = plane.control.administer(&["delete", "virtualservice", "by-rest"]);
    assert!(!deleted && said.contains("not found"), "{said}");
}

/// A pod is where its node is, whichever is known first, and moves with it.
fn places_pods(cluster: &KubeCluster, plane: &Plane) {
    let node = |zone: &str| {
        format!(
            "
apiVersion: v1
kind: Node
metadata:
  name: far-away
  labels: {{topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: {zone}, topology.istio.io/subzone: rack-7}}
"
        )
    };
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: traveller, namespace: default}
spec: {nodeName: far-away, containers: [{name: app, image: local/none:1}]}
";
    let is_at = |zone: &str| {
        let place = json!({ "region": "eu", "zone": zone, "sub_zone": "rack-7" });
        let found = plane.get("/api/v1/workloads")["items"].as_array().cloned().unwrap_or_default();
        found.iter().any(|w| w["id"]["name"] == "traveller" && w["locality"] == place)
    };
    cluster.apply(pod);
    cluster.apply(&node("north"));
    until(SOON, "in the north", || is_at("north"));
    cluster.apply(&node("south"));
    until(SOON, "in the south", || is_at("south"));
    cluster.kubectl(&["delete", "node", "far-away"]);
}

/// Whether the status of an object speaks of a finding with this code and these words.
fn speaks_of(object: &Value, code: &str, words: &str) -> bool {
    let messages = object["status"]["validationMessages"].as_array();
    messages.into_iter().flatten().any(|m| {
        m["type"]["name"] == code
            && m["message"].as_str().is_some_and(|message| message.contains(words))
    })
}

/// What an object refers to may come and go: the object stays in force, and its status says what is
/// missing.
fn says_what_is_missing(cluster: &KubeCluster) {
    let until_speaks = |object: &str, code: &str, words: &str, expected: bool| {
        until(SOON, &format!("{object} speaks of {words}: {expected}"), || {
            let seen = read(cluster, object);
            condition(&seen, "Accepted").starts_with("True")
                && speaks_of(&seen, code, words) == expected
        });
    };
    cluster.apply(&route("lost", FINE, "lost").replace("host: reviews", "host: nowhere"));
    until_speaks("virtualservice/lost", "MissingReference", "nowhere", true);
    let lost = read(cluster, "virtualservice/lost");
    assert!(condition(&lost, "Programmed").starts_with("True"), "{lost:#}");
    assert!(
        condition(&lost, "ReferencesResolved").starts_with("False MissingReference"),
        "{lost:#}"
    );
    let table = cluster.kubectl(&["get", "virtualservice", "lost", "--namespace", "default"]);
    assert!(table.contains("REFERENCES") && table.contains("False"), "{table}");
    cluster.apply(&REVIEWS.replace("reviews", "nowhere"));
    until_speaks("virtualservice/lost", "MissingReference", "nowhere", false);
    until_said(cluster, "virtualservice/lost", "ReferencesResolved", "True");

    // While no pod of the gateway is there, too.
    let (pod, gateway) = DOOR.split_once("---").expect("two objects");
    cluster.apply(&pod.replace("door", "porter"));
    cluster.apply(gateway);
    until_said(cluster, "gateway/door", "ReferencesResolved", "False MissingCredential");
    let porter = ["delete", "pod", "porter", "--namespace", "default", "--grace-period=0"];
    cluster.kubectl(&[&porter[..], &["--force"]].concat());

    let (certificate, key) = self_signed(cluster.folder(), "door", &["-subj", "/CN=door"]);
    cluster.apply(DOOR);
    until_speaks("gateway/door", "MissingCredential", "door-cert", true);
    let (certificate, key) =
        (format!("--cert={}", certificate.display()), format!("--key={}", key.display()));
    cluster.kubectl(&[
        "create",
        "secret",
        "tls",
        "door-cert",
        "--namespace",
        "default",
        &certificate,
        &key,
    ]);
    until_speaks("gateway/door", "MissingCredential", "door-cert", false);
    cluster.kubectl(&["delete", "secret", "door-cert", "--namespace", "default"]);
    until_speaks("gateway/door", "MissingCredential", "door-cert", true);
    for object in [
        "virtualservice/lost",
        "gateway/door",
        "pod/door",
        "service/nowhere",
        "destinationrule/nowhere",
    ] {
        cluster.kubectl(&[
            "delete",
            object,
            "--namespace",
            "default",
            "--grace-period=0",
            "--force",
        ]);
    }
}

/// A definition that goes takes its objects along; what comes back with it is judged like anything
/// new.
fn outlives_a_definition(cluster: &KubeCluster) {
    let definition = "virtualservices.networking.istio.io";
    cluster.kubectl(&["delete", "crd", definition, "--timeout=90s"]);
    install_definitions(cluster, SOON);
    until(LATE, "applied again", || {
        let file = cluster.folder().join("again.yaml");
        std::fs::write(&file, route("reviews", BROKEN, "again")).expect("a file");
        cluster.try_kubectl(&["apply", "--filename", file.to_str().expect("UTF-8")]).is_ok()
    });
    until_said(cluster, "virtualservice/reviews", "Accepted", "False InvalidValue");
    cluster.apply(&route("reviews", FINE, "again"));
    until_said(cluster, "virtualservice/reviews", "Accepted", "True Accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_says_what_became_of_every_object_and_another_goes_on() {
    let cluster = KubeCluster::up();
    until(SOON, "a root namespace", || {
        cluster.try_kubectl(&["create", "namespace", "istio-system"]).is_ok()
    });
    install_definitions(&cluster, SOON);
    let planes = [Plane::start("127.80.74.1", &cluster), Plane::start("127.80.75.1", &cluster)];
    let both = [&planes[0], &planes[1]];
    let first = until_led(&both);
    let lease = || {
        cluster.kubectl(&[
            "get",
            "lease",
            "ferromesh-leader",
            "--namespace",
            "istio-system",
            "--output",
            "jsonpath={.spec.holderIdentity}",
        ])
    };
    assert_eq!(lease(), first.host);
    let idle = both.into_iter().find(|plane| plane.host != first.host).expect("two");

    says_what_is_wrong_and_where(&cluster);
    names_who_refuses(&cluster, first, ["third", "fourth"]).await;
    names_who_refuses(&cluster, idle, ["fourth", "fifth"]).await;
    let told = || {
        cluster.kubectl(&[
            "get",
            "configmap",
            "ferromesh-refusals",
            "--namespace",
            "istio-system",
            "--output",
            "jsonpath={.data}",
        ])
    };
    until(SOON, "taken back", || matches!(told().as_str(), "" | "{}"));
    writes_nothing_when_nothing_changed(&cluster, both).await;
    judges_a_crowd(&cluster, both);
    writes_through_the_api(&cluster, idle);
    places_pods(&cluster, idle);
    says_what_is_missing(&cluster);
    assert_eq!(
        (leader(&both).map(|p| p.host), idle.writes()),
        (Some(first.host), 0),
        "only the leader writes"
    );

    // Stopped as if its machine slept: the Lease must end first. The successor compares, and writes
    // only what is new; who wakes up leads no more.
    let written = first.writes();
    first.process.signal(Signal::SIGSTOP);
    cluster.apply(&route("reviews", BROKEN, "sixth"));
    until_said(&cluster, "virtualservice/reviews", "Accepted", "False InvalidValue");
    assert!(idle.leads());
    assert_eq!((lease(), idle.writes()), (idle.host.to_owned(), 1));
    first.process.signal(Signal::SIGCONT);
    until(SOON, "aware of its successor", || !first.leads());
    cluster.apply(&route("reviews", FINE, "seventh"));
    until_said(&cluster, "virtualservice/reviews", "Accepted", "True Accepted");
    assert_eq!(
        (leader(&both).map(|p| p.host), first.writes(), idle.writes()),
        (Some(idle.host), written, 2)
    );
    first.process.signal(Signal::SIGKILL);

    outlives_a_definition(&cluster);

    // Ended in order: the Lease is given up, and nobody waits for its end.
    let third = Plane::start("127.80.76.1", &cluster);
    idle.process.signal(Signal::SIGTERM);
    until(Duration::from_secs(12), "led by the next", || third.leads());
    cluster.apply(&route("reviews", BROKEN, "eighth"));
    until_said(&cluster, "virtualservice/reviews", "Accepted", "False InvalidValue");
    assert!(!third.panicked() && !idle.panicked() && !first.panicked());
}
