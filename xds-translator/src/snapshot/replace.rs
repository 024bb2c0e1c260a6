//! Puts the items of one object in the place of its former ones, and names the facts that this changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Audience, ChangeSet, CredentialFact, Dep, Item, MeshSnapshot, ServiceDefinition, backends, endpoints::is_entry,
    routes,
};
use crate::ir::{
    AccessPolicy, BackendPolicy, GatewayConfig, Labels, LocalityPolicy, PeerTlsPolicy, RouteTable, ServiceKey,
    SidecarScope, Visibility, Workload,
};

impl MeshSnapshot {
    /// Replaces the items of one object. `audience` tells which facts somebody may have recorded.
    pub(crate) fn replace(&mut self, old: &[Item], new: &[Item], audience: &Audience, changes: &mut ChangeSet) {
        if old == new {
            return;
        }
        let mut asked = Asked::of(new);
        let asked_before = Asked::of(old);
        let mut stale = BTreeSet::new();
        let mut contested = self.contested(old);
        for item in old {
            self.remove(item, &mut stale);
        }
        for item in new {
            self.insert(item, &mut stale);
        }
        contested.extend(self.contested(new));
        Touch { audience, changes, contested, root: self.mesh.root_namespace.clone() }.all(old, new);
        self.ask(&asked_before, &mut asked, changes);
        self.rebuild_endpoints(stale, changes);
    }

    fn contested(&self, items: &[Item]) -> BTreeSet<ServiceKey> {
        let keys = items.iter().filter_map(|item| match item {
            Item::Service(d) => Some(&d.service.key),
            _ => None,
        });
        keys.filter(|key| self.services.is_contested(key)).cloned().collect()
    }

    /// Records or forgets a credential.
    pub(crate) fn set_credential(
        &mut self,
        namespace: &str,
        name: &str,
        fact: Option<CredentialFact>,
        changes: &mut ChangeSet,
    ) {
        let key = (Arc::from(namespace), Arc::from(name));
        if self.credentials.get(&key) == fact.as_ref() {
            return;
        }
        let credentials = Arc::make_mut(&mut self.credentials);
        let appears = fact.is_some();
        let old = match fact {
            Some(fact) => credentials.insert(key.clone(), fact),
            None => credentials.remove(&key),
        };
        if old.is_some() != appears {
            changes.touch(Dep::Credential(key.0, key.1));
        }
    }

    fn remove(&mut self, item: &Item, stale: &mut BTreeSet<ServiceKey>) {
        match item {
            Item::Mesh(_) => self.mesh = Arc::default(),
            Item::Service(d) => {
                Arc::make_mut(&mut self.services).remove(&d.service);
                stale.insert(d.service.key.clone());
            }
            Item::Slice(slice) => {
                Arc::make_mut(&mut self.endpoints).remove_slice(slice);
                stale.insert(slice.service.clone());
            }
            Item::Workload(workload) => {
                self.services_with(workload, stale);
                Arc::make_mut(&mut self.workloads).remove(workload);
            }
            Item::Routes(table) => drop(Arc::make_mut(&mut self.routes).remove(&table.origin.id)),
            Item::Backend(policy) => drop(Arc::make_mut(&mut self.backends).remove(&policy.origin.id)),
            Item::Gateway(gateway) => Arc::make_mut(&mut self.gateways).remove(&gateway.origin.id),
            Item::Scope(scope) => Arc::make_mut(&mut self.scopes).remove(scope),
            Item::PeerTls(policy) => Arc::make_mut(&mut self.policies).remove_peer_tls(policy),
            Item::Access(policy) => Arc::make_mut(&mut self.policies).remove_access(&policy.origin.id),
        }
    }

    fn insert(&mut self, item: &Item, stale: &mut BTreeSet<ServiceKey>) {
        match item {
            Item::Mesh(mesh) => self.mesh = mesh.clone(),
            Item::Service(d) => {
                Arc::make_mut(&mut self.services).insert(d.clone());
                stale.insert(d.service.key.clone());
            }
            Item::Slice(slice) => {
                Arc::make_mut(&mut self.endpoints).insert_slice(slice.clone());
                stale.insert(slice.service.clone());
            }
            Item::Workload(workload) => {
                Arc::make_mut(&mut self.workloads).insert(workload.clone());
                self.services_with(workload, stale);
            }
            Item::Routes(table) => drop(Arc::make_mut(&mut self.routes).insert(table.clone())),
            Item::Backend(policy) => drop(Arc::make_mut(&mut self.backends).insert(policy.clone())),
            Item::Gateway(gateway) => Arc::make_mut(&mut self.gateways).insert(gateway.clone()),
            Item::Scope(scope) => Arc::make_mut(&mut self.scopes).insert(scope.clone()),
            Item::PeerTls(policy) => Arc::make_mut(&mut self.policies).insert_peer_tls(policy.clone()),
            Item::Access(policy) => Arc::make_mut(&mut self.policies).insert_access(policy.clone()),
        }
    }

    /// Services whose endpoints may come from the workload.
    fn services_with(&self, workload: &Workload, stale: &mut BTreeSet<ServiceKey>) {
        stale.extend(self.endpoints.holding(workload).cloned());
        let selecting = self.services.selecting(workload).map(|s| &s.key);
        stale.extend(selecting.filter(|key| is_entry(workload) || !self.endpoints.has_slices(key)).cloned());
    }

    fn rebuild_endpoints(&mut self, stale: BTreeSet<ServiceKey>, changes: &mut ChangeSet) {
        for key in stale {
            let definition = self.services.definition(&key).map(AsRef::as_ref);
            let endpoints = Arc::make_mut(&mut self.endpoints);
            let difference = endpoints.rebuild(&key, definition, &self.workloads, &self.mesh);
            // Without a selector only slices tell which service ports lead to a workload.
            if difference.endpoints && definition.is_some_and(|d| d.service.kubernetes && d.service.selector.is_none())
            {
                changes.reclassify.namespaces.insert(key.namespace.clone());
            }
            changes.touch_endpoints(&key, difference);
        }
    }

    /// Keeps the label keys that rules ask clients about. Another set of keys makes other classes.
    fn ask(&mut self, before: &Asked, now: &mut Asked, changes: &mut ChangeSet) {
        if before == now {
            return;
        }
        let counts = Arc::make_mut(&mut self.asked_labels);
        let known: BTreeSet<Arc<str>> = counts.keys().cloned().collect();
        for label in &now.0 {
            *counts.entry(label.clone()).or_default() += 1;
        }
        for label in &before.0 {
            if let Some(count) = counts.get_mut(label) {
                *count -= 1;
            }
        }
        counts.retain(|_, count| *count > 0);
        changes.reclassify.everyone |= !counts.keys().eq(known.iter());
    }
}

/// Label keys of clients that the items of an object ask about.
#[derive(PartialEq, Eq, Default)]
struct Asked(BTreeSet<Arc<str>>);

impl Asked {
    fn of(items: &[Item]) -> Self {
        let mut asked = Self::default();
        for item in items {
            match item {
                Item::Routes(table) => asked.routes(table),
                Item::Backend(policy) => asked.backend(policy),
                Item::Mesh(mesh) => asked.failover(&mesh.locality),
                _ => {}
            }
        }
        asked
    }

    fn routes(&mut self, table: &RouteTable) {
        let http = table.http.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        let tls = table.tls.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        let tcp = table.tcp.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        http.chain(tls).chain(tcp).for_each(|labels| self.labels(Some(labels)));
    }

    fn backend(&mut self, policy: &BackendPolicy) {
        self.labels(policy.workload_selector.as_ref().map(|s| &s.0));
        let blocks = std::iter::once(&policy.traffic).chain(policy.subsets.iter().map(|s| &s.traffic));
        for block in blocks.flat_map(|t| std::iter::once(t).chain(t.ports.values())) {
            let locality = block.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
            locality.into_iter().for_each(|locality| self.failover(locality));
        }
    }

    /// `failoverPriority` compares labels of client and endpoint; each may carry a value, `KEY=VALUE`.
    fn failover(&mut self, locality: &LocalityPolicy) {
        self.0
            .extend(locality.failover_priority.iter().map(|label| label.split('=').next().unwrap_or_default().into()));
    }

    fn labels(&mut self, labels: Option<&Labels>) {
        self.0.extend(labels.into_iter().flat_map(BTreeMap::keys).cloned());
    }
}

/// Spells the difference between old and new items as facts.
struct Touch<'a> {
    audience: &'a Audience,
    changes: &'a mut ChangeSet,
    /// Services that several objects define.
    contested: BTreeSet<ServiceKey>,
    root: Arc<str>,
}

impl Touch<'_> {
    fn all(&mut self, old: &[Item], new: &[Item]) {
        // Items that are in both lists changed nothing; an object gives several items only as a ServiceEntry.
        let gone = old.iter().filter(|item| !new.contains(item));
        let came = new.iter().filter(|item| !old.contains(item));
        let (gone, came): (Vec<_>, Vec<_>) = (gone.collect(), came.collect());
        match (&gone[..], &came[..]) {
            ([one], [other]) => self.pair(Some(one), Some(other)),
            _ => {
                gone.into_iter().for_each(|item| self.pair(Some(item), None));
                came.into_iter().for_each(|item| self.pair(None, Some(item)));
            }
        }
    }

    fn pair(&mut self, old: Option<&Item>, new: Option<&Item>) {
        match (old, new) {
            (Some(Item::Routes(old)), Some(Item::Routes(new))) => self.routes(&[old, new]),
            (Some(Item::Backend(old)), Some(Item::Backend(new))) => self.backends(&[old, new]),
            (Some(Item::Service(old)), Some(Item::Service(new))) => self.services(&[old, new]),
            (Some(Item::Scope(old)), Some(Item::Scope(new))) => self.scopes(&[old, new]),
            (Some(Item::Gateway(old)), Some(Item::Gateway(new))) => self.gateways(&[old, new]),
            (Some(Item::Workload(old)), Some(Item::Workload(new))) => self.workloads(&[old, new]),
            _ => old.into_iter().chain(new).for_each(|item| self.single(item)),
        }
    }

    fn single(&mut self, item: &Item) {
        match item {
            Item::Mesh(_) => self.changes.everything = true,
            Item::Service(d) => self.services(&[d]),
            Item::Workload(workload) => self.workloads(&[workload]),
            Item::Routes(table) => self.routes(&[table]),
            Item::Backend(policy) => self.backends(&[policy]),
            Item::Gateway(gateway) => self.gateways(&[gateway]),
            Item::Scope(scope) => self.scopes(&[scope]),
            Item::PeerTls(policy) => self.peer_tls(policy),
            Item::Access(policy) => self.access(policy),
            // What slices say reaches plans through the endpoints that are built from them.
            Item::Slice(_) => {}
        }
    }

    fn services(&mut self, versions: &[&Arc<ServiceDefinition>]) {
        if versions.windows(2).any(|w| w[0].service == w[1].service) {
            return;
        }
        for service in versions.iter().map(|d| &d.service) {
            let key = &service.key;
            let contested = self.contested.contains(key);
            // Another definition may be seen by others.
            let seen_by = if contested { &Visibility::Public } else { &service.export_to };
            for namespace in self.audience.seeing(seen_by, &key.namespace) {
                self.changes.touch(Dep::ServicesVisible(namespace.clone()));
                self.changes.touch(Dep::ServiceByHost(key.host.clone(), namespace.clone()));
            }
            self.changes.touch(Dep::Service(key.clone()));
            // Inbound views list the services that lead to a workload, and selectors reach no further than a namespace.
            if service.selector.is_some() || contested {
                self.changes.reclassify.namespaces.insert(key.namespace.clone());
            }
        }
    }

    fn workloads(&mut self, versions: &[&Arc<Workload>]) {
        self.changes.touch(Dep::Workload(versions[0].id.clone()));
        if versions.windows(2).any(|w| same_class(w[0], w[1])) {
            return;
        }
        versions.iter().for_each(|workload| self.changes.reclassify.workload(workload));
    }

    fn routes(&mut self, versions: &[&Arc<RouteTable>]) {
        self.changes.touch(Dep::RouteTable(versions[0].origin.id.clone()));
        if versions.windows(2).any(|w| routes::outline_of(w[0]) == routes::outline_of(w[1])) {
            return;
        }
        for table in versions {
            for attachment in &table.attachments {
                for namespace in self.audience.seeing(&table.export_to, &table.origin.id.namespace) {
                    self.changes.touch(Dep::RouteTables(attachment.clone(), namespace.clone()));
                }
            }
        }
    }

    fn backends(&mut self, versions: &[&Arc<BackendPolicy>]) {
        self.changes.touch(Dep::BackendPolicy(versions[0].origin.id.clone()));
        let names = |p: &Arc<BackendPolicy>| (backends::credentials(p), p.export_to.clone());
        let same_names = versions.windows(2).any(|w| names(w[0]) == names(w[1]));
        let none = versions.iter().all(|p| backends::credentials(p).is_empty());
        self.changes.reclassify.everyone |= !(none || same_names);
        if versions.windows(2).any(|w| backends::outline_of(w[0]) == backends::outline_of(w[1])) {
            return;
        }
        let local: BTreeSet<bool> = versions.iter().map(|p| backends::by_locality(p)).collect();
        self.changes.reclassify.everyone |= local.contains(&true);
        for policy in versions {
            for namespace in self.audience.seeing(&policy.export_to, &policy.origin.id.namespace) {
                self.changes.touch(Dep::PoliciesVisible(namespace.clone()));
                for host in self.audience.hosts_in(&policy.host) {
                    self.changes.touch(Dep::BackendPolicies(host.clone(), namespace.clone()));
                }
            }
        }
    }

    fn gateways(&mut self, versions: &[&Arc<GatewayConfig>]) {
        self.changes.touch(Dep::Gateway(versions[0].origin.id.clone()));
        let same = |a: &GatewayConfig, b: &GatewayConfig| {
            (&a.selector, &a.origin) == (&b.selector, &b.origin) && listens(a) == listens(b)
        };
        // Gateways select workloads of any namespace.
        self.changes.reclassify.everyone |= !versions.windows(2).any(|w| same(w[0], w[1]));
    }

    fn scopes(&mut self, versions: &[&Arc<SidecarScope>]) {
        self.changes.touch(Dep::Scope(versions[0].origin.id.clone()));
        if versions.windows(2).any(|w| (&w[0].selector, &w[0].origin) == (&w[1].selector, &w[1].origin)) {
            return;
        }
        let namespace = &versions[0].origin.id.namespace;
        match *namespace == self.root {
            true => self.changes.reclassify.everyone = true,
            false => drop(self.changes.reclassify.namespaces.insert(namespace.clone())),
        }
    }

    fn peer_tls(&mut self, policy: &PeerTlsPolicy) {
        for namespace in self.audience.governed_by(&policy.origin.id.namespace, &self.root) {
            self.changes.touch(Dep::PeerTls(namespace.clone()));
        }
    }

    fn access(&mut self, policy: &AccessPolicy) {
        for namespace in self.audience.governed_by(&policy.origin.id.namespace, &self.root) {
            self.changes.touch(Dep::Access(namespace.clone()));
        }
    }
}

/// Whether a class that was computed from one workload holds for the other.
fn same_class(a: &Workload, b: &Workload) -> bool {
    let facts = |w: &Workload| (w.labels.clone(), w.service_account.clone(), w.addresses.clone(), w.locality.clone());
    facts(a) == facts(b) && a.named_ports == b.named_ports && a.host_network == b.host_network
}

/// Server ports and credentials: what the class of a gateway takes from its configuration.
fn listens(gateway: &GatewayConfig) -> Vec<(u16, Vec<Arc<str>>)> {
    let names = |tls: &crate::ir::ServerTls| tls.credentials.iter().chain(&tls.ca_credential).cloned().collect();
    gateway.servers.iter().map(|s| (s.port, s.tls.as_ref().map(names).unwrap_or_default())).collect()
}
