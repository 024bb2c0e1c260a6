//! A control plane with a sidecar's and a gateway's Envoy, to which one configuration after the
//! other is served.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    certificate::self_signed,
    namespace::{Bridge, Pod},
    plane::ControlPlane,
    process::Process,
    random_mesh::base,
    sidecar::{PodProxy, publish_root},
    wasm_module,
};
use serde_json::{Value, json};

use crate::text_of;

/// Longest wait until a configuration has come to both proxies.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Ports that tell one configuration from the one before; each brings a listener to both proxies.
const MARKS: (u16, u64) = (20_000, 10_000);

/// Fields are dropped in order: programs before the namespaces they run in.
pub(crate) struct Site {
    _processes: Vec<Process>,
    pods: [Pod; 2],
    control: ControlPlane,
    credential: [String; 3],
    third: u8,
    _bridge: Bridge,
}

impl Site {
    pub(crate) fn start(third: u8) -> Self {
        let bridge = Bridge::new(third);
        let control = ControlPlane::new(format!("127.77.{third}.1"))
            .listening("xds-tls", format!("10.77.{third}.1:15012"));
        let pods =
            [("app", 11), ("edge", 12)].map(|(name, last)| Pod::new(&bridge, name, last, &[]));
        for pod in &pods {
            // Nobody answers for names: clusters of names do not wait for a server that is not there.
            let file = Path::new("/etc/netns").join(&pod.name).join("resolv.conf");
            fs::write(file, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
                .expect("a file");
        }
        let credential = files(&control);
        let mut site =
            Self { _processes: Vec::new(), pods, control, credential, third, _bridge: bridge };
        site.write(0, &[]);
        let plane = site.control.start();
        publish_root(&site.control);
        let sidecar = site.envoy(0, ["sidecar", "shop", "account0", "app-0"]);
        let gateway = site.envoy(1, ["router", "istio-system", "edge", "edge-0"]);
        site._processes = vec![sidecar, gateway, plane];
        site.arrived(0).expect("the mesh without random objects comes");
        site
    }

    fn envoy(&self, pod: usize, [role, namespace, account, name]: [&str; 4]) -> Process {
        let options = &["--all-statistics"];
        let proxy = PodProxy { kind: "envoy", role, namespace, account, name, options };
        let address = format!("10.77.{}.1:15012", self.third);
        proxy.start(&self.control, &address, &self.pods[pod])
    }

    /// Serves objects beside those that are always there, and waits until both proxies have what
    /// comes of them; the file, and what did not come.
    pub(crate) fn serve(&self, number: u64, objects: &[Value]) -> (String, Result<(), String>) {
        let mark = number + 1;
        let text = self.write(mark, objects);
        let arrived = self.arrived(mark);
        (text, arrived)
    }

    fn write(&self, mark: u64, objects: &[Value]) -> String {
        let addresses = [0, 1].map(|pod: usize| self.pods[pod].address.to_string());
        let credential = [0, 1, 2].map(|part: usize| self.credential[part].as_str());
        let always = base([&addresses[0], &addresses[1]], credential);
        let marks = marks(mark);
        let objects: Vec<Value> = objects.iter().cloned().map(seeing_marks).collect();
        let text = text_of(always.iter().chain(&marks).chain(&objects));
        // What the objects name as files of the proxy's machine is there.
        let text = text
            .replace(
                "file:///opt/plugin.wasm",
                &format!("file://{}", self.control.file("tea.wasm")),
            )
            .replace("/etc/certs/", &self.control.file(""));
        // In one step, so that no half of it is read.
        let (new, file) = (self.control.path("new.yaml"), self.control.path("config/mesh.yaml"));
        fs::write(&new, &text).and_then(|()| fs::rename(&new, file)).expect("a file");
        text
    }

    /// Waits until both proxies have a configuration's listener, and what else there is was sent
    /// and answered; what is missing, if it does not come.
    fn arrived(&self, mark: u64) -> Result<(), String> {
        let name = format!("0.0.0.0_{}", port(mark));
        let listed = |pod: &Pod| {
            admin(pod, "/config_dump?resource=dynamic_listeners&mask=name").contains(&name)
        };
        let begin = Instant::now();
        loop {
            let lacking: Vec<&str> =
                self.pods.iter().filter(|pod| !listed(pod)).map(|pod| &*pod.name).collect();
            let proxies = self.control.get("/api/v1/proxies").unwrap_or_default();
            let listed: Value = serde_json::from_str(&proxies).unwrap_or_default();
            let connected = listed["items"].as_array().map_or(0, Vec::len);
            if lacking.is_empty() && connected == 2 && !proxies.contains("STALE") {
                return Ok(());
            }
            if begin.elapsed() > ARRIVAL {
                let warming = |pod: &Pod| {
                    let path = "/config_dump?resource=dynamic_warming_clusters&mask=cluster.name";
                    format!("{}: {}", pod.name, admin(pod, path))
                };
                let warming: Vec<String> = self.pods.iter().map(warming).collect();
                return Err(format!(
                    "without {name}: {lacking:?}\n{proxies}\nclusters that warm: {warming:?}"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What was said by proxies whose Envoy has ended and was started again. One that dies takes
    /// what comes after its restart, so that nothing else would tell.
    pub(crate) fn endings(&self) -> Vec<String> {
        let of = |name: &&str| {
            let path = self.control.path(&format!("{name}-proxy.log"));
            let log = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let said: Vec<&str> = log.lines().filter(|line| is_of_an_end(line)).collect();
            log.contains(ENDED).then(|| format!("{name}:\n{}", said.join("\n")))
        };
        ["app-0", "edge-0"].iter().filter_map(of).collect()
    }

    /// What the proxies refuse.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        let listed = self.control.get("/api/v1/diagnostics").unwrap_or_default();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let items = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let refused = items.iter().filter(|finding| finding["code"] == "FM0401");
        said.extend(refused.map(ToString::to_string));
        for pod in &self.pods {
            let stats = admin(pod, "/stats?filter=update_rejected|listener_create_failure");
            let counted = stats.lines().filter(|line| !line.ends_with(": 0"));
            said.extend(counted.map(|line| format!("{}: {line}", pod.name)));
        }
        said
    }
}

/// What proxies read beside their configuration: a module, and a credential as the objects name its
/// files; its parts as text.
fn files(control: &ControlPlane) -> [String; 3] {
    let about = ["-subj", "/CN=ext.example.com", "-addext", "subjectAltName=DNS:ext.example.com"];
    let (chain, key) = self_signed(control.folder(), "cert", &about);
    let module = wasm_module::write(control.folder());
    let names = [(&chain, "chain.pem"), (&key, "key.pem"), (&chain, "ca.pem")];
    for (from, name) in names {
        fs::copy(from, control.path(name)).expect("a file");
        allow(&control.path(name), 0o644);
    }
    allow(&module, 0o644);
    [chain.clone(), key, chain].map(|path| fs::read_to_string(path).expect("PEM"))
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn port(mark: u64) -> u16 {
    MARKS.0 + u16::try_from(mark % MARKS.1).expect("below the count of ports")
}

/// The label of the namespaces that are seen, whatever the mesh's settings leave out.
const SEEN: (&str, &str) = ("marks", "seen");

/// Objects that bring a listener of their own to both proxies.
fn marks(mark: u64) -> Vec<Value> {
    let port = json!({"number": port(mark), "name": "http", "protocol": "HTTP"});
    let object = |kind: &str, namespace: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": {"name": "mark", "namespace": namespace,
                "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": spec,
        })
    };
    let namespace = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {SEEN.0: SEEN.1}},
        })
    };
    vec![
        namespace("marks"),
        namespace("shop"),
        namespace("istio-system"),
        object(
            "ServiceEntry",
            "marks",
            json!({"hosts": ["mark.marks.test"], "ports": [port], "resolution": "STATIC",
                "endpoints": [{"address": "10.99.0.1"}], "exportTo": ["*"]}),
        ),
        object(
            "Gateway",
            "istio-system",
            json!({"selector": {"istio": "ingressgateway"},
                "servers": [{"port": port, "hosts": ["mark.marks.test"]}]}),
        ),
    ]
}

/// The same object, changed so that the marks are seen beside whatever else it lets be seen.
fn seeing_marks(mut object: Value) -> Value {
    match object["kind"].as_str() {
        Some("Sidecar") => see_in_sidecar(&mut object["spec"]),
        Some("MeshConfig") => {
            let selectors = object["spec"].get_mut("discoverySelectors");
            if let Some(selectors) = selectors.and_then(Value::as_array_mut) {
                selectors.push(json!({"matchLabels": {SEEN.0: SEEN.1}}));
            }
        }
        Some("EnvoyFilter") => {
            let patches = object["spec"].get_mut("configPatches");
            let patches = patches.and_then(Value::as_array_mut).into_iter().flatten();
            patches.for_each(keep_listeners);
        }
        _ => {}
    }
    object
}

/// A patch that takes listeners away takes those of one port.
fn keep_listeners(patch: &mut Value) {
    if patch["applyTo"] == "LISTENER" && patch["patch"]["operation"] == "REMOVE" {
        patch["match"]["listener"] = json!({"portNumber": 9999});
    }
}

fn see_in_sidecar(spec: &mut Value) {
    let seen = json!("marks/*");
    let listeners = spec["egress"].as_array_mut();
    let open = listeners.and_then(|all| all.iter_mut().find(|one| one.get("port").is_none()));
    match open.and_then(|listener| listener["hosts"].as_array_mut()) {
        Some(hosts) => hosts.push(seen),
        None => match spec["egress"].as_array_mut() {
            Some(listeners) => listeners.push(json!({"hosts": [seen]})),
            None => spec["egress"] = json!([{"hosts": ["*/*"]}]),
        },
    }
}

/// What an agent says when it starts its Envoy again.
const ENDED: &str = "Envoy ended, starting it again";

fn is_of_an_end(line: &str) -> bool {
    [ENDED, "[critical]", "[backtrace]"].iter().any(|part| line.contains(part))
}

fn admin(pod: &Pod, path: &str) -> String {
    let url = format!("http://127.0.0.1:15000{path}");
    let output = pod.exec(Path::new("curl"), &["-sf", "-m", "5", &url]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
