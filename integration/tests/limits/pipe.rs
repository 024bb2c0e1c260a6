//! A log that nobody reads any more ends no program: it goes on, and ends as it should when it is
//! told to.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{paths, plane::ControlPlane, process::until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Starts a program whose output goes into a pipe, and closes the pipe once it is ready; then tells
/// it to end.
fn ends_well(mut command: Command, ready: &str) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("it starts");
    let mut first = [0; 1];
    // One byte, so that the log is known to go there.
    child.stderr.as_mut().expect("a pipe").read_exact(&mut first).expect("it logs");
    until(Duration::from_secs(60), "ready", || answers(ready));
    drop((child.stdout.take(), child.stderr.take()));
    let process = Pid::from_raw(i32::try_from(child.id()).expect("a process id is an i32"));
    kill(process, Signal::SIGTERM).expect("it runs");
    assert_eq!(ended(&mut child), Some(0), "{command:?}");
}

fn answers(url: &str) -> bool {
    Command::new("curl")
        .args(["-s", "-m", "5", "-o", "/dev/null", url])
        .status()
        .is_ok_and(|status| status.success())
}

fn ended(child: &mut Child) -> Option<i32> {
    let mut code = None;
    until(Duration::from_secs(60), "ended", || {
        code = child.try_wait().ok().flatten();
        code.is_some()
    });
    code.and_then(|status| status.code())
}

#[test]
fn a_closed_log_ends_no_control_plane() {
    let plane = ControlPlane::new("127.80.40.1");
    ends_well(plane.command(), "http://127.80.40.1:8080/healthz/ready");
}

#[test]
fn a_closed_log_ends_no_proxy() {
    let plane = ControlPlane::new("127.80.41.1");
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    // Nobody answers there: it says so again and again.
    command.arg("run").args([
        "--control-plane",
        "127.80.41.1:15010",
        "--plaintext",
        "--name",
        "alone",
    ]);
    command.args(["--ip", "127.80.41.2", "--interception", "none", "--app-address", "127.80.41.4"]);
    command.args(["--inbound-address", "127.80.41.2", "--outbound-address", "127.80.41.3"]);
    command.args(["--admin-address", "127.80.41.4:15000", "--status-address", "127.80.41.4:15021"]);
    command.args([
        "--metrics-address",
        "127.80.41.4:15090",
        "--concurrency",
        "1",
        "--drain-time",
        "1s",
    ]);
    command.arg("--work-dir").arg(plane.path("work"));
    ends_well(command, "http://127.80.41.4:15021/healthz/live");
}
