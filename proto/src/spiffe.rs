//! SPIFFE ids: parsed once, at the door, into a type that cannot hold a malformed one.
//!
//! Rules and numbers: SPIFFE-ID.md of the SPIFFE standard, stricter where Istio's shape
//! `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT` allows it.

use std::{fmt, str::FromStr, sync::Arc};

/// Longest id that is accepted, in bytes (SPIFFE-ID §2.3).
const MAX_ID: usize = 2048;
/// Longest trust domain name, in bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is not a SPIFFE id or trust domain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpiffeError {
    /// The text does not begin with `spiffe://`.
    #[error("not a SPIFFE id: {0:?} does not begin with spiffe://")]
    Scheme(String),
    /// The trust domain is empty, too long, or holds a character outside `[a-z0-9.-_]`.
    #[error("bad trust domain {0:?}: expected 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    TrustDomain(String),
    /// The path has an empty, dotted or badly spelled segment.
    #[error(
        "bad path segment {0:?}: expected one or more of a-z, A-Z, 0-9, '.', '-', '_', and not '.' or '..'"
    )]
    Segment(String),
    /// Longer than 2048 bytes.
    #[error("SPIFFE id of {0} bytes: at most 2048 are allowed")]
    TooLong(usize),
    /// Valid, but not of the mesh's shape.
    #[error("{0:?} is not of the shape spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Shape(String),
    /// A namespace or service account that Kubernetes would not allow.
    #[error("bad {what} {name:?}: expected a DNS label (a-z, 0-9, '-'; service accounts also '.')")]
    Name {
        /// `namespace` or `service account`.
        what: &'static str,
        /// What was given.
        name: String,
    },
}

/// The name of a trust domain, such as `cluster.local`: lower case, never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks a name against SPIFFE-ID §2.1.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`] when it is empty, longer than 255 bytes, or holds any other
    /// character than `[a-z0-9.-_]` (so ports, user names and percent-encoding are refused).
    pub fn new(name: &str) -> Result<Self, SpiffeError> {
        let fits = !name.is_empty() && name.len() <= MAX_TRUST_DOMAIN;
        let spelled = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if fits && spelled {
            Ok(Self(name.into()))
        } else {
            Err(SpiffeError::TrustDomain(name.to_owned()))
        }
    }

    /// The bare name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trust domain itself, as a signing certificate carries it: `spiffe://NAME`.
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl Default for TrustDomain {
    /// Istio's default, `cluster.local`.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;
    fn from_str(s: &str) -> Result<Self, SpiffeError> {
        Self::new(s)
    }
}

/// A workload's identity in the mesh's shape, `spiffe://TD/ns/NS/sa/SA`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// Builds an id from parts that are checked: a namespace is a DNS label, a service account a
    /// DNS subdomain.
    ///
    /// # Errors
    /// [`SpiffeError::Name`] names the part that Kubernetes would refuse.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeError> {
        if !is_dns_label(namespace) {
            return Err(SpiffeError::Name { what: "namespace", name: namespace.to_owned() });
        }
        if service_account.len() > 253 || !service_account.split('.').all(is_dns_label) {
            return Err(SpiffeError::Name {
                what: "service account",
                name: service_account.to_owned(),
            });
        }
        Ok(Self {
            trust_domain,
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain that must have signed a certificate with this id.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The workload's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The workload's service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The id without its scheme, as an `AuthorizationPolicy` writes a principal: `TD/ns/NS/sa/SA`.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

fn is_dns_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&s.len()) && s.bytes().all(inner) && !s.starts_with('-') && !s.ends_with('-')
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let rest =
            text.strip_prefix("spiffe://").ok_or_else(|| SpiffeError::Scheme(text.to_owned()))?;
        let mut parts = rest.split('/');
        let trust_domain = TrustDomain::new(parts.next().unwrap_or_default())?;
        let path: Vec<&str> = parts.collect();
        for segment in &path {
            let spelled = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
            if segment.is_empty() || !spelled || matches!(*segment, "." | "..") {
                return Err(SpiffeError::Segment((*segment).to_owned()));
            }
        }
        match path[..] {
            ["ns", namespace, "sa", service_account] => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(SpiffeError::Shape(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuses(text: &str) {
        assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
    }

    #[test]
    fn only_the_mesh_shape_is_accepted() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("a good id");
        assert_eq!((id.namespace(), id.service_account()), ("shop", "cart"));
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/cart");
        for bad in [
            "http://td/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://u@td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://t%64/ns/a/sa/b",
            "spiffe://[::1]/ns/a/sa/b",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a%20/sa/b",
            "spiffe://td/ns/a+b/sa/c",
            "spiffe://td/ns/ü/sa/b",
            "spiffe://td/ns/A/sa/b",
            "spiffe://td/ns/a,b/sa/c",
            "spiffe://td/ns/a/sa/b.",
            "spiffe://td/sa/b/ns/a",
        ] {
            refuses(bad);
        }
    }

    #[test]
    fn addresses_and_underscores_are_trust_domains_like_any_other() {
        assert!(TrustDomain::new("10.0.0.1").is_ok());
        assert!(TrustDomain::new("a_b").is_ok());
        assert!(TrustDomain::new(&"a".repeat(256)).is_err());
    }

    #[test]
    fn an_overlong_id_is_refused() {
        refuses(&format!("spiffe://td/ns/a/sa/{}", "b".repeat(2048)));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(td in "[a-z0-9][a-z0-9._-]{0,20}", ns in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", sa in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?") {
            let id = SpiffeId::new(TrustDomain::new(&td).expect("legal"), &ns, &sa).expect("legal");
            prop_assert_eq!(id.to_string().parse::<SpiffeId>(), Ok(id));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<SpiffeId>();
        }
    }
}
