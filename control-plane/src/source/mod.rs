//! Configuration sources: where objects come from.
//!
//! A source parses at its door, so that everything behind it is typed, and feeds the pipeline by
//! [events](crate::event). Sources know nothing of each other; when two of them hold the same
//! object, the pipeline decides by [`SourceId`]'s order.

pub mod connections;
pub mod directory;
pub mod keys;
pub mod kubernetes;
pub mod rest;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    dialect::{Kind, Object},
    ir::ObjectId,
};

use crate::{
    event::{SourceChange, SourceId},
    secret::{self, SecretMaterial, Secrets},
};

/// The door of every source: a Secret's key material goes to the secret provider, and everybody
/// else hears of its fingerprint only; any other object passes as it is.
///
/// # Errors
/// A diagnostic when the Secret cannot be used; nothing was changed then.
fn appeared(
    source: SourceId,
    secrets: &Secrets,
    object: &Object,
) -> Result<SourceChange, Box<Diagnostic>> {
    Ok(announced(source, secrets, object, prepared(object)?))
}

/// The first half of [`appeared`], which changes nothing: a Secret's key material.
///
/// # Errors
/// A diagnostic when the Secret cannot be used.
fn prepared(object: &Object) -> Result<Option<SecretMaterial>, Box<Diagnostic>> {
    secret::split(object)
}

/// The second half of [`appeared`], which cannot fail.
fn announced(
    source: SourceId,
    secrets: &Secrets,
    object: &Object,
    material: Option<SecretMaterial>,
) -> SourceChange {
    if object.id.kind == Kind::SECRET {
        credential(source, secrets, &object.id, material)
    } else {
        SourceChange::Upsert(Box::new(object.clone()))
    }
}

/// The object is gone from this source.
fn vanished(source: SourceId, secrets: &Secrets, id: &ObjectId) -> SourceChange {
    if id.kind == Kind::SECRET {
        credential(source, secrets, id, None)
    } else {
        SourceChange::Delete(id.clone())
    }
}

fn credential(
    source: SourceId,
    secrets: &Secrets,
    id: &ObjectId,
    material: Option<SecretMaterial>,
) -> SourceChange {
    let fact = secrets.set(source, &id.namespace, &id.name, material);
    SourceChange::Credential { namespace: id.namespace.clone(), name: id.name.clone(), fact }
}
