//! What an HTTP/2 endpoint sends that is no response, and that the codec would drop unseen: the
//! endpoint is blamed, as Envoy 1.40 does it, and its connection ends.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::net::{TcpListener, TcpStream};

use super::{
    blame::{check_upstream, is_ejected, outcome, proxy_to},
    floods::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, field, frame,
    },
    peer::{client, http2_client},
};
use crate::runtime::cluster::UpstreamProtocol;

const CONTINUATION: u8 = 9;
/// `:status: 200` (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];
/// RFC 9113, section 7.
const PROTOCOL_ERROR: u8 = 1;

/// A head of the answer to the first request.
fn head(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, block)
}

fn trailers(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
}

fn data(text: &str, flags: u8) -> Vec<u8> {
    frame(DATA, flags, 1, text.as_bytes())
}

/// Answers the first request of each of two connections with these frames, checks what comes of
/// it, and that the connection ends with PROTOCOL_ERROR if the frames are malformed.
async fn check(frames: &[Vec<u8>], code: u16, flags: &str) {
    let what = format!("{frames:x?}");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = [&frame(SETTINGS, 0, 0, &[]), &frames.concat()[..]].concat();
    let answering = tokio::spawn(async move {
        let mut farewells = Vec::new();
        for _ in 0..2 {
            let mut raw = Raw::accept(&listener).await;
            raw.say(&answer).await;
            farewells.push(raw.farewell().await);
        }
        farewells
    });
    check_upstream(address, UpstreamProtocol::Http2, code, flags, &what).await;
    let malformed = (flags != "-").then_some(PROTOCOL_ERROR);
    let farewells = answering.await.unwrap();
    let are_right = |expected: u8| farewells.iter().all(|code| *code == Some(expected));
    assert!(malformed.is_none_or(are_right), "{what}: {farewells:?}");
}

#[tokio::test]
async fn what_an_http2_endpoint_sends_that_is_no_response_is_its_fault() {
    let of_dictionary = |status: &str| [&[0x08, 3][..], status.as_bytes()].concat();
    let answer = || [head(OK), data("ok", END_STREAM)].concat();
    let cut = |block: &[u8]| {
        let long = [block, &field("x-long", &"y".repeat(100))].concat();
        let (first, rest) = long.split_at(long.len() - 50);
        [frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat()
    };
    for (frames, code, flags) in [
        // RFC 9113, section 8.6.
        (vec![head(&field(":status", "101")), answer()], 502, "UPE"),
        (vec![head(&of_dictionary("101")), answer()], 502, "UPE"),
        (vec![head(&[0x08, 0x82, 0x08, 0x03]), answer()], 502, "UPE"),
        (vec![head(&of_dictionary("103")), head(&of_dictionary("101")), answer()], 502, "UPE"),
        (vec![trailers(&of_dictionary("101"))], 502, "UPE"),
        // Section 8.3.2: those of a request.
        (vec![head(&[OK, &[0x84]].concat()), data("ok", END_STREAM)], 502, "UPE"),
        (vec![head(&[OK, &field(":protocol", "x")].concat()), data("ok", END_STREAM)], 502, "UPE"),
        // Section 8.2.2, in a head that is cut.
        (vec![cut(&[OK, &field("connection", "close")].concat()), data("ok", 1)], 502, "UPE"),
        // Nothing is wrong with these.
        (vec![answer()], 200, "-"),
        (vec![head(&of_dictionary("103")), answer()], 200, "-"),
        (vec![head(&field(":status", "103")), head(&[0x08, 0x82, 0x08, 0x19]), answer()], 200, "-"),
        (vec![cut(OK), data("ok", END_STREAM)], 200, "-"),
        (vec![head(OK), data("ok", 0), trailers(&field("x", ":status"))], 200, "-"),
    ] {
        check(&frames, code, flags).await;
    }
}

#[tokio::test]
async fn trailers_that_are_none_reset_the_stream_behind_its_head() {
    for block in [OK.to_vec(), field(":status", "200"), field(":unknown", "x"), vec![0x84]] {
        let what = format!("{block:x?}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = proxy_to(listener.local_addr().unwrap(), UpstreamProtocol::Http2, false).await;
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://a/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let mut endpoint = Raw::accept(&listener).await;
        endpoint.say(&[frame(SETTINGS, 0, 0, &[]), head(OK), data("o", 0)].concat()).await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "{what}");
        let mut body = answer.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"o"), "{what}");
        endpoint.say(&trailers(&block)).await;
        let broken = body.data().await.expect("an end").unwrap_err();
        assert!(broken.is_reset(), "{what}: {broken}");
        let farewell = endpoint.hear_of(GOAWAY).await.expect("a word on why").1;
        assert_eq!(farewell[7], PROTOCOL_ERROR, "{what}");
        assert_eq!(outcome(&proxy, &what).await, (200, "UPE".to_owned()), "{what}");
        assert!(is_ejected(&proxy, "a"), "{what}");
        connection.abort();
    }
}

#[tokio::test]
async fn what_came_before_a_broken_frame_is_passed_on() {
    for of_client in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = proxy_to(listener.local_addr().unwrap(), UpstreamProtocol::Http2, false).await;
        let ask = |path: &'static str| {
            let url = proxy.url(path);
            let client = match of_client {
                UpstreamProtocol::Http2 => http2_client(),
                _ => client(),
            };
            async move {
                let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
                let answer = client.request(request).await.expect("a head");
                let mut body = answer.into_body();
                let mut text = Vec::new();
                let broken = loop {
                    match body.frame().await {
                        Some(Ok(frame)) => text.extend(frame.into_data().unwrap_or_default()),
                        end => break end.is_some(),
                    }
                };
                (String::from_utf8(text).unwrap(), broken)
            }
        };
        let asking = tokio::spawn(ask("/first"));
        let mut endpoint = Raw::accept(&listener).await;
        endpoint.say(&frame(SETTINGS, 0, 0, &[])).await;
        let also_asking = tokio::spawn(ask("/second"));
        endpoint.hear_of(HEADERS).await.expect("the second request");
        let whole = [frame(HEADERS, END_HEADERS, 3, OK), frame(DATA, END_STREAM, 3, b"whole")];
        let broken = [head(OK), data("part", 0), trailers(OK)];
        endpoint.say(&[whole.concat(), broken.concat()].concat()).await;
        assert_eq!(also_asking.await.unwrap(), ("whole".to_owned(), false), "{of_client:?}");
        assert_eq!(asking.await.unwrap(), ("part".to_owned(), true), "{of_client:?}");
    }
}

#[tokio::test]
async fn what_came_before_the_end_of_a_connection_or_a_stream_is_passed_on() {
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]);
    for (last, flags) in [(vec![], "UC"), (reset, "UR")] {
        for is_http2 in [false, true] {
            let what = format!("{flags}, HTTP/2: {is_http2}");
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let proxy = proxy_to(address, UpstreamProtocol::Http2, false).await;
            let client = if is_http2 { http2_client() } else { client() };
            let request = Request::get(proxy.url("/")).body(Full::<Bytes>::default()).unwrap();
            let asking = tokio::spawn(async move { client.request(request).await });
            let mut endpoint = Raw::accept(&listener).await;
            let burst = [frame(SETTINGS, 0, 0, &[]), head(OK), data("ok", 0), last.clone()];
            endpoint.say(&burst.concat()).await;
            drop(endpoint);
            let answer = asking.await.unwrap().expect("a head");
            assert_eq!(answer.status(), 200, "{what}");
            let mut body = answer.into_body();
            let first = body.frame().await.expect("a piece").expect(&what);
            assert_eq!(first.into_data().unwrap(), "ok", "{what}");
            assert!(body.frame().await.expect("an end").is_err(), "{what}");
            assert_eq!(outcome(&proxy, &what).await.0, 200, "{what}");
        }
    }
}
