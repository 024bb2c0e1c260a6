//! What objects say about each other: references that lead nowhere, conflicts, settings that cancel each other.
//!
//! Looks at a set of [`Object`]s as a whole; objects with errors of their own take part as far as they could be read, so
//! that one mistake is not reported as many. Knows nothing of proxies or xDS. Findings about single objects were made
//! when they were parsed ([`crate::dialect`]).

mod backends;
mod connections;
mod gateways;
mod namespaces;
mod policies;
mod routes;
mod services;
#[cfg(test)]
mod tests;
mod world;

use crate::{
    diagnostic::{Diagnostic, Position},
    dialect::{Kind, Object, Parsed},
    ir::MeshDefaults,
    lower::lower,
    snapshot::Credentials,
};

use world::World;

/// Every finding about an input: those made when it was parsed, those of lowering its valid objects, and those about all
/// of them together, in the order of files and lines. `mesh` holds what a mesh configuration does not say.
pub fn analyze_input(parsed: &Parsed, mesh: &MeshDefaults) -> Vec<Diagnostic> {
    let mut findings = parsed.diagnostics.clone();
    findings.extend(parsed.objects.iter().flat_map(|object| lower(object, mesh).diagnostics));
    findings.extend(analyze(parsed.everything(), &Credentials::new(), mesh));
    sort(&mut findings);
    findings
}

/// Whether objects of a kind say something about others. Endpoints do not, and they are many.
pub const fn matters(kind: Kind) -> bool {
    !matches!(kind, Kind::EndpointSlice | Kind::ServiceAccount | Kind::Node)
}

/// Every finding about a set of objects together, in the order of files and lines. `credentials`: those whose Secrets are
/// not among the objects, because their content was taken out at the door.
pub fn analyze<'a>(
    objects: impl IntoIterator<Item = &'a Object>,
    credentials: &'a Credentials,
    mesh: &MeshDefaults,
) -> Vec<Diagnostic> {
    let world = World::of(objects, credentials, mesh);
    let mut findings = Vec::new();
    let checks = [
        routes::check,
        backends::check,
        gateways::check,
        policies::check,
        connections::check,
        services::check,
        namespaces::check,
    ];
    for check in checks {
        check(&world, &mut findings);
    }
    sort(&mut findings);
    findings
}

/// Puts findings in the order of files and lines, worst first within a line.
pub fn sort(findings: &mut [Diagnostic]) {
    let place = |d: &Diagnostic| d.position.clone().unwrap_or(Position { file: "".into(), line: 0, col: 0 });
    findings.sort_by_cached_key(|d| (place(d), d.severity, d.object.clone(), d.field.clone(), d.code));
}
