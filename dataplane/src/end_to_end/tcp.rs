//! Bytes through one proxy.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{fixture::*, peer::Server};
use crate::runtime::{
    Rbac, authz::RbacAction, filter_chain::FilterChainMatch, listener::PortScope,
};

/// Sends back what it gets, reversed, once the client has ended its side.
async fn reversing() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                text.reverse();
                stream.write_all(&text).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let address = reversing().await;
    let mut proxy = Proxy::start(None);
    let (listener, cluster) = (proxy.listener(tcp_chain("a")), proxy.cluster("a", &[address]));
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(&vec![b'a'; 300_000]).await.unwrap();
    stream.write_all(b"b").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    assert_eq!((text.len(), text[0]), (300_001, b'b'));
    super::blame::until("the end", || closed(&proxy)).await;
    let metrics = proxy.shared.metrics.render();
    let received = metrics
        .lines()
        .find(|line| line.starts_with("istio_tcp_received_bytes_total"))
        .expect("a sample");
    assert!(received.ends_with("} 300001"), "{received}");
}

fn closed(proxy: &Proxy) -> bool {
    let metrics = proxy.shared.metrics.render();
    metrics
        .lines()
        .any(|line| line.starts_with("istio_tcp_connections_closed_total") && line.ends_with(" 1"))
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_closed() {
    let gone = dead_address();
    for endpoints in [&[gone.address][..], &[]] {
        let mut proxy = Proxy::start(None);
        let (listener, cluster) = (proxy.listener(tcp_chain("a")), proxy.cluster("a", endpoints));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_policy_closes_connections() {
    let server = Server::saying("ok").await;
    let mut proxy = Proxy::start(None);
    let mut chain = tcp_chain("a");
    chain.rbac = vec![Rbac { action: RbacAction::Allow, policies: vec![] }];
    let (listener, cluster) = (proxy.listener(chain), proxy.cluster("a", &[server.address]));
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn http_and_bytes_share_a_port_and_a_server_may_speak_first() {
    let greeting = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = greeting.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = greeting.accept().await {
            stream.write_all(b"220 hello").await.unwrap();
        }
    });
    let server = Server::saying("ok").await;
    let mut proxy = Proxy::start(None);
    let http = FilterChainMatch {
        application_protocols: vec!["http/1.1".into(), "h2c".into()],
        ..Default::default()
    };
    let chains = vec![
        (http, http_chain(with_routes(vec![to("http", |_| {})]))),
        (FilterChainMatch::default(), tcp_chain("tcp")),
    ];
    let mut listener = listener(proxy.address, chains);
    listener.inspect.tls = Some(PortScope::default());
    listener.inspect.http = Some(PortScope::default());
    let limit = Duration::from_secs(2);
    listener.inspect.timeout = Some(limit);
    let clusters = vec![proxy.cluster("http", &[server.address]), proxy.cluster("tcp", &[address])];
    proxy.configure(vec![listener], clusters).await;
    let mut silent = TcpStream::connect(proxy.address).await.unwrap();
    let start = Instant::now();
    let mut text = String::new();
    silent.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "220 hello");
    assert!(start.elapsed() >= limit);
    let answer = super::peer::get(&super::peer::client(), proxy.url("/")).await;
    assert_eq!(answer.body, "ok");
    let answer = super::peer::get(&super::peer::http2_client(), proxy.url("/")).await;
    assert_eq!(answer.body, "ok");
    let mut binary = TcpStream::connect(proxy.address).await.unwrap();
    let start = Instant::now();
    binary.write_all(&[1, 2, 3]).await.unwrap();
    binary.read_exact(&mut [0; 9]).await.unwrap();
    assert!(start.elapsed() < limit, "what is no HTTP is told at once");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let address = reversing().await;
    let mut proxy = Proxy::start(None);
    let mut chain = tcp_chain("a");
    if let crate::runtime::Terminal::Tcp(tcp) = &mut chain.terminal {
        std::sync::Arc::get_mut(tcp).unwrap().idle_timeout = Some(Duration::from_millis(100));
    }
    let (listener, cluster) = (proxy.listener(chain), proxy.cluster("a", &[address]));
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn only_connections_that_cannot_be_made_are_the_endpoints_fault() {
    use super::blame::{at_once, is_ejected};
    let (living, gone) = (reversing().await, dead_address());
    for (endpoint, client_resets, ejected) in
        [(living, true, false), (living, false, false), (gone.address, false, true)]
    {
        let mut proxy = Proxy::start(None);
        let mut cluster = proxy.cluster("a", &[endpoint]);
        cluster.outlier = Some(at_once(false));
        let listener = proxy.listener(tcp_chain("a"));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let _ = stream.write_all(b"some").await;
        if client_resets {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        super::blame::until("the end", || closed(&proxy)).await;
        assert_eq!(is_ejected(&proxy, "a"), ejected, "{endpoint}, reset: {client_resets}");
    }
}

#[tokio::test]
async fn a_connection_to_an_endpoint_is_known_as_our_own_while_it_is_open() {
    let server = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    for chain in [tcp_chain("a"), http_chain(with_routes(vec![to("a", |_| {})]))] {
        let mut proxy = Proxy::start(None);
        let (listener, cluster) = (proxy.listener(chain), proxy.cluster("a", &[address]));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut client = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (upstream, source) = server.accept().await.unwrap();
        let own = || proxy.shared.registry.own().contains(source, address);
        assert!(own());
        assert!(!proxy.shared.registry.own().contains(client.local_addr().unwrap(), address));
        drop((client, upstream));
        super::blame::until("the connection is forgotten", || !own()).await;
    }
}
