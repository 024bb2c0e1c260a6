//! Connections that are too old, on both sides: what is under way is served, and nothing after it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
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
    HttpConnectionManager, cluster::UpstreamProtocol, http::LongestConnection, limits::HttpLimits,
};

const SOON: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_millis(300);

/// Tells of each of its connections when it begins and when it ends; answers a request with the
/// number of its connection, a POST only once the connection is old.
async fn counting(http2: bool) -> (SocketAddr, mpsc::UnboundedReceiver<(&'static str, usize)>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let _ = tell.send(("begins", number));
                match http2 {
                    true => over_http2(stream, number).await,
                    false => over_http1(stream, number).await,
                }
                let _ = tell.send(("ends", number));
            });
        }
    });
    (address, told)
}

async fn over_http1(mut stream: TcpStream, number: usize) {
    let begin = Instant::now();
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        if read.starts_with(b"POST") {
            tokio::time::sleep_until(begin + 2 * LONGEST).await;
        }
        read.clear();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn over_http2(stream: TcpStream, number: usize) {
    let begin = Instant::now();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        let slow = request.method() == http::Method::POST;
        tokio::spawn(async move {
            if slow {
                tokio::time::sleep_until(begin + 2 * LONGEST).await;
            }
            let mut body = answer.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from(number.to_string()), true).unwrap();
        });
    }
}

#[tokio::test]
async fn a_connection_to_an_endpoint_ends_once_it_is_old_and_carries_nothing() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (endpoint, mut told) = counting(protocol == UpstreamProtocol::Http2).await;
        let mut next = async || timeout(SOON, told.recv()).await.expect("in time").unwrap();
        let mut proxy = Proxy::start(None);
        let mut cluster = proxy.cluster("a", &[endpoint]);
        cluster.connection.protocol = protocol;
        cluster.connection.http.longest = Some(LONGEST);
        let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
        proxy.configure(vec![listener], vec![cluster]).await;
        let client = client();
        let begin = Instant::now();
        for _ in 0..2 {
            assert_eq!(get(&client, proxy.url("/")).await.body, "1", "{protocol:?}");
        }
        assert_eq!([next().await, next().await], [("begins", 1), ("ends", 1)], "{protocol:?}");
        assert!(begin.elapsed() >= LONGEST, "{protocol:?}");

        // What is under way when it becomes old is served to its end; what comes then goes over
        // another.
        let slow = Request::post(proxy.url("/")).body(Default::default()).unwrap();
        assert_eq!(super::peer::send(&client, slow).await.body, "2", "{protocol:?}");
        assert_eq!(get(&client, proxy.url("/")).await.body, "3", "{protocol:?}");
        let mut rest = vec![next().await, next().await, next().await];
        rest.sort_unstable();
        assert_eq!(rest, [("begins", 2), ("begins", 3), ("ends", 2)], "{protocol:?}");
    }
}

async fn aging(http1_by_answer: bool) -> (Proxy, Server) {
    aging_with(http1_by_answer, HttpLimits::default()).await
}

async fn aging_with(http1_by_answer: bool, limits: HttpLimits) -> (Proxy, Server) {
    let app = Server::saying("ok").await;
    let mut proxy = Proxy::start(None);
    let longest = Some(LongestConnection { duration: LONGEST, http1_by_answer });
    let manager = HttpConnectionManager {
        longest,
        drain_timeout: LONGEST,
        limits,
        ..with_routes(vec![to("a", |_| {})])
    };
    let cluster = proxy.cluster("a", &[app.address]);
    let listener = proxy.listener(http_chain(manager));
    proxy.configure(vec![listener], vec![cluster]).await;
    (proxy, app)
}

/// The answer to a request, with its body.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        answer.push(timeout(SOON, stream.read_u8()).await.expect("an answer").unwrap());
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test]
async fn a_client_s_connection_is_told_to_go_once_it_is_old_and_closed_after_the_drain_time() {
    let (proxy, _app) = aging(false).await;
    let begin = Instant::now();
    let mut silent = TcpStream::connect(proxy.address).await.unwrap();
    assert!(!ask(&mut silent).await.contains("connection: close"));
    let mut busy = TcpStream::connect(proxy.address).await.unwrap();
    let last = loop {
        let answer = ask(&mut busy).await;
        if answer.contains("connection: close") {
            break answer;
        }
        assert!(begin.elapsed() < SOON);
    };
    assert!(last.starts_with("http/1.1 200 ") && begin.elapsed() >= LONGEST, "{last}");
    assert_eq!(timeout(SOON, to_the_end(&mut busy)).await.expect("an end"), "");
    assert_eq!(timeout(SOON, to_the_end(&mut silent)).await.expect("an end"), "");
    assert!(begin.elapsed() >= 2 * LONGEST, "the drain time is the client's");
}

#[tokio::test]
async fn half_a_head_holds_no_connection_that_is_too_old() {
    let limits = HttpLimits { head_time: 3 * LONGEST, ..HttpLimits::default() };
    let (proxy, _app) = aging_with(false, limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    // Cut off, however that is told.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("an end");
}

#[tokio::test]
async fn http1_can_be_told_by_an_answer_alone() {
    let (proxy, _app) = aging(true).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    assert!(!ask(&mut stream).await.contains("connection: close"));
    let quiet = timeout(4 * LONGEST, stream.read_u8()).await;
    assert!(quiet.is_err(), "nobody closes what is quiet");
    assert!(ask(&mut stream).await.contains("connection: close"));
    assert_eq!(timeout(SOON, to_the_end(&mut stream)).await.expect("an end"), "");
}

#[tokio::test]
async fn clients_of_http2_are_told_by_goaway() {
    for http1_by_answer in [false, true] {
        let (proxy, _app) = aging(http1_by_answer).await;
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let ended = tokio::spawn(connection);
        let request = Request::get("http://a/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        let end = timeout(SOON, ended).await.expect("an end").unwrap();
        assert!(end.is_ok(), "{end:?}");
    }
}
