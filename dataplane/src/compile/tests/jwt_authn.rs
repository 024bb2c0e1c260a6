//! The filter `jwt_authn` as control planes send it.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{DataSource, data_source::Specifier},
        route::v3::{RouteMatch, route_match::PathSpecifier},
    },
    extensions::filters::http::jwt_authn::v3::{
        JwtAuthentication, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
        JwtRequirementOrList, PerRouteConfig, RemoteJwks, RequirementRule,
        jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType,
        per_route_config::RequirementSpecifier, requirement_rule::RequirementType,
    },
};

use super::{
    routes::{self, forward, prefix, to},
    *,
};
use crate::runtime::filter::{
    FilterOverride,
    jwt_authn::{JwtAuthn, JwtOverride, Lenient, Place, Requirement},
};

const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"AyM1"}]}"#;

fn provider() -> JwtProvider {
    let source = DataSource {
        specifier: Some(Specifier::InlineString(KEYS.to_owned())),
        ..Default::default()
    };
    JwtProvider {
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(source)),
        ..Default::default()
    }
}

fn by(name: &str) -> JwtRequirement {
    JwtRequirement { requires_type: Some(RequiresType::ProviderName(name.to_owned())) }
}

fn or_none(name: &str) -> JwtRequirement {
    let missing =
        JwtRequirement { requires_type: Some(RequiresType::AllowMissing(Default::default())) };
    any_of(vec![by(name), missing])
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    let any = RequiresType::RequiresAny(JwtRequirementOrList { requirements });
    JwtRequirement { requires_type: Some(any) }
}

fn rule(requirement: JwtRequirement) -> RequirementRule {
    let all = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    RequirementRule {
        r#match: Some(all),
        requirement_type: Some(RequirementType::Requires(requirement)),
    }
}

fn with(provider: JwtProvider, requirement: JwtRequirement) -> JwtAuthentication {
    JwtAuthentication {
        providers: [("p".to_owned(), provider)].into(),
        rules: vec![rule(requirement)],
        ..Default::default()
    }
}

fn compile(wire: &JwtAuthentication) -> Result<Arc<JwtAuthn>, String> {
    let listener = with_http_filter(http_filter("envoy.filters.http.jwt_authn", any(wire)))?;
    match http_filters(&listener)[..] {
        [HttpFilter::JwtAuthn(tokens), HttpFilter::Router { .. }] => Ok(Arc::clone(tokens)),
        ref other => panic!("expected a check of tokens, got {other:?}"),
    }
}

#[test]
fn what_is_not_said_is_as_in_envoy() {
    let tokens = compile(&with(provider(), by("p"))).unwrap();
    let own = &tokens.providers[0];
    let places = [
        Place::Header(http::header::AUTHORIZATION, "Bearer ".into()),
        Place::Parameter("access_token".into()),
    ];
    assert_eq!((&own.places[..], own.clock_skew, own.keys.len()), (&places[..], 60, 1));
    assert!(!own.forward && own.payload_key.is_none() && !own.reroutes);
    assert!(matches!(tokens.rules[0].requirement, Some(Requirement::Provider(0, None))));
}

#[test]
fn places_are_in_envoys_order_and_requirements_in_that_of_the_message() {
    let header = |name: &str| JwtHeader { name: name.to_owned(), value_prefix: String::new() };
    let many = JwtProvider {
        from_headers: vec![header("x-b"), header("X-A")],
        from_cookies: vec!["b".to_owned(), "a".to_owned()],
        ..provider()
    };
    let requirement = any_of(vec![by("p"), or_none("p")]);
    let tokens = compile(&with(many, requirement)).unwrap();
    let places = format!("{:?}", tokens.providers[0].places);
    assert_eq!(places, r#"[Header("x-a", ""), Header("x-b", ""), Cookie("a"), Cookie("b")]"#);
    let Some(Requirement::Any { of, lenient: Lenient::Never }) = &tokens.rules[0].requirement
    else {
        panic!("{:?}", tokens.rules)
    };
    assert!(matches!(of[1], Requirement::Any { lenient: Lenient::Missing, .. }), "{of:?}");
}

#[test]
fn what_is_not_served_is_refused_by_its_name() {
    let remote = JwksSourceSpecifier::RemoteJwks(RemoteJwks::default());
    let file = DataSource {
        specifier: Some(Specifier::Filename("/keys".to_owned())),
        ..Default::default()
    };
    let one = RequiresType::RequiresAll(JwtRequirementAndList { requirements: vec![by("p")] });
    let named = RequirementRule {
        requirement_type: Some(RequirementType::RequirementName("none".to_owned())),
        ..rule(by("p"))
    };
    let unnamed = JwtHeader { name: ":path".to_owned(), value_prefix: String::new() };
    for (wire, place) in [
        (
            with(JwtProvider { jwks_source_specifier: Some(remote), ..provider() }, by("p")),
            "providers[p].remote_jwks",
        ),
        (
            with(
                JwtProvider {
                    jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(file)),
                    ..provider()
                },
                by("p"),
            ),
            "providers[p].local_jwks",
        ),
        (
            with(JwtProvider { require_expiration: true, ..provider() }, by("p")),
            "providers[p].require_expiration",
        ),
        (
            with(JwtProvider { from_headers: vec![unnamed], ..provider() }, by("p")),
            "providers[p].from_headers[0].name",
        ),
        (with(provider(), by("q")), "rules[0].requires.provider_name: there is no provider q"),
        (
            with(provider(), JwtRequirement { requires_type: Some(one) }),
            "rules[0].requires.requires_all: expected at least two",
        ),
        (
            JwtAuthentication { rules: vec![named], ..with(provider(), by("p")) },
            "rules[0].requirement_name",
        ),
    ] {
        let error = compile(&wire).unwrap_err();
        assert!(error.contains(place), "{place}: {error}");
    }
}

#[test]
fn a_route_sets_one_of_the_requirements_or_none() {
    let set = |specifier| {
        let config = PerRouteConfig { requirement_specifier: Some(specifier) };
        let mut route = forward("r", prefix("/"), to("a"));
        route.typed_per_filter_config.insert("tokens".to_owned(), any(&config));
        let routes = routes::compile(&routes::config(vec![route]))?;
        match routes.virtual_hosts()[0].routes[0].overrides.get("tokens") {
            Some(FilterOverride::JwtAuthn(set)) => Ok(Arc::clone(set)),
            other => panic!("{other:?}"),
        }
    };
    let name = RequirementSpecifier::RequirementName("r".to_owned());
    assert!(matches!(*set(name).unwrap(), JwtOverride::Requirement(ref name) if **name == *"r"));
    let disabled = set(RequirementSpecifier::Disabled(true)).unwrap();
    assert!(matches!(*disabled, JwtOverride::Disabled));
    let error: String = set(RequirementSpecifier::Disabled(false)).unwrap_err();
    assert!(error.contains("typed_per_filter_config[tokens].disabled"), "{error}");
}
