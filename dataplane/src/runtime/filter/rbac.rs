//! Access control over requests: rules that refuse, and others that only leave what they would have
//! decided, for filters that go by it and for logs. Spec: Envoy `http.rbac.v3.RBAC`.

use std::sync::Arc;

use http::HeaderMap;

use super::{Answer, FilterRequest, Payload, Step};
use crate::runtime::{
    authz::{Rbac, Verdict},
    flags::Flags,
    metadata::Value,
};

/// Where shadow rules leave what they found, whatever the filter is called.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Rules of a filter, of which there are some.
#[derive(Clone, Debug)]
pub struct Access {
    /// What refuses requests.
    pub enforced: Option<Rbac>,
    /// What only says what it would do.
    pub shadow: Option<Shadow>,
}

/// Rules that are only tried out.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The rules.
    pub rules: Rbac,
    /// Under which the policy that decided is left, if one did.
    pub policy_key: Arc<str>,
    /// Under which it is left whether the request would pass.
    pub result_key: Arc<str>,
}

impl From<Rbac> for Access {
    fn from(enforced: Rbac) -> Self {
        Self { enforced: Some(enforced), shadow: None }
    }
}

impl Access {
    /// Decides about a request.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>) -> Step {
        if let Some(shadow) = &self.shadow {
            shadow.note(request);
        }
        match &self.enforced {
            Some(rules) if !rules.decide(&request.facts()).is_allowed() => {
                Step::Answer(Box::new(Answer {
                    payload: Payload::Text {
                        status: 403,
                        text: "RBAC: access denied".into(),
                        grpc: None,
                    },
                    flag: Flags::UNAUTHORIZED,
                    details: "rbac_access_denied".into(),
                    changes: None,
                    headers: HeaderMap::new(),
                }))
            }
            _ => Step::Continue,
        }
    }
}

impl Shadow {
    fn note(&self, request: &mut FilterRequest<'_>) {
        let (result, policy) = match self.rules.decide(&request.facts()) {
            Verdict::Allow(policy) => ("allowed", policy),
            Verdict::Deny(policy) => ("denied", policy),
        };
        if let Some(policy) = policy {
            request.notes.set_metadata(NAMESPACE, &self.policy_key, Value::Text(policy));
        }
        request.notes.set_metadata(NAMESPACE, &self.result_key, Value::Text(result.into()));
    }
}
