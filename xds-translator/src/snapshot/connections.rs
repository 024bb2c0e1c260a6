//! Which proxies are connected or away: facts that come from the streams of control planes, and
//! from no object. They outlive a rebuild, as credentials do.
//!
//! That a proxy is away is part of the fact that the endpoints of its services are
//! ([`Reader::endpoints`]): it goes with its endpoint, and to ask for each endpoint of a mesh would be
//! a fact for each.

use std::{collections::BTreeMap, sync::Arc};

use super::{ChangeSet, Dep, MeshSnapshot, Reader};
use crate::ir::{Connection, Endpoint, MeshTls, Presence};

/// Every proxy of which something is known.
pub(super) type Connections = BTreeMap<Connection, Presence>;

impl MeshSnapshot {
    /// Records what is known of a proxy.
    pub(crate) fn set_connection(
        &mut self,
        connection: Connection,
        presence: Presence,
        changes: &mut ChangeSet,
    ) {
        let before = self.presence(&connection);
        if before == presence {
            return;
        }
        let connections = Arc::make_mut(&mut self.connections);
        match presence {
            Presence::Unknown => {
                connections.remove(&connection);
            }
            Presence::Connected | Presence::Away => {
                connections.insert(connection.clone(), presence);
            }
        }
        if (before == Presence::Away) != (presence == Presence::Away) {
            // Rare: everything is looked through instead of keeping an index of every address.
            let led = self.endpoints.services_at(connection.address);
            led.for_each(|key| changes.touch(Dep::Endpoints(key.clone())));
        }
        if (before == Presence::Unknown) != (presence == Presence::Unknown) {
            changes.touch(Dep::Connection(connection));
        }
    }

    /// Takes over the connections of a former state.
    pub(crate) fn take_connections(&mut self, former: &Self) {
        self.connections = former.connections.clone();
    }

    /// What is known of a proxy.
    pub(crate) fn presence(&self, connection: &Connection) -> Presence {
        self.connections.get(connection).copied().unwrap_or_default()
    }

    /// Every proxy of which something is known; sorted.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (&Connection, &Presence)> {
        self.connections.iter()
    }
}

impl Reader<'_> {
    /// Whether this proxy is connected, or was and is away.
    pub fn was_connected(&self, connection: &Connection) -> bool {
        self.record(Dep::Connection(connection.clone()));
        self.snapshot.presence(connection) != Presence::Unknown
    }

    /// Whether nobody is to be sent to one of [`Self::endpoints`], since its proxy is away. Never
    /// where callers do not speak to the proxy: then the workload may be there without it.
    pub fn is_away(&self, endpoint: &Endpoint) -> bool {
        let snapshot = self.snapshot();
        let away = |proxy: Connection| snapshot.presence(&proxy) == Presence::Away;
        !snapshot.connections.is_empty()
            && endpoint.mesh_tls != MeshTls::Never
            && endpoint.proxy().is_some_and(away)
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
        (reader.was_connected(connection), reader.into_deps())
    }

    /// What a change touches.
    fn touched(snapshot: &mut MeshSnapshot, of: &Connection, presence: Presence) -> Vec<Dep> {
        let mut changes = ChangeSet::default();
        snapshot.set_connection(of.clone(), presence, &mut changes);
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
        let here = Presence::Connected;
        assert_eq!(touched(&mut snapshot, &cart, here), asked);
        assert_eq!(touched(&mut snapshot, &cart, here), [], "it was connected before");
        assert_eq!(read(&snapshot, &cart), (true, asked.clone()));
        for stranger in [&replica, &other] {
            assert!(!read(&snapshot, stranger).0);
            assert_ne!(touched(&mut snapshot, stranger, here), asked);
        }
        assert_eq!(
            touched(&mut snapshot, &cart, Presence::Away),
            [],
            "its callers speak TLS still"
        );
        assert_eq!(read(&snapshot, &cart), (true, asked.clone()));
        assert_eq!(touched(&mut snapshot, &cart, Presence::Unknown), asked);
        assert!(!read(&snapshot, &cart).0 && read(&snapshot, &replica).0);
    }
}
