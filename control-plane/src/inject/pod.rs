//! Ways into a pod that is JSON.

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::decode::{Decoder, describe},
    ir::Labels,
};
use serde_json::{Map, Value};

/// Name of the proxy's container: Istio's, which tools look for.
pub(super) const PROXY: &str = "istio-proxy";
/// Name of the init container that redirects traffic: Istio's.
pub(super) const REDIRECT: &str = "istio-init";
/// The proxy's user and group, whose traffic is not redirected.
pub(super) const PROXY_UID: u64 = 1337;
/// Volumes that a proxy always gets: Istio's names, but for the first.
pub(super) const VOLUMES: [&str; 4] =
    ["ferromesh-work", "istio-podinfo", "istio-token", "istiod-ca-cert"];
/// The lists of containers, in the order in which they run.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// A text of the pod.
pub(super) fn text<'a>(pod: &'a Value, pointer: &str) -> Option<&'a str> {
    pod.pointer(pointer)?.as_str()
}

/// A label of the pod.
pub(super) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// Every label of the pod.
pub(super) fn labels(pod: &Value) -> Labels {
    texts(pod.pointer("/metadata/labels"))
}

fn texts(map: Option<&Value>) -> Labels {
    let text =
        |(key, value): (&String, &Value)| Some((key.as_str().into(), value.as_str()?.into()));
    map.and_then(Value::as_object).into_iter().flatten().filter_map(text).collect()
}

/// An annotation of the pod.
pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// Every annotation of the pod.
pub(super) fn annotations(pod: &Value) -> Labels {
    texts(pod.pointer("/metadata/annotations"))
}

/// Reads an annotation, if it is there, at its path.
pub(super) fn annotated<'a, T>(
    pod: &'a Value,
    key: &str,
    at: &mut Decoder,
    read: impl FnOnce(&'a str, &mut Decoder) -> T,
) -> Option<T> {
    let text = annotation(pod, key)?;
    Some(at.within("metadata", |at| {
        at.within("annotations", |at| at.within_key(key, |at| read(text, at)))
    }))
}

/// A label, or else an annotation of the same name.
pub(super) fn label_or_annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    label(pod, key).or_else(|| annotation(pod, key))
}

/// The path of an annotation, for findings.
pub(super) fn annotation_path(key: &str) -> FieldPath {
    FieldPath::of("metadata.annotations").field(key)
}

/// The map below a field of an object, made if it is not there. What is no object becomes one:
/// [`check`] was here before.
pub(super) fn map<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let below = entry(value, field);
    if !below.is_object() {
        *below = Value::Object(Map::new());
    }
    below.as_object_mut().expect("it was made one")
}

/// The list below a field of an object, made if it is not there.
pub(super) fn list<'a>(value: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let below = entry(value, field);
    if !below.is_array() {
        *below = Value::Array(Vec::new());
    }
    below.as_array_mut().expect("it was made one")
}

fn entry<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made one").entry(field).or_insert(Value::Null)
}

/// The pod's specification.
pub(super) fn spec(pod: &mut Value) -> &mut Value {
    map(pod, "spec");
    &mut pod["spec"]
}

/// Sets an annotation.
pub(super) fn annotate(pod: &mut Value, key: &str, value: impl Into<String>) {
    map(pod, "metadata");
    map(&mut pod["metadata"], "annotations").insert(key.to_owned(), Value::String(value.into()));
}

/// The name of a container, volume or variable.
pub(super) fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Every container of the pod that is not the mesh's own.
pub(super) fn applications(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists = pod
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|spec| spec.iter_mut());
    let containers = lists.filter(|(field, _)| CONTAINER_LISTS.contains(&field.as_str()));
    let containers = containers.filter_map(|(_, list)| list.as_array_mut()).flatten();
    containers.filter(|container| !matches!(name(container), PROXY | REDIRECT))
}

/// Takes a container out: from where, and what it says.
pub(super) fn take_container(
    pod: &mut Value,
    wanted: &str,
) -> Option<((&'static str, usize), Value)> {
    CONTAINER_LISTS.into_iter().find_map(|field| {
        let containers = pod.pointer_mut(&format!("/spec/{field}"))?.as_array_mut()?;
        let index = containers.iter().position(|container| name(container) == wanted)?;
        Some(((field, index), containers.remove(index)))
    })
}

/// Most bytes of a pod's annotations: Kubernetes' own limit, which it looks at only later.
const MOST_ANNOTATIONS: usize = 256 << 10;

/// Says what is not of the form that everything below counts on; all else is the API server's to
/// judge.
pub(super) fn check(pod: &Value) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut expect = |pointer: &str, expected: &str, fits: fn(&Value) -> bool| {
        let Some(value) = pod.pointer(&format!("/{}", pointer.replace('.', "/"))) else { return };
        if !value.is_null() && !fits(value) {
            let finding = Diagnostic::error(Code::WrongType, FieldPath::of(pointer), "wrong type");
            found.push(finding.expected(expected, describe(value)));
        }
    };
    for pointer in ["spec", "metadata"] {
        expect(pointer, "an object", Value::is_object);
    }
    for pointer in ["metadata.labels", "metadata.annotations"] {
        expect(pointer, "a map of texts", |v| {
            v.as_object().is_some_and(|map| map.values().all(Value::is_string))
        });
    }
    for field in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        let objects =
            |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_object));
        expect(&format!("spec.{field}"), "a list of objects", objects);
    }
    if pod.pointer("/spec/containers").and_then(Value::as_array).is_none_or(Vec::is_empty)
        && found.is_empty()
    {
        found.push(Diagnostic::error(
            Code::MissingField,
            FieldPath::of("spec.containers"),
            "missing, but required",
        ));
    }
    found.extend(long_annotations(pod));
    found
}

fn long_annotations(pod: &Value) -> Option<Diagnostic> {
    let annotations = pod.pointer("/metadata/annotations")?.as_object()?;
    let length = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let bytes: usize = annotations.iter().map(length).sum();
    let field = FieldPath::of("metadata.annotations");
    let finding = Diagnostic::error(Code::InvalidValue, field, "too long");
    let expected = format!("at most {MOST_ANNOTATIONS} bytes");
    (bytes > MOST_ANNOTATIONS).then(|| finding.expected(expected, bytes.to_string()))
}
