//! Every field of the messages that this proxy takes, and what it makes of each: the one place that
//! says what is read, what has no effect and why, and what is refused.
//!
//! A resource is held against the table on the wire, before it is decoded: a decoder drops fields
//! that it has never heard of, and a compiler does not see fields that it does not ask for. What is
//! set and is not in the table is refused by the name of its place, so that nothing is accepted
//! which nobody acts on. Tests hold the table against the descriptors of the API (it is complete)
//! and against the compiler (what it calls read changes what is compiled):
//! `integration/tests/fields`.

use std::borrow::Cow;

use ferromesh_proto::ResourceType;
use rustc_hash::FxHashMap;

use self::{
    Known::{
        Each, Guard, In, Labels, Map, Marker, NoEffect, Packed, PackedAs, PackedMap, Read, Refused,
        Values, Zero,
    },
    cluster::{ASSIGNMENT, CLUSTER},
    listener::LISTENER,
    packed::{PACKED, WITHOUT_EFFECT},
    route::ROUTES,
    tls::SECRET,
    wire::{Content, Record},
};
use super::field::{At, Invalid};

mod access;
mod base;
mod cluster;
mod filter;
mod listener;
mod log;
mod matcher;
mod packed;
mod protocol;
mod rate_limit;
mod reason;
mod route;
mod tls;
mod wire;

/// Messages lie in each other no deeper, packed ones included: the bound of the decoder.
const DEEPEST: usize = 100;

/// A message, as one place of the API has it: the same message may be read in one place and not in
/// another, and then stands here twice.
#[derive(Debug)]
pub struct Message {
    /// Its full name.
    pub name: &'static str,
    /// All fields that the API has, by their numbers; at most 64.
    pub fields: &'static [Field],
}

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
    /// The compiler reads it: it acts on the value, or refuses it.
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
    /// their fields (see [`packed`]).
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
    /// The field of this number.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// The message that a resource of this type is.
pub fn resource(kind: ResourceType) -> &'static Message {
    match kind {
        ResourceType::Cluster => &CLUSTER,
        ResourceType::Listener => &LISTENER,
        ResourceType::Route => &ROUTES,
        ResourceType::Endpoint => &ASSIGNMENT,
        ResourceType::Secret => &SECRET,
    }
}

/// The message of this full name, if it is read out of an `Any`.
pub fn packed(name: &str) -> Option<&'static Message> {
    PACKED.iter().copied().find(|message| message.name == name)
}

/// Every message that is read out of an `Any`.
pub fn all_packed() -> &'static [&'static Message] {
    PACKED
}

/// Why a filter whose configuration has this type does nothing to a request, if it is such a one.
pub fn without_effect(name: &str) -> Option<&'static str> {
    WITHOUT_EFFECT.iter().find(|(kind, _)| *kind == name).map(|(_, why)| *why)
}

/// Refuses what is set in a resource and neither acted on nor known to have no effect.
pub(super) fn check(kind: ResourceType, body: &[u8]) -> Result<(), Invalid> {
    Walk::of(Sought::Refused).message(resource(kind), body)
}

/// The fields at the top of a resource in which something lies that is refused and may guard: the
/// name, which is empty if nobody knows it, and the position among those of the same number.
pub(super) fn guarding(kind: ResourceType, body: &[u8]) -> Vec<(&'static str, usize)> {
    let message = resource(kind);
    let mut walk = Walk::of(Sought::Guards);
    let mut found = Vec::new();
    let mut seen: FxHashMap<u32, usize> = FxHashMap::default();
    let mut rest = body;
    while !rest.is_empty() {
        let Ok(record) = Record::read(&mut rest) else {
            found.push(("", 0));
            break;
        };
        let (field, index) = (message.field(record.number), seen.entry(record.number).or_default());
        if walk.record(field, &record, *index).is_err() {
            found.push((field.map_or("", |field| field.name), *index));
        }
        *index += 1;
    }
    found
}

/// What a walk stops at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sought {
    /// Whatever is refused.
    Refused,
    /// Only what may guard.
    Guards,
}

/// A way through the bytes of a message, once, without a copy.
struct Walk {
    sought: Sought,
    deeper: usize,
}

impl Walk {
    fn of(sought: Sought) -> Self {
        Self { sought, deeper: DEEPEST }
    }

    fn message(&mut self, message: &'static Message, body: &[u8]) -> Result<(), Invalid> {
        self.deeper = self.deeper.checked_sub(1).ok_or_else(|| Invalid::new("nested too deep"))?;
        let result = self.fields(message, body);
        self.deeper += 1;
        result
    }

    fn fields(&mut self, message: &'static Message, body: &[u8]) -> Result<(), Invalid> {
        let fields = message.fields;
        let (mut row, mut index, mut packed) = (0, 0, 0u64);
        let mut rest = body;
        let mut last = 0;
        while !rest.is_empty() {
            let record = Record::read(&mut rest)?;
            index = if record.number == last { index + 1 } else { 0 };
            // Encoders write fields by their numbers, so the next one is seldom far.
            if record.number < last {
                row = 0;
            }
            last = record.number;
            while fields.get(row).is_some_and(|field| field.number < last) {
                row += 1;
            }
            let field = fields.get(row).filter(|field| field.number == last);
            if field.is_some_and(|field| matches!(field.known, Packed | PackedAs(_))) {
                // Two of them would be merged: the type of one with the content of the other.
                if packed & (1 << row) != 0 {
                    return Err(Invalid::new("given twice").at(fields[row].name));
                }
                packed |= 1 << row;
            }
            self.record(field, &record, index)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        field: Option<&'static Field>,
        record: &Record<'_>,
        index: usize,
    ) -> Result<(), Invalid> {
        let Some(field) = field else {
            let place = format!("field {}", record.number);
            return Err(Invalid::new("not known to this proxy").at(&place));
        };
        // What is of another wire type than the API says, the decoder refuses.
        match (field.known, record.content) {
            (Read | NoEffect(_) | Labels(_), _) => Ok(()),
            (Values(most), Content::Number(value)) if value > most => {
                let reason = format!("unknown value {}", value.cast_signed());
                Err(Invalid::new(reason).at(field.name))
            }
            (Zero(_), Content::Bytes([])) => Ok(()),
            (Zero(_), _) => {
                self.refused("expected 0, others are not supported by this proxy", field)
            }
            (Refused, _) => self.refused("not supported by this proxy", field),
            (Guard, _) => Err(Invalid::new("not supported by this proxy").at(field.name)),
            (Marker, Content::Bytes(body)) => self.message(&EMPTY, body).at(field.name),
            (In(inner), Content::Bytes(body)) => self.message(inner, body).at(field.name),
            (Each(inner), Content::Bytes(body)) => {
                self.message(inner, body).map_err(|error| error.at(&place(field, index)))
            }
            (Map(_) | PackedMap, Content::Bytes(body)) => self.entry(field, body),
            (Packed, Content::Bytes(body)) => self.any(body).at(field.name),
            (PackedAs(inner), Content::Bytes(body)) => self.any_of(inner, body).at(field.name),
            (
                Values(_) | Marker | In(_) | Each(_) | Map(_) | Packed | PackedMap | PackedAs(_),
                _,
            ) => Ok(()),
        }
    }

    fn refused(&self, reason: &str, field: &Field) -> Result<(), Invalid> {
        match self.sought {
            Sought::Refused => Err(Invalid::new(reason).at(field.name)),
            Sought::Guards => Ok(()),
        }
    }

    /// An entry of a map: the key is field 1, the value field 2.
    fn entry(&mut self, field: &Field, body: &[u8]) -> Result<(), Invalid> {
        let (mut key, mut rest) = (&[][..], body);
        while !rest.is_empty() {
            let record = Record::read(&mut rest)?;
            match (record.number, record.content) {
                (1, Content::Bytes(bytes)) => key = bytes,
                (2, Content::Bytes(value)) => {
                    let checked = match field.known {
                        Map(inner) => self.message(inner, value),
                        _ => self.any(value),
                    };
                    checked.map_err(|error| {
                        error.at(&format!("{}[{}]", field.name, String::from_utf8_lossy(key)))
                    })?;
                }
                _ => return Err(Invalid::new("not an entry of a map").at(field.name)),
            }
        }
        Ok(())
    }

    /// Types that are not in the table are left to the compiler, which knows what it expects where.
    fn any(&mut self, body: &[u8]) -> Result<(), Invalid> {
        let (kind, value) = unpacked(body)?;
        match packed(&kind) {
            Some(message) => self.message(message, value),
            None => Ok(()),
        }
    }

    fn any_of(&mut self, expected: &'static Message, body: &[u8]) -> Result<(), Invalid> {
        let (kind, value) = unpacked(body)?;
        if kind == expected.name {
            return self.message(expected, value);
        }
        match self.sought {
            Sought::Refused => Err(Invalid::new(format!("{kind} is not supported by this proxy"))),
            Sought::Guards => Ok(()),
        }
    }
}

static EMPTY: Message = Message { name: "", fields: &[] };

/// The type of an `Any`, without host, and what it holds.
fn unpacked(body: &[u8]) -> Result<(Cow<'_, str>, &[u8]), Invalid> {
    let (mut url, mut value, mut rest) = (&[][..], &[][..], body);
    while !rest.is_empty() {
        let record = Record::read(&mut rest)?;
        match (record.number, record.content) {
            (1, Content::Bytes(bytes)) => url = bytes,
            (2, Content::Bytes(bytes)) => value = bytes,
            _ => return Err(Invalid::new("not a packed message")),
        }
    }
    let start = memchr::memrchr(b'/', url).map_or(0, |slash| slash + 1);
    Ok((String::from_utf8_lossy(&url[start..]), value))
}

fn place(field: &Field, index: usize) -> String {
    format!("{}[{index}]", field.name)
}

/// Declares messages: the name of each here, its full name, and its fields.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $id:ident = $name:literal { $($number:literal $field:literal: $known:expr;)* }
    )*) => {
        $(
            $(#[$doc])*
            pub(super) static $id: super::Message = super::Message {
                name: $name,
                fields: &[
                    $(super::Field { number: $number, name: $field, known: $known }),*
                ],
            };
        )*
    };
}
use messages;

#[cfg(test)]
mod tests;
