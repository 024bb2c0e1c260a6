//! One document of a file: which object, or objects, it holds.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Place,
    content::{self, Decoded},
    fragment::{self, Fragment},
    kind::Serving,
    object::placed_edit,
    outcome::{Outcome, Stranger},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Position, Severity},
    ir::Kind,
    yaml::{self, Content, Document, Lines, Node},
};

/// Reads a document of a mesh with this root namespace.
pub(super) fn read_document(
    root_namespace: &str,
    file: &Arc<str>,
    document: Document<'_>,
) -> Vec<Outcome> {
    let at = |line: u32, col| {
        Some(Position { file: file.clone(), line: document.first_line + line - 1, col })
    };
    // Of what cannot be read whole, guards are read as far as can be.
    let finding = |diagnostic: Diagnostic, line, col, text: &str| -> Vec<Outcome> {
        let finding = Outcome::Finding(diagnostic.at(at(line, col)));
        std::iter::once(finding).chain(fragments(root_namespace, text)).collect()
    };
    let error = |code, message: String| Diagnostic::error(code, FieldPath::root(), message);
    if document.text.len() > yaml::MAX_DOCUMENT_BYTES {
        let message = format!(
            "the document has {} MiB; at most {} MiB are read",
            document.text.len() >> 20,
            yaml::MAX_DOCUMENT_BYTES >> 20
        );
        let mut ends = (0..=yaml::MAX_DOCUMENT_BYTES).rev();
        let end = ends.find(|end| document.text.is_char_boundary(*end)).unwrap_or_default();
        let text = &document.text[..end];
        let error = error(Code::TooLarge, message).fix("split it with `---` lines");
        return finding(error, 1, 1, text);
    }
    if let Some(line) = yaml::shell_command(document.text) {
        let message = "shell command inside YAML".to_owned();
        let fix = "remove it from the file, and run it in a shell";
        return finding(error(Code::ShellCommand, message).fix(fix), line, 1, document.text);
    }
    match yaml::parse(document.text) {
        Ok(None) => Vec::new(),
        Ok(Some(root)) => {
            let lines = Lines::of(document.text);
            Source { root_namespace, file, document, lines, root: &root }.read()
        }
        Err(err) => {
            let (line, col, fix) = (err.line, err.col, err.fix);
            let mut diagnostic = error(err.code, err.message);
            diagnostic.fix = fix;
            finding(diagnostic, line, col, document.text)
        }
    }
}

/// The objects of which something can be read in a text that is no document.
pub(super) fn fragments(root_namespace: &str, text: &str) -> impl Iterator<Item = Outcome> + use<> {
    fragment::of_text(root_namespace, text).into_iter().map(Outcome::Fragment)
}

/// A document that parsed.
struct Source<'a> {
    root_namespace: &'a str,
    file: &'a Arc<str>,
    document: Document<'a>,
    lines: Lines<'a>,
    root: &'a Node,
}

impl Source<'_> {
    fn read(&self) -> Vec<Outcome> {
        if let Some(mesh) = self.bare_mesh() {
            return self.mesh_config(mesh.to_json(), FieldPath::of("mesh"));
        }
        match list_items(self.root) {
            Some(Ok(items)) => {
                return self.list(self.root, items, &FieldPath::root());
            }
            Some(Err(finding)) => {
                return vec![Outcome::Finding(self.placed(*finding, &FieldPath::root()))];
            }
            None => {}
        }
        let place = Place {
            file: self.file.clone(),
            text: self.document.text.into(),
            first_line: self.document.first_line,
            root: FieldPath::root(),
        };
        self.object((self.root, None), FieldPath::root(), place)
    }

    /// A mesh configuration that stands alone under its key. What has other keys beside it, such as
    /// the values of a chart, is none.
    fn bare_mesh(&self) -> Option<&Node> {
        match &self.root.content {
            Content::Map(entries) if entries.len() == 1 => self.root.get("mesh"),
            _ => None,
        }
    }

    /// Reads the items of the list that `base` leads to; an item may be a list again.
    fn list(&self, list: &Node, items: &[Node], base: &FieldPath) -> Vec<Outcome> {
        let read = |(i, item): (usize, &Node)| {
            let at = base.field("items").index(i);
            match list_items(item) {
                Some(Ok(items)) => return self.list(item, items, &at),
                Some(Err(finding)) => return vec![Outcome::Finding(self.placed(*finding, &at))],
                None => {}
            }
            let end = items.get(i + 1).map(|next| next.line);
            let shares_line = end == Some(item.line) || (i > 0 && items[i - 1].line == item.line);
            let place = Place {
                file: self.file.clone(),
                // Items of one long line would each keep the whole of it.
                text: if shares_line { "" } else { self.lines.slice(item.line, end) }.into(),
                first_line: self.document.first_line + item.line - 1,
                root: FieldPath::root().index(0),
            };
            self.object((item, Some(list)), at, place)
        };
        items.iter().enumerate().flat_map(read).collect()
    }

    /// Reads an object, perhaps an item of a list, which `base` leads to.
    fn object(&self, node: (&Node, Option<&Node>), base: FieldPath, place: Place) -> Vec<Outcome> {
        let value = object_of(node);
        let kind = match Kind::of_value(&value) {
            Ok(kind) => kind,
            Err(finding) if finding.severity == Severity::Error => {
                return self.no_object(vec![*finding], &base, &value);
            }
            Err(finding) => {
                return vec![Outcome::Stranger(stranger(&value), self.placed(*finding, &base))];
            }
        };
        let mesh = if kind == Kind::CONFIG_MAP { mesh_of(&value) } else { None };
        let elsewhere = self.elsewhere(kind, mesh.is_some(), &value);
        match (mesh, &elsewhere) {
            (Some(mesh), None) => return self.mesh_text(mesh, &base),
            (None, Some(finding)) => {
                let finding = self.placed(finding.clone(), &base);
                return vec![Outcome::Stranger(stranger(&value), finding)];
            }
            _ => {}
        }
        let place = if kind == Kind::SECRET { Place { text: "".into(), ..place } } else { place };
        let guarded = unserved_guard(kind, &value);
        match content::decode(kind, value, place) {
            Ok(Decoded { object, mut findings }) => {
                findings.extend(guarded.or(elsewhere).or_else(|| unserved(kind, &findings)));
                let id = object.id.clone();
                let findings = findings
                    .into_iter()
                    .map(|f| self.placed(f, &base).object(id.clone()))
                    .collect();
                vec![Outcome::Object(object, findings)]
            }
            Err(findings) => self.no_object(findings, &base, &object_of(node)),
        }
    }

    /// What is found in a document that is no object, and what can be read in it of one.
    fn no_object(
        &self,
        findings: Vec<Diagnostic>,
        base: &FieldPath,
        value: &Value,
    ) -> Vec<Outcome> {
        let findings = findings.into_iter().map(|f| Outcome::Finding(self.placed(f, base)));
        findings.chain(fragment::of_value(value).map(Outcome::Fragment)).collect()
    }

    /// What is said of a mesh configuration in another namespace than the mesh's own, where it means
    /// nothing. A MeshConfig object without a namespace is the mesh's.
    fn elsewhere(&self, kind: Kind, is_mesh_map: bool, value: &Value) -> Option<Diagnostic> {
        let written = value.pointer("/metadata/namespace").and_then(Value::as_str);
        let written = written.filter(|namespace| !namespace.is_empty());
        let root = self.root_namespace;
        let elsewhere = (is_mesh_map && written != Some(root))
            || (kind == Kind::MESH_CONFIG && written.is_some_and(|namespace| namespace != root));
        let message = format!(
            "the mesh configuration is read from the root namespace `{root}` only; this one means nothing"
        );
        elsewhere.then(|| {
            Diagnostic::info(Code::UnsupportedKind, FieldPath::of("metadata.namespace"), message)
        })
    }

    /// A mesh configuration as it stands under the key `mesh` of the ConfigMap `istio`: a text of
    /// its own.
    fn mesh_text(&self, text: &str, base: &FieldPath) -> Vec<Outcome> {
        let field = FieldPath(base.0.iter().cloned().chain(FieldPath::of("data.mesh").0).collect());
        match yaml::parse(text) {
            Ok(mesh) => self.mesh_config(mesh.map_or_else(|| json!({}), |m| m.to_json()), field),
            Err(err) => {
                let message = format!("line {} of the text: {}", err.line, err.message);
                let finding = Diagnostic::error(err.code, FieldPath::of("data.mesh"), message);
                let fragment = Fragment::of_mesh_text(text);
                vec![Outcome::Finding(self.placed(finding, base)), Outcome::Fragment(fragment)]
            }
        }
    }

    /// A mesh configuration that `field` leads to.
    fn mesh_config(&self, mesh: Value, field: FieldPath) -> Vec<Outcome> {
        let value = json!({ "apiVersion": Kind::MESH_CONFIG.api_version(), "kind": "MeshConfig", "metadata": { "name": "default" }, "spec": mesh });
        let Ok(Decoded { mut object, findings }) =
            content::decode(Kind::MESH_CONFIG, value, Place::default())
        else {
            return Vec::new();
        };
        let renamed = |finding: Diagnostic| {
            let below = finding.field.0.iter().skip(1).cloned();
            let path = FieldPath(field.0.iter().cloned().chain(below).collect());
            let mut finding = Diagnostic { field: path, ..finding };
            if let Some(change) = &mut finding.change {
                let below = change.field().0.iter().skip(1);
                *change.field_mut() = FieldPath(field.0.iter().chain(below).cloned().collect());
            }
            self.placed(finding, &FieldPath::root()).object(object.id.clone())
        };
        let findings = findings.into_iter().map(renamed).collect();
        object.place = Place {
            file: self.file.clone(),
            text: self.document.text.into(),
            first_line: self.document.first_line,
            root: field,
        };
        vec![Outcome::Object(object, findings)]
    }

    /// Adds the position of a finding whose field is seen from `base`.
    fn placed(&self, finding: Diagnostic, base: &FieldPath) -> Diagnostic {
        let path = FieldPath(base.0.iter().chain(&finding.field.0).cloned().collect());
        let (line, col) = self.root.locate(&path);
        let change = finding.change.clone().map(|change| change.below(base));
        let edit = change.and_then(|change| {
            placed_edit(&self.lines, self.document.first_line, self.root, &change)
        });
        Diagnostic { edit, ..finding }.at(Some(Position {
            file: self.file.clone(),
            line: self.document.first_line + line - 1,
            col,
        }))
    }
}

/// The object at a node. Items of a list of one kind, as API servers give it, need not repeat the
/// kind.
fn object_of((node, list): (&Node, Option<&Node>)) -> Value {
    let mut value = node.to_json();
    let text = |key| match &list?.get(key)?.content {
        Content::Scalar(Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let kind = text("kind").and_then(|kind| kind.strip_suffix("List")).filter(|k| !k.is_empty());
    if let (Some(kind), Some(api_version)) = (kind, text("apiVersion"))
        && let Value::Object(fields) = &mut value
        && !fields.contains_key("kind")
        && !fields.contains_key("apiVersion")
    {
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), api_version.into());
    }
    value
}

/// The items of a `kind: List`, as `kubectl get -o yaml` prints them; a finding on one that has
/// none. `None`: it is no list.
fn list_items(node: &Node) -> Option<Result<&[Node], Box<Diagnostic>>> {
    let Content::Scalar(Value::String(kind)) = &node.get("kind")?.content else { return None };
    match node.get("items").map(|items| &items.content) {
        Some(Content::List(items)) if kind.ends_with("List") => Some(Ok(items)),
        _ if kind == "List" => {
            let message = "a List without a list of items";
            let finding = Diagnostic::error(Code::NotAnObject, FieldPath::of("items"), message);
            Some(Err(Box::new(finding)))
        }
        _ => None,
    }
}

fn stranger(value: &Value) -> Stranger {
    let text =
        |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().into();
    Stranger { api_version: text("/apiVersion"), kind: text("/kind"), name: text("/metadata/name") }
}

/// The mesh configuration in a ConfigMap, if it is the one that Istio reads.
fn mesh_of(config_map: &Value) -> Option<&str> {
    let name = config_map.pointer("/metadata/name")?.as_str()?;
    (name == "istio").then(|| config_map.pointer("/data/mesh")?.as_str()).flatten()
}

/// What is said about an object of a kind that is not served.
fn unserved(kind: Kind, findings: &[Diagnostic]) -> Option<Diagnostic> {
    if kind.served() || findings.iter().any(|f| f.severity == Severity::Error) {
        return None;
    }
    let field = FieldPath::of("kind");
    let installer = "installer input, not a served object; use `install -f`, `manifest generate -f`, or `convert --to helm`";
    Some(match kind.row().serving {
        Serving::Installer => Diagnostic::info(Code::UnsupportedKind, field, installer),
        _ if kind == Kind::CONFIG_MAP => Diagnostic::info(
            Code::UnsupportedKind,
            field,
            "a ConfigMap means nothing to the mesh (only `istio` of the root namespace does)",
        ),
        _ => Diagnostic::info(Code::UnsupportedKind, field, format!("{kind} is not supported yet")),
    })
}

/// The refusal of an object of a kind that guards access and is not served, with what serves
/// meanwhile.
pub(super) fn unserved_guard(kind: Kind, value: &Value) -> Option<Diagnostic> {
    let Serving::Planned(guards) = kind.row().serving else { return None };
    let meanwhile = guards(value)?;
    let message = format!(
        "this {kind} guards access and is not served yet: the object is refused; meanwhile {meanwhile}"
    );
    let fix = "do without it only if what it guards may be open to everybody";
    Some(Diagnostic::error(Code::UnservedGuard, FieldPath::of("kind"), message).fix(fix))
}
