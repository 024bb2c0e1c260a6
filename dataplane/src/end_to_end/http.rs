//! HTTP/1 and HTTP/2 through one proxy.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    fixture::*,
    peer::{Server, client, get, http2_client, send},
};
use crate::runtime::{
    HttpFilter, Rbac,
    action::{
        Action, DirectResponse, Mirror, PathRewrite, Redirect, RedirectPath, RetryOn, RetryPolicy,
    },
    authz::{Condition, Policy, RbacAction},
    cluster::{CircuitBreakers, OutlierDetection, UpstreamProtocol},
    filter::fault::{AbortStatus, FaultAbort, FaultConfig, FaultDelay},
    matcher::{Share, StringMatcher},
    route::VirtualHost,
    target::{ClusterChoice, WeightedCluster, WeightedClusters},
};
use crate::worker::Phase;

pub(super) fn retry(on: &str, retries: u32) -> Arc<RetryPolicy> {
    Arc::new(RetryPolicy {
        on: RetryOn::parse(on).unwrap(),
        retries,
        per_try_timeout: None,
        statuses: vec![],
        back_off_base: Duration::from_millis(1),
        back_off_max: Duration::from_millis(2),
        reselect_attempts: 5,
    })
}

fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::from("answered")).unwrap()
}

#[tokio::test]
async fn a_request_goes_through_with_the_headers_of_a_proxy() {
    let server = Server::echoing().await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let client = client();
    for round in 0..3 {
        let request =
            Request::post(proxy.url("/x?y=1")).header("connection", "x-hop").header("x-hop", "1");
        let answer =
            send(&client, request.body(Full::from(format!("body {round}"))).unwrap()).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with("POST /x?y=1\n"), "{}", answer.body);
        assert!(answer.body.ends_with(&format!("\n\nbody {round}")), "{}", answer.body);
        for part in [
            format!("host: {}", proxy.address),
            "x-forwarded-proto: http".into(),
            "x-envoy-attempt-count: 1".into(),
        ] {
            assert!(answer.body.contains(&part), "{part} is missing in {}", answer.body);
        }
        assert!(!answer.body.contains("x-hop"), "{}", answer.body);
        assert_eq!(answer.header("server"), "istio-envoy");
        assert!(!answer.header("x-envoy-upstream-service-time").is_empty());
    }
    let metrics = proxy.shared.metrics.render();
    let sample =
        metrics.lines().find(|line| line.starts_with("istio_requests_total")).expect("a sample");
    assert!(
        sample.contains("destination_workload=\"server-v1\"") && sample.ends_with("} 3"),
        "{sample}"
    );
}

#[tokio::test]
async fn http2_goes_through_with_trailers_and_reuses_one_connection() {
    let server = Server::start(|request, _| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        Response::builder().header("grpc-status", "0").body(Full::from("ok")).unwrap()
    })
    .await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let client = http2_client();
    let requests = (0..20).map(|_| get(&client, proxy.url("/")));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.header("grpc-status")),
            (200, "ok", "0")
        );
    }
    let usage = proxy.shared.config().cluster("a").unwrap().state.clone();
    assert_eq!(usage.usage.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_cannot_be_routed_is_answered_as_envoy_does() {
    let gone = dead_address();
    let clusters: &[(&str, &[std::net::SocketAddr])] = &[("none", &[]), ("dead", &[gone.address])];
    let route_to = |prefix: &str, cluster: &str| {
        route(prefix, Action::Forward(Box::new(forward(ClusterChoice::One(cluster.into())))))
    };
    let hosts = vec![host(vec![
        route_to("/none", "none"),
        route_to("/dead", "dead"),
        route_to("/missing", "missing"),
    ])];
    let proxy = Proxy::http(hosts, clusters).await;
    let client = client();
    for (path, code, body, flag) in [
        ("/else", 404, "", "NR"),
        ("/none", 503, "no healthy upstream", "UH"),
        ("/dead", 503, "upstream connect error", "UF"),
        ("/missing", 503, "", "NC"),
    ] {
        let answer = get(&client, proxy.url(path)).await;
        assert_eq!(answer.status, code, "{path}");
        assert!(answer.body.starts_with(body), "{path}: {}", answer.body);
        let metrics = proxy.shared.metrics.render();
        assert!(metrics.contains(&format!("response_flags=\"{flag}\"")), "{path}: {metrics}");
    }
}

#[tokio::test]
async fn weights_split_requests() {
    let (a, b) = (Server::saying("a").await, Server::saying("b").await);
    let target = |name: &str, weight| WeightedCluster {
        name: name.into(),
        weight,
        headers: Default::default(),
        host_rewrite: None,
        overrides: Default::default(),
    };
    let choice = ClusterChoice::Weighted(
        WeightedClusters::new(vec![target("a", 90), target("b", 10)]).unwrap(),
    );
    let hosts = vec![host(vec![route("/", Action::Forward(Box::new(forward(choice))))])];
    let proxy = Proxy::http(hosts, &[("a", &[a.address]), ("b", &[b.address])]).await;
    let client = client();
    for _ in 0..40 {
        let batch = (0..100).map(|_| get(&client, proxy.url("/")));
        futures_util::future::join_all(batch).await;
    }
    assert_eq!(a.hits() + b.hits(), 4000);
    assert!((280..=520).contains(&b.hits()), "10 percent of 4000, got {}", b.hits());
}

#[tokio::test]
async fn failures_are_retried_with_the_body_and_counted() {
    let server = Server::start(|request, number| async move {
        let attempt = request.headers()["x-envoy-attempt-count"].to_str().unwrap().to_owned();
        let body = request.collect().await.unwrap().to_bytes();
        if number < 3 {
            status(503)
        } else {
            Response::new(Full::from([&body[..], attempt.as_bytes()].concat()))
        }
    })
    .await;
    let hosts = vec![to("a", |action| action.retry = Some(retry("5xx", 2)))];
    let proxy = Proxy::http(hosts, &[("a", &[server.address])]).await;
    let request = Request::post(proxy.url("/")).body(Full::from("hello ")).unwrap();
    let answer = send(&client(), request).await;
    assert_eq!((answer.status, answer.body.as_str(), server.hits()), (200, "hello 3", 3));
}

#[tokio::test]
async fn retries_end_and_skip_what_is_not_asked_for() {
    for (on, hits) in [("5xx", 4), ("gateway-error", 4), ("connect-failure", 1), ("reset", 1)] {
        let server = Server::start(|_, _| async { status(503) }).await;
        let proxy = Proxy::http(
            vec![to("a", |a| a.retry = Some(retry(on, 3)))],
            &[("a", &[server.address])],
        )
        .await;
        assert_eq!(get(&client(), proxy.url("/")).await.status, 503, "{on}");
        assert_eq!(server.hits(), hits, "{on}");
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_left_for_a_living_one() {
    let (dead, server) = (dead_address(), Server::saying("ok").await);
    let hosts = vec![to("a", |action| action.retry = Some(retry("connect-failure", 2)))];
    let proxy = Proxy::http(hosts, &[("a", &[dead.address, server.address])]).await;
    let client = client();
    for _ in 0..10 {
        assert_eq!(get(&client, proxy.url("/")).await.status, 200);
    }
}

#[tokio::test]
async fn a_route_timeout_answers_504_and_covers_retries() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        status(200)
    })
    .await;
    let limit = Duration::from_millis(1500);
    let hosts = vec![to("a", |action| {
        action.timeout = Some(limit);
        let per_try =
            RetryPolicy { per_try_timeout: Some(limit / 3), ..(*retry("5xx", 9)).clone() };
        action.retry = Some(Arc::new(per_try));
    })];
    let proxy = Proxy::http(hosts, &[("a", &[server.address])]).await;
    let start = Instant::now();
    let answer = get(&client(), proxy.url("/")).await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"));
    assert!(start.elapsed() >= limit && start.elapsed() < 10 * limit);
    assert!((2..=4).contains(&server.hits()), "{} attempts", server.hits());
}

#[tokio::test]
async fn a_response_that_stops_half_way_is_cut_off() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
                std::future::pending::<()>().await;
            });
        }
    });
    for (timeout, idle, flag) in [(Some(1500), None, "UT"), (None, Some(1500), "SI")] {
        let hosts = vec![to("a", |action| {
            action.timeout = timeout.map(Duration::from_millis);
            action.idle_timeout = idle.map(Duration::from_millis);
        })];
        let proxy = Proxy::http(hosts, &[("a", &[address])]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut text = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut text)).await;
        assert!(
            ended.is_ok(),
            "still open after {timeout:?} {idle:?}: {}",
            String::from_utf8_lossy(&text)
        );
        assert!(text.ends_with(b"half"), "{}", String::from_utf8_lossy(&text));
        let metrics = proxy.shared.metrics.render();
        assert!(metrics.contains(&format!("response_flags=\"{flag}\"")), "{metrics}");
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected() {
    let (bad, good) =
        (Server::start(|_, _| async { status(500) }).await, Server::saying("ok").await);
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[bad.address, good.address]);
    cluster.outlier = Some(OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 0,
        consecutive_local_origin_failure: 0,
        split_local_origin: false,
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(60),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 50,
        always_one: false,
    });
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    proxy.configure(vec![listener], vec![cluster]).await;
    let client = client();
    for _ in 0..40 {
        get(&client, proxy.url("/")).await;
    }
    assert_eq!((bad.hits(), good.hits()), (3, 37));
}

fn rbac(action: RbacAction, path: &str) -> HttpFilter {
    let permission = Condition::Path(StringMatcher::Prefix(path.into()));
    let policies = vec![Policy { name: "p".into(), permission, principal: Condition::Any }];
    HttpFilter::Rbac(Arc::new(Rbac { action, policies }.into()))
}

fn with_filter(filter: HttpFilter, hosts: Vec<VirtualHost>) -> crate::runtime::FilterChain {
    let mut manager = with_routes(hosts);
    manager.normalize_path = true;
    manager.filters.insert(0, filter);
    http_chain(manager)
}

#[tokio::test]
async fn a_policy_refuses_and_a_change_of_it_reaches_open_connections() {
    let server = Server::saying("ok").await;
    let mut proxy = Proxy::start(None);
    let hosts = || vec![to("a", |_| {})];
    let listener = proxy.listener(with_filter(rbac(RbacAction::Allow, "/open"), hosts()));
    let cluster = proxy.cluster("a", &[server.address]);
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for (path, code) in [("/open", 200), ("/closed", 403), ("/open/../closed", 403), ("/open", 200)]
    {
        assert_eq!(raw_get(&mut stream, path).await.0, code, "{path}");
    }
    let listener = proxy.listener(with_filter(rbac(RbacAction::Deny, "/open"), hosts()));
    let cluster = proxy.cluster("a", &[server.address]);
    proxy.configure(vec![listener], vec![cluster]).await;
    assert_eq!(raw_get(&mut stream, "/open").await, (403, "RBAC: access denied".to_owned()));
    assert_eq!(raw_get(&mut stream, "/closed").await.0, 200);
}

/// One request on a connection that stays open.
async fn raw_get(stream: &mut TcpStream, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = read_response(stream).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// Reads one response with a content length: its head and its body.
async fn read_response(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "closed: {}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |l| l.parse().unwrap());
    while bytes.len() < end + length {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    (head, String::from_utf8_lossy(&bytes[end..]).into_owned())
}

#[tokio::test]
async fn a_draining_proxy_answers_and_asks_clients_to_go() {
    let server = Server::saying("ok").await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(raw_get(&mut stream, "/").await.0, 200);
    assert_eq!(proxy.shared.connections(), 1);
    proxy.shared.enter(Phase::Draining);
    let mut idle = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (head, body) = read_response(&mut stream).await;
    assert!(head.contains("connection: close") && body == "ok", "{head}");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    // One that asks for nothing is closed after a while.
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_outlives_its_listener_by_one_answer() {
    let server = Server::saying("ok").await;
    let mut proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(raw_get(&mut stream, "/").await.0, 200);
    let cluster = proxy.cluster("a", &[server.address]);
    proxy.configure(vec![], vec![cluster]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (head, body) = read_response(&mut stream).await;
    assert!(head.contains("connection: close") && body == "ok", "{head}");
    assert!(TcpStream::connect(proxy.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn pools_survive_a_push_and_follow_the_endpoints() {
    let (old, new) = (Server::saying("old").await, Server::saying("new").await);
    let mut proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[old.address])]).await;
    let client = client();
    assert_eq!(get(&client, proxy.url("/")).await.body, "old");
    let before = proxy.shared.config().cluster("a").unwrap().state.clone();
    let (listener, cluster) = (
        proxy.listener(http_chain(with_routes(vec![to("a", |_| {})]))),
        proxy.cluster("a", &[new.address]),
    );
    proxy.configure(vec![listener], vec![cluster]).await;
    let after = proxy.shared.config().cluster("a").unwrap().state.clone();
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(get(&client, proxy.url("/")).await.body, "new");
}

#[tokio::test]
async fn faults_delay_and_abort() {
    let server = Server::saying("ok").await;
    let fault = FaultConfig {
        delay: Some(FaultDelay { duration: Duration::from_millis(200), share: Share::ALL }),
        abort: Some(FaultAbort { status: AbortStatus::Http(418), share: Share::ALL }),
        headers: vec![],
    };
    let mut proxy = Proxy::start(None);
    let chain = with_filter(HttpFilter::Fault(Some(Arc::new(fault))), vec![to("a", |_| {})]);
    let (listener, cluster) = (proxy.listener(chain), proxy.cluster("a", &[server.address]));
    proxy.configure(vec![listener], vec![cluster]).await;
    let start = Instant::now();
    let answer = get(&client(), proxy.url("/")).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        (answer.status, answer.body.as_str(), server.hits()),
        (418, "fault filter abort", 0)
    );
    assert!(proxy.shared.metrics.render().contains("response_flags=\"DI,FI\""));
}

#[tokio::test]
async fn long_bodies_are_tried_again_and_mirrored() {
    const KEPT: usize = 900_000;
    const LONG: usize = 3_000_000;
    let failing = Server::start(|request, _| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::builder().status(503).body(Full::from(length.to_string())).unwrap()
    })
    .await;
    let copied = Arc::<std::sync::Mutex<Vec<usize>>>::default();
    let copies = Arc::clone(&copied);
    let shadow = Server::start(move |request, _| {
        let copies = Arc::clone(&copies);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            copies.lock().unwrap().push(body.len());
            status(200)
        }
    })
    .await;
    let mirror = Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false };
    let hosts = vec![to("a", |action| {
        action.retry = Some(retry("5xx", 2));
        action.mirrors = vec![mirror];
    })];
    let proxy = Proxy::http(hosts, &[("a", &[failing.address]), ("b", &[shadow.address])]).await;
    // A mirror needs no more than to keep up.
    for (length, hits) in [(KEPT, 3), (LONG, 4)] {
        let body = Full::from(vec![b'x'; length]);
        let answer = send(&client(), Request::post(proxy.url("/")).body(body).unwrap()).await;
        assert_eq!((answer.status, answer.body), (503, length.to_string()));
        assert_eq!(failing.hits(), hits, "{length}");
    }
    super::blame::until("the copies", || copied.lock().unwrap().len() >= 2).await;
    assert_eq!(*copied.lock().unwrap(), [KEPT, LONG]);
}

#[tokio::test]
async fn mirrors_get_a_copy_and_change_nothing() {
    let (server, shadow) = (Server::saying("ok").await, Server::echoing().await);
    let mirror = Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false };
    let hosts = vec![to("a", |action| action.mirrors = vec![mirror])];
    let proxy = Proxy::http(hosts, &[("a", &[server.address]), ("b", &[shadow.address])]).await;
    let request = Request::post(proxy.url("/x")).body(Full::from("copy me")).unwrap();
    assert_eq!(send(&client(), request).await.body, "ok");
    super::blame::until("the copy", || shadow.hits() > 0).await;
    assert_eq!((server.hits(), shadow.hits()), (1, 1));
}

#[tokio::test]
async fn routes_redirect_rewrite_and_answer_themselves() {
    let server = Server::echoing().await;
    let redirect = Redirect {
        status: 302,
        scheme: None,
        host: Some("new.example".into()),
        port: None,
        path: RedirectPath::Rewrite(PathRewrite::Keep),
        strip_query: false,
    };
    let mut rewritten = forward(ClusterChoice::One("a".into()));
    rewritten.path_rewrite = PathRewrite::Prefix("/new/".into());
    let hosts = vec![host(vec![
        route("/away", Action::Redirect(redirect)),
        route(
            "/direct",
            Action::Direct(DirectResponse { status: 418, body: Bytes::from_static(b"tea") }),
        ),
        route("/old/", Action::Forward(Box::new(rewritten))),
    ])];
    let proxy = Proxy::http(hosts, &[("a", &[server.address])]).await;
    let client = client();
    let answer = get(&client, proxy.url("/away?q=1")).await;
    assert_eq!((answer.status, answer.header("location")), (302, "http://new.example/away?q=1"));
    let answer = get(&client, proxy.url("/direct")).await;
    assert_eq!((answer.status, answer.body.as_str()), (418, "tea"));
    let answer = get(&client, proxy.url("/old/x?y")).await;
    assert!(answer.body.starts_with("GET /new/x?y\n"), "{}", answer.body);
    assert!(answer.body.contains("x-envoy-original-path: /old/x?y"), "{}", answer.body);
}

#[tokio::test]
async fn circuit_breakers_refuse_what_is_too_much() {
    // Answers nobody before the others were refused.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let closed = Arc::clone(&gate);
    let server = Server::start(move |_, _| {
        let gate = Arc::clone(&closed);
        async move {
            let _ = gate.acquire().await;
            status(200)
        }
    })
    .await;
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[server.address]);
    cluster.limits = CircuitBreakers {
        max_connections: 10,
        max_pending_requests: 5,
        ..CircuitBreakers::default()
    };
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    proxy.configure(vec![listener], vec![cluster]).await;
    let client = client();
    let asked = (0..20).map(|_| get(&client, proxy.url("/")));
    let mut asked: futures_util::stream::FuturesUnordered<_> = asked.collect();
    let mut answers = Vec::new();
    while let Some(answer) = asked.next().await {
        answers.push(answer);
        if answers.len() == 5 {
            gate.add_permits(20);
        }
    }
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let refused =
        answers.iter().filter(|answer| answer.header("x-envoy-overloaded") == "true").count();
    assert_eq!((served, refused), (15, 5));
    assert!(proxy.shared.metrics.render().contains("response_flags=\"UO\""));
}

/// A server that takes a WebSocket and sends back the first five bytes.
async fn echo_after_upgrade() -> Server {
    Server::start(|mut request, _| async move {
        assert_eq!(request.method(), "GET");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 5];
            io.read_exact(&mut buffer).await.unwrap();
            io.write_all(&buffer).await.unwrap();
        });
        let response = Response::builder().status(101).header(header::UPGRADE, "websocket");
        response.header(header::CONNECTION, "upgrade").body(Full::default()).unwrap()
    })
    .await
}

/// Asks for a WebSocket through a proxy, and for five bytes back.
async fn check_websocket(proxy: &Proxy) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, _) = read_response(&mut stream).await;
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
}

#[tokio::test]
async fn a_websocket_is_joined() {
    let server = echo_after_upgrade().await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    check_websocket(&proxy).await;
}

/// A proxy whose clients may ask for WebSockets over HTTP/2, before `address`.
async fn extended(address: std::net::SocketAddr) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(vec![to("a", |_| {})]);
    manager.upgrades_http2 = true;
    let listener = proxy.listener(http_chain(manager));
    let mut cluster = proxy.cluster("a", &[address]);
    cluster.connection.protocol = UpstreamProtocol::Http1;
    proxy.configure(vec![listener], vec![cluster]).await;
    proxy
}

/// Carries upgrades to `callee` over HTTP/2.
async fn caller_of(callee: &Proxy) -> Proxy {
    let mut caller = Proxy::start(None);
    let listener = caller.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    let mut cluster = caller.cluster("a", &[callee.address]);
    cluster.connection.protocol = UpstreamProtocol::Http2;
    cluster.connection.http.upgrades_http2 = true;
    caller.configure(vec![listener], vec![cluster]).await;
    caller
}

#[tokio::test]
async fn a_websocket_crosses_a_connection_of_http2() {
    let server = echo_after_upgrade().await;
    let callee = extended(server.address).await;
    let caller = caller_of(&callee).await;
    // Several at a time share the connection.
    check_websocket(&caller).await;
    tokio::join!(check_websocket(&caller), check_websocket(&caller));
}

#[tokio::test]
async fn an_answer_to_a_websocket_over_http2_that_is_none_opens_no_stream() {
    for (status, expected) in [(404, "404"), (200, "502")] {
        let server = Server::start(move |_, _| async move {
            Response::builder().status(status).body(Full::from("no")).unwrap()
        })
        .await;
        let callee = extended(server.address).await;
        let caller = caller_of(&callee).await;
        let mut stream = TcpStream::connect(caller.address).await.unwrap();
        let request =
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = read_response(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {expected}")), "{head}");
    }
}

#[tokio::test]
async fn a_websocket_is_not_passed_on_as_another_request() {
    let server = Server::saying("ok").await;
    let mut proxy = Proxy::start(None);
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    let mut cluster = proxy.cluster("a", &[server.address]);
    cluster.connection.protocol = UpstreamProtocol::Http2;
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, _) = read_response(&mut stream).await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(server.hits(), 0);
    assert_eq!(get(&client(), proxy.url("/")).await.status, 200);
}

#[tokio::test]
async fn a_large_body_streams_both_ways() {
    let server = Server::start(|request, _| async move {
        let body = request.collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let hosts = vec![to("a", |action| action.retry = Some(retry("5xx", 2)))];
    let proxy = Proxy::http(hosts, &[("a", &[server.address])]).await;
    let body = Bytes::from(vec![b'x'; 5_000_000]);
    let request = Request::post(proxy.url("/")).body(Full::new(body)).unwrap();
    assert_eq!(send(&client(), request).await.body.len(), 5_000_000);
}

#[tokio::test]
async fn requests_that_could_mean_two_things_are_refused() {
    let server = Server::saying("ok").await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n x: folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = read_response(&mut stream).await;
        assert!(head.starts_with("http/1.1 400"), "{request:?} got {head}");
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn targets_of_every_form_are_understood() {
    let server = Server::echoing().await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    for (request, code, first_line) in [
        (
            "GET http://other.example/x?y HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            200,
            "GET /x?y",
        ),
        ("GET /x HTTP/1.0\r\n\r\n", 200, "GET /x"),
        (
            "CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\nconnection: close\r\n\r\n",
            403,
            "",
        ),
        ("HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 200, ""),
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!(" {code} ")), "{request:?}: {head}");
        assert_eq!(body.lines().next().unwrap_or_default(), first_line, "{request:?}");
        assert!(!first_line.contains('?') || body.contains("host: other.example\n"), "{body}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_no_request() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers one request per connection as if it would keep it, then closes.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    });
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[address])]).await;
    let client = client();
    for _ in 0..50 {
        assert_eq!(get(&client, proxy.url("/")).await.status, 200);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_told() {
    let taken = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
    let mut proxy = Proxy::start(None);
    let bad = listener(taken.local_addr().unwrap(), vec![(Default::default(), tcp_chain("none"))]);
    let good = proxy.listener(tcp_chain("none"));
    let failures = proxy.configure(vec![bad, good], vec![]).await;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].address, taken.local_addr().unwrap());
    assert!(TcpStream::connect(proxy.address).await.is_ok());
}

#[tokio::test]
async fn an_endpoint_changes_to_what_was_asked_for_or_has_broken_the_protocol() {
    for (asked, fields, code) in [
        (true, "connection: upgrade\r\nupgrade: WebSocket\r\n", "101"),
        (true, "connection: upgrade\r\nupgrade: h2c\r\n", "502"),
        (true, "connection: upgrade\r\nupgrade: websocket, h2c\r\n", "502"),
        (true, "connection: upgrade\r\n", "502"),
        (true, "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n", "502"),
        (
            true,
            "connection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked\r\n",
            "502",
        ),
        (false, "connection: upgrade\r\nupgrade: websocket\r\n", "502"),
    ] {
        let server = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[address])]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let upgrade = if asked { "connection: upgrade\r\nupgrade: websocket\r\n" } else { "" };
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut endpoint = server.accept().await.unwrap().0;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(endpoint.read_buf(&mut heard).await.unwrap(), 0);
        }
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        endpoint.write_all(answer.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(status, *format!("HTTP/1.1 {code}").as_bytes(), "{asked} {fields:?}");
    }
}

#[tokio::test]
async fn whoever_demands_an_upgrade_says_to_what() {
    let server = Server::start(|_, _| async {
        let response = Response::builder().status(426).header(header::UPGRADE, "TLS/1.2, HTTP/1.1");
        response.header(header::CONNECTION, "upgrade").body(Full::default()).unwrap()
    })
    .await;
    let mut proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let answer = get(&client(), proxy.url("/")).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, "TLS/1.2, HTTP/1.1"));
    let silent = Server::start(|_, _| async {
        let response = Response::builder().status(426).header(header::UPGRADE, "websocket");
        response.body(Full::default()).unwrap()
    })
    .await;
    let unnamed = Proxy::http(vec![to("a", |_| {})], &[("a", &[silent.address])]).await;
    let answer = get(&client(), unnamed.url("/")).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, ""));
    // A client of HTTP/2 would be sent what it has to refuse.
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    let mut cluster = proxy.cluster("a", &[server.address]);
    cluster.connection.protocol = UpstreamProtocol::Http1;
    proxy.configure(vec![listener], vec![cluster]).await;
    let answer = get(&http2_client(), proxy.url("/")).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, ""));
}
