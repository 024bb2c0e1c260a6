//! Filter chains: conditions, TLS, network filters.

use super::{
    any::{duration, uint32},
    filters::{ask, hcm, metrics, names, rbac, tcp_proxy},
    matching::cidr,
    pb::listener,
    tls,
};
use crate::plan::{ChainMatch, FilterChainPlan, TerminalFilter, TransportMatch};

/// A filter chain.
pub(super) fn filter_chain(plan: &FilterChainPlan) -> listener::FilterChain {
    let (before, terminal) = match &plan.terminal {
        TerminalFilter::Http(http) => ([None, None], hcm::filter(http)),
        TerminalFilter::Tcp(tcp) => {
            let metrics = tcp.metrics.as_ref().and_then(metrics::network_filter);
            ([metrics, tcp.resolves_sni.map(names::handshakes)], tcp_proxy::filter(tcp))
        }
    };
    let before = before.into_iter().flatten();
    let ask = plan.ask.iter().flat_map(ask::network_filters);
    let access = plan.access.iter().map(rbac::network_filter);
    listener::FilterChain {
        name: plan.name.to_string(),
        filter_chain_match: chain_match(&plan.matches),
        transport_socket: plan.tls.as_ref().map(tls::downstream),
        transport_socket_connect_timeout: plan.connect_timeout.map(duration),
        filters: ask.chain(access).chain(before).chain([terminal]).collect(),
        ..Default::default()
    }
}

/// `None`: no condition.
fn chain_match(plan: &ChainMatch) -> Option<listener::FilterChainMatch> {
    let transport = match plan.transport {
        None => "",
        Some(TransportMatch::Tls) => "tls",
        Some(TransportMatch::Raw) => "raw_buffer",
    };
    (*plan != ChainMatch::default()).then(|| listener::FilterChainMatch {
        destination_port: plan.port.and_then(|port| uint32(port.into())),
        prefix_ranges: plan.prefixes.iter().map(cidr).collect(),
        server_names: plan.server_names.iter().map(|n| n.to_string()).collect(),
        transport_protocol: transport.to_owned(),
        application_protocols: plan.alpn.iter().map(|p| p.to_string()).collect(),
        ..Default::default()
    })
}
