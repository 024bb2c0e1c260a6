//! A control plane on the host whose webhooks a cluster asks, and the configurations that tell it
//! to.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{
    kube_cluster::KubeCluster,
    plane::{ControlPlane, program},
    process::{Process, until},
};
use serde_json::{Value, json};

/// For a change of the cluster to be seen, a busy machine allowed for.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The host's address that every cluster reaches.
const HOST: &str = "10.97.0.1";
/// Where the control plane listens for everything but webhooks.
const LOOPBACK: &str = "127.81.5.1";
/// The settings of injection, in its folder.
const SETTINGS: &str = "settings.yaml";

/// Fields are dropped in order: the process before its folder.
pub(crate) struct Plane {
    pub(crate) webhooks: String,
    process: Process,
    control: ControlPlane,
}

impl Plane {
    /// Starts one with an empty file system, whose webhooks are at `webhooks`, and waits until it
    /// is ready.
    pub(crate) fn start(cluster: &KubeCluster, webhooks: &str, options: &[&str]) -> Self {
        let control = ControlPlane::of_cluster(LOOPBACK, &cluster.kubeconfig());
        let settings = control.path(SETTINGS);
        std::fs::write(&settings, "drainTime: 7s\n").expect("a file");
        let control = control
            .with("--injection-settings", settings)
            .with("--webhook-address", webhooks)
            .with_all(options);
        Self { webhooks: webhooks.to_owned(), process: control.start(), control }
    }

    pub(crate) fn settings(&self) -> String {
        self.control.file(SETTINGS)
    }

    pub(crate) fn metrics(&self) -> String {
        self.control.metrics()
    }

    /// Waits for words in its log.
    pub(crate) fn until_said(&self, words: &str) {
        until(SOON, words, || self.process.output().contains(words));
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
        assert!(self.process.ended(SOON).is_some(), "it ends");
    }
}

/// An address that every cluster reaches, with a port that nobody has now.
pub(crate) fn free_address() -> String {
    let free = TcpListener::bind((HOST, 0)).expect("the bridge of the clusters has its address");
    free.local_addr().expect("it is bound").to_string()
}

/// The serial number of the certificate that an address shows.
pub(crate) fn serial(address: &str) -> String {
    let show = format!(
        "openssl s_client -connect {address} < /dev/null 2> /dev/null | openssl x509 -noout -serial"
    );
    let output = Command::new("bash").args(["-c", &show]).output().expect("bash runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What kubectl said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs kubectl with `input`.
pub(crate) fn kubectl(cluster: &KubeCluster, arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new(cluster.folder().join("bin/kubectl"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(arguments);
    run(command, input)
}

/// Runs `ferromesh inject` on `input`, as the control plane would inject it.
pub(crate) fn inject(plane: &Plane, input: &str) -> String {
    let mut command = program();
    command.args(["inject", "--file", "-", "--settings", &plane.settings()]);
    let said = run(command, input);
    assert!(said.success, "{}", said.stderr);
    said.stdout
}

fn run(mut command: Command, input: &str) -> Said {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        success: output.status.success(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

pub(crate) const INJECTOR: &str = "mutatingwebhookconfiguration/ferromesh-injector";
pub(crate) const VALIDATOR: &str = "validatingwebhookconfiguration/ferromesh-validator";
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The configurations of the chart, with an address of the host in place of the Service.
pub(crate) fn configurations(address: &str) -> String {
    let expression = |key: &str, operator: &str, values: &[&str]| {
        let mut expression = json!({ "key": key, "operator": operator });
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        expression
    };
    let not_system = expression("kubernetes.io/metadata.name", "NotIn", &SYSTEM);
    let revision = expression("istio.io/rev", "In", &["default"]);
    let no_revision = expression("istio.io/rev", "DoesNotExist", &[]);
    let no_label = expression("istio-injection", "DoesNotExist", &[]);
    let enabled = expression("istio-injection", "In", &["enabled"]);
    let willing = expression("sidecar.istio.io/inject", "NotIn", &["false"]);
    let asking = expression("sidecar.istio.io/inject", "In", &["true"]);
    let injector = |name: &str, namespaces: &[&Value], objects: &[&Value]| {
        json!({
            "name": format!("{name}.sidecar-injector.ferromesh.io"),
            "clientConfig": { "url": format!("https://{address}/inject") },
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 10,
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
            "matchConditions": [
                { "name": "own-network", "expression": "!has(object.spec.hostNetwork) || !object.spec.hostNetwork" },
            ],
            "namespaceSelector": { "matchExpressions": namespaces },
            "objectSelector": { "matchExpressions": objects },
        })
    };
    let injectors = [
        injector("rev.namespace", &[&revision, &no_label, &not_system], &[&willing]),
        injector("rev.object", &[&no_revision, &no_label, &not_system], &[&willing, &revision]),
        injector("namespace", &[&enabled, &not_system], &[&willing]),
        injector("object", &[&no_label, &no_revision, &not_system], &[&asking, &no_revision]),
    ];
    let validator = json!({
        "name": "rev.validation.ferromesh.io",
        "clientConfig": { "url": format!("https://{address}/validate") },
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 5,
        "rules": [{
            "apiGroups": ["networking.istio.io", "security.istio.io"], "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"], "resources": ["*"],
        }],
        "namespaceSelector": { "matchExpressions": [not_system] },
    });
    let configuration = |kind: &str, name: &str, webhooks: &[Value]| {
        let api = "admissionregistration.k8s.io/v1";
        json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name }, "webhooks": webhooks }).to_string()
    };
    [
        configuration("MutatingWebhookConfiguration", "ferromesh-injector", &injectors),
        configuration("ValidatingWebhookConfiguration", "ferromesh-validator", &[validator]),
    ]
    .join("\n---\n")
}

/// Every caBundle of a configuration; empty where there is none.
pub(crate) fn bundles(cluster: &KubeCluster, configuration: &str) -> Vec<String> {
    let text = cluster.kubectl(&["get", configuration, "--output", "json"]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let webhooks = value["webhooks"].as_array().cloned().unwrap_or_default();
    webhooks
        .iter()
        .map(|w| w["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits until every webhook has the same caBundle, and it is not `old`; returns it.
pub(crate) fn until_told(cluster: &KubeCluster, old: &str) -> String {
    let mut told = Vec::new();
    until(SOON, "the API server told the root", || {
        told = [INJECTOR, VALIDATOR].map(|configuration| bundles(cluster, configuration)).concat();
        told.iter().all(|bundle| !bundle.is_empty() && bundle != old && *bundle == told[0])
    });
    told.remove(0)
}
