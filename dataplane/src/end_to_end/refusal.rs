//! Refused updates: none leaves the weaker security in force. Messages as a control plane sends
//! them, real sockets.

use std::{sync::Arc, time::Instant};

use ferromesh_proto::ResourceType;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    fixture::*,
    peer::{Answer, Server, client, send},
};
use crate::{
    admin::Admin,
    compile::{Rejection, fixture as wire},
    xds::{Accepted, Changed, Progress, Update},
};

const CLOSES: &str = "closed until a version is accepted, since the one in force guards less";

/// A proxy that takes its configuration as from a stream.
pub(super) struct Sent {
    pub(super) proxy: Proxy,
    accepted: Accepted,
    versions: u32,
}

impl Sent {
    fn new() -> Self {
        Self::to(Proxy::start(None))
    }

    pub(super) fn to(proxy: Proxy) -> Self {
        let accepted = Accepted::new(Arc::clone(&proxy.shared.registry));
        Self { proxy, accepted, versions: 0 }
    }

    /// A listener with routes for these hosts to a cluster in plaintext.
    async fn serving(server: &Server, hosts: &[(&str, bool, bool)]) -> Self {
        let mut sent = Self::new();
        sent.accept(ResourceType::Cluster, "app", wire::plaintext("app", server.address)).await;
        sent.accept(ResourceType::Route, "80", wire::hosts("80", "app", hosts)).await;
        let listener = sent.listener(false, false);
        sent.accept(ResourceType::Listener, "l", listener).await;
        // Routes that nobody has asked for are not kept.
        sent.accept(ResourceType::Route, "80", wire::hosts("80", "app", hosts)).await;
        sent
    }

    fn listener(&self, guarded: bool, bad_log: bool) -> Vec<u8> {
        let filters = if guarded { vec![wire::unknown_filter()] } else { vec![] };
        wire::http_listener_at("l", self.proxy.address, "80", filters, bad_log)
    }

    async fn send(&mut self, kind: ResourceType, name: &str, body: Vec<u8>) -> Vec<Rejection> {
        self.versions += 1;
        let changed = vec![Changed {
            name: name.to_owned(),
            version: self.versions.to_string(),
            body: body.into(),
        }];
        self.apply(Update { kind, changed, removed: vec![] }).await
    }

    pub(super) async fn remove(&mut self, kind: ResourceType, name: &str) {
        let removed = vec![name.to_owned()];
        assert_eq!(self.apply(Update { kind, changed: vec![], removed }).await, []);
    }

    async fn apply(&mut self, update: Update) -> Vec<Rejection> {
        let rejections = self.accepted.apply(&update, Instant::now());
        if let Some(config) = self.accepted.take_config() {
            let generation = config.generation;
            self.proxy.shared.publish(config);
            self.proxy.shared.applied(generation).await;
        }
        rejections
    }

    pub(super) async fn accept(&mut self, kind: ResourceType, name: &str, body: Vec<u8>) {
        assert_eq!(self.send(kind, name, body).await, []);
    }

    /// Sends what must be refused; answers whether that closes something.
    async fn refuse(&mut self, kind: ResourceType, name: &str, body: Vec<u8>) -> bool {
        let rejections = self.send(kind, name, body).await;
        let [rejection] = &rejections[..] else { panic!("{rejections:?}") };
        assert_eq!(rejection.to_string().ends_with(CLOSES), rejection.closed, "{rejection}");
        assert!(
            self.accepted.refusals().any(|refusal| refusal.rejection == *rejection),
            "it is remembered"
        );
        rejection.closed
    }

    async fn ask(&self, host: &str) -> Answer {
        let request = Request::get(self.proxy.url("/")).header(header::HOST, host);
        send(&client(), request.body(Full::default()).unwrap()).await
    }
}

#[tokio::test]
async fn what_was_plaintext_and_shall_be_tls_is_closed_until_it_works() {
    let app = Server::saying("ok").await;
    let mut sent = Sent::serving(&app, &[("*", false, false)]).await;
    assert_eq!(sent.ask("a").await.body, "ok");
    assert!(
        sent.refuse(
            ResourceType::Cluster,
            "app",
            wire::without_roots("app", app.address, "a.test")
        )
        .await
    );
    let answer = sent.ask("a").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("closed until this proxy is sent a version of the cluster"),
        "{}",
        answer.body
    );
    assert_eq!(app.hits(), 1, "nothing was sent in the clear");
    sent.accept(ResourceType::Cluster, "app", wire::plaintext("app", app.address)).await;
    assert_eq!(sent.ask("a").await.body, "ok");
    assert_eq!(sent.accepted.refusals().count(), 0);
}

#[tokio::test]
async fn the_status_says_what_is_closed_and_why() {
    let app = Server::saying("ok").await;
    let mut sent = Sent::serving(&app, &[("*", false, false)]).await;
    let without_roots = wire::without_roots("app", app.address, "a.test");
    assert!(sent.refuse(ResourceType::Cluster, "app", without_roots).await);
    let Sent { proxy, accepted, .. } = sent;
    let admin = Admin {
        shared: Arc::clone(&proxy.shared),
        progress: Arc::new(Progress::new(accepted)),
        node_id: "a proxy".into(),
        needs_identity: false,
        quit: CancellationToken::new(),
        log: Arc::default(),
    };
    let told = async |path: &str| {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = admin.admin_routes().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let dump: Value = serde_json::from_str(&told("/config_dump").await).unwrap();
    let [refused] = &dump["refused"].as_array().unwrap()[..] else { panic!("{dump:#}") };
    for (field, expected) in
        [("type", json!("CDS")), ("name", json!("app")), ("closed", json!(true))]
    {
        assert_eq!(refused[field], expected, "{refused:#}");
    }
    let places = ["field", "reason"].map(|field| refused[field].as_str().unwrap().to_owned());
    assert!(places.iter().all(|text| !text.is_empty()), "{refused:#}");
    let metrics = told("/stats/prometheus").await;
    let closed = "ferromesh_refused_resources{type=\"CDS\",closed=\"true\"} 1\n";
    assert!(metrics.contains(closed), "{metrics}");
}

#[tokio::test]
async fn a_refusal_for_another_reason_leaves_as_much_security_in_force() {
    let app = Server::saying("ok").await;
    let mut sent = Sent::serving(&app, &[("*", false, false)]).await;
    assert!(!sent.refuse(ResourceType::Cluster, "app", wire::eds_cluster("app", 77)).await);
    let listener = sent.listener(false, true);
    assert!(!sent.refuse(ResourceType::Listener, "l", listener).await);
    assert!(
        !sent
            .refuse(ResourceType::Route, "80", wire::hosts("80", "app", &[("*", false, true)]))
            .await
    );
    assert_eq!(sent.ask("a").await.body, "ok");
}

#[tokio::test]
async fn other_names_or_roots_that_are_refused_close_a_cluster_with_tls() {
    let authority = super::peer::Authority::new();
    let address = ([127, 0, 0, 1], 1).into();
    let roots = authority.pem();
    let mut sent = Sent::new();
    let with = |sni: &str, header: &str| wire::outside("app", address, sni, Some(&roots), header);
    sent.accept(ResourceType::Cluster, "app", with("a.test", "")).await;
    let unnamed = |sni| wire::outside("app", address, sni, None, "");
    assert!(
        sent.refuse(ResourceType::Cluster, "app", wire::without_roots("app", address, "a.test"))
            .await
    );
    assert!(sent.refuse(ResourceType::Cluster, "app", unnamed("a.test")).await);
    // Nothing more is asked for than what is in force: it goes on.
    assert!(!sent.refuse(ResourceType::Cluster, "app", wire::eds_cluster("app", 77)).await);
    sent.accept(ResourceType::Cluster, "app", with("a.test", "x-name")).await;
}

#[tokio::test]
async fn a_filter_that_is_added_and_refused_closes_its_chain() {
    let app = Server::saying("ok").await;
    let mut sent = Sent::serving(&app, &[("*", false, false)]).await;
    let mut stream = TcpStream::connect(sent.proxy.address).await.unwrap();
    let mut ask = async |expected: &str| {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&head), expected);
        let mut rest = Vec::new();
        while !rest.ends_with(b"ok") && stream.read_buf(&mut rest).await.unwrap() > 0 {}
    };
    ask("HTTP/1.1 200").await;
    let guarded = sent.listener(true, false);
    assert!(sent.refuse(ResourceType::Listener, "l", guarded.clone()).await);
    ask("HTTP/1.1 503").await;
    let mut late = TcpStream::connect(sent.proxy.address).await.unwrap();
    let _ = late.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut text = Vec::new();
    let _ = late.read_to_end(&mut text).await;
    assert_eq!(text, b"", "a new connection is closed");
    // Refused again, it stays closed; taken back, it opens.
    assert!(sent.refuse(ResourceType::Listener, "l", guarded).await);
    let open = sent.listener(false, false);
    sent.accept(ResourceType::Listener, "l", open).await;
    assert_eq!(sent.ask("a").await.body, "ok");
    assert_eq!(app.hits(), 2);
}

#[tokio::test]
async fn a_virtual_host_that_is_guarded_and_refused_is_closed_and_others_go_on() {
    let app = Server::saying("ok").await;
    let mut sent =
        Sent::serving(&app, &[("a", false, false), ("b", false, false), ("*", false, false)]).await;
    let guarded = wire::hosts(
        "80",
        "app",
        &[("a", true, false), ("b", false, false), ("new", true, false), ("*", false, false)],
    );
    assert!(sent.refuse(ResourceType::Route, "80", guarded).await);
    for (host, status) in [("a", 503), ("b", 200), ("new", 503), ("other", 200)] {
        let answer = sent.ask(host).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.body);
        assert_eq!(answer.body.starts_with("closed until"), status == 503, "{}", answer.body);
    }
}

#[tokio::test]
async fn what_nobody_knows_counts_as_a_guard_of_its_part() {
    let app = Server::saying("ok").await;
    let hosts = [("a", false, false), ("*", false, false)];
    let mut sent = Sent::serving(&app, &hosts).await;
    let routes = wire::hosts("80", "app", &hosts);
    let strange = wire::with_stranger(&routes, "a");
    assert!(sent.refuse(ResourceType::Route, "80", strange).await);
    for (host, status) in [("a", 503), ("other", 200)] {
        assert_eq!(sent.ask(host).await.status, status, "{host}");
    }
    sent.accept(ResourceType::Route, "80", routes).await;
    let asking =
        |sent: &Sent, guards| wire::http_listener_asking("l", sent.proxy.address, "80", guards);
    let harmless = asking(&sent, false);
    assert!(!sent.refuse(ResourceType::Listener, "l", harmless).await);
    assert_eq!(sent.ask("a").await.body, "ok");
    let guarding = asking(&sent, true);
    assert!(sent.refuse(ResourceType::Listener, "l", guarding).await);
    let open = sent.listener(false, false);
    sent.accept(ResourceType::Listener, "l", open).await;
    assert_eq!(sent.ask("a").await.body, "ok");
}

#[tokio::test]
async fn endpoints_that_shall_be_reached_by_tls_are_gone_while_that_is_refused() {
    let app = Server::saying("ok").await;
    let mut sent = Sent::new();
    sent.accept(ResourceType::Cluster, "app", wire::eds_cluster("app", 0)).await;
    sent.accept(
        ResourceType::Endpoint,
        "app",
        wire::endpoints_at("app", app.address, false, false),
    )
    .await;
    let state = sent.proxy.shared.config().cluster("app").unwrap().state.clone();
    assert!(
        !sent
            .refuse(
                ResourceType::Endpoint,
                "app",
                wire::endpoints_at("app", app.address, false, true)
            )
            .await
    );
    assert_eq!(state.endpoints().iter().count(), 1);
    assert!(
        sent.refuse(
            ResourceType::Endpoint,
            "app",
            wire::endpoints_at("app", app.address, true, true)
        )
        .await
    );
    assert_eq!(state.endpoints().iter().count(), 0);
}
