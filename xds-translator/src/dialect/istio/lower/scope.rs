//! Sidecars.

use std::sync::Arc;

use super::{backend::connection_pool, gateway::lower_tls};
use crate::dialect::{lowering::Lowering, names::protocol};
use crate::{
    diagnostic::FieldPath,
    dialect::istio::{
        shared::Port,
        sidecar::{self, CaptureMode, OutboundTrafficMode, OutboundTrafficPolicy, Sidecar},
    },
    ir::{
        AppEndpoint, Capture, EgressListener, EgressProxy, Hostname, IngressListener, ListenerPort,
        OutboundTraffic, Protocol, ScopeHost, ScopeNamespace, SidecarScope,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn sidecar(&mut self, spec: &Sidecar) -> Item {
        let egress = spec.egress.iter().enumerate();
        let egress = egress
            .filter_map(|(i, e)| self.egress(&FieldPath::of("spec.egress").index(i), e))
            .collect();
        let ingress = spec.ingress.iter().enumerate();
        let ingress = ingress
            .filter_map(|(i, l)| self.ingress(&FieldPath::of("spec.ingress").index(i), l))
            .collect();
        Item::Scope(Arc::new(SidecarScope {
            origin: self.origin(),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|s| s.labels.clone().into())
                .unwrap_or_default(),
            egress,
            ingress,
            outbound_traffic: spec
                .outbound_traffic_policy
                .as_ref()
                .map(|policy| self.outbound_traffic(policy)),
            inbound_pool: spec.inbound_connection_pool.as_ref().map(connection_pool),
        }))
    }

    fn egress(
        &mut self,
        at: &FieldPath,
        listener: &sidecar::EgressListener,
    ) -> Option<EgressListener> {
        Some(EgressListener {
            port: listener.port.as_ref().map(listener_port),
            bind: self.bind(
                at,
                &listener.bind,
                "listeners on Unix sockets are not served yet; the listener is left out",
            )?,
            capture: capture(listener.capture_mode),
            hosts: listener.hosts.iter().filter(|h| !hides(h)).map(|h| scope_host(h)).collect(),
            hidden: listener
                .hosts
                .iter()
                .filter(|h| hides(h))
                .map(|h| scope_host(&h[1..]))
                .collect(),
        })
    }

    fn ingress(
        &mut self,
        at: &FieldPath,
        listener: &sidecar::IngressListener,
    ) -> Option<IngressListener> {
        let default_endpoint = match &*listener.default_endpoint {
            "" => None,
            text => match app_endpoint(text) {
                Some(endpoint) => Some(endpoint),
                None => {
                    let expected = "127.0.0.1:PORT, 0.0.0.0:PORT or unix:///PATH";
                    self.invalid(at.field("defaultEndpoint"), expected, text);
                    return None;
                }
            },
        };
        Some(IngressListener {
            port: listener_port(&listener.port),
            bind: self.bind(
                at,
                &listener.bind,
                "listeners on Unix sockets are not served yet; the listener is left out",
            )?,
            capture: capture(listener.capture_mode),
            default_endpoint,
            tls: listener.tls.as_ref().map(|tls| lower_tls(&at.field("tls"), tls)),
            pool: listener.connection_pool.as_ref().map(connection_pool),
        })
    }
}

/// Whether an entry takes hosts away: `~` before a namespace. By itself it is the namespace that
/// nobody is in.
fn hides(text: &str) -> bool {
    text.starts_with('~') && !text.starts_with("~/")
}

impl Lowering<'_> {
    pub(in crate::dialect) fn outbound_traffic(
        &self,
        policy: &OutboundTrafficPolicy,
    ) -> OutboundTraffic {
        match (policy.mode, &policy.egress_proxy) {
            (OutboundTrafficMode::RegistryOnly, _) => OutboundTraffic::RegistryOnly,
            (_, Some(proxy)) => OutboundTraffic::Through(EgressProxy {
                host: self.host(&proxy.host),
                port: proxy.port.as_ref().map_or(0, |port| port.number),
                subset: proxy.subset.clone(),
            }),
            // Names are resolved by the client, so that the dynamic form differs only for clients
            // that do not.
            _ => OutboundTraffic::AllowAny,
        }
    }
}

fn scope_host(text: &str) -> ScopeHost {
    let (namespace, host) = text.split_once('/').unwrap_or(("*", text));
    let namespace = match namespace {
        "*" => ScopeNamespace::Any,
        "~" => ScopeNamespace::Nobody,
        "." => ScopeNamespace::Clients,
        name => ScopeNamespace::Named(name.into()),
    };
    ScopeHost { namespace, host: Hostname::new(host) }
}

fn listener_port(port: &Port) -> ListenerPort {
    ListenerPort {
        number: port.number,
        name: port.name.clone(),
        protocol: protocol(&port.protocol).unwrap_or(Protocol::Auto),
    }
}

fn capture(mode: CaptureMode) -> Capture {
    match mode {
        CaptureMode::Default => Capture::Default,
        CaptureMode::Iptables => Capture::Iptables,
        CaptureMode::None => Capture::None,
    }
}

fn app_endpoint(text: &str) -> Option<AppEndpoint> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(AppEndpoint::Pipe(path.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    match host {
        "127.0.0.1" | "[::1]" => Some(AppEndpoint::Loopback(port)),
        "0.0.0.0" | "[::]" => Some(AppEndpoint::Workload(port)),
        _ => None,
    }
}
