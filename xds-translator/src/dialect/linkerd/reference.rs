//! References to other objects: a group that is left out is the core one.

use std::sync::Arc;

use crate::{
    diagnostic::{Change, Code, Diagnostic},
    dialect::{Kind, decode::Decoder, lowering::Lowering, schema::object},
    ir::ObjectId,
};

/// The group of Linkerd's policies.
pub(super) const POLICY: &str = "policy.linkerd.io";

object! { no_null;
    /// An object that is referred to.
    Reference {
        /// Its group; absent: the core one.
        "group" group: Arc<str>,
        /// Its kind.
        "kind" kind: Arc<str> [required],
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its namespace; absent: the one of the object that refers to it.
        "namespace" namespace: Arc<str>,
    }
}

impl Reference {
    /// Whether a kind of this group is meant.
    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        let own = if &*self.group == "core" { "" } else { &*self.group };
        own == group && &*self.kind == kind
    }

    /// Notes a kind that is none of `known`; what those are for is said by `role`.
    pub(super) fn check(&self, role: &str, known: &[(&str, &str)], at: &mut Decoder) {
        if self.kind.is_empty() || known.iter().any(|(group, kind)| self.is(group, kind)) {
            return;
        }
        let group = if self.group.is_empty() { "core" } else { &*self.group };
        let message = format!("kind `{}` of group `{group}` is no {role}", self.kind);
        let of_kind = known.iter().find(|(_, kind)| *kind == &*self.kind);
        let (field, fix, change) = match of_kind {
            Some((meant, _)) => {
                let path = at.path();
                let change = match self.group.is_empty() {
                    true => Change::Add(path, "group", (*meant).into()),
                    false => Change::Set(path.field("group"), (*meant).into()),
                };
                ("group", format!("`group: {meant}`"), Some(change))
            }
            None => {
                let kinds: Vec<&str> = known.iter().map(|(_, kind)| *kind).collect();
                ("kind", format!("one of {}", kinds.join(", ")), None)
            }
        };
        let mut finding = Diagnostic::error(Code::InvalidValue, at.path().field(field), message);
        finding = finding.fix(fix);
        at.note(match change {
            Some(change) => finding.change(change),
            None => finding,
        });
    }

    /// Notes a namespace other than the object's own.
    pub(super) fn check_local(&self, at: &mut Decoder) {
        let own = at.namespace().to_owned();
        if !self.namespace.is_empty() && *self.namespace != *own {
            let message = format!("only objects of the own namespace `{own}` can be meant here");
            at.within("namespace", |at| at.invalid(message, Some(format!("`{own}`"))));
        }
    }

    /// The object that is meant.
    pub(super) fn object(&self, kind: Kind, lowering: &Lowering<'_>) -> ObjectId {
        ObjectId { kind, namespace: self.namespace(lowering), name: self.name.clone() }
    }

    /// The namespace that is meant.
    pub(super) fn namespace(&self, lowering: &Lowering<'_>) -> Arc<str> {
        match self.namespace.is_empty() {
            true => lowering.namespace().clone(),
            false => self.namespace.clone(),
        }
    }
}
