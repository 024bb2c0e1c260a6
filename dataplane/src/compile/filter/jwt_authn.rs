//! Tokens that requests must bear.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::core::v3::data_source::Specifier,
    envoy::extensions::filters::http::jwt_authn::v3::{
        JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
        PerRouteConfig, RequirementRule, jwt_provider::JwksSourceSpecifier,
        jwt_requirement::RequiresType, per_route_config::RequirementSpecifier,
        requirement_rule::RequirementType,
    },
    google::protobuf::Any,
};
use http::{HeaderName, header::AUTHORIZATION};

use super::super::{
    field::{At, Invalid, each, required, unpack},
    known::{
        Known::{Each, Guard, In, Map, Marker, NoEffect, Read},
        base::DATA_SOURCE,
        messages,
        reason::{MEMORY, STATISTICS},
        route::ROUTE_MATCH,
    },
    route_match,
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride,
        jwt_authn::{
            Audiences, JwtAuthn, JwtOverride, Lenient, Place, Provider, Requirement, Rule,
        },
    },
    jwt::KeySet,
};

/// Seconds by which clocks may differ where nothing is said.
const CLOCK_SKEW: u64 = 60;

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: JwtAuthentication = unpack(config)?;
    let mut names: Vec<&String> = message.providers.keys().collect();
    names.sort();
    let providers = names
        .iter()
        .map(|name| provider(name, &message.providers[*name]).at(&format!("providers[{name}]")));
    let named = |(name, one): (&String, &JwtRequirement)| {
        let one = requirement(&names, one).at(&format!("requirement_map[{name}]"))?;
        Ok((Arc::from(name.as_str()), one))
    };
    let requirements = message.requirement_map.iter().map(named).collect::<Result<_, Invalid>>()?;
    let rules = each("rules", &message.rules, |one| rule(&message, &names, one))?;
    Ok(Some(HttpFilter::JwtAuthn(Arc::new(JwtAuthn {
        providers: providers.collect::<Result<_, Invalid>>()?,
        rules,
        requirements,
        bypass_cors_preflight: message.bypass_cors_preflight,
        silent: message.strip_failure_response,
    }))))
}

/// Compiles what a route sets.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: PerRouteConfig = unpack(config)?;
    let set = required("requirement_specifier", message.requirement_specifier.as_ref())?;
    Ok(FilterOverride::JwtAuthn(Arc::new(match set {
        RequirementSpecifier::Disabled(true) => JwtOverride::Disabled,
        RequirementSpecifier::Disabled(false) => {
            return Err(Invalid::new("expected true").at("disabled"));
        }
        RequirementSpecifier::RequirementName(name) => {
            JwtOverride::Requirement(text(name).at("requirement_name")?)
        }
    })))
}

fn text(text: &str) -> Result<Arc<str>, Invalid> {
    match text {
        "" => Err(Invalid::new("required, but missing")),
        text => Ok(text.into()),
    }
}

fn rule(
    message: &JwtAuthentication,
    names: &[&String],
    rule: &RequirementRule,
) -> Result<Rule, Invalid> {
    let matching = required("match", rule.r#match.as_ref())?;
    let requirement = match &rule.requirement_type {
        None => None,
        Some(RequirementType::Requires(one)) => Some(requirement(names, one).at("requires")?),
        Some(RequirementType::RequirementName(name)) => {
            let one = message.requirement_map.get(name).ok_or_else(|| {
                Invalid::new(format!("there is no {name} in requirement_map"))
                    .at("requirement_name")
            })?;
            Some(requirement(names, one)?)
        }
    };
    Ok(Rule { matching: route_match::compile(matching).at("match")?, requirement })
}

/// Names of providers become places in their list.
fn requirement(names: &[&String], message: &JwtRequirement) -> Result<Requirement, Invalid> {
    let provider = |name: &String| {
        let found = names.binary_search(&name);
        found.map_err(|_| Invalid::new(format!("there is no provider {name}")).at("provider_name"))
    };
    let list = |field: &str, of: &[JwtRequirement]| match of {
        // As in Envoy: one would say nothing about the others.
        [] | [_] => Err(Invalid::new("expected at least two").at(field)),
        of => each("requirements", of, |one| requirement(names, one)).at(field),
    };
    Ok(match &message.requires_type {
        None => Requirement::Nothing,
        Some(RequiresType::ProviderName(name)) => Requirement::Provider(provider(name)?, None),
        Some(RequiresType::ProviderAndAudiences(with)) => {
            let own = provider(&with.provider_name).at("provider_and_audiences")?;
            let audiences = with.audiences.iter().map(String::as_str);
            // Without any, the provider's own count.
            let given = (!with.audiences.is_empty()).then(|| Audiences::new(audiences));
            Requirement::Provider(own, given)
        }
        Some(RequiresType::RequiresAny(any)) => either(list("requires_any", &any.requirements)?),
        Some(RequiresType::RequiresAll(all)) => {
            Requirement::All(list("requires_all", &all.requirements)?)
        }
        Some(RequiresType::AllowMissing(_)) => Requirement::Lenient(Lenient::Missing),
        Some(RequiresType::AllowMissingOrFailed(_)) => {
            Requirement::Lenient(Lenient::MissingOrFailed)
        }
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            return Err(
                Invalid::new("not supported by this proxy").at("extract_only_without_validation")
            );
        }
    })
}

/// What allows less than a token stands for itself only where nothing else does.
fn either(of: Vec<Requirement>) -> Requirement {
    let (lenient, of): (Vec<_>, Vec<_>) =
        of.into_iter().partition(|one| matches!(one, Requirement::Lenient(_)));
    let lenient = lenient.iter().filter_map(|one| match one {
        Requirement::Lenient(lenient) => Some(*lenient),
        _ => None,
    });
    let lenient = lenient.max().unwrap_or(Lenient::Never);
    if of.is_empty() { Requirement::Lenient(lenient) } else { Requirement::Any { of, lenient } }
}

fn provider(name: &str, message: &JwtProvider) -> Result<Provider, Invalid> {
    let key = |key: &String| Some(Arc::from(key.as_str())).filter(|_| !key.is_empty());
    let lists = message.normalize_payload_in_metadata.as_ref();
    let lists = lists.into_iter().flat_map(|lists| &lists.space_delimited_claims);
    Ok(Provider {
        name: name.into(),
        issuer: message.issuer.as_str().into(),
        audiences: Audiences::new(message.audiences.iter().map(String::as_str)),
        places: places(message)?,
        forward: message.forward,
        payload_header: match message.forward_payload_header.as_str() {
            "" => None,
            name => Some(header("forward_payload_header", name)?),
        },
        padded: message.pad_forward_payload_header,
        payload_key: key(&message.payload_in_metadata),
        header_key: key(&message.header_in_metadata),
        lists_of_words: lists.map(|claim| claim.as_str().into()).collect(),
        clock_skew: match message.clock_skew_seconds {
            0 => CLOCK_SKEW,
            seconds => seconds.into(),
        },
        claim_headers: each("claim_to_headers", &message.claim_to_headers, claim_header)?,
        reroutes: message.clear_route_cache,
        keys: keys(message)?,
    })
}

/// Sorted as Envoy looks at them, which decides whose fault is told of several.
fn places(message: &JwtProvider) -> Result<Vec<Place>, Invalid> {
    let mut headers = each("from_headers", &message.from_headers, from_header)?;
    let mut parameters = each("from_params", &message.from_params, |name| text(name))?;
    let mut cookies = each("from_cookies", &message.from_cookies, |name| text(name))?;
    if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
        // RFC 6750, sections 2.1 and 2.3.
        headers.push((AUTHORIZATION, "Bearer ".into()));
        parameters.push("access_token".into());
    }
    headers.sort_by_key(|(name, prefix): &(HeaderName, Box<str>)| format!("{name}{prefix}"));
    parameters.sort();
    cookies.sort();
    let headers = headers.into_iter().map(|(name, prefix)| Place::Header(name, prefix));
    let parameters = parameters.iter().map(|name| Place::Parameter((&**name).into()));
    let cookies = cookies.iter().map(|name| Place::Cookie((&**name).into()));
    Ok(headers.chain(parameters).chain(cookies).collect())
}

fn from_header(message: &JwtHeader) -> Result<(HeaderName, Box<str>), Invalid> {
    Ok((header("name", &message.name)?, message.value_prefix.as_str().into()))
}

fn header(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new(format!("expected the name of a header, got {name:?}")).at(field))
}

fn claim_header(message: &JwtClaimToHeader) -> Result<(HeaderName, Vec<Arc<str>>), Invalid> {
    let way = match &message.claim_path[..] {
        [] => {
            text(&message.claim_name).at("claim_name")?;
            message.claim_name.split('.').map(Arc::from).collect()
        }
        path => each("claim_path", path, |part| text(&part.key).at("key"))?,
    };
    Ok((header("header_name", &message.header_name)?, way))
}

/// Keys are in the message: our control plane fetches them.
fn keys(message: &JwtProvider) -> Result<KeySet, Invalid> {
    let source = match &message.jwks_source_specifier {
        Some(JwksSourceSpecifier::LocalJwks(source)) => source,
        Some(JwksSourceSpecifier::RemoteJwks(_)) => {
            return Err(Invalid::new("not supported by this proxy").at("remote_jwks"));
        }
        None => return Err(Invalid::new("required, but missing").at("local_jwks")),
    };
    match &source.specifier {
        Some(Specifier::InlineString(text)) => Ok(KeySet::parse(text)),
        Some(Specifier::InlineBytes(bytes)) => Ok(KeySet::parse(&String::from_utf8_lossy(bytes))),
        _ => Err(Invalid::new("expected inline_string or inline_bytes").at("local_jwks")),
    }
}

messages! {
    JWT_AUTHN = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" {
        1 "providers": Map(&PROVIDER);
        2 "rules": Each(&RULE);
        3 "filter_state_rules": Guard;
        4 "bypass_cors_preflight": Read;
        5 "requirement_map": Map(&REQUIREMENT);
        6 "strip_failure_response": Read;
        7 "stat_prefix": NoEffect(STATISTICS);
    }

    PER_ROUTE = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" {
        1 "disabled": Read;
        2 "requirement_name": Read;
    }

    RULE = "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule" {
        1 "match": In(&ROUTE_MATCH);
        2 "requires": In(&REQUIREMENT);
        3 "requirement_name": Read;
    }

    REQUIREMENT = "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement" {
        1 "provider_name": Read;
        2 "provider_and_audiences": In(&WITH_AUDIENCES);
        3 "requires_any": In(&ANY);
        4 "requires_all": In(&ALL);
        5 "allow_missing_or_failed": Marker;
        6 "allow_missing": Marker;
        7 "extract_only_without_validation": Guard;
    }

    WITH_AUDIENCES = "envoy.extensions.filters.http.jwt_authn.v3.ProviderWithAudiences" {
        1 "provider_name": Read;
        2 "audiences": Read;
    }

    ANY = "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementOrList" {
        1 "requirements": Each(&REQUIREMENT);
    }

    ALL = "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementAndList" {
        1 "requirements": Each(&REQUIREMENT);
    }

    PROVIDER = "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider" {
        1 "issuer": Read;
        2 "audiences": Read;
        3 "remote_jwks": Guard;
        4 "local_jwks": In(&DATA_SOURCE);
        5 "forward": Read;
        6 "from_headers": Each(&FROM_HEADER);
        7 "from_params": Read;
        8 "forward_payload_header": Read;
        9 "payload_in_metadata": Read;
        10 "clock_skew_seconds": Read;
        11 "pad_forward_payload_header": Read;
        12 "jwt_cache_config": NoEffect(MEMORY);
        13 "from_cookies": Read;
        14 "header_in_metadata": Read;
        15 "claim_to_headers": Each(&CLAIM_HEADER);
        16 "failed_status_in_metadata": Guard;
        17 "clear_route_cache": Read;
        18 "normalize_payload_in_metadata": In(&NORMALIZED);
        19 "subjects": Guard;
        20 "require_expiration": Guard;
        21 "max_lifetime": Guard;
    }

    NORMALIZED = "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.NormalizePayload" {
        1 "space_delimited_claims": Read;
    }

    FROM_HEADER = "envoy.extensions.filters.http.jwt_authn.v3.JwtHeader" {
        1 "name": Read;
        2 "value_prefix": Read;
    }

    CLAIM_HEADER = "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader" {
        1 "header_name": Read;
        2 "claim_name": Read;
        3 "claim_path": Each(&CLAIM_PATH);
    }

    CLAIM_PATH = "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader.PathSegment" {
        1 "key": Read;
    }
}
