//! Which objects stand behind what a proxy refused.

use ferromesh_proto::ResourceType;
use ferromesh_xds_translator::{
    compiler::Compiler,
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::ObjectId,
};

use super::Complaint;
use crate::precedence::Precedence;

/// A finding on each object from which something refused was made; on none, if there is none.
pub(super) fn blame(compiler: &Compiler, precedence: &Precedence, complaint: &Complaint) -> Vec<Diagnostic> {
    let Complaint { proxy, views, refusal } = complaint;
    let mut diagnostics = Vec::new();
    for name in &refusal.resources {
        // Replicas refuse in the same words: the message is the same for all of them.
        let message = format!("a proxy refused {} {name}: {}", noun(refusal.kind), refusal.message);
        let finding = Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message)
            .fix(format!("first refused by {proxy}; `ferromesh proxy-status` lists all"));
        let mut origins: Vec<ObjectId> =
            views.iter().flat_map(|key| compiler.origins_of(key, refusal.kind, name)).collect();
        origins.sort_unstable();
        origins.dedup();
        if origins.is_empty() {
            diagnostics.push(finding.clone());
        }
        diagnostics.extend(origins.into_iter().map(|id| match precedence.serving(&id) {
            Some(object) => object.diagnose(finding.clone()),
            None => finding.clone().object(id),
        }));
    }
    if diagnostics.is_empty() {
        let message = format!("a proxy refused a {}: {}", noun(refusal.kind), refusal.message);
        let finding = Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message);
        diagnostics.push(finding.fix(format!("first refused by {proxy}; `ferromesh proxy-status` lists all")));
    }
    diagnostics
}

const fn noun(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "assignment",
        ResourceType::Listener => "listener",
        ResourceType::Route => "route configuration",
        ResourceType::Secret => "secret",
    }
}
