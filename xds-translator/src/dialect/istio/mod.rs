//! Istio's kinds: their fields, the rules their values must keep, and what they are lowered to.

pub mod annotation;
mod attribute;
mod definitions;
pub mod destination_rule;
pub(crate) mod dry_run;
pub mod envoy_filter;
pub mod extension;
pub mod extension_provider;
pub mod gateway;
pub(crate) mod lower;
pub mod mesh_config;
pub mod pod_config;
pub mod proxy_config;
pub mod request_authentication;
mod retry_words;
mod rules;
pub mod security;
pub mod service_entry;
pub mod shared;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload_group;

use self::{
    destination_rule::DestinationRule,
    envoy_filter::EnvoyFilter,
    extension::{TrafficExtension, WasmPlugin},
    gateway::Gateway,
    mesh_config::MeshConfig,
    proxy_config::ProxyConfig,
    request_authentication::RequestAuthentication,
    security::{AuthorizationPolicy, PeerAuthentication},
    service_entry::{ServiceEntry, WorkloadEntry},
    sidecar::Sidecar,
    telemetry::Telemetry,
    virtual_service::VirtualService,
    workload_group::WorkloadGroup,
};
use super::{
    decode::Decoder,
    kind::{Served, Serving, kinds},
    lowering::Lowering,
    spec::Spec,
};
use crate::snapshot::Item;

kinds! {
    100;
    /// Istio's VirtualService.
    VIRTUAL_SERVICE: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "VirtualService" "virtualservices" "virtual-service" Namespaced => Serving::Served(Served::spec::<VirtualService>().defined(&definitions::VIRTUAL_SERVICE));
    /// Istio's DestinationRule.
    DESTINATION_RULE: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "DestinationRule" "destinationrules" "destination-rule" Namespaced => Serving::Served(Served::spec::<DestinationRule>().defined(&definitions::DESTINATION_RULE));
    /// Istio's Gateway.
    GATEWAY: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Gateway" "gateways" "gateway" Namespaced => Serving::Served(Served::spec::<Gateway>().defined(&definitions::GATEWAY));
    /// Istio's ServiceEntry.
    SERVICE_ENTRY: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "ServiceEntry" "serviceentries" "service-entry" Namespaced => Serving::Served(Served::spec::<ServiceEntry>().defined(&definitions::SERVICE_ENTRY));
    /// Istio's WorkloadEntry.
    WORKLOAD_ENTRY: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadEntry" "workloadentries" "workload-entry" Namespaced => Serving::Served(Served::spec::<WorkloadEntry>().defined(&definitions::WORKLOAD_ENTRY));
    /// Istio's Sidecar.
    SIDECAR: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Sidecar" "sidecars" "sidecar" Namespaced => Serving::Served(Served::spec::<Sidecar>().defined(&definitions::SIDECAR));
    /// Istio's PeerAuthentication.
    PEER_AUTHENTICATION: "security.istio.io" ["v1", "v1beta1", "v1alpha3"] "PeerAuthentication" "peerauthentications" "peer-authentication" Namespaced => Serving::Served(Served::spec::<PeerAuthentication>().defined(&definitions::PEER_AUTHENTICATION).guarding(security::strict));
    /// Istio's AuthorizationPolicy.
    AUTHORIZATION_POLICY: "security.istio.io" ["v1", "v1beta1", "v1alpha3"] "AuthorizationPolicy" "authorizationpolicies" "authorization-policy" Namespaced => Serving::Served(Served::spec::<AuthorizationPolicy>().defined(&definitions::AUTHORIZATION_POLICY));
    /// The mesh configuration; one in a mesh, named `default`.
    MESH_CONFIG: "mesh.istio.io" ["v1alpha1"] "MeshConfig" "meshconfigs" "mesh-config" Cluster => Serving::Served(Served::spec::<MeshConfig>());
    /// Istio's RequestAuthentication.
    REQUEST_AUTHENTICATION: "security.istio.io" ["v1", "v1beta1"] "RequestAuthentication" "requestauthentications" "request-authentication" Namespaced => Serving::Served(Served::spec::<RequestAuthentication>().defined(&definitions::REQUEST_AUTHENTICATION));
    /// Istio's Telemetry.
    TELEMETRY: "telemetry.istio.io" ["v1alpha1", "v1"] "Telemetry" "telemetries" "telemetry" Namespaced => Serving::Served(Served::spec::<Telemetry>().defined(&definitions::TELEMETRY));
    /// Istio's EnvoyFilter.
    ENVOY_FILTER: "networking.istio.io" ["v1alpha3"] "EnvoyFilter" "envoyfilters" "envoy-filter" Namespaced => Serving::Served(Served::spec::<EnvoyFilter>().defined(&definitions::ENVOY_FILTER));
    /// Istio's WorkloadGroup.
    WORKLOAD_GROUP: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadGroup" "workloadgroups" "workload-group" Namespaced => Serving::Served(Served::spec::<WorkloadGroup>().defined(&definitions::WORKLOAD_GROUP));
    /// Istio's ProxyConfig.
    PROXY_CONFIG: "networking.istio.io" ["v1beta1", "v1"] "ProxyConfig" "proxyconfigs" "proxy-config" Namespaced => Serving::Served(Served::spec::<ProxyConfig>().defined(&definitions::PROXY_CONFIG));
    /// Istio's WasmPlugin.
    WASM_PLUGIN: "extensions.istio.io" ["v1alpha1"] "WasmPlugin" "wasmplugins" "wasm-plugin" Namespaced => Serving::Served(Served::spec::<WasmPlugin>().defined(&definitions::WASM_PLUGIN));
    /// Istio's TrafficExtension.
    TRAFFIC_EXTENSION: "extensions.istio.io" ["v1alpha1"] "TrafficExtension" "trafficextensions" "traffic-extension" Namespaced => Serving::Served(Served::spec::<TrafficExtension>().defined(&definitions::TRAFFIC_EXTENSION));
    /// Istio's installer input.
    ISTIO_OPERATOR: "install.istio.io" ["v1alpha1"] "IstioOperator" "istiooperators" "istio-operator" Namespaced => Serving::Installer;
}

impl Spec for VirtualService {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::route::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.virtual_service(self).into_iter().collect()
    }
}

impl Spec for DestinationRule {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::backend::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.destination_rule(self)]
    }
}

impl Spec for Gateway {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::gateway::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.gateway(self)]
    }
}

impl Spec for ServiceEntry {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::entry::check_entry(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.service_entry(self)
    }
}

impl Spec for WorkloadEntry {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::entry::check_workload(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.workload_entry(self).into_iter().collect()
    }
}

impl Spec for Sidecar {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::sidecar::check_sidecar(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.sidecar(self)]
    }
}

impl Spec for PeerAuthentication {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::security::check_peer(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.peer_authentication(self)]
    }
}

impl Spec for AuthorizationPolicy {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::security::check_access(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.authorization_policy(self).into_iter().collect()
    }
}

impl Spec for RequestAuthentication {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::token::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.request_authentication(self).into_iter().collect()
    }
}

impl Spec for EnvoyFilter {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::patch::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.envoy_filter(self)]
    }
}

impl Spec for WasmPlugin {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::extension::check_plugin(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.wasm_plugin(self).into_iter().collect()
    }
}

impl Spec for TrafficExtension {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::extension::check_extension(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.traffic_extension(self).into_iter().collect()
    }
}

impl Spec for Telemetry {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::telemetry::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.telemetry(self).into_iter().collect()
    }
}

impl Spec for ProxyConfig {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::proxy::check_proxy(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.proxy_config(self)]
    }
}

impl Spec for WorkloadGroup {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::machine::check_group(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.workload_group(self)]
    }
}

impl Spec for MeshConfig {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::mesh::check_mesh(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.mesh_config(self).into_iter().collect()
    }
}
