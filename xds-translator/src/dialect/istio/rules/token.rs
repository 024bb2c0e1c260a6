//! Rules of RequestAuthentications.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    label::check_attachment,
    line::{check_line, is_header_name},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::each,
        istio::request_authentication::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication},
    },
    ir::{KeySet, token},
};

pub(in crate::dialect::istio) fn check(policy: &RequestAuthentication, at: &mut Decoder) {
    let selector = policy.selector.as_ref();
    check_attachment(selector, policy.target_ref.as_ref(), &policy.target_refs, at);
    if policy.jwt_rules.is_empty() {
        at.remark(|path| {
            let message = "without rules no token is looked for";
            Diagnostic::warning(Code::NoEffect, path.field("jwtRules"), message)
        });
    }
    each("jwtRules", &policy.jwt_rules, at, check_rule);
}

fn check_rule(rule: &JwtRule, at: &mut Decoder) {
    check_keys(rule, at);
    let lists = [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ];
    for (field, list) in lists {
        each(field, list, at, check_word);
    }
    each("fromHeaders", &rule.from_headers, at, check_place);
    if !rule.output_payload_to_header.is_empty() {
        at.within("outputPayloadToHeader", |at| check_header(&rule.output_payload_to_header, at));
    }
    check_claims(&rule.output_claim_to_headers, at);
    if rule.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
        at.within("timeout", |at| at.invalid("too short", Some("`5s`".to_owned())));
    }
}

/// Where the keys are: exactly one of three places.
fn check_keys(rule: &JwtRule, at: &mut Decoder) {
    let url = rule.keys_url();
    let given = [&rule.jwks_uri, &rule.jwks_uri_snake, &rule.jwks];
    if given.iter().filter(|text| !text.is_empty()).count() > 1 {
        return at.invalid("only one of `jwks`, `jwksUri` may be given", None);
    }
    if rule.issuer.is_empty() && url.is_empty() {
        return at.missing("issuer", Some("the claim `iss` of the tokens".to_owned()));
    }
    if !url.is_empty() {
        return at.within("jwksUri", |at| check_url(url, at));
    }
    if !rule.jwks.is_empty() {
        return at.within("jwks", |at| check_jwks(&rule.jwks, at));
    }
    if let Err(reason) = token::check_url(&rule.issuer) {
        at.missing(
            "jwksUri",
            Some(format!(
                "`jwksUri` or `jwks`: keys cannot be asked of the issuer, which is no URL ({reason})"
            )),
        );
    }
}

fn check_url(url: &str, at: &mut Decoder) {
    if let Err(reason) = token::check_url(url) {
        let message = format!("keys cannot be fetched from it: {reason}");
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
        at.note(finding.expected("a URL such as `https://a.example/keys`", format!("`{url}`")));
    }
}

fn check_jwks(text: &str, at: &mut Decoder) {
    if let Err(reason) = KeySet::parse(text) {
        return at.invalid(reason.to_string(), None);
    }
    for key in token::secret_keys(text) {
        let message = format!(
            "key {key} holds what only its issuer may know: whoever reads this object can make \
             tokens"
        );
        at.remark(|path| {
            Diagnostic::warning(Code::InvalidValue, path, message).fix("the public half alone")
        });
    }
}

fn check_word(text: &Arc<str>, at: &mut Decoder) {
    if text.is_empty() {
        at.invalid("empty", None);
    }
    check_line(text, at);
}

fn check_place(header: &JwtHeader, at: &mut Decoder) {
    if !header.name.is_empty() {
        at.within("name", |at| check_header(&header.name, at));
    }
    at.within("prefix", |at| check_line(&header.prefix, at));
}

fn check_header(name: &str, at: &mut Decoder) {
    if !is_header_name(name) {
        at.invalid(format!("`{name}` is not a header name"), None);
    }
}

fn check_claims(claims: &[ClaimToHeader], at: &mut Decoder) {
    let mut taken = BTreeSet::new();
    each("outputClaimToHeaders", claims, at, |claim, at| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let name = &*claim.header;
        at.within("header", |at| {
            if !name.bytes().all(plain) {
                at.invalid(
                    format!("`{name}` is not a header name of letters, digits, - and _"),
                    None,
                );
            } else if !name.is_empty() && !taken.insert(name.to_ascii_lowercase()) {
                at.invalid(format!("a second claim for header `{name}`"), None);
            }
        });
    });
}
