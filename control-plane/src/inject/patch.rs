//! The difference of two JSON values as a JSON patch (RFC 6902).

use serde_json::{Value, json};

/// Operations that make `after` of `before`; empty if they are equal. Maps are compared key by key,
/// lists as a whole.
pub fn between(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(before, after, &mut String::new(), &mut operations);
    operations
}

fn compare(before: &Value, after: &Value, path: &mut String, operations: &mut Vec<Value>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if before != after {
            operations.push(json!({ "op": "replace", "path": path, "value": after }));
        }
        return;
    };
    for (key, value) in new {
        below(path, key, |path| match old.get(key) {
            Some(old) => compare(old, value, path, operations),
            None => operations.push(json!({ "op": "add", "path": path, "value": value })),
        });
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        below(path, key, |path| operations.push(json!({ "op": "remove", "path": path })));
    }
}

/// Runs `f` with the path of a key below the present one.
fn below(path: &mut String, key: &str, f: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
    f(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_what_changes_and_nothing_else() {
        let before = json!({ "a": { "x/y": 1, "z": [1, 2] }, "b": "gone", "c": null });
        let after = json!({ "a": { "x/y": 2, "z": [1, 2] }, "c": null, "d~": {} });
        let mut operations = between(&before, &after);
        operations.sort_by_key(ToString::to_string);
        let expected = [
            json!({ "op": "add", "path": "/d~0", "value": {} }),
            json!({ "op": "remove", "path": "/b" }),
            json!({ "op": "replace", "path": "/a/x~1y", "value": 2 }),
        ];
        assert_eq!(operations, expected);
        assert_eq!(between(&after, &after), [] as [Value; 0]);
    }
}
