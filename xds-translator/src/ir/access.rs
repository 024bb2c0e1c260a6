//! Who may do what at a workload (Istio `AuthorizationPolicy`).

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{Origin, Selector, StringMatch};

/// The policy of one object.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessPolicy {
    /// The object. In the root namespace it applies to every namespace.
    pub origin: Origin,
    /// Workloads of its scope; empty: all.
    pub selector: Selector,
    /// What a match means.
    pub action: AccessAction,
    /// Rules are OR-ed. Empty with ALLOW: nothing is allowed. A rule without conditions matches everything.
    pub rules: Vec<AccessRule>,
    /// Only reported, not enforced (annotation `istio.io/dry-run`).
    pub dry_run: bool,
}

/// What a match means. Evaluated in the order Deny, Allow; with at least one Allow policy the rest is refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum AccessAction {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
    /// Log it.
    Audit,
}

/// One rule: sources, operations and conditions are AND-ed; each list inside is OR-ed; an empty list means any.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct AccessRule {
    /// Who; alternatives.
    pub from: Vec<Source>,
    /// What; alternatives.
    pub to: Vec<Operation>,
    /// Further conditions; all must hold.
    pub when: Vec<Condition>,
}

/// A caller. Every non-empty list must have a match, and no `not_` list may have one.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Source {
    /// SPIFFE ids without scheme; `*` prefix or suffix allowed; `*` alone: any authenticated peer.
    pub principals: Vec<StringMatch>,
    /// As above, refused.
    pub not_principals: Vec<StringMatch>,
    /// Namespaces, `*` allowed.
    pub namespaces: Vec<StringMatch>,
    /// As above, refused.
    pub not_namespaces: Vec<StringMatch>,
    /// `NS/SA` or `SA`, resolved to (namespace, account).
    pub service_accounts: Vec<(Arc<str>, Arc<str>)>,
    /// As above, refused.
    pub not_service_accounts: Vec<(Arc<str>, Arc<str>)>,
    /// Networks of the direct peer.
    pub ip_blocks: Vec<IpNet>,
    /// As above, refused.
    pub not_ip_blocks: Vec<IpNet>,
    /// Networks of the original client (X-Forwarded-For, PROXY protocol).
    pub remote_ip_blocks: Vec<IpNet>,
    /// As above, refused.
    pub not_remote_ip_blocks: Vec<IpNet>,
    /// JWT principals `ISS/SUB`.
    pub request_principals: Vec<StringMatch>,
    /// As above, refused.
    pub not_request_principals: Vec<StringMatch>,
}

/// An operation. Every non-empty list must have a match, and no `not_` list may have one.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Operation {
    /// Authorities, without case.
    pub hosts: Vec<StringMatch>,
    /// As above, refused.
    pub not_hosts: Vec<StringMatch>,
    /// Destination ports.
    pub ports: Vec<u16>,
    /// As above, refused.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<StringMatch>,
    /// As above, refused.
    pub not_methods: Vec<StringMatch>,
    /// Paths.
    pub paths: Vec<PathMatch>,
    /// As above, refused.
    pub not_paths: Vec<PathMatch>,
}

/// A condition on a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PathMatch {
    /// Plain.
    Text(StringMatch),
    /// A template with `{*}` and `{**}`.
    Template(Arc<str>),
}

/// A condition from `when`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Condition {
    /// What is looked at.
    pub key: ConditionKey,
    /// One must match; empty: any.
    pub values: Vec<StringMatch>,
    /// None may match.
    pub not_values: Vec<StringMatch>,
}

/// What a `when` condition looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum ConditionKey {
    /// `request.headers[NAME]`, lower case.
    Header(Arc<str>),
    /// `source.ip`: values are networks in text form, checked when lowered.
    SourceIp,
    /// `remote.ip`.
    RemoteIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.principal`.
    SourcePrincipal,
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    Sni,
    /// `request.auth.*` and other keys that need a JWT: nothing provides them yet, so they never match, and an ALLOW
    /// rule with one never allows.
    Unavailable(Arc<str>),
}
