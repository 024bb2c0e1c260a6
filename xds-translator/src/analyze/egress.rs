//! Egress proxies of Sidecars and of the mesh: whether they are there.

use std::sync::Arc;

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Kind,
    ir::{EgressProxy, Labels, OutboundTraffic},
    plan::{Client, ClusterClient, find_proxy},
    snapshot::{Item, Reader},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    for item in input.items() {
        let Item::Scope(scope) = item else { continue };
        let id = &scope.origin.id;
        let Some(OutboundTraffic::Through(proxy)) = &scope.outbound_traffic else { continue };
        if input.is_wanted(id) && is_missing(&reader, &id.namespace, proxy) {
            findings.push(input.diagnose(id, nobody(proxy)));
        }
    }
    let mesh = input.snapshot.mesh();
    let OutboundTraffic::Through(proxy) = &mesh.outbound_traffic else { return };
    if is_missing(&reader, &mesh.root_namespace, proxy) {
        let objects = input.objects().filter(|object| object.id.kind == Kind::MESH_CONFIG);
        let wanted = objects.filter(|object| input.is_wanted(&object.id)).take(1);
        findings.extend(wanted.map(|object| input.diagnose(&object.id, nobody(proxy))));
    }
}

fn is_missing(reader: &Reader<'_>, namespace: &Arc<str>, proxy: &EgressProxy) -> bool {
    let labels = Labels::new();
    let kind = ClusterClient::Redirected;
    let client = Client { namespace, labels: &labels, locality: None, knows_peers: false, kind };
    find_proxy(reader, &client, proxy).is_none()
}

fn nobody(proxy: &EgressProxy) -> Diagnostic {
    let EgressProxy { host, port, subset } = proxy;
    let subset = if subset.is_empty() { String::new() } else { format!(", subset `{subset}`") };
    let message =
        format!("`{host}` port {port}{subset} is not there: what was to go through it is refused");
    let field = FieldPath::of("spec.outboundTrafficPolicy.egressProxy");
    Diagnostic::error_ref(Code::MissingReference, field, message)
        .fix("a service that the namespace sees")
}
