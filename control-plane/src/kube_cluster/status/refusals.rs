//! What proxies of other replicas refuse. A replica knows its own proxies only, and the leader
//! writes for all: so each other replica tells what is refused there, below its name in the
//! ConfigMap [`NAME`], and the leader reads it.
//!
//! Nothing is there while nothing is refused. A replica that is gone cannot take its words back:
//! words that are not repeated count no more after a while, and are removed later.

use std::{collections::BTreeMap, time::Duration};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Kind,
    ir::ObjectId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    kube_cluster::{Trouble, replica_map::ReplicaMap},
    status::{ObjectRefusal, Proxies},
};

/// Name of the ConfigMap, in the root namespace.
pub(super) const NAME: &str = "ferromesh-refusals";
/// How often words are repeated, and how long they count without.
const REPEAT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(90);
/// When words of a replica that says nothing more are removed.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(3);
/// What is refused together is told together.
const GATHER: Duration = Duration::from_millis(300);
/// Objects, proxies and messages of one replica at most: a ConfigMap holds a megabyte.
const MOST: (usize, usize, usize) = (50, 10, 3);

/// What every object is refused for, and by whom.
pub(super) type ByObject = BTreeMap<ObjectId, ObjectRefusal>;

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
    fn new((id, refused): (ObjectId, ObjectRefusal)) -> Self {
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
    fn read(self) -> Option<(ObjectId, ObjectRefusal)> {
        let kind = Kind::find(&self.group, &self.kind)?;
        let id = ObjectId { kind, namespace: self.namespace.into(), name: self.name.into() };
        let finding = |message| {
            Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message).object(id.clone())
        };
        let findings = self.messages.into_iter().map(finding).collect();
        let proxies = self.proxies.into_iter().collect();
        Some((id, ObjectRefusal { proxies, findings }))
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
pub(super) async fn tell(map: ReplicaMap, proxies: &Proxies, mut leads: watch::Receiver<bool>) {
    let mut complaints = proxies.complaints();
    let (mut told, mut round, mut trouble) = (false, 0, Trouble::default());
    loop {
        complaints.mark_unchanged();
        let leading = *leads.borrow_and_update();
        let refused = if leading { ByObject::new() } else { proxies.refused() };
        if told || !refused.is_empty() {
            round += 1;
            let entries = refused.into_iter().take(MOST.0).map(Entry::new).collect::<Vec<_>>();
            let words =
                (!entries.is_empty()).then(|| json!(Words { round, refused: entries }).to_string());
            match map.write(words.as_deref()).await {
                Ok(()) => {
                    trouble.over();
                    told = words.is_some();
                }
                Err(error) => {
                    trouble.tell("what proxies refuse here cannot be told to the leader", &error);
                }
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
pub(super) async fn follow(map: ReplicaMap, others: watch::Sender<ByObject>) {
    let mut listener = Listener::default();
    loop {
        match map.others().await {
            Ok(data) => {
                let forgotten = listener.hear(data, Instant::now());
                let heard = listener.refused(Instant::now());
                others.send_if_modified(|others| std::mem::replace(others, heard.clone()) != heard);
                for key in forgotten {
                    // Tried again at the next look if it fails.
                    let _ = map.remove(&key).await;
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
            let since =
                former.remove(&key).filter(|(old, _)| *old == text).map_or(now, |(_, since)| since);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, proxies: &[&str], message: &str) -> ByObject {
        let id =
            ObjectId { kind: Kind::VIRTUAL_SERVICE, namespace: "shop".into(), name: name.into() };
        let finding =
            Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message).object(id.clone());
        let proxies = proxies.iter().map(|p| (*p).to_owned()).collect();
        BTreeMap::from([(id, ObjectRefusal { proxies, findings: vec![finding] })])
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
        let says = |round| {
            BTreeMap::from([("one".to_owned(), told(round, refused("a", &["x.shop"], "no")))])
        };
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
}
