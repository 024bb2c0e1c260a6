//! What happens when callees are slow or fail.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::answers::{CLOCK, count, listed, only, status};
use crate::demo::{client::Answer, layout::PRODUCTPAGE, mesh::Mesh};

pub(super) async fn timeout(mesh: &Mesh) -> anyhow::Result<String> {
    let begin = Instant::now();
    let answer = mesh.caller(PRODUCTPAGE).get("ratings:9080", "/slow/1", &[]).await?;
    let took = begin.elapsed();
    status(&answer, 504)?;
    ensure!(
        took >= Duration::from_millis(500) - CLOCK,
        "504 after {took:?}, expected at least 500 ms"
    );
    ensure!(took < Duration::from_millis(2500), "504 after {took:?}, expected about 500 ms");
    let arrived = mesh.seen("ratings-v1-0").arrivals("/slow/1").len();
    ensure!(arrived == 1, "the callee saw {arrived} requests, expected 1");
    Ok(format!("504 after {took:.0?} (configured: 500 ms); the callee saw 1 request"))
}

pub(super) async fn retry(mesh: &Mesh) -> anyhow::Result<String> {
    let answer = mesh.caller(PRODUCTPAGE).get("ratings:9080", "/flaky/1", &[]).await?;
    status(&answer, 200)?;
    let attempts = mesh.seen("ratings-v1-0").arrivals("/flaky/1");
    ensure!(attempts.len() == 3, "the callee saw {} attempts, expected 3", attempts.len());
    let ids: Vec<_> = attempts.iter().map(|a| a.headers.get("x-request-id")).collect();
    ensure!(
        ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
        "the attempts carry different request ids"
    );
    Ok("503, 503, 200 at the callee; 200 at the caller; one request id".to_owned())
}

pub(super) async fn ejection(mesh: &Mesh) -> anyhow::Result<String> {
    let caller = mesh.caller(PRODUCTPAGE);
    let breaking = [("x-break", "details-v1-1")];
    let label = |answer: &Answer| answer.status.as_u16().to_string();
    let counts = count(&caller, "details:9080", "/ejection/before", &breaking, 60, label).await?;
    let failures = counts.get("500").copied().unwrap_or_default();
    ensure!(failures >= 3, "the failing endpoint was hardly used: {}", listed(&counts));
    let counts = count(&caller, "details:9080", "/ejection/after", &breaking, 100, label).await?;
    let reached = mesh.seen("details-v1-1").arrivals("/ejection/after").len();
    ensure!(reached == 0, "the ejected endpoint got {reached} of 100 requests");
    only(&counts, "200", 100)?;
    Ok(format!(
        "ejected after {failures} failures (configured: 3 in a row); then 0 of 100 requests"
    ))
}
