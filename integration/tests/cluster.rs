//! The cluster that tests of Kubernetes run in: pods, services and names work, two run side by
//! side, and nothing is left of one that ended. Needs root, and what `integration/peers.sh kube`
//! installs.
#![cfg(feature = "kube")]

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use ferromesh_integration::{kube_cluster::KubeCluster, namespace::run, process::until};

const SERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers:
  - {name: probe, image: local/probe:1, args: [serve], readinessProbe: {periodSeconds: 1, httpGet: {port: 8080}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
";

/// A cluster in which the pod `server` is ready, behind the service `echo`.
fn serving() -> KubeCluster {
    let cluster = KubeCluster::up();
    cluster.load(&cluster.folder().join("probe.tar"));
    cluster.apply(SERVER);
    cluster.until_field("pod/server", ".status.conditions[?(@.type==\"Ready\")].status", "True");
    cluster
}

fn field(cluster: &KubeCluster, object: &str, path: &str) -> String {
    cluster.kubectl(&["get", object, "--output", &format!("jsonpath={{{path}}}")])
}

fn reachable(address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}

/// What the machine has because of a cluster: whatever names its folder, its number or its
/// containers.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    folder: bool,
    processes: Vec<String>,
    mounts: Vec<String>,
    links: Vec<String>,
    routes: Vec<String>,
    control_groups: Vec<PathBuf>,
}

impl Traces {
    fn of(mark: &Mark) -> Self {
        let lines = |text: &str, word: &str| {
            text.lines().filter(|l| l.contains(word)).map(str::to_owned).collect()
        };
        let mounts = fs::read_to_string("/proc/mounts").expect("Linux has it");
        let links = run("ip", &["-o", "link"]);
        let own: Vec<String> = lines(&links, &mark.folder);
        // A number that is free again may be another cluster's by now, and the routes with it.
        let taken = own.is_empty() && links.contains(&format!(": fmkube{}@", mark.number));
        let routes = if taken { String::new() } else { run("ip", &["route"]) };
        Self {
            folder: Path::new(&mark.folder).exists(),
            processes: processes(mark),
            mounts: lines(&mounts, &mark.folder),
            links: own,
            routes: lines(&routes, &format!(" 10.97.0.1{} ", mark.number)),
            control_groups: control_groups(Path::new("/sys/fs/cgroup"), &mark.containers),
        }
    }

    fn none() -> Self {
        let (processes, mounts, links, routes, control_groups) = Default::default();
        Self { folder: false, processes, mounts, links, routes, control_groups }
    }
}

/// How a cluster is recognised after its end.
struct Mark {
    folder: String,
    number: String,
    /// The network namespace, as the kernel numbers it.
    namespace: PathBuf,
    containers: Vec<String>,
}

impl Mark {
    fn of(cluster: &KubeCluster) -> Self {
        let read = |name| {
            fs::read_to_string(cluster.folder().join(name))
                .expect("a file of the cluster")
                .trim()
                .to_owned()
        };
        let ids = field(cluster, "pods", ".items[*].status.containerStatuses[*].containerID");
        Self {
            folder: cluster.folder().display().to_string(),
            number: read(".ferromesh-kube"),
            namespace: fs::read_link(format!("/proc/{}/ns/net", read("anchor.pid")))
                .expect("it runs"),
            containers: ids
                .split(' ')
                .filter_map(|id| id.strip_prefix("containerd://"))
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Processes that run in the cluster's network, or on whose command line its folder is. Those of
/// pods have a network of their own; their control groups stand for them.
fn processes(mark: &Mark) -> Vec<String> {
    let folders = fs::read_dir("/proc")
        .expect("Linux has it")
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let commands = folders.filter_map(|folder| {
        let command = fs::read_to_string(folder.join("cmdline")).ok()?;
        let inside =
            fs::read_link(folder.join("ns/net")).is_ok_and(|namespace| namespace == mark.namespace);
        (inside || command.contains(&mark.folder)).then_some(command)
    });
    commands.collect()
}

fn control_groups(folder: &Path, containers: &[String]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let folders = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path());
    let found = folders.flat_map(|path| {
        let own = containers.iter().any(|id| path.ends_with(id)).then(|| path.clone());
        own.into_iter().chain(control_groups(&path, containers))
    });
    found.collect()
}

#[test]
fn a_pod_of_a_scratch_image_is_served_by_name_and_nothing_is_left_of_its_cluster() {
    let cluster = serving();

    // A pod is ready a moment before the rules of its service are.
    let mut answer = String::new();
    until(Duration::from_secs(20), "the pod reaches itself through its service", || {
        let asked =
            cluster.try_kubectl(&["exec", "server", "--", "/probe", "get", "http://echo/itself"]);
        asked.map(|said| answer = said).is_ok()
    });
    assert_eq!(answer, "200 OK\nserver GET /itself\n");

    let url = "http://echo.default.svc.cluster.local/by-name";
    cluster.kubectl(&[
        "run",
        "client",
        "--image=local/probe:1",
        "--restart=Never",
        "--",
        "get",
        url,
    ]);
    cluster.until_field("pod/client", ".status.phase", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "client"]), "200 OK\nserver GET /by-name\n");

    let mark = Mark::of(&cluster);
    assert_eq!(mark.containers.len(), 2, "{:?}", mark.containers);
    let during = Traces::of(&mark);
    assert!(
        during.processes.len() > 8 && !during.links.is_empty() && !during.control_groups.is_empty(),
        "{during:?}"
    );
    drop(cluster);
    assert_eq!(Traces::of(&mark), Traces::none());
}

#[test]
fn two_clusters_reach_each_other_and_the_host_reaches_both() {
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(serving);
        let other = serving();
        (one.join().expect("the first cluster"), other)
    });
    let clusters = [&one, &other];
    let numbers: BTreeSet<String> = clusters.map(|cluster| Mark::of(cluster).number).into();
    assert_eq!(numbers.len(), 2, "{numbers:?}");
    let pods = clusters.map(|cluster| field(cluster, "pod/server", ".status.podIP"));
    let services = clusters.map(|cluster| field(cluster, "service/echo", ".spec.clusterIP"));
    for address in &pods {
        assert!(reachable(address, 8080), "the host does not reach the pod {address}");
    }
    for address in &services {
        until(Duration::from_secs(20), &format!("the host reaches the service {address}"), || {
            reachable(address, 80)
        });
    }
    for (cluster, pod) in [(&one, &pods[1]), (&other, &pods[0])] {
        let answer = cluster.kubectl(&[
            "exec",
            "server",
            "--",
            "/probe",
            "get",
            &format!("http://{pod}:8080/over"),
        ]);
        assert_eq!(answer, "200 OK\nserver GET /over\n");
    }
}

#[test]
fn an_api_server_that_is_killed_comes_back_with_everything_but_history() {
    let cluster = serving();
    let uid = field(&cluster, "pod/server", ".metadata.uid");
    let version = field(&cluster, "pod/server", ".metadata.resourceVersion");
    cluster.kubectl(&["label", "pod/server", "changed=once"]);
    cluster.compact();
    cluster.restart("apiserver");
    until(Duration::from_secs(60), "the API server answers again", || {
        cluster.try_kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer == "ok")
    });
    assert_eq!(field(&cluster, "pod/server", ".metadata.uid"), uid);
    let resumed = format!("/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion={version}");
    let answer = cluster.try_kubectl(&["get", "--raw", &resumed]);
    assert!(
        matches!(&answer, Ok(said) | Err(said) if said.contains("too old resource version")),
        "{answer:?}"
    );
}
