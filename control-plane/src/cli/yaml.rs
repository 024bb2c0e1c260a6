//! Values as block YAML, for people and for `kubectl apply`.

use serde_json::Value;

/// Words that some YAML reader takes for something else than text.
const NOT_TEXT: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Block YAML, ending in a line break. Scalars are JSON, which YAML contains: nothing needs
/// guessing about quotes.
pub(super) fn block(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

/// Writes `value`, the first line of which begins where `text` ends, the others indented by
/// `depth`.
fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let mut lead = "";
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                text.push_str(&format!("{lead}{}:", key(name)));
                if nested(value) {
                    text.push_str(&format!("\n{indent}  "));
                    write(value, depth + 1, text);
                } else {
                    text.push_str(&format!(" {value}\n"));
                }
                lead = &indent;
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("{lead}- "));
                write(item, depth + 1, text);
                lead = &indent;
            }
        }
        scalar => text.push_str(&format!("{scalar}\n")),
    }
}

fn nested(value: &Value) -> bool {
    match value {
        Value::Object(object) => !object.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A name as a key: without quotes where nobody can take it for something else.
fn key(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !NOT_TEXT.contains(&name.to_ascii_lowercase().as_str());
    if plain { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::{crds::custom_resource_definitions, yaml};
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_holds_what_json_holds() {
        let value = json!({ "a": [{ "b": "x: y", "c": [] }, 1, [2, "no"]], "d": {}, "e": null, "no": { "f/g": true } });
        let expected = "a:\n  - b: \"x: y\"\n    c: []\n  - 1\n  - - 2\n    - \"no\"\nd: {}\ne: null\n\"no\":\n  f/g: true\n";
        assert_eq!(block(&value), expected);
        assert_eq!(block(&json!("text")), "\"text\"\n");
    }

    #[test]
    fn definitions_are_read_back_as_they_were() {
        for definition in custom_resource_definitions() {
            let read = yaml::parse(&block(&definition)).expect("YAML").expect("a document");
            assert_eq!(read.to_json(), definition);
        }
    }
}
