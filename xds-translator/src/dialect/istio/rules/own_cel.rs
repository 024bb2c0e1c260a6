//! What our own proxy reads of expressions in CEL (`dataplane/src/compile/cel.rs`); Envoys read more.

use super::{
    cel::{Read, Whole, read},
    line::remark_refused_by_ours,
};
use crate::dialect::decode::Decoder;

/// What our own proxy knows of a request or connection.
const MEMBERS: [&str; 40] = [
    "request.path",
    "request.url_path",
    "request.host",
    "request.scheme",
    "request.method",
    "request.headers",
    "request.referer",
    "request.useragent",
    "request.time",
    "request.id",
    "request.protocol",
    "request.query",
    "request.duration",
    "request.size",
    "response.code",
    "response.code_details",
    "response.grpc_status",
    "response.headers",
    "response.trailers",
    "response.size",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.subject_peer_certificate",
    "connection.dns_san_peer_certificate",
    "connection.uri_san_peer_certificate",
    "connection.uri_san_local_certificate",
    "connection.sha256_peer_certificate_digest",
    "connection.termination_details",
    "upstream.address",
    "upstream.port",
    "upstream.local_address",
    "upstream.transport_failure_reason",
    "upstream.request_attempt_count",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "xds.cluster_name",
    "xds.route_name",
];
/// It knows nothing else of that; what filters have found out has members that nobody knows before.
const METADATA: &str = "metadata.filter_metadata";
/// Of names, those that it knows.
const ROOTS: [&str; 8] =
    ["request", "response", "connection", "upstream", "source", "destination", "metadata", "xds"];
/// Functions that it does not have.
const MISSING: [&str; 2] = ["bytes", "type"];
/// Members that are many values, or a time.
const MANY: [&str; 6] = [
    "request.headers",
    "request.time",
    "request.duration",
    "response.headers",
    "response.trailers",
    METADATA,
];

/// Says that our own proxy refuses `what` has an expression that it does not read, or that does not
/// fit. One that is none at all has a finding of its own.
pub(super) fn remark(text: &str, fits: fn(&Read) -> bool, what: &str, at: &mut Decoder) {
    if read(text).is_ok_and(|read| !(is_read(&read) && fits(&read))) {
        remark_refused_by_ours(what, at);
    }
}

fn is_read(read: &Read) -> bool {
    let root = |name: &String| ROOTS.contains(&name.as_str());
    let member = |name: &String| name == METADATA || MEMBERS.contains(&name.as_str());
    !read.is_rare
        && read.asked.iter().all(root)
        && read.members.iter().all(member)
        && !read.called.iter().any(|name| MISSING.contains(name))
}

/// Whether it may give a text, a number, or yes or no, which a label needs.
pub(super) fn gives_one_value(read: &Read) -> bool {
    match &read.whole {
        None => true,
        Some(Whole::Named(name)) => name.contains('.') && !MANY.contains(&name.as_str()),
        Some(Whole::Other) => false,
    }
}
