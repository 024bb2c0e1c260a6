//! A control plane, and pods with a sidecar or as a gateway, all of one kind of proxy; beside them a
//! pod outside of the mesh.

use std::{path::Path, process::Command, time::Duration};

use ferromesh_integration::{
    namespace::{Bridge, Pod},
    plane::ControlPlane,
    process::{Process, until},
    sidecar::{PodProxy, publish_root, until_ready},
};

use crate::application::{serve, speak_first};

/// Longest wait until what a case brings is in force.
const LIMIT: Duration = Duration::from_secs(40);
/// The port of the applications.
const APPLICATION: u16 = 8080;
/// The port on which an application speaks first.
pub(crate) const BYTES: u16 = 7070;

/// Which proxy runs everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    Envoy,
    Ours,
}

/// A mesh on a bridge of its own. Fields are dropped in order: programs before the namespaces they
/// run in.
pub(crate) struct Mesh {
    processes: Vec<Process>,
    pub(crate) proxy: Proxy,
    pub(crate) client: Pod,
    pub(crate) edge: Pod,
    pub(crate) outsider: Pod,
    servers: Vec<Pod>,
    pub(crate) control: ControlPlane,
    third: u8,
    _bridge: Bridge,
}

/// An answer: its status, and head and body as text.
pub(crate) type Answer = (u16, String);

impl Mesh {
    pub(crate) fn start(third: u8, proxy: Proxy) -> Self {
        let bridge = Bridge::new(third);
        let control = ControlPlane::new(format!("127.77.{third}.1"))
            .listening("xds-tls", format!("10.77.{third}.1:15012"));
        let address = |last: u8| format!("10.77.{third}.{last}");
        let (kf, outside) = (address(12), address(16));
        let hosts = [
            ("kf-0.kf.shop.svc.cluster.local", kf.as_str()),
            ("vm.example", &kf),
            ("api.partner.test", &outside),
            ("multi.far.test", &outside),
            ("far.bank.test", &outside),
            // Nobody's: the proxy decides by the name.
            ("web", "10.96.0.1"),
            ("alias", "10.96.0.2"),
        ];
        let pod = |name: &str, last| Pod::new(&bridge, name, last, &hosts);
        let servers: Vec<Pod> =
            [("kf-0", 12), ("web-0", 13), ("web-1", 14)].map(|(name, last)| pod(name, last)).into();
        let mut mesh = Self {
            processes: Vec::new(),
            proxy,
            client: pod("client", 11),
            edge: pod("edge", 15),
            outsider: pod("outsider", 16),
            servers,
            control,
            third,
            _bridge: bridge,
        };
        mesh.control.write("mesh.yaml", mesh.here(include_str!("mesh.yaml")));
        mesh.settings("");
        let plane = mesh.control.start();
        publish_root(&mesh.control);
        for (pod, name) in mesh.servers.iter().zip(["kf-0", "web-0", "web-1"]) {
            serve(pod, name, APPLICATION);
        }
        speak_first(&mesh.servers[0], BYTES);
        serve(&mesh.outsider, "outsider", 80);
        mesh.processes = mesh.proxies();
        mesh.processes.push(plane);
        mesh
    }

    /// Starts every proxy, and waits until each is ready.
    fn proxies(&self) -> Vec<Process> {
        let sidecars = [
            (&self.client, "client", "client"),
            (&self.servers[0], "kf-0", "kf"),
            (&self.servers[1], "web-0", "web"),
            (&self.servers[2], "web-1", "web"),
        ];
        let started: Vec<(&Pod, Process)> = sidecars
            .into_iter()
            .map(|(pod, name, account)| {
                pod.redirect(&[]);
                (pod, self.start_proxy(pod, ["sidecar", "shop", account, name]))
            })
            .chain([(
                &self.edge,
                self.start_proxy(&self.edge, ["router", "istio-system", "edge", "edge"]),
            )])
            .collect();
        let wait = |(pod, mut process): (&Pod, Process)| {
            until_ready(&mut process, pod);
            process
        };
        started.into_iter().map(wait).collect()
    }

    fn start_proxy(&self, pod: &Pod, [role, namespace, account, name]: [&str; 4]) -> Process {
        let kind = if self.proxy == Proxy::Envoy { "envoy" } else { "run" };
        let proxy = PodProxy { kind, role, namespace, account, name, options: &[] };
        proxy.start(&self.control, &format!("10.77.{}.1:15012", self.third), pod)
    }

    /// A text whose addresses are those of this mesh.
    fn here(&self, text: &str) -> String {
        text.replace("10.77.0.", &format!("10.77.{}.", self.third))
    }

    /// Serves these objects beside those that are always there.
    pub(crate) fn serve(&self, objects: &str) {
        self.control.write("case.yaml", self.here(objects));
    }

    /// The mesh's settings, which have `more` beside that only what is known may be called.
    pub(crate) fn settings(&self, more: &str) {
        let settings = "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\n\
             metadata: {name: default}\nspec:\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
        self.control.write("settings.yaml", format!("{settings}{more}"));
    }

    /// The answer to a request of a pod, by curl; status 0 where there is none.
    pub(crate) fn ask(&self, pod: &Pod, arguments: &[&str]) -> Answer {
        let arguments = [&["-si", "-m", "15"][..], arguments].concat();
        let output = pod.exec(Path::new("curl"), &arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), text)
    }

    /// The answer to the client's request.
    pub(crate) fn call(&self, arguments: &[&str]) -> Answer {
        self.ask(&self.client, arguments)
    }

    /// Asks again until the answer is right.
    pub(crate) fn until(
        &self,
        what: &str,
        ask: impl Fn() -> Answer,
        right: impl Fn(&Answer) -> bool,
    ) {
        let mut last = (0, String::new());
        let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(LIMIT, what, || {
                last = ask();
                right(&last)
            });
        }));
        assert!(right.is_ok(), "{:?}: not {what}, but {last:?}", self.proxy);
    }

    /// Runs a server in the pod outside of the mesh.
    pub(crate) fn outside(&self, name: &str, program: &str, arguments: &[&str]) -> Process {
        let mut command: Command = self.outsider.command(Path::new(program));
        command.args(arguments);
        Process::start(name, self.control.folder(), command)
    }

    /// The address of a pod.
    pub(crate) fn address(&self, name: &str) -> std::net::Ipv4Addr {
        let pods = self.servers.iter().find(|pod| pod.name.ends_with(name));
        pods.unwrap_or_else(|| panic!("no pod {name}")).address
    }

    /// What a proxy is sent, as the control plane says it.
    pub(crate) fn sent(&self, name: &str) -> String {
        let listed = self.control.get("/api/v1/proxies").unwrap_or_default();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
        let mut ids =
            listed["items"].as_array().into_iter().flatten().filter_map(|p| p["id"].as_str());
        let id = ids.rfind(|id| id.contains(name)).unwrap_or_default().replace('~', "%7E");
        self.control.get(&format!("/api/v1/proxies/{id}/config")).unwrap_or_default()
    }
}

/// Whether an answer is a success that an application saw over mutual TLS of the client's account.
pub(crate) fn is_mutual((status, text): &Answer) -> bool {
    let by = "URI=spiffe://cluster.local/ns/shop/sa/client";
    *status == 200 && text.contains("x-forwarded-client-cert") && text.contains(by)
}
