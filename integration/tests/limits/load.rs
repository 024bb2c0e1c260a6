//! Peers that do not behave: others keep being served.

use std::{fs, process::Command, time::Duration};

use ferromesh_integration::{paths, plane::ControlPlane, process::Process};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    plane::{cluster_of, put_host, service},
    watcher::{Watcher, connect},
};

/// A change reaches an idle client within about 10 ms; this is for two slow cores that are busy with
/// something else, and still less than what an endless wait would be told by.
const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes arrive in time, again and again.
async fn is_served(plane: &ControlPlane, watcher: &mut Watcher, when: &str) {
    for round in 0..5 {
        let name = format!("{when}-{round}");
        assert_eq!(put_host(plane, &name).await.status, 201);
        watcher.until_has(&cluster_of(&name), SOON).await;
    }
}

/// A control plane with enough services that nobody's transport buffers hold them all.
async fn filled(host: &'static str) -> (ControlPlane, Process, Watcher) {
    let plane = ControlPlane::new(host);
    let services: Vec<String> = (0..1000).map(|i| service(&format!("service-{i}"))).collect();
    plane.write("services.yaml", services.join("---\n"));
    let process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    watcher.until(PATIENCE, "every service", |clusters| clusters.len() >= 1000).await;
    (plane, process, watcher)
}

#[tokio::test]
async fn slow_readers_hold_up_nobody() {
    let (plane, _process, mut watcher) = filled("127.80.10.1").await;
    is_served(&plane, &mut watcher, "before").await;
    let mut slow = Vec::new();
    for i in 0..20 {
        // Opened, subscribed, and never read from.
        slow.push(
            Watcher::open(connect(&plane.host).await, &format!("slow-{i}"))
                .await
                .expect("a stream"),
        );
    }
    is_served(&plane, &mut watcher, "meanwhile").await;
    // One that begins to read after all has missed nothing.
    slow[0].until_has(&cluster_of("meanwhile-4"), PATIENCE).await;
    assert!(slow[0].clusters.is_superset(&watcher.clusters));
}

#[tokio::test]
async fn a_flood_of_new_streams_leaves_others_served() {
    let (plane, _process, mut watcher) = filled("127.80.11.1").await;
    let mut flood = tokio::task::JoinSet::new();
    for connection in 0..10 {
        let channel = connect(&plane.host).await;
        for stream in 0..50 {
            let channel = channel.clone();
            flood.spawn(async move {
                let mut watcher =
                    Watcher::open(channel, &format!("flood-{connection}-{stream}")).await?;
                watcher.next().await.map(|()| watcher)
            });
        }
    }
    is_served(&plane, &mut watcher, "flooded").await;
    let arrived = tokio::time::timeout(PATIENCE * 2, flood.join_all())
        .await
        .expect("the flood is over in time");
    let served =
        arrived.iter().filter(|w| w.as_ref().is_ok_and(|w| w.clusters.len() >= 1000)).count();
    let refused = arrived
        .iter()
        .filter_map(|w| w.as_ref().err())
        .find(|s| s.code() != tonic::Code::ResourceExhausted);
    assert!(refused.is_none(), "{refused:?}");
    assert!(served > 400, "{served} of 500 streams were served");
    is_served(&plane, &mut watcher, "afterwards").await;
}

/// A proxy of ours that is synced.
async fn start_proxy(plane: &ControlPlane) -> Process {
    let wanted = json!({ "namespace": "default", "serviceAccount": "sleeper", "ttl": "1h" });
    let answer = plane.ask_as_admin("POST", "/api/v1/tokens", Some(&wanted)).await;
    fs::write(plane.path("token"), answer.body["token"].as_str().expect("a token"))
        .expect("a file");
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.arg("run").args(["--control-plane", &format!("{}:15012", plane.host)]);
    command
        .arg("--root-cert")
        .arg(plane.path("data/root-cert.pem"))
        .arg("--token-file")
        .arg(plane.path("token"));
    command.args(["--namespace", "default", "--service-account", "sleeper", "--name", "sleeper"]);
    command.args(["--ip", "127.80.12.2", "--interception", "none", "--app-address", "127.80.12.4"]);
    command.args(["--inbound-address", "127.80.12.2", "--outbound-address", "127.80.12.3"]);
    command.args(["--admin-address", "127.80.12.4:15000", "--status-address", "127.80.12.4:15021"]);
    command.args([
        "--metrics-address",
        "127.80.12.4:15090",
        "--concurrency",
        "1",
        "--drain-time",
        "1s",
    ]);
    command.arg("--work-dir").arg(plane.path("work"));
    let mut proxy = Process::start("proxy", plane.folder(), command);
    proxy.until("ready", || {
        let ready = "http://127.80.12.4:15021/healthz/ready";
        Command::new("curl")
            .args(["-sf", "-m", "5", ready])
            .output()
            .is_ok_and(|o| o.status.success())
    });
    proxy
}

#[tokio::test]
async fn a_dead_proxy_holds_up_nobody() {
    let plane = ControlPlane::new("127.80.12.1");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: sleeper, labels: {app: sleeper}}\n\
               spec: {serviceAccountName: sleeper, containers: [{name: app, image: app}]}\n\
               status: {phase: Running, podIP: 127.80.12.2, podIPs: [{ip: 127.80.12.2}]}\n";
    plane.write("pod.yaml", pod);
    let _process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    let proxy = start_proxy(&plane).await;
    // It neither reads nor closes: to the control plane it looks alive until a keepalive goes
    // unanswered.
    proxy.signal(Signal::SIGSTOP);
    is_served(&plane, &mut watcher, "stopped").await;
    proxy.signal(Signal::SIGCONT);
    is_served(&plane, &mut watcher, "continued").await;
    ferromesh_integration::process::until(PATIENCE, "caught up", || {
        let dump = Command::new("curl")
            .args(["-s", "-m", "10", "http://127.80.12.4:15000/config_dump"])
            .output();
        dump.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(&cluster_of("continued-4")))
    });
}
