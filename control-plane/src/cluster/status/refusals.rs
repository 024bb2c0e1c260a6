//! What proxies of other replicas refuse. A replica knows its own proxies only, and the leader writes for all: so each other
//! replica tells what is refused there, below its name in the ConfigMap [`NAME`], and the leader reads it.
//!
//! Nothing is there while nothing is refused. A replica that is gone cannot take its words back: words that are not
//! repeated count no more after a while, and are removed later.

use std::{collections::BTreeMap, time::Duration};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Kind,
    ir::ObjectId,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::Writer;
use crate::status::Refused;

/// Name of the ConfigMap, in the root namespace.
const NAME: &str = "ferromesh-refusals";
/// How often words are repeated, and how long they count without.
const REPEAT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(90);
/// When words of a replica that says nothing more are removed.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(3);
/// What is refused together is told together.
const GATHER: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(4);
/// Objects, proxies and messages of one replica at most: a ConfigMap holds a megabyte.
const MOST: (usize, usize, usize) = (50, 10, 3);

/// What every object is refused for, and by whom.
pub(super) type ByObject = BTreeMap<ObjectId, Refused>;

/// The words of one replica.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Words {
    /// Rises with every repetition.
    round: u64,
    refused: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Entry {
    group: String,
    kind: String,
    namespace: String,
    name: String,
    proxies: Vec<String>,
    messages: Vec<String>,
}

impl Entry {
    fn new((id, refused): (ObjectId, Refused)) -> Self {
        Self {
            group: id.kind.group().to_owned(),
            kind: id.kind.kind_name().to_owned(),
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
            proxies: refused.proxies.into_iter().take(MOST.1).collect(),
            messages: refused
                .findings
                .into_iter()
                .take(MOST.2)
                .map(|f| f.message.chars().take(500).collect())
                .collect(),
        }
    }

    /// `None`: a kind that this version does not know.
    fn read(self) -> Option<(ObjectId, Refused)> {
        let kind = Kind::find(&self.group, &self.kind)?;
        let id = ObjectId { kind, namespace: self.namespace.into(), name: self.name.into() };
        let finding = |message| Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message).object(id.clone());
        let findings = self.messages.into_iter().map(finding).collect();
        let proxies = self.proxies.into_iter().collect();
        Some((id, Refused { proxies, findings }))
    }
}

/// Adds what is refused elsewhere.
pub(super) fn merge(all: &mut ByObject, more: &ByObject) {
    for (id, refused) in more {
        let entry = all.entry(id.clone()).or_default();
        entry.proxies.extend(refused.proxies.iter().cloned());
        for finding in &refused.findings {
            if !entry.findings.iter().any(|f| f.message == finding.message) {
                entry.findings.push(finding.clone());
            }
        }
    }
}

/// Tells what is refused here whenever another replica leads; until the election is over.
pub(super) async fn tell(writer: Writer, mut leads: watch::Receiver<bool>) {
    let (map, key) = (Map::of(&writer), key_of(&writer.instance));
    let mut complaints = writer.proxies.complaints();
    let (mut told, mut round) = (false, 0);
    loop {
        complaints.mark_unchanged();
        let leading = *leads.borrow_and_update();
        let refused = if leading { ByObject::new() } else { writer.proxies.refused() };
        if told || !refused.is_empty() {
            round += 1;
            let entries = refused.into_iter().take(MOST.0).map(Entry::new).collect::<Vec<_>>();
            let words = (!entries.is_empty()).then(|| json!(Words { round, refused: entries }).to_string());
            match map.write(&key, words.as_deref()).await {
                Ok(()) => told = words.is_some(),
                Err(error) => tracing::warn!(%error, "what proxies refuse here cannot be told to the leader"),
            }
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            changed = complaints.changed() => if changed.is_err() { return },
            () = sleep(REPEAT), if told => {}
        }
        sleep(GATHER).await;
    }
}

/// Keeps `others` up to date with what other replicas tell, as long as it is polled.
pub(super) async fn follow(writer: Writer, others: watch::Sender<ByObject>) {
    let (map, own) = (Map::of(&writer), key_of(&writer.instance));
    let mut listener = Listener::default();
    loop {
        match map.read().await {
            Ok(mut data) => {
                data.remove(&own);
                let forgotten = listener.hear(data, Instant::now());
                let heard = listener.refused(Instant::now());
                others.send_if_modified(|others| std::mem::replace(others, heard.clone()) != heard);
                for key in forgotten {
                    // Tried again at the next look if it fails.
                    let _ = map.write(&key, None).await;
                }
            }
            Err(error) => tracing::debug!(%error, "what other replicas tell cannot be read"),
        }
        sleep(LOOK).await;
    }
}

/// What replicas told, and since when they said nothing new.
#[derive(Default, Debug)]
struct Listener(BTreeMap<String, (String, Instant)>);

impl Listener {
    /// Takes in what stands there at `now`; the keys of those who have been silent for long.
    fn hear(&mut self, data: BTreeMap<String, String>, now: Instant) -> Vec<String> {
        let mut former = std::mem::take(&mut self.0);
        for (key, text) in data {
            let since = former.remove(&key).filter(|(old, _)| *old == text).map_or(now, |(_, since)| since);
            self.0.insert(key, (text, since));
        }
        let silent = self.0.iter().filter(|(_, (_, since))| now >= *since + FORGOTTEN);
        silent.map(|(key, _)| key.clone()).collect()
    }

    /// What counts at `now`. Words that cannot be read are another version's.
    fn refused(&self, now: Instant) -> ByObject {
        let mut all = ByObject::new();
        for (text, _) in self.0.values().filter(|(_, since)| now < *since + SILENCE) {
            let words: Words = serde_json::from_str(text).unwrap_or_default();
            merge(&mut all, &words.refused.into_iter().filter_map(Entry::read).collect());
        }
        all
    }
}

/// The ConfigMap.
struct Map(Api<ConfigMap>);

impl Map {
    fn of(writer: &Writer) -> Self {
        Self(Api::namespaced(writer.cluster.client(), &writer.root_namespace))
    }

    async fn read(&self) -> Result<BTreeMap<String, String>, Error> {
        let found = bounded(self.0.get_opt(NAME)).await?;
        Ok(found.and_then(|map| map.data).unwrap_or_default())
    }

    /// Writes one key, or removes it.
    async fn write(&self, key: &str, words: Option<&str>) -> Result<(), Error> {
        let change = Patch::Merge(json!({ "data": { key: words.map_or(Value::Null, Value::from) } }));
        match (bounded(self.0.patch(NAME, &PatchParams::default(), &change)).await, words) {
            (Err(Error::Api(status)), Some(words)) if status.code == 404 => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let data = Some(BTreeMap::from([(key.to_owned(), words.to_owned())]));
                let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                bounded(self.0.create(&PostParams::default(), &map)).await.map(drop)
            }
            (Err(Error::Api(status)), None) if status.code == 404 => Ok(()),
            (outcome, _) => outcome.map(drop),
        }
    }
}

async fn bounded<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::Service("no answer in time".into());
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

/// The replica's name as a key of a ConfigMap.
fn key_of(instance: &str) -> String {
    instance.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, proxies: &[&str], message: &str) -> ByObject {
        let id = ObjectId { kind: Kind::VirtualService, namespace: "shop".into(), name: name.into() };
        let finding = Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message).object(id.clone());
        let proxies = proxies.iter().map(|p| (*p).to_owned()).collect();
        BTreeMap::from([(id, Refused { proxies, findings: vec![finding] })])
    }

    fn told(round: u64, refused: ByObject) -> String {
        json!(Words { round, refused: refused.into_iter().map(Entry::new).collect() }).to_string()
    }

    #[test]
    fn what_replicas_tell_is_one_list() {
        let mut listener = Listener::default();
        let now = Instant::now();
        let data = [
            ("one", told(1, refused("a", &["x.shop"], "no"))),
            ("two", told(7, refused("a", &["y.shop"], "no"))),
            ("three", told(1, refused("b", &["x.shop"], "never"))),
            ("newer", "{\"format\":2}".to_owned()),
        ];
        let data = data.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
        assert_eq!(listener.hear(data, now), Vec::<String>::new());
        let mut expected = refused("a", &["x.shop", "y.shop"], "no");
        expected.extend(refused("b", &["x.shop"], "never"));
        assert_eq!(listener.refused(now), expected);
        listener.hear(BTreeMap::new(), now);
        assert_eq!(listener.refused(now), ByObject::new());
    }

    #[test]
    fn words_that_are_not_repeated_count_no_more_and_are_removed_later() {
        let mut listener = Listener::default();
        let start = Instant::now();
        let says = |round| BTreeMap::from([("one".to_owned(), told(round, refused("a", &["x.shop"], "no")))]);
        for (at, round, counts, removed) in [
            (0, 1, true, 0),
            (60, 1, true, 0),
            (89, 2, true, 0),
            (178, 2, true, 0),
            (179, 2, false, 0),
            (689, 2, false, 1),
        ] {
            let now = start + Duration::from_secs(at);
            assert_eq!(listener.hear(says(round), now).len(), removed, "at {at}");
            assert_eq!(!listener.refused(now).is_empty(), counts, "at {at}");
        }
    }

    #[test]
    fn keys_are_what_a_config_map_takes() {
        assert_eq!(key_of("ferromesh-6f9c-x.y"), "ferromesh-6f9c-x.y");
        assert_eq!(key_of("host name/1"), "host-name-1");
    }
}
