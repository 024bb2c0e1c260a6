//! The kubelet's view: real sockets on loopback, an application of each kind, and one that is not
//! there.

use std::{future::IntoFuture, net::Ipv4Addr};

use axum::{http::header, response::Redirect, routing::get};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::*;

/// Serves routes on a port of loopback.
async fn served(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, routes));
    address
}

/// An application that speaks HTTP/2, which our own ports do not.
async fn application(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn pod(probes: &str, metrics: Option<AppMetrics>) -> PodSettings {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    PodSettings {
        address: (address, 0).into(),
        application: Application { address, captured: true },
        probes: probes.parse().unwrap(),
        metrics,
        unread: Default::default(),
    }
}

async fn ask(method: &str, address: SocketAddr, path: &str) -> (u16, String) {
    ask_from(Ipv4Addr::LOCALHOST, method, address, path).await
}

async fn ask_from(
    source: Ipv4Addr,
    method: &str,
    address: SocketAddr,
    path: &str,
) -> (u16, String) {
    let mut connector = HttpConnector::new();
    connector.set_local_address(Some(source.into()));
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(connector);
    let request = http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    let request = request.header(header::USER_AGENT, "kube-probe/1.36").body(Empty::new()).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes())
            .into_owned(),
    )
}

/// A port on which nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

/// Tells what it was asked with.
async fn echo(
    headers: HeaderMap,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> (StatusCode, String) {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|got| got == value);
    let expected = is("host", "shop") && is("x-probe", "1") && is("user-agent", "kube-probe/1.36");
    let passthrough = peer.ip() == IpAddr::from([127, 0, 0, 6]);
    (
        if expected && passthrough { StatusCode::OK } else { StatusCode::IM_A_TEAPOT },
        format!("{peer} {headers:?}"),
    )
}

#[tokio::test]
async fn an_http_probe_gets_the_application_s_status() {
    let routes = Router::new()
        .route("/echo", get(echo))
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/moved", get(|| async { Redirect::temporary("/down") }))
        .route("/elsewhere", get(|| async { Redirect::temporary("http://example.com/") }))
        .route("/slow", get(std::future::pending::<()>));
    let port = served(routes).await.port();
    let get = |path: &str| format!(r#"{{"httpGet": {{"path": "{path}", "port": {port}}}}}"#);
    let headers = r#"[{"name": "Host", "value": "shop"}, {"name": "X-Probe", "value": "1"}]"#;
    let echo =
        format!(r#"{{"httpGet": {{"path": "/echo", "port": {port}, "httpHeaders": {headers}}}}}"#);
    let closed = closed_port().await;
    let probes = format!(
        r#"{{"/app-health/a/echo": {echo}, "/app-health/a/down": {}, "/app-health/a/moved": {},
        "/app-health/a/elsewhere": {}, "/app-health/a/slow": {},
        "/app-health/a/closed": {{"httpGet": {{"port": {closed}}}}}}}"#,
        get("/down"),
        get("/moved"),
        get("/elsewhere"),
        get("/slow")
    );
    let agent = served(pod(&probes, None).probe_routes()).await;
    for (name, expected) in [
        ("echo", 200),
        ("down", 503),
        ("moved", 503),
        ("elsewhere", 307),
        ("slow", 500),
        ("closed", 500),
        ("other", 404),
    ] {
        let (status, text) = ask("GET", agent, &format!("/app-health/a/{name}")).await;
        assert_eq!(status, expected, "{name}: {text}");
    }
}

#[tokio::test]
async fn https_is_asked_without_checking_the_certificate() {
    let certified = rcgen::generate_simple_self_signed(["elsewhere".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certified.cert.der().clone()], key.into())
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = hyper_util::rt::TokioIo::new(acceptor.accept(stream).await.unwrap());
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(
                http::Response::builder().status(204).body(Empty::<bytes::Bytes>::new()).unwrap(),
            )
        });
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    });
    let probes = format!(
        r#"{{"/app-health/a/livez": {{"httpGet": {{"port": {port}, "scheme": "HTTPS"}}}}}}"#
    );
    let agent = served(pod(&probes, None).probe_routes()).await;
    assert_eq!(ask("GET", agent, "/app-health/a/livez").await.0, 204);
}

#[tokio::test]
async fn a_tcp_probe_wants_an_open_port() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (open, closed) = (listener.local_addr().unwrap().port(), closed_port().await);
    let probes = format!(
        r#"{{"/app-health/a/livez": {{"tcpSocket": {{"port": {open}}}}}, "/app-health/a/readyz": {{"tcpSocket": {{"port": {closed}}}}}}}"#
    );
    let agent = served(pod(&probes, None).probe_routes()).await;
    assert_eq!(ask("GET", agent, "/app-health/a/livez").await.0, 200);
    assert_eq!(ask("GET", agent, "/app-health/a/readyz").await.0, 500);
}

/// A gRPC health service in raw HTTP/2: SERVING for the service `shop`, NOT_SERVING for others.
async fn grpc_health(request: http::Request<axum::body::Body>) -> http::Response<axum::body::Body> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let status = if body.ends_with(b"shop") { 1 } else { 2 };
    let message = bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
    let code = if path == "/grpc.health.v1.Health/Check" { "0" } else { "12" };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
    let body =
        http_body_util::Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(axum::body::Body::new(body)).unwrap()
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    let port = application(Router::new().fallback(grpc_health)).await.port();
    let probes = format!(
        r#"{{"/app-health/a/livez": {{"grpc": {{"port": {port}, "service": "shop"}}}}, "/app-health/a/readyz": {{"grpc": {{"port": {port}}}}}}}"#
    );
    let agent = served(pod(&probes, None).probe_routes()).await;
    let (status, text) = ask("GET", agent, "/app-health/a/livez").await;
    assert_eq!(status, 200, "{text}");
    let (status, text) = ask("GET", agent, "/app-health/a/readyz").await;
    assert!(status == 500 && text.contains("gRPC health status 2"), "{status} {text}");
}

#[tokio::test]
async fn metrics_are_merged_and_a_missing_application_takes_nothing_away() {
    let metrics = Router::new().route("/m", get(|| async { "app_requests 7\n# EOF\n" }));
    let port = served(metrics.route("/page", get(|| async { "<html></html>" }))).await.port();
    let with = |port, path: &str| pod("{}", Some(AppMetrics { port, path: path.into() }));
    let merge =
        async |pod: PodSettings| pod.merge_metrics("own 1\n".into(), &HeaderMap::new()).await;
    assert_eq!(merge(with(port, "/m")).await, "own 1\napp_requests 7\n");
    assert_eq!(merge(with(port, "/other")).await, "own 1\n");
    assert_eq!(merge(with(port, "/page")).await, "own 1\n");
    assert_eq!(merge(with(closed_port().await, "/m")).await, "own 1\n");
    assert_eq!(merge(pod("{}", None)).await, "own 1\n");
}

#[tokio::test]
async fn the_end_is_asked_for_by_post_from_this_host() {
    let quit = CancellationToken::new();
    let agent = served(quit_route(quit.clone())).await;
    assert_eq!(ask("GET", agent, "/quitquitquit").await.0, 405);
    assert_eq!(ask_from(PASSTHROUGH_V4, "POST", agent, "/quitquitquit").await.0, 403);
    assert!(!quit.is_cancelled());
    assert_eq!(ask("POST", agent, "/quitquitquit").await.0, 200);
    quit.cancelled().into_future().await;
}
