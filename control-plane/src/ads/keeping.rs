//! Memory for what a client says and nobody else does: who it is, and names that no view has (the
//! texts of all others are shared with the views). It is kept for as long as the stream is open.
//!
//! Every stream may keep a little. What is more comes off a budget of the process, of which a visitor
//! has a share: else one that proved who it is could have all memory, a name at a time.

use std::{sync::Arc, time::Duration};

use ferromesh_proto::retry;
use ferromesh_xds_translator::class::NodeIdentity;
use tonic::Status;

use super::{arrivals::Visitor, session::Session};
use crate::accept::budget::{Budget, Reserved};

/// What any stream may keep: not more than it costs in any case.
const FREE: usize = 64 << 10;
/// Memory for what is more than that, of all streams; and of one visitor. A hundred thousand names
/// that nobody here knows take less than half of a share.
const KEPT: (usize, usize) = (256 << 20, 64 << 20);
/// When to come back if there is none.
const AGAIN: Duration = Duration::from_secs(30);

/// What streams may keep of their clients' words.
pub(super) type Kept = Arc<Budget<Visitor>>;

/// The budget of a server.
pub(super) fn budget() -> Kept {
    Budget::new(KEPT.0, KEPT.1)
}

/// What one stream keeps.
pub(super) struct Keeping {
    budget: Kept,
    visitor: Visitor,
    /// Bytes of what the client says of itself.
    itself: usize,
    /// Bytes that it may keep.
    room: usize,
    reserved: Option<Reserved>,
}

impl Keeping {
    /// Of a stream whose client calls itself so.
    ///
    /// # Errors
    /// There is no room for that.
    pub(super) fn begin(
        budget: Kept,
        visitor: Visitor,
        id: &str,
        node: &NodeIdentity,
    ) -> Result<Self, Status> {
        let texts = node.facts.labels.iter().chain(&node.facts.metadata);
        let itself = id.len() + texts.map(|(key, text)| key.len() + text.len()).sum::<usize>();
        let mut keeping = Self { budget, visitor, itself, room: FREE, reserved: None };
        keeping.make_room(itself)?;
        Ok(keeping)
    }

    /// Makes sure of room for the names that a session keeps by now.
    ///
    /// # Errors
    /// There is none: the stream must end.
    pub(super) fn follow(&mut self, session: &mut Session) -> Result<(), Status> {
        if self.itself + session.strangers() <= self.room {
            return Ok(());
        }
        // Some of them may be gone, or were counted with every request that names them.
        let wanted = self.itself + session.count_strangers();
        self.make_room(wanted)
    }

    /// Gives back what is not needed any more: most names are known soon after they came.
    pub(super) fn settle(&mut self, session: &mut Session) {
        if self.reserved.is_none() {
            return;
        }
        let wanted = self.itself + session.count_strangers();
        if wanted < self.room / 4 {
            // Where others were faster, it is looked for again with the next name.
            let _ = self.make_room(wanted);
        }
    }

    /// Room for this, and for as much again, so that it is not looked for with every name.
    fn make_room(&mut self, wanted: usize) -> Result<(), Status> {
        (self.reserved, self.room) = (None, FREE);
        if wanted <= FREE {
            return Ok(());
        }
        let reserved = self.budget.try_reserve(self.visitor.clone(), 2 * wanted);
        let reserved = reserved
            .ok_or_else(|| retry::exhausted("too much is to be kept for this client", AGAIN))?;
        (self.reserved, self.room) = (Some(reserved), 2 * wanted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{
        ResourceType,
        discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Node},
    };

    use super::*;
    use crate::{accept::ClientNetwork, ads::Variant};

    const LONG: usize = 1 << 20;
    /// More than fits into a share.
    const MANY: usize = 2 * KEPT.1 / LONG;

    fn from(last: u8) -> Visitor {
        Visitor::From(ClientNetwork::of([10, 0, 0, last].into()))
    }

    fn keeping(budget: &Kept, last: u8, id: &str) -> Result<Keeping, Status> {
        let node = Node { id: id.to_owned(), ..Node::default() };
        let node = NodeIdentity::parse(&node, None).expect("a node");
        Keeping::begin(budget.clone(), from(last), id, &node)
    }

    fn id(name: &str) -> String {
        format!("sidecar~10.0.0.1~{name}.shop~shop.svc.cluster.local")
    }

    fn name(number: usize) -> String {
        format!("{number}-{}", "n".repeat(LONG))
    }

    fn delta(kind: &str, number: usize) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.to_owned(),
            resource_names_subscribe: vec![name(number)],
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// How many of these requests are taken by a stream.
    fn taken(
        keeping: &mut Keeping,
        session: &mut Session,
        ask: impl Fn(&mut Session, usize),
    ) -> usize {
        let is_taken = |number: &usize| {
            ask(session, *number);
            keeping.follow(session).is_ok()
        };
        (0..MANY).take_while(is_taken).count()
    }

    #[test]
    fn names_that_nobody_has_take_no_more_than_the_share_of_their_visitor() {
        let budget = budget();
        let ask = |kind: ResourceType, number| delta(kind.type_url(), number);
        let mut first = Session::new(1, Variant::Delta, Vec::new());
        let mut stream = keeping(&budget, 1, &id("a")).expect("room");
        for number in 0..KEPT.1 / LONG / 2 - 1 {
            first.on_delta(ask(ResourceType::Endpoint, number)).expect("a request");
            stream.follow(&mut first).unwrap_or_else(|status| panic!("{number}: {status:?}"));
        }
        // What it keeps is missing for others of the same, and for nobody else.
        for (visitor, expected) in [(1, 0..4), (2, 8..KEPT.1 / LONG)] {
            let mut session = Session::new(2, Variant::Delta, Vec::new());
            let mut other = keeping(&budget, visitor, &id("b")).expect("room");
            let taken = taken(&mut other, &mut session, |session, number| {
                session.on_delta(ask(ResourceType::Route, number)).expect("a request");
            });
            assert!(expected.contains(&taken), "{taken} of visitor {visitor}");
        }
        drop((first, stream));
        assert_eq!(budget.left(), KEPT.0);
    }

    #[test]
    fn what_a_client_brings_or_says_of_itself_counts() {
        let budget = budget();
        let brought = |session: &mut Session, number: usize| {
            let request = DeltaDiscoveryRequest {
                initial_resource_versions: [(name(number), String::new())].into(),
                ..delta(ResourceType::ALL[number % 2].type_url(), number)
            };
            session.on_delta(request).expect("a request");
        };
        let mut session = Session::new(1, Variant::Delta, Vec::new());
        let mut stream = keeping(&budget, 1, &id("a")).expect("room");
        assert!(taken(&mut stream, &mut session, brought) < MANY);
        drop(stream);
        assert!(keeping(&budget, 1, &id(&"a".repeat(KEPT.1 / 2))).is_err());
        let large = keeping(&budget, 1, &id(&"a".repeat(LONG))).expect("room");
        assert!(budget.left() <= KEPT.0 - LONG);
        // What is answered that there is no such type.
        let mut stream = keeping(&budget, 1, &id("a")).expect("room");
        let mut session = Session::new(1, Variant::Delta, Vec::new());
        for number in 0..10 {
            let foreign = format!("type.googleapis.com/{number}");
            session.on_delta(delta(&foreign, number)).expect("a request");
            stream.follow(&mut session).expect("room");
        }
        assert!(budget.left() <= KEPT.0 - 11 * LONG);
        drop((stream, large));
        assert_eq!(budget.left(), KEPT.0);
    }

    #[test]
    fn the_same_names_again_take_no_more_and_those_that_are_gone_nothing() {
        let budget = budget();
        let mut session = Session::new(1, Variant::Sotw, Vec::new());
        let mut stream = keeping(&budget, 1, &id("a")).expect("room");
        let ask = |session: &mut Session, names: Vec<String>| {
            let request = DiscoveryRequest {
                type_url: ResourceType::Endpoint.type_url().to_owned(),
                resource_names: names,
                ..DiscoveryRequest::default()
            };
            session.on_sotw(request).expect("a request");
        };
        for round in 0..MANY {
            ask(&mut session, vec![name(0)]);
            stream.follow(&mut session).unwrap_or_else(|status| panic!("{round}: {status:?}"));
        }
        assert!(budget.left() >= KEPT.0 - 4 * LONG - FREE, "{}", budget.left());
        // Each in the place of the one before.
        for number in 0..MANY {
            ask(&mut session, vec![name(number)]);
            stream.follow(&mut session).unwrap_or_else(|status| panic!("{number}: {status:?}"));
        }
        ask(&mut session, vec!["short".to_owned()]);
        stream.settle(&mut session);
        assert_eq!(budget.left(), KEPT.0);
    }
}
