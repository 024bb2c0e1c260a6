//! A real Kubernetes cluster for one test, by `integration/kube.sh`. Ends, and leaves nothing, when
//! dropped.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::{paths, process::until};

/// A running cluster of one node.
pub struct KubeCluster {
    folder: PathBuf,
    // Last, so that the folder's parent outlives what `down` removes.
    _parent: tempfile::TempDir,
}

fn script(arguments: &[&str]) -> Output {
    let script = paths::project().join("integration/kube.sh");
    Command::new("bash").arg(script).args(arguments).output().expect("bash runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

impl KubeCluster {
    /// Starts the first cluster whose number is free. Minutes where its programs were never built,
    /// seconds otherwise.
    ///
    /// # Panics
    /// It does not start, with the reason and the last words of the part that is to blame.
    pub fn up() -> Self {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("kube");
        let output = script(&["up", text(&folder)]);
        assert!(
            output.status.success(),
            "no cluster:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { folder, _parent: parent }
    }

    /// Its folder: `kubeconfig`, `log/`, `probe.tar`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Credentials of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Imports an image archive.
    ///
    /// # Panics
    /// The container runtime does not take it.
    pub fn load(&self, archive: &Path) {
        let output = script(&["load", text(&self.folder), text(archive)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends one part (`apiserver`, `kubelet`, …) at once; it starts again by itself.
    ///
    /// # Panics
    /// There is no such part.
    pub fn restart(&self, part: &str) {
        let output = script(&["restart", text(&self.folder), part]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Forgets the history of all objects: after a restart of the API server, who resumes a watch
    /// is told 410 Gone.
    ///
    /// # Panics
    /// The store refuses.
    pub fn compact(&self) {
        let output = script(&["compact", text(&self.folder)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        command
    }

    /// Runs kubectl: what it printed, or what it complained about.
    ///
    /// # Errors
    /// kubectl failed; the text is its standard error.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().expect("kubectl runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs kubectl: what it printed.
    ///
    /// # Panics
    /// kubectl failed, with its words.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .unwrap_or_else(|e| panic!("kubectl {}: {e}", arguments.join(" ")))
    }

    /// Applies documents of YAML.
    ///
    /// # Panics
    /// The API server refuses one.
    pub fn apply(&self, yaml: &str) {
        let mut command = self.command(&["apply", "--filename", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(yaml.as_bytes()).expect("kubectl reads");
        drop(input);
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "{}in\n{yaml}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until a field of an object, given by a JSON path, has a value.
    ///
    /// # Panics
    /// It does not within a minute.
    pub fn until_field(&self, object: &str, path: &str, value: &str) {
        let output = format!("jsonpath={{{path}}}");
        until(Duration::from_secs(60), &format!("{path} of {object} is {value}"), || {
            self.try_kubectl(&["get", object, "--output", &output])
                .is_ok_and(|found| found == value)
        });
    }
}

impl Drop for KubeCluster {
    fn drop(&mut self) {
        let output = script(&["down", text(&self.folder)]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("the cluster did not end: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
