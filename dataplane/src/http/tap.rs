//! A downstream connection's stream as the codec reads it, and what the codec does not tell of it: whether the client has
//! gone, and heads that can be read in two ways.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Heads, Misframed};

/// What was seen of a connection. Both sides are on one thread; the codec wants it `Send`.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    closed: AtomicBool,
    /// The first head that cannot be taken, by its number; nothing is served after it.
    misframed: OnceLock<(u64, Misframed)>,
    /// Heads of HTTP/1 that the codec has handed on.
    heads: AtomicU64,
}

impl Seen {
    /// Whether the client has closed or reset the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Counts a head that the codec hands on, and says what is wrong with it that the codec does not show.
    pub(crate) fn next_head(&self) -> Option<Misframed> {
        let number = self.heads.load(Relaxed) + 1;
        self.heads.store(number, Relaxed);
        self.misframed.get().filter(|(at, _)| *at <= number).map(|(_, misframed)| *misframed)
    }
}

/// A stream that is looked at while it is read.
pub(crate) struct Tap<S> {
    io: S,
    heads: Heads,
    seen: Arc<Seen>,
}

impl<S> Tap<S> {
    /// Taps a stream that may carry HTTP/1.
    pub(crate) fn new(io: S, seen: &Arc<Seen>) -> Self {
        Self { io, heads: Heads::default(), seen: Arc::clone(seen) }
    }

    /// Taps a stream that carries HTTP/2.
    pub(crate) fn without_heads(io: S, seen: &Arc<Seen>) -> Self {
        let mut tap = Self::new(io, seen);
        tap.heads.stop();
        tap
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, heads, seen } = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(io).poll_read(cx, buf));
        let new = &buf.filled()[before..];
        if read.is_err() || new.is_empty() {
            seen.closed.store(true, Relaxed);
        }
        heads.read(new, |number, misframed| {
            let _ = seen.misframed.set((number, misframed));
        });
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
