//! How every port of the control plane takes in connections, and what each may cost.
//!
//! ```text
//! accept ─▶ a seat (seats: most connections, whose is given up) ─▶ first byte ─▶ TLS (turns: the costly part, by network)
//!        ─▶ first request ─▶ requests (requests: bodies on a budget, turns by network) ─▶ quiet too long: closed
//! ```
//!
//! Whoever waits costs a socket and nothing else: a turn is held only while the server itself
//! computes, so that nobody holds one by being slow. Nothing is refused for the number of
//! connections of one address (behind one address may be a whole mesh); a network that floods waits
//! behind itself and gives up its own seats first. Every refusal is counted.

mod acceptor;
pub mod budget;
mod network;
mod not_served;
mod port;
pub mod requests;
pub mod seats;
#[cfg(test)]
mod tests;
mod tls;
pub mod turns;
mod visit;
mod wire;

pub use self::{
    acceptor::Acceptor,
    network::ClientNetwork,
    not_served::NotServed,
    port::{Limits, Port, Spoken},
    seats::Occupied,
    tls::TlsAcceptor,
    visit::Visit,
};
