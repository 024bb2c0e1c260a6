//! One cluster: the chart is installed, tested, upgraded, rolled back and uninstalled, without a
//! gap and without a trace; then it is installed over definitions that somebody else owns.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    kube_cluster::KubeCluster,
    mesh::{Mesh, ROOT, archive, chart},
    process::until,
};

const SOON: Duration = Duration::from_secs(60);
/// Twice what is promised (30 s), for a machine that does something else besides.
const READY: Duration = Duration::from_secs(60);

/// Objects that come and go by themselves.
const FLEETING: [&str; 5] = [
    "events",
    "events.events.k8s.io",
    "endpointslices.discovery.k8s.io",
    "endpoints",
    "componentstatuses",
];

/// Every object of the cluster, as `kind namespace name`.
fn objects(cluster: &KubeCluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !FLEETING.contains(kind)).collect();
    let columns = "--output=custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name";
    let listed =
        cluster.kubectl(&["get", &kinds.join(","), "--all-namespaces", "--no-headers", columns]);
    let objects = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    // The node is there before its lease.
    objects.filter(|object| !object.starts_with("Lease kube-node-lease ")).collect()
}

fn field(cluster: &KubeCluster, object: &str, path: &str) -> String {
    cluster.kubectl(&[
        "get",
        object,
        "--namespace",
        ROOT,
        "--output",
        &format!("jsonpath={{{path}}}"),
    ])
}

/// Every value that the control plane's container has for a variable.
fn variables(cluster: &KubeCluster, name: &str) -> Vec<String> {
    let path = format!(".spec.template.spec.containers[0].env[?(@.name==\"{name}\")].value");
    let values = field(cluster, "deployment/ferromesh", &path);
    values.split_whitespace().map(str::to_owned).collect()
}

/// Connects to the control plane's webhooks all the time, until it is told to stop.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Caller {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut tried, mut failed) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                tried += 1;
                failed += usize::from(
                    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err(),
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            (tried, failed)
        });
        Self { stop, thread }
    }

    /// How often it tried, and failed.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only counts")
    }
}

/// What the notes say that an uninstalled release leaves.
fn left_on_purpose(object: &str) -> bool {
    let mut words = object.split(' ');
    let words = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
    match words {
        // The API server makes the latter of the former.
        ["CustomResourceDefinition" | "APIService", "<none>", name] => {
            [".istio.io", ".ferromesh.io"].iter().any(|ours| name.ends_with(ours))
        }
        ["ConfigMap", _, "istio-ca-root-cert"] | ["ConfigMap", ROOT, "ferromesh-refusals"] => true,
        ["Secret", ROOT, "ferromesh-ca"] | ["Lease", ROOT, "ferromesh-leader"] => true,
        ["Namespace", "<none>", ROOT] => true,
        // Kubernetes puts them into every namespace.
        ["ServiceAccount", ROOT, "default"] | ["ConfigMap", ROOT, "kube-root-ca.crt"] => true,
        _ => false,
    }
}

fn install_and_test(mesh: &Mesh) {
    let begin = Instant::now();
    mesh.upgrade(&[]);
    let took = begin.elapsed();
    #[allow(clippy::print_stderr, reason = "a figure for whoever reads the log")]
    {
        eprintln!("helm install, no values: ready after {:.1} s", took.as_secs_f64());
    }
    assert!(took < READY, "{took:?}");
    let said = mesh.helm(&["test", "ferromesh", "--namespace", ROOT]);
    assert!(said.contains("Phase:          Succeeded"), "{said}");
    let status = mesh.cluster.kubectl(&[
        "exec",
        "--namespace",
        ROOT,
        "deploy/ferromesh",
        "--",
        "/ferromesh",
        "proxy-status",
    ]);
    assert!(!status.is_empty());
}

/// The restricted standard, and nothing that the role forgot or has too much.
fn is_modest(mesh: &Mesh) {
    let cluster = &mesh.cluster;
    let label = ["label", "namespace", ROOT, "pod-security.kubernetes.io/enforce=restricted"];
    cluster.kubectl(&label);
    let account = format!("--as=system:serviceaccount:{ROOT}:ferromesh");
    for (verb, object) in [
        ("delete", "pods"),
        ("create", "pods"),
        ("update", "secrets"),
        ("get", "secrets/any"),
        ("escalate", "clusterroles"),
    ] {
        let answer = cluster.try_kubectl(&[
            "auth",
            "can-i",
            verb,
            object,
            "--namespace",
            "kube-system",
            &account,
        ]);
        // Certificates of gateways are read from any namespace.
        let expected = object == "secrets/any";
        assert_eq!(answer.is_ok_and(|a| a.trim() == "yes"), expected, "{verb} {object}");
    }
    // Of the ConfigMaps beside it, its own only.
    for (object, expected) in
        [("configmaps/ferromesh-connections-15", true), ("configmaps/istio", false)]
    {
        for verb in ["update", "delete"] {
            let question = ["auth", "can-i", verb, object, "--namespace", ROOT, &account];
            let allowed = cluster.try_kubectl(&question).is_ok_and(|a| a.trim() == "yes");
            assert_eq!(allowed, expected, "{verb} {object}");
        }
    }
    let log = cluster.kubectl(&["logs", "deployment/ferromesh", "--namespace", ROOT]);
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
}

fn bundle(cluster: &KubeCluster) -> String {
    field(
        cluster,
        "mutatingwebhookconfigurations/ferromesh-injector",
        ".webhooks[*].clientConfig.caBundle",
    )
}

fn upgrade_and_roll_back(mesh: &Mesh) {
    let cluster = &mesh.cluster;
    until(SOON, "the API server knows our webhooks", || !bundle(cluster).is_empty());
    let token = field(cluster, "secret/ferromesh-administrator", ".data.token");
    let known = bundle(cluster);
    let unchanged = |after: &str| {
        assert_eq!(bundle(cluster), known, "the bundle after {after}");
        assert_eq!(
            field(cluster, "secret/ferromesh-administrator", ".data.token"),
            token,
            "the token after {after}"
        );
    };
    let address =
        format!("{}:443", mesh.service_address(ROOT, "ferromesh")).parse().expect("an address");
    let caller = Caller::start(address);
    // One of the chart's own variables, which Helm merges by name.
    let log = "env.RUST_LOG=info,kube_client=off".replace(',', "\\,");
    let chosen = "info,kube_client=off";
    let usual = variables(cluster, "RUST_LOG");
    assert_eq!(usual.len(), 1, "{usual:?}");
    mesh.upgrade(&["replicas=2", "leafTtl=12h", &log]);
    unchanged("the upgrade");
    assert_eq!(variables(cluster, "RUST_LOG"), [chosen], "after the upgrade");
    assert_eq!(variables(cluster, "FERROMESH_LEAF_TTL"), ["12h"], "after the upgrade");
    until(SOON, "the budget guards both replicas", || {
        field(cluster, "poddisruptionbudget/ferromesh", ".status.currentHealthy") == "2"
    });
    mesh.helm(&["rollback", "ferromesh", "1", "--namespace", ROOT, "--wait", "--timeout", "240s"]);
    unchanged("the rollback");
    assert_eq!(variables(cluster, "RUST_LOG"), usual, "after the rollback");
    mesh.upgrade(&[&log]);
    assert_eq!(variables(cluster, "RUST_LOG"), [chosen], "after another upgrade");
    // With no value at all, Helm would take the last ones.
    mesh.upgrade(&["replicas=1"]);
    assert_eq!(variables(cluster, "RUST_LOG"), usual, "after an upgrade without it");
    let (tried, failed) = caller.stop();
    assert_eq!(failed, 0, "of {tried} connections");
    assert!(cluster.try_kubectl(&["get", "pdb", "ferromesh", "--namespace", ROOT]).is_err());
    assert_eq!(field(cluster, "deployment/ferromesh", ".spec.replicas"), "1");
}

fn uninstall(mesh: &Mesh, before: &BTreeSet<String>) {
    let cluster = &mesh.cluster;
    mesh.helm(&["uninstall", "ferromesh", "--namespace", ROOT, "--wait"]);
    let unnamed = || -> Vec<String> {
        objects(cluster)
            .difference(before)
            .filter(|object| !left_on_purpose(object))
            .cloned()
            .collect()
    };
    let patience = Instant::now() + SOON;
    while !unnamed().is_empty() {
        assert!(Instant::now() < patience, "left without a word in the notes: {:?}", unnamed());
        std::thread::sleep(Duration::from_millis(200));
    }

    // The notes' own commands remove the rest.
    cluster.kubectl(&["delete", "crd", "--selector", "app.kubernetes.io/name=ferromesh-crds"]);
    cluster.kubectl(&["delete", "secret", "ferromesh-ca", "--namespace", ROOT]);
    let words = ["lease/ferromesh-leader", "configmap/ferromesh-refusals", "--ignore-not-found"];
    cluster.kubectl(&[&["delete", "--namespace", ROOT], &words[..]].concat());
    let roots = [
        "delete",
        "configmap",
        "--all-namespaces",
        "--selector",
        "app.kubernetes.io/managed-by=ferromesh",
    ];
    cluster
        .kubectl(&[&roots[..], &["--field-selector", "metadata.name=istio-ca-root-cert"]].concat());
    cluster.kubectl(&["delete", "namespace", ROOT]);
    until(SOON, "nothing at all is left", || objects(cluster).difference(before).next().is_none());
}

/// Definitions that another manager made, with an object: Helm does not touch them unless told to,
/// and nothing is lost.
fn install_over_foreign_definitions(mesh: &Mesh) {
    let cluster = &mesh.cluster;
    let files = format!("{}/files", chart("ferromesh-crds"));
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "--field-manager=another-mesh",
        "--filename",
        &files,
    ]);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    cluster.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: kept}
spec: {hosts: [kept.example], http: [{route: [{destination: {host: kept.default.svc.cluster.local}}]}]}
",
    );
    let uid = field_of(cluster, "virtualservice/kept");
    let chart = chart("ferromesh");
    let install =
        ["upgrade", "--install", "ferromesh", &chart, "--namespace", ROOT, "--create-namespace"];
    let refused = mesh.try_helm(&install).expect_err("definitions of somebody else");
    assert!(
        refused.contains("exists and cannot be imported into the current release"),
        "{refused}"
    );
    mesh.upgrade(&["crds.enabled=false"]);
    let owner = cluster.kubectl(&[
        "get",
        "crd",
        "virtualservices.networking.istio.io",
        "--output=jsonpath={.metadata.annotations}",
    ]);
    assert!(!owner.contains("helm"), "{owner}");
    let wait = ["--wait", "--timeout", "240s", "--take-ownership", "--set", "crds.enabled=true"];
    mesh.helm(&[&install[..], &wait].concat());
    let owner = cluster.kubectl(&[
        "get",
        "crd",
        "virtualservices.networking.istio.io",
        "--output=jsonpath={.metadata.annotations}",
    ]);
    assert!(owner.contains("meta.helm.sh/release-name"), "{owner}");
    assert_eq!(field_of(cluster, "virtualservice/kept"), uid, "the object is the same");
}

fn field_of(cluster: &KubeCluster, object: &str) -> String {
    cluster.kubectl(&["get", object, "--output=jsonpath={.metadata.uid}"])
}

#[test]
fn the_chart_lives_without_a_gap_and_leaves_nothing_but_what_its_notes_name() {
    let mesh = Mesh { cluster: KubeCluster::up() };
    for image in ["control-plane", "proxy"] {
        mesh.cluster.load(&archive(image));
    }
    let before = objects(&mesh.cluster);
    install_and_test(&mesh);
    is_modest(&mesh);
    upgrade_and_roll_back(&mesh);
    uninstall(&mesh, &before);
    install_over_foreign_definitions(&mesh);
}
