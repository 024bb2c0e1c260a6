//! Header fields as both sides of a proxy count and split them.

use http::{HeaderMap, HeaderName};

/// Bytes of all names and values, as limits count them.
pub(crate) fn field_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The elements of a list field, trimmed; none is empty (RFC 9110 section 5.6.1).
pub(crate) fn lists<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}
