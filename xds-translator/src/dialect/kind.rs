//! The kinds of objects we know: one table that drives parsing, REST paths, watches and diagnostics.

use serde::{Serialize, Serializer};

use super::suggest;

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $name:ident: $group:literal [$($version:literal),+] $kind:literal $plural:literal $kebab:literal $scope:ident $service:ident; )+) => {
        /// A kind of object. Kinds of different groups that share a name are different kinds.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind { $( $(#[doc = $doc])+ $name, )+ }

        /// Every known kind, in the order of [`Kind`].
        pub static KINDS: &[KindRow] = &[$( KindRow {
            kind: Kind::$name, group: $group, versions: &[$($version),+], name: $kind, plural: $plural, kebab: $kebab,
            scope: Scope::$scope, service: Service::$service,
        }, )+];
    };
}

/// What is known about a kind.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// API group; empty for Kubernetes' core group.
    pub group: &'static str,
    /// Versions that are read, preferred first. All have the same fields.
    pub versions: &'static [&'static str],
    /// `kind:` as written in objects.
    pub name: &'static str,
    /// REST resource name.
    pub plural: &'static str,
    /// Kebab-case name, as in Istio's config paths.
    pub kebab: &'static str,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// Whether we act on it.
    pub service: Service,
}

/// Where objects of a kind live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// What we do with a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// It is parsed, validated and translated.
    Served,
    /// It is known, and named as not supported yet.
    Planned,
    /// As [`Self::Planned`]; but it guards access to workloads of the mesh, and who wrote it relies on that: an error.
    PlannedGuard,
    /// Input of an installer, never served as an object.
    Installer,
}

kinds! {
    /// `v1 Namespace`.
    Namespace: "" ["v1"] "Namespace" "namespaces" "namespace" Cluster Served;
    /// `v1 Node`: its labels say in which zone its pods are.
    Node: "" ["v1"] "Node" "nodes" "node" Cluster Served;
    /// `v1 Service`.
    Service: "" ["v1"] "Service" "services" "service" Namespaced Served;
    /// `v1 Pod`.
    Pod: "" ["v1"] "Pod" "pods" "pod" Namespaced Served;
    /// `v1 ServiceAccount`.
    ServiceAccount: "" ["v1"] "ServiceAccount" "serviceaccounts" "service-account" Namespaced Served;
    /// `v1 Secret`.
    Secret: "" ["v1"] "Secret" "secrets" "secret" Namespaced Served;
    /// `v1 ConfigMap`: only `istio`, which holds the mesh configuration, means something.
    ConfigMap: "" ["v1"] "ConfigMap" "configmaps" "config-map" Namespaced Planned;
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice: "discovery.k8s.io" ["v1"] "EndpointSlice" "endpointslices" "endpoint-slice" Namespaced Served;
    /// `apps/v1 Deployment`: read so that real manifests load.
    Deployment: "apps" ["v1"] "Deployment" "deployments" "deployment" Namespaced Served;
    /// Istio's VirtualService.
    VirtualService: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "VirtualService" "virtualservices" "virtual-service" Namespaced Served;
    /// Istio's DestinationRule.
    DestinationRule: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "DestinationRule" "destinationrules" "destination-rule" Namespaced Served;
    /// Istio's Gateway.
    Gateway: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Gateway" "gateways" "gateway" Namespaced Served;
    /// Istio's ServiceEntry.
    ServiceEntry: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "ServiceEntry" "serviceentries" "service-entry" Namespaced Served;
    /// Istio's WorkloadEntry.
    WorkloadEntry: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadEntry" "workloadentries" "workload-entry" Namespaced Served;
    /// Istio's Sidecar.
    Sidecar: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Sidecar" "sidecars" "sidecar" Namespaced Served;
    /// Istio's PeerAuthentication.
    PeerAuthentication: "security.istio.io" ["v1", "v1beta1", "v1alpha3"] "PeerAuthentication" "peerauthentications" "peer-authentication" Namespaced Served;
    /// Istio's AuthorizationPolicy.
    AuthorizationPolicy: "security.istio.io" ["v1", "v1beta1", "v1alpha3"] "AuthorizationPolicy" "authorizationpolicies" "authorization-policy" Namespaced Served;
    /// The mesh configuration; one in a mesh, named `default`.
    MeshConfig: "mesh.istio.io" ["v1alpha1"] "MeshConfig" "meshconfigs" "mesh-config" Cluster Served;
    /// Istio's RequestAuthentication.
    RequestAuthentication: "security.istio.io" ["v1", "v1beta1"] "RequestAuthentication" "requestauthentications" "request-authentication" Namespaced PlannedGuard;
    /// Istio's Telemetry.
    Telemetry: "telemetry.istio.io" ["v1", "v1alpha1"] "Telemetry" "telemetries" "telemetry" Namespaced Planned;
    /// Istio's EnvoyFilter.
    EnvoyFilter: "networking.istio.io" ["v1alpha3"] "EnvoyFilter" "envoyfilters" "envoy-filter" Namespaced Planned;
    /// Istio's WorkloadGroup.
    WorkloadGroup: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadGroup" "workloadgroups" "workload-group" Namespaced Planned;
    /// Istio's ProxyConfig.
    ProxyConfig: "networking.istio.io" ["v1beta1", "v1"] "ProxyConfig" "proxyconfigs" "proxy-config" Namespaced Planned;
    /// Istio's WasmPlugin.
    WasmPlugin: "extensions.istio.io" ["v1alpha1"] "WasmPlugin" "wasmplugins" "wasm-plugin" Namespaced Planned;
    /// Istio's TrafficExtension.
    TrafficExtension: "extensions.istio.io" ["v1alpha1"] "TrafficExtension" "trafficextensions" "traffic-extension" Namespaced Planned;
    /// Istio's installer input.
    IstioOperator: "install.istio.io" ["v1alpha1"] "IstioOperator" "istiooperators" "istio-operator" Namespaced Installer;
    /// Gateway API's GatewayClass.
    GatewayClass: "gateway.networking.k8s.io" ["v1", "v1beta1"] "GatewayClass" "gatewayclasses" "gateway-class" Cluster Planned;
    /// Gateway API's Gateway.
    KubernetesGateway: "gateway.networking.k8s.io" ["v1", "v1beta1"] "Gateway" "gateways" "kubernetes-gateway" Namespaced Planned;
    /// Gateway API's HTTPRoute.
    HttpRoute: "gateway.networking.k8s.io" ["v1", "v1beta1"] "HTTPRoute" "httproutes" "http-route" Namespaced Planned;
    /// Gateway API's GRPCRoute.
    GrpcRoute: "gateway.networking.k8s.io" ["v1"] "GRPCRoute" "grpcroutes" "grpc-route" Namespaced Planned;
    /// Gateway API's TLSRoute.
    TlsRoute: "gateway.networking.k8s.io" ["v1", "v1alpha3", "v1alpha2"] "TLSRoute" "tlsroutes" "tls-route" Namespaced Planned;
    /// Gateway API's TCPRoute.
    TcpRoute: "gateway.networking.k8s.io" ["v1alpha2"] "TCPRoute" "tcproutes" "tcp-route" Namespaced Planned;
    /// Gateway API's ReferenceGrant.
    ReferenceGrant: "gateway.networking.k8s.io" ["v1", "v1beta1"] "ReferenceGrant" "referencegrants" "reference-grant" Namespaced Planned;
    /// Gateway API's BackendTLSPolicy.
    BackendTlsPolicy: "gateway.networking.k8s.io" ["v1", "v1alpha3"] "BackendTLSPolicy" "backendtlspolicies" "backend-tls-policy" Namespaced PlannedGuard;
    /// Kubernetes' Ingress.
    Ingress: "networking.k8s.io" ["v1"] "Ingress" "ingresses" "ingress" Namespaced Planned;
    /// Linkerd's ServiceProfile.
    ServiceProfile: "linkerd.io" ["v1alpha2", "v1alpha1"] "ServiceProfile" "serviceprofiles" "service-profile" Namespaced Planned;
    /// Linkerd's Server.
    LinkerdServer: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1"] "Server" "servers" "linkerd-server" Namespaced PlannedGuard;
    /// Linkerd's HTTPRoute.
    LinkerdHttpRoute: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"] "HTTPRoute" "httproutes" "linkerd-http-route" Namespaced Planned;
    /// Linkerd's AuthorizationPolicy.
    LinkerdAuthorizationPolicy: "policy.linkerd.io" ["v1alpha1"] "AuthorizationPolicy" "authorizationpolicies" "linkerd-authorization-policy" Namespaced PlannedGuard;
    /// Linkerd's MeshTLSAuthentication.
    MeshTlsAuthentication: "policy.linkerd.io" ["v1alpha1"] "MeshTLSAuthentication" "meshtlsauthentications" "mesh-tls-authentication" Namespaced PlannedGuard;
    /// Linkerd's NetworkAuthentication.
    NetworkAuthentication: "policy.linkerd.io" ["v1alpha1"] "NetworkAuthentication" "networkauthentications" "network-authentication" Namespaced PlannedGuard;
    /// SMI's TrafficSplit.
    TrafficSplit: "split.smi-spec.io" ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"] "TrafficSplit" "trafficsplits" "traffic-split" Namespaced Planned;
    /// SMI's TrafficTarget.
    TrafficTarget: "access.smi-spec.io" ["v1alpha3", "v1alpha2", "v1alpha1"] "TrafficTarget" "traffictargets" "traffic-target" Namespaced PlannedGuard;
    /// SMI's HTTPRouteGroup.
    HttpRouteGroup: "specs.smi-spec.io" ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"] "HTTPRouteGroup" "httproutegroups" "http-route-group" Namespaced Planned;
    /// Cilium's CiliumNetworkPolicy.
    CiliumNetworkPolicy: "cilium.io" ["v2"] "CiliumNetworkPolicy" "ciliumnetworkpolicies" "cilium-network-policy" Namespaced Planned;
    /// Cilium's CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy: "cilium.io" ["v2"] "CiliumClusterwideNetworkPolicy" "ciliumclusterwidenetworkpolicies" "cilium-clusterwide-network-policy" Cluster Planned;
    /// Flagger's Canary.
    Canary: "flagger.app" ["v1beta1"] "Canary" "canaries" "canary" Namespaced Planned;
}

impl Kind {
    /// The table's row.
    pub fn row(self) -> &'static KindRow {
        // The table is written by the same macro, in the order of the enum.
        &KINDS[self as usize]
    }

    /// API group; empty for Kubernetes' core group.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// Versions that are read, preferred first.
    pub fn versions(self) -> &'static [&'static str] {
        self.row().versions
    }

    /// The preferred `apiVersion`.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
    }

    /// `kind:` as written in objects.
    pub fn kind_name(self) -> &'static str {
        self.row().name
    }

    /// REST resource name.
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// Kebab-case name, as in Istio's config paths.
    pub fn kebab(self) -> &'static str {
        self.row().kebab
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(self) -> bool {
        self.row().scope == Scope::Namespaced
    }

    /// Whether objects are parsed, validated and translated.
    pub fn served(self) -> bool {
        self.row().service == Service::Served
    }

    /// Every kind that is served.
    pub fn all_served() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|row| row.kind).filter(|kind| kind.served())
    }

    /// The kind of a group and a name, whatever the version.
    pub fn find(group: &str, name: &str) -> Option<Self> {
        KINDS.iter().find(|row| row.group == group && row.name == name).map(|row| row.kind)
    }

    /// Whether a written kind is this one, or so near that it may be a slip of the pen.
    pub fn resembles(self, written: &str) -> bool {
        suggest::nearest(written, std::iter::once(self.kind_name())).is_some()
    }

    /// The served kind with this REST resource name.
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::all_served().find(|kind| kind.plural() == plural)
    }

    /// The kind of an object's `apiVersion` and `kind`, if the version is one that is read.
    pub fn from_api(api_version: &str, name: &str) -> Option<Self> {
        let (group, version) = split_api_version(api_version);
        Self::find(group, name).filter(|kind| kind.versions().contains(&version))
    }
}

/// Splits `apiVersion` into group (empty for the core group) and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.kind_name())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_row() {
        for row in KINDS {
            assert_eq!(row.kind.row().kind, row.kind);
            for version in row.versions {
                let api = if row.group.is_empty() { (*version).to_owned() } else { format!("{}/{version}", row.group) };
                assert_eq!(Kind::from_api(&api, row.name), Some(row.kind));
            }
        }
    }

    #[test]
    fn served_plurals_are_unique() {
        for kind in Kind::all_served() {
            assert_eq!(Kind::from_plural(kind.plural()), Some(kind));
        }
    }
}
