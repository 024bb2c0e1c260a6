//! What a connection starts with: a TLS ClientHello (server name, ALPN list) or an HTTP request.
//!
//! Pure functions over the bytes received so far, each answering "not yet" until it can tell; the
//! accept loop reads and asks again. Nothing is consumed: the bytes are replayed to whatever serves
//! the connection. Knows no socket.

use std::sync::Arc;

/// How far an inspector has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sniffed<T> {
    /// It is what the inspector looks for.
    Found(T),
    /// It certainly is not.
    Other,
    /// More bytes are needed.
    NotYet,
}

/// What the TLS inspector reads from a ClientHello.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientHello {
    /// The first DNS name of the server_name extension, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The ALPN protocols in the client's order; may be empty.
    pub alpn: Vec<Arc<str>>,
}

/// Longest ClientHello that is looked at (Envoy's limit: one TLS record).
pub const MAX_CLIENT_HELLO: usize = 16 * 1024;
/// Most bytes that are read to tell what a connection carries, as in Envoy's HTTP inspector. Above
/// every limit for request headers that the codec is given by default (60 KiB), so that what is too
/// long for it is still told to be HTTP.
pub const MAX_INSPECTED: usize = 64 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks for a TLS ClientHello (RFC 8446 section 4.1.2), which may be spread over several records.
pub fn sniff_client_hello(bytes: &[u8]) -> Sniffed<ClientHello> {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        match record(rest) {
            Sniffed::Found((fragment, after)) => {
                handshake.extend_from_slice(fragment);
                rest = after;
            }
            Sniffed::Other => return Sniffed::Other,
            Sniffed::NotYet => {
                return if bytes.len() > MAX_CLIENT_HELLO {
                    Sniffed::Other
                } else {
                    Sniffed::NotYet
                };
            }
        }
        match handshake_message(&handshake) {
            Sniffed::Found(hello) => {
                return parse_client_hello(hello).map_or(Sniffed::Other, Sniffed::Found);
            }
            Sniffed::Other => return Sniffed::Other,
            Sniffed::NotYet => {}
        }
    }
}

/// The first record's payload and what follows it. Answers `Other` as early as the bytes allow, so
/// that plaintext is not held up for a record that never completes.
fn record(bytes: &[u8]) -> Sniffed<(&[u8], &[u8])> {
    let plausible = bytes.first().is_none_or(|b| *b == HANDSHAKE_RECORD)
        && bytes.get(1).is_none_or(|major| *major == 3);
    if !plausible {
        return Sniffed::Other;
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<5>() else { return Sniffed::NotYet };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > MAX_CLIENT_HELLO {
        return Sniffed::Other;
    }
    match bytes[5..].split_at_checked(length) {
        Some((fragment, after)) => Sniffed::Found((fragment, after)),
        None if bytes.get(5).is_some_and(|kind| *kind != CLIENT_HELLO) => Sniffed::Other,
        None => Sniffed::NotYet,
    }
}

fn handshake_message(bytes: &[u8]) -> Sniffed<&[u8]> {
    let Some(&[kind, a, b, c]) = bytes.first_chunk::<4>() else { return Sniffed::NotYet };
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    if kind != CLIENT_HELLO || length > MAX_CLIENT_HELLO {
        return Sniffed::Other;
    }
    bytes.get(4..4 + length).map_or(Sniffed::NotYet, Sniffed::Found)
}

fn parse_client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    let session = reader.u8()?;
    reader.take(session.into())?;
    let ciphers = reader.u16()?;
    reader.take(ciphers.into())?;
    let compression = reader.u8()?;
    reader.take(compression.into())?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.vector16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = parse_server_name(content)?,
            EXTENSION_ALPN => hello.alpn = parse_alpn(content)?,
            _ => {}
        }
    }
    Some(hello)
}

fn parse_server_name(mut content: Reader<'_>) -> Option<Option<Arc<str>>> {
    let mut names = content.vector16()?;
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?.0;
        if kind == 0 {
            return Some(Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into()));
        }
    }
    Some(None)
}

fn parse_alpn(mut content: Reader<'_>) -> Option<Vec<Arc<str>>> {
    let mut names = content.vector16()?;
    let mut protocols = Vec::new();
    while !names.0.is_empty() {
        let length = names.u8()?;
        protocols.push(String::from_utf8_lossy(names.take(length.into())?).into());
    }
    Some(protocols)
}

/// Reads big-endian, length-prefixed fields; `None` as soon as a field is cut off.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector16(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(length.into()).map(Reader)
    }
}

/// Looks for an HTTP request and names its version as Envoy's HTTP inspector does: `http/1.0`,
/// `http/1.1` or `h2c`.
///
/// At least everything that the codec would take is found, also with empty lines before it (RFC
/// 9112 section 2.2), and whatever Envoy's inspector finds; so also what only means to be a
/// request, such as one of HTTP/7: the codec refuses it, which is better than to pass it on unseen.
/// Never answers `Other` to the beginning of what it would find.
#[derive(Default, Debug)]
pub struct HttpSniffer {
    /// Where the request line begins, after empty lines.
    start: usize,
    /// What was looked at and need not be again.
    seen: usize,
    method: Progress,
}

/// How far the first word of the request line has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Progress {
    #[default]
    Before,
    Inside,
    Behind,
}

impl HttpSniffer {
    /// Tells from all `bytes` received so far; they begin with those of the call before.
    pub fn sniff(&mut self, bytes: &[u8]) -> Sniffed<&'static str> {
        let compared = bytes.len().min(HTTP2_PREFACE.len());
        if bytes[..compared] == HTTP2_PREFACE[..compared] {
            return if compared == HTTP2_PREFACE.len() {
                Sniffed::Found("h2c")
            } else {
                Sniffed::NotYet
            };
        }
        while self.start == self.seen && matches!(bytes.get(self.seen), Some(b'\r' | b'\n')) {
            self.start += 1;
            self.seen += 1;
        }
        let fresh = &bytes[self.seen..];
        if let Some(end) = memchr::memchr(b'\n', fresh) {
            return request_version(&bytes[self.start..self.seen + end])
                .map_or(Sniffed::Other, Sniffed::Found);
        }
        self.seen = bytes.len();
        if self.may_be_method(fresh) { Sniffed::NotYet } else { Sniffed::Other }
    }

    fn may_be_method(&mut self, fresh: &[u8]) -> bool {
        for byte in fresh {
            self.method = match (self.method, is_space(*byte)) {
                (Progress::Behind, _) => return true,
                (Progress::Before, true) => Progress::Before,
                (Progress::Inside, true) => Progress::Behind,
                (_, false) if is_token(&[*byte]) => Progress::Inside,
                (_, false) => return false,
            };
        }
        true
    }
}

/// The same when nothing more will come: what is there counts as a whole line.
pub fn sniff_ended_http(bytes: &[u8]) -> Option<&'static str> {
    let line = bytes.split(|b| *b == b'\n').find(|line| words(line).next().is_some())?;
    request_version(line)
}

/// What a request line may be cut into where whitespace is taken leniently (RFC 9112 section 3).
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| is_space(*b)).filter(|word| !word.is_empty())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// RFC 9110 section 5.6.2.
fn is_token(word: &[u8]) -> bool {
    word.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn request_version(line: &[u8]) -> Option<&'static str> {
    let mut words = words(line);
    words.next().filter(|method| is_token(method))?;
    let target = words.next()?;
    let mut behind = words.peekable();
    if behind.peek().is_none() {
        // A request of HTTP/0.9 has no version; Envoy counts it as 1.0.
        let is_target =
            target[0] == b'/' || target == b"*" || target.windows(3).any(|part| part == b"://");
        return is_target.then_some("http/1.0");
    }
    let version = behind
        .find(|word| word.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/")))?;
    Some(if version == b"HTTP/1.1" { "http/1.1" } else { "http/1.0" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn client_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let server = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), server).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_client_hello_yields_name_and_alpn_in_order() {
        let bytes = client_hello("Reviews.default", &["istio-h2", "istio", "h2"]);
        let expected = ClientHello {
            server_name: Some("reviews.default".into()),
            alpn: vec!["istio-h2".into(), "istio".into(), "h2".into()],
        };
        assert_eq!(sniff_client_hello(&bytes), Sniffed::Found(expected));
        for cut in 0..bytes.len() {
            assert_eq!(sniff_client_hello(&bytes[..cut]), Sniffed::NotYet, "cut at {cut}");
        }
    }

    #[test]
    fn a_client_hello_may_span_records() {
        let bytes = client_hello("a.b", &["h2"]);
        let (head, tail) = bytes[5..].split_at(40);
        let mut split = Vec::new();
        for part in [head, tail] {
            split.extend_from_slice(&[22, 3, 1]);
            split.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            split.extend_from_slice(part);
        }
        assert_eq!(sniff_client_hello(&split), sniff_client_hello(&bytes));
    }

    #[test]
    fn an_address_as_name_is_no_server_name() {
        let Sniffed::Found(hello) = sniff_client_hello(&client_hello("127.0.0.1", &[])) else {
            panic!("not found")
        };
        assert_eq!(hello, ClientHello::default());
    }

    #[test]
    fn plaintext_is_told_at_the_first_wrong_byte() {
        for bytes in [
            &b"G"[..],
            b"SSH-2.0",
            &[22, 2],
            &[22, 3, 1, 0, 0],
            &[23, 3, 3, 0, 5],
            &[22, 3, 1, 0, 9, 2],
        ] {
            assert_eq!(sniff_client_hello(bytes), Sniffed::Other, "{bytes:?}");
        }
    }

    fn sniff_http(bytes: &[u8]) -> Sniffed<&'static str> {
        HttpSniffer::default().sniff(bytes)
    }

    /// The inspector of Envoy 1.40 on the same bytes: HTTP, or passed on; and what was asked of it
    /// beyond that.
    #[derive(PartialEq)]
    enum Envoy {
        Http,
        Passes,
    }

    #[test]
    fn http_requests_are_told_by_their_first_line() {
        use Envoy::{Http, Passes};
        let (http_11, http_10) = (Some("http/1.1"), Some("http/1.0"));
        for (line, envoy, expected) in [
            ("GET / HTTP/1.1", Http, http_11),
            ("get / HTTP/1.1", Http, http_11),
            ("X.Y / HTTP/1.1", Http, http_11),
            ("M-SEARCH * HTTP/1.1", Http, http_11),
            ("XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX / HTTP/1.1", Http, http_11),
            ("G!#$%&'*+-.^_`|~T / HTTP/1.1", Http, http_11),
            ("GET / HTTP/1.0", Http, http_10),
            ("GET / HTTP/1.2", Http, http_10),
            ("GET / HTTP/2.0", Http, http_10),
            ("PRI * HTTP/1.1", Http, http_11),
            ("GET  /  HTTP/1.1 ", Http, http_11),
            ("GET\t/\tHTTP/1.1", Http, http_11),
            ("GET\x0b/ HTTP/1.1", Http, http_11),
            ("GET http://a/ HTTP/1.1", Http, http_11),
            ("CONNECT a:80 HTTP/1.1", Http, http_11),
            ("GET /\0 HTTP/1.1", Http, http_11),
            ("GET /", Http, http_10),
            ("get /foo", Http, http_10),
            ("GET http://a/", Http, http_10),
            ("KEYS *", Http, http_10),
            // The codec takes these.
            ("\r\nGET / HTTP/1.1", Passes, http_11),
            ("\nGET / HTTP/1.1", Passes, http_11),
            ("GET a HTTP/1.1", Passes, http_11),
            ("GET /\u{e9} HTTP/1.1", Passes, http_11),
            // A lenient server may take these, the codec refuses them.
            ("GET / HTTP/X.Y", Passes, http_10),
            ("GET / HTTP/3", Passes, http_10),
            ("GET / http/1.1", Passes, http_10),
            ("GET / HTTP/1.10", Passes, http_10),
            ("GET /a b HTTP/1.1", Passes, http_11),
            ("GET / HTTP/1.1 x", Passes, http_11),
            (" GET / HTTP/1.1", Passes, http_11),
            ("GET /a\rb HTTP/1.1", Passes, http_11),
            ("SSH-2.0-OpenSSH_9", Passes, None),
            ("*2\r\n$4\r\nECHO\r\n$1\r\na", Passes, None),
            ("EHLO a", Passes, None),
            ("MAIL FROM:<a> SIZE=5", Passes, None),
            ("OPTIONS rtsp://a/b RTSP/1.0", Passes, None),
            ("CONNECT {\"verbose\":false}", Passes, None),
            ("PROXY TCP4 10.0.0.1 10.0.0.2 1 2", Passes, None),
            ("GET / FOO/1.1", Passes, None),
            ("G@T / HTTP/1.1", Passes, None),
            ("HTTP/1.1 200 OK", Passes, None),
            ("PING", Passes, None),
            ("{\"a\": 1}", Passes, None),
            ("\u{1}\u{2}", Passes, None),
        ] {
            let whole = format!("{line}\r\n");
            assert_eq!(
                sniff_http(whole.as_bytes()),
                expected.map_or(Sniffed::Other, Sniffed::Found),
                "{line:?}"
            );
            assert_eq!(sniff_ended_http(line.as_bytes()), expected, "{line:?}");
            assert!(envoy == Passes || expected.is_some(), "{line:?} is HTTP for Envoy");
        }
    }

    #[test]
    fn a_beginning_is_told_as_soon_as_it_can_be() {
        for (bytes, expected) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Found("h2c")),
            ("PRI * HTTP/2.0\r\n", Sniffed::NotYet),
            ("PRI * HTTP/2.0\r\n\r\nXX", Sniffed::Found("http/1.0")),
            ("", Sniffed::NotYet),
            ("G", Sniffed::NotYet),
            ("\r\n\r\n", Sniffed::NotYet),
            ("\r\n\r\nget /", Sniffed::NotYet),
            ("SSH-2.0", Sniffed::NotYet),
            ("G@T", Sniffed::Other),
            ("G\0", Sniffed::Other),
            ("{\"a\"", Sniffed::Other),
            ("\u{1}", Sniffed::Other),
        ] {
            assert_eq!(sniff_http(bytes.as_bytes()), expected, "{bytes:?}");
        }
        assert_eq!((sniff_ended_http(b""), sniff_ended_http(b"\r\n")), (None, None));
    }

    #[test]
    fn the_line_may_be_as_long_as_the_inspector_reads() {
        for length in [100, 9_000, 60_000] {
            let line = format!("GET /?q={} HTTP/1.1\r\n", "b".repeat(length));
            assert_eq!(sniff_http(line.as_bytes()), Sniffed::Found("http/1.1"), "{length}");
            assert_eq!(sniff_http(&line.as_bytes()[..length]), Sniffed::NotYet, "{length}");
        }
    }

    /// Whether the codec of `http::serve` takes the bytes as a request.
    fn codec_takes(bytes: &[u8]) -> bool {
        let taken = std::rc::Rc::new(std::cell::Cell::new(false));
        let noted = std::rc::Rc::clone(&taken);
        let service = hyper::service::service_fn(move |_| {
            noted.set(true);
            async { Ok::<_, std::convert::Infallible>(http::Response::new(String::new())) }
        });
        let (client, server) = tokio::io::duplex(64 * 1024);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let (_unread, mut sending) = tokio::io::split(client);
            tokio::io::AsyncWriteExt::write_all(&mut sending, bytes).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut sending).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(server);
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(128 * 1024)
                .serve_connection(io, service)
                .await;
        });
        taken.get()
    }

    /// Heads of requests, and what becomes of them by a slip or on purpose.
    fn head() -> impl Strategy<Value = Vec<u8>> {
        let before =
            proptest::sample::select(vec!["", "", "\r\n", "\n", "\r\n\r\n", "\r", " ", "\n\r\n"]);
        let method = prop_oneof!["[A-Z]{1,50}", "[a-z]{1,9}", "[!-~]{1,5}", Just("X.Y".to_owned())];
        let space = proptest::sample::select(vec![" ", " ", " ", "  ", "\t"]);
        let target = prop_oneof![
            "/[!-~]{0,40}",
            "[!-~]{1,20}",
            "http://[a-z.:@]{1,9}/?",
            Just("*".to_owned()),
            "/\\PC{0,9}",
            (8_000usize..40_000).prop_map(|length| format!("/{}", "a".repeat(length))),
        ];
        let version = prop_oneof![
            3 => Just("HTTP/1.1".to_owned()), 1 => Just("HTTP/1.0".to_owned()), 1 => "HTTP/[0-9X.]{1,4}", 1 => "[ -~]{0,9}",
        ];
        let end = proptest::sample::select(vec!["\r\n", "\r\n", "\n"]);
        let slip = proptest::option::weighted(0.3, (any::<proptest::sample::Index>(), any::<u8>()));
        (before, method, space.clone(), target, space, version, end, slip).prop_map(
            |(before, method, first, target, second, version, end, slip)| {
                let head = format!(
                    "{before}{method}{first}{target}{second}{version}{end}host: a{end}{end}"
                );
                let mut bytes = head.into_bytes();
                if let Some((at, byte)) = slip {
                    let at = at.index(bytes.len().min(80));
                    bytes[at] = byte;
                }
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (sniff_client_hello(&bytes), sniff_http(&bytes), sniff_ended_http(&bytes));
        }

        /// Otherwise it would leave the mesh: past its routes, policies and mutual TLS.
        #[test]
        fn what_the_codec_takes_is_never_told_to_be_something_else(bytes in head()) {
            if codec_takes(&bytes) {
                prop_assert!(matches!(sniff_http(&bytes), Sniffed::Found(_)), "{:?}", String::from_utf8_lossy(&bytes));
                let mut sniffer = HttpSniffer::default();
                let told = (0..=bytes.len()).map(|cut| sniffer.sniff(&bytes[..cut])).find(|told| *told != Sniffed::NotYet);
                prop_assert_eq!(told, Some(sniff_http(&bytes)), "byte by byte");
            }
        }

        #[test]
        fn damaged_client_hellos_never_panic(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = client_hello("reviews.default", &["istio", "h2"]);
            if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
            let _ = sniff_client_hello(&bytes);
        }
    }
}
