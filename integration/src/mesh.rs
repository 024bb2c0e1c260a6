//! The mesh installed in a real cluster by its chart, and the applications of tests in it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{kube_cluster::KubeCluster, paths, process::until};

/// The namespace that the mesh is installed in.
pub const ROOT: &str = "istio-system";
/// Time for pods to come up on a busy machine.
const ROLLOUT: &str = "--timeout=240s";

/// A cluster with the mesh in it. Ends with it, and leaves nothing.
pub struct Mesh {
    /// The cluster.
    pub cluster: KubeCluster,
}

/// What `fm-peer get` counted.
#[derive(Deserialize, Debug)]
pub struct Answers {
    /// How often each status came.
    pub statuses: BTreeMap<String, usize>,
    /// How often each version of the application answered.
    pub versions: BTreeMap<String, usize>,
    /// Why requests got no answer at all.
    pub failed: Vec<String>,
    /// The last answer's body.
    pub last: Value,
}

impl Answers {
    /// How many answers had this status.
    pub fn status(&self, status: u16) -> usize {
        self.statuses.get(&status.to_string()).copied().unwrap_or_default()
    }

    /// How many answers this version of the application gave.
    pub fn version(&self, version: &str) -> usize {
        self.versions.get(version).copied().unwrap_or_default()
    }

    /// A header that the application saw in the last request.
    pub fn seen(&self, header: &str) -> &str {
        self.last["headers"][header].as_str().unwrap_or_default()
    }
}

impl Mesh {
    /// Starts a cluster, loads the images that `integration/images.sh` built, and installs the
    /// chart with `values` (as `name=value`). Returns once the control plane is ready; says how
    /// long that took.
    ///
    /// # Panics
    /// Anything fails, with its words.
    pub fn install(values: &[&str]) -> Self {
        let mesh = Self { cluster: KubeCluster::up() };
        for image in ["control-plane", "proxy", "envoy", "sample"] {
            mesh.cluster.load(&archive(image));
        }
        let begin = Instant::now();
        mesh.upgrade(values);
        #[allow(clippy::print_stderr, reason = "a figure for whoever reads the log")]
        {
            eprintln!(
                "the chart was installed and ready after {:.1} s",
                begin.elapsed().as_secs_f64()
            );
        }
        mesh
    }

    /// Installs the chart, or upgrades it, and waits until it is ready.
    ///
    /// # Panics
    /// Helm fails, with its words.
    pub fn upgrade(&self, values: &[&str]) {
        let chart = chart("ferromesh");
        let mut arguments = vec![
            "upgrade",
            "--install",
            "ferromesh",
            &chart,
            "--namespace",
            ROOT,
            "--create-namespace",
        ];
        arguments.extend(["--wait", "--timeout", "240s"]);
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        self.helm(&arguments);
    }

    /// Runs Helm: what it printed.
    ///
    /// # Panics
    /// Helm fails, with its words and those of the pods that it was about.
    pub fn helm(&self, arguments: &[&str]) -> String {
        let namespace =
            arguments.iter().skip_while(|a| **a != "--namespace").nth(1).copied().unwrap_or(ROOT);
        let said = self.try_helm(arguments);
        said.unwrap_or_else(|e| {
            panic!("helm {}: {e}\n{}", arguments.join(" "), self.story(namespace))
        })
    }

    /// Runs Helm: what it printed.
    ///
    /// # Errors
    /// Helm failed; the text is its standard error.
    pub fn try_helm(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.cluster.folder().join("bin/helm"));
        let output =
            command.arg("--kubeconfig").arg(self.cluster.kubeconfig()).args(arguments).output();
        let output = output.expect("helm runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Waits until the newest form of a workload (`deployment/NAME`) is ready.
    ///
    /// # Panics
    /// It does not become so; tells what its namespace's pods and events say.
    pub fn ready(&self, namespace: &str, workload: &str) {
        let status = self.cluster.try_kubectl(&[
            "rollout",
            "status",
            workload,
            "--namespace",
            namespace,
            ROLLOUT,
        ]);
        status.unwrap_or_else(|e| {
            panic!("{workload} in {namespace}: {e}\n{}", self.story(namespace))
        });
    }

    /// Runs a command of the sample application in a workload's container `app`: what it printed,
    /// or complained about.
    ///
    /// # Errors
    /// It ended with another code than 0; the text is its standard error.
    pub fn peer(
        &self,
        namespace: &str,
        workload: &str,
        arguments: &[&str],
    ) -> Result<String, String> {
        let begin =
            ["exec", "--namespace", namespace, workload, "--container", "app", "--", "/fm-peer"];
        self.cluster.try_kubectl(&[&begin[..], arguments].concat())
    }

    /// Sends requests from a workload.
    ///
    /// # Panics
    /// The workload cannot send.
    pub fn get(
        &self,
        namespace: &str,
        workload: &str,
        url: &str,
        count: usize,
        headers: &[&str],
    ) -> Answers {
        let count = count.to_string();
        let said = self.peer(namespace, workload, &[&["get", url, &count], headers].concat());
        let said = said.unwrap_or_else(|e| panic!("{workload} asks {url}: {e}"));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{workload} asks {url}: {e}: {said}"))
    }

    /// Asks from a workload, 20 requests at a time, until `right` holds: changes take a moment to
    /// arrive.
    ///
    /// # Panics
    /// It does not within a minute; shows the last answers.
    pub fn until(
        &self,
        (namespace, workload): (&str, &str),
        url: &str,
        headers: &[&str],
        right: impl Fn(&Answers) -> bool,
    ) {
        let begin = Instant::now();
        loop {
            let answers = self.get(namespace, workload, url, 20, headers);
            if right(&answers) {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{workload} asks {url}: {answers:#?}\n{}",
                self.story(ROOT)
            );
        }
    }

    /// What the pods of a namespace say, for a test that failed.
    pub fn story(&self, namespace: &str) -> String {
        let ask = |arguments: &[&str]| {
            let namespaced = [arguments, &["--namespace", namespace]].concat();
            self.cluster.try_kubectl(&namespaced).unwrap_or_else(|e| e)
        };
        let pods = ask(&["get", "pods", "--output", "wide"]);
        let events = ask(&["get", "events", "--sort-by=.lastTimestamp"]);
        let control = self.cluster.try_kubectl(&[
            "logs",
            "deployment/ferromesh",
            "--namespace",
            ROOT,
            "--tail=40",
        ]);
        let words = [pods, last(&events, 25), last(&control.unwrap_or_else(|e| e), 40)];
        words.concat()
    }

    /// Waits until a JSON path of an object satisfies `right`.
    ///
    /// # Panics
    /// It does not within a minute; shows the last value.
    pub fn until_status(
        &self,
        namespace: &str,
        object: &str,
        path: &str,
        right: impl Fn(&str) -> bool,
    ) {
        let output = format!("jsonpath={{{path}}}");
        let mut found = String::new();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            let asked = self.cluster.try_kubectl(&[
                "get",
                object,
                "--namespace",
                namespace,
                "--output",
                &output,
            ]);
            found = asked.unwrap_or_else(|e| e);
            if right(&found) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{object}, {path}: {found}\n{}", self.story(ROOT));
    }

    /// The address of a Service in the cluster, which the host reaches too.
    pub fn service_address(&self, namespace: &str, service: &str) -> String {
        let object = format!("service/{service}");
        self.cluster.kubectl(&[
            "get",
            &object,
            "--namespace",
            namespace,
            "--output",
            "jsonpath={.spec.clusterIP}",
        ])
    }

    /// Waits until no pod of a namespace has a label.
    ///
    /// # Panics
    /// One is there after a minute.
    pub fn until_gone(&self, namespace: &str, label: &str) {
        until(Duration::from_secs(60), &format!("{label} gone from {namespace}"), || {
            let pods = self.cluster.kubectl(&[
                "get",
                "pods",
                "--namespace",
                namespace,
                "--selector",
                label,
                "--output=name",
            ]);
            pods.is_empty()
        });
    }
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let tail = all[all.len().saturating_sub(lines)..].join("\n");
    format!("\n{tail}\n")
}

/// A chart of this project.
pub fn chart(name: &str) -> String {
    paths::project().join("helm").join(name).display().to_string()
}

/// An image archive of `integration/images.sh`.
///
/// # Panics
/// It was not built.
pub fn archive(image: &str) -> PathBuf {
    let path = paths::project().join("target/images").join(format!("{image}.tar"));
    assert!(
        fs::exists(&path).unwrap_or(false),
        "{} is not there: run integration/images.sh",
        path.display()
    );
    path
}
