//! What the author of a pod writes into a container named `istio-proxy` stands over what the mesh
//! would write; and what templates of the settings say of pods is merged into them.

use std::collections::HashMap;

use serde_json::Value;

use super::{pod, probes};

/// Lists whose items are told apart by a field; all other lists are replaced.
const KEYS: [(&str, &str); 7] = [
    ("env", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];
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

/// Lays what a fragment of a pod says of a container over it.
pub(super) fn lay_fragment(made: &mut Value, fragment: &Value) {
    let name = pod::name(made).to_owned();
    let of_it = containers(fragment).filter(|(_, container)| pod::name(container) == name);
    of_it.for_each(|(_, container)| lay(made, container.clone()));
}

/// Merges a fragment of a pod into the pod: the fragment's fields stand over the pod's, but what the
/// author says of a container stands. Our own containers are laid by [`lay_fragment`].
pub(super) fn merge(pod: &mut Value, fragment: &Value) {
    for (list, container) in containers(fragment) {
        let name = pod::name(container);
        if matches!(name, pod::PROXY | pod::REDIRECT) {
            continue;
        }
        let there = pod::CONTAINER_LISTS.into_iter().find_map(|list| {
            let pointer = format!("/spec/{list}");
            let index =
                pod.pointer(&pointer)?.as_array()?.iter().position(|c| pod::name(c) == name);
            Some((pointer, index?))
        });
        match there {
            Some((pointer, index)) => {
                let mut made = container.clone();
                let written = pod.pointer_mut(&format!("{pointer}/{index}"));
                let Some(written) = written else { continue };
                probes::leave_to(written, &mut made);
                lay(&mut made, written.take());
                *written = made;
            }
            None => pod::list(pod::spec(pod), list).push(container.clone()),
        }
    }
    for part in ["metadata", "spec"] {
        let Some(fields) = fragment.get(part).and_then(Value::as_object) else { continue };
        pod::map(pod, part);
        let of_pod =
            fields.iter().filter(|(name, _)| !pod::CONTAINER_LISTS.contains(&name.as_str()));
        of_pod.for_each(|(name, value)| lay_field(&mut pod[part], name, value.clone()));
    }
}

/// Every container of a fragment, with the list that it is in.
fn containers(fragment: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    pod::CONTAINER_LISTS.into_iter().flat_map(move |list| {
        let containers = fragment.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        containers.into_iter().flatten().map(move |container| (list, container))
    })
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
                Some((_, key)) => lay_items(items, key, written),
                None => *items = written,
            }
        }
        (_, written) => drop(made.insert(field.to_owned(), written)),
    }
}

/// Replaces items with the same key, and adds the others. Costs what the lists are long: authors of
/// pods decide how long that is.
fn lay_items(items: &mut Vec<Value>, key: &str, written: Vec<Value>) {
    let named = |item: &Value| item.get(key).map(Value::to_string);
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(name) = named(item) {
            places.entry(name).or_insert(index);
        }
    }
    for item in written {
        let place = named(&item).map(|name| *places.entry(name).or_insert(items.len()));
        match place {
            Some(index) if index < items.len() => items[index] = item,
            _ => items.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fragment_is_merged_once_and_leaves_the_authors_containers_as_they_say() {
        let mut pod = json!({
            "metadata": { "labels": { "app": "cart" } },
            "spec": {
                "containers": [{
                    "name": "app", "image": "app:1", "env": [{ "name": "A", "value": "mine" }],
                    "readinessProbe": { "httpGet": { "port": 8080 } },
                }],
                "volumes": [{ "name": "data", "emptyDir": {} }],
            },
        });
        let fragment = json!({
            "metadata": { "labels": { "tier": "x" }, "annotations": { "a": "b" } },
            "spec": {
                "priorityClassName": "high",
                "containers": [
                    {
                        "name": "app", "env": [{ "name": "A", "value": "theirs" }, { "name": "B", "value": "b" }],
                        "readinessProbe": { "tcpSocket": { "port": 80 } }, "livenessProbe": { "tcpSocket": { "port": 80 } },
                    },
                    { "name": "istio-proxy", "env": [{ "name": "C", "value": "c" }] },
                    { "name": "log", "image": "log:1" },
                ],
                "volumes": [{ "name": "logs", "emptyDir": {} }],
            },
        });
        let expected = json!({
            "metadata": { "labels": { "app": "cart", "tier": "x" }, "annotations": { "a": "b" } },
            "spec": {
                "priorityClassName": "high",
                "containers": [
                    {
                        "name": "app", "image": "app:1", "env": [{ "name": "A", "value": "mine" }, { "name": "B", "value": "b" }],
                        "readinessProbe": { "httpGet": { "port": 8080 } }, "livenessProbe": { "tcpSocket": { "port": 80 } },
                    },
                    { "name": "log", "image": "log:1" },
                ],
                "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "logs", "emptyDir": {} }],
            },
        });
        merge(&mut pod, &fragment);
        assert_eq!(pod, expected);
        merge(&mut pod, &fragment);
        assert_eq!(pod, expected, "merged twice");
        let mut proxy = json!({ "name": "istio-proxy", "env": [{ "name": "D", "value": "d" }] });
        lay_fragment(&mut proxy, &fragment);
        assert_eq!(proxy["env"][1], json!({ "name": "C", "value": "c" }));
    }

    #[test]
    fn of_items_with_one_key_the_last_stands_where_the_first_stood() {
        let mut made = json!({ "env": [{ "name": "A", "value": "1" }, { "value": "nameless" }] });
        let written = json!({ "env": [
            { "name": "B", "value": "2" }, { "name": "A", "value": "3" }, { "name": "B", "value": "4" }, { "value": "other" },
        ] });
        lay(&mut made, written);
        let expected = json!([
            { "name": "A", "value": "3" }, { "value": "nameless" }, { "name": "B", "value": "4" }, { "value": "other" },
        ]);
        assert_eq!(made["env"], expected);
    }

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
