//! JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515), and the keys (RFC 7517) that
//! they are verified with.
//!
//! Pure: nothing is fetched, and who asks brings the time. What is wrong with a token is worded as
//! Envoy words it, since clients are told. A key verifies by the algorithms of its own kind alone
//! (RFC 8725, section 3.1), and an RSA key of fewer than 2048 bits by none (RFC 7518, section 3.3).

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

mod key;

pub use self::key::KeySet;
use self::key::{ALGORITHMS, Algorithm};

/// Padding is optional, as in Envoy; RFC 7515 has none.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a token is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error("Jwt is missing")]
    Missing,
    /// It is not three parts.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// Its header is not encoded so.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderEncoding,
    /// Its header is no object.
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    /// Its header does not say by which algorithm it is signed.
    #[error("Jwt header [alg] field is required and must be a string")]
    NoAlgorithm,
    /// Nobody here knows the algorithm; `none` is one of those.
    #[error("Jwt header [alg] is not supported")]
    UnknownAlgorithm,
    /// The name of its key is no text.
    #[error("Jwt header [kid] field is not a string")]
    KeyName,
    /// Its payload is not encoded so.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadEncoding,
    /// Its payload is no object.
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    /// A registered claim (RFC 7519, section 4.1) is not of its kind.
    #[error("Jwt payload [{0}] field is not {1}")]
    Claim(&'static str, &'static str),
    /// Its signature is not encoded so.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureEncoding,
    /// Nobody takes tokens of this issuer.
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    /// Its time has not come.
    #[error("Jwt not yet valid")]
    NotYetValid,
    /// Its time is over.
    #[error("Jwt is expired")]
    Expired,
    /// It is for others.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// There is no key to verify it with.
    #[error("Jwks doesn't have any valid public key")]
    NoKeys,
    /// None of the keys has its key's name and algorithm.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoSuchKey,
    /// No key has signed it.
    #[error("Jwt verification fails")]
    Unverified,
}

/// A token that was read and not verified.
#[derive(Debug)]
pub struct Token<'a> {
    /// Header and payload as they are signed, with the dot between them.
    signed: &'a str,
    /// The payload as it is signed.
    pub payload: &'a str,
    algorithm: &'static Algorithm,
    /// The name of its key; may be empty.
    key: String,
    signature: Vec<u8>,
    /// Its header.
    pub header: Map<String, Value>,
    /// Its payload.
    pub claims: Map<String, Value>,
    /// Seconds since the epoch; 0 for none.
    not_before: u64,
    expires: u64,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Form)?;
        let (head, payload) = signed.split_once('.').ok_or(Fault::Form)?;
        if payload.contains('.') || [head, payload, signature].contains(&"") {
            return Err(Fault::Form);
        }
        let header = object(head, Fault::HeaderEncoding, Fault::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Fault::NoAlgorithm)?;
        let algorithm = ALGORITHMS.iter().find(|known| known.name == algorithm);
        let algorithm = algorithm.ok_or(Fault::UnknownAlgorithm)?;
        let key = match header.get("kid") {
            None => String::new(),
            Some(name) => name.as_str().ok_or(Fault::KeyName)?.to_owned(),
        };
        let claims = object(payload, Fault::PayloadEncoding, Fault::PayloadJson)?;
        let [_, not_before, expires] = check_claims(&claims)?;
        let signature = BASE64.decode(signature).map_err(|_| Fault::SignatureEncoding)?;
        Ok(Self { signed, payload, algorithm, key, signature, header, claims, not_before, expires })
    }

    /// Who has made it, as it says; may be empty.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whom it is for.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        let (one, several) = match self.claims.get("aud") {
            Some(Value::Array(several)) => (None, &several[..]),
            one => (one, &[][..]),
        };
        one.into_iter().chain(several).filter_map(Value::as_str)
    }

    /// Whether it is valid `now`, in seconds since the epoch, by clocks that differ by up to `skew`.
    ///
    /// # Errors
    /// [`Fault::NotYetValid`], [`Fault::Expired`].
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Fault> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Fault::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Fault::Expired);
        }
        Ok(())
    }
}

fn object(text: &str, encoding: Fault, json: Fault) -> Result<Map<String, Value>, Fault> {
    let bytes = BASE64.decode(text).map_err(|_| encoding)?;
    serde_json::from_slice(&bytes).map_err(|_| json)
}

/// Registered claims are of their kinds; the three moments, 0 for those that are not said.
fn check_claims(claims: &Map<String, Value>) -> Result<[u64; 3], Fault> {
    let text = |name: &'static str| match claims.get(name) {
        Some(claim) if !claim.is_string() => Err(Fault::Claim(name, "a string")),
        _ => Ok(()),
    };
    text("iss")?;
    text("sub")?;
    let moments = [moment(claims, "iat")?, moment(claims, "nbf")?, moment(claims, "exp")?];
    text("jti")?;
    match claims.get("aud") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(audiences)) if audiences.iter().all(Value::is_string) => {}
        Some(_) => return Err(Fault::Claim("aud", "a string or string list")),
    }
    Ok(moments)
}

/// A moment in whole seconds (RFC 7519, section 2, "NumericDate"); parts of one are cut off.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<u64, Fault> {
    let Some(claim) = claims.get(name) else { return Ok(0) };
    let seconds = claim.as_f64().filter(|_| claim.is_number());
    let seconds = seconds.ok_or(Fault::Claim(name, "an integer"))?;
    if (0.0..u64::MAX as f64).contains(&seconds) {
        Ok(seconds as u64)
    } else {
        Err(Fault::Claim(name, "a positive 64 bit integer"))
    }
}

#[cfg(test)]
pub(crate) mod signer;
#[cfg(test)]
mod tests;
