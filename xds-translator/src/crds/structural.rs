//! From a type's shape to a structural schema, as API servers demand it: every field has a type,
//! and nothing is left open but what we ourselves take as it is.

use serde_json::{Map, Value, json};

use crate::dialect::{
    istio::shared::StringMatch,
    schema::{Field, ObjectSchema, Shape},
};

/// Types whose fields exclude each other.
const ONE_OF_ITS_FIELDS: &[&str] = &[StringMatch::SCHEMA.name];

/// An object with its fields.
pub(super) fn object(schema: &'static ObjectSchema) -> Value {
    let properties: Map<String, Value> =
        schema.fields.iter().map(|f| (f.name.to_owned(), property(f))).collect();
    let required: Vec<&str> = schema.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut made =
        json!({ "type": "object", "description": prose(schema.doc), "properties": properties });
    if !required.is_empty() {
        made["required"] = json!(required);
    }
    if schema.open {
        made["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    if ONE_OF_ITS_FIELDS.contains(&schema.name) {
        made["maxProperties"] = json!(1);
    }
    made
}

/// A field: the schema of its type under the field's own words.
fn property(field: &Field) -> Value {
    let mut made = typed((field.shape)());
    // What is required says something, as when it is read.
    match made["type"].as_str() {
        Some("array") if field.required => made["minItems"] = json!(1),
        Some("string") if field.required && made.get("enum").is_none() => {
            made["minLength"] = json!(1);
        }
        _ => {}
    }
    let mut doc = prose(field.doc);
    if let Some(why) = field.idle {
        doc.push_str(&format!(" No effect: {why}."));
    }
    if let Some(why) = field.refused {
        doc.push_str(&format!(" Refused: {why}."));
    }
    made["description"] = json!(doc);
    made
}

fn typed(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Integer { min, max } => integer(min, max),
        Shape::Number => json!({ "type": "number", "format": "double" }),
        Shape::Duration => json!({ "type": "string", "format": "duration" }),
        Shape::IntegerOrText => json!({ "x-kubernetes-int-or-string": true }),
        Shape::Choice(words) => {
            json!({ "type": "string", "enum": words.iter().map(|w| w.name).collect::<Vec<_>>() })
        }
        Shape::List(items) => json!({ "type": "array", "items": typed(items()) }),
        Shape::Map(values) => json!({ "type": "object", "additionalProperties": typed(values()) }),
        Shape::Object(schema) => object(schema),
        Shape::Any => json!({ "x-kubernetes-preserve-unknown-fields": true }),
    }
}

/// Bounds are written where the format does not say them.
fn integer(min: i64, max: i64) -> Value {
    let narrow = i32::try_from(min).is_ok() && i32::try_from(max).is_ok();
    let mut made = json!({ "type": "integer", "format": if narrow { "int32" } else { "int64" } });
    if min != i64::from(i32::MIN) && min != i64::MIN {
        made["minimum"] = json!(min);
    }
    if max != i64::from(i32::MAX) && max != i64::MAX {
        made["maximum"] = json!(max);
    }
    made
}

/// Documentation as one line of text.
pub(super) fn prose(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::schema::{ChoiceValue, Null};

    const WORDS: &[ChoiceValue] =
        &[ChoiceValue { name: "ON", doc: "" }, ChoiceValue { name: "OFF", doc: "" }];

    #[test]
    fn every_shape_has_a_structural_type() {
        let table = [
            (Shape::Text, json!({ "type": "string" })),
            (Shape::Bool, json!({ "type": "boolean" })),
            (
                Shape::Integer { min: 0, max: 65535 },
                json!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": 65535 }),
            ),
            (
                Shape::Integer { min: i64::from(i32::MIN), max: i64::from(i32::MAX) },
                json!({ "type": "integer", "format": "int32" }),
            ),
            (
                Shape::Integer { min: 0, max: i64::MAX },
                json!({ "type": "integer", "format": "int64", "minimum": 0 }),
            ),
            (Shape::Number, json!({ "type": "number", "format": "double" })),
            (Shape::Duration, json!({ "type": "string", "format": "duration" })),
            (Shape::IntegerOrText, json!({ "x-kubernetes-int-or-string": true })),
            (Shape::Choice(WORDS), json!({ "type": "string", "enum": ["ON", "OFF"] })),
            (
                Shape::List(|| Shape::Text),
                json!({ "type": "array", "items": { "type": "string" } }),
            ),
            (
                Shape::Map(|| Shape::Bool),
                json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
            ),
            (Shape::Any, json!({ "x-kubernetes-preserve-unknown-fields": true })),
        ];
        for (shape, schema) in table {
            assert_eq!(typed(shape), schema, "{shape:?}");
        }
    }

    #[test]
    fn an_object_says_what_is_required_and_what_excludes_what() {
        let port = |required| Field {
            name: "port",
            doc: " Its\n port.\n",
            shape: || Shape::Text,
            required,
            idle: (!required).then_some("it has none"),
            refused: None,
            null: Null::Absent,
        };
        static OPEN: ObjectSchema =
            ObjectSchema { name: "Open", doc: " Left alone.\n", open: true, fields: &[] };
        assert_eq!(property(&port(true))["description"], "Its port.");
        let list = |required| Field { shape: || Shape::List(|| Shape::Text), ..port(required) };
        let choice = Field { shape: || Shape::Choice(WORDS), ..port(true) };
        let least = |field: &Field, key: &str| property(field).get(key).cloned();
        assert_eq!(least(&port(true), "minLength"), Some(json!(1)));
        assert_eq!(least(&list(true), "minItems"), Some(json!(1)));
        for (field, key) in [
            (port(false), "minLength"),
            (list(false), "minItems"),
            (list(true), "minLength"),
            (choice, "minLength"),
        ] {
            assert_eq!(least(&field, key), None, "{field:?}");
        }
        assert_eq!(property(&port(false))["description"], "Its port. No effect: it has none.");
        assert_eq!(object(&OPEN)["x-kubernetes-preserve-unknown-fields"], true);
        let matching = object(StringMatch::SCHEMA);
        assert_eq!(matching["maxProperties"], 1);
        assert!(matching.get("required").is_none());
    }
}
