//! A control plane of the cluster, run on this host on an address of its own.

use std::{path::Path, process::Command, time::Duration};

use ferromesh_integration::{
    cluster::Cluster,
    plane::{self, curl},
    process::{Process, until},
};

use crate::caller::Door;

/// For a change of the cluster to be seen, a busy machine allowed for.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Plane {
    pub(crate) host: &'static str,
    process: Process,
    dir: tempfile::TempDir,
}

impl Plane {
    /// Starts one with an empty file system, and waits until it is ready.
    pub(crate) fn start(host: &'static str, cluster: &Cluster, options: &[&str]) -> Self {
        let mut plane = Self::begin(host, cluster, options);
        plane.until_ready();
        plane
    }

    /// Starts one, and waits for nothing.
    pub(crate) fn begin(host: &'static str, cluster: &Cluster, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let process = Process::start("control-plane", dir.path(), serve(host, dir.path(), cluster, options));
        Self { host, process, dir }
    }

    pub(crate) fn until_ready(&mut self) {
        plane::until_ready(&mut self.process, self.host);
    }

    /// Where proxies come in, as one that trusts the file of roots.
    pub(crate) fn door(&self) -> Door {
        Door { host: self.host, roots: self.roots() }
    }

    /// The roots that it wrote to its own disk.
    pub(crate) fn roots(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("data/root-cert.pem")).expect("roots")
    }

    pub(crate) fn metrics(&self) -> String {
        curl(&format!("http://{}:15014/metrics", self.host)).unwrap_or_default()
    }

    pub(crate) fn workloads(&self) -> String {
        curl(&format!("http://{}:8080/api/v1/workloads", self.host)).unwrap_or_default()
    }

    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the log that has all these words.
    pub(crate) fn until_said(&self, words: &[&str]) {
        let says = |line: &str| words.iter().all(|w| line.contains(w));
        until(SOON, &format!("{words:?} in the log:\n{}", self.output()), || self.output().lines().any(says));
    }
}

/// A control plane that refuses to start: its last words.
pub(crate) fn refused(host: &'static str, cluster: &Cluster, options: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let output = serve(host, dir.path(), cluster, options).output().expect("it runs");
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(host: &str, dir: &Path, cluster: &Cluster, options: &[&str]) -> Command {
    let mut command = plane::serve(plane::program(), host, dir, &cluster.kubeconfig());
    command.args(options);
    command
}
