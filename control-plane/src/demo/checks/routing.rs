//! Where requests go, and what is done to them on the way.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::answers::{CLOCK, count, listed, only, status, version_or_status};
use crate::demo::{layout::PRODUCTPAGE, mesh::Mesh};

pub(super) async fn canary(mesh: &Mesh) -> anyhow::Result<String> {
    let requests = 4000;
    let counts = count(
        &mesh.caller(PRODUCTPAGE),
        "reviews:9080",
        "/canary",
        &[],
        requests,
        version_or_status,
    )
    .await?;
    let v2 = counts.get("v2").copied().unwrap_or_default();
    let share = 100.0 * v2 as f64 / requests as f64;
    ensure!(
        (7.0..=13.0).contains(&share),
        "v2 got {share:.1} %, expected 10 ± 3: {}",
        listed(&counts)
    );
    ensure!(
        counts.get("v1").copied().unwrap_or_default() + v2 == requests,
        "others answered: {}",
        listed(&counts)
    );
    Ok(format!("v2 got {share:.1} % of {requests} requests"))
}

pub(super) async fn header(mesh: &Mesh) -> anyhow::Result<String> {
    let caller = mesh.caller(PRODUCTPAGE);
    let jason =
        count(&caller, "reviews:9080", "/header", &[("end-user", "jason")], 200, version_or_status)
            .await?;
    only(&jason, "v2", 200)?;
    let other =
        count(&caller, "reviews:9080", "/header", &[("end-user", "Jason")], 200, version_or_status)
            .await?;
    ensure!(
        other.get("v1").is_some_and(|n| *n > 150),
        "end-user Jason must be routed like anyone: {}",
        listed(&other)
    );
    Ok("200 of 200 requests; Jason with a capital letter is routed like anyone".to_owned())
}

pub(super) async fn rewrite(mesh: &Mesh) -> anyhow::Result<String> {
    let answer =
        mesh.caller(PRODUCTPAGE).get("details:9080", "/api/v1/rewritten?page=2", &[]).await?;
    status(&answer, 200)?;
    let path = answer.body["path"].as_str().unwrap_or_default();
    ensure!(path == "/rewritten?page=2", "the callee saw {path:?}, expected \"/rewritten?page=2\"");
    Ok("/api/v1/rewritten?page=2 arrived as /rewritten?page=2".to_owned())
}

pub(super) async fn delay(mesh: &Mesh) -> anyhow::Result<String> {
    let begin = Instant::now();
    let answer =
        mesh.caller(PRODUCTPAGE).get("reviews:9080", "/delayed", &[("x-fault", "delay")]).await?;
    let took = begin.elapsed();
    status(&answer, 200)?;
    ensure!(
        took >= Duration::from_millis(400) - CLOCK,
        "answered after {took:?}, expected at least 400 ms"
    );
    ensure!(took < Duration::from_secs(5), "answered after {took:?}");
    Ok(format!("answered after {took:.0?} (configured: 400 ms)"))
}

pub(super) async fn abort(mesh: &Mesh) -> anyhow::Result<String> {
    let answer =
        mesh.caller(PRODUCTPAGE).get("reviews:9080", "/aborted", &[("x-fault", "abort")]).await?;
    status(&answer, 418)?;
    let arrived: usize = ["reviews-v1-0", "reviews-v2-0", "reviews-v3-0"]
        .iter()
        .map(|w| mesh.seen(w).arrivals("/aborted").len())
        .sum();
    ensure!(arrived == 0, "{arrived} aborted requests reached an endpoint");
    Ok("418 from the caller's sidecar, no endpoint saw it".to_owned())
}

pub(super) async fn mirror(mesh: &Mesh) -> anyhow::Result<String> {
    let requests = 100;
    let counts = count(
        &mesh.caller(PRODUCTPAGE),
        "reviews:9080",
        "/mirrored",
        &[],
        requests,
        version_or_status,
    )
    .await?;
    only(&counts, "v1", requests)?;
    // A copy is sent without waiting for it, so the last ones may still be on their way.
    let begin = Instant::now();
    while mesh.seen("reviews-v3-0").arrivals("/mirrored").len() < requests {
        if begin.elapsed() > Duration::from_secs(5) {
            bail!(
                "v3 received {} of {requests} copies",
                mesh.seen("reviews-v3-0").arrivals("/mirrored").len()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(format!("v3 received {requests} of {requests} copies"))
}
