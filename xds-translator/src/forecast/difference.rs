//! In which fields two messages differ, as people read them.

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A field that is not as before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FieldChange {
    /// Where it is: names of fields, and in brackets what tells the elements of a list apart.
    pub path: String,
    /// What it was; absent if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent if it is there no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Fields, with all that is in them, by which no request or connection is treated otherwise.
const WITHOUT_EFFECT: &[&str] = &[
    "metadata",
    "filter_metadata",
    "stat_prefix",
    "alt_stat_name",
    "access_log",
    "tracing",
    "decorator",
];

impl FieldChange {
    /// Whether some request or connection may be treated otherwise by it.
    pub fn matters(&self) -> bool {
        let mut names = self.path.split(['.', '[', ']']);
        !names.any(|name| WITHOUT_EFFECT.contains(&name))
    }
}

/// Where two messages differ; in the order of their fields.
pub(super) fn between(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<FieldChange>,
) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            compare_objects(&path, before, after, found);
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            compare_lists(&path, before, after, found);
        }
        _ => {
            let (before, after) = (before.cloned(), after.cloned());
            found.push(FieldChange { path, before, after });
        }
    }
}

fn compare_objects(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<FieldChange>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(path, before.get(name), after.get(name), found);
    }
}

/// Elements are paired by what tells them apart, where that is one element on both sides, so that
/// one more of them is not a change of all that follow; the rest by their places.
fn compare_lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<FieldChange>) {
    let (old, new) = (keys(before), keys(after));
    for (key, value) in old.iter().zip(before) {
        let pair = new.iter().position(|other| other == key).map(|at| &after[at]);
        compare(format!("{path}[{key}]"), Some(value), pair, found);
    }
    for (key, value) in new.iter().zip(after).filter(|(key, _)| !old.contains(key)) {
        compare(format!("{path}[{key}]"), None, Some(value), found);
    }
    let moved = |keys: &[Cow<'_, str>], others: &[Cow<'_, str>]| -> Vec<String> {
        let common = keys.iter().filter(|key| others.contains(key));
        common.map(|key| key.clone().into_owned()).collect()
    };
    let (was, is) = (moved(&old, &new), moved(&new, &old));
    if was != is {
        let order = |keys: Vec<String>| Some(Value::from(keys));
        found.push(FieldChange {
            path: format!("{path} (order)"),
            before: order(was),
            after: order(is),
        });
    }
}

/// What tells each element of a list apart; unique.
fn keys(list: &[Value]) -> Vec<Cow<'_, str>> {
    let keys: Vec<_> = list.iter().map(key).collect();
    let is_unique =
        |key: &str| keys.iter().filter(|other| other.as_deref() == Some(key)).count() == 1;
    let with_place = |(place, key): (usize, &Option<Cow<'_, str>>)| match key {
        Some(key) if is_unique(key) => Cow::Owned(key.clone().into_owned()),
        _ => Cow::Owned(place.to_string()),
    };
    keys.iter().enumerate().map(with_place).collect()
}

/// A name, the domains of a virtual host, the match of a route or a chain, an endpoint's address, a
/// header's key, or the text itself.
fn key(element: &Value) -> Option<Cow<'_, str>> {
    let Value::Object(fields) = element else {
        return element.as_str().map(Cow::Borrowed);
    };
    let text = |value: &'_ Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(endpoint) = element.pointer("/endpoint/address/socket_address") {
        let part = |name| endpoint.get(name).map(text).unwrap_or_default();
        return Some(Cow::Owned(format!("{}:{}", part("address"), part("port_value"))));
    }
    let names = ["name", "domains", "match", "filter_chain_match", "locality", "header", "key"];
    names.iter().find_map(|name| fields.get(*name)).map(|value| Cow::Owned(text(value)))
}
