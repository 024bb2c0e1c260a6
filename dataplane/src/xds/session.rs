//! The client's half of incremental xDS as a pure state machine: responses in, requests out.
//!
//! It remembers, per resource type, which names are subscribed to and which version of each
//! resource was accepted, so that a new stream starts where the last one ended. It knows neither
//! messages nor connections. Spec: xDS protocol, "incremental xDS".

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferromesh_proto::{
    BOOTSTRAP, ResourceType,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status},
};

use crate::compile::{Needs, Rejection};

/// gRPC's `INVALID_ARGUMENT`, which a NACK carries.
const INVALID_ARGUMENT: i32 = 3;
/// A NACK names every refused resource, but not without end.
const LONGEST_REASON: usize = 4096;
/// The types that this proxy asks for. Additions go in this order (xDS: clusters before endpoints,
/// listeners before routes). What users add to the bootstrap of an Envoy is asked for to be refused:
/// nobody would know otherwise that it does nothing here.
const FIRST_REQUESTS: [ResourceType; 6] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
    ResourceType::Secret,
    ResourceType::Bootstrap,
];

/// Stands for the version of what is closed since a refusal: no control plane has made it.
const CLOSED: &str = "closed";

/// A resource that is new or has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Its version, opaque.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// What a response says about resources of one type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// The type.
    pub kind: ResourceType,
    /// New and changed resources; names are unique.
    pub changed: Vec<Changed>,
    /// Names that are gone, or never were.
    pub removed: Vec<String>,
}

/// What must be answered once an update has been applied.
#[must_use = "the control plane waits for the answer"]
#[derive(Debug)]
pub struct Reply {
    type_url: String,
    nonce: String,
    changed: Vec<(String, String)>,
    removed: Vec<String>,
    /// What is wrong with the response as such.
    faults: Vec<String>,
}

/// The protocol's state for as long as the process lives, over any number of streams.
#[derive(Debug)]
pub struct Session {
    node: Node,
    types: [TypeState; ResourceType::COUNT],
}

#[derive(Debug, Default)]
struct TypeState {
    /// Names that the control plane knows we want; unused for wildcard types.
    subscribed: BTreeSet<String>,
    /// Accepted versions.
    versions: BTreeMap<String, String>,
}

impl Session {
    /// A session that has accepted nothing yet.
    pub fn new(node: Node) -> Self {
        let mut types: [TypeState; ResourceType::COUNT] = Default::default();
        types[ResourceType::Bootstrap.index()].subscribed.insert(BOOTSTRAP.to_owned());
        Self { node, types }
    }

    /// The first requests of a new stream: the node in the very first, and per type what is
    /// subscribed and known.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(self.node.clone());
        let asked = FIRST_REQUESTS.into_iter().filter(|kind| {
            kind.wildcard_by_default() || !self.types[kind.index()].subscribed.is_empty()
        });
        asked
            .map(|kind| DeltaDiscoveryRequest { node: node.take(), ..self.first_request(kind) })
            .collect()
    }

    fn first_request(&self, kind: ResourceType) -> DeltaDiscoveryRequest {
        let state = &self.types[kind.index()];
        DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: state.subscribed.iter().cloned().collect(),
            initial_resource_versions: state.versions.clone().into_iter().collect(),
            ..Default::default()
        }
    }

    /// Reads a response. The update, if there is one, is to be applied; then [`Self::applied`]
    /// answers.
    pub fn received(&self, response: DeltaDiscoveryResponse) -> (Option<Update>, Reply) {
        let mut reply = Reply {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            changed: Vec::new(),
            removed: Vec::new(),
            faults: Vec::new(),
        };
        let kind = ResourceType::from_type_url(&response.type_url);
        let Some(kind) = kind.filter(|kind| FIRST_REQUESTS.contains(kind)) else {
            reply
                .faults
                .push(format!("resources of type {} were not asked for", response.type_url));
            return (None, reply);
        };
        let update = reply.read(kind, response);
        (Some(update), reply)
    }

    /// Answers an update: ACK, or NACK if anything was refused; then subscriptions follow what is
    /// needed now.
    ///
    /// Versions of what was accepted are remembered even if other resources of the same response
    /// were refused; of what is closed only that there is something.
    pub fn applied(
        &mut self,
        reply: Reply,
        rejections: &[Rejection],
        needs: &Needs,
    ) -> Vec<DeltaDiscoveryRequest> {
        if let Some(kind) = ResourceType::from_type_url(&reply.type_url) {
            self.types[kind.index()].remember(kind, &reply, rejections);
        }
        let mut requests = vec![DeltaDiscoveryRequest {
            error_detail: reply.error(rejections),
            type_url: reply.type_url,
            response_nonce: reply.nonce,
            ..Default::default()
        }];
        requests.extend(self.resubscribe(ResourceType::Endpoint, &needs.endpoints));
        requests.extend(self.resubscribe(ResourceType::Route, &needs.routes));
        requests.extend(self.resubscribe(ResourceType::Secret, &needs.secrets));
        requests
    }

    fn resubscribe(
        &mut self,
        kind: ResourceType,
        wanted: &BTreeSet<String>,
    ) -> Option<DeltaDiscoveryRequest> {
        let state = &mut self.types[kind.index()];
        let subscribe: Vec<String> = wanted.difference(&state.subscribed).cloned().collect();
        let unsubscribe: Vec<String> = state.subscribed.difference(wanted).cloned().collect();
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        state.subscribed.clone_from(wanted);
        // A name that is asked for again later must be sent again, so its version is forgotten.
        state.versions.retain(|name, _| wanted.contains(name));
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        })
    }

    /// The version of a resource that was accepted last.
    pub fn version(&self, kind: ResourceType, name: &str) -> Option<&str> {
        self.types[kind.index()].versions.get(name).map(String::as_str)
    }
}

impl Reply {
    fn read(&mut self, kind: ResourceType, response: DeltaDiscoveryResponse) -> Update {
        let mut changed: Vec<Changed> = Vec::with_capacity(response.resources.len());
        let mut seen = BTreeSet::new();
        for resource in response.resources {
            // Without a body it is a sign of life for a resource that is known.
            let Some(any) = resource.resource else { continue };
            if any.type_url != response.type_url {
                self.faults.push(format!(
                    "{}: expected {}, got {}",
                    resource.name, response.type_url, any.type_url
                ));
            } else if !seen.insert(resource.name.clone()) {
                self.faults.push(format!("{}: the response holds it twice", resource.name));
            } else {
                changed.push(Changed {
                    name: resource.name,
                    version: resource.version,
                    body: any.value,
                });
            }
        }
        self.changed = changed.iter().map(|one| (one.name.clone(), one.version.clone())).collect();
        self.removed.clone_from(&response.removed_resources);
        Update { kind, changed, removed: response.removed_resources }
    }

    fn error(&self, rejections: &[Rejection]) -> Option<Status> {
        let reasons = self.faults.iter().cloned().chain(rejections.iter().map(ToString::to_string));
        let mut message = reasons.collect::<Vec<_>>().join("; ");
        if message.is_empty() {
            return None;
        }
        if message.len() > LONGEST_REASON {
            let end =
                (0..=LONGEST_REASON).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Some(Status { code: INVALID_ARGUMENT, message })
    }
}

impl TypeState {
    /// What nobody asked for is not kept, so it must not be claimed to be known either.
    fn remember(&mut self, kind: ResourceType, reply: &Reply, rejections: &[Rejection]) {
        let refused: BTreeSet<&str> =
            rejections.iter().map(|rejection| rejection.name.as_str()).collect();
        let wanted = |name: &str| kind.wildcard_by_default() || self.subscribed.contains(name);
        let accepted = reply
            .changed
            .iter()
            .filter(|(name, _)| wanted(name) && !refused.contains(name.as_str()));
        let accepted: Vec<_> = accepted.cloned().collect();
        self.versions.extend(accepted);
        // What is closed must be sent again even if it comes back to the version before.
        let closed =
            rejections.iter().filter(|rejection| rejection.closed && wanted(&rejection.name));
        let closed: Vec<_> =
            closed.map(|rejection| (rejection.name.clone(), CLOSED.to_owned())).collect();
        self.versions.extend(closed);
        for name in &reply.removed {
            self.versions.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
