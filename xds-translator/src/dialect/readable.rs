//! What no object may hold, at whichever door it comes in: it is written as JSON and read again, by
//! the store and by whoever keeps it in memory, and must be the same then.

use serde_json::Value;

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    yaml::{MAX_DEPTH, too_deep},
};

/// Where JSON's reader keeps names to itself: a map with such a key is read as something else.
const RESERVED: &str = "$serde_json::private::";

/// The first part of a value that would not be read again as it is; deeper parts are not looked at.
pub(super) fn unreadable(value: &Value) -> Option<Diagnostic> {
    below(value, &FieldPath::root(), 0)
}

fn below(value: &Value, path: &FieldPath, depth: usize) -> Option<Diagnostic> {
    if !(value.is_object() || value.is_array()) {
        return None;
    }
    if depth == MAX_DEPTH {
        return Some(Diagnostic::error(Code::TooLarge, path.clone(), too_deep()));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter(|(_, item)| item.is_object() || item.is_array())
            .find_map(|(i, item)| below(item, &path.index(i), depth + 1)),
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            if key.starts_with(RESERVED) {
                let message = format!("the key `{key}` is reserved by the reader of JSON");
                let finding = Diagnostic::error(Code::InvalidValue, path.field(&**key), message);
                return Some(finding.fix("give it another name"));
            }
            let nested = value.is_object() || value.is_array();
            nested.then(|| below(value, &path.field(&**key), depth + 1)).flatten()
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::parse_value;

    fn with_status(status: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": { "name": "a", "namespace": "shop" },
            "spec": { "hosts": ["a.example.com"], "ports": [{ "number": 80, "name": "http" }] },
            "status": status,
        })
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused_where_it_stands() {
        let nested = |levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(parse_value(with_status(nested(MAX_DEPTH - 2))).is_ok());
        let key = format!("{RESERVED}RawValue");
        let reserved = json!({ "conditions": [{ &key: "[" }] });
        for (status, code, field) in [
            (nested(MAX_DEPTH - 1), Code::TooLarge, "status.a.a".to_owned()),
            (reserved, Code::InvalidValue, "status.conditions[0]".to_owned()),
        ] {
            let findings = parse_value(with_status(status)).expect_err("refused");
            let found = findings.iter().find(|f| f.code == code).expect("named");
            assert!(found.field.to_string().starts_with(&field), "{found}");
        }
    }

    #[test]
    fn a_refused_object_can_still_be_looked_at() {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, \
             namespace: shop}}\nspec: {{rules: []}}\nstatus: {{\"{RESERVED}RawValue\": \"[\"}}\n"
        );
        let parsed = crate::dialect::parse_file("p.yaml", text.as_bytes());
        let object = &parsed.rejected.first().expect("a refused object").object;
        assert_eq!(object.raw()["metadata"]["name"], "p");
        assert_eq!(object.raw()["spec"], Value::Null);
    }
}
