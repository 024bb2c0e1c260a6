//! `security.istio.io PeerAuthentication` and `AuthorizationPolicy`: fields only.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::shared::{TargetRef, WorkloadSelector};
use crate::dialect::schema::{choice, object};

object! { no_null;
    /// Which TLS workloads take from their peers.
    PeerAuthentication {
        /// Workloads of the namespace; absent: all (in the root namespace: all of the mesh).
        "selector" selector: Option<WorkloadSelector>,
        /// For every port.
        "mtls" mtls: Option<MutualTls>,
        /// By workload port; needs a selector.
        "portLevelMtls" port_level_mtls: Option<BTreeMap<u16, MutualTls>>,
    }
}

object! { no_null;
    /// Mutual TLS.
    MutualTls {
        /// What is taken.
        "mode" mode: MutualTlsMode,
    }
}

/// What stands in for a refused PeerAuthentication.
pub(super) fn strict(_: &Value) -> Option<Value> {
    Some(json!({ "mtls": { "mode": "STRICT" } }))
}

choice! {
    /// What is taken from peers.
    MutualTlsMode {
        /// Inherited.
        Unset = "UNSET",
        /// Plaintext only.
        Disable = "DISABLE",
        /// Both.
        Permissive = "PERMISSIVE",
        /// Mutual TLS only.
        Strict = "STRICT",
    }
}

object! { no_null;
    /// Who may do what at a workload.
    AuthorizationPolicy {
        /// Workloads of the namespace; absent: all (in the root namespace: all of the mesh).
        "selector" selector: Option<WorkloadSelector>,
        /// Deprecated: use `targetRefs`.
        "targetRef" target_ref: Option<TargetRef>,
        /// Gateways, services or waypoints instead of a selector.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// Any of these must match; absent: none does.
        "rules" rules: Vec<Rule>,
        /// What a match means.
        "action" action: Action,
        /// The provider of action CUSTOM.
        "provider" provider: Option<Provider>,
    }
}

choice! {
    /// What a match means.
    Action {
        /// Let it pass.
        Allow = "ALLOW",
        /// Refuse it.
        Deny = "DENY",
        /// Log it.
        Audit = "AUDIT",
        /// Ask a provider.
        Custom = "CUSTOM",
    }
}

object! { no_null;
    /// A provider of the mesh configuration.
    Provider {
        /// Its name.
        "name" name: Arc<str>,
    }
}

object! { no_null;
    /// One rule: from, to and when must all match; an empty rule matches everything.
    Rule {
        /// Who; alternatives.
        "from" from: Vec<RuleFrom>,
        /// What; alternatives.
        "to" to: Vec<RuleTo>,
        /// Further conditions; all must hold.
        "when" when: Vec<Condition>,
    }
}

object! { no_null;
    /// Who.
    RuleFrom {
        /// The caller.
        "source" source: Option<Source>,
    }
}

object! { no_null;
    /// What.
    RuleTo {
        /// The operation.
        "operation" operation: Option<Operation>,
    }
}

object! { no_null;
    /// A caller: every list given must have a match, no `not` list may.
    Source {
        /// Identities `TD/ns/NS/sa/SA`; `*` at either end.
        "principals" principals: Vec<Arc<str>>,
        /// Not these.
        "notPrincipals" not_principals: Vec<Arc<str>>,
        /// JWT identities `ISS/SUB`.
        "requestPrincipals" request_principals: Vec<Arc<str>>,
        /// Not these.
        "notRequestPrincipals" not_request_principals: Vec<Arc<str>>,
        /// Namespaces.
        "namespaces" namespaces: Vec<Arc<str>>,
        /// Not these.
        "notNamespaces" not_namespaces: Vec<Arc<str>>,
        /// Networks of the direct peer.
        "ipBlocks" ip_blocks: Vec<Arc<str>>,
        /// Not these.
        "notIpBlocks" not_ip_blocks: Vec<Arc<str>>,
        /// Networks of the original client.
        "remoteIpBlocks" remote_ip_blocks: Vec<Arc<str>>,
        /// Not these.
        "notRemoteIpBlocks" not_remote_ip_blocks: Vec<Arc<str>>,
        /// Service accounts, `SA` or `NS/SA`.
        "serviceAccounts" service_accounts: Vec<Arc<str>>,
        /// Not these.
        "notServiceAccounts" not_service_accounts: Vec<Arc<str>>,
        /// Trust domains.
        "trustDomains" trust_domains: Vec<Arc<str>>,
        /// Not these.
        "notTrustDomains" not_trust_domains: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// An operation: every list given must have a match, no `not` list may.
    Operation {
        /// Authorities; `*` at either end.
        "hosts" hosts: Vec<Arc<str>>,
        /// Not these.
        "notHosts" not_hosts: Vec<Arc<str>>,
        /// Ports, as text.
        "ports" ports: Vec<Arc<str>>,
        /// Not these.
        "notPorts" not_ports: Vec<Arc<str>>,
        /// Methods.
        "methods" methods: Vec<Arc<str>>,
        /// Not these.
        "notMethods" not_methods: Vec<Arc<str>>,
        /// Paths; `*` at either end, or a template with `{*}` and `{**}`.
        "paths" paths: Vec<Arc<str>>,
        /// Not these.
        "notPaths" not_paths: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// A further condition.
    Condition {
        /// The attribute, e.g. `request.headers[x-token]`.
        "key" key: Arc<str> [required],
        /// One must match.
        "values" values: Vec<Arc<str>>,
        /// None may match.
        "notValues" not_values: Vec<Arc<str>>,
    }
}
