//! Where a redirected connection wanted to go, and the stream type that replays what the inspectors have read.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

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
        IpAddr::V6(v6) => SocketAddr::new(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4), address.port()),
        IpAddr::V4(_) => address,
    }
}

/// A TCP stream whose first bytes have been read already and are read again from `prefix`.
#[derive(Debug)]
pub struct Replayed {
    prefix: Bytes,
    stream: TcpStream,
}

impl Replayed {
    /// Puts `prefix` before what `stream` still has to say.
    pub fn new(prefix: Bytes, stream: TcpStream) -> Self {
        Self { prefix, stream }
    }
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_prefix_is_read_before_the_rest() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(original_destination(&server), None);
        client.write_all(b"world").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        Replayed::new(Bytes::from_static(b"hello "), server).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
    }

    #[test]
    fn mapped_addresses_are_unmapped() {
        for (text, expected) in
            [("[::ffff:10.0.0.1]:80", "10.0.0.1:80"), ("[::1]:80", "[::1]:80"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(unmapped(text.parse().unwrap()), expected.parse().unwrap(), "{text}");
        }
    }
}
