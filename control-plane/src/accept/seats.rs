//! Room for connections, and who makes room when there is none.
//!
//! A connection on which nothing is being answered is *quiet*. Where every seat is taken, a
//! newcomer gets that of the quiet connection that has been quiet longest, of the network that has
//! most of them: a flood only drives out itself. A connection that is being served is never driven
//! out; where all are, the newcomer is turned away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::network::ClientNetwork;

const POISONED: &str = "no code panics while it holds this lock";

/// The seats of a port.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    table: Mutex<Table>,
}

#[derive(Default, Debug)]
struct Table {
    taken: usize,
    numbered: u64,
    /// By network, by the order in which they became quiet.
    quiet: HashMap<ClientNetwork, BTreeMap<u64, CancellationToken>>,
    /// How many of each network are quiet.
    by_size: BTreeSet<(usize, ClientNetwork)>,
}

/// One connection's seat; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    network: ClientNetwork,
    cleared: CancellationToken,
    state: Mutex<Use>,
}

#[derive(Debug)]
enum Use {
    /// Its number among the quiet ones of its network, and since when.
    Quiet(u64, Instant),
    /// Requests that are being answered.
    Busy(usize),
}

/// A request is being answered on a connection, for as long as this lives.
#[derive(Debug)]
pub struct Occupied(Arc<Seat>);

impl Seats {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, table: Mutex::default() })
    }

    /// A seat for a connection from there; `None`: all are taken and being served.
    pub fn take(self: &Arc<Self>, network: ClientNetwork) -> Option<Arc<Seat>> {
        let mut table = self.table();
        if table.taken >= self.most && !table.clear_one() {
            return None;
        }
        table.taken += 1;
        let cleared = CancellationToken::new();
        let number = table.rest(network, cleared.clone());
        let state = Mutex::new(Use::Quiet(number, Instant::now()));
        Some(Arc::new(Seat { seats: self.clone(), network, cleared, state }))
    }

    /// Makes room although there is some: the system gives no more connections.
    pub fn clear_one(&self) -> bool {
        self.table().clear_one()
    }

    /// Connections that have a seat.
    pub fn taken(&self) -> usize {
        self.table().taken
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect(POISONED)
    }
}

impl Table {
    /// Drives out a quiet connection; whether there was any.
    fn clear_one(&mut self) -> bool {
        let Some((_, network)) = self.by_size.last().copied() else { return false };
        let oldest =
            self.quiet.get(&network).and_then(|of_network| of_network.keys().next().copied());
        let Some(token) = oldest.and_then(|number| self.wake(network, number)) else {
            return false;
        };
        self.taken -= 1;
        token.cancel();
        true
    }

    /// A connection is quiet from now on.
    fn rest(&mut self, network: ClientNetwork, cleared: CancellationToken) -> u64 {
        self.numbered += 1;
        let number = self.numbered;
        self.resize(network, |of_network| of_network.insert(number, cleared));
        number
    }

    /// A connection is not quiet any more; `None`: it was driven out before.
    fn wake(&mut self, network: ClientNetwork, number: u64) -> Option<CancellationToken> {
        self.resize(network, |of_network| of_network.remove(&number))
    }

    fn resize<T>(
        &mut self,
        network: ClientNetwork,
        change: impl FnOnce(&mut BTreeMap<u64, CancellationToken>) -> T,
    ) -> T {
        let of_network = self.quiet.entry(network).or_default();
        let before = of_network.len();
        let changed = change(of_network);
        let after = of_network.len();
        self.by_size.remove(&(before, network));
        if after == 0 {
            self.quiet.remove(&network);
        } else {
            self.by_size.insert((after, network));
        }
        changed
    }
}

impl Seat {
    /// Ends when the connection has to make room.
    pub async fn cleared(&self) {
        self.cleared.cancelled().await;
    }

    /// Since when nothing is being answered; `None`: something is.
    pub fn quiet_since(&self) -> Option<Instant> {
        match *self.state.lock().expect(POISONED) {
            Use::Quiet(_, since) => Some(since),
            Use::Busy(_) => None,
        }
    }

    /// A request is being answered from now on.
    pub fn occupy(self: &Arc<Self>) -> Occupied {
        let mut state = self.state.lock().expect(POISONED);
        match &mut *state {
            Use::Busy(requests) => *requests += 1,
            Use::Quiet(number, _) => {
                // Who was driven out just now does not get back in.
                self.seats.table().wake(self.network, *number);
                *state = Use::Busy(1);
            }
        }
        Occupied(self.clone())
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let seat = &self.0;
        let mut state = seat.state.lock().expect(POISONED);
        match &mut *state {
            Use::Busy(requests) if *requests > 1 => *requests -= 1,
            _ if seat.cleared.is_cancelled() => {}
            _ => {
                let number = seat.seats.table().rest(seat.network, seat.cleared.clone());
                *state = Use::Quiet(number, Instant::now());
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        if let Use::Quiet(number, _) = *self.state.get_mut().expect(POISONED) {
            table.wake(self.network, number);
        }
        if !self.cleared.is_cancelled() {
            table.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> ClientNetwork {
        ClientNetwork::of([10, 0, 0, last].into())
    }

    fn present(seats: &[Arc<Seat>]) -> Vec<bool> {
        seats.iter().map(|seat| !seat.cleared.is_cancelled()).collect()
    }

    #[test]
    fn a_flood_drives_out_its_own_quiet_connections_oldest_first() {
        let seats = Seats::new(6);
        let good: Vec<_> = (0..2).map(|_| seats.take(network(1)).expect("room")).collect();
        let mut flood: Vec<_> = (0..4).map(|_| seats.take(network(2)).expect("room")).collect();
        flood.extend((0..3).map(|_| seats.take(network(2)).expect("room is made")));
        assert_eq!(present(&good), [true; 2]);
        assert_eq!(present(&flood), [false, false, false, true, true, true, true]);
        let newcomer = seats.take(network(3)).expect("the flood makes room");
        assert_eq!(present(&flood), [false, false, false, false, true, true, true]);
        assert_eq!(seats.taken(), 6);
        drop((good, flood, newcomer));
        let table = seats.table();
        assert_eq!((table.taken, table.quiet.len(), table.by_size.len()), (0, 0, 0));
    }

    #[test]
    fn who_is_being_served_stays_and_counts_as_new_afterwards() {
        let seats = Seats::new(2);
        let (served, quiet) =
            (seats.take(network(1)).expect("room"), seats.take(network(1)).expect("room"));
        let (request, second) = (served.occupy(), served.occupy());
        assert!(served.quiet_since().is_none());
        let third = seats.take(network(1)).expect("the quiet one makes room");
        assert_eq!(present(&[served.clone(), quiet.clone(), third.clone()]), [true, false, true]);
        let also_served = third.occupy();
        assert!(seats.take(network(9)).is_none(), "everybody is being served");
        drop((request, also_served));
        assert!(served.quiet_since().is_none(), "the second request is not over");
        drop(second);
        let fourth = seats.take(network(9)).expect("room is made");
        assert_eq!(
            present(&[served.clone(), third.clone()]),
            [true, false],
            "it has been quiet longer"
        );
        drop((served, quiet, third, fourth));
        assert_eq!(seats.taken(), 0);
    }

    #[test]
    fn a_request_of_one_that_was_driven_out_does_not_bring_it_back() {
        let seats = Seats::new(1);
        let first = seats.take(network(1)).expect("room");
        let second = seats.take(network(1)).expect("room is made");
        drop(first.occupy());
        drop(first);
        assert_eq!(seats.taken(), 1);
        drop(second);
        assert_eq!(seats.taken(), 0);
    }
}
