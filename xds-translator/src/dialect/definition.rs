//! What API servers and `kubectl` are told of a kind, beyond its names.

use super::schema::ObjectSchema;

/// The definition of a kind as a resource of a cluster (a CustomResourceDefinition).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definition {
    /// The type of `spec`.
    pub(crate) schema: &'static ObjectSchema,
    /// Short names on the command line; may be empty.
    pub(crate) short: &'static [&'static str],
    /// Versions that are served, the stored one first.
    pub(crate) versions: &'static [&'static str],
    /// Columns that `kubectl get` prints for this kind; may be empty.
    pub(crate) columns: &'static [Column],
}

/// A column that `kubectl get` prints beside the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) name: &'static str,
    /// Where the value stands, as a JSON path from the object.
    pub(crate) path: &'static str,
    /// OpenAPI type.
    pub(crate) shape: &'static str,
    /// What it says.
    pub(crate) doc: &'static str,
}

impl Column {
    /// A column of text.
    pub(crate) const fn text(name: &'static str, path: &'static str, doc: &'static str) -> Self {
        Self { name, path, shape: "string", doc }
    }
}
