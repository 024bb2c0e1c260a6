//! TLS to servers outside of the mesh: which name they are told, and for which name their
//! certificate must be. What is expected is what Envoy 1.40 does with the same clusters.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::LazyConfigAcceptor;

use super::{
    fixture::*,
    peer::{Authority, client, send},
};
use crate::{
    compile::{Rejection, fixture as wire},
    runtime::{RuntimeConfig, action::HostRewrite, listener::FilterChain},
    worker::ActiveConfig,
    xds::{Accepted, Changed, Update},
};

/// A server over TLS that answers every request by the server name that it was told.
struct Outside {
    address: SocketAddr,
    /// Server names of all connections in their order.
    told: Arc<Mutex<Vec<Option<String>>>>,
    accepting: tokio::task::AbortHandle,
}

impl Outside {
    async fn start(authority: &Authority, names: &[&str]) -> Self {
        let (certificate, key) = authority.server(names);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (config, told) = (Arc::new(config), Arc::<Mutex<Vec<Option<String>>>>::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = Arc::clone(&told);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&config), Arc::clone(&names)));
            }
        });
        Self { address, told, accepting: accepting.abort_handle() }
    }

    fn told(&self) -> Vec<Option<String>> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    told: Arc<Mutex<Vec<Option<String>>>>,
) -> std::io::Result<()> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let name = start.client_hello().server_name().map(ToOwned::to_owned);
    told.lock().unwrap().push(name.clone());
    let stream = start.into_stream(config).await?;
    let text = name.unwrap_or_else(|| "none".to_owned());
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let text = text.clone();
        async move {
            request.into_body().collect().await?;
            Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(text))))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    Ok(())
}

/// A proxy that was sent one cluster, `outside`, and has a chain in front of it.
async fn through(cluster: Vec<u8>, chain: FilterChain) -> (Proxy, Vec<Rejection>) {
    let proxy = Proxy::start(None);
    let mut accepted = Accepted::new(Arc::clone(&proxy.shared.registry));
    let changed =
        vec![Changed { name: "outside".to_owned(), version: "1".to_owned(), body: cluster.into() }];
    let update = Update { kind: ferromesh_proto::ResourceType::Cluster, changed, removed: vec![] };
    let rejections = accepted.apply(&update, Instant::now());
    let clusters: Vec<_> =
        accepted.take_config().iter().flat_map(ActiveConfig::clusters).map(Arc::clone).collect();
    let listener = Arc::new(proxy.listener(chain));
    let runtime = RuntimeConfig::new(1, vec![listener], []);
    proxy.shared.publish(ActiveConfig::new(runtime, clusters));
    proxy.shared.applied(1).await;
    (proxy, rejections)
}

async fn http(cluster: Vec<u8>) -> Proxy {
    let (proxy, rejections) =
        through(cluster, http_chain(with_routes(vec![to("outside", |_| {})]))).await;
    assert_eq!(rejections, []);
    proxy
}

/// Asks for this host; answers the status and what the server was told, or why there was no server.
async fn ask(proxy: &Proxy, host: &str, sni_header: Option<&str>) -> (u16, String) {
    let mut request = Request::get(proxy.url("/")).header(header::HOST, host);
    if let Some(name) = sni_header {
        request = request.header("x-sni", name);
    }
    let answer = send(&client(), request.body(Full::default()).unwrap()).await;
    (answer.status, answer.body)
}

fn ok(name: &str) -> (u16, String) {
    (200, name.to_owned())
}

#[tokio::test]
async fn a_server_is_told_the_requests_host_and_must_prove_it() {
    let authority = Authority::new();
    let server =
        Outside::start(&authority, &["api.partner.test", "*.wild.test", "127.0.0.1"]).await;
    let proxy =
        http(wire::outside("outside", server.address, "", Some(&authority.pem()), "")).await;
    assert_eq!(ask(&proxy, "api.partner.test", None).await, ok("api.partner.test"));
    assert_eq!(ask(&proxy, "API.partner.test:8080", None).await, ok("api.partner.test"));
    assert_eq!(ask(&proxy, "a.wild.test", None).await, ok("a.wild.test"));
    // An address is no server name, but a certificate can be for it.
    assert_eq!(ask(&proxy, "127.0.0.1:80", None).await, ok("none"));
    for wrong in ["shop.test", "a.b.wild.test", "127.0.0.2"] {
        let (status, body) = ask(&proxy, wrong, None).await;
        assert_eq!(status, 503, "{wrong}: {body}");
        assert!(body.contains("TLS error"), "{body}");
    }
}

#[tokio::test]
async fn a_connection_of_one_host_carries_no_request_for_another() {
    let authority = Authority::new();
    let server = Outside::start(&authority, &["a.test", "b.test"]).await;
    let proxy =
        http(wire::outside("outside", server.address, "", Some(&authority.pem()), "")).await;
    for host in ["a.test", "b.test", "a.test", "A.test"] {
        assert_eq!(ask(&proxy, host, None).await, ok(&host.to_lowercase()));
    }
    assert_eq!(ask(&proxy, "c.test", None).await.0, 503);
    let told: Vec<_> = server.told().into_iter().flatten().collect();
    assert_eq!(
        told,
        ["a.test", "b.test", "c.test"],
        "one connection for each, and the second request reused its own"
    );
}

#[tokio::test]
async fn the_requests_host_goes_before_the_contexts_name_and_a_header_before_the_host() {
    let authority = Authority::new();
    let server = Outside::start(&authority, &["a.test", "b.test"]).await;
    let roots = authority.pem();
    let proxy =
        http(wire::outside("outside", server.address, "static.test", Some(&roots), "x-sni")).await;
    assert_eq!(ask(&proxy, "a.test", None).await, ok("a.test"));
    assert_eq!(ask(&proxy, "a.test", Some("b.test:99")).await, ok("b.test"));
    assert_eq!(ask(&proxy, "wrong.test", Some("b.test")).await, ok("b.test"));
    assert_eq!(ask(&proxy, "a.test", Some("wrong.test")).await.0, 503);
}

#[tokio::test]
async fn a_rewritten_host_is_the_one_that_counts() {
    let authority = Authority::new();
    let server = Outside::start(&authority, &["a.test"]).await;
    let cluster = wire::outside("outside", server.address, "", Some(&authority.pem()), "");
    let rewritten =
        to("outside", |forward| forward.host_rewrite = HostRewrite::Literal("a.test".into()));
    let (proxy, _) = through(cluster, http_chain(with_routes(vec![rewritten]))).await;
    assert_eq!(ask(&proxy, "wrong.test", None).await, ok("a.test"));
}

#[tokio::test]
async fn bytes_name_no_host_and_the_contexts_name_is_sent() {
    let authority = Authority::new();
    let server = Outside::start(&authority, &["a.test"]).await;
    for (sni, expected) in [("", "none"), ("static.test", "static.test")] {
        let cluster = wire::outside("outside", server.address, sni, Some(&authority.pem()), "");
        let (proxy, _) = through(cluster, tcp_chain("outside")).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: wrong.test\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        assert!(text.ends_with(expected), "{text}");
    }
}

#[tokio::test]
async fn names_without_roots_are_refused() {
    let cluster = wire::outside("outside", ([127, 0, 0, 1], 1).into(), "", None, "");
    let (_, rejections) = through(cluster, tcp_chain("outside")).await;
    let [rejection] = &rejections[..] else { panic!("{rejections:?}") };
    assert!(rejection.field.ends_with("auto_san_validation"), "{rejection}");
}

#[tokio::test]
async fn roots_that_come_later_open_what_lacked_them() {
    let authority = Authority::new();
    let server = Outside::start(&authority, &["a.test"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    let proxy = Proxy::start(None);
    let mut accepted = Accepted::new(Arc::clone(&proxy.shared.registry));
    let body = wire::roots_at("outside", server.address, "a.test", path.to_str().unwrap());
    let changed =
        vec![Changed { name: "outside".to_owned(), version: "1".to_owned(), body: body.into() }];
    let update = Update { kind: ferromesh_proto::ResourceType::Cluster, changed, removed: vec![] };
    let [refused] = &accepted.apply(&update, Instant::now())[..] else { panic!("one refusal") };
    assert!(refused.in_file, "{refused}");
    let listener = Arc::new(proxy.listener(http_chain(with_routes(vec![to("outside", |_| {})]))));
    let mut generation = 0;
    let mut looked = async |accepted: &mut Accepted| {
        accepted.look_at_files(Instant::now());
        let config = accepted.take_config();
        let clusters: Vec<_> =
            config.iter().flat_map(ActiveConfig::clusters).map(Arc::clone).collect();
        generation += 1;
        let runtime = RuntimeConfig::new(generation, vec![Arc::clone(&listener)], []);
        proxy.shared.publish(ActiveConfig::new(runtime, clusters));
        proxy.shared.applied(generation).await;
        ask(&proxy, "a.test", None).await
    };
    assert_eq!(looked(&mut accepted).await.0, 503);
    std::fs::write(&path, "no roots").unwrap();
    assert_eq!(looked(&mut accepted).await.0, 503);
    let told: Vec<_> = accepted.refusals().map(|refusal| refusal.rejection.to_string()).collect();
    assert!(told[0].contains("expected at least one PEM certificate"), "{told:?}");
    assert_eq!(accepted.take_late(), []);
    std::fs::write(&path, authority.pem()).unwrap();
    assert_eq!(looked(&mut accepted).await, ok("a.test"));
    assert_eq!(accepted.refusals().count(), 0);
    let late: Vec<_> = accepted.take_late().into_iter().map(|late| late.version).collect();
    assert_eq!(late, ["1"]);
}
