//! Sidecars in pods that are network namespaces.

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
    /// Redirects the pod's traffic, starts the sidecar as the proxy's user, and waits until it is
    /// ready. `address`: of the control plane, for proxies that prove themselves.
    ///
    /// # Panics
    /// A file cannot be written, or it does not become ready.
    pub fn start(&self, control: &ControlPlane, address: &str, pod: &Pod) -> Process {
        pod.redirect(&[]);
        let token = control.file(&format!("{}.token", self.name));
        let work = control.file(&format!("{}-work", self.name));
        fs::write(&token, control.join_token("default", self.account)).expect("a token file");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::create_dir(&work).expect("a directory");
        for path in [&token, &work] {
            chown(path, Some(PROXY_USER), Some(PROXY_USER)).expect("root may");
        }
        let mut command = pod.proxy_command(&paths::program("ferromesh-proxy"));
        command.arg(self.kind).args(["--control-plane", address]);
        command.args(["--root-cert", &control.file("root-cert.pem"), "--token-file", &token]);
        command.args(["--work-dir", &work, "--namespace", "default"]);
        command.args(["--service-account", self.account, "--name", self.name]);
        command.args(["--ip", &pod.address.to_string(), "--concurrency", "1"]);
        command.args(["--drain-time", "1s"]).args(self.options);
        if self.kind == "envoy" {
            command.arg("--envoy-path").arg(paths::envoy());
        }
        let name = format!("{}-proxy", self.name);
        let mut process = Process::start(&name, control.folder(), command);
        let probe = ["-sf", "-m", "10", "http://127.0.0.1:15021/healthz/ready"];
        process.until("ready", || pod.exec(Path::new("curl"), &probe).status.success());
        process
    }
}
