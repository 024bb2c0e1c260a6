//! Which credentials the clusters of a view name, and by which policies.
//!
//! Read back from the plan, as [`super::references`]: whoever tells users of credentials that are
//! not there tells of those that proxies really ask for.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::ResourceType;

use super::{
    ClusterKey, Entry, ItemKey, PlanItem, SecretRef, TrustRef, UpstreamTls, UpstreamTransport,
    ViewKey, cluster::plan_cluster, plan_outline, traffic::whole_policies,
};
use crate::{ir::ObjectId, snapshot::Reader};

/// A credential that a policy has clients use for TLS to backends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct NamedCredential {
    /// The policy.
    pub(crate) policy: ObjectId,
    /// The credential, as the policy names it.
    pub(crate) name: Arc<str>,
    /// What of it is used.
    pub(crate) part: CredentialPart,
}

/// What of a credential is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CredentialPart {
    /// The certificate, with its key.
    Certificate,
    /// The authority of the other side, in it or in the credential beside it.
    Authority,
}

/// Every credential that a client's clusters name; sorted, unique.
pub(crate) fn credentials(reader: &Reader<'_>, view: &ViewKey) -> BTreeSet<NamedCredential> {
    let outline = plan_outline(reader, view);
    let keys = outline.of(ResourceType::Cluster).iter().filter_map(|entry| match entry {
        Entry::Shared(key) => cluster_key(key),
        Entry::Own(_) => None,
    });
    keys.flat_map(|key| of_cluster(reader, key)).collect()
}

fn cluster_key(key: &ItemKey) -> Option<&ClusterKey> {
    match key {
        ItemKey::Cluster(key) => Some(key),
        ItemKey::Patched(key) => cluster_key(&key.item),
        ItemKey::Assignment(_) | ItemKey::Fixed(_) | ItemKey::VirtualHost(_) => None,
    }
}

fn of_cluster(reader: &Reader<'_>, key: &ClusterKey) -> Vec<NamedCredential> {
    let policies = whole_policies(reader, key);
    if policies.iter().all(|policy| policy.credentials().next().is_none()) {
        return Vec::new();
    }
    let Some(PlanItem::Cluster(cluster)) = plan_cluster(reader, key) else { return Vec::new() };
    let UpstreamTransport::Tls(tls) = &cluster.transport else { return Vec::new() };
    let mut found = Vec::new();
    for (name, part) in parts(tls) {
        let naming =
            policies.iter().filter(|policy| policy.credentials().any(|other| *other == name));
        found.extend(naming.map(|policy| NamedCredential {
            policy: policy.origin.id.clone(),
            name: name.clone(),
            part,
        }));
    }
    found
}

fn parts(tls: &UpstreamTls) -> impl Iterator<Item = (Arc<str>, CredentialPart)> {
    let certificate = match &tls.certificate {
        Some(SecretRef::Credential(name)) => Some((name.clone(), CredentialPart::Certificate)),
        _ => None,
    };
    let authority = match &tls.trust {
        Some(TrustRef::Credential(name)) => Some((name.clone(), CredentialPart::Authority)),
        _ => None,
    };
    certificate.into_iter().chain(authority)
}
