//! The header of the PROXY protocol, by which a balancer says between whom a connection is: read
//! and written, versions 1 and 2.
//!
//! Pure functions over bytes. Which headers are taken is what Envoy takes. Spec: HAProxy "The PROXY
//! protocol", section 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// Longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// Version 2 until its addresses: signature, command, family, length.
const FIXED: usize = 16;

/// A version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The ends of the connection that a header is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ends {
    /// Who has opened it.
    pub source: SocketAddr,
    /// Whom it was opened to.
    pub destination: SocketAddr,
}

/// What stands before a connection's own bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// No header.
    None,
    /// More bytes must come before it can be told.
    NotYet,
    /// A header that nobody can go by.
    Malformed(&'static str),
    /// A header.
    Header {
        /// Its version.
        version: ProxyVersion,
        /// Its bytes, with what it says beyond addresses, which is not read.
        length: usize,
        /// `None`: the balancer speaks for itself, or does not know.
        ends: Option<Ends>,
    },
}

/// Looks for a header in all bytes received so far.
///
/// Answers `NotYet` for less bytes than a header may have: at most 65,551 with version 2, whose
/// length is said by its first 16.
pub fn read(bytes: &[u8]) -> Seen {
    let begins = |with: &[u8]| {
        let compared = bytes.len().min(with.len());
        bytes[..compared] == with[..compared]
    };
    match (begins(WORD), begins(&SIGNATURE)) {
        (true, _) if bytes.len() < WORD.len() => Seen::NotYet,
        (true, _) => read_line(bytes),
        (_, true) if bytes.len() < FIXED => Seen::NotYet,
        (_, true) => read_binary(bytes),
        (false, false) => Seen::None,
    }
}

fn read_line(bytes: &[u8]) -> Seen {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.windows(2).position(|end| end == b"\r\n") else {
        return match bytes.len() {
            0..LONGEST_LINE => Seen::NotYet,
            _ => Seen::Malformed("the line is longer than any"),
        };
    };
    let Ok(line) = str::from_utf8(&bytes[..end]) else {
        return Seen::Malformed("the line is no text");
    };
    let ends = match *line.split(' ').collect::<Vec<_>>() {
        [_, "UNKNOWN", ..] => None,
        [_, family, source, destination, from, to] => {
            let ends = of_words(family, [source, destination], [from, to]);
            let Some(ends) = ends else { return Seen::Malformed("no addresses of its family") };
            Some(ends)
        }
        _ => return Seen::Malformed("expected a family, two addresses and two ports"),
    };
    whole(ProxyVersion::V1, end + 2, ends)
}

fn of_words(family: &str, addresses: [&str; 2], ports: [&str; 2]) -> Option<Ends> {
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    Some(Ends {
        source: (address(addresses[0])?, port(ports[0])?).into(),
        destination: (address(addresses[1])?, port(ports[1])?).into(),
    })
}

/// The first sixteen bytes are there.
fn read_binary(bytes: &[u8]) -> Seen {
    let [command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let length = usize::from(u16::from_be_bytes([high, low]));
    let wanted = match (command, family) {
        (0x20, _) => 0,
        (0x21, 0x11 | 0x12) => 12,
        (0x21, 0x21 | 0x22) => 36,
        (0x21, _) => return Seen::Malformed("neither IPv4 nor IPv6"),
        _ => return Seen::Malformed("neither LOCAL nor PROXY of version 2"),
    };
    if length < wanted {
        return Seen::Malformed("shorter than its addresses");
    }
    let Some(content) = bytes.get(FIXED..FIXED + length) else { return Seen::NotYet };
    let port = |at: usize| u16::from_be_bytes([content[at], content[at + 1]]);
    let v4 = |at: usize| content[at..].first_chunk::<4>().map(|octets| IpAddr::from(*octets));
    let v6 = |at: usize| content[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    let pair = match wanted {
        12 => v4(0).zip(v4(4)).map(|ips| (ips, port(8), port(10))),
        36 => v6(0).zip(v6(16)).map(|ips| (ips, port(32), port(34))),
        _ => None,
    };
    let ends = pair.map(|((source, destination), from, to)| Ends {
        source: (source, from).into(),
        destination: (destination, to).into(),
    });
    whole(ProxyVersion::V2, FIXED + length, ends)
}

/// Nobody has an address that is everybody's or nobody's.
fn whole(version: ProxyVersion, length: usize, ends: Option<Ends>) -> Seen {
    let is_someone = |address: SocketAddr| {
        let ip = address.ip();
        !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    match ends {
        Some(Ends { source, destination }) if !(is_someone(source) && is_someone(destination)) => {
            Seen::Malformed("an address of nobody")
        }
        ends => Seen::Header { version, length, ends },
    }
}

/// The header for a connection on behalf of another; without one, or where its ends are of two
/// families, for one of our own.
pub fn written(version: ProxyVersion, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.filter(|ends| ends.source.is_ipv4() == ends.destination.is_ipv4());
    match version {
        ProxyVersion::V1 => line(ends).into_bytes(),
        ProxyVersion::V2 => binary(ends),
    }
}

fn line(ends: Option<Ends>) -> String {
    let Some(Ends { source, destination }) = ends else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

fn binary(ends: Option<Ends>) -> Vec<u8> {
    let mut addresses = Vec::new();
    for address in ends.iter().flat_map(|ends| [ends.source, ends.destination]) {
        match address.ip() {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    for address in ends.iter().flat_map(|ends| [ends.source, ends.destination]) {
        addresses.extend(address.port().to_be_bytes());
    }
    let (command, family, length) = match ends {
        None => (0x20, 0x00, 0),
        Some(ends) if ends.source.is_ipv4() => (0x21, 0x11, 12),
        Some(_) => (0x21, 0x21, 36),
    };
    [&SIGNATURE[..], &[command, family, 0, length], &addresses].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        let address = |text: &str| text.parse().expect("an address");
        Some(Ends { source: address(source), destination: address(destination) })
    }

    fn header(version: ProxyVersion, length: usize, ends: Option<Ends>) -> Seen {
        Seen::Header { version, length, ends }
    }

    fn binary_of(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, content].concat()
    }

    #[test]
    fn lines_say_whose_a_connection_is() {
        let v4 = ends("192.0.2.1:56324", "192.0.2.9:443");
        for (text, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n", v4),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", ends("[2001:db8::1]:1", "[::1]:65535")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN what ever\r\n", None),
        ] {
            let with_more = [text.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            let expected = header(ProxyVersion::V1, text.len(), expected);
            assert_eq!(read(&with_more), expected, "{text:?}");
            (0..text.len()).for_each(|cut| assert_eq!(read(&with_more[..cut]), Seen::NotYet));
        }
        for text in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.9 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 +1 443\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.9 1 443\r\n",
            "PROXY TCP4 0.0.0.0 192.0.2.9 1 443\r\n",
            "PROXY TCP4 192.0.2.1 224.0.0.1 1 443\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 1 443\r\n",
            "PROXY \r\n",
            "PROXY \u{e9}\r\n",
        ] {
            assert!(matches!(read(text.as_bytes()), Seen::Malformed(_)), "{text:?}");
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'a'; 200]].concat();
        assert_eq!(read(&endless[..LONGEST_LINE - 1]), Seen::NotYet);
        assert!(matches!(read(&endless), Seen::Malformed(_)));
        for other in ["GET / HTTP/1.1\r\n", "PROXIED", "P ", "\r\n\r\nGET", "\x16\x03\x01", "X"] {
            assert_eq!(read(other.as_bytes()), Seen::None, "{other:?}");
        }
        assert_eq!(read(b""), Seen::NotYet);
    }

    #[test]
    fn binary_headers_say_whose_a_connection_is_and_more_that_is_not_read() {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 9, 0xdc, 4, 1, 0xbb];
        let v4 = ends("192.0.2.1:56324", "192.0.2.9:443");
        let with_tlv = [&addresses[..], &[4, 0, 2, 7, 7]].concat();
        for (bytes, expected) in [
            (binary_of(0x21, 0x11, &addresses), v4),
            (binary_of(0x21, 0x12, &addresses), v4),
            (binary_of(0x21, 0x11, &with_tlv), v4),
            (binary_of(0x20, 0x00, &[]), None),
            (binary_of(0x20, 0x11, &with_tlv), None),
        ] {
            let expected = header(ProxyVersion::V2, bytes.len(), expected);
            assert_eq!(read(&[&bytes[..], b"more"].concat()), expected, "{bytes:?}");
            (0..bytes.len()).for_each(|cut| assert_eq!(read(&bytes[..cut]), Seen::NotYet, "{cut}"));
        }
        for bytes in [
            binary_of(0x21, 0x11, &addresses[..11]),
            binary_of(0x21, 0x21, &addresses),
            binary_of(0x21, 0x00, &addresses),
            binary_of(0x21, 0x31, &[0; 216]),
            binary_of(0x22, 0x11, &addresses),
            binary_of(0x11, 0x11, &addresses),
            binary_of(0x21, 0x11, &[0; 12]),
        ] {
            assert!(matches!(read(&bytes), Seen::Malformed(_)), "{bytes:?}");
        }
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let unicast = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        let not_all = |ip: &IpAddr| *ip != IpAddr::V4(Ipv4Addr::BROADCAST);
        (any::<IpAddr>().prop_filter("unicast", move |ip| unicast(ip) && not_all(ip)), any::<u16>())
            .prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            source in address(),
            destination in address(),
            version in prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)],
            rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let of_one_family = source.is_ipv4() == destination.is_ipv4();
            let ends = Ends { source, destination };
            let bytes = written(version, Some(ends));
            let expected = header(version, bytes.len(), Some(ends).filter(|_| of_one_family));
            prop_assert_eq!(read(&[&bytes[..], &rest].concat()), expected);
        }

        #[test]
        fn no_bytes_are_read_beyond_their_end_or_judged_again_otherwise(
            beginning in prop_oneof![
                Just(b"".to_vec()),
                Just(b"PROXY ".to_vec()),
                Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
                Just(SIGNATURE.to_vec()),
                Just([&SIGNATURE[..], &[0x21, 0x11]].concat()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [beginning, rest].concat();
            let whole = read(&bytes);
            if let Seen::Header { length, .. } = whole {
                prop_assert!(length <= bytes.len());
            }
            // Whatever is told of a part stays true of all.
            for cut in 0..bytes.len() {
                let part = read(&bytes[..cut]);
                prop_assert!(part == Seen::NotYet || part == whole, "{} {:?} {:?}", cut, part, whole);
            }
        }
    }
}
