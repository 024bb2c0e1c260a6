//! Tokens that requests bear (JWT, RFC 7519), and the keys that they are verified with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Field, Labels, Origin, PolicyScope, Selector};

/// Which tokens workloads take, as one object says. A token at a place that some rule looks at must
/// be valid by one of them; a request without a token is none of its business, unless a rule
/// requires one.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TokenPolicy {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are.
    pub scope: PolicyScope,
    /// Which workloads of its scope; empty: all.
    pub selector: Selector,
    /// In the order written.
    pub rules: Vec<TokenRule>,
}

impl TokenPolicy {
    /// Whether it holds at workloads with these labels.
    pub fn governs(&self, namespace: &str, labels: &Labels) -> bool {
        self.scope.includes(namespace) && self.selector.matches(labels)
    }
}

/// Tokens of one issuer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TokenRule {
    /// What is asked of a token, and what becomes of it.
    pub check: TokenCheck,
    /// The keys of the issuer.
    pub keys: TokenKeys,
    /// Where it is written.
    pub at: Field,
}

/// What is asked of a token, and what becomes of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TokenCheck {
    /// The claim `iss`; empty: any.
    pub issuer: Arc<str>,
    /// A valid token of this kind must be there.
    pub required: bool,
    /// One of them must be in the claim `aud`; empty: nothing is asked.
    pub audiences: Vec<Arc<str>>,
    /// Headers that may hold a token, and what stands before it in them. Without a header,
    /// parameter or cookie: `Authorization: Bearer`, and the parameter `access_token`.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Query parameters that may hold one.
    pub parameters: Vec<Arc<str>>,
    /// Cookies that may hold one.
    pub cookies: Vec<Arc<str>>,
    /// The token stays in the request.
    pub forward: bool,
    /// A header that is set to the payload, in base64url; empty: none.
    pub payload_header: Arc<str>,
    /// Headers that are set to a claim; the claim's path is joined by dots.
    pub claim_headers: Vec<(Arc<str>, Arc<str>)>,
    /// Claims whose text is a list of words; sorted, unique.
    pub lists_of_words: Vec<Arc<str>>,
}

/// Where the keys of an issuer are.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TokenKeys {
    /// Here.
    Given(KeySet),
    /// Somewhere to be fetched from, within this time.
    Fetched(KeySource, Duration),
}

/// Where a set of keys is fetched from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum KeySource {
    /// This URL, `http` or `https`.
    Url(Arc<str>),
    /// The URL that this issuer, itself one, names in its configuration (OpenID Connect Discovery
    /// 1.0 section 4).
    Issuer(Arc<str>),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Issuer(issuer) => write!(f, "what {issuer} names"),
        }
    }
}

/// Keys that tokens are verified with: a JWK set (RFC 7517) that says no more than that needs,
/// spelled always alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct KeySet(Arc<str>);

/// Why a text is no set of keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoKeySet {
    /// No JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// No list of keys.
    #[error("not a JWK set: an object with a list `keys` (RFC 7517)")]
    NoList,
    /// None of the keys can verify anything.
    #[error(
        "no key that verifies: `kty` RSA with `n` and `e`, EC or OKP with `crv` and `x`, oct with `k`"
    )]
    NoKey,
}

/// Members of a key that say how to verify with it; of a private key there are more (RFC 7518
/// section 6).
const MEMBERS: [&str; 13] =
    ["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y", "k", "x5c", "x5t"];

/// Members that only who signs may know.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A key of which nobody has the private half: it was thrown away when the key was made.
const NOBODYS: &str = r#"{"keys":[{"alg":"ES256","crv":"P-256","kid":"nobody","kty":"EC","use":"sig","x":"25naX1XNGNTLJGy4y-fxZnrR_sQaLoVvZlEMDsxRCE4","y":"RNyWTeNSPZesFR_aHE6a92tW0FcCCv16UTZwW1nmb6s"}]}"#;

impl KeySet {
    /// Reads a set; keys of kinds that nobody knows are left out (RFC 7517 section 5), and so are
    /// the private halves of others.
    ///
    /// # Errors
    /// [`NoKeySet`].
    pub fn parse(text: &str) -> Result<Self, NoKeySet> {
        let keys = keys(text)?;
        let keys: Vec<Value> = keys.into_iter().filter(verifies).map(public).collect();
        match keys.is_empty() {
            true => Err(NoKeySet::NoKey),
            false => Ok(Self(serde_json::json!({ "keys": keys }).to_string().into())),
        }
    }

    /// Keys with which no token is valid.
    pub fn nobodys() -> Self {
        Self(NOBODYS.into())
    }

    /// As JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which keys of a set hold what only the issuer may know: whoever reads it can make tokens.
pub fn secret_keys(text: &str) -> Vec<usize> {
    let secret = |key: &Map<String, Value>| {
        key.get("kty").is_some_and(|kind| kind == "oct")
            || PRIVATE.iter().any(|member| key.contains_key(*member))
    };
    let keys = keys(text).unwrap_or_default().into_iter().enumerate();
    keys.filter(|(_, key)| secret(key)).map(|(index, _)| index).collect()
}

fn keys(text: &str) -> Result<Vec<Map<String, Value>>, NoKeySet> {
    let set: Value =
        serde_json::from_str(text).map_err(|error| NoKeySet::NotJson(error.to_string()))?;
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        return Err(NoKeySet::NoList);
    };
    let object = |key: &Value| key.as_object().cloned().ok_or(NoKeySet::NoList);
    keys.iter().map(object).collect()
}

fn verifies(key: &Map<String, Value>) -> bool {
    let needed: &[&str] = match key.get("kty").and_then(Value::as_str) {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["crv", "x", "y"],
        Some("OKP") => &["crv", "x"],
        Some("oct") => &["k"],
        _ => return false,
    };
    needed.iter().all(|member| key.get(*member).is_some_and(Value::is_string))
}

fn public(key: Map<String, Value>) -> Value {
    let kept = key.into_iter().filter(|(member, _)| MEMBERS.contains(&&**member));
    let sorted: BTreeMap<String, Value> = kept.collect();
    sorted.into_iter().collect::<Map<_, _>>().into()
}

/// The URL of a set of keys, in a form that it can be fetched by.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    const LONGEST: usize = 2048;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("neither `https://` nor `http://`") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if authority.contains('@') {
        return Err("credentials in a URL are readable by everybody who reads the object");
    }
    if url.bytes().any(|b| !b.is_ascii_graphic()) || url.contains('#') || url.len() > LONGEST {
        return Err("not a URL without fragment, of ASCII and at most 2048 bytes");
    }
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p == 0)) {
        return Err("it names no server");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("its port is no number");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_verifies_and_nothing_else() {
        let text = r#"{"issuer":"x","keys":[
            {"y":"c","x":"b","crv":"P-256","kty":"EC","d":"secret","note":"internal"},
            {"kty":"post-quantum","k":"a"}, {"kty":"RSA","n":"a"}]}"#;
        let expected = r#"{"keys":[{"crv":"P-256","kty":"EC","x":"b","y":"c"}]}"#;
        assert_eq!(KeySet::parse(text).map(|set| set.as_str().to_owned()), Ok(expected.to_owned()));
        assert_eq!(secret_keys(text), [0]);
        assert_eq!(secret_keys(r#"{"keys":[{"kty":"RSA"},{"kty":"oct","k":"a"}]}"#), [1]);
        let nobodys = KeySet::nobodys();
        assert_eq!(KeySet::parse(nobodys.as_str()), Ok(nobodys));
    }

    #[test]
    fn what_is_no_set_is_told_apart() {
        let refused = |text: &str| KeySet::parse(text).expect_err("no set");
        assert!(matches!(refused("<html>"), NoKeySet::NotJson(_)));
        assert_eq!(refused(r#"{"secret":"a"}"#), NoKeySet::NoList);
        assert_eq!(refused(r#"{"keys":["a"]}"#), NoKeySet::NoList);
        assert_eq!(refused(r#"{"keys":[]}"#), NoKeySet::NoKey);
    }

    #[test]
    fn urls_are_those_that_can_be_fetched() {
        for url in ["https://a/b", "http://a.test:8080/k?x=1", "https://[::1]/", "https://[::1]:8/"]
        {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "a/b",
            "ftp://a",
            "https://",
            "https:///a",
            "https://u:p@a/",
            "https://a/#b",
            "https://a/ b",
            "https://a:b/",
            "https://a:0/",
            "https://\u{e4}.test/",
            "file:///etc",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
