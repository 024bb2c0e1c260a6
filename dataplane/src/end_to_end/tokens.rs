//! Tokens of requests, through real sockets. What is expected is what Envoy 1.40 answers with the
//! same configuration.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, Request, header::AUTHORIZATION};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    fixture::*,
    peer::{Answer, Server, client, send},
};
use crate::runtime::{
    HttpFilter, Rbac,
    action::{Action, DirectResponse},
    authz::{Condition, Policy, RbacAction},
    filter::{
        FilterOverride, FilterOverrides,
        jwt_authn::{
            Audiences, JwtAuthn, JwtOverride, Lenient, Place, Provider, Requirement, Rule,
        },
    },
    jwt::{KeySet, signer::Signer},
    matcher::StringMatcher,
    metadata::{MetadataMatcher, ValueMatcher},
    route::{Route, VirtualHost},
    target::ClusterChoice,
};

const NAME: &str = "envoy.filters.http.jwt_authn";

/// An issuer, its key, and how our proxy looks at its tokens.
struct Issuer {
    signer: Signer,
    name: &'static str,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        Self { signer: Signer::new("ES256"), name }
    }

    fn token(&self, more: &Value) -> String {
        let mut claims = json!({"iss": self.name, "sub": "alice", "aud": "https://shop/"});
        let own = claims.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        self.signer.sign(&json!({"alg": "ES256", "kid": self.name}), &claims)
    }

    fn provider(&self) -> Provider {
        let keys = json!({"keys": [self.signer.jwk(self.name)]});
        Provider {
            name: self.name.into(),
            issuer: self.name.into(),
            audiences: Audiences::new(["shop"]),
            places: vec![
                Place::Header(AUTHORIZATION, "Bearer ".into()),
                Place::Header(HeaderName::from_static("x-jwt"), "".into()),
                Place::Parameter("access_token".into()),
                Place::Cookie("session".into()),
            ],
            forward: false,
            payload_header: Some(HeaderName::from_static("x-payload")),
            padded: false,
            payload_key: Some("payload".into()),
            header_key: Some("header".into()),
            lists_of_words: vec!["scope".into()],
            clock_skew: 60,
            claim_headers: vec![
                (HeaderName::from_static("x-sub"), vec!["sub".into()]),
                (HeaderName::from_static("x-role"), vec!["realm".into(), "role".into()]),
            ],
            reroutes: false,
            keys: KeySet::parse(&keys.to_string()),
        }
    }
}

fn filter(providers: Vec<Provider>, requirement: Requirement) -> JwtAuthn {
    JwtAuthn {
        providers,
        rules: vec![Rule {
            matching: route("/", Action::Direct(silent())).matching,
            requirement: Some(requirement),
        }],
        requirements: BTreeMap::new(),
        bypass_cors_preflight: true,
        silent: false,
    }
}

fn silent() -> DirectResponse {
    DirectResponse { status: 200, body: "by another route".into() }
}

async fn proxy(filters: Vec<HttpFilter>, hosts: Vec<VirtualHost>, server: &Server) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(hosts);
    for filter in filters.into_iter().rev() {
        manager.filters.insert(0, filter);
    }
    let clusters = vec![proxy.cluster("a", &[server.address])];
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    proxy
}

async fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(proxy.url(path)).body(Full::default()).unwrap();
    for (name, value) in headers {
        request
            .headers_mut()
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    send(&client(), request).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_valid_token_passes_and_every_other_is_answered_as_envoy_does() {
    let (server, issuer) = (Server::echoing().await, Issuer::new("me"));
    let tokens = filter(vec![issuer.provider()], Requirement::Provider(0, None));
    let proxy =
        proxy(vec![HttpFilter::JwtAuthn(Arc::new(tokens))], vec![to("a", |_| {})], &server).await;
    let good = issuer.token(&json!({"exp": now() + 60}));
    let passed = ask(
        &proxy,
        "/a?x=%26y&b",
        &[("authorization", &bearer(&good)), ("x-sub", "mallory"), ("x-role", "root")],
    )
    .await;
    assert_eq!(passed.status, 200);
    assert!(passed.body.starts_with("GET /a?x=%26y&b\n"), "{}", passed.body);
    assert!(passed.body.contains("x-sub: alice\n"), "{}", passed.body);
    assert!(!passed.body.contains("x-role") && !passed.body.contains("authorization"));
    let payload = good.split('.').nth(1).unwrap();
    assert!(passed.body.contains(&format!("x-payload: {payload}\n")), "{}", passed.body);

    let forged = Issuer::new("me").token(&json!({}));
    let host = proxy.address;
    let realm = format!("Bearer realm=\"http://{host}/a\"");
    let invalid = format!("{realm}, error=\"invalid_token\"");
    for (token, status, body, challenge) in [
        ("", 401, "Jwt is missing", &realm),
        (&*forged, 401, "Jwt verification fails", &invalid),
        (&*issuer.token(&json!({"iss": "you"})), 401, "Jwt issuer is not configured", &invalid),
        (&*issuer.token(&json!({"exp": now() - 70})), 401, "Jwt is expired", &invalid),
        (&*issuer.token(&json!({"nbf": now() + 70})), 401, "Jwt not yet valid", &invalid),
        (&*issuer.token(&json!({"aud": ["b"]})), 403, "Audiences in Jwt are not allowed", &invalid),
        (
            "no.token",
            401,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            &invalid,
        ),
    ] {
        let bearer = bearer(token);
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let refused = ask(&proxy, "/a", headers).await;
        assert_eq!((refused.status, refused.body.as_str()), (status, body), "{token}");
        assert_eq!(refused.header("www-authenticate"), challenge);
    }
    assert_eq!(server.hits(), 1);
    let preflight = Request::options(proxy.url("/a"))
        .header("origin", "http://b")
        .header("access-control-request-method", "GET");
    let preflight = send(&client(), preflight.body(Full::default()).unwrap()).await;
    assert_eq!(preflight.status, 200, "a preflight bears no token");
    let grpc = ask(&proxy, "/a.b/c", &[("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, "16"));
}

#[tokio::test]
async fn a_token_is_found_at_every_place_and_all_must_be_valid() {
    let (server, issuer) = (Server::echoing().await, Issuer::new("me"));
    let tokens = filter(vec![issuer.provider()], Requirement::Provider(0, None));
    let proxy =
        proxy(vec![HttpFilter::JwtAuthn(Arc::new(tokens))], vec![to("a", |_| {})], &server).await;
    let (good, bad) = (issuer.token(&json!({})), Issuer::new("me").token(&json!({})));
    let by_query = ask(&proxy, &format!("/a?b=1&access_token={good}&c=%20"), &[]).await;
    assert!(by_query.body.starts_with("GET /a?b=1&c=%20\n"), "{}", by_query.body);
    let alone = ask(&proxy, &format!("/a?access_token={good}"), &[]).await;
    assert!(alone.body.starts_with("GET /a\n"), "{}", alone.body);
    let cookie = format!("a=b; session={good}");
    let by_cookie = ask(&proxy, "/a", &[("cookie", &cookie)]).await;
    assert_eq!(by_cookie.status, 200);
    assert!(by_cookie.body.contains("session="), "a cookie stays");
    let (path, first) = (format!("/a?access_token={bad}"), bearer(&good));
    assert_eq!(ask(&proxy, &path, &[("authorization", &first)]).await.status, 401);
    let twice = [("authorization", bearer(&good)), ("authorization", bearer(&bad))];
    let twice: Vec<_> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(ask(&proxy, "/a", &twice).await.status, 401);
}

#[tokio::test]
async fn a_good_token_that_is_taken_off_hides_no_bad_one() {
    let (server, issuer) = (Server::echoing().await, Issuer::new("me"));
    let (good, bad) = (issuer.token(&json!({})), Issuer::new("me").token(&json!({})));
    let by = || Requirement::Provider(0, None);
    let or_none = || Requirement::Any { of: vec![by()], lenient: Lenient::Missing };
    for required in [
        or_none(),
        Requirement::Any { of: vec![by(), or_none()], lenient: Lenient::Never },
        Requirement::Lenient(Lenient::Missing),
    ] {
        let tokens = filter(vec![issuer.provider()], required);
        let filters = vec![HttpFilter::JwtAuthn(Arc::new(tokens))];
        let proxy = proxy(filters, vec![to("a", |_| {})], &server).await;
        for both in [[&*bad, &*good], [&*good, &*bad]] {
            let answer = ask(&proxy, "/a", &both.map(|token| ("x-jwt", token))).await;
            assert_eq!((answer.status, &*answer.body), (401, "Jwt verification fails"));
        }
        assert_eq!(ask(&proxy, "/a", &[("x-jwt", &good), ("x-jwt", &good)]).await.status, 200);
        assert_eq!(ask(&proxy, "/a", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_required_of_several_issuers_is_what_the_translator_writes() {
    let (server, one, two) = (Server::echoing().await, Issuer::new("one"), Issuer::new("two"));
    let by = |at| Requirement::Provider(at, None);
    let or_none = |at| Requirement::Any { of: vec![by(at)], lenient: Lenient::Missing };
    let all = Requirement::All(vec![or_none(0), or_none(1)]);
    let required = Requirement::Any { of: vec![by(0), by(1), all], lenient: Lenient::Never };
    let tokens = filter(vec![one.provider(), two.provider()], required);
    let proxy =
        proxy(vec![HttpFilter::JwtAuthn(Arc::new(tokens))], vec![to("a", |_| {})], &server).await;
    assert_eq!(ask(&proxy, "/a", &[]).await.status, 200);
    for issuer in [&one, &two] {
        let token = bearer(&issuer.token(&json!({})));
        assert_eq!(ask(&proxy, "/a", &[("authorization", &token)]).await.status, 200);
    }
    let strange = bearer(&Issuer::new("three").token(&json!({})));
    let refused = ask(&proxy, "/a", &[("authorization", &strange)]).await;
    assert_eq!((refused.status, &*refused.body), (401, "Jwt issuer is not configured"));
    let forged = bearer(&Issuer::new("two").token(&json!({})));
    let refused = ask(&proxy, "/a", &[("authorization", &forged)]).await;
    assert_eq!((refused.status, &*refused.body), (401, "Jwt verification fails"));
}

/// Whether a value of the payload is this text.
fn says(path: &[&str], text: &str) -> MetadataMatcher {
    let path = std::iter::once("payload").chain(path.iter().copied()).map(Into::into).collect();
    let is = || Box::new(ValueMatcher::Text(StringMatcher::Exact(text.into())));
    let value = ValueMatcher::Or(vec![ValueMatcher::OneOf(is()), *is()]);
    MetadataMatcher { namespace: NAME.into(), path, value, invert: false }
}

#[tokio::test]
async fn what_a_token_says_reaches_access_control_and_routes() {
    let (server, issuer) = (Server::echoing().await, Issuer::new("me"));
    let provider = Provider { reroutes: true, ..issuer.provider() };
    let lenient =
        Requirement::Any { of: vec![Requirement::Provider(0, None)], lenient: Lenient::Missing };
    let tokens = HttpFilter::JwtAuthn(Arc::new(filter(vec![provider], lenient)));
    let condition = Condition::Metadata(says(&["scope"], "write"));
    let policy = Policy { name: "p".into(), permission: condition, principal: Condition::Any };
    let rbac = Rbac { action: RbacAction::Deny, policies: vec![policy] };
    let staff = Route {
        matching: crate::runtime::route::RouteMatch {
            metadata: vec![says(&["realm", "role"], "staff")],
            ..route("/", Action::Direct(silent())).matching
        },
        ..route("/", Action::Direct(silent()))
    };
    let mut host = to("a", |_| {});
    host.routes.insert(0, staff);
    let proxy =
        proxy(vec![tokens, HttpFilter::Rbac(Arc::new(rbac.into()))], vec![host], &server).await;
    assert!(ask(&proxy, "/a", &[]).await.body.starts_with("GET /a\n"));
    for (claims, status, begins) in [
        (json!({"scope": "read write"}), 403, "RBAC: access denied"),
        (json!({"scope": "read writer"}), 200, "GET /a\n"),
        (json!({"realm": {"role": ["guest", "staff"]}}), 200, "by another route"),
        (json!({"realm": {"role": "staff"}}), 200, "by another route"),
        (json!({"realm": {"role": "guest"}}), 200, "GET /a\n"),
    ] {
        let token = bearer(&issuer.token(&claims));
        let answer = ask(&proxy, "/a", &[("authorization", &token)]).await;
        assert_eq!(answer.status, status, "{claims}");
        assert!(answer.body.starts_with(begins), "{claims}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_route_asks_for_what_it_wants() {
    let (server, issuer) = (Server::echoing().await, Issuer::new("me"));
    let mut tokens = filter(vec![issuer.provider()], Requirement::Provider(0, None));
    let named = Requirement::Provider(0, Some(Audiences::new(["bank"])));
    tokens.requirements.insert("bank".into(), named);
    let set = |set| {
        let set = FilterOverride::JwtAuthn(Arc::new(set));
        FilterOverrides::new(vec![(NAME.into(), set)])
    };
    let to = |prefix, overrides| Route {
        overrides,
        ..route(prefix, Action::Forward(Box::new(forward(ClusterChoice::One("a".into())))))
    };
    let routes = vec![
        to("/open", set(JwtOverride::Disabled)),
        to("/bank", set(JwtOverride::Requirement("bank".into()))),
        to("/lost", set(JwtOverride::Requirement("lost".into()))),
        to("/", FilterOverrides::default()),
    ];
    let proxy =
        proxy(vec![HttpFilter::JwtAuthn(Arc::new(tokens))], vec![host(routes)], &server).await;
    let token = bearer(&issuer.token(&json!({})));
    let headers = [("authorization", token.as_str())];
    for (path, status) in [("/open", 200), ("/bank", 403), ("/lost", 403), ("/", 200)] {
        assert_eq!(ask(&proxy, path, &headers).await.status, status, "{path}");
    }
    assert_eq!(ask(&proxy, "/open", &[]).await.status, 200);
    let lost = ask(&proxy, "/lost", &[]).await;
    let expected = "Failed JWT authentication: Wrong requirement_name: lost. \
                    It should be one of [bank]";
    assert_eq!((lost.header("www-authenticate"), &*lost.body), ("", expected));
}
