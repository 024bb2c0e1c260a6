//! Who may talk to whom, and how they know each other.

use anyhow::{bail, ensure};
use http::Method;

use super::answers::status;
use crate::demo::{
    layout::{PRODUCTPAGE, SLEEP, WORKLOADS, Workload},
    mesh::Mesh,
    sample::peer_identity,
};

const DETAILS: Workload = WORKLOADS[1];
const RATINGS: Workload = WORKLOADS[6];

pub(super) async fn identity(mesh: &Mesh) -> anyhow::Result<String> {
    let answer = mesh.caller(PRODUCTPAGE).get("ratings:9080", "/identity", &[]).await?;
    status(&answer, 200)?;
    let arrivals = mesh.seen("ratings-v1-0").arrivals("/identity");
    let seen = arrivals.last().and_then(|a| peer_identity(&a.headers)).unwrap_or_default();
    ensure!(
        seen == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
        "the callee saw {seen:?}"
    );
    Ok(format!("ratings saw {seen}"))
}

pub(super) async fn strict(mesh: &Mesh) -> anyhow::Result<String> {
    if let Ok(answer) = mesh.plaintext(RATINGS).get("ratings:9080", "/strict", &[]).await {
        bail!("plaintext got an answer: {}", answer.status);
    }
    let answer = mesh.caller(PRODUCTPAGE).get("ratings:9080", "/strict/mtls", &[]).await?;
    status(&answer, 200)?;
    ensure!(
        mesh.seen("ratings-v1-0").arrivals("/strict").len() == 1,
        "the plaintext request reached the application"
    );
    Ok("plaintext: closed without an answer; mutual TLS: 200".to_owned())
}

pub(super) async fn permissive(mesh: &Mesh) -> anyhow::Result<String> {
    let plain = mesh.plaintext(DETAILS).get("details:9080", "/permissive/plain", &[]).await?;
    status(&plain, 200)?;
    let arrival = mesh.seen("details-v1-0").arrivals("/permissive/plain");
    ensure!(
        arrival.last().is_some_and(|a| peer_identity(&a.headers).is_none()),
        "a plaintext caller has an identity"
    );
    status(&mesh.caller(PRODUCTPAGE).get("details:9080", "/permissive/mtls", &[]).await?, 200)?;
    let mutual = ["details-v1-0", "details-v1-1"]
        .iter()
        .flat_map(|w| mesh.seen(w).arrivals("/permissive/mtls"))
        .next_back();
    ensure!(
        mutual.is_some_and(|a| peer_identity(&a.headers).is_some()),
        "the mesh's own caller has no identity"
    );
    Ok("plaintext: 200 without identity; mutual TLS: 200 with identity".to_owned())
}

pub(super) async fn allow(mesh: &Mesh) -> anyhow::Result<String> {
    let known = mesh.caller(PRODUCTPAGE);
    status(&known.get("ratings:9080", "/allow/get", &[]).await?, 200)?;
    status(&known.send(Method::POST, "ratings:9080", "/allow/post", &[]).await?, 403)?;
    status(&mesh.caller(SLEEP).get("ratings:9080", "/allow/stranger", &[]).await?, 403)?;
    let arrived = mesh.seen("ratings-v1-0").arrivals("/allow/");
    ensure!(arrived.len() == 1, "{} requests reached the application, expected 1", arrived.len());
    Ok("GET from productpage: 200; POST: 403; GET from sleep: 403".to_owned())
}

pub(super) async fn deny(mesh: &Mesh) -> anyhow::Result<String> {
    let caller = mesh.caller(PRODUCTPAGE);
    status(&caller.get("details:9080", "/admin/users", &[]).await?, 403)?;
    status(&caller.get("details:9080", "/users", &[]).await?, 200)?;
    let arrived: usize = ["details-v1-0", "details-v1-1"]
        .iter()
        .map(|w| mesh.seen(w).arrivals("/admin").len())
        .sum();
    ensure!(arrived == 0, "a denied request reached the application");
    Ok("/admin/users: 403; /users: 200".to_owned())
}
