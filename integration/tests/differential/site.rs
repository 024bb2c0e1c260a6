//! One side of the comparison: a control plane, a sidecar and a gateway of one kind, and the
//! application behind them, on a block of loopback addresses of its own. Two sides differ in that
//! block and in the proxy, and in nothing else.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use ferromesh_integration::{
    paths,
    plane::{self, ControlPlane},
    process::Process,
};

use crate::{
    application::{self, Seen},
    configuration::{Configuration, Kind, mesh_yaml},
};

/// Which proxy stands on a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    /// The reference.
    Envoy,
    /// The one under test.
    Ours,
}

/// Where everything of one side is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block(u8);

impl Block {
    /// Takes the first block of loopback addresses that nobody uses, for as long as the listener
    /// lives.
    fn claim() -> (Self, TcpListener) {
        let blocks = 21..=250;
        let claim = |block| {
            Some((Self(block), TcpListener::bind((Ipv4Addr::new(127, block, 0, 1), 15999)).ok()?))
        };
        blocks.into_iter().find_map(claim).expect("a free block of loopback addresses")
    }

    fn address(self, index: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, index, host)
    }

    /// The control plane.
    fn control_plane(self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// The application beside the sidecar.
    pub(crate) fn application(self) -> Ipv4Addr {
        self.address(1, 1)
    }

    /// The way in through the sidecar.
    pub(crate) fn inbound(self) -> Ipv4Addr {
        self.address(1, 2)
    }

    /// The way out through the sidecar.
    fn outbound(self) -> Ipv4Addr {
        self.address(1, 3)
    }

    /// The way in through the gateway.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.address(2, 2)
    }

    /// What has no sidecar: gateway and outbound calls end there.
    pub(crate) fn upstream(self) -> Ipv4Addr {
        self.address(9, 1)
    }

    /// Where a request for `configuration` is sent.
    pub(crate) fn entry(self, configuration: &Configuration) -> SocketAddr {
        let address = match configuration.kind {
            Kind::Inbound => self.inbound(),
            Kind::Outbound => self.outbound(),
            Kind::Gateway => self.gateway(),
        };
        (address, configuration.port).into()
    }

    /// How addresses of this block begin.
    pub(crate) fn prefix(self) -> String {
        format!("127.{}.", self.0)
    }
}

/// A running side. Fields are dropped in order: proxies before their control plane, files last.
pub(crate) struct Side {
    pub(crate) block: Block,
    pub(crate) seen: Arc<Seen>,
    processes: Vec<Process>,
    _claim: TcpListener,
    _control: ControlPlane,
}

/// The two proxies of a side, whose files are named alike on both sides.
const WORKLOADS: [(&str, &str, &str, u8); 2] =
    [("workload", "default", "sidecar", 1), ("gateway", "istio-system", "router", 2)];

impl Side {
    /// Starts everything; [`Self::until_ready`] waits for it.
    pub(crate) fn start(
        proxy: Proxy,
        configurations: &[Configuration],
        normalization: &str,
    ) -> Self {
        let (block, claim) = Block::claim();
        let control = ControlPlane::new(block.control_plane());
        control.write("mesh.yaml", mesh_yaml(configurations, normalization, block));
        let control_plane = control.start();
        let proxies = WORKLOADS.map(|workload| start_proxy(proxy, block, &control, workload));
        let processes = proxies.into_iter().chain([control_plane]).collect();
        let seen = Arc::new(Seen::default());
        Self { block, seen, processes, _claim: claim, _control: control }
    }

    /// Opens the application's ports and waits until every configuration's port takes connections.
    pub(crate) async fn until_ready(&mut self, configurations: &[Configuration]) {
        application::serve((self.block.upstream(), application::UPSTREAM_PORT).into(), &self.seen)
            .await;
        for configuration in configurations.iter().filter(|c| c.kind == Kind::Inbound) {
            application::serve((self.block.application(), configuration.port).into(), &self.seen)
                .await;
        }
        let block = self.block;
        for (process, (.., index)) in self.processes.iter_mut().zip(WORKLOADS) {
            let ready = format!("http://{}:15021/healthz/ready", block.address(index, 4));
            process.until("ready", || plane::curl(&ready).is_some());
        }
        let open = |c: &Configuration| TcpStream::connect(block.entry(c)).is_ok();
        self.processes[0].until("serving every port", || configurations.iter().all(open));
    }

    /// The proxies that ended although they should run.
    pub(crate) fn fallen(&mut self) -> Vec<String> {
        let ended = |process: &mut Process| {
            process.ended(std::time::Duration::ZERO).map(|_| process.output())
        };
        self.processes.iter_mut().filter_map(ended).collect()
    }
}

fn start_proxy(
    proxy: Proxy,
    block: Block,
    control: &ControlPlane,
    (name, namespace, kind, index): (&str, &str, &str, u8),
) -> Process {
    let work_dir = control.path(name);
    fs::create_dir(&work_dir).expect("a directory");
    let mut arguments: Vec<String> =
        vec![if proxy == Proxy::Envoy { "envoy" } else { "run" }.into()];
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("control-plane", control.address(15012));
    flag("root-cert", control.file("data/root-cert.pem"));
    flag("token-file", token(control, name, namespace).display().to_string());
    flag("namespace", namespace.into());
    flag("service-account", name.into());
    flag("name", format!("{name}-0"));
    flag("label", format!("app={name}"));
    flag("type", kind.into());
    flag("interception", "none".into());
    flag("ip", block.address(index, 2).to_string());
    flag("app-address", block.address(index, 1).to_string());
    flag("inbound-address", block.address(index, 2).to_string());
    flag("outbound-address", block.address(index, 3).to_string());
    for (own, port) in [("admin", 15000), ("status", 15021), ("metrics", 15090)] {
        flag(&format!("{own}-address"), format!("{}:{port}", block.address(index, 4)));
    }
    flag("concurrency", "1".into());
    flag("drain-time", "1s".into());
    flag("work-dir", work_dir.display().to_string());
    if proxy == Proxy::Envoy {
        flag("envoy-path", paths::envoy().display().to_string());
    }
    let mut program = Command::new(paths::program("ferromesh-proxy"));
    program.args(arguments);
    Process::start(name, control.folder(), program)
}

fn token(control: &ControlPlane, account: &str, namespace: &str) -> PathBuf {
    let path = control.path(&format!("{account}.token"));
    fs::write(&path, control.join_token(namespace, account)).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}
