//! The dialect-neutral intermediate representation.
//!
//! Every configuration dialect is lowered to these types; everything behind them (snapshot, plan, emit) speaks the
//! field's words and never names a CRD. Each item carries its [`Origin`], so that a later stage can say where a
//! decision came from. Values are plain data: no locks, no clocks, no secrets.

pub mod access;
pub mod backend;
pub mod gateway;
pub mod host;
pub mod mesh;
pub mod origin;
pub mod peer_tls;
pub mod route;
pub mod scope;
pub mod selector;
pub mod service;
pub mod workload;

pub use access::*;
pub use backend::*;
pub use gateway::*;
pub use host::Hostname;
pub use mesh::*;
pub use origin::{ObjectId, Origin};
pub use peer_tls::*;
pub use route::*;
pub use scope::*;
pub use selector::{Labels, Selector};
pub use service::*;
pub use workload::*;
