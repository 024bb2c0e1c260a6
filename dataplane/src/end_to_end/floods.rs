//! Peers that ask for too much, byte by byte: what they are told, what is counted, and that others
//! notice nothing.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::{
    fixture::*,
    peer::{Server, client, get, http2_client, send},
};
use crate::runtime::{HttpConnectionManager, limits::HttpLimits, route::VirtualHost};

pub(super) const SOON: Duration = Duration::from_secs(10);
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET`, `http`, `/`, and authority `a` (RFC 7541, appendix A).
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'a'];
/// RFC 9113, section 7.
const INTERNAL_ERROR: u8 = 2;
const ENHANCE_YOUR_CALM: u8 = 0xb;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that is not put into the table.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

pub(super) fn request(stream: u32, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &[GET, more].concat())
}

/// One side of an HTTP/2 connection that has no manners.
pub(super) struct Raw<S = TcpStream>(S);

impl Raw {
    pub(super) async fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).await.unwrap()).await
    }

    /// Takes a client's connection, and hears its first request.
    pub(super) async fn accept(listener: &TcpListener) -> Self {
        let mut raw = Self::greeted(listener).await;
        raw.hear_of(HEADERS).await.expect("the request");
        raw
    }

    /// Takes a client's connection, and hears its preface.
    pub(super) async fn greeted(listener: &TcpListener) -> Self {
        let mut raw = Self(listener.accept().await.unwrap().0);
        raw.0.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A client's side of this stream.
    pub(super) async fn over(stream: S) -> Self {
        let mut raw = Self(stream);
        raw.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw
    }

    /// The other side may have closed already.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame: kind, stream and payload; `None` at the end.
    pub(super) async fn hear(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        timeout(SOON, self.0.read_exact(&mut head))
            .await
            .expect("something is said in time")
            .ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Waits for a frame of this kind; `None` if the connection ends without one.
    pub(super) async fn hear_of(&mut self, wanted: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            match self.hear().await? {
                (kind, stream, payload) if kind == wanted => return Some((stream, payload)),
                _ => {}
            }
        }
    }

    /// The code of a GOAWAY before the end, which must come.
    pub(super) async fn farewell(&mut self) -> Option<u8> {
        let mut code = None;
        while let Some((kind, _, payload)) = self.hear().await {
            if kind == GOAWAY {
                code = Some(payload[7]);
            }
        }
        code
    }
}

fn count(proxy: &Proxy, direction: &str, limit: &str) -> u64 {
    let sample = format!(
        "ferromesh_http_limit_exceeded_total{{direction=\"{direction}\",limit=\"{limit}\"}} "
    );
    let metrics = proxy.shared.metrics.render();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(&sample))
        .expect("every limit has a counter");
    line.parse().unwrap()
}

/// Waits until a limit was crossed so often: what is said to a peer is counted a moment before or
/// after.
async fn until(proxy: &Proxy, direction: &str, limit: &str, expected: u64) {
    let counting = async {
        while count(proxy, direction, limit) != expected {
            tokio::task::yield_now().await;
        }
    };
    let counted = timeout(SOON, counting).await;
    assert!(
        counted.is_ok(),
        "{direction} {limit}: expected {expected}, got {}",
        count(proxy, direction, limit)
    );
}

/// A proxy in front of one server, with limits of its own.
async fn proxy(server: SocketAddr, limits: HttpLimits) -> Proxy {
    let mut proxy = Proxy::start(None);
    let cluster = proxy.cluster("a", &[server]);
    let hosts: Vec<VirtualHost> = vec![to("a", |_| {})];
    let manager = HttpConnectionManager { limits, ..with_routes(hosts) };
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], vec![cluster]).await, []);
    proxy
}

async fn is_served(proxy: &Proxy) {
    assert_eq!(get(&client(), proxy.url("/")).await.body, "ok");
    assert_eq!(get(&http2_client(), proxy.url("/")).await.body, "ok");
}

#[tokio::test]
async fn a_stream_with_too_many_fields_is_reset_and_its_neighbours_are_served() {
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let named: Vec<u8> = (0..97).flat_map(|i| field(&format!("x-{i}"), "1")).collect();
    let crumbs: Vec<u8> = field("cookie", "a=b").repeat(97);
    let long = [vec![0, 1, b'x', 0x7f, 0x81, 0xdf, 0x03], vec![b'a'; 61_440]].concat();
    let mut raw = Raw::connect(proxy.address).await;
    for (stream, block, limit) in
        [(1, named, "headers"), (5, crumbs, "headers"), (9, long, "header_bytes")]
    {
        let before = count(&proxy, "downstream", limit);
        let mut pieces = block.chunks(16_000).peekable();
        let first = [GET, pieces.next().unwrap()].concat();
        let ends = |last: bool| if last { END_HEADERS } else { 0 };
        raw.say(&frame(HEADERS, END_STREAM | ends(pieces.peek().is_none()), stream, &first)).await;
        while let Some(piece) = pieces.next() {
            raw.say(&frame(9, ends(pieces.peek().is_none()), stream, piece)).await;
        }
        assert_eq!(raw.hear_of(RST_STREAM).await, Some((stream, vec![0, 0, 0, INTERNAL_ERROR])));
        assert_eq!(count(&proxy, "downstream", limit), before + 1);
        raw.say(&request(stream + 2, &field("x-fits", "1").repeat(96))).await;
        assert_eq!(raw.hear_of(DATA).await, Some((stream + 2, b"ok".to_vec())));
    }
    assert_eq!(server.hits(), 3);
}

#[tokio::test]
async fn a_block_of_references_ends_its_connection_before_it_is_decoded() {
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let mut raw = Raw::connect(proxy.address).await;
    // Into the table once, then one byte each: what was reported.
    let referred = [&[0x40, 1, b'x', 1, b'1'][..], &[0xbe; 1849]].concat();
    raw.say(&request(1, &referred)).await;
    assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!((count(&proxy, "downstream", "headers"), server.hits()), (1, 0));
    is_served(&proxy).await;
}

#[tokio::test]
async fn frames_that_carry_nothing_are_cut() {
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    for (flood, limit) in [
        (frame(SETTINGS, 0, 0, &[]), "control_frames"),
        (frame(PING, 0, 0, &[0; 8]), "control_frames"),
        (frame(2, 0, 1, &[0; 5]), "priority_frames"),
        (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), "window_updates"),
        (frame(DATA, 0, 1, &[]), "empty_frames"),
    ] {
        let before = count(&proxy, "downstream", limit);
        let mut raw = Raw::connect(proxy.address).await;
        raw.say(&frame(HEADERS, END_HEADERS, 1, &[&[0x83], &GET[1..]].concat())).await;
        raw.say(&flood.repeat(3000)).await;
        // A reset may overtake the farewell, since not everything was read.
        let code = raw.farewell().await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{limit}: {code:?}");
        until(&proxy, "downstream", limit, before + 1).await;
    }
    is_served(&proxy).await;
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection() {
    let silent = Server::start(|_, _| std::future::pending::<Response<Full<Bytes>>>()).await;
    let proxy =
        proxy(silent.address, HttpLimits { premature_resets: 50, ..HttpLimits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;
    // Each is taken back only once it is under way, which a limit of the codec's on waiting ones
    // never sees.
    for number in 0..25 {
        raw.say(&request(2 * number + 1, &[])).await;
        raw.say(&frame(PING, 0, 0, &[0; 8])).await;
        assert!(raw.hear_of(PING).await.is_some());
        raw.say(&frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])).await;
    }
    assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM));
    until(&proxy, "downstream", "premature_resets", 1).await;
}

#[tokio::test]
async fn a_burst_of_streams_that_are_taken_back_spares_a_good_one() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Response::new(Full::from("ok"))
    })
    .await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let burst = |count: u32| -> Vec<u8> {
        let each = |number| {
            let stream = 2 * number + 3;
            [request(stream, &[]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        };
        (0..count).flat_map(each).collect()
    };
    for count in [21, 200] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.say(&request(1, &[])).await;
        raw.say(&burst(count)).await;
        assert_eq!(raw.hear_of(DATA).await, Some((1, b"ok".to_vec())), "beside {count}");
    }
    let mut raw = Raw::connect(proxy.address).await;
    raw.say(&burst(5000)).await;
    // A reset may overtake the farewell, since not everything was read.
    let code = raw.farewell().await;
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    is_served(&proxy).await;
}

#[tokio::test]
async fn a_stream_that_a_goaway_leaves_out_is_refused_and_tried_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let hosts =
        vec![to("a", |action| action.retry = Some(super::http::retry("refused-stream", 2)))];
    let proxy = Proxy::http(hosts, &[("a", &[listener.local_addr().unwrap()])]).await;
    let url = proxy.url("/");
    let asking = tokio::spawn(async move { get(&http2_client(), url).await });
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut raw = timeout(SOON, Raw::accept(&listener)).await.expect("one more attempt");
        raw.say(&[frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat()).await;
        connections.push(raw);
    }
    let answer = asking.await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.ends_with("reset reason: remote refused stream reset"), "{}", answer.body);
    let rendered = proxy.shared.metrics.render();
    assert!(rendered.contains("response_flags=\"URX,UR\""), "{rendered}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_others_go_on() {
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    proxy.shared.limit_connections(2);
    let (mut first, mut second) =
        (Raw::connect(proxy.address).await, Raw::connect(proxy.address).await);
    let ask = async |raw: &mut Raw| {
        raw.say(&request(1, &[])).await;
        raw.hear_of(DATA).await
    };
    assert!(ask(&mut first).await.is_some() && ask(&mut second).await.is_some());
    let mut third = Raw::connect(proxy.address).await;
    assert_eq!(third.hear().await, None);
    until(&proxy, "downstream", "connections", 1).await;
    second.say(&request(3, &[])).await;
    assert!(second.hear_of(DATA).await.is_some());
    drop(first);
    // As soon as the proxy has seen that it is gone.
    let room = async { while ask(&mut Raw::connect(proxy.address).await).await.is_none() {} };
    timeout(SOON, room).await.expect("there is room again");
}

#[tokio::test]
async fn names_that_clients_invent_leave_no_metrics_without_end() {
    const ASKED: u64 = 300;
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let named = |number| match number {
        1 => "long.".repeat(60),
        number => format!("h{number}.example"),
    };
    let ask = |number| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", named(number));
    let asked: String = (0..ASKED).map(ask).collect();
    stream.write_all(asked.as_bytes()).await.unwrap();
    let counts = || -> Vec<(String, u64)> {
        let metrics = proxy.shared.metrics.render();
        let lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
        let sample = |line: &str| {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            (labels.to_owned(), count.parse().unwrap())
        };
        lines.map(sample).collect()
    };
    let reading = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let mut told = counts();
    super::blame::until("every request is counted", || {
        told = counts();
        told.iter().map(|(_, count)| count).sum::<u64>() == ASKED
    })
    .await;
    reading.abort();
    let of = |host: &str| -> u64 {
        let label = format!("destination_service=\"{host}\"");
        told.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum()
    };
    assert_eq!((of("h0.example"), of(&named(1))), (1, 0));
    assert_eq!(of("unknown"), ASKED - (told.len() as u64 - 1));
    assert!(told.len() < 100, "{} are told apart", told.len());
}

#[tokio::test]
async fn an_http1_head_is_limited_in_fields_and_bytes() {
    let server = Server::saying("ok").await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let client = client();
    for (fields, size, expected) in
        [(90, 1, 200), (101, 1, 431), (1, 61_000, 200), (1, 62_500, 431)]
    {
        let mut request = Request::get(proxy.url("/"));
        for number in 0..fields {
            request = request.header(format!("x-{number}"), "a".repeat(size));
        }
        let answer = send(&client, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, expected, "{fields} fields of {size} bytes");
    }
    until(&proxy, "downstream", "head", 2).await;
}

#[tokio::test]
async fn an_answer_s_head_is_limited_as_a_request_s() {
    let server = Server::start(|request, _| async move {
        let mut response = Response::builder();
        let (fields, size) = request.uri().path()[1..].split_once('/').unwrap();
        for number in 0..fields.parse().unwrap() {
            response = response.header(format!("x-{number}"), "a".repeat(size.parse().unwrap()));
        }
        response.body(Full::from("ok")).unwrap()
    })
    .await;
    let proxy = proxy(server.address, HttpLimits::default()).await;
    let http2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_max_header_list_size(1 << 20)
        .build_http();
    for (client, version, refused) in
        [(client(), "HTTP/1", (502, "UPE")), (http2, "HTTP/2", (503, "UR"))]
    {
        for (path, fits) in
            [("/90/1", true), ("/101/1", false), ("/10/6000", true), ("/10/6500", false)]
        {
            let answer = get(&client, proxy.url(path)).await;
            assert_eq!(answer.status, if fits { 200 } else { refused.0 }, "{version} {path}");
        }
        // What was reported.
        assert_eq!(get(&client, proxy.url("/100/3072")).await.status / 100, 5, "{version}");
        let flag = format!("response_flags=\"{}\"", refused.1);
        assert!(proxy.shared.metrics.render().contains(&flag), "{flag}");
    }
    assert!(count(&proxy, "upstream", "head") >= 2 && count(&proxy, "upstream", "headers") == 1);
    assert_eq!(count(&proxy, "upstream", "header_bytes"), 1);
}

#[tokio::test]
async fn a_server_that_floods_has_broken_the_protocol_and_is_not_asked_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap(), HttpLimits::default()).await;
    let client = http2_client();
    let ask = || {
        let (client, url) = (client.clone(), proxy.url("/"));
        tokio::spawn(async move { get(&client, url).await })
    };
    let asking = ask();
    let mut raw = Raw::accept(&listener).await;
    let answer = [frame(HEADERS, END_HEADERS, 1, &[0x88]), frame(DATA, END_STREAM, 1, b"ok")];
    raw.say(&[frame(SETTINGS, 0, 0, &[]), answer.concat()].concat()).await;
    assert_eq!(asking.await.unwrap().status, 200);
    // On a connection that was used before, a GET is sent again if its server had only closed.
    let asking = ask();
    raw.hear_of(HEADERS).await.expect("the second request");
    raw.say(&frame(PING, 0, 0, &[0; 8]).repeat(3000)).await;
    let again = tokio::select! {
        answer = asking => answer.unwrap(),
        _ = Raw::accept(&listener) => panic!("it was sent again"),
    };
    assert_eq!(again.status, 502, "{}", again.body);
    assert!(proxy.shared.metrics.render().contains("response_flags=\"UPE\""));
    until(&proxy, "upstream", "control_frames", 1).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_and_a_silent_connection_is_not() {
    let server = Server::saying("ok").await;
    let head_time = Duration::from_millis(300);
    let proxy = proxy(server.address, HttpLimits { head_time, ..HttpLimits::default() }).await;
    let mut idle = TcpStream::connect(proxy.address).await.unwrap();
    let mut answered = [0; 4096];
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut answered).await.unwrap() > 0);
    let begin = Instant::now();
    let mut slow = TcpStream::connect(proxy.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut half = Raw::connect(proxy.address).await;
    half.say(&frame(HEADERS, END_STREAM, 1, GET)).await;
    let mut text = String::new();
    timeout(SOON, slow.read_to_string(&mut text)).await.expect("it is closed").unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(begin.elapsed() >= head_time, "{:?}", begin.elapsed());
    assert_eq!(half.farewell().await, Some(ENHANCE_YOUR_CALM));
    until(&proxy, "downstream", "head_time", 2).await;
    // More than the time of a head has passed since its last request.
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut answered).await.unwrap() > 0);
}

#[tokio::test]
async fn a_connection_with_a_long_answer_is_not_idle() {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut proxy = Proxy::start(None);
    let cluster = proxy.cluster("a", &[server.local_addr().unwrap()]);
    let limit = Duration::from_millis(1500);
    let idle_timeout = Some(limit);
    let manager = HttpConnectionManager { idle_timeout, ..with_routes(vec![to("a", |_| {})]) };
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], vec![cluster]).await, []);
    let begin = Instant::now();
    let mut raw = Raw::connect(proxy.address).await;
    raw.say(&request(1, &[])).await;
    let mut upstream = Raw::accept(&server).await;
    upstream
        .say(&[frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &[0x88])].concat())
        .await;
    assert!(raw.hear_of(HEADERS).await.is_some());
    // The limit passes while the answer is under way; a connection that were idle would be told to
    // go.
    tokio::time::sleep_until(begin + 2 * limit).await;
    upstream.say(&frame(DATA, END_STREAM, 1, b"at last")).await;
    loop {
        match raw.hear().await.expect("the answer before the end") {
            (GOAWAY, ..) => panic!("the connection was taken for an idle one"),
            (DATA, _, payload) if payload == b"at last" => break,
            _ => {}
        }
    }
}

/// Trailers of so many fields.
fn trailers(stream: u32, fields: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..fields).flat_map(|i| field(&format!("x-{i}"), "1")).collect();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

#[tokio::test]
async fn trailers_are_limited_as_heads_are() {
    let server = Server::echoing().await;
    let proxied = proxy(server.address, HttpLimits::default()).await;
    let post = |stream, fields| {
        let head = [&[0x83, 0x86, 0x84, 0x01, 1, b'a'][..], &field("te", "trailers")].concat();
        let head = frame(HEADERS, END_HEADERS, stream, &head);
        [head, frame(DATA, 0, stream, b"hi"), trailers(stream, fields)].concat()
    };
    let mut client = Raw::connect(proxied.address).await;
    client.say(&post(1, 101)).await;
    assert_eq!(client.hear_of(RST_STREAM).await, Some((1, vec![0, 0, 0, INTERNAL_ERROR])));
    until(&proxied, "downstream", "headers", 1).await;
    client.say(&post(3, 100)).await;
    assert_eq!(client.hear_of(HEADERS).await.expect("an answer").0, 3);

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxied = proxy(listener.local_addr().unwrap(), HttpLimits::default()).await;
    let mut client = Raw::connect(proxied.address).await;
    client.say(&request(1, &[])).await;
    let mut endpoint = Raw::accept(&listener).await;
    endpoint.say(&frame(SETTINGS, 0, 0, &[])).await;
    let answer = |stream, fields| {
        let head = frame(HEADERS, END_HEADERS, stream, &[0x88]);
        [head, frame(DATA, 0, stream, b"ok"), trailers(stream, fields)].concat()
    };
    endpoint.say(&answer(1, 100)).await;
    assert_eq!(client.hear_of(DATA).await, Some((1, b"ok".to_vec())));
    assert_eq!(client.hear_of(HEADERS).await.expect("trailers").0, 1);
    client.say(&request(3, &[])).await;
    let (asked, _) = endpoint.hear_of(HEADERS).await.expect("a request");
    endpoint.say(&answer(asked, 101)).await;
    assert_eq!(client.hear_of(RST_STREAM).await.expect("an end").0, 3);
    until(&proxied, "upstream", "headers", 1).await;
}

#[tokio::test]
async fn pseudo_headers_in_trailers_end_the_connection() {
    let server = Server::saying("ok").await;
    let proxy = Proxy::http(vec![to("a", |_| {})], &[("a", &[server.address])]).await;
    let post = |trailers: &[u8]| {
        let head = [&[0x83, 0x86, 0x84, 0x41, 1, b'a'][..], &field("te", "trailers")].concat();
        [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, 0, 1, b"hi"),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, trailers),
        ]
        .concat()
    };
    let mut good = Raw::connect(proxy.address).await;
    good.say(&post(&field("x-trailer", "1"))).await;
    assert!(good.hear_of(HEADERS).await.is_some());
    for trailers in [field(":path", "/other"), vec![0xbe], field(":unknown", "1")] {
        let mut bad = Raw::connect(proxy.address).await;
        bad.say(&post(&trailers)).await;
        let (_, farewell) = bad.hear_of(GOAWAY).await.expect("a word on why");
        assert_eq!(farewell[7], 1, "PROTOCOL_ERROR for {trailers:x?}");
    }
}
