//! Memory comes back: whole meshes connect, see changes and leave, and a minute later the control plane is as small as it
//! was. `integration/soak.sh memory` does it for long.

use std::{
    fs,
    time::{Duration, Instant},
};

use ferromesh_integration::{paths, process::Process};

use crate::{
    plane::{Plane, service},
    watcher::{Watcher, connect},
};

/// Everything that was made for those who left is gone within this time, and the allocator has given it back.
const MINUTE: Duration = Duration::from_secs(75);
const PATIENCE: Duration = Duration::from_secs(300);
/// Clients that share a connection: so many that a small machine has files for all.
const SHARING: usize = 10;

/// Resident memory in MB.
fn memory(process: &Process) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024.0 / 1e6
}

/// Services in ten namespaces.
fn services(number: usize) -> String {
    let one =
        |i: usize| service(&format!("s{i}")).replace("metadata: {", &format!("metadata: {{namespace: ns{}, ", i % 10));
    (0..number).map(one).collect::<Vec<_>>().join("---\n")
}

/// All connect, get everything, see a change, and leave.
async fn visit(plane: &Plane, proxies: usize, services: usize, round: usize) {
    let mut watchers = Vec::with_capacity(proxies);
    let mut channel = connect(plane.host).await;
    for number in 0..proxies {
        if number % SHARING == 0 {
            channel = connect(plane.host).await;
        }
        let (high, low, namespace) = (number / 250, number % 250 + 1, number % 10);
        let id = format!("sidecar~10.81.{high}.{low}~p{number}.ns{namespace}~ns{namespace}.svc.cluster.local");
        watchers.push(Watcher::open_as(channel.clone(), id).await.expect("a stream"));
    }
    for watcher in &mut watchers {
        watcher.until(PATIENCE, "every service", |clusters| clusters.len() >= services).await;
    }
    let changed = format!("changed{round}");
    plane.write("changed.yaml", service(&changed));
    let cluster = crate::plane::service_cluster(&changed);
    for watcher in &mut watchers {
        watcher.until_has(&cluster, PATIENCE).await;
    }
}

#[allow(clippy::print_stdout, reason = "the figures are a result, too")]
#[tokio::test]
async fn a_minute_after_all_have_left_memory_is_what_it_was() {
    let (number, proxies, rounds) = paths::memory_settings();
    let plane = Plane::new("127.80.13.1");
    plane.write("services.yaml", services(number));
    let process = plane.start();
    let start = memory(&process);
    for round in 1..=rounds {
        visit(&plane, proxies, number, round).await;
        let full = memory(&process);
        let begin = Instant::now();
        while memory(&process) > 2.0 * start && begin.elapsed() < MINUTE {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let after = memory(&process);
        println!("round {round}: {start:.0} MB at the start, {full:.0} MB with all, {after:.0} MB after they left");
        assert!(after <= 2.0 * start, "round {round}: {start:.0} MB at the start, {after:.0} MB after all have left");
    }
}
