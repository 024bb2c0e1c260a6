//! Whether a token (JWS, RFC 7515) is signed by a key of a JWK set (RFC 7517), for whoever explains
//! what becomes of a request that bears one. Proxies verify tokens themselves.

use std::time::SystemTime;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_xds_translator::explain::Signatures;
use serde_json::Value;

/// Verifies by the algorithms of RFC 7518 section 3.1 that have a public key, and Ed25519 (RFC
/// 8037), at the moment of this machine's clock.
pub struct Verifier;

impl Signatures for Verifier {
    fn verify(&self, token: &str, keys: &str) -> bool {
        verify(token, keys).unwrap_or(false)
    }

    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }
}

fn verify(token: &str, keys: &str) -> Option<bool> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, _) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&decoded(header)?).ok()?;
    let signature = decoded(signature)?;
    let keys: Value = serde_json::from_str(keys).ok()?;
    let algorithm = header["alg"].as_str()?;
    // A name chooses among keys; a key without one is tried always.
    let named = |key: &&Value| match (header["kid"].as_str(), key["kid"].as_str()) {
        (Some(wanted), Some(own)) => wanted == own,
        _ => true,
    };
    let meant = |key: &&Value| key["alg"].as_str().is_none_or(|own| own == algorithm);
    let mut candidates = keys["keys"].as_array()?.iter().filter(named).filter(meant);
    Some(
        candidates
            .any(|key| signed_by(key, algorithm, signed.as_bytes(), &signature).unwrap_or(false)),
    )
}

fn signed_by(key: &Value, algorithm: &str, signed: &[u8], signature: &[u8]) -> Option<bool> {
    let part = |name: &str| decoded(key[name].as_str()?);
    let rsa = |parameters: &RsaParameters| {
        let key = RsaPublicKeyComponents { n: part("n")?, e: part("e")? };
        Some(key.verify(parameters, signed, signature).is_ok())
    };
    // Uncompressed: 4, then both coordinates (SEC 1 section 2.3.3).
    let ec = |curve: &str, how: &'static dyn VerificationAlgorithm| {
        (key["crv"].as_str()? == curve).then_some(())?;
        let point = [vec![4], part("x")?, part("y")?].concat();
        Some(UnparsedPublicKey::new(how, point).verify(signed, signature).is_ok())
    };
    match (key["kty"].as_str()?, algorithm) {
        ("RSA", "RS256") => rsa(&RSA_PKCS1_2048_8192_SHA256),
        ("RSA", "RS384") => rsa(&RSA_PKCS1_2048_8192_SHA384),
        ("RSA", "RS512") => rsa(&RSA_PKCS1_2048_8192_SHA512),
        ("RSA", "PS256") => rsa(&RSA_PSS_2048_8192_SHA256),
        ("RSA", "PS384") => rsa(&RSA_PSS_2048_8192_SHA384),
        ("RSA", "PS512") => rsa(&RSA_PSS_2048_8192_SHA512),
        ("EC", "ES256") => ec("P-256", &ECDSA_P256_SHA256_FIXED),
        ("EC", "ES384") => ec("P-384", &ECDSA_P384_SHA384_FIXED),
        ("EC", "ES512") => ec("P-521", &ECDSA_P521_SHA512_FIXED),
        ("OKP", "EdDSA") => {
            Some(UnparsedPublicKey::new(&ED25519, part("x")?).verify(signed, signature).is_ok())
        }
        _ => None,
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 appendix A.3: a token by ES256, and the key that it was signed by.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    #[test]
    fn a_token_is_verified_by_the_key_that_signed_it() {
        assert!(Verifier.verify(TOKEN, KEY));
        let changed = TOKEN.replace("DtEh", "DtEi");
        let other = KEY.replace("f83O", "f83P");
        let named = KEY.replace("\"kty\"", "\"alg\":\"RS256\",\"kty\"");
        for (token, keys) in
            [(&*changed, KEY), (TOKEN, &*other), (TOKEN, &*named), ("a.b.c", KEY), (TOKEN, "{}")]
        {
            assert!(!Verifier.verify(token, keys), "{token} {keys}");
        }
    }
}
