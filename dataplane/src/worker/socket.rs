//! Sockets of listeners before they listen: bound by workers, and tried when a listener is accepted.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// A socket that is bound as every worker binds its own, beside those of the others.
pub(crate) fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
