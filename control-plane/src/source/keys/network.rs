//! Which addresses keys may be fetched from. Whoever may write a policy chooses the URL, and must
//! not reach by it what answers this machine alone.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks of which an address is nobody's server of keys: this machine's own, those that end at
/// its link, metadata services of clouds, and addresses of no single machine.
const CLOSED: [&str; 13] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fd00:ec2::/32",
    "ff00::/8",
];

/// Addresses that keys may be fetched from.
#[derive(Clone, Default, Debug)]
pub struct Reachable {
    closed: Vec<IpNet>,
    opened: Vec<IpNet>,
}

impl Reachable {
    /// Everything but what is closed by itself and is not in `opened`.
    pub fn new(opened: Vec<IpNet>) -> Self {
        Self { closed: CLOSED.iter().filter_map(|net| net.parse().ok()).collect(), opened }
    }

    /// Whether an address may be called; what stands for an IPv4 address is that.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        within(&self.opened) || !within(&self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reaches_this_machine_or_its_link_unless_it_is_opened() {
        let closed = Reachable::new(Vec::new());
        assert_eq!(closed.closed.len(), CLOSED.len());
        let opened = Reachable::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("10.96.0.7", true),
            ("8.8.8.8", true),
            ("fd00::1", true),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(closed.allows(address), allowed, "{address}");
            let loopback = address.to_canonical() == IpAddr::from([127, 0, 0, 1]);
            assert_eq!(opened.allows(address), allowed || loopback, "{address}");
        }
    }
}
