//! A cluster, the endpoints of it that take requests, and the TLS that they are called with.

use std::net::IpAddr;

use super::{
    connection::{Connection, Tls, host_port},
    pb::{
        cluster::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig},
        },
        core::{Address, HealthStatus, TransportSocket, address, transport_socket::ConfigType},
        endpoint::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
        protobuf::{Struct, value::Kind},
        proxy_protocol::ProxyProtocolUpstreamTransport,
        raw_buffer::RawBuffer,
        tls::{
            CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
            common_tls_context::ValidationContextType,
        },
        unpack,
    },
    truth::{Truth, string},
};

/// Metadata by which endpoints choose their transport.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Envoy sends more to a priority than its healthy part by this factor, in percent.
const OVERPROVISIONING: usize = 140;
/// `common_lb_config.healthy_panic_threshold`, where nothing is written.
const PANIC_PERCENT: f64 = 50.0;

/// Where an endpoint is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Ip(IpAddr, u16),
    /// A name that the proxy resolves.
    Name(String, u16),
    Other(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
            Self::Ip(address, port) => write!(f, "{address}:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// An endpoint of a cluster.
pub(super) struct Endpoint {
    pub(super) place: Place,
    /// Why no request goes there; `None`: requests do.
    pub(super) unused: Option<String>,
    /// How it is called.
    pub(super) transport: Transport,
}

/// How an endpoint is called.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Plain,
    Tls(Box<UpstreamTlsContext>),
    Unknown(String),
}

/// The endpoints of a cluster, and how they are found.
pub(super) struct Found {
    pub(super) how: String,
    pub(super) endpoints: Vec<Endpoint>,
    /// What the choice among them rests on and is not known.
    pub(super) depends: Vec<String>,
}

/// The endpoints of a cluster that requests of a connection go to. `assignment`: what the cluster
/// was told of its endpoints.
pub(super) fn endpoints(
    cluster: &Cluster,
    assignment: Option<&ClusterLoadAssignment>,
    connection: &Connection,
    host: &str,
) -> Found {
    let mut depends = Vec::new();
    if let Some(ejects) = ejection(cluster) {
        depends.push(ejects);
    }
    let one = |place| {
        let transport = transport(cluster, None);
        Endpoint { place, unused: None, transport }
    };
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == DiscoveryType::OriginalDst as i32 => {
            let port = match &cluster.lb_config {
                Some(LbConfig::OriginalDstLbConfig(config)) => config
                    .upstream_port_override
                    .as_ref()
                    .and_then(|port| u16::try_from(port.value).ok()),
                _ => None,
            };
            let port = port.unwrap_or(connection.port);
            let place = match connection.destination {
                Some(address) => Place::Ip(address, port),
                None => Place::Other(format!("where DNS says that {host} is, port {port}")),
            };
            let how = "where the client was going".to_owned();
            Found { how, endpoints: vec![one(place)], depends }
        }
        Some(ClusterDiscoveryType::ClusterType(custom))
            if custom.name == "envoy.clusters.dynamic_forward_proxy" =>
        {
            let place = Place::Name(host.to_owned(), connection.port);
            let how = "the name that is asked for, resolved by the proxy".to_owned();
            Found { how, endpoints: vec![one(place)], depends }
        }
        discovery => {
            let eds = matches!(
                discovery,
                Some(ClusterDiscoveryType::Type(kind)) if *kind == DiscoveryType::Eds as i32
            );
            let how = if eds { "endpoints of the mesh" } else { "endpoints that are written down" };
            let listed = if eds { assignment } else { cluster.load_assignment.as_ref() };
            let endpoints = listed.map(|listed| chosen(cluster, listed)).unwrap_or_default();
            Found { how: how.to_owned(), endpoints, depends }
        }
    }
}

fn ejection(cluster: &Cluster) -> Option<String> {
    let detection = cluster.outlier_detection.as_ref()?;
    let on = |count: &Option<super::pb::protobuf::UInt32Value>| {
        count.as_ref().map(|count| count.value).filter(|count| *count > 0)
    };
    let after = [
        (on(&detection.consecutive_5xx), "answers with 5xx"),
        (on(&detection.consecutive_gateway_failure), "answers with 502, 503 or 504"),
        (on(&detection.consecutive_local_origin_failure), "failed connections"),
    ];
    let after: Vec<String> =
        after.into_iter().filter_map(|(count, of)| Some(format!("{} {of}", count?))).collect();
    let after = if after.is_empty() { "failures".to_owned() } else { after.join(" or ") };
    Some(format!("ejection is the proxy's own: an endpoint gets nothing for a while after {after}"))
}

/// Endpoints in the order of priorities; those that get no requests say why.
fn chosen(cluster: &Cluster, listed: &ClusterLoadAssignment) -> Vec<Endpoint> {
    let highest = listed.endpoints.iter().map(|group| group.priority).max().unwrap_or(0);
    let groups: Vec<Vec<&LbEndpoint>> = (0..=highest)
        .map(|priority| {
            let own = listed.endpoints.iter().filter(|group| group.priority == priority);
            own.flat_map(|group| &group.lb_endpoints).collect()
        })
        .collect();
    let threshold = cluster
        .common_lb_config
        .as_ref()
        .and_then(|config| config.healthy_panic_threshold.as_ref())
        .map_or(PANIC_PERCENT, |percent| percent.value);
    let loads = loads(&groups);
    // Panic: too few are healthy, so that health is not believed.
    let healthy_everywhere = groups.iter().flatten().any(|endpoint| is_healthy(endpoint));
    let panics = |group: &[&LbEndpoint]| {
        let healthy = group.iter().filter(|endpoint| is_healthy(endpoint)).count();
        let percent = 100.0 * ratio(healthy, group.len());
        threshold > 0.0 && percent < threshold
    };
    let mut endpoints = Vec::new();
    for (priority, group) in groups.iter().enumerate() {
        let panic = panics(group) && (loads[priority] > 0 || !healthy_everywhere);
        for endpoint in group {
            let unused = match (is_healthy(endpoint), loads[priority], panic) {
                (false, _, false) => Some("it is not healthy".to_owned()),
                (true, 0, false) => {
                    Some(format!("it has priority {priority}, and those before it are healthy"))
                }
                _ => None,
            };
            let transport = transport(cluster, Some(endpoint));
            endpoints.push(Endpoint { place: place(endpoint), unused, transport });
        }
    }
    endpoints
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// The part of requests that each priority gets, in percent.
fn loads(groups: &[Vec<&LbEndpoint>]) -> Vec<usize> {
    let healths: Vec<usize> = groups
        .iter()
        .map(|group| {
            let healthy = group.iter().filter(|endpoint| is_healthy(endpoint)).count();
            (OVERPROVISIONING * healthy).checked_div(group.len()).unwrap_or(0).min(100)
        })
        .collect();
    let total = healths.iter().sum::<usize>().min(100);
    let mut left = 100;
    healths
        .into_iter()
        .map(|health| {
            let load = (health * 100).checked_div(total).unwrap_or(0).min(left);
            left -= load;
            load
        })
        .collect()
}

fn is_healthy(endpoint: &LbEndpoint) -> bool {
    let status = endpoint.health_status;
    status == HealthStatus::Healthy as i32 || status == HealthStatus::Unknown as i32
}

fn place(endpoint: &LbEndpoint) -> Place {
    let address = match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(own)) => own.address.as_ref(),
        Some(HostIdentifier::EndpointName(name)) => return Place::Other(name.clone()),
        None => None,
    };
    address.map_or_else(|| Place::Other("no address".to_owned()), place_of)
}

fn place_of(own: &Address) -> Place {
    if let Some((host, port)) = host_port(own) {
        return match host.parse() {
            Ok(address) => Place::Ip(address, port),
            Err(_) => Place::Name(host.to_owned(), port),
        };
    }
    match &own.address {
        Some(address::Address::Pipe(pipe)) => Place::Other(pipe.path.clone()),
        _ => Place::Other("an address of another kind".to_owned()),
    }
}

/// The transport of an endpoint: the first whose metadata suit, else the cluster's.
fn transport(cluster: &Cluster, endpoint: Option<&LbEndpoint>) -> Transport {
    let own =
        endpoint.and_then(|endpoint| endpoint.metadata.as_ref()?.filter_metadata.get(SOCKET_MATCH));
    let nothing = Struct::default();
    let own = own.unwrap_or(&nothing);
    let suits = |wanted: &Struct| {
        wanted.fields.iter().all(|(key, value)| own.fields.get(key) == Some(value))
    };
    let matched = cluster
        .transport_socket_matches
        .iter()
        .find(|one| one.r#match.as_ref().is_none_or(suits))
        .and_then(|one| one.transport_socket.as_ref());
    match matched.or(cluster.transport_socket.as_ref()) {
        Some(socket) => socket_transport(socket),
        None => Transport::Plain,
    }
}

fn socket_transport(socket: &TransportSocket) -> Transport {
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Transport::Unknown(socket.name.clone());
    };
    if let Some(context) = unpack::<UpstreamTlsContext>(any) {
        return Transport::Tls(Box::new(context));
    }
    if unpack::<RawBuffer>(any).is_some() {
        return Transport::Plain;
    }
    if let Some(outer) = unpack::<ProxyProtocolUpstreamTransport>(any)
        && let Some(inner) = &outer.transport_socket
    {
        return socket_transport(inner);
    }
    Transport::Unknown(socket.name.clone())
}

/// The secret by which workloads prove who they are.
const WORKLOAD_SECRET: &str = "default";

impl Transport {
    /// What a server sees of the TLS; `None`: there is none. `identity`: who the client's proxy can
    /// prove to be. `offered`: what requests offer instead of what the context says.
    pub(super) fn tls(&self, identity: &str, offered: Option<Vec<String>>) -> Option<Tls> {
        let Self::Tls(context) = self else { return None };
        let common = context.common_tls_context.as_ref();
        let proves = |common: &&CommonTlsContext| {
            let secrets = &common.tls_certificate_sds_secret_configs;
            secrets.iter().any(|secret| secret.name == WORKLOAD_SECRET)
        };
        let own = common.map(|common| common.alpn_protocols.clone()).unwrap_or_default();
        Some(Tls {
            sni: context.sni.clone(),
            alpn: offered.filter(|_| !own.is_empty()).unwrap_or(own),
            identity: common.filter(proves).map(|_| identity.to_owned()),
        })
    }

    /// Whether the client takes a server that proves to be `identity`.
    pub(super) fn takes(&self, identity: &str) -> Truth {
        let Self::Tls(context) = self else { return Truth::Yes };
        context.common_tls_context.as_ref().map_or(Truth::Yes, |common| accepts(common, identity))
    }
}

/// Whether who is at the other end is accepted by name.
pub(super) fn accepts(common: &CommonTlsContext, identity: &str) -> Truth {
    let context: Option<&CertificateValidationContext> = match &common.validation_context_type {
        Some(ValidationContextType::ValidationContext(context)) => Some(context),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.default_validation_context.as_ref()
        }
        _ => None,
    };
    let Some(context) = context else { return Truth::Yes };
    let names = context.match_typed_subject_alt_names.iter().filter_map(|m| m.matcher.as_ref());
    let names: Vec<_> = names.chain(&context.match_subject_alt_names).collect();
    match names.is_empty() {
        true => Truth::Yes,
        false => Truth::any(names.into_iter().map(|name| string(name, identity))),
    }
}

/// A text in the metadata of a cluster.
pub(super) fn metadata_text<'c>(cluster: &'c Cluster, section: &str, key: &str) -> Option<&'c str> {
    let fields = &cluster.metadata.as_ref()?.filter_metadata.get(section)?.fields;
    match fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::{
        core::{SocketAddress, socket_address::PortSpecifier},
        endpoint::{Endpoint as Message, LocalityLbEndpoints},
        types::Percent,
    };

    fn endpoint(last: u8, healthy: bool) -> LbEndpoint {
        let health = if healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
        let socket = SocketAddress {
            address: format!("10.0.0.{last}"),
            port_specifier: Some(PortSpecifier::PortValue(80)),
            ..SocketAddress::default()
        };
        let own = Message {
            address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
            ..Message::default()
        };
        LbEndpoint {
            health_status: health as i32,
            host_identifier: Some(HostIdentifier::Endpoint(own)),
            ..LbEndpoint::default()
        }
    }

    fn used(groups: &[&[bool]], panic: f64) -> Vec<bool> {
        let group = |(priority, healths): (usize, &&[bool])| LocalityLbEndpoints {
            priority: u32::try_from(priority).expect("small"),
            lb_endpoints: healths.iter().map(|healthy| endpoint(1, *healthy)).collect(),
            ..LocalityLbEndpoints::default()
        };
        let listed = ClusterLoadAssignment {
            endpoints: groups.iter().enumerate().map(group).collect(),
            ..ClusterLoadAssignment::default()
        };
        let mut cluster = Cluster::default();
        cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold =
            Some(Percent { value: panic });
        chosen(&cluster, &listed).iter().map(|endpoint| endpoint.unused.is_none()).collect()
    }

    #[test]
    fn a_priority_gets_requests_as_those_before_it_fail() {
        assert_eq!(used(&[&[true], &[true]], 0.0), [true, false]);
        assert_eq!(used(&[&[true, false], &[true]], 0.0), [true, false, true]);
        assert_eq!(used(&[&[false], &[true]], 0.0), [false, true]);
        assert_eq!(used(&[&[true, true, true, false]], 0.0), [true, true, true, false]);
    }

    #[test]
    fn where_nobody_is_healthy_panic_decides_whether_all_are_used() {
        assert_eq!(used(&[&[false, false]], 0.0), [false, false]);
        assert_eq!(used(&[&[false, false]], 50.0), [true, true]);
        assert_eq!(used(&[&[true, false, false]], 50.0), [true, true, true]);
    }
}
