//! Who is blamed for what breaks: every fault of a client and of an endpoint, over sockets, with
//! the status, the flags and the ejections that Envoy 1.40 has answered to the same bytes (its
//! outlier detection set to one failure).

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    fixture::*,
    peer::{Server, client, get},
};
use crate::runtime::{
    action::Mirror,
    cluster::{OutlierDetection, UpstreamProtocol},
    format::{Field, FormatOp},
    matcher::Share,
};

/// One failure of any kind ejects, so that nobody can be blamed unseen.
pub(super) fn at_once(split_local_origin: bool) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 1,
        consecutive_gateway_failure: 1,
        consecutive_local_origin_failure: 1,
        split_local_origin,
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(60),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        always_one: false,
    }
}

/// A proxy with one endpoint, which it ejects at its first failure.
pub(super) async fn proxy_to(
    endpoint: SocketAddr,
    protocol: UpstreamProtocol,
    split: bool,
) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[endpoint]);
    cluster.outlier = Some(at_once(split));
    cluster.connection.protocol = protocol;
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    proxy.configure(vec![listener], vec![cluster]).await;
    proxy
}

pub(super) fn is_ejected(proxy: &Proxy, cluster: &str) -> bool {
    let state = proxy.shared.config().cluster(cluster).unwrap().state.clone();
    let (endpoints, now) = (state.endpoints(), state.now_ms());
    endpoints.iter().any(|endpoint| endpoint.state.is_ejected(now))
}

/// Waits for something that happens elsewhere.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::task::yield_now().await;
    }
}

/// Status and flags of the only request so far, once it was counted.
pub(super) async fn outcome(proxy: &Proxy, what: &str) -> (u16, String) {
    let mut found = None;
    let sample = || {
        let metrics = proxy.shared.metrics.render();
        let line =
            metrics.lines().find(|line| line.starts_with("istio_requests_total{"))?.to_owned();
        let label = |name: &str| {
            Some(line.split_once(&format!(",{name}=\""))?.1.split_once('"')?.0.to_owned())
        };
        Some((label("response_code")?.parse().ok()?, label("response_flags")?))
    };
    until(what, || {
        found = sample();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// A server that takes whole bodies, and notes how many requests began and what bodies it was told
/// are complete.
struct Taking {
    server: Server,
    begun: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Taking {
    async fn start() -> Self {
        let (begun, bodies) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Bytes>>>::default());
        let noted = (Arc::clone(&begun), Arc::clone(&bodies));
        let server = Server::start(move |request: Request<_>, _| {
            let (begun, bodies) = (Arc::clone(&noted.0), Arc::clone(&noted.1));
            async move {
                begun.fetch_add(1, SeqCst);
                let waits = request.uri().path() == "/wait";
                if let Ok(body) = request.into_body().collect().await {
                    bodies.lock().unwrap().push(body.to_bytes());
                }
                if waits {
                    std::future::pending::<()>().await;
                }
                Response::new(Full::from("ok"))
            }
        })
        .await;
        Self { server, begun, bodies }
    }

    async fn has_begun(&self, what: &str) {
        until(what, || self.begun.load(SeqCst) > 0).await;
    }
}

/// What an HTTP/1 client does once the server has its head.
#[derive(Clone, Copy, Debug)]
enum Then {
    Send(&'static str),
    /// Ends its side and reads on.
    HalfClose,
    Close,
    Reset,
}

async fn act(mut stream: TcpStream, then: Then) -> String {
    let mut answer = Vec::new();
    match then {
        Then::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
        Then::HalfClose => stream.shutdown().await.unwrap(),
        Then::Close => return String::new(),
        Then::Reset => {
            stream.set_zero_linger().unwrap();
            return String::new();
        }
    }
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Any fault of an HTTP/1 client: the status that it gets (0: none), the flags, and nobody is
/// ejected.
async fn check_http1(head: &str, body: &str, then: Then, code: u16, flags: &str) {
    for upstream in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let what = format!("{head:?} {body:?} {then:?} to {upstream:?}");
        let taking = Taking::start().await;
        let proxy = proxy_to(taking.server.address, upstream, false).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = format!("POST {head}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        taking.has_begun(&what).await;
        let answer = act(stream, then).await;
        assert_eq!(outcome(&proxy, &what).await, (code, flags.to_owned()), "{what}");
        let first_line = format!("HTTP/1.1 {code} ");
        assert!(
            if code == 0 { answer.is_empty() } else { answer.starts_with(&first_line) },
            "{what}: {answer}"
        );
        unharmed(&proxy, &taking, &what).await;
    }
}

/// The endpoint serves on, and was never told that a broken body is complete.
async fn unharmed(proxy: &Proxy, taking: &Taking, what: &str) {
    assert!(!is_ejected(proxy, "a"), "{what}: ejected");
    assert_eq!(get(&client(), proxy.url("/next")).await.status, 200, "{what}");
    assert_eq!(
        *taking.bodies.lock().unwrap(),
        [Bytes::new()],
        "{what}: a broken body was passed on as whole"
    );
}

#[tokio::test]
async fn a_broken_upload_over_http1_is_the_clients_fault() {
    const SIZED: &str = "/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100";
    const CODED: &str = "/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked";
    const CHUNK: &str = "2\r\nab\r\n";
    for (head, body, then, code, flags) in [
        (SIZED, "abc", Then::HalfClose, 0, "DC"),
        (SIZED, "abc", Then::Close, 0, "DC"),
        (SIZED, "abc", Then::Reset, 0, "DC"),
        (CODED, CHUNK, Then::HalfClose, 0, "DC"),
        (CODED, CHUNK, Then::Reset, 0, "DC"),
        (CODED, CHUNK, Then::Send("zz\r\n"), 400, "DPE"),
        (CODED, CHUNK, Then::Send("-2\r\n"), 400, "DPE"),
        (CODED, CHUNK, Then::Send("fffffffffffffffff\r\n"), 400, "DPE"),
        (CODED, CHUNK, Then::Send("2;a\nab\r\n"), 400, "DPE"),
        (CODED, CHUNK, Then::Send("0\r\nx y\r\n\r\n"), 400, "DPE"),
    ] {
        check_http1(head, body, then, code, flags).await;
    }
}

#[tokio::test]
async fn an_expectation_that_is_not_met_is_the_clients_fault() {
    let taking = Taking::start().await;
    let proxy = proxy_to(taking.server.address, UpstreamProtocol::Http1, false).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    act(stream, Then::Reset).await;
    assert_eq!(outcome(&proxy, "the end").await, (0, "DC".to_owned()));
    unharmed(&proxy, &taking, "expect").await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_nobodys_failure() {
    for upstream in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        for then in [Then::HalfClose, Then::Close, Then::Reset] {
            let what = format!("{then:?} to {upstream:?}");
            let taking = Taking::start().await;
            let proxy = proxy_to(taking.server.address, upstream, false).await;
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            stream.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            taking.has_begun(&what).await;
            act(stream, then).await;
            assert_eq!(outcome(&proxy, &what).await, (0, "DC".to_owned()), "{what}");
            assert!(!is_ejected(&proxy, "a"), "{what}: ejected");
        }
    }
}

/// What an HTTP/2 client does to its stream once the server has its head.
#[derive(Clone, Copy, Debug)]
enum OnStream {
    Reset(Reason),
    /// Ends the body, whatever was announced.
    End(&'static str),
    CloseConnection,
}

async fn check_http2(path: &str, length: Option<&str>, whole: bool, then: OnStream, flags: &str) {
    for upstream in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let what = format!("{path} {length:?} {then:?} to {upstream:?}");
        let taking = Taking::start().await;
        let proxy = proxy_to(taking.server.address, upstream, false).await;
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://a{path}"));
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let (_answer, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"ab"), whole).unwrap();
        taking.has_begun(&what).await;
        match then {
            OnStream::Reset(reason) => stream.send_reset(reason),
            OnStream::End(rest) => {
                stream.send_data(Bytes::from_static(rest.as_bytes()), true).unwrap()
            }
            OnStream::CloseConnection => connection.abort(),
        }
        assert_eq!(outcome(&proxy, &what).await, (0, flags.to_owned()), "{what}");
        if whole {
            assert!(!is_ejected(&proxy, "a"), "{what}: ejected");
        } else {
            unharmed(&proxy, &taking, &what).await;
        }
        connection.abort();
    }
}

#[tokio::test]
async fn a_broken_upload_over_http2_is_the_clients_fault() {
    for (length, then, flags) in [
        (None, OnStream::Reset(Reason::CANCEL), "DR"),
        (None, OnStream::Reset(Reason::NO_ERROR), "DR"),
        (None, OnStream::Reset(Reason::INTERNAL_ERROR), "DR"),
        (None, OnStream::Reset(Reason::PROTOCOL_ERROR), "DPE"),
        (Some("5"), OnStream::Reset(Reason::CANCEL), "DR"),
        (None, OnStream::CloseConnection, "DC"),
        (Some("5"), OnStream::CloseConnection, "DC"),
        (Some("5"), OnStream::End("c"), "DPE"),
        (Some("5"), OnStream::End("cdef"), "DPE"),
    ] {
        check_http2("/", length, false, then, flags).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_waited_for_is_nobodys_failure() {
    for (then, flags) in
        [(OnStream::Reset(Reason::CANCEL), "DR"), (OnStream::CloseConnection, "DC")]
    {
        check_http2("/wait", None, true, then, flags).await;
    }
}

/// How an endpoint goes on after it has sent what it had.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Close,
    Reset,
    Stay,
}

/// An endpoint that answers each request's head with these bytes.
async fn answering(bytes: &'static [u8], ends: Ends) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0)
                {}
                let _ = stream.write_all(bytes).await;
                match ends {
                    Ends::Close => {}
                    Ends::Reset => stream.set_zero_linger().unwrap(),
                    Ends::Stay => std::future::pending().await,
                }
            });
        }
    });
    address
}

pub(super) async fn check_upstream(
    endpoint: SocketAddr,
    protocol: UpstreamProtocol,
    code: u16,
    flags: &str,
    what: &str,
) {
    for split in [false, true] {
        let proxy = proxy_to(endpoint, protocol, split).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request =
            b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(outcome(&proxy, what).await, (code, flags.to_owned()), "{what}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{what}: {answer}");
        assert_eq!(is_ejected(&proxy, "a"), flags != "-", "{what}, split: {split}");
    }
}

#[tokio::test]
async fn what_an_endpoint_breaks_over_http1_is_its_fault() {
    use Ends::{Close, Reset, Stay};
    for (bytes, ends, code, flags) in [
        ("", Close, 503, "UC"),
        ("", Reset, 503, "UC"),
        ("garbage garbage\r\n\r\n", Stay, 502, "UPE"),
        ("\0\u{1}", Stay, 502, "UPE"),
        ("HTTP/1.1 99 X\r\ncontent-length: 2\r\n\r\nok", Stay, 502, "UPE"),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok", Stay, 502, "UPE"),
        ("HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 2\r\n\r\nok", Stay, 502, "UPE"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok", Close, 200, "UPE"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", Close, 200, "UPE"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
            Stay,
            200,
            "UPE",
        ),
        // Nothing is wrong with these.
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Stay, 200, "-"),
        ("HTTP/1.1 200 OK\r\n\r\nok", Close, 200, "-"),
        ("HTTP/1.0 200 OK\r\n\r\nok", Close, 200, "-"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Stay,
            200,
            "-",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Stay,
            200,
            "-",
        ),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 20\r\n\r\n", Stay, 304, "-"),
        ("HTTP/1.1 204 No Content\r\n\r\n", Stay, 204, "-"),
    ] {
        let endpoint = answering(bytes.as_bytes(), ends).await;
        check_upstream(
            endpoint,
            UpstreamProtocol::Http1,
            code,
            flags,
            &format!("{bytes:?} {ends:?}"),
        )
        .await;
    }
}

#[tokio::test]
async fn a_response_that_could_end_in_two_places_is_not_passed_on() {
    for fields in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "content-length: x",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2, 2",
        "content-length: +2",
    ] {
        let bytes =
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n2\r\nok\r\n0\r\n\r\n").leak().as_bytes();
        let endpoint = answering(bytes, Ends::Close).await;
        check_upstream(endpoint, UpstreamProtocol::Http1, 502, "UPE", fields).await;
    }
    for fields in ["content-length: 2", "transfer-encoding: chunked"] {
        let bytes = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n\r\n").leak().as_bytes();
        let endpoint = answering(bytes, Ends::Stay).await;
        check_upstream(endpoint, UpstreamProtocol::Http1, 502, "UPE", fields).await;
    }
}

/// What an HTTP/2 endpoint does with a request.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// Resets the stream before any answer.
    Resets(Reason),
    /// Resets it within the body.
    ResetsBody(Reason),
    /// Ends the body before the length that it has announced.
    EndsShort,
    /// Closes the connection before any answer, after a word on it or without.
    Closes { goaway: bool },
    /// Closes it within the body.
    ClosesBody,
    /// Answers with a body, and so many lines of its length.
    Answers { status: u16, lengths: usize },
}

async fn breaking(breaks: Breaks) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                let Some(Ok((_request, mut answer))) = connection.accept().await else { return };
                let head = |length: Option<&str>| {
                    let length = length.map(|length| ("content-length", length));
                    length
                        .into_iter()
                        .fold(Response::builder(), |head, (name, value)| head.header(name, value))
                };
                match breaks {
                    Breaks::Resets(reason) => answer.send_reset(reason),
                    Breaks::Closes { goaway: false } => return,
                    Breaks::Closes { goaway: true } => connection.abrupt_shutdown(Reason::NO_ERROR),
                    Breaks::EndsShort => {
                        let mut body = answer
                            .send_response(head(Some("20")).body(()).unwrap(), false)
                            .unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    }
                    Breaks::ResetsBody(reason) => {
                        let mut body =
                            answer.send_response(head(None).body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::from_static(b"o"), false).unwrap();
                        flush(&mut connection).await;
                        body.send_reset(reason);
                    }
                    Breaks::Answers { status, lengths } => {
                        let mut head = Response::builder().status(status);
                        for _ in 0..lengths {
                            head = head.header("content-length", "2");
                        }
                        let mut body = answer.send_response(head.body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    }
                    Breaks::ClosesBody => {
                        let mut body =
                            answer.send_response(head(None).body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::from_static(b"o"), false).unwrap();
                        flush(&mut connection).await;
                        return;
                    }
                }
                let _ = connection.accept().await;
            });
        }
    });
    address
}

/// Lets a connection write what it has, without waiting for the peer.
async fn flush(connection: &mut h2::server::Connection<TcpStream, Bytes>) {
    let _ = tokio::time::timeout(Duration::from_millis(20), connection.accept()).await;
}

#[tokio::test]
async fn what_an_endpoint_breaks_over_http2_is_its_fault() {
    for (breaks, code, flags) in [
        (Breaks::Resets(Reason::INTERNAL_ERROR), 503, "UR"),
        (Breaks::Resets(Reason::REFUSED_STREAM), 503, "UR"),
        (Breaks::Resets(Reason::CANCEL), 503, "UR"),
        (Breaks::Resets(Reason::NO_ERROR), 503, "UR"),
        (Breaks::Resets(Reason::PROTOCOL_ERROR), 502, "UPE"),
        (Breaks::Closes { goaway: false }, 503, "UC"),
        (Breaks::Closes { goaway: true }, 503, "UC"),
        (Breaks::EndsShort, 200, "UPE"),
        (Breaks::ResetsBody(Reason::INTERNAL_ERROR), 200, "UR"),
        (Breaks::ResetsBody(Reason::NO_ERROR), 200, "UR"),
        (Breaks::ClosesBody, 200, "UC"),
        (Breaks::Answers { status: 204, lengths: 1 }, 502, "UPE"),
        (Breaks::Answers { status: 200, lengths: 2 }, 502, "UPE"),
        (Breaks::Answers { status: 200, lengths: 1 }, 200, "-"),
    ] {
        let endpoint = breaking(breaks).await;
        check_upstream(endpoint, UpstreamProtocol::Http2, code, flags, &format!("{breaks:?}"))
            .await;
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_resets_its_stream() {
    for status in [204, 304] {
        let endpoint = breaking(Breaks::Answers { status, lengths: 0 }).await;
        let proxy = proxy_to(endpoint, UpstreamProtocol::Http2, false).await;
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://a/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let broken = match answer.await {
            Ok(answer) => answer.into_body().data().await.expect("an end").unwrap_err(),
            Err(error) => error,
        };
        assert!(broken.is_reset(), "{status}: {broken}");
        assert_eq!(outcome(&proxy, "the end").await, (status, "UPE".to_owned()));
        assert!(is_ejected(&proxy, "a"), "{status}");
        connection.abort();
    }
}

#[tokio::test]
async fn a_broken_mirror_says_nothing_of_the_endpoint() {
    let (server, broken) = (Server::saying("ok").await, answering(b"", Ends::Reset).await);
    let mut proxy = Proxy::start(None);
    let clusters = [("a", server.address), ("b", broken)].map(|(name, address)| {
        let mut cluster = proxy.cluster(name, &[address]);
        cluster.outlier = Some(at_once(false));
        cluster
    });
    let mirror = Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false };
    let hosts = vec![to("a", |action| action.mirrors = vec![mirror])];
    let listener = proxy.listener(http_chain(with_routes(hosts)));
    proxy.configure(vec![listener], clusters.into()).await;
    assert_eq!(get(&client(), proxy.url("/")).await.status, 200);
    until("the mirror's ejection", || is_ejected(&proxy, "b")).await;
    assert!(!is_ejected(&proxy, "a"));
    assert_eq!(outcome(&proxy, "the request").await, (200, "-".to_owned()));
}

#[tokio::test]
async fn a_slow_upload_is_not_an_endpoint_that_takes_too_long() {
    let taking = Taking::start().await;
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[taking.server.address]);
    cluster.outlier = Some(at_once(false));
    let limit = Duration::from_secs(1);
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |action| {
        let retry = super::http::retry("5xx", 1);
        let per_try = crate::runtime::action::RetryPolicy {
            per_try_timeout: Some(limit),
            ..(*retry).clone()
        };
        action.retry = Some(Arc::new(per_try));
    })])));
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\nab",
        )
        .await
        .unwrap();
    taking.has_begun("the upload").await;
    // As long as the client takes: this is the time limit of the endpoint, and more.
    tokio::time::sleep(limit + limit / 2).await;
    stream.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!is_ejected(&proxy, "a"));
    assert_eq!(*taking.bodies.lock().unwrap(), ["abcd"]);
}

#[tokio::test]
async fn a_request_that_could_end_in_two_places_reaches_nobody() {
    const CODED: &str = "2\r\nab\r\n0\r\n\r\n";
    for (fields, body, code) in [
        ("transfer-encoding: gzip, chunked", CODED, 501),
        ("transfer-encoding: identity, chunked", CODED, 501),
        ("transfer-encoding: chunked, chunked", CODED, 501),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", CODED, 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", CODED, 501),
        ("transfer-encoding: chunked\r\ncontent-length: 3", CODED, 400),
        ("content-length: 12\r\ntransfer-encoding: chunked", CODED, 400),
        ("transfer-encoding: chunked\r\ncontent-length: x", CODED, 400),
        ("content-length: 2\r\ncontent-length: 2", "ab", 400),
        ("content-length: 2\r\ncontent-length: 3", "ab", 400),
        ("content-length: 2, 2", "ab", 400),
        ("content-length: +2", "ab", 400),
        // RFC 9112, section 6.3: the last coding of a request is chunked, or it is answered by 400.
        ("transfer-encoding: gzip", "", 400),
        ("transfer-encoding: chunked, gzip", CODED, 400),
        ("transfer-encoding: identity", "", 400),
        ("transfer-encoding: xchunked", CODED, 400),
        ("transfer-encoding : chunked", CODED, 400),
        ("transfer-encoding:\u{b}chunked", CODED, 400),
        ("transfer-encoding: \"chunked\"", CODED, 400),
    ] {
        let server = Server::saying("ok").await;
        let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // One that is served first, on the same connection, and one that might be smuggled behind
        // it.
        let first =
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n";
        let next = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let request = format!("{first}POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}{next}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answers)).await;
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let codes: Vec<&str> =
            answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(codes, ["200", &code.to_string()], "{fields:?}: {answers}");
        assert_eq!(server.hits(), 1, "{fields:?}");
    }
}

#[tokio::test]
async fn a_stream_with_two_lengths_reaches_nobody() {
    let server = Server::saying("ok").await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let request =
        Request::post("http://a/").header("content-length", "2").header("content-length", "2");
    let (answer, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(b"ab"), true).unwrap();
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    assert_eq!(outcome(&proxy, "the refusal").await, (0, "DPE".to_owned()));
    assert_eq!(server.hits(), 0);
    connection.abort();
}

#[tokio::test]
async fn a_head_that_is_no_request_is_logged_as_the_clients_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let field =
        |field, end: &str| [FormatOp::Field { field, limit: None }, FormatOp::Literal(end.into())];
    let format = [field(Field::ResponseCode, " "), field(Field::ResponseFlags, "\n")].concat();
    let log = log_to(&path, format);
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(vec![to("a", |_| {})]);
    manager.access_logs = vec![log];
    let listener = proxy.listener(http_chain(manager));
    let cluster = proxy.cluster("a", &[]);
    proxy.configure(vec![listener], vec![cluster]).await;
    let mut expected = String::new();
    for (head, line) in [
        ("GET / HTTP/1.1\r\nhost a\r\n\r\n", "400 DPE\n"),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", "400 DPE\n"),
        ("GET / HTTP/1.1\r\nhos", "0 DC\n"),
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        expected += line;
        until(head, || std::fs::read_to_string(&path).is_ok_and(|text| text == expected)).await;
    }
}
