//! The mesh as the planner sees it: indexed, immutable to its readers, without secrets and without locks.
//!
//! Lowering gives [`Item`]s; [`MeshSnapshot::replace`] puts the items of one object in the place of its former ones and
//! names the facts that this changed. Equal items change nothing, and an endpoint that changes touches anything but
//! assignments only through three projections. Precedence among objects is decided here and nowhere else: specificity,
//! then age, then namespace and name. Families are shared by `Arc` and copied only when a reader still holds them.

mod backends;
mod change;
mod endpoints;
mod gateways;
mod item;
mod policies;
mod reader;
mod replace;
mod routes;
mod services;
mod workloads;

use std::{collections::BTreeMap, sync::Arc};

pub use change::Reclassify;
pub(crate) use change::{Audience, ChangeSet};
pub(crate) use endpoints::workload_port;
pub use item::{EndpointSlice, InlineAddress, InlineEndpoint, Item, ServiceDefinition, SliceEndpoint};
pub use reader::{Dep, Reader};

use self::{
    backends::Backends, endpoints::Endpoints, gateways::Gateways, gateways::Scopes, policies::Policies, routes::Routes,
    services::Services, workloads::Workloads,
};
use crate::{
    compiler::Change,
    ir::{MeshDefaults, ServiceKey, Workload},
};

/// Namespace and name of a credential.
pub type CredentialName = (Arc<str>, Arc<str>);

/// What is known of a credential; its key material stays with the secret provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFact {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: Arc<str>,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
    /// Whether it holds a CA for the certificates of clients.
    pub holds_ca: bool,
}

/// What is known of credentials, by namespace and name.
pub type Credentials = BTreeMap<CredentialName, CredentialFact>;

/// One state of the mesh. Plans see it only through a [`Reader`].
#[derive(Clone, Default, Debug)]
pub struct MeshSnapshot {
    mesh: Arc<MeshDefaults>,
    services: Arc<Services>,
    endpoints: Arc<Endpoints>,
    workloads: Arc<Workloads>,
    routes: Arc<Routes>,
    backends: Arc<Backends>,
    gateways: Arc<Gateways>,
    scopes: Arc<Scopes>,
    policies: Arc<Policies>,
    credentials: Arc<Credentials>,
    /// Label keys of clients that some rule or selector asks about, with the number of objects that do.
    asked_labels: Arc<BTreeMap<Arc<str>, usize>>,
}

impl MeshSnapshot {
    /// A mesh without objects.
    pub(crate) fn new(mesh: Arc<MeshDefaults>) -> Self {
        Self { mesh, ..Self::default() }
    }

    /// Sets the mesh-wide settings, whatever object gave them.
    pub(crate) fn restore_mesh(&mut self, mesh: Arc<MeshDefaults>) {
        self.mesh = mesh;
    }

    /// Takes over the credentials of a former state.
    pub(crate) fn take_credentials(&mut self, former: &Self) {
        self.credentials = former.credentials.clone();
    }

    /// The credentials as changes from nothing.
    pub(crate) fn credential_changes(&self) -> Vec<Change> {
        let change = |((namespace, name), fact): (&CredentialName, &CredentialFact)| Change::Credential {
            namespace: namespace.clone(),
            name: name.clone(),
            fact: Some(fact.clone()),
        };
        self.credentials.iter().map(change).collect()
    }
}

/// What classification and status need; plans have no access to a snapshot, only to a [`Reader`].
impl MeshSnapshot {
    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Arc<MeshDefaults> {
        &self.mesh
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Every workload of the registry, sorted by namespace and name.
    pub fn all_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.all()
    }

    pub(crate) fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    pub(crate) fn gateways(&self) -> &Gateways {
        &self.gateways
    }

    pub(crate) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Credentials of all sources.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Ports of services without selector that lead to a workload by their slices.
    pub(crate) fn ports_by_slice(&self, workload: &Workload) -> Vec<(ServiceKey, u16, u16)> {
        let selects = |key: &ServiceKey| self.services.service(key).is_none_or(|s| s.selector.is_some());
        self.endpoints.leading_to(workload).filter(|(key, ..)| !selects(key)).collect()
    }

    /// Label keys of clients that some rule asks about.
    pub(crate) fn asks_about(&self, label: &str) -> bool {
        self.asked_labels.contains_key(label)
    }
}
