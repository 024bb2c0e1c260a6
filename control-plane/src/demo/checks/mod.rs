//! What the demo proves, each check by requests that real proxies carried.

mod answers;
mod gateway;
mod live;
mod resilience;
mod routing;
mod security;

use std::{future::Future, pin::Pin, time::Duration};

use serde::Serialize;

use super::mesh::Mesh;

type Proof<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>;

/// One claim and how it is proved. The proof's text says what was measured.
pub(crate) struct Check {
    /// What is claimed.
    pub name: &'static str,
    prove: for<'a> fn(&'a Mesh) -> Proof<'a>,
}

/// How a check ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// What was claimed.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// What was measured, or why it does not hold.
    pub detail: String,
    /// Seconds it took.
    pub seconds: f64,
}

macro_rules! check {
    ($name:literal, $prove:path) => {
        Check { name: $name, prove: |mesh| Box::pin($prove(mesh)) }
    };
}

/// Every check, in the order in which they run. Later ones may wait for what time brings
/// (rotation), so they come last.
pub(crate) const CHECKS: [Check; 19] = [
    check!("canary: 90/10 between reviews v1 and v2", routing::canary),
    check!("header: end-user jason gets reviews v2 only", routing::header),
    check!("URI match and rewrite: the callee sees the new path", routing::rewrite),
    check!("fault: delay before forwarding", routing::delay),
    check!("fault: abort that reaches no endpoint", routing::abort),
    check!("mirror: v3 receives a copy, clients see v1 only", routing::mirror),
    check!("timeout: 504 after the configured time", resilience::timeout),
    check!("retry: the callee sees every attempt", resilience::retry),
    check!("outlier detection: a failing endpoint is left alone", resilience::ejection),
    check!("identity: the callee sees the caller's SPIFFE id", security::identity),
    check!("STRICT refuses plaintext", security::strict),
    check!("PERMISSIVE takes both", security::permissive),
    check!("ALLOW by principal and method (403 otherwise)", security::allow),
    check!("DENY by path (403)", security::deny),
    check!("gateway: by host over HTTP", gateway::http),
    check!("gateway: by host over HTTPS", gateway::https),
    check!("a live edit changes traffic without a failed request", live::edit),
    check!("certificates rotate under load without a failed request", live::rotation),
    check!("every resource is ACKed, nothing NACKed", live::synced),
];

/// Longest that one check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(120);

impl Check {
    /// Runs the proof.
    pub(crate) async fn run(&self, mesh: &Mesh) -> Outcome {
        let begin = std::time::Instant::now();
        let result = match tokio::time::timeout(CHECK_LIMIT, (self.prove)(mesh)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("not done after {CHECK_LIMIT:?}")),
        };
        let (holds, detail) = match result {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        Outcome { name: self.name, holds, detail, seconds: begin.elapsed().as_secs_f64() }
    }
}
