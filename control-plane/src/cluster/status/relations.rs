//! What objects of the mesh say about each other: what `ferromesh analyze` finds in all of them together, looked for again
//! when any of them changed.

use std::{sync::Arc, time::Duration};

use ferromesh_xds_translator::{analyze::analyze, diagnostic::Diagnostic, ir::MeshDefaults};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::pipeline::{Mesh, Stopped};

/// Of the time at most one part in so many is spent on looking, unless that would make findings older than [`LONGEST`].
const SHARE: u32 = 20;
const LONGEST: Duration = Duration::from_secs(10);

/// The findings, and when to look again.
pub(super) struct Relations {
    mesh: Mesh,
    defaults: Arc<MeshDefaults>,
    changes: watch::Receiver<()>,
    /// What was found last.
    findings: Arc<Vec<Diagnostic>>,
    /// When the next look may begin.
    next: Instant,
}

impl Relations {
    /// Nothing was looked at yet.
    pub(super) fn new(mesh: Mesh, defaults: Arc<MeshDefaults>) -> Self {
        let mut changes = mesh.inventory_changes();
        changes.mark_changed();
        Self { mesh, defaults, changes, findings: Arc::default(), next: Instant::now() }
    }

    /// Waits until a look may begin, if there is something new to see.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn turn(&self) -> Result<(), Stopped> {
        if self.changes.has_changed().map_err(|_| Stopped)? {
            sleep_until(self.next).await;
        }
        Ok(())
    }

    /// Every finding about the objects that serve now, together.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn look(&mut self) -> Result<Arc<Vec<Diagnostic>>, Stopped> {
        if self.changes.has_changed().map_err(|_| Stopped)? {
            self.changes.mark_unchanged();
            let begin = Instant::now();
            let (inventory, defaults) = (self.mesh.inventory().await?, self.defaults.clone());
            let analysis = spawn_blocking(move || analyze(&inventory.objects, &inventory.credentials, &defaults)).await;
            match analysis {
                Ok(findings) => self.findings = Arc::new(findings),
                // The findings of the last look that ended are better than no statuses.
                Err(error) => tracing::error!(%error, "objects cannot be analyzed together"),
            }
            self.next = Instant::now() + (begin.elapsed() * SHARE).min(LONGEST);
        }
        Ok(self.findings.clone())
    }
}
