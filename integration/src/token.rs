//! Tokens (JWT, RFC 7519) as an issuer makes them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Who signs tokens, by a key of its own (ES256).
pub struct Issuer {
    key: EcdsaKeyPair,
    kid: String,
}

impl Issuer {
    /// One with a new key, which is called `kid`.
    ///
    /// # Panics
    /// The system gives no random numbers.
    pub fn new(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { key, kid: kid.to_owned() }
    }

    /// A token that says these claims, and that its key is called `kid`.
    ///
    /// # Panics
    /// The system gives no random numbers.
    pub fn sign_as(&self, kid: &str, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid});
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("signing");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that says these claims.
    ///
    /// # Panics
    /// As [`Self::sign_as`].
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.kid, claims)
    }

    /// What the key is called.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public key, as a JWK set (RFC 7517).
    pub fn jwks(&self) -> String {
        // Uncompressed: 4, then both coordinates (SEC 1 section 2.3.3).
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.kid,
            "x": part(1..33), "y": part(33..65),
        });
        json!({ "keys": [key] }).to_string()
    }
}
