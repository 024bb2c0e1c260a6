//! What is known of one kind in the cluster, and what a word of its watch changes.
//!
//! What was seen last stays in force while a list is made anew, while the API server is away, and
//! while an object is broken; only an object that is deleted, or missing from a whole list, goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ferromesh_proto::recurring::Recurring;
use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{Kind, stand_in},
    ir::ObjectId,
};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::kinds::Watched;
use crate::{
    event::{SourceChange, SourceId},
    kube_cluster::status_cache::{ObservedStatus, StatusChange},
    secret::Secrets,
    source::{appeared, vanished},
};

/// What words of watches come to.
#[derive(Default, Debug)]
pub(super) struct News {
    /// For the pipeline.
    pub(super) changes: Vec<SourceChange>,
    /// For who writes statuses.
    pub(super) statuses: Vec<StatusChange>,
}

/// A word of a watch.
#[derive(Debug)]
pub(super) enum Step {
    /// A list begins; what it does not hold is gone when it ends.
    ListBegins,
    /// An object as it is now, in a list or because it changed.
    Seen(Value),
    /// The object is deleted.
    Deleted(Value),
    /// The list is complete.
    ListEnds,
    /// The cluster does not have the kind now.
    Absent,
    /// The cluster has not had the kind for long: its objects are gone.
    Gone,
    /// The API server cannot be asked.
    Failing(String),
    /// It can be asked again.
    Well,
}

/// The content of what stands in for a guard: none of its own, so that the first version that is
/// accepted is news.
const STANDS_IN: u64 = 0;

/// How far a watch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ListState {
    /// Nothing is known yet.
    Unknown,
    /// Everything that is there was seen.
    Listed,
    /// The cluster does not have the kind.
    Absent,
}

/// What is known of one kind.
pub(super) struct Known {
    watched: Watched,
    state: ListState,
    /// Objects that were seen, with the content that the pipeline was told last.
    told: BTreeMap<ObjectId, u64>,
    /// Objects of the list that is being made.
    listing: Option<BTreeSet<ObjectId>>,
    findings: BTreeMap<ObjectId, Vec<Diagnostic>>,
    trouble: Option<Diagnostic>,
    /// How often it could not, as far as that was logged.
    failing: Recurring,
}

impl Known {
    /// Nothing is known of `watched` yet.
    pub(super) fn new(watched: Watched) -> Self {
        Self {
            watched,
            state: ListState::Unknown,
            told: BTreeMap::new(),
            listing: None,
            findings: BTreeMap::new(),
            trouble: None,
            failing: Recurring::default(),
        }
    }

    /// Name of the kind.
    pub(super) fn kind_name(&self) -> &'static str {
        self.watched.resource.kind_name()
    }

    /// Whether everything was seen that is there.
    pub(super) fn listed(&self) -> bool {
        self.state == ListState::Listed
    }

    /// Whether nothing that is there is still to come.
    pub(super) fn settled(&self) -> bool {
        self.state != ListState::Unknown
    }

    /// What is wrong now.
    pub(super) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.trouble.iter().chain(self.findings.values().flatten())
    }

    /// Takes a word of the watch, and adds what it changes.
    pub(super) fn take(&mut self, step: Step, secrets: &Secrets, news: &mut News) {
        match step {
            Step::ListBegins => self.listing = Some(BTreeSet::new()),
            Step::Seen(value) => {
                self.trouble = None;
                self.seen(value, secrets, news);
            }
            Step::Deleted(value) => {
                if let Some(id) = self.watched.identify(&value) {
                    self.gone(&id, secrets, news);
                }
            }
            Step::ListEnds => {
                (self.trouble, self.state) = (None, ListState::Listed);
                if let Some(listed) = self.listing.take() {
                    let gone = |id: &&ObjectId| !listed.contains(*id);
                    let missing: BTreeSet<ObjectId> = self
                        .told
                        .keys()
                        .chain(self.findings.keys())
                        .filter(gone)
                        .cloned()
                        .collect();
                    missing.iter().for_each(|id| self.gone(id, secrets, news));
                }
            }
            Step::Absent => {
                self.state = ListState::Absent;
                self.trouble = Some(absent(self.watched.resource));
            }
            Step::Gone => {
                let all: Vec<ObjectId> =
                    self.told.keys().chain(self.findings.keys()).cloned().collect();
                all.iter().for_each(|id| self.gone(id, secrets, news));
            }
            Step::Failing(why) => {
                if let Some(failures) = self.failing.failed(&why, Instant::now()) {
                    let kind = self.kind_name();
                    tracing::warn!(kind, why, failures, "the API server cannot be asked");
                }
                self.trouble = Some(failing(self.watched.resource, &why));
            }
            Step::Well => {
                if let Some(failures) = self.failing.worked(Instant::now()) {
                    let kind = self.kind_name();
                    tracing::info!(kind, failures, "the API server can be asked again");
                }
                self.trouble = None;
            }
        }
    }

    fn seen(&mut self, mut value: Value, secrets: &Secrets, news: &mut News) {
        let Some(id) = self.watched.identify(&value) else { return };
        if let Some(listed) = &mut self.listing {
            listed.insert(id.clone());
        }
        if self.watched.has_our_status() {
            // What controllers, we among them, write about an object is no news of it.
            news.statuses.push((id.clone(), Some(ObservedStatus::take(&mut value))));
        }
        if !self.watched.matters(&value) {
            return self.gone(&id, secrets, news);
        }
        let content = fingerprint(&value);
        let same = self.told.get(&id) == Some(&content);
        let mended = self.findings.get(&id).is_some_and(|found| found.iter().any(is_error));
        if same && !mended {
            return;
        }
        let closed = match self.told.get(&id) {
            None | Some(&STANDS_IN) => stand_in::closed(&id, &value),
            Some(_) => None,
        };
        let read = self.watched.read(value).and_then(|(object, findings)| {
            let change = appeared(SourceId::Kubernetes, secrets, &object)
                .map_err(|finding| vec![*finding])?;
            Ok((change, findings))
        });
        let findings = match read {
            Ok((change, findings)) => {
                news.changes.extend((!same).then_some(change));
                self.told.insert(id.clone(), content);
                findings
            }
            // The last good version keeps serving; of a guard without one, closed doors.
            Err(findings) => {
                match closed {
                    Some(object) => {
                        tracing::error!(object = %id, "it guards access, is refused, and no version of it was accepted: it is in force closed");
                        self.told.insert(id.clone(), STANDS_IN);
                        news.changes.push(SourceChange::Upsert(object.into()));
                    }
                    // What it is now guards nothing.
                    None if self.told.get(&id) == Some(&STANDS_IN) => {
                        self.told.remove(&id);
                        news.changes.push(vanished(SourceId::Kubernetes, secrets, &id));
                    }
                    None => {}
                }
                findings.into_iter().map(|f| f.object(id.clone())).collect()
            }
        };
        if findings.is_empty() {
            self.findings.remove(&id)
        } else {
            self.findings.insert(id, findings)
        };
    }

    fn gone(&mut self, id: &ObjectId, secrets: &Secrets, news: &mut News) {
        if self.watched.has_our_status() {
            news.statuses.push((id.clone(), None));
        }
        self.findings.remove(id);
        if self.told.remove(id).is_some() {
            news.changes.push(vanished(SourceId::Kubernetes, secrets, id));
        }
    }
}

fn is_error(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
}

/// What an object says, its version in the store left out: a write that changes nothing else is no
/// news.
fn fingerprint(value: &Value) -> u64 {
    let mut value = value.clone();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    xxh3_64(value.to_string().as_bytes())
}

fn absent(kind: Kind) -> Diagnostic {
    let message =
        format!("the cluster has no {}.{}; it is looked for again", kind.plural(), kind.group());
    Diagnostic::info(Code::Unwatched, FieldPath::root(), message)
        .fix("ferromesh crds | kubectl apply --server-side -f -")
}

fn failing(kind: Kind, why: &str) -> Diagnostic {
    let message = format!(
        "{} of the cluster cannot be read: {why}; what was seen last keeps serving",
        kind.plural()
    );
    Diagnostic::warning(Code::Unwatched, FieldPath::root(), message)
        .fix("see that the API server can be reached and that list and watch are granted")
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::json;

    use super::{super::kinds::watched, *};

    fn kind(kind: Kind) -> Known {
        let watched = watched(&"istio-system".into()).into_iter().find(|w| w.resource == kind);
        Known::new(watched.expect("it is watched"))
    }

    fn service(name: &str, port: Value, version: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "shop", "resourceVersion": version },
            "spec": { "ports": [{ "name": "http", "port": port }] },
        })
    }

    /// Changes in words: `+name` and `-name`.
    fn words(known: &mut Known, steps: Vec<Step>) -> String {
        let (secrets, mut news) = (Secrets::default(), News::default());
        steps.into_iter().for_each(|step| known.take(step, &secrets, &mut news));
        let word = |change: &SourceChange| match change {
            SourceChange::Upsert(object) => format!("+{}", object.id.name),
            SourceChange::Delete(id) => format!("-{}", id.name),
            SourceChange::Credential { name, fact, .. } => {
                format!("{}{name}", if fact.is_some() { "+" } else { "-" })
            }
            SourceChange::Connection { .. } | SourceChange::Member { .. } => {
                unreachable!("streams tell of these")
            }
            SourceChange::KeySet { .. } => unreachable!("where keys are fetched"),
        };
        news.changes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn codes(known: &Known) -> Vec<Code> {
        known.diagnostics().map(|d| d.code).collect()
    }

    #[test]
    fn a_list_made_anew_forgets_only_what_is_missing_when_it_ends() {
        use Step::{ListBegins, ListEnds, Seen};
        let mut known = kind(Kind::SERVICE);
        let first = vec![
            ListBegins,
            Seen(service("a", json!(80), "1")),
            Seen(service("b", json!(80), "2")),
        ];
        assert_eq!(words(&mut known, first), "+a +b");
        assert!(!known.settled());
        assert_eq!(words(&mut known, vec![ListEnds]), "");
        assert!(known.settled() && known.listed());
        assert_eq!(words(&mut known, vec![ListBegins]), "");
        assert_eq!(words(&mut known, vec![Seen(service("b", json!(81), "7"))]), "+b");
        assert_eq!(words(&mut known, vec![ListEnds]), "-a");
    }

    #[test]
    fn a_write_that_changes_nothing_is_no_news() {
        use Step::Seen;
        let mut known = kind(Kind::SERVICE);
        assert_eq!(words(&mut known, vec![Seen(service("a", json!(80), "1"))]), "+a");
        assert_eq!(words(&mut known, vec![Seen(service("a", json!(80), "2"))]), "");
        assert_eq!(words(&mut known, vec![Seen(service("a", json!(81), "3"))]), "+a");
    }

    #[test]
    fn a_status_is_no_news_of_the_object_and_goes_to_who_writes_it() {
        let mut known = kind(Kind::VIRTUAL_SERVICE);
        let written = |status: Value| {
            Step::Seen(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": { "name": "a", "namespace": "shop", "generation": 3, "resourceVersion": status["n"] },
                "spec": { "hosts": ["a"], "http": [{ "route": [{ "destination": { "host": "a" } }] }] },
                "status": status,
            }))
        };
        let (secrets, mut news) = (Secrets::default(), News::default());
        known.take(written(json!({ "n": "1" })), &secrets, &mut news);
        known.take(written(json!({ "n": "2" })), &secrets, &mut news);
        assert_eq!(news.changes.len(), 1);
        let statuses: Vec<(i64, &Value)> = news
            .statuses
            .iter()
            .filter_map(|(_, observed)| observed.as_ref())
            .map(|h| (h.generation, &h.status))
            .collect();
        assert_eq!(statuses, [(3, &json!({ "n": "1" })), (3, &json!({ "n": "2" }))]);
        known.take(Step::Gone, &secrets, &mut news);
        assert_eq!(
            news.statuses.last().map(|(id, observed)| (&*id.name, observed)),
            Some(("a", &None))
        );
    }

    #[test]
    fn a_broken_object_keeps_its_last_good_version_and_is_reported_until_it_is_mended_or_gone() {
        use Step::{Deleted, Seen};
        let mut known = kind(Kind::SERVICE);
        let broken = || Seen(service("a", json!("eighty"), "2"));
        assert_eq!(words(&mut known, vec![Seen(service("a", json!(80), "1")), broken()]), "+a");
        assert_eq!(codes(&known).first(), Some(&Code::WrongType));
        assert_eq!(words(&mut known, vec![Seen(service("a", json!(80), "3"))]), "");
        assert_eq!(codes(&known), []);
        assert_eq!(
            words(&mut known, vec![broken(), Deleted(service("a", json!("eighty"), "4"))]),
            "-a"
        );
        assert_eq!(codes(&known), []);
    }

    #[test]
    fn a_guard_that_was_never_accepted_stands_in_closed() {
        use Step::{Deleted, Seen};
        let guard = |mode: &str, version: &str| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": { "name": "p", "namespace": "shop", "resourceVersion": version },
                "spec": { "mtls": { "mode": mode } },
            })
        };
        let mut known = kind(Kind::PEER_AUTHENTICATION);
        assert_eq!(words(&mut known, vec![Seen(guard("STRONG", "1"))]), "+p");
        assert_eq!(codes(&known).len(), 1);
        assert_eq!(words(&mut known, vec![Seen(guard("STRICT", "2"))]), "+p");
        assert_eq!(codes(&known), []);
        assert_eq!(words(&mut known, vec![Seen(guard("STRONG", "3"))]), "", "as it was accepted");
        assert_eq!(words(&mut known, vec![Deleted(guard("STRONG", "4"))]), "-p");
        let gone = vec![Seen(guard("STRONG", "5")), Deleted(guard("STRONG", "6"))];
        assert_eq!(words(&mut known, gone), "+p -p");
    }

    #[test]
    fn what_stands_in_goes_when_nothing_guards_any_more() {
        use Step::Seen;
        let policy = |action: &str| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": { "name": "p", "namespace": "shop" },
                "spec": { "action": action, "rulez": [] },
            })
        };
        let mut known = kind(Kind::AUTHORIZATION_POLICY);
        assert_eq!(words(&mut known, vec![Seen(policy("DENY"))]), "+p");
        assert_eq!(words(&mut known, vec![Seen(policy("AUDIT"))]), "-p");
        assert_eq!(words(&mut known, vec![Seen(policy("DENY"))]), "+p");
    }

    #[test]
    fn a_mesh_configuration_that_was_never_accepted_stands_in_as_far_as_it_can_be_read() {
        let map = |text: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio", "namespace": "istio-system" }, "data": { "mesh": text } });
        let mut known = kind(Kind::CONFIG_MAP);
        let (secrets, mut news) = (Secrets::default(), News::default());
        let broken = "trustDomain: corp\noutboundTrafficPolicy: {mode: REGISTRY";
        known.take(Step::Seen(map(broken)), &secrets, &mut news);
        let [SourceChange::Upsert(object)] = &news.changes[..] else { panic!("{news:?}") };
        let spec = &object.raw()["spec"];
        assert_eq!(spec["trustDomain"], "corp");
        assert_eq!(spec["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
        assert_eq!(codes(&known).len(), 1);
    }

    #[test]
    fn a_kind_that_is_absent_is_settled_and_loses_its_objects_only_when_it_is_gone() {
        use Step::{Absent, Failing, Gone, ListBegins, ListEnds, Seen, Well};
        let mut known = kind(Kind::SERVICE);
        assert_eq!(words(&mut known, vec![Absent]), "");
        assert!(known.settled() && !known.listed());
        assert_eq!(codes(&known), [Code::Unwatched]);
        assert_eq!(
            words(&mut known, vec![ListBegins, Seen(service("a", json!(80), "1")), ListEnds]),
            "+a"
        );
        assert_eq!(codes(&known), []);
        assert_eq!(words(&mut known, vec![Failing("refused".to_owned()), Absent]), "");
        assert_eq!(words(&mut known, vec![Gone]), "-a");
        assert_eq!(words(&mut known, vec![Failing("refused".to_owned()), Well]), "");
        assert_eq!(codes(&known), []);
    }

    #[test]
    fn failing_before_the_first_list_is_not_settled() {
        let mut known = kind(Kind::SECRET);
        assert_eq!(words(&mut known, vec![Step::Failing("secrets is forbidden".to_owned())]), "");
        assert!(!known.settled());
        let said: Vec<&str> = known.diagnostics().map(|d| d.message.as_str()).collect();
        assert!(said[0].contains("secrets is forbidden"), "{said:?}");
    }

    #[test]
    fn a_secret_that_is_no_credential_any_more_is_gone() {
        let mut known = kind(Kind::SECRET);
        let secret = |data: Value| {
            let mut secret = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "name": "web", "namespace": "shop" },
            });
            if !data.is_null() {
                secret["data"] = data;
            }
            Step::Seen(secret)
        };
        let pem = rcgen::generate_simple_self_signed(["web".to_owned()])
            .expect("a certificate")
            .cert
            .pem();
        let ca = json!({ "cacert": BASE64_STANDARD.encode(pem) });
        assert_eq!(words(&mut known, vec![secret(Value::Null)]), "");
        assert_eq!(
            words(&mut known, vec![secret(ca), secret(Value::Null), secret(Value::Null)]),
            "+web -web"
        );
    }

    #[test]
    fn an_unusable_secret_is_refused_without_its_content() {
        let mut known = kind(Kind::SECRET);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": "web", "namespace": "shop" },
            "data": { "tls.crt": "c2VjcmV0", "tls.key": "c2VjcmV0" },
        });
        assert_eq!(words(&mut known, vec![Step::Seen(secret)]), "");
        let said = known.diagnostics().map(ToString::to_string).collect::<String>();
        assert!(said.contains("web") && !said.contains("c2VjcmV0"), "{said}");
    }
}
