//! What `integration/corpus/seeds/EXPECT.md` says of traffic, for the examples whose effect a client's
//! own proxy decides: requests through a real Envoy that runs, from a file, what the translator makes
//! of the example beside services and pods. Examples with mistakes are first fixed as
//! `ferromesh analyze --fix` does.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromesh_integration::{
    offline::{bootstrap, translate_for},
    paths,
    process::Process,
};
use ferromesh_xds_translator::{
    analyze::{Texts, analyze_input, fix},
    dialect::parse_files,
    ir::MeshDefaults,
    yaml,
};
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// Requests of which a share is measured.
const MANY: usize = 4_000;
/// The port that applications listen on.
const APPLICATION: u16 = 9080;

/// A version of a service.
struct Application {
    version: &'static str,
    hits: AtomicUsize,
    status: AtomicU16,
    /// While this is false, requests are held.
    open: watch::Sender<bool>,
}

impl Application {
    async fn serve(version: &'static str, address: SocketAddr) -> Arc<Self> {
        let application = Arc::new(Self {
            version,
            hits: AtomicUsize::new(0),
            status: AtomicU16::new(200),
            open: watch::Sender::new(true),
        });
        let listener = TcpListener::bind(address).await.expect("a free address");
        let served = application.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let one = served.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |_: Request<Incoming>| one.clone().answer());
                    let connection = auto::Builder::new(TokioExecutor::new());
                    // A proxy that closes a connection is no failure of the application.
                    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        application
    }

    async fn answer(self: Arc<Self>) -> Result<Response<Full<Bytes>>, http::Error> {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        let response = Response::builder().status(self.status.load(Ordering::Relaxed));
        response.header("x-app", self.version).body(Full::default())
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

/// A client's Envoy, and a service behind it with an application for each version.
struct Site {
    _envoy: Process,
    _folder: tempfile::TempDir,
    address: String,
    host: &'static str,
    applications: BTreeMap<&'static str, Arc<Application>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What became of a request.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// The version that answered; empty if the proxy did.
    by: String,
    body: String,
    took: Duration,
}

impl Site {
    /// `number` makes addresses of its own.
    async fn start(
        number: u8,
        (namespace, host): (&str, &'static str),
        versions: &[&'static str],
        example: &str,
    ) -> Self {
        let mut applications = BTreeMap::new();
        for (last, version) in (10..).zip(versions.iter().copied()) {
            let address = SocketAddr::from(([127, 89, number, last], APPLICATION));
            applications.insert(version, Application::serve(version, address).await);
        }
        let objects = objects(number, namespace, host, versions);
        let files = [("mesh.yaml", objects.as_bytes()), ("example.yaml", example.as_bytes())];
        let parsed = parse_files(files);
        assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
        let own = format!("127.89.{number}.1");
        let node =
            format!("sidecar~10.98.89.{number}~client-0.{namespace}~{namespace}.svc.cluster.local");
        let metadata = [
            ("INTERCEPTION_MODE", "NONE"),
            ("FERROMESH_APP_ADDRESS", own.as_str()),
            ("FERROMESH_INBOUND_ADDRESS", own.as_str()),
            ("FERROMESH_OUTBOUND_ADDRESS", own.as_str()),
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.json");
        let translation = translate_for(&node, &metadata, parsed);
        fs::write(&file, bootstrap(translation).to_string()).expect("a file");
        let mut command = Command::new(paths::envoy());
        command.args([
            "--log-level",
            "warning",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-c",
        ]);
        command.arg(&file);
        let mut envoy = Process::start("envoy", folder.path(), command);
        let address = format!("{own}:80");
        envoy.until("listening", || TcpStream::connect(&address).is_ok());
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { _envoy: envoy, _folder: folder, address, host, applications, client }
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let request =
            Request::get(format!("http://{}{path}", self.address)).header("host", self.host);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let begin = Instant::now();
        let response = self.client.request(request.body(Full::default()).expect("a request")).await;
        let (head, body) = response.expect("the proxy answers").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let by = head.headers.get("x-app").and_then(|value| value.to_str().ok());
        Reply {
            status: head.status.as_u16(),
            by: by.unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
            took: begin.elapsed(),
        }
    }

    /// Many requests, `at_once` at a time.
    async fn ask_many(
        &self,
        (count, at_once): (usize, usize),
        path: &str,
        headers: &[(&str, &str)],
    ) -> Vec<Reply> {
        let each = (0..count).map(|_| self.ask(path, headers));
        stream::iter(each).buffer_unordered(at_once).collect().await
    }

    /// All of a few requests are answered by this version.
    async fn only(&self, version: &str, path: &str, headers: &[(&str, &str)]) {
        for reply in self.ask_many((60, 4), path, headers).await {
            assert_eq!((reply.status, &*reply.by), (200, version), "{path} {headers:?}");
        }
    }

    /// Ten of a hundred requests, by three more or less, are answered by v2, all others by v1.
    async fn tenth_to_v2(&self, path: &str, headers: &[(&str, &str)]) {
        let replies = self.ask_many((MANY, 16), path, headers).await;
        assert!(replies.iter().all(|reply| reply.status == 200), "{path} {headers:?}");
        let share = share(&replies, |reply| reply.by == "v2");
        assert!((7.0..=13.0).contains(&share), "{path} {headers:?}: {share} %");
    }

    /// Of `count` requests at once to a service that holds them, so many are served, and the others
    /// refused for the limits.
    async fn limits(&self, count: usize, served: usize) {
        for application in self.applications.values() {
            application.open.send_replace(false);
        }
        let each = (0..count).map(|_| self.ask("/", &[]));
        let mut replies = stream::iter(each).buffer_unordered(count);
        let mut seen = Vec::new();
        while seen.len() < count {
            // What is over the limits is answered at once; the rest once it may.
            let next = tokio::time::timeout(Duration::from_secs(5), replies.next()).await;
            if seen.len() + 1 >= count - served || next.is_err() {
                for application in self.applications.values() {
                    application.open.send_replace(true);
                }
            }
            seen.extend(next.ok().flatten());
        }
        let refused: Vec<&Reply> = seen.iter().filter(|reply| reply.status == 503).collect();
        assert!(refused.iter().all(|reply| reply.body.contains("overflow")), "{refused:?}");
        let got = seen.iter().filter(|reply| reply.status == 200).count();
        assert_eq!(got + refused.len(), count);
        assert!(got.abs_diff(served) <= 5, "{got} of {count} served, not {served}");
    }
}

fn share(replies: &[Reply], counts: impl Fn(&&Reply) -> bool) -> f64 {
    let part = replies.iter().filter(counts).count();
    100.0 * f64::from(u32::try_from(part).expect("few"))
        / f64::from(u32::try_from(replies.len()).expect("few"))
}

/// A Service with a pod for each version, none of which has a sidecar.
fn objects(number: u8, namespace: &str, name: &str, versions: &[&str]) -> String {
    let meta =
        |name: &str, labels: Value| json!({"name": name, "namespace": namespace, "labels": labels});
    let address = |last: usize| format!("127.89.{number}.{}", 10 + last);
    let pods = versions.iter().enumerate().map(|(i, version)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": meta(&format!("{name}-{version}"), json!({"app": name, "version": version})),
            "spec": {"containers": [{"name": "app", "ports": [{"containerPort": APPLICATION}]}]},
            "status": {"phase": "Running", "podIP": address(i), "podIPs": [{"ip": address(i)}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        })
    });
    let endpoints: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(i, version)| {
            json!({
                "addresses": [address(i)], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": format!("{name}-{version}"), "namespace": namespace},
            })
        })
        .collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(name, json!({})),
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": APPLICATION}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": meta(name, json!({"kubernetes.io/service-name": name})),
        "addressType": "IPv4", "ports": [{"name": "http", "port": APPLICATION}], "endpoints": endpoints,
    });
    // Without certificates of its own Envoy would wait for them.
    let mesh = json!({
        "apiVersion": "mesh.istio.io/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "default"},
        "spec": {"enableAutoMtls": false},
    });
    pods.chain([service, slice, mesh]).map(|object| format!("{object}\n---\n")).collect()
}

/// Documents of an example, counted from 1; all of it where none is named.
fn example(prefix: &str, documents: &[usize]) -> String {
    let folder = paths::project().join("integration/corpus/seeds");
    let mut files =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a file").path());
    let named = |path: &std::path::PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{prefix}-")))
    };
    let file = files.find(named).unwrap_or_else(|| panic!("no example {prefix}"));
    let text = fs::read_to_string(file).expect("a text");
    if documents.is_empty() {
        return text + "\n---\n";
    }
    let all = yaml::split(&text);
    documents.iter().map(|number| format!("{}\n---\n", all[number - 1].text)).collect()
}

/// The example as `ferromesh analyze --fix` leaves it.
fn fixed(text: String) -> String {
    let analyze = |texts: &Texts| {
        let files = texts.iter().map(|(name, text)| (&**name, text.as_bytes()));
        analyze_input(&parse_files(files), &MeshDefaults::default())
    };
    let mut done = fix(Texts::from([("example.yaml".into(), text)]), analyze);
    assert!(!done.fixed.is_empty(), "{:#?}", done.findings);
    done.texts.remove("example.yaml").expect("the text")
}

const REVIEWS: (&str, &str) = ("default", "reviews");
const MYAPP: (&str, &str) = ("production", "myapp");

/// `s0-03#1`, `s0-03#2`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_leads_to_a_version() {
    let site = Site::start(1, REVIEWS, &["v1", "v2", "v3"], &example("s0-03", &[])).await;
    site.only("v2", "/", &[("end-user", "jason")]).await;
    site.only("v2", "/", &[("END-USER", "jason")]).await;
    site.only("v1", "/", &[("end-user", "Jason")]).await;
    site.only("v1", "/", &[]).await;
    assert_eq!(site.applications["v3"].hits(), 0);
}

/// `s0-11#1`, `s0-11#2`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_gets_its_share_and_whoever_asks_for_it() {
    let site = Site::start(2, REVIEWS, &["v1", "v2"], &example("s0-11", &[])).await;
    site.only("v2", "/", &[("x-canary", "true")]).await;
    site.tenth_to_v2("/", &[("x-canary", "True")]).await;
    site.tenth_to_v2("/", &[]).await;
}

/// `s0-09#1`, fixed, with `s0-11#2`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_tried_again_is_tried_four_times() {
    let example = fixed(example("s0-09", &[])) + "\n---\n" + &example("s0-11", &[2]);
    let site = Site::start(3, REVIEWS, &["v1", "v2"], &example).await;
    let application = &site.applications["v1"];
    for (status, attempts) in [(503, 4), (409, 4), (404, 1)] {
        application.answers(status);
        let before = application.hits();
        let reply = site.ask("/", &[]).await;
        assert_eq!((reply.status, application.hits() - before), (status, attempts), "{reply:?}");
    }
}

/// `s0-07#1`, fixed: the limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_limits_of_a_fixed_rule_is_refused() {
    let example = fixed(example("s0-07", &[]));
    let site = Site::start(4, ("default", "httpbin"), &["v1"], &example).await;
    site.limits(200, 150).await;
}

/// `s2-02#1`: the limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_may_wait_for_a_connection() {
    let site = Site::start(5, ("default", "backend"), &["v1"], &example("s2-02", &[])).await;
    site.limits(150, 110).await;
}

/// `s4-07#1`: the limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_wait_for_few_connections() {
    let site = Site::start(6, MYAPP, &["v1"], &example("s4-07", &[])).await;
    site.limits(200, 150).await;
}

/// `s2-01#1`, as written and with a rule that has the subsets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_subsets_a_route_leads_nowhere() {
    let backend = ("default", "backend");
    let written = example("s2-01", &[]);
    let site = Site::start(7, backend, &["v1", "v2"], &written).await;
    for reply in site.ask_many((20, 4), "/", &[]).await {
        assert_eq!((reply.status, &*reply.by), (503, ""));
    }
    assert!(site.applications.values().all(|application| application.hits() == 0));
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {name: backend, namespace: default}\n\
         spec: {host: backend, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
    let site = Site::start(8, backend, &["v1", "v2"], &(written + rule)).await;
    site.tenth_to_v2("/", &[]).await;
}

/// `s1-02#1`, with `#2` fixed: where requests go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rule_that_matches_wins() {
    let example = fixed(example("s1-02", &[]));
    let service = ("production", "api-service");
    let site = Site::start(9, service, &["v1", "v2"], &example).await;
    let chrome = [("user-agent", "Mozilla/5.0 Chrome/120.0 Safari/537.36")];
    site.tenth_to_v2("/api/v1/x", &[]).await;
    site.tenth_to_v2("/api/v1/x", &chrome).await;
    site.only("v2", "/other", &chrome).await;
    site.only("v1", "/other", &[]).await;
}

/// `s4-01#1`, with `s4-02#1`: where requests go, and what is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_come_before_paths_and_only_the_last_rule_tries_again() {
    let example = example("s4-01", &[]) + &example("s4-02", &[]);
    let site = Site::start(10, MYAPP, &["v1", "v2"], &example).await;
    site.only("v2", "/", &[("x-version", "v2")]).await;
    site.only("v2", "/api", &[("x-version", "v2")]).await;
    site.tenth_to_v2("/api/x", &[]).await;
    site.only("v1", "/", &[]).await;
    let application = &site.applications["v1"];
    application.answers(503);
    let before = application.hits();
    assert_eq!(site.ask("/", &[]).await.status, 503);
    assert_eq!(application.hits() - before, 4);
}

/// `s4-04#1`, with `s4-02#1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_gets_a_copy_of_everything_and_answers_nobody() {
    const COPIED: usize = 1_000;
    let example = example("s4-04", &[]) + &example("s4-02", &[]);
    let site = Site::start(11, MYAPP, &["v1", "v2"], &example).await;
    for reply in site.ask_many((COPIED, 8), "/a", &[]).await {
        assert_eq!((reply.status, &*reply.by), (200, "v1"));
    }
    let mirror = &site.applications["v2"];
    ferromesh_integration::process::until(Duration::from_secs(10), "every copy", || {
        mirror.hits() == COPIED
    });
    // What becomes of a copy is nobody's concern.
    mirror.answers(503);
    mirror.open.send_replace(false);
    for reply in site.ask_many((50, 4), "/a", &[]).await {
        assert_eq!((reply.status, &*reply.by), (200, "v1"));
        assert!(reply.took < Duration::from_secs(3), "{reply:?}");
    }
}

/// `s4-08#1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_meet_whom_they_are_for() {
    let site = Site::start(12, MYAPP, &["v1"], &example("s4-08", &[])).await;
    for reply in site.ask_many((200, 8), "/", &[]).await {
        assert_eq!(reply.status, 200);
        assert!(reply.took < Duration::from_secs(3), "{reply:?}");
    }
    let before = site.applications["v1"].hits();
    let replies = site.ask_many((MANY, MANY), "/", &[("x-test-fault", "inject")]).await;
    let aborted = share(&replies, |reply| reply.status == 503);
    let delayed = share(&replies, |reply| reply.took >= Duration::from_secs(5));
    assert!((7.0..=13.0).contains(&aborted), "{aborted} % aborted");
    assert!((45.0..=55.0).contains(&delayed), "{delayed} % delayed");
    let both = share(&replies, |reply| reply.status == 503 && reply.took >= Duration::from_secs(5));
    assert!((3.0..=7.0).contains(&both), "{both} % both: they do not draw independently");
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(site.applications["v1"].hits() - before, served, "what is aborted reaches nobody");
}
