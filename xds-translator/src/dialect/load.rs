//! From files and JSON values to objects.
//!
//! A file holds any number of documents; each is an object, a `List` of objects, a mesh
//! configuration under a bare `mesh:` key, or the root namespace's ConfigMap `istio` with one under
//! its key `mesh`.
//! A mistake costs the object it is in, nothing more.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    Object,
    content::{self, Decoded},
    document::{fragments, read_document, unserved_guard},
    fragment::Fragment,
    outcome::{Outcome, Stranger},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Position, Severity},
    ir::{Kind, MeshDefaults, ObjectId},
    yaml,
};

/// Largest file.
pub const MAX_FILE_BYTES: usize = 64 << 20;

/// Most documents of a file.
pub(super) const MAX_DOCUMENTS: usize = 100_000;

/// What a file, or several, came to.
#[derive(Default, Debug)]
pub struct Parsed {
    /// Objects without errors.
    pub objects: Vec<Object>,
    /// Objects with errors: not to be put in force; the last accepted version of them stays.
    pub rejected: Vec<Rejected>,
    /// Objects of known kinds that are not served.
    pub unserved: Vec<Object>,
    /// Documents of kinds that mean nothing here.
    pub strangers: Vec<Stranger>,
    /// What could be read of objects in texts that cannot be read whole.
    pub fragments: Vec<Fragment>,
    /// Every finding, those about rejected objects included.
    pub diagnostics: Vec<Diagnostic>,
}

/// An object with errors.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Which object.
    pub id: ObjectId,
    /// As much of it as could be read, so that other objects can be checked against it.
    pub object: Object,
    /// What was found in it.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    fn add(&mut self, outcome: Outcome) {
        let (object, findings) = match outcome {
            Outcome::Finding(finding) => return self.diagnostics.push(finding),
            Outcome::Fragment(fragment) => return self.fragments.push(fragment),
            Outcome::Stranger(stranger, finding) => {
                self.strangers.push(stranger);
                return self.diagnostics.push(finding);
            }
            Outcome::Object(object, findings) => (object, findings),
        };
        self.diagnostics.extend(findings.iter().cloned());
        if !object.id.kind.served() {
            self.unserved.push(object);
        } else if findings.iter().any(|f| f.severity == Severity::Error) {
            self.rejected.push(Rejected { id: object.id.clone(), object, diagnostics: findings });
        } else {
            self.objects.push(object);
        }
    }

    /// How many objects are refused, documents counted in which none could be read.
    pub fn refused(&self) -> usize {
        let errors = self.diagnostics.iter().filter(|finding| finding.severity == Severity::Error);
        let (named, unreadable): (Vec<_>, Vec<_>) =
            errors.partition(|finding| finding.object.is_some());
        unreadable.len()
            + named
                .iter()
                .filter_map(|finding| finding.object.as_ref())
                .collect::<BTreeSet<_>>()
                .len()
    }

    /// Everything that could be read, valid or not, served or not: what [`crate::analyze`] looks
    /// at.
    pub fn everything(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().chain(self.rejected.iter().map(|r| &r.object)).chain(&self.unserved)
    }
}

/// Parses one file. `file` is its name as users know it; nothing is read from disk.
pub fn parse_file(file: &str, bytes: &[u8]) -> Parsed {
    parse_file_in(&MeshDefaults::default().root_namespace, file, bytes)
}

/// [`parse_file`] for a mesh with another root namespace, whose ConfigMap `istio` is the mesh
/// configuration.
pub fn parse_file_in(root_namespace: &str, file: &str, bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    for outcome in read_file(root_namespace, file, bytes) {
        parsed.add(outcome);
    }
    parsed
}

/// Parses the files of one input set, in order of their paths: of several objects with one identity
/// the first serves, the others are errors.
pub fn parse_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Parsed {
    let mut files: Vec<(&str, &[u8])> = files.into_iter().collect();
    files.sort_by_key(|(path, _)| *path);
    let mut parsed = Parsed::default();
    let mut serving: BTreeMap<ObjectId, Object> = BTreeMap::new();
    let root = MeshDefaults::default().root_namespace;
    for outcome in files.into_iter().flat_map(|(path, bytes)| read_file(&root, path, bytes)) {
        let Outcome::Object(object, _) = &outcome else {
            parsed.add(outcome);
            continue;
        };
        match serving.get(&object.id) {
            Some(first) => parsed.diagnostics.push(duplicate(object, first)),
            None => {
                serving.insert(object.id.clone(), object.clone());
                parsed.add(outcome);
            }
        }
    }
    parsed
}

/// Lays input sets over each other: objects of a later set replace those of earlier ones, along
/// with their findings.
pub fn overlay(sets: impl IntoIterator<Item = Parsed>) -> Parsed {
    let mut all = Parsed::default();
    for set in sets {
        let replaced: BTreeSet<ObjectId> = set.everything().map(|o| o.id.clone()).collect();
        let stays = |id: &ObjectId| !replaced.contains(id);
        all.objects.retain(|o| stays(&o.id));
        all.rejected.retain(|r| stays(&r.id));
        all.unserved.retain(|o| stays(&o.id));
        all.diagnostics.retain(|d| d.object.as_ref().is_none_or(stays));
        all.objects.extend(set.objects);
        all.rejected.extend(set.rejected);
        all.unserved.extend(set.unserved);
        all.strangers.extend(set.strangers);
        all.fragments.extend(set.fragments);
        all.diagnostics.extend(set.diagnostics);
    }
    all
}

/// Parses one object that came as JSON (REST, Kubernetes). `Err` holds what is wrong with it;
/// findings that are no errors come along with the object.
pub fn parse_value(value: Value) -> Result<(Object, Vec<Diagnostic>), Vec<Diagnostic>> {
    let kind = Kind::of_value(&value).map_err(|finding| vec![*finding])?;
    if let Some(refused) = unserved_guard(kind, &value) {
        return Err(vec![named(refused, kind, &value)]);
    }
    if !kind.served() {
        let message = format!("{kind} is not supported yet");
        return Err(vec![Diagnostic::error(Code::UnsupportedKind, FieldPath::of("kind"), message)]);
    }
    let Decoded { object, findings } = content::decode(kind, value, super::Place::default())?;
    let findings: Vec<Diagnostic> =
        findings.into_iter().map(|f| f.object(object.id.clone())).collect();
    if findings.iter().any(|f| f.severity == Severity::Error) {
        Err(findings)
    } else {
        Ok((object, findings))
    }
}

/// A finding with the object that it is about, as far as a value that is not read says which one.
fn named(finding: Diagnostic, kind: Kind, value: &Value) -> Diagnostic {
    let text = |pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    };
    let Some(name) = text("/metadata/name") else { return finding };
    let namespace =
        if kind.namespaced() { text("/metadata/namespace").unwrap_or("default") } else { "" };
    finding.object(ObjectId { kind, namespace: namespace.into(), name: name.into() })
}

/// What an object says beyond itself; controllers write its status.
fn beside_metadata(object: &Object) -> Value {
    let mut content = object.raw();
    if let Some(fields) = content.as_object_mut() {
        fields.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "metadata" | "status"));
    }
    content
}

fn duplicate(object: &Object, first: &Object) -> Diagnostic {
    let root = FieldPath::root();
    let equal = beside_metadata(object) == beside_metadata(first);
    let diagnostic = if equal {
        Diagnostic::info(
            Code::DuplicateObject,
            root.clone(),
            "the same object with equal content is there already",
        )
    } else {
        Diagnostic::error(
            Code::DuplicateObject,
            root.clone(),
            "duplicate object: the first by path serves, this one is left out",
        )
    };
    let diagnostic = diagnostic.fix("keep one of them, or give this one another name");
    object.diagnose(diagnostic).related(first.id.clone(), first.locate(&root))
}

fn read_file(root_namespace: &str, file: &str, bytes: &[u8]) -> Vec<Outcome> {
    let file: Arc<str> = file.into();
    let finding = |diagnostic: Diagnostic, line| {
        Outcome::Finding(diagnostic.at(Some(Position { file: file.clone(), line, col: 1 })))
    };
    let error = |code, message: String| Diagnostic::error(code, FieldPath::root(), message);
    if bytes.len() > MAX_FILE_BYTES {
        let message =
            format!("the file is too large: at most {} MiB are read", MAX_FILE_BYTES >> 20);
        let error = error(Code::UnreadableFile, message);
        return vec![finding(error.fix("split it into several files"), 1)];
    }
    let (text, unreadable) = decoded(bytes);
    let documents = yaml::split(&text);
    // Of a text in which no document can be trusted, guards are read as far as can be.
    let none = |diagnostic, line| -> Vec<Outcome> {
        let documents = documents.iter().take(MAX_DOCUMENTS);
        let fragments = documents.flat_map(|document| fragments(root_namespace, document.text));
        std::iter::once(finding(diagnostic, line)).chain(fragments).collect()
    };
    if let Some(unreadable) = unreadable {
        return none(unreadable, 1);
    }
    if let Some(line) = yaml::indentation_lost(&text) {
        let message =
            "indentation lost: no line is indented, so nothing stands below `spec:` or `metadata:`";
        let error = error(Code::IndentationLost, message.to_owned());
        return none(error.fix("copy the text again with its leading blanks"), line);
    }
    if documents.len() > MAX_DOCUMENTS {
        let message =
            format!("the file has {} documents; at most {MAX_DOCUMENTS} are read", documents.len());
        return none(error(Code::TooLarge, message).fix("split it into several files"), 1);
    }
    let read = |document: yaml::Document<'_>| match document.text.find(REPLACED) {
        Some(at) if matches!(text, Cow::Owned(_)) => {
            let above = document.text[..at].bytes().filter(|byte| *byte == b'\n').count();
            let line = document.first_line.saturating_add(u32::try_from(above).unwrap_or(u32::MAX));
            let finding = finding(error(Code::UnreadableFile, "not UTF-8 text".to_owned()), line);
            std::iter::once(finding).chain(fragments(root_namespace, document.text)).collect()
        }
        _ => read_document(root_namespace, &file, document),
    };
    documents.iter().copied().flat_map(read).collect()
}

/// What stands for bytes that are no text.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// The text of a file, without a byte order mark, and why no document in it can be trusted. Bytes
/// that are no text cost the documents that they are in: the text is then another than written.
fn decoded(bytes: &[u8]) -> (Cow<'_, str>, Option<Diagnostic>) {
    let error = |message: &str| {
        Some(Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message.to_owned()))
    };
    let number = match bytes {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(number) = number {
        let units = bytes[2..].chunks_exact(2).map(|pair| number([pair[0], pair[1]]));
        let text: String = char::decode_utf16(units).map(|read| read.unwrap_or(REPLACED)).collect();
        let refused = error("the file is UTF-16, not UTF-8").map(|e| e.fix("save it as UTF-8"));
        return (text.into(), refused);
    }
    let refused =
        if bytes.contains(&0) { error("the file is binary, not YAML or JSON") } else { None };
    let text = match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => text.strip_prefix(yaml::BYTE_ORDER_MARK).unwrap_or(text).into(),
        Cow::Owned(text) => Cow::Owned(text),
    };
    (text, refused)
}
