//! A small mesh on loopback: a control plane, an application with its sidecar, and a gateway, with
//! addresses of their own.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use ferromesh_integration::{
    certificate, paths,
    plane::{ControlPlane, curl},
    process::Process,
};
use serde_json::json;

/// A running mesh; ends with the test. Fields are dropped in order: processes before their folder.
pub(crate) struct Site {
    /// First three numbers of its addresses.
    network: &'static str,
    processes: Vec<(&'static str, Process)>,
    control: ControlPlane,
}

/// What is asked of the application by name through the gateway.
pub(crate) const HOST: &str = "shop.example.com";

impl Site {
    /// Starts everything on addresses of `network`, such as `127.83.1`, and waits until it is
    /// ready.
    pub(crate) async fn start(network: &'static str) -> Self {
        let control = ControlPlane::new(format!("{network}.1"));
        let mut site = Self { network, processes: Vec::new(), control };
        site.control.write("mesh.yaml", site.configuration());
        site.processes.push(("control-plane", site.control.start()));
        let application = site.address(4, 8080).to_string();
        let mut command = Command::new(paths::program("fm-peer"));
        command.args(["serve", &application, "shop", "v1"]);
        site.run("application", command);
        site.start_proxy("shop", "sidecar", 2).await;
        site.start_proxy("gateway", "router", 5).await;
        site
    }

    /// The sidecar's port for others.
    pub(crate) fn sidecar(&self) -> SocketAddr {
        self.address(2, 8080)
    }

    /// The gateway's port.
    pub(crate) fn gateway(&self) -> SocketAddr {
        self.address(5, 8080)
    }

    /// One of the own ports of the sidecar, such as 15021.
    pub(crate) fn own(&self, port: u16) -> SocketAddr {
        self.address(4, port)
    }

    /// A port of the control plane.
    pub(crate) fn control_plane(&self, port: u16) -> SocketAddr {
        self.address(1, port)
    }

    /// The id of a process: `control-plane`, `application`, `shop` (the sidecar) or `gateway`.
    pub(crate) fn process(&self, name: &str) -> u32 {
        self.processes.iter().find(|(known, _)| *known == name).expect("it was started").1.id()
    }

    fn address(&self, last: u8, port: u16) -> SocketAddr {
        format!("{}.{last}:{port}", self.network).parse().expect("an address")
    }

    /// A path below its directory; `data` is the control plane's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.control.path(name)
    }

    fn run(&mut self, name: &'static str, command: Command) -> &mut Process {
        self.processes.push((name, Process::start(name, self.control.folder(), command)));
        &mut self.processes.last_mut().expect("it was just put there").1
    }

    /// Starts the proxy of a workload whose addresses begin at `first`, and waits until it is
    /// ready.
    async fn start_proxy(&mut self, name: &'static str, kind: &str, first: u8) {
        let token = self.join_token(name).await;
        let file = self.path(&format!("{name}.token"));
        fs::write(&file, token).expect("a file");
        let address = |last: u8| self.address(last, 0).ip().to_string();
        let (inbound, outbound, own) = (address(first), address(first + 1), address(first + 2));
        let mut command = Command::new(paths::program("ferromesh-proxy"));
        command.arg("run").args(["--control-plane", &self.control_plane(15012).to_string()]);
        command
            .arg("--root-cert")
            .arg(self.path("data/root-cert.pem"))
            .arg("--token-file")
            .arg(file);
        command.args([
            "--namespace",
            "default",
            "--service-account",
            name,
            "--name",
            name,
            "--type",
            kind,
        ]);
        command.args(["--ip", &inbound, "--interception", "none", "--app-address", &own]);
        command.args(["--inbound-address", &inbound, "--outbound-address", &outbound]);
        for (flag, port) in [
            ("--admin-address", 15000),
            ("--status-address", 15021),
            ("--metrics-address", 15090),
            ("--agent-address", 15020),
        ] {
            command.args([flag, &format!("{own}:{port}")]);
        }
        command.args([
            "--label",
            &format!("app={name}"),
            "--concurrency",
            "1",
            "--drain-time",
            "1s",
        ]);
        command.arg("--work-dir").arg(self.path(&format!("{name}-work")));
        let ready = format!("http://{own}:15021/healthz/ready");
        self.run(name, command).until("ready", || curl(&ready).is_some());
    }

    /// A token for an account, from the control plane's administrator.
    pub(crate) async fn join_token(&self, account: &str) -> String {
        let wanted = json!({ "namespace": "default", "serviceAccount": account, "ttl": "1h" });
        let answer = self.control.ask_as_admin("POST", "/api/v1/tokens", Some(&wanted)).await;
        answer.body["token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token: {}", answer.text))
            .to_owned()
    }

    /// A certificate request without names, as PEM.
    pub(crate) fn certificate_request(&self) -> String {
        certificate::request(&self.path("key.pem"), &[])
    }

    fn configuration(&self) -> String {
        let pod = |name: &str, more: &str, last: u8| {
            let address = self.address(last, 0).ip();
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}, security.istio.io/tlsMode: istio{more}}}\n\
                 spec: {{serviceAccountName: {name}, containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]}}\n\
                 status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
            )
        };
        format!(
            "{}{}{}",
            pod("shop", "", 2),
            pod("gateway", ", istio: ingressgateway", 5),
            CONFIGURATION.replace("HOST", HOST)
        )
    }
}

const CONFIGURATION: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: gateway}
spec: {selector: {app: gateway}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [HOST]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [HOST]
  gateways: [edge]
  http: [{route: [{destination: {host: shop, port: {number: 8080}}}]}]
";
