//! Who signs tokens, for tests.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key of its own.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Curve(&'static str, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Shared(Vec<u8>),
}

impl Signer {
    /// One for tokens that are signed by this algorithm.
    pub(crate) fn new(algorithm: &str) -> Self {
        let curve = |name, how| Self::Curve(name, EcdsaKeyPair::generate(how).unwrap());
        match algorithm {
            "ES256" => curve("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => curve("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => curve("P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
            "EdDSA" => Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            _ if algorithm.starts_with("HS") => Self::Shared(b"known to both".to_vec()),
            _ => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        }
    }

    /// Its key as others may know it, called `kid`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let key = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": text(key.modulus().big_endian_without_leading_zero()),
                    "e": text(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::Curve(name, pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": name, "x": text(x), "y": text(y)})
            }
            Self::Ed25519(pair) => {
                let x = text(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
            Self::Shared(key) => json!({"kty": "oct", "k": text(key)}),
        };
        jwk["kid"] = kid.into();
        jwk
    }

    /// A token with this header and these claims, signed as the header says.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let signature = self.signature(header["alg"].as_str().unwrap(), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let how: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, text, &mut signature).unwrap();
                signature
            }
            Self::Curve(_, pair) => pair.sign(&random, text).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
            Self::Shared(key) => {
                let how = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(how, key), text).as_ref().to_vec()
            }
        }
    }
}
