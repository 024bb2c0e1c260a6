//! What expressions are told of a request or connection. Spec: Envoy "Attributes".

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::access_log::Entry;
use crate::runtime::{
    cel::{Attributes, Part, Root, Value},
    facts::HeaderLookup,
    metadata,
};

impl Attributes for Entry<'_> {
    fn attribute(&self, root: Root, name: &str) -> Option<Value> {
        match root {
            Root::Request => self.request(name),
            Root::Response => self.response(name),
            Root::Connection => self.downstream(name),
            Root::Upstream => self.upstream(name),
            Root::Source => address(self.remote, name),
            Root::Destination => address(self.connection.destination, name),
            Root::Metadata => None,
            Root::Xds => match name {
                "cluster_name" => text(self.cluster),
                "route_name" => text(self.route),
                _ => None,
            },
        }
    }

    fn field(&self, part: Part, name: &str) -> Option<Arc<str>> {
        let found = match part {
            Part::Request => self.request_header(name),
            Part::Response => self.response_headers?.header(name),
            Part::Trailers => self.trailers?.header(name),
        };
        found.map(|value| value.as_ref().into())
    }

    fn found(&self, namespace: &str) -> Option<&metadata::Fields> {
        self.metadata?.fields(namespace)
    }
}

impl Entry<'_> {
    /// Of a connection without HTTP none.
    fn request(&self, name: &str) -> Option<Value> {
        if self.method.is_empty() {
            return None;
        }
        let (path, query) = self.path.split_once('?').unwrap_or((self.path, ""));
        match name {
            "path" => whole(self.path),
            "url_path" => whole(path),
            "query" => whole(query),
            "host" => text(self.authority),
            "scheme" => text(self.scheme),
            "method" => text(self.method),
            "protocol" => text(self.protocol),
            "referer" => self.of_header("referer"),
            "useragent" => self.of_header("user-agent"),
            "id" => self.of_header("x-request-id"),
            "time" => Some(Value::Time(since_1970(self.start))),
            "duration" => Some(Value::Duration(nanos(self.duration))),
            "size" => number(self.bytes_received),
            _ => None,
        }
    }

    fn of_header(&self, name: &str) -> Option<Value> {
        self.field(Part::Request, name).map(Value::Text)
    }

    fn response(&self, name: &str) -> Option<Value> {
        match name {
            "code" => (self.status > 0).then(|| Value::Int(self.status.into())),
            "code_details" => text(self.details),
            "grpc_status" => self.grpc_status().map(Value::Int),
            "size" => number(self.bytes_sent),
            _ => None,
        }
    }

    fn downstream(&self, name: &str) -> Option<Value> {
        let peer = self.connection.peer.as_deref();
        let first = |names: &[Arc<str>]| names.first().map(|name| Value::Text(Arc::clone(name)));
        match name {
            "mtls" => Some(Value::Bool(peer.is_some())),
            "requested_server_name" => text(self.connection.server_name.as_deref()?),
            "tls_version" => text(self.tls?.version),
            "subject_peer_certificate" => text(&peer?.subject),
            "dns_san_peer_certificate" => first(&peer?.dns_sans),
            "uri_san_peer_certificate" => first(&peer?.uri_sans),
            "uri_san_local_certificate" => first(&self.tls?.local_uri_sans),
            "sha256_peer_certificate_digest" => text(&peer?.sha256),
            "termination_details" => text(self.termination),
            _ => None,
        }
    }

    fn upstream(&self, name: &str) -> Option<Value> {
        match name {
            "local_address" => text(&self.upstream_local?.to_string()),
            "transport_failure_reason" => text(self.upstream_failure),
            "request_attempt_count" => number(self.attempts.into()),
            _ => address(self.upstream_host?, name),
        }
    }
}

fn address(at: std::net::SocketAddr, name: &str) -> Option<Value> {
    match name {
        "address" => text(&at.to_string()),
        "port" => Some(Value::Int(at.port().into())),
        _ => None,
    }
}

fn text(text: &str) -> Option<Value> {
    if text.is_empty() { None } else { whole(text) }
}

fn whole(text: &str) -> Option<Value> {
    Some(Value::Text(text.into()))
}

fn number(number: u64) -> Option<Value> {
    i64::try_from(number).ok().map(Value::Int)
}

fn since_1970(at: SystemTime) -> i128 {
    nanos(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ConnectionFacts;

    #[test]
    fn requests_and_connections_have_what_is_known_of_them() {
        let source = ([10, 0, 0, 5], 4000).into();
        let connection = ConnectionFacts::plaintext(source, ([10, 0, 0, 9], 80).into());
        let bare = Entry::of_connection(&connection, UNIX_EPOCH, Duration::from_secs(1));
        let entry = Entry {
            method: "GET",
            path: "/a?b",
            authority: "cart",
            status: 404,
            bytes_sent: 5,
            upstream_host: Some(([10, 0, 0, 1], 9080).into()),
            cluster: "c",
            attempts: 2,
            ..bare
        };
        let text = |text: &str| Some(Value::Text(text.into()));
        for (root, name, expected) in [
            (Root::Request, "path", text("/a?b")),
            (Root::Request, "url_path", text("/a")),
            (Root::Request, "query", text("b")),
            (Root::Request, "host", text("cart")),
            (Root::Request, "duration", Some(Value::Duration(1_000_000_000))),
            (Root::Request, "referer", None),
            (Root::Response, "code", Some(Value::Int(404))),
            (Root::Response, "size", Some(Value::Int(5))),
            (Root::Response, "grpc_status", None),
            (Root::Connection, "mtls", Some(Value::Bool(false))),
            (Root::Connection, "uri_san_peer_certificate", None),
            (Root::Upstream, "address", text("10.0.0.1:9080")),
            (Root::Upstream, "port", Some(Value::Int(9080))),
            (Root::Upstream, "request_attempt_count", Some(Value::Int(2))),
            (Root::Source, "address", text("10.0.0.5:4000")),
            (Root::Destination, "port", Some(Value::Int(80))),
            (Root::Xds, "cluster_name", text("c")),
        ] {
            assert_eq!(entry.attribute(root, name), expected, "{root:?}.{name}");
        }
        assert_eq!(bare.attribute(Root::Request, "path"), None);
        assert_eq!(bare.attribute(Root::Response, "code"), None);
        assert_eq!(bare.attribute(Root::Source, "port"), Some(Value::Int(4000)));
    }
}
