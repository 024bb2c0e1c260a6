//! Changes while traffic flows: nobody may notice but for the change itself.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use super::answers::{count, listed, only, version_or_status};
use crate::demo::{
    client::Caller,
    files,
    layout::{PRODUCTPAGE, WORKLOADS},
    mesh::Mesh,
};

/// Constant load from a few callers; every answer is counted by version or fault.
struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<BTreeMap<String, usize>>,
}

impl Load {
    fn start(caller: &Caller, targets: &[(&'static str, &'static str)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for (host, path) in targets.iter().copied().cycle().take(6) {
            let (caller, stop) = (caller.clone(), stop.clone());
            callers.spawn(async move {
                let mut counts = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    let label = match caller.get(host, path, &[]).await {
                        Ok(answer) => version_or_status(&answer),
                        Err(error) => format!("failed: {error:#}"),
                    };
                    *counts.entry(label).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                counts
            });
        }
        Self { stop, callers }
    }

    async fn finish(self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = BTreeMap::new();
        for counts in self.callers.join_all().await {
            for (label, n) in counts {
                *total.entry(label).or_default() += n;
            }
        }
        total
    }
}

fn without_failures(counts: &BTreeMap<String, usize>) -> anyhow::Result<usize> {
    ensure!(
        counts.keys().all(|label| label.starts_with('v')),
        "failed requests: {}",
        listed(counts)
    );
    let requests: usize = counts.values().sum();
    ensure!(requests >= 100, "only {requests} requests were sent");
    Ok(requests)
}

pub(super) async fn edit(mesh: &Mesh) -> anyhow::Result<String> {
    let (caller, dir) = (mesh.caller(PRODUCTPAGE), mesh.config_dir());
    let before =
        fs::read_to_string(dir.join(files::REVIEWS)).context("reading the routing file")?;
    let after = before
        .replace("subset: v1}\n      weight: 90", "subset: v3}\n      weight: 90")
        .replace("subset: v2}\n      weight: 10", "subset: v3}\n      weight: 10");
    ensure!(after != before, "the routing file is not as the demo wrote it");
    let load = Load::start(&caller, &[("reviews:9080", "/edit")]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    files::replace(&dir, files::REVIEWS, &after)?;
    let begin = Instant::now();
    let arrived = until_only_v3(&caller).await;
    let took = begin.elapsed();
    let counts = load.finish().await;
    files::replace(&dir, files::REVIEWS, &before)?;
    arrived?;
    let requests = without_failures(&counts)?;
    Ok(format!(
        "all traffic on v3 {took:.0?} after the file was saved; 0 of {requests} requests failed"
    ))
}

async fn until_only_v3(caller: &Caller) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let counts = count(caller, "reviews:9080", "/edited", &[], 50, version_or_status).await?;
        match only(&counts, "v3", 50) {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > Duration::from_secs(15) => {
                return Err(error.context("15 s after the edit"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(super) async fn rotation(mesh: &Mesh) -> anyhow::Result<String> {
    let load = Load::start(
        &mesh.caller(PRODUCTPAGE),
        &[
            ("reviews:9080", "/rotation"),
            ("details:9080", "/rotation"),
            ("ratings:9080", "/rotation"),
        ],
    );
    let rotated = until_all_rotated(mesh).await;
    let counts = load.finish().await;
    let certificates = rotated?;
    let requests = without_failures(&counts)?;
    Ok(format!("{certificates} workloads got new certificates; 0 of {requests} requests failed"))
}

async fn until_all_rotated(mesh: &Mesh) -> anyhow::Result<usize> {
    let (begin, before) = (Instant::now(), serials(mesh).await?);
    loop {
        let now = serials(mesh).await?;
        let rotated = now.iter().filter(|(id, n)| before.get(*id).is_some_and(|b| *n > b)).count();
        if rotated == before.len() && !before.is_empty() {
            return Ok(rotated);
        }
        if begin.elapsed() > Duration::from_secs(60) {
            bail!("{rotated} of {} identities got a new certificate within 60 s", before.len());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Number of certificates issued so far, by SPIFFE id; the control plane's own lives longer and is
/// left out.
async fn serials(mesh: &Mesh) -> anyhow::Result<BTreeMap<String, usize>> {
    let answer = mesh.control_plane.rest(Method::GET, "/api/v1/certificates", None).await?;
    let mut issued = BTreeMap::new();
    for certificate in answer["items"].as_array().context("the certificate list has no items")? {
        let workload = |id: &&str| {
            WORKLOADS.iter().any(|w| id.ends_with(&format!("/ns/{}/sa/{}", w.namespace, w.account)))
        };
        if let Some(id) = certificate["spiffeId"].as_str().filter(workload) {
            *issued.entry(id.to_owned()).or_default() += 1;
        }
    }
    Ok(issued)
}

pub(super) async fn synced(mesh: &Mesh) -> anyhow::Result<String> {
    let begin = Instant::now();
    loop {
        let answer = mesh.control_plane.rest(Method::GET, "/api/v1/proxies", None).await?;
        let proxies = answer["items"].as_array().context("the proxy list has no items")?;
        let unsynced: Vec<String> = proxies.iter().flat_map(unsynced).collect();
        if unsynced.is_empty() && proxies.len() == WORKLOADS.len() {
            return Ok(format!("{} proxies, all types SYNCED", proxies.len()));
        }
        if begin.elapsed() > Duration::from_secs(20) {
            bail!(
                "{} of {} proxies are connected; {}",
                proxies.len(),
                WORKLOADS.len(),
                unsynced.join("; ")
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn unsynced(proxy: &Value) -> Vec<String> {
    let id = proxy["id"].as_str().unwrap_or("?");
    let Some(types) = proxy["sync"].as_object() else {
        return vec![format!("{id}: no sync state")];
    };
    let bad = types
        .iter()
        .filter(|(_, state)| !matches!(state["state"].as_str(), Some("SYNCED" | "NOT SENT")));
    bad.map(|(kind, state)| format!("{id}: {kind} {state}")).collect()
}
