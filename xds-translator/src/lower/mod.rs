//! Lowering: objects of any dialect become the items of the snapshot.
//!
//! One object at a time, with nothing but the mesh's settings beside it; what objects mean together is the snapshot's
//! affair. Objects come here parsed and checked on their own, so that a diagnostic made here says only what the
//! intermediate representation cannot express. Key material never passes: a Secret lowers to nothing.

mod access;
mod backend;
mod gateway;
mod mesh;
mod names;
mod peer_tls;
mod pods;
mod routes;
mod routes_l4;
mod scope;
mod service_entry;
mod services;

use std::sync::Arc;

pub(crate) use names::locality_of;

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{Object, Spec},
    ir::MeshDefaults,
    snapshot::Item,
};

/// The items of one object, and what is said to its author.
#[derive(Clone, Default, Debug)]
pub struct Lowered {
    /// Items; empty for objects that say nothing to a proxy.
    pub items: Vec<Item>,
    /// What stands in for a refused object of which no version was ever accepted: for a guard that asks for something
    /// unserved, its items with every door closed. Empty for all others: what is not in force guards nothing.
    pub closed: Vec<Item>,
    /// In the order found; with object and position.
    pub diagnostics: Vec<Diagnostic>,
}

impl Lowered {
    /// Whether the object is refused, so that its last accepted version stays in force.
    pub fn is_refused(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Lowers one object.
pub fn lower(object: &Object, mesh: &MeshDefaults) -> Lowered {
    let mut lowering = Lowering { object, mesh, diagnostics: Vec::new(), closed: Vec::new() };
    let items = lowering.items();
    Lowered { items, closed: lowering.closed, diagnostics: object.diagnose_all(lowering.diagnostics) }
}

/// One object on its way down.
struct Lowering<'a> {
    object: &'a Object,
    mesh: &'a MeshDefaults,
    diagnostics: Vec<Diagnostic>,
    closed: Vec<Item>,
}

impl Lowering<'_> {
    fn items(&mut self) -> Vec<Item> {
        let one = |item: Option<Item>| item.into_iter().collect();
        match &self.object.spec {
            Spec::Service(spec) => one(self.service(spec)),
            Spec::EndpointSlice(spec) => one(self.slice(spec)),
            Spec::Pod(spec) => vec![self.pod(spec)],
            Spec::VirtualService(spec) => one(self.virtual_service(spec)),
            Spec::DestinationRule(spec) => vec![self.destination_rule(spec)],
            Spec::Gateway(spec) => vec![self.gateway(spec)],
            Spec::ServiceEntry(spec) => self.service_entry(spec),
            Spec::WorkloadEntry(spec) => one(self.workload_entry(spec)),
            Spec::Sidecar(spec) => vec![self.sidecar(spec)],
            Spec::PeerAuthentication(spec) => vec![self.peer_authentication(spec)],
            Spec::AuthorizationPolicy(spec) => one(self.authorization_policy(spec)),
            Spec::MeshConfig(spec) => one(self.mesh_config(spec)),
            // Namespaces and accounts are known by the objects in them; Secrets are the secret provider's.
            // Nodes say where pods are, which the compiler adds to them.
            Spec::Namespace(_)
            | Spec::Node(_)
            | Spec::ServiceAccount(_)
            | Spec::Secret(_)
            | Spec::Deployment(_)
            | Spec::Unserved => Vec::new(),
        }
    }

    fn namespace(&self) -> &Arc<str> {
        &self.object.id.namespace
    }

    fn note(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn invalid(&mut self, field: FieldPath, expected: &str, got: &str) {
        let diagnostic = Diagnostic::error(Code::InvalidValue, field, "the value cannot be used");
        self.note(diagnostic.expected(expected, got));
    }

    /// Something that is accepted, but has no effect yet.
    fn unserved(&mut self, field: FieldPath, message: &str) {
        self.note(Diagnostic::warning(Code::NotActedOn, field, message));
    }
}

#[cfg(test)]
mod tests;
