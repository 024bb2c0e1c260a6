//! Reading and changing parts of a message by name.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Value};

use crate::{descriptors::pool, ir::PatchMessage};

/// The message of a patch; `None` if its type is unknown, which it was not when it was checked.
pub(super) fn open(message: &PatchMessage) -> Option<DynamicMessage> {
    let descriptor = pool().get_message_by_name(&message.kind)?;
    DynamicMessage::decode(descriptor, &message.body[..]).ok()
}

/// A message of ours in the form that patches change; `None` if its type is unknown.
pub(super) fn dynamic<M: Message + Name>(message: &M) -> Option<DynamicMessage> {
    let descriptor = pool().get_message_by_name(&M::full_name())?;
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()
}

/// A text; empty if it is not there.
pub(super) fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The texts of a list; empty if it is not there.
pub(super) fn texts(message: &DynamicMessage, field: &str) -> Vec<String> {
    let value = message.get_field_by_name(field);
    let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A message that is there.
pub(super) fn child<'a>(
    message: &'a mut DynamicMessage,
    field: &str,
) -> Option<&'a mut DynamicMessage> {
    // Asking for a field that is not there would make one.
    let there = message.has_field_by_name(field);
    there.then(|| message.get_field_by_name_mut(field)?.as_message_mut()).flatten()
}

/// A copy of a message that is there.
pub(super) fn part(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    let there = message.has_field_by_name(field);
    there.then(|| message.get_field_by_name(field)?.as_message().cloned()).flatten()
}

/// Changes a list of messages.
pub(super) fn list<R>(
    message: &mut DynamicMessage,
    field: &str,
    change: impl FnOnce(&mut Vec<DynamicMessage>) -> R,
) -> R {
    let taken = match message.take_field_by_name(field) {
        Some(Value::List(values)) => values,
        _ => Vec::new(),
    };
    let messages = taken.into_iter().filter_map(|value| match value {
        Value::Message(message) => Some(message),
        _ => None,
    });
    let mut messages: Vec<DynamicMessage> = messages.collect();
    let result = change(&mut messages);
    if !messages.is_empty() {
        let values = messages.into_iter().map(Value::Message).collect();
        message.set_field_by_name(field, Value::List(values));
    }
    result
}

/// What an `Any` holds; `None` if its type is unknown.
pub(super) fn unpack(any: &DynamicMessage) -> Option<DynamicMessage> {
    let url = text(any, "type_url");
    let descriptor = pool().get_message_by_name(url.rsplit('/').next()?)?;
    let value = any.get_field_by_name("value")?;
    DynamicMessage::decode(descriptor, value.as_bytes()?.clone()).ok()
}

/// Puts a message into an `Any` that held one of its type.
pub(super) fn repack(any: &mut DynamicMessage, message: &DynamicMessage) {
    any.set_field_by_name("value", Value::Bytes(message.encode_to_vec().into()));
}
