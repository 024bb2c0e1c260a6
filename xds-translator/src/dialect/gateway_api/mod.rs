//! Gateway API. None is served yet.

use super::kind::{Serving, guards_access, guards_nothing, kinds};

kinds! {
    200;
    /// Gateway API's GatewayClass.
    GATEWAY_CLASS: "gateway.networking.k8s.io" ["v1", "v1beta1"] "GatewayClass" "gatewayclasses" "gateway-class" Cluster => Serving::Planned(guards_nothing);
    /// Gateway API's Gateway.
    KUBERNETES_GATEWAY: "gateway.networking.k8s.io" ["v1", "v1beta1"] "Gateway" "gateways" "kubernetes-gateway" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's HTTPRoute.
    HTTP_ROUTE: "gateway.networking.k8s.io" ["v1", "v1beta1"] "HTTPRoute" "httproutes" "http-route" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's GRPCRoute.
    GRPC_ROUTE: "gateway.networking.k8s.io" ["v1"] "GRPCRoute" "grpcroutes" "grpc-route" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's TLSRoute.
    TLS_ROUTE: "gateway.networking.k8s.io" ["v1", "v1alpha3", "v1alpha2"] "TLSRoute" "tlsroutes" "tls-route" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's TCPRoute.
    TCP_ROUTE: "gateway.networking.k8s.io" ["v1alpha2"] "TCPRoute" "tcproutes" "tcp-route" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's ReferenceGrant.
    REFERENCE_GRANT: "gateway.networking.k8s.io" ["v1", "v1beta1"] "ReferenceGrant" "referencegrants" "reference-grant" Namespaced => Serving::Planned(guards_nothing);
    /// Gateway API's BackendTLSPolicy.
    BACKEND_TLS_POLICY: "gateway.networking.k8s.io" ["v1", "v1alpha3"] "BackendTLSPolicy" "backendtlspolicies" "backend-tls-policy" Namespaced => Serving::Planned(guards_access);
}
