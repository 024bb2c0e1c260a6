//! The proxy's side of xDS: one delta ADS stream, what was accepted from it, and the configuration
//! that results.
//!
//! [`Session`] is the protocol without IO, [`Accepted`] holds compiled resources and knows which
//! may serve already, [`client`] drives both over gRPC. Only `compile` looks into messages.

pub mod accepted;
pub mod client;
pub mod session;

pub use self::{
    accepted::Accepted,
    client::{Client, ControlPlane, Progress},
    session::{Changed, Reply, Session, Update},
};
