//! Servers that pass the mesh's own mutual TLS on without taking it off: the SNI that it sends
//! names service, port and subset, and the peer at its end decides who may call (Istio
//! `AUTO_PASSTHROUGH`).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ChainMatch, ClusterClient, FilterChainPlan, Outline, TcpProxyPlan, TerminalFilter,
    client::Client,
    defaults::{self, HANDSHAKE},
    gateway_servers::Served,
    mtls::{self, MESH_ALPN},
    naming,
    traffic::MergedPolicy,
};
use crate::{
    ir::{GatewayServer, Resolution, ServerTlsMode, Service, ServiceKey},
    snapshot::Reader,
};

/// What such servers of a gateway need.
pub(crate) struct Relay<'a> {
    reader: &'a Reader<'a>,
    client: Client<'a>,
}

impl<'a> Relay<'a> {
    /// For the gateway whose client is `client`.
    pub(crate) fn new(reader: &'a Reader<'a>, client: &Client<'a>) -> Self {
        let kind = ClusterClient::Relay;
        let Client { namespace, labels, locality, knows_peers, .. } = *client;
        Self { reader, client: Client { namespace, labels, locality, knows_peers, kind } }
    }

    /// Adds the clusters that servers lead to, each service's once.
    pub(crate) fn add_clusters<'s>(
        &self,
        outline: &mut Outline,
        servers: impl Iterator<Item = &'s GatewayServer>,
    ) {
        let mut relayed: BTreeMap<ServiceKey, Arc<Service>> = BTreeMap::new();
        for server in servers.filter(|server| relays(server)) {
            relayed.extend(self.services(server).map(|service| (service.key.clone(), service)));
        }
        for service in relayed.values() {
            outline.add_clusters(self.client.service_entries(self.reader, service));
        }
    }

    /// A chain for each port of each service, and for each of its subsets.
    pub(crate) fn chains(&self, served: &Served) -> Vec<FilterChainPlan> {
        let mut chains = Vec::new();
        for service in self.services(&served.server) {
            let policies = self.client.policies(self.reader, &service);
            let subsets = MergedPolicy::new(&policies).subsets();
            let own: Vec<Arc<str>> = subsets.iter().map(|subset| subset.name.clone()).collect();
            for port in &service.ports {
                let names = std::iter::once("".into()).chain(own.iter().cloned());
                chains.extend(names.map(|subset: Arc<str>| {
                    let host = service.key.host.as_str();
                    self.chain(naming::mesh_sni(port.number, &subset, host))
                }));
            }
        }
        chains
    }

    fn chain(&self, name: Arc<str>) -> FilterChainPlan {
        let proxy = TcpProxyPlan {
            stat_prefix: name.clone(),
            clusters: vec![(name.clone(), 1)],
            ..defaults::tcp(&name)
        };
        FilterChainPlan {
            name: "".into(),
            matches: ChainMatch {
                server_names: vec![name],
                alpn: mtls::texts(&MESH_ALPN),
                ..ChainMatch::default()
            },
            tls: None,
            connect_timeout: Some(HANDSHAKE),
            ask: None,
            access: Vec::new(),
            terminal: TerminalFilter::Tcp(proxy),
        }
    }

    /// The services of the mesh that a server is for.
    fn services(&self, server: &GatewayServer) -> impl Iterator<Item = Arc<Service>> {
        let visible = self.reader.services_visible_to(self.client.namespace);
        let meant = |service: &Service| {
            server.hosts.iter().any(|own| {
                let namespace = own.namespace.as_ref();
                own.host.contains(&service.key.host)
                    && namespace.is_none_or(|own| *own == service.key.namespace)
            })
        };
        // A name with a wildcard in the middle would cost the listener.
        let own = |service: &Service| {
            let named = !service.key.host.is_wildcard();
            named && !service.external && !matches!(service.resolution, Resolution::Alias(_))
        };
        let services: Vec<Arc<Service>> =
            visible.iter().filter(|service| own(service) && meant(service)).cloned().collect();
        services.into_iter()
    }
}

/// Whether a server passes on what it takes in, by the mesh's names.
pub(crate) fn relays(server: &GatewayServer) -> bool {
    server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough)
}
