//! Who is who in the demo: workloads, their identities, and a block of loopback addresses for each.
//!
//! Every demo takes one free network `127.B.0.0/16`, so that several run side by side without root.
//! Workload `i` has `127.B.i.1` for its application, `.2` for traffic that comes in through its
//! sidecar, `.3` for traffic that goes out through it, and `.4` for the sidecar's own endpoints.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, bail};

/// The port of every sample service.
pub(crate) const SERVICE_PORT: u16 = 9080;

/// One workload of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Workload {
    /// Its block of addresses; 1 and up.
    pub index: u8,
    /// Pod name.
    pub name: &'static str,
    /// Service it belongs to; also label `app`.
    pub app: &'static str,
    /// Label `version`.
    pub version: &'static str,
    /// Namespace.
    pub namespace: &'static str,
    /// Service account.
    pub account: &'static str,
    /// What it is.
    pub role: Role,
}

/// What a workload does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Answers requests.
    Service,
    /// Only calls others.
    Client,
    /// Lets requests in from outside the mesh.
    Gateway,
}

const fn service(
    index: u8,
    name: &'static str,
    app: &'static str,
    version: &'static str,
    account: &'static str,
) -> Workload {
    Workload { index, name, app, version, namespace: "default", account, role: Role::Service }
}

/// The cast, shaped like Istio's bookinfo.
pub(crate) const WORKLOADS: [Workload; 9] = [
    service(1, "productpage-v1-0", "productpage", "v1", "bookinfo-productpage"),
    service(2, "details-v1-0", "details", "v1", "bookinfo-details"),
    service(3, "details-v1-1", "details", "v1", "bookinfo-details"),
    service(4, "reviews-v1-0", "reviews", "v1", "bookinfo-reviews"),
    service(5, "reviews-v2-0", "reviews", "v2", "bookinfo-reviews"),
    service(6, "reviews-v3-0", "reviews", "v3", "bookinfo-reviews"),
    service(7, "ratings-v1-0", "ratings", "v1", "bookinfo-ratings"),
    Workload { role: Role::Client, ..service(8, "sleep-v1-0", "sleep", "v1", "sleep") },
    Workload {
        role: Role::Gateway,
        namespace: "istio-system",
        ..service(9, "istio-ingressgateway-0", "istio-ingressgateway", "v1", "istio-ingressgateway")
    },
];

/// The caller that most checks play.
pub(crate) const PRODUCTPAGE: Workload = WORKLOADS[0];
/// A caller that nobody trusts.
pub(crate) const SLEEP: Workload = WORKLOADS[7];
/// The way in.
pub(crate) const GATEWAY: Workload = WORKLOADS[8];

/// The network of one demo.
#[derive(Debug)]
pub(crate) struct Network {
    block: u8,
    /// Keeps other demos from taking the same block.
    _claim: TcpListener,
}

impl Network {
    /// Takes the first free block.
    ///
    /// # Errors
    /// No block of loopback addresses is free or usable.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        let first_error = match Self::claim_from(21..=250) {
            Ok(network) => return Ok(network),
            Err(error) => error,
        };
        Err(first_error)
            .context("no free block of loopback addresses (127.21.0.0 to 127.250.0.0) for the demo")
    }

    fn claim_from(blocks: impl Iterator<Item = u8>) -> anyhow::Result<Self> {
        let mut last = None;
        for block in blocks {
            match TcpListener::bind((Ipv4Addr::new(127, block, 0, 1), 15999)) {
                Ok(claim) => return Ok(Self { block, _claim: claim }),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error.into()),
            None => bail!("no blocks to choose from"),
        }
    }

    fn address(&self, index: u8, host: u8) -> IpAddr {
        Ipv4Addr::new(127, self.block, index, host).into()
    }

    /// Where the control plane listens.
    pub(crate) fn control_plane(&self, port: u16) -> SocketAddr {
        (self.address(0, 1), port).into()
    }

    /// Where a workload's application listens.
    pub(crate) fn application(&self, workload: Workload) -> IpAddr {
        self.address(workload.index, 1)
    }

    /// Where a workload is reached: its sidecar's inbound side, and its address in the mesh.
    pub(crate) fn inbound(&self, workload: Workload) -> IpAddr {
        self.address(workload.index, 2)
    }

    /// Where a workload's application sends what it has for others.
    pub(crate) fn outbound(&self, workload: Workload) -> IpAddr {
        self.address(workload.index, 3)
    }

    /// One of the sidecar's own endpoints.
    pub(crate) fn own(&self, workload: Workload, port: u16) -> SocketAddr {
        (self.address(workload.index, 4), port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demos_take_two_blocks() {
        let first = Network::claim().expect("a block");
        let second = Network::claim().expect("another block");
        assert_ne!(first.inbound(PRODUCTPAGE), second.inbound(PRODUCTPAGE));
    }

    #[test]
    fn workloads_have_blocks_of_their_own() {
        let mut seen: Vec<u8> = WORKLOADS.iter().map(|w| w.index).collect();
        seen.dedup();
        assert_eq!(seen.len(), WORKLOADS.len());
        assert!(seen.iter().all(|i| *i > 0));
    }
}
