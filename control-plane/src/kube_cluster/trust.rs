//! The mesh's roots in every namespace, where proxies mount them before they know anybody:
//! ConfigMap `istio-ca-root-cert`, as Istio publishes it. The leader writes; new namespaces get
//! theirs at once, and what somebody changes is repaired.
//!
//! A live istiod publishes its own root under the same name ([`istiod`]). Its proxies would lose
//! their mesh, so nothing is written while it lives, unless the operator says so.

mod istiod;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use ferromesh_cert_authority::TrustBundle;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{KubeCluster, MANAGED_BY, OURS, Trouble, leader, mirror::Mirror, said};
use crate::metrics::Metrics;

/// Name of the ConfigMap: Istio's, which every injected pod mounts.
pub const CONFIG_MAP: &str = "istio-ca-root-cert";
/// The key below which the roots stand.
const KEY: &str = "root-cert.pem";
/// The label by which Istio's tools know such ConfigMaps.
const ISTIO: (&str, &str) = ("istio.io/config", "true");
/// Writes at a time.
const AT_A_TIME: usize = 8;
/// How long one write may take: less than the time in which a leader that has stepped down may
/// still be heard.
const WRITE: Duration = Duration::from_secs(3);
/// First and longest pause before a namespace is written again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How often a live istiod is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Whether a ConfigMap was published by a control plane of ours.
pub fn is_ours(map: &ConfigMap) -> bool {
    map.labels().get(MANAGED_BY).is_some_and(|by| by == OURS)
}

/// Keeps the roots of `bundle` in every namespace whenever this replica leads, until the election
/// is over.
pub async fn publish(
    cluster: KubeCluster,
    root_namespace: Arc<str>,
    take_over: bool,
    bundle: watch::Receiver<Arc<TrustBundle>>,
    leads: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) {
    let work = || {
        let (cluster, root_namespace, metrics) =
            (cluster.clone(), root_namespace.clone(), metrics.clone());
        let publisher = Publisher {
            cluster,
            root_namespace,
            take_over,
            metrics,
            namespaces: Mirror::default(),
            maps: Mirror::default(),
            pauses: BTreeMap::new(),
            istiod: None,
            trouble: Trouble::default(),
        };
        publisher.run(bundle.clone())
    };
    leader::while_leading(leads, work).await;
}

/// The roots as they are to stand everywhere.
struct Wanted {
    pem: String,
    digest: u64,
}

/// What a ConfigMap holds, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PublishedRoot {
    digest: u64,
    labelled: bool,
}

/// When a namespace was written last, and how long it is left alone after that.
struct Pause {
    written: Instant,
    length: Duration,
}

struct Publisher {
    cluster: KubeCluster,
    root_namespace: Arc<str>,
    take_over: bool,
    metrics: Arc<Metrics>,
    /// Those that do not end.
    namespaces: Mirror<()>,
    maps: Mirror<PublishedRoot>,
    pauses: BTreeMap<String, Pause>,
    /// What was found out about an istiod, and when.
    istiod: Option<(Instant, Option<String>)>,
    /// Writes that failed.
    trouble: Trouble,
}

impl Publisher {
    async fn run(mut self, mut bundle: watch::Receiver<Arc<TrustBundle>>) {
        let all: Api<PartialObjectMeta<Namespace>> = Api::all(self.cluster.client());
        let maps: Api<ConfigMap> = Api::all(self.cluster.client());
        let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let mut namespace_events = pin!(watcher(all, watcher::Config::default()).default_backoff());
        let mut map_events = pin!(watcher(maps, only).default_backoff());
        let mut wanted = Wanted::new(&bundle.borrow_and_update());
        let (mut again, mut of_namespaces, mut of_maps) =
            (None, Trouble::default(), Trouble::default());
        loop {
            tokio::select! {
                Some(event) = namespace_events.next() => match event {
                    Ok(event) => {
                        of_namespaces.over_with(&event);
                        self.namespaces.take(event, namespace);
                    }
                    Err(error) => of_namespaces.tell("namespaces cannot be watched, trying again", &error),
                },
                Some(event) = map_events.next() => match event {
                    Ok(event) => {
                        of_maps.over_with(&event);
                        self.maps.take(event, held);
                    }
                    Err(error) => of_maps.tell("published roots cannot be watched, trying again", &error),
                },
                changed = bundle.changed() => match changed {
                    Ok(()) => wanted = Wanted::new(&bundle.borrow_and_update()),
                    Err(_) => return,
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            if self.namespaces.listed() && self.maps.listed() {
                again = self.write(&wanted).await;
            }
        }
    }

    /// Writes what is out of step; returns when to try again what could not be written.
    async fn write(&mut self, wanted: &Wanted) -> Option<Instant> {
        let missing = self.out_of_step(wanted);
        self.show(missing.len(), 0);
        if missing.is_empty() {
            self.trouble.over();
            return None;
        }
        if !self.take_over
            && let Some(until) = self.withhold(missing.len()).await
        {
            return Some(until);
        }
        let now = Instant::now();
        let due: Vec<String> =
            missing.iter().filter(|ns| self.pause_of(ns, now) <= now).cloned().collect();
        let client = self.cluster.client();
        let writes = due.into_iter().map(|ns| {
            let maps = Api::namespaced(client.clone(), &ns);
            async move { (apply(&maps, wanted).await, ns) }
        });
        let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(AT_A_TIME).collect().await;
        for (outcome, namespace) in outcomes {
            if outcome.is_ok() {
                // The watch will say so, too: later.
                self.maps.set(namespace.clone(), wanted.held());
            }
            self.pause(namespace, outcome);
        }
        let left = self.out_of_step(wanted);
        self.show(left.len(), 0);
        if left.is_empty() {
            self.trouble.over();
        }
        left.iter().map(|ns| self.pause_of(ns, now)).min()
    }

    /// The namespaces that do not hold the roots as they should.
    fn out_of_step(&self, wanted: &Wanted) -> Vec<String> {
        let right = wanted.held();
        let missing =
            self.namespaces.iter().filter(|(name, ())| self.maps.get(name) != Some(&right));
        missing.map(|(name, ())| name.clone()).collect()
    }

    /// Until when nothing is written because an istiod lives; `None`: none does.
    async fn withhold(&mut self, missing: usize) -> Option<Instant> {
        let fresh = self.istiod.as_ref().filter(|(when, _)| when.elapsed() < LOOK_AGAIN);
        let found = match fresh {
            Some((_, found)) => found.clone(),
            None => {
                let found = istiod::sign_of_life(&self.cluster, &self.root_namespace).await;
                self.tell(found.as_deref());
                self.istiod = Some((Instant::now(), found.clone()));
                found
            }
        };
        found?;
        self.show(missing, missing);
        self.istiod.as_ref().map(|(when, _)| *when + LOOK_AGAIN)
    }

    /// Says so once when an istiod appears or goes.
    fn tell(&self, found: Option<&str>) {
        let before = self.istiod.as_ref().and_then(|(_, found)| found.as_deref());
        match (before.is_some(), found) {
            (false, Some(sign)) => tracing::error!(
                sign,
                "a live istiod owns ConfigMap {CONFIG_MAP}: the mesh's root is not published, and injected pods will not trust this \
                 control plane; remove istiod, or give --take-over-roots to replace its root in every namespace"
            ),
            (true, None) => tracing::info!("istiod is gone: publishing the mesh's root"),
            _ => {}
        }
    }

    /// Until when a namespace is left alone; `now` if it is not.
    fn pause_of(&self, namespace: &str, now: Instant) -> Instant {
        self.pauses.get(namespace).map_or(now, |p| p.written + p.length)
    }

    /// Takes note of a write. A namespace that must be written again and again, because writing
    /// fails or somebody else writes, is left alone for longer each time.
    fn pause(&mut self, namespace: String, outcome: Result<(), String>) {
        let now = Instant::now();
        let lately = self.pauses.get(&namespace).filter(|p| p.written + 2 * PAUSES.1 > now);
        let length = lately.map_or(PAUSES.0, |p| (p.length * 2).min(PAUSES.1));
        match outcome {
            Ok(()) if length > 4 * PAUSES.0 => {
                tracing::warn!(namespace, "somebody else keeps changing ConfigMap {CONFIG_MAP}");
            }
            Ok(()) => tracing::info!(namespace, "the mesh's root is published"),
            Err(why) => {
                let why = format!("{namespace}: {why}");
                self.trouble.tell_why("the mesh's root cannot be published, trying again", &why);
            }
        }
        self.pauses.retain(|name, _| self.namespaces.get(name).is_some());
        self.pauses.insert(namespace, Pause { written: now, length });
    }

    fn show(&self, missing: usize, withheld: usize) {
        let all = self.namespaces.iter().count();
        self.metrics.roots_published.set(i64::try_from(all - missing).unwrap_or(i64::MAX));
        self.metrics.roots_withheld.set(i64::try_from(withheld).unwrap_or(i64::MAX));
    }
}

impl Drop for Publisher {
    /// Another replica knows now.
    fn drop(&mut self) {
        self.metrics.roots_published.set(0);
        self.metrics.roots_withheld.set(0);
    }
}

impl Wanted {
    fn new(bundle: &TrustBundle) -> Self {
        let pem = bundle.pem();
        Self { digest: xxh3_64(pem.as_bytes()), pem }
    }

    fn held(&self) -> PublishedRoot {
        PublishedRoot { digest: self.digest, labelled: true }
    }
}

/// A namespace by its name; one that ends takes nothing any more.
fn namespace(namespace: &PartialObjectMeta<Namespace>) -> (String, Option<()>) {
    let ends = namespace.metadata.deletion_timestamp.is_some();
    (namespace.name_any(), (!ends).then_some(()))
}

/// A published ConfigMap by its namespace.
fn held(map: &ConfigMap) -> (String, Option<PublishedRoot>) {
    let pem = map.data.as_ref().and_then(|data| data.get(KEY)).map_or("", String::as_str);
    let labelled = is_ours(map) && map.labels().get(ISTIO.0).is_some_and(|value| value == ISTIO.1);
    (
        map.namespace().unwrap_or_default(),
        Some(PublishedRoot { digest: xxh3_64(pem.as_bytes()), labelled }),
    )
}

/// Makes the ConfigMap say what it should. Further keys of others stay.
async fn apply(maps: &Api<ConfigMap>, wanted: &Wanted) -> Result<(), String> {
    let labels: BTreeMap<String, String> =
        [(MANAGED_BY, OURS), ISTIO].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let metadata = ObjectMeta {
        name: Some(CONFIG_MAP.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    let data = Some([(KEY.to_owned(), wanted.pem.clone())].into());
    let map = ConfigMap { metadata, data, ..ConfigMap::default() };
    let parameters = PatchParams::apply(OURS).force();
    let patch = Patch::Apply(&map);
    match timeout(WRITE, maps.patch(CONFIG_MAP, &parameters, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pem: &str, labels: &[(&str, &str)]) -> ConfigMap {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let namespace = Some("shop".to_owned());
        let metadata = ObjectMeta { namespace, labels: Some(labels), ..ObjectMeta::default() };
        ConfigMap {
            metadata,
            data: Some([(KEY.to_owned(), pem.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_map_is_right_only_with_the_roots_and_both_labels() {
        let wanted = Wanted { pem: "roots".to_owned(), digest: xxh3_64(b"roots") };
        let check = |map: ConfigMap, expected: bool| {
            let (namespace, held) = held(&map);
            assert_eq!(
                (namespace.as_str(), held == Some(wanted.held())),
                ("shop", expected),
                "{map:?}"
            );
        };
        let ours = [(MANAGED_BY, OURS), ISTIO];
        check(map("roots", &ours), true);
        check(map("roots", &[ours[0], ISTIO, ("more", "labels")]), true);
        check(map("others", &ours), false);
        check(map("roots", &[ISTIO]), false);
        check(map("roots", &ours[..1]), false);
        check(map("roots", &[(MANAGED_BY, "Helm"), ISTIO]), false);
        check(ConfigMap { data: None, ..map("roots", &ours) }, false);
    }
}
