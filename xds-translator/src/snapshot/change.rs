//! What a change of configuration touched: the facts whose plans are repeated, and the workloads to
//! classify again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use rustc_hash::FxHashSet;

use super::Dep;
use crate::ir::{Hostname, Visibility, Workload, WorkloadId, WorkloadSet};

/// Namespaces, hosts and sets of workloads that recorded facts speak of, so that a change can be spelled as facts.
#[derive(Clone, Default, Debug)]
pub(crate) struct Audience {
    namespaces: BTreeMap<Arc<str>, usize>,
    hosts: BTreeMap<Hostname, usize>,
    workload_sets: BTreeMap<WorkloadSet, usize>,
}

impl Audience {
    pub(crate) fn join(&mut self, dep: &Dep) {
        if let Some(namespace) = namespace_of(dep) {
            *self.namespaces.entry(namespace.clone()).or_default() += 1;
        }
        if let Dep::BackendPolicies(host, _) = dep {
            *self.hosts.entry(host.clone()).or_default() += 1;
        }
        if let Dep::Addresses(set) = dep {
            *self.workload_sets.entry(set.clone()).or_default() += 1;
        }
    }

    pub(crate) fn leave(&mut self, dep: &Dep) {
        if let Some(namespace) = namespace_of(dep) {
            subtract(&mut self.namespaces, namespace);
        }
        if let Dep::BackendPolicies(host, _) = dep {
            subtract(&mut self.hosts, host);
        }
        if let Dep::Addresses(set) = dep {
            subtract(&mut self.workload_sets, set);
        }
    }

    /// Namespaces that see an object of the namespace `own`.
    pub(super) fn seeing<'a>(
        &'a self,
        seen_by: &'a Visibility,
        own: &'a str,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        self.namespaces.keys().filter(move |n| &***n == own || seen_by.includes(n))
    }

    /// Recorded hosts that a pattern stands for.
    pub(super) fn hosts_in<'a>(
        &'a self,
        pattern: &'a Hostname,
    ) -> Box<dyn Iterator<Item = &'a Hostname> + 'a> {
        match pattern.is_wildcard() {
            true => Box::new(self.hosts.keys().filter(|h| pattern.contains(h))),
            false => Box::new(std::iter::once(pattern)),
        }
    }

    /// Every namespace that recorded facts speak of.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Recorded sets of workloads.
    pub(super) fn workload_sets(&self) -> impl Iterator<Item = &WorkloadSet> {
        self.workload_sets.keys()
    }

    /// The namespaces that a policy of `namespace` concerns: all of them for the root namespace.
    pub(super) fn governed_by<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        root: &str,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let mesh_wide = **namespace == *root;
        self.namespaces.keys().filter(move |n| mesh_wide || *n == namespace)
    }
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The namespace of a client or workload that a fact speaks of.
fn namespace_of(dep: &Dep) -> Option<&Arc<str>> {
    match dep {
        Dep::ServicesVisible(namespace) | Dep::PoliciesVisible(namespace) => Some(namespace),
        Dep::PeerTls(namespace)
        | Dep::Access(namespace)
        | Dep::Tokens(namespace)
        | Dep::WorkloadPorts(namespace)
        | Dep::Outbound(namespace)
        | Dep::RateLimits(namespace) => Some(namespace),
        Dep::ServiceByHost(_, namespace)
        | Dep::RouteTables(_, namespace)
        | Dep::BackendPolicies(_, namespace) => Some(namespace),
        _ => None,
    }
}

/// Everything that one round of changes touched.
#[derive(Clone, Default, Debug)]
pub(crate) struct ChangeSet {
    /// Facts with another value than before.
    pub(crate) deps: FxHashSet<Dep>,
    /// Workloads whose class may be another than before.
    pub(crate) reclassify: Reclassify,
    /// Everything may have changed.
    pub(crate) everything: bool,
}

impl ChangeSet {
    pub(super) fn touch(&mut self, dep: Dep) {
        self.deps.insert(dep);
    }
}

/// Proxies whose class must be computed again after a change.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reclassify {
    /// All of them.
    pub everyone: bool,
    /// Those of these namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// These, by name.
    pub workloads: BTreeSet<WorkloadId>,
    /// And those at these addresses, however they name themselves.
    pub addresses: BTreeSet<IpAddr>,
}

impl Reclassify {
    /// Whether nobody is concerned.
    pub fn is_empty(&self) -> bool {
        !self.everyone
            && self.namespaces.is_empty()
            && self.workloads.is_empty()
            && self.addresses.is_empty()
    }

    /// Whether a proxy with this name and address is concerned.
    pub fn concerns(&self, workload: &WorkloadId, address: IpAddr) -> bool {
        self.everyone
            || self.namespaces.contains(&workload.namespace)
            || self.workloads.contains(workload)
            || self.addresses.contains(&address)
    }

    pub(super) fn workload(&mut self, workload: &Workload) {
        self.workloads.insert(workload.id.clone());
        self.addresses.extend(workload.addresses.iter().copied());
    }

    /// Adds what `other` says.
    pub fn merge(&mut self, other: Self) {
        self.everyone |= other.everyone;
        self.namespaces.extend(other.namespaces);
        self.workloads.extend(other.workloads);
        self.addresses.extend(other.addresses);
    }
}
