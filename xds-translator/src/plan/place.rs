//! Where a service port is listened for.

use std::net::IpAddr;

use ipnet::IpNet;

use super::defaults::ANY_ADDRESS;
use crate::ir::ServiceAddress;

/// An address where a service port is listened for.
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    /// Really opened, or found by original destination.
    pub(crate) bind: bool,
    /// Networks that tell the service apart on a wildcard address.
    pub(crate) prefixes: Vec<IpNet>,
    /// Whether other services are listened for at the same address.
    pub(crate) shared: bool,
}

impl Place {
    pub(crate) fn shared(address: IpAddr, bind: bool) -> Self {
        Self { address, bind, prefixes: Vec::new(), shared: true }
    }

    pub(crate) fn own(address: IpAddr, bind: bool) -> Self {
        Self { address, bind, prefixes: Vec::new(), shared: false }
    }

    /// Each single address has a listener of its own; networks share the wildcard, as do services
    /// without address.
    pub(crate) fn of_addresses(addresses: &[ServiceAddress]) -> Vec<Self> {
        let single = addresses.iter().filter_map(|a| match a {
            ServiceAddress::Ip(ip) => Some(*ip),
            ServiceAddress::Net(net) => is_host(net).then(|| net.addr()),
        });
        let networks = addresses.iter().filter_map(|a| match a {
            ServiceAddress::Net(net) if !is_host(net) => Some(*net),
            _ => None,
        });
        let mut places: Vec<Self> = single.map(|address| Self::own(address, false)).collect();
        let prefixes: Vec<IpNet> = networks.collect();
        if !prefixes.is_empty() || places.is_empty() {
            places.push(Self { prefixes, ..Self::shared(ANY_ADDRESS, false) });
        }
        places
    }
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}
