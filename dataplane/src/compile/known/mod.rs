//! Every field of the messages that this proxy takes, and what it makes of each: the one place that
//! says what is read, what has no effect and why, and what is refused. What HTTP filters are
//! configured by, each says beside its own compiler (`filter`), in the same words.
//!
//! A resource is held against the table on the wire, before it is decoded: a decoder drops fields
//! that it has never heard of, and a compiler does not see fields that it does not ask for. What is
//! set and is not in the table is refused by the name of its place, so that nothing is accepted
//! which nobody acts on. Tests hold the table against the descriptors of the API (it is complete)
//! and against the compiler (what it calls read changes what is compiled):
//! `integration/tests/fields`.

use ferromesh_proto::ResourceType;
use rustc_hash::FxHashMap;

pub(super) use self::message::messages;
use self::{
    Known::{
        Each, Guard, In, Labels, Map, Marker, NoEffect, Packed, PackedAs, PackedMap, Read, Refused,
        Values, Zero,
    },
    cluster::{ASSIGNMENT, CLUSTER},
    listener::LISTENER,
    message::SKIPPED,
    packed::PACKED,
    route::ROUTES,
    tls::SECRET,
    wire::{Content, Record, Records},
};
pub use self::{
    message::{Field, Known, Message},
    packed::without_effect,
};
use super::{field::Invalid, filter, log_service, trace};

pub(super) mod access;
pub(super) mod base;
mod cluster;
mod listener;
mod log;
pub(super) mod matcher;
mod message;
pub(super) mod packed;
mod protocol;
pub(super) mod rate_limit;
pub(super) mod reason;
pub(super) mod route;
mod tls;
mod wire;

/// Messages lie in each other no deeper, packed ones included: the bound of the decoder.
const DEEPEST: usize = 100;

/// The message that a resource of this type is; `None`: this proxy takes none of this type.
pub fn resource(kind: ResourceType) -> Option<&'static Message> {
    let known: &[(ResourceType, &'static Message)] = &[
        (ResourceType::Cluster, &CLUSTER),
        (ResourceType::Listener, &LISTENER),
        (ResourceType::Route, &ROUTES),
        (ResourceType::Endpoint, &ASSIGNMENT),
        (ResourceType::Secret, &SECRET),
    ];
    known.iter().find(|(own, _)| *own == kind).map(|(_, message)| *message)
}

/// The message of this full name, if it is read out of an `Any`.
pub fn packed(name: &str) -> Option<&'static Message> {
    all_packed().find(|message| message.name == name)
}

/// Every message that is read out of an `Any`.
pub fn all_packed() -> impl Iterator<Item = &'static Message> {
    PACKED
        .iter()
        .copied()
        .chain(filter::messages())
        .chain(trace::TRACERS)
        .chain(log_service::LOG_SERVICES)
}

/// Refuses what is set in a resource and neither acted on nor known to have no effect.
pub(super) fn check(kind: ResourceType, body: &[u8]) -> Result<(), Invalid> {
    let Some(message) = resource(kind) else {
        return Err(untaken());
    };
    Walk::of(Sought::Refused).message(message, body).map_err(|error| *error)
}

/// Why a resource of a type that is not taken is refused.
pub(super) fn untaken() -> Invalid {
    Invalid::new("this proxy takes no resources of this type")
}

/// The fields at the top of a resource in which something lies that is refused and may guard: the
/// name, which is empty if nobody knows it, and the position among those of the same number.
pub(super) fn guarding(kind: ResourceType, body: &[u8]) -> Vec<(&'static str, usize)> {
    // Whatever lies in what nobody reads.
    let Some(message) = resource(kind) else { return vec![("", 0)] };
    let mut walk = Walk::of(Sought::Guards);
    let mut found = Vec::new();
    let mut seen: FxHashMap<u32, usize> = FxHashMap::default();
    let mut records = Records::of(body);
    while !records.is_empty() {
        let Some(record) = records.next() else {
            found.push(("", 0));
            break;
        };
        let index = seen.entry(record.number).or_default();
        let strange = match message.field(record.number) {
            Some(field) => walk.content(field, record.content).is_err().then_some(field.name),
            None => Some(""),
        };
        found.extend(strange.map(|name| (name, *index)));
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

/// Nothing is wrong, or what is; boxed, since it is handed through at every record.
type Checked = Result<(), Box<Invalid>>;

impl Walk {
    fn of(sought: Sought) -> Self {
        Self { sought, deeper: DEEPEST }
    }

    fn message(&mut self, message: &'static Message, body: &[u8]) -> Checked {
        if self.deeper == 0 {
            return wrong("nested too deep");
        }
        self.deeper -= 1;
        let result = self.fields(message, body);
        self.deeper += 1;
        result
    }

    /// Where most of the time goes: what need not be looked at is passed over quickly.
    fn fields(&mut self, message: &'static Message, body: &[u8]) -> Checked {
        let mut records = Records::of(body);
        let mut packed = 0u64;
        while !records.is_empty() {
            let Some(record) = records.next() else { return malformed() };
            let row = message.rows.get(record.number as usize).copied().unwrap_or(0);
            if row & SKIPPED != 0 {
                continue;
            }
            let Some(field) = message.fields.get(usize::from(row).wrapping_sub(1)) else {
                return unknown(record.number);
            };
            if matches!(field.known, Packed | PackedAs(_)) {
                // Two of them would be merged: the type of one with the content of the other.
                if packed & (1 << field.number) != 0 {
                    return inside(field, 0, Invalid::new("given twice"));
                }
                packed |= 1 << field.number;
            }
            if let Err(error) = self.content(field, record.content) {
                let before = &body[..body.len() - records.rest().len()];
                return inside(field, wire::count(before, field.number), *error);
            }
        }
        Ok(())
    }

    /// What is of another wire type than the API says, the decoder refuses.
    #[inline(always)]
    fn content(&mut self, field: &'static Field, content: Content<'_>) -> Checked {
        match (field.known, content) {
            (In(inner) | Each(inner), Content::Bytes(body)) => self.message(inner, body),
            (Read | NoEffect(_) | Labels(_), _) => Ok(()),
            (Marker, Content::Bytes(body)) => self.message(&EMPTY, body),
            (Map(_) | PackedMap, Content::Bytes(body)) => self.entry(field, body),
            (Packed, Content::Bytes(body)) => self.any(body),
            (PackedAs(inner), Content::Bytes(body)) => self.any_of(inner, body),
            (Values(most), Content::Number(value)) if value > most => {
                wrong(&format!("unknown value {}", value.cast_signed()))
            }
            (Zero(_), Content::Bytes([])) => Ok(()),
            (Refused | Guard | Zero(_), _) => self.refused(field),
            (
                Values(_) | Marker | In(_) | Each(_) | Map(_) | Packed | PackedMap | PackedAs(_),
                _,
            ) => Ok(()),
        }
    }

    #[cold]
    fn refused(&self, field: &Field) -> Checked {
        match field.known {
            Guard => wrong("not supported by this proxy"),
            _ if self.sought == Sought::Guards => Ok(()),
            Zero(_) => wrong("expected 0, others are not supported by this proxy"),
            _ => wrong("not supported by this proxy"),
        }
    }

    /// An entry of a map: the key is field 1, the value field 2.
    fn entry(&mut self, field: &'static Field, body: &[u8]) -> Checked {
        let mut key = &[][..];
        let mut records = Records::of(body);
        while !records.is_empty() {
            let Some(Record { number, content: Content::Bytes(bytes) }) = records.next() else {
                return malformed();
            };
            let checked = match (number, field.known) {
                (1, _) => {
                    key = bytes;
                    Ok(())
                }
                (2, Map(inner)) => self.message(inner, bytes),
                (2, _) => self.any(bytes),
                _ => wrong("not an entry of a map"),
            };
            if let Err(error) = checked {
                return Err(Box::new(error.at(&format!("[{}]", String::from_utf8_lossy(key)))));
            }
        }
        Ok(())
    }

    /// Types that are not in the table are left to the compiler, which knows what it expects where.
    fn any(&mut self, body: &[u8]) -> Checked {
        let Some((kind, value)) = unpacked(body) else { return malformed() };
        match all_packed().find(|message| message.name.as_bytes() == kind) {
            Some(message) => self.message(message, value),
            None => Ok(()),
        }
    }

    fn any_of(&mut self, expected: &'static Message, body: &[u8]) -> Checked {
        let Some((kind, value)) = unpacked(body) else { return malformed() };
        if kind == expected.name.as_bytes() {
            return self.message(expected, value);
        }
        match self.sought {
            Sought::Refused => {
                let kind = String::from_utf8_lossy(kind);
                wrong(&format!("{kind} is not supported by this proxy"))
            }
            Sought::Guards => Ok(()),
        }
    }
}

static EMPTY: Message = Message::new("", &[]);

/// The type of an `Any`, without host, and what it holds.
fn unpacked(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut url, mut value) = (&[][..], &[][..]);
    let mut records = Records::of(body);
    while !records.is_empty() {
        match records.next()? {
            Record { number: 1, content: Content::Bytes(bytes) } => url = bytes,
            Record { number: 2, content: Content::Bytes(bytes) } => value = bytes,
            _ => return None,
        }
    }
    let start = memchr::memrchr(b'/', url).map_or(0, |slash| slash + 1);
    Some((&url[start..], value))
}

#[cold]
fn wrong(reason: &str) -> Checked {
    Err(Box::new(Invalid::new(reason)))
}

#[cold]
fn malformed() -> Checked {
    wrong("not a valid message: the bytes are not its fields")
}

#[cold]
fn unknown(number: u32) -> Checked {
    Err(Box::new(Invalid::new("not known to this proxy").at(&format!("field {number}"))))
}

/// The same error, seen from outside of the `count`-th of a field.
#[cold]
fn inside(field: &Field, count: usize, error: Invalid) -> Checked {
    let place = match field.known {
        Each(_) => format!("{}[{}]", field.name, count.saturating_sub(1)),
        _ => field.name.to_owned(),
    };
    Err(Box::new(error.at(&place)))
}

#[cfg(test)]
mod tests;
