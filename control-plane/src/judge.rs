//! What is said of objects, at every door: `ferromesh analyze` over what serves, and over what would
//! serve with some objects more.
//!
//! The REST API with its dry run, admission and the list of diagnostics ask here, and so do
//! statuses; offline it is the same function over files ([`analyze()`]). Knows the mesh and nothing
//! of who asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::ResourceType;
use ferromesh_xds_translator::{
    analyze::{analyze, analyze_among, proxies_across, unproven},
    compiler::{Change, Compiler},
    diagnostic::{Diagnostic, Severity},
    dialect::Object,
    explain::{Asker, ExplainError, Explanation, Request, World, explain},
    forecast::{Forecast, ForecastError, forecast},
    ir::{Connection, MeshDefaults, ObjectId, WorkloadId},
    plan::ViewKey,
};
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use crate::{
    pipeline::{Inventory, Mesh, Stopped},
    secret,
    signatures::Verifier,
};

/// Judges objects among those that serve. Cheap to clone; clones share what was found last.
#[derive(Clone)]
pub struct Judge {
    mesh: Mesh,
    defaults: Arc<MeshDefaults>,
    last: Arc<Mutex<Last>>,
}

/// What was found last, and whether that still holds.
struct Last {
    changes: watch::Receiver<()>,
    findings: Arc<Vec<Diagnostic>>,
}

impl Judge {
    /// A judge of a mesh. `defaults` holds what the mesh's configuration does not say.
    pub fn new(mesh: Mesh, defaults: MeshDefaults) -> Self {
        let mut changes = mesh.inventory_changes();
        changes.mark_changed();
        let last = Last { changes, findings: Arc::default() };
        Self { mesh, defaults: Arc::new(defaults), last: Arc::new(Mutex::new(last)) }
    }

    /// Every finding about the objects that serve now, in the order of files and lines; looked for
    /// again only when they changed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn everything(&self) -> Result<Arc<Vec<Diagnostic>>, Stopped> {
        // Held while looking: whoever asks meanwhile wants the same answer.
        let mut last = self.last.lock().await;
        if last.changes.has_changed().map_err(|_| Stopped)? {
            last.changes.mark_unchanged();
            let (inventory, defaults) = (self.mesh.inventory().await?, self.defaults.clone());
            let look = move || analyze(&inventory.objects, &inventory.credentials, &defaults);
            match spawn_blocking(look).await {
                Ok(findings) => last.findings = Arc::new(findings),
                // The findings of the last look that ended are better than none.
                Err(error) => tracing::error!(%error, "objects cannot be analyzed"),
            }
        }
        Ok(last.findings.clone())
    }

    /// What is written of mutual TLS and contradicts which proxies have streams.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn unproven(
        &self,
        connected: BTreeSet<Connection>,
    ) -> Result<Vec<Diagnostic>, Stopped> {
        let (snapshot, inventory) = (self.mesh.snapshot().await?, self.mesh.inventory().await?);
        let look = move || {
            let objects = inventory.objects.iter().map(|object| (&object.id, object)).collect();
            unproven(&objects, &snapshot, &connected)
        };
        Ok(spawn_blocking(look).await.unwrap_or_else(|error| {
            tracing::error!(%error, "workloads cannot be looked at");
            Vec::new()
        }))
    }

    /// Every finding about `objects`, as if they served, in the place of those with their
    /// identities. `None`: they cannot be judged, which is a fault of ours and is logged.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn among_others(
        &self,
        objects: Vec<Object>,
    ) -> Result<Option<Vec<Diagnostic>>, Stopped> {
        let (inventory, defaults) = (self.mesh.inventory().await?, self.defaults.clone());
        match spawn_blocking(move || judge(&objects, &inventory, &defaults)).await {
            Ok(findings) => Ok(Some(findings)),
            Err(error) => {
                tracing::error!(%error, "an object cannot be analyzed");
                Ok(None)
            }
        }
    }

    /// What becomes of a request in the mesh as it is. `None`: that cannot be told, which is a fault
    /// of ours and is logged.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn explain(
        &self,
        asker: Asker,
        request: Request,
        beside: Beside,
    ) -> Result<Option<Result<Explanation, ExplainError>>, Stopped> {
        let (snapshot, inventory) = (self.mesh.snapshot().await?, self.mesh.inventory().await?);
        let look = move || {
            let objects: BTreeMap<&ObjectId, &Object> =
                inventory.objects.iter().map(|object| (&object.id, object)).collect();
            let world = World {
                signatures: &Verifier,
                locate: &|id, field| objects.get(id)?.locate(field),
                running: &*beside.running,
                refused: &beside.refused,
            };
            explain(&mut Compiler::of_snapshot(snapshot), &world, &asker, &request)
        };
        match spawn_blocking(look).await {
            Ok(explained) => Ok(Some(explained)),
            Err(error) => {
                tracing::error!(%error, "what becomes of a request cannot be told");
                Ok(None)
            }
        }
    }

    /// What it would do to proxies if `objects` served and those that `deleted` names did not.
    /// `None`: that cannot be told, which is a fault of ours and is logged.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn foresee(
        &self,
        objects: Vec<Object>,
        deleted: BTreeSet<ObjectId>,
    ) -> Result<Option<Foreseen>, Stopped> {
        let (inventory, defaults) = (self.mesh.inventory().await?, self.defaults.clone());
        let look = move || foresee(objects, &deleted, &inventory, &defaults);
        let told = match spawn_blocking(look).await {
            Ok(Ok(foreseen)) => return Ok(Some(foreseen)),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error = told, "what a change would do cannot be told");
        Ok(None)
    }
}

/// The views of a workload's proxy; `None`: none is connected.
pub type Running = Box<dyn Fn(&WorkloadId) -> Option<Vec<Arc<ViewKey>>> + Send>;

/// What proxies say and run, beside the configuration.
pub struct Beside {
    /// What they refuse, by resource, with their words.
    pub refused: BTreeMap<(ResourceType, Arc<str>), Vec<String>>,
    /// What they run.
    pub running: Running,
}

/// What a change would do, and what is to be said of its objects.
pub struct Foreseen {
    /// Findings about the objects, as if they served.
    pub findings: Vec<Diagnostic>,
    /// Nothing if an object of the change is refused, or is a Secret that cannot be used.
    pub forecast: Option<Forecast>,
}

fn foresee(
    objects: Vec<Object>,
    deleted: &BTreeSet<ObjectId>,
    inventory: &Inventory,
    defaults: &MeshDefaults,
) -> Result<Foreseen, ForecastError> {
    let mut findings = judge(&objects, inventory, defaults);
    let credentials = &inventory.credentials;
    let known = proxies_across(&inventory.objects, &objects, deleted, credentials, defaults);
    let mut changes: Vec<Change> = deleted.iter().cloned().map(Change::Delete).collect();
    for object in objects {
        match secret::to_change(object) {
            Ok(change) => changes.extend(change),
            Err(finding) => findings.push(*finding),
        }
    }
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Ok(Foreseen { findings, forecast: None });
    }
    let current = inventory.objects.iter().map(|o| Change::Upsert(Box::new(o.clone())));
    let current = current.chain(credentials.iter().map(|((namespace, name), fact)| {
        let (namespace, name) = (namespace.clone(), name.clone());
        Change::Credential { namespace, name, fact: Some(fact.clone()) }
    }));
    let forecast = forecast(defaults.clone(), current.collect(), changes, &known)?;
    Ok(Foreseen { findings, forecast: Some(forecast) })
}

/// Findings about `objects` among those of an inventory.
pub(crate) fn judge(
    objects: &[Object],
    inventory: &Inventory,
    defaults: &MeshDefaults,
) -> Vec<Diagnostic> {
    analyze_among(objects, &inventory.objects, &inventory.credentials, defaults)
}
