//! Pages with an API server that keeps ConfigMaps, as far as this needs one.

use std::{
    convert::Infallible,
    sync::{Mutex, MutexGuard},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;

/// What an API server would hold.
#[derive(Default)]
struct ApiServer {
    maps: BTreeMap<String, Value>,
    made: usize,
    writes: usize,
    pod: bool,
    away: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<ApiServer>>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, ApiServer> {
        self.0.lock().expect("no test panics while it holds this lock")
    }

    fn cluster(&self) -> KubeCluster {
        let shared = self.clone();
        let answer = move |request: Request<Body>| {
            let shared = shared.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body in memory").to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let name = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
                let (code, body) = match head.uri.path().contains("/pods/") {
                    true => shared.state().pod(&name),
                    false => shared.state().answer(&head.method, &name, body),
                };
                let response = Response::builder().status(code);
                let response = response.header("content-type", "application/json");
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(response.body(body).expect("a response"))
            }
        };
        KubeCluster { client: Client::new(tower::service_fn(answer), "default") }
    }

    fn own(&self, instance: &str) -> OwnPages {
        OwnPages::new(&self.cluster(), "istio-system", instance)
    }

    /// Holder and text of every page.
    fn pages(&self) -> Vec<String> {
        let page = |(name, map): (&String, &Value)| {
            let holder = map["metadata"]["annotations"][REPLICA].as_str().unwrap_or_default();
            let number = name.trim_start_matches(PREFIX);
            format!("{number} {holder}: {}", map["data"][KEY].as_str().unwrap_or_default())
        };
        self.state().maps.iter().map(page).collect()
    }
}

impl ApiServer {
    fn pod(&self, name: &str) -> (u16, Value) {
        match self.pod {
            true => (200, json!({"metadata": {"name": name, "uid": format!("of {name}")}})),
            false => status(404),
        }
    }

    fn answer(&mut self, method: &Method, name: &str, mut body: Value) -> (u16, Value) {
        if self.away {
            return status(503);
        }
        let uid = |map: &Value| map["metadata"]["uid"].clone();
        match *method {
            Method::GET => {
                let items: Vec<&Value> = self.maps.values().collect();
                return (200, json!({"metadata": {}, "items": items}));
            }
            Method::POST => {
                let name = body["metadata"]["name"].as_str().expect("a name").to_owned();
                if self.maps.contains_key(&name) {
                    return status(409);
                }
                self.made += 1;
                body["metadata"]["uid"] = json!(format!("uid {}", self.made));
                self.maps.insert(name, body.clone());
            }
            Method::PUT => match self.maps.get_mut(name) {
                Some(map) if uid(&*map) == uid(&body) => *map = body.clone(),
                _ => return status(409),
            },
            Method::DELETE => match self.maps.get(name) {
                Some(map) if uid(map) == body["preconditions"]["uid"] => {
                    self.maps.remove(name);
                }
                _ => return status(409),
            },
            _ => unreachable!("{method}"),
        }
        self.writes += 1;
        (200, body)
    }
}

fn status(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "ServiceUnavailable",
    };
    let failure = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code});
    (code, failure)
}

fn texts<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(str::to_owned)
}

#[tokio::test]
async fn a_replica_holds_as_many_pages_as_it_needs_and_none_of_anothers() {
    let server = Shared::default();
    let (mut one, mut two) = (server.own("one"), server.own("two"));
    one.write(&[], true).await.expect("nothing to say");
    assert_eq!(server.pages(), [""; 0]);
    one.write(&texts(["a", "b"]), false).await.expect("free pages");
    two.write(&texts(["c"]), false).await.expect("a free page");
    assert_eq!(server.pages(), ["0 one: a", "1 one: b", "2 two: c"]);
    let before = server.state().writes;
    one.write(&texts(["a", "d"]), false).await.expect("its own");
    assert_eq!(server.state().writes, before + 1, "only what changed is written");
    one.write(&texts(["a", "d"]), true).await.expect("its own");
    assert_eq!(server.state().writes, before + 3, "all of it is repeated");
    one.write(&texts(["a"]), false).await.expect("its own");
    two.write(&texts(["c", "e"]), false).await.expect("a free page");
    assert_eq!(server.pages(), ["0 one: a", "1 two: e", "2 two: c"]);
    one.write(&[], false).await.expect("its own");
    assert_eq!(server.pages(), ["1 two: e", "2 two: c"]);
}

#[tokio::test]
async fn a_page_that_was_lost_is_found_out_and_what_was_of_an_earlier_life_is_taken_over() {
    let server = Shared::default();
    let (mut one, mut two) = (server.own("one"), server.own("two"));
    one.write(&texts(["a"]), false).await.expect("a free page");
    server.state().maps.clear();
    two.write(&texts(["c"]), false).await.expect("a free page");
    one.write(&texts(["b"]), false).await.expect_err("it is another's");
    one.write(&texts(["b"]), false).await.expect("another one");
    assert_eq!(server.pages(), ["0 two: c", "1 one: b"]);

    let beat = |server: &Shared, page: &str| {
        let beat = server.state().maps[page]["metadata"]["annotations"][BEAT].clone();
        beat.as_str().and_then(|beat| beat.parse::<u64>().ok()).expect("a beat")
    };
    let before = beat(&server, "ferromesh-connections-1");
    let mut again = server.own("one");
    again.write(&texts(["z"]), false).await.expect("its own");
    assert_eq!(server.pages(), ["0 two: c", "1 one: z"]);
    assert!(beat(&server, "ferromesh-connections-1") > before);
    server.own("one").write(&[], false).await.expect("its own");
    assert_eq!(server.pages(), ["0 two: c"]);
}

#[tokio::test]
async fn where_every_page_is_taken_nobody_loses_one() {
    let server = Shared::default();
    let mut greedy = server.own("greedy");
    greedy.write(&vec!["x".to_owned(); COUNT], false).await.expect("all of them");
    let mut late = server.own("late");
    late.write(&texts(["y"]), false).await.expect_err("none is left");
    greedy.write(&vec!["x".to_owned(); COUNT - 1], false).await.expect("one less");
    late.write(&texts(["y"]), false).await.expect("the last one");
    assert!(server.pages().contains(&format!("{} late: y", COUNT - 1)));
}

#[tokio::test]
async fn a_page_belongs_to_the_pod_and_is_labelled() {
    let server = Shared::default();
    server.state().pod = true;
    server.own("ferromesh-x").write(&texts(["a"]), false).await.expect("a free page");
    let metadata = server.state().maps["ferromesh-connections-0"]["metadata"].clone();
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "ferromesh-x", "uid": "of ferromesh-x"}]);
    assert_eq!(metadata["ownerReferences"], owner);
    assert_eq!(metadata["labels"], json!({LABEL: "true", MANAGED_BY: OURS}));
}

#[tokio::test]
async fn others_see_a_page_until_who_is_silent_is_removed() {
    let server = Shared::default();
    let mut one = server.own("one");
    one.write(&texts(["a"]), false).await.expect("a free page");
    let others = |instance| OtherPages::new(&server.cluster(), "istio-system", instance);
    assert_eq!(others("one").marks().await.expect("an answer"), BTreeMap::new());
    let marks = others("two").marks().await.expect("an answer");
    let (name, mark) = marks.first_key_value().expect("a page");
    assert_eq!((&**name, &*mark.beat), ("ferromesh-connections-0", "1"));
    // What is not named as a page is none.
    let alien = json!({"metadata": {"name": "ferromesh-connections-99"}, "data": {KEY: "x"}});
    server.state().maps.insert("ferromesh-connections-99".to_owned(), alien);
    assert_eq!(others("two").marks().await.expect("an answer").len(), 1);
    server.state().maps.remove("ferromesh-connections-99");
    others("two").remove(name, mark).await.expect("it is as it was");
    assert_eq!(server.pages(), [""; 0]);
    server.state().away = true;
    others("two").marks().await.expect_err("nobody answers");
}

#[test]
fn the_chart_allows_the_pages_by_name() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/ferromesh/templates/roles.yaml");
    let roles = std::fs::read_to_string(chart).expect("the chart");
    let names = format!("until {COUNT} }}}}");
    let line = roles.lines().find(|line| line.contains(PREFIX)).expect("a rule");
    assert!(line.contains(&names) && line.contains("verbs: [update, delete]"), "{line}");
}
