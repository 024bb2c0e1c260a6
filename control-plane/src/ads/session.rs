//! One ADS stream as a pure state machine: requests, view changes and secrets go in, responses come
//! out.
//!
//! State of the world and delta share it: a [`Track`] per type knows what the client has and is
//! owed, `order` decides what may go, and `sotw` and `delta` only translate to and from the wire.
//! No runtime, no transport, no clock: the caller asks for the next response whenever it has room
//! for one (so that whatever happens in between folds into it) and calls [`Session::tick`] once a
//! second while [`Session::wants_ticks`].

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::{EncodedResource, ResourceType, Version};
use ferromesh_xds_translator::view::{Table, View};

pub use super::track::Variant;
use super::{
    order::{Gates, Tracks},
    track::{ClientVersion, ResourceSet, Shift, Track},
};
use crate::nack::Nack;

/// Names that one stream may be subscribed to, per type; a mesh of ten thousand services needs a
/// tenth of it.
const MAX_NAMES: usize = 100_000;
/// Types that Ferromesh does not serve and a client may still ask for on one stream.
const MAX_FOREIGN_TYPES: usize = 32;
/// Longest part of a client's error message that is kept, in bytes.
const MAX_MESSAGE: usize = 4096;
/// What a name costs beside its text: the places that it stands in.
const PER_NAME: usize = 64;

/// Why a stream must be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// An ADS request must name its type.
    #[error("type_url is required on an aggregated stream")]
    MissingType,
    /// More names than any proxy needs.
    #[error("more than {MAX_NAMES} resource names of type {0} on one stream")]
    TooManyNames(&'static str),
    /// More foreign types than any proxy has.
    #[error("more than {MAX_FOREIGN_TYPES} resource types that this server does not know")]
    TooManyTypes,
}

/// What a client said about a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It runs it.
    Accepted(ResourceType),
    /// It refused it, at least in part, and keeps what it had.
    Refused(Nack),
}

/// A response to send, before it is encoded for a variant.
#[derive(Clone, PartialEq, Debug)]
pub struct Response {
    /// The type, or the URL of a type that is not served (then the response is empty).
    pub kind: Result<ResourceType, Arc<str>>,
    /// Version of everything of this type that the client may see.
    pub version: Version,
    /// Unique on this stream, and different from those of any other stream of this process.
    pub nonce: String,
    /// Names are unique.
    pub resources: Vec<Arc<EncodedResource>>,
    /// Names that do not exist (any more); delta only; unique, and disjoint from `resources`.
    pub removed: Vec<Arc<str>>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    stream: u64,
    views: Vec<Arc<View>>,
    secrets: Table,
    pub(super) tracks: Tracks,
    pub(super) gates: Gates,
    /// Number of the last response of any type.
    numbered: u64,
    foreign: Vec<Arc<str>>,
    /// Empty answers to requests for types that are not served.
    foreign_answers: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Nothing has happened since the last time there was nothing to send.
    quiet: bool,
    /// Bytes of names that no view has, as they were counted last, and of those that have come
    /// since.
    strangers: usize,
}

impl Session {
    /// A stream without requests yet. `stream` tells its nonces from those of other streams; of two
    /// views with the same resource, the first counts.
    pub fn new(stream: u64, variant: Variant, views: Vec<Arc<View>>) -> Self {
        Self {
            stream,
            views,
            secrets: Table::new(),
            tracks: ResourceType::ALL.map(|kind| Track::new(kind, variant)),
            gates: Gates::default(),
            numbered: 0,
            foreign: Vec::new(),
            foreign_answers: Vec::new(),
            quiet: true,
            strangers: 0,
        }
    }

    /// Takes a newer state of one of the stream's views; any other view is ignored.
    pub fn on_view(&mut self, view: Arc<View>) {
        let Some(slot) = self.views.iter().position(|v| v.key == view.key) else { return };
        let mut views = self.views.clone();
        views[slot] = view;
        self.on_views(views);
    }

    /// Takes the views that the stream gets from now on, in order of precedence.
    pub fn on_views(&mut self, views: Vec<Arc<View>>) {
        let old = std::mem::replace(&mut self.views, views);
        let mut names = changed_names(&old, &self.views);
        names.sort_unstable();
        names.dedup();
        let (before, after) = (
            ResourceSet { views: &old, secrets: &self.secrets },
            ResourceSet { views: &self.views, secrets: &self.secrets },
        );
        for (kind, name) in names {
            let (old, new) = (before.find(kind, &name), after.find(kind, &name));
            if old.map(|r| r.version) != new.map(|r| r.version) {
                self.tracks[kind.index()].shift(&Shift { name: &name, old, new });
                self.quiet = false;
            }
        }
        // Nobody will ask for the endpoints of a cluster that is gone.
        for (kind, awaited) in ResourceType::ALL.into_iter().zip(&mut self.gates.awaited) {
            awaited.retain(|name| after.find(kind, name).is_some());
        }
    }

    /// Takes a secret that the stream may have, or takes it away.
    pub fn on_secret(&mut self, name: &Arc<str>, secret: Option<Arc<EncodedResource>>) {
        let old = match secret.clone() {
            Some(s) => self.secrets.insert(name.clone(), s),
            None => self.secrets.remove(name),
        };
        if old.as_ref().map(|r| r.version) != secret.as_ref().map(|r| r.version) {
            let shift = Shift { name, old: old.as_ref(), new: secret.as_ref() };
            self.tracks[ResourceType::Secret.index()].shift(&shift);
            self.quiet = false;
        }
    }

    /// Names of the secrets that the client asks for, sorted.
    pub fn secret_names(&self) -> &[Arc<str>] {
        self.tracks[ResourceType::Secret.index()].subscription().list()
    }

    /// The next response, in push order; `None` when nothing is owed, or nothing may go before the
    /// client answers.
    pub fn next_response(&mut self) -> Option<Response> {
        if self.quiet {
            return None;
        }
        if let Some((url, removed)) = self.foreign_answers.pop() {
            let nonce = self.number();
            return Some(Response {
                kind: Err(url),
                version: Version(0),
                nonce,
                resources: vec![],
                removed,
            });
        }
        // The second round: a type found to owe nothing may open a gate for an earlier one.
        let response = ResourceType::ALL
            .into_iter()
            .chain(ResourceType::ALL)
            .find_map(|kind| self.compose(kind));
        self.quiet = response.is_none();
        response
    }

    fn compose(&mut self, kind: ResourceType) -> Option<Response> {
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        let may_send = self.gates.may_send(kind, &self.tracks, &set);
        let draft = self.tracks[kind.index()].compose(&set, may_send, self.numbered + 1)?;
        let nonce = self.number();
        if let Some(follower) = kind.row().followed_by {
            draft.changed.iter().for_each(|(name, fresh)| self.follow(follower, name, *fresh));
        }
        Some(Response {
            kind: Ok(kind),
            version: draft.version,
            nonce,
            resources: draft.resources,
            removed: draft.removed,
        })
    }

    /// A new or changed cluster warms until its endpoints come, even if they are unchanged: send
    /// them right after it, or expect the client to ask.
    fn follow(&mut self, follower: ResourceType, name: &Arc<str>, fresh: bool) {
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        let Some(resource) = set.find(follower, name) else { return };
        let track = &mut self.tracks[follower.index()];
        if !track.send_again(&resource.name) && (fresh || !track.is_seen()) {
            self.gates.awaited[follower.index()].insert(resource.name.clone());
        }
    }

    /// Counts a response; its nonce.
    fn number(&mut self) -> String {
        self.numbered += 1;
        self.nonce(self.numbered)
    }

    fn nonce(&self, number: u64) -> String {
        format!("{:x}-{number:x}", self.stream)
    }

    /// Whether the client has accepted everything that it was to be sent.
    pub fn is_settled(&self) -> bool {
        self.tracks.iter().all(Track::is_settled)
    }

    /// The types that the client asked for and has the newest of, with the version of what it has.
    pub fn settled_types(&mut self) -> Vec<(ResourceType, Version)> {
        let settled = |kind: &ResourceType| {
            let track = &self.tracks[kind.index()];
            track.is_settled() && !track.subscription().is_empty()
        };
        let kinds: Vec<ResourceType> = ResourceType::ALL.into_iter().filter(settled).collect();
        kinds
            .into_iter()
            .map(|kind| (kind, self.with_track(kind, |track, _, set| track.version(set))))
            .collect()
    }

    /// Whether [`Self::tick`] should be called.
    pub fn wants_ticks(&self) -> bool {
        self.gates
            .wants_ticks(&self.tracks, &ResourceSet { views: &self.views, secrets: &self.secrets })
    }

    /// A second has passed.
    pub fn tick(&mut self) {
        self.gates
            .tick(&mut self.tracks, &ResourceSet { views: &self.views, secrets: &self.secrets });
        self.quiet = false;
    }

    /// Something arrived: look again for what can be sent.
    pub(super) fn wake(&mut self) {
        self.quiet = false;
    }

    /// The response that a nonce names, if it is of this stream.
    pub(super) fn number_of(&self, nonce: &str) -> Option<u64> {
        let number = u64::from_str_radix(nonce.split_once('-')?.1, 16).ok()?;
        (self.nonce(number) == nonce).then_some(number)
    }

    /// Takes an ACK or a NACK; `None` when it does not answer the response in flight.
    pub(super) fn judge(
        &mut self,
        kind: ResourceType,
        number: u64,
        error: Option<String>,
        mut version: String,
    ) -> Option<Verdict> {
        let track = &mut self.tracks[kind.index()];
        let Some(mut message) = error else {
            let accepted = track.accept(number)?;
            if accepted.makes {
                self.send_dependents_again(kind);
            }
            return accepted.is_newest.then_some(Verdict::Accepted(kind));
        };
        truncate(&mut message);
        truncate(&mut version);
        let blamed = track.refuse(number, &message)?;
        if let Some(follower) = kind.row().followed_by {
            // Nobody knows which of them it has, so that it may never ask for their endpoints.
            self.gates.awaited[follower.index()].clear();
        }
        let (resources, suspects) = (blamed.named, blamed.suspects);
        Some(Verdict::Refused(Nack {
            kind,
            resources,
            suspects,
            message,
            accepted_version: version,
        }))
    }

    /// Dependents give up waiting for new resources after a while, and are refused by a client that
    /// does not have those yet: once it has, they go again.
    fn send_dependents_again(&mut self, kind: ResourceType) {
        for dependent in ResourceType::ALL {
            if dependent.row().makes_after.contains(&kind) {
                self.tracks[dependent.index()].try_again(|_| true);
            }
        }
        self.wake();
    }

    /// Takes over what the client refused on an earlier stream: it still does, until it accepts or
    /// brings it.
    pub fn remember(&mut self, refused: &BTreeSet<(ResourceType, Arc<str>)>) {
        for (kind, name) in refused {
            self.tracks[kind.index()].remember([name.clone()]);
        }
    }

    /// Everything that the client refused and has not accepted since, as far as it is still there.
    pub fn outstanding(&mut self) -> BTreeSet<(ResourceType, Arc<str>)> {
        if !self.tracks.iter().any(Track::may_refuse) {
            return BTreeSet::new();
        }
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        let of = |(kind, track): (ResourceType, &mut Track)| {
            track.outstanding(&set).map(|name| (kind, name.clone())).collect::<Vec<_>>()
        };
        ResourceType::ALL.into_iter().zip(&mut self.tracks).flat_map(of).collect()
    }

    /// What a client says it has, beside what it should have; sorted by name.
    pub(super) fn compare(
        &self,
        kind: ResourceType,
        mut versions: Vec<(String, Version)>,
    ) -> Vec<ClientVersion> {
        versions.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut walk = ResourceSet { views: &self.views, secrets: &self.secrets }.walk(kind);
        let compare = |(name, version): (String, Version)| match walk.find(&name) {
            Some(resource) => ClientVersion {
                name: resource.name.clone(),
                version,
                current: Some(resource.version),
            },
            None => ClientVersion { name: name.into(), version, current: None },
        };
        versions.into_iter().map(compare).collect()
    }

    /// Shares the texts of names with the views; sorted.
    pub(super) fn intern(&mut self, kind: ResourceType, names: Vec<String>) -> Vec<Arc<str>> {
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        let (names, strangers) = set.intern(kind, names);
        self.note_strangers(&strangers);
        names
    }

    /// Names have come that no view has.
    pub(super) fn note_strangers<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        self.strangers += names.into_iter().map(|name| cost(name)).sum::<usize>();
    }

    /// Bytes of names that are kept for this stream alone, since no view has them: at most so many.
    pub fn strangers(&self) -> usize {
        self.strangers
    }

    /// As [`Self::strangers`], counted anew.
    pub fn count_strangers(&mut self) -> usize {
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        let of_tracks = self.tracks.iter().flat_map(|track| track.strangers(&set));
        let answers = self.foreign_answers.iter().flat_map(|(_, names)| names);
        let all = of_tracks.chain(answers).chain(&self.foreign);
        self.strangers = all.map(|name| cost(name)).sum();
        self.strangers
    }

    /// Lets a track follow its client, with what the stream could be sent at hand.
    pub(super) fn with_track<T>(
        &mut self,
        kind: ResourceType,
        f: impl FnOnce(&mut Track, &Gates, &ResourceSet<'_>) -> T,
    ) -> T {
        let set = ResourceSet { views: &self.views, secrets: &self.secrets };
        f(&mut self.tracks[kind.index()], &self.gates, &set)
    }

    /// Refuses subscriptions beyond any need.
    pub(super) fn limit(&self, kind: ResourceType, more: usize) -> Result<(), Fault> {
        let total = self.tracks[kind.index()].subscription().list().len() + more;
        if total > MAX_NAMES { Err(Fault::TooManyNames(kind.short_name())) } else { Ok(()) }
    }

    /// A request for a type that is not served: answered once with nothing, or with "does not
    /// exist", so that the client need not wait, and otherwise left alone.
    pub(super) fn on_foreign(
        &mut self,
        url: String,
        names: Vec<String>,
        answers: bool,
    ) -> Result<(), Fault> {
        if url.is_empty() {
            return Err(Fault::MissingType);
        }
        let known = self.foreign.iter().find(|u| u.as_ref() == url).cloned();
        if answers || (known.is_some() && names.is_empty()) {
            return Ok(());
        }
        if known.is_none() && self.foreign.len() >= MAX_FOREIGN_TYPES {
            return Err(Fault::TooManyTypes);
        }
        let url = known.unwrap_or_else(|| {
            let url: Arc<str> = url.into();
            self.foreign.push(url.clone());
            url
        });
        let mut removed: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
        removed.sort_unstable();
        removed.dedup();
        self.note_strangers(removed.iter().chain([&url]));
        self.foreign_answers.retain(|(u, _)| *u != url);
        self.foreign_answers.push((url, removed));
        self.quiet = false;
        Ok(())
    }
}

/// What a name costs that nothing else has.
fn cost(name: &str) -> usize {
    name.len() + PER_NAME
}

/// Names that may differ between two sets of views: from the change log where it reaches back, else
/// by comparison.
fn changed_names(old: &[Arc<View>], new: &[Arc<View>]) -> Vec<(ResourceType, Arc<str>)> {
    let mut names = Vec::new();
    for view in new {
        let before = old.iter().find(|v| v.key == view.key);
        match before.map(|b| (b, view.changes_since(b.generation))) {
            Some((_, Some(changes))) => names.extend(changes.flat_map(|c| c.names.iter().cloned())),
            Some((b, None)) => differences(Some(b), Some(view), &mut names),
            None => differences(None, Some(view), &mut names),
        }
    }
    for view in old.iter().filter(|v| new.iter().all(|n| n.key != v.key)) {
        differences(Some(view), None, &mut names);
    }
    names
}

fn differences(
    old: Option<&Arc<View>>,
    new: Option<&Arc<View>>,
    names: &mut Vec<(ResourceType, Arc<str>)>,
) {
    for kind in ResourceType::ALL {
        let table =
            |v: Option<&Arc<View>>| v.map(|v| v.tables[kind.index()].clone()).unwrap_or_default();
        let (old, new) = (table(old), table(new));
        if Arc::ptr_eq(&old, &new) {
            continue;
        }
        names.extend(
            new.iter()
                .filter(|(n, r)| old.get(n).is_none_or(|o| o.version != r.version))
                .map(|(n, _)| (kind, n.clone())),
        );
        names.extend(old.keys().filter(|n| !new.contains_key(n)).map(|n| (kind, n.clone())));
    }
}

fn truncate(message: &mut String) {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
        message.truncate(end);
    }
}
