//! One proxy's way with a connection: listener, filter chain, network filters, and what the chain
//! does at last.

use ferromesh_proto::ResourceType;

use super::{
    access::Caller,
    answer::{End, Near, Stage},
    cluster::accepts,
    connection::{Connection, Terminal, chain_for, listener_for, place, terminal},
    http,
    notes::{Onward, Passage, Walk, dry_run, is_harmless, rules_say},
    pb::{
        core::{TrafficDirection, transport_socket},
        listener::{FilterChain, Listener, filter::ConfigType},
        network_rbac, short_type,
        tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier},
        tls::DownstreamTlsContext,
        unpack,
    },
    proxy::Proxy,
    request::Request,
    truth::{Metadata, Truth},
};

/// Follows a connection with its request through a proxy: by the listeners of one side of a sidecar,
/// or by all of a gateway's (`None`).
pub(super) fn through(
    proxy: &Proxy<'_>,
    side: Option<TrafficDirection>,
    connection: &Connection,
    request: &Request,
) -> Passage {
    let mut walk = Walk { proxy, steps: Vec::new(), depends: Vec::new() };
    let (end, onward) = connect(&mut walk, side, connection, request);
    Passage { steps: walk.steps, depends: walk.depends, end, onward }
}

fn connect(
    walk: &mut Walk<'_>,
    side: Option<TrafficDirection>,
    connection: &Connection,
    request: &Request,
) -> (End, Vec<Onward>) {
    let mut listeners = walk.proxy.listeners();
    let of_side =
        |listener: &Listener| side.is_none_or(|side| listener.traffic_direction == side as i32);
    listeners.retain(of_side);
    let Some(listener) = listener_for(&listeners, connection) else {
        let what = format!("nobody listens on port {}", connection.port);
        let mut open: Vec<u16> = listeners.iter().filter_map(place).map(|(_, port)| port).collect();
        open.sort_unstable();
        open.dedup();
        let open: Vec<String> = open.iter().map(u16::to_string).collect();
        let step = walk.step(Stage::Listener, "", what.clone(), Vec::new());
        step.nearly.extend((!open.is_empty()).then(|| Near {
            name: "the proxy".to_owned(),
            unmet: format!("it listens on {}", open.join(", ")),
            decided_by: Vec::new(),
        }));
        return (End::Nowhere { status: None, what }, Vec::new());
    };
    let makers = walk.proxy.makers(ResourceType::Listener, &listener.name);
    let what = match connection.destination {
        Some(address) => format!("takes connections to {address}, port {}", connection.port),
        None => format!("takes connections to port {}", connection.port),
    };
    // Who shaped a listener that many share says little; its chains and routes say it.
    let own = if makers.len() > 3 { Vec::new() } else { makers };
    walk.step(Stage::Listener, listener.name.clone(), what, own);
    walk.refusals(ResourceType::Listener, &listener.name);
    chain(walk, listener, connection, request)
}

fn chain(
    walk: &mut Walk<'_>,
    listener: &Listener,
    connection: &Connection,
    request: &Request,
) -> (End, Vec<Onward>) {
    let chosen = chain_for(listener, connection);
    if let Some(unknown) = chosen.unknown {
        walk.depends(format!("the filter chain is chosen by {unknown}"));
    }
    let Some(chain) = chosen.chain else {
        let unmet = chosen.unmet.unwrap_or_default();
        let plain = connection.tls.is_none();
        let what = match unmet.starts_with("transport") && plain {
            true => "only mutual TLS is taken, and the client speaks plaintext".to_owned(),
            false => format!("no filter chain takes this {unmet}"),
        };
        let by = walk.proxy.peer_tls();
        walk.step(Stage::FilterChain, "", what.clone(), by);
        return (End::closed(what), Vec::new());
    };
    let title = if chain.name.is_empty() { "unnamed" } else { &chain.name };
    walk.step(Stage::FilterChain, title, chain_words(chain), Vec::new());
    let (identity, inner) = match tls(walk, chain, connection) {
        Ok(found) => found,
        Err(end) => return (end, Vec::new()),
    };
    let caller = Caller {
        connection,
        identity: identity.as_deref(),
        request: None,
        metadata: &Metadata::new(),
    };
    if let Some(end) = network_filters(walk, chain, &caller) {
        return (end, Vec::new());
    }
    match terminal(chain) {
        Some(Terminal::Http(manager)) if inner && connection.http => {
            http::manage(walk, &manager, (connection, identity.as_deref()), request)
        }
        Some(Terminal::Http(_)) => {
            let what = "what comes is no HTTP that the proxy can read".to_owned();
            walk.step(Stage::Filter, "http_connection_manager", what.clone(), Vec::new());
            (End::closed(what), Vec::new())
        }
        Some(Terminal::Tcp(proxy)) => tcp(walk, &proxy),
        Some(Terminal::Other(name)) => {
            walk.depends(format!("the filter {name}, which is not judged here"));
            (End::Passes, Vec::new())
        }
        None => (End::closed("the filter chain has no filters"), Vec::new()),
    }
}

fn chain_words(chain: &FilterChain) -> String {
    let mut words = Vec::new();
    if let Some(m) = &chain.filter_chain_match {
        if !m.transport_protocol.is_empty() {
            let tls = m.transport_protocol == "tls";
            words.push(if tls { "TLS" } else { "plaintext" }.to_owned());
        }
        if !m.application_protocols.is_empty() {
            words.push(format!("protocols {}", m.application_protocols.join(", ")));
        }
        if !m.server_names.is_empty() {
            words.push(format!("server names {}", m.server_names.join(", ")));
        }
        if let Some(port) = &m.destination_port {
            words.push(format!("port {}", port.value));
        }
    }
    if words.is_empty() { "everything".to_owned() } else { words.join("; ") }
}

/// Who the client proves to be, and whether what is within can be read here.
fn tls(
    walk: &mut Walk<'_>,
    chain: &FilterChain,
    connection: &Connection,
) -> Result<(Option<String>, bool), End> {
    let config = chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
    let typed = config.map(|transport_socket::ConfigType::TypedConfig(any)| any);
    let context = typed.and_then(unpack::<DownstreamTlsContext>);
    let Some(context) = context else {
        if let Some(other) = typed.filter(|any| !any.type_url.ends_with("RawBuffer")) {
            walk.depends(format!("the transport {}, which is not judged here", short_type(other)));
        }
        return Ok((None, connection.tls.is_none()));
    };
    let Some(client) = &connection.tls else {
        let what = "TLS is expected, and the client speaks plaintext".to_owned();
        let by = walk.proxy.peer_tls();
        walk.step(Stage::Tls, "", what.clone(), by);
        return Err(End::closed(what));
    };
    let required = context.require_client_certificate.as_ref().is_some_and(|on| on.value);
    let common = context.common_tls_context.unwrap_or_default();
    let asks = common.validation_context_type.is_some();
    let refuse = |walk: &mut Walk<'_>, what: String| {
        let by = walk.proxy.peer_tls();
        walk.step(Stage::Tls, "", what.clone(), by);
        Err(End::closed(what))
    };
    let what = match &client.identity {
        Some(identity) if asks => match accepts(&common, identity) {
            Truth::Yes => format!("mutual TLS: the client is {identity}"),
            Truth::No => {
                return refuse(walk, format!("clients such as {identity} are not accepted"));
            }
            Truth::Unknown(what) => {
                walk.depends(what);
                format!("mutual TLS: the client is {identity}")
            }
        },
        None if required && walk_is_edge(connection) => {
            walk.depends("the client's certificate, which the server asks for");
            "TLS; the client must show a certificate".to_owned()
        }
        None if required => {
            return refuse(
                walk,
                "a client's certificate is required, and there is none".to_owned(),
            );
        }
        _ => "TLS; the client does not prove who it is".to_owned(),
    };
    let by = if required { walk.proxy.peer_tls() } else { Vec::new() };
    walk.step(Stage::Tls, client.sni.clone(), what, by);
    Ok((client.identity.clone().filter(|_| asks), true))
}

/// Whether the client is outside of the mesh, so that nobody knows its certificate.
fn walk_is_edge(connection: &Connection) -> bool {
    connection.source.is_none()
}

/// The filters before the last one; how the connection ends, if it does.
fn network_filters(walk: &mut Walk<'_>, chain: &FilterChain, caller: &Caller<'_>) -> Option<End> {
    let before = chain.filters.len().saturating_sub(1);
    for filter in &chain.filters[..before] {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            walk.depends(format!("the filter {}, which is fetched by the proxy", filter.name));
            continue;
        };
        if let Some(config) = unpack::<network_rbac::Rbac>(any) {
            if let Some(rules) = &config.rules
                && let Some(refusal) = rules_say(walk, rules, caller)
            {
                return Some(End::closed(refusal));
            }
            if let Some(shadow) = &config.shadow_rules {
                dry_run(walk, shadow, &config.shadow_rules_stat_prefix, caller);
            }
        } else if !is_harmless(any) {
            walk.depends(format!(
                "the filter {} ({}), which is not judged here",
                filter.name,
                short_type(any)
            ));
        }
    }
    None
}

fn tcp(walk: &mut Walk<'_>, proxy: &TcpProxy) -> (End, Vec<Onward>) {
    let onward = |share, cluster: &String| Onward {
        share,
        cluster: cluster.clone(),
        request: None,
        offers: false,
        missing: 503,
    };
    let clusters: Vec<Onward> = match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => vec![onward(100.0, cluster)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let total: f64 = weighted.clusters.iter().map(|one| f64::from(one.weight)).sum();
            let share = |weight: u32| f64::from(weight) * 100.0 / total;
            weighted.clusters.iter().map(|one| onward(share(one.weight), &one.name)).collect()
        }
        None => Vec::new(),
    };
    let names: Vec<&str> = clusters.iter().map(|one| one.cluster.as_str()).collect();
    let what = format!("passes bytes on to {}; nobody reads requests", names.join(", "));
    walk.step(Stage::Filter, "tcp_proxy", what, Vec::new());
    (End::Passes, clusters)
}
