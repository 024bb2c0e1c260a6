//! Memory comes back: whole meshes connect, see changes and leave, and a minute later the control
//! plane is as small as it was. `integration/soak.sh memory` does it for long.

use std::{
    fs,
    time::{Duration, Instant},
};

use ferromesh_integration::{paths, plane::ControlPlane, process::Process};
use ferromesh_proto::ResourceType;
use futures_util::future::join_all;

use crate::{
    plane::{service, service_cluster},
    watcher::{Watcher, connect},
};

/// Everything that was made for those who left is gone within this time, and the allocator has
/// given it back.
const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);
/// Proxies that come at the same time.
const AT_ONCE: usize = 50;
/// Fewer are too small beside the program itself to tell whether memory comes back.
const LARGE: usize = 500;

/// Resident memory in MB.
fn memory(process: &Process) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024.0 / 1e6
}

/// Services in ten namespaces.
fn services(number: usize) -> String {
    let one = |i: usize| {
        service(&format!("s{i}"))
            .replace("metadata: {", &format!("metadata: {{namespace: ns{}, ", i % 10))
    };
    (0..number).map(one).collect::<Vec<_>>().join("---\n")
}

/// A proxy on a connection of its own, which has everything that a sidecar asks for.
async fn sidecar(host: &str, number: usize, services: usize) -> Watcher {
    let (high, low, namespace) = (number / 250, number % 250 + 1, number % 10);
    let id = format!(
        "sidecar~10.81.{high}.{low}~p{number}.ns{namespace}~ns{namespace}.svc.cluster.local"
    );
    let mut watcher = Watcher::open_as(connect(host).await, id).await.expect("a stream");
    watcher.until(PATIENCE, "every service", |clusters| clusters.len() >= services).await;
    let endpoints =
        watcher.clusters.iter().filter(|name| name.starts_with("outbound|")).cloned().collect();
    watcher.fetch(ResourceType::Endpoint, endpoints, PATIENCE).await;
    watcher.fetch(ResourceType::Listener, vec!["*".to_owned()], PATIENCE).await;
    watcher.fetch(ResourceType::Route, vec!["80".to_owned()], PATIENCE).await;
    watcher
}

/// All connect, get everything, see a change, and leave; the resident memory before they leave.
async fn visit(
    plane: &ControlPlane,
    process: &Process,
    proxies: usize,
    services: usize,
    round: usize,
) -> f64 {
    let numbers: Vec<usize> = (0..proxies).collect();
    let mut watchers = Vec::with_capacity(proxies);
    for numbers in numbers.chunks(AT_ONCE) {
        watchers.extend(
            join_all(numbers.iter().map(|number| sidecar(&plane.host, *number, services))).await,
        );
    }
    let changed = format!("changed{round}");
    plane.write("changed.yaml", service(&changed));
    let cluster = service_cluster(&changed);
    for watcher in &mut watchers {
        watcher.until_has(&cluster, PATIENCE).await;
    }
    memory(process)
}

/// Waits until no view is kept for anybody.
async fn until_nobody_is_served(plane: &ControlPlane) {
    let begin = Instant::now();
    let views =
        || plane.metrics().lines().find_map(|line| line.strip_prefix("mesh_views ")?.parse().ok());
    loop {
        let views: Option<u64> = views();
        if views == Some(0) {
            return;
        }
        assert!(begin.elapsed() < MINUTE, "{views:?} views are kept for proxies that have left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[allow(clippy::print_stdout, reason = "the figures are a result, too")]
#[tokio::test]
async fn a_minute_after_all_have_left_memory_is_what_it_was() {
    let (number, proxies, rounds) = paths::memory_settings();
    let plane = ControlPlane::new("127.80.13.1");
    plane.write("services.yaml", services(number));
    let process = plane.start();
    let start = memory(&process);
    let mut after_first = None;
    for round in 1..=rounds {
        let full = visit(&plane, &process, proxies, number, round).await;
        let begin = Instant::now();
        until_nobody_is_served(&plane).await;
        if proxies < LARGE {
            continue;
        }
        // As long as growth is to be told from what was not given back yet.
        let mut after = memory(&process);
        while begin.elapsed() < MINUTE {
            after = memory(&process).min(after);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        println!(
            "round {round}: {start:.0} MB at the start, {full:.0} MB with all, {after:.0} MB after they left"
        );
        assert!(
            after <= 2.0 * start,
            "round {round}: {start:.0} MB at the start, {after:.0} MB after all have left"
        );
        let first = *after_first.get_or_insert(after);
        assert!(
            after <= first * 1.1,
            "round {round}: {first:.0} MB after the first, {after:.0} MB now"
        );
    }
}
