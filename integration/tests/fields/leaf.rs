//! The leaves of a message, whatever lies between: fields, lists, maps and packed messages; and
//! messages that differ in one of them.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};

/// One step from a message to what lies in it.
#[derive(Clone)]
enum Step {
    Field(FieldDescriptor),
    Item(usize),
    Entry(MapKey),
    /// Into the message that an `Any` holds.
    Packed,
}

/// A value that a message sets.
pub(crate) struct Leaf {
    /// Where it is, without the positions in lists and the names in maps that users choose.
    pub(crate) pattern: String,
    steps: Vec<Step>,
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
        steps.push(Step::Packed);
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
        [Step::Packed, rest @ ..] => {
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
