//! A request on its way to an endpoint.

use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body;

use crate::codec::body::RequestBody;

/// A request as it is going to be sent; changed on its way, copied for each attempt.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

/// Says that a body of unknown length comes: hyper takes a body for none where a method seldom has
/// one, and drops it.
pub(super) fn announce(body: &RequestBody, headers: &mut HeaderMap) {
    let known = body.is_end_stream() || body.size_hint().exact().is_some();
    if !known && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
