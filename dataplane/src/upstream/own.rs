//! Connections of our own to endpoints, by their ends: interception that does not exempt us leads
//! them back to us, for ever.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustc_hash::FxHashSet;

/// Our address and the endpoint's, as whoever accepts the connection sees them before NAT.
type Ends = (SocketAddr, SocketAddr);

/// The connections to endpoints that all workers have open, or are opening.
#[derive(Default, Debug)]
pub struct OwnConnections {
    /// Read while one is begun and noted: it may be accepted before its beginning has returned.
    opening: RwLock<()>,
    open: Mutex<FxHashSet<Ends>>,
}

/// One of them, until dropped.
#[derive(Debug)]
pub struct OwnConnection {
    all: Arc<OwnConnections>,
    ends: Ends,
}

impl OwnConnections {
    /// Begins a connection to `remote` and notes it; `connect` does not wait, and answers our address.
    pub(super) fn begin(
        self: &Arc<Self>,
        remote: SocketAddr,
        connect: impl FnOnce() -> io::Result<SocketAddr>,
    ) -> io::Result<OwnConnection> {
        let _opening = self.opening.read().unwrap_or_else(PoisonError::into_inner);
        let ends = (connect()?, remote);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(ends);
        Ok(OwnConnection { all: Arc::clone(self), ends })
    }

    /// Whether a connection from `source` that wanted to go to `wanted` is one of ours.
    pub(crate) fn contains(&self, source: SocketAddr, wanted: SocketAddr) -> bool {
        // Whatever has been begun is noted now.
        drop(self.opening.write().unwrap_or_else(PoisonError::into_inner));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).contains(&(source, wanted))
    }
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.ends);
    }
}
