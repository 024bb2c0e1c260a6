//! `specs.smi-spec.io HTTPRouteGroup`: fields and rules.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Spec, is_early, version};
use crate::{
    dialect::{
        decode::Decoder,
        forms::each,
        lowering::Lowering,
        reading,
        schema::{Decode, Shape, object},
        spec::Content,
    },
    snapshot::Item,
};

object! {
    /// Named conditions on requests.
    RouteGroup {
        /// The conditions.
        "matches" matches: Vec<RouteMatch> [required],
    }
}

object! {
    /// Conditions on a request; all must hold.
    RouteMatch {
        /// Its name, by which policies refer to it.
        "name" name: Arc<str> [required],
        /// RE2 that the beginning of the path matches; absent: any path.
        "pathRegex" path_regex: Arc<str>,
        /// Methods; absent, or `*`: any.
        "methods" methods: Vec<Arc<str>>,
        /// RE2 that the whole value of a header matches, by its name.
        "headers" headers: Headers,
    }
}

/// Headers by name: a map, or a list of maps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Headers(pub BTreeMap<Arc<str>, Arc<str>>);

impl Decode for Headers {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        let Value::Array(list) = value else {
            return Self(BTreeMap::decode(value, at));
        };
        let mut all = BTreeMap::new();
        for (index, map) in list.iter().enumerate() {
            at.within_index(index, |at| all.extend(BTreeMap::decode(map, at)));
        }
        Self(all)
    }

    fn shape() -> Shape {
        Shape::Any
    }
}

/// Reads a group: before v1alpha3 its conditions stand beside the metadata.
pub(super) fn read(value: &Value, map: &Map<String, Value>, at: &mut Decoder) -> Content {
    if !is_early(version(value)) {
        return reading::spec::<RouteGroup>(value, map, at);
    }
    let beside =
        |key: &String| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status");
    let own: Map<String, Value> =
        map.iter().filter(|(key, _)| beside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    Arc::new(RouteGroup::decode(&Value::Object(own), at))
}

impl Spec for RouteGroup {
    fn check(&self, at: &mut Decoder) {
        // Where the conditions stand depends on the version; a finding in a regular expression names
        // the usual place.
        at.within("spec", |at| {
            each("matches", &self.matches, at, |one, at| {
                at.within("pathRegex", |at| at.check_regex(&one.path_regex));
                at.within("headers", |at| {
                    for (name, regex) in &one.headers.0 {
                        at.within_key(name, |at| at.check_regex(regex));
                    }
                });
                each("methods", &one.methods, at, |method, at| {
                    let token =
                        |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
                    if method.is_empty() || !method.chars().all(token) {
                        at.invalid(format!("`{method}` is not a method"), None);
                    }
                });
            });
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.route_group(self)]
    }
}
