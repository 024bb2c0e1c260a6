//! What outlives a configuration on the upstream side: endpoints with their counters, ejections and
//! pools.
//!
//! A compiled cluster is bound to its state ([`LiveCluster`]); a push that does not change how a
//! cluster is reached gets the same state back, so pools, outlier counters and circuit breakers
//! survive it. Knows the compiled cluster's limits and policies, nothing of xDS.

pub mod balancer;
pub mod cluster_state;
pub mod connect;
pub mod dns;
pub mod live;
pub mod outlier;
pub mod own;
pub(crate) mod pool;
pub mod zones;

pub use cluster_state::{ClusterState, EndpointState, LiveEndpoint, StateRegistry};
pub use live::LiveCluster;
