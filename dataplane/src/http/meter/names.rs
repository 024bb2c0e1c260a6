//! What must be remembered of a header table (RFC 7541, section 2.3) to tell pseudo headers: which entries have such a
//! name, and their sizes, by which they go. No text is kept.

use std::collections::VecDeque;

/// Room for entries unless the peer asks for less (RFC 9113, section 6.5.2); our codec never offers more.
const ROOM: u32 = 4096;
/// What each entry takes beside its text (RFC 7541, section 4.1).
const AROUND_AN_ENTRY: u32 = 32;
/// Pseudo headers come first in the static table.
const PSEUDO_NAMES: u32 = 14;
/// Lengths of the names in the static table (RFC 7541, appendix A).
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// How many symbols have a code of each length (RFC 7541, appendix B); codes of one length follow one another.
const CODES: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// A field's name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Name {
    pub(super) length: u32,
    pub(super) is_pseudo: bool,
}

impl Name {
    /// Takes note of the name's first byte; no other code begins like that of the colon.
    pub(super) fn begins(&mut self, byte: u8, huffman: bool) {
        self.is_pseudo = if huffman { byte >> 1 == 0x5c } else { byte == b':' };
    }
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
            Some(length) => Name { length: u32::from(*length), is_pseudo: place < PSEUDO_NAMES },
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
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
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
        let pseudo = Name { length: 10, is_pseudo: true };
        names.insert(pseudo, 20);
        assert_eq!(names.at(62), pseudo);
        let plain = Name { length: 4, is_pseudo: false };
        (0..2).for_each(|_| names.insert(plain, 2030));
        assert_eq!((names.at(62), names.at(63), names.at(64)), (plain, Name::default(), Name::default()));
        names.resize(0);
        assert_eq!((names.at(62), names.at(1)), (Name::default(), pseudo));
    }
}
