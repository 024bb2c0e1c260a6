//! What mirrors get of a request, and when: what has arrived, as it arrives, as in Envoy 1.40; and
//! how much of a body is kept for them and for other attempts.

use std::num::NonZeroU32;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    blame::{at_once, is_ejected},
    fixture::*,
    floods::{
        DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, field,
        frame,
    },
    peer::{Server, client, send},
    timing::to_the_end,
};
use crate::runtime::{
    action::Mirror,
    cluster::UpstreamProtocol,
    limits::{BodyLimit, BufferLimit},
    matcher::Share,
};

/// `POST`, `http`, `/`, and authority `a` (RFC 7541, appendix A), with a promise of trailers.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 1, b'a'];

/// A proxy between an endpoint and a mirror that are the test's own, and that blames at once.
struct Between {
    proxy: Proxy,
    endpoint: TcpListener,
    mirror: TcpListener,
}

async fn between(protocol: UpstreamProtocol) -> Between {
    let [endpoint, mirror] = [
        TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
        TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
    ];
    let mut proxy = Proxy::start(None);
    let action = Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false };
    let hosts = vec![to("a", |forward| forward.mirrors = vec![action])];
    let listener = proxy.listener(http_chain(with_routes(hosts)));
    let [to_endpoint, mut to_mirror] = [("a", &endpoint), ("b", &mirror)]
        .map(|(name, listener)| proxy.cluster(name, &[listener.local_addr().unwrap()]));
    to_mirror.outlier = Some(at_once(false));
    to_mirror.connection.protocol = protocol;
    assert_eq!(proxy.configure(vec![listener], vec![to_endpoint, to_mirror]).await, []);
    Between { proxy, endpoint, mirror }
}

/// Reads on until `end` has come.
async fn up_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "ended before {end}");
    }
    String::from_utf8(text).unwrap()
}

/// A mirror's side of a copy that has begun.
enum Copy {
    Http1(TcpStream),
    Http2(Raw),
}

impl Copy {
    /// Takes the head and the beginning of the body.
    async fn begun(listener: &TcpListener, protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http2 => {
                let mut raw = Raw::accept(listener).await;
                raw.say(&frame(SETTINGS, 0, 0, &[])).await;
                assert_eq!(raw.hear_of(DATA).await.expect("the beginning").1, b"ab");
                Self::Http2(raw)
            }
            _ => {
                let mut stream = listener.accept().await.unwrap().0;
                let head = up_to(&mut stream, "\r\n\r\nab").await;
                assert!(head.contains("host: a-shadow\r\n"), "{head}");
                assert!(head.contains("content-length: 4\r\n"), "{head}");
                Self::Http1(stream)
            }
        }
    }

    /// Nothing more comes, and what has come is not taken for all.
    async fn is_broken_off(&mut self) {
        match self {
            Self::Http1(stream) => assert_eq!(to_the_end(stream).await, ""),
            Self::Http2(raw) => assert!(raw.hear_of(RST_STREAM).await.is_some()),
        }
    }

    async fn is_whole(&mut self) {
        match self {
            Self::Http1(stream) => assert_eq!(up_to(stream, "cd").await, "cd"),
            Self::Http2(raw) => {
                assert_eq!(raw.hear_of(DATA).await.expect("the rest").1, b"cd");
            }
        }
    }
}

/// What becomes of a request half of which has arrived.
#[derive(Clone, Copy, Debug)]
enum Then {
    Answered,
    Broken,
    Whole,
}

#[tokio::test]
async fn a_mirror_gets_what_has_arrived_and_ends_as_its_request_does() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        for then in [Then::Answered, Then::Broken, Then::Whole] {
            let what = format!("{then:?}, mirrored over {protocol:?}");
            let Between { proxy, endpoint, mirror } = between(protocol).await;
            let mut client = TcpStream::connect(proxy.address).await.unwrap();
            let half = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab";
            client.write_all(half).await.unwrap();
            let mut upstream = endpoint.accept().await.unwrap().0;
            up_to(&mut upstream, "\r\n\r\nab").await;
            // Nobody waits for the end of the request.
            let mut copy = Copy::begun(&mirror, protocol).await;
            match then {
                Then::Answered => {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    upstream.write_all(answer).await.unwrap();
                    assert!(up_to(&mut client, "ok").await.starts_with("HTTP/1.1 200 "), "{what}");
                    copy.is_broken_off().await;
                    assert!(!is_ejected(&proxy, "b"), "{what}: no fault of the mirror");
                }
                Then::Broken => {
                    drop(client);
                    copy.is_broken_off().await;
                    assert!(!is_ejected(&proxy, "b"), "{what}: no fault of the mirror");
                }
                Then::Whole => {
                    client.write_all(b"cd").await.unwrap();
                    copy.is_whole().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_mirror_gets_trailers_where_there_are_any() {
    let Between { proxy, endpoint, mirror } = between(UpstreamProtocol::Http2).await;
    let mut client = Raw::connect(proxy.address).await;
    let head = [POST, &field("te", "trailers")].concat();
    client
        .say(
            &[
                frame(HEADERS, END_HEADERS, 1, &head),
                frame(DATA, 0, 1, b"ab"),
                frame(HEADERS, END_STREAM | END_HEADERS, 1, &field("x-trailer", "1")),
            ]
            .concat(),
        )
        .await;
    let mut upstream = Raw::accept(&endpoint).await;
    upstream.say(&frame(SETTINGS, 0, 0, &[])).await;
    let mut copy = Raw::accept(&mirror).await;
    copy.say(&frame(SETTINGS, 0, 0, &[])).await;
    for side in [&mut upstream, &mut copy] {
        assert_eq!(side.hear_of(DATA).await.expect("the body").1, b"ab");
        assert!(side.hear_of(HEADERS).await.is_some(), "trailers");
    }
}

/// How often an endpoint that refuses everything is asked with a body of 2000 bytes, where one
/// other attempt is allowed.
async fn attempts(buffer: BufferLimit, own: Option<BodyLimit>) -> usize {
    let failing = Server::start(|request, _| async move {
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), 2000);
        Response::builder().status(503).body(Full::default()).unwrap()
    })
    .await;
    let mut proxy = Proxy::start(None);
    let mut host = to("a", |action| action.retry = Some(super::http::retry("5xx", 1)));
    host.body_limit = own;
    let mut listener = proxy.listener(http_chain(with_routes(vec![host])));
    listener.buffer = buffer;
    let cluster = proxy.cluster("a", &[failing.address]);
    proxy.configure(vec![listener], vec![cluster]).await;
    let request = Request::post(proxy.url("/")).body(Full::from(vec![b'x'; 2000])).unwrap();
    assert_eq!(send(&client(), request).await.status, 503);
    failing.hits()
}

#[tokio::test]
async fn the_listener_or_the_route_says_how_much_is_kept_for_another_attempt() {
    let of = |bytes| BufferLimit::new(NonZeroU32::new(bytes));
    for (buffer, own, expected) in [
        (BufferLimit::default(), None, 2),
        (of(2000), None, 2),
        (of(1999), None, 1),
        (of(1999), Some(BodyLimit::Own(2000)), 2),
        (of(1999), Some(BodyLimit::Older(2000)), 2),
        (BufferLimit::default(), Some(BodyLimit::Older(1999)), 1),
    ] {
        assert_eq!(attempts(buffer, own).await, expected, "{buffer:?} {own:?}");
    }
}

/// What a connection's window is opened to, and its streams', as it tells first.
async fn windows(raw: &mut Raw) -> (u32, u32) {
    let (_, settings) = raw.hear_of(SETTINGS).await.expect("settings");
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2).
    let of_streams = settings.chunks(6).find_map(|setting| setting.strip_prefix(&[0, 4]));
    let (stream, more) = raw.hear_of(WINDOW_UPDATE).await.expect("a wider window");
    assert_eq!(stream, 0);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    (65_535 + number(&more), number(of_streams.expect("a window of streams")))
}

#[tokio::test]
async fn a_stream_holds_what_is_said_and_its_neighbours_are_not_held_up() {
    const CONNECTION: u32 = 4 * 1024 * 1024;
    for (bytes, window) in [(None, 1024 * 1024_u32), (NonZeroU32::new(100_000), 100_000)] {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut proxy = Proxy::start(None);
        let mut listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
        listener.buffer = BufferLimit::new(bytes);
        let mut cluster = proxy.cluster("a", &[server.local_addr().unwrap()]);
        cluster.connection.buffer = BufferLimit::new(bytes);
        cluster.connection.protocol = UpstreamProtocol::Http2;
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut client = Raw::connect(proxy.address).await;
        assert_eq!(windows(&mut client).await, (CONNECTION, window), "{bytes:?}");
        client.say(&frame(HEADERS, END_STREAM | END_HEADERS, 1, POST)).await;
        let mut upstream = Raw::greeted(&server).await;
        assert_eq!(windows(&mut upstream).await, (CONNECTION, window), "{bytes:?}");
    }
}

/// A proxy with a mirror, whose cluster has these endpoints.
async fn mirrored(endpoints: &[std::net::SocketAddr], mirror: &TcpListener) -> Proxy {
    let action = Mirror { cluster: "b".into(), share: Share::ALL, keep_host: false };
    let hosts = vec![to("a", |forward| forward.mirrors = vec![action])];
    let mirror = mirror.local_addr().unwrap();
    Proxy::http(hosts, &[("a", endpoints), ("b", &[mirror])]).await
}

#[tokio::test]
async fn a_mirror_gets_what_has_arrived_for_an_endpoint_that_is_not_there() {
    let (dead, mirror) = (dead_address(), TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let proxy = mirrored(&[dead.address], &mirror).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let whole = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nabcd";
    client.write_all(whole).await.unwrap();
    let mut copy = mirror.accept().await.unwrap().0;
    let head = up_to(&mut copy, "\r\n\r\nabcd").await;
    assert!(head.contains("content-length: 4\r\n"), "{head}");
    assert!(to_the_end(&mut client).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn nothing_is_mirrored_that_has_no_endpoint() {
    let mirror = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = mirrored(&[], &mirror).await;
    assert_eq!(super::peer::get(&client(), proxy.url("/")).await.status, 503);
    // The copy would be on its way before the answer.
    let mut control = TcpStream::connect(mirror.local_addr().unwrap()).await.unwrap();
    control.write_all(b"control").await.unwrap();
    let (mut first, _) = mirror.accept().await.unwrap();
    assert_eq!(up_to(&mut first, "control").await, "control");
}
