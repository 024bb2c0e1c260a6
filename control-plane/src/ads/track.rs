//! One resource type on one stream: what the client has, as exceptions from what the views hold,
//! and what it is owed.
//!
//! Rule of memory: a client that is up to date costs its subscription and nothing else. Only names
//! whose state differs from the views are written down, by name and version; bodies stay with the
//! views (but for clusters whose removal is held back in a state-of-the-world list). Pure: no
//! clock, no transport.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::{
    EncodedResource, ResourceType, Version,
    resource::{Absence, ServedFrom},
};
use ferromesh_xds_translator::view::{Table, View, Walk};

use xxhash_rust::xxh3::Xxh3;

use super::subscription::{Change, Subscription};

/// Ticks after which an unanswered response no longer holds back the next one. Envoy holds its ACK
/// for up to 15 s while a cluster warms, so less would be wrong.
const ACK_PATIENCE: u8 = 20;

/// Overtaken responses whose answers are still heard.
const MOST_OVERTAKEN: usize = 4;

/// Which variant of the protocol a stream speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

impl Variant {
    /// As statuses call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sotw => "sotw",
            Self::Delta => "delta",
        }
    }
}

/// Everything that a stream could be sent: its views, and the secrets it may have.
#[derive(Clone, Copy)]
pub(super) struct ResourceSet<'a> {
    pub(super) views: &'a [Arc<View>],
    pub(super) secrets: &'a Table,
}

impl<'a> ResourceSet<'a> {
    /// The resource of this name; the first view that has it wins.
    pub(super) fn find(&self, kind: ResourceType, name: &str) -> Option<&'a Arc<EncodedResource>> {
        match kind.row().served_from {
            ServedFrom::Secrets => self.secrets.get(name),
            ServedFrom::Views => self.views.iter().find_map(|v| v.get(kind, name)),
        }
    }

    /// Every resource of a type, each name once.
    pub(super) fn all(self, kind: ResourceType) -> impl Iterator<Item = &'a Arc<EncodedResource>> {
        let secrets = (kind.row().served_from == ServedFrom::Secrets)
            .then_some(self.secrets)
            .into_iter()
            .flat_map(Table::values);
        let views = self.views.iter().enumerate().flat_map(move |(i, view)| {
            let earlier = &self.views[..i];
            view.tables[kind.index()]
                .values()
                .filter(move |r| earlier.iter().all(|v| v.get(kind, &r.name).is_none()))
        });
        secrets.chain(views)
    }

    /// Looks up names of a type that come in order.
    pub(super) fn walk(&self, kind: ResourceType) -> ResourceSetWalk<'a> {
        let tables = match kind.row().served_from {
            ServedFrom::Secrets => vec![self.secrets.walk()],
            ServedFrom::Views => {
                self.views.iter().map(|view| view.tables[kind.index()].walk()).collect()
            }
        };
        ResourceSetWalk(tables)
    }

    /// The shared texts of names, so that a subscription costs pointers; and those of them that are
    /// shared with nothing. Both are sorted.
    pub(super) fn intern(
        &self,
        kind: ResourceType,
        mut names: Vec<String>,
    ) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        names.sort_unstable();
        names.dedup();
        let (mut walk, mut strangers) = (self.walk(kind), Vec::new());
        let mut shared = |name: String| match walk.find(&name) {
            Some(resource) => resource.name.clone(),
            None => {
                let stranger: Arc<str> = name.into();
                strangers.push(stranger.clone());
                stranger
            }
        };
        let names = names.into_iter().map(&mut shared).collect();
        (names, strangers)
    }
}

/// A place among the resources of one type, which moves forward only.
pub(super) struct ResourceSetWalk<'a>(Vec<Walk<'a>>);

impl<'a> ResourceSetWalk<'a> {
    /// As [`ResourceSet::find`], for a name that is after all that were asked for.
    pub(super) fn find(&mut self, name: &str) -> Option<&'a Arc<EncodedResource>> {
        self.0.iter_mut().find_map(|table| table.find(name))
    }
}

/// A resource that a client brings from an earlier stream.
pub(super) struct ClientVersion {
    /// Its name, the same text as that of the views.
    pub(super) name: Arc<str>,
    /// The version that the client has.
    pub(super) version: Version,
    /// The version that it should have; `None`: there is no such resource.
    pub(super) current: Option<Version>,
}

/// What may go now (decided across types by `order`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MaySend {
    /// Changes that may refer to new resources of an earlier type.
    pub(super) makes: bool,
    /// Removals of what a later type may still refer to.
    pub(super) breaks: bool,
}

/// How what the client has differs from the views.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Todo {
    /// It asked by name: send it, or say that it does not exist.
    Asked,
    /// It has it, and needs it once more (endpoints after their cluster).
    Again,
    /// It has never had it.
    Lacks,
    /// It has this version.
    Has {
        version: Version,
        /// The body of a cluster whose removal waits, for lists of everything.
        retired: Option<Arc<EncodedResource>>,
    },
    /// It refused this version in that response.
    Refused { version: Version, response: u64 },
    /// It was in a refused response without being the reason; goes along with the next one.
    Uncertain,
}

/// A response without an answer yet.
#[derive(Debug)]
struct InFlight {
    number: u64,
    sent: Vec<(Arc<str>, Version)>,
    removed: Vec<Arc<str>>,
    /// It carries what the client lacked.
    makes: bool,
    /// What may refer to that waits for the answer.
    awaited: bool,
    age: u8,
}

impl InFlight {
    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sent.iter().map(|(name, _)| name).chain(&self.removed)
    }
}

/// What an acceptance says.
pub(super) struct Accepted {
    /// It answers the newest response of its type.
    pub(super) is_newest: bool,
    /// The client has something that it lacked.
    pub(super) makes: bool,
}

/// What a refusal is about; both lists may be empty, when all of it is on its way again.
pub(super) struct Blamed {
    /// What the client names, sorted; empty when it names none of several.
    pub(super) named: Vec<Arc<str>>,
    /// What it is taken to refuse: what it names, or else all that was sent.
    pub(super) suspects: Vec<Arc<str>>,
}

/// The content of a response that is to be sent.
pub(super) struct Draft {
    /// What the response carries. Names are unique.
    pub(super) resources: Vec<Arc<EncodedResource>>,
    /// Names that are gone; delta only.
    pub(super) removed: Vec<Arc<str>>,
    /// What of it is new or differs from what the client had, and whether it lacked it.
    pub(super) changed: Vec<(Arc<str>, bool)>,
    /// Version of everything of this type that the client may see.
    pub(super) version: Version,
}

/// State of one type on one stream.
#[derive(Debug)]
pub(super) struct Track {
    kind: ResourceType,
    variant: Variant,
    subscription: Subscription,
    /// A request of this type has come.
    seen: bool,
    /// The client has nothing but what `todo` says.
    whole: bool,
    /// The client waits for a response, even an empty one.
    answer_due: bool,
    todo: BTreeMap<Arc<str>, Todo>,
    /// Names whose newest answer was a refusal. A name leaves when the client accepts it, brings
    /// it, or it is gone; an answer about others says nothing about it.
    refused: BTreeSet<Arc<str>>,
    /// Responses that were overtaken without an answer, which may still come; oldest first.
    overtaken: Vec<InFlight>,
    in_flight: Option<InFlight>,
    /// Number of the newest response; 0 before the first.
    newest: u64,
    /// Sum over the versions of all visible resources; computed with the first response.
    digest: Option<u64>,
    /// Hash of the last list of names, so that an ACK that repeats a thousand of them costs no
    /// look-ups.
    named: u64,
}

/// What a change does to one name: the text to keep, what was visible, what is visible.
pub(super) struct Shift<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) old: Option<&'a Arc<EncodedResource>>,
    pub(super) new: Option<&'a Arc<EncodedResource>>,
}

impl Track {
    pub(super) fn new(kind: ResourceType, variant: Variant) -> Self {
        Self {
            kind,
            variant,
            subscription: Subscription::default(),
            seen: false,
            whole: false,
            answer_due: false,
            todo: BTreeMap::new(),
            refused: BTreeSet::new(),
            overtaken: Vec::new(),
            in_flight: None,
            newest: 0,
            digest: None,
            named: 0,
        }
    }

    /// Whether a state-of-the-world list is the one that the client sent last; remembers it.
    pub(super) fn repeats(&mut self, names: &[String]) -> bool {
        let mut hash = Xxh3::new();
        names.iter().for_each(|name| {
            hash.update(name.as_bytes());
            hash.update(&[0]);
        });
        // A list of one empty name differs from an empty list.
        let named = hash.digest() ^ names.len() as u64;
        self.seen && std::mem::replace(&mut self.named, named) == named
    }

    pub(super) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Names that are kept and that nothing is called that could be sent.
    pub(super) fn strangers(&self, set: &ResourceSet<'_>) -> impl Iterator<Item = &Arc<str>> {
        let (kind, subscription) = (self.kind, &self.subscription);
        let owed = self.todo.keys().filter(move |name| !subscription.names(name));
        let told = self.in_flight.iter().chain(&self.overtaken).flat_map(|f| &f.removed);
        let names = subscription.list().iter().chain(owed).chain(told);
        names.filter(move |name| set.find(kind, name).is_none())
    }

    /// Whether a request of this type has come.
    pub(super) fn is_seen(&self) -> bool {
        self.seen
    }

    /// Number of the newest response; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether a response waits for its answer, within patience.
    pub(super) fn awaits_answer(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|f| f.age < ACK_PATIENCE)
    }

    /// Whether resources that the client never had before are on their way.
    pub(super) fn makes_in_flight(&self) -> bool {
        self.awaits_answer() && self.in_flight.as_ref().is_some_and(|f| f.makes && f.awaited)
    }

    /// Whether the client has everything it should have, as far as can be known.
    pub(super) fn is_settled(&self) -> bool {
        !self.awaits_answer() && !self.whole && self.todo.is_empty()
    }

    /// Whether the client keeps an old state because it refused the new one.
    pub(super) fn has_refusals(&self) -> bool {
        self.todo.values().any(|t| matches!(t, Todo::Refused { .. }))
    }

    /// Whether something is owed, or was refused and may be owed once it changes.
    pub(super) fn owes(&self) -> bool {
        self.whole || !self.todo.is_empty()
    }

    /// Whether the client has something that is no longer there.
    pub(super) fn owes_removal(&self, set: &ResourceSet<'_>) -> bool {
        self.todo.iter().any(|(n, t)| {
            matches!(t, Todo::Has { .. } | Todo::Again) && set.find(self.kind, n).is_none()
        })
    }

    /// Lets a second pass; a response that stays unanswered too long stops blocking the next.
    pub(super) fn tick(&mut self) {
        if let Some(f) = &mut self.in_flight {
            f.age = f.age.saturating_add(1);
        }
    }

    /// New resources have waited long enough to be accepted.
    pub(super) fn forget_makes(&mut self) {
        if let Some(f) = &mut self.in_flight {
            f.awaited = false;
        }
    }

    /// Takes a state-of-the-world subscription. `fresh`: the request carries no nonce, so that the
    /// client is to be told everything, whatever it was told before.
    pub(super) fn replace(&mut self, names: Vec<Arc<str>>, fresh: bool, set: &ResourceSet<'_>) {
        let change = self.subscription.replace(self.kind, names);
        if fresh || !self.seen {
            self.seen = true;
            self.in_flight = None;
            self.todo.retain(|_, t| matches!(t, Todo::Has { retired: Some(_), .. }));
            self.whole = true;
            self.answer_due = self.lists_everything() && !self.subscription.is_empty();
            return;
        }
        self.follow(change, set);
    }

    /// Takes an incremental subscription. `brought`, sorted by name: what the client has from an
    /// earlier stream; only heard on the first request of a type. `owed`: what to send whatever
    /// version the client has.
    pub(super) fn adjust(
        &mut self,
        (subscribe, unsubscribe): (Vec<Arc<str>>, Vec<Arc<str>>),
        brought: Vec<ClientVersion>,
        owed: &BTreeSet<Arc<str>>,
        set: &ResourceSet<'_>,
    ) {
        let change = self.subscription.adjust(self.kind, subscribe, unsubscribe);
        if self.seen {
            return self.follow(change, set);
        }
        self.seen = true;
        self.answer_due = self.subscription.is_wildcard() && brought.is_empty();
        let brought = self.subscription.covered(brought, |resource| &resource.name);
        self.whole = !self.is_whole_of(&brought, set);
        for ClientVersion { name, version, current } in brought {
            if owed.contains(&name) {
                self.todo.insert(name, Todo::Again);
            } else {
                if current == Some(version) {
                    self.refused.remove(&name);
                }
                if self.whole || current != Some(version) {
                    self.todo.insert(name, Todo::Has { version, retired: None });
                }
            }
        }
        let mut walk = set.walk(self.kind);
        let absent = change.added.into_iter().filter(|name| walk.find(name).is_none());
        self.todo.extend(absent.map(|name| (name, Todo::Asked)));
    }

    /// Whether nothing that is subscribed is missing in what the client brought, whatever versions
    /// it has. When it comes back from a broken connection that is so, and its names need not be
    /// written down and looked up one by one.
    fn is_whole_of(&self, brought: &[ClientVersion], set: &ResourceSet<'_>) -> bool {
        let there = brought.iter().filter(|resource| resource.current.is_some()).count();
        match self.subscription.is_wildcard() {
            true => there == set.all(self.kind).count(),
            false => brought.len() == self.subscription.list().len(),
        }
    }

    /// Follows a change of the subscription after the first request.
    fn follow(&mut self, change: Change, set: &ResourceSet<'_>) {
        for name in change.removed {
            match (self.subscription.is_wildcard(), self.variant) {
                (false, _) => drop(self.todo.remove(&name)),
                // The client forgot the name; the wildcard still covers it, so it must be told what
                // holds.
                (true, Variant::Delta) => drop(self.todo.insert(name, Todo::Asked)),
                // Nothing changes for a client that has all of every list.
                (true, Variant::Sotw) => {}
            }
        }
        if change.wildcard_started {
            self.start_wildcard(set);
        } else if !self.subscription.is_wildcard() {
            let subscription = &self.subscription;
            self.todo.retain(|n, _| subscription.names(n));
        }
        for name in change.added {
            self.todo.insert(name, Todo::Asked);
        }
    }

    /// Everything is to be sent, except what was named before and so is known.
    fn start_wildcard(&mut self, set: &ResourceSet<'_>) {
        for name in self.subscription.list() {
            if let Some(r) = set.find(self.kind, name) {
                self.todo
                    .entry(name.clone())
                    .or_insert(Todo::Has { version: r.version, retired: None });
            }
        }
        self.whole = true;
        self.answer_due = true;
    }

    /// A resource became visible, changed or vanished.
    pub(super) fn shift(&mut self, shift: &Shift<'_>) {
        if let Some(digest) = &mut self.digest {
            *digest = digest.wrapping_sub(weigh(shift.old)).wrapping_add(weigh(shift.new));
        }
        if !self.seen || self.whole || !self.subscription.covers(shift.name) {
            return;
        }
        let held_back = self.lists_everything() && !self.kind.row().breaks_after.is_empty();
        let retired = if held_back && shift.new.is_none() { shift.old.cloned() } else { None };
        if shift.new.is_none()
            && let Some(Todo::Refused { response, .. }) = self.todo.get(shift.name)
        {
            let response = *response;
            self.try_again(|of| of == response);
        }
        match self.todo.get_mut(shift.name) {
            Some(Todo::Has { retired: slot, .. }) => *slot = retired,
            // Whether it has what went before is not known, but it surely lacks the new.
            Some(state @ Todo::Uncertain) if shift.new.is_some() => *state = Todo::Lacks,
            Some(Todo::Uncertain) | None => {
                let state = shift
                    .old
                    .map_or(Todo::Lacks, |old| Todo::Has { version: old.version, retired });
                self.todo.insert(shift.name.clone(), state);
            }
            Some(_) => {}
        }
    }

    /// Forgets that these responses were refused: some of one is gone, and should that come back
    /// unchanged, it is new; or the client has now what it lacked.
    pub(super) fn try_again(&mut self, meant: impl Fn(u64) -> bool) {
        for state in self.todo.values_mut() {
            if matches!(state, Todo::Refused { response, .. } if meant(*response)) {
                *state = Todo::Again;
            }
        }
    }

    /// The client needs this resource once more although it has it; `false` when it is not
    /// subscribed to it.
    pub(super) fn send_again(&mut self, name: &Arc<str>) -> bool {
        let covered = self.seen && self.subscription.covers(name);
        let owed_already = match self.todo.get(name) {
            Some(Todo::Asked | Todo::Lacks) => true,
            Some(_) => false,
            None => self.whole,
        };
        if covered && !owed_already {
            self.todo.insert(name.clone(), Todo::Again);
        }
        covered
    }

    /// The client accepted a response; `None` when it is none that waits for an answer.
    pub(super) fn accept(&mut self, number: u64) -> Option<Accepted> {
        let accepted = self.answered(number)?;
        for name in accepted.names() {
            self.refused.remove(name);
        }
        Some(Accepted { is_newest: self.newest == number, makes: accepted.makes })
    }

    /// The response that an answer is about, which it was still waited for: the one in flight, or
    /// one that was overtaken. Of the latter, what is on its way again is left out: the answer to
    /// that counts.
    fn answered(&mut self, number: u64) -> Option<InFlight> {
        if let Some(newest) = self.in_flight.take_if(|f| f.number == number) {
            return Some(newest);
        }
        let late = self.overtaken.iter().position(|f| f.number == number)?;
        let mut late = self.overtaken.remove(late);
        if let Some(newest) = &self.in_flight {
            late.sent.retain(|(name, _)| newest.names().all(|n| n != name));
            late.removed.retain(|name| newest.names().all(|n| n != name));
        }
        Some(late)
    }

    /// The client refused a response; `None` when it is none that waits for an answer.
    pub(super) fn refuse(&mut self, number: u64, message: &str) -> Option<Blamed> {
        let refused = self.answered(number)?;
        let named = blame(&refused.sent, message);
        let mut suspects = Vec::new();
        for (name, version) in refused.sent {
            let culprit = named.is_empty() || named.binary_search(&name).is_ok();
            if !self.subscription.covers(&name) {
                continue;
            }
            if culprit {
                self.refused.insert(name.clone());
                suspects.push(name.clone());
            }
            if self.todo.get(&name) == Some(&Todo::Asked) {
                continue;
            }
            self.todo.insert(
                name,
                if culprit { Todo::Refused { version, response: number } } else { Todo::Uncertain },
            );
        }
        for name in refused.removed {
            if self.subscription.covers(&name) {
                self.todo.entry(name).or_insert(Todo::Uncertain);
            }
        }
        Some(Blamed { named, suspects })
    }

    /// Takes over what the client refused on an earlier stream and may still refuse.
    pub(super) fn remember(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.refused.extend(names);
    }

    /// What the client refuses, sorted. What it no longer asks for and what is no longer there is
    /// forgotten, for neither will ever be answered.
    pub(super) fn outstanding(&mut self, set: &ResourceSet<'_>) -> impl Iterator<Item = &Arc<str>> {
        let (kind, seen, subscription) = (self.kind, self.seen, &self.subscription);
        self.refused
            .retain(|name| (!seen || subscription.covers(name)) && set.find(kind, name).is_some());
        self.refused.iter()
    }

    /// Whether [`Self::outstanding`] may have anything to say.
    pub(super) fn may_refuse(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The next response of this type, if there is one to send now. The caller numbers it by
    /// [`Self::sent`].
    pub(super) fn compose(
        &mut self,
        set: &ResourceSet<'_>,
        may_send: MaySend,
        number: u64,
    ) -> Option<Draft> {
        if !self.seen
            || self.awaits_answer()
            || (!self.whole && !self.answer_due && self.todo.is_empty())
        {
            return None;
        }
        let work = self.sort_out(set, may_send);
        let due = self.answer_due || work.answer_due;
        let nothing = work.send.is_empty() && work.remove.is_empty();
        if nothing && !due {
            self.todo.extend(work.along.into_iter().map(|(n, _)| (n, Todo::Uncertain)));
            self.whole = false;
            return None;
        }
        self.whole = false;
        self.answer_due = false;
        Some(self.send(work, set, number))
    }

    /// Splits what is owed into what goes now and what stays.
    fn sort_out(&mut self, set: &ResourceSet<'_>, may_send: MaySend) -> Work {
        let mut work = Work::default();
        if self.whole {
            let unknown = set
                .all(self.kind)
                .filter(|r| self.subscription.covers(&r.name) && !self.todo.contains_key(&r.name));
            work.send.extend(unknown.map(|r| (r.clone(), true)));
        }
        let todo = std::mem::take(&mut self.todo);
        let retried = retried_responses(&todo, self.kind, set);
        for (name, state) in todo {
            let target = set.find(self.kind, &name);
            match self.decide(&state, target, may_send, &retried) {
                Decision::Send { fresh } => work.send.extend(target.map(|r| (r.clone(), fresh))),
                Decision::Remove => work.remove.push(name),
                Decision::Along => work.along.push((name, target.cloned())),
                Decision::Answer => work.answer_due = true,
                Decision::Keep => drop(self.todo.insert(name, state)),
                Decision::Drop => {}
            }
        }
        work
    }

    fn decide(
        &self,
        state: &Todo,
        target: Option<&Arc<EncodedResource>>,
        may_send: MaySend,
        retried: &[u64],
    ) -> Decision {
        let remove = if may_send.breaks { self.removal() } else { Decision::Keep };
        let make = |fresh| if may_send.makes { Decision::Send { fresh } } else { Decision::Keep };
        match (state, target) {
            (Todo::Asked, Some(_)) => Decision::Send { fresh: true },
            (Todo::Asked, None) => self.absence(),
            (Todo::Again, Some(_)) => Decision::Send { fresh: false },
            (Todo::Lacks, Some(_)) => make(true),
            (Todo::Lacks, None) => Decision::Drop,
            (Todo::Has { version, .. }, Some(r)) if *version == r.version => Decision::Drop,
            (Todo::Has { .. }, Some(_)) => make(false),
            (Todo::Refused { response, .. }, _) if !retried.contains(response) => Decision::Keep,
            (Todo::Refused { .. }, Some(_)) => make(false),
            (Todo::Again | Todo::Has { .. } | Todo::Refused { .. }, None) => remove,
            (Todo::Uncertain, _) => Decision::Along,
        }
    }

    /// How a vanished resource is told: state-of-the-world lists imply it, other types leave it to
    /// the parent.
    fn removal(&self) -> Decision {
        let told = self.variant == Variant::Delta || self.lists_everything();
        if told && self.tells_removals() { Decision::Remove } else { Decision::Drop }
    }

    fn tells_removals(&self) -> bool {
        self.kind.row().absence != Absence::Untold
    }

    /// How an unknown name is answered.
    fn absence(&self) -> Decision {
        match self.variant {
            Variant::Delta if self.kind.row().absence == Absence::Told => Decision::Remove,
            Variant::Sotw if self.lists_everything() => Decision::Answer,
            _ => Decision::Drop,
        }
    }

    /// Whether every response lists all subscribed resources, so that absence means deletion.
    fn lists_everything(&self) -> bool {
        self.variant == Variant::Sotw && self.kind.wildcard_by_default()
    }

    fn send(&mut self, work: Work, set: &ResourceSet<'_>, number: u64) -> Draft {
        let mut changed = work.send;
        let mut lost = work.remove;
        for (name, target) in work.along {
            match target {
                Some(r) => changed.push((r, false)),
                None if self.tells_removals() => lost.push(name),
                None => {}
            }
        }
        let unanswered = self.in_flight.iter().flat_map(InFlight::names);
        let owed: BTreeSet<Arc<str>> = self.todo.keys().chain(unanswered).cloned().collect();
        let (resources, removed) = match (self.variant, self.lists_everything()) {
            (_, true) => (self.list(set), Vec::new()),
            (Variant::Delta, _) => (changed.iter().map(|(r, _)| r.clone()).collect(), lost),
            (Variant::Sotw, _) => (changed.iter().map(|(r, _)| r.clone()).collect(), Vec::new()),
        };
        self.newest = number;
        let mut sent: Vec<(Arc<str>, Version)> =
            changed.iter().map(|(r, _)| (r.name.clone(), r.version)).collect();
        if self.lists_everything() {
            // A whole list also brings what was to wait, and repeats what was refused: its answer
            // is about that too.
            let along = |name: &Arc<str>| owed.contains(name) || self.refused.contains(name);
            let along = resources
                .iter()
                .filter(|r| along(&r.name) && changed.iter().all(|(c, _)| c.name != r.name));
            sent.extend(along.map(|r| (r.name.clone(), r.version)));
        }
        let makes = changed.iter().any(|(_, fresh)| *fresh);
        let overtaken = self.in_flight.replace(InFlight {
            number,
            sent,
            removed: removed.clone(),
            makes,
            awaited: true,
            age: 0,
        });
        self.overtaken.extend(overtaken);
        if self.overtaken.len() > MOST_OVERTAKEN {
            self.overtaken.remove(0);
        }
        let version = self.version(set);
        Draft {
            resources,
            removed,
            changed: changed.into_iter().map(|(r, f)| (r.name.clone(), f)).collect(),
            version,
        }
    }

    /// Everything that is subscribed, and what is only removed later. Whatever was owed is settled
    /// by it.
    fn list(&mut self, set: &ResourceSet<'_>) -> Vec<Arc<EncodedResource>> {
        self.todo.retain(|name, t| {
            matches!(t, Todo::Has { retired: Some(_), .. }) && set.find(self.kind, name).is_none()
        });
        let visible = set.all(self.kind).filter(|r| self.subscription.covers(&r.name)).cloned();
        visible.chain(self.todo.values().filter_map(Todo::retired).cloned()).collect()
    }

    /// A content version: equal wherever the same resources are visible.
    pub(super) fn version(&mut self, set: &ResourceSet<'_>) -> Version {
        let sum = |sum: u64, r| sum.wrapping_add(weigh(Some(r)));
        let visible = *self.digest.get_or_insert_with(|| set.all(self.kind).fold(0, sum));
        Version(self.todo.values().filter_map(Todo::retired).fold(visible, sum))
    }
}

impl Todo {
    fn retired(&self) -> Option<&Arc<EncodedResource>> {
        match self {
            Self::Has { retired, .. } => retired.as_ref(),
            _ => None,
        }
    }
}

/// What a composition found to do.
#[derive(Default)]
struct Work {
    send: Vec<(Arc<EncodedResource>, bool)>,
    remove: Vec<Arc<str>>,
    along: Vec<(Arc<str>, Option<Arc<EncodedResource>>)>,
    answer_due: bool,
}

enum Decision {
    Send { fresh: bool },
    Remove,
    Along,
    Answer,
    Keep,
    Drop,
}

/// Refused responses of which some resource has changed since: all of what they carried is worth
/// another try, since a client may have taken none of it.
fn retried_responses(
    todo: &BTreeMap<Arc<str>, Todo>,
    kind: ResourceType,
    set: &ResourceSet<'_>,
) -> Vec<u64> {
    let changed = todo.iter().filter_map(|(name, state)| match state {
        Todo::Refused { version, response } => {
            (set.find(kind, name).map(|r| r.version) != Some(*version)).then_some(*response)
        }
        _ => None,
    });
    let mut responses: Vec<u64> = changed.collect();
    responses.sort_unstable();
    responses.dedup();
    responses
}

/// Spreads a version over 64 bits, so that sums of versions differ when the versions do.
fn weigh(resource: Option<&Arc<EncodedResource>>) -> u64 {
    resource.map_or(0, |r| {
        (r.version.0 ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
            | 1
    })
}

/// The sent resources that a message names; the only one sent is the reason without being named.
fn blame(sent: &[(Arc<str>, Version)], message: &str) -> Vec<Arc<str>> {
    if let [(only, _)] = sent {
        return vec![only.clone()];
    }
    let mut named: Vec<Arc<str>> =
        sent.iter().filter(|(n, _)| mentions(message, n)).map(|(n, _)| n.clone()).collect();
    named.sort_unstable();
    named
}

/// Whether `message` names `name` by itself, not as part of a longer name.
fn mentions(message: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '|' | '_' | '-' | '/');
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let before = message[..at].chars().next_back();
            let mut after = message[at + name.len()..].chars();
            let (next, second) = (after.next(), after.next());
            // A dot or colon ends a sentence or clause when nothing of a name follows it.
            let joined = matches!(next, Some('.' | ':')) && second.is_some_and(part);
            !before.is_some_and(|c| part(c) || c == '.') && !next.is_some_and(part) && !joined
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_blamed_only_when_it_stands_by_itself() {
        let table = [
            ("Error adding/updating cluster(s) c3: no", "c3", true),
            ("Error adding/updating cluster(s) c33: no", "c3", false),
            ("bad outbound|80||a.com.", "outbound|80||a.com", true),
            ("bad outbound|80||a.com.local", "outbound|80||a.com", false),
            ("bad outbound|80||a.com", "80", false),
            ("[resource index 0: cl: INVALID]", "cl", true),
            ("route 80: bad", "80", true),
            ("", "c", false),
            ("anything", "", false),
        ];
        for (message, name, expected) in table {
            assert_eq!(mentions(message, name), expected, "{name:?} in {message:?}");
        }
    }
}
