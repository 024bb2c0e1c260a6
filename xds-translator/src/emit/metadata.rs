//! Metadata: the untyped structures that proxies, dashboards and filters read.

use std::sync::Arc;

use super::pb::{
    core,
    protobuf::{ListValue, Struct, Value, value::Kind},
};
use crate::plan::{ClusterPlan, EndpointPlan, Provenance};

/// The namespace that Istio's tools read: what a resource was made of.
const PROVENANCE: &str = "istio";
/// The namespace that picks an endpoint's transport socket.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// The namespace of ALPN lists by request protocol; `filters::alpn` reads it.
const MESH: &str = "mesh";

/// A text value.
pub(super) fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

/// A structure from its fields.
pub(super) fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() }
}

/// JSON as a protobuf value.
pub(super) fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.iter().map(from_json).collect() })
        }
        Json::Object(fields) => {
            Kind::StructValue(structure(fields.iter().map(|(k, v)| (k.as_str(), from_json(v)))))
        }
    };
    Value { kind: Some(kind) }
}

/// What selects the mesh's TLS among a cluster's transport sockets; empty selects the rest.
pub(super) fn tls_mode(mesh: bool) -> Struct {
    structure(mesh.then(|| ("tlsMode", text("istio"))))
}

/// A cluster's metadata, if it has any.
pub(super) fn cluster(plan: &ClusterPlan) -> Option<core::Metadata> {
    let mesh = plan
        .mesh_alpn
        .as_ref()
        .map(|alpn| structure([("h1", text(&alpn.h1)), ("h2", text(&alpn.h2))]));
    sections([(PROVENANCE, provenance(&plan.provenance)), (MESH, mesh)])
}

/// An endpoint's metadata, if it has any.
pub(super) fn endpoint(plan: &EndpointPlan) -> Option<core::Metadata> {
    let workload = plan.workload.as_ref().map(|w| structure([("workload", text(w))]));
    sections([(SOCKET_MATCH, plan.mesh_tls.then(|| tls_mode(true))), (PROVENANCE, workload)])
}

/// A route's metadata: the object that it came from.
pub(super) fn route(config: Option<&Arc<str>>) -> Option<core::Metadata> {
    sections([(PROVENANCE, config.map(|c| structure([("config", text(c))])))])
}

fn provenance(plan: &Provenance) -> Option<Struct> {
    let services = plan.services.iter().map(|(host, name, namespace)| {
        let fields =
            structure([("host", text(host)), ("name", text(name)), ("namespace", text(namespace))]);
        Value { kind: Some(Kind::StructValue(fields)) }
    });
    let services = ListValue { values: services.collect() };
    let fields = [
        plan.config.as_ref().map(|c| ("config", text(c))),
        (!services.values.is_empty())
            .then_some(("services", Value { kind: Some(Kind::ListValue(services)) })),
        plan.subset.as_ref().map(|s| ("subset", text(s))),
        plan.external.then_some(("external", Value { kind: Some(Kind::BoolValue(true)) })),
    ];
    let fields = structure(fields.into_iter().flatten());
    (!fields.fields.is_empty()).then_some(fields)
}

fn sections<const N: usize>(sections: [(&str, Option<Struct>); N]) -> Option<core::Metadata> {
    let filter_metadata: std::collections::HashMap<_, _> = sections
        .into_iter()
        .filter_map(|(name, fields)| Some((name.to_owned(), fields?)))
        .collect();
    (!filter_metadata.is_empty()).then(|| core::Metadata { filter_metadata, ..Default::default() })
}
