//! Keys that tokens are verified with, as a source: what the mesh's rules name is fetched, kept and
//! fetched again, and the pipeline is told of every set that is another than before.
//!
//! The translator stays pure: it says what is wanted ([`MeshSnapshot::wanted_key_sets`]), and hears
//! of keys as it hears of anything else. Where there are none, no token is valid.

mod fetch;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use ferromesh_proto::recurring::Recurring;
use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic},
    ir::{KeySet, KeySource},
    snapshot::{MeshSnapshot, WantedKeys},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::fetch::FetchError;
pub use self::{fetch::Fetcher, network::Reachable};
use crate::{
    event::{ConfigEvent, EventSender, SourceChange, SourceId},
    pipeline::Mesh,
};

/// How soon a source that failed is asked again; doubled with every failure.
const RETRY: Duration = Duration::from_secs(2);
/// And at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Keys that nobody confirms are not trusted for longer.
const UNCONFIRMED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sources that are asked at once.
const AT_ONCE: usize = 64;
/// Of them, sources that rules of one namespace name: one that never answers holds its place for as
/// long as its rule allows, and whoever writes many of those must hold up nobody else.
const AT_ONCE_PER_NAMESPACE: usize = 4;
/// How long the start waits for the first answers; whoever answers later is served later.
const FIRST: Duration = Duration::from_secs(10);

/// Keeps the keys that the mesh wants.
pub struct Keys {
    fetcher: Fetcher,
    /// How often keys that are known are fetched again.
    refresh: Duration,
    known: BTreeMap<KeySource, Known>,
    /// Sources that are being asked.
    asked: JoinSet<Answer>,
    /// Findings that the pipeline was told.
    told: Vec<Diagnostic>,
}

/// A source and what it answered.
type Answer = (KeySource, Result<KeySet, FetchError>);

/// How many sources are being asked for each namespace.
type Asking = BTreeMap<Arc<str>, usize>;

/// What is known of a source.
struct Known {
    wanted: WantedKeys,
    keys: Option<KeySet>,
    /// When it answered last.
    confirmed: Instant,
    /// When it is asked next.
    due: Instant,
    /// It is being asked.
    asked: bool,
    /// How often it failed since.
    failures: u32,
    /// Why, the last time.
    failure: Option<String>,
    /// Failures, as far as they were logged.
    told: Recurring,
}

impl Known {
    fn new(wanted: WantedKeys, now: Instant) -> Self {
        Self {
            wanted,
            keys: None,
            confirmed: now,
            due: now,
            asked: false,
            failures: 0,
            failure: None,
            told: Recurring::default(),
        }
    }

    /// How many others are being asked for the namespace, of those that name it, that asks fewest;
    /// `None`: it must wait for one of them.
    fn turn(&self, asking: &Asking) -> Option<usize> {
        let of = |namespace: &Arc<str>| asking.get(namespace).copied().unwrap_or(0);
        let fewest = self.wanted.by.iter().map(|(object, _)| of(&object.namespace)).min();
        Some(fewest.unwrap_or(0)).filter(|asked| *asked < AT_ONCE_PER_NAMESPACE)
    }

    /// Counts it for each namespace that names it.
    fn count(&self, asking: &mut Asking) {
        let namespaces = self.wanted.by.iter().map(|(object, _)| &object.namespace);
        for namespace in namespaces.collect::<BTreeSet<_>>() {
            *asking.entry(namespace.clone()).or_default() += 1;
        }
    }

    /// Takes an answer in; what the pipeline must hear of it.
    fn take(
        &mut self,
        answer: Result<KeySet, FetchError>,
        refresh: Duration,
        now: Instant,
    ) -> Option<Option<KeySet>> {
        self.asked = false;
        match answer {
            Ok(keys) => {
                (self.confirmed, self.due) = (now, now + refresh);
                (self.failures, self.failure) = (0, None);
                let news = self.keys.as_ref() != Some(&keys);
                self.keys = Some(keys);
                news.then(|| self.keys.clone())
            }
            Err(error) => {
                // An issuer that says that it has no keys has taken them back.
                if error.withdraws() {
                    self.confirmed = now;
                    self.failures = 0;
                }
                let wait = RETRY.saturating_mul(1 << self.failures.min(10));
                self.due = now + wait.min(LONGEST_RETRY);
                self.failures += 1;
                self.failure = Some(error.to_string());
                let stale = now.duration_since(self.confirmed) >= UNCONFIRMED;
                let gone = stale || error.withdraws();
                (gone && self.keys.take().is_some()).then_some(None)
            }
        }
    }

    /// What is said where the source is named.
    fn findings(&self, source: &KeySource) -> impl Iterator<Item = Diagnostic> {
        let meanwhile = match self.keys {
            Some(_) => "the keys that were fetched before stay in force",
            None => "no token that they are for is valid until then",
        };
        let message = self
            .failure
            .as_ref()
            .map(|reason| format!("keys cannot be fetched from {source}: {reason}; {meanwhile}"));
        self.wanted.by.iter().filter_map(move |(object, field)| {
            let message = message.clone()?;
            let finding = Diagnostic::warning(Code::MissingReference, field.clone(), message);
            Some(Diagnostic { object: Some(object.clone()), ..finding })
        })
    }
}

impl Keys {
    /// Knows nothing yet; keys are fetched again after `refresh`.
    pub fn new(fetcher: Fetcher, refresh: Duration) -> Self {
        let (known, asked, told) = Default::default();
        Self { fetcher, refresh, known, asked, told }
    }

    /// Follows what the mesh wants until the pipeline is gone. The first answers are awaited before
    /// the source counts as read, so that a control plane that starts anew refuses no valid token.
    pub async fn follow(mut self, mesh: Mesh, events: EventSender) {
        let mut rounds = mesh.rounds();
        if rounds.wait_for(|rounds| *rounds > 0).await.is_err() {
            return;
        }
        let patience = Instant::now() + FIRST;
        let (mut synced, mut news) = (false, Vec::new());
        let Ok(snapshot) = mesh.snapshot().await else { return };
        news.extend(self.want(&snapshot, Instant::now()));
        loop {
            self.ask_due(Instant::now());
            let heard = synced || self.asked.is_empty() || Instant::now() >= patience;
            let first = heard && !synced;
            synced |= heard;
            if !self.tell(mem::take(&mut news), first, &events).await {
                return;
            }
            let next =
                self.next().min(if synced { Instant::now() + self.refresh } else { patience });
            tokio::select! {
                changed = rounds.changed() => {
                    let Ok(snapshot) = mesh.snapshot().await else { return };
                    if changed.is_err() {
                        return;
                    }
                    news.extend(self.want(&snapshot, Instant::now()));
                }
                Some(answer) = self.asked.join_next() => {
                    news.extend(answer.ok().and_then(|answer| self.take(answer, Instant::now())));
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Takes in what is wanted now; what is wanted no more is forgotten.
    fn want(&mut self, snapshot: &MeshSnapshot, now: Instant) -> Vec<SourceChange> {
        let wanted = snapshot.wanted_key_sets();
        let (kept, gone) = mem::take(&mut self.known)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(source, _)| wanted.contains_key(source));
        self.known = kept;
        for (source, wanted) in wanted {
            match self.known.get_mut(&source) {
                Some(known) => known.wanted = wanted,
                None => drop(self.known.insert(source, Known::new(wanted, now))),
            }
        }
        let gone = gone.into_iter().filter(|(_, known)| known.keys.is_some());
        gone.map(|(source, _)| SourceChange::KeySet { source, keys: None }).collect()
    }

    /// Asks the sources whose time has come, a few at a time: those first whose namespace asks
    /// fewest, and of these the one that has waited longest.
    fn ask_due(&mut self, now: Instant) {
        let mut asking = self.asking();
        while self.asked.len() < AT_ONCE {
            let due = self.known.iter_mut().filter(|(_, k)| !k.asked && k.due <= now);
            let turn = due
                .filter_map(|(source, known)| Some((known.turn(&asking)?, source, known)))
                .min_by_key(|(turn, _, known)| (*turn, known.due));
            let Some((_, source, known)) = turn else { return };
            known.asked = true;
            known.count(&mut asking);
            let (fetcher, source) = (self.fetcher.clone(), source.clone());
            let limit = known.wanted.limit;
            self.asked.spawn(async move {
                let answer = fetcher.fetch(&source, limit).await;
                (source, answer)
            });
        }
    }

    /// How many sources are being asked for each namespace.
    fn asking(&self) -> Asking {
        let mut asking = Asking::new();
        for known in self.known.values().filter(|known| known.asked) {
            known.count(&mut asking);
        }
        asking
    }

    /// Takes an answer in; `None`: nobody wants it any more, or it says nothing new.
    fn take(&mut self, (source, answer): Answer, now: Instant) -> Option<SourceChange> {
        let known = self.known.get_mut(&source)?;
        match &answer {
            Ok(_) => {
                if let Some(failures) = known.told.worked(now.into_std()) {
                    tracing::info!(%source, failures, "keys of tokens can be fetched again");
                }
            }
            Err(error) => {
                if let Some(failures) = known.told.failed(error, now.into_std()) {
                    tracing::warn!(%source, %error, failures, "keys of tokens cannot be fetched");
                }
            }
        }
        let keys = known.take(answer, self.refresh, now)?;
        tracing::info!(%source, there = keys.is_some(), "keys of tokens changed");
        Some(SourceChange::KeySet { source, keys })
    }

    /// Tells the pipeline what is new; false: it is gone.
    async fn tell(
        &mut self,
        changes: Vec<SourceChange>,
        first: bool,
        events: &EventSender,
    ) -> bool {
        let findings = self.known.iter().flat_map(|(source, known)| known.findings(source));
        let findings: Vec<Diagnostic> = findings.collect();
        let diagnostics = (findings != self.told).then(|| findings.clone());
        self.told = findings;
        if changes.is_empty() && diagnostics.is_none() && !first {
            return true;
        }
        let event = ConfigEvent { source: SourceId::Keys, changes, diagnostics, synced: first };
        events.send(event).await.is_ok()
    }

    /// When the next source is due; far away if there is none, or if an answer must come first
    /// because no more are asked at once.
    fn next(&self) -> Instant {
        let full = self.asked.len() >= AT_ONCE;
        let asking = self.asking();
        let waiting = self.known.values().filter(|known| !known.asked && !full);
        let soonest = waiting.filter(|k| k.turn(&asking).is_some()).map(|known| known.due).min();
        soonest.unwrap_or_else(|| Instant::now() + self.refresh)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use ferromesh_xds_translator::{
        diagnostic::FieldPath,
        dialect::Kind,
        ir::{NoKeySet, ObjectId},
    };

    use super::*;

    const REFRESH: Duration = Duration::from_secs(1200);

    fn keys(k: &str) -> KeySet {
        KeySet::parse(&format!(r#"{{"keys":[{{"kty":"oct","k":"{k}"}}]}}"#)).expect("keys")
    }

    fn failed() -> Result<KeySet, FetchError> {
        Err(FetchError::Connect("a:443".into(), io::ErrorKind::ConnectionRefused.into()))
    }

    fn known(now: Instant) -> Known {
        let object = ObjectId {
            kind: Kind::REQUEST_AUTHENTICATION,
            namespace: "shop".into(),
            name: "a".into(),
        };
        let by = vec![(object, FieldPath::of("spec.jwtRules[0].jwksUri"))];
        Known::new(WantedKeys { limit: Duration::from_secs(5), by }, now)
    }

    #[test]
    fn keys_that_rotate_are_told_and_equal_ones_are_not() {
        let now = Instant::now();
        let mut known = known(now);
        assert_eq!(known.take(Ok(keys("a")), REFRESH, now), Some(Some(keys("a"))));
        assert_eq!(known.take(Ok(keys("a")), REFRESH, now), None);
        assert_eq!(known.due, now + REFRESH);
        assert_eq!(known.take(Ok(keys("b")), REFRESH, now), Some(Some(keys("b"))));
    }

    #[test]
    fn an_issuer_that_takes_its_keys_back_is_heard_at_once() {
        let now = Instant::now();
        let mut known = known(now);
        let withdrawn = || Err(FetchError::Keys("https://a/".into(), NoKeySet::NoKey));
        known.take(Ok(keys("a")), REFRESH, now);
        assert_eq!(known.take(withdrawn(), REFRESH, now), Some(None));
        assert_eq!(known.take(withdrawn(), REFRESH, now), None);
        let said: Vec<_> = known.findings(&KeySource::Url("https://a/".into())).collect();
        assert!(said[0].message.contains("no token"), "{}", said[0].message);
        assert_eq!(known.take(Ok(keys("b")), REFRESH, now), Some(Some(keys("b"))));
    }

    #[tokio::test]
    async fn sources_that_never_answer_hold_up_those_of_no_other_namespace() {
        let fetcher = Fetcher::new(Reachable::new(Vec::new()), &[]).expect("roots");
        let mut keys = Keys::new(fetcher, REFRESH);
        let now = Instant::now();
        let named = |namespace: &str, source: usize| {
            let mut known = known(now);
            known.wanted.by[0].0.namespace = namespace.into();
            (KeySource::Url(format!("http://{namespace}/{source}").into()), known)
        };
        keys.known.extend((0..2 * AT_ONCE).map(|source| named("evil", source)));
        keys.known.extend([named("shop", 0)]);
        keys.ask_due(now);
        let asked = |namespace: &str| keys.asking().get(namespace).copied().unwrap_or(0);
        assert_eq!((asked("evil"), asked("shop")), (AT_ONCE_PER_NAMESPACE, 1));
        // Whoever must wait for an answer wakes nobody before it.
        assert!(keys.next() > now + REFRESH / 2);
    }

    #[test]
    fn a_source_that_fails_is_asked_again_soon_and_its_keys_stay_for_a_week() {
        let now = Instant::now();
        let mut known = known(now);
        let source = KeySource::Url("https://a/".into());
        for wait in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(known.take(failed(), REFRESH, now), None);
            assert_eq!(known.due, now + Duration::from_secs(wait));
        }
        let said = |known: &Known| {
            let findings: Vec<_> = known.findings(&source).collect();
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].field.to_string(), "spec.jwtRules[0].jwksUri");
            findings[0].message.clone()
        };
        assert!(said(&known).contains("no token"), "{}", said(&known));
        known.take(Ok(keys("a")), REFRESH, now);
        assert_eq!(known.findings(&source).count(), 0);
        assert_eq!(known.take(failed(), REFRESH, now + UNCONFIRMED / 2), None);
        assert!(said(&known).contains("stay in force"), "{}", said(&known));
        assert_eq!(known.take(failed(), REFRESH, now + UNCONFIRMED), Some(None));
        assert_eq!(known.take(failed(), REFRESH, now + UNCONFIRMED), None);
    }
}
