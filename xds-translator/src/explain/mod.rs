//! What becomes of one request: which listener, filter chain, virtual host, route, cluster and
//! endpoints take it, what refuses it, and which objects decided that.
//!
//! Messages alone are judged, those that the proxies are sent, as Envoy judges them; nothing that a
//! plan decides is decided here again. Plans are asked for one thing: which object is behind a
//! decision. What cannot be judged beforehand (chance, the answers of services, code in filters) is
//! said and not guessed.

#![allow(deprecated, reason = "users' patches may hold them, and Envoy takes them")]

mod access;
mod answer;
mod client;
mod cluster;
mod connection;
mod filters;
mod http;
mod notes;
mod pb;
mod proxy;
mod request;
mod rewrite;
mod routes;
mod servers;
mod token;
mod truth;
mod unseen;
mod walk;

use std::{net::IpAddr, sync::Arc};

use ferromesh_proto::ResourceType;

pub use self::{
    answer::{Branch, Decider, End, Explanation, Hop, Near, Outcome, Server, Stage, Step, Target},
    client::{Asker, UnknownAsker},
    proxy::World,
    request::{Request, RequestError},
    token::Signatures,
};
use self::{
    client::Client,
    cluster::{Endpoint, Transport, endpoints},
    connection::{Connection, Tls},
    notes::{Onward, Passage, Walk},
    pb::core::TrafficDirection,
    proxy::Proxy,
    walk::through,
};
use crate::{
    class::{NodeIdentity, Refusal},
    compiler::Compiler,
    ir::{ServiceAddress, Workload},
    plan::ViewKey,
    snapshot::Reader,
    view::View,
};

/// Why a request cannot be explained.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nobody is known who asks.
    #[error(transparent)]
    Asker(#[from] UnknownAsker),
    /// The proxy gets nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What becomes of a request in a compiler's mesh.
///
/// # Errors
/// Nobody is known who asks, or its proxy gets nothing.
pub fn explain(
    compiler: &mut Compiler,
    world: &World<'_>,
    asker: &Asker,
    request: &Request,
) -> Result<Explanation, ExplainError> {
    let client = client::find(compiler.snapshot(), asker)?;
    let views = views(compiler, world, &client.node)?;
    let identity = identity(compiler, &client);
    let (hop, forwarded) = {
        let title = client.title.clone();
        let proxy = Proxy { compiler: &*compiler, world, views: views.clone(), title };
        at_client(&proxy, &client, request)
    };
    let mut branches = Vec::new();
    for (onward, connection) in forwarded {
        let title = client.title.clone();
        let proxy = Proxy { compiler: &*compiler, world, views: views.clone(), title };
        let called = call(&proxy, &onward, &connection, request);
        let branch = servers::answered(compiler, world, called, &client, identity.as_deref());
        branches.push(branch);
    }
    let request = format!("{} {}", request.method, request.url());
    let mut explanation = Explanation { request, client: hop, branches, unfetched: Vec::new() };
    if explanation.hops().any(|hop| hop.steps.last().is_some_and(|step| step.name == "token")) {
        let missing = compiler.snapshot().missing_key_sets();
        explanation.unfetched = missing.map(|source| source.to_string()).collect();
    }
    Ok(explanation)
}

/// The views of a proxy, planned: of the one that runs, else of one that is usual.
fn views(
    compiler: &mut Compiler,
    world: &World<'_>,
    node: &NodeIdentity,
) -> Result<Vec<Arc<View>>, Refusal> {
    let keys: Vec<Arc<ViewKey>> = match (world.running)(&node.workload) {
        Some(keys) => keys,
        None => compiler.classify(node)?.views,
    };
    Ok(keys.iter().map(|key| compiler.view(key)).collect())
}

/// Who a client's proxy can prove to be.
fn identity(compiler: &Compiler, client: &Client) -> Option<String> {
    let workload = client.workload.as_deref();
    let account = workload.map_or(&client.node.facts.service_account, |w| &w.service_account);
    identity_of(compiler, &client.node.workload.namespace, account)
}

/// `spiffe://…` of an account.
fn identity_of(compiler: &Compiler, namespace: &str, account: &str) -> Option<String> {
    let domain = &compiler.snapshot().mesh().trust_domain;
    let id = ferromesh_proto::SpiffeId::new(domain.clone(), namespace, account).ok()?;
    Some(id.to_string())
}

/// What the client's own proxy does, and where the request goes on.
fn at_client(
    proxy: &Proxy<'_>,
    client: &Client,
    request: &Request,
) -> (Hop, Vec<(Onward, Connection)>) {
    let (connection, address) = connection(proxy, client, request);
    let side = (!client.gateway).then_some(TrafficDirection::Outbound);
    let mut passage = through(proxy, side, &connection, request);
    passage.steps.splice(0..0, address);
    unseen::tell(proxy, client, request, &mut passage);
    let Passage { steps, depends, end, onward } = passage;
    let hop = Hop { proxy: proxy.title.clone(), steps, depends, end };
    (hop, onward.into_iter().map(|onward| (onward, connection.clone())).collect())
}

/// The connection that the client opens, and what is believed of its address.
fn connection(proxy: &Proxy<'_>, client: &Client, request: &Request) -> (Connection, Option<Step>) {
    let tls = request.secure.then(|| Tls {
        sni: if request.address().is_some() { String::new() } else { request.host.clone() },
        alpn: vec!["http/1.1".to_owned()],
        identity: None,
    });
    if client.gateway {
        // A Service in front of the gateway leads from its port to the listener's.
        let port = proxy.listener_port(request.port);
        let connection = Connection { destination: None, port, source: None, tls, http: true };
        let mapped = (port != request.port).then(|| Step {
            stage: Stage::Address,
            name: request.port.to_string(),
            what: format!("the gateway's service leads from port {} to {port}", request.port),
            decided_by: Vec::new(),
            nearly: Vec::new(),
        });
        return (connection, mapped);
    }
    let own = |w: &Arc<Workload>| w.addresses.first().copied();
    let source = client.workload.as_ref().and_then(own);
    let (destination, step) = resolved(proxy, client, request);
    (Connection { destination, port: request.port, source, tls, http: true }, Some(step))
}

/// Where the client's DNS says that the host is.
fn resolved(proxy: &Proxy<'_>, client: &Client, request: &Request) -> (Option<IpAddr>, Step) {
    let step = |name: String, what: String, decided_by| Step {
        stage: Stage::Address,
        name,
        what,
        decided_by,
        nearly: Vec::new(),
    };
    if let Some(address) = request.address() {
        let what = "the address that is called".to_owned();
        return (Some(address), step(address.to_string(), what, Vec::new()));
    }
    let namespace = &client.node.workload.namespace;
    let Some(service) = unseen::service(proxy.compiler, &request.host, namespace) else {
        let what =
            format!("{} is a name that no object defines; DNS says where it is", request.host);
        return (None, step(String::new(), what, Vec::new()));
    };
    let by = vec![proxy.decider(&service.origin.id, None)];
    let own = service.addresses.iter().find_map(|address| match address {
        ServiceAddress::Ip(address) => Some(*address),
        ServiceAddress::Net(_) => None,
    });
    let told = service.allocated.filter(|_| client.node.facts.captures_dns).map(IpAddr::from);
    match own.or(told) {
        Some(address) => {
            let what = format!("DNS is taken to answer {} with it", request.host);
            (Some(address), step(address.to_string(), what, by))
        }
        None => {
            let reader = Reader::new(proxy.compiler.snapshot());
            let pods = reader.headless_addresses(&service.key, request.port);
            let first = pods.iter().next().copied().filter(|_| service.headless);
            let what = match first {
                Some(_) => format!("{} is headless: DNS answers with its pods", request.host),
                None => format!("{} has no address of its own; DNS says where it is", request.host),
            };
            (first, step(first.map(|a| a.to_string()).unwrap_or_default(), what, by))
        }
    }
}

/// What goes from a client's proxy to the endpoints of a cluster.
struct Called {
    branch: Branch,
    /// Those that take requests.
    endpoints: Vec<Endpoint>,
    onward: Onward,
    /// What connections offer instead of what the cluster's context says.
    offered: Option<Vec<String>>,
    /// As the client sends it, where nobody reads requests on the way.
    original: Request,
    connection: Connection,
}

/// The cluster of a share of requests, and its endpoints.
fn call(proxy: &Proxy<'_>, onward: &Onward, connection: &Connection, original: &Request) -> Called {
    let mut walk = Walk { proxy, steps: Vec::new(), depends: Vec::new() };
    let name = &onward.cluster;
    walk.refusals(ResourceType::Cluster, name);
    let makers = proxy.makers(ResourceType::Cluster, name);
    let (mut found, mut offered) = (Vec::new(), None);
    let mut targets = Vec::new();
    let end = match proxy.cluster(name) {
        None => {
            let what =
                format!("cluster {name} is not there: nobody defines its host, port or subset");
            walk.step(Stage::Cluster, name.clone(), what.clone(), makers);
            End::Nowhere { status: Some(onward.missing), what }
        }
        Some(cluster) => {
            let assignment = proxy.assignment(&cluster);
            let host = onward.request.as_ref().map_or(&original.host, |r| &r.authority);
            let host = request::split_port(host).0;
            let all = endpoints(&cluster, assignment.as_ref(), connection, host);
            walk.step(Stage::Cluster, name.clone(), all.how, makers);
            all.depends.into_iter().for_each(|on| walk.depends(on));
            offered = cluster::metadata_text(&cluster, "mesh", "h1")
                .filter(|_| onward.offers)
                .map(|list| list.split(',').map(|text| text.trim().to_owned()).collect());
            let workload = |endpoint: &Endpoint| proxy.workload_at(&endpoint.place);
            targets = all
                .endpoints
                .iter()
                .map(|endpoint| Target {
                    address: endpoint.place.to_string(),
                    workload: workload(endpoint)
                        .map(|w| format!("{}/{}", w.id.namespace, w.id.name)),
                    unused: endpoint.unused.clone(),
                })
                .collect();
            let (used, unused): (Vec<Endpoint>, Vec<Endpoint>) =
                all.endpoints.into_iter().partition(|endpoint| endpoint.unused.is_none());
            found = used;
            let blackhole = name == "BlackHoleCluster";
            match (found.is_empty(), unused.len()) {
                (false, _) => End::Passes,
                (true, _) if blackhole => {
                    End::Refused { status: None, what: "unknown destinations are blocked".into() }
                }
                (true, 0) => End::nowhere(503, format!("cluster {name} has no endpoints")),
                (true, count) => {
                    End::nowhere(503, format!("none of the {count} endpoints of {name} is healthy"))
                }
            }
        }
    };
    let branch = Branch {
        share: onward.share,
        cluster: name.clone(),
        steps: walk.steps,
        depends: walk.depends,
        endpoints: targets,
        servers: Vec::new(),
        end,
    };
    Called {
        branch,
        endpoints: found,
        onward: onward.clone(),
        offered,
        original: original.clone(),
        connection: connection.clone(),
    }
}

/// How an endpoint is called, in words.
fn transport_words(transport: &Transport, tls: Option<&Tls>) -> String {
    match (transport, tls) {
        (Transport::Plain, _) => "plaintext".to_owned(),
        (Transport::Unknown(name), _) => format!("the transport {name}, which is not judged here"),
        (Transport::Tls(_), Some(Tls { identity: Some(identity), .. })) => {
            format!("mutual TLS as {identity}")
        }
        (Transport::Tls(_), _) => "TLS".to_owned(),
    }
}

#[cfg(test)]
mod tests;
