//! The only way a plan looks at the snapshot: every accessor records what it read. The accessors
//! stand with the families that they read.
//!
//! A [`Reader`] lives for one planning call. What it recorded decides which changes cause that call
//! to be repeated, so a plan cannot depend on a fact that is not recorded: it has no other access
//! (invariant 1).

use std::{cell::RefCell, sync::Arc};

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::MeshSnapshot;
use crate::ir::{
    Attachment, Connection, Hostname, KeySource, ObjectId, ServiceKey, WorkloadId, WorkloadSet,
};

/// One fact that a plan read. A change of the fact repeats the plan; nothing else does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dep {
    /// The mesh-wide settings.
    Mesh,
    /// Which services a namespace sees, and what they say.
    ServicesVisible(Arc<str>),
    /// One service.
    Service(ServiceKey),
    /// The service that a host means for clients of a namespace.
    ServiceByHost(Hostname, Arc<str>),
    /// Every endpoint of a service.
    Endpoints(ServiceKey),
    /// The SPIFFE ids behind a service.
    Identities(ServiceKey),
    /// The addresses behind a headless service.
    HeadlessAddresses(ServiceKey),
    /// Whether a workload behind a service has no sidecar.
    Plaintext(ServiceKey),
    /// The route tables of an attachment that a namespace sees, in outline form.
    RouteTables(Attachment, Arc<str>),
    /// A route table in which others continue, in outline form.
    RoutePart(ObjectId),
    /// The policies in force for a host and clients of a namespace, in outline form.
    BackendPolicies(Hostname, Arc<str>),
    /// The policies in force for any host and clients of a namespace, in outline form.
    PoliciesVisible(Arc<str>),
    /// What one object was lowered to, whole: a route table, a backend policy, a gateway
    /// configuration, a sidecar scope.
    Object(ObjectId),
    /// The peer TLS policies that concern a namespace.
    PeerTls(Arc<str>),
    /// The access policies that concern a namespace.
    Access(Arc<str>),
    /// The token policies that concern a namespace.
    Tokens(Arc<str>),
    /// The keys of a source.
    KeySet(KeySource),
    /// The rate limits that concern a namespace.
    RateLimits(Arc<str>),
    /// The policies of outbound traffic that concern a namespace.
    Outbound(Arc<str>),
    /// What objects describe of the ports of a namespace's workloads.
    WorkloadPorts(Arc<str>),
    /// The addresses of a set of workloads.
    Addresses(WorkloadSet),
    /// Whether a credential exists: namespace and name.
    Credential(Arc<str>, Arc<str>),
    /// One workload.
    Workload(WorkloadId),
    /// Whether a proxy is connected.
    Connection(Connection),
}

/// Reads a snapshot and records what was read.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) snapshot: &'a MeshSnapshot,
    deps: RefCell<FxHashSet<Dep>>,
    surveyed: RefCell<SmallVec<[Arc<str>; 2]>>,
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    pub fn new(snapshot: &'a MeshSnapshot) -> Self {
        Self { snapshot, deps: RefCell::default(), surveyed: RefCell::default() }
    }

    /// Reads all services and policies that clients of `namespace` see as one fact each. Single
    /// hosts that are looked up for these clients are then not recorded: a plan that looks up every
    /// host would record thousands, and a change of any of them touches the coarse fact too.
    pub fn survey(&self, namespace: &Arc<str>) {
        self.record(Dep::ServicesVisible(namespace.clone()));
        self.record(Dep::PoliciesVisible(namespace.clone()));
        self.surveyed.borrow_mut().push(namespace.clone());
    }

    /// Records what was read of one host for clients of `namespace`, unless that was surveyed.
    pub(super) fn record_host(&self, namespace: &str, dep: impl FnOnce() -> Dep) {
        if !self.surveyed.borrow().iter().any(|surveyed| **surveyed == *namespace) {
            self.record(dep());
        }
    }

    /// Everything that was read; sorted, unique.
    pub fn into_deps(self) -> Vec<Dep> {
        let mut deps: Vec<Dep> = self.deps.into_inner().into_iter().collect();
        deps.sort_unstable();
        deps
    }

    pub(super) fn record(&self, dep: Dep) {
        self.deps.borrow_mut().insert(dep);
    }

    /// What is read; whoever reads it records the fact.
    pub(super) fn snapshot(&self) -> &'a MeshSnapshot {
        self.snapshot
    }
}
