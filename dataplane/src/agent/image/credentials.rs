//! Who pulls: a `.dockerconfigjson`, and what registries ask for.
//! Spec: Kubernetes, "Pull an image from a private registry"; RFC 9110, section 11.6.1.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How Docker's tools call their registry in such a file.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Credentials by registry.
#[derive(Default, Deserialize)]
pub struct Credentials {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// Reads a `.dockerconfigjson`.
    ///
    /// # Errors
    /// It has another form; nothing of it is in the error.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let read = serde_json::from_slice(text);
        read.map_err(|_| "the pull secret is no `.dockerconfigjson`".to_owned())
    }

    /// The value of `authorization` for a registry; `None`: nobody is known there.
    pub fn of(&self, registry: &str) -> Option<Zeroizing<String>> {
        let entry = self.auths.iter().find(|(name, _)| is_same(name, registry))?.1;
        if !entry.auth.is_empty() {
            return Some(Zeroizing::new(format!("Basic {}", entry.auth.trim())));
        }
        let pair = Zeroizing::new(format!("{}:{}", entry.username, entry.password));
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        (!entry.username.is_empty()).then(|| Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }
}

/// Whether a key of the file is about a registry; a key may have a scheme and a path.
fn is_same(key: &str, registry: &str) -> bool {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (DOCKER_HUB.contains(&host) && DOCKER_HUB.contains(&registry))
}

/// What a registry asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    /// Name and password.
    Basic,
    /// A token, which another server has.
    Bearer {
        /// Where.
        realm: String,
        /// For whom; may be empty.
        service: String,
        /// For what; may be empty.
        scope: String,
    },
}

impl Challenge {
    /// Reads `www-authenticate`; `None`: it is of another kind.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let of = |name: &str| parameters.get(name).cloned().unwrap_or_default();
        let (realm, service, scope) = (of("realm"), of("service"), of("scope"));
        (!realm.is_empty()).then_some(Self::Bearer { realm, service, scope })
    }
}

/// `NAME="VALUE", …`; names in small letters.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.entry(name).or_insert_with(|| value.trim().to_owned());
        rest = left;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_finds_its_own_credentials() {
        let text = r#"{"auths": {
            "a.test:5000": {"auth": "dTpw"},
            "https://b.test/v2/": {"username": "u", "password": "p", "email": "x"},
            "https://index.docker.io/v1/": {"auth": "aHVi"},
            "c.test": {}}}"#;
        let credentials = Credentials::parse(text.as_bytes()).unwrap();
        for (registry, expected) in [
            ("a.test:5000", Some("Basic dTpw")),
            ("b.test", Some("Basic dTpw")),
            ("registry-1.docker.io", Some("Basic aHVi")),
            ("docker.io", Some("Basic aHVi")),
            ("c.test", None),
            ("a.test", None),
        ] {
            let found = credentials.of(registry);
            assert_eq!(found.as_ref().map(|text| text.as_str()), expected, "{registry}");
        }
        let error = Credentials::parse(b"hush").err().unwrap();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let text = r#"Bearer realm="https://auth.test/token",service="a.test",scope="repository:m:pull,push""#;
        let bearer = |realm: &str, service: &str, scope: &str| {
            let [realm, service, scope] = [realm, service, scope].map(str::to_owned);
            Some(Challenge::Bearer { realm, service, scope })
        };
        for (text, expected) in [
            (text, bearer("https://auth.test/token", "a.test", "repository:m:pull,push")),
            (
                "bearer Realm=https://auth.test/token, service=x",
                bearer("https://auth.test/token", "x", ""),
            ),
            ("Basic realm=\"a\"", Some(Challenge::Basic)),
            ("Bearer service=\"a\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}
