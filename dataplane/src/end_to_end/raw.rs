//! Requests byte by byte, as no client library would send them. What is expected is what Envoy 1.40
//! does with the same bytes and the settings of the mesh, unless a comment names the reason for
//! something else.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    fixture::*,
    peer::{Server, send},
};
use crate::runtime::{
    HttpConnectionManager, HttpFilter, Listener, Rbac,
    authz::{Condition, Policy, RbacAction},
    filter_chain::FilterChainMatch,
    listener::PortScope,
    matcher::{HeaderMatcher, StringMatcher, ValueMatcher},
    route::VirtualHost,
};

/// Sends `bytes`, and the end of them if `ended`; answers what comes back until a whole answer has
/// come.
async fn ask(address: SocketAddr, bytes: &[u8], ended: bool) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The proxy may close before it has read all.
    let _ = stream.write_all(bytes).await;
    if ended {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let reading = async {
        while !is_whole(&answer) {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&part[..length]),
            }
        }
    };
    timeout(Duration::from_secs(30), reading).await.expect("an answer or an end");
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return text == "raw" };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// `raw`, the status, or nothing.
async fn outcome(address: SocketAddr, bytes: &[u8], ended: bool) -> String {
    let answer = ask(address, bytes, ended).await;
    let status = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    status.map_or(answer.as_str(), |rest| &rest[..3]).to_owned()
}

/// Says `raw` to whoever sends something.
async fn raw_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(b"raw").await;
                }
            });
        }
    });
    address
}

/// HTTP for what the inspector finds, bytes to anywhere for the rest: a listener of declared HTTP
/// services.
fn shared_listener(proxy: &Proxy, hosts: Vec<VirtualHost>) -> Listener {
    let found = ["http/1.0", "http/1.1", "h2c"].map(Into::into).to_vec();
    let http = FilterChainMatch { application_protocols: found, ..Default::default() };
    let mut listener =
        listener(proxy.address, vec![(http, http_chain(strict(with_routes(hosts))))]);
    listener.inspect.http = Some(PortScope::default());
    listener.inspect.timeout = Some(Duration::from_millis(1500));
    listener.default_chain = Some(std::sync::Arc::new(tcp_chain("raw")));
    listener
}

/// What the translator sets for every connection manager.
fn strict(manager: HttpConnectionManager) -> HttpConnectionManager {
    HttpConnectionManager { normalize_path: true, accept_http_10: false, ..manager }
}

async fn shared_proxy(domain: &str) -> (Proxy, Server) {
    let server = Server::echoing().await;
    let mut proxy = Proxy::start(None);
    let hosts = vec![VirtualHost { domains: vec![domain.into()], ..to("http", |_| {}) }];
    let listener = shared_listener(&proxy, hosts);
    let clusters =
        vec![proxy.cluster("http", &[server.address]), proxy.cluster("raw", &[raw_server().await])];
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    (proxy, server)
}

fn with_host(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

#[tokio::test]
async fn no_request_leaves_the_mesh_by_its_form() {
    let (proxy, _server) = shared_proxy("*").await;
    let long = |length| with_host(&format!("GET /?q={} HTTP/1.1", "b".repeat(length)));
    for (request, expected) in [
        (with_host("GET / HTTP/1.1"), "200"),
        (long(9_000), "200"),
        (long(60_000), "200"),
        (with_host("get / HTTP/1.1"), "400"),
        (with_host(&format!("{} / HTTP/1.1", "X".repeat(40))), "400"),
        (with_host("X.Y / HTTP/1.1"), "400"),
        (with_host("GET / HTTP/1.0"), "426"),
        // Envoy's inspector passes these on although its codec takes the first two (RFC 9112
        // section 2.2) and nobody should take the others.
        (with_host("\r\nGET / HTTP/1.1"), "200"),
        (with_host("\n\r\nGET / HTTP/1.1"), "200"),
        (with_host("GET / HTTP/X.Y"), "400"),
        (with_host("GET a HTTP/1.1"), "400"),
        (with_host("GET / http/1.1"), "400"),
    ] {
        assert_eq!(
            outcome(proxy.address, request.as_bytes(), false).await,
            expected,
            "{:.60?}",
            request
        );
    }
}

#[tokio::test]
async fn what_is_no_http_goes_to_an_unknown_destination_and_is_refused_for_one_that_speaks_http() {
    let (unknown, _server) = shared_proxy("*").await;
    let (declared, _server) = shared_proxy("127.0.0.1").await;
    for (bytes, ended) in [
        (&b"SSH-2.0-OpenSSH_9\r\n"[..], false),
        (b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n", false),
        (b"{\"a\": 1}", false),
        (&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], false),
        (b"\x00\x01\x02", false),
        (b"hello", true),
    ] {
        assert_eq!(outcome(unknown.address, bytes, ended).await, "raw", "{bytes:?}");
        // The codec says nothing to half a line.
        let refused = if ended { "" } else { "400" };
        assert_eq!(outcome(declared.address, bytes, ended).await, refused, "{bytes:?}");
    }
    // Who waits until the inspector gives up gets no further. Both wait for the same time, this one
    // from earlier on.
    let mut slow = TcpStream::connect(declared.address).await.unwrap();
    slow.write_all(b"GET ").await.unwrap();
    assert_eq!(outcome(unknown.address, b"GET ", false).await, "raw");
    slow.write_all(with_host("/x HTTP/1.1").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

#[tokio::test]
async fn what_tells_nothing_within_the_inspectors_limit_is_closed() {
    let (proxy, _server) = shared_proxy("*").await;
    assert_eq!(outcome(proxy.address, &[b'A'; 70_000], false).await, "");
}

async fn policed(rbac: Rbac, hosts: Vec<VirtualHost>) -> (Proxy, Server) {
    let server = Server::echoing().await;
    let mut proxy = Proxy::start(None);
    let mut manager = strict(with_routes(hosts));
    manager.filters.insert(0, HttpFilter::Rbac(std::sync::Arc::new(rbac.into())));
    let listener = proxy.listener(http_chain(manager));
    let clusters = vec![proxy.cluster("a", &[server.address])];
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    (proxy, server)
}

fn deny(permission: Condition) -> Rbac {
    let policy = Policy { name: "deny".into(), permission, principal: Condition::Any };
    Rbac { action: RbacAction::Deny, policies: vec![policy] }
}

fn header_is(name: &str, text: &str) -> Condition {
    let value = ValueMatcher::Text(StringMatcher::Exact(text.into()));
    Condition::Header(HeaderMatcher {
        name: name.into(),
        value,
        invert: false,
        missing_is_empty: false,
    })
}

#[tokio::test]
async fn no_spelling_dodges_a_policy() {
    let denied = vec![
        Condition::Path(StringMatcher::Prefix("/admin".into())),
        header_is(":method", "DELETE"),
        header_is("x-role", "guest"),
        Condition::Not(Box::new(header_is("x-team", "blue"))),
        header_is(":authority", "secret.example.com"),
    ];
    let (proxy, _server) = policed(deny(Condition::Or(denied)), vec![to("a", |_| {})]).await;
    let team = "X-Team: blue\r\n";
    for (line, fields, expected) in [
        ("GET /x", format!("Host: a\r\n{team}"), "200"),
        ("GET /admin", format!("Host: a\r\n{team}"), "403"),
        ("GET /x/..;/admin", format!("Host: a\r\n{team}"), "403"),
        ("GET /x/%2e%2e;a=b/admin", format!("Host: a\r\n{team}"), "403"),
        ("GET /../%61dmin", format!("Host: a\r\n{team}"), "403"),
        ("DELETE /x", format!("Host: a\r\n{team}"), "403"),
        ("delete /x", format!("Host: a\r\n{team}"), "400"),
        ("GET /x", format!("Host: a\r\n{team}X-Role: guest\r\n"), "403"),
        ("GET /x", format!("Host: a\r\n{team}X-Role: guest\r\nX-Role: admin\r\n"), "403"),
        ("GET /x", format!("Host: a\r\n{team}X-Role: admin\r\nX-Role: guest\r\n"), "403"),
        ("GET /x", format!("Host: a\r\n{team}X-Role: admin\r\nX-Role: root\r\n"), "200"),
        ("GET /x", "Host: a\r\n".to_owned(), "403"),
        // Envoy asks for one line that is blue.
        ("GET /x", format!("Host: a\r\n{team}X-Team: red\r\n"), "403"),
        ("GET /x", format!("Host: a\r\n{team}{team}"), "200"),
        ("GET /x", format!("Host: secret.example.com\r\n{team}"), "403"),
        ("GET http://secret.example.com/x", format!("Host: a\r\n{team}"), "403"),
        ("GET /x", format!("Host: secret.example.com#\r\n{team}"), "400"),
        ("GET /x", format!("Host: secret.example.com/\r\n{team}"), "400"),
        ("GET /x", format!("Host: secret.example.com?\r\n{team}"), "400"),
        ("GET /x", format!("Host: secret.example.com\\\r\n{team}"), "400"),
        ("GET /x", format!("Host: secret.example.com, x\r\n{team}"), "400"),
        // User information is refused (RFC 9110 section 4.2.4); Envoy forwards it in HTTP/1.
        ("GET /x", format!("Host: x@secret.example.com\r\n{team}"), "400"),
        ("GET http://x@secret.example.com/x", format!("Host: a\r\n{team}"), "400"),
        // One Host (RFC 9112 section 3.2); Envoy joins them.
        ("GET /x", format!("Host: a\r\nHost: secret.example.com\r\n{team}"), "400"),
        ("GET secret.example.com", format!("Host: a\r\n{team}"), "400"),
        ("GET secret.example.com:80", format!("Host: a\r\n{team}"), "400"),
        ("GET *", format!("Host: a\r\n{team}"), "400"),
        ("GET ftp://a/x", format!("Host: a\r\n{team}"), "400"),
        ("CONNECT a:80", format!("Host: a\r\n{team}"), "403"),
        ("CONNECT a", format!("Host: a\r\n{team}"), "400"),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(outcome(proxy.address, request.as_bytes(), false).await, expected, "{request}");
    }
}

#[tokio::test]
async fn a_head_that_is_refused_ends_the_connection() {
    let (proxy, server) = policed(deny(Condition::Or(vec![])), vec![to("a", |_| {})]).await;
    let two = "GET / HTTP/1.1\r\nHost: a#\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(two.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert!(
        answers.starts_with("HTTP/1.1 400 ") && answers.matches("HTTP/1.1").count() == 1,
        "{answers}"
    );
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn a_gateway_passes_no_steering_of_proxies_on() {
    let server = Server::echoing().await;
    let mut proxy = Proxy::start(None);
    let manager = HttpConnectionManager {
        use_remote_address: true,
        ..strict(with_routes(vec![to("a", |_| {})]))
    };
    let listener = proxy.listener(http_chain(manager));
    let clusters = vec![proxy.cluster("a", &[server.address])];
    proxy.configure(vec![listener], clusters).await;
    let names = [
        "x-envoy-internal",
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-downstream-service-cluster",
        "x-envoy-original-path",
        "x-envoy-force-trace",
        "x-envoy-ip-tags",
        "x-envoy-decorator-operation",
    ];
    let mut request = http::Request::get(proxy.url("/"));
    for name in names {
        request = request.header(name, "1");
    }
    request =
        request.header("x-envoy-external-address", "9.9.9.9").header("x-forwarded-proto", "https");
    let answer = send(&super::peer::client(), request.body(Default::default()).unwrap()).await;
    assert!(names.iter().all(|name| !answer.body.contains(&format!("{name}:"))), "{}", answer.body);
    assert!(answer.body.contains("x-envoy-external-address: 127.0.0.1\n"), "{}", answer.body);
    assert!(answer.body.contains("x-forwarded-proto: http\n"), "{}", answer.body);
}

#[tokio::test]
async fn a_redirect_to_https_believes_a_balancer_only_where_one_is_trusted() {
    let server = Server::saying("ok").await;
    for (hops, noted, code) in
        [(1, Some("https"), 200), (1, Some("http"), 301), (1, None, 301), (0, Some("https"), 301)]
    {
        let mut proxy = Proxy::start(None);
        let host = VirtualHost { require_tls: true, ..to("a", |_| {}) };
        let mut manager = with_routes(vec![host]);
        (manager.use_remote_address, manager.xff_trusted_hops) = (true, hops);
        let (listener, cluster) =
            (proxy.listener(http_chain(manager)), proxy.cluster("a", &[server.address]));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut request = http::Request::get(proxy.url("/"));
        if let Some(noted) = noted {
            request = request.header("x-forwarded-proto", noted);
        }
        let answer = send(&super::peer::client(), request.body(Default::default()).unwrap()).await;
        assert_eq!(answer.status, code, "{hops} hops, {noted:?}");
    }
}

#[tokio::test]
async fn a_body_reaches_the_application_whatever_the_method() {
    let (proxy, _server) = policed(deny(Condition::Or(vec![])), vec![to("a", |_| {})]).await;
    for method in ["GET", "DELETE", "POST", "OPTIONS"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let answer = ask(proxy.address, (head + "5\r\nhello\r\n0\r\n\r\n").as_bytes(), false).await;
        assert!(answer.ends_with("\n\nhello"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_is_read_and_is_the_last() {
    let denied = Condition::Path(StringMatcher::Prefix("/admin".into()));
    let (proxy, _server) = policed(deny(denied), vec![to("a", |_| {})]).await;
    const LENGTH: usize = 3_000_000;
    for (fields, upload) in [
        (format!("Content-Length: {LENGTH}"), LENGTH),
        (format!("Content-Length: {LENGTH}"), 10),
        ("Expect: 100-continue\r\nContent-Length: 10".to_owned(), 0),
        ("Transfer-Encoding: chunked".to_owned(), 0),
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let head = format!("POST /admin HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is answered while this is still on its way.
        stream.write_all(&vec![b'a'; upload]).await.expect("the rest is taken");
        let answer = super::timing::to_the_end(&mut stream).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 403 "), "{fields} {upload}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{fields} {upload}: {answer}");
        assert!(answer.ends_with("rbac: access denied"), "{fields} {upload}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_of_ours_to_a_whole_request_keeps_the_connection() {
    let dead = dead_address();
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[dead.address])]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{body} ended the connection");
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with("http/1.1 503 "), "{body}: {answer}");
        assert!(!answer.contains("connection: close"), "{body}: {answer}");
    }
}

#[tokio::test]
async fn an_older_client_is_told_one_thing_of_its_connection() {
    let (proxy, _server) = policed(deny(Condition::Or(vec![])), vec![to("a", |_| {})]).await;
    let request = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let answer = ask(proxy.address, request, false).await.to_lowercase();
    assert!(
        answer.contains("426 upgrade required") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("keep-alive"), "{answer}");
}
