//! Linkerd's kinds, and what its annotations say on objects of Kubernetes. Their definitions for API
//! servers are Linkerd's own.

mod annotations;
pub mod authentication;
pub mod authorization;
mod budget;
mod closed;
mod condition;
pub mod egress;
pub mod http_route;
mod identity;
pub mod profile;
mod profile_words;
pub mod rate_limit;
mod reference;
mod route;
mod selector;
pub mod server;
#[cfg(test)]
mod tests;

use self::{
    authentication::{MeshTlsAuthentication, NetworkAuthentication},
    authorization::{PortAuthorization, ServerAuthorization},
    egress::EgressNetwork,
    http_route::PortRoute,
    profile::ServiceProfile,
    rate_limit::LocalRateLimit,
    server::PortServer,
};
use super::kind::{Declared, Served, Serving, kinds};

pub(super) use annotations::annotate;

kinds! {
    300;
    /// ServiceProfile: routes of a service, with what fails and what is tried again.
    SERVICE_PROFILE: "linkerd.io" ["v1alpha2", "v1alpha1"] "ServiceProfile" "serviceprofiles" "service-profile" Namespaced => Serving::Served(Served::read(profile::read, Declared::spec::<ServiceProfile>()));
    /// Server: a port of some pods.
    LINKERD_SERVER: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"] "Server" "servers" "linkerd-server" Namespaced => Serving::Served(Served::spec::<PortServer>().guarding(closed::server));
    /// HTTPRoute: routes of a Service.
    LINKERD_HTTP_ROUTE: "policy.linkerd.io" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"] "HTTPRoute" "httproutes" "linkerd-http-route" Namespaced => Serving::Served(Served::spec::<PortRoute>().guarding(closed::route));
    /// AuthorizationPolicy: who may call Servers.
    LINKERD_AUTHORIZATION_POLICY: "policy.linkerd.io" ["v1alpha1"] "AuthorizationPolicy" "authorizationpolicies" "linkerd-authorization-policy" Namespaced => Serving::Served(Served::spec::<PortAuthorization>());
    /// MeshTLSAuthentication: callers by identity.
    MESH_TLS_AUTHENTICATION: "policy.linkerd.io" ["v1alpha1"] "MeshTLSAuthentication" "meshtlsauthentications" "mesh-tls-authentication" Namespaced => Serving::Served(Served::spec::<MeshTlsAuthentication>());
    /// NetworkAuthentication: callers by address.
    NETWORK_AUTHENTICATION: "policy.linkerd.io" ["v1alpha1"] "NetworkAuthentication" "networkauthentications" "network-authentication" Namespaced => Serving::Served(Served::spec::<NetworkAuthentication>());
    /// ServerAuthorization: who may call Servers, the older form.
    SERVER_AUTHORIZATION: "policy.linkerd.io" ["v1beta1", "v1alpha1"] "ServerAuthorization" "serverauthorizations" "server-authorization" Namespaced => Serving::Served(Served::spec::<ServerAuthorization>());
    /// HTTPLocalRateLimitPolicy: how many requests a Server takes.
    HTTP_LOCAL_RATE_LIMIT_POLICY: "policy.linkerd.io" ["v1alpha1"] "HTTPLocalRateLimitPolicy" "httplocalratelimitpolicies" "http-local-rate-limit-policy" Namespaced => Serving::Served(Served::spec::<LocalRateLimit>());
    /// EgressNetwork: whether traffic leaves the cluster.
    EGRESS_NETWORK: "policy.linkerd.io" ["v1alpha1"] "EgressNetwork" "egressnetworks" "egress-network" Namespaced => Serving::Served(Served::spec::<EgressNetwork>().guarding(closed::egress));
}
