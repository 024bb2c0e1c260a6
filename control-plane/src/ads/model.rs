//! Random lives of a stream against a simple client: whatever happens, the client ends with what
//! the views say, and on the way it is never sent a name twice in one response, a name it did not
//! ask for, or a second unanswered response of a type; and what it refuses is known from the
//! refusal until it accepts that resource or it is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::{
    EncodedResource, ResourceType, Version,
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Status},
};
use proptest::prelude::*;

use super::{Response, Session, Variant, fixture::Draft};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KINDS: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// A resource gets a version, or goes.
    Edit(usize, usize, Option<u64>),
    /// The client asks for a name, or for everything.
    Subscribe(usize, Option<usize>),
    /// It drops a name.
    Unsubscribe(usize, usize),
    /// It answers the oldest response of a type: accepts it, or refuses it without taking any of
    /// it.
    Answer(usize, bool),
    /// It answers with a nonce that is not the newest.
    Stale(usize),
    /// The connection breaks; the client comes back with what it has.
    Reconnect,
    /// Seconds pass.
    Tick(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let kind = 0..KINDS.len();
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (kind.clone(), name.clone(), prop::option::weighted(0.8, 1..4_u64)).prop_map(|(k, n, v)| Event::Edit(k, n, v)),
        3 => (kind.clone(), prop::option::weighted(0.9, name.clone())).prop_map(|(k, n)| Event::Subscribe(k, n)),
        1 => (kind.clone(), name).prop_map(|(k, n)| Event::Unsubscribe(k, n)),
        6 => (kind.clone(), prop::bool::weighted(0.85)).prop_map(|(k, ok)| Event::Answer(k, ok)),
        1 => kind.prop_map(Event::Stale),
        1 => Just(Event::Reconnect),
        1 => (0..25_u8).prop_map(Event::Tick),
    ]
}

/// A client as the protocol describes it.
#[derive(Default)]
struct Client {
    wildcard: [bool; 5],
    asked: [bool; 5],
    names: [BTreeSet<String>; 5],
    /// What it runs.
    has: [BTreeMap<String, Version>; 5],
    /// What it refused and has not accepted since.
    refused: [BTreeSet<String>; 5],
    /// The same, with what it ran already and refused along with the rest of a response.
    complained: [BTreeSet<String>; 5],
    /// Responses that it has not answered.
    unanswered: [Vec<Response>; 5],
}

struct Life {
    variant: Variant,
    streams: u64,
    session: Session,
    world: Draft,
    client: Client,
}

impl Life {
    fn new(variant: Variant) -> Self {
        let world = Draft::new("shop");
        let session = Session::new(1, variant, vec![world.publish()]);
        let mut life = Self { variant, streams: 1, session, world, client: Client::default() };
        life.start();
        life
    }

    /// The client's first requests: everything of CDS and LDS, and the names it has.
    fn start(&mut self) {
        for kind in KINDS {
            let i = kind.index();
            self.client.wildcard[i] |=
                kind.wildcard_by_default() && self.client.names[i].is_empty();
            self.client.asked[i] = true;
            self.request(kind, None, None, (self.client.names[i].clone(), BTreeSet::new()), true);
        }
    }

    fn request(
        &mut self,
        kind: ResourceType,
        nonce: Option<&str>,
        error: Option<&str>,
        (subscribe, unsubscribe): (BTreeSet<String>, BTreeSet<String>),
        first: bool,
    ) {
        let i = kind.index();
        let error_detail = error.map(|m| Status { code: 3, message: m.to_owned() });
        let response_nonce = nonce.unwrap_or_default().to_owned();
        let type_url = kind.type_url().to_owned();
        let outcome = match self.variant {
            Variant::Delta => {
                let mut subscribe: Vec<String> = subscribe.into_iter().collect();
                if first && self.client.wildcard[i] && !subscribe.is_empty() {
                    subscribe.push("*".to_owned());
                }
                let known = self.client.has[i]
                    .iter()
                    .filter(|_| first)
                    .map(|(n, v)| (n.clone(), v.to_string()));
                self.session.on_delta(DeltaDiscoveryRequest {
                    type_url,
                    response_nonce,
                    error_detail,
                    initial_resource_versions: known.collect(),
                    resource_names_subscribe: subscribe,
                    resource_names_unsubscribe: unsubscribe.into_iter().collect(),
                    ..Default::default()
                })
            }
            Variant::Sotw => {
                let mut names: Vec<String> = self.client.names[i].iter().cloned().collect();
                if self.client.wildcard[i] && !names.is_empty() {
                    names.push("*".to_owned());
                }
                self.session.on_sotw(DiscoveryRequest {
                    type_url,
                    response_nonce,
                    error_detail,
                    resource_names: names,
                    ..Default::default()
                })
            }
        };
        outcome.expect("requests in order");
        self.drain();
    }

    /// Receives whatever the server has to say.
    fn drain(&mut self) {
        while let Some(response) = self.session.next_response() {
            self.receive(response);
        }
    }

    fn receive(&mut self, response: Response) {
        let kind = response.kind.clone().expect("a type of ours");
        let i = kind.index();
        let mut seen = BTreeSet::new();
        let names = response.resources.iter().map(|r| &r.name).chain(&response.removed);
        for name in names {
            assert!(seen.insert(name.clone()), "{name} twice in one {kind:?} response");
        }
        for r in &response.resources {
            // A list of everything may hold what was dropped in the same breath; nothing else may
            // be unasked for.
            assert!(self.client.wants(i, &r.name), "{kind:?} {} was not asked for", r.name);
        }
        self.client.unanswered[i].push(response);
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Edit(kind, name, version) => {
                self.world.edit(&[(KINDS[*kind], NAMES[*name], *version)]);
                self.session.on_view(self.world.publish());
                self.drain();
            }
            Event::Subscribe(kind, name) => self.subscribe(KINDS[*kind], *name),
            Event::Unsubscribe(kind, name) => self.unsubscribe(KINDS[*kind], NAMES[*name]),
            Event::Answer(kind, accept) => self.answer(KINDS[*kind], *accept),
            Event::Stale(kind) => {
                self.request(KINDS[*kind], Some("1-fff"), None, Default::default(), false)
            }
            Event::Reconnect => self.reconnect(),
            Event::Tick(n) => {
                (0..*n).for_each(|_| self.session.tick());
                self.drain();
            }
        }
    }

    /// In state of the world, names may only change together with the newest nonce.
    fn subscribe(&mut self, kind: ResourceType, name: Option<usize>) {
        let i = kind.index();
        let text = name.map_or("*", |n| NAMES[n]).to_owned();
        if self.variant == Variant::Sotw {
            return self.change_list(kind, |client| match text.as_str() {
                "*" => {
                    client.wildcard[i] |= kind.wildcard_by_default() && !client.names[i].is_empty()
                }
                _ => drop(client.names[i].insert(text.clone())),
            });
        }
        if text == "*" {
            self.client.wildcard[i] |= kind.wildcard_by_default();
        } else {
            self.client.names[i].insert(text.clone());
        }
        if text != "*" || kind.wildcard_by_default() {
            self.request(kind, None, None, (BTreeSet::from([text]), BTreeSet::new()), false);
        }
    }

    fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        let i = kind.index();
        if !self.client.names[i].contains(name)
            || (self.variant == Variant::Sotw && self.client.names[i].len() == 1)
        {
            return;
        }
        if self.variant == Variant::Sotw {
            // What a wildcard still covers is in every list, so it is not forgotten.
            return self.change_list(kind, |client| drop(client.names[i].take(name)));
        }
        self.client.forget(i, name);
        self.request(kind, None, None, (BTreeSet::new(), BTreeSet::from([name.to_owned()])), false);
    }

    fn change_list(&mut self, kind: ResourceType, change: impl FnOnce(&mut Client)) {
        let i = kind.index();
        let Some(newest) = self.client.unanswered[i].last().map(|r| r.nonce.clone()) else {
            return;
        };
        // It answers with the new list, so it takes what it was sent first.
        let responses = std::mem::take(&mut self.client.unanswered[i]);
        responses.into_iter().for_each(|r| self.client.apply(i, &r, self.variant));
        change(&mut self.client);
        if !self.client.wildcard[i] || kind.wildcard_by_default() {
            self.client.keep_wanted(i);
        }
        self.request(kind, Some(&newest), None, Default::default(), false);
    }

    fn answer(&mut self, kind: ResourceType, accept: bool) {
        let i = kind.index();
        if self.client.unanswered[i].is_empty() {
            return;
        }
        let response = self.client.unanswered[i].remove(0);
        // Nobody refuses to be told that something is gone.
        let accept = accept || response.resources.is_empty();
        if accept {
            self.client.apply(i, &response, self.variant);
        } else {
            self.client.refuse(i, &response);
        }
        let error = (!accept).then_some("refused for no named reason");
        self.request(kind, Some(&response.nonce), error, Default::default(), false);
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        let refused = self.session.outstanding();
        self.session = Session::new(self.streams, self.variant, vec![self.world.publish()]);
        self.session.remember(&refused);
        self.client.unanswered = Default::default();
        let view = self.world.publish();
        for kind in KINDS.into_iter().filter(|_| self.variant == Variant::Delta) {
            // What it brings as it should be, it runs.
            let (has, i) = (&self.client.has[kind.index()], kind.index());
            let runs =
                |name: &String| has.get(name).copied() == view.get(kind, name).map(|r| r.version);
            self.client.refused[i].retain(|name| !runs(name));
        }
        self.start();
    }

    /// What the session says is refused: all that the client refuses, and nothing that it has
    /// accepted.
    fn verify_refusals(&mut self) {
        let (view, outstanding) = (self.world.publish(), self.session.outstanding());
        for kind in KINDS {
            let i = kind.index();
            let mut refused = std::mem::take(&mut self.client.refused[i]);
            // Nobody will ask about what is gone, or what the client has dropped.
            refused.retain(|name| self.client.wants(i, name) && view.get(kind, name).is_some());
            for name in &refused {
                assert!(
                    outstanding.contains(&(kind, name.as_str().into())),
                    "{kind:?} {name} is refused unnoticed"
                );
            }
            self.client.refused[i] = refused;
            // While an answer is awaited, the client may have accepted what nobody knows of yet.
            let idle = self.client.unanswered[i].is_empty();
            for (_, name) in outstanding.iter().filter(|(of, _)| *of == kind && idle) {
                assert!(
                    self.client.complained[i].contains(&**name),
                    "{kind:?} {name} was accepted"
                );
            }
        }
    }

    /// Everything is accepted, and every resource gets content that nobody refused.
    fn settle(&mut self) {
        let edits = |v: u64| KINDS.into_iter().flat_map(move |k| NAMES.map(|n| (k, n, v)));
        let existing: Vec<_> =
            edits(9).filter(|(k, n, _)| self.world.publish().get(*k, n).is_some()).collect();
        self.world.edit(&existing.iter().map(|(k, n, v)| (*k, *n, Some(*v))).collect::<Vec<_>>());
        self.session.on_view(self.world.publish());
        self.drain();
        for _ in 0..40 {
            KINDS.into_iter().for_each(|k| self.answer(k, true));
            self.session.tick();
            self.drain();
        }
    }

    /// The client runs what the views hold, of what it asked for.
    fn verify(&mut self) {
        let view = self.world.publish();
        for kind in KINDS {
            let i = kind.index();
            assert!(self.client.unanswered[i].is_empty(), "{kind:?} never settles");
            let wanted: BTreeMap<String, Version> = view.tables[i]
                .values()
                .filter(|r| self.client.wants(i, &r.name))
                .map(|r| (r.name.to_string(), r.version))
                .collect();
            let mut has = self.client.has[i].clone();
            if self.variant == Variant::Sotw && !kind.wildcard_by_default() {
                // Removals of these types are implied by their parents.
                has.retain(|n, _| wanted.contains_key(n));
            }
            assert_eq!(has, wanted, "{kind:?}");
        }
        assert!(self.session.outstanding().is_empty());
    }
}

impl Client {
    fn wants(&self, i: usize, name: &str) -> bool {
        self.wildcard[i] || self.names[i].contains(name)
    }

    fn forget(&mut self, i: usize, name: &str) {
        self.names[i].remove(name);
        // Under a wildcard too: the server will say what holds.
        self.has[i].remove(name);
    }

    fn keep_wanted(&mut self, i: usize) {
        let (wildcard, names) = (self.wildcard[i], &self.names[i]);
        self.has[i].retain(|n, _| wildcard || names.contains(n));
    }

    fn refuse(&mut self, i: usize, response: &Response) {
        // What is on its way again is answered again.
        let names = |r: &Response| {
            r.resources.iter().map(|r| r.name.clone()).chain(r.removed.clone()).collect::<Vec<_>>()
        };
        let later: BTreeSet<Arc<str>> = self.unanswered[i].iter().flat_map(names).collect();
        let again = |name: &Arc<str>| later.contains(name);
        let new = |r: &&Arc<EncodedResource>| {
            self.has[i].get(&*r.name) != Some(&r.version) && !again(&r.name)
        };
        let refused: Vec<String> =
            response.resources.iter().filter(new).map(|r| r.name.to_string()).collect();
        self.refused[i].extend(refused);
        self.complained[i].extend(response.resources.iter().map(|r| r.name.to_string()));
    }

    fn apply(&mut self, i: usize, response: &Response, variant: Variant) {
        for names in [&mut self.refused[i], &mut self.complained[i]] {
            names.retain(|n| response.resources.iter().all(|r| *r.name != **n));
        }
        if variant == Variant::Sotw && ResourceType::ALL[i].wildcard_by_default() {
            self.has[i].clear();
        }
        for r in &response.resources {
            if self.wants(i, &r.name) {
                self.has[i].insert(r.name.to_string(), r.version);
            }
        }
        self.has[i].retain(|n, _| !response.removed.iter().any(|r| r.as_ref() == n));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_ends_with_what_the_views_say(delta in any::<bool>(), events in prop::collection::vec(event(), 0..60)) {
        let mut life = Life::new(if delta { Variant::Delta } else { Variant::Sotw });
        for event in &events {
            life.play(event);
            life.verify_refusals();
        }
        life.settle();
        life.verify();
    }
}
