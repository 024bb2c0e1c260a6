//! The control-plane benchmark at a small size: every event reaches every client, and costs no
//! message too many. Its figures are not looked at. Needs root, and what
//! `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

use std::process::Command;

use serde_json::Value;

const PROXIES: u64 = 20;

#[test]
fn the_benchmark_runs_and_nobody_is_sent_what_it_has() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let proxies = PROXIES.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_fm-bench-control-plane"))
        .args(["--services", "50", "--proxies", &proxies, "--runs", "1", "--json"])
        .arg(file.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_reader(file.as_file()).expect("JSON");
    let of = |event: usize, figure: &str| {
        json["events"][event]["figures"][figure]["ferromesh"].as_f64().expect("a number")
    };
    let resources =
        |event: usize| (of(event, "resources") as u64, of(event, "resources") as u64 / PROXIES);

    let each: Vec<u64> = ["clusters", "assignments", "listeners", "routes"]
        .map(|kind| json["per_client"][kind].as_u64().expect("a number"))
        .to_vec();
    assert!(each[0] > 50 && each[1] > 50 && each[2] > 0 && each[3] > 0, "{json}");
    assert_eq!(
        resources(0).1,
        each.iter().sum::<u64>(),
        "a cold start sends everything once: {json}"
    );
    assert_eq!(resources(1).0, PROXIES, "an endpoint is one assignment for everybody: {json}");
    assert_eq!(
        resources(2).0,
        PROXIES,
        "a weight is one route configuration for everybody: {json}"
    );
    assert_eq!(resources(4).0, 0, "who comes back with everything is sent nothing: {json}");
    assert!(of(4, "bytes") < of(0, "bytes") / 10.0, "{json}");
}
