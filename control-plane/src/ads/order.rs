//! What may be sent when, across resource types: make before break.
//!
//! Additions go CDS, EDS, LDS, RDS in the order in which a session is asked for responses; this module adds the two
//! gates between types. *Makes*: a changed listener or route waits until clusters that are new to the client have their
//! endpoints and are acknowledged, or it would route into a cluster that is still warming. *Breaks*: a vanished cluster
//! or assignment stays until no listener or route change is on its way. Both give up after a while: a client that never
//! acknowledges must not be starved. A first request, or a name asked for, never waits.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::ResourceType::{self, Cluster, Endpoint, Listener, Route, Secret};

use super::track::{Permits, Shelf, Track};

/// Ticks (seconds) for which changed listeners and routes wait for new clusters. Envoy warms a cluster in
/// milliseconds, unless its names resolve slowly.
const MAKE_PATIENCE: u8 = 5;

/// Ticks for which removals wait for later types; more than the 15 s for which Envoy may hold an ACK back.
const BREAK_PATIENCE: u8 = 20;

/// Ticks for which removals on a resumed stream wait for the client to ask for its listeners and routes.
const RESUME_PATIENCE: u8 = 5;

/// The gates of one stream.
#[derive(Default, Debug)]
pub(super) struct Gates {
    /// EDS clusters sent to the client whose endpoints it has not asked for yet.
    pub(super) awaited: BTreeSet<Arc<str>>,
    /// The client brought state from an earlier stream, which its listeners and routes may still refer to.
    pub(super) resumed: bool,
    makes_waited: u8,
    breaks_waited: u8,
    resumed_for: u8,
}

impl Gates {
    /// What of a type may go now.
    pub(super) fn permits(&self, kind: ResourceType, tracks: &[Track; 5], shelf: &Shelf<'_>) -> Permits {
        let makes = match kind {
            Listener | Route => !self.makes_pending(tracks),
            _ => true,
        };
        let breaks = match kind {
            Cluster => self.dependents_settled(tracks),
            Endpoint => self.dependents_settled(tracks) && !tracks[Cluster.index()].owes_removal(shelf),
            Route => tracks[Listener.index()].is_settled(),
            Listener | Secret => true,
        };
        Permits { makes, breaks }
    }

    fn makes_pending(&self, tracks: &[Track; 5]) -> bool {
        let endpoints_expected = !self.awaited.is_empty() && tracks[Endpoint.index()].is_seen();
        endpoints_expected || [Cluster, Endpoint].iter().any(|k| tracks[k.index()].makes_in_flight())
    }

    fn dependents_settled(&self, tracks: &[Track; 5]) -> bool {
        let dependents = [&tracks[Listener.index()], &tracks[Route.index()]];
        let resuming = self.resumed && dependents.iter().any(|t| !t.is_seen());
        self.breaks_waited >= BREAK_PATIENCE || (!resuming && dependents.iter().all(|t| t.is_settled()))
    }

    /// Lets a second pass.
    pub(super) fn tick(&mut self, tracks: &mut [Track; 5], shelf: &Shelf<'_>) {
        tracks.iter_mut().for_each(Track::tick);
        let waits = self.makes_pending(tracks) && [Listener, Route].iter().any(|k| tracks[k.index()].owes());
        self.makes_waited = if waits { self.makes_waited.saturating_add(1) } else { 0 };
        if self.makes_waited >= MAKE_PATIENCE {
            self.awaited.clear();
            tracks.iter_mut().for_each(Track::forget_makes);
        }
        let held = self.holds_removals(tracks, shelf) && !dependents_refused(tracks);
        self.breaks_waited = if held { self.breaks_waited.saturating_add(1) } else { 0 };
        if self.resumed {
            self.resumed_for = self.resumed_for.saturating_add(1);
            self.resumed = self.resumed_for < RESUME_PATIENCE;
        }
    }

    /// Whether time alone could make something sendable, so that ticks are wanted.
    pub(super) fn wants_ticks(&self, tracks: &[Track; 5], shelf: &Shelf<'_>) -> bool {
        self.resumed
            || !self.awaited.is_empty()
            || tracks.iter().any(Track::awaits_answer)
            || (!dependents_refused(tracks) && self.holds_removals(tracks, shelf))
    }

    fn holds_removals(&self, tracks: &[Track; 5], shelf: &Shelf<'_>) -> bool {
        [Cluster, Endpoint].iter().any(|k| tracks[k.index()].owes_removal(shelf))
    }
}

/// What the client refused is not what it runs: its last good listeners and routes may still need what is gone.
fn dependents_refused(tracks: &[Track; 5]) -> bool {
    [Listener, Route].iter().any(|k| tracks[k.index()].has_refusals())
}
