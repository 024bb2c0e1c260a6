//! Header fields as both sides of a proxy count and split them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of all names and values, as limits count them.
pub(crate) fn field_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// All lines of a field as one, joined by commas (RFC 9110 section 5.3), whatever bytes they hold.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    lines.join(&b","[..])
}

/// Adds an element behind those of a list field, and makes one line of it. What is no text in the
/// lines of others stays as it is: it must not keep ours out.
pub(crate) fn append_element(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut line = joined(headers, name);
    if headers.contains_key(name) {
        line.push(b',');
    }
    line.extend_from_slice(element.as_bytes());
    match HeaderValue::from_maybe_shared(Bytes::from(line)) {
        Ok(value) => drop(headers.insert(name, value)),
        // The element holds what no field can: then nothing is said rather than something wrong.
        Err(_) => drop(headers.remove(name)),
    }
}

/// The elements of a list field, trimmed; none is empty (RFC 9110 section 5.6.1).
pub(crate) fn lists<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}
