//! What a run found: every kind of difference with its plainest request, and whether all of them
//! are allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use crate::{
    Pair, Verdict,
    allowed::{self, ALLOWED},
    exchange::Case,
    outcome::Aspect,
    shrink::shrink,
};

/// Requests at which an allowed difference must have shown itself, or is gone and is to be deleted.
const ENOUGH: u64 = 100_000;
/// How long a request is made plainer.
const SHRINKING: Duration = Duration::from_secs(20);

/// The findings of all meshes.
pub(crate) struct Report {
    seed: u64,
    found: BTreeMap<String, Found>,
    used: BTreeSet<usize>,
    /// How often each kind came and went.
    unsteady: BTreeMap<String, usize>,
    same: usize,
}

/// A kind of difference.
#[derive(Default)]
struct Found {
    count: usize,
    text: String,
}

/// The first request that showed a kind of difference.
pub(crate) struct First {
    kind: String,
    case: Case,
    aspect: Aspect,
}

impl First {
    /// Its text, with the request as plain as can be.
    pub(crate) async fn shrunk(self, pair: &Pair<'_>) -> (String, String) {
        let Self { kind, case, aspect } = self;
        let mut plainest = case.clone();
        let _ = tokio::time::timeout(SHRINKING, shrink(pair, &mut plainest, &aspect)).await;
        let shown = pair.once(&plainest).await.into_iter().find(|a| a.kind() == aspect.kind());
        let aspect = shown.as_ref().unwrap_or(&aspect);
        let configuration = pair.configuration(&case);
        let text = format!(
            "{aspect}\n   {:?} {:?}: {}\n{}",
            configuration.kind,
            configuration.speech,
            plainest.readable(),
            configuration.yaml()
        );
        (kind, text)
    }
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            found: BTreeMap::new(),
            used: BTreeSet::new(),
            unsteady: BTreeMap::new(),
            same: 0,
        }
    }

    /// Counts what came of a request; tells of kinds that are new.
    pub(crate) fn note(&mut self, pair: &Pair<'_>, case: &Case, verdict: Verdict) -> Vec<First> {
        let aspects = match verdict {
            Verdict::Same => Vec::new(),
            Verdict::Unsteady(aspects) => {
                for aspect in aspects {
                    *self.unsteady.entry(aspect.kind()).or_default() += 1;
                }
                return Vec::new();
            }
            Verdict::Different(aspects) => aspects,
        };
        self.same += usize::from(aspects.is_empty());
        let mut new = Vec::new();
        for aspect in aspects {
            if let Some(index) = allowed::explanation(case, &aspect) {
                self.used.insert(index);
                continue;
            }
            let kind = format!("{:?} {}", pair.configuration(case).kind, aspect.kind());
            let found = self.found.entry(kind.clone()).or_default();
            found.count += 1;
            if found.count == 1 {
                new.push(First { kind, case: case.clone(), aspect });
            }
        }
        new
    }

    /// Notes the text of a kind.
    pub(crate) fn add(&mut self, (kind, text): (String, String)) {
        self.found.entry(kind).or_default().text = text;
    }

    /// Says how far a long run has come.
    #[allow(clippy::print_stdout, reason = "a long run shows that it goes on")]
    pub(crate) fn say_progress(&self, done: usize, of: usize) {
        let (unsteady, kinds) = (self.unsteady.values().sum::<usize>(), self.found.len());
        println!("{done} of {of} meshes: {} alike, {unsteady} unsteady, {kinds} kinds", self.same);
    }

    /// Fails when something differs that is not allowed, or when something is allowed that does not
    /// differ.
    pub(crate) fn judge(self, requests: u64) {
        let mut text = format!(
            "seed {}: {} requests, {} alike, {} unsteady, {} kinds of differences that nothing allows\n",
            self.seed,
            requests,
            self.same,
            self.unsteady.values().sum::<usize>(),
            self.found.len()
        );
        for (kind, count) in &self.unsteady {
            let _ = writeln!(text, "   {count} times unsteady: {kind}");
        }
        for Found { count, text: found } in self.found.values() {
            let _ = write!(text, "\n== {count} times: {found}");
        }
        assert!(self.found.is_empty(), "{text}");
        let unused = ALLOWED.iter().enumerate().filter(|(index, _)| !self.used.contains(index));
        let unused: Vec<String> =
            unused.map(|(_, a)| format!("{} ({})", a.what, a.clause)).collect();
        assert!(requests < ENOUGH || unused.is_empty(), "differences that are gone: {unused:?}");
        #[allow(clippy::print_stdout, reason = "what a long run has to say")]
        {
            println!("{text}");
        }
    }
}
