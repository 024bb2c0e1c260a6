//! How many requests workloads take.

use std::time::Duration;

use serde::Serialize;

use super::{Origin, PolicyScope, PolicyTarget, Selector};

/// The limit that one object gives. Every proxy counts for itself, and answers 429 to what is too
/// much; of several limits all hold. Connections of other protocols than HTTP are not limited.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RateLimit {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are.
    pub scope: PolicyScope,
    /// Which workloads of its scope; empty: all.
    pub selector: Selector,
    /// At which port of theirs.
    pub target: PolicyTarget,
    /// How many requests, from all clients together.
    pub rate: Rate,
}

/// Requests over time: a bucket of this many, which is full again after the window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    /// At least 50 ms, which proxies count in.
    pub window: Duration,
}
