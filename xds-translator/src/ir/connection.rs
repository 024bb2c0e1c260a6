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

/// What is known of a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Presence {
    /// Nothing: it was never connected, or that is forgotten.
    #[default]
    Unknown,
    /// It is connected, or was a moment ago.
    Connected,
    /// It was connected at the address of its workload and did not come back: nobody is sent there,
    /// and whoever is all the same speaks mutual TLS.
    Away,
}
