//! The other side: the proxies before the endpoints that a request is sent to.

use std::sync::Arc;

use super::{
    Branch, Called, End, Hop, Server, Stage, Step, World,
    client::{Client, node_of},
    cluster::{Endpoint, Place, Transport},
    connection::{Connection, Tls},
    identity_of,
    notes::Passage,
    pb::core::TrafficDirection,
    proxy::Proxy,
    transport_words,
    truth::Truth,
    views,
    walk::through,
};
use crate::{
    class::{NodeIdentity, NodeKind, is_gateway},
    compiler::Compiler,
    ir::{MeshTls, Workload},
    view::View,
};

/// Endpoints before which the same is done.
struct Group {
    endpoints: Vec<String>,
    hop: Hop,
}

/// What the proxies before the endpoints do with what comes to them.
pub(super) fn answered(
    compiler: &mut Compiler,
    world: &World<'_>,
    called: Called,
    client: &Client,
    identity: Option<&str>,
) -> Branch {
    let mut groups: Vec<Group> = Vec::new();
    for endpoint in &called.endpoints {
        let Some(hop) = served(compiler, world, &called, endpoint, (client, identity)) else {
            continue;
        };
        let address = endpoint.place.to_string();
        let alike = |group: &&mut Group| same(&group.hop, &hop);
        match groups.iter_mut().find(alike) {
            Some(group) => group.endpoints.push(address),
            None => groups.push(Group { endpoints: vec![address], hop }),
        }
    }
    let servers = groups.into_iter().map(|Group { endpoints, hop }| Server { endpoints, hop });
    let mut branch = called.branch;
    branch.servers = servers.collect();
    branch
}

/// Whether two servers do the same; which of a workload's replicas they are says nothing.
fn same(one: &Hop, other: &Hop) -> bool {
    let rest = |hop: &Hop| {
        let steps: Vec<Step> =
            hop.steps.iter().filter(|step| step.stage != Stage::Listener).cloned().collect();
        (steps, hop.depends.clone(), hop.end.clone())
    };
    rest(one) == rest(other)
}

/// What is before one endpoint.
fn served(
    compiler: &mut Compiler,
    world: &World<'_>,
    called: &Called,
    endpoint: &Endpoint,
    (client, identity): (&Client, Option<&str>),
) -> Option<Hop> {
    let workload = workload(compiler, &endpoint.place);
    // Bytes that are passed on are the client's own.
    let passed = called.connection.tls.clone().filter(|_| called.onward.request.is_none());
    let own = endpoint.transport.tls(identity.unwrap_or_default(), called.offered.clone());
    let own = own.map(|tls| Tls { identity: tls.identity.filter(|id| !id.is_empty()), ..tls });
    let words = match (&own, &passed) {
        (None, Some(_)) => "the client's own TLS".to_owned(),
        (own, _) => transport_words(&endpoint.transport, own.as_ref()),
    };
    let tls = own.clone().or(passed);
    let first = Step {
        stage: Stage::Tls,
        name: own.as_ref().map(|tls| tls.sni.clone()).unwrap_or_default(),
        what: format!("called by {words}"),
        decided_by: Vec::new(),
        nearly: Vec::new(),
    };
    let node = workload.as_deref().and_then(|workload| server(compiler, world, workload));
    let (Some(workload), Some(node)) = (workload, node) else {
        return Some(without_proxy(first, &endpoint.transport, own.is_some()));
    };
    let title = format!("the proxy of {}/{}", workload.id.namespace, workload.id.name);
    let Place::Ip(address, port) = endpoint.place else { return None };
    let proves = identity_of(compiler, &workload.id.namespace, &workload.service_account);
    let mut depends = Vec::new();
    if own.is_some() {
        match endpoint.transport.takes(proves.as_deref().unwrap_or_default()) {
            Truth::Yes => {}
            Truth::Unknown(what) => depends.push(what),
            Truth::No => {
                let what = format!(
                    "the client expects another server than {}",
                    proves.unwrap_or_default()
                );
                let steps = vec![first];
                let end = End::Refused { status: Some(503), what };
                return Some(Hop { proxy: title, steps, depends, end });
            }
        }
    }
    let views = views(compiler, world, &node).ok()?;
    if !takes_in(&views) {
        return Some(without_proxy(first, &endpoint.transport, own.is_some()));
    }
    let proxy = Proxy { compiler: &*compiler, world, views, title: title.clone() };
    let source = client.workload.as_ref().and_then(|w| w.addresses.first().copied());
    let connection = Connection { destination: Some(address), port, source, tls, http: true };
    let request = called.onward.request.as_ref().unwrap_or(&called.original);
    let side = (node.kind == NodeKind::Sidecar).then_some(TrafficDirection::Inbound);
    let Passage { mut steps, depends: more, end, .. } = through(&proxy, side, &connection, request);
    steps.insert(0, first);
    depends.extend(more);
    Some(Hop { proxy: title, steps, depends, end: seen_by_client(end, called) })
}

/// Where the server closes a connection that a client's proxy opened for a request, that proxy
/// answers.
fn seen_by_client(end: End, called: &Called) -> End {
    match end {
        End::Refused { status: None, what } if called.onward.request.is_some() => {
            End::Refused { status: Some(503), what }
        }
        End::Nowhere { status: None, what } if called.onward.request.is_some() => {
            End::Nowhere { status: Some(503), what }
        }
        end => end,
    }
}

fn without_proxy(first: Step, transport: &Transport, tls: bool) -> Hop {
    let depends = match (tls, transport) {
        (true, _) => vec!["whether the server speaks TLS and its certificate is accepted".into()],
        (false, Transport::Unknown(name)) => vec![format!("the transport {name}")],
        (false, _) => Vec::new(),
    };
    let proxy = "no proxy that is known".to_owned();
    Hop { proxy, steps: vec![first], depends, end: End::Passes }
}

/// The proxy before a workload; `None`: it has none.
fn server(compiler: &Compiler, world: &World<'_>, workload: &Workload) -> Option<NodeIdentity> {
    let runs = (world.running)(&workload.id).is_some();
    let gateway = is_gateway(compiler.snapshot(), workload);
    let kind = if gateway { NodeKind::Router } else { NodeKind::Sidecar };
    let usual = gateway || workload.mesh_tls == MeshTls::Always && !workload.host_network;
    (runs || usual).then(|| node_of(kind, workload))
}

/// Whether there is a listener for what comes in.
fn takes_in(views: &[Arc<View>]) -> bool {
    let kind = ferromesh_proto::ResourceType::Listener;
    views.iter().any(|view| !view.tables[kind.index()].is_empty())
}

fn workload(compiler: &Compiler, place: &Place) -> Option<Arc<Workload>> {
    match place {
        Place::Ip(address, _) => compiler.snapshot().workload_at(*address).cloned(),
        Place::Name(..) | Place::Other(_) => None,
    }
}

impl Proxy<'_> {
    /// The workload at an endpoint.
    pub(super) fn workload_at(&self, place: &Place) -> Option<Arc<Workload>> {
        workload(self.compiler, place)
    }
}
