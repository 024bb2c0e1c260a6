//! What is captured and what is exempt, as rules: pure. Their text is nft's own language.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{RedirectSettings, Scope};

/// Tunnelled traffic of other proxies is for the proxy already.
const HBONE_PORT: u16 = 15008;
/// Source of the proxy's connections to its workload, by which they are told from a workload that
/// calls itself.
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6, where interception adds it to the loopback interface.
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Which packets a table sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As nft calls the family and its addresses.
    fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn passthrough(self) -> IpNet {
        match self {
            Self::V4 => IpAddr::V4(PASSTHROUGH_V4).into(),
            Self::V6 => IpAddr::V6(PASSTHROUGH_V6).into(),
        }
    }

    fn loopback(self) -> IpNet {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST).into(),
        }
    }

    fn owns(self, net: IpNet) -> bool {
        matches!((self, net), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }
}

/// Our table of one family: two chains, on the way in and on the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its chains.
    pub chains: [Chain; 2],
}

impl Table {
    /// The table's name, the same in each family.
    pub const NAME: &'static str = "ferromesh";

    /// Family and name, as nft asks for them.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.family.keyword(), Self::NAME)
    }
}

/// A chain of destination NAT; packets that no rule ends go on as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Where packets meet it.
    pub hook: Hook,
    /// First to last.
    pub rules: Vec<Rule>,
}

/// Where packets meet a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// On arrival from outside.
    Prerouting,
    /// On departure from a process of this namespace.
    Output,
}

impl Hook {
    /// The name of our chain there.
    pub(super) fn chain(self) -> &'static str {
        match self {
            Self::Prerouting => "inbound",
            Self::Output => "outbound",
        }
    }
}

/// Conditions that must all hold, and what happens then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// May be empty.
    pub conditions: Vec<Condition>,
    /// What happens.
    pub verdict: Verdict,
}

/// One condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It is TCP.
    Tcp,
    /// It is TCP to this port.
    Port(u16),
    /// It is TCP to another port.
    PortIsNot(u16),
    /// It comes from here.
    From(IpNet),
    /// It goes there.
    To(IpNet),
    /// It goes elsewhere.
    NotTo(IpNet),
    /// It leaves by the loopback interface: to an address of this namespace.
    OverLoopback,
    /// A process of this user sent it.
    User(u32),
    /// A process of this group sent it.
    Group(u32),
}

/// What happens to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on as it is.
    Return,
    /// It goes to this port of this machine.
    Redirect(u16),
}

/// The rules of each family.
pub fn tables(settings: &RedirectSettings, families: &[Family]) -> Vec<Table> {
    let table = |family: &Family| {
        let inbound = Chain { hook: Hook::Prerouting, rules: inbound(settings) };
        let outbound = Chain { hook: Hook::Output, rules: outbound(settings, *family) };
        Table { family: *family, chains: [inbound, outbound] }
    };
    families.iter().map(table).collect()
}

fn rule(conditions: impl Into<Vec<Condition>>, verdict: Verdict) -> Rule {
    Rule { conditions: conditions.into(), verdict }
}

fn inbound(settings: &RedirectSettings) -> Vec<Rule> {
    let mut rules = vec![rule([Condition::Port(HBONE_PORT)], Verdict::Return)];
    rules.extend(of_ports(&settings.excluded_inbound_ports, Verdict::Return));
    rules.extend(of_ports(&settings.inbound_ports, Verdict::Redirect(settings.inbound_port)));
    rules
}

fn outbound(settings: &RedirectSettings, family: Family) -> Vec<Rule> {
    use Condition::{From, Group, NotTo, OverLoopback, PortIsNot, To, User};
    let to_self =
        [OverLoopback, NotTo(family.loopback()), PortIsNot(HBONE_PORT), User(settings.proxy_uid)];
    let redirect = Verdict::Redirect(settings.outbound_port);
    let mut rules = of_ports(&settings.excluded_outbound_ports, Verdict::Return);
    rules.extend([
        // What the proxy took in and passes to the workload.
        rule([OverLoopback, From(family.passthrough())], Verdict::Return),
        // The workload called a service and the proxy chose this very pod: it comes in like any
        // other caller.
        rule(to_self, Verdict::Redirect(settings.inbound_port)),
        // A workload that calls its own address wants no proxy.
        rule([OverLoopback], Verdict::Return),
        rule([User(settings.proxy_uid)], Verdict::Return),
        rule([Group(settings.proxy_gid)], Verdict::Return),
        rule([To(family.loopback())], Verdict::Return),
    ]);
    rules.extend(of_networks(&settings.excluded_outbound_cidrs, family, Verdict::Return));
    rules.extend(of_ports(&settings.outbound_ports, redirect));
    rules.extend(of_networks(&settings.outbound_cidrs, family, redirect));
    rules
}

fn of_ports(ports: &Scope<u16>, verdict: Verdict) -> Vec<Rule> {
    match ports {
        Scope::All => vec![rule([Condition::Tcp], verdict)],
        Scope::Only(ports) => {
            ports.iter().map(|port| rule([Condition::Port(*port)], verdict)).collect()
        }
    }
}

fn of_networks(networks: &Scope<IpNet>, family: Family, verdict: Verdict) -> Vec<Rule> {
    match networks {
        Scope::All => vec![rule([Condition::Tcp], verdict)],
        Scope::Only(networks) => {
            let own = networks.iter().filter(|network| family.owns(**network));
            own.map(|network| rule([Condition::To(*network), Condition::Tcp], verdict)).collect()
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.name())?;
        for (index, chain) in self.chains.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.hook {
            Hook::Prerouting => "hook prerouting priority dstnat",
            Hook::Output => "hook output priority -100",
        };
        writeln!(f, "\tchain {} {{\n\t\ttype nat {place}; policy accept;", self.hook.chain())?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            write!(f, "{condition} ")?;
        }
        match self.verdict {
            Verdict::Return => f.write_str("return"),
            Verdict::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |net: &IpNet| {
            if net.addr().is_ipv4() { Family::V4.keyword() } else { Family::V6.keyword() }
        };
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::Port(port) => write!(f, "tcp dport {port}"),
            Self::PortIsNot(port) => write!(f, "tcp dport != {port}"),
            Self::From(net) => write!(f, "{} saddr {}", address(net), Net(net)),
            Self::To(net) => write!(f, "{} daddr {}", address(net), Net(net)),
            Self::NotTo(net) => write!(f, "{} daddr != {}", address(net), Net(net)),
            Self::OverLoopback => f.write_str("oifname \"lo\""),
            Self::User(user) => write!(f, "meta skuid {user}"),
            Self::Group(group) => write!(f, "meta skgid {group}"),
        }
    }
}

/// A network of one is written as its address.
struct Net<'a>(&'a IpNet);

impl fmt::Display for Net<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::Script;

    fn settings() -> RedirectSettings {
        RedirectSettings {
            proxy_uid: 1337,
            proxy_gid: 1337,
            inbound_port: 15006,
            outbound_port: 15001,
            outbound_cidrs: Scope::All,
            excluded_outbound_cidrs: Scope::Only(vec![]),
            outbound_ports: Scope::Only(vec![]),
            excluded_outbound_ports: Scope::Only(vec![]),
            inbound_ports: Scope::All,
            excluded_inbound_ports: Scope::Only(vec![15020, 15021, 15090]),
        }
    }

    #[test]
    fn everything_is_captured_but_the_proxy_s_own() {
        let text = Script(&tables(&settings(), &[Family::V4])).to_string();
        let expected = "table ip ferromesh {}\n\
            delete table ip ferromesh\n\
            table ip ferromesh {\n\
            \tchain inbound {\n\
            \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
            \t\ttcp dport 15008 return\n\
            \t\ttcp dport 15020 return\n\
            \t\ttcp dport 15021 return\n\
            \t\ttcp dport 15090 return\n\
            \t\tmeta l4proto tcp redirect to :15006\n\
            \t}\n\
            \n\
            \tchain outbound {\n\
            \t\ttype nat hook output priority -100; policy accept;\n\
            \t\toifname \"lo\" ip saddr 127.0.0.6 return\n\
            \t\toifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 redirect to :15006\n\
            \t\toifname \"lo\" return\n\
            \t\tmeta skuid 1337 return\n\
            \t\tmeta skgid 1337 return\n\
            \t\tip daddr 127.0.0.1 return\n\
            \t\tmeta l4proto tcp redirect to :15001\n\
            \t}\n\
            }\n\n";
        assert_eq!(text, expected);
    }

    /// The rules of one chain, one a line.
    fn lines(settings: &RedirectSettings, family: Family, hook: Hook) -> Vec<String> {
        let [table] = &tables(settings, &[family])[..] else { panic!("one family, one table") };
        let chain = table.chains.iter().find(|chain| chain.hook == hook).unwrap();
        chain.rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn exclusions_come_before_what_is_captured_and_each_family_has_its_own() {
        let settings = RedirectSettings {
            outbound_cidrs: Scope::Only(vec![
                "10.96.0.0/12".parse().unwrap(),
                "fd00::/8".parse().unwrap(),
            ]),
            excluded_outbound_cidrs: Scope::Only(vec![
                "10.96.7.0/24".parse().unwrap(),
                "fd00::7/128".parse().unwrap(),
            ]),
            outbound_ports: Scope::Only(vec![3306]),
            excluded_outbound_ports: Scope::Only(vec![5432]),
            ..settings()
        };
        let v4 = lines(&settings, Family::V4, Hook::Output);
        assert_eq!(v4[0], "tcp dport 5432 return");
        let expected = [
            "ip daddr 10.96.7.0/24 meta l4proto tcp return",
            "tcp dport 3306 redirect to :15001",
            "ip daddr 10.96.0.0/12 meta l4proto tcp redirect to :15001",
        ];
        assert_eq!(v4[7..], expected);
        let v6 = lines(&settings, Family::V6, Hook::Output);
        assert_eq!(v6[1], "oifname \"lo\" ip6 saddr ::6 return");
        let expected = [
            "ip6 daddr fd00::7 meta l4proto tcp return",
            "tcp dport 3306 redirect to :15001",
            "ip6 daddr fd00::/8 meta l4proto tcp redirect to :15001",
        ];
        assert_eq!(v6[7..], expected);
    }

    #[test]
    fn only_listed_ports_come_in_or_none() {
        let mut settings = RedirectSettings {
            inbound_ports: Scope::Only(vec![8080]),
            excluded_inbound_ports: Scope::Only(vec![]),
            ..settings()
        };
        let expected = ["tcp dport 15008 return", "tcp dport 8080 redirect to :15006"];
        assert_eq!(lines(&settings, Family::V4, Hook::Prerouting), expected);
        settings.excluded_inbound_ports = Scope::All;
        assert_eq!(lines(&settings, Family::V4, Hook::Prerouting)[1], "meta l4proto tcp return");
        settings.excluded_inbound_ports = Scope::Only(vec![]);
        settings.inbound_ports = Scope::Only(vec![]);
        assert_eq!(lines(&settings, Family::V4, Hook::Prerouting), ["tcp dport 15008 return"]);
    }

    #[test]
    fn nothing_goes_out_by_the_proxy_when_no_range_is_named() {
        let settings = RedirectSettings { outbound_cidrs: Scope::Only(vec![]), ..settings() };
        let lines = lines(&settings, Family::V4, Hook::Output);
        assert!(!lines.iter().any(|line| line.ends_with(":15001")), "{lines:?}");
    }
}
