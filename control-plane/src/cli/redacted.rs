//! Texts without what looks like a key or a token, wherever it comes from: what reads like one is taken
//! out although it may be none.

use serde_json::Value;

/// What stands in its place.
const REMOVED: &str = "(removed)";
/// Schemes of credentials, before what they hold (RFC 9110 section 11.4).
const SCHEMES: [&str; 2] = ["bearer", "basic"];
/// Names and fingerprints are shorter, or of one case.
const LONG: usize = 32;

/// Takes keys and tokens out of every text of a document.
pub(super) fn redact(document: &mut Value) {
    match document {
        Value::String(text) => *text = redacted(text),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redacted(text: &str) -> String {
    words(&without_user(&without_keys(text)))
}

/// Without PEM blocks (RFC 7468), whole or cut off.
fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut parts = text.split(BEGIN);
    let mut left = parts.next().unwrap_or_default().to_owned();
    for block in parts {
        left.push_str(REMOVED);
        let behind = block.split_once(END).and_then(|(_, rest)| rest.split_once("-----"));
        left.push_str(behind.map_or("", |(_, behind)| behind));
    }
    left
}

/// Without what a URL says of a user (RFC 3986 section 3.2.1).
fn without_user(text: &str) -> String {
    let mut parts = text.split("://");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = |c: char| c.is_whitespace() || "/?#\"'".contains(c);
        let (authority, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        left.push_str("://");
        match authority.rsplit_once('@') {
            Some((_, host)) => left.extend([REMOVED, "@", host]),
            None => left.push_str(authority),
        }
        left.push_str(rest);
    }
    left
}

/// Without words that are credentials.
fn words(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let (mut rest, mut after_scheme) = (text, false);
    while !rest.is_empty() {
        let (between, word_and_more) = rest.split_at(rest.find(in_word).unwrap_or(rest.len()));
        let length = word_and_more.find(|c| !in_word(c)).unwrap_or(word_and_more.len());
        let (word, more) = word_and_more.split_at(length);
        left.push_str(between);
        // `Bearer: ` and `"Bearer"` name the scheme and hold nothing.
        let is_held = after_scheme && between == " ";
        after_scheme = SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        left.push_str(if is_held || is_credential(word) { REMOVED } else { word });
        rest = more;
    }
    left
}

/// What tokens and base64 are made of, but for `/`, which parts names.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.+=~".contains(c)
}

fn is_credential(word: &str) -> bool {
    // The header of a JWT is an object, whose base64 begins so (RFC 7519 section 3.1).
    let is_token = word.starts_with("eyJ") && word.contains('.');
    let has = |kind: fn(&char) -> bool| word.chars().any(|c| kind(&c));
    let is_random = word.len() >= LONG
        && !word.contains('.')
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_digit);
    is_token || is_random
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_reads_like_a_key_or_a_token_is_taken_out() {
        let table = [
            (
                "got \"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n\", expected a name",
                "got \"(removed)\n\", expected a name",
            ),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "(removed)"),
            ("token eyJhbGciOi.eyJzdWIi.c2ln is none", "token (removed) is none"),
            ("header authorization: Bearer s3cret!", "header authorization: Bearer (removed)!"),
            ("got \"basic dXNlcjpwYXNz\"", "got \"basic (removed)\""),
            ("http://ann:pass@10.0.0.7:8080/a?b", "http://(removed)@10.0.0.7:8080/a?b"),
            ("got \"nWQ2kYj0b3VzZXJrZXlzYXJlbG9uZzEyMw==\"", "got \"(removed)\""),
        ];
        for (text, expected) in table {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn names_addresses_and_findings_stay() {
        for text in [
            "spiffe://cluster.local/ns/default/sa/cart-with-a-rather-long-name-of-an-account-1",
            "sidecar~10.0.0.7~cart-7d9f8b6c5-x2x4z.shop~shop.svc.cluster.local",
            "outbound|9080|v1|reviews.default.svc.cluster.local",
            "PeerAuthentication istio-system/default: mtls: expected STRICT, got \"STRCT\"",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bd822cd15d6c15b0f00a8",
            "http://127.0.0.1:8080/api/v1/objects",
            "a Bearer is expected",
            "mesh.yaml:3:17",
        ] {
            let expected = text.replace("Bearer is", "Bearer (removed)");
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn every_text_of_a_document_is_looked_at() {
        let mut document = json!({ "items": [{ "message": "Bearer abc", "count": 1 }, null] });
        redact(&mut document);
        assert_eq!(document["items"][0], json!({ "message": "Bearer (removed)", "count": 1 }));
    }
}
