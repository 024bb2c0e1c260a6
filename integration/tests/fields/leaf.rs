//! The leaves of a message, whatever lies between: fields, lists, maps and packed messages; and
//! messages that differ in one of them.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};

/// One step from a message to what lies in it.
#[derive(Clone)]
pub(crate) enum Step {
    /// Into a field.
    Field(FieldDescriptor),
    /// To an item of a list.
    Item(usize),
    /// To an entry of a map.
    Entry(MapKey),
    /// Into the message that an `Any` holds, by its full name.
    Packed(String),
}

/// A value that a message sets.
pub(crate) struct Leaf {
    /// Where it is, without the positions in lists and the names in maps that users choose.
    pub(crate) pattern: String,
    /// The way to it.
    pub(crate) steps: Vec<Step>,
}

/// How a leaf is changed.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Not set any more.
    Clear,
    /// The n-th other value; there may be fewer.
    Alter(usize),
}

/// Maps whose keys mean something.
const TELLING_KEYS: [&str; 4] =
    ["filter_metadata", "fields", "typed_extension_protocol_options", "typed_per_filter_config"];

/// Every leaf of a message. The types of packed messages are leaves too.
pub(crate) fn leaves(message: &DynamicMessage) -> Vec<Leaf> {
    let mut found = Vec::new();
    of_message(message, "", &mut Vec::new(), &mut found);
    found
}

fn of_message(
    message: &DynamicMessage,
    pattern: &str,
    steps: &mut Vec<Step>,
    found: &mut Vec<Leaf>,
) {
    let leaf = |steps: &[Step]| Leaf {
        pattern: pattern.trim_start_matches('.').to_owned(),
        steps: steps.to_vec(),
    };
    if let Some(inner) = unpacked(message) {
        let name = inner.descriptor().name().to_owned();
        found.push(Leaf {
            pattern: format!("{}<{name}>", pattern.trim_start_matches('.')),
            steps: steps.clone(),
        });
        steps.push(Step::Packed(inner.descriptor().full_name().to_owned()));
        if inner.fields().next().is_some() {
            of_message(&inner, &format!("{pattern}<{name}>"), steps, found);
        }
        steps.pop();
        return;
    }
    if message.fields().next().is_none() {
        found.push(leaf(steps));
    }
    for (field, value) in message.fields() {
        steps.push(Step::Field(field.clone()));
        of_value(value, &format!("{pattern}.{}", field.name()), steps, found);
        steps.pop();
    }
}

fn of_value(value: &Value, pattern: &str, steps: &mut Vec<Step>, found: &mut Vec<Leaf>) {
    match value {
        Value::Message(message) => of_message(message, pattern, steps, found),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                steps.push(Step::Item(index));
                of_value(item, &format!("{pattern}[]"), steps, found);
                steps.pop();
            }
        }
        Value::Map(entries) => {
            let telling = TELLING_KEYS.iter().any(|name| pattern.ends_with(name));
            for (key, entry) in entries {
                let name = key.as_str().filter(|_| telling).unwrap_or_default();
                steps.push(Step::Entry(key.clone()));
                of_value(entry, &format!("{pattern}{{{name}}}"), steps, found);
                steps.pop();
            }
        }
        _ => found.push(Leaf {
            pattern: pattern.trim_start_matches('.').to_owned(),
            steps: steps.clone(),
        }),
    }
}

/// The ways to a message and to every message inside of it, each once.
pub(crate) fn messages(message: &DynamicMessage) -> Vec<Vec<Step>> {
    let mut found = BTreeMap::from([(String::new(), Vec::new())]);
    for leaf in leaves(message) {
        let mut name = String::new();
        for (at, step) in leaf.steps.iter().enumerate() {
            match step {
                Step::Field(field) => name.push_str(&format!(".{:04}", field.number())),
                Step::Item(index) => name.push_str(&format!("[{index:04}]")),
                Step::Entry(key) => name.push_str(&format!("{key:?}")),
                Step::Packed(_) => name.push('<'),
            }
            found.entry(name.clone()).or_insert_with(|| leaf.steps[..=at].to_vec());
        }
    }
    found.into_values().filter(|steps| edit(&mut message.clone(), steps, &mut |_| {})).collect()
}

/// Changes the message at the end of these steps; whether they end at one.
pub(crate) fn edit(
    message: &mut DynamicMessage,
    steps: &[Step],
    change: &mut dyn FnMut(&mut DynamicMessage),
) -> bool {
    match steps {
        [] => change(message),
        [Step::Packed(_), rest @ ..] => {
            let Some(mut inner) = unpacked(message) else { return false };
            if !edit(&mut inner, rest, change) {
                return false;
            }
            message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
        }
        [Step::Field(field), rest @ ..] => {
            return edit_value(message.get_field_mut(field), rest, change);
        }
        _ => return false,
    }
    true
}

fn edit_value(
    value: &mut Value,
    steps: &[Step],
    change: &mut dyn FnMut(&mut DynamicMessage),
) -> bool {
    match (value, steps) {
        (Value::List(items), [Step::Item(index), rest @ ..]) => {
            items.get_mut(*index).is_some_and(|item| edit_value(item, rest, change))
        }
        (Value::Map(entries), [Step::Entry(key), rest @ ..]) => {
            entries.get_mut(key).is_some_and(|entry| edit_value(entry, rest, change))
        }
        (Value::Message(message), steps) => edit(message, steps, change),
        _ => false,
    }
}

/// Values that a field can be set to, some of each kind; messages empty and with one field.
pub(crate) fn samples(field: &FieldDescriptor) -> Vec<Value> {
    samples_to(field, 1)
}

fn samples_to(field: &FieldDescriptor, depth: usize) -> Vec<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { return Vec::new() };
        if entry.map_entry_key_field().kind() != Kind::String {
            return Vec::new();
        }
        let key = MapKey::String("k".to_owned());
        let values = of_kind(&entry.map_entry_value_field().kind(), depth);
        return values.into_iter().map(|value| Value::Map([(key.clone(), value)].into())).collect();
    }
    let values = of_kind(&field.kind(), depth);
    match field.is_list() {
        true => values.into_iter().map(|value| Value::List(vec![value])).collect(),
        false => values,
    }
}

fn of_kind(kind: &Kind, depth: usize) -> Vec<Value> {
    match kind {
        Kind::Message(descriptor) => {
            let empty = DynamicMessage::new(descriptor.clone());
            let fields: Vec<_> = if depth > 0 { descriptor.fields().collect() } else { vec![] };
            let with = |field: &FieldDescriptor| {
                let values = samples_to(field, depth - 1).into_iter().take(2);
                let set = |value| {
                    let mut message = empty.clone();
                    message.set_field(field, value);
                    Value::Message(message)
                };
                values.map(set).collect::<Vec<_>>()
            };
            let filled: Vec<_> = fields.iter().flat_map(with).collect();
            std::iter::once(Value::Message(empty.clone())).chain(filled).collect()
        }
        Kind::Enum(values) => {
            values.values().map(|value| Value::EnumNumber(value.number())).collect()
        }
        Kind::Bool => vec![Value::Bool(true), Value::Bool(false)],
        Kind::String => ["a", "/b"].map(|text| Value::String(text.to_owned())).into(),
        Kind::Bytes => vec![Value::Bytes(b"a".to_vec().into())],
        Kind::Float => [1.5, 60.0].map(Value::F32).into(),
        Kind::Double => [1.5, 60.0].map(Value::F64).into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => [1, 3].map(Value::I32).into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => [1, 3].map(Value::I64).into(),
        Kind::Uint32 | Kind::Fixed32 => [1, 3].map(Value::U32).into(),
        Kind::Uint64 | Kind::Fixed64 => [1, 3].map(Value::U64).into(),
    }
}

/// The message inside an `Any`.
fn unpacked(message: &DynamicMessage) -> Option<DynamicMessage> {
    if message.descriptor().full_name() != "google.protobuf.Any" {
        return None;
    }
    let (kind, bytes) =
        (message.get_field_by_name("type_url")?, message.get_field_by_name("value")?);
    let name = kind.as_str()?.rsplit('/').next()?.to_owned();
    let descriptor = message.descriptor().parent_pool().get_message_by_name(&name)?;
    DynamicMessage::decode(descriptor, &**bytes.as_bytes()?).ok()
}

/// The same message with one leaf changed; `None` if that changes nothing.
pub(crate) fn changed(
    message: &DynamicMessage,
    leaf: &Leaf,
    change: Change,
) -> Option<DynamicMessage> {
    let mut changed = message.clone();
    change_message(&mut changed, &leaf.steps, change)?;
    (changed != *message).then_some(changed)
}

fn change_message(message: &mut DynamicMessage, steps: &[Step], change: Change) -> Option<()> {
    match steps {
        [] => alter_empty(message, change),
        [Step::Packed(_), rest @ ..] => {
            let mut inner = unpacked(message)?;
            change_message(&mut inner, rest, change)?;
            message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
            Some(())
        }
        [Step::Field(field)] if matches!(change, Change::Clear) => {
            message.clear_field(field);
            Some(())
        }
        [Step::Field(field), rest @ ..] => {
            change_value(message.get_field_mut(field), &field.kind(), rest, change)
        }
        _ => None,
    }
}

fn change_value(value: &mut Value, kind: &Kind, steps: &[Step], change: Change) -> Option<()> {
    match (value, steps) {
        (Value::List(items), [Step::Item(index)]) if matches!(change, Change::Clear) => {
            items.remove(*index);
            Some(())
        }
        (Value::List(items), [Step::Item(index), rest @ ..]) => {
            change_value(items.get_mut(*index)?, kind, rest, change)
        }
        (Value::Map(entries), [Step::Entry(key)]) if matches!(change, Change::Clear) => {
            entries.remove(key).map(|_| ())
        }
        (Value::Map(entries), [Step::Entry(key), rest @ ..]) => {
            let Kind::Message(entry) = kind else { return None };
            change_value(entries.get_mut(key)?, &entry.map_entry_value_field().kind(), rest, change)
        }
        (Value::Message(message), steps) => change_message(message, steps, change),
        (scalar, []) => {
            let Change::Alter(n) = change else { return None };
            *scalar = other(scalar, kind, n)?;
            Some(())
        }
        _ => None,
    }
}

/// A message that sets nothing: another type if it is packed, a value where it has one.
fn alter_empty(message: &mut DynamicMessage, change: Change) -> Option<()> {
    let Change::Alter(n) = change else { return None };
    let first = if message.descriptor().full_name() == "google.protobuf.Any" {
        message.descriptor().get_field_by_name("type_url")?
    } else {
        message.descriptor().fields().find(|field| {
            !field.is_list() && !field.is_map() && field.kind().as_message().is_none()
        })?
    };
    let altered = other(&message.get_field(&first), &first.kind(), n)?;
    message.set_field(&first, altered);
    Some(())
}

fn other(value: &Value, kind: &Kind, n: usize) -> Option<Value> {
    let numbers = |more: Value, less: Value| [more, less].into_iter().nth(n);
    let only = |value: Value| (n == 0).then_some(value);
    match value {
        Value::Bool(on) => only(Value::Bool(!on)),
        Value::I32(i) => numbers(Value::I32(i + 1), Value::I32(i - 1)),
        Value::I64(i) => numbers(Value::I64(i + 1), Value::I64(i - 1)),
        Value::U32(i) => numbers(Value::U32(i.saturating_add(1)), Value::U32(i.saturating_sub(1))),
        Value::U64(i) => numbers(Value::U64(i.saturating_add(1)), Value::U64(i.saturating_sub(1))),
        Value::F32(i) => numbers(Value::F32(i + 1.0), Value::F32(i - 1.0)),
        Value::F64(i) => numbers(Value::F64(i + 1.0), Value::F64(i - 1.0)),
        Value::String(text) => only(Value::String(format!("{text}x"))),
        Value::Bytes(bytes) => only(Value::Bytes([bytes, &b"x"[..]].concat().into())),
        Value::EnumNumber(number) => {
            let all = kind
                .as_enum()?
                .values()
                .map(|value| value.number())
                .filter(|other| other != number);
            all.collect::<Vec<_>>().get(n).copied().map(Value::EnumNumber)
        }
        _ => None,
    }
}

/// The same message with other texts, wherever `other` has one.
pub(crate) fn with_texts(
    message: &DynamicMessage,
    other: &impl Fn(&str) -> Option<String>,
) -> DynamicMessage {
    let mut message = message.clone();
    if let Some(inner) = unpacked(&message) {
        let inner = with_texts(&inner, other);
        message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
        return message;
    }
    let fields: Vec<_> = message.fields().map(|(field, value)| (field, value.clone())).collect();
    for (field, mut value) in fields {
        change_texts(&mut value, other);
        message.set_field(&field, value);
    }
    message
}

fn change_texts(value: &mut Value, other: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => *text = other(text).unwrap_or_else(|| std::mem::take(text)),
        Value::Message(inner) => *inner = with_texts(inner, other),
        Value::List(items) => items.iter_mut().for_each(|item| change_texts(item, other)),
        Value::Map(entries) => entries.values_mut().for_each(|entry| change_texts(entry, other)),
        _ => {}
    }
}

/// A resource of this type, decoded.
pub(crate) fn decode(pool: &DescriptorPool, name: &str, body: &[u8]) -> DynamicMessage {
    let descriptor = pool.get_message_by_name(name).expect("the API has the message");
    DynamicMessage::decode(descriptor, body).expect("a resource is a message of its type")
}
