//! Proxies in pods that are network namespaces: the one way in which tests start them there.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use crate::{
    namespace::{PROXY_USER, Pod},
    paths,
    plane::ControlPlane,
    process::Process,
};

/// The proxy of a pod.
pub struct PodProxy<'a> {
    /// `run`: our proxy; `envoy`.
    pub kind: &'a str,
    /// `sidecar`, or `router` for a gateway.
    pub role: &'a str,
    /// The workload's namespace in the mesh.
    pub namespace: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What else it is told.
    pub options: &'a [&'a str],
}

impl PodProxy<'_> {
    /// Starts it as the proxy's user, without waiting for it. `address`: of the control plane, for
    /// proxies that prove themselves. Its log, `NAME-proxy.log`, may be opened by it once more.
    ///
    /// # Panics
    /// A file cannot be written, or the root certificate was not published ([`publish_root`]).
    pub fn start(&self, control: &ControlPlane, address: &str, pod: &Pod) -> Process {
        let token = control.path(&format!("{}.token", self.name));
        let work = control.path(&format!("{}-work", self.name));
        fs::write(&token, control.join_token(self.namespace, self.account)).expect("a token file");
        allow(&token, 0o600);
        fs::create_dir(&work).expect("a directory");
        for path in [&token, &work] {
            chown(path, Some(PROXY_USER), Some(PROXY_USER)).expect("root may");
        }
        let mut command = pod.proxy_command(&paths::program("ferromesh-proxy"));
        command.arg(self.kind).args(["--type", self.role, "--namespace", self.namespace]);
        command.args(["--service-account", self.account, "--name", self.name]);
        command.args(["--ip", &pod.address.to_string(), "--control-plane", address]);
        command.arg("--root-cert").arg(control.path(ROOT));
        command.arg("--token-file").arg(&token).arg("--work-dir").arg(&work);
        command.args(["--concurrency", "1", "--drain-time", "1s"]);
        if self.kind == "envoy" {
            command.arg("--envoy-path").arg(paths::envoy());
        }
        command.args(self.options);
        let log = format!("{}-proxy", self.name);
        let path = control.path(&format!("{log}.log"));
        fs::write(&path, "").expect("a file");
        allow(&path, 0o666);
        Process::start(&log, control.folder(), command)
    }
}

/// Waits until the proxy of a pod is ready.
///
/// # Panics
/// It does not become so.
pub fn until_ready(process: &mut Process, pod: &Pod) {
    let probe = ["-sf", "-m", "10", "http://127.0.0.1:15021/healthz/ready"];
    process.until("ready", || pod.exec(Path::new("curl"), &probe).status.success());
}

/// The root certificate that proxies trust, in the control plane's folder.
const ROOT: &str = "root-cert.pem";

/// Lets proxies, which are another user, read the root of a control plane that runs, and what is
/// told to be for everybody in its folder. Private files keep their own modes.
///
/// # Panics
/// There is no root yet.
pub fn publish_root(control: &ControlPlane) {
    allow(control.folder(), 0o755);
    fs::copy(control.path("data/root-cert.pem"), control.path(ROOT)).expect("a root is published");
    allow(&control.path(ROOT), 0o644);
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The sidecar of a workload in namespace `default`.
pub struct Sidecar<'a> {
    /// The workload's name.
    pub name: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// `run`: our proxy; `envoy`.
    pub kind: &'a str,
    /// What else it is told.
    pub options: &'a [&'a str],
}

impl Sidecar<'_> {
    /// Redirects the pod's traffic, starts the sidecar ([`PodProxy::start`]), and waits until it is
    /// ready.
    ///
    /// # Panics
    /// As [`PodProxy::start`], and if it does not become ready.
    pub fn start(&self, control: &ControlPlane, address: &str, pod: &Pod) -> Process {
        pod.redirect(&[]);
        let Self { name, account, kind, options } = *self;
        let proxy =
            PodProxy { kind, role: "sidecar", namespace: "default", account, name, options };
        let mut process = proxy.start(control, address, pod);
        until_ready(&mut process, pod);
        process
    }
}
