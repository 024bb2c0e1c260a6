//! EnvoyFilters.

use std::sync::Arc;

use crate::{
    dialect::{
        decode::Decoder,
        istio::envoy_filter::{
            self, ApplyTo, ConfigPatch, EnvoyFilter, PatchContext, ProxyMatch, RouteAction, guards,
        },
        lowering::Lowering,
        message,
    },
    ir::{
        ChainCondition, ClusterMatch, Expression, ListenerMatch, Patch, PatchSet, PatchStage,
        PatchSubject, ProxyCondition, ProxySide, RouteActionKind, RouteConfigurationMatch,
        Selector,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    /// What is not served was refused when the object was read, and gives no patch.
    pub(in crate::dialect) fn envoy_filter(&self, spec: &EnvoyFilter) -> Item {
        let patches = spec.config_patches.iter().enumerate();
        let patches = patches.filter_map(|(i, patch)| self.patch(i, patch).map(Arc::new));
        Item::Patches(Arc::new(PatchSet {
            origin: self.origin(),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|s| Selector::from(s.labels.clone()))
                .unwrap_or_default(),
            stage: PatchStage::Change,
            priority: spec.priority,
            patches: patches.collect(),
            pull_secret: None,
        }))
    }

    fn patch(&self, index: usize, written: &ConfigPatch) -> Option<Patch> {
        let body = written.patch.as_ref()?;
        let kind = written.apply_to.changeable()?.message;
        let message = match &body.value {
            Some(value) => {
                let read = message::read(kind, value, &mut Decoder::default())?;
                Some(message::close(&read))
            }
            None => None,
        };
        let context = written.matches.as_ref().map(|m| m.context).unwrap_or_default();
        Some(Patch {
            origin: self.origin().id,
            at: format!("spec.configPatches[{index}]").into(),
            side: match (written.apply_to, side(context)?) {
                // A sidecar starts once, whatever its sides are.
                (ApplyTo::Bootstrap, Some(ProxySide::Inbound)) => Some(ProxySide::Outbound),
                (_, side) => side,
            },
            proxy: written
                .matches
                .as_ref()
                .and_then(|m| m.proxy.as_ref())
                .map(proxy)
                .unwrap_or_default(),
            subject: subject(written)?,
            operation: body.meaning(written.apply_to)?,
            message,
            guards: body.value.as_ref().is_some_and(guards),
        })
    }
}

/// `Some(None)`: any; `None`: not served.
fn side(context: PatchContext) -> Option<Option<ProxySide>> {
    match context {
        PatchContext::Any => Some(None),
        PatchContext::SidecarInbound => Some(Some(ProxySide::Inbound)),
        PatchContext::SidecarOutbound => Some(Some(ProxySide::Outbound)),
        PatchContext::Gateway => Some(Some(ProxySide::Gateway)),
        PatchContext::Waypoint => None,
    }
}

fn proxy(written: &ProxyMatch) -> ProxyCondition {
    let version = Some(&written.proxy_version).filter(|version| !version.is_empty());
    ProxyCondition {
        version: version.and_then(|version| Expression::new(version)),
        metadata: written.metadata.clone(),
    }
}

fn subject(written: &ConfigPatch) -> Option<PatchSubject> {
    let matches = written.matches.as_ref();
    let listeners = || matches.and_then(|m| m.listener.as_ref()).map(listener).unwrap_or_default();
    let tables =
        || matches.and_then(|m| m.route_configuration.as_ref()).map(routes).unwrap_or_default();
    Some(match written.apply_to {
        ApplyTo::Cluster => PatchSubject::Cluster(
            matches.and_then(|m| m.cluster.as_ref()).map(cluster).unwrap_or_default(),
        ),
        ApplyTo::Listener => PatchSubject::Listener(listeners()),
        ApplyTo::ListenerFilter => PatchSubject::ListenerFilter(listeners()),
        ApplyTo::FilterChain => PatchSubject::FilterChain(listeners()),
        ApplyTo::NetworkFilter => PatchSubject::NetworkFilter(listeners()),
        ApplyTo::HttpFilter => PatchSubject::HttpFilter(listeners()),
        ApplyTo::RouteConfiguration => PatchSubject::RouteConfiguration(tables()),
        ApplyTo::VirtualHost => PatchSubject::VirtualHost(tables()),
        ApplyTo::HttpRoute => PatchSubject::Route(tables()),
        ApplyTo::ExtensionConfig => PatchSubject::Extension,
        ApplyTo::Bootstrap => PatchSubject::Bootstrap,
        _ => return None,
    })
}

fn port(number: u16) -> Option<u16> {
    (number != 0).then_some(number)
}

fn cluster(written: &envoy_filter::ClusterMatch) -> ClusterMatch {
    ClusterMatch {
        name: written.name.clone(),
        service: written.service.clone(),
        subset: written.subset.clone(),
        port: port(written.port_number),
    }
}

fn listener(written: &envoy_filter::ListenerMatch) -> ListenerMatch {
    let chain = written.filter_chain.as_ref();
    let filter = chain.and_then(|chain| chain.filter.as_ref());
    let sub_filter = filter.and_then(|filter| filter.sub_filter.as_ref());
    ListenerMatch {
        name: written.name.clone(),
        port: port(written.port_number),
        port_name: written.port_name.clone(),
        chain: chain.map(condition).unwrap_or_default(),
        listener_filter: written.listener_filter.clone(),
        filter: filter.map(|filter| filter.name.clone()).unwrap_or_default(),
        sub_filter: sub_filter.map(|filter| filter.name.clone()).unwrap_or_default(),
    }
}

fn condition(written: &envoy_filter::FilterChainMatch) -> ChainCondition {
    let names = written.application_protocols.split(',').map(str::trim);
    ChainCondition {
        name: written.name.clone(),
        sni: written.sni.clone(),
        transport: written.transport_protocol.clone(),
        socket: written.transport_socket.clone(),
        alpn: names.filter(|name| !name.is_empty()).map(Into::into).collect(),
        port: port(written.destination_port),
    }
}

fn routes(written: &envoy_filter::RouteConfigurationMatch) -> RouteConfigurationMatch {
    let host = written.vhost.as_ref();
    let route = host.and_then(|host| host.route.as_ref());
    RouteConfigurationMatch {
        name: written.name.clone(),
        port: port(written.port_number),
        port_name: written.port_name.clone(),
        gateway: written.gateway.clone(),
        host: host.map(|host| host.name.clone()).unwrap_or_default(),
        domain: host.map(|host| host.domain_name.clone()).unwrap_or_default(),
        route: route.map(|route| route.name.clone()).unwrap_or_default(),
        action: route.and_then(|route| action(route.action)),
    }
}

fn action(written: RouteAction) -> Option<RouteActionKind> {
    match written {
        RouteAction::Any => None,
        RouteAction::Route => Some(RouteActionKind::Forward),
        RouteAction::Redirect => Some(RouteActionKind::Redirect),
        RouteAction::DirectResponse => Some(RouteActionKind::Answer),
    }
}
