//! How the content of an object stands in its document.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    decode::Decoder,
    object_meta::ObjectMeta,
    schema::{Decode, object},
    spec::{Content, Spec},
    suggest::{self, Suggestion},
};

object! {
    /// What stands at the top of an object.
    Envelope {
        /// Group and version.
        "apiVersion" api_version: Arc<str>,
        /// Kind.
        "kind" kind: Arc<str>,
        /// Identity, labels, annotations.
        "metadata" metadata: ObjectMeta,
        /// Content.
        "spec" spec: Option<Value>,
        /// Written by controllers, ignored.
        "status" status: Option<Value>,
    }
}

/// Objects of which only the metadata matters, whose mistakes are noted already.
pub(super) fn metadata<T: Spec + Decode>(
    value: &Value,
    _: &Map<String, Value>,
    _: &mut Decoder,
) -> Content {
    Arc::new(T::decode(value, &mut Decoder::default()))
}

/// Content that stands beside `metadata`.
pub(super) fn whole<T: Spec + Decode>(
    value: &Value,
    _: &Map<String, Value>,
    at: &mut Decoder,
) -> Content {
    Arc::new(T::decode(value, at))
}

/// Content that stands under `spec`, with nothing unknown beside it.
pub(super) fn spec<T: Spec + Decode>(
    _: &Value,
    map: &Map<String, Value>,
    at: &mut Decoder,
) -> Content {
    let unknown = map
        .iter()
        .filter(|(key, _)| Envelope::SCHEMA.fields.iter().all(|f| f.name != key.as_str()));
    let mut stand_in = None;
    for (key, value) in unknown {
        let suggestion = suggest::for_field(key, value, Envelope::SCHEMA);
        at.within_key(key, |at| at.unknown(key, &suggestion, map, Envelope::SCHEMA));
        if suggestion == Suggestion::Rename("spec") {
            stand_in = Some(value);
        }
    }
    let empty = Value::Object(Map::new());
    let written = map.get("spec").or(stand_in);
    Arc::new(at.within("spec", |at| match written {
        // A document that is cut off behind `spec:`.
        Some(Value::Null) => T::decode_null(at),
        written => T::decode(written.unwrap_or(&empty), at),
    }))
}
