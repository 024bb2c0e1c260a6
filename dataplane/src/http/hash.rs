//! What a hash balancer is given of a request, and the cookies that keep a client with its
//! endpoint.

use std::fmt::Write;

use http::HeaderValue;
use xxhash_rust::xxh64::xxh64;

use crate::runtime::{
    Cluster, RequestFacts,
    action::{HashPolicy, HashSource, NewCookie},
};

/// The hash of a request, and the cookies that its answer sets.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) hash: Option<u64>,
    pub(super) cookies: Vec<HeaderValue>,
}

/// Folds the hash policies together as Envoy does: rotate and xor, until a terminal one has found
/// something. A client without the cookie gets one, by which this request is sent already. Only for
/// clusters that balance by hash.
pub(super) fn choose(
    policies: &[HashPolicy],
    cluster: &Cluster,
    facts: &RequestFacts<'_>,
) -> Chosen {
    let mut chosen = Chosen::default();
    if !cluster.policy.is_by_hash() {
        return chosen;
    }
    for policy in policies {
        let found =
            policy.source.hash(facts).or_else(|| made(&policy.source, facts, &mut chosen.cookies));
        if let Some(part) = found {
            chosen.hash = Some(chosen.hash.map_or(part, |so_far| so_far.rotate_left(1) ^ part));
        }
        if policy.terminal && chosen.hash.is_some() {
            break;
        }
    }
    chosen
}

fn made(
    source: &HashSource,
    facts: &RequestFacts<'_>,
    cookies: &mut Vec<HeaderValue>,
) -> Option<u64> {
    let HashSource::Cookie { name, new: Some(new) } = source else { return None };
    // The same for all requests of a connection, so that a client that sends several at once stays
    // with one endpoint.
    let ends = format!("{}{}", facts.connection.source, facts.connection.destination);
    let value = format!("{:016x}", xxh64(ends.as_bytes(), 0));
    cookies.push(HeaderValue::from_str(&set_cookie(name, &value, new)).ok()?);
    Some(xxh64(value.as_bytes(), 0))
}

/// `sid="0123456789abcdef"; Max-Age=60; Path=/; HttpOnly`
fn set_cookie(name: &str, value: &str, new: &NewCookie) -> String {
    let mut text = format!("{name}=\"{value}\"");
    let seconds = new.ttl.as_secs();
    if seconds > 0 {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    if !new.path.is_empty() {
        let _ = write!(text, "; Path={}", new.path);
    }
    for (name, value) in &new.attributes {
        let _ = if value.is_empty() {
            write!(text, "; {name}")
        } else {
            write!(text, "; {name}={value}")
        };
    }
    text.push_str("; HttpOnly");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What Envoy 1.40 writes for the same policies.
    #[test]
    fn a_cookie_is_spelled_as_by_envoy() {
        let new = |ttl, path: &str, attributes: &[(&str, &str)]| NewCookie {
            ttl: Duration::from_millis(ttl),
            path: path.into(),
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        };
        for (new, expected) in [
            (new(60_000, "", &[]), "sid=\"1\"; Max-Age=60; HttpOnly"),
            (new(0, "", &[]), "sid=\"1\"; HttpOnly"),
            (new(500, "", &[]), "sid=\"1\"; HttpOnly"),
            (new(60_500, "/x", &[]), "sid=\"1\"; Max-Age=60; Path=/x; HttpOnly"),
            (
                new(0, "/y", &[("SameSite", "Strict"), ("Secure", "")]),
                "sid=\"1\"; Path=/y; SameSite=Strict; Secure; HttpOnly",
            ),
        ] {
            assert_eq!(set_cookie("sid", "1", &new), expected);
        }
    }
}
