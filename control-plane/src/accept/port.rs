//! One port: what its connections may cost, what is spoken on them, and where it counts.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::not_served::NotServed;
use crate::metrics::Metrics;

/// What a connection may cost, and how long each part of it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a TLS handshake to its last, without the time that it waits for its
    /// turn.
    pub handshake: Duration,
    /// From there to the head of the first request, and of HTTP/1 to that of every further one.
    pub head: Duration,
    /// How long nothing may be asked.
    pub quiet: Duration,
    /// From the head of a request to that of its answer.
    pub answer: Duration,
}

/// What is spoken on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

/// What the connections of a port have in common.
pub struct Port {
    /// As metrics call it.
    pub name: &'static str,
    /// What a connection may cost.
    pub limits: Limits,
    /// What is spoken on it.
    pub spoken: Spoken,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl Port {
    /// Counts somebody who was not served.
    pub(super) fn refuse(&self, why: NotServed) {
        self.metrics.turned_away(self.name, why.label());
    }
}
