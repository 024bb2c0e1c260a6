//! Tokens: good, bad, old, forged, of somebody else, at every place.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_integration::token::Issuer;
use serde_json::{Value, json};

use crate::beside::Pair;

/// `A` and `B` are the key sets of two issuers.
const MESH: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  jwtRules:
  - issuer: https://a.test
    jwks: 'KEYS-A'
    audiences: [shop, "https://bank/"]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders:
    - {header: x-sub, claim: sub}
    - {header: x-role, claim: realm.role}
    - {header: x-age, claim: age}
    - {header: x-adult, claim: adult}
  - issuer: b
    jwks: 'KEYS-B'
    forwardOriginalToken: true
    fromHeaders: [{name: x-jwt, prefix: "JWT "}, {name: x-bare}]
    fromParams: [t]
    fromCookies: [session]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: claims, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - when: [{key: "request.auth.claims[scope]", values: [write]}]
  - when: [{key: "request.auth.claims[realm][role]", values: [guest]}]
  - to: [{operation: {paths: [/private]}}]
    from: [{source: {notRequestPrincipals: ["https://a.test/*"]}}]
"#;

struct Issuers {
    a: Issuer,
    b: Issuer,
    nobody: Issuer,
}

impl Issuers {
    /// Tokens of every kind, and what each is.
    fn tokens(&self) -> Vec<(&'static str, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let good =
            json!({"iss": "https://a.test", "sub": "alice", "aud": "shop", "exp": now + 600});
        let but = |more: Value| {
            let mut claims = good.clone();
            let all = more.as_object().expect("claims").clone();
            claims.as_object_mut().expect("claims").extend(all);
            claims
        };
        let a = |more| self.a.sign(&but(more));
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let unsigned = |header: &str, claims: &str| {
            format!("{}.{}.{}", part(header), part(claims), part("signature"))
        };
        let es256 = r#"{"alg":"ES256"}"#;
        let signed = a(json!({}));
        let (text, _) = signed.rsplit_once('.').expect("three parts");
        vec![
            ("good", signed.clone()),
            ("of b", self.b.sign(&json!({"iss": "b", "sub": "bob", "scope": "read"}))),
            ("of b, denied", self.b.sign(&json!({"iss": "b", "scope": "read write"}))),
            ("that denies", a(json!({"scope": "write read"}))),
            ("of a guest", a(json!({"realm": {"role": ["guest"]}}))),
            ("of staff", a(json!({"realm": {"role": "staff"}, "age": 42, "adult": true}))),
            ("with odd claims", a(json!({"age": 1.5, "adult": null, "sub": "\u{e4} \"b\""}))),
            ("for the bank", a(json!({"aud": ["x", "http://bank"]}))),
            ("for others", a(json!({"aud": "mall"}))),
            ("for nobody", a(json!({"aud": []}))),
            ("too old", a(json!({"exp": now - 90}))),
            ("just too old", a(json!({"exp": now - 30}))),
            ("too early", a(json!({"nbf": now + 90}))),
            ("almost too early", a(json!({"nbf": now + 30}))),
            ("of an unknown issuer", a(json!({"iss": "c"}))),
            ("of a as b", self.b.sign(&but(json!({"iss": "https://a.test"})))),
            ("forged", self.nobody.sign_as(self.a.kid(), &but(json!({})))),
            ("by an unknown key", self.a.sign_as("other", &but(json!({})))),
            ("cut", text.to_owned()),
            ("with a bad signature", format!("{text}.AAAA")),
            ("with no signature", format!("{text}.")),
            ("with a strange end", format!("{signed}!")),
            ("with a fourth part", format!("{signed}.a")),
            ("no token", "nothing".to_owned()),
            ("dots", "..".to_owned()),
            ("without algorithm", unsigned("{}", "{}")),
            ("with the algorithm none", unsigned(r#"{"alg":"none"}"#, "{}")),
            ("with a number for its key", unsigned(r#"{"alg":"ES256","kid":1}"#, "{}")),
            ("whose header is a list", unsigned("[]", "{}")),
            ("whose payload is a text", unsigned(es256, "\"a\"")),
            ("whose issuer is a number", unsigned(es256, r#"{"iss":1}"#)),
            ("whose subject is a number", unsigned(es256, r#"{"sub":1}"#)),
            ("whose end is a text", unsigned(es256, r#"{"exp":"1"}"#)),
            ("whose end is negative", unsigned(es256, r#"{"exp":-1}"#)),
            ("whose audience is a number", unsigned(es256, r#"{"aud":7}"#)),
            ("whose header is no base64", format!("%.{}.a", part("{}"))),
        ]
    }
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: cart\r\n{headers}connection: close\r\n\r\n")
}

/// Requests that bear a token where somebody may look.
fn bearing(token: &str) -> Vec<String> {
    vec![
        request("/", &format!("authorization: Bearer {token}\r\n")),
        request("/private", &format!("authorization: Bearer {token}\r\nx-sub: mallory\r\n")),
        request("/", &format!("authorization: bearer {token}\r\n")),
        request("/", &format!("authorization: a Bearer   {token}\r\n")),
        request(&format!("/?access_token={token}"), ""),
        request("/", &format!("x-jwt: JWT {token}\r\n")),
        request("/", &format!("x-jwt: {token}\r\n")),
        request("/", &format!("x-bare: {token}\r\n")),
        request("/", &format!("cookie: a=b; session={token}\r\n")),
        request("/", &format!("cookie: session=\"{token}\"; session=other\r\n")),
        request(&format!("/?t={token}&x=1"), ""),
    ]
}

#[test]
fn our_proxy_takes_and_refuses_the_tokens_that_envoy_does() {
    let [a, b, nobody] = ["a", "b", "nobody"].map(Issuer::new);
    let issuers = Issuers { a, b, nobody };
    let pair = Pair::start(1);
    let mesh = MESH.replace("KEYS-A", &issuers.a.jwks()).replace("KEYS-B", &issuers.b.jwks());
    pair.write("tokens.yaml", &mesh);
    pair.until_status(&request("/", "authorization: Bearer a.b.c\r\n"), 401);
    let tokens = issuers.tokens();
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let mut differences = Vec::new();
    let mut ask = |what: &str, request: &str| {
        let [envoy, ours] = pair.answers(request);
        *statuses.entry(ferromesh_integration::workload::status(&envoy)).or_default() += 1;
        if envoy != ours {
            differences.push(format!("{what}\n{request}Envoy:\n{envoy}\nours:\n{ours}"));
        }
    };
    for (what, token) in &tokens {
        bearing(token).iter().for_each(|request| ask(what, request));
    }
    let (good, bad) = (&tokens[0].1, &tokens[16].1);
    for (one, other) in [(good, good), (good, bad), (bad, good)] {
        for path in ["/", &format!("/?access_token={other}")] {
            let twice = format!("authorization: Bearer {one}\r\nauthorization: Bearer {other}\r\n");
            ask("two tokens", &request(path, &twice));
            ask("two places", &request(path, &format!("x-jwt: JWT {one}\r\n")));
        }
    }
    ask("none", &request("/", ""));
    ask("none, where one is needed", &request("/private", ""));
    let long = format!("/{}", "a".repeat(400));
    ask("a long path", &request(&long, "authorization: Bearer a.b.c\r\n"));
    let preflight = request("/", "origin: http://x\r\naccess-control-request-method: GET\r\n");
    ask("a preflight", &preflight.replacen("GET", "OPTIONS", 1));
    let grpc = request("/a.b/c", "content-type: application/grpc\r\nauthorization: Bearer a.b\r\n");
    ask("gRPC", &grpc.replacen("GET", "POST", 1));
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n\n"));
    for status in [200, 401, 403] {
        assert!(statuses.get(&status).is_some_and(|count| *count >= 20), "{statuses:?}");
    }
}
