//! What the matchers are told about a connection or a request; everything is borrowed, nothing is
//! computed here.
//!
//! Knows no socket and no codec: `listen`, `tls` and `http` fill these in, the matchers of this
//! folder read them.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{metadata::Metadata, proxy_header::Ends};

/// What a downstream connection starts with, as the listener filters found it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TransportProtocol {
    /// No ClientHello was seen: Envoy's `raw_buffer`.
    #[default]
    RawBuffer,
    /// A TLS ClientHello was seen.
    Tls,
}

/// The certificate that a peer has proven to hold, reduced to what policies and headers read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerCertificate {
    /// URI SANs in certificate order; a SPIFFE certificate has exactly one.
    pub uri_sans: Vec<Arc<str>>,
    /// DNS SANs in certificate order.
    pub dns_sans: Vec<Arc<str>>,
    /// The subject in RFC 2253 form; empty for SPIFFE certificates.
    pub subject: Arc<str>,
    /// Lower-case hexadecimal SHA-256 of the certificate: XFCC's `Hash`.
    pub sha256: Arc<str>,
    /// The certificates themselves, if somebody is to be told them.
    pub encoded: Option<EncodedChain>,
}

/// Certificates as percent-encoded PEM: XFCC's `Cert` and `Chain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedChain {
    /// The peer's own.
    pub leaf: Box<str>,
    /// All that the peer has shown, its own first.
    pub chain: Box<str>,
}

/// What is known of a downstream connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The address that the client wanted: the original destination if traffic was redirected, else
    /// the local address.
    pub destination: SocketAddr,
    /// The client's address: the peer's, or what a balancer before us says by the PROXY protocol.
    pub source: SocketAddr,
    /// The peer's address, whatever is said.
    pub direct_source: SocketAddr,
    /// What the connection starts with.
    pub transport: TransportProtocol,
    /// Server name of the ClientHello, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The client's ALPN list in its order, or what the HTTP inspector found (`http/1.0`,
    /// `http/1.1`, `h2c`).
    pub application_protocols: Vec<Arc<str>>,
    /// The peer's verified certificate; `None` before or without mutual TLS.
    pub peer: Option<Arc<PeerCertificate>>,
}

impl ConnectionFacts {
    /// A plaintext connection about which nothing but its addresses is known.
    pub fn plaintext(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            destination,
            source,
            direct_source: source,
            transport: TransportProtocol::RawBuffer,
            server_name: None,
            application_protocols: Vec::new(),
            peer: None,
        }
    }

    /// Between whom it is.
    pub fn ends(&self) -> Ends {
        Ends { source: self.source, destination: self.destination }
    }
}

/// Read access to a request's header fields.
pub trait HeaderLookup {
    /// The field's value by lower-case name; several lines are joined by a comma (RFC 9110 section
    /// 5.3).
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Shows the field's lines one by one, in the order received; none if the field is missing.
    fn each_line(&self, name: &str, show: &mut dyn FnMut(&str));
}

/// The headers of something that has none: network RBAC is evaluated over this, as in Envoy.
pub struct NoHeaders;

impl HeaderLookup for NoHeaders {
    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn each_line(&self, _name: &str, _show: &mut dyn FnMut(&str)) {}
}

impl HeaderLookup for http::HeaderMap {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.get_all(name).iter();
        let first = String::from_utf8_lossy(values.next()?.as_bytes());
        let Some(second) = values.next() else { return Some(first) };
        let mut joined = first.into_owned();
        for value in std::iter::once(second).chain(values) {
            joined.push(',');
            joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        Some(Cow::Owned(joined))
    }

    fn each_line(&self, name: &str, show: &mut dyn FnMut(&str)) {
        self.get_all(name)
            .iter()
            .for_each(|value| show(&String::from_utf8_lossy(value.as_bytes())));
    }
}

/// What is known of a request when it is routed and authorised.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The connection that carries the request.
    pub connection: &'a ConnectionFacts,
    /// Method as received.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority` or `Host`, as received.
    pub authority: &'a str,
    /// Request target with its query, after the normalisation that the connection manager asks for.
    pub path: &'a str,
    /// The client's address after trusted `x-forwarded-for` hops; the connection's source
    /// otherwise.
    pub remote_ip: IpAddr,
    /// The other header fields.
    pub headers: &'a dyn HeaderLookup,
    /// What filters have found out about it, if any has.
    pub metadata: Option<&'a Metadata>,
}

impl<'a> RequestFacts<'a> {
    /// The path without query and fragment.
    pub fn path_only(&self) -> &'a str {
        self.path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The query without `?`, or `None` when there is none.
    pub fn query(&self) -> Option<&'a str> {
        let target = self.path.split('#').next().unwrap_or_default();
        target.split_once('?').map(|(_, query)| query)
    }

    /// A header field or pseudo header by lower-case name.
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        match self.pseudo_header(name) {
            Some(value) => Some(Cow::Borrowed(value)),
            None => self.headers.header(name),
        }
    }

    /// Shows the lines of a header field or the value of a pseudo header.
    pub fn each_line(&self, name: &str, show: &mut dyn FnMut(&str)) {
        match self.pseudo_header(name) {
            Some(value) => show(value),
            None => self.headers.each_line(name, show),
        }
    }

    fn pseudo_header(&self, name: &str) -> Option<&'a str> {
        match name {
            ":method" => Some(self.method),
            ":path" => Some(self.path),
            ":authority" | "host" => Some(self.authority),
            ":scheme" => Some(self.scheme),
            _ => None,
        }
    }
}

/// Splits `host:port`; an IPv6 host keeps its brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            // Digits that name no port, or none at all (RFC 3986 section 3.2.3).
            Err(_) if port.bytes().all(|b| b.is_ascii_digit()) => (host, None),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// What tests of whatever judges requests have in common.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// A plaintext connection over loopback.
    pub(crate) fn loopback() -> ConnectionFacts {
        ConnectionFacts::plaintext(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into())
    }

    /// `GET http://a/` from the connection's own client, without headers.
    pub(crate) fn get(connection: &ConnectionFacts) -> RequestFacts<'_> {
        RequestFacts {
            connection,
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            remote_ip: connection.source.ip(),
            headers: &NoHeaders,
            metadata: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_header_lines_are_joined_by_a_comma() {
        let mut headers = http::HeaderMap::new();
        headers.append("x", "a".parse().unwrap());
        assert_eq!(headers.header("x").as_deref(), Some("a"));
        headers.append("x", "b".parse().unwrap());
        assert_eq!(headers.header("x").as_deref(), Some("a,b"));
        assert_eq!(headers.header("y"), None);
    }

    #[test]
    fn a_path_is_split_at_query_and_fragment() {
        let connection = fixture::loopback();
        let facts = |path| RequestFacts { path, ..fixture::get(&connection) };
        for (path, expected, query) in [
            ("/a?b=c#d", "/a", Some("b=c")),
            ("/a", "/a", None),
            ("/a#x?y", "/a", None),
            ("/a?", "/a", Some("")),
        ] {
            assert_eq!((facts(path).path_only(), facts(path).query()), (expected, query), "{path}");
        }
    }
}
