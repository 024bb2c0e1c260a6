//! The way from a clone to a mesh of one's own, as README.md and the README that `ferromesh init`
//! writes tell it: their commands are taken out of the texts and typed into a shell.
#![cfg(feature = "e2e")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ferromesh_integration::{paths, process::Process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest that a README may take.
const PATIENCE: Duration = Duration::from_secs(100);
const WEB: &str = "web: GET /, called by spiffe://cluster.local/ns/default/sa/gateway";
const HELLO: &str = "hello: GET /, called by spiffe://cluster.local/ns/default/sa/web";

/// One mesh at a time has the addresses that the texts name.
static ADDRESSES: Mutex<()> = Mutex::new(());
/// What is told to the shell is told to all that it has started: it waits for them.
const LAST: &str = "trap 'trap - TERM; wait; exit' TERM";

/// A user's folder and PATH.
struct Desk {
    home: TempDir,
    path: String,
}

impl Desk {
    /// Without programs of ours on the PATH; there `cargo build --release` does what it would do,
    /// but for compiling once more what this test command has compiled.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let tools = home.path().join("tools");
        fs::create_dir(&tools).expect("a folder");
        let built = paths::program("ferromesh");
        let built = built.parent().expect("programs are in a folder").display();
        script(
            &tools.join("cargo"),
            &format!(
                "[ \"$*\" = 'build --release' ] || exit 9\nmkdir -p target/release\n\
                 ln -s {built}/ferromesh {built}/ferromesh-proxy target/release/\n"
            ),
        );
        script(&tools.join("sudo"), "exec \"$@\"\n");
        symlink(paths::envoy(), tools.join("envoy")).expect("a link");
        let path = format!("{}:{}", tools.display(), paths::search_path());
        Self { home, path }
    }

    /// With our programs on the PATH.
    fn with_programs() -> Self {
        let desk = Self::new();
        for name in ["ferromesh", "ferromesh-proxy"] {
            let link = desk.home.path().join("tools").join(name);
            symlink(paths::program(name), link).expect("a link");
        }
        desk
    }

    fn command(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env("PATH", &self.path);
        command
    }

    fn run(&self, folder: &Path, line: &str) -> Output {
        self.command("bash", folder).args(["-ec", line]).output().expect("bash runs")
    }

    /// Types commands; what was printed once they have all succeeded, and the shell with whatever
    /// they started, which ends with it.
    fn type_in(&self, folder: &Path, wrapper: &[&str], commands: &str) -> (String, Process) {
        let file = self.home.path().join("typed.sh");
        let done = "all was typed";
        fs::write(&file, format!("set -e\n{LAST}\n{commands}\necho {done}\nwait\n"))
            .expect("a file");
        let mut words: Vec<&str> = wrapper.to_vec();
        let file = file.display().to_string();
        words.extend(["bash", &file]);
        let mut command = self.command(words[0], folder);
        command.args(&words[1..]);
        let mut shell = Process::start("shell", self.home.path(), command);
        let log = self.home.path().join("shell.log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let begin = std::time::Instant::now();
        while !said().contains(done) {
            let ended = shell.ended(Duration::from_millis(20));
            assert!(
                ended.is_none() || said().contains(done),
                "{ended:?} of\n{commands}\n{}",
                said()
            );
            assert!(begin.elapsed() < PATIENCE, "{commands}\n{}", said());
        }
        (said(), shell)
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\nset -e\n{text}")).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights");
}

/// The shell commands of a section of a text in Markdown.
fn commands(text: &str, heading: &str) -> Vec<String> {
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading:?}"));
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn readme() -> String {
    fs::read_to_string(paths::project().join("README.md")).expect("README.md")
}

fn check_answer(said: &str) {
    assert!(said.contains(WEB) && said.contains(HELLO), "{said}");
}

#[test]
fn readme_leads_from_a_clone_to_a_mesh_of_ones_own() {
    let _alone = ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let [typed] = &commands(&readme(), "A mesh of your own")[..] else { panic!("one block") };
    let with_envoys = "sh loopback.sh --proxy envoy";
    assert!(readme().contains(&format!("`{with_envoys}`")), "README says how Envoys are started");
    let envoys = typed.replace("sh loopback.sh &", &format!("{with_envoys} &"));
    assert_ne!(*typed, envoys);
    for typed in [typed.as_str(), &envoys] {
        let desk = Desk::new();
        let (said, shell) = desk.type_in(desk.home.path(), &[], typed);
        check_answer(&said);
        let folder = desk.home.path().join("my-mesh");
        if typed == envoys {
            drop(shell);
            continue;
        }
        // Its own README's last command, and what the mesh says to it.
        let own = fs::read_to_string(folder.join("README.md")).expect("its README");
        let desk = Desk {
            path: format!("{}/target/release:{}", desk.home.path().display(), desk.path),
            ..desk
        };
        let [add] = &commands(&own, "A workload of your own")[..] else { panic!("one block") };
        let added = desk.run(&folder, add);
        assert!(added.status.success(), "{added:?}");
        let token = fs::metadata(folder.join("shop-1.token")).expect("a token");
        assert_eq!(token.permissions().mode() & 0o777, 0o600);
        let next = String::from_utf8_lossy(&added.stdout).into_owned();
        let next = next.split("\n  ferromesh-proxy ").nth(1).expect("how to start the proxy");
        let addresses = "--interception none --inbound-address 127.20.4.2 \
                         --outbound-address 127.20.4.3 --app-address 127.20.4.4 \
                         --admin-address 127.20.4.5:15000 --status-address 127.20.4.5:15021 \
                         --metrics-address 127.20.4.5:15090";
        let ready = "curl -fsS --retry 60 --retry-delay 1 --retry-all-errors \
                     http://127.20.4.5:15021/healthz/ready";
        let line = format!("ferromesh-proxy {} {addresses} &\n{ready}", next.trim_end());
        let (_, proxy) = desk.type_in(&folder, &[], &line);
        let status = desk.run(&folder, "ferromesh proxy-status");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert_eq!(status.matches("SYNCED").count() / 4, 4, "four proxies:\n{status}");
        drop((proxy, shell));
    }
}

#[test]
fn the_readme_of_a_new_mesh_is_true_without_root_and_with_interception() {
    let _alone = ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let desk = Desk::with_programs();
    let made = desk.run(desk.home.path(), "ferromesh init mesh && ferromesh init again");
    assert!(made.status.success(), "{made:?}");
    let own = fs::read_to_string(desk.home.path().join("mesh/README.md")).expect("its README");
    let [alone] = &commands(&own, "On one machine, without root")[..] else { panic!("one block") };
    assert_eq!(alone.lines().count(), 5);
    let (said, shell) = desk.type_in(&desk.home.path().join("mesh"), &[], alone);
    check_answer(&said);
    drop(shell);

    // In a network of its own, which is gone with it.
    let [redirected] = &commands(&own, "With interception, as root")[..] else {
        panic!("one block")
    };
    assert_eq!(redirected.lines().count(), 5);
    let own_network = "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$@\"";
    let wrapper = ["unshare", "--net", "--mount", "sh", "-ec", own_network, "sh"];
    let (said, shell) = desk.type_in(&desk.home.path().join("again"), &wrapper, redirected);
    check_answer(&said);
    drop(shell);
}

/// `cargo build --release` and `cargo run` of a clone, as far as that is told without compiling.
#[test]
fn a_clone_builds_both_programs() {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = command.current_dir(paths::project()).output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let default = metadata["workspace_default_members"].as_array().expect("members");
    let packages = metadata["packages"].as_array().expect("packages");
    let built: Vec<&Value> = packages.iter().filter(|p| default.contains(&p["id"])).collect();
    let is_program = |target: &&Value| target["kind"][0] == "bin";
    let targets = built.iter().flat_map(|package| package["targets"].as_array()).flatten();
    let mut programs: Vec<&str> =
        targets.filter(is_program).filter_map(|target| target["name"].as_str()).collect();
    programs.sort_unstable();
    assert_eq!(programs, ["ferromesh", "ferromesh-proxy"]);
    let runs: Vec<&str> = built.iter().filter_map(|p| p["default_run"].as_str()).collect();
    assert_eq!(runs, ["ferromesh"], "`cargo run -- demo` needs one");
}
