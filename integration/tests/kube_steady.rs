//! Constant load through sidecars, and not one failed request, whatever happens meanwhile:
//! applications are rolled and scaled, the control plane is killed and comes back elsewhere with an
//! empty file system, the API server restarts and forgets its history, certificates rotate, the
//! chart is upgraded and rolled back, a crowd of services comes and goes. Needs root, the images of
//! `integration/images.sh`, and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    mesh::{Mesh, ROOT},
    process::until,
};
use serde::Deserialize;

/// Lifetime of certificates: short, so that they rotate all the time.
const VALUES: [&str; 1] = ["leafTtl=30s"];
/// Requests a second of each caller.
const RATE: u32 = 40;
const LATE: Duration = Duration::from_secs(120);

/// What `fm-peer load` counted.
#[derive(Deserialize)]
struct Counts {
    answered: u64,
    failed: u64,
    /// The first of them, in words.
    failures: Vec<String>,
}

/// A caller and a callee, each kind of proxy on either side.
fn town() -> String {
    let mut yaml = String::from(
        "
apiVersion: v1
kind: Namespace
metadata: {name: town, labels: {istio-injection: enabled}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: town}
spec: {mtls: {mode: STRICT}}
",
    );
    for kind in ["ferromesh", "envoy"] {
        write!(
            yaml,
            "---
apiVersion: v1
kind: Service
metadata: {{name: server-{kind}, namespace: town}}
spec: {{selector: {{app: server-{kind}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: server-{kind}, namespace: town}}
spec:
  replicas: 2
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: server-{kind}}}}}
  template:
    metadata: {{labels: {{app: server-{kind}, ferromesh.io/proxy: {kind}}}}}
    spec:
      containers:
      - name: app
        image: ferromesh/sample:0.1.0
        args: [serve, \"0.0.0.0:8080\", server, v1, \"4\"]
        readinessProbe: {{periodSeconds: 1, httpGet: {{port: 8080}}}}
"
        )
        .expect("memory");
    }
    yaml
}

/// A caller of every server; it begins once the servers are ready.
fn callers() -> String {
    let mut yaml = String::new();
    for (kind, server) in pairs() {
        write!(
            yaml,
            "
apiVersion: v1
kind: Pod
metadata: {{name: {kind}-to-{server}, namespace: town, labels: {{app: caller, ferromesh.io/proxy: {kind}}}}}
spec:
  restartPolicy: Never
  containers: [{{name: app, image: \"ferromesh/sample:0.1.0\", args: [load, \"http://server-{server}.town/\", \"{RATE}\"]}}]
---"
        )
        .expect("memory");
    }
    yaml
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["ferromesh", "envoy"]
        .into_iter()
        .flat_map(|caller| ["ferromesh", "envoy"].map(|server| (caller, server)))
}

struct Town {
    mesh: Mesh,
}

impl Town {
    fn counts(&self, caller: &str) -> Counts {
        let pod = format!("pod/{caller}");
        let said = self.mesh.cluster.kubectl(&[
            "logs",
            &pod,
            "--namespace=town",
            "--container=app",
            "--tail=1",
        ]);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{caller}: {e}: {said}"))
    }

    /// Does something, and checks that requests went on meanwhile and that none failed.
    fn steady(&self, what: &str, act: impl FnOnce(&Mesh)) {
        let begin = Instant::now();
        let before: Vec<u64> =
            pairs().map(|(a, b)| self.counts(&format!("{a}-to-{b}")).answered).collect();
        act(&self.mesh);
        for ((a, b), before) in pairs().zip(before) {
            let caller = format!("{a}-to-{b}");
            // What came of the last moment's changes shows in the next answers.
            let enough = before + 3 * u64::from(RATE);
            until(LATE, &format!("{caller} goes on"), || self.counts(&caller).answered > enough);
            let counts = self.counts(&caller);
            let Counts { answered, failed, failures } = counts;
            let words = failures.join("\n  ");
            assert!(
                failed == 0,
                "{caller}, {what}: {failed} of {answered} failed:\n  {words}\n{}",
                self.mesh.story("town")
            );
        }
        #[allow(
            clippy::print_stderr,
            reason = "progress, which the test runner shows when the test fails"
        )]
        {
            eprintln!("-- {what}: no failed request, {:.0} s", begin.elapsed().as_secs_f64());
        }
    }
}

fn roll(mesh: &Mesh) {
    for kind in ["ferromesh", "envoy"] {
        let deployment = format!("deployment/server-{kind}");
        mesh.cluster.kubectl(&["rollout", "restart", &deployment, "--namespace=town"]);
        mesh.ready("town", &deployment);
    }
}

fn scale(mesh: &Mesh, replicas: u32) {
    for kind in ["ferromesh", "envoy"] {
        let deployment = format!("deployment/server-{kind}");
        mesh.cluster.kubectl(&[
            "scale",
            &deployment,
            "--namespace=town",
            &format!("--replicas={replicas}"),
        ]);
    }
    for kind in ["ferromesh", "envoy"] {
        mesh.ready("town", &format!("deployment/server-{kind}"));
        let count = || {
            let selector = format!("--selector=app=server-{kind}");
            mesh.cluster
                .kubectl(&["get", "pods", "--namespace=town", &selector, "--output=name"])
                .lines()
                .count()
        };
        until(LATE, &format!("{replicas} pods of kind {kind}"), || count() == replicas as usize);
    }
}

/// The addresses of the control plane's pods.
fn control_plane(mesh: &Mesh) -> String {
    let output = "jsonpath={.items[*].status.podIP}";
    mesh.cluster.kubectl(&[
        "get",
        "pods",
        "--namespace",
        ROOT,
        "--selector=app=ferromesh",
        "--output",
        output,
    ])
}

fn kill_the_control_plane(mesh: &Mesh) {
    let before = control_plane(mesh);
    let kill = [
        "delete",
        "pods",
        "--namespace",
        ROOT,
        "--selector=app=ferromesh",
        "--force",
        "--grace-period=0",
    ];
    mesh.cluster.kubectl(&kill);
    mesh.ready(ROOT, "deployment/ferromesh");
    assert_ne!(control_plane(mesh), before, "the successor has another address");
}

fn restart_the_api_server(mesh: &Mesh) {
    mesh.cluster.restart("apiserver");
    until(LATE, "the API server answers again", || {
        mesh.cluster.try_kubectl(&["get", "--raw", "/readyz"]).is_ok()
    });
}

/// Every certificate of the callers' and servers' proxies is another one afterwards.
fn rotate(mesh: &Mesh) {
    let expiry = |(kind, server): (&str, &str)| {
        let pod = format!("pod/{kind}-to-{server}");
        let ask = [
            "exec",
            &pod,
            "--namespace=town",
            "--container=app",
            "--",
            "/fm-peer",
            "text",
            "http://127.0.0.1:15000/certs",
        ];
        mesh.cluster.try_kubectl(&ask).unwrap_or_default()
    };
    let before: Vec<String> = pairs().map(expiry).collect();
    for (pair, before) in pairs().zip(before) {
        until(LATE, "another certificate", || {
            let now = expiry(pair);
            !now.is_empty() && now != before
        });
    }
}

fn a_crowd_comes_and_goes(mesh: &Mesh) {
    let mut yaml = String::from("apiVersion: v1\nkind: Namespace\nmetadata: {name: crowd}\n");
    for n in 0..50 {
        write!(
            yaml,
            "---
apiVersion: v1
kind: Service
metadata: {{name: crowd-{n}, namespace: crowd}}
spec: {{selector: {{app: nobody}}, ports: [{{name: http, port: 80}}]}}
"
        )
        .expect("memory");
    }
    mesh.cluster.apply(&yaml);
    mesh.cluster.kubectl(&["delete", "namespace", "crowd", "--timeout=120s"]);
}

#[test]
fn no_request_fails_whatever_happens_to_the_mesh() {
    let town = Town { mesh: Mesh::install(&VALUES) };
    town.mesh.cluster.apply(&self::town());
    for kind in ["ferromesh", "envoy"] {
        town.mesh.ready("town", &format!("deployment/server-{kind}"));
    }
    town.mesh.cluster.apply(&callers());
    let wait = [
        "wait",
        "pods",
        "--selector=app=caller",
        "--namespace=town",
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    town.mesh
        .cluster
        .try_kubectl(&wait)
        .unwrap_or_else(|e| panic!("{e}\n{}", town.mesh.story("town")));
    for (caller, server) in pairs() {
        let caller = format!("{caller}-to-{server}");
        until(LATE, &format!("{caller} begins"), || {
            let pod = format!("pod/{caller}");
            let said = town.mesh.cluster.try_kubectl(&[
                "logs",
                &pod,
                "--namespace=town",
                "--container=app",
                "--tail=1",
            ]);
            said.is_ok_and(|said| said.contains("\"answered\":"))
        });
    }

    town.steady("nothing happens", |_| ());
    town.steady("the application is rolled", roll);
    town.steady("the application is rolled again", roll);
    town.steady("it is scaled to six", |mesh| scale(mesh, 6));
    town.steady("it is scaled to two", |mesh| scale(mesh, 2));
    town.steady("the control plane is killed", kill_the_control_plane);
    town.steady("certificates rotate", rotate);
    town.steady("the API server restarts", restart_the_api_server);
    town.steady("the API server forgets its history", |mesh| {
        mesh.cluster.compact();
        restart_the_api_server(mesh);
    });
    town.steady("a crowd of services comes and goes", a_crowd_comes_and_goes);
    town.steady("the chart is upgraded", |mesh| mesh.upgrade(&[VALUES[0], "logLevel=debug"]));
    town.steady("the chart is rolled back", |mesh| {
        mesh.helm(&["rollback", "ferromesh", "--namespace", ROOT, "--wait", "--timeout", "240s"]);
    });
    town.steady("certificates rotate after all that", rotate);
}
