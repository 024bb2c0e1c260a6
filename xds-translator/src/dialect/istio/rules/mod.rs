//! What the values of one object must keep to, seen on its own. What objects say about each other: [`crate::analyze`].

mod backend;
mod gateway;
mod line;
mod route;
mod security;
mod service;
mod text;

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{Spec, decode::Decoder, kubernetes::ObjectMeta},
};

/// Notes what is wrong with a decoded object. The decoder stands at the object's top.
pub(in crate::dialect) fn check(spec: &Spec, meta: &ObjectMeta, at: &mut Decoder) {
    match spec {
        Spec::Service(service) => at.within("spec", |at| service::check_service(&service.spec, at)),
        Spec::Pod(pod) => at.within("status", |at| service::check_pod(&pod.status, at)),
        Spec::EndpointSlice(slice) => service::check_slice(slice, at),
        Spec::Secret(secret) => service::check_secret(secret, at),
        Spec::VirtualService(rules) => at.within("spec", |at| route::check(rules, at)),
        Spec::DestinationRule(rule) => at.within("spec", |at| backend::check(rule, at)),
        Spec::Gateway(gateway) => at.within("spec", |at| gateway::check(gateway, at)),
        Spec::ServiceEntry(entry) => at.within("spec", |at| service::check_entry(entry, at)),
        Spec::WorkloadEntry(entry) => at.within("spec", |at| service::check_workload(entry, at)),
        Spec::Sidecar(sidecar) => at.within("spec", |at| gateway::check_sidecar(sidecar, at)),
        Spec::PeerAuthentication(policy) => at.within("spec", |at| security::check_peer(policy, at)),
        Spec::AuthorizationPolicy(policy) => at.within("spec", |at| security::check_access(policy, at)),
        Spec::MeshConfig(mesh) => at.within("spec", |at| service::check_mesh(mesh, at)),
        Spec::Namespace(_) | Spec::Node(_) | Spec::ServiceAccount(_) | Spec::Deployment(_) | Spec::Unserved => {}
    }
    if let Some(finding) =
        (!meta.creation_timestamp.is_empty()).then(|| crate::dialect::scalar::parse_timestamp(&meta.creation_timestamp))
        && finding.is_none()
    {
        let path = at.path().field("metadata").field("creationTimestamp");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a timestamp");
        at.note(finding.expected("RFC 3339, such as `2026-01-31T12:00:00Z`", format!("`{}`", meta.creation_timestamp)));
    }
}

/// Runs `check` over the elements of the list `field`, each at its own path.
fn each<T>(field: &'static str, items: &[T], at: &mut Decoder, mut check: impl FnMut(&T, &mut Decoder)) {
    at.within(field, |at| {
        for (index, item) in items.iter().enumerate() {
            at.within_index(index, |at| check(item, at));
        }
    });
}

/// Notes a number outside its bounds.
fn check_range(field: &'static str, value: i64, bounds: std::ops::RangeInclusive<i64>, at: &mut Decoder) {
    if !bounds.contains(&value) {
        at.within(field, |at| {
            let path = at.path();
            let expected = format!("{}..={}", bounds.start(), bounds.end());
            at.note(Diagnostic::error(Code::InvalidValue, path, "out of range").expected(expected, value.to_string()));
        });
    }
}

/// Notes a share outside 0 to 100 percent.
fn check_percent(field: &'static str, percent: f64, at: &mut Decoder) {
    if !(0.0..=100.0).contains(&percent) {
        at.within(field, |at| {
            let path = at.path();
            at.note(
                Diagnostic::error(Code::InvalidValue, path, "out of range")
                    .expected("0 to 100 percent", percent.to_string()),
            );
        });
    }
}
