//! EnvoyFilters whose patches need what other EnvoyFilters put there, and do not say that they come
//! later.

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::envoy_filter::{ApplyTo, ConfigPatch, EnvoyFilter, Operation},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let Some(filter) = object.content::<EnvoyFilter>() else { continue };
        if filter.priority != 0 {
            continue;
        }
        for (index, patch) in filter.config_patches.iter().enumerate() {
            let at = FieldPath::of("spec.configPatches").index(index);
            let found = relative(patch, at);
            findings.extend(found.map(|finding| input.diagnose(&object.id, finding)));
        }
    }
}

fn relative(patch: &ConfigPatch, at: FieldPath) -> Option<Diagnostic> {
    let operation = patch.patch.as_ref()?.operation;
    let is_relative = match operation {
        Operation::InsertBefore | Operation::InsertAfter | Operation::Replace => true,
        Operation::Remove => {
            !matches!(patch.apply_to, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute)
        }
        _ => false,
    };
    let proxy = patch.matches.as_ref().and_then(|matches| matches.proxy.as_ref());
    let versioned = proxy.is_some_and(|proxy| !proxy.proxy_version.is_empty());
    is_relative.then(|| {
        let message = format!(
            "{} needs what is there already: without `priority`, patches of younger objects come \
             after it",
            operation.as_str()
        );
        let field = at.field("patch").field("operation");
        let finding = Diagnostic::warning(Code::PatchOrder, field, message)
            .fix("`priority` of the object, or INSERT_FIRST or ADD");
        if versioned { finding.istio("IST0155") } else { finding }
    })
}
