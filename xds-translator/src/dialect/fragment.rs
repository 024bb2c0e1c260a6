//! What can be read of objects in a text that is no document, and in a document that is no object:
//! enough to know which guards are missing, and for whom.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::istio::envoy_filter::names_guard;
use crate::{
    ir::{Kind, ObjectId},
    yaml,
};

/// What could be read of an object in a text that cannot be read whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Fragment {
    /// Which object; one without a readable name has one of our making.
    pub id: ObjectId,
    /// What stands before the mistake, or beside it; never to be served.
    pub value: Value,
    /// Whether the text of it names what guards, be it behind the mistake.
    pub guards: bool,
}

impl Fragment {
    /// What can be read of a mesh configuration in a text that cannot be read whole.
    pub fn of_mesh_text(text: &str) -> Self {
        let read = yaml::salvage(text).first().map(yaml::Node::to_json);
        let id = ObjectId { kind: Kind::MESH_CONFIG, namespace: "".into(), name: "default".into() };
        let value = json!({ "metadata": { "name": "default" }, "spec": read });
        Self { id, value, guards: false }
    }
}

/// Lines and trees come in one order, so that what is of a line is not looked for further on.
const FURTHEST: usize = 64;

/// The objects of which something can be read in a text that is no document: what the reader of
/// YAML finds, and what single lines say, since a mistake may stand before everything else.
pub(super) fn of_text(root_namespace: &str, text: &str) -> Vec<Fragment> {
    let trees = yaml::salvage(text);
    let mut read: VecDeque<Value> = trees.iter().flat_map(|tree| objects(tree.to_json())).collect();
    let mut found = Vec::new();
    for sketch in sketches(text) {
        let place = read.iter().take(FURTHEST).position(|value| sketch.is_of(value));
        let value = place.and_then(|place| read.remove(place));
        found.extend(sketch.complete(value.unwrap_or_else(|| json!({}))));
    }
    found.extend(read.iter().filter_map(of_value));
    found.extend(read.iter().filter_map(|value| bare_mesh(value, text)));
    let meshes: Vec<Fragment> = found.iter().filter_map(|f| mesh_map(f, root_namespace)).collect();
    found.extend(meshes);
    found
}

/// What can be read of a mesh configuration in its ConfigMap.
fn mesh_map(map: &Fragment, root_namespace: &str) -> Option<Fragment> {
    let Fragment { id, value, .. } = map;
    let is_mesh = id.kind == Kind::CONFIG_MAP && &*id.name == "istio";
    let written = value.pointer("/data/mesh").and_then(Value::as_str);
    (is_mesh && &*id.namespace == root_namespace)
        .then(|| Fragment::of_mesh_text(written.unwrap_or_default()))
}

/// What can be read of a mesh configuration that stands alone under its key.
fn bare_mesh(value: &Value, text: &str) -> Option<Fragment> {
    let spec = value.get("mesh").filter(|_| value.as_object().is_some_and(|map| map.len() == 1))?;
    Some(Fragment { value: json!({ "spec": spec }), ..Fragment::of_mesh_text(text) })
}

/// What can be read of an object whose kind, or whose name, is none.
pub(super) fn of_value(value: &Value) -> Option<Fragment> {
    Sketch::of(value).complete(value.clone())
}

/// The objects of a tree: its own, or those of a list, however deep.
fn objects(value: Value) -> Vec<Value> {
    let is_list = text(&value, "/kind").is_some_and(|kind| kind.ends_with("List"));
    match value.get("items").and_then(Value::as_array) {
        Some(items) if is_list => items.iter().cloned().flat_map(objects).collect(),
        _ => vec![value],
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What some lines say of which object they are.
#[derive(Default, Debug)]
struct Sketch<'t> {
    api_version: Option<&'t str>,
    kind: Option<&'t str>,
    /// Whether `metadata` came.
    in_metadata: bool,
    name: Option<&'t str>,
    namespace: Option<&'t str>,
    text: &'t str,
}

impl<'t> Sketch<'t> {
    fn of(value: &'t Value) -> Self {
        Self {
            api_version: text(value, "/apiVersion"),
            kind: text(value, "/kind"),
            in_metadata: true,
            name: text(value, "/metadata/name"),
            namespace: text(value, "/metadata/namespace"),
            text: "",
        }
    }

    /// Whether a value is of the same object.
    fn is_of(&self, value: &Value) -> bool {
        let named =
            |pointer, own: Option<&str>| text(value, pointer).is_none_or(|n| own == Some(n));
        text(value, "/kind") == self.kind
            && named("/metadata/name", self.name)
            && named("/metadata/namespace", self.namespace)
    }

    /// `None`: it is of no kind that means anything here, or of one whose content is nobody's to
    /// keep.
    fn complete(self, value: Value) -> Option<Fragment> {
        let kind = Kind::meant(self.api_version.unwrap_or_default(), self.kind?)?;
        if kind == Kind::SECRET {
            return None;
        }
        let made_up = || -> Arc<str> {
            let content = format!("{}{value}", self.text);
            format!("refused-{:016x}", xxh3_64(content.as_bytes())).into()
        };
        let namespace = match (kind.namespaced(), self.namespace) {
            (false, _) => "",
            (true, written) => written.unwrap_or("default"),
        };
        let name = self.name.map_or_else(made_up, Arc::from);
        let id = ObjectId { kind, namespace: namespace.into(), name };
        Some(Fragment { id, value, guards: names_guard(self.text) })
    }
}

/// What the lines of a text say, and the parts of flow forms in them: an object begins where a line
/// says a kind.
fn sketches(text: &str) -> Vec<Sketch<'_>> {
    let mut all: Vec<(usize, Sketch<'_>)> = Vec::new();
    let mut current = Sketch::default();
    let mut next_version = None;
    let mut begin = 0;
    for (at, key, value) in words(text) {
        match key {
            "kind" if !value.is_empty() => {
                if current.kind.is_some() {
                    all.push((begin, std::mem::take(&mut current)));
                    current.api_version = next_version.take();
                    begin = at;
                }
                current.kind = Some(value);
            }
            "apiVersion" if current.api_version.is_none() => current.api_version = Some(value),
            "apiVersion" => next_version = Some(value),
            "metadata" => current.in_metadata = true,
            "name" if current.in_metadata && current.name.is_none() => {
                current.name = is_name(value).then_some(value);
            }
            "namespace" if current.in_metadata && current.namespace.is_none() => {
                current.namespace = is_name(value).then_some(value);
            }
            _ => {}
        }
    }
    all.push((begin, current));
    let ends: Vec<usize> = all.iter().skip(1).map(|(at, _)| *at).chain([text.len()]).collect();
    let cut = |((begin, sketch), end)| Sketch { text: &text[begin..end], ..sketch };
    all.into_iter().zip(ends).map(cut).filter(|sketch| sketch.kind.is_some()).collect()
}

/// Keys and values that stand on a line, or between the signs of flow forms; comments left out.
fn words(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    text.split_inclusive(['\n', '\r'])
        .scan(0, |offset, line| {
            let at = *offset;
            *offset += line.len();
            Some((at, line))
        })
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
        .map(|(at, line)| (at, line.split(" #").next().unwrap_or_default()))
        .flat_map(|(at, line)| line.split([',', '{', '}']).map(move |part| (at, part)))
        .filter_map(|(at, part)| {
            let (key, value) = part.split_once(':')?;
            Some((at, unquoted(key.trim_start_matches([' ', '\t', '-', '['])), unquoted(value)))
        })
}

fn unquoted(word: &str) -> &str {
    word.trim().trim_matches(['"', '\''])
}

/// Whether a word can be the name of an object, or of a namespace.
fn is_name(word: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !word.is_empty() && word.len() <= 253 && word.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "istio-system";

    /// `KIND NAMESPACE/NAME` of what is found; a made-up name is `?`.
    fn check(text: &str, expected: &[&str]) {
        let about = |f: &Fragment| {
            let made_up = f.id.name.starts_with("refused-");
            let name = if made_up { "?" } else { &*f.id.name };
            format!("{} {}/{name}", f.id.kind.kind_name(), f.id.namespace)
        };
        let found: Vec<String> = of_text(ROOT, text).iter().map(about).collect();
        assert_eq!(found, expected, "{text}");
    }

    const DENY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny
  namespace: shop
spec:
  action: DENY
";

    #[test]
    fn a_mistake_anywhere_leaves_which_object_it_was() {
        let deny = ["AuthorizationPolicy shop/deny"];
        let nameless = ["AuthorizationPolicy shop/?"];
        let table: [(String, &[&str]); 17] = [
            (DENY.replace("  action", "\taction"), &deny),
            (DENY.replace("  ", "\t"), &deny),
            (DENY.replace("metadata:", "metadata: ["), &deny),
            (DENY.replace("kind: Auth", "kind: kind: Auth"), &deny),
            (format!("{{{{- if .Values.on }}}}\n{DENY}{{{{- end }}}}\n"), &deny),
            (DENY.replace("name: deny", "name: {{ .Release.Name }}"), &nameless),
            (DENY.replace("name: deny", "name: \"deny\" # ours\n  x: ["), &deny),
            (
                DENY.replace("  namespace: shop\n", "") + "\t- [",
                &["AuthorizationPolicy default/deny"],
            ),
            (DENY.replace("istio.io/v1", "istio.io/v2") + "\t[", &deny),
            (DENY.replace("apiVersion: security.istio.io/v1\n", "[\n"), &deny),
            (DENY.replace("AuthorizationPolicy", "AuthorisationPolicy") + "\t[", &deny),
            (DENY.replace('\n', "\r") + "---\r[", &deny),
            (format!("# {DENY}").replace("\nkind", "\n# kind") + "\t[", &[]),
            (
                format!("{DENY}\t[\n{}", DENY.replace("name: deny", "name: second")),
                &["AuthorizationPolicy shop/deny", "AuthorizationPolicy shop/second"],
            ),
            (
                format!("[\n{DENY}kind: Service\nmetadata: {{name: cart}}\n"),
                &["AuthorizationPolicy shop/deny", "Service default/cart"],
            ),
            (
                "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"AuthorizationPolicy\", \
                 \"metadata\": {\"name\": \"deny\", \"namespace\": \"shop\"}, \"spec\": {]}"
                    .to_owned(),
                &deny,
            ),
            (
                "kind: List\napiVersion: v1\nitems:\n".to_owned()
                    + &format!("- {}", DENY.replace('\n', "\n  "))
                    + "action: DENY\n",
                &deny,
            ),
        ];
        for (text, expected) in table {
            check(&text, expected);
        }
    }

    #[test]
    fn a_mesh_configuration_is_read_as_far_as_can_be_wherever_it_stands() {
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomain: corp\n  other: [\n";
        let lost = map.replace("data:", "data: [");
        let table = [
            (map.to_owned(), Some(json!({ "trustDomain": "corp" }))),
            (lost, Some(Value::Null)),
            (map.replace("istio-system", "shop"), None),
            (
                "mesh:\n  trustDomain: corp\n  a: [\n".to_owned(),
                Some(json!({ "trustDomain": "corp", "a": [] })),
            ),
        ];
        for (text, expected) in table {
            let found = of_text(ROOT, &text);
            let meshes = found.iter().filter(|f| f.id.kind == Kind::MESH_CONFIG);
            let specs: Vec<&Value> = meshes.map(|mesh| &mesh.value["spec"]).collect();
            assert_eq!(specs, expected.iter().collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn what_was_read_comes_with_the_object_that_it_is_of() {
        let second = DENY.replace("name: deny", "name: second");
        let found = of_text(ROOT, &format!("{DENY}{second}x: ["));
        let spec = |f: &Fragment| (f.id.name.to_string(), f.value["spec"]["action"].clone());
        let specs: Vec<_> = found.iter().map(spec).collect();
        let expected = ["deny", "second"].map(|name| (name.to_owned(), json!("DENY")));
        assert_eq!(specs, expected);
        let filter = "kind: EnvoyFilter\nmetadata: [\nspec: envoy.filters.http.ext_authz\n";
        let guards = |text: &str| of_text(ROOT, text).iter().map(|f| f.guards).collect::<Vec<_>>();
        assert_eq!(guards(&format!("{DENY}{filter}{DENY}")), [false, true, false]);
        let nameless = json!({ "kind": "AuthorizationPolicy", "metadata": {}, "spec": { "a": 1 } });
        let other = json!({ "kind": "AuthorizationPolicy", "metadata": {}, "spec": { "a": 2 } });
        let name = |value: &Value| of_value(value).map(|fragment| fragment.id.name);
        assert!(name(&nameless).is_some() && name(&nameless) != name(&other));
    }
}
