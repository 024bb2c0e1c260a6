//! Listeners: LDS resources.

use prost::{Message, Name};

use super::{
    access_log::file_logs,
    any::{any, boolean, duration, uint32},
    endpoint::address,
    filter_chain::filter_chain,
    pb::{
        core, http_inspector,
        listener::{
            self, ListenerFilterChainMatchPredicate as Predicate, listener_filter,
            listener_filter_chain_match_predicate as predicate,
        },
        original_dst, tls_inspector,
        types::Int32Range,
    },
};
use crate::plan::{Direction, ListenerFilter, ListenerPlan};

/// An LDS resource.
pub(super) fn listener(plan: &ListenerPlan) -> listener::Listener {
    let direction = match plan.direction {
        Direction::Inbound => core::TrafficDirection::Inbound,
        Direction::Outbound => core::TrafficDirection::Outbound,
        Direction::Unspecified => core::TrafficDirection::Unspecified,
    };
    listener::Listener {
        name: plan.name.to_string(),
        address: Some(address(plan.address.to_string(), plan.port)),
        bind_to_port: if plan.bind { None } else { boolean(false) },
        use_original_dst: if plan.use_original_dst { boolean(true) } else { None },
        traffic_direction: direction as i32,
        listener_filters: plan.listener_filters.iter().map(listener_filter).collect(),
        listener_filters_timeout: plan.filters_timeout.map(duration),
        continue_on_listener_filters_timeout: plan.continue_on_timeout,
        filter_chains: plan.chains.iter().map(filter_chain).collect(),
        default_filter_chain: plan.default_chain.as_ref().map(filter_chain),
        max_connections_to_accept_per_socket_event: plan.accept_one.then(|| uint32(1)).flatten(),
        access_log: file_logs(plan.access_log.as_ref()),
        ..Default::default()
    }
}

fn listener_filter(plan: &ListenerFilter) -> listener::ListenerFilter {
    /// Enough for most client hellos; the inspector reads more when it must.
    const HELLO: u32 = 512;
    match plan {
        ListenerFilter::OriginalDst => {
            named("envoy.filters.listener.original_dst", &original_dst::OriginalDst::default(), &[])
        }
        ListenerFilter::TlsInspector(off) => {
            let config = tls_inspector::TlsInspector { initial_read_buffer_size: uint32(HELLO), ..Default::default() };
            named("envoy.filters.listener.tls_inspector", &config, off)
        }
        ListenerFilter::HttpInspector(off) => {
            named("envoy.filters.listener.http_inspector", &http_inspector::HttpInspector::default(), off)
        }
    }
}

fn named<T: Name + Message>(name: &str, config: &T, off: &[u16]) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: ports(off),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))),
    }
}

/// A predicate that holds for these destination ports.
fn ports(ports: &[u16]) -> Option<Predicate> {
    let port = |port: &u16| {
        let start = i32::from(*port);
        Predicate { rule: Some(predicate::Rule::DestinationPortRange(Int32Range { start, end: start + 1 })) }
    };
    match ports {
        [] => None,
        [only] => Some(port(only)),
        several => {
            let rules = several.iter().map(port).collect();
            Some(Predicate { rule: Some(predicate::Rule::OrMatch(predicate::MatchSet { rules })) })
        }
    }
}
