//! What objects say about each other: references that lead nowhere, conflicts, settings that cancel
//! each other.
//!
//! Looks at a set of [`Object`]s as a whole, in the snapshot that they come to and through the
//! functions that plan from it: what a host means, who sees what, which of several objects comes
//! first is decided there, and what proxies would be sent is asked of their plans. Findings about
//! single objects are made when they are parsed ([`crate::dialect`]) and lowered ([`crate::dialect::lower`]).

#[cfg(test)]
mod agreement;
mod annotations;
mod backends;
mod clients;
#[cfg(test)]
mod conflicts;
mod connections;
mod egress;
mod encrypted;
mod entries;
mod fix;
mod gateways;
mod hosts;
mod input;
mod matches;
mod meant;
mod messages;
#[cfg(test)]
mod messages_tests;
mod namespaces;
mod patch_order;
mod patches;
mod policies;
mod ports;
mod referents;
mod routes;
mod services;
mod splits;
mod suppress;
mod telemetry;
#[cfg(test)]
mod tests;
mod unproven;
mod workloads;

use std::collections::BTreeSet;

use crate::{
    class::NodeIdentity,
    diagnostic::{Diagnostic, Position},
    dialect::{Kind, Object, Parsed},
    ir::{MeshDefaults, ObjectId},
    snapshot::Credentials,
};

use input::Input;

pub use fix::{Fixed, NotFixed, Texts, fix};
pub use messages::{Fate, MESSAGES, Message};
pub use suppress::{Suppression, UnknownSuppression};
pub use unproven::unproven;

/// Every finding about an input: those made when it was parsed, and those of [`analyze`] about all
/// that could be read of it, in the order of files and lines. Of an object that was refused when it
/// was parsed nothing is said twice. `mesh` holds what a mesh configuration does not say.
pub fn analyze_input(parsed: &Parsed, mesh: &MeshDefaults) -> Vec<Diagnostic> {
    let refused: BTreeSet<&ObjectId> = parsed.rejected.iter().map(|r| &r.id).collect();
    let mut input = Input::of(parsed.everything(), &Credentials::new(), mesh);
    input.lowered.retain(|d| d.object.as_ref().is_none_or(|id| !refused.contains(id)));
    let mut findings = parsed.diagnostics.clone();
    findings.retain(|finding| !is_silenced(&input, finding));
    findings.extend(check(input));
    sort(&mut findings);
    findings
}

/// Whether objects of a kind say something about others. Endpoints do not, and they are many.
pub fn matters(kind: Kind) -> bool {
    ![Kind::ENDPOINT_SLICE, Kind::SERVICE_ACCOUNT, Kind::NODE].contains(&kind)
}

/// Every finding about a set of objects, each on its own as it is lowered and all of them together,
/// in the order of files and lines. `credentials`: those whose Secrets are not among the objects,
/// because their content was taken out at the door. `mesh` holds what a mesh configuration does not
/// say.
pub fn analyze<'a>(
    objects: impl IntoIterator<Item = &'a Object>,
    credentials: &Credentials,
    mesh: &MeshDefaults,
) -> Vec<Diagnostic> {
    let mut findings = check(Input::of(objects, credentials, mesh));
    sort(&mut findings);
    findings
}

/// The findings of [`analyze`] that are about `objects`, when they are in the place of those of
/// `others` that have their identities.
pub fn analyze_among<'a>(
    objects: &'a [Object],
    others: &'a [Object],
    credentials: &Credentials,
    mesh: &MeshDefaults,
) -> Vec<Diagnostic> {
    let about: BTreeSet<ObjectId> = objects.iter().map(|object| object.id.clone()).collect();
    // A later object replaces an earlier one.
    let mut input = Input::of(others.iter().chain(objects), credentials, mesh);
    input.about = Some(about.clone());
    let mut findings = check(input);
    findings.retain(|finding| finding.object.as_ref().is_some_and(|id| about.contains(id)));
    sort(&mut findings);
    findings
}

/// The proxies that a mesh of these objects has, or that may come to it: each kind of them once, so
/// that proxies with equal labels in one namespace are one. `credentials` and `mesh` as for
/// [`analyze`].
pub fn proxies<'a>(
    objects: impl IntoIterator<Item = &'a Object>,
    credentials: &Credentials,
    mesh: &MeshDefaults,
) -> Vec<NodeIdentity> {
    clients::nodes(&Input::of(objects, credentials, mesh))
}

/// The [`proxies`] of a mesh before `change` replaces objects of `current` and `deleted` are gone,
/// and those of the mesh after that; each once.
pub fn proxies_across(
    current: &[Object],
    change: &[Object],
    deleted: &BTreeSet<ObjectId>,
    credentials: &Credentials,
    mesh: &MeshDefaults,
) -> Vec<NodeIdentity> {
    let after = current.iter().chain(change).filter(|object| !deleted.contains(&object.id));
    let mut across = proxies(current, credentials, mesh);
    let mut new = proxies(after, credentials, mesh);
    new.retain(|proxy| !across.contains(proxy));
    across.append(&mut new);
    across
}

fn check(input: Input<'_>) -> Vec<Diagnostic> {
    let mut findings = input.lowered.clone();
    let checks = [
        routes::check,
        backends::check,
        gateways::check,
        policies::check,
        referents::check,
        patches::check,
        patch_order::check,
        connections::check,
        egress::check,
        encrypted::check,
        services::check,
        ports::check,
        hosts::check,
        splits::check,
        telemetry::check,
        namespaces::check,
        matches::check,
        entries::check,
        workloads::check,
        annotations::check,
    ];
    for check in checks {
        check(&input, &mut findings);
    }
    findings.retain(|finding| !is_silenced(&input, finding));
    findings
}

/// Whether the object that a finding is about asks not to be told of it.
fn is_silenced(input: &Input<'_>, finding: &Diagnostic) -> bool {
    let object = finding.object.as_ref().and_then(|id| input.object(id));
    object.is_some_and(|object| suppress::is_silenced(finding, &object.meta.annotations))
}

/// Puts findings in the order of files and lines, worst first within a line.
pub fn sort(findings: &mut [Diagnostic]) {
    let place = |d: &Diagnostic| {
        d.position.clone().unwrap_or(Position { file: "".into(), line: 0, col: 0 })
    };
    findings
        .sort_by_cached_key(|d| (place(d), d.severity, d.object.clone(), d.field.clone(), d.code));
}
