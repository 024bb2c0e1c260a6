//! The PROXY protocol on both sides: whose a connection is that a balancer opens, and whose it is
//! that we open.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    fixture::*,
    peer::{Server, client, get},
    timing::to_the_end,
};
use crate::runtime::{
    HttpConnectionManager, Listener,
    cluster::Transport,
    listener::{PortScope, ProxyHeader},
    proxy_header::{Ends, ProxyVersion, written},
};

const SOON: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const CLIENT: &str = "192.0.2.1:56324";

fn header(optional: bool, disallowed: &[ProxyVersion]) -> ProxyHeader {
    ProxyHeader { scope: PortScope::default(), optional, disallowed: disallowed.to_vec() }
}

/// A proxy at the edge whose listener takes such headers, before an application that says what it
/// got.
async fn behind(header: ProxyHeader, change: impl FnOnce(&mut Listener)) -> (Proxy, Server) {
    let app = Server::echoing().await;
    let mut proxy = Proxy::start(None);
    let manager =
        HttpConnectionManager { use_remote_address: true, ..with_routes(vec![to("a", |_| {})]) };
    let mut listener = proxy.listener(http_chain(manager));
    listener.inspect.proxy_header = Some(header);
    change(&mut listener);
    let cluster = proxy.cluster("a", &[app.address]);
    proxy.configure(vec![listener], vec![cluster]).await;
    (proxy, app)
}

fn balanced(version: ProxyVersion) -> Vec<u8> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    written(version, Some(Ends { source: address(CLIENT), destination: address("192.0.2.9:80") }))
}

/// What such bytes are answered, sent in pieces of this size; empty where the connection is closed.
async fn answered(proxy: &Proxy, bytes: &[u8], size: usize) -> String {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_connection_is_whose_its_header_says() {
    for inspects in [false, true] {
        let (proxy, _app) = behind(header(false, &[]), |listener| {
            if inspects {
                listener.inspect.tls = Some(PortScope::default());
                listener.inspect.http = Some(PortScope::default());
            }
        })
        .await;
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = [&balanced(version)[..], REQUEST].concat();
            for size in [1, 7, 1000] {
                let answer = answered(&proxy, &bytes, size).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{version:?} {size}: {answer}");
                assert!(answer.contains("x-forwarded-for: 192.0.2.1\n"), "{version:?}: {answer}");
            }
            let own = [&written(version, None)[..], REQUEST].concat();
            let answer = answered(&proxy, &own, 1000).await;
            assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{version:?}: {answer}");
        }
        for bytes in [REQUEST, b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c"] {
            let answer = answered(&proxy, bytes, 1000).await;
            assert_eq!(answer, "", "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[tokio::test]
async fn a_header_may_be_optional_or_of_one_version_only() {
    let (optional, _app) = behind(header(true, &[]), |_| {}).await;
    assert!(answered(&optional, REQUEST, 1).await.contains("x-forwarded-for: 127.0.0.1\n"));
    let bytes = [&balanced(ProxyVersion::V1)[..], REQUEST].concat();
    assert!(answered(&optional, &bytes, 9).await.contains("x-forwarded-for: 192.0.2.1\n"));
    assert_eq!(answered(&optional, b"PROXY nonsense\r\n", 99).await, "", "it means to be one");
    let (binary, _app) = behind(header(false, &[ProxyVersion::V1]), |_| {}).await;
    assert_eq!(answered(&binary, &bytes, 99).await, "");
    let bytes = [&balanced(ProxyVersion::V2)[..], REQUEST].concat();
    assert!(answered(&binary, &bytes, 99).await.contains("x-forwarded-for: 192.0.2.1\n"));
}

#[tokio::test]
async fn half_a_header_is_closed_in_time_whatever_else_goes_on() {
    let limit = Duration::from_millis(300);
    let (proxy, _app) = behind(header(false, &[]), |listener| {
        (listener.inspect.timeout, listener.inspect.continue_on_timeout) = (Some(limit), true);
    })
    .await;
    for half in [&b"PROXY TCP4 192.0.2.1"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\xff", b""] {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(half).await.unwrap();
        assert_eq!(timeout(SOON, to_the_end(&mut stream)).await.expect("an end"), "");
        assert!(begin.elapsed() >= limit);
    }
}

/// Answers requests, and tells the header that each of its connections begins with.
async fn told() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let (mut read, mut is_first) = (Vec::new(), true);
                while stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {
                    if !read.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let request = read.windows(4).position(|word| word == b"GET ").unwrap();
                    if std::mem::take(&mut is_first) {
                        let _ = tell.send(read[..request].to_vec());
                    } else {
                        assert_eq!(request, 0, "a header stands before the first request alone");
                    }
                    read.clear();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await
                        .unwrap();
                }
            });
        }
    });
    (address, told)
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("an answer").unwrap());
    }
}

#[tokio::test]
async fn endpoints_are_told_whose_a_connection_is_and_nobody_else_has_it() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (endpoint, mut headers) = told().await;
        let mut proxy = Proxy::start(None);
        let mut cluster = proxy.cluster("a", &[endpoint]);
        cluster.connection.transport = Transport::Announced(version, Transport::Plaintext.into());
        let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
        proxy.configure(vec![listener], vec![cluster]).await;
        for _ in 0..2 {
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            let source = stream.local_addr().unwrap();
            ask(&mut stream).await;
            ask(&mut stream).await;
            let ends = Ends { source, destination: proxy.address };
            let header = timeout(SOON, headers.recv()).await.expect("a header").unwrap();
            assert_eq!(header, written(version, Some(ends)), "{version:?}");
        }
    }
}

#[tokio::test]
async fn bytes_are_announced_too() {
    let (endpoint, mut headers) = told().await;
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[endpoint]);
    let plain = Transport::Plaintext.into();
    cluster.connection.transport = Transport::Announced(ProxyVersion::V1, plain);
    let listener = proxy.listener(tcp_chain("a"));
    proxy.configure(vec![listener], vec![cluster]).await;
    get(&client(), proxy.url("/")).await;
    let header = timeout(SOON, headers.recv()).await.expect("a header").unwrap();
    let header = String::from_utf8(header).unwrap();
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{header}");
    assert!(header.ends_with(&format!(" {}\r\n", proxy.address.port())), "{header}");
}
