//! Keys, and what they verify.

use std::{fmt, sync::OnceLock};

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, VerificationAlgorithm,
    },
};
use base64::Engine;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{BASE64, Fault, Token};

/// How tokens are signed (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug)]
pub(super) struct Algorithm {
    pub(super) name: &'static str,
    by: By,
}

#[derive(Clone, Copy, Debug)]
enum By {
    /// A place in [`RSA`].
    Rsa(usize),
    /// A place in [`CURVES`].
    Curve(usize),
    Ed25519,
    /// A place in [`SHARED`].
    Shared(usize),
}

pub(super) static ALGORITHMS: [Algorithm; 13] = [
    Algorithm { name: "RS256", by: By::Rsa(0) },
    Algorithm { name: "RS384", by: By::Rsa(1) },
    Algorithm { name: "RS512", by: By::Rsa(2) },
    Algorithm { name: "PS256", by: By::Rsa(3) },
    Algorithm { name: "PS384", by: By::Rsa(4) },
    Algorithm { name: "PS512", by: By::Rsa(5) },
    Algorithm { name: "ES256", by: By::Curve(0) },
    Algorithm { name: "ES384", by: By::Curve(1) },
    Algorithm { name: "ES512", by: By::Curve(2) },
    Algorithm { name: "EdDSA", by: By::Ed25519 },
    Algorithm { name: "HS256", by: By::Shared(0) },
    Algorithm { name: "HS384", by: By::Shared(1) },
    Algorithm { name: "HS512", by: By::Shared(2) },
];

const RSA: [&dyn VerificationAlgorithm; 6] = [
    &RSA_PKCS1_2048_8192_SHA256,
    &RSA_PKCS1_2048_8192_SHA384,
    &RSA_PKCS1_2048_8192_SHA512,
    &RSA_PSS_2048_8192_SHA256,
    &RSA_PSS_2048_8192_SHA384,
    &RSA_PSS_2048_8192_SHA512,
];

/// Bytes of the modulus of an RSA key (RFC 7518, section 3.3).
const SHORTEST_MODULUS: usize = 2048 / 8;

struct Curve {
    name: &'static str,
    /// Of the algorithm that it is for.
    algorithm: &'static str,
    /// Bytes of a coordinate.
    width: usize,
    how: &'static dyn VerificationAlgorithm,
}

const CURVES: [Curve; 3] = [
    Curve { name: "P-256", algorithm: "ES256", width: 32, how: &ECDSA_P256_SHA256_FIXED },
    Curve { name: "P-384", algorithm: "ES384", width: 48, how: &ECDSA_P384_SHA384_FIXED },
    Curve { name: "P-521", algorithm: "ES512", width: 66, how: &ECDSA_P521_SHA512_FIXED },
];

const SHARED: [hmac::Algorithm; 3] = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];

/// Keys that tokens are verified with. With none of them no token is valid.
pub struct KeySet {
    keys: Vec<Key>,
    /// Tells it from others, and nothing of what it holds.
    fingerprint: [u8; 8],
}

struct Key {
    /// Empty: it may have signed tokens that name any key.
    name: String,
    /// Empty: any that its material is for.
    algorithm: String,
    material: Material,
}

enum Material {
    Rsa(Box<RsaKey>),
    Curve(usize, ParsedPublicKey),
    Ed25519(ParsedPublicKey),
    Shared(Zeroizing<Vec<u8>>),
}

/// An RSA key, parsed for each algorithm when the first token by it comes.
struct RsaKey {
    /// Its SubjectPublicKeyInfo (RFC 5280, section 4.1).
    info: Vec<u8>,
    parsed: [OnceLock<Option<ParsedPublicKey>>; RSA.len()],
}

impl KeySet {
    /// Reads a JWK set; what is no key that anything could be verified with is left out (RFC 7517,
    /// section 5), so that a text that is no set is one without keys.
    pub fn parse(text: &str) -> Self {
        let set: Value = serde_json::from_str(text).unwrap_or_default();
        let keys = set.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&digest.as_ref()[..8]);
        Self { keys: keys.iter().filter_map(Key::parse).collect(), fingerprint }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of them has signed a token.
    ///
    /// # Errors
    /// [`Fault::NoKeys`], [`Fault::NoSuchKey`], [`Fault::Unverified`].
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Fault> {
        let mut fault = if self.keys.is_empty() { Fault::NoKeys } else { Fault::NoSuchKey };
        for key in self.keys.iter().filter(|key| key.may_have_signed(token)) {
            if key.has_signed(token) {
                return Ok(());
            }
            fault = Fault::Unverified;
        }
        Err(fault)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeySet").field(&self.keys.len()).field(&self.fingerprint).finish()
    }
}

impl Key {
    fn parse(jwk: &Value) -> Option<Self> {
        let text = |member: &str| jwk.get(member).and_then(Value::as_str);
        let algorithm = text("alg").unwrap_or_default();
        let suits = |prefixes: &[&str]| {
            algorithm.is_empty() || prefixes.iter().any(|prefix| algorithm.starts_with(prefix))
        };
        let bytes = |member: &str| BASE64.decode(text(member)?).ok();
        let material = match text("kty")? {
            "RSA" if suits(&["RS", "PS"]) => Material::rsa(bytes("n")?, bytes("e")?)?,
            "EC" => Material::curve(curve(text("crv"), algorithm)?, bytes("x")?, bytes("y")?)?,
            "OKP" if suits(&["EdDSA"]) && text("crv") == Some("Ed25519") => {
                Material::Ed25519(ParsedPublicKey::new(&ED25519, bytes("x")?).ok()?)
            }
            "oct" if suits(&["HS256", "HS384", "HS512"]) => {
                Material::Shared(bytes("k").filter(|key| !key.is_empty())?.into())
            }
            _ => return None,
        };
        let name = text("kid").unwrap_or_default().to_owned();
        Some(Self { name, algorithm: algorithm.to_owned(), material })
    }

    fn may_have_signed(&self, token: &Token<'_>) -> bool {
        let same = |own: &str, said: &str| own.is_empty() || own == said;
        (token.key.is_empty() || same(&self.name, &token.key))
            && same(&self.algorithm, token.algorithm.name)
    }

    fn has_signed(&self, token: &Token<'_>) -> bool {
        let (signed, signature) = (token.signed.as_bytes(), &token.signature[..]);
        let by = |key: &ParsedPublicKey| key.verify_sig(signed, signature).is_ok();
        match (&self.material, token.algorithm.by) {
            (Material::Rsa(key), By::Rsa(how)) => key.parsed(how).is_some_and(by),
            (Material::Curve(own, key), By::Curve(curve)) => *own == curve && by(key),
            (Material::Ed25519(key), By::Ed25519) => by(key),
            (Material::Shared(secret), By::Shared(how)) => {
                hmac::verify(&hmac::Key::new(SHARED[how], secret), signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// The curve of a key, by its name or by the algorithm; P-256 where neither is said, as in Envoy.
fn curve(name: Option<&str>, algorithm: &str) -> Option<usize> {
    match (name.unwrap_or_default(), algorithm) {
        ("", "") => Some(0),
        (name, algorithm) => CURVES.iter().position(|curve| {
            (name.is_empty() || curve.name == name)
                && (algorithm.is_empty() || curve.algorithm == algorithm)
        }),
    }
}

impl Material {
    fn rsa(modulus: Vec<u8>, exponent: Vec<u8>) -> Option<Self> {
        let (n, e) = (without_zeros(&modulus), without_zeros(&exponent));
        let info: PublicKeyX509Der<'_> = RsaPublicKeyComponents { n, e }.as_der().ok()?;
        let key = RsaKey { info: info.as_ref().to_vec(), parsed: Default::default() };
        // One that no algorithm may use is none.
        (n.len() >= SHORTEST_MODULUS && key.parsed(0).is_some()).then(|| Self::Rsa(Box::new(key)))
    }

    fn curve(at: usize, x: Vec<u8>, y: Vec<u8>) -> Option<Self> {
        let Curve { width, how, .. } = CURVES[at];
        // Uncompressed: 4, then both coordinates (SEC 1, section 2.3.3).
        let mut point = vec![4];
        for coordinate in [x, y] {
            let coordinate = without_zeros(&coordinate);
            point.resize(point.len() + width.checked_sub(coordinate.len())?, 0);
            point.extend_from_slice(coordinate);
        }
        Some(Self::Curve(at, ParsedPublicKey::new(how, point).ok()?))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|byte| *byte != 0).unwrap_or(number.len())..]
}

impl RsaKey {
    fn parsed(&self, how: usize) -> Option<&ParsedPublicKey> {
        let parse = || ParsedPublicKey::new(RSA[how], &self.info).ok();
        self.parsed[how].get_or_init(parse).as_ref()
    }
}
