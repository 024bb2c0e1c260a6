//! A connection's stream as the codec reads it, and what the codec does not tell of it: of a client
//! whether it has gone, and (see [`super::http1_stream`]) heads that can be read in two ways; of a
//! server whether it has said anything.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{framing::Misframed, through::written_through};

/// What was seen of a connection. Both sides are on one thread; the codec wants it `Send`.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    closed: AtomicBool,
    /// The first head that cannot be taken, by its number; nothing is served after it.
    misframed: OnceLock<(u64, Misframed)>,
    /// Heads of HTTP/1 that the codec has handed on.
    heads: AtomicU64,
    /// Requests that are over.
    answered: AtomicU64,
    /// The connection carries another protocol than HTTP.
    joined: AtomicBool,
    /// The client of HTTP/1 does not take what is to be written.
    blocked: AtomicBool,
    /// How often it has taken some.
    taken: AtomicU64,
    /// Who waits for a request to be over, or for the client to take what was written.
    waiting: AtomicWaker,
}

impl Seen {
    /// Whether the client has closed or reset the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// How many requests are over.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// A request is over.
    pub(crate) fn answer(&self) {
        self.answered.store(self.answered() + 1, Relaxed);
        self.waiting.wake();
    }

    /// What comes from now on is of no concern to HTTP.
    pub(crate) fn join(&self) {
        self.joined.store(true, Relaxed);
        self.waiting.wake();
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.joined.load(Relaxed)
    }

    /// Wakes the caller when a request is over.
    pub(crate) fn wake_when_answered(&self, cx: &Context<'_>) {
        self.waiting.register(cx.waker());
    }

    /// Some was written, or the client takes nothing now.
    pub(crate) fn wrote(&self, is_taken: bool) {
        if is_taken {
            self.taken.store(self.taken() + 1, Relaxed);
        } else {
            self.blocked.store(true, Relaxed);
        }
    }

    /// All was written, or the client does not take all of it now.
    pub(crate) fn flushed(&self, is_all: bool) {
        if self.blocked.swap(!is_all, Relaxed) && is_all {
            self.waiting.wake();
        }
    }

    /// Whether something is left to be written which the client does not take now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// How often the client has taken some of what was written.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Wakes the caller when everything is written.
    pub(crate) fn wake_when_written(&self, cx: &Context<'_>) {
        self.waiting.register(cx.waker());
    }

    /// Head number `number` cannot be taken; only the first such is noted.
    pub(crate) fn misframed(&self, number: u64, misframed: Misframed) {
        let _ = self.misframed.set((number, misframed));
    }

    /// Counts a head that the codec hands on, and says what is wrong with it that the codec does
    /// not show.
    pub(crate) fn next_head(&self) -> Option<Misframed> {
        let number = self.heads.load(Relaxed) + 1;
        self.heads.store(number, Relaxed);
        self.misframed.get().filter(|(at, _)| *at <= number).map(|(_, misframed)| *misframed)
    }
}

/// Looks at what comes in on a stream.
pub(crate) trait Observer {
    /// New bytes were read; none when the stream has ended or broken.
    fn observe(&mut self, bytes: &[u8]);
}

/// Notes when a client that speaks HTTP/2 has gone.
pub(crate) struct Client(pub(crate) Arc<Seen>);

impl Observer for Client {
    fn observe(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.0.close();
        }
    }
}

/// Notes when a server says something. Both sides are on one thread; the codec wants it `Send`.
pub(crate) struct Heard(pub(crate) Arc<AtomicBool>);

impl Observer for Heard {
    fn observe(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.store(true, Relaxed);
        }
    }
}

/// A stream that is looked at while it is read.
pub(crate) struct Tap<S, O> {
    io: S,
    observer: O,
}

impl<S, O> Tap<S, O> {
    pub(crate) fn new(io: S, observer: O) -> Self {
        Self { io, observer }
    }
}

impl<S: AsyncRead + Unpin, O: Observer + Unpin> AsyncRead for Tap<S, O> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, observer } = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(io).poll_read(cx, buf));
        observer.observe(if read.is_ok() { &buf.filled()[before..] } else { &[] });
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin, O: Unpin> AsyncWrite for Tap<S, O> {
    written_through!(io);

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
