//! An object as JSON, as its author wrote it: no key means anything to the reader itself, and no
//! depth is an error of the whole document, of which the object may be a small part.
//!
//! `serde_json::Value` takes an object whose first key is one of its own
//! (`$serde_json::private::RawValue`) for a text to be read, and gives up beyond 127 levels: one
//! such object would take a list of thousands with it. A key that is written twice is a mistake
//! here, as it is in files: a reader sees the first, a parser takes the last. So is what is nested
//! deeper than in a file.

use std::{cell::RefCell, fmt};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    yaml::{MAX_DEPTH, too_deep},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Levels at which an object of a `List` stands. The object's own depth is looked at when it is
/// read; here only what lies deeper in any case is not kept.
const LIST_LEVELS: usize = 2;

/// What was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The content. What lies deeper than any object may is left out, and what is left is still
    /// deeper than an object may be, so that it is refused as such.
    pub(crate) value: Value,
    /// The first mistake: a key that was written twice, or too many levels.
    pub(crate) mistake: Option<Box<Diagnostic>>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mistake = RefCell::new(None);
        let whole = Part { path: FieldPath::root(), mistake: &mistake };
        let value = whole.deserialize(deserializer)?;
        Ok(Self { value, mistake: mistake.into_inner() })
    }
}

/// The value of a field of a larger document, as it was written.
///
/// # Errors
/// It is no JSON.
pub(crate) fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Written::deserialize(deserializer).map(|written| written.value)
}

/// A part of the document.
struct Part<'a> {
    path: FieldPath,
    mistake: &'a RefCell<Option<Box<Diagnostic>>>,
}

impl<'a> Part<'a> {
    fn below(&self, path: FieldPath) -> Part<'a> {
        Part { path, mistake: self.mistake }
    }

    fn is_too_deep(&self) -> bool {
        self.path.0.len() >= MAX_DEPTH + LIST_LEVELS
    }

    fn note_depth(&self) {
        self.note(Diagnostic::error(Code::TooLarge, self.path.clone(), too_deep()));
    }

    fn note_twice(&self, key: &str) {
        let message = format!("the key `{key}` is written twice");
        let diagnostic = Diagnostic::error(Code::DuplicateKey, self.path.field(key), message);
        self.note(diagnostic.fix("keep one of them"));
    }

    fn note(&self, diagnostic: Diagnostic) {
        self.mistake.borrow_mut().get_or_insert_with(|| Box::new(diagnostic));
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        if self.is_too_deep() {
            self.note_depth();
            // Skipped without recursion, however deep it is.
            while items.next_element::<IgnoredAny>()?.is_some() {}
        }
        while let Some(item) = items.next_element_seed(self.below(self.path.index(list.len())))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        if self.is_too_deep() {
            self.note_depth();
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        }
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.below(self.path.field(key.as_str())))?;
            if map.contains_key(&key) {
                self.note_twice(&key);
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_written_twice_is_named_and_anything_else_is_read_as_it_is() {
        let text =
            r#"{"a":[1,-2,1.5,1e300,true,null,"x\ny",{"b":{},"c":[]}],"d":18446744073709551615}"#;
        let read: Written = serde_json::from_str(text).expect("JSON");
        assert!(read.mistake.is_none());
        assert_eq!(read.value, serde_json::from_str::<Value>(text).expect("JSON"));
        for (text, field) in [
            (r#"{"spec":{"rules":[{}],"action":"DENY","rules":[]}}"#, "spec.rules"),
            (r#"{"spec":{"a":[0,{"b":1,"\u0062":1}]}}"#, "spec.a[1].b"),
            (r#"{"kind":1,"kind":1}"#, "kind"),
        ] {
            let read: Written = serde_json::from_str(text).expect("JSON");
            let finding = read.mistake.expect(text);
            assert_eq!(
                (finding.code, finding.field.to_string()),
                (Code::DuplicateKey, field.into())
            );
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_named_however_deep_it_is() {
        for levels in [MAX_DEPTH + LIST_LEVELS, MAX_DEPTH + LIST_LEVELS + 1, 127, 128, 50_000] {
            for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
                let core = if open == "[" { "" } else { "1" };
                let text = format!("{}{core}{}", open.repeat(levels), close.repeat(levels));
                let read: Written = serde_json::from_str(&text).expect("JSON");
                match read.mistake {
                    None => assert_eq!(levels, MAX_DEPTH + LIST_LEVELS),
                    Some(finding) => assert_eq!(finding.code, Code::TooLarge, "{levels}"),
                }
                let left = read.value.to_string().matches(open).count();
                assert!(left > MAX_DEPTH, "{levels}: {left} are left, which would pass");
            }
        }
    }

    #[test]
    fn no_key_means_anything_to_the_reader() {
        for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            for (text, expected) in [("\"[\"", "["), ("\"1\"", "1"), ("\"{}\"", "{}")] {
                let text = format!(r#"{{"labels":{{"{key}":{text},"z":"y"}}}}"#);
                let read: Written = serde_json::from_str(&text).expect("JSON");
                assert_eq!(read.value["labels"][key], expected, "{text}");
                assert_eq!(read.value["labels"]["z"], "y", "{text}");
            }
        }
    }
}
