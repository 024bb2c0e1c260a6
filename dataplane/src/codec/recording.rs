//! What is remembered of a request body while it streams, up to a limit and within what all bodies
//! may take: all of it as long as another attempt may need it, and for mirrors what they have not
//! read yet.
//!
//! A mirror follows the body as it comes, and ends as it does: unfinished, if it never comes whole.
//! One that lags behind by more than the limit is left behind, so that it slows nobody.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{
    blame::RequestBodyError,
    progress::{Progress, Trailers},
};

/// Bytes that are kept of any body, whatever others take.
const OWN_SHARE: usize = 16 * 1024;
/// Most bytes that all bodies of the process keep beyond their own shares, so that slow uploads
/// cannot take its memory.
const ALL_KEPT: usize = 64 * 1024 * 1024;
/// Pieces of fewer bytes are joined to one.
const PIECE: usize = 4 * 1024;

/// A request body that several attempts may read from its beginning, and mirrors beside them.
pub(crate) struct Recording {
    kept: RefCell<Kept>,
    /// Only the newest reader may read.
    newest: Cell<u32>,
    size_hint: SizeHint,
    /// Another attempt may follow.
    is_needed: Cell<bool>,
    /// The newest reader has read all that is kept.
    read_up: Cell<bool>,
    progress: Rc<Progress>,
}

/// Bytes that all bodies of the process keep beyond their own shares.
#[derive(Default, Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Relaxed);
        let fits = taken.saturating_add(bytes) <= ALL_KEPT;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// How far a mirror has read.
#[derive(Default)]
struct Place {
    bytes: Cell<usize>,
    is_left_behind: Cell<bool>,
}

/// Some of a body.
struct Piece {
    /// Bytes before it.
    start: usize,
    bytes: Bytes,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }
}

/// What has come of a recorded body.
struct Kept {
    /// In their order, without gaps up to `recorded`.
    pieces: VecDeque<Piece>,
    /// Bytes that have come.
    recorded: usize,
    /// Most bytes that are kept for another attempt, and most by which a mirror may lag behind.
    limit: usize,
    budget: Arc<Budget>,
    /// Bytes that count against the budget.
    taken: usize,
    trailers: Option<HeaderMap>,
    /// It is there from its first byte, as another attempt needs it.
    is_whole: bool,
    mirrors: Vec<Weak<Place>>,
}

impl Recording {
    /// Records what was read ahead and what comes from now on: `limit` bytes, within `budget`.
    pub(crate) fn new(progress: &Rc<Progress>, limit: usize, budget: &Arc<Budget>) -> Rc<Self> {
        let size_hint = progress.size_hint();
        Rc::new(Self {
            kept: RefCell::new(Kept::begin(progress, limit, budget)),
            newest: Cell::new(0),
            is_needed: Cell::new(true),
            read_up: Cell::new(false),
            size_hint,
            progress: Rc::clone(progress),
        })
    }

    /// Whether another attempt can have the whole body.
    pub(crate) fn can_replay(&self) -> bool {
        self.kept.borrow().is_whole && self.progress.fault().is_none()
    }

    /// Reads from the first byte, if there is anything to read; earlier readers stop.
    pub(super) fn reader(self: &Rc<Self>) -> Option<Reader> {
        let kept = self.kept.borrow();
        if self.is_complete() && kept.recorded == 0 && kept.trailers.is_none() {
            return None;
        }
        let number = self.newest.get() + 1;
        self.newest.set(number);
        self.read_up.set(false);
        let recording = Rc::clone(self);
        Some(Reader { recording, number, next: 0, trailers_sent: false })
    }

    /// A mirror's reader, which gets whatever comes of the body; only before anybody reads it.
    pub(crate) fn follower(self: &Rc<Self>, trailers: Trailers) -> Follower {
        let place = Rc::<Place>::default();
        self.kept.borrow_mut().mirrors.push(Rc::downgrade(&place));
        Follower { body: Followed { recording: Rc::clone(self), place }, trailers: Some(trailers) }
    }

    /// Keeps no more than what the newest reader and mirrors have still to read: there will be no
    /// other attempt.
    pub(crate) fn forget(&self) {
        self.is_needed.set(false);
        if self.read_up.get() {
            self.kept.borrow_mut().let_go();
        }
    }

    /// Reads what has arrived, for mirrors, where no attempt reads on; earlier readers stop.
    pub(crate) async fn take_arrived(&self) {
        self.newest.set(self.newest.get() + 1);
        // The codec gives what it has to whoever has asked for it before.
        for _ in 0..2 {
            self.read_arrived();
            if self.is_complete() {
                return;
            }
            tokio::task::yield_now().await;
        }
        self.read_arrived();
    }

    fn read_arrived(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = self.progress.poll_frame(&mut cx) {
            self.kept.borrow_mut().record(&frame);
        }
        self.progress.wake_followers();
    }

    fn is_complete(&self) -> bool {
        self.progress.is_end_stream()
    }
}

/// One attempt's view of a recorded body.
pub(crate) struct Reader {
    recording: Rc<Recording>,
    number: u32,
    /// Bytes that were read.
    next: usize,
    trailers_sent: bool,
}

impl Reader {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.number != self.recording.newest.get() {
            return Poll::Ready(Some(Err(RequestBodyError::Superseded)));
        }
        let mut kept = self.recording.kept.borrow_mut();
        if let Some(bytes) = kept.after(self.next) {
            self.next += bytes.len();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.recording.is_complete() {
            let trailers =
                kept.trailers.clone().filter(|_| !std::mem::replace(&mut self.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        self.recording.read_up.set(true);
        if !self.recording.is_needed.get() {
            kept.let_go();
        }
        let frame = ready!(self.recording.progress.poll_upload(cx));
        if let Some(Ok(frame)) = &frame {
            kept.record(frame);
            self.next = kept.recorded;
            self.trailers_sent |= frame.is_trailers();
        }
        self.recording.progress.wake_followers();
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = self.recording.kept.borrow();
        self.recording.is_complete()
            && self.next >= kept.recorded
            && (kept.trailers.is_none() || self.trailers_sent)
            && self.number == self.recording.newest.get()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.recording.size_hint
    }
}

/// The body that a mirror follows.
#[derive(Clone)]
pub(crate) struct Followed {
    recording: Rc<Recording>,
    place: Rc<Place>,
}

impl Followed {
    /// Returns when it is certain that the mirror will not get the whole body; for ever if it does.
    pub(crate) async fn broken(&self) {
        poll_fn(|cx| {
            if self.why_broken().is_some() {
                return Poll::Ready(());
            }
            self.recording.progress.wake_when_read(cx);
            Poll::Pending
        })
        .await;
    }

    fn why_broken(&self) -> Option<RequestBodyError> {
        let progress = &self.recording.progress;
        match progress.fault() {
            _ if self.place.is_left_behind.get() => Some(RequestBodyError::LeftBehind),
            Some(fault) => Some(fault.into()),
            None if progress.is_over() && !progress.is_passed_on() => {
                Some(RequestBodyError::Unfinished)
            }
            None => None,
        }
    }
}

/// A mirror's view of a recorded body. Reads what the attempt's reader has read, or
/// [`Recording::take_arrived`].
pub(crate) struct Follower {
    body: Followed,
    /// What becomes of them; nothing once they are sent.
    trailers: Option<Trailers>,
}

impl Follower {
    /// The body that it follows.
    pub(crate) fn followed(&self) -> Followed {
        self.body.clone()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Followed { recording, place } = &self.body;
        if place.is_left_behind.get() {
            return Poll::Ready(Some(Err(RequestBodyError::LeftBehind)));
        }
        if let Some(bytes) = recording.kept.borrow().after(place.bytes.get()) {
            place.bytes.set(place.bytes.get() + bytes.len());
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(why) = self.body.why_broken() {
            return Poll::Ready(Some(Err(why)));
        }
        if recording.progress.is_passed_on() {
            let sent = self.trailers.take() == Some(Trailers::Kept);
            let trailers = recording.kept.borrow().trailers.clone().filter(|_| sent);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        recording.progress.wake_when_read(cx);
        Poll::Pending
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let Followed { recording, place } = &self.body;
        let kept = recording.kept.borrow();
        let has_trailers = self.trailers == Some(Trailers::Kept) && kept.trailers.is_some();
        recording.progress.is_passed_on() && place.bytes.get() >= kept.recorded && !has_trailers
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.recording.size_hint
    }
}

impl Kept {
    /// What was read ahead is kept at once, or left where it is.
    fn begin(progress: &Progress, limit: usize, budget: &Arc<Budget>) -> Self {
        let mut kept = Self {
            pieces: VecDeque::new(),
            recorded: 0,
            limit,
            budget: Arc::clone(budget),
            taken: 0,
            trailers: None,
            is_whole: true,
            mirrors: Vec::new(),
        };
        let ahead = progress.take_ahead();
        ahead.iter().for_each(|frame| kept.record(frame));
        if !kept.is_whole {
            (kept.recorded, kept.trailers) = (0, None);
            progress.unread(ahead);
        }
        kept
    }

    /// What follows so many bytes.
    fn after(&self, bytes: usize) -> Option<Bytes> {
        let at = self.pieces.partition_point(|piece| piece.end() <= bytes);
        let piece = self.pieces.get(at)?;
        Some(piece.bytes.slice(bytes.checked_sub(piece.start)?..))
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(chunk) = frame.data_ref().filter(|chunk| !chunk.is_empty()) else { return };
        if !self.is_whole {
            self.drop_read();
        }
        let fits = self.recorded + chunk.len() <= self.limit;
        if self.is_whole && !(fits && self.has_room(chunk.len())) {
            self.let_go();
        }
        let is_kept = self.is_whole || (self.has_followers() && self.has_room(chunk.len()));
        if is_kept {
            self.push(chunk);
        } else {
            self.drop_all();
        }
        self.recorded += chunk.len();
    }

    /// Whether so many bytes more are within the budget, which they then count against.
    fn has_room(&mut self, more: usize) -> bool {
        let held = self.held() + more;
        let more = held.saturating_sub(OWN_SHARE).saturating_sub(self.taken);
        let has_room = more == 0 || self.budget.take(more);
        self.taken += if has_room { more } else { 0 };
        has_room
    }

    fn held(&self) -> usize {
        self.pieces.front().map_or(0, |first| self.recorded - first.start)
    }

    /// Copied, since a few bytes would keep the whole buffer that the codec has read them into.
    /// Small pieces double before they are joined, so that each byte is copied a few times only.
    fn push(&mut self, chunk: &[u8]) {
        let (mut length, mut from) = (chunk.len(), self.pieces.len());
        while let Some(last) = from.checked_sub(1).map(|at| &self.pieces[at].bytes)
            && last.len() < PIECE
            && last.len() <= length
        {
            length += last.len();
            from -= 1;
        }
        let mut joined = Vec::with_capacity(length);
        self.pieces.drain(from..).for_each(|small| joined.extend_from_slice(&small.bytes));
        let start = self.recorded - joined.len();
        joined.extend_from_slice(chunk);
        self.pieces.push_back(Piece { start, bytes: joined.into() });
    }

    /// No other attempt needs it.
    fn let_go(&mut self) {
        self.is_whole = false;
        self.drop_read();
    }

    /// Drops what no mirror has still to read, and the mirrors that lag too far behind.
    fn drop_read(&mut self) {
        let (recorded, limit) = (self.recorded, self.limit);
        let mut least = recorded;
        self.mirrors.retain(|mirror| {
            let Some(place) = mirror.upgrade() else { return false };
            let is_near = recorded - place.bytes.get() <= limit;
            place.is_left_behind.set(!is_near);
            least = if is_near { least.min(place.bytes.get()) } else { least };
            is_near
        });
        while self.pieces.front().is_some_and(|first| first.end() <= least) {
            self.pieces.pop_front();
        }
        let counted = self.held().saturating_sub(OWN_SHARE);
        self.budget.give_back(self.taken.saturating_sub(counted));
        self.taken = self.taken.min(counted);
    }

    fn has_followers(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// Keeps nothing, for nobody.
    fn drop_all(&mut self) {
        let mirrors = self.mirrors.drain(..).filter_map(|mirror| mirror.upgrade());
        mirrors.for_each(|place| place.is_left_behind.set(true));
        self.pieces.clear();
        self.budget.give_back(std::mem::take(&mut self.taken));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests;
