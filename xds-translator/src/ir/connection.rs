//! Proxies that are connected.

use std::net::IpAddr;

use ferromesh_proto::SpiffeId;

/// A proxy that is connected to a control plane: who it has proven to be, and where it says it is.
///
/// Nobody but the identity vouches for the address: whoever reads it for a workload has to compare
/// the identities first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connection {
    /// What it has proven by certificate or token.
    pub identity: SpiffeId,
    /// Its own address, from its node id or metadata.
    pub address: IpAddr,
}
