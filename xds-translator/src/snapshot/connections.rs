//! Which proxies are connected: facts that come from the streams of control planes, and from no
//! object. They outlive a rebuild, as credentials do.

use std::{collections::BTreeSet, sync::Arc};

use super::{ChangeSet, Dep, MeshSnapshot, Reader};
use crate::ir::Connection;

/// Every connected proxy, once.
pub(super) type Connections = BTreeSet<Connection>;

impl MeshSnapshot {
    /// Records that a proxy is connected, or gone.
    pub(crate) fn set_connection(
        &mut self,
        connection: Connection,
        connected: bool,
        changes: &mut ChangeSet,
    ) {
        if self.connections.contains(&connection) == connected {
            return;
        }
        let connections = Arc::make_mut(&mut self.connections);
        match connected {
            true => drop(connections.insert(connection.clone())),
            false => drop(connections.remove(&connection)),
        }
        changes.touch(Dep::Connection(connection));
    }

    /// Takes over the connections of a former state.
    pub(crate) fn take_connections(&mut self, former: &Self) {
        self.connections = former.connections.clone();
    }

    /// Whether a proxy counts as connected.
    pub(crate) fn counts_as_connected(&self, connection: &Connection) -> bool {
        self.connections.contains(connection)
    }

    /// Every connected proxy, once; sorted.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }
}

impl Reader<'_> {
    /// Whether this proxy is connected.
    pub fn is_connected(&self, connection: &Connection) -> bool {
        self.record(Dep::Connection(connection.clone()));
        self.snapshot.connections.contains(connection)
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{SpiffeId, TrustDomain};

    use super::*;

    fn connection(account: &str, last: u8) -> Connection {
        let identity = SpiffeId::new(TrustDomain::default(), "shop", account).expect("good names");
        Connection { identity, address: [10, 0, 0, last].into() }
    }

    /// What a reader finds, and what it reads by that.
    fn read(snapshot: &MeshSnapshot, connection: &Connection) -> (bool, Vec<Dep>) {
        let reader = Reader::new(snapshot);
        (reader.is_connected(connection), reader.into_deps())
    }

    /// What a change touches.
    fn touched(snapshot: &mut MeshSnapshot, of: &Connection, connected: bool) -> Vec<Dep> {
        let mut changes = ChangeSet::default();
        snapshot.set_connection(of.clone(), connected, &mut changes);
        assert!(changes.reclassify.is_empty() && !changes.everything);
        changes.deps.into_iter().collect()
    }

    #[test]
    fn a_proxy_that_comes_or_goes_touches_those_who_asked_for_it_and_nobody_else() {
        let mut snapshot = MeshSnapshot::default();
        let (cart, replica, other) =
            (connection("cart", 1), connection("cart", 2), connection("till", 1));
        let (found, asked) = read(&snapshot, &cart);
        assert!(!found);
        assert_eq!(touched(&mut snapshot, &cart, true), asked);
        assert_eq!(touched(&mut snapshot, &cart, true), [], "it was connected before");
        assert_eq!(read(&snapshot, &cart), (true, asked.clone()));
        for stranger in [&replica, &other] {
            assert!(!read(&snapshot, stranger).0);
            assert_ne!(touched(&mut snapshot, stranger, true), asked);
        }
        assert_eq!(touched(&mut snapshot, &cart, false), asked);
        assert!(!read(&snapshot, &cart).0 && read(&snapshot, &replica).0);
    }
}
