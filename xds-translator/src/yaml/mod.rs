//! YAML and JSON text as a tree in which everything knows its line and column.
//!
//! Knows nothing about objects. One document at a time, so that a broken one does not spoil its
//! neighbours; bounded in size, depth and alias expansion, so that hostile input costs an error and
//! nothing more. Scalars follow the YAML 1.2 core schema (`yes` and `on` are texts); `<<` merges as
//! Kubernetes' tools do; duplicate keys and merges of
//! anything but maps are errors.

mod build;
mod documents;
mod edit;
mod flow;
mod symptoms;

pub use build::{parse, salvage};
pub use documents::{BYTE_ORDER_MARK, Document, split};
pub use edit::{Lines, apply, text_edit};
pub use symptoms::{indentation_lost, shell_command};

use serde_json::{Map, Number, Value};

use crate::diagnostic::{Code, FieldPath, Segment};

/// Longest document.
pub const MAX_DOCUMENT_BYTES: usize = 10 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 100;
/// Most nodes that aliases may add to a document.
pub const MAX_ALIAS_NODES: usize = 100_000;

/// What is said of a value that is nested deeper.
pub fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

/// A value and where it begins; lines and columns count from 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The value.
    pub content: Content,
    /// Line.
    pub line: u32,
    /// Column.
    pub col: u32,
    /// Number of nodes in it, itself included.
    pub(crate) size: usize,
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// A scalar, resolved.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written; unique keys.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Line of the key.
    pub line: u32,
    /// Column of the key.
    pub col: u32,
    /// The value.
    pub value: Node,
}

/// Why a text is not a document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{col}: {message}")]
pub struct YamlError {
    /// What kind of mistake.
    pub code: Code,
    /// Line.
    pub line: u32,
    /// Column.
    pub col: u32,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: Option<String>,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// What a path leads to.
    pub fn find(&self, path: &FieldPath) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, segment| match (segment, &node.content) {
            (Segment::Field(name), _) => node.get(name),
            (Segment::Index(index), Content::List(items)) => items.get(*index),
            (Segment::Index(_), _) => None,
        })
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => Value::Object(
                entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Line and column of the deepest part of `path` that is there: of the key for a field, of the
    /// item for an index.
    pub fn locate(&self, path: &FieldPath) -> (u32, u32) {
        let (mut node, mut place) = (self, (self.line, self.col));
        for segment in &path.0 {
            match (segment, &node.content) {
                (Segment::Field(name), Content::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|e| e.key == **name) else {
                        return place;
                    };
                    (node, place) = (&entry.value, (entry.line, entry.col));
                }
                (Segment::Index(index), Content::List(items)) => {
                    let Some(item) = items.get(*index) else { return place };
                    (node, place) = (item, (item.line, item.col));
                }
                _ => return place,
            }
        }
        place
    }
}

/// Resolves a plain scalar by the YAML 1.2 core schema.
fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => resolve_number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn resolve_number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Number::from);
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        return text
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| text.parse::<u64>().map(Number::from))
            .ok();
    }
    let shape_fits = unsigned
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    shape_fits.then(|| text.parse::<f64>().ok()).flatten().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let table = [
            ("~", "null"),
            ("true", "true"),
            ("yes", "\"yes\""),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("-12", "-12"),
            ("1.5", "1.5"),
            ("1e3", "1000.0"),
            ("1.2.3", "\"1.2.3\""),
            ("10.244.0.2", "\"10.244.0.2\""),
            ("1-13", "\"1-13\""),
            (".inf", "\".inf\""),
            ("v1", "\"v1\""),
            ("2024-01-01T00:00:00Z", "\"2024-01-01T00:00:00Z\""),
        ];
        for (text, json) in table {
            assert_eq!(resolve_plain(text).to_string(), json, "{text}");
        }
    }
}
