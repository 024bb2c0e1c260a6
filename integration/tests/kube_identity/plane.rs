//! A control plane of the cluster, run on this host on an address of its own.

use std::time::Duration;

use ferromesh_integration::{
    kube_cluster::KubeCluster,
    plane::ControlPlane,
    process::{Process, until},
};

use crate::caller::TlsPort;

/// For a change of the cluster to be seen, a busy machine allowed for.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Fields are dropped in order: the process before its folder.
pub(crate) struct Plane {
    host: &'static str,
    process: Process,
    control: ControlPlane,
}

impl Plane {
    /// Starts one with an empty file system, and waits until it is ready.
    pub(crate) fn start(host: &'static str, cluster: &KubeCluster, options: &[&str]) -> Self {
        let mut plane = Self::begin(host, cluster, options);
        plane.until_ready();
        plane
    }

    /// Starts one, and waits for nothing.
    pub(crate) fn begin(host: &'static str, cluster: &KubeCluster, options: &[&str]) -> Self {
        let control = of_cluster(host, cluster, options);
        Self { host, process: control.run(control.command()), control }
    }

    pub(crate) fn until_ready(&mut self) {
        self.control.until_ready(&mut self.process);
    }

    /// Where proxies come in, as one that trusts the file of roots.
    pub(crate) fn port(&self) -> TlsPort {
        TlsPort { host: self.host, roots: self.roots() }
    }

    /// The roots that it wrote to its own disk.
    pub(crate) fn roots(&self) -> String {
        self.control.roots()
    }

    pub(crate) fn metrics(&self) -> String {
        self.control.metrics()
    }

    pub(crate) fn workloads(&self) -> String {
        self.control.get("/api/v1/workloads").unwrap_or_default()
    }

    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the log that has all these words.
    pub(crate) fn until_said(&self, words: &[&str]) {
        let says = |line: &str| words.iter().all(|w| line.contains(w));
        until(SOON, &format!("{words:?} in the log:\n{}", self.output()), || {
            self.output().lines().any(says)
        });
    }
}

/// A control plane that refuses to start: its last words.
pub(crate) fn refused(host: &'static str, cluster: &KubeCluster, options: &[&str]) -> String {
    let control = of_cluster(host, cluster, options);
    let output = control.command().output().expect("it runs");
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn of_cluster(host: &str, cluster: &KubeCluster, options: &[&str]) -> ControlPlane {
    ControlPlane::of_cluster(host, &cluster.kubeconfig()).with_all(options)
}
