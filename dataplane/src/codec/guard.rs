//! A connection's stream as the codec sees it: every byte passes the [`Meter`], and a connection
//! that crosses a limit ends with a word on why, where the protocol has one.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::meter::{Excess, Meter, PREFACE, Role};
use crate::{
    runtime::limits::{HttpLimits, Limit},
    telemetry::metrics::{Direction, WorkerMetrics},
};

/// RFC 9110, section 15.5.9.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The kind of error by which a connection ends whose peer has sent what is no message, or a server
/// too much of anything. The codec
/// keeps of an error no more than its kind; neither sockets nor TLS have this one.
pub(crate) const MALFORMED: io::ErrorKind = io::ErrorKind::InvalidInput;

/// Streams that a server is taken to allow before it has said how many; the codec takes it so, too.
const FIRST_STREAMS: u32 = 100;

/// What the owner of a connection and its stream tell each other. Both are on one thread; the codec
/// wants it `Send`.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    bytes: AtomicU64,
    /// DATA frames of HTTP/2 that the peer was sent.
    data_sent: AtomicU64,
    /// Most streams at a time that the peer allows us; 0 as long as it has said nothing.
    allowed_streams: AtomicU32,
    in_head: AtomicBool,
    /// Number of the limit for which the connection is to end, from 1.
    cut: AtomicU8,
}

impl Watched {
    /// Bytes that have come so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// DATA frames of HTTP/2 that have gone to the peer.
    pub(crate) fn data_sent(&self) -> u64 {
        self.data_sent.load(Relaxed)
    }

    /// Most streams at a time that the peer allows us, and one at least: one that allows none for a
    /// while will not allow more on another connection.
    pub(crate) fn allowed_streams(&self) -> u32 {
        match self.allowed_streams.load(Relaxed) {
            0 => FIRST_STREAMS,
            allowed => allowed,
        }
    }

    /// An HTTP/2 header block has begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// Ends the connection when the codec reads or writes next.
    pub(crate) fn cut(&self, limit: Limit) {
        let number = Limit::ALL.iter().position(|other| *other == limit).unwrap_or_default();
        self.cut.store(u8::try_from(number + 1).unwrap_or(u8::MAX), Relaxed);
    }

    fn is_cut(&self) -> Option<Limit> {
        let number = usize::from(self.cut.load(Relaxed)).checked_sub(1)?;
        Limit::ALL.get(number).copied()
    }

    /// Only the stream counts, so nothing is lost between load and store.
    fn count(&self, bytes: usize) {
        self.bytes.store(self.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }
}

/// A stream under guard.
pub(crate) struct Guarded<S> {
    io: S,
    /// Counts frames; none where HTTP/1 is spoken.
    meter: Option<Box<Meter>>,
    first: First,
    watched: Arc<Watched>,
    /// What was crossed by bytes that were read and are not handed over: the next read ends.
    crossed: Option<Limit>,
    metrics: Arc<WorkerMetrics>,
    direction: Direction,
}

/// The first bytes, which have been read to tell the protocol and are read again.
#[derive(Default)]
struct First {
    bytes: [u8; PREFACE.len()],
    have: usize,
    given: usize,
}

impl First {
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.bytes[self.given..self.have];
        let piece = &rest[..rest.len().min(buf.remaining())];
        buf.put_slice(piece);
        self.given += piece.len();
        !piece.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// A client's connection; [`Self::speaks_http2`] or [`Self::meter`] says what it speaks.
    pub(crate) fn downstream(io: S, watched: &Arc<Watched>, metrics: &Arc<WorkerMetrics>) -> Self {
        let (watched, metrics) = (Arc::clone(watched), Arc::clone(metrics));
        Self {
            io,
            meter: None,
            first: First::default(),
            watched,
            crossed: None,
            metrics,
            direction: Direction::Downstream,
        }
    }

    /// A connection to a server that speaks HTTP/2.
    pub(crate) fn upstream(
        io: S,
        watched: &Arc<Watched>,
        limits: HttpLimits,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let mut guarded = Self::downstream(io, watched, metrics);
        guarded.direction = Direction::Upstream;
        guarded.count_frames(Role::Client, limits);
        guarded
    }

    /// From now on frames are counted.
    pub(crate) fn count_frames(&mut self, role: Role, limits: HttpLimits) {
        self.meter = Some(Box::new(Meter::new(role, limits, Instant::now())));
    }

    /// Whether the client begins with HTTP/2's preface (RFC 9113, section 3.4).
    pub(crate) async fn speaks_http2(&mut self) -> io::Result<bool> {
        loop {
            let First { bytes, have, .. } = &mut self.first;
            if bytes[..*have] != PREFACE[..*have] {
                return Ok(false);
            }
            if *have == PREFACE.len() {
                return Ok(true);
            }
            let read = self.io.read(&mut bytes[*have..]).await?;
            if read == 0 {
                return Ok(false);
            }
            *have += read;
            self.watched.count(read);
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.given < self.first.have && self.first.give(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.watched.count(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        let Some(meter) = &mut self.meter else { return Ok(()) };
        let within = meter.received(bytes, Instant::now);
        self.watched.in_head.store(meter.in_head(), Relaxed);
        if let Some(allowed) = meter.allowed_streams() {
            self.watched.allowed_streams.store(allowed.max(1), Relaxed);
        }
        within
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Some(meter) = &mut self.meter else { return };
        if let Some(limit) = meter.sent(bytes) {
            self.metrics.exceeded(self.direction, limit);
        }
        self.watched.data_sent.store(meter.data_sent(), Relaxed);
    }

    /// The connection's end; the peer is told why if it can be told now.
    fn end(&mut self, cx: &mut Context<'_>, limit: Limit) -> io::Error {
        let goaway = self.meter.as_ref().map(|meter| meter.goaway(limit));
        let farewell = match &goaway {
            Some(frame) => frame.as_ref().map_or(&[][..], |frame| frame),
            None if limit == Limit::HeadTime => REQUEST_TIMEOUT,
            None => &[],
        };
        // Whoever does not take it now is not waited for.
        if !farewell.is_empty() && Pin::new(&mut self.io).poll_write(cx, farewell).is_ready() {
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        self.metrics.exceeded(self.direction, limit);
        // A server that floods has broken the protocol: whoever waits for it is answered so, and
        // nothing is sent again as if it had only closed.
        let is_fault = limit.is_malformed() || self.direction == Direction::Upstream;
        let kind = if is_fault { MALFORMED } else { io::ErrorKind::Other };
        io::Error::new(kind, Crossed(limit))
    }
}

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
#[error("limit crossed: {}", .0.name())]
struct Crossed(Limit);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(limit) = this.watched.is_cut().or(this.crossed) {
            return Poll::Ready(Err(this.end(cx, limit)));
        }
        let before = buf.filled().len();
        ready!(this.poll_bytes(cx, buf))?;
        let Err(excess) = this.received(&buf.filled()[before..]) else {
            return Poll::Ready(Ok(()));
        };
        // What others have sent in the same piece is theirs.
        buf.set_filled(before + excess.before);
        if excess.before == 0 {
            return Poll::Ready(Err(this.end(cx, excess.limit)));
        }
        this.crossed = Some(excess.limit);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(limit) = this.watched.is_cut() {
            return Poll::Ready(Err(this.end(cx, limit)));
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(limit) = this.watched.is_cut() {
            return Poll::Ready(Err(this.end(cx, limit)));
        }
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let piece = &buf[..buf.len().min(left)];
            this.sent(piece);
            left -= piece.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
