//! Messages of Envoy's API that users write as JSON inside objects, read strictly.
//!
//! What a message may hold is known from its descriptor. Every mistake is said where it stands: an
//! unknown field with the one that it was probably meant to be, a value of a wrong form, a packed
//! message of a type that nobody knows.

use std::sync::{Arc, LazyLock};

use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    ReflectMessage,
};
use serde_json::{Map, Value};

use super::{
    decode::{Decoder, describe},
    suggest,
};
use crate::{
    descriptors::{canonicalize, pool},
    diagnostic::{Change, Code, Diagnostic, FieldPath},
    ir::PatchMessage,
};

/// Wrap a packed message whose type only a text says; Istio's documentation has them everywhere.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// Reads a message of this type; mistakes go to the decoder, which stands at the value.
pub(super) fn read(kind: &str, value: &Value, at: &mut Decoder) -> Option<DynamicMessage> {
    let descriptor = pool().get_message_by_name(kind)?;
    let mut walk = Walk { sound: true };
    walk.message(&descriptor, value, at);
    if !walk.sound {
        return None;
    }
    match deserialize(&descriptor, &plain(value)) {
        Ok(message) => Some(message),
        Err(reason) => {
            at.invalid(format!("not a {}: {reason}", descriptor.name()), None);
            None
        }
    }
}

/// A message as patches carry it.
pub(super) fn close(message: &DynamicMessage) -> PatchMessage {
    let kind = message.descriptor().full_name().to_owned();
    let name = message.get_field_by_name("name");
    let name: Arc<str> = name.as_deref().and_then(|v| v.as_str()).unwrap_or_default().into();
    let mut body = message.encode_to_vec();
    canonicalize(&kind, &mut body);
    PatchMessage { kind: kind.into(), name, body: body.into() }
}

/// Whether nothing is set in it.
pub(super) fn is_empty(message: &DynamicMessage) -> bool {
    message.fields().next().is_none()
}

fn deserialize(descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options)
        .map_err(|reason| reason.to_string())
}

/// The same with every typed struct replaced by the message that it stands for, so that every proxy
/// reads it, and merging sees its fields.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match wrapped(fields) {
            Some((url, inner)) => {
                let inner = inner.iter().map(|(name, value)| (name.clone(), plain(value)));
                let url = ("@type".to_owned(), Value::String(url.to_owned()));
                Value::Object(std::iter::once(url).chain(inner).collect())
            }
            None => Value::Object(fields.iter().map(|(n, v)| (n.clone(), plain(v))).collect()),
        },
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// The type and the fields of a typed struct.
fn wrapped(fields: &Map<String, Value>) -> Option<(&str, &Map<String, Value>)> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let outer = type_name(fields.get("@type")?.as_str()?);
    let url = fields.get("type_url").or_else(|| fields.get("typeUrl"))?.as_str()?;
    let inner = match fields.get("value") {
        Some(value) => value.as_object()?,
        None => &NONE,
    };
    TYPED_STRUCTS.contains(&outer).then_some((url, inner))
}

fn type_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Compares a value with the descriptor of what it shall become.
struct Walk {
    sound: bool,
}

impl Walk {
    fn note(&mut self, finding: Diagnostic, at: &mut Decoder) {
        self.sound = false;
        at.note(finding);
    }

    fn message(&mut self, descriptor: &MessageDescriptor, value: &Value, at: &mut Decoder) {
        let name = descriptor.full_name();
        if name != "google.protobuf.Any" && name.starts_with("google.protobuf.") {
            if let Err(reason) = deserialize(descriptor, value) {
                self.note(malformed(descriptor.name(), value, &reason, at.path()), at);
            }
            return;
        }
        let Value::Object(fields) = value else {
            let finding = Diagnostic::error(Code::WrongType, at.path(), "wrong type");
            let expected = format!("an object: {name}");
            return self.note(finding.expected(expected, describe(value)), at);
        };
        match name {
            "google.protobuf.Any" => self.packed(descriptor.parent_pool(), fields, at),
            _ => self.fields(descriptor, fields, at),
        }
    }

    fn packed(&mut self, pool: &DescriptorPool, fields: &Map<String, Value>, at: &mut Decoder) {
        if let Some((url, inner)) = wrapped(fields) {
            return at.within("value", |at| self.of_type(pool, url, inner, at));
        }
        match fields.get("@type").and_then(Value::as_str) {
            Some(url) => {
                let mut inner = fields.clone();
                inner.remove("@type");
                self.of_type(pool, url, &inner, at);
            }
            None => {
                let path = at.path().field("@type");
                let finding = Diagnostic::error(
                    Code::MissingField,
                    path,
                    "missing: nothing says which message this is",
                );
                let fix = "`\"@type\": type.googleapis.com/…`, as Envoy's documentation has it";
                self.note(finding.fix(fix), at);
            }
        }
    }

    fn of_type(
        &mut self,
        pool: &DescriptorPool,
        url: &str,
        fields: &Map<String, Value>,
        at: &mut Decoder,
    ) {
        let Some(descriptor) = pool.get_message_by_name(type_name(url)) else {
            let names: Vec<String> =
                pool.all_messages().map(|message| message.full_name().to_owned()).collect();
            let near = suggest::nearest(type_name(url), names.iter().map(String::as_str));
            let finding = Diagnostic::error(
                Code::InvalidValue,
                at.path(),
                "a message of a type that Envoy's API v3 does not have",
            );
            let mut finding = finding.expected("a type of Envoy's API", format!("`{url}`"));
            finding.fix = near.map(|name| format!("`type.googleapis.com/{name}`"));
            return self.note(finding, at);
        };
        // What has a JSON form of its own stands under `value`.
        match (descriptor.full_name().starts_with("google.protobuf."), fields.get("value")) {
            (true, Some(value)) => at.within("value", |at| self.message(&descriptor, value, at)),
            _ => self.fields(&descriptor, fields, at),
        }
    }

    fn fields(
        &mut self,
        descriptor: &MessageDescriptor,
        fields: &Map<String, Value>,
        at: &mut Decoder,
    ) {
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let field = descriptor.get_field_by_json_name(key);
            let field = field.or_else(|| descriptor.get_field_by_name(key));
            at.within_key(key, |at| match field {
                Some(field) => self.field(&field, value, at),
                None => {
                    let finding = unknown_field(descriptor, key, at.path());
                    self.note(finding, at);
                }
            });
        }
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value, at: &mut Decoder) {
        match (field.kind(), value) {
            (Kind::Message(entry), Value::Object(entries)) if field.is_map() => {
                let inner = entry.map_entry_value_field();
                for (key, value) in entries {
                    at.within_key(key, |at| match inner.kind() {
                        Kind::Message(inner) => self.message(&inner, value, at),
                        _ => self.alone(&inner, value, at),
                    });
                }
            }
            (Kind::Message(inner), Value::Array(items)) if field.is_list() => {
                for (index, item) in items.iter().enumerate() {
                    at.within_index(index, |at| self.message(&inner, item, at));
                }
            }
            (Kind::Message(inner), _) if !field.is_map() && !field.is_list() => {
                self.message(&inner, value, at);
            }
            _ => self.alone(field, value, at),
        }
    }

    /// A value without fields: read as the only one of its message.
    fn alone(&mut self, field: &FieldDescriptor, value: &Value, at: &mut Decoder) {
        let mut one = Map::new();
        one.insert(field.json_name().to_owned(), value.clone());
        if let Err(reason) = deserialize(field.parent_message(), &Value::Object(one)) {
            self.note(malformed(&expected(field), value, &reason, at.path()), at);
        }
    }
}

/// What a field takes, in words.
fn expected(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        Kind::Enum(values) => {
            let words: Vec<String> = values.values().map(|v| v.name().to_owned()).collect();
            format!("one of {}", words.join(", "))
        }
        Kind::Message(message) => message.name().to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "text".to_owned(),
        Kind::Bytes => "base64".to_owned(),
        Kind::Double | Kind::Float => "a number".to_owned(),
        _ => "a whole number".to_owned(),
    };
    if field.is_map() {
        "a map".to_owned()
    } else if field.is_list() {
        format!("a list, each {one}")
    } else {
        one
    }
}

fn malformed(expected: &str, value: &Value, reason: &str, path: FieldPath) -> Diagnostic {
    Diagnostic::error(Code::InvalidValue, path, format!("the value cannot be used: {reason}"))
        .expected(expected, describe(value))
}

fn unknown_field(descriptor: &MessageDescriptor, key: &str, path: FieldPath) -> Diagnostic {
    let names: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
    let words = || names.iter().map(String::as_str);
    let message = format!("unknown field of {}", descriptor.full_name());
    let finding = Diagnostic::error(Code::UnknownField, path.clone(), message);
    match suggest::nearest(key, words()) {
        Some(name) => Diagnostic {
            change: suggest::meant(key, words()).map(|name| Change::Rename(path, name.into())),
            ..finding.fix(format!("rename it to `{name}`"))
        },
        None => finding.expected(format!("one of {}", names.join(", ")), format!("`{key}`")),
    }
}
