//! Backend policies, and which of them is in force for a client and a host.

use std::{collections::BTreeMap, sync::Arc};

use super::routes::{ByAge, age, forget};
use crate::ir::{
    BackendPolicy, ClientTls, ConnectionPool, Hostname, Labels, LoadBalancer, ObjectId, OutlierDetection,
    TrafficPolicy, Visibility,
};

/// Every backend policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Backends {
    whole: BTreeMap<ObjectId, Arc<BackendPolicy>>,
    by_namespace: BTreeMap<Arc<str>, Hosts>,
    /// Policies that treat clients of different localities differently.
    by_locality: BTreeMap<ObjectId, Visibility>,
    /// Credentials for TLS to backends, of those policies that name any.
    credentials: BTreeMap<ObjectId, (Visibility, Vec<Arc<str>>)>,
}

/// Policies of one namespace in outline form: wildcards apart, because only they need a search.
#[derive(Clone, Default, Debug)]
struct Hosts {
    exact: BTreeMap<Hostname, ByAge<BackendPolicy>>,
    wildcards: BTreeMap<Hostname, ByAge<BackendPolicy>>,
}

impl Backends {
    pub(super) fn insert(&mut self, policy: Arc<BackendPolicy>) -> Option<Arc<BackendPolicy>> {
        let old = self.remove(&policy.origin.id);
        let hosts = self.by_namespace.entry(policy.origin.id.namespace.clone()).or_default();
        let place = (age(&policy.origin), policy.origin.id.clone());
        hosts.table(&policy.host).entry(policy.host.clone()).or_default().insert(place, Arc::new(outline_of(&policy)));
        if by_locality(&policy) {
            self.by_locality.insert(policy.origin.id.clone(), policy.export_to.clone());
        }
        let named = credentials(&policy);
        if !named.is_empty() {
            self.credentials.insert(policy.origin.id.clone(), (policy.export_to.clone(), named));
        }
        self.whole.insert(policy.origin.id.clone(), policy);
        old
    }

    pub(super) fn remove(&mut self, id: &ObjectId) -> Option<Arc<BackendPolicy>> {
        let old = self.whole.remove(id)?;
        self.by_locality.remove(id);
        self.credentials.remove(id);
        if let Some(hosts) = self.by_namespace.get_mut(&id.namespace) {
            forget(hosts.table(&old.host), &old.host, &(age(&old.origin), id.clone()));
            if hosts.exact.is_empty() && hosts.wildcards.is_empty() {
                self.by_namespace.remove(&id.namespace);
            }
        }
        Some(old)
    }

    pub(crate) fn policy(&self, id: &ObjectId) -> Option<&Arc<BackendPolicy>> {
        self.whole.get(id)
    }

    /// Whether some policy that clients of a namespace see makes their locality matter.
    pub(crate) fn locality_matters(&self, namespace: &str) -> bool {
        self.by_locality.iter().any(|(id, export_to)| &*id.namespace == namespace || export_to.includes(namespace))
    }

    /// Credentials that policies name which clients of a namespace see.
    pub(crate) fn credentials_visible_to<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = Arc<str>> + 'a {
        let seen = move |(id, (export_to, _)): &(&ObjectId, &(Visibility, Vec<Arc<str>>))| {
            &*id.namespace == namespace || export_to.includes(namespace)
        };
        self.credentials.iter().filter(seen).flat_map(|(_, (_, names))| names.iter().cloned())
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
            let applies = |p: &BackendPolicy| match &p.workload_selector {
                Some(selector) => local && selector.matches(client_labels),
                None => local || p.export_to.includes(client_namespace),
            };
            let found = self.by_namespace.get(namespace).map(|hosts| hosts.most_specific(host, applies));
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                return alone_if_selected(found);
            }
        }
        Vec::new()
    }
}

impl Hosts {
    fn table(&mut self, host: &Hostname) -> &mut BTreeMap<Hostname, ByAge<BackendPolicy>> {
        if host.is_wildcard() { &mut self.wildcards } else { &mut self.exact }
    }

    /// The applicable policies of the most specific host, oldest first.
    fn most_specific(&self, host: &Hostname, applies: impl Fn(&BackendPolicy) -> bool) -> Vec<Arc<BackendPolicy>> {
        let applicable =
            |policies: &ByAge<BackendPolicy>| policies.values().filter(|p| applies(p)).cloned().collect::<Vec<_>>();
        let exact = self.exact.get(host).map(&applicable).unwrap_or_default();
        if !exact.is_empty() {
            return exact;
        }
        let containing = self.wildcards.iter().filter(|(pattern, _)| pattern.contains(host));
        let found = containing.map(|(pattern, policies)| (pattern, applicable(policies)));
        let found = found.filter(|(_, policies)| !policies.is_empty());
        found.min_by(|a, b| a.0.by_specificity(b.0)).map(|(_, policies)| policies).unwrap_or_default()
    }
}

/// A policy that selects the client is not merged with those for everybody; the oldest such policy wins.
fn alone_if_selected(found: Vec<Arc<BackendPolicy>>) -> Vec<Arc<BackendPolicy>> {
    match found.iter().find(|p| p.workload_selector.is_some()) {
        Some(selected) => vec![selected.clone()],
        None => found,
    }
}

/// Whether the policy treats clients of different localities differently: by a locality setting, or by outlier
/// detection, which switches failover between localities on.
pub(super) fn by_locality(policy: &BackendPolicy) -> bool {
    let decides = |t: &TrafficPolicy| {
        let setting = t.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
        t.outlier.is_some() || setting.is_some_and(|l| l.enabled != Some(false))
    };
    let traffic = std::iter::once(&policy.traffic).chain(policy.subsets.iter().map(|s| &s.traffic));
    traffic.into_iter().any(|t| decides(t) || t.ports.values().any(decides))
}

/// Credentials for TLS to the host, with the names under which a CA may lie beside them.
pub(super) fn credentials(policy: &BackendPolicy) -> Vec<Arc<str>> {
    let blocks = std::iter::once(&policy.traffic).chain(policy.subsets.iter().map(|s| &s.traffic));
    let tls = blocks.flat_map(|t| t.tls.iter().chain(t.ports.values().filter_map(|p| p.tls.as_ref())));
    let named = tls.filter_map(|tls| match tls {
        ClientTls::Simple(material) | ClientTls::Mutual(material) => Some(&material.credential),
        ClientTls::Disable | ClientTls::Mesh { .. } => None,
    });
    let named = named.filter(|name| !name.is_empty());
    named.flat_map(|name| [name.clone(), format!("{name}-cacert").into()]).collect()
}

/// The policy with those numbers blank that shape a cluster only.
pub(super) fn outline_of(policy: &BackendPolicy) -> BackendPolicy {
    let mut outline = policy.clone();
    blank(&mut outline.traffic);
    outline.subsets.iter_mut().for_each(|subset| blank(&mut subset.traffic));
    outline
}

fn blank(traffic: &mut TrafficPolicy) {
    traffic.retry_budget = None;
    traffic.outlier = traffic.outlier.as_ref().map(|_| OutlierDetection::default());
    traffic.connection_pool = traffic.connection_pool.as_ref().map(blank_pool);
    traffic.load_balancer = traffic.load_balancer.take().map(|lb| LoadBalancer { warmup: None, ..lb });
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
