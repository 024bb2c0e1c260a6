//! What the author of a pod writes into a container named `istio-proxy` stands over what the mesh
//! would write.

use serde_json::Value;

/// Lists whose items are told apart by a field; all other lists are replaced.
const KEYS: [(&str, &str); 3] =
    [("env", "name"), ("volumeMounts", "mountPath"), ("ports", "containerPort")];
/// The image of a container that leaves it to the mesh.
const AUTO: &str = "auto";

/// Lays `written` over `made`. Laying the result over `made` again changes nothing.
pub(super) fn lay(made: &mut Value, written: Value) {
    let Value::Object(mut written) = written else { return };
    if written.get("image").is_some_and(|image| image == AUTO) {
        written.remove("image");
        // For an image without a tag the API server fills in `Always`, before it asks us.
        written.remove("imagePullPolicy");
    }
    written.into_iter().for_each(|(field, value)| lay_field(made, &field, value));
}

fn lay_field(made: &mut Value, field: &str, written: Value) {
    let Some(made) = made.as_object_mut() else { return };
    match (made.get_mut(field), written) {
        (_, Value::Null) => {}
        (Some(Value::Object(below)), Value::Object(written)) => {
            let mut merged = Value::Object(std::mem::take(below));
            written.into_iter().for_each(|(field, value)| lay_field(&mut merged, &field, value));
            made.insert(field.to_owned(), merged);
        }
        (Some(Value::Array(items)), Value::Array(written)) => {
            match KEYS.iter().find(|(list, _)| *list == field) {
                Some((_, key)) => written.into_iter().for_each(|item| lay_item(items, key, item)),
                None => *items = written,
            }
        }
        (_, written) => drop(made.insert(field.to_owned(), written)),
    }
}

/// Replaces the item with the same key, or adds one.
fn lay_item(items: &mut Vec<Value>, key: &str, written: Value) {
    match items.iter_mut().find(|item| item.get(key).is_some() && item.get(key) == written.get(key))
    {
        Some(item) => *item = written,
        None => items.push(written),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_stands_over_what_is_made() {
        let made = json!({
            "name": "istio-proxy", "image": "mesh", "imagePullPolicy": "IfNotPresent", "args": ["run"],
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "resources": { "limits": { "cpu": "2", "memory": "1Gi" } },
        });
        let written = json!({
            "name": "istio-proxy", "image": "auto", "imagePullPolicy": "Always", "args": ["run", "--log", "debug"],
            "lifecycle": null,
            "env": [{ "name": "B", "value": "3" }, { "name": "C", "value": "4" }],
            "resources": { "limits": { "cpu": "4" } },
        });
        let expected = json!({
            "name": "istio-proxy", "image": "mesh", "imagePullPolicy": "IfNotPresent", "args": ["run", "--log", "debug"],
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "3" }, { "name": "C", "value": "4" }],
            "resources": { "limits": { "cpu": "4", "memory": "1Gi" } },
        });
        let mut once = made.clone();
        lay(&mut once, written);
        assert_eq!(once, expected);
        let mut twice = made;
        lay(&mut twice, once);
        assert_eq!(twice, expected);
    }
}
