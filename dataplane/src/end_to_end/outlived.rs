//! Connections that outlive the configuration by which they were taken: each ends after the drain
//! time, whatever is under way on it, and no change that does not concern it ends it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ferromesh_proto::ResourceType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    fixture::*,
    floods::{DATA, END_HEADERS, GOAWAY, HEADERS, RST_STREAM, Raw, SOON, field, frame, request},
    peer::Authority,
    refusal::Sent,
};
use crate::{
    compile::fixture as wire,
    runtime::{
        FilterChain, HttpFilter, Rbac,
        authz::{Condition, Policy, RbacAction},
        secret::{DownstreamTls, PeerValidation, SecretRef, TlsVersions},
    },
    tls::client::unverified_client,
};

const DRAIN: Duration = Duration::from_millis(300);

/// Takes connections and answers nothing.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    address
}

/// Sends back what it gets; first takes a request for a WebSocket, if one comes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    let said = &bytes[..length];
                    let answer = match said.starts_with(b"GET ") {
                        true => {
                            assert!(said.ends_with(b"\r\n\r\n"), "a head at once");
                            &b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                              upgrade: websocket\r\n\r\n"[..]
                        }
                        false => said,
                    };
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Says something and hears it again.
async fn echoes(stream: &mut TcpStream) -> bool {
    let mut heard = [0; 5];
    stream.write_all(b"hello").await.is_ok()
        && timeout(SOON, stream.read_exact(&mut heard)).await.expect("a word or an end").is_ok()
}

/// Speaks until the connection ends, which it must, but not before the drain time that began at
/// `since` or later is over.
async fn is_drained(stream: &mut TcpStream, since: Instant, what: &str) {
    while echoes(stream).await {
        assert!(since.elapsed() < SOON, "{what}: still carried");
    }
    assert!(since.elapsed() >= DRAIN, "{what}: ended after {:?}", since.elapsed());
}

async fn websocket(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("a head").unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A gateway's TLS, which asks clients for certificates or not.
fn tls(mutual: bool, tls12: bool) -> Arc<DownstreamTls> {
    let validation = PeerValidation { roots: SecretRef::Workload, sans: vec![] };
    Arc::new(DownstreamTls {
        certificate: SecretRef::Workload,
        validation: mutual.then_some(validation),
        require_client_certificate: mutual,
        alpn: vec!["h2".into()],
        versions: TlsVersions { tls12, tls13: true },
        suites: vec![],
    })
}

fn gateway(tls: Arc<DownstreamTls>, filters: Vec<HttpFilter>) -> FilterChain {
    let mut manager = with_routes(vec![to("a", |_| {})]);
    for filter in filters {
        manager.filters.insert(0, filter);
    }
    FilterChain { tls: Some(tls), ..http_chain(manager) }
}

fn deny() -> Rbac {
    let policy =
        Policy { name: "deny".into(), permission: Condition::Any, principal: Condition::Any };
    Rbac { action: RbacAction::Deny, policies: vec![policy] }
}

async fn over_tls(to: SocketAddr) -> Raw<TlsStream<TcpStream>> {
    let config = Arc::new(unverified_client(&[b"h2"]).unwrap());
    let tcp = TcpStream::connect(to).await.unwrap();
    let stream = TlsConnector::from(config).connect("a.test".try_into().unwrap(), tcp).await;
    Raw::over(stream.unwrap()).await
}

#[tokio::test]
async fn a_client_of_http2_that_ignores_its_farewell_is_closed_when_the_drain_time_is_over() {
    let (authority, endpoint) = (Authority::new(), silent().await);
    for (changed, tls) in [("another version", tls(false, false)), ("mutual", tls(true, true))] {
        let mut proxy = Proxy::draining_for(DRAIN, Some(authority.identity("gateway")));
        let cluster = || proxy.cluster("a", &[endpoint]);
        let before = proxy.listener(gateway(self::tls(false, true), vec![]));
        let deny = HttpFilter::Rbac(Arc::new(deny().into()));
        let after = proxy.listener(gateway(tls, vec![deny]));
        let clusters = [cluster(), cluster()];
        let [first, second] = clusters.map(|cluster| vec![cluster]);
        proxy.configure(vec![before], first).await;
        let mut raw = over_tls(proxy.address).await;
        // Stays under way; nothing is ever acknowledged.
        raw.say(&request(1, &[])).await;
        let since = Instant::now();
        proxy.configure(vec![after], second).await;
        let (mut told, mut stream) = (false, 3);
        while let Some((kind, _, _)) = raw.hear().await {
            told |= kind == GOAWAY;
            // A PING that is due, SETTINGS, or a GOAWAY: each is answered by one more request.
            raw.say(&request(stream, &[])).await;
            stream += 2;
            assert!(since.elapsed() < SOON, "{changed}: still served");
        }
        assert!(told && since.elapsed() >= DRAIN, "{changed}: {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn an_answer_of_http1_that_does_not_end_is_cut_when_the_drain_time_is_over() {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = server.local_addr().unwrap();
    for denied in [false, true] {
        let mut proxy = Proxy::draining_for(DRAIN, None);
        let chain = |rbac| FilterChain { rbac, ..gateway(tls(false, true), vec![]) };
        let plain = |rbac| FilterChain { tls: None, ..chain(rbac) };
        let (listener, cluster) = (proxy.listener(plain(vec![])), proxy.cluster("a", &[endpoint]));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // Under way, since the endpoint has it.
        let (mut asked, _) = timeout(SOON, server.accept()).await.expect("a request").unwrap();
        assert!(asked.read(&mut [0; 1024]).await.unwrap() > 0);
        let listeners = denied.then(|| proxy.listener(plain(vec![deny()])));
        let (since, cluster) = (Instant::now(), proxy.cluster("a", &[endpoint]));
        proxy.configure(listeners.into_iter().collect(), vec![cluster]).await;
        let end = timeout(SOON, stream.read(&mut [0])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "denied: {denied}: {end:?}");
        assert!(since.elapsed() >= DRAIN, "denied: {denied}: {:?}", since.elapsed());
    }
}

/// A proxy before `endpoint`, for bytes and for WebSockets.
struct Carrying {
    sent: Sent,
    bytes: Reserved,
}

impl Carrying {
    async fn to(endpoint: SocketAddr) -> Self {
        let sent = Sent::to(Proxy::draining_for(DRAIN, None));
        let mut carrying = Self { sent, bytes: reserve() };
        carrying.accept(ResourceType::Cluster, "app", wire::plaintext("app", endpoint)).await;
        carrying.bytes(false).await;
        carrying.requests(false).await;
        let routes = wire::hosts("80", "app", &[("*", false, false)]);
        carrying.accept(ResourceType::Route, "80", routes).await;
        carrying
    }

    async fn accept(&mut self, kind: ResourceType, name: &str, body: Vec<u8>) {
        self.sent.accept(kind, name, body).await;
    }

    async fn bytes(&mut self, denied: bool) {
        let listener = wire::tcp_listener_at("bytes", self.bytes.address, "app", denied);
        self.accept(ResourceType::Listener, "bytes", listener).await;
    }

    async fn requests(&mut self, denied: bool) {
        let address = self.sent.proxy.address;
        let listener = wire::websocket_listener_at("http", address, "80", denied);
        self.accept(ResourceType::Listener, "http", listener).await;
    }

    async fn tcp(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.bytes.address).await.unwrap();
        assert!(echoes(&mut stream).await);
        stream
    }

    async fn websocket(&self) -> TcpStream {
        let mut stream = websocket(self.sent.proxy.address).await;
        assert!(echoes(&mut stream).await);
        stream
    }
}

#[tokio::test]
async fn bytes_are_carried_no_longer_than_their_policy_and_listener_by_the_drain_time() {
    for denied in [false, true] {
        let mut carrying = Carrying::to(echo().await).await;
        let (mut tcp, mut kept) = (carrying.tcp().await, carrying.websocket().await);
        let since = Instant::now();
        match denied {
            true => carrying.bytes(true).await,
            false => carrying.sent.remove(ResourceType::Listener, "bytes").await,
        }
        is_drained(&mut tcp, since, &format!("denied: {denied}")).await;
        assert!(echoes(&mut kept).await, "denied: {denied}: another listener's connection");
    }
}

#[tokio::test]
async fn a_websocket_is_carried_no_longer_than_its_policy_and_listener_by_the_drain_time() {
    for denied in [false, true] {
        let mut carrying = Carrying::to(echo().await).await;
        let (mut joined, mut kept) = (carrying.websocket().await, carrying.tcp().await);
        let since = Instant::now();
        match denied {
            true => carrying.requests(true).await,
            false => carrying.sent.remove(ResourceType::Listener, "http").await,
        }
        is_drained(&mut joined, since, &format!("denied: {denied}")).await;
        assert!(echoes(&mut kept).await, "denied: {denied}: another listener's connection");
    }
}

#[tokio::test]
async fn a_websocket_over_http2_ends_without_its_connection() {
    let mut carrying = Carrying::to(echo().await).await;
    let mut raw = Raw::connect(carrying.sent.proxy.address).await;
    let connect = [
        field(":method", "CONNECT"),
        field(":protocol", "websocket"),
        field(":scheme", "http"),
        field(":path", "/"),
        field(":authority", "a"),
    ];
    raw.say(&frame(HEADERS, END_HEADERS, 1, &connect.concat())).await;
    assert_eq!(raw.hear_of(HEADERS).await.expect("an answer").0, 1);
    raw.say(&frame(DATA, 0, 1, b"hello")).await;
    assert_eq!(raw.hear_of(DATA).await.expect("an echo"), (1, b"hello".to_vec()));
    let since = Instant::now();
    carrying.requests(true).await;
    assert_eq!(raw.hear_of(RST_STREAM).await.expect("the end of the stream").0, 1);
    assert!(since.elapsed() >= DRAIN, "{:?}", since.elapsed());
    raw.say(&request(3, &[])).await;
    assert_eq!(raw.hear_of(HEADERS).await.expect("a refusal").0, 3);
}

#[tokio::test]
async fn what_does_not_concern_a_connection_does_not_end_it() {
    let (endpoint, other) = (echo().await, reserve());
    let mut carrying = Carrying::to(endpoint).await;
    let (mut tcp, mut joined) = (carrying.tcp().await, carrying.websocket().await);
    let bytes = |denied| wire::tcp_listener_at("other", other.address, "app", denied);
    carrying.accept(ResourceType::Listener, "other", bytes(false)).await;
    let mut concerned = TcpStream::connect(other.address).await.unwrap();
    assert!(echoes(&mut concerned).await);
    // Nobody is even asked about a cluster and its endpoints.
    let admissions = carrying.sent.proxy.shared.admissions();
    let elsewhere = wire::plaintext("app", silent().await);
    carrying.accept(ResourceType::Cluster, "app", elsewhere).await;
    assert!(!admissions.has_changed().unwrap(), "a cluster admits nobody");
    // The same listeners once more, and routes that have changed.
    carrying.bytes(false).await;
    carrying.requests(false).await;
    let routes = wire::hosts("80", "app", &[("other.test", false, false)]);
    carrying.accept(ResourceType::Route, "80", routes).await;
    // The drain time of the last change is over when it is over for whom it concerns.
    let since = Instant::now();
    carrying.accept(ResourceType::Listener, "other", bytes(true)).await;
    is_drained(&mut concerned, since, "the one that is concerned").await;
    assert!(echoes(&mut tcp).await && echoes(&mut joined).await);
}

#[tokio::test]
async fn a_change_while_an_endpoint_thinks_about_a_websocket_counts() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut carrying = Carrying::to(listener.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(carrying.sent.proxy.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut endpoint, _) = timeout(SOON, listener.accept()).await.expect("a request").unwrap();
    let mut head = [0; 1024];
    assert!(endpoint.read(&mut head).await.unwrap() > 0);
    carrying.requests(true).await;
    let since = Instant::now();
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                  upgrade: websocket\r\n\r\n";
    endpoint.write_all(answer.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let end = timeout(SOON, client.read_to_end(&mut heard)).await.expect("an end");
    assert!(end.is_ok() && heard.starts_with(b"HTTP/1.1 101 "), "{heard:?}");
    assert!(since.elapsed() >= DRAIN, "{:?}", since.elapsed());
}
