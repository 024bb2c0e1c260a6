//! What must be remembered of a header table (RFC 7541, section 2.3) to tell pseudo headers: which
//! entries have such a name, and their sizes, by which they go. No text is kept.

use std::collections::VecDeque;

/// Room for entries unless the peer asks for less (RFC 9113, section 6.5.2); our codec never offers
/// more.
const ROOM: u32 = 4096;
/// What each entry takes beside its text (RFC 7541, section 4.1).
const AROUND_AN_ENTRY: u32 = 32;
/// Pseudo headers come first in the static table, and those of a response behind those of a request.
const PSEUDO_NAMES: u32 = 14;
/// Lengths of the names in the static table (RFC 7541, appendix A).
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];
/// How many symbols have a code of each length (RFC 7541, appendix B); codes of one length follow
/// one another.
const CODES: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];

/// Place of `transfer-encoding` in the static table.
const TRANSFER_ENCODING: u32 = 56;
/// Fields that speak of a connection (RFC 9113, section 8.2.2), as text and in Huffman codes.
const OF_CONNECTIONS: [(&[u8], &[u8]); 5] = [
    (b"connection", &[0x21, 0xea, 0xa8, 0xa4, 0x49, 0x8f, 0x57]),
    (b"keep-alive", &[0xea, 0x52, 0xd6, 0xb0, 0xe8, 0x37, 0x72, 0xff]),
    (
        b"proxy-connection",
        &[0xae, 0xc3, 0xf9, 0xf4, 0xb1, 0x0f, 0x55, 0x45, 0x22, 0x4c, 0x7a, 0xbf],
    ),
    (
        b"transfer-encoding",
        &[0x4d, 0x83, 0xa9, 0x12, 0x96, 0xc5, 0x8b, 0x51, 0x0f, 0x21, 0xaa, 0x9b],
    ),
    (b"upgrade", &[0xb6, 0xb9, 0xac, 0x1c, 0x85]),
];
/// Pseudo headers (RFC 9113, section 8.3), each of which a message has once: those of a request, and
/// at [`STATUS`] the one of a response.
const PSEUDO: [(&[u8], &[u8]); 5] = [
    (b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]),
    (b":method", &[0xb9, 0x49, 0x53, 0x39, 0xe4]),
    (b":path", &[0xb9, 0x58, 0xd3, 0x3f]),
    (b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]),
    (b":status", &[0xb8, 0x84, 0x8d, 0x36, 0xa3]),
];
/// The bit of `:status`.
const STATUS: u8 = 1 << 4;
/// Which of them stand in the static table, by the places from which on they do.
const PLACES: [u32; 6] = [0, 1, 3, 5, 7, PSEUDO_NAMES];
/// The field that says what a request's trailers may be, and the one value that it has (RFC 9113,
/// section 8.2.2), as text and in Huffman codes.
const TE: (&[u8], &[u8]) = (b"te", &[0x49, 0x7f]);
const TRAILERS: (&[u8], &[u8]) = (b"trailers", &[0x4d, 0x83, 0x35, 0x05, 0xb1, 0x1f]);
/// Bytes of the longest of them, and one more to tell that a name is longer.
pub(super) const NAME_BYTES: usize = 18;

/// A field's name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Name {
    pub(super) length: u32,
    pub(super) is_pseudo: bool,
    /// It speaks of a connection and has no place in HTTP/2.
    pub(super) is_of_connection: bool,
    /// A bit for each pseudo header that there is.
    pub(super) pseudo: u8,
    /// What the value of `:status` says.
    pub(super) status: Option<Status>,
    /// It is `te`.
    pub(super) is_te: bool,
    /// It has a value that it must not have.
    pub(super) is_wrong: bool,
}

/// What the status of a response says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// The answer is still to come (RFC 9110, section 15.2).
    Interim,
    /// The protocol changes, which there is not in HTTP/2 (RFC 9113, section 8.6).
    Switching,
    /// This is the answer.
    Final,
}

impl Status {
    /// Of its digits, which are coded by five bits each.
    pub(super) fn of(digits: &[u8], huffman: bool) -> Self {
        match (huffman, digits) {
            (false, b"101") | (true, [0x08, 0x02 | 0x03]) => Self::Switching,
            (false, [b'1', ..]) | (true, [0x08..=0x0f, ..]) => Self::Interim,
            _ => Self::Final,
        }
    }
}

impl Name {
    /// Takes note of the name's first byte; no other code begins like that of the colon.
    pub(super) fn begins(&mut self, byte: u8, huffman: bool) {
        self.is_pseudo = if huffman { byte >> 1 == 0x5c } else { byte == b':' };
    }

    /// Takes note of the name's bytes, or of the first [`NAME_BYTES`] of them.
    pub(super) fn is_written(&mut self, bytes: &[u8], huffman: bool) {
        let is = |word: &(&[u8], &[u8])| is(bytes, huffman, *word);
        self.is_of_connection = OF_CONNECTIONS.iter().any(is);
        self.pseudo = PSEUDO.iter().position(is).map_or(0, |place| 1 << place);
        self.is_te = is(&TE);
    }

    /// Takes note of the bytes of the value, as of the name's.
    pub(super) fn has_value(&mut self, bytes: &[u8], huffman: bool) {
        self.is_wrong = self.is_te && !is(bytes, huffman, TRAILERS);
    }

    /// Whether something of the value must be known.
    pub(super) fn asks_for_value(&self) -> bool {
        self.is_status() || self.is_te
    }

    pub(super) fn is_status(&self) -> bool {
        self.pseudo == STATUS
    }
}

fn is(bytes: &[u8], huffman: bool, (text, coded): (&[u8], &[u8])) -> bool {
    bytes == if huffman { coded } else { text }
}

/// The names behind the indices of one direction.
#[derive(Debug)]
pub(super) struct Names {
    /// The newest first: names, and sizes of entries.
    entries: VecDeque<(Name, u32)>,
    size: u32,
    room: u32,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, room: ROOM }
    }

    /// The name at an index; none at 0, nor where nothing is.
    pub(super) fn at(&self, index: u32) -> Name {
        let Some(place) = index.checked_sub(1) else { return Name::default() };
        match STATIC_NAMES.get(place as usize) {
            Some(length) => Name {
                length: u32::from(*length),
                is_pseudo: place < PSEUDO_NAMES,
                is_of_connection: place == TRANSFER_ENCODING,
                pseudo: PLACES
                    .windows(2)
                    .position(|of| (of[0]..of[1]).contains(&place))
                    .map_or(0, |bit| 1 << bit),
                // The table has final ones only.
                status: (PLACES[4]..PLACES[5]).contains(&place).then_some(Status::Final),
                is_te: false,
                is_wrong: false,
            },
            None => {
                let entry = self.entries.get(place as usize - STATIC_NAMES.len());
                entry.map(|(name, _)| *name).unwrap_or_default()
            }
        }
    }

    pub(super) fn insert(&mut self, name: Name, value: u32) {
        let size = AROUND_AN_ENTRY.saturating_add(name.length).saturating_add(value);
        self.entries.push_front((name, size));
        self.size = self.size.saturating_add(size);
        self.evict();
    }

    pub(super) fn resize(&mut self, room: u32) {
        self.room = room.min(ROOM);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.room {
            let Some((_, size)) = self.entries.pop_back() else { break };
            self.size = self.size.saturating_sub(size);
        }
    }
}

/// Counts the symbols of a Huffman-coded text, which may come in any pieces.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Symbols {
    pub(super) count: u32,
    code: u32,
    /// The first code of this length.
    first: u32,
    length: usize,
}

impl Symbols {
    /// Symbols and bits of one so far; 0 only before the first byte.
    pub(super) fn length(&self) -> u32 {
        self.count + self.length as u32
    }

    /// The same of a text that is not coded.
    pub(super) fn add(&mut self, bytes: usize) {
        self.count = self.count.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            (0..8).rev().for_each(|bit| self.bit(u32::from(byte >> bit & 1)));
        }
    }

    fn bit(&mut self, bit: u32) {
        if self.length + 1 >= CODES.len() {
            // No such code; the decoder refuses the block.
            return;
        }
        self.first = (self.first + CODES[self.length]) << 1;
        self.length += 1;
        self.code = self.code << 1 | bit;
        if self.code.wrapping_sub(self.first) < CODES[self.length] {
            *self = Self { count: self.count + 1, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_of_a_coded_text_are_counted() {
        // RFC 7541, appendix C.4 and C.6.
        for (coded, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
        ] {
            let mut symbols = Symbols::default();
            coded.iter().for_each(|byte| symbols.take(&[*byte]));
            assert_eq!(symbols.count as usize, text.len(), "{text}");
        }
    }

    #[test]
    fn entries_go_when_there_is_no_room() {
        let mut names = Names::new();
        let pseudo = Name { length: 10, is_pseudo: true, pseudo: 1, ..Name::default() };
        names.insert(pseudo, 20);
        assert_eq!(names.at(62), pseudo);
        let plain = Name { length: 4, ..Name::default() };
        (0..2).for_each(|_| names.insert(plain, 2030));
        assert_eq!(
            (names.at(62), names.at(63), names.at(64)),
            (plain, Name::default(), Name::default())
        );
        names.resize(0);
        assert_eq!((names.at(62), names.at(1)), (Name::default(), pseudo));
    }
}
