//! Files that are broken, hostile or many.

use std::{fmt::Write, fs, time::Duration};

use ferromesh_integration::{plane::ControlPlane, process::Process};

use crate::{
    plane::{service, service_cluster, until_said},
    watcher::{Watcher, connect},
};

/// Generous for two busy cores; far below what a hang would take.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any of these inputs may cost.
const MOST_MEMORY_KIB: u64 = 1 << 20;

fn peak_memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Aliases of aliases: a kilobyte of text that stands for a billion nodes.
fn bomb() -> String {
    let mut text =
        "a0: &a0 [boom, boom, boom, boom, boom, boom, boom, boom, boom, boom]\n".to_owned();
    for level in 1..=9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").expect("a text grows");
    }
    text
}

/// A file that no sane person writes, and what must be said of it.
struct Bad {
    name: &'static str,
    content: Vec<u8>,
    said: &'static str,
}

fn bad_files() -> Vec<Bad> {
    let twice = "apiVersion: v1\nkind: Service\nmetadata: {name: twice, name: again}\nspec: {ports: [{port: 80}]}\n";
    let broken = format!("{}---\nkind: [unclosed\n---\n{}", service("before"), service("behind"));
    let bad = |name, content, said| Bad { name, content, said };
    vec![
        bad("bomb.yaml", bomb().into_bytes(), "alias"),
        bad("huge.yaml", b"# padding\n".repeat(10 << 20), "at most 64 MiB"),
        bad(
            "binary.yaml",
            (0u32..100_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            "the file is binary",
        ),
        bad("deep.yaml", format!("a: {}", "[".repeat(100_000)).into_bytes(), "deep"),
        bad("twice.yaml", twice.into(), "name"),
        bad("broken.yaml", broken.into_bytes(), "broken.yaml"),
    ]
}

#[tokio::test]
async fn bad_files_are_named_and_everything_else_keeps_serving() {
    let plane = ControlPlane::new("127.80.1.1");
    plane.write("good.yaml", service("good"));
    let process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    watcher.until_has(&service_cluster("good"), PATIENCE).await;

    for bad in bad_files() {
        plane.write(bad.name, &bad.content);
        let said = until_said(&plane, &[bad.name, bad.said]).await;
        assert!(said.len() < 100_000, "{} is answered with {} bytes", bad.name, said.len());
        // What comes after it is served in time.
        let next = format!("after-{}", bad.name.trim_end_matches(".yaml"));
        plane.write(&format!("{next}.yaml"), service(&next));
        watcher.until_has(&service_cluster(&next), PATIENCE).await;
    }
    for neighbour in ["before", "behind", "good"] {
        watcher.until_has(&service_cluster(neighbour), PATIENCE).await;
    }
    let peak = peak_memory(&process);
    assert!(peak < MOST_MEMORY_KIB, "{peak} KiB at the peak");

    // The same files at the start are no reason not to start.
    drop(process);
    let again = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    watcher.until_has(&service_cluster("behind"), PATIENCE).await;
    let names: Vec<&str> = bad_files().iter().map(|b| b.name).collect();
    until_said(&plane, &names).await;
    drop(again);
}

#[tokio::test]
async fn ten_thousand_services_are_steady_work() {
    const COUNT: usize = 10_000;
    let plane = ControlPlane::new("127.80.2.1");
    for folder in 0..10 {
        fs::create_dir(plane.path("config").join(folder.to_string())).expect("a directory");
        let names = (0..COUNT / 10).map(|i| service(&format!("s{folder}-{i}")));
        plane.write(&format!("{folder}/services.yaml"), names.collect::<Vec<_>>().join("---\n"));
    }
    let process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    watcher
        .until(Duration::from_secs(60), "every service", |clusters| clusters.len() >= COUNT)
        .await;
    for round in 0..3 {
        let name = format!("late-{round}");
        plane.write(&format!("{name}.yaml"), service(&name));
        watcher.until_has(&service_cluster(&name), PATIENCE).await;
    }
    fs::remove_dir_all(plane.path("config/0")).expect("removing");
    let gone = service_cluster("s0-1");
    watcher.until(PATIENCE, "a removal", |clusters| !clusters.contains(&gone)).await;
    let peak = peak_memory(&process);
    assert!(peak < MOST_MEMORY_KIB, "{peak} KiB at the peak");
}
