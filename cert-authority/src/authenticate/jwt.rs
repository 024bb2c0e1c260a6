//! Join tokens: short-lived signed tokens (JWT, ES256), each good for one identity, with which a
//! workload outside of Kubernetes gets its first certificate.
//!
//! A token can be presented again until it ends: an agent whose certificate ran out while it was
//! away needs it. So it must be kept as a password is. One of a single use names itself so, and the
//! authority remembers that it was used.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    digest, rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_proto::{SpiffeId, TrustDomain};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{AuthError, Authenticating, Authenticator, Caller, Credentials, Proof};
use crate::{settings::Seconds, signer::local::hex};

/// The only audience of a join token.
pub const AUDIENCE: &str = "ferromesh-ca";
/// The longest life that a token may be given.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How far the clocks of two control planes may differ.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);
/// Our own tokens are below 600 bytes.
const MAX_TOKEN: usize = 4 << 10;

/// Why a token is not made or not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Asked for a life that is too long, or none.
    #[error("token lifetime {got}: expected 1s to {most}")]
    Lifetime {
        /// What was asked for.
        got: Seconds,
        /// The most that is allowed.
        most: Seconds,
    },
    /// Asked for an identity of another trust domain.
    #[error("{id} is not in trust domain {trust_domain}")]
    TrustDomain {
        /// The identity.
        id: String,
        /// The authority's domain.
        trust_domain: TrustDomain,
    },
    /// Not three base64 parts of reasonable size, or a header with anything else than `alg`, `kid`,
    /// `typ`.
    #[error("not a join token: {0}")]
    Form(&'static str),
    /// Signed by another key or with another algorithm.
    #[error("not signed by this authority")]
    Signature,
    /// A claim is missing, malformed or wrong.
    #[error("claim {claim}: {why}")]
    Claim {
        /// Its name.
        claim: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    /// Good for one certificate; older control planes refuse a token that says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    once: bool,
}

/// How often a token may be presented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uses {
    /// Until it ends.
    Many,
    /// For one certificate.
    Once,
}

/// The only members that a header may have (JWT-SVID §2): `jku`, `x5u`, `crit` and the like are
/// attacks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    kid: String,
    typ: Option<String>,
}

/// Makes and checks join tokens with one P-256 key.
pub struct JoinTokens {
    trust_domain: TrustDomain,
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl JoinTokens {
    /// Takes over a P-256 key in PKCS#8; `None` when it is none.
    pub(crate) fn new(trust_domain: TrustDomain, pkcs8: &[u8]) -> Option<Self> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
        let public = key.public_key().as_ref();
        let kid = hex(&digest::digest(&digest::SHA256, public).as_ref()[..8]);
        Some(Self {
            trust_domain,
            kid,
            encoding: EncodingKey::from_ec_der(pkcs8),
            decoding: DecodingKey::from_ec_der(public),
        })
    }

    /// Makes a token with which its bearer becomes `id` until `now + ttl`, or once until then.
    ///
    /// # Errors
    /// [`TokenError`] when the lifetime is zero or above [`LONGEST`], or `id` belongs to another
    /// trust domain.
    pub fn issue(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        uses: Uses,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        if ttl.as_secs() == 0 || ttl > LONGEST {
            return Err(TokenError::Lifetime { got: Seconds(ttl), most: Seconds(LONGEST) });
        }
        self.check_trust_domain(id)?;
        let now = seconds(now);
        let claims = Claims {
            iss: self.trust_domain.id(),
            sub: id.to_string(),
            aud: AUDIENCE.into(),
            exp: now + ttl.as_secs(),
            nbf: now,
            iat: now,
            jti: random_id(),
            once: uses == Uses::Once,
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.encoding)
            .expect("the key was checked when it was taken over"))
    }

    /// Whom a token names, and its own id.
    ///
    /// # Errors
    /// [`TokenError`] when any part is not exactly as [`issue`](Self::issue) makes it, or the time
    /// is not now.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Caller, TokenError> {
        self.check_header(token)?;
        let claims = self.decode(token)?;
        check_times(&claims, seconds(now))?;
        let id: SpiffeId = claims
            .sub
            .parse()
            .map_err(|e| TokenError::Claim { claim: "sub", why: format!("{e}") })?;
        self.check_trust_domain(&id)?;
        let proof = match claims.once {
            true => Proof::SingleUse { token_id: claims.jti, expires: claims.exp },
            false => Proof::Token { kind: "join token", token_id: Some(claims.jti) },
        };
        Ok(Caller { id, proof })
    }

    /// Whether a token says that it is one of this trust domain's: signed by our key, or issued by
    /// us.
    fn knows(&self, token: &str) -> bool {
        let part = |n| {
            URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap_or_default()).unwrap_or_default()
        };
        let says = |n, member: &str, value: &str| {
            serde_json::from_slice::<serde_json::Value>(&part(n))
                .is_ok_and(|part| part[member] == value)
        };
        says(0, "kid", &self.kid) || says(1, "iss", &self.trust_domain.id())
    }

    fn check_header(&self, token: &str) -> Result<(), TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Form("too long"));
        }
        let header = token.split('.').next().unwrap_or_default();
        let header = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| TokenError::Form("the header is not base64"))?;
        let header: StrictHeader = serde_json::from_slice(&header)
            .map_err(|_| TokenError::Form("the header has other members than alg, kid, typ"))?;
        let typed = header.typ.as_deref().is_none_or(|t| t == "JWT");
        if header.alg == "ES256" && header.kid == self.kid && typed {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
    }

    fn decode(&self, token: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[self.trust_domain.id()]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        // Times are checked by the caller, against the time that it is given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map(|t| t.claims)
            .map_err(|e| token_error(&e))
    }

    fn check_trust_domain(&self, id: &SpiffeId) -> Result<(), TokenError> {
        if id.trust_domain() == &self.trust_domain {
            Ok(())
        } else {
            Err(TokenError::TrustDomain {
                id: id.to_string(),
                trust_domain: self.trust_domain.clone(),
            })
        }
    }
}

impl Authenticator for JoinTokens {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
        now: SystemTime,
    ) -> Authenticating<'a> {
        Box::pin(async move {
            let token = credentials
                .bearer
                .as_deref()
                .filter(|t| self.knows(t))
                .ok_or(AuthError::NotPresented)?;
            self.verify(token, now).map_err(|e| AuthError::Rejected(format!("join token: {e}")))
        })
    }
}

fn token_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidAudience => {
            TokenError::Claim { claim: "aud", why: format!("expected {AUDIENCE}") }
        }
        ErrorKind::InvalidIssuer => {
            TokenError::Claim { claim: "iss", why: "issued by another authority".into() }
        }
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
        _ => TokenError::Form("the token or a claim is malformed"),
    }
}

fn check_times(claims: &Claims, now: u64) -> Result<(), TokenError> {
    let wrong = |claim, why: &str| Err(TokenError::Claim { claim, why: why.to_owned() });
    if claims.exp.saturating_add(LEEWAY.as_secs()) <= now {
        wrong("exp", "expired")
    } else if claims.nbf > now.saturating_add(LEEWAY.as_secs()) {
        wrong("nbf", "not valid yet")
    } else if claims.iat > now.saturating_add(LEEWAY.as_secs()) {
        wrong("iat", "issued in the future")
    } else if claims.exp.saturating_sub(claims.iat) > LONGEST.as_secs() {
        wrong("exp", "lives too long")
    } else {
        Ok(())
    }
}

fn random_id() -> String {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).expect("the system's random source works");
    hex(&bytes)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::local::generate_key;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tokens() -> JoinTokens {
        JoinTokens::new(TrustDomain::default(), &generate_key().unwrap()).unwrap()
    }

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "iss": "spiffe://cluster.local", "sub": id().to_string(), "aud": AUDIENCE,
            "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "x",
        })
    }

    /// Signs whatever it is given, as somebody with the right key but other intentions would.
    fn forge(
        tokens: &JoinTokens,
        header: &serde_json::Value,
        claims: &serde_json::Value,
    ) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &tokens.encoding, Algorithm::ES256)
                .unwrap();
        format!("{message}.{signature}")
    }

    fn header(tokens: &JoinTokens) -> serde_json::Value {
        serde_json::json!({"alg": "ES256", "kid": tokens.kid, "typ": "JWT"})
    }

    #[test]
    fn a_token_is_good_for_its_identity_until_it_ends() {
        let tokens = tokens();
        let token = tokens.issue(&id(), Duration::from_secs(60), Uses::Many, at(NOW)).unwrap();
        assert_eq!(tokens.verify(&token, at(NOW)).unwrap().id, id());
        assert!(tokens.verify(&token, at(NOW + 89)).is_ok(), "within the leeway");
        assert!(tokens.verify(&token, at(NOW + 90)).is_err(), "expired");
        assert!(tokens.verify(&token, at(NOW - 31)).is_err(), "not valid yet");
    }

    #[test]
    fn claims_are_pinned() {
        let tokens = tokens();
        let check = |claim: &str, value: serde_json::Value, good: bool| {
            let mut claims = claims();
            claims[claim] = value.clone();
            let verdict = tokens.verify(&forge(&tokens, &header(&tokens), &claims), at(NOW));
            assert_eq!(verdict.is_ok(), good, "{claim} = {value}: {verdict:?}");
        };
        check("jti", "other".into(), true);
        check("aud", "istio-ca".into(), false);
        check("aud", "ferromesh-ca ".into(), false);
        check("aud", serde_json::json!([AUDIENCE]), false);
        check("aud", serde_json::Value::Null, false);
        check("iss", "spiffe://other".into(), false);
        check("sub", "spiffe://other/ns/shop/sa/cart".into(), false);
        check(
            "sub",
            "spiffe://cluster.local/ns/shop/sa/cart,spiffe://cluster.local/ns/a/sa/b".into(),
            false,
        );
        check("sub", "cart".into(), false);
        check("exp", (NOW - 31).into(), false);
        check("exp", (NOW + LONGEST.as_secs() + 1).into(), false);
        check("exp", "never".into(), false);
        check("nbf", (NOW + 31).into(), false);
        check("iat", (NOW + 31).into(), false);
        check("cnf", "extra".into(), false);
    }

    #[test]
    fn headers_are_pinned() {
        let tokens = tokens();
        let check = |name: &str, value: serde_json::Value, good: bool| {
            let mut header = header(&tokens);
            header[name] = value.clone();
            let verdict = tokens.verify(&forge(&tokens, &header, &claims()), at(NOW));
            assert_eq!(verdict.is_ok(), good, "{name} = {value}: {verdict:?}");
        };
        check("typ", "JWT".into(), true);
        check("typ", "at+jwt".into(), false);
        check("alg", "none".into(), false);
        check("alg", "HS256".into(), false);
        check("alg", "ES384".into(), false);
        check("kid", "other".into(), false);
        check("jku", "https://example.com/keys".into(), false);
        check("crit", serde_json::json!([]), false);
    }

    #[test]
    fn tokens_of_others_and_mangled_ones_are_refused() {
        let tokens = tokens();
        let token = tokens.issue(&id(), Duration::from_secs(60), Uses::Many, at(NOW)).unwrap();
        let foreign = self::tokens();
        assert!(foreign.verify(&token, at(NOW)).is_err(), "foreign key");
        let (message, _) = token.rsplit_once('.').unwrap();
        let long = "a".repeat(5000);
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            &token[..token.len() - 1],
            message,
            &format!("{message}."),
            &format!("{token}.x"),
            &long,
        ] {
            assert!(tokens.verify(bad, at(NOW)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_of_a_single_use_says_so() {
        let tokens = tokens();
        let proof = |uses| {
            let token = tokens.issue(&id(), Duration::from_secs(60), uses, at(NOW)).unwrap();
            tokens.verify(&token, at(NOW)).unwrap().proof
        };
        assert!(matches!(proof(Uses::Many), Proof::Token { .. }));
        let Proof::SingleUse { token_id, expires } = proof(Uses::Once) else { panic!("of many") };
        assert_eq!((token_id.len(), expires), (32, NOW + 60));
    }

    #[test]
    fn endless_empty_and_foreign_tokens_are_not_made() {
        let tokens = tokens();
        let foreign = "spiffe://other/ns/a/sa/b".parse().unwrap();
        assert!(
            tokens.issue(&id(), LONGEST + Duration::from_secs(1), Uses::Many, at(NOW)).is_err()
        );
        assert!(tokens.issue(&id(), Duration::ZERO, Uses::Many, at(NOW)).is_err());
        assert!(tokens.issue(&foreign, Duration::from_secs(60), Uses::Many, at(NOW)).is_err());
    }
}
