//! Every finding about the mesh, in one list: what sources found, what was found when it was
//! translated, what objects say about each other, what proxies refuse, and whose proxy is missing.
//!
//! The REST API answers with it; each new finding is logged once and all are counted, so that a
//! mistake shows where operators look first.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ferromesh_xds_translator::{
    diagnostic::{Diagnostic, Severity},
    ir::Connection,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    judge::Judge,
    metrics::Metrics,
    pipeline::{Mesh, Stopped},
    source::connections::Connections,
    status::Proxies,
};

/// Most findings that are logged at once; a directory that was moved has thousands.
const MOST: usize = 20;
/// Between two looks; each is followed by this many times as long as it took, so that it costs a
/// small part of one core whatever changes.
const PAUSE: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;
/// How long a proxy may be missing before that is logged: objects are written before proxies are
/// started, and proxies come back after a restart.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where findings come from. Cheap to clone.
#[derive(Clone)]
pub struct Findings {
    mesh: Mesh,
    judge: Judge,
    proxies: Arc<Proxies>,
    /// `None`: others know which proxies are there.
    connections: Option<Arc<Connections>>,
}

impl Findings {
    /// The findings of a control plane. `connections`: all that there are; `None` where proxies are
    /// connected to others too, or a cluster tells of them.
    pub fn new(
        mesh: Mesh,
        judge: Judge,
        proxies: Arc<Proxies>,
        connections: Option<Arc<Connections>>,
    ) -> Self {
        Self { mesh, judge, proxies, connections }
    }

    /// All of them, each once.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn all(&self) -> Result<Vec<Diagnostic>, Stopped> {
        let mut all = self.settled().await?;
        all.extend(self.unproven().await?);
        Ok(all)
    }

    /// Those that the configuration alone gives, and what proxies refuse.
    async fn settled(&self) -> Result<Vec<Diagnostic>, Stopped> {
        let mut all = self.mesh.diagnostics().await?;
        all.extend(self.judge.everything().await?.iter().cloned());
        all.extend(self.proxies.diagnostics());
        // Translation has found already what is found when objects are lowered.
        let mut seen = HashSet::new();
        all.retain(|finding| seen.insert(finding.clone()));
        Ok(all)
    }

    /// Those about workloads without their proxies.
    async fn unproven(&self) -> Result<Vec<Diagnostic>, Stopped> {
        let Some(connections) = &self.connections else { return Ok(Vec::new()) };
        let connected: BTreeSet<Connection> = connections.here().into_keys().collect();
        self.judge.unproven(connected).await
    }

    /// Logs what is new and counts what there is, for as long as the mesh lives.
    pub async fn follow(self, metrics: Arc<Metrics>) {
        self.mesh.until_synced().await;
        let (mut news, mut complaints) = (self.mesh.news(), self.proxies.complaints());
        let mut log = Log::default();
        loop {
            news.mark_unchanged();
            complaints.mark_unchanged();
            let begin = Instant::now();
            let (Ok(settled), Ok(unproven)) = (self.settled().await, self.unproven().await) else {
                return;
            };
            count(&metrics, settled.iter().chain(&unproven));
            metrics.new_findings.inc_by(log.tell(settled, unproven, Instant::now()));
            sleep(PAUSE.max(begin.elapsed() * SHARE)).await;
            let due = log.due();
            let patience = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = complaints.changed() => if changed.is_err() { return },
                () = patience => {}
            }
        }
    }
}

fn count<'a>(metrics: &Metrics, findings: impl Iterator<Item = &'a Diagnostic>) {
    let mut counts = [Severity::Error, Severity::ErrorRef, Severity::Warning, Severity::Info]
        .map(|severity| (severity, 0));
    for finding in findings {
        for (severity, count) in &mut counts {
            *count += i64::from(*severity == finding.severity);
        }
    }
    for (severity, count) in counts {
        metrics.findings(severity.as_str(), count);
    }
}

/// What was said already.
#[derive(Default)]
struct Log {
    said: HashSet<Diagnostic>,
    /// Missing proxies, and since when; those of [`Self::said`] too.
    missing: HashMap<Diagnostic, Instant>,
}

impl Log {
    /// Logs what is new; how many that are. What stands is not said again, what has gone will be.
    fn tell(&mut self, settled: Vec<Diagnostic>, unproven: Vec<Diagnostic>, now: Instant) -> u64 {
        let (new, more) = self.news(settled, unproven, now);
        for finding in &new {
            match finding.severity {
                Severity::Error | Severity::ErrorRef => tracing::error!(%finding, "configuration"),
                Severity::Warning | Severity::Info => tracing::warn!(%finding, "configuration"),
            }
        }
        if more > 0 {
            tracing::warn!(more, "configuration: `ferromesh diagnostics` lists every finding");
        }
        u64::try_from(new.len() + more).unwrap_or(u64::MAX)
    }

    /// Warnings and errors that were not said while they stood, and how many more there are than are
    /// logged at once. Remarks are for those who ask.
    fn news(
        &mut self,
        settled: Vec<Diagnostic>,
        unproven: Vec<Diagnostic>,
        now: Instant,
    ) -> (Vec<Diagnostic>, usize) {
        let before = std::mem::take(&mut self.missing);
        let since = |finding: &Diagnostic| before.get(finding).copied().unwrap_or(now);
        self.missing = unproven.into_iter().map(|f| (f.clone(), since(&f))).collect();
        let ripe = self.missing.iter().filter(|(_, since)| now >= **since + PATIENCE);
        let mut standing: Vec<Diagnostic> =
            settled.into_iter().chain(ripe.map(|(finding, _)| finding.clone())).collect();
        standing.retain(|finding| finding.severity != Severity::Info);
        let is_new = |finding: &&Diagnostic| !self.said.contains(*finding);
        let mut new: Vec<Diagnostic> = standing.iter().filter(is_new).cloned().collect();
        self.said = standing.into_iter().collect();
        let more = new.len().saturating_sub(MOST);
        new.truncate(MOST);
        (new, more)
    }

    /// When the next missing proxy is to be told of.
    fn due(&self) -> Option<Instant> {
        let waiting = self.missing.iter().filter(|(finding, _)| !self.said.contains(*finding));
        let waiting = waiting.filter(|(finding, _)| finding.severity != Severity::Info);
        waiting.map(|(_, since)| *since + PATIENCE).min()
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::diagnostic::{Code, FieldPath};

    use super::*;

    fn finding(severity: fn(Code, FieldPath, String) -> Diagnostic, text: usize) -> Diagnostic {
        severity(Code::InvalidValue, FieldPath::root(), text.to_string())
    }

    fn error(text: usize) -> Diagnostic {
        finding(Diagnostic::error, text)
    }

    #[test]
    fn a_finding_is_logged_once_while_it_stands_and_remarks_never() {
        let (mut log, now) = (Log::default(), Instant::now());
        let mut texts = |settled: Vec<Diagnostic>| {
            let (new, more) = log.news(settled, Vec::new(), now);
            (new.iter().map(|f| f.message.clone()).collect::<Vec<_>>(), more)
        };
        let remark = finding(Diagnostic::info, 9);
        assert_eq!(texts(vec![error(1), remark]), (vec!["1".to_owned()], 0));
        assert_eq!(texts(vec![error(1), error(2)]), (vec!["2".to_owned()], 0));
        assert_eq!(texts(vec![error(2)]), (vec![], 0));
        assert_eq!(texts(vec![error(1), error(2)]), (vec!["1".to_owned()], 0), "it is back");
        assert_eq!(texts((10..60).map(error).collect()).1, 30);
    }

    #[test]
    fn a_missing_proxy_is_logged_when_it_has_been_missing_for_a_time() {
        let (mut log, start) = (Log::default(), Instant::now());
        let mut told = |after: Duration, missing: &[usize]| {
            let missing = missing.iter().copied().map(error).collect();
            log.news(Vec::new(), missing, start + after).0.len()
        };
        assert_eq!(told(Duration::ZERO, &[1]), 0);
        assert_eq!(told(PATIENCE / 2, &[1, 2]), 0);
        assert_eq!(told(PATIENCE, &[1, 2]), 1);
        assert_eq!(told(PATIENCE, &[2]), 0, "the first is there");
        assert_eq!(told(PATIENCE, &[1, 2]), 0, "and gone anew");
        assert_eq!(told(2 * PATIENCE, &[1, 2]), 2);
        assert_eq!(log.due(), None);
    }
}
