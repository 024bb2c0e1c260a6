//! What a client would need where nothing that it sees takes its request.

use std::sync::Arc;

use super::{End, Near, Stage, client::Client, notes::Passage, proxy::Proxy, request::Request};
use crate::{
    compiler::Compiler,
    ir::{Hostname, Service},
    snapshot::Reader,
};

/// The clusters of what is not known.
const UNKNOWN: [&str; 2] = ["PassthroughCluster", "BlackHoleCluster"];

/// The service that a name means for clients of a namespace, by DNS: whoever sees it.
pub(super) fn service(compiler: &Compiler, host: &str, namespace: &str) -> Option<Arc<Service>> {
    let snapshot = compiler.snapshot();
    let domain = &snapshot.mesh().domain;
    let names = [
        host.to_owned(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let reader = Reader::new(snapshot);
    names.iter().map(|name| Hostname::new(name)).find_map(|name| {
        let visible = reader.service_by_host(&name, namespace).cloned();
        visible.or_else(|| snapshot.services_of(&name).next().cloned())
    })
}

/// Says why a host is not seen, where a request goes to what is not known or to nobody.
pub(super) fn tell(proxy: &Proxy<'_>, client: &Client, request: &Request, passage: &mut Passage) {
    let unknown = match passage.onward.as_slice() {
        [] => matches!(passage.end, End::Nowhere { .. }),
        onward => onward.iter().all(|one| UNKNOWN.contains(&one.cluster.as_str())),
    };
    if client.gateway || !unknown {
        return;
    }
    let namespace = &client.node.workload.namespace;
    let Some(service) = service(proxy.compiler, &request.host, namespace) else { return };
    let key = &service.key;
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    let unmet = if !service.export_to.includes(namespace) {
        format!("{} does not show it to {namespace} (exportTo)", service.origin.id)
    } else if service.port(request.port).is_none() {
        format!("it has no port {}, but {}", request.port, ports.join(", "))
    } else if let Some(scope) = client_scope(proxy) {
        format!("{scope} does not list it among the hosts of its egress")
    } else {
        return;
    };
    let decided_by = vec![proxy.decider(&service.origin.id, None)];
    let near = Near { name: key.host.to_string(), unmet, decided_by };
    let place = passage
        .steps
        .iter_mut()
        .rev()
        .find(|step| matches!(step.stage, Stage::VirtualHost | Stage::Listener | Stage::Route));
    if let Some(step) = place {
        step.nearly.insert(0, near);
    }
}

/// The object that says what the client sees.
fn client_scope(proxy: &Proxy<'_>) -> Option<String> {
    let scopes = proxy.views.iter().filter_map(|view| crate::plan::caller(&view.key));
    scopes.filter_map(|caller| caller.scope.map(|id| id.to_string())).next()
}
