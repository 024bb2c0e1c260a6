//! What an HTTP/2 peer costs beside its messages: counts the frames that pass in both directions,
//! and says when there are more than [`HttpLimits`] allow.
//!
//! The codec (h2) bounds what it keeps, but not how often it is kept busy with SETTINGS, PING,
//! PRIORITY, WINDOW_UPDATE or empty frames, and it decodes a header block before anybody can count
//! its fields. And it drops unseen what makes a message malformed. This sees the same bytes before
//! it does. Knows no socket; of messages nothing is kept but which answers have begun.

mod fields;
mod frames;
mod names;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use self::{
    fields::Fields,
    frames::{Head, Piece, Splitter, kind},
    names::{Names, Status},
};
use crate::runtime::limits::{FrameLimits, HttpLimits, Limit};

pub(crate) use self::frames::PREFACE;

/// DATA of this length counts as one frame: a peer may allow longer ones, and updates its window as
/// often.
const DATA_UNIT: u32 = 16 * 1024;
/// Window updates of a connection that has no stream yet.
const FIRST_WINDOW_UPDATES: u64 = 5;
/// What RST_STREAM says of a stream that was not begun, since there are too many (RFC 9113, section
/// 7).
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
/// Response heads for each request: the answer, trailers and informational ones (RFC 9110, section
/// 15.2).
const HEADS_PER_REQUEST: u64 = 100;

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2).
const MOST_STREAMS: [u8; 2] = [0, 3];

/// Header blocks with too many fields that a connection may send whatever else it sends, and half
/// of all.
const MOST_OVER: u64 = 16;

/// Which side of the connection we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: HttpLimits,
    role: Role,
    inbound: Splitter,
    outbound: Splitter,
    payload: Payload,
    /// The header block that is coming in.
    block: Option<Fields>,
    /// It belongs to a stream that has begun before.
    is_trailer: bool,
    names: Names,
    /// The frame that is coming in is the last one of the block.
    ends_block: bool,
    /// Answers that our requests wait for or that have not ended; nothing where we are the server.
    answers: FxHashMap<u32, Answer>,
    /// The stream of the header block, and whether it ends with it.
    block_of: (u32, bool),
    /// Streams that the client has opened; trailers count again, which is to the peer's favour.
    streams: u64,
    last_stream: u32,
    heads: u64,
    /// Header blocks with more fields than are allowed.
    over: u64,
    resets: u64,
    data_sent: u64,
    priorities: u64,
    window_updates: u64,
    empty: u32,
    control: Control,
    /// Most streams at a time that the peer allows us; nothing before its first SETTINGS.
    allowed: Option<u32>,
}

/// What a peer has done too much, or wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Excess {
    /// The limit that it has crossed.
    pub(crate) limit: Limit,
    /// How many of the bytes came before the frame that has crossed it.
    pub(crate) before: usize,
}

/// How far the answer to a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// There is none, or no final one.
    Awaited,
    /// Its head has come: what follows are trailers.
    Begun,
}

/// What the payload that is coming in is looked at for.
#[derive(Debug)]
enum Payload {
    Skipped,
    /// DATA that may be nothing but padding.
    PaddedData {
        length: u32,
    },
    /// Header fields, after the length of the padding and a priority.
    Block {
        padded: bool,
        skip: u32,
        fields: u32,
    },
    /// Settings, of which one may have come in part.
    Settings {
        bytes: [u8; 6],
        have: usize,
    },
}

impl Meter {
    /// Of a connection that begins at `now`.
    pub(crate) fn new(role: Role, limits: HttpLimits, now: Instant) -> Self {
        Self {
            role,
            inbound: Splitter::new(role == Role::Server),
            outbound: Splitter::new(role == Role::Client),
            payload: Payload::Skipped,
            block: None,
            is_trailer: false,
            names: Names::new(),
            ends_block: false,
            answers: FxHashMap::default(),
            block_of: (0, false),
            streams: 0,
            last_stream: 0,
            heads: 0,
            over: 0,
            resets: 0,
            data_sent: 0,
            priorities: 0,
            window_updates: 0,
            empty: 0,
            control: Control { left: limits.frames.control, earned: 0, since: now },
            allowed: None,
            limits,
        }
    }

    /// Takes note of bytes from the peer. `now` is asked for only when the allowance of control
    /// frames is used up.
    ///
    /// # Errors
    /// Which limit is crossed, and where; the connection is to be closed.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Excess> {
        let (mut rest, mut before) = (bytes, 0);
        while let Some(piece) = self.inbound.next(&mut rest) {
            let within = match piece {
                Piece::Head(head) => {
                    // A frame whose head has begun to come before begins before these bytes.
                    before = (bytes.len() - rest.len()).saturating_sub(frames::HEAD);
                    self.begins(head, &now)
                }
                Piece::Payload(payload) => self.goes_on(payload),
            };
            within.map_err(|limit| Excess { limit, before })?;
        }
        Ok(())
    }

    /// Takes note of bytes to the peer; tells of a stream that the codec has refused because there
    /// are too many.
    pub(crate) fn sent(&mut self, mut bytes: &[u8]) -> Option<Limit> {
        let mut refused = None;
        while let Some(piece) = self.outbound.next(&mut bytes) {
            let Piece::Head(head) = piece else { continue };
            match head.kind {
                kind::HEADERS => {
                    self.asks(head.stream);
                    self.control.earn();
                }
                kind::DATA => {
                    self.data_sent += u64::from(head.length.div_ceil(DATA_UNIT).max(1));
                    self.control.earn();
                }
                kind::RST_STREAM => {
                    self.answers.remove(&head.stream);
                    if bytes.first_chunk() == Some(&REFUSED_STREAM) {
                        refused = Some(Limit::Streams);
                    }
                }
                _ => {}
            }
        }
        refused
    }

    /// Most streams at a time that the peer allows us, once it has said anything of itself.
    pub(crate) fn allowed_streams(&self) -> Option<u32> {
        self.allowed
    }

    /// DATA frames that were sent.
    pub(crate) fn data_sent(&self) -> u64 {
        self.data_sent
    }

    /// A head or trailers of ours begin.
    fn asks(&mut self, stream: u32) {
        if self.role == Role::Server {
            return;
        }
        self.streams += 1;
        if stream > self.last_stream {
            self.last_stream = stream;
            self.answers.insert(stream, Answer::Awaited);
        }
    }

    /// A header block has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        self.block.is_some()
    }

    /// GOAWAY with PROTOCOL_ERROR for what is malformed, else ENHANCE_YOUR_CALM (RFC 9113, section
    /// 7), if a frame may be written now.
    pub(crate) fn goaway(&self, limit: Limit) -> Option<[u8; 17]> {
        if !self.outbound.between_frames() {
            return None;
        }
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
        let last = if self.role == Role::Server { self.last_stream } else { 0 };
        frame[9..13].copy_from_slice(&last.to_be_bytes());
        if limit.is_malformed() {
            frame[16] = 1;
        }
        Some(frame)
    }

    fn begins(&mut self, head: Head, now: &impl Fn() -> Instant) -> Result<(), Limit> {
        self.payload = Payload::Skipped;
        match head.kind {
            kind::DATA => self.data(head),
            kind::HEADERS => self.headers(head),
            kind::CONTINUATION => self.continuation(head),
            kind::PRIORITY => {
                self.priorities += 1;
                let most = u64::from(self.limits.frames.priority_per_stream) * (1 + self.streams);
                within(self.priorities, most, Limit::PriorityFrames)
            }
            kind::WINDOW_UPDATE => {
                self.window_updates += 1;
                let for_data =
                    u64::from(self.limits.frames.window_updates_per_data) * self.data_sent;
                within(
                    self.window_updates,
                    FIRST_WINDOW_UPDATES + 2 * (self.streams + for_data),
                    Limit::WindowUpdates,
                )
            }
            kind::RST_STREAM => {
                self.resets += 1;
                self.answers.remove(&head.stream);
                // Each stream can end so once.
                if self.resets <= self.streams {
                    Ok(())
                } else {
                    self.control.spend(&self.limits, now)
                }
            }
            kind::SETTINGS => {
                if !head.is_acknowledgement() {
                    self.allowed.get_or_insert(u32::MAX);
                    self.payload = Payload::Settings { bytes: [0; 6], have: 0 };
                }
                self.control.spend(&self.limits, now)
            }
            // The codec refuses it, since push is not enabled.
            kind::PUSH_PROMISE => Ok(()),
            _ => self.control.spend(&self.limits, now),
        }
    }

    fn data(&mut self, head: Head) -> Result<(), Limit> {
        if head.ends_stream() {
            self.answers.remove(&head.stream);
        }
        if head.is_padded() && !head.ends_stream() {
            self.payload = Payload::PaddedData { length: head.length };
            return Ok(());
        }
        self.content(head.length, head.ends_stream())
    }

    /// A frame with `length` bytes of a message.
    fn content(&mut self, length: u32, ends: bool) -> Result<(), Limit> {
        if length > 0 || ends {
            self.empty = 0;
            self.control.earn();
            return Ok(());
        }
        self.empty += 1;
        within(self.empty.into(), self.limits.frames.empty.into(), Limit::EmptyFrames)
    }

    fn headers(&mut self, head: Head) -> Result<(), Limit> {
        match self.role {
            Role::Server => {
                self.streams += 1;
                self.is_trailer = head.stream <= self.last_stream;
                self.last_stream = self.last_stream.max(head.stream);
            }
            Role::Client => {
                self.heads += 1;
                within(self.heads, HEADS_PER_REQUEST * (1 + self.streams), Limit::Informational)?;
                self.is_trailer = self.answers.get(&head.stream) == Some(&Answer::Begun);
            }
        }
        self.block_of = (head.stream, head.ends_stream());
        self.block = Some(Fields::new());
        let skip = if head.has_priority() { 5 } else { 0 };
        let around = skip + u32::from(head.is_padded());
        self.payload = Payload::Block {
            padded: head.is_padded(),
            skip,
            fields: head.length.saturating_sub(around),
        };
        self.block_piece(head)
    }

    fn continuation(&mut self, head: Head) -> Result<(), Limit> {
        // Of a block that was cut within a field, the codec forgets what was wrong with the fields
        // before the cut.
        if self.block.as_ref().is_some_and(|block| block.is_malformed) {
            return Err(Limit::MalformedHead);
        }
        self.payload = Payload::Block { padded: false, skip: 0, fields: head.length };
        self.block_piece(head)
    }

    /// One of the frames that a header block comes in.
    fn block_piece(&mut self, head: Head) -> Result<(), Limit> {
        // An empty piece may end the block, and is nothing of it otherwise.
        self.content(head.length, head.ends_headers())?;
        self.ends_block = head.ends_headers();
        self.end_block()
    }

    fn goes_on(&mut self, bytes: &[u8]) -> Result<(), Limit> {
        match &mut self.payload {
            Payload::Skipped => Ok(()),
            Payload::PaddedData { length } => {
                let data = length.saturating_sub(1 + padding(bytes));
                self.payload = Payload::Skipped;
                self.content(data, false)
            }
            Payload::Block { padded, skip, fields } => {
                let mut rest = bytes;
                if std::mem::take(padded) {
                    *fields = fields.saturating_sub(padding(rest));
                    rest = &rest[1..];
                }
                cut(&mut rest, skip);
                let piece = cut(&mut rest, fields);
                self.count_fields(piece)
            }
            Payload::Settings { bytes: setting, have } => {
                for byte in bytes {
                    setting[*have] = *byte;
                    *have = (*have + 1) % setting.len();
                    let [a, b, value @ ..] = *setting;
                    if *have == 0 && [a, b] == MOST_STREAMS {
                        self.allowed = Some(u32::from_be_bytes(value));
                    }
                }
                Ok(())
            }
        }
    }

    fn count_fields(&mut self, piece: &[u8]) -> Result<(), Limit> {
        if let Some(block) = &mut self.block {
            block.take(piece, &mut self.names);
            if self.is_trailer && block.has_pseudo {
                return Err(Limit::PseudoTrailers);
            }
            let most = u64::from(self.limits.headers) * u64::from(HttpLimits::ABUSE);
            within(block.count.into(), most, Limit::Headers)?;
        }
        self.end_block()
    }

    fn end_block(&mut self) -> Result<(), Limit> {
        if !self.ends_block || !self.inbound.between_frames() {
            return Ok(());
        }
        let block = self.block.take();
        if let Some(block) = block.as_ref().filter(|_| self.role == Role::Client) {
            self.answered(block)?;
        }
        // Each is refused alone; whoever sends little else keeps the decoder busy with nothing.
        let is_over = block.is_some_and(|block| block.count > self.limits.headers);
        self.over += u64::from(is_over);
        let most = if is_over { MOST_OVER.max(self.streams / 2) } else { u64::MAX };
        within(self.over, most, Limit::Headers)
    }
}

impl Meter {
    /// A header block of a server has ended. What its codec refuses is left to that.
    fn answered(&mut self, block: &Fields) -> Result<(), Limit> {
        if block.has_foreign || block.status == Some(Status::Switching) {
            return Err(Limit::MalformedHead);
        }
        let (stream, ends) = self.block_of;
        if ends {
            self.answers.remove(&stream);
        } else if block.status == Some(Status::Final)
            && let Some(answer) = self.answers.get_mut(&stream)
        {
            *answer = Answer::Begun;
        }
        Ok(())
    }
}

/// The length of a frame's padding, which its payload begins with.
fn padding(payload: &[u8]) -> u32 {
    payload.first().map_or(0, |length| u32::from(*length))
}

/// Takes as much of `most` as there is, off both.
fn cut<'a>(bytes: &mut &'a [u8], most: &mut u32) -> &'a [u8] {
    let length = bytes.len().min(*most as usize);
    let (piece, rest) = bytes.split_at(length);
    *bytes = rest;
    *most -= u32::try_from(length).unwrap_or(*most);
    piece
}

fn within(count: u64, most: u64, limit: Limit) -> Result<(), Limit> {
    if count <= most { Ok(()) } else { Err(limit) }
}

/// The allowance of control frames.
#[derive(Debug)]
struct Control {
    left: u32,
    /// Frames of messages since `since`.
    earned: u32,
    /// When the allowance was filled up last.
    since: Instant,
}

impl Control {
    fn earn(&mut self) {
        self.earned = self.earned.saturating_add(1);
    }

    fn spend(&mut self, limits: &HttpLimits, now: &impl Fn() -> Instant) -> Result<(), Limit> {
        if self.left == 0 {
            let now = now();
            let waited = now.duration_since(self.since).as_millis()
                * u128::from(FrameLimits::CONTROL_PER_SECOND)
                / 1000;
            let waited = u32::try_from(waited).unwrap_or(u32::MAX);
            let left = self.earned.saturating_add(waited).min(limits.frames.control);
            *self = Self { left, earned: 0, since: now };
        }
        self.left = self.left.checked_sub(1).ok_or(Limit::ControlFrames)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
