//! Netlink: attributes, messages, the batch that the kernel takes whole or not at all, and what its
//! refusals mean.

use std::{
    io::{self, Read},
    net::Ipv6Addr,
    time::Duration,
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// `AF_NETLINK`, and the protocols that we speak.
const NETLINK: i32 = 16;
const ROUTE: i32 = 0;
const NETFILTER: i32 = 12;

/// Kinds of messages: `NLMSG_ERROR`, the batch's frame, `RTM_NEWADDR`.
const ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_ADDRESS: u16 = 20;
/// `NFNL_SUBSYS_NFTABLES`
const NF_TABLES: u16 = 10;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;

const HEADER: usize = 16;
/// The kernel answers at once; a security module may swallow what we send.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the kernel did not take the rules.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel has no netfilter, or the sandbox forbids netlink.
    #[error(
        "cannot speak to netfilter: {0}; the kernel needs nf_tables (CONFIG_NF_TABLES), and the sandbox netlink sockets"
    )]
    Socket(#[source] io::Error),
    /// The process may not do it.
    #[error(
        "the kernel forbids it: the container needs the capability NET_ADMIN (securityContext.capabilities.add), and no other"
    )]
    NotPermitted,
    /// No nf_tables at all.
    #[error(
        "this kernel has no nf_tables (module nf_tables, CONFIG_NF_TABLES): load it on the node; iptables-legacy is not used"
    )]
    NoTables,
    /// A part of nf_tables is missing.
    #[error("{subject}: this kernel lacks {module} ({option}): load the module on the node")]
    Missing {
        /// What needs it.
        subject: Subject,
        /// The module's name.
        module: &'static str,
        /// The kernel option that builds it.
        option: &'static str,
    },
    /// Anything else.
    #[error("{subject}: the kernel says: {source}")]
    Refused {
        /// What it refuses.
        subject: Subject,
        /// What it says.
        source: io::Error,
    },
    /// No answer.
    #[error("no answer from the kernel: {0}")]
    Silent(#[source] io::Error),
}

/// What a message is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The batch itself.
    Batch,
    /// Family and name.
    Table(String),
    /// A chain of destination NAT.
    Chain(&'static str),
    /// One rule.
    Rule {
        /// Its text.
        rule: String,
        /// Whether it redirects.
        redirects: bool,
    },
    /// An address of the loopback interface.
    Address(Ipv6Addr),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Batch => f.write_str("the rules"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Chain(name) => write!(f, "nat chain {name}"),
            Self::Rule { rule, .. } => write!(f, "rule {rule:?}"),
            Self::Address(address) => write!(f, "address {address} on lo"),
        }
    }
}

/// Attributes one after another, each padded to four bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds bytes as they are.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length =
            u16::try_from(value.len() + 4).expect("a rule's expressions are far below 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text with its end marked.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds a number in network order, as nf_tables wants it.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a signed number.
    pub(super) fn signed(self, kind: u16, value: i32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes.
    pub(super) fn nested(self, kind: u16, value: Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }
}

/// One message to nf_tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) family: u8,
    pub(super) attributes: Attributes,
    pub(super) subject: Subject,
}

/// Sends messages as one transaction.
pub(super) fn send_batch(messages: &[Message]) -> Result<(), NetlinkError> {
    let socket = open(NETFILTER).map_err(NetlinkError::Socket)?;
    socket.send(&encode(messages)).map_err(|source| explain(Subject::Batch, source))?;
    // Sequence numbers are places in the batch; the frame's two are beside them.
    let subject = |sequence: u32| {
        let index = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
        index
            .and_then(|index| messages.get(index))
            .map_or(Subject::Batch, |message| message.subject.clone())
    };
    acknowledged(&socket).map_err(|refusal| match refusal {
        Refusal::Of(sequence, source) => explain(subject(sequence), source),
        Refusal::Silence(source) => NetlinkError::Silent(source),
    })
}

/// Gives the loopback interface one more address; one that it has is no error.
pub(super) fn add_loopback_address(address: Ipv6Addr) -> Result<(), NetlinkError> {
    let socket = open(ROUTE).map_err(NetlinkError::Socket)?;
    // struct ifaddrmsg: family, prefix length, flags, scope, index; the loopback interface is
    // always the first.
    let mut body = vec![10, 128, 0, 0];
    body.extend(1u32.to_ne_bytes());
    body.extend(Attributes::default().bytes(2, &address.octets()).bytes(1, &address.octets()).0);
    let flags = REQUEST | ACKNOWLEDGE | CREATE | REPLACE;
    socket
        .send(&frame(NEW_ADDRESS, flags, 1, &body))
        .map_err(|source| explain(Subject::Address(address), source))?;
    acknowledged(&socket).map_err(|refusal| match refusal {
        Refusal::Of(_, source) => explain(Subject::Address(address), source),
        Refusal::Silence(source) => NetlinkError::Silent(source),
    })
}

fn open(protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(protocol)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The batch between its two frames; only its last message is acknowledged, all are checked.
fn encode(messages: &[Message]) -> Vec<u8> {
    let mut bytes = frame(BATCH_BEGIN, REQUEST, 0, &general(0, NF_TABLES));
    for (index, message) in messages.iter().enumerate() {
        let last = index + 1 == messages.len();
        let flags = REQUEST | message.flags | if last { ACKNOWLEDGE } else { 0 };
        let mut body = general(message.family, 0).to_vec();
        body.extend(&message.attributes.0);
        bytes.extend(frame((NF_TABLES << 8) | message.kind, flags, sequence(index + 1), &body));
    }
    bytes.extend(frame(BATCH_END, REQUEST, sequence(messages.len() + 1), &general(0, NF_TABLES)));
    bytes
}

fn sequence(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// struct nfgenmsg: family, version, resource.
fn general(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// struct nlmsghdr and a body, which is a multiple of four bytes long.
fn frame(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("a message is far below 4 GiB");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

enum Refusal {
    Of(u32, io::Error),
    Silence(io::Error),
}

/// Waits for the acknowledgement, or the first refusal.
fn acknowledged(mut socket: &Socket) -> Result<(), Refusal> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = socket.read(&mut buffer).map_err(Refusal::Silence)?;
        // The one acknowledgement means that everything is in force; refusals come before it.
        match verdicts(&buffer[..length]).first() {
            Some((_, 0)) => return Ok(()),
            Some((sequence, code)) => {
                return Err(Refusal::Of(*sequence, io::Error::from_raw_os_error(-code)));
            }
            None => {}
        }
    }
}

/// Sequence numbers and error codes of the answers in a datagram.
fn verdicts(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let half =
        |bytes: &[u8], at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) =
        (word(bytes, 0), half(bytes, 4), word(bytes, 8))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX).max(HEADER);
        if kind == ERROR
            && let Some(code) = word(bytes, HEADER)
        {
            found.push((sequence, code.cast_signed()));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// What a refusal means.
fn explain(subject: Subject, source: io::Error) -> NetlinkError {
    let code = source.raw_os_error().map(Errno::from_raw);
    let missing =
        |module, option| NetlinkError::Missing { subject: subject.clone(), module, option };
    match (code, &subject) {
        (Some(Errno::EPERM), _) => NetlinkError::NotPermitted,
        (
            Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT),
            Subject::Batch | Subject::Table(_),
        ) => NetlinkError::NoTables,
        (Some(Errno::ENOENT | Errno::EOPNOTSUPP), Subject::Chain(_)) => {
            missing("nft_chain_nat", "CONFIG_NFT_NAT")
        }
        (Some(Errno::ENOENT | Errno::EOPNOTSUPP), Subject::Rule { redirects: true, .. }) => {
            missing("nft_redir", "CONFIG_NFT_REDIR")
        }
        _ => NetlinkError::Refused { subject, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::default().number(2, 7);
        let bytes = Attributes::default().text(1, "lo").nested(4, inner).0;
        let words: Vec<u16> =
            bytes.chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        assert_eq!((words[0], words[1]), (7, 1), "length without padding, kind");
        assert_eq!(&bytes[4..8], b"lo\0\0");
        assert_eq!((words[4], words[5]), (12, 0x8004));
        assert_eq!(&bytes[16..], 7u32.to_be_bytes());
    }

    fn check(subject: Subject, errno: Errno, expected: &str) {
        let text = explain(subject, errno.into()).to_string();
        assert!(text.contains(expected), "{text}: expected {expected}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let rule = |redirects| Subject::Rule { rule: "tcp dport 1 return".into(), redirects };
        check(Subject::Batch, Errno::EPERM, "NET_ADMIN");
        check(Subject::Batch, Errno::EOPNOTSUPP, "CONFIG_NF_TABLES");
        check(Subject::Chain("inbound"), Errno::ENOENT, "nft_chain_nat (CONFIG_NFT_NAT)");
        check(rule(true), Errno::ENOENT, "nft_redir (CONFIG_NFT_REDIR)");
        check(
            rule(false),
            Errno::EINVAL,
            "rule \"tcp dport 1 return\": the kernel says: Invalid argument",
        );
    }

    #[test]
    fn answers_are_told_apart_by_their_sequence_numbers() {
        let mut datagram = frame(ERROR, 0, 3, &(-2i32).to_ne_bytes());
        datagram.extend(frame(ERROR, 0, 4, &0i32.to_ne_bytes()));
        assert_eq!(verdicts(&datagram), [(3, -2), (4, 0)]);
        assert_eq!(verdicts(&datagram[..10]), []);
    }
}
