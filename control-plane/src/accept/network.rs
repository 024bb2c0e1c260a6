//! Where callers are told apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where somebody calls from, for fairness: an address, or the network that an IPv6 host has to
/// itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// Of requests that came over no acceptor.
    pub const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 => Self(v4),
        }
    }
}
