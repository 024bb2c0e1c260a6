//! Which objects stand behind what a proxy refused.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_xds_translator::{
    compiler::Compiler,
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::ObjectId,
    plan::ViewKey,
};

use crate::{nack::Nack, precedence::Precedence};

/// What a proxy refused.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// Its node id.
    pub proxy: String,
    /// The views that it gets.
    pub views: Vec<Arc<ViewKey>>,
    /// What it refuses, and its words.
    pub nack: Nack,
}

/// What is said of one refused resource.
#[derive(Clone, PartialEq, Debug)]
pub struct Blame {
    /// The resource; `None`: one of those that were sent, and the proxy does not say which.
    pub resource: Option<Arc<str>>,
    /// On each object from which the resource was made; on none, if there is none. Not empty.
    pub findings: Vec<Diagnostic>,
}

/// Findings for every resource that a proxy names, or one for all when it names none.
pub(super) fn blame(
    compiler: &Compiler,
    precedence: &Precedence,
    complaint: &Complaint,
) -> Vec<Blame> {
    let Complaint { proxy, views, nack } = complaint;
    // Replicas refuse in the same words: the message is the same for all of them.
    let finding = |what: String| {
        Diagnostic::error(
            Code::RefusedByProxy,
            FieldPath::root(),
            format!("a proxy refused {what}: {}", nack.message),
        )
        .fix(format!("first refused by {proxy}; `ferromesh proxy-status` lists all"))
    };
    if nack.resources.is_empty() {
        return vec![Blame {
            resource: None,
            findings: vec![finding(format!("a {}", nack.kind.row().noun))],
        }];
    }
    let of_resource = |name: &Arc<str>| {
        let finding = finding(format!("{} {name}", nack.kind.row().noun));
        let origins: BTreeSet<ObjectId> =
            views.iter().flat_map(|key| compiler.origins_of(key, nack.kind, name)).collect();
        let mut findings: Vec<Diagnostic> =
            origins.into_iter().map(|id| on(precedence, id, finding.clone())).collect();
        if findings.is_empty() {
            findings.push(finding);
        }
        Blame { resource: Some(name.clone()), findings }
    };
    nack.resources.iter().map(of_resource).collect()
}

/// The finding, with the object's place where it is known.
fn on(precedence: &Precedence, id: ObjectId, finding: Diagnostic) -> Diagnostic {
    match precedence.serving(&id) {
        Some(object) => object.diagnose(finding),
        None => finding.object(id),
    }
}
