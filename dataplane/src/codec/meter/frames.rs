//! Cuts a stream of bytes into the frames of HTTP/2 (RFC 9113, section 4.1) without keeping any of
//! them.

/// What a connection of HTTP/2 begins with, from the client (RFC 9113, section 3.4).
pub(crate) const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;

/// Kinds of frames (RFC 9113, section 6).
pub(super) mod kind {
    pub(in crate::codec::meter) const DATA: u8 = 0;
    pub(in crate::codec::meter) const HEADERS: u8 = 1;
    pub(in crate::codec::meter) const PRIORITY: u8 = 2;
    pub(in crate::codec::meter) const RST_STREAM: u8 = 3;
    pub(in crate::codec::meter) const SETTINGS: u8 = 4;
    pub(in crate::codec::meter) const PUSH_PROMISE: u8 = 5;
    pub(in crate::codec::meter) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::codec::meter) const CONTINUATION: u8 = 9;
}

/// A frame's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn ends_stream(self) -> bool {
        self.flags & 0x1 != 0
    }

    /// Of SETTINGS: it says that ours were received, and nothing else.
    pub(super) fn is_acknowledgement(self) -> bool {
        self.flags & 0x1 != 0
    }

    pub(super) fn ends_headers(self) -> bool {
        self.flags & 0x4 != 0
    }

    pub(super) fn is_padded(self) -> bool {
        self.flags & 0x8 != 0
    }

    pub(super) fn has_priority(self) -> bool {
        self.flags & 0x20 != 0
    }

    fn parse([a, b, c, kind, flags, stream @ ..]: [u8; HEAD]) -> Self {
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        Self { length: u32::from_be_bytes([0, a, b, c]), kind, flags, stream }
    }
}

/// A piece of the stream.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Head(Head),
    /// Some of the frame's payload.
    Payload(&'a [u8]),
}

/// Where in the stream we are.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Bytes of the preface or of a payload that are still to come.
    left: u32,
    in_preface: bool,
    head: [u8; HEAD],
    have: u8,
}

impl Splitter {
    /// Of a side that begins with the preface, or with a frame.
    pub(super) fn new(with_preface: bool) -> Self {
        let left = if with_preface { PREFACE.len() as u32 } else { 0 };
        Self { left, in_preface: with_preface, head: [0; HEAD], have: 0 }
    }

    /// Nothing of a frame has come that has not come whole.
    pub(super) fn between_frames(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// The next piece; takes it off `bytes`.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let piece = self.payload(bytes);
                let of_preface = self.in_preface;
                self.in_preface = of_preface && self.left > 0;
                if of_preface {
                    continue;
                }
                return Some(Piece::Payload(piece));
            }
            if let Some(head) = self.head(bytes) {
                self.left = head.length;
                return Some(Piece::Head(head));
            }
        }
        None
    }

    fn payload<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let length = bytes.len().min(self.left as usize);
        let (piece, rest) = bytes.split_at(length);
        *bytes = rest;
        self.left -= u32::try_from(length).unwrap_or(self.left);
        piece
    }

    fn head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let have = usize::from(self.have);
        let length = bytes.len().min(HEAD - have);
        let (part, rest) = bytes.split_at(length);
        *bytes = rest;
        self.head[have..have + length].copy_from_slice(part);
        self.have = ((have + length) % HEAD) as u8;
        (self.have == 0).then(|| Head::parse(self.head))
    }
}
