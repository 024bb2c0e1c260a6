//! What a connection starts with: a TLS ClientHello (server name, ALPN list) or an HTTP request.
//!
//! Pure functions over the bytes received so far, each answering "not yet" until it can tell; the accept loop reads and
//! asks again. Nothing is consumed: the bytes are replayed to whatever serves the connection. Knows no socket.

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
/// Longest start of an HTTP/1 request line in which the protocol version is searched.
pub const MAX_REQUEST_LINE: usize = 8 * 1024;

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
            Sniffed::NotYet => return if bytes.len() > MAX_CLIENT_HELLO { Sniffed::Other } else { Sniffed::NotYet },
        }
        match handshake_message(&handshake) {
            Sniffed::Found(hello) => return parse_client_hello(hello).map_or(Sniffed::Other, Sniffed::Found),
            Sniffed::Other => return Sniffed::Other,
            Sniffed::NotYet => {}
        }
    }
}

/// The first record's payload and what follows it. Answers `Other` as early as the bytes allow, so that plaintext is
/// not held up for a record that never completes.
fn record(bytes: &[u8]) -> Sniffed<(&[u8], &[u8])> {
    let plausible =
        bytes.first().is_none_or(|b| *b == HANDSHAKE_RECORD) && bytes.get(1).is_none_or(|major| *major == 3);
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

/// Looks for an HTTP request and names its version as Envoy's HTTP inspector does: `http/1.0`, `http/1.1` or `h2c`.
pub fn sniff_http(bytes: &[u8]) -> Sniffed<&'static str> {
    let compared = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..compared] == HTTP2_PREFACE[..compared] {
        return if compared == HTTP2_PREFACE.len() { Sniffed::Found("h2c") } else { Sniffed::NotYet };
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        let plausible = bytes.iter().all(|b| (0x20..0x7f).contains(b) || *b == b'\r') && method_fits(bytes);
        return if plausible && bytes.len() < MAX_REQUEST_LINE { Sniffed::NotYet } else { Sniffed::Other };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    request_version(line).map_or(Sniffed::Other, Sniffed::Found)
}

/// Whether the bytes may be (the start of) `METHOD SP target`.
fn method_fits(bytes: &[u8]) -> bool {
    let method = bytes.split(|b| *b == b' ').next().unwrap_or_default();
    method.len() <= 32 && method.iter().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'))
}

fn request_version(line: &[u8]) -> Option<&'static str> {
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let shaped = !method.is_empty() && !target.is_empty() && method_fits(method) && parts.next().is_none();
    match version {
        _ if !shaped => None,
        b"HTTP/1.1" => Some("http/1.1"),
        b"HTTP/1.0" => Some("http/1.0"),
        _ => None,
    }
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
        let Sniffed::Found(hello) = sniff_client_hello(&client_hello("127.0.0.1", &[])) else { panic!("not found") };
        assert_eq!(hello, ClientHello::default());
    }

    #[test]
    fn plaintext_is_told_at_the_first_wrong_byte() {
        for bytes in [&b"G"[..], b"SSH-2.0", &[22, 2], &[22, 3, 1, 0, 0], &[23, 3, 3, 0, 5], &[22, 3, 1, 0, 9, 2]] {
            assert_eq!(sniff_client_hello(bytes), Sniffed::Other, "{bytes:?}");
        }
    }

    #[test]
    fn http_requests_are_told_by_their_first_line() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: a", Sniffed::Found("http/1.1")),
            ("GET / HTTP/1.0\r\n", Sniffed::Found("http/1.0")),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Found("h2c")),
            ("PRI * HTTP/2.0\r\n", Sniffed::NotYet),
            ("PRI", Sniffed::NotYet),
            ("M-SEARCH * HTTP/1.1\r\n", Sniffed::Found("http/1.1")),
            ("GET /long", Sniffed::NotYet),
            ("G", Sniffed::NotYet),
            ("", Sniffed::NotYet),
            ("SSH-2.0-OpenSSH_9\r\n", Sniffed::Other),
            ("SSH-2.0", Sniffed::Other),
            ("FOO / HTTP/3\r\n", Sniffed::Other),
            ("*2\r\n$4\r\n", Sniffed::Other),
            ("get / HTTP/1.1\r\n", Sniffed::Other),
            ("\u{1}\u{2}", Sniffed::Other),
        ] {
            assert_eq!(sniff_http(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (sniff_client_hello(&bytes), sniff_http(&bytes));
        }

        #[test]
        fn damaged_client_hellos_never_panic(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = client_hello("reviews.default", &["istio", "h2"]);
            if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
            let _ = sniff_client_hello(&bytes);
        }
    }
}
