//! Classification: which shared views a proxy gets, decided from who it is and what the registry
//! knows.
//!
//! A proven identity decides over everything a node says of itself (invariant 6): the workload must
//! exist under the proven account, its labels come from the registry, and a gateway may ask for
//! credentials only where a Gateway selects it. On the plaintext port the node is believed. A
//! view's key holds resolved facts only, so that proxies with equal facts share everything.

mod credentials;
mod gateway;
mod node;
mod peers;
mod sidecar;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ferromesh_proto::SpiffeId;

pub(crate) use self::gateway::is_gateway;
pub use self::node::{NodeFacts, NodeIdentity, NodeKind, Refusal};
use crate::{
    ir::{
        Discovery, Labels, Locality, ProxySide, SpanService, TelemetryPolicy, Topology, Workload,
        WorkloadId, ZonePolicy, canonical_revision, canonical_service, topology,
    },
    plan::{Features, OutboundKey, PatchesKey, SpanSource, TelemetryKey, ViewKey, names_workload},
    snapshot::MeshSnapshot,
};

/// What a proxy gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyClass {
    /// Its views; their resources have different names, so that their union is the proxy's
    /// configuration.
    pub views: Vec<Arc<ViewKey>>,
    /// The workload behind it; `None` while the registry does not know it: a proven proxy then has
    /// no inbound view, and is to be classified again when the registry learns of it.
    pub workload: Option<WorkloadId>,
    /// Whether the address that the proxy names is one of that workload's.
    pub at_workload: bool,
    /// Whether slices list that workload: whoever tells of the slices tells when it comes and goes.
    pub in_slices: bool,
    /// Its namespace, where its credentials are looked up.
    pub namespace: Arc<str>,
    /// What kind of proxy it is.
    pub kind: NodeKind,
    /// Names of credentials it may ask for, of its own namespace.
    pub credentials: BTreeSet<Arc<str>>,
}

/// Decides what a proxy gets.
///
/// # Errors
/// [`Refusal::Account`] when the workload belongs to another account than the proven one.
pub fn classify(snapshot: &MeshSnapshot, node: &NodeIdentity) -> Result<ProxyClass, Refusal> {
    let workload = find_workload(snapshot, node)?;
    let facts = Facts::new(snapshot, node, workload);
    let (mut views, mut credentials) = match node.kind {
        NodeKind::Sidecar => (facts.sidecar_views(), facts.sidecar_credentials()),
        NodeKind::Router => facts.gateway_view(),
    };
    views.extend(facts.peers().map(ViewKey::Peers));
    credentials.extend(facts.pull_secrets());
    Ok(ProxyClass {
        views: views.into_iter().map(Arc::new).collect(),
        workload: workload.map(|w| w.id.clone()),
        at_workload: workload.is_some_and(|w| w.addresses.contains(&node.address)),
        in_slices: workload.is_some_and(|w| w.discovery == Discovery::Slices),
        namespace: node.workload.namespace.clone(),
        kind: node.kind,
        credentials,
    })
}

/// The view through which a proxy reaches others, whoever it proves to be. Where a sidecar is says
/// nothing about what it reaches, and is left out.
pub(crate) fn client_view(snapshot: &MeshSnapshot, node: &NodeIdentity) -> Option<ViewKey> {
    let workload = find_workload(snapshot, node).ok().flatten();
    let facts = Facts::new(snapshot, node, workload);
    match node.kind {
        NodeKind::Sidecar => {
            Some(ViewKey::Outbound(OutboundKey { locality: None, ..facts.outbound() }))
        }
        NodeKind::Router => facts.gateway_view().0.pop(),
    }
}

/// The workload by the node's name, else by its address; of a proven account only.
fn find_workload<'a>(
    snapshot: &'a MeshSnapshot,
    node: &NodeIdentity,
) -> Result<Option<&'a Workload>, Refusal> {
    let own_namespace = |w: &&Arc<Workload>| w.id.namespace == node.workload.namespace;
    let by_name = snapshot.workloads().get(&node.workload);
    let by_address = || snapshot.workloads().at(node.address).filter(own_namespace);
    let Some(proven) = &node.proven else {
        return Ok(by_name.or_else(by_address).map(AsRef::as_ref));
    };
    match by_name {
        Some(workload) if has_account(workload, proven) => Ok(Some(workload)),
        Some(workload) => Err(Refusal::Account {
            workload: workload.id.name.to_string(),
            account: workload.service_account.to_string(),
            proven: proven.clone(),
        }),
        // An address may be another workload's by now, so that a mismatch there says nothing.
        None => Ok(by_address().filter(|w| has_account(w, proven)).map(AsRef::as_ref)),
    }
}

fn has_account(workload: &Workload, proven: &SpiffeId) -> bool {
    *workload.id.namespace == *proven.namespace()
        && *workload.service_account == *proven.service_account()
}

/// Everything that the keys of a proxy's views are made from.
struct Facts<'a> {
    snapshot: &'a MeshSnapshot,
    node: &'a NodeIdentity,
    workload: Option<&'a Workload>,
    labels: Labels,
    service_account: Arc<str>,
}

impl<'a> Facts<'a> {
    fn new(
        snapshot: &'a MeshSnapshot,
        node: &'a NodeIdentity,
        workload: Option<&'a Workload>,
    ) -> Self {
        let (labels, service_account) = match (workload, &node.proven) {
            (Some(workload), _) => (workload.labels.clone(), workload.service_account.clone()),
            // What an unknown workload says of its labels could widen what it gets.
            (None, Some(proven)) => (Labels::new(), proven.service_account().into()),
            (None, None) => (node.facts.labels.clone(), node.facts.service_account.clone()),
        };
        Self { snapshot, node, workload, labels, service_account }
    }

    fn namespace(&self) -> &Arc<str> {
        &self.node.workload.namespace
    }

    /// Labels that some rule refers to, with those that say where the client is.
    fn client_labels(&self) -> Labels {
        let place = self.place();
        let (network, node) = self.workload.map_or(("", ""), |w| (&*w.network, &*w.node));
        let topology = Topology { locality: &place, network, node };
        let value = |key: &Arc<str>| {
            topology.label(&self.labels, key).map(|value| (key.clone(), value.into()))
        };
        self.snapshot.referenced_label_keys().filter_map(value).collect()
    }

    /// Where the client is, as the registry knows it, else as its node says.
    fn place(&self) -> Locality {
        let registered = self.workload.map(|w| &w.locality).filter(|l| **l != Locality::default());
        registered.unwrap_or(&self.node.facts.locality).clone()
    }

    /// The locality, where some policy makes it matter.
    fn locality(&self) -> Option<Locality> {
        let place = self.place();
        (place != Locality::default() && self.locality_matters()).then_some(place)
    }

    fn locality_matters(&self) -> bool {
        let mesh = self.snapshot.mesh();
        let setting = &mesh.locality;
        let by_mesh = !(setting.distribute.is_empty()
            && setting.failover.is_empty()
            && setting.failover_priority.is_empty());
        by_mesh
            || mesh.outlier.is_some()
            || mesh.zones.as_ref().is_some_and(ZonePolicy::is_on)
            || self.snapshot.backends().locality_matters(self.namespace())
    }

    /// Sets of patches of what the proxy is sent, in the order in which they are applied.
    fn patches(&self, side: ProxySide) -> PatchesKey {
        let root = &self.snapshot.mesh().root_namespace;
        let all = self.snapshot.patches();
        let sets = all.of(root, (self.namespace(), &self.labels), side);
        let left_out = all.left_out(&sets, side, &self.node.facts.metadata);
        PatchesKey { sets, left_out }
    }

    /// Secrets with which it pulls images. None while the workload is not known: nobody vouches for
    /// its labels.
    fn pull_secrets(&self) -> impl Iterator<Item = Arc<str>> {
        let root = &self.snapshot.mesh().root_namespace;
        let known = self.workload.into_iter();
        known.flat_map(move |workload| {
            self.snapshot.patches().pull_secrets(root, (self.namespace(), &workload.labels))
        })
    }

    /// What it tells of its traffic, by the policies in force for it.
    fn telemetry(&self) -> TelemetryKey {
        let mesh = self.snapshot.mesh();
        let root = &mesh.root_namespace;
        let policies = self.snapshot.telemetry().of(root, self.namespace(), &self.labels);
        let policies: Vec<&TelemetryPolicy> = policies.into_iter().map(AsRef::as_ref).collect();
        TelemetryKey {
            source: names_workload(mesh, &policies).then(|| self.span_source()),
            policies: policies.into_iter().map(|policy| policy.origin.id.clone()).collect(),
            metrics: self.node.facts.metrics,
        }
    }

    fn span_source(&self) -> SpanSource {
        let name = self.workload.map_or(&self.node.workload.name, |w| &w.workload_name);
        let canonical = canonical_service(&self.labels).unwrap_or(name);
        let cluster = &self.node.facts.cluster_id;
        let app = || self.labels.get("app").map_or(canonical, AsRef::as_ref);
        let namespace = self.namespace();
        SpanSource {
            service: match self.snapshot.mesh().telemetry.span_service {
                SpanService::AppAndNamespace => format!("{}.{namespace}", app()).into(),
                SpanService::Canonical => canonical.into(),
                SpanService::CanonicalAndNamespace => format!("{canonical}.{namespace}").into(),
            },
            canonical: canonical.into(),
            revision: canonical_revision(&self.labels).unwrap_or("latest").into(),
            cluster: if cluster.is_empty() {
                topology::CLUSTER_NAME.into()
            } else {
                cluster.clone()
            },
        }
    }

    fn features(&self, http_proxy_port: Option<u16>) -> Features {
        Features { captures_dns: false, http_proxy_port }
    }

    fn address(&self) -> IpAddr {
        self.workload.and_then(|w| w.addresses.first().copied()).unwrap_or(self.node.address)
    }
}

#[cfg(test)]
mod tests;
