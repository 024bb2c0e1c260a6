//! Linkerd's kinds. None is served yet.

use super::kind::{Serving, guards_access, guards_nothing, kinds};

kinds! {
    300;
    /// Linkerd's ServiceProfile.
    SERVICE_PROFILE: "linkerd.io" ["v1alpha2", "v1alpha1"] "ServiceProfile" "serviceprofiles" "service-profile" Namespaced => Serving::Planned(guards_nothing);
    /// Linkerd's Server.
    LINKERD_SERVER: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1"] "Server" "servers" "linkerd-server" Namespaced => Serving::Planned(guards_access);
    /// Linkerd's HTTPRoute.
    LINKERD_HTTP_ROUTE: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"] "HTTPRoute" "httproutes" "linkerd-http-route" Namespaced => Serving::Planned(guards_nothing);
    /// Linkerd's AuthorizationPolicy.
    LINKERD_AUTHORIZATION_POLICY: "policy.linkerd.io" ["v1alpha1"] "AuthorizationPolicy" "authorizationpolicies" "linkerd-authorization-policy" Namespaced => Serving::Planned(guards_access);
    /// Linkerd's MeshTLSAuthentication.
    MESH_TLS_AUTHENTICATION: "policy.linkerd.io" ["v1alpha1"] "MeshTLSAuthentication" "meshtlsauthentications" "mesh-tls-authentication" Namespaced => Serving::Planned(guards_access);
    /// Linkerd's NetworkAuthentication.
    NETWORK_AUTHENTICATION: "policy.linkerd.io" ["v1alpha1"] "NetworkAuthentication" "networkauthentications" "network-authentication" Namespaced => Serving::Planned(guards_access);
}
