//! Tokens that requests bear: how a workload checks them, and what is asked of their claims.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    ir::{KeySet, Labels, PolicyScope, StringMatch, TokenCheck, TokenKeys, TokenPolicy},
    snapshot::Reader,
};

/// The check of tokens of an HTTP connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TokenFilter {
    /// Sorted by issuer; never empty. A token where one of them looks must be valid by one.
    pub issuers: Vec<(TokenCheck, KeySet)>,
    /// Routes are chosen anew once claims are known.
    pub reroutes: bool,
}

impl TokenFilter {
    /// For workloads with these labels; `None`: nobody looks for tokens.
    pub(crate) fn of(reader: &Reader<'_>, namespace: &str, labels: &Labels) -> Option<Self> {
        let mut policies = reader.token_policies(namespace, labels);
        // Of rules for one issuer those of the workload's own namespace come first, then by age.
        policies.sort_by(|a, b| outer(a).cmp(&outer(b)).then_with(|| a.origin.by_age(&b.origin)));
        let keys = |keys: &TokenKeys| match keys {
            TokenKeys::Given(keys) => keys.clone(),
            TokenKeys::Fetched(source, _) => reader.key_set(source),
        };
        let rules = policies.iter().flat_map(|policy| &policy.rules);
        let mut issuers: Vec<(TokenCheck, KeySet)> =
            rules.map(|rule| (rule.check.clone(), keys(&rule.keys))).collect();
        issuers.sort_by(|a, b| a.0.issuer.cmp(&b.0.issuer));
        (!issuers.is_empty()).then_some(Self { issuers, reroutes: false })
    }

    /// The same, at a place that chooses routes by claims.
    pub(crate) fn rerouting(self) -> Self {
        Self { reroutes: true, ..self }
    }
}

fn outer(policy: &TokenPolicy) -> bool {
    policy.scope == PolicyScope::Mesh
}

/// A condition on what filters have found out of a request or connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MetadataMatch {
    /// Who found it out.
    pub source: MetadataSource,
    /// Which of it: names within names; never empty.
    pub path: Vec<Arc<str>>,
    /// What a text must be; what is not there meets nothing.
    pub condition: StringMatch,
    /// Which texts are looked at.
    pub place: TextPlace,
}

/// Who found something out.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum MetadataSource {
    /// The check of tokens: claims of a valid one.
    Token,
    /// The filter of this name.
    Filter(Arc<str>),
}

/// Where texts are looked for in a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TextPlace {
    /// The value is one.
    Value,
    /// The value is a list of them.
    Element,
    /// Either.
    Anywhere,
}

impl MetadataMatch {
    /// A condition on the text of a claim.
    pub(crate) fn claim(name: &str, condition: &StringMatch) -> Self {
        Self {
            source: MetadataSource::Token,
            path: vec![name.into()],
            condition: condition.clone(),
            place: TextPlace::Value,
        }
    }

    /// A condition on a claim that is a text or a list of them.
    pub(crate) fn any_claim(path: &[Arc<str>], condition: &StringMatch) -> Self {
        Self {
            source: MetadataSource::Token,
            path: path.to_vec(),
            condition: condition.clone(),
            place: TextPlace::Anywhere,
        }
    }
}
