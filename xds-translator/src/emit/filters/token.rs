//! The check of tokens that requests bear.

use super::http;
use crate::{
    emit::{
        any::names,
        matching::{TOKEN_PAYLOAD, route_match},
        pb::{
            core,
            hcm::HttpFilter,
            protobuf,
            token::{
                JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
                JwtRequirementAndList, JwtRequirementOrList, RequirementRule,
                jwt_provider::{JwksSourceSpecifier, NormalizePayload},
                jwt_requirement::RequiresType,
                requirement_rule::RequirementType,
            },
        },
    },
    ir::{KeySet, TokenCheck},
    plan::TokenFilter,
};

/// The filter; names and requirements as Istio writes them.
pub(super) fn filter(plan: &TokenFilter) -> HttpFilter {
    let names: Vec<String> = (0..plan.issuers.len()).map(|i| format!("origins-{i}")).collect();
    let demanded = names.iter().zip(&plan.issuers).filter(|(_, (check, _))| check.required);
    let demanded: Vec<&String> = demanded.map(|(name, _)| name).collect();
    let providers = plan.issuers.iter().map(|(check, keys)| provider(check, keys, plan.reroutes));
    let rule = RequirementRule {
        r#match: Some(route_match(None)),
        requirement_type: Some(RequirementType::Requires(match demanded.is_empty() {
            true => valid_if_there(&names),
            false => all(demanded.into_iter().map(|name| by(name)).collect()),
        })),
    };
    let config = JwtAuthentication {
        providers: names.iter().cloned().zip(providers).collect(),
        rules: vec![rule],
        // Preflights bear no token (Fetch, section "CORS-preflight request").
        bypass_cors_preflight: true,
        ..Default::default()
    };
    http(names::TOKENS, &config)
}

/// A token that is there must be valid for somebody: either one issuer takes it, or wherever one
/// looks for a token there is none or his own. Where issuers demand one, a token of each of these
/// is enough, as one of any issuer is here.
fn valid_if_there(names: &[String]) -> JwtRequirement {
    let missing = || requirement(RequiresType::AllowMissing(protobuf::Empty {}));
    let each: Vec<JwtRequirement> =
        names.iter().map(|name| any(vec![by(name), missing()])).collect();
    match <[JwtRequirement; 1]>::try_from(each) {
        Ok([only]) => only,
        Err(each) => any(names.iter().map(|name| by(name)).chain([all(each)]).collect()),
    }
}

/// A valid token of the issuer.
fn by(name: &str) -> JwtRequirement {
    requirement(RequiresType::ProviderName(name.to_owned()))
}

/// Each of these; never empty.
fn all(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    match <[JwtRequirement; 1]>::try_from(requirements) {
        Ok([only]) => only,
        Err(requirements) => {
            requirement(RequiresType::RequiresAll(JwtRequirementAndList { requirements }))
        }
    }
}

fn any(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    requirement(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn requirement(requirement: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requirement) }
}

fn provider(check: &TokenCheck, keys: &KeySet, reroutes: bool) -> JwtProvider {
    let texts = |list: &[std::sync::Arc<str>]| list.iter().map(ToString::to_string).collect();
    let keys = core::data_source::Specifier::InlineString(keys.as_str().to_owned());
    let keys = core::DataSource { specifier: Some(keys), ..Default::default() };
    let headers = check.headers.iter().map(|(name, prefix)| JwtHeader {
        name: name.to_string(),
        value_prefix: prefix.to_string(),
    });
    let claims = check.claim_headers.iter().map(|(header, claim)| JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
        ..Default::default()
    });
    JwtProvider {
        issuer: check.issuer.to_string(),
        audiences: texts(&check.audiences),
        forward: check.forward,
        from_headers: headers.collect(),
        from_params: texts(&check.parameters),
        from_cookies: texts(&check.cookies),
        forward_payload_header: check.payload_header.to_string(),
        payload_in_metadata: TOKEN_PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: texts(&check.lists_of_words),
        }),
        claim_to_headers: claims.collect(),
        clear_route_cache: reroutes,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(keys)),
        ..Default::default()
    }
}
