//! How exchanges and connections end, and who is kept waiting by it: over sockets, as in Envoy
//! 1.40.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    blame::{outcome, proxy_to},
    fixture::*,
    peer::{http2_client, send},
    timing::to_the_end,
};
use crate::{
    runtime::{
        HttpConnectionManager,
        action::{Action, DirectResponse},
        cluster::UpstreamProtocol,
    },
    worker::Phase,
};

const SOON: Duration = Duration::from_secs(20);

/// An endpoint that answers without waiting for the request's end, and tells when that is broken
/// off.
async fn hasty(protocol: UpstreamProtocol) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, broken) = oneshot::channel();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        if protocol == UpstreamProtocol::Http2 {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            let (request, mut answer) = connection.accept().await.unwrap().unwrap();
            let _ = answer.send_response(Response::new(()), true).unwrap();
            let going_on =
                tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            let is_whole = body.is_end_stream();
            going_on.abort();
            assert!(!is_whole, "a part of an upload passed for all of it");
        } else {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                tcp.read_buf(&mut request).await.unwrap();
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            tcp.write_all(answer).await.unwrap();
            while tcp.read_buf(&mut request).await.is_ok_and(|length| length > 0) {}
            assert!(!request.ends_with(b"\r\n0\r\n\r\n"), "a part of an upload passed for all");
        }
        let _ = told.send(());
    });
    (address, broken)
}

#[tokio::test]
async fn an_upload_does_not_outlive_its_answer() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (endpoint, broken) = hasty(protocol).await;
        let proxy = proxy_to(endpoint, protocol, false).await;
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::post("http://a/").body(()).unwrap();
        let (answer, mut upload) = sender.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"ab"), false).unwrap();
        let mut answer = answer.await.expect("an answer").into_body();
        while let Some(Ok(_)) = answer.data().await {}
        assert!(answer.is_end_stream(), "{protocol:?}: the answer is whole");
        let told = timeout(SOON, poll_fn(|cx| upload.poll_reset(cx))).await.expect("a word");
        assert_eq!(told.unwrap(), Reason::NO_ERROR, "{protocol:?}");
        timeout(SOON, broken).await.expect("an end of the upload").unwrap();
        assert_eq!(outcome(&proxy, "the end").await, (200, "-".to_owned()), "{protocol:?}");
        connection.abort();
    }
}

/// Sends so much of an answer and ends; the task ends when the proxy has seen the end.
async fn breaking_off(sent: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'a'; sent]).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read(&mut [0]).await;
    });
    (endpoint, server)
}

#[tokio::test]
async fn the_end_of_a_broken_answer_reaches_a_slow_client() {
    // Less than the codec buffers: with one of these lengths the kernel's buffers are full, and the
    // codec's are not.
    const STEP: usize = 64 * 1024;
    for sent in (1..=128).map(|steps| steps * STEP) {
        let (endpoint, server) = breaking_off(sent).await;
        let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[endpoint])]).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(proxy.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // Nothing is read before the proxy has seen the end, or cannot take any more.
        let has_seen_the_end = timeout(Duration::from_secs(1), server).await.is_ok();
        let answer = to_the_end(&mut client).await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.len(), sent, "what the endpoint has said before it broke off");
        if !has_seen_the_end {
            return;
        }
    }
}

/// Answers every request of every connection by these bytes.
async fn repeating(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {
                    stream.write_all(bytes).await.unwrap();
                }
            });
        }
    });
    address
}

async fn head(stream: &mut TcpStream, method: &str) -> String {
    let request = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("a head").unwrap());
    }
    String::from_utf8_lossy(&head).to_lowercase()
}

#[tokio::test]
async fn what_was_not_modified_keeps_the_length_that_is_said_of_it() {
    for (answer, length) in [
        (&b"HTTP/1.1 304 Not Modified\r\ncontent-length: 20\r\n\r\n"[..], Some("20")),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n", Some("0")),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
        // More than a length can be.
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99999999999999999999\r\n\r\n", None),
    ] {
        let endpoint = repeating(answer).await;
        let proxy = proxy_to(endpoint, UpstreamProtocol::Http1, false).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        for method in ["GET", "HEAD", "GET"] {
            let head = head(&mut stream, method).await;
            if head.starts_with("http/1.1 502") && length.is_none() {
                break;
            }
            let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert!(head.starts_with("http/1.1 304 "), "{method}: {head}");
            assert!(told == length || method == "HEAD", "{method}: {head}");
        }
    }
    let endpoint = repeating(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 20\r\n\r\n").await;
    let proxy = proxy_to(endpoint, UpstreamProtocol::Http1, false).await;
    head(&mut TcpStream::connect(proxy.address).await.unwrap(), "GET").await;
    assert_eq!(outcome(&proxy, "the end").await, (304, "-".to_owned()));
}

/// An endpoint that ends no stream.
async fn endless(status: u16) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let mut open = Vec::new();
        while let Some(Ok((_request, mut answer))) = connection.accept().await {
            let head = Response::builder().status(status).body(()).unwrap();
            open.push(answer.send_response(head, false).unwrap());
        }
    });
    address
}

#[tokio::test]
async fn an_answer_without_body_ends_with_its_head() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let proxy = proxy_to(endless(status).await, UpstreamProtocol::Http2, false).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..2 {
            let head = head(&mut stream, method).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method}: {head}");
        }
        assert_eq!(outcome(&proxy, method).await, (status, "-".to_owned()), "{method}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_its_farewell_is_closed() {
    for drains in [false, true] {
        let mut proxy = Proxy::start(None);
        let idle_timeout = (!drains).then_some(Duration::from_secs(1));
        let manager = HttpConnectionManager { idle_timeout, ..with_routes(vec![]) };
        let listener = proxy.listener(http_chain(manager));
        proxy.configure(vec![listener], vec![]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // The preface and empty SETTINGS; nothing is ever acknowledged.
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(hello).await.unwrap();
        let mut settings = [0; 9];
        stream.read_exact(&mut settings).await.unwrap();
        assert_eq!(settings[3], 4, "SETTINGS come first");
        if drains {
            proxy.shared.enter(Phase::Draining);
        }
        let mut rest = Vec::new();
        let end = timeout(SOON, stream.read_to_end(&mut rest)).await;
        end.unwrap_or_else(|_| panic!("still open, drains: {drains}")).unwrap();
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        assert!(rest.windows(9).any(|frame| frame == goaway), "drains: {drains}: {rest:?}");
    }
}

#[tokio::test]
async fn silence_is_the_clients_before_its_request_has_ended_and_the_endpoints_after() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let silent = listener.local_addr().unwrap();
    let limit = Duration::from_millis(300);
    let hosts = vec![to("a", |action| action.idle_timeout = Some(limit))];
    let proxy = Proxy::http(hosts, &[("a", &[silent])]).await;
    for (request, status) in [
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab", "408"),
        ("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab", "504"),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "504"),
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = to_the_end(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.ends_with("stream timeout"), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_is_no_silence() {
    // The endpoint is silent for longer than the limit, and the client never for so long.
    let (limit, pause) = (Duration::from_millis(2500), Duration::from_millis(1500));
    let endpoint = super::timing::early(true).await;
    let hosts = vec![to("a", |action| action.idle_timeout = Some(limit))];
    let proxy = Proxy::http(hosts, &[("a", &[endpoint])]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab";
    stream.write_all(head).await.unwrap();
    for byte in [b"c", b"d"] {
        sleep(pause).await;
        stream.write_all(byte).await.unwrap();
    }
    let answer = to_the_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abcd"), "{answer}");
}

/// An endpoint that answers without end, and tells when it cannot any more.
async fn flood() -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, ended) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(&[b'a'; 10_000]).await.is_ok() {}
        let _ = told.send(());
    });
    (address, ended)
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_no_endpoint_beyond_its_time() {
    let limit = Duration::from_secs(1);
    for (http2, timeout_of_route) in [(false, true), (false, false), (true, true), (true, false)] {
        let what = format!("HTTP/2: {http2}, of the route: {timeout_of_route}");
        let (endpoint, ended) = flood().await;
        let mut proxy = Proxy::start(None);
        let mut cluster = proxy.cluster("a", &[endpoint]);
        cluster.connection.protocol = UpstreamProtocol::Http1;
        let hosts = vec![to("a", |action| {
            action.timeout = timeout_of_route.then_some(limit);
            action.idle_timeout = (!timeout_of_route).then_some(limit);
        })];
        let listener = proxy.listener(http_chain(with_routes(hosts)));
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        if http2 {
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = Request::get("http://a/").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            let _taken_as_far_as_its_head = answer.await.expect("a head");
            timeout(SOON, ended).await.expect(&what).unwrap();
            connection.abort();
        } else {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            timeout(SOON, ended).await.expect(&what).unwrap();
            let flag = if timeout_of_route { "UT" } else { "SI" };
            assert_eq!(outcome(&proxy, &what).await, (200, flag.to_owned()), "{what}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_ours_has_the_form_that_its_status_and_its_client_want() {
    let direct = |path: &str, status, body: &'static str| {
        route(
            path,
            Action::Direct(DirectResponse { status, body: Bytes::from_static(body.as_bytes()) }),
        )
    };
    let hosts = vec![host(vec![
        direct("/204", 204, "none"),
        direct("/304", 304, "none"),
        direct("/418", 418, "t\u{e9}%\n"),
    ])];
    let proxy = Proxy::http(hosts, &[]).await;
    let client = http2_client();
    for (path, grpc, status, length, message, body) in [
        ("/204", false, 204, "", None, ""),
        ("/304", false, 304, "", None, ""),
        ("/418", false, 418, "5", None, "t\u{e9}%\n"),
        ("/418", true, 200, "", Some("t%C3%A9%25%0A"), ""),
        ("/else", true, 200, "", None, ""),
    ] {
        let mut request = Request::get(proxy.url(path));
        if grpc {
            request = request.header("content-type", "application/grpc");
        }
        let answer = send(&client, request.body(Default::default()).unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path} {grpc}");
        let length_of = |length: &str| length.is_empty() || length == "0";
        let told = answer.header("content-length");
        assert!(told == length || length_of(told) && length_of(length), "{path} {grpc}: {told}");
        let said = answer.headers.get("grpc-message").map(|said| said.to_str().unwrap());
        assert_eq!(said, message, "{path} {grpc}");
    }
}
