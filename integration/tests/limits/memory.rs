//! What is in the memory of our programs is not for others, not even of the same user: no core is
//! written, nobody may look.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::Command,
};

use ferromesh_integration::{paths, plane::ControlPlane};

const NOBODY: u32 = 65_534;

/// The program, where another user can run it, whatever the rights of the build's folder.
fn copied(plane: &ControlPlane, name: &str) -> PathBuf {
    let program = plane.path(name);
    fs::copy(paths::program(name), &program).expect("a copy");
    fs::set_permissions(plane.folder(), fs::Permissions::from_mode(0o755)).expect("chmod");
    chown(plane.folder(), Some(NOBODY), Some(NOBODY)).expect("chown");
    program
}

fn check(plane: &ControlPlane, mut command: Command) {
    command.uid(NOBODY).gid(NOBODY);
    let mut process = plane.run(command);
    let proc = PathBuf::from(format!("/proc/{}", process.id()));
    // proc(5): a process that may not be dumped belongs to root there, whoever runs it.
    process.until("memory of its own", || {
        fs::metadata(proc.join("environ")).is_ok_and(|environ| environ.uid() == 0)
    });
    // Read after it: what was read before may be from before both.
    let limits = fs::read_to_string(proc.join("limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

#[test]
fn a_control_plane_is_no_open_book() {
    let plane = ControlPlane::new("127.80.42.1");
    let mut command = Command::new(copied(&plane, "ferromesh"));
    command.args(plane.command().get_args());
    check(&plane, command);
}

#[test]
fn a_proxy_is_no_open_book() {
    let plane = ControlPlane::new("127.80.43.1");
    let mut command = Command::new(copied(&plane, "ferromesh-proxy"));
    command.arg("run").args([
        "--control-plane",
        "127.80.43.1:15010",
        "--plaintext",
        "--name",
        "alone",
    ]);
    command.args(["--ip", "127.80.43.2", "--interception", "none", "--app-address", "127.80.43.4"]);
    command.args(["--inbound-address", "127.80.43.2", "--outbound-address", "127.80.43.3"]);
    command.args(["--admin-address", "127.80.43.4:15000", "--status-address", "127.80.43.4:15021"]);
    command.args([
        "--metrics-address",
        "127.80.43.4:15090",
        "--concurrency",
        "1",
        "--drain-time",
        "1s",
    ]);
    command.arg("--work-dir").arg(plane.path("work"));
    check(&plane, command);
}
