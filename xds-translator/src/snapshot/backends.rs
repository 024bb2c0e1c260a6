//! Backend policies, and which of them is in force for a client and a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    age::{ByAge, age, forget},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{
    BackendPolicy, ConnectionPool, Field, Hostname, Labels, LoadBalancer, ObjectId,
    OutlierDetection, Selector, TrafficPolicy, Visibility, ZonePolicy,
};

/// Every backend policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Backends {
    whole: BTreeMap<ObjectId, Arc<BackendPolicy>>,
    by_namespace: BTreeMap<Arc<str>, Hosts>,
    /// Policies that treat clients of different localities differently.
    by_locality: BTreeMap<ObjectId, Visibility>,
    /// Policies that balance over zones.
    by_zone: BTreeMap<ObjectId, Visibility>,
    /// Credentials for TLS to backends, of those policies that name any.
    credentials: BTreeMap<ObjectId, BackendCredentials>,
}

/// Credentials that a policy names, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
struct BackendCredentials {
    export_to: Visibility,
    /// The clients that it selects; `None`: gateways alone use them.
    clients: Option<Selector>,
    names: Vec<Arc<str>>,
}

/// Policies of one namespace in outline form: wildcards apart, because only they need a search.
#[derive(Clone, Default, Debug)]
struct Hosts {
    exact: BTreeMap<Hostname, ByAge<BackendPolicy>>,
    wildcards: BTreeMap<Hostname, ByAge<BackendPolicy>>,
}

impl Backends {
    pub(crate) fn policy(&self, id: &ObjectId) -> Option<&Arc<BackendPolicy>> {
        self.whole.get(id)
    }

    /// Whether some policy that clients of a namespace see makes their locality matter.
    pub(crate) fn locality_matters(&self, namespace: &str) -> bool {
        self.by_locality.values().any(|export_to| export_to.includes(namespace))
    }

    /// Whether some policy that clients of a namespace see balances over zones.
    pub(crate) fn zones_matter(&self, namespace: &str) -> bool {
        self.by_zone.values().any(|export_to| export_to.includes(namespace))
    }

    /// Credentials that policies name which clients of a namespace see.
    pub(crate) fn credentials_visible_to<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = Arc<str>> + 'a {
        let seen = move |named: &&BackendCredentials| named.export_to.includes(namespace);
        self.credentials.values().filter(seen).flat_map(|named| named.names.iter().cloned())
    }

    /// Credentials of policies that select a client of their namespace by its labels.
    pub(crate) fn credentials_of_client<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = Arc<str>> + 'a {
        let local = self.credentials.iter().filter(move |(id, _)| *id.namespace == *namespace);
        let selecting = local.filter(move |(_, named)| {
            let selects = named.clients.as_ref().is_some_and(|s| s.matches(labels));
            selects && named.export_to.includes(namespace)
        });
        selecting.flat_map(|(_, named)| named.names.iter().cloned())
    }

    pub(crate) fn in_force(
        &self,
        host: &Hostname,
        service_namespace: &str,
        client_namespace: &str,
        client_labels: &Labels,
        root: &str,
    ) -> Vec<Arc<BackendPolicy>> {
        let own = (client_namespace != root).then_some(client_namespace);
        let mut searched: Vec<&str> = Vec::with_capacity(3);
        for namespace in own.into_iter().chain([service_namespace, root]) {
            if searched.contains(&namespace) {
                continue;
            }
            searched.push(namespace);
            let local = namespace == client_namespace;
            // Its own namespace sees a policy only if it is exported there (Istio's
            // `namespaceLocalDestRules`).
            let applies = |p: &BackendPolicy| {
                let selected = match &p.workload_selector {
                    Some(selector) => local && selector.matches(client_labels),
                    None => true,
                };
                selected && p.export_to.includes(client_namespace)
            };
            let found =
                self.by_namespace.get(namespace).map(|hosts| hosts.most_specific(host, applies));
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                return alone_if_selected(found);
            }
        }
        Vec::new()
    }
}

impl Family for Backends {
    type Item = BackendPolicy;

    fn insert(&mut self, policy: &Arc<BackendPolicy>) {
        let id = &policy.origin.id;
        let hosts = self.by_namespace.entry(id.namespace.clone()).or_default();
        hosts
            .table(&policy.host)
            .entry(policy.host.clone())
            .or_default()
            .insert((age(&policy.origin), id.clone()), Arc::new(outline_of(policy)));
        if by_locality(policy) {
            self.by_locality.insert(id.clone(), policy.export_to.clone());
        }
        if by_zone(policy) {
            self.by_zone.insert(id.clone(), policy.export_to.clone());
        }
        let named = credentials(policy);
        if !named.names.is_empty() {
            self.credentials.insert(id.clone(), named);
        }
        self.whole.insert(id.clone(), policy.clone());
    }

    fn remove(&mut self, policy: &BackendPolicy) {
        let id = &policy.origin.id;
        self.whole.remove(id);
        self.by_locality.remove(id);
        self.by_zone.remove(id);
        self.credentials.remove(id);
        let Some(hosts) = self.by_namespace.get_mut(&id.namespace) else { return };
        forget(hosts.table(&policy.host), &policy.host, &(age(&policy.origin), id.clone()));
        if hosts.exact.is_empty() && hosts.wildcards.is_empty() {
            self.by_namespace.remove(&id.namespace);
        }
    }

    fn touch(versions: &[&Arc<BackendPolicy>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
        let same_names = versions.windows(2).any(|w| credentials(w[0]) == credentials(w[1]));
        let none = versions.iter().all(|p| credentials(p).names.is_empty());
        touch.changes.reclassify.everyone |= !(none || same_names);
        if versions.windows(2).any(|w| outline_of(w[0]) == outline_of(w[1])) {
            return;
        }
        touch.changes.reclassify.everyone |= versions.iter().any(|p| by_locality(p) || by_zone(p));
        for policy in versions {
            for namespace in touch.audience.seeing(&policy.export_to, &policy.origin.id.namespace) {
                touch.changes.touch(Dep::PoliciesVisible(namespace.clone()));
                for host in touch.audience.hosts_in(&policy.host) {
                    touch.changes.touch(Dep::BackendPolicies(host.clone(), namespace.clone()));
                }
            }
        }
    }

    fn label_keys(policy: &BackendPolicy, keys: &mut BTreeSet<Arc<str>>) {
        let selected = policy.workload_selector.iter().flat_map(Selector::keys);
        keys.extend(selected.cloned());
        let blocks =
            std::iter::once(&policy.traffic).chain(policy.subsets.iter().map(|s| &s.traffic));
        for block in blocks.flat_map(|t| std::iter::once(t).chain(t.ports.values())) {
            let balancer = block.load_balancer.as_ref();
            let locality = balancer.and_then(|lb| lb.locality.as_ref());
            keys.extend(locality.into_iter().flat_map(|locality| locality.compared_labels()));
            let zones = balancer.and_then(|lb| lb.zones.as_ref());
            keys.extend(zones.into_iter().flat_map(|zones| zones.compared_labels()));
        }
    }
}

impl<'a> Reader<'a> {
    /// The policies in force for clients with these labels when they call `host`, oldest first
    /// (Istio's order of search: the client's namespace, the service's, the root; most specific
    /// host; a policy that selects the client stands alone). In outline form: the numbers of
    /// connection pools and of outlier detection are blank (a block that was written is still
    /// there). Read [`Self::backend_policy`] for those.
    pub fn backend_policies(
        &self,
        host: &Hostname,
        service_namespace: &str,
        client_namespace: &str,
        client_labels: &Labels,
    ) -> Vec<Arc<BackendPolicy>> {
        self.record_host(client_namespace, || {
            Dep::BackendPolicies(host.clone(), client_namespace.into())
        });
        let root = &self.snapshot().mesh().root_namespace;
        self.snapshot().backends().in_force(
            host,
            service_namespace,
            client_namespace,
            client_labels,
            root,
        )
    }

    /// One backend policy, whole.
    pub fn backend_policy(&self, id: &ObjectId) -> Option<&'a Arc<BackendPolicy>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().backends().policy(id)
    }
}

impl Hosts {
    fn table(&mut self, host: &Hostname) -> &mut BTreeMap<Hostname, ByAge<BackendPolicy>> {
        if host.is_wildcard() { &mut self.wildcards } else { &mut self.exact }
    }

    /// The applicable policies of the most specific host, oldest first.
    fn most_specific(
        &self,
        host: &Hostname,
        applies: impl Fn(&BackendPolicy) -> bool,
    ) -> Vec<Arc<BackendPolicy>> {
        let applicable = |policies: &ByAge<BackendPolicy>| {
            policies.values().filter(|p| applies(p)).cloned().collect::<Vec<_>>()
        };
        let exact = self.exact.get(host).map(&applicable).unwrap_or_default();
        if !exact.is_empty() {
            return exact;
        }
        let containing = self.wildcards.iter().filter(|(pattern, _)| pattern.contains(host));
        let found = containing.map(|(pattern, policies)| (pattern, applicable(policies)));
        let found = found.filter(|(_, policies)| !policies.is_empty());
        found
            .min_by(|a, b| a.0.by_specificity(b.0))
            .map(|(_, policies)| policies)
            .unwrap_or_default()
    }
}

/// A policy that selects the client is not merged with those for everybody; the oldest such policy
/// wins.
fn alone_if_selected(found: Vec<Arc<BackendPolicy>>) -> Vec<Arc<BackendPolicy>> {
    match found.iter().find(|p| p.workload_selector.is_some()) {
        Some(selected) => vec![selected.clone()],
        None => found,
    }
}

/// Whether the policy treats clients of different localities differently: by a locality setting, or
/// by outlier detection, which switches failover between localities on.
fn by_locality(policy: &BackendPolicy) -> bool {
    let decides = |t: &TrafficPolicy| {
        let setting = t.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
        let by_setting = setting.is_some_and(|l| l.enabled != Some(false));
        t.outlier.is_some() || by_setting || balances_zones(t)
    };
    any_traffic(policy, decides)
}

/// Whether the policy balances over zones.
fn by_zone(policy: &BackendPolicy) -> bool {
    any_traffic(policy, balances_zones)
}

fn balances_zones(traffic: &TrafficPolicy) -> bool {
    let zones = traffic.load_balancer.as_ref().and_then(|lb| lb.zones.as_ref());
    zones.is_some_and(ZonePolicy::is_on)
}

fn any_traffic(policy: &BackendPolicy, decides: impl Fn(&TrafficPolicy) -> bool) -> bool {
    let mut all = std::iter::once(&policy.traffic).chain(policy.subsets.iter().map(|s| &s.traffic));
    all.any(|t| decides(t) || t.ports.values().any(&decides))
}

/// Credentials for TLS to the host, with the names under which a CA may lie beside them.
fn credentials(policy: &BackendPolicy) -> BackendCredentials {
    let beside = |name: &Arc<str>| [name.clone(), format!("{name}-cacert").into()];
    BackendCredentials {
        export_to: policy.export_to.clone(),
        clients: policy.workload_selector.clone(),
        names: policy.credentials().flat_map(beside).collect(),
    }
}

/// The policy with those numbers blank that shape a cluster only.
fn outline_of(policy: &BackendPolicy) -> BackendPolicy {
    let mut outline = policy.clone();
    blank(&mut outline.traffic);
    for subset in &mut outline.subsets {
        subset.at = Field::default();
        blank(&mut subset.traffic);
    }
    outline
}

fn blank(traffic: &mut TrafficPolicy) {
    traffic.retry_budget = None;
    traffic.outlier = traffic.outlier.as_ref().map(|_| OutlierDetection::default());
    traffic.connection_pool = traffic.connection_pool.as_ref().map(blank_pool);
    traffic.load_balancer =
        traffic.load_balancer.take().map(|lb| LoadBalancer { warmup: None, ..lb });
    traffic.ports.values_mut().for_each(blank);
}

fn blank_pool(pool: &ConnectionPool) -> ConnectionPool {
    ConnectionPool {
        tcp_idle_timeout: pool.tcp_idle_timeout,
        max_connection_duration: pool.max_connection_duration,
        h2_upgrade: pool.h2_upgrade,
        use_client_protocol: pool.use_client_protocol,
        http_block: pool.http_block,
        ..ConnectionPool::default()
    }
}
