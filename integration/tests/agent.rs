//! What the agent beside an Envoy owes to the machine it runs on.
#![cfg(feature = "e2e")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{paths, process::until};

#[test]
fn a_program_that_is_tied_ends_with_its_parent_however_that_ends() {
    let proxy = paths::program("ferromesh-proxy");
    let script = format!("{} tied $$ -- sleep 600 & echo $!; wait", proxy.display());
    let mut parent = Command::new("bash")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("its child's number");
    let child = Path::new("/proc").join(line.trim());
    let is_program =
        || std::fs::read_to_string(child.join("comm")).is_ok_and(|name| name.trim() == "sleep");
    until(Duration::from_secs(10), "the program started", is_program);
    parent.kill().expect("it runs");
    parent.wait().expect("it was killed");
    until(Duration::from_secs(10), "the program ended", || !is_program());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let script = format!(
        "{} tied $$ -- /nowhere/envoy; echo $?",
        paths::program("ferromesh-proxy").display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/envoy"), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "127");
}
