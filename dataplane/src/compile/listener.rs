//! LDS resources.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{
            Address, SocketOption, TrafficDirection as WireDirection,
            proxy_protocol_config::Version as WireVersion, socket_option,
        },
        listener::v3::{
            Listener as Wire, ListenerFilter, ListenerFilterChainMatchPredicate,
            listener_filter::ConfigType, listener_filter_chain_match_predicate::Rule,
        },
    },
    extensions::filters::listener::proxy_protocol::v3::ProxyProtocol,
};

use super::{
    Context, access_log, check_name,
    field::{
        At, Invalid, each, flag, host_and_port, optional_duration, refuse, required, type_name,
        unpack,
    },
    filter_chain, limits,
};
use crate::runtime::{
    filter_chain::FilterChainMatcher,
    listener::{Inspection, Listener, PortScope, ProxyHeader, TrafficDirection},
    proxy_header::ProxyVersion,
};

const ALL_PORTS: Range<u32> = 0..65_536;
const DEFAULT_INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles an LDS resource.
pub(super) fn compile(
    context: &mut Context,
    name: &str,
    version: u64,
    message: &Wire,
) -> Result<Listener, Invalid> {
    check_name(name, &message.name)?;
    refuse(&[("transparent", flag(message.transparent.as_ref(), false))])?;
    each("socket_options", &message.socket_options, socket_option)?;
    let matches = each("filter_chains", &message.filter_chains, filter_chain::matching)?;
    let matcher = FilterChainMatcher::build(&matches)
        .map_err(|error| Invalid::new(error.to_string()).at("filter_chains"))?;
    let chains = each("filter_chains", &message.filter_chains, |chain| {
        filter_chain::compile(context, chain).map(Arc::new)
    })?;
    let default_chain = message.default_filter_chain.as_ref();
    let default_chain =
        default_chain.map(|chain| filter_chain::compile(context, chain).map(Arc::new)).transpose();
    Ok(Listener {
        name: name.into(),
        addresses: addresses(message)?,
        bind_to_port: binds(message),
        use_original_dst: flag(message.use_original_dst.as_ref(), false),
        direction: match message.traffic_direction() {
            WireDirection::Unspecified => TrafficDirection::Unspecified,
            WireDirection::Inbound => TrafficDirection::Inbound,
            WireDirection::Outbound => TrafficDirection::Outbound,
        },
        inspect: inspection(message)?,
        chains,
        matcher,
        default_chain: default_chain.at("default_filter_chain")?,
        access_logs: access_log::compile("access_log", &message.access_log)?,
        buffer: limits::buffer(message.per_connection_buffer_limit_bytes.as_ref())?,
        version,
    })
}

/// `SOL_SOCKET`, `SO_REUSEADDR` as Linux numbers them.
const REUSE_ADDRESS: (i64, i64) = (1, 2);

/// Takes the one option that every socket of ours has.
fn socket_option(option: &SocketOption) -> Result<(), Invalid> {
    let on = option.value == Some(socket_option::Value::IntValue(1));
    match (option.level, option.name) == REUSE_ADDRESS && on {
        true => Ok(()),
        false => Err(Invalid::new("only SO_REUSEADDR (level 1, name 2, value 1) is supported")),
    }
}

#[allow(deprecated, reason = "older control planes switch binding off there")]
pub(super) fn binds(message: &Wire) -> bool {
    let older = message.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port.as_ref());
    flag(message.bind_to_port.as_ref(), true) && flag(older, true)
}

pub(super) fn addresses(message: &Wire) -> Result<Vec<SocketAddr>, Invalid> {
    let first = required("address", message.address.as_ref())
        .and_then(|address| socket(address).at("address"))?;
    let more = each("additional_addresses", &message.additional_addresses, |additional| {
        required("address", additional.address.as_ref())
            .and_then(|address| socket(address).at("address"))
    })?;
    Ok(std::iter::once(first).chain(more).collect())
}

fn socket(address: &Address) -> Result<SocketAddr, Invalid> {
    let (host, port) = host_and_port(address)?;
    Ok((super::field::ip("socket_address.address", host)?, port).into())
}

fn inspection(message: &Wire) -> Result<Inspection, Invalid> {
    let timeout =
        optional_duration("listener_filters_timeout", message.listener_filters_timeout.as_ref())?;
    let mut inspect = Inspection {
        original_dst: false,
        proxy_header: None,
        tls: None,
        http: None,
        timeout: Some(timeout.unwrap_or(DEFAULT_INSPECTION_TIMEOUT))
            .filter(|timeout| !timeout.is_zero()),
        continue_on_timeout: message.continue_on_listener_filters_timeout,
    };
    for (index, filter) in message.listener_filters.iter().enumerate() {
        listener_filter(&mut inspect, filter).at(&format!("listener_filters[{index}]"))?;
    }
    Ok(inspect)
}

fn listener_filter(inspect: &mut Inspection, message: &ListenerFilter) -> Result<(), Invalid> {
    let config = match &message.config_type {
        Some(ConfigType::TypedConfig(config)) => Some(config),
        _ => None,
    };
    let disabled =
        message.filter_disabled.as_ref().map_or(Ok(Vec::new()), ranges).at("filter_disabled")?;
    match config.map_or(message.name.as_str(), type_name) {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
        | "envoy.filters.listener.original_dst" => {
            inspect.original_dst = true;
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
        | "envoy.filters.listener.tls_inspector" => {
            inspect.tls = Some(PortScope { disabled });
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
        | "envoy.filters.listener.http_inspector" => inspect.http = Some(PortScope { disabled }),
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
        | "envoy.filters.listener.proxy_protocol" => {
            if inspect.tls.is_some() || inspect.http.is_some() {
                return Err(Invalid::new("expected before all inspectors"));
            }
            if inspect.proxy_header.is_some() {
                return Err(Invalid::new("expected once"));
            }
            let config = config.map_or(Ok(ProxyProtocol::default()), unpack).at("typed_config")?;
            let header = proxy_header(&config, PortScope { disabled });
            inspect.proxy_header = Some(header.at("typed_config")?);
        }
        other => return Err(Invalid::new(format!("{other} is not supported by this proxy"))),
    }
    Ok(())
}

fn proxy_header(message: &ProxyProtocol, scope: PortScope) -> Result<ProxyHeader, Invalid> {
    let disallowed = message.disallowed_versions().map(|version| match version {
        WireVersion::V1 => ProxyVersion::V1,
        WireVersion::V2 => ProxyVersion::V2,
    });
    let disallowed: Vec<ProxyVersion> = disallowed.collect();
    if [ProxyVersion::V1, ProxyVersion::V2].iter().all(|version| disallowed.contains(version)) {
        return Err(Invalid::new("expected a version to be left").at("disallowed_versions"));
    }
    Ok(ProxyHeader { scope, optional: message.allow_requests_without_proxy_protocol, disallowed })
}

/// The destination ports for which a filter is off.
fn ranges(message: &ListenerFilterChainMatchPredicate) -> Result<Vec<Range<u32>>, Invalid> {
    let bound = |value: i32| u32::try_from(value).unwrap_or(0);
    match required("rule", message.rule.as_ref())? {
        Rule::OrMatch(set) => {
            Ok(each("rules", &set.rules, ranges).at("or_match")?.into_iter().flatten().collect())
        }
        Rule::DestinationPortRange(range) => {
            Ok(std::iter::once(bound(range.start)..bound(range.end)).collect())
        }
        Rule::AnyMatch(true) => Ok(std::iter::once(ALL_PORTS).collect()),
        Rule::AnyMatch(false) => Ok(Vec::new()),
        Rule::NotMatch(inner) => Ok(complement(ranges(inner).at("not_match")?)),
        Rule::AndMatch(_) => Err(Invalid::new("not supported by this proxy").at("and_match")),
    }
}

fn complement(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_by_key(|range| range.start);
    let mut outside = Vec::new();
    let mut start = 0;
    for range in ranges {
        if range.start > start {
            outside.push(start..range.start);
        }
        start = start.max(range.end);
    }
    outside.push(start..ALL_PORTS.end);
    outside
}
