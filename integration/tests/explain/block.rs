//! Loopback addresses of a site.

use std::net::{Ipv4Addr, TcpListener};

/// A block of addresses that nobody else uses while the listener lives.
pub(crate) struct Block {
    number: u8,
    _claim: TcpListener,
}

impl Block {
    pub(crate) fn claim() -> Self {
        let claim = |number| {
            TcpListener::bind((Ipv4Addr::new(127, number, 0, 1), 15998)).ok().map(|c| (number, c))
        };
        let (number, claim) =
            (21..=239).find_map(claim).expect("a free block of loopback addresses");
        Self { number, _claim: claim }
    }

    fn at(&self, third: u8, last: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, third, u8::try_from(last).expect("few"))
    }

    pub(crate) fn pod(&self, index: usize) -> Ipv4Addr {
        self.at(101, index)
    }

    pub(crate) fn application(&self) -> Ipv4Addr {
        self.at(102, 1)
    }

    pub(crate) fn authorizer(&self) -> Ipv4Addr {
        self.at(103, 1)
    }

    pub(crate) fn service(&self, index: usize) -> Ipv4Addr {
        self.at(106, index + 1)
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.at(108, 1)
    }

    pub(crate) fn capture(&self) -> Ipv4Addr {
        self.at(109, 1)
    }

    /// Where nobody is.
    pub(crate) fn nowhere(&self) -> Ipv4Addr {
        self.at(107, 7)
    }
}
