//! Network namespaces in the shape of pods: addresses on a bridge, and redirection by our own
//! program.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::paths;

/// Runs a program and panics with its words when it fails.
///
/// # Panics
/// It cannot be started, or fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A bridge with its own /24, on which pods live. Removed when dropped.
pub struct Bridge {
    name: String,
    third: u8,
}

impl Bridge {
    /// Makes the bridge `fmbN` with address `10.77.N.1`.
    pub fn new(third: u8) -> Self {
        let name = format!("fmb{third}");
        let _ = Command::new("ip").args(["link", "del", &name]).output();
        // Left to itself a bridge takes the lowest address of its links, and changes it while they
        // come and go.
        let address = format!("02:00:0a:4d:{third:02x}:01");
        run("ip", &["link", "add", &name, "address", &address, "type", "bridge"]);
        let bridge = Self { name, third };
        run("ip", &["addr", "add", &format!("{}/24", bridge.address(1)), "dev", &bridge.name]);
        run("ip", &["link", "set", &bridge.name, "up"]);
        bridge
    }

    /// An address of the bridge's network; `.1` is the host's.
    pub fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.third, last)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
    }
}

/// The user that proxies run as, exempt from redirection.
pub const PROXY_USER: u32 = 1337;

/// A pod: a namespace with one address. Removed when dropped.
pub struct Pod {
    /// Its namespace's name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its other address.
    pub address6: Ipv6Addr,
}

impl Pod {
    /// Makes a pod at `.LAST` of the bridge's network, whose programs resolve `hosts` (name,
    /// address).
    pub fn new(bridge: &Bridge, label: &str, last: u8, hosts: &[(&str, &str)]) -> Self {
        let name = format!("fm{}-{label}", bridge.third);
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        run("ip", &["netns", "add", &name]);
        let address6 = Ipv6Addr::new(0xfd77, 0, 0, bridge.third.into(), 0, 0, 0, last.into());
        let pod = Self { address: bridge.address(last), address6, name };
        let (outer, address) =
            (format!("fm{}v{last}", bridge.third), format!("{}/24", pod.address));
        run(
            "ip",
            &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pod.name],
        );
        run("ip", &["link", "set", &outer, "master", &bridge.name, "up"]);
        run("ip", &["-n", &pod.name, "addr", "add", &address, "dev", "eth0"]);
        run(
            "ip",
            &["-n", &pod.name, "addr", "add", &format!("{address6}/64"), "dev", "eth0", "nodad"],
        );
        run("ip", &["-n", &pod.name, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &pod.name, "link", "set", "lo", "up"]);
        run(
            "ip",
            &["-n", &pod.name, "route", "add", "default", "via", &bridge.address(1).to_string()],
        );
        // As container runtimes have it: gateways, and sidecars whose listeners a Sidecar object places,
        // bind ports that only root may otherwise.
        let unprivileged = ["-w", "net.ipv4.ip_unprivileged_port_start=0"];
        assert!(pod.exec(Path::new("sysctl"), &unprivileged).status.success(), "sysctl");
        let folder = pod.etc();
        fs::create_dir_all(&folder).expect("/etc/netns is writable for root");
        let lines: String =
            hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{lines}"))
            .expect("a hosts file");
        pod
    }

    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    /// Redirects the pod's traffic as the init container of an injected pod does; `flags` are those
    /// of `redirect`.
    ///
    /// # Panics
    /// The kernel does not take the rules.
    pub fn redirect(&self, flags: &[&str]) {
        let output =
            self.command(&paths::program("ferromesh-proxy")).arg("redirect").args(flags).output();
        let output = output.expect("ip starts");
        assert!(output.status.success(), "redirect: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A command that runs in the pod as the application (root).
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// A command that runs in the pod as the proxy's user.
    pub fn proxy_command(&self, program: &Path) -> Command {
        let user = PROXY_USER.to_string();
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                &self.name,
                "setpriv",
                "--reuid",
                &user,
                "--regid",
                &user,
                "--clear-groups",
            ])
            .arg(program);
        command
    }

    /// Does something in the pod's namespace, such as opening a socket, which stays the pod's
    /// afterwards.
    ///
    /// # Panics
    /// The namespace cannot be entered, or `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))
            .expect("the pod's namespace has a name");
        let entered = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            work()
        };
        // A thread of its own: the namespace is a property of the thread.
        thread::scope(|scope| scope.spawn(entered).join().expect("it does not panic"))
    }

    /// Runs a program in the pod to its end.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn exec(&self, program: &Path, arguments: &[&str]) -> Output {
        self.command(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        let _ = fs::remove_dir_all(self.etc());
    }
}
