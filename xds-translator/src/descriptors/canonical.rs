//! Equal messages, equal bytes: sorts the entries of map fields.
//!
//! Generated types keep maps in hash maps, so an encoder writes their entries in another order each
//! time. Entries of one map stand next to each other, and sorting them moves bytes without changing
//! any length; so the pass works in place on the encoded message, guided by a table of where maps
//! and `Any`s can occur.

use std::{ops::Range, sync::LazyLock};

use prost_reflect::{Kind, MessageDescriptor};
use rustc_hash::FxHashMap;

use super::pool;

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::read);

/// Sorts every map in the encoded message `name` (fully qualified) by key, also inside known
/// `Any`s.
///
/// Bytes that are not such a message are left as they are from the first doubtful one on.
pub(crate) fn canonicalize(name: &str, body: &mut [u8]) {
    if let Some(&message) = SCHEMA.by_name.get(name) {
        walk(body, message);
    }
}

/// Where maps and `Any`s can occur, by message.
struct Schema {
    by_name: FxHashMap<String, usize>,
    /// By message; fields that lead to no map are left out.
    fields: Vec<FxHashMap<u32, Field>>,
    any: usize,
}

#[derive(Clone, Copy)]
enum Field {
    /// A message that may hold maps.
    Message(usize),
    /// A map, with the message that is its value.
    Map(Option<usize>),
}

impl Schema {
    fn read() -> Self {
        let messages: Vec<MessageDescriptor> = pool().all_messages().collect();
        let by_name: FxHashMap<String, usize> =
            messages.iter().enumerate().map(|(i, m)| (m.full_name().to_owned(), i)).collect();
        let any = by_name["google.protobuf.Any"];
        let fields = messages.iter().map(|m| message_fields(m, &by_name)).collect();
        let mut schema = Self { by_name, fields, any };
        schema.prune();
        schema
    }

    /// Forgets fields from which no map can be reached, so that the pass skips over them.
    fn prune(&mut self) {
        let mut holds: Vec<bool> = (0..self.fields.len()).map(|i| i == self.any).collect();
        loop {
            let mut grew = false;
            for i in 0..self.fields.len() {
                let reaches = |f: &Field| match *f {
                    Field::Map(_) => true,
                    Field::Message(m) => holds[m],
                };
                if !holds[i] && self.fields[i].values().any(reaches) {
                    holds[i] = true;
                    grew = true;
                }
            }
            if !grew {
                break;
            }
        }
        for fields in &mut self.fields {
            fields.retain(|_, f| match f {
                Field::Map(value) => {
                    *value = value.filter(|&m| holds[m]);
                    true
                }
                Field::Message(m) => holds[*m],
            });
        }
    }
}

fn message_fields(
    message: &MessageDescriptor,
    by_name: &FxHashMap<String, usize>,
) -> FxHashMap<u32, Field> {
    let index = |kind: Kind| kind.as_message().and_then(|m| by_name.get(m.full_name()).copied());
    let mut fields = FxHashMap::default();
    for field in message.fields() {
        let Kind::Message(inner) = field.kind() else { continue };
        if field.is_map() {
            fields.insert(field.number(), Field::Map(index(inner.map_entry_value_field().kind())));
        } else if let Some(i) = index(Kind::Message(inner)) {
            fields.insert(field.number(), Field::Message(i));
        }
    }
    fields
}

/// Sorts the maps of one message.
fn walk(body: &mut [u8], message: usize) {
    if message == SCHEMA.any {
        return walk_any(body);
    }
    let fields = &SCHEMA.fields[message];
    let mut run: Option<(u32, Vec<Range<usize>>)> = None;
    let mut at = 0;
    while let Some(record) = Record::read(body, at) {
        let field = fields.get(&record.number);
        if run.as_ref().is_some_and(|(number, _)| *number != record.number) {
            sort(body, run.take());
        }
        match (field, record.content.clone()) {
            (Some(Field::Message(m)), Some(content)) => walk(&mut body[content], *m),
            (Some(Field::Map(value)), Some(content)) => {
                if let Some(m) = value {
                    walk_entry(&mut body[content], *m);
                }
                run.get_or_insert((record.number, Vec::new())).1.push(record.whole.clone());
            }
            _ => {}
        }
        at = record.whole.end;
    }
    sort(body, run);
}

/// Sorts the maps inside a map entry's value.
fn walk_entry(entry: &mut [u8], value: usize) {
    const VALUE: u32 = 2;
    let mut at = 0;
    while let Some(record) = Record::read(entry, at) {
        at = record.whole.end;
        if let (VALUE, Some(content)) = (record.number, record.content) {
            walk(&mut entry[content], value);
        }
    }
}

/// Sorts the maps inside a packed message.
fn walk_any(body: &mut [u8]) {
    const TYPE_URL: u32 = 1;
    const VALUE: u32 = 2;
    let (mut inner, mut packed) = (None, None);
    let mut at = 0;
    while let Some(record) = Record::read(body, at) {
        at = record.whole.end;
        match (record.number, record.content) {
            (TYPE_URL, Some(content)) => {
                let url = std::str::from_utf8(&body[content]).unwrap_or_default();
                inner = SCHEMA.by_name.get(url.rsplit('/').next().unwrap_or_default()).copied();
            }
            (VALUE, Some(content)) => packed = Some(content),
            _ => {}
        }
    }
    if let (Some(message), Some(content)) = (inner, packed) {
        walk(&mut body[content], message);
    }
}

/// Puts one map's entries in the order of their keys.
fn sort(body: &mut [u8], run: Option<(u32, Vec<Range<usize>>)>) {
    let Some((_, mut entries)) = run else { return };
    let Some(all) = entries.first().zip(entries.last()).map(|(first, last)| first.start..last.end)
    else {
        return;
    };
    let in_order =
        |pair: &[Range<usize>]| key(&body[pair[0].clone()]) <= key(&body[pair[1].clone()]);
    if entries.windows(2).all(in_order) {
        return;
    }
    entries.sort_by(|a, b| key(&body[a.clone()]).cmp(key(&body[b.clone()])));
    let sorted: Vec<u8> = entries.iter().flat_map(|e| body[e.clone()].iter().copied()).collect();
    body[all].copy_from_slice(&sorted);
}

/// The key in a map field's record; a missing one is the empty key.
fn key(record: &[u8]) -> &[u8] {
    const KEY: u32 = 1;
    let Some(content) = Record::read(record, 0).and_then(|r| r.content) else { return &[] };
    let entry = &record[content];
    match Record::read(entry, 0) {
        Some(first) if first.number == KEY => &entry[first.content.unwrap_or(first.whole)],
        _ => &[],
    }
}

/// One field on the wire.
struct Record {
    number: u32,
    /// Tag, length and content.
    whole: Range<usize>,
    /// What a length-delimited field holds.
    content: Option<Range<usize>>,
}

impl Record {
    /// The field that starts at `at`; `None` at the end, or when the bytes are not a message.
    fn read(body: &[u8], at: usize) -> Option<Self> {
        let (tag, after_tag) = varint(body, at)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let (end, content) = match tag & 7 {
            0 => (varint(body, after_tag)?.1, None),
            1 => (after_tag.checked_add(8)?, None),
            2 => {
                let (length, start) = varint(body, after_tag)?;
                let end = start.checked_add(usize::try_from(length).ok()?)?;
                (end, Some(start..end))
            }
            5 => (after_tag.checked_add(4)?, None),
            _ => return None,
        };
        (end <= body.len()).then_some(Self { number, whole: at..end, content })
    }
}

/// The number that starts at `at`, and where it ends.
fn varint(body: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, byte) in body.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, at + i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use envoy_types::{
        pb::{
            envoy::config::{core::v3 as core, rbac::v3 as rbac, route::v3 as route},
            google::protobuf::{Struct, Value, value::Kind},
        },
        util::pack_any,
    };
    use proptest::{collection::btree_map, prelude::*};
    use prost::{Message, Name};

    use super::*;

    fn metadata(sections: &[(String, Vec<(String, String)>)]) -> core::Metadata {
        let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
        let section = |fields: &[(String, String)]| Struct {
            fields: fields.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        };
        let filter_metadata =
            sections.iter().map(|(name, fields)| (name.clone(), section(fields))).collect();
        core::Metadata { filter_metadata, ..Default::default() }
    }

    fn canonical<T: Message + Name>(message: &T) -> Vec<u8> {
        let mut body = message.encode_to_vec();
        canonicalize(&T::full_name(), &mut body);
        body
    }

    #[test]
    fn a_hundred_encodings_of_maps_in_messages_and_anys_are_one() {
        let make = || {
            let policies =
                (0..9).map(|i| (format!("policy-{i}"), rbac::Policy::default())).collect();
            let rules = rbac::Rbac { policies, ..Default::default() };
            let packed = (0..7).map(|i| (format!("filter-{i}"), pack_any(rules.clone()))).collect();
            let sections: Vec<_> = (0..5)
                .map(|i| {
                    (format!("s{i}"), (0..5).map(|j| (format!("k{j}"), j.to_string())).collect())
                })
                .collect();
            route::Route {
                name: "r".into(),
                metadata: Some(metadata(&sections)),
                typed_per_filter_config: packed,
                ..Default::default()
            }
        };
        let first = canonical(&make());
        for _ in 0..100 {
            assert_eq!(canonical(&make()), first);
        }
        let json = |body: &[u8]| {
            crate::debug::message_to_json("envoy.config.route.v3.Route", body).unwrap()
        };
        assert_eq!(json(&first), json(&make().encode_to_vec()));
    }

    #[test]
    fn bytes_that_are_no_message_stay() {
        for body in [&[0xff, 0xff][..], &[0x0a, 0x7f, 1], &[0x0b], &[]] {
            let mut copy = body.to_vec();
            canonicalize("envoy.config.core.v3.Metadata", &mut copy);
            assert_eq!(copy, body);
        }
    }

    proptest! {
        #[test]
        fn sorting_changes_bytes_but_no_message(
            sections in btree_map("[a-z]{0,3}", btree_map("[a-z]{0,3}", ".{0,6}", 0..6), 0..6)
        ) {
            let sections: Vec<(String, Vec<(String, String)>)> =
                sections.into_iter().map(|(k, v)| (k, v.into_iter().collect())).collect();
            let message = metadata(&sections);
            let mut reversed = sections.clone();
            reversed.reverse();
            let body = canonical(&message);
            prop_assert_eq!(&body, &canonical(&metadata(&reversed)));
            prop_assert_eq!(core::Metadata::decode(body.as_slice()).unwrap(), message);
        }
    }
}
