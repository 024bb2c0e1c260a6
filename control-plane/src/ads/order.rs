//! What may be sent when, across resource types: make before break.
//!
//! Additions go CDS, EDS, LDS, RDS in the order in which a session is asked for responses; this
//! module adds the two gates between types. *Makes*: a changed listener or route waits until
//! clusters that are new to the client have their endpoints and are acknowledged, or it would route
//! into a cluster that is still warming. *Breaks*: a vanished cluster or assignment stays until no
//! listener or route change is on its way. Both give up after a while: a client that never
//! acknowledges must not be starved. A first request, or a name asked for, never waits. Which types
//! wait for which says the table of types (`makes_after`, `breaks_after`, `removed_after`).

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::ResourceType;

use super::track::{MaySend, ResourceSet, Track};

/// What a stream has of every type.
pub(super) type Tracks = [Track; ResourceType::COUNT];

/// Ticks (seconds) for which changed listeners and routes wait for new clusters. Envoy warms a
/// cluster in milliseconds, unless its names resolve slowly.
const MAKE_PATIENCE: u8 = 5;

/// Ticks for which removals wait for later types; more than the 15 s for which Envoy may hold an
/// ACK back.
const BREAK_PATIENCE: u8 = 20;

/// Ticks for which removals on a resumed stream wait for the client to ask for its listeners and
/// routes.
const RESUME_PATIENCE: u8 = 5;

/// The gates of one stream.
#[derive(Default, Debug)]
pub(super) struct Gates {
    /// By type, what the client has not asked for yet and will: resources that follow others which
    /// it was sent (the endpoints of an EDS cluster).
    pub(super) awaited: [BTreeSet<Arc<str>>; ResourceType::COUNT],
    /// The client brought state from an earlier stream, which its listeners and routes may still
    /// refer to.
    pub(super) resumed: bool,
    makes_waited: u8,
    breaks_waited: u8,
    resumed_for: u8,
}

impl Gates {
    /// What of a type may go now.
    pub(super) fn may_send(
        &self,
        kind: ResourceType,
        tracks: &Tracks,
        set: &ResourceSet<'_>,
    ) -> MaySend {
        let row = kind.row();
        let settled = match kind.is_warmed() {
            true => self.dependents_settled(row.breaks_after, tracks),
            false => row.breaks_after.iter().all(|k| tracks[k.index()].is_settled()),
        };
        let removed = row.removed_after.iter().all(|k| !tracks[k.index()].owes_removal(set));
        MaySend { makes: !self.makes_pending(kind, tracks), breaks: settled && removed }
    }

    fn makes_pending(&self, kind: ResourceType, tracks: &Tracks) -> bool {
        kind.row().makes_after.iter().any(|k| {
            let (track, awaited) = (&tracks[k.index()], &self.awaited[k.index()]);
            track.makes_in_flight() || (track.is_seen() && !awaited.is_empty())
        })
    }

    /// Whether nothing on its way refers any more to what is gone; given up after a while.
    fn dependents_settled(&self, dependents: &[ResourceType], tracks: &Tracks) -> bool {
        let mut all = dependents.iter().map(|k| &tracks[k.index()]);
        let resuming = self.resumed && all.clone().any(|t| !t.is_seen());
        self.breaks_waited >= BREAK_PATIENCE || (!resuming && all.all(Track::is_settled))
    }

    /// Lets a second pass.
    pub(super) fn tick(&mut self, tracks: &mut Tracks, set: &ResourceSet<'_>) {
        tracks.iter_mut().for_each(Track::tick);
        let waits = ResourceType::ALL
            .into_iter()
            .any(|k| tracks[k.index()].owes() && self.makes_pending(k, tracks));
        self.makes_waited = if waits { self.makes_waited.saturating_add(1) } else { 0 };
        if self.makes_waited >= MAKE_PATIENCE {
            self.awaited.iter_mut().for_each(BTreeSet::clear);
            tracks.iter_mut().for_each(Track::forget_makes);
        }
        let held = self.holds_removals(tracks, set) && !dependents_refused(tracks);
        self.breaks_waited = if held { self.breaks_waited.saturating_add(1) } else { 0 };
        if self.resumed {
            self.resumed_for = self.resumed_for.saturating_add(1);
            self.resumed = self.resumed_for < RESUME_PATIENCE;
        }
    }

    /// Whether time alone could make something sendable, so that ticks are wanted.
    pub(super) fn wants_ticks(&self, tracks: &Tracks, set: &ResourceSet<'_>) -> bool {
        self.resumed
            || self.awaited.iter().any(|names| !names.is_empty())
            || tracks.iter().any(Track::awaits_answer)
            || (!dependents_refused(tracks) && self.holds_removals(tracks, set))
    }

    fn holds_removals(&self, tracks: &Tracks, set: &ResourceSet<'_>) -> bool {
        warmed().any(|k| tracks[k.index()].owes_removal(set))
    }
}

/// The types that clients warm, whose removals give up waiting after a while.
fn warmed() -> impl Iterator<Item = ResourceType> {
    ResourceType::ALL.into_iter().filter(|kind| kind.is_warmed())
}

/// What the client refused is not what it runs: its last good listeners and routes may still need
/// what is gone.
fn dependents_refused(tracks: &Tracks) -> bool {
    warmed().flat_map(|k| k.row().breaks_after).any(|k| tracks[k.index()].has_refusals())
}
