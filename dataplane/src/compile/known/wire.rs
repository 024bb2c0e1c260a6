//! Records of the wire format, read in place.

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

/// The records of a message, one after the other.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn of(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next record; `None` if the bytes are no record. Groups, which the API does not
    /// have, are none.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Record<'a>> {
        let tag = u32::try_from(self.varint()?).ok()?;
        let content = match tag & 7 {
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            0 => Content::Number(self.varint()?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        Some(Record { number: tag >> 3, content })
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Most numbers are of one byte.
    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                Some(first.into())
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.rest = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// How many records of this number a message, or its beginning, has.
pub(super) fn count(body: &[u8], number: u32) -> usize {
    let mut records = Records::of(body);
    let mut count = 0;
    while let Some(record) = records.next() {
        count += usize::from(record.number == number);
    }
    count
}
