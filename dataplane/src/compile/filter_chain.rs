//! Filter chains: what they match, their transport socket and their network filters.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{TransportSocket, transport_socket},
            listener::v3::{
                Filter, FilterChain as Wire, FilterChainMatch as WireMatch, filter::ConfigType,
            },
        },
        extensions::{
            filters::network::{
                ext_authz::v3::ExtAuthz as ConnectionAsk,
                rbac::v3::Rbac as NetworkRbac,
                tcp_proxy::v3::{
                    TcpProxy as WireTcp,
                    tcp_proxy::{ClusterSpecifier, WeightedCluster as WireWeighted},
                },
            },
            transport_sockets::tls::v3::DownstreamTlsContext,
        },
        r#type::v3::hash_policy::PolicySpecifier,
    },
    google::protobuf::Any,
};
use ferromesh_proto::stats;

use super::{
    Context, access_log, authz,
    connection_ask::{self, Marks},
    field::{
        At, Invalid, cidr, each, flag, limit, number, optional_duration, port, refuse, required,
        type_name, unpack,
    },
    filter, hcm, known, metrics, tls,
};
use crate::runtime::{
    TransportProtocol,
    authz::Rbac,
    filter_chain::FilterChainMatch,
    http::HttpConnectionManager,
    listener::{FilterChain, TcpProxy, Terminal},
    metric_rules::OwnMetrics,
    secret::DownstreamTls,
    target::{ClusterChoice, WeightedCluster, WeightedClusters},
};

const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// Compiles what a chain matches.
pub(super) fn matching(message: &Wire) -> Result<FilterChainMatch, Invalid> {
    let Some(wire) = &message.filter_chain_match else { return Ok(FilterChainMatch::default()) };
    compile_match(wire).at("filter_chain_match")
}

fn compile_match(message: &WireMatch) -> Result<FilterChainMatch, Invalid> {
    Ok(FilterChainMatch {
        destination_port: message
            .destination_port
            .as_ref()
            .map(|number| port("destination_port", number.value))
            .transpose()?,
        prefixes: each("prefix_ranges", &message.prefix_ranges, cidr)?,
        server_names: each("server_names", &message.server_names, |name| server_name(name))?,
        transport: match message.transport_protocol.as_str() {
            "" => None,
            "tls" => Some(TransportProtocol::Tls),
            "raw_buffer" => Some(TransportProtocol::RawBuffer),
            other => {
                let reason = format!("expected tls or raw_buffer, got {other:?}");
                return Err(Invalid::new(reason).at("transport_protocol"));
            }
        },
        application_protocols: message
            .application_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
    })
}

fn server_name(name: &str) -> Result<Arc<str>, Invalid> {
    let inner = name.strip_prefix("*.").unwrap_or(name);
    if inner.is_empty() || inner.contains('*') {
        return Err(Invalid::new(format!("expected a host name or *.suffix, got {name:?}")));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// Compiles what a chain does.
#[allow(deprecated, reason = "what is deprecated is refused, not skipped")]
pub(super) fn compile(context: &mut Context, message: &Wire) -> Result<FilterChain, Invalid> {
    refuse(&[("use_proxy_proto", flag(message.use_proxy_proto.as_ref(), false))])?;
    let (rbac, terminal) = filters(context, &message.filters)?;
    let timeout = message.transport_socket_connect_timeout.as_ref();
    Ok(FilterChain {
        name: message.name.as_str().into(),
        tls: message
            .transport_socket
            .as_ref()
            .map_or(Ok(None), |socket| transport(context, socket))
            .at("transport_socket")?,
        handshake_timeout: limit("transport_socket_connect_timeout", timeout)?,
        rbac,
        terminal,
    })
}

fn transport(
    context: &mut Context,
    socket: &TransportSocket,
) -> Result<Option<Arc<DownstreamTls>>, Invalid> {
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else {
        return match socket.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(None),
            _ => Err(Invalid::new("required, but missing").at("typed_config")),
        };
    };
    match type_name(config) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            let message: DownstreamTlsContext = unpack(config).at("typed_config")?;
            Ok(Some(Arc::new(tls::downstream(context, &message).at("typed_config")?)))
        }
        other => {
            Err(Invalid::new(format!("{other} is not supported by this proxy")).at("typed_config"))
        }
    }
}

enum NetworkFilter {
    NoEffect,
    Rbac(Rbac),
    /// Rules that only mark.
    Marks(Marks),
    /// Somebody is to be asked about what is marked.
    Ask(Box<ConnectionAsk>),
    /// What is different of a TCP proxy's metrics.
    Metrics(Arc<OwnMetrics>),
    Tcp(Box<TcpProxy>),
    Http(Arc<HttpConnectionManager>),
}

fn filters(context: &mut Context, filters: &[Filter]) -> Result<(Vec<Rbac>, Terminal), Invalid> {
    let compiled = each("filters", filters, |wire| filter(context, wire))?;
    let mut rbac = Vec::new();
    let mut terminal = None;
    let mut marks = None;
    let mut metrics = None;
    for (index, filter) in compiled.into_iter().enumerate() {
        let before = marks.take();
        match filter {
            _ if terminal.is_some() => {
                return Err(
                    Invalid::new("a filter follows one that takes the connection").at("filters")
                );
            }
            NetworkFilter::NoEffect => {}
            NetworkFilter::Rbac(rules) => rbac.push(rules),
            NetworkFilter::Marks(rules) => marks = Some(rules),
            NetworkFilter::Ask(ask) => {
                let place = format!("filters[{index}].typed_config");
                rbac.push(connection_ask::refusal(&ask, before).at(&place)?);
            }
            NetworkFilter::Metrics(own) => metrics = Some(own),
            NetworkFilter::Tcp(proxy) => {
                let proxy = TcpProxy { metrics: metrics.take(), ..*proxy };
                terminal = Some(Terminal::Tcp(Arc::new(proxy)));
            }
            NetworkFilter::Http(manager) => terminal = Some(Terminal::Http(manager)),
        }
    }
    let missing = || {
        Invalid::new("expected tcp_proxy or http_connection_manager as the last filter")
            .at("filters")
    };
    Ok((rbac, terminal.ok_or_else(missing)?))
}

fn filter(context: &mut Context, message: &Filter) -> Result<NetworkFilter, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new(format!("expected a configuration of {} in place", message.name))
            .at("typed_config"));
    };
    self::config(context, &message.name, config).at("typed_config")
}

fn config(context: &mut Context, name: &str, config: &Any) -> Result<NetworkFilter, Invalid> {
    match filter::inner_type(config)?.as_str() {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            // Of the bytes as they came: encoded again, maps may lie in another order.
            let version = crate::runtime::http::MessageHash::of(&config.value);
            let manager = hcm::compile(context, version, &unpack(config)?)?;
            Ok(NetworkFilter::Http(Arc::new(manager)))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            Ok(NetworkFilter::Tcp(Box::new(tcp_proxy(&unpack(config)?)?)))
        }
        "envoy.extensions.filters.network.rbac.v3.RBAC" => network_rbac(&unpack(config)?),
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
            Ok(NetworkFilter::Ask(Box::new(unpack(config)?)))
        }
        stats::CONFIG_TYPE => metrics::compile(config).map(NetworkFilter::Metrics),
        kind if known::without_effect(kind).is_some() => Ok(NetworkFilter::NoEffect),
        kind => Err(Invalid::new(format!("filter {name} ({kind}) is not supported by this proxy"))),
    }
}

fn network_rbac(message: &NetworkRbac) -> Result<NetworkFilter, Invalid> {
    refuse(&[("enforcement_type", message.enforcement_type != 0)])?;
    Ok(match (&message.rules, &message.shadow_rules) {
        (Some(rules), _) => NetworkFilter::Rbac(authz::rules(rules).at("rules")?),
        (None, Some(shadow)) => NetworkFilter::Marks(Marks {
            rules: authz::rules(shadow).at("shadow_rules")?,
            prefix: message.shadow_rules_stat_prefix.clone(),
        }),
        (None, None) => NetworkFilter::NoEffect,
    })
}

fn tcp_proxy(message: &WireTcp) -> Result<TcpProxy, Invalid> {
    let idle =
        optional_duration("idle_timeout", message.idle_timeout.as_ref())?.unwrap_or(DEFAULT_IDLE);
    let by_source = |policy: &PolicySpecifier| matches!(policy, PolicySpecifier::SourceIp(_));
    let foreign = message
        .hash_policy
        .iter()
        .any(|policy| !policy.policy_specifier.as_ref().is_some_and(by_source));
    refuse(&[("hash_policy", foreign)])?;
    Ok(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        cluster: match required("cluster_specifier", message.cluster_specifier.as_ref())? {
            ClusterSpecifier::Cluster(name) => ClusterChoice::One(name.as_str().into()),
            ClusterSpecifier::WeightedClusters(weighted) => {
                weighted_clusters(weighted).at("weighted_clusters")?
            }
        },
        idle_timeout: Some(idle).filter(|idle| !idle.is_zero()),
        max_duration: limit(
            "max_downstream_connection_duration",
            message.max_downstream_connection_duration.as_ref(),
        )?,
        max_connect_attempts: number(message.max_connect_attempts.as_ref(), 1).max(1),
        hash_source_ip: !message.hash_policy.is_empty(),
        access_logs: access_log::compile("access_log", &message.access_log)?,
        metrics: None,
    })
}

fn weighted_clusters(message: &WireWeighted) -> Result<ClusterChoice, Invalid> {
    let clusters = each("clusters", &message.clusters, |wire| {
        Ok(WeightedCluster {
            name: wire.name.as_str().into(),
            weight: wire.weight,
            headers: Default::default(),
            host_rewrite: None,
            overrides: Default::default(),
        })
    })?;
    let weighted = WeightedClusters::new(clusters).map(ClusterChoice::Weighted);
    weighted.ok_or_else(|| Invalid::new("expected a sum of weights above 0").at("clusters"))
}
