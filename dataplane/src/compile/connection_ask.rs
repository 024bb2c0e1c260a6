//! A service that is asked whether connections may pass. Our proxy asks about requests alone: what
//! is to be asked about of connections is refused.

use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz;

use super::{
    field::{At, Invalid, refuse},
    known::{
        Known::{Guard, In, NoEffect},
        matcher::METADATA_MATCHER,
        messages,
        reason::{ONE_API, STATISTICS},
    },
    matcher,
};
use crate::runtime::{
    authz::{Condition, Policy, Rbac, RbacAction},
    metadata::MetadataMatcher,
};

/// Rules that only mark connections, and under what they leave whose mark it is.
pub(super) struct Marks {
    pub(super) rules: Rbac,
    pub(super) prefix: String,
}

/// Where marks of connections are left.
const NAMESPACE: &str = "envoy.filters.network.rbac";

/// The rules that refuse whatever is to be asked about; `marks` is the filter before, if it marks.
pub(super) fn refusal(message: &ExtAuthz, marks: Option<Marks>) -> Result<Rbac, Invalid> {
    let everything = || {
        let policy = Policy {
            name: "everything".into(),
            permission: Condition::Any,
            principal: Condition::Any,
        };
        Rbac { action: RbacAction::Deny, policies: vec![policy] }
    };
    let Some(wire) = &message.filter_enabled_metadata else { return Ok(everything()) };
    let asked = matcher::metadata(wire).at("filter_enabled_metadata")?;
    match marks {
        Some(Marks { rules, prefix }) if rules.action == RbacAction::Deny => {
            let own = is_mark(&asked, &prefix);
            refuse(&[("filter_enabled_metadata", !own)])?;
            Ok(rules)
        }
        _ => Err(Invalid::new("expected a filter before it whose shadow rules mark")
            .at("filter_enabled_metadata")),
    }
}

/// Whether these rules are the ones whose mark is looked at.
fn is_mark(asked: &MetadataMatcher, prefix: &str) -> bool {
    let key = format!("{prefix}shadow_effective_policy_id");
    *asked.namespace == *NAMESPACE
        && !asked.invert
        && matches!(&asked.path[..], [own] if **own == *key)
}

const NOBODY: &str = "nobody is asked: what is to be asked about is refused";

messages! {
    CONNECTION_ASK = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" {
        1 "stat_prefix": NoEffect(STATISTICS);
        2 "grpc_service": NoEffect(NOBODY);
        3 "failure_mode_allow": NoEffect(NOBODY);
        4 "include_peer_certificate": NoEffect(NOBODY);
        5 "transport_api_version": NoEffect(ONE_API);
        6 "filter_enabled_metadata": In(&METADATA_MATCHER);
        7 "bootstrap_metadata_labels_key": NoEffect(NOBODY);
        8 "include_tls_session": NoEffect(NOBODY);
        9 "send_tls_alert_on_denial": NoEffect(NOBODY);
        10 "metadata_context_namespaces": NoEffect(NOBODY);
        11 "typed_metadata_context_namespaces": NoEffect(NOBODY);
        12 "shadow_mode": Guard;
    }
}
