//! CDS resources.

use std::{sync::Arc, time::Duration};

use super::{
    Context, check_name, endpoint,
    field::{
        At, Invalid, duration, each, ip, metadata_strings, number, optional_duration, refuse,
        required, type_name, unpack,
    },
    filter::inner_type,
    known, limits, tls,
};
use crate::runtime::{
    cluster::{
        AutomaticNames, BalanceSettings, CircuitBreakers, Cluster, ConnectionSettings, Discovery,
        LbPolicy, MeshAlpn, OutlierDetection, OverLocalities, RetryLimit, ServiceLabel,
        TcpKeepalive, Transport, TransportMatch, UpstreamHttp, UpstreamProtocol, ZoneSettings,
    },
    endpoint::{DnsFamily, DnsRefresh, EndpointSet},
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster as Wire, Filter, OutlierDetection as WireOutlier,
                circuit_breakers::thresholds::RetryBudget as WireRetryBudget,
                cluster::{
                    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily,
                    LbConfig, LbPolicy as WirePolicy, TransportSocketMatch,
                    common_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig},
                },
            },
            core::v3::{
                RoutingPriority, SocketAddress, TransportSocket, socket_address::PortSpecifier,
                transport_socket::ConfigType,
            },
        },
        extensions::{
            clusters::{common::dns::v3::DnsLookupFamily as ClusterFamily, dns::v3::DnsCluster},
            transport_sockets::tls::v3::UpstreamTlsContext,
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf::{Struct, UInt32Value, value::Kind},
};

pub(super) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_DNS_REFRESH: Duration = Duration::from_secs(5);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_PANIC_THRESHOLD: u32 = 50;

/// Compiles a CDS resource.
pub(super) fn compile(
    context: &mut Context,
    name: &str,
    message: &Wire,
) -> Result<Cluster, Invalid> {
    check_name(name, &message.name)?;
    each("filters", &message.filters, filter)?;
    let discovery = discovery(message)?;
    if let Discovery::Eds(service) = &discovery {
        context.needs.endpoints.insert(service.to_string());
    }
    let connection = connection(context, message)?;
    let policy = policy(message, &discovery)?;
    Ok(Cluster {
        name: name.into(),
        policy,
        balance: balance(context, message, policy),
        limits: circuit_breakers(message)?,
        outlier: message
            .outlier_detection
            .as_ref()
            .map(outlier)
            .transpose()
            .at("outlier_detection")?,
        mesh_alpn: mesh_alpn(message),
        services: services(message),
        discovery,
        connection,
    })
}

/// Istio's network filters of clusters only exchange metadata for labels, and are accepted; others
/// are not.
fn filter(message: &Filter) -> Result<(), Invalid> {
    let config = required("typed_config", message.typed_config.as_ref())?;
    let kind = inner_type(config).at("typed_config")?;
    match known::without_effect(&kind) {
        Some(_) => Ok(()),
        None => {
            let reason = format!("filter {} ({kind}) is not supported by this proxy", message.name);
            Err(Invalid::new(reason).at("typed_config"))
        }
    }
}

fn discovery(message: &Wire) -> Result<Discovery, Invalid> {
    let kind = match &message.cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return dns_cluster(message, custom).at("cluster_type");
        }
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind),
        None => Ok(DiscoveryType::Static),
    };
    match kind.map_err(|_| Invalid::new("unknown value").at("type"))? {
        DiscoveryType::Eds => eds(message),
        DiscoveryType::Static => Ok(Discovery::Static(assignment(message)?)),
        DiscoveryType::StrictDns => {
            Ok(Discovery::StrictDns(assignment(message)?, dns_refresh(message)?))
        }
        DiscoveryType::LogicalDns => {
            Ok(Discovery::LogicalDns(assignment(message)?, dns_refresh(message)?))
        }
        DiscoveryType::OriginalDst => original_dst(message),
    }
}

fn eds(message: &Wire) -> Result<Discovery, Invalid> {
    let config = required("eds_cluster_config", message.eds_cluster_config.as_ref())?;
    let ads = config.eds_config.as_ref().is_some_and(tls::is_ads);
    if !ads {
        return Err(Invalid::new("expected ads, other sources are not supported by this proxy")
            .at("eds_cluster_config.eds_config"));
    }
    let name = if config.service_name.is_empty() { &message.name } else { &config.service_name };
    Ok(Discovery::Eds(name.as_str().into()))
}

fn assignment(message: &Wire) -> Result<Arc<EndpointSet>, Invalid> {
    let Some(assignment) = &message.load_assignment else { return Ok(Arc::default()) };
    endpoint::assignment(assignment).map(Arc::new).at("load_assignment")
}

#[allow(deprecated, reason = "istiod sends `dns_refresh_rate`")]
fn dns_refresh(message: &Wire) -> Result<DnsRefresh, Invalid> {
    let family = DnsLookupFamily::try_from(message.dns_lookup_family)
        .map_err(|_| Invalid::new("unknown value").at("dns_lookup_family"))?;
    let interval = optional_duration("dns_refresh_rate", message.dns_refresh_rate.as_ref())?;
    Ok(DnsRefresh {
        interval: interval.unwrap_or(DEFAULT_DNS_REFRESH),
        respect_ttl: message.respect_dns_ttl,
        family: match family {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4,
            DnsLookupFamily::V6Only => DnsFamily::V6,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        },
    })
}

/// DNS clusters in the form that has no deprecated fields.
fn dns_cluster(message: &Wire, custom: &CustomClusterType) -> Result<Discovery, Invalid> {
    let config = required("typed_config", custom.typed_config.as_ref())?;
    if type_name(config) != "envoy.extensions.clusters.dns.v3.DnsCluster" {
        return Err(Invalid::new(format!("{} is not supported by this proxy", custom.name)));
    }
    let config: DnsCluster = unpack(config)?;
    let interval = optional_duration("dns_refresh_rate", config.dns_refresh_rate.as_ref())?;
    let refresh = DnsRefresh {
        interval: interval.unwrap_or(DEFAULT_DNS_REFRESH),
        respect_ttl: config.respect_dns_ttl,
        family: match config.dns_lookup_family() {
            ClusterFamily::Unspecified | ClusterFamily::Auto => DnsFamily::Auto,
            ClusterFamily::V4Only => DnsFamily::V4,
            ClusterFamily::V6Only => DnsFamily::V6,
            ClusterFamily::V4Preferred => DnsFamily::V4Preferred,
            ClusterFamily::All => DnsFamily::All,
        },
    };
    let endpoints = assignment(message)?;
    Ok(match config.all_addresses_in_single_endpoint {
        true => Discovery::LogicalDns(endpoints, refresh),
        false => Discovery::StrictDns(endpoints, refresh),
    })
}

fn original_dst(message: &Wire) -> Result<Discovery, Invalid> {
    let Some(LbConfig::OriginalDstLbConfig(config)) = &message.lb_config else {
        return Ok(Discovery::OriginalDst { port: None });
    };
    let port = config.upstream_port_override.as_ref();
    let port = port.map(|port| {
        super::field::port("original_dst_lb_config.upstream_port_override", port.value)
    });
    Ok(Discovery::OriginalDst { port: port.transpose()? })
}

fn policy(message: &Wire, discovery: &Discovery) -> Result<LbPolicy, Invalid> {
    if matches!(discovery, Discovery::OriginalDst { .. }) {
        return Ok(LbPolicy::ClusterProvided);
    }
    let wire = WirePolicy::try_from(message.lb_policy)
        .map_err(|_| Invalid::new("unknown value").at("lb_policy"))?;
    Ok(match (wire, &message.lb_config) {
        (WirePolicy::RoundRobin, _) => LbPolicy::RoundRobin,
        (WirePolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            LbPolicy::LeastRequest { choices: number(config.choice_count.as_ref(), 2).max(2) }
        }
        (WirePolicy::LeastRequest, _) => LbPolicy::LeastRequest { choices: 2 },
        (WirePolicy::Random, _) => LbPolicy::Random,
        (WirePolicy::RingHash, Some(LbConfig::RingHashLbConfig(config))) => LbPolicy::RingHash {
            minimum: config.minimum_ring_size.as_ref().map_or(1024, |size| size.value),
            maximum: config.maximum_ring_size.as_ref().map_or(8 << 20, |size| size.value),
        },
        (WirePolicy::RingHash, _) => LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 },
        (WirePolicy::Maglev, Some(LbConfig::MaglevLbConfig(config))) => LbPolicy::Maglev {
            table_size: config.table_size.as_ref().map_or(65_537, |size| size.value),
        },
        (WirePolicy::Maglev, _) => LbPolicy::Maglev { table_size: 65_537 },
        (other, _) => {
            let reason = format!("{} is not supported by this proxy", other.as_str_name());
            return Err(Invalid::new(reason).at("lb_policy"));
        }
    })
}

/// What balances by hash knows no zones (Envoy).
fn balance(context: &mut Context, message: &Wire, policy: LbPolicy) -> BalanceSettings {
    let common = message.common_lb_config.clone().unwrap_or_default();
    let threshold = common.healthy_panic_threshold.as_ref().map(|percent| percent.value);
    let panic_threshold = threshold.map_or(DEFAULT_PANIC_THRESHOLD, whole_percent);
    let hashed = matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. });
    let localities = match common.locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => OverLocalities::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) if !hashed => {
            over_zones(&zones, panic_threshold)
        }
        _ => OverLocalities::Alike,
    };
    context.needs.peers |= matches!(localities, OverLocalities::Zones(_));
    BalanceSettings { panic_threshold, localities }
}

fn over_zones(zones: &ZoneAwareLbConfig, panic_threshold: u32) -> OverLocalities {
    let routed = zones.routing_enabled.as_ref().map_or(100, |percent| whole_percent(percent.value));
    let min_endpoints = zones.min_cluster_size.as_ref().map_or(6, |size| size.value);
    match routed {
        0 => OverLocalities::Alike,
        percent => OverLocalities::Zones(ZoneSettings {
            min_endpoints,
            routed_parts: u64::from(percent) * 100,
            panic_threshold,
        }),
    }
}

/// A percentage between 0 and 100, rounded up so that a threshold above zero never becomes none.
fn whole_percent(percent: f64) -> u32 {
    (0..=100).find(|whole| f64::from(*whole) >= percent).unwrap_or(100)
}

fn connection(context: &mut Context, message: &Wire) -> Result<ConnectionSettings, Invalid> {
    let matches = each("transport_socket_matches", &message.transport_socket_matches, |entry| {
        transport_match(context, entry)
    })?;
    let transport = message.transport_socket.as_ref();
    let transport = transport
        .map_or(Ok(Transport::Plaintext), |socket| transport_socket(context, socket))
        .at("transport_socket")?;
    let (protocol, http) = http_options(message)?;
    if http.names.validation {
        let all = matches.iter().map(|entry| &entry.transport).chain([&transport]);
        refuse_unchecked_names(all)?;
    }
    let bind = message.upstream_bind_config.as_ref().and_then(|bind| bind.source_address.as_ref());
    let fixed_port = |bind: &SocketAddress| {
        !matches!(bind.port_specifier, None | Some(PortSpecifier::PortValue(0)))
    };
    refuse(&[("upstream_bind_config.source_address.port_value", bind.is_some_and(fixed_port))])?;
    let connect_timeout = optional_duration("connect_timeout", message.connect_timeout.as_ref())?;
    Ok(ConnectionSettings {
        connect_timeout: connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        transport_matches: matches,
        transport,
        protocol,
        http,
        buffer: limits::buffer(message.per_connection_buffer_limit_bytes.as_ref())?,
        bind: bind
            .map(|address| ip("upstream_bind_config.source_address.address", &address.address))
            .transpose()?,
        keepalive: keepalive(message),
    })
}

/// A key and the value that an endpoint's metadata must have.
type Criterion = (Arc<str>, Arc<str>);

fn transport_match(
    context: &mut Context,
    message: &TransportSocketMatch,
) -> Result<TransportMatch, Invalid> {
    let socket = required("transport_socket", message.transport_socket.as_ref())?;
    Ok(TransportMatch {
        name: message.name.as_str().into(),
        criteria: message.r#match.as_ref().map_or(Ok(Vec::new()), criteria).at("match")?,
        transport: transport_socket(context, socket).at("transport_socket")?,
    })
}

fn criteria(fields: &Struct) -> Result<Vec<Criterion>, Invalid> {
    let mut criteria = fields
        .fields
        .iter()
        .map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => {
                Ok((Arc::from(key.as_str()), Arc::from(text.as_str())))
            }
            _ => Err(Invalid::new("expected a string").at(key)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    criteria.sort();
    Ok(criteria)
}

fn transport_socket(context: &mut Context, socket: &TransportSocket) -> Result<Transport, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return match socket.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(Transport::Plaintext),
            _ => Err(Invalid::new("required, but missing").at("typed_config")),
        };
    };
    match type_name(config) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(Transport::Plaintext),
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            let message: UpstreamTlsContext = unpack(config).at("typed_config")?;
            let context = tls::upstream(context, &message).at("typed_config")?;
            Ok(Transport::Tls(Arc::new(context)))
        }
        other => {
            Err(Invalid::new(format!("{other} is not supported by this proxy")).at("typed_config"))
        }
    }
}

/// A name in a certificate that nobody vouches for says nothing, so Envoy lets no such connection
/// through either.
fn refuse_unchecked_names<'a>(
    mut transports: impl Iterator<Item = &'a Transport>,
) -> Result<(), Invalid> {
    let unchecked = transports
        .any(|transport| matches!(transport, Transport::Tls(tls) if tls.validation.is_none()));
    if !unchecked {
        return Ok(());
    }
    let field =
        "typed_extension_protocol_options.upstream_http_protocol_options.auto_san_validation";
    Err(Invalid::new("expected trusted roots in every TLS context, got none").at(field))
}

#[allow(deprecated, reason = "`http2_protocol_options` is what older control planes send")]
fn http_options(message: &Wire) -> Result<(UpstreamProtocol, UpstreamHttp), Invalid> {
    let field = "typed_extension_protocol_options";
    let unknown = message.typed_extension_protocol_options.keys().find(|key| *key != HTTP_OPTIONS);
    if let Some(key) = unknown {
        return Err(Invalid::new("not supported by this proxy").at(&format!("{field}[{key}]")));
    }
    let Some(options) = message.typed_extension_protocol_options.get(HTTP_OPTIONS) else {
        let h2 = message.http2_protocol_options.is_some();
        let protocol = if h2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
        return Ok((protocol, upstream_http(&HttpProtocolOptions::default(), message)?));
    };
    let options: HttpProtocolOptions = unpack(options).at(field)?;
    Ok((protocol(&options).at(field)?, upstream_http(&options, message).at(field)?))
}

fn protocol(options: &HttpProtocolOptions) -> Result<UpstreamProtocol, Invalid> {
    match options.upstream_protocol_options.as_ref() {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match &explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(_)) => Ok(UpstreamProtocol::Http1),
                Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(UpstreamProtocol::Http2),
                _ => Err(Invalid::new("expected HTTP/1.1 or HTTP/2").at("explicit_http_config")),
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
            Ok(UpstreamProtocol::Downstream)
        }
        // It follows the ALPN that the server chose; a mesh server may choose neither.
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            Err(Invalid::new("not supported by this proxy").at("auto_config"))
        }
        None => Err(Invalid::new("required, but missing").at("upstream_protocol_options")),
    }
}

#[allow(
    deprecated,
    reason = "`max_requests_per_connection` of the cluster is what older control planes send"
)]
fn upstream_http(options: &HttpProtocolOptions, message: &Wire) -> Result<UpstreamHttp, Invalid> {
    let common = options.common_http_protocol_options.as_ref();
    let idle = common.and_then(|common| common.idle_timeout.as_ref());
    let idle_timeout = match optional_duration("common_http_protocol_options.idle_timeout", idle)? {
        None => Some(DEFAULT_IDLE_TIMEOUT),
        Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
    };
    let requests = common.and_then(|common| common.max_requests_per_connection.as_ref());
    let requests = requests.or(message.max_requests_per_connection.as_ref());
    let h2 = match options.upstream_protocol_options.as_ref() {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match &explicit.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(h2)) => Some(h2),
                _ => None,
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(both)) => {
            both.http2_protocol_options.as_ref()
        }
        _ => None,
    };
    let keepalive = h2.and_then(|h2| h2.connection_keepalive.as_ref());
    let keepalive = keepalive.and_then(|k| Some((k.interval.as_ref()?, k.timeout.as_ref()?)));
    Ok(UpstreamHttp {
        idle_timeout,
        trims_idle: idle.is_none(),
        max_requests_per_connection: requests.map(|count| count.value).filter(|count| *count > 0),
        limits: limits::upstream(common, h2)?,
        h2_keepalive: keepalive
            .map(|(interval, timeout)| {
                Ok((duration("interval", interval)?, duration("timeout", timeout)?))
            })
            .transpose()
            .at("connection_keepalive")?,
        upgrades_http2: h2.is_some_and(|h2| h2.allow_connect),
        names: automatic_names(options, message),
    })
}

#[allow(deprecated, reason = "the cluster's own field is what older control planes send")]
fn automatic_names(options: &HttpProtocolOptions, message: &Wire) -> AutomaticNames {
    let wire = options
        .upstream_http_protocol_options
        .as_ref()
        .or(message.upstream_http_protocol_options.as_ref());
    let Some(wire) = wire else { return AutomaticNames::default() };
    let header = wire.override_auto_sni_header.to_ascii_lowercase();
    AutomaticNames {
        server_name: wire.auto_sni,
        validation: wire.auto_san_validation,
        header: Some(header).filter(|name| !name.is_empty()).map(Into::into),
    }
}

fn keepalive(message: &Wire) -> Option<TcpKeepalive> {
    let wire = message.upstream_connection_options.as_ref()?.tcp_keepalive.as_ref()?;
    let seconds =
        |value: Option<&UInt32Value>| value.map(|value| Duration::from_secs(value.value.into()));
    Some(TcpKeepalive {
        probes: wire.keepalive_probes.as_ref().map(|value| value.value),
        time: seconds(wire.keepalive_time.as_ref()),
        interval: seconds(wire.keepalive_interval.as_ref()),
    })
}

fn circuit_breakers(message: &Wire) -> Result<CircuitBreakers, Invalid> {
    let thresholds = message
        .circuit_breakers
        .as_ref()
        .map(|breakers| breakers.thresholds.as_slice())
        .unwrap_or_default();
    let default = CircuitBreakers::default();
    let Some(wire) = thresholds.iter().find(|wire| wire.priority() == RoutingPriority::Default)
    else {
        return Ok(default);
    };
    let retries = match &wire.retry_budget {
        // The count has no meaning beside a budget.
        Some(budget) => {
            retry_budget(budget).at("retry_budget").at("circuit_breakers.thresholds")?
        }
        None => {
            wire.max_retries.as_ref().map_or(default.retries, |most| RetryLimit::Count(most.value))
        }
    };
    Ok(CircuitBreakers {
        max_connections: number(wire.max_connections.as_ref(), default.max_connections),
        max_pending_requests: number(
            wire.max_pending_requests.as_ref(),
            default.max_pending_requests,
        ),
        max_requests: number(wire.max_requests.as_ref(), default.max_requests),
        retries,
    })
}

fn retry_budget(budget: &WireRetryBudget) -> Result<RetryLimit, Invalid> {
    let percent = budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        return Err(Invalid::new(format!("expected 0 to 100, got {percent}")).at("budget_percent"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to a million, as was checked"
    )]
    let share = (percent * 10_000.0).round() as u32;
    Ok(RetryLimit::Budget { share, minimum: number(budget.min_retry_concurrency.as_ref(), 3) })
}

/// A detector counts only if it is enforced; one that is enforced for a part of the cases only is
/// enforced always.
fn outlier(message: &WireOutlier) -> Result<OutlierDetection, Invalid> {
    let enforced = |share: Option<&UInt32Value>, default: u32, count: u32| {
        if number(share, default) == 0 { 0 } else { count }
    };
    let gateway = number(message.consecutive_gateway_failure.as_ref(), 5);
    let local = number(message.consecutive_local_origin_failure.as_ref(), 5);
    let time = |field: &str, value, default| {
        Ok::<_, Invalid>(optional_duration(field, value)?.unwrap_or(default))
    };
    let base =
        time("base_ejection_time", message.base_ejection_time.as_ref(), Duration::from_secs(30))?;
    let longest =
        time("max_ejection_time", message.max_ejection_time.as_ref(), Duration::from_secs(300))?;
    Ok(OutlierDetection {
        consecutive_5xx: enforced(
            message.enforcing_consecutive_5xx.as_ref(),
            100,
            number(message.consecutive_5xx.as_ref(), 5),
        ),
        consecutive_gateway_failure: enforced(
            message.enforcing_consecutive_gateway_failure.as_ref(),
            0,
            gateway,
        ),
        consecutive_local_origin_failure: enforced(
            message.enforcing_consecutive_local_origin_failure.as_ref(),
            100,
            local,
        ),
        split_local_origin: message.split_external_local_origin_errors,
        interval: time("interval", message.interval.as_ref(), Duration::from_secs(10))?,
        base_ejection_time: base,
        max_ejection_time: longest.max(base),
        max_ejection_percent: number(message.max_ejection_percent.as_ref(), 10).min(100),
        always_one: message.always_eject_one_host.is_some_and(|always| always.value),
    })
}

/// The two lists of `filter_metadata["mesh"]`: the cluster's part in choosing ALPN by protocol.
fn mesh_alpn(message: &Wire) -> Option<MeshAlpn> {
    let mut alpn = MeshAlpn::default();
    for (key, value) in metadata_strings(message.metadata.as_ref(), "mesh") {
        let list = value
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect();
        match key {
            "h1" => alpn.h1 = list,
            "h2" => alpn.h2 = list,
            _ => {}
        }
    }
    (alpn != MeshAlpn::default()).then_some(alpn)
}

/// `filter_metadata["istio"].services`: the services that a cluster stands for.
fn services(message: &Wire) -> Vec<ServiceLabel> {
    let fields =
        message.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get("istio"));
    let Some(Kind::ListValue(list)) =
        fields.and_then(|fields| fields.fields.get("services")?.kind.as_ref())
    else {
        return Vec::new();
    };
    let structs = list.values.iter().filter_map(|value| match &value.kind {
        Some(Kind::StructValue(fields)) => Some(fields),
        _ => None,
    });
    structs.map(service_label).collect()
}

fn service_label(fields: &Struct) -> ServiceLabel {
    let text = |key: &str| match fields.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => Arc::from(text.as_str()),
        _ => Arc::default(),
    };
    ServiceLabel { host: text("host"), name: text("name"), namespace: text("namespace") }
}
