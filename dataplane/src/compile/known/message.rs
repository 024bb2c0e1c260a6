//! How a table of fields is written: messages, their fields, and what is made of each.

use Known::{Labels, NoEffect, Read};

/// A message, as one place of the API has it: the same message may be read in one place and not in
/// another, and then stands here twice.
#[derive(Debug)]
pub struct Message {
    /// Its full name.
    pub name: &'static str,
    /// All fields that the API has, by their numbers, which are below 64.
    pub fields: &'static [Field],
    /// By number: 0 for a field that the API does not have, else its place in `fields`, counted
    /// from 1, with [`SKIPPED`] if its content need not be looked at.
    pub(super) rows: [u8; 64],
}

/// Marks a row whose content is anything that the decoder takes.
pub(super) const SKIPPED: u8 = 0x80;

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What is made of it.
    pub known: Known,
}

/// What the proxy makes of a field.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// The compiler reads it: it acts on the value, or refuses it. Durations and wrappers are values
    /// too: protobuf's own types get no new fields.
    Read,
    /// An enumeration that is read, whose values are 0 up to this one.
    Values(u64),
    /// A message without fields, of which only the presence says something.
    Marker,
    /// It is accepted and has no effect on a request, for this reason.
    NoEffect(&'static str),
    /// Only its zero is accepted, which has no effect on a request, for this reason.
    Zero(&'static str),
    /// It is refused; the version in force guards as much.
    Refused,
    /// It is refused, and may guard: the version in force must not go on in its place.
    Guard,
    /// A message, read by its fields.
    In(&'static Message),
    /// Messages, each read by its fields.
    Each(&'static Message),
    /// A map of messages, each read by its fields.
    Map(&'static Message),
    /// An `Any`. The compiler refuses types that it does not expect there; the others are read by
    /// their fields (see [`packed`](super::packed)).
    Packed,
    /// A map of `Any`s.
    PackedMap,
    /// An `Any` of this type alone.
    PackedAs(&'static Message),
    /// Metadata. What is said for others is nothing to this proxy; the labels of a namespace
    /// (`NAMESPACE.KEY`) that our own control plane sends for people are listed with the reason.
    Labels(&'static [(&'static str, &'static str)]),
}

impl Message {
    pub(in crate::compile) const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        let mut rows = [0; 64];
        let mut row = 0;
        while row < fields.len() {
            let skipped = match fields[row].known {
                Read | NoEffect(_) | Labels(_) => SKIPPED,
                _ => 0,
            };
            let place = row.to_le_bytes()[0] + 1;
            rows[fields[row].number as usize] = place | skipped;
            row += 1;
        }
        Self { name, fields, rows }
    }

    /// The field of this number.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// Declares messages: the name of each here, its full name, and its fields.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $id:ident = $name:literal { $($number:literal $field:literal: $known:expr;)* }
    )*) => {
        $(
            $(#[$doc])*
            pub(in crate::compile) static $id: $crate::compile::known::Message = {
                static FIELDS: &[$crate::compile::known::Field] = &[
                    $($crate::compile::known::Field {
                        number: $number,
                        name: $field,
                        known: $known,
                    }),*
                ];
                $crate::compile::known::Message::new($name, FIELDS)
            };
        )*
    };
}
pub(in crate::compile) use messages;
