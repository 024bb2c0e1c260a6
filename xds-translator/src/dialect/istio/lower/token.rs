//! RequestAuthentications.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        istio::{
            request_authentication::{JwtRule, Presence, RequestAuthentication},
            shared::{TargetRef, WorkloadSelector},
        },
        lowering::Lowering,
    },
    ir::{KeySet, KeySource, PolicyScope, Selector, TokenCheck, TokenKeys, TokenPolicy, TokenRule},
    snapshot::Item,
};

/// How long fetching keys may take where nothing is said.
const FETCH: Duration = Duration::from_secs(5);
/// Claims that are lists of words without being named (RFC 8693 section 4.2).
const LISTS_OF_WORDS: [&str; 2] = ["permission", "scope"];

impl Lowering<'_> {
    pub(in crate::dialect) fn request_authentication(
        &mut self,
        spec: &RequestAuthentication,
    ) -> Option<Item> {
        if self.is_attached(spec.target_ref.as_ref(), &spec.target_refs) {
            return None;
        }
        Some(Item::Tokens(Arc::new(TokenPolicy {
            origin: self.origin(),
            scope: PolicyScope::of(self.namespace(), &self.mesh.root_namespace),
            selector: selector(spec.selector.as_ref()),
            rules: spec.jwt_rules.iter().enumerate().filter_map(rule).collect(),
        })))
    }

    /// Whether a policy is attached to something by reference, which refuses it, said of each.
    pub(super) fn is_attached(&mut self, one: Option<&TargetRef>, several: &[TargetRef]) -> bool {
        let listed = FieldPath::of("spec.targetRefs");
        let listed = several.iter().enumerate().map(|(i, target)| (listed.index(i), target));
        let single = one.map(|target| (FieldPath::of("spec.targetRef"), target));
        let targets: Vec<(FieldPath, &TargetRef)> = single.into_iter().chain(listed).collect();
        for (field, target) in &targets {
            let message = format!(
                "policies for a {} are not served yet: the policy is refused; its last accepted \
                 version stays in force, and where there is none, what it is about is closed",
                target.kind
            );
            let finding = Diagnostic::error(Code::NotActedOn, field.clone(), message);
            let got = format!("{} `{}`", target.kind, target.name);
            self.note(finding.expected("a `selector` of workloads or gateways", got));
        }
        !targets.is_empty()
    }
}

/// Workloads by their labels.
pub(super) fn selector(written: Option<&WorkloadSelector>) -> Selector {
    written.map(|selector| selector.match_labels.clone().into()).unwrap_or_default()
}

/// `None`: its keys are no keys, for which the object is refused.
fn rule((index, rule): (usize, &JwtRule)) -> Option<TokenRule> {
    let words = LISTS_OF_WORDS.map(Arc::from).into_iter();
    let words: BTreeSet<Arc<str>> =
        words.chain(rule.space_delimited_claims.iter().cloned()).collect();
    let check = TokenCheck {
        issuer: rule.issuer.clone(),
        required: rule.presence == Presence::Required,
        audiences: rule.audiences.clone(),
        headers: rule.from_headers.iter().map(|h| (h.name.clone(), h.prefix.clone())).collect(),
        parameters: rule.from_params.clone(),
        cookies: rule.from_cookies.clone(),
        forward: rule.forward_original_token,
        payload_header: rule.output_payload_to_header.clone(),
        claim_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|c| (c.header.clone(), c.claim.clone()))
            .collect(),
        lists_of_words: words.into_iter().collect(),
    };
    Some(TokenRule { check, keys: keys(rule)?, at: format!("spec.jwtRules[{index}]").into() })
}

fn keys(rule: &JwtRule) -> Option<TokenKeys> {
    let source = match (&**rule.keys_url(), &*rule.jwks) {
        ("", "") => KeySource::Issuer(rule.issuer.clone()),
        ("", jwks) => return KeySet::parse(jwks).ok().map(TokenKeys::Given),
        (url, _) => KeySource::Url(url.into()),
    };
    Some(TokenKeys::Fetched(source, rule.timeout.unwrap_or(FETCH)))
}
