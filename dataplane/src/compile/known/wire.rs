//! Records of the wire format, read in place.

use super::super::field::Invalid;

/// One field of an encoded message.
pub(super) struct Record<'a> {
    pub(super) number: u32,
    pub(super) content: Content<'a>,
}

/// What a record holds, by its wire type.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of four or eight bytes.
    Fixed,
}

impl<'a> Record<'a> {
    /// Takes the next record off `rest`.
    pub(super) fn read(rest: &mut &'a [u8]) -> Result<Self, Invalid> {
        Self::next(rest).ok_or_else(|| Invalid::new("not a valid message: the bytes are no fields"))
    }

    /// Groups, which the API does not have, are none.
    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let tag = u32::try_from(varint(rest)?).ok()?;
        let content = match tag & 7 {
            0 => Content::Number(varint(rest)?),
            1 => fixed(rest, 8)?,
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                Content::Bytes(rest.split_off(..length)?)
            }
            5 => fixed(rest, 4)?,
            _ => return None,
        };
        Some(Self { number: tag >> 3, content })
    }
}

fn fixed<'a>(rest: &mut &'a [u8], length: usize) -> Option<Content<'a>> {
    rest.split_off(..length).map(|_| Content::Fixed)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    // Most are of one byte.
    let (&first, after) = rest.split_first()?;
    *rest = after;
    let mut value = u64::from(first & 0x7f);
    let mut last = first;
    let mut shift = 7;
    while last & 0x80 != 0 {
        let (&byte, after) = rest.split_first().filter(|_| shift < 64)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        (last, shift) = (byte, shift + 7);
    }
    Some(value)
}
