//! Counts the fields of a header block without decoding it (RFC 7541, section 6): a field that
//! refers to the table is one byte, and costs a hundred once it is decoded. Tells of pseudo
//! headers, too, which the codec drops unseen from trailers and, if they are a request's, from
//! responses. And of a response's status, and of what makes a head malformed, which the codec
//! forgets where a head is cut.

use super::names::{NAME_BYTES, Name, Names, Status, Symbols};

/// Bits of an integer beyond which no length or index makes sense; the decoder refuses such a
/// block.
const MOST_BITS: u32 = 28;

/// Where in the block we are.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A field begins.
    Field,
    /// More bytes of the index that a field begins with.
    Index { bits: u32 },
    /// A string begins with its length.
    Length,
    /// More bytes of the length.
    LengthGoesOn { value: u32, bits: u32 },
    /// Bytes of the string.
    Text { left: u32 },
    /// No block that a decoder takes.
    Lost,
}

/// Counts the fields of one header block, which may come in any pieces.
#[derive(Debug)]
pub(super) struct Fields {
    at: At,
    /// Strings of the field that are still to come.
    strings: u8,
    /// Fields that have begun.
    pub(super) count: u32,
    /// A pseudo header was among them.
    pub(super) has_pseudo: bool,
    /// A field was of a connection, or said something of trailers that it must not say, or a pseudo
    /// header came again or behind another field.
    pub(super) is_malformed: bool,
    /// A pseudo header was among them that a response does not have.
    pub(super) has_foreign: bool,
    /// What `:status` has said.
    pub(super) status: Option<Status>,
    has_regular: bool,
    /// Those pseudo headers that have come.
    pseudo: u8,
    /// The beginning of the name or status that is being read.
    written: [u8; NAME_BYTES],
    written_bytes: usize,
    kind: Kind,
    index: u32,
    name: Name,
    /// Symbols of the value, or of the name before it.
    text: Symbols,
    huffman: bool,
}

/// What is done with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Read, and no more.
    Plain,
    /// Put into the table.
    Inserted,
    /// None: the table's size is changed.
    Resize,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self {
            at: At::Field,
            strings: 0,
            count: 0,
            has_pseudo: false,
            is_malformed: false,
            has_foreign: false,
            status: None,
            has_regular: false,
            pseudo: 0,
            written: [0; NAME_BYTES],
            written_bytes: 0,
            kind: Kind::Plain,
            index: 0,
            name: Name::default(),
            text: Symbols::default(),
            huffman: false,
        }
    }

    /// Takes the next bytes of the block.
    pub(super) fn take(&mut self, mut bytes: &[u8], names: &mut Names) {
        while let [first, rest @ ..] = bytes {
            if let At::Text { left } = self.at {
                let length = bytes.len().min(left as usize);
                self.look_at(&bytes[..length]);
                bytes = &bytes[length..];
                self.text(left - u32::try_from(length).unwrap_or(left), names);
                continue;
            }
            bytes = rest;
            match self.at {
                At::Field => self.field(*first, names),
                At::Index { bits } => self.index(*first, bits, names),
                At::Length => {
                    self.huffman = first & 0x80 != 0;
                    self.text = Symbols::default();
                    match first & 0x7f {
                        0x7f => self.at = At::LengthGoesOn { value: 0x7f, bits: 0 },
                        length => self.text(u32::from(length), names),
                    }
                }
                At::LengthGoesOn { value, bits } => self.length(*first, value, bits, names),
                At::Text { .. } => {}
                At::Lost => return,
            }
        }
    }

    /// A field's first byte says what it is, and holds its index or the beginning of that.
    fn field(&mut self, first: u8, names: &mut Names) {
        let (mask, literal, kind) = match first {
            0x80.. => (0x7f, false, Kind::Plain),
            0x40.. => (0x3f, true, Kind::Inserted),
            // A change of the table's size is no field.
            0x20.. => (0x1f, false, Kind::Resize),
            _ => (0x0f, true, Kind::Plain),
        };
        self.kind = kind;
        self.count += u32::from(kind != Kind::Resize);
        // Index 0: the name is a string, too.
        self.strings = if literal { 1 + u8::from(first & mask == 0) } else { 0 };
        self.index = u32::from(first & mask);
        if first & mask == mask {
            self.at = At::Index { bits: 0 };
        } else {
            self.indexed(names);
        }
    }

    fn index(&mut self, byte: u8, bits: u32, names: &mut Names) {
        self.index =
            self.index.saturating_add(u32::from(byte & 0x7f).checked_shl(bits).unwrap_or(u32::MAX));
        self.at = match byte & 0x80 {
            0 => return self.indexed(names),
            _ if bits >= MOST_BITS => At::Lost,
            _ => At::Index { bits: bits + 7 },
        };
    }

    /// The index is known, and so is the name unless it is to come.
    fn indexed(&mut self, names: &mut Names) {
        if self.kind == Kind::Resize {
            names.resize(self.index);
        } else {
            self.name = names.at(self.index);
            // A value of its own is still to come.
            self.name.status = self.name.status.filter(|_| self.strings == 0);
            self.name.is_wrong &= self.strings == 0;
            self.status = self.name.status.or(self.status);
            self.has_pseudo |= self.name.is_pseudo;
            if self.index > 0 {
                self.judge();
            }
        }
        self.next_string();
    }

    /// The name is known.
    fn judge(&mut self) {
        let Name { is_pseudo, is_of_connection, pseudo, .. } = self.name;
        let is_again = self.pseudo & pseudo != 0;
        self.is_malformed |= is_of_connection || is_again || (is_pseudo && self.has_regular);
        self.is_malformed |= self.name.is_wrong;
        self.has_foreign |= is_pseudo && !self.name.is_status();
        self.pseudo |= pseudo;
        self.has_regular |= !is_pseudo;
    }

    fn length(&mut self, byte: u8, value: u32, bits: u32, names: &mut Names) {
        let value =
            value.saturating_add(u32::from(byte & 0x7f).checked_shl(bits).unwrap_or(u32::MAX));
        self.at = match byte & 0x80 {
            0 => return self.text(value, names),
            _ if bits >= MOST_BITS => At::Lost,
            _ => At::LengthGoesOn { value, bits: bits + 7 },
        };
    }

    /// Some of the string; only the beginnings of names, a status, and the lengths of what is kept
    /// matter.
    fn look_at(&mut self, piece: &[u8]) {
        if let (1, 0, Some(first)) = (self.strings, self.text.length(), piece.first()) {
            self.name.begins(*first, self.huffman);
            self.has_pseudo |= self.name.is_pseudo;
        }
        if self.strings == 1 || self.name.asks_for_value() {
            let from = self.written_bytes;
            let count = piece.len().min(NAME_BYTES - from);
            self.written[from..from + count].copy_from_slice(&piece[..count]);
            self.written_bytes += count;
        }
        match (self.kind, self.huffman) {
            (Kind::Inserted, true) => self.text.take(piece),
            _ => self.text.add(piece.len()),
        }
    }

    fn text(&mut self, left: u32, names: &mut Names) {
        if left > 0 {
            self.at = At::Text { left };
            return;
        }
        let written = &self.written[..std::mem::take(&mut self.written_bytes)];
        if self.strings == 1 {
            self.name.length = self.text.count;
            self.name.is_written(written, self.huffman);
            self.judge();
        } else {
            if self.name.is_status() {
                self.name.status = Some(Status::of(written, self.huffman));
                self.status = self.name.status;
            }
            self.name.has_value(written, self.huffman);
            self.is_malformed |= self.name.is_wrong;
            if self.kind == Kind::Inserted {
                names.insert(self.name, self.text.count);
            }
        }
        self.next_string();
    }

    fn next_string(&mut self) {
        self.at = if self.strings > 0 { At::Length } else { At::Field };
        self.strings = self.strings.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block of `fields`, as an encoder writes it.
    fn block(fields: &[(Sort, String, String)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (kind, name, value) in fields {
            match kind {
                Sort::Indexed(index) => integer(&mut block, 0x80, 0x7f, u32::from(*index)),
                Sort::Resize(size) => integer(&mut block, 0x20, 0x1f, u32::from(*size)),
                Sort::Literal(first, index) => {
                    let mask = if *first == 0x40 { 0x3f } else { 0x0f };
                    integer(&mut block, *first, mask, u32::from(*index));
                    if *index == 0 {
                        string(&mut block, name);
                    }
                    string(&mut block, value);
                }
            }
        }
        block
    }

    #[derive(Clone, Debug)]
    enum Sort {
        Indexed(u8),
        Resize(u16),
        Literal(u8, u8),
    }

    fn integer(block: &mut Vec<u8>, first: u8, mask: u8, value: u32) {
        if value < u32::from(mask) {
            return block.push(first | value as u8);
        }
        block.push(first | mask);
        let mut rest = value - u32::from(mask);
        while rest >= 128 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }

    fn string(block: &mut Vec<u8>, text: &str) {
        integer(block, 0, 0x7f, text.len() as u32);
        block.extend_from_slice(text.as_bytes());
    }

    fn field() -> impl Strategy<Value = (Sort, String, String)> {
        let kind = prop_oneof![
            (1u8..).prop_map(Sort::Indexed),
            any::<u16>().prop_map(Sort::Resize),
            (prop_oneof![Just(0u8), Just(0x10), Just(0x40)], any::<u8>())
                .prop_map(|(first, i)| Sort::Literal(first, i)),
        ];
        (kind, "[a-z]{0,300}", "[ -~]{0,300}")
    }

    proptest! {
        #[test]
        fn every_field_is_counted_however_the_block_is_cut(
            fields in proptest::collection::vec(field(), 0..40),
            cut in 1usize..50,
        ) {
            let block = block(&fields);
            let mut counted = Fields::new();
            let mut names = Names::new();
            block.chunks(cut).for_each(|piece| counted.take(piece, &mut names));
            let expected = fields.iter().filter(|(kind, ..)| !matches!(kind, Sort::Resize(_))).count();
            prop_assert_eq!(counted.count as usize, expected);
            prop_assert!(matches!(counted.at, At::Field));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            Fields::new().take(&bytes, &mut Names::new());
        }
    }
}
