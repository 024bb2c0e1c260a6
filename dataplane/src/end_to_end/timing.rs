//! Whose time runs when: limits of routes, mirrors and upgrades, over sockets, as in Envoy 1.40.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::{
    fixture::*,
    peer::{Server, client, get},
};
use crate::runtime::{action::Mirror, matcher::Share};

const LIMIT: Duration = Duration::from_millis(1500);
/// Longer than the limit.
const PAUSE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(30);

async fn limited(endpoint: SocketAddr) -> Proxy {
    let hosts = vec![to("a", |action| action.timeout = Some(LIMIT))];
    Proxy::http(hosts, &[("a", &[endpoint])]).await
}

/// All that comes until the end, which must come.
pub(super) async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn an_upload_that_is_slow_leaves_the_endpoint_its_time() {
    let server = Server::echoing().await;
    let proxy = limited(server.address).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\nabc";
    stream.write_all(head).await.unwrap();
    sleep(PAUSE).await;
    stream.write_all(b"def").await.unwrap();
    let answer = to_the_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abcdef"), "{answer}");

    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let _connection = tokio::spawn(connection);
    let request = Request::post("http://a/").body(()).unwrap();
    let (answer, mut upload) = sender.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"abc"), false).unwrap();
    sleep(PAUSE).await;
    upload.send_data(Bytes::from_static(b"def"), true).unwrap();
    assert_eq!(answer.await.expect("an answer").status(), 200);
}

/// An endpoint that begins its answer at once and ends it after the request, or never.
pub(super) async fn early(ends: bool) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"ab") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        if ends {
            stream.write_all(b"cd").await.unwrap();
        }
        let _ = stream.read(&mut [0]).await;
    });
    address
}

#[tokio::test]
async fn an_answer_beside_the_upload_is_cut_only_after_it() {
    for ends in [true, false] {
        let proxy = limited(early(ends).await).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab";
        stream.write_all(head).await.unwrap();
        sleep(PAUSE).await;
        stream.write_all(b"cd").await.unwrap();
        let begin = Instant::now();
        let answer = to_the_end(&mut stream).await;
        let expected = if ends { "\r\n\r\nabcd" } else { "\r\n\r\nab" };
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(expected), "{answer}");
        assert!(ends || begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn an_attempt_is_told_of_its_own_time() {
    let server = Server::echoing().await;
    let hosts = vec![to("a", |action| {
        action.timeout = Some(Duration::from_secs(5));
        let policy = super::http::retry("5xx", 1);
        let per_try = crate::runtime::action::RetryPolicy {
            per_try_timeout: Some(Duration::from_millis(700)),
            ..(*policy).clone()
        };
        action.retry = Some(std::sync::Arc::new(per_try));
    })];
    let proxy = Proxy::http(hosts, &[("a", &[server.address])]).await;
    let answer = get(&client(), proxy.url("/")).await;
    assert!(answer.body.contains("x-envoy-expected-rq-timeout-ms: 700\n"), "{}", answer.body);
}

/// A server that takes what comes and answers nothing.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_mirror_has_the_time_of_the_route() {
    let (server, (mirrors, address)) = (Server::saying("ok").await, silent().await);
    let hosts = vec![to("a", |action| {
        action.timeout = Some(LIMIT);
        action.mirrors = vec![Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false }];
    })];
    let proxy = Proxy::http(hosts, &[("a", &[server.address]), ("b", &[address])]).await;
    let begin = Instant::now();
    assert_eq!(get(&client(), proxy.url("/")).await.status, 200);
    let (mut mirror, _) = timeout(SOON, mirrors.accept()).await.expect("a copy").unwrap();
    let copy = to_the_end(&mut mirror).await;
    assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    for line in [
        "x-envoy-attempt-count: 1",
        "x-envoy-internal: true",
        "x-forwarded-for: 127.0.0.1",
        "x-envoy-expected-rq-timeout-ms: 1500",
    ] {
        assert!(copy.lines().any(|other| other == line), "{line}: {copy}");
    }
}

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\n";

#[tokio::test]
async fn an_upgrade_has_the_time_of_the_route_until_its_answer() {
    let (_server, address) = silent().await;
    let proxy = limited(address).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{UPGRADE}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_whatever_lies_behind_its_request() {
    let (server, address) = silent().await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[address])]).await;
    for (fields, behind) in [("", ""), ("", "G"), ("", "GET / HTTP/1.1\r\nhost: a\r\n\r\n")]
        .into_iter()
        .chain([(UPGRADE, ""), (UPGRADE, "a")])
    {
        for resets in [false, true] {
            let what = format!("{fields:?} {behind:?}, resets: {resets}");
            let mut client = TcpStream::connect(proxy.address).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n{behind}");
            client.write_all(request.as_bytes()).await.unwrap();
            let (mut upstream, _) = server.accept().await.unwrap();
            assert_ne!(upstream.read(&mut [0; 1024]).await.unwrap(), 0);
            if resets {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            let end = timeout(SOON, upstream.read(&mut [0; 1024])).await;
            assert_eq!(end.unwrap_or_else(|_| panic!("{what}: not noticed")).unwrap_or(0), 0);
        }
    }
}
