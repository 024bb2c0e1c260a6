//! Where a redirected connection wanted to go.

use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination before a netfilter REDIRECT, or `None` when the connection was not redirected.
///
/// An IPv4 peer on a dual-stack socket is asked for both ways; mapped addresses are unmapped.
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let asked = socket.original_dst_v4().ok().or_else(|| socket.original_dst_v6().ok())?;
    let address = unmapped(asked.as_socket()?);
    (Some(address) != stream.local_addr().ok().map(unmapped)).then_some(address)
}

/// The address with an IPv4-mapped IPv6 form taken back to IPv4.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => {
            SocketAddr::new(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4), address.port())
        }
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_has_no_other_destination() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(original_destination(&server), None);
    }

    #[test]
    fn mapped_addresses_are_unmapped() {
        for (text, expected) in [
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(unmapped(text.parse().unwrap()), expected.parse().unwrap(), "{text}");
        }
    }
}
