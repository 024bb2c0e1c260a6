//! A client's HTTP/1 connection as the codec reads it: one request at a time, and closed in stages.
//!
//! The codec looks for the end of a connection only while nothing lies behind the request that it
//! serves. So what lies there is held here until the answer has gone, and a client that leaves
//! meanwhile is noticed. At its end a connection that the client still writes to is read on for a
//! while: closed at once, it would be reset, and the answer lost with it (RFC 9112, section 9.6).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{framing::Heads, tap::Seen};

/// Bytes behind a request that are read before its answer; a client that has sent more is not
/// noticed to have left until then.
const MOST_AHEAD: usize = 64 * 1024;
/// How long the client may take to see the end, and for any progress towards it (Envoy's
/// `delayed_close_timeout`).
pub(crate) const LINGER: Duration = Duration::from_secs(1);
const PIECE: usize = 4 * 1024;

/// The stream of a client that speaks HTTP/1.
pub(crate) struct Http1Stream<S> {
    io: S,
    heads: Heads,
    seen: Arc<Seen>,
    /// What has come behind the request that is being served.
    ahead: BytesMut,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Http1Stream<S> {
    pub(crate) fn new(io: S, seen: &Arc<Seen>) -> Self {
        Self {
            io,
            heads: Heads::default(),
            seen: Arc::clone(seen),
            ahead: BytesMut::new(),
            lingering: None,
        }
    }

    /// A request was handed on whole, and has no answer yet.
    fn is_held(&self) -> bool {
        !self.seen.is_joined()
            && self.heads.is_between()
            && self.heads.count() > self.seen.answered()
    }

    /// Reads on for as long as there is room, to learn of the end.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seen.wake_when_answered(cx);
        while self.ahead.len() < MOST_AHEAD {
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(self.poll_io(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(piece.filled());
        }
        Poll::Pending
    }

    /// Reads, and notes the end.
    fn poll_io(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == before {
            self.seen.close();
        }
        Poll::Ready(read)
    }

    /// Drops what comes until the client ends its side, for no longer than [`LINGER`].
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while !self.seen.is_closed() {
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let _ = ready!(self.poll_io(cx, &mut ReadBuf::uninit(&mut piece)));
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http1Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_held() {
            return this.read_ahead(cx);
        }
        if this.seen.is_joined() {
            this.heads.stop();
        }
        let before = buf.filled().len();
        let is_ahead = !this.ahead.is_empty();
        if is_ahead {
            buf.put_slice(&this.ahead[..this.ahead.len().min(buf.remaining())]);
        } else {
            ready!(this.poll_io(cx, buf))?;
        }
        let bytes = &buf.filled()[before..];
        let seen = &this.seen;
        let used = this.heads.read(bytes, |number, misframed| seen.misframed(number, misframed));
        if is_ahead {
            this.ahead.advance(used);
        } else {
            this.ahead.extend_from_slice(&bytes[used..]);
        }
        buf.set_filled(before + used);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http1Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.seen.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.seen.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.seen.flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        // Whoever has joined the connection to another one reads it himself.
        if !this.seen.is_joined() && !this.seen.is_closed() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    const FIRST: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
    const SECOND: &[u8] = b"GET /2 HTTP/1.1\r\n\r\n";

    async fn take(stream: &mut Http1Stream<tokio::io::DuplexStream>, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_request_comes_after_the_answer_to_the_one_before() {
        let (mut client, server) = duplex(1024);
        let seen = Arc::<Seen>::default();
        let mut stream = Http1Stream::new(server, &seen);
        client.write_all(&[FIRST, SECOND].concat()).await.unwrap();
        assert_eq!(take(&mut stream, FIRST.len()).await, FIRST);
        let reading = take(&mut stream, SECOND.len());
        tokio::pin!(reading);
        assert!(timeout(Duration::from_millis(50), reading.as_mut()).await.is_err());
        seen.answer();
        assert_eq!(reading.await, SECOND);
    }

    #[tokio::test]
    async fn the_end_is_noticed_behind_what_is_held() {
        for behind in [&b""[..], b"G", SECOND] {
            let (mut client, server) = duplex(1024);
            let mut stream = Http1Stream::new(server, &Arc::default());
            client.write_all(&[FIRST, behind].concat()).await.unwrap();
            drop(client);
            assert_eq!(take(&mut stream, FIRST.len()).await, FIRST);
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0, "{behind:?}");
        }
    }

    #[tokio::test]
    async fn what_is_joined_is_passed_as_it_comes() {
        let (mut client, server) = duplex(1024);
        let seen = Arc::<Seen>::default();
        let mut stream = Http1Stream::new(server, &seen);
        client.write_all(&[SECOND, b"raw"].concat()).await.unwrap();
        take(&mut stream, SECOND.len()).await;
        seen.join();
        assert_eq!(take(&mut stream, 3).await, b"raw");
        stream.shutdown().await.unwrap();
        client.write_all(b"more").await.unwrap();
        assert_eq!(take(&mut stream, 4).await, b"more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_the_client_but_not_for_ever() {
        let begin = Instant::now();
        let (mut client, server) = duplex(16);
        let mut stream = Http1Stream::new(server, &Arc::default());
        let writing = tokio::spawn(async move {
            client.write_all(&[b'a'; 100_000]).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        stream.shutdown().await.unwrap();
        assert!(begin.elapsed() < LINGER, "the client has ended its side");
        drop(writing.await.unwrap());

        let (_client, server) = duplex(16);
        let mut stream = Http1Stream::new(server, &Arc::default());
        let begin = Instant::now();
        timeout(10 * LINGER, stream.shutdown()).await.expect("an end").unwrap();
        assert!(begin.elapsed() >= LINGER, "{:?}", begin.elapsed());
    }
}
