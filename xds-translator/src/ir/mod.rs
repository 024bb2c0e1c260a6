//! The dialect-neutral intermediate representation.
//!
//! Every configuration dialect is lowered to these types; everything behind them (snapshot, plan,
//! emit) speaks the field's words and never names a CRD. Each item carries its [`Origin`], so that
//! a later stage can say where a decision came from. Values are plain data: no locks, no clocks, no
//! secrets.

pub mod access;
pub mod attachment;
pub mod authorizer;
pub mod backend;
pub mod connection;
pub mod gateway;
pub mod group;
pub mod host;
pub mod kind;
pub mod matches;
pub mod mesh;
pub mod origin;
pub mod patch;
pub mod peer_tls;
pub mod policy;
pub mod proxy;
pub mod rate_limit;
pub mod retry;
pub mod route;
pub mod route_name;
pub mod scope;
pub mod selector;
pub mod service;
pub mod telemetry;
pub mod token;
pub mod topology;
pub mod workload;
pub mod workload_port;

pub use access::*;
pub use attachment::Attachment;
pub use authorizer::*;
pub use backend::*;
pub use connection::{Connection, Presence};
pub use gateway::*;
pub use group::{Member, WorkloadGroup};
pub use host::Hostname;
pub use kind::{Kind, KindNames, Scope};
pub use matches::*;
pub use mesh::*;
pub use origin::{Field, ObjectId, Origin};
pub use patch::*;
pub use peer_tls::*;
pub use policy::{PolicyScope, PolicyTarget};
pub use proxy::{ProxyPolicy, ProxyStart, RESERVED_PORTS, StatisticNames};
pub use rate_limit::*;
pub use retry::*;
pub use route::*;
pub use route_name::GatewayRoutes;
pub use scope::*;
pub use selector::{LabelCondition, LabelExpression, Labels, Selector};
pub use service::*;
pub use telemetry::*;
pub use token::{KeySet, KeySource, NoKeySet, TokenCheck, TokenKeys, TokenPolicy, TokenRule};
pub use topology::Topology;
pub use workload::*;
pub use workload_port::*;
