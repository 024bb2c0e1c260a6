//! Writes into the status of every object of the mesh what became of it, and Events about errors;
//! done by the leader.
//!
//! What is to be said comes from the pipeline's findings, from what is said of objects as a whole
//! ([`relations`]) and from what proxies refuse ([`verdict`]); what is said already comes from the
//! source ([`super::status_cache`]). Only a difference is written, at a pace, and only onto the
//! version of the object that was judged. A new leader compares like any other pass, and writes
//! nothing that its predecessor wrote.

mod pace;
mod refusals;
mod relations;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferromesh_xds_translator::{diagnostic::Diagnostic, dialect::Kind, ir::ObjectId};
use futures_util::{StreamExt, stream};
use kube::{
    Error,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    pace::Pace,
    refusals::ByObject,
    relations::Relations,
    verdict::{Verdict, change, judge, unsaid},
};
use super::{
    KubeCluster, Trouble,
    events::Events,
    leader, objects,
    replica_map::ReplicaMap,
    status_cache::{ObservedStatus, StatusCache},
};
use crate::{
    event::SourceId,
    judge::Judge,
    metrics::Metrics,
    pipeline::{Mesh, Stopped},
    status::{ABSENCE, Proxies},
};

/// Who writes, as the API server records it.
const FIELD_MANAGER: &str = "ferromesh";
/// What changes together is written together.
const GATHER: Duration = Duration::from_millis(300);
/// Writes after which everything is judged again: what was judged long ago may be wrong by now.
const BATCH: usize = 200;
/// Writes under way at once.
const AT_ONCE: usize = 8;
/// How long a write may take: shorter than a leader that was replaced may go on.
const ANSWER: Duration = Duration::from_secs(4);
/// When a write is tried again that failed; one that is not allowed; one that met a newer version,
/// which will be known soon.
const AGAIN: Duration = Duration::from_secs(10);
const MUCH_LATER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

/// What the writer reads and where it counts. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    /// The cluster.
    pub cluster: KubeCluster,
    /// Where findings come from.
    pub mesh: Mesh,
    /// Who refuses what.
    pub proxies: Arc<Proxies>,
    /// What the API server has.
    pub statuses: Arc<StatusCache>,
    /// Where writes are counted.
    pub metrics: Arc<Metrics>,
    /// Says what there is to say of objects.
    pub judge: Judge,
    /// Name of this replica.
    pub instance: String,
    /// Where replicas tell each other.
    pub root_namespace: Arc<str>,
}

impl Writer {
    /// Keeps statuses right whenever this replica leads, until the election is over.
    pub async fn run(self, leads: watch::Receiver<bool>) {
        leader::while_leading(leads, || async {
            self.mesh.until_synced().await;
            let (told, others) = watch::channel(ByObject::new());
            tokio::select! {
                // Ends when the pipeline does.
                _ = Term::begin(self.clone(), others).run() => {}
                () = refusals::follow(self.replicas(), told) => {}
            }
        })
        .await;
    }

    /// Tells the leader what proxies of this replica refuse, whenever another one leads, until the
    /// election is over.
    pub async fn tell(self, leads: watch::Receiver<bool>) {
        refusals::tell(self.replicas(), &self.proxies, leads).await;
    }

    /// Where replicas tell each other what is refused.
    fn replicas(&self) -> ReplicaMap {
        ReplicaMap::new(&self.cluster, &self.root_namespace, refusals::NAME, &self.instance)
    }
}

/// A write that is due.
struct Due {
    id: ObjectId,
    observed: Arc<ObservedStatus>,
    verdict: Verdict,
    change: Value,
}

/// What became of a write.
enum Outcome {
    /// It is done; the object is this now.
    Written(Box<ObservedStatus>),
    /// To be tried again after this.
    Later(Duration),
}

/// A time of leadership.
struct Term {
    writer: Writer,
    events: Events,
    pace: Mutex<Pace>,
    /// What proxies of other replicas refuse.
    others: watch::Receiver<ByObject>,
    relations: Relations,
    /// When every proxy that refuses something has had time to say so to this leader or another
    /// replica.
    heard: Instant,
    /// Writes that failed, and when they may be tried again.
    failed: BTreeMap<ObjectId, Instant>,
    /// Statuses of which the API server kept less than was written: their definition does not have
    /// all fields.
    pruned: BTreeMap<ObjectId, (Value, Verdict)>,
    /// What was judged by last.
    judged_by: Option<Evidence>,
    trouble: Trouble,
}

/// What verdicts are made from.
#[derive(PartialEq)]
struct Evidence {
    findings: Vec<Diagnostic>,
    relations: Arc<Vec<Diagnostic>>,
    refused: ByObject,
}

impl Evidence {
    fn by_object(&self) -> BTreeMap<&ObjectId, Vec<&Diagnostic>> {
        let mut by_object: BTreeMap<&ObjectId, Vec<&Diagnostic>> = BTreeMap::new();
        for finding in self.findings.iter().chain(&*self.relations) {
            if let Some(id) = &finding.object {
                by_object.entry(id).or_default().push(finding);
            }
        }
        by_object
    }
}

impl Term {
    fn begin(writer: Writer, others: watch::Receiver<ByObject>) -> Self {
        let events = Events::new(&writer.cluster, &writer.instance);
        let pace = Mutex::new(Pace::new(Instant::now()));
        let relations = Relations::new(&writer.mesh, writer.judge.clone());
        Self {
            writer,
            events,
            pace,
            others,
            relations,
            heard: Instant::now() + ABSENCE,
            failed: BTreeMap::new(),
            pruned: BTreeMap::new(),
            judged_by: None,
            trouble: Trouble::default(),
        }
    }

    async fn run(mut self) -> Result<(), Stopped> {
        let mut findings = self.writer.mesh.news();
        let mut complaints = self.writer.proxies.complaints();
        let mut seen = self.writer.statuses.changes();
        let mut others = self.others.clone();
        let mut everything = true;
        loop {
            findings.mark_unchanged();
            complaints.mark_unchanged();
            seen.mark_unchanged();
            others.mark_unchanged();
            let due = self.due(everything).await?;
            everything = due.len() == BATCH;
            self.write_all(due).await;
            if everything {
                continue;
            }
            let now = Instant::now();
            let again =
                self.failed.values().copied().chain((now < self.heard).then_some(self.heard)).min();
            tokio::select! {
                changed = findings.changed() => changed.map_err(|_| Stopped)?,
                changed = complaints.changed() => changed.map_err(|_| Stopped)?,
                changed = others.changed() => changed.map_err(|_| Stopped)?,
                changed = seen.changed() => { changed.map_err(|_| Stopped)?; everything = true }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => everything = true,
            }
            sleep(GATHER).await;
            everything |= seen.has_changed().map_err(|_| Stopped)?;
        }
    }

    /// The next writes: every status that does not say what it should. Unless `everything` is to be
    /// looked at: none, if there is no other evidence than before.
    async fn due(&mut self, everything: bool) -> Result<Vec<Due>, Stopped> {
        self.relations.turn().await?;
        // In this order: what is asked for later is never older.
        let statuses = self.writer.statuses.list();
        let findings = self.writer.mesh.findings(SourceId::Kubernetes).await?;
        let relations = self.relations.look().await?;
        let mut refused = self.writer.proxies.refused();
        refusals::merge(&mut refused, &self.others.borrow());
        let evidence = Evidence { findings, relations, refused };
        if !everything && self.judged_by.as_ref() == Some(&evidence) {
            return Ok(Vec::new());
        }
        let now = Instant::now();
        self.failed.retain(|_, until| *until > now);
        self.pruned.retain(|id, _| statuses.binary_search_by(|(other, _)| other.cmp(id)).is_ok());
        let (found, time) = (evidence.by_object(), rfc3339(SystemTime::now()));
        let allocated = self.writer.mesh.snapshot().await?.allocated_addresses();
        let waits = |id: &ObjectId, observed: &ObservedStatus| {
            let refused = verdict::says_refused(observed) && !evidence.refused.contains_key(id);
            self.failed.contains_key(id) || (refused && now < self.heard)
        };
        let judged = statuses.into_iter().filter(|(id, observed)| !waits(id, observed)).filter_map(
            |(id, observed)| {
                let verdict =
                    judge(found.get(&id).cloned().unwrap_or_default(), evidence.refused.get(&id));
                let verdict = match id.kind == Kind::SERVICE_ENTRY {
                    true => {
                        let own = allocated.get(&id).map_or(&[][..], Vec::as_slice);
                        verdict.with_addresses(own)
                    }
                    false => verdict,
                };
                let change = change(&observed, &verdict, &time)?;
                Some(Due { id, observed, verdict, change })
            },
        );
        let due = judged.filter(|due| !self.is_pruned(due)).take(BATCH).collect();
        self.judged_by = Some(evidence);
        Ok(due)
    }

    /// Whether the API server kept less than what was written, and would again.
    fn is_pruned(&self, due: &Due) -> bool {
        let kept = self.pruned.get(&due.id);
        kept.is_some_and(|(status, verdict)| {
            *status == due.observed.status && *verdict == due.verdict
        })
    }

    async fn write_all(&mut self, due: Vec<Due>) {
        let this = &*self;
        let writes = stream::iter(due).map(|due| async move { (this.write(&due).await, due) });
        let done: Vec<_> = writes.buffer_unordered(AT_ONCE).collect().await;
        for (outcome, due) in done {
            match outcome {
                Ok(Outcome::Written(after)) => self.written(due, *after),
                Ok(Outcome::Later(pause)) => {
                    self.failed.insert(due.id, Instant::now() + pause);
                }
                Err(error) => {
                    let forbidden =
                        matches!(&error, Error::Api(status) if matches!(status.code, 401 | 403));
                    let pause = if forbidden { MUCH_LATER } else { AGAIN };
                    self.failed.insert(due.id, Instant::now() + pause);
                    self.trouble.tell_why("statuses cannot be written", &error.to_string());
                }
            }
        }
        // One that is written says nothing about another that is still refused.
        if self.failed.is_empty() {
            self.trouble.over();
        }
    }

    fn written(&mut self, due: Due, after: ObservedStatus) {
        let Due { id, observed, verdict, .. } = due;
        self.pruned.remove(&id);
        if change(&after, &verdict, "").is_some() {
            self.pruned.insert(id.clone(), (after.status.clone(), verdict));
        }
        self.writer.statuses.wrote(&id, &observed, after);
    }

    /// One write, when it is its turn, and the Events that belong to it.
    async fn write(&self, due: &Due) -> Result<Outcome, Error> {
        let turn = self.pace.lock().await.turn(Instant::now());
        sleep_until(turn).await;
        let Due { id, observed, verdict, change } = due;
        let patch = json!({ "metadata": { "resourceVersion": observed.resource_version }, "status": change });
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = objects::api(&self.writer.cluster, id.kind, &id.namespace, &observed.api_version);
        let answer =
            timeout(ANSWER, api.patch_status(&id.name, &params, &Patch::Merge(patch))).await;
        let written = match answer {
            Ok(Ok(object)) => object,
            // The object changed or went, or its definition did: the source will see it.
            Ok(Err(Error::Api(status))) if status.code == 409 => return Ok(Outcome::Later(SOON)),
            Ok(Err(Error::Api(status))) if status.code == 404 => return Ok(Outcome::Later(AGAIN)),
            Ok(Err(error)) => {
                self.writer.metrics.status_write_errors.inc();
                return Err(error);
            }
            Err(_) => {
                self.writer.metrics.status_write_errors.inc();
                return Ok(Outcome::Later(AGAIN));
            }
        };
        self.writer.metrics.status_writes.inc();
        self.report(id, observed, verdict).await;
        let mut value = serde_json::to_value(written).unwrap_or_default();
        value["apiVersion"] = json!(observed.api_version);
        Ok(Outcome::Written(Box::new(ObservedStatus::take(&mut value))))
    }

    /// Events for what the status did not say before. One that is lost is not repeated: the status
    /// says it too.
    async fn report(&self, id: &ObjectId, observed: &ObservedStatus, verdict: &Verdict) {
        for complaint in unsaid(observed, verdict) {
            let event =
                self.events.warn(id, observed, format!("{:?}", complaint.code), &complaint.text);
            match timeout(ANSWER, event).await {
                Ok(Ok(())) => self.writer.metrics.events_written.inc(),
                _ => self.writer.metrics.status_write_errors.inc(),
            };
        }
    }
}

/// Whole seconds, as Kubernetes writes them.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}
