//! ConfigMaps by which replicas tell each other which proxies are connected to them: pages of text,
//! of which a replica holds as many as it needs, and none while it has nothing to say.
//!
//! Their names are counted ([`COUNT`]), so that a role can allow exactly these. Who holds a page
//! stands in it; a page is made by creating it, so that the API server decides who was first. A page
//! belongs to its replica's pod and goes with it. Where there is no pod, or its node is lost, the
//! page stays, and its beat, which rises with every repetition, stands still.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use futures_util::StreamExt;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Error, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use tokio::sync::watch;

use super::{KubeCluster, MANAGED_BY, OURS, Trouble, bounded, mirror::Mirror};

/// How many pages there can be; the chart's role names each.
pub const COUNT: usize = 16;
/// Longest text of a page, in bytes: a ConfigMap holds a megabyte.
pub const LARGEST: usize = 512 * 1024;
const PREFIX: &str = "ferromesh-connections-";
/// The label by which pages are found.
const LABEL: &str = "ferromesh.io/connections";
/// Annotations: who holds a page, and a number that rises while it lives.
const REPLICA: &str = "ferromesh.io/replica";
const BEAT: &str = "ferromesh.io/beat";
/// The key below which the text stands.
const KEY: &str = "connections";

/// A page of another replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Its beat.
    pub beat: String,
    /// What the replica says.
    pub text: String,
}

/// Pages of other replicas by name.
pub type PageMap = BTreeMap<String, Arc<Page>>;

/// What tells whether the holder of a page lives.
#[derive(Clone, PartialEq, Debug)]
pub struct PageMark {
    /// Its beat.
    pub beat: String,
    precondition: Preconditions,
}

#[cfg(test)]
impl PageMark {
    /// A mark that nothing is removed by.
    pub(crate) fn of_beat(beat: u64) -> Self {
        Self { beat: beat.to_string(), precondition: Preconditions::default() }
    }
}

/// The pages of other replicas. Cheap to clone.
#[derive(Clone)]
pub struct OtherPages {
    api: Api<ConfigMap>,
    instance: Arc<str>,
}

impl OtherPages {
    /// `instance`: the name of this replica, whose pages are left out.
    pub fn new(cluster: &KubeCluster, root_namespace: &str, instance: &str) -> Self {
        let api = Api::namespaced(cluster.client(), root_namespace);
        Self { api, instance: instance.into() }
    }

    /// Keeps `pages` up to date, from when all were listed once and as long as it is polled.
    pub async fn follow(self, pages: watch::Sender<Option<PageMap>>) {
        let labelled = watcher::Config::default().labels(LABEL);
        let mut events = pin!(watcher(self.api.clone(), labelled).default_backoff());
        let (mut seen, mut trouble) = (Mirror::default(), Trouble::default());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    trouble.over_with(&event);
                    seen.take(event, |map| (map.name_any(), self.read(map)));
                }
                Err(error) => {
                    trouble.tell("connections of other replicas cannot be watched", &error);
                    continue;
                }
            }
            if seen.listed() {
                let now = seen.iter().map(|(name, page)| (name.clone(), page.clone()));
                pages.send_replace(Some(now.collect()));
            }
        }
    }

    /// What stands on the pages now, but for their text.
    ///
    /// # Errors
    /// The API server refuses, or does not answer in time.
    pub async fn marks(&self) -> Result<BTreeMap<String, PageMark>, Error> {
        let labelled = ListParams::default().labels(LABEL);
        let found = bounded(self.api.list_metadata(&labelled)).await?;
        let others = found.items.into_iter().filter(|map| self.is_of_another(map));
        Ok(others.map(|map| (map.name_any(), mark(&map))).collect())
    }

    /// Removes a page that is still as it was when it was looked at.
    ///
    /// # Errors
    /// As [`Self::marks`].
    pub async fn remove(&self, name: &str, mark: &PageMark) -> Result<(), Error> {
        let preconditions = Some(mark.precondition.clone());
        let unchanged = DeleteParams { preconditions, ..DeleteParams::default() };
        bounded(self.api.delete(name, &unchanged)).await.map(drop)
    }

    fn is_of_another<K: Resource>(&self, map: &K) -> bool {
        number(&map.name_any()).is_some() && holder(map) != Some(&*self.instance)
    }

    fn read(&self, map: &ConfigMap) -> Option<Arc<Page>> {
        let text = map.data.as_ref()?.get(KEY)?.clone();
        self.is_of_another(map).then(|| Arc::new(Page { beat: mark(map).beat, text }))
    }
}

fn holder<K: Resource>(map: &K) -> Option<&str> {
    map.annotations().get(REPLICA).map(String::as_str)
}

fn mark<K: Resource>(map: &K) -> PageMark {
    let precondition = Preconditions { resource_version: map.resource_version(), uid: map.uid() };
    PageMark { beat: map.annotations().get(BEAT).cloned().unwrap_or_default(), precondition }
}

/// The number of a page by its name; `None`: no page has it.
fn number(name: &str) -> Option<usize> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (number < COUNT && name == name_of(number)).then_some(number)
}

fn name_of(number: usize) -> String {
    format!("{PREFIX}{number}")
}

/// The pages of this replica.
pub struct OwnPages {
    api: Api<ConfigMap>,
    pods: Api<Pod>,
    instance: String,
    owner: Option<OwnerReference>,
    /// What is held is known.
    begun: bool,
    held: Vec<HeldPage>,
    beat: u64,
}

struct HeldPage {
    number: usize,
    uid: Option<String>,
    text: String,
}

impl OwnPages {
    /// `instance`: the name of this replica; in a pod, the pod's.
    pub fn new(cluster: &KubeCluster, root_namespace: &str, instance: &str) -> Self {
        Self {
            api: Api::namespaced(cluster.client(), root_namespace),
            pods: Api::namespaced(cluster.client(), root_namespace),
            instance: instance.to_owned(),
            owner: None,
            begun: false,
            held: Vec::new(),
            beat: 0,
        }
    }

    /// Says `texts` on as many pages, in the place of what was said; what stands there already is
    /// said again only if `repeat`.
    ///
    /// # Errors
    /// The API server refuses, does not answer in time, or all pages are others'. Some of it may be
    /// said then; the next call looks what is.
    pub async fn write(&mut self, texts: &[String], repeat: bool) -> Result<(), Error> {
        let outcome = self.try_write(texts, repeat).await;
        self.begun = outcome.is_ok();
        outcome
    }

    async fn try_write(&mut self, texts: &[String], repeat: bool) -> Result<(), Error> {
        if !self.begun {
            self.begin().await?;
        }
        self.beat += 1;
        while self.held.len() > texts.len() {
            let Some(last) = self.held.pop() else { break };
            let preconditions = Some(Preconditions { resource_version: None, uid: last.uid });
            let ours = DeleteParams { preconditions, ..DeleteParams::default() };
            bounded(self.api.delete(&name_of(last.number), &ours)).await?;
        }
        for (at, text) in texts.iter().enumerate() {
            match self.held.get(at) {
                None => self.claim(text).await?,
                Some(held) if repeat || held.text != *text => self.replace(at, text).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Finds the pages of this replica, of an earlier life of it too.
    async fn begin(&mut self) -> Result<(), Error> {
        let pod = bounded(self.pods.get_opt(&self.instance)).await?;
        self.owner = pod.and_then(|pod| pod.owner_ref(&()));
        let labelled = ListParams::default().labels(LABEL);
        let found = bounded(self.api.list(&labelled)).await?;
        let own = found.items.into_iter().filter(|map| holder(map) == Some(self.instance.as_str()));
        let held = own.filter_map(|map| {
            let (number, uid) = (number(&map.name_any())?, map.uid());
            let beat: u64 = mark(&map).beat.parse().unwrap_or_default();
            let text = map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
            Some((beat, HeldPage { number, uid, text }))
        });
        let (beats, held): (Vec<u64>, Vec<HeldPage>) = held.unzip();
        // A beat that was seen before would say nothing.
        self.beat = beats.into_iter().fold(self.beat, u64::max);
        self.held = held;
        Ok(())
    }

    /// Takes the first page that nobody has.
    async fn claim(&mut self, text: &str) -> Result<(), Error> {
        for number in 0..COUNT {
            let map = self.page(number, None, text);
            match bounded(self.api.create(&PostParams::default(), &map)).await {
                Ok(made) => {
                    self.held.push(HeldPage { number, uid: made.uid(), text: text.to_owned() });
                    return Ok(());
                }
                Err(Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Service("every page is another replica's".into()))
    }

    /// Writes a page anew; one that is another's by now is refused, as its uid tells.
    async fn replace(&mut self, at: usize, text: &str) -> Result<(), Error> {
        let HeldPage { number, uid, .. } = &self.held[at];
        let map = self.page(*number, uid.clone(), text);
        let name = name_of(*number);
        bounded(self.api.replace(&name, &PostParams::default(), &map)).await?;
        text.clone_into(&mut self.held[at].text);
        Ok(())
    }

    fn page(&self, number: usize, uid: Option<String>, text: &str) -> ConfigMap {
        let pairs = |pairs: [(&str, &str); 2]| {
            Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
        };
        let beat = self.beat.to_string();
        let metadata = ObjectMeta {
            name: Some(name_of(number)),
            uid,
            labels: pairs([(MANAGED_BY, OURS), (LABEL, "true")]),
            annotations: pairs([(REPLICA, self.instance.as_str()), (BEAT, beat.as_str())]),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let data = Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())]));
        ConfigMap { metadata, data, ..ConfigMap::default() }
    }
}

#[cfg(test)]
mod tests;
