//! The table of families. A new one is a row here and a file that says how it is indexed, read and
//! what its changes touch; whatever is done with all items follows from the rows.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    EndpointSlice, MeshSnapshot, ServiceDefinition,
    access::AccessPolicies,
    access_defaults::AccessDefaults,
    backends::Backends,
    caller_sets::CallerSets,
    family::{Family, Fed, Touch},
    gateways::Gateways,
    groups::Groups,
    match_sets::MatchSets,
    outbound_policies::OutboundPolicies,
    patches::PatchSets,
    peer_tls::PeerTlsPolicies,
    proxies::ProxyPolicies,
    rate_limits::RateLimits,
    routes::Routes,
    scopes::Scopes,
    services::Services,
    settings::Settings,
    slices::Slices,
    telemetry::TelemetryPolicies,
    tokens::TokenPolicies,
    workload_ports::WorkloadPorts,
    workloads::Workloads,
};
use crate::ir::{
    AccessDefault, AccessPolicy, BackendPolicy, CallerSet, GatewayConfig, MatchSet, MeshDefaults,
    OutboundPolicy, PatchSet, PeerTlsPolicy, ProxyPolicy, RateLimit, RouteTable, ServiceKey,
    SidecarScope, TelemetryPolicy, TokenPolicy, Workload, WorkloadGroup, WorkloadPort,
};

/// Declares the families. Each row: what an item is, its name, its type, and the name and type of
/// the index that holds such items.
macro_rules! families {
    ($( $(#[doc = $doc:literal])+ $variant:ident($item:ty) in $field:ident: $family:ty, )+) => {
        /// One fact of the snapshot, as an object gives it.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Item { $( $(#[doc = $doc])+ $variant(Arc<$item>), )+ }

        /// The indexes of all families, copied only when somebody else still holds them.
        #[derive(Clone, Default, Debug)]
        pub(super) struct Families { $( pub(super) $field: Arc<$family>, )+ }

        impl Families {
            /// Takes an item in.
            pub(super) fn insert(&mut self, item: &Item) {
                match item {
                    $( Item::$variant(item) => Arc::make_mut(&mut self.$field).insert(item), )+
                }
            }

            /// Takes an item out.
            pub(super) fn remove(&mut self, item: &Item) {
                match item {
                    $( Item::$variant(item) => Arc::make_mut(&mut self.$field).remove(item), )+
                }
            }

            /// As [`Family::contested`].
            pub(super) fn contested(&self, item: &Item, contested: &mut BTreeSet<ServiceKey>) {
                match item { $( Item::$variant(item) => self.$field.contested(item, contested), )+ }
            }
        }

        impl Item {
            /// As [`Family::label_keys`].
            pub(super) fn label_keys(&self, keys: &mut BTreeSet<Arc<str>>) {
                match self { $( Self::$variant(item) => <$family>::label_keys(item, keys), )+ }
            }

            /// As [`Family::feeds`].
            pub(super) fn feeds(&self, fed: &mut Fed) {
                match self { $( Self::$variant(item) => <$family>::feeds(item, fed), )+ }
            }

            /// As [`Family::touch`], for items of any families: each gets its own.
            pub(super) fn touch(versions: &[&Self], touch: &mut Touch<'_>) {
                $(
                    let own = versions.iter().filter_map(|version| match version {
                        Self::$variant(item) => Some(item),
                        _ => None,
                    });
                    let own: Vec<&Arc<$item>> = own.collect();
                    if !own.is_empty() {
                        <$family>::touch(&own, touch);
                    }
                )+
            }
        }

        impl MeshSnapshot {
            $( pub(crate) fn $field(&self) -> &$family { &self.families.$field } )+
        }
    };
}

families! {
    /// The mesh-wide settings.
    Mesh(MeshDefaults) in settings: Settings,
    /// A service, with the endpoints written in the same object.
    Service(ServiceDefinition) in services: Services,
    /// Endpoints that the cluster found for a Kubernetes Service.
    Slice(EndpointSlice) in slices: Slices,
    /// A workload.
    Workload(Workload) in workloads: Workloads,
    /// Routing rules.
    Routes(RouteTable) in routes: Routes,
    /// Conditions that rules of other objects refer to.
    MatchSet(MatchSet) in match_sets: MatchSets,
    /// Backend settings.
    Backend(BackendPolicy) in backends: Backends,
    /// A gateway configuration.
    Gateway(GatewayConfig) in gateways: Gateways,
    /// A sidecar scope.
    Scope(SidecarScope) in scopes: Scopes,
    /// What becomes of traffic for unknown destinations.
    Outbound(OutboundPolicy) in outbound_policies: OutboundPolicies,
    /// Which TLS is taken from peers.
    PeerTls(PeerTlsPolicy) in peer_tls: PeerTlsPolicies,
    /// Who may call.
    Access(AccessPolicy) in access: AccessPolicies,
    /// Callers to which policies of other objects refer.
    Callers(CallerSet) in caller_sets: CallerSets,
    /// A port of workloads to which other objects refer.
    Port(WorkloadPort) in workload_ports: WorkloadPorts,
    /// Who may call where no object describes the port.
    AccessDefault(AccessDefault) in access_defaults: AccessDefaults,
    /// Which tokens are taken.
    Tokens(TokenPolicy) in tokens: TokenPolicies,
    /// How many requests are taken.
    RateLimit(RateLimit) in rate_limits: RateLimits,
    /// What workloads tell of their traffic.
    Telemetry(TelemetryPolicy) in telemetry: TelemetryPolicies,
    /// Changes of what proxies are sent.
    Patches(PatchSet) in patches: PatchSets,
    /// What proxies are started with.
    Proxy(ProxyPolicy) in proxies: ProxyPolicies,
    /// What the machines of a group are like.
    Group(WorkloadGroup) in groups: Groups,
}
