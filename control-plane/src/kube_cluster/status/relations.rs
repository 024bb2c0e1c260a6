//! What is said of the objects that serve, looked for again when any of them changed, at a pace.

use std::{sync::Arc, time::Duration};

use ferromesh_xds_translator::diagnostic::Diagnostic;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    judge::Judge,
    pipeline::{Mesh, Stopped},
};

/// Of the time at most one part in so many is spent on looking, unless that would make findings
/// older than [`LONGEST`].
const SHARE: u32 = 20;
const LONGEST: Duration = Duration::from_secs(10);

/// The findings, and when to look again.
pub(super) struct Relations {
    judge: Judge,
    changes: watch::Receiver<()>,
    /// What was found last.
    findings: Arc<Vec<Diagnostic>>,
    /// When the next look may begin.
    next: Instant,
}

impl Relations {
    /// Nothing was looked at yet.
    pub(super) fn new(mesh: &Mesh, judge: Judge) -> Self {
        let mut changes = mesh.inventory_changes();
        changes.mark_changed();
        Self { judge, changes, findings: Arc::default(), next: Instant::now() }
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

    /// Every finding about the objects that serve now.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn look(&mut self) -> Result<Arc<Vec<Diagnostic>>, Stopped> {
        if self.changes.has_changed().map_err(|_| Stopped)? {
            self.changes.mark_unchanged();
            let begin = Instant::now();
            self.findings = self.judge.everything().await?;
            self.next = Instant::now() + (begin.elapsed() * SHARE).min(LONGEST);
        }
        Ok(self.findings.clone())
    }
}
