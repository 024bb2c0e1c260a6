//! What Istio's objects mean.

mod access;
mod authorizer;
mod backend;
mod extension;
mod gateway;
pub(crate) mod mesh;
mod patches;
mod peer_tls;
mod provider;
pub(crate) mod proxy;
mod retry;
mod route_fields;
mod routes;
mod routes_l4;
mod scope;
mod service_entry;
mod telemetry;
mod token;
mod workload_entry;
mod workload_group;
