//! Tokens and keys: those of the standards, of every algorithm, and what is none.

use proptest::proptest;
use serde_json::{Value, json};

use super::{signer::Signer, *};

/// RFC 7515, appendix A.1: a token by HS256, and its key.
const SHARED: (&str, &str) = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    r#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#,
);

/// RFC 7515, appendix A.3: the same by ES256.
const CURVE: (&str, &str) = (
    "eyJhbGciOiJFUzI1NiJ9.\
     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
     DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#,
);

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&json!({ "keys": keys }).to_string())
}

fn verified(token: &str, keys: &KeySet) -> Result<(), Fault> {
    keys.verify(&Token::parse(token)?)
}

fn fault(token: &str) -> String {
    Token::parse(token).expect_err("it is refused").to_string()
}

/// A token that nobody has signed.
fn written(header: &str, claims: &str) -> String {
    let part = |text: &str| BASE64.encode(text).trim_end_matches('=').to_owned();
    format!("{}.{}.c2ln", part(header), part(claims))
}

#[test]
fn the_tokens_of_the_standard_are_valid() {
    for (token, keys) in [SHARED, CURVE] {
        let token = Token::parse(token).unwrap();
        assert_eq!(KeySet::parse(keys).verify(&token), Ok(()));
        assert_eq!(token.issuer(), "joe");
        assert_eq!(token.check_time(1_300_819_380, 0), Ok(()));
        assert_eq!(token.check_time(1_300_819_381, 0), Err(Fault::Expired));
        assert_eq!(token.check_time(1_300_819_440, 60), Ok(()));
    }
    let [(shared, _), (_, keys)] = [SHARED, CURVE];
    assert_eq!(verified(shared, &KeySet::parse(keys)), Err(Fault::Unverified));
}

#[test]
fn every_algorithm_verifies_by_the_key_of_its_kind_and_no_other() {
    let kinds = ["RS256", "ES256", "ES384", "ES512", "EdDSA", "HS256"].map(Signer::new);
    let keys: Vec<KeySet> = kinds.iter().map(|signer| set(&[signer.jwk("")])).collect();
    for (kind, algorithms) in [
        (0, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (1, &["ES256"]),
        (2, &["ES384"]),
        (3, &["ES512"]),
        (4, &["EdDSA"]),
        (5, &["HS256", "HS384", "HS512"]),
    ] {
        for algorithm in algorithms {
            let token = kinds[kind].sign(&json!({ "alg": algorithm }), &json!({"sub": "a"}));
            for (at, keys) in keys.iter().enumerate() {
                let expected = if at == kind { Ok(()) } else { Err(Fault::Unverified) };
                assert_eq!(verified(&token, keys), expected, "{algorithm} by {at}");
            }
            let (signed, _) = token.rsplit_once('.').unwrap();
            for forged in [format!("{signed}.c2ln"), token.replacen("ey", "ey0", 1)] {
                assert!(verified(&forged, &keys[kind]).is_err(), "{algorithm}");
            }
        }
    }
}

#[test]
fn a_key_is_chosen_by_its_name_and_its_algorithm() {
    let (one, other) = (Signer::new("ES256"), Signer::new("ES256"));
    let token = one.sign(&json!({"alg": "ES256", "kid": "one"}), &json!({}));
    let unnamed = one.sign(&json!({"alg": "ES256"}), &json!({}));
    let mut keys: Vec<Value> = (0..100).map(|i| other.jwk(&format!("other-{i}"))).collect();
    assert_eq!(verified(&token, &set(&keys)), Err(Fault::NoSuchKey));
    assert_eq!(verified(&unnamed, &set(&keys)), Err(Fault::Unverified));
    keys.push(one.jwk("one"));
    assert_eq!(verified(&token, &set(&keys)), Ok(()));
    assert_eq!(verified(&unnamed, &set(&keys)), Ok(()));
    let mut wrong = one.jwk("one");
    wrong["alg"] = "ES384".into();
    assert!(set(&[wrong.clone()]).is_empty(), "the curve is not of the algorithm");
    wrong["alg"] = "ES256".into();
    wrong["crv"].take();
    assert_eq!(verified(&token, &set(&[wrong])), Ok(()));
}

#[test]
fn what_is_no_key_is_left_out() {
    let short = json!({"kty": "RSA", "e": "AQAB", "n": URL_SAFE_64});
    for keys in [
        json!([]),
        json!([short]),
        json!([{"kty": "oct", "k": ""}, {"kty": "none"}, "key", {"kty": "EC", "x": "AA", "y": "AA"}]),
        json!([{"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]),
    ] {
        let set = KeySet::parse(&json!({ "keys": keys }).to_string());
        assert_eq!(set.len(), 0, "{keys}");
        assert_eq!(verified(SHARED.0, &set), Err(Fault::NoKeys));
    }
    assert!(KeySet::parse("no JSON").is_empty() && KeySet::parse("{}").is_empty());
    let keys = KeySet::parse(SHARED.1);
    assert!(!format!("{keys:?}").contains("AyM1"), "keys are not shown");
    assert_ne!(format!("{keys:?}"), format!("{:?}", KeySet::parse(CURVE.1)));
}

/// 512 bits of a modulus.
const URL_SAFE_64: &str =
    "u1W2WmT3mGkN1uLAnV1jU8bDFu2IvPwLbUHrCx2b9oJ4aR7eMZxCw8VxVrQqDm9b1kVh3yZ0n2xkTj5s7pQeHw";

#[test]
fn what_is_wrong_with_a_token_is_said_in_envoys_words() {
    let header = |header: &str| written(header, "{}");
    let claims = |claims: &str| written(r#"{"alg":"ES256"}"#, claims);
    for (token, expected) in [
        ("a", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        (
            "a.b.c.d",
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        ("a..c", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ("%.b.c", "Jwt header is an invalid Base64url encoded"),
        (&header("[]"), "Jwt header is an invalid JSON"),
        (&header("{}"), "Jwt header [alg] field is required and must be a string"),
        (&header(r#"{"alg":"none"}"#), "Jwt header [alg] is not supported"),
        (&header(r#"{"alg":"ES256","kid":1}"#), "Jwt header [kid] field is not a string"),
        ("eyJhbGciOiJFUzI1NiJ9.%.c", "Jwt payload is an invalid Base64url encoded"),
        (&claims("1"), "Jwt payload is an invalid JSON"),
        (&claims(r#"{"iss":1}"#), "Jwt payload [iss] field is not a string"),
        (&claims(r#"{"exp":"1"}"#), "Jwt payload [exp] field is not an integer"),
        (&claims(r#"{"nbf":-1}"#), "Jwt payload [nbf] field is not a positive 64 bit integer"),
        (&claims(r#"{"aud":[1]}"#), "Jwt payload [aud] field is not a string or string list"),
        ("eyJhbGciOiJFUzI1NiJ9.e30.%", "Jwt signature is an invalid Base64url encoded"),
    ] {
        assert_eq!(fault(token), expected, "{token}");
    }
    let token = claims(r#"{"aud":["a","b"],"nbf":100}"#);
    let token = Token::parse(&token).unwrap();
    assert_eq!(token.audiences().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(token.check_time(39, 60), Err(Fault::NotYetValid));
    assert_eq!(token.check_time(40, 60), Ok(()));
}

proptest! {
    #[test]
    fn arbitrary_texts_never_panic(text in ".{0,200}", header in ".{0,60}", claims in ".{0,60}") {
        let keys = KeySet::parse(CURVE.1);
        let _ = KeySet::parse(&text);
        for token in [text, written(&header, &claims)] {
            if let Ok(token) = Token::parse(&token) {
                assert!(keys.verify(&token).is_err());
            }
        }
    }
}
