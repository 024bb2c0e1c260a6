//! Who asks: a workload by name, or a gateway.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    class::{NodeFacts, NodeIdentity, NodeKind, is_gateway},
    ir::{Labels, Locality, Workload, WorkloadId},
    plan::{CaptureMode, MetricsMaker},
    snapshot::MeshSnapshot,
};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asker {
    /// A workload with a sidecar: a pod, what owns it, or a service account; `NAME.NAMESPACE`, or
    /// `NAME` where one namespace only has it.
    From(String),
    /// Somebody outside of the mesh who calls a gateway: a workload that is one, or an object that
    /// configures one; named likewise.
    Gateway(String),
}

/// Why nobody can be found who asks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnknownAsker {
    /// There is no such name.
    #[error("{what} {name:?} is not known{}", meant(.nearest))]
    Unknown {
        /// A workload or a gateway.
        what: &'static str,
        /// The name.
        name: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// Several namespaces have the name.
    #[error("{what} {name:?} is in several namespaces: say {}", list(.choices))]
    Several {
        /// A workload or a gateway.
        what: &'static str,
        /// The name.
        name: String,
        /// The names in full.
        choices: Vec<String>,
    },
}

fn meant(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!(": did you mean {}?", list(nearest)) }
}

fn list(names: &[String]) -> String {
    names.join(" or ")
}

/// A proxy that is asked about, with what is known of its workload.
pub(super) struct Client {
    pub(super) node: NodeIdentity,
    pub(super) workload: Option<Arc<Workload>>,
    /// As people call it, and how it was found.
    pub(super) title: String,
    /// Whether requests come to it from outside.
    pub(super) gateway: bool,
}

/// Finds who asks.
///
/// # Errors
/// Nobody, or several, are called so.
pub(super) fn find(snapshot: &MeshSnapshot, asker: &Asker) -> Result<Client, UnknownAsker> {
    match asker {
        Asker::From(name) => sidecar(snapshot, name),
        Asker::Gateway(name) => gateway(snapshot, name),
    }
}

/// One of the names of a workload.
type NameOf = fn(&Workload) -> &str;

fn sidecar(snapshot: &MeshSnapshot, text: &str) -> Result<Client, UnknownAsker> {
    const WHAT: &str = "workload";
    let known: Vec<&Arc<Workload>> =
        snapshot.all_workloads().filter(|w| !is_gateway(snapshot, w)).collect();
    for (name, namespace) in readings(text) {
        let here = |w: &&&Arc<Workload>| namespace.is_none_or(|own| *w.id.namespace == *own);
        let ways: [(&str, NameOf); 3] = [
            ("pod", |w| &w.id.name),
            ("workload", |w| &w.workload_name),
            ("service account", |w| &w.service_account),
        ];
        for (way, own) in ways {
            let found: Vec<&&Arc<Workload>> =
                known.iter().filter(here).filter(|w| own(w) == name).collect();
            only(WHAT, text, name, &found)?;
            if let Some(workload) = found.first() {
                let more = match found.len() {
                    1 => String::new(),
                    count => format!(", one of {count} of {way} {name}"),
                };
                let id = &workload.id;
                return Ok(Client {
                    node: node_of(NodeKind::Sidecar, workload),
                    workload: Some(Arc::clone(workload)),
                    title: format!("the sidecar of {}/{}{more}", id.namespace, id.name),
                    gateway: false,
                });
            }
        }
        // Files seldom hold pods: where nobody is known, anybody may come.
        let empty = namespace.filter(|own| {
            !known.iter().any(|w| *w.id.namespace == **own) && names_namespace(snapshot, own)
        });
        if let Some(namespace) = empty {
            let id = WorkloadId { namespace: namespace.into(), name: name.into() };
            let node = node(NodeKind::Sidecar, id, &Labels::new(), name.into());
            let title = format!(
                "a sidecar of service account {name} without labels (no workload is known in \
                 {namespace})"
            );
            return Ok(Client { node, workload: None, title, gateway: false });
        }
    }
    let names = known.iter().flat_map(|w| {
        [&w.id.name, &w.workload_name].map(|name| format!("{name}.{}", w.id.namespace))
    });
    Err(unknown(WHAT, text, names))
}

/// Whether a service says that a namespace is there.
fn names_namespace(snapshot: &MeshSnapshot, namespace: &str) -> bool {
    crate::snapshot::Reader::new(snapshot)
        .services_visible_to(namespace)
        .iter()
        .any(|service| *service.key.namespace == *namespace)
}

fn gateway(snapshot: &MeshSnapshot, text: &str) -> Result<Client, UnknownAsker> {
    const WHAT: &str = "gateway";
    let proxies: Vec<&Arc<Workload>> =
        snapshot.all_workloads().filter(|w| is_gateway(snapshot, w)).collect();
    let client = |workload: &Arc<Workload>| Client {
        node: node_of(NodeKind::Router, workload),
        workload: Some(workload.clone()),
        title: format!("the gateway {}/{}", workload.id.namespace, workload.id.name),
        gateway: true,
    };
    for (name, namespace) in readings(text) {
        let here = |own: &str| namespace.is_none_or(|wanted| wanted == own);
        let called: Vec<&&Arc<Workload>> = proxies
            .iter()
            .filter(|w| here(&w.id.namespace))
            .filter(|w| *w.id.name == *name || *w.workload_name == *name)
            .collect();
        only(WHAT, text, name, &called)?;
        if let Some(workload) = called.first() {
            return Ok(client(workload));
        }
        let objects: Vec<_> = snapshot
            .gateway_configurations()
            .filter(|g| *g.origin.id.name == *name && here(&g.origin.id.namespace))
            .collect();
        if objects.len() > 1 {
            let full = |id: &crate::ir::ObjectId| format!("{}.{}", id.name, id.namespace);
            let choices = objects.iter().map(|g| full(&g.origin.id)).collect();
            return Err(UnknownAsker::Several { what: WHAT, name: text.to_owned(), choices });
        }
        if let Some(object) = objects.first() {
            let selected = proxies.iter().find(|w| object.selector.matches(&w.labels));
            return Ok(match selected {
                Some(workload) => client(workload),
                None => {
                    let namespace = object.origin.id.namespace.clone();
                    let id = WorkloadId { namespace, name: name.into() };
                    let labels = object.selector.sample();
                    Client {
                        node: node(NodeKind::Router, id, &labels, "default".into()),
                        workload: None,
                        title: format!(
                            "a gateway that {} selects (none is known)",
                            object.origin.id
                        ),
                        gateway: true,
                    }
                }
            });
        }
    }
    let names = proxies.iter().map(|w| format!("{}.{}", w.id.name, w.id.namespace));
    let objects = snapshot.gateway_configurations();
    let objects = objects.map(|g| format!("{}.{}", g.origin.id.name, g.origin.id.namespace));
    Err(unknown(WHAT, text, names.chain(objects)))
}

/// How a text may be read: as `NAME.NAMESPACE`, `NAMESPACE/NAME`, or as a name alone.
fn readings(text: &str) -> Vec<(&str, Option<&str>)> {
    if let Some((namespace, name)) = text.split_once('/') {
        return vec![(name, Some(namespace))];
    }
    let split = text.rsplit_once('.').map(|(name, namespace)| (name, Some(namespace)));
    split.into_iter().chain([(text, None)]).collect()
}

/// That what was found is of one namespace.
fn only(
    what: &'static str,
    text: &str,
    name: &str,
    found: &[&&Arc<Workload>],
) -> Result<(), UnknownAsker> {
    let namespaces: std::collections::BTreeSet<&str> =
        found.iter().map(|w| &*w.id.namespace).collect();
    if namespaces.len() < 2 {
        return Ok(());
    }
    let choices = namespaces.into_iter().map(|own| format!("{name}.{own}")).collect();
    Err(UnknownAsker::Several { what, name: text.to_owned(), choices })
}

/// Names that are at most this far, in edits, were meant perhaps.
const FAR: usize = 3;

fn unknown(what: &'static str, text: &str, names: impl Iterator<Item = String>) -> UnknownAsker {
    let first = |full: &str| full.split('.').next().unwrap_or_default().to_owned();
    let mut near: Vec<(usize, String)> = names
        .map(|name| {
            let whole = strsim::levenshtein(&name, text);
            let alone = strsim::levenshtein(&first(&name), &first(text));
            (whole.min(alone), name)
        })
        .filter(|(distance, _)| *distance <= FAR)
        .collect();
    near.sort();
    near.dedup();
    let nearest = near.into_iter().take(3).map(|(_, name)| name).collect();
    UnknownAsker::Unknown { what, name: text.to_owned(), nearest }
}

/// The proxy that is usual for a workload.
pub(super) fn node_of(kind: NodeKind, workload: &Workload) -> NodeIdentity {
    let account = workload.service_account.clone();
    let mut node = node(kind, workload.id.clone(), &workload.labels, account);
    node.address = workload.addresses.first().copied().unwrap_or(node.address);
    node.facts.locality = workload.locality.clone();
    node
}

fn node(
    kind: NodeKind,
    workload: WorkloadId,
    labels: &Labels,
    service_account: Arc<str>,
) -> NodeIdentity {
    NodeIdentity {
        kind,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        workload,
        facts: NodeFacts {
            group: None,
            labels: labels.clone(),
            service_account,
            capture: CaptureMode::Redirect,
            metrics: MetricsMaker::default(),
            captures_dns: false,
            http_proxy_port: None,
            locality: Locality::default(),
            cluster_id: "".into(),
            metadata: BTreeMap::new(),
        },
        proven: None,
    }
}
