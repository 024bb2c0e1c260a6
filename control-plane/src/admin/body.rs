//! An object as JSON, in which a key that is written twice is a mistake, as it is in files: a reader
//! sees the first, a parser takes the last. So is what is nested deeper than in a file.

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

/// What was written, or the first mistake: a key that was written twice, or too many levels.
#[derive(Debug)]
pub(super) struct Written(pub(super) Result<Value, Box<Diagnostic>>);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mistake = RefCell::new(None);
        let whole = Part { path: FieldPath::root(), mistake: &mistake };
        let value = whole.deserialize(deserializer)?;
        Ok(Self(mistake.into_inner().map_or(Ok(value), Err)))
    }
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
        let Written(read) = serde_json::from_str(text).expect("JSON");
        assert_eq!(read.expect("no key twice"), serde_json::from_str::<Value>(text).expect("JSON"));
        for (text, field) in [
            (r#"{"spec":{"rules":[{}],"action":"DENY","rules":[]}}"#, "spec.rules"),
            (r#"{"spec":{"a":[0,{"b":1,"\u0062":1}]}}"#, "spec.a[1].b"),
            (r#"{"kind":1,"kind":1}"#, "kind"),
        ] {
            let Written(read) = serde_json::from_str(text).expect("JSON");
            let finding = read.expect_err(text);
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
                let Written(read) = serde_json::from_str(&text).expect("JSON");
                match read {
                    Ok(_) => assert_eq!(levels, MAX_DEPTH + LIST_LEVELS),
                    Err(finding) => assert_eq!(finding.code, Code::TooLarge, "{levels}"),
                }
            }
        }
    }
}
