//! The kind of an object as it is written: which one it is, or what it was meant to be.

use serde_json::{Map, Value};

use super::{decode::describe, kind::split_api_version, suggest, table::kinds};
use crate::{
    diagnostic::{Change, Code, Diagnostic, FieldPath},
    ir::Kind,
};

/// What text that is no object is. It is not quoted: it may be anything, a token too.
fn sort_of(value: &Value) -> String {
    match value {
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Null | Value::Array(_) | Value::Object(_) => describe(value),
    }
}

impl Kind {
    /// The kind of an object, from its `apiVersion` and `kind`.
    pub fn of_value(value: &Value) -> Result<Self, Box<Diagnostic>> {
        let error = |code, field: &str, message: String| {
            Diagnostic::error(code, FieldPath::of(field), message)
        };
        let Value::Object(map) = value else {
            let finding = error(Code::NotAnObject, "", "not an object".to_owned());
            return Err(Box::new(
                finding.expected("a map with apiVersion, kind and metadata", sort_of(value)),
            ));
        };
        let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        let Some(name) = text("kind") else {
            return Err(Box::new(error(
                Code::NotAnObject,
                "kind",
                "missing, or not a text: not an object".to_owned(),
            )));
        };
        let Some(api_version) = text("apiVersion") else {
            let finding = error(
                Code::NotAnObject,
                "apiVersion",
                "missing, or not a text: not an object".to_owned(),
            );
            let named = || all_kinds().filter(|kind| kind.kind_name() == name);
            let Some(meant) = named().next() else { return Err(Box::new(finding)) };
            let finding = finding.fix(format!("apiVersion: {}", meant.api_version()));
            // Kinds of several projects share names.
            return Err(Box::new(match named().nth(1) {
                None => finding.change(stated(map, "apiVersion", meant.api_version())),
                Some(_) => finding,
            }));
        };
        Self::from_api(api_version, name).ok_or_else(|| Box::new(unknown_kind(api_version, name)))
    }
}

/// The change by which an object states this field, which is missing, empty or no text.
fn stated(object: &Map<String, Value>, field: &'static str, value: String) -> Change {
    match object.contains_key(field) {
        true => Change::Set(FieldPath::of(field), value.into()),
        false => Change::Add(FieldPath::root(), field, value.into()),
    }
}

/// Groups that are ours to know: a kind of them that is not in the table is a mistake.
const MESH_GROUPS: &[&str] = &[
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "mesh.istio.io",
    "install.istio.io",
];

/// How every group of Istio ends, those that it had once and those that nobody has included.
const ISTIO_GROUPS: &str = ".istio.io";

/// Every known kind, in order.
fn all_kinds() -> impl Iterator<Item = Kind> + Clone {
    kinds().map(|row| row.kind)
}

impl Kind {
    /// The kind that is meant by what is written, perhaps with a slip of the pen in the version,
    /// the group or the name. No list is one.
    pub(super) fn meant(api_version: &str, name: &str) -> Option<Self> {
        let (group, _) = split_api_version(api_version);
        let near = || Self::find(group, near_name(group, name)?);
        let meant = Self::find(group, name).or_else(|| of_another_group(group, name));
        meant.or_else(near).filter(|_| !name.ends_with("List"))
    }
}

/// The kind of this name whose group may be the one that is meant.
fn of_another_group(group: &str, name: &str) -> Option<Kind> {
    let same_name = || all_kinds().filter(|kind| kind.kind_name() == name);
    let of_istio = |group: &str| group.to_ascii_lowercase().ends_with(ISTIO_GROUPS);
    let istios = same_name().find(|kind| of_istio(kind.group())).filter(|_| of_istio(group));
    // Kinds of other projects share names with ours; only where the group is the core one is it
    // surely a slip.
    let slip = || same_name().next().filter(|_| group.is_empty() || of_istio(group));
    let near = || {
        let near = suggest::nearest(group, same_name().map(Kind::group))?;
        same_name().find(|kind| kind.group() == near)
    };
    istios.or_else(slip).or_else(near)
}

/// The name of a kind of the group that is near this one, if the group is ours to know.
fn near_name(group: &str, name: &str) -> Option<&'static str> {
    let of_group = all_kinds().filter(|kind| kind.group() == group);
    let known = MESH_GROUPS.contains(&group) || of_group.clone().any(Kind::served);
    suggest::nearest(name, of_group.map(Kind::kind_name)).filter(|_| known)
}

fn unknown_kind(api_version: &str, name: &str) -> Diagnostic {
    let (group, version) = split_api_version(api_version);
    let error = |field: &str, message: String| {
        Diagnostic::error(Code::UnknownKind, FieldPath::of(field), message)
    };
    if let Some(kind) = Kind::find(group, name) {
        let versions = kind.versions().join(", ");
        return error("apiVersion", format!("{kind} has no version `{version}`"))
            .expected(format!("one of {versions}"), format!("`{version}`"))
            .instead(kind.api_version());
    }
    let no_kind = |field| error(field, format!("no kind {name} in `{api_version}`"));
    if let Some(kind) = of_another_group(group, name) {
        return no_kind("apiVersion").instead(kind.api_version());
    }
    if near_name(group, name).is_some() {
        let of_group = all_kinds().filter(|kind| kind.group() == group).map(Kind::kind_name);
        return suggest::advise(no_kind("kind"), name, of_group);
    }
    if MESH_GROUPS.contains(&group) {
        let of_group = all_kinds().filter(|kind| kind.group() == group);
        let known = of_group.map(Kind::kind_name).collect::<Vec<_>>().join(", ");
        return no_kind("kind").expected(format!("one of {known}"), format!("`{name}`"));
    }
    Diagnostic::info(
        Code::UnsupportedKind,
        FieldPath::of("kind"),
        format!("kind {name} of `{api_version}` means nothing to the mesh; left out"),
    )
}
