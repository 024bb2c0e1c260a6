//! A machine that reboots keeps its identity: a proxy comes back with the key and certificate of its
//! work directory and needs no join token, which may be of a single use; and who has only a used
//! one is told so.
#![cfg(feature = "e2e")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use ferromesh_integration::{
    paths,
    plane::{ControlPlane, curl},
    process::Process,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A proxy without traffic, on addresses of `network`.
fn start_proxy(kind: &str, plane: &ControlPlane, network: &str, work: &str) -> Process {
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.args([kind, "--control-plane", &plane.address(15012)]);
    command.arg("--root-cert").arg(plane.path("data/root-cert.pem"));
    command.arg("--token-file").arg(plane.path(&format!("{kind}.token")));
    command.args(["--service-account", kind, "--name", &format!("{kind}-1")]);
    command.args(["--interception", "none", "--app-address", &format!("{network}.4")]);
    command.args(["--inbound-address", &format!("{network}.2")]);
    command.args(["--outbound-address", &format!("{network}.3")]);
    command.args(["--admin-address", &format!("{network}.5:15000")]);
    command.args(["--status-address", &format!("{network}.5:15021")]);
    command.args(["--metrics-address", &format!("{network}.5:15090")]);
    command.args(["--concurrency", "1", "--drain-time", "0s"]);
    command.arg("--work-dir").arg(plane.path(work));
    if kind == "envoy" {
        command.arg("--envoy-path").arg(paths::envoy());
        command.args(["--", "--use-dynamic-base-id"]);
    }
    Process::start(work, plane.folder(), command)
}

fn until_ready(proxy: &mut Process, network: &str) {
    let url = format!("http://{network}.5:15021/healthz/ready");
    proxy.until("ready", || status(&url) == "200");
}

fn status(url: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url]);
    let output = command.stderr(Stdio::null()).output().expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many certificates an account has got.
fn issued(plane: &ControlPlane, account: &str) -> usize {
    let said = plane.get("/api/v1/certificates").unwrap_or_default();
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let own = |item: &&Value| {
        item["spiffeId"].as_str().is_some_and(|id| id.ends_with(&format!("/sa/{account}")))
    };
    said["items"].as_array().map_or(0, |items| items.iter().filter(own).count())
}

fn make_token(plane: &ControlPlane, account: &str) {
    let arguments = ["token", "create", "-n", "default", "-s", account, "--single-use"];
    let (made, token) = plane.administer(&arguments);
    assert!(made, "{token}");
    fs::write(plane.path(&format!("{account}.token")), token).expect("a file");
}

#[test]
fn a_proxy_comes_back_without_a_token_and_a_used_token_is_told_to_be_one() {
    let plane = ControlPlane::new("127.80.50.1");
    let _control = plane.start();
    for (kind, network) in [("run", "127.80.51"), ("envoy", "127.80.52")] {
        make_token(&plane, kind);
        let mut proxy = start_proxy(kind, &plane, network, kind);
        until_ready(&mut proxy, network);
        // What it logs is changed while it runs, by the same words for both.
        let admin = format!("{network}.5:15000");
        let (well, said) =
            plane.administer(&["proxy-config", "log", "--admin", &admin, "--level", "warning"]);
        let shown = if kind == "run" { "all: warn" } else { "admin: warning" };
        assert!(well && said.contains(shown), "{said}");
        let (well, said) = plane.administer(&["proxy-config", "log", "--admin", &admin]);
        assert!(well && said.contains(shown), "{said}");
        let kept = plane.path(&format!("{kind}/identity.json"));
        let mode = fs::metadata(&kept).expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind}");
        // Killed as by a power cut, and its token is gone.
        proxy.signal(Signal::SIGKILL);
        drop(proxy);
        let token = plane.path(&format!("{kind}.token"));
        let used = fs::read(&token).expect("the token");
        fs::remove_file(&token).expect("it is there");
        let mut proxy = start_proxy(kind, &plane, network, kind);
        until_ready(&mut proxy, network);
        proxy.until("renewed with it", || issued(&plane, kind) == 2);
        assert!(proxy.output().contains("kept certificate"), "{}", proxy.output());
        drop(proxy);

        // Without what was kept, the used token is no good.
        fs::write(&token, &used).expect("a file");
        let mut proxy = start_proxy(kind, &plane, network, &format!("{kind}-again"));
        let what = "it is good for one certificate, which was probably given out before; make a \
                    new one: `ferromesh token create";
        proxy.until("told what is wrong", || proxy_says(&plane, kind, what));
        assert_ne!(status(&format!("http://{network}.5:15021/healthz/ready")), "200");
        make_token(&plane, kind);
        until_ready(&mut proxy, network);
    }
    assert!(curl(&format!("http://{}/healthz/ready", plane.address(8080))).is_some());
}

fn proxy_says(plane: &ControlPlane, kind: &str, what: &str) -> bool {
    let log = fs::read_to_string(plane.path(&format!("{kind}-again.log")));
    log.is_ok_and(|said| said.contains(what))
}
