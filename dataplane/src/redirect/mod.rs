//! Interception: the rules that send a pod's TCP connections to its proxy, put into the kernel by
//! our own process.
//!
//! ```text
//! RedirectSettings ─tables─▶ rules (pure, printed as nft text) ─batch─▶ messages ─netlink─▶ nf_tables
//! ```
//! What is captured and what is exempt is Istio's (`tools/istio-iptables`, interception mode
//! REDIRECT). Knows nothing of listeners or configuration; runs once, before the proxy, with the
//! capability NET_ADMIN.

mod batch;
mod netlink;
mod rules;

use std::{fmt, path::Path, str::FromStr};

use ipnet::IpNet;

pub use self::{
    netlink::NetlinkError,
    rules::{Family, PASSTHROUGH_V4, PASSTHROUGH_V6, Table, tables},
};

/// Exists where the kernel has IPv6 in this network namespace.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";

/// What is captured, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedirectSettings {
    /// The proxy's user: its own connections are not captured.
    pub proxy_uid: u32,
    /// The proxy's group, exempt likewise.
    pub proxy_gid: u32,
    /// Where the proxy takes connections to the workload.
    pub inbound_port: u16,
    /// Where the proxy takes connections of the workload.
    pub outbound_port: u16,
    /// Destinations that are captured (`includeOutboundIPRanges`).
    pub outbound_cidrs: Scope<IpNet>,
    /// Destinations that are not, whatever else is said (`excludeOutboundIPRanges`).
    pub excluded_outbound_cidrs: Scope<IpNet>,
    /// Destination ports that are captured outside of `outbound_cidrs` too
    /// (`includeOutboundPorts`).
    pub outbound_ports: Scope<u16>,
    /// Destination ports that are not captured (`excludeOutboundPorts`).
    pub excluded_outbound_ports: Scope<u16>,
    /// The workload's ports that are captured (`includeInboundPorts`).
    pub inbound_ports: Scope<u16>,
    /// The workload's ports that are not (`excludeInboundPorts`).
    pub excluded_inbound_ports: Scope<u16>,
}

/// All, or only what is listed; the text `*`, or a list with commas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope<T> {
    /// `*`
    All,
    /// What is listed; may be empty.
    Only(Vec<T>),
}

/// What stands in such a list.
pub trait Item: Sized {
    /// Reads one entry, which has no spaces around it.
    ///
    /// # Errors
    /// What was expected, and got.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Item for u16 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("expected a port in 1..=65535, got {text:?}"))
    }
}

impl Item for IpNet {
    /// An address alone is a network of one.
    fn parse(text: &str) -> Result<Self, String> {
        let net =
            text.parse::<Self>().or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from));
        net.map(|net| net.trunc())
            .map_err(|_| format!("expected a network such as 10.0.0.0/8, got {text:?}"))
    }
}

impl<T: Item> FromStr for Scope<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(T::parse).collect::<Result<_, _>>().map(Self::Only)
    }
}

/// The rules as a file for `nft -f`, which replaces what an earlier one made.
pub struct Script<'a>(pub &'a [Table]);

impl fmt::Display for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in self.0 {
            // An empty declaration makes the table, so that it can be deleted even where there was
            // none.
            writeln!(f, "table {0} {{}}\ndelete table {0}\n{table}", table.name())?;
        }
        Ok(())
    }
}

/// The families whose connections are to be captured here: IPv6 only where the kernel has it.
pub fn families() -> &'static [Family] {
    if Path::new(IPV6_ADDRESSES).exists() { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

/// Puts the tables into the kernel, in place of those of an earlier run: all of them, or nothing
/// when one is refused.
///
/// # Errors
/// [`NetlinkError`] tells what is missing: the capability, nf_tables, or one of its parts.
pub fn install(tables: &[Table]) -> Result<(), NetlinkError> {
    netlink::send_batch(&batch::replace(tables))?;
    if tables.iter().any(|table| table.family == Family::V6) {
        // Where IPv6 is switched off by sysctl there is no such traffic either.
        if let Err(error) = netlink::add_loopback_address(PASSTHROUGH_V6) {
            tracing::debug!(%error, "no source address for connections of the proxy to the workload over IPv6");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_spaces_gaps_and_the_star() {
        assert_eq!("15020, 15021,".parse(), Ok(Scope::Only(vec![15020, 15021])));
        assert_eq!("*".parse::<Scope<u16>>(), Ok(Scope::All));
        assert_eq!("".parse::<Scope<u16>>(), Ok(Scope::Only(vec![])));
        let nets = ["10.0.0.0/8", "1.2.3.4/32", "fd00::/8"].map(|net| net.parse().unwrap());
        assert_eq!("10.1.2.3/8,1.2.3.4,fd00::1/8".parse(), Ok(Scope::<IpNet>::Only(nets.to_vec())));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for text in ["0", "65536", "http", "80-90", "1,*"] {
            assert!(text.parse::<Scope<u16>>().unwrap_err().contains("expected a port"), "{text}");
        }
        assert!("10.0.0.0/33".parse::<Scope<IpNet>>().unwrap_err().contains("got \"10.0.0.0/33\""));
    }
}
