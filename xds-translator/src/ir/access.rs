//! Who may do what at a workload.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{
    Field, Labels, ObjectId, Origin, PolicyScope, PolicyTarget, Selector, SharedPorts, StringMatch,
    Workload,
};

/// The policy of one object.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessPolicy {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are that it guards.
    pub scope: PolicyScope,
    /// Which workloads of its scope; empty: all.
    pub selector: Selector,
    /// What of them it guards.
    pub target: PolicyTarget,
    /// Instead of all that `selector` and `target` say: ports that objects of their own describe. Only
    /// as lowered: who reads policies of a snapshot reads them put together.
    pub ports: Option<SharedPorts>,
    /// What a match means.
    pub action: AccessAction,
    /// Who is asked, where a match means that; by the name that the mesh gives it.
    pub authorizer: Option<Arc<str>>,
    /// Rules are OR-ed, and keep the place they have in the object. A rule without conditions
    /// matches everything.
    pub rules: Vec<AccessRule>,
    /// Objects that say who callers are: whom a rule matches is of each of these too. While one of
    /// them is not there, no rule matches anybody. Only as lowered.
    pub shared_callers: Vec<SharedCallers>,
    /// What becomes of what no rule matches.
    pub unmatched: Unmatched,
    /// Only reported, not enforced.
    pub dry_run: bool,
}

impl AccessPolicy {
    /// Whether it holds at workloads with these labels.
    pub fn governs(&self, namespace: &str, labels: &Labels) -> bool {
        self.scope.includes(namespace) && self.selector.matches(labels)
    }

    /// Whether some rule has a condition on the request's token.
    pub fn looks_at_tokens(&self) -> bool {
        let of_token = |caller: &CallerMatch| {
            matches!(caller, CallerMatch::RequestPrincipal(_) | CallerMatch::Claim(..))
        };
        self.rules.iter().flat_map(AccessRule::callers).any(of_token)
    }

    /// Workloads that its rules ask callers to be.
    pub fn calling_workloads(&self) -> impl Iterator<Item = &WorkloadSet> {
        self.rules.iter().flat_map(AccessRule::callers).flat_map(|caller| match caller {
            CallerMatch::Workload(sets) => sets.wanted.iter().chain(&sets.refused),
            _ => [].iter().chain(&[]),
        })
    }
}

/// A set of callers that an object of its own says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SharedCallers {
    /// Where the object is named.
    pub at: Field,
    /// The object.
    pub set: ObjectId,
}

/// Callers to which policies of other objects refer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct CallerSet {
    /// The object.
    pub origin: Origin,
    /// Who; alternatives, of which all conditions must hold. None: nobody.
    pub alternatives: Vec<Vec<CallerMatch>>,
}

/// What becomes of calls to ports of workloads that no object describes ([`WorkloadPort`]). One
/// about a workload itself comes before one about its namespace, and of equals the oldest counts.
///
/// [`WorkloadPort`]: super::WorkloadPort
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessDefault {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are.
    pub namespace: Arc<str>,
    /// The labels, all of them, of the workloads; `None`: every workload of the namespace.
    pub labels: Option<Labels>,
    /// Who passes, as in an access policy.
    pub rules: Vec<AccessRule>,
}

/// What becomes of a call that no rule of a policy matches. What no policy guards passes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Unmatched {
    /// It passes, unless another policy refuses it.
    Pass,
    /// It is refused, unless another policy allows it.
    Refuse,
}

impl Unmatched {
    /// Of a policy that says no more than what its matches mean: one that allows some refuses the
    /// others (Istio `AuthorizationPolicy.action`).
    pub fn under(action: AccessAction) -> Self {
        match action {
            AccessAction::Allow => Self::Refuse,
            AccessAction::Deny | AccessAction::Audit | AccessAction::Ask => Self::Pass,
        }
    }
}

/// What a match means. Ask is evaluated before Audit, Audit before Deny, and Deny before Allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum AccessAction {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
    /// Log it.
    Audit,
    /// Ask an authorizer, before tokens are checked.
    Ask,
}

/// One rule: sources, operations and conditions are AND-ed; an empty list asks for nothing.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct AccessRule {
    /// Who; alternatives, of which all conditions must hold.
    pub from: Vec<Vec<CallerMatch>>,
    /// What; alternatives, of which all conditions must hold.
    pub to: Vec<Vec<CallMatch>>,
    /// Conditions of `when` on the caller; all must hold beside every alternative.
    pub when_from: Vec<CallerMatch>,
    /// Conditions of `when` on the call; all must hold beside every alternative.
    pub when_to: Vec<CallMatch>,
}

impl AccessRule {
    /// Whether some condition looks at what only requests have, and connections of other protocols
    /// do not.
    pub fn needs_http(&self) -> bool {
        self.callers().any(CallerMatch::needs_http) || self.calls().any(CallMatch::needs_http)
    }

    /// Whether the rule can hold at a destination port, as far as its conditions on ports go.
    pub fn reaches_port(&self, port: u16) -> bool {
        let holds = |condition: &CallMatch| match condition {
            CallMatch::Port(ports) => ports.admit(|p| *p == port),
            _ => true,
        };
        let some_operation = self.to.is_empty() || self.to.iter().any(|all| all.iter().all(holds));
        some_operation && self.when_to.iter().all(holds)
    }

    /// Asks that callers are one of these besides; none: nobody may be left.
    pub fn narrow(&mut self, callers: &[Vec<CallerMatch>]) {
        let own = std::mem::take(&mut self.from);
        let both = |one: &[CallerMatch], other: &[CallerMatch]| [one, other].concat();
        self.from = match own.is_empty() {
            true => callers.to_vec(),
            false => own.iter().flat_map(|o| callers.iter().map(move |c| both(o, c))).collect(),
        };
    }

    fn callers(&self) -> impl Iterator<Item = &CallerMatch> {
        self.from.iter().flatten().chain(&self.when_from)
    }

    fn calls(&self) -> impl Iterator<Item = &CallMatch> {
        self.to.iter().flatten().chain(&self.when_to)
    }
}

/// Values of one attribute: one of `wanted` must match unless there is none, and none of `refused`
/// may.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Values<T> {
    /// Alternatives (`x`, `values`).
    pub wanted: Vec<T>,
    /// Exceptions (`notX`, `notValues`).
    pub refused: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { wanted: Vec::new(), refused: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.refused.is_empty()
    }

    /// Whether what `matches` stands for is wanted and not refused.
    pub fn admit(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(&matches))
            && !self.refused.iter().any(&matches)
    }
}

/// A condition on the caller.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum CallerMatch {
    /// The identity `TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, without scheme; `Present`: any
    /// authenticated peer.
    Principal(Values<StringMatch>),
    /// The trust domain of the identity, as a whole.
    TrustDomain(Values<StringMatch>),
    /// The namespace of the identity, as a whole.
    Namespace(Values<StringMatch>),
    /// Namespace and service account of the identity, in any trust domain.
    Account(Values<Account>),
    /// Network of the direct peer.
    DirectIp(Values<IpNet>),
    /// Network of the original client (X-Forwarded-For, PROXY protocol).
    RemoteIp(Values<IpNet>),
    /// Workloads, by the addresses of the direct peer that are theirs: follows them as they come and
    /// go. Addresses that others may have too (a node's) are nobody's, where taking them for
    /// somebody's would let more in.
    Workload(Values<WorkloadSet>),
    /// A request header by its lower-case name, pseudo headers included.
    Header(Arc<str>, Values<StringMatch>),
    /// Issuer and subject of the request's token.
    RequestPrincipal(Values<RequestPrincipal>),
    /// A claim of the request's token, which is a text or a list of texts: its name, within which
    /// other names may be.
    Claim(Vec<Arc<str>>, Values<StringMatch>),
}

impl CallerMatch {
    fn needs_http(&self) -> bool {
        matches!(self, Self::Header(..) | Self::RequestPrincipal(_) | Self::Claim(..))
    }
}

/// Workloads by what they are labelled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct WorkloadSet {
    /// Their namespace; `None`: any.
    pub namespace: Option<Arc<str>>,
    /// Their labels; empty: any.
    pub selector: Selector,
}

impl WorkloadSet {
    /// Whether a workload is one of them.
    pub fn contains(&self, workload: &Workload) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == workload.id.namespace)
            && self.selector.matches(&workload.labels)
    }
}

/// Who a token speaks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RequestPrincipal {
    /// The claim `iss`.
    pub issuer: StringMatch,
    /// The claim `sub`.
    pub subject: StringMatch,
}

/// A text among what a filter of the proxy found out.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MetadataText {
    /// It is an element of a list.
    pub in_list: bool,
    /// What it must be.
    pub condition: StringMatch,
}

/// A service account.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Account {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A condition on the call.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum CallMatch {
    /// The authority, without case; a port that the client wrote belongs to it.
    Host(Values<StringMatch>),
    /// The method.
    Method(Values<StringMatch>),
    /// The path without query.
    Path(Values<StringMatch>),
    /// The destination port.
    Port(Values<u16>),
    /// The destination network.
    Ip(Values<IpNet>),
    /// The server name of the TLS handshake.
    Sni(Values<StringMatch>),
    /// What a filter of the proxy found out: the filter, and the name under which it keeps it.
    Metadata(Arc<str>, Arc<str>, Values<MetadataText>),
}

impl CallMatch {
    fn needs_http(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Method(_) | Self::Path(_))
    }
}
