//! What the demo proves, each check by requests that real proxies carried.

mod gateway;
mod live;
mod resilience;
mod routing;
mod security;

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use anyhow::bail;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    client::{Answer, Caller},
    mesh::Mesh,
};

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

/// Every check, in the order in which they run. Later ones may wait for what time brings (rotation), so they come last.
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

/// How much earlier than asked a timer may fire: event loops count from the start of their round, which is long on a busy
/// machine.
const CLOCK: Duration = Duration::from_millis(50);

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

/// Sends `count` equal GETs, a few at a time, and counts the answers by `label`.
async fn count(
    caller: &Caller,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    count: usize,
    label: impl Fn(&Answer) -> String,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut answers = stream::iter((0..count).map(|_| caller.get(host, path, headers))).buffer_unordered(16);
    let mut counts = BTreeMap::new();
    while let Some(answer) = answers.next().await {
        *counts.entry(label(&answer?)).or_default() += 1;
    }
    Ok(counts)
}

/// Label of a good answer: the version; of a bad one: its status.
fn version_or_status(answer: &Answer) -> String {
    if answer.status.is_success() { answer.version().to_owned() } else { answer.status.as_u16().to_string() }
}

fn listed(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(label, n)| format!("{n} × {label}")).collect();
    parts.join(", ")
}

/// All answers carry `label`, and there are `expected` of them.
fn only(counts: &BTreeMap<String, usize>, label: &str, expected: usize) -> anyhow::Result<()> {
    if counts.len() == 1 && counts.get(label) == Some(&expected) {
        return Ok(());
    }
    bail!("expected {expected} × {label}, got {}", listed(counts))
}

/// An answer's status is `expected`.
fn status(answer: &Answer, expected: u16) -> anyhow::Result<()> {
    if answer.status.as_u16() == expected {
        return Ok(());
    }
    bail!("expected status {expected}, got {} ({})", answer.status, answer.body)
}
