//! An object of any served kind: identity, metadata, typed content, original content and the place
//! it was written.

use std::{any::Any, fmt, sync::Arc};

use serde_json::Value;

use super::{meta::Meta, spec::Content};
use crate::{
    diagnostic::{Change, Diagnostic, FieldPath, Position, TextEdit},
    ir::{Kind, ObjectId, Origin},
    yaml::{self, Lines, Node},
};

/// An object.
#[derive(Clone)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// What it says about itself.
    pub meta: Arc<Meta>,
    /// Its content; `None` for a known kind that is not served, of which only the identity and the
    /// raw content are there.
    pub(crate) spec: Option<Content>,
    /// Where it is written.
    pub place: Place,
    /// What was written, as the text of JSON, defaults not filled in: a tree of it takes ten times
    /// the memory.
    pub(crate) raw: Arc<str>,
}

impl Object {
    /// Its content, if it is of this type.
    pub fn content<T: Any>(&self) -> Option<&T> {
        let content: &dyn Any = self.spec.as_deref()?;
        content.downcast_ref()
    }

    /// Its origin, for what is lowered from it.
    pub fn origin(&self) -> Origin {
        Origin { id: self.id.clone(), created: self.meta.created }
    }

    /// What was written, as JSON. A Secret's values and annotations are replaced: for answers, logs
    /// and dumps.
    pub fn to_json(&self) -> Value {
        let mut value = self.raw();
        if self.id.kind == Kind::SECRET {
            redact(&mut value);
        }
        value
    }

    /// What was written, as JSON, a Secret's values included: for stores that seal it.
    ///
    /// # Panics
    /// Never: the text was made from a value.
    pub fn raw(&self) -> Value {
        serde_json::from_str(&self.raw).expect("serde_json reads what it wrote")
    }

    /// The file and line on which its document begins; `None` for objects that did not come from a
    /// file.
    pub fn written_at(&self) -> Option<String> {
        let Place { file, first_line, .. } = &self.place;
        (!file.is_empty()).then(|| format!("{file}:{first_line}"))
    }

    /// Where a field is written; `None` for objects that did not come from a file.
    pub fn locate(&self, field: &FieldPath) -> Option<Position> {
        self.place.locate(field)
    }

    /// Completes diagnostics with this object and the positions of their fields; reads the text
    /// once.
    pub fn diagnose_all(&self, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if diagnostics.is_empty() {
            return diagnostics;
        }
        let written = self.place.read();
        let complete =
            |d: Diagnostic| self.place.complete(written.as_ref(), d.object(self.id.clone()));
        diagnostics.into_iter().map(complete).collect()
    }

    /// Completes a diagnostic with this object and the position of its field.
    pub fn diagnose(&self, diagnostic: Diagnostic) -> Diagnostic {
        self.place.complete(self.place.read().as_ref(), diagnostic.object(self.id.clone()))
    }
}

fn redact(secret: &mut Value) {
    for key in ["data", "stringData"] {
        match secret.get_mut(key) {
            Some(Value::Object(values)) => values
                .values_mut()
                .for_each(|value| *value = Value::String("[redacted]".to_owned())),
            Some(value) => *value = Value::String("[redacted]".to_owned()),
            None => {}
        }
    }
    // Tools keep copies of whole objects in annotations, each in one of its own.
    if let Some(annotations) =
        secret.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.values_mut().for_each(|value| *value = Value::String("[redacted]".to_owned()));
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("id", &self.id)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Where an object is written. Types carry no spans: a position is found by reading the document
/// again, since only diagnostics need one.
#[derive(Clone, Default)]
pub struct Place {
    /// The file as the user named it; empty when there is none.
    pub file: Arc<str>,
    /// The document; empty when there is none, and for Secrets.
    pub(crate) text: Arc<str>,
    /// Line of the file on which the document begins.
    pub(crate) first_line: u32,
    /// Where the object sits in the document (items of a `List`).
    pub(crate) root: FieldPath,
}

impl Place {
    /// The position of the deepest part of `field` that is written; `None` for objects that did not
    /// come from a file.
    pub fn locate(&self, field: &FieldPath) -> Option<Position> {
        self.position(self.tree().as_ref(), field)
    }

    /// The document, read again; `None` if there is no text.
    pub(crate) fn tree(&self) -> Option<Node> {
        yaml::parse(&self.text).ok().flatten()
    }

    /// As [`Self::locate`], for whoever has read the document already.
    pub(crate) fn position(&self, tree: Option<&Node>, field: &FieldPath) -> Option<Position> {
        if self.file.is_empty() {
            return None;
        }
        let path = FieldPath(self.root.0.iter().chain(&field.0).cloned().collect());
        let (line, col) = tree.map_or((1, 1), |tree| tree.locate(&path));
        Some(Position { file: self.file.clone(), line: self.first_line + line - 1, col })
    }
}

/// A document and the tree that was read from it.
pub(crate) struct Written<'a> {
    tree: Node,
    lines: Lines<'a>,
}

impl Written<'_> {
    /// The tree.
    pub(crate) fn tree(&self) -> &Node {
        &self.tree
    }
}

impl Place {
    /// The document with its tree, read again; `None` if there is no text.
    pub(crate) fn read(&self) -> Option<Written<'_>> {
        Some(Written { tree: self.tree()?, lines: Lines::of(&self.text) })
    }

    /// Completes a diagnostic with the position of its field and the edit of its change; `written`
    /// as [`Self::read`] gives it.
    pub(crate) fn complete(
        &self,
        written: Option<&Written<'_>>,
        diagnostic: Diagnostic,
    ) -> Diagnostic {
        let position = self.position(written.map(|written| &written.tree), &diagnostic.field);
        let change = diagnostic.change.clone().filter(|_| position.is_some());
        let edit = written.zip(change).and_then(|(Written { tree, lines }, change)| {
            placed_edit(lines, self.first_line, tree, &change.below(&self.root))
        });
        Diagnostic { edit, ..diagnostic }.at(position)
    }
}

/// The edit that makes a change in a file, of whose document, which begins on `first_line`, `tree`
/// was read.
pub(super) fn placed_edit(
    document: &Lines<'_>,
    first_line: u32,
    tree: &Node,
    change: &Change,
) -> Option<TextEdit> {
    let mut edit = yaml::text_edit(document, tree, change)?;
    edit.line += first_line - 1;
    edit.end_line += first_line - 1;
    Some(edit)
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.first_line)
    }
}
