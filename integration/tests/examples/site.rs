//! Proxies of the mesh that the examples speak of (`integration/corpus/base.yaml`), as real Envoys
//! that run what the translator makes of it and of an example: one has the sidecars of all servers,
//! and each that calls has its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex},
};

use ferromesh_integration::{
    certificate::{self_signed, signed},
    offline::{bootstrap, changes, remove_fields, rename_secret, replace, translate_changes},
    paths,
    process::Process,
};
use ferromesh_xds_translator::{
    compiler::Change,
    dialect::parse_files,
    ir::{KeySet, KeySource},
    yaml,
};
use serde_json::{Value, json};

use crate::application::{Application, echo};

/// Where servers send bytes back. The service for that, `APP-echo`, has a port of its own: this one
/// and the last part of the first pod's address.
const ECHO: u16 = 9000;
/// The port of every Envoy's own interface.
const ADMIN: u16 = 15000;
/// What a sidecar logs of a request: its number, status, flags, attempts.
const LOG: &str =
    "LOG %REQ(X-N)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// Loopback addresses of a site, which no other site ever has: what listens there may end late.
pub(crate) struct Block {
    number: u8,
}

/// What keeps other programs away from the blocks of this one.
static CLAIMS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

impl Block {
    pub(crate) fn claim() -> Self {
        let claim = |number| {
            TcpListener::bind((Ipv4Addr::new(127, number, 110, 1), 15997)).ok().map(|c| (number, c))
        };
        let (number, claim) =
            (21..=239).find_map(claim).expect("a free block of loopback addresses");
        CLAIMS.lock().expect("nobody panics with it").push(claim);
        Self { number }
    }

    fn at(&self, third: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, third, last)
    }

    fn pod(&self, last: u8) -> Ipv4Addr {
        self.at(110, last)
    }

    fn application(&self, last: u8) -> Ipv4Addr {
        self.at(111, last)
    }

    /// Where a pod calls what it calls by HTTP.
    fn outbound(&self, last: u8) -> Ipv4Addr {
        self.at(112, last)
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.at(119, 1)
    }

    fn admin(&self, last: u8) -> Ipv4Addr {
        self.at(114, last)
    }

    pub(crate) fn control_plane(&self) -> Ipv4Addr {
        self.at(115, 1)
    }

    /// Where a pod is called.
    pub(crate) fn inbound(&self, pod: &Pod) -> SocketAddr {
        (self.pod(pod.last), pod.port).into()
    }

    /// Where the metrics of a pod's own proxy are.
    pub(crate) fn metrics(&self, pod: &Pod) -> SocketAddr {
        (self.admin(pod.last), 15090).into()
    }

    /// The addresses of a pod's proxy by the names of its options.
    pub(crate) fn options(&self, pod: &Pod) -> [(&'static str, String); 7] {
        let own = |port: u16| format!("{}:{port}", self.admin(pod.last));
        [
            ("ip", self.pod(pod.last).to_string()),
            ("app-address", self.application(pod.last).to_string()),
            ("inbound-address", self.pod(pod.last).to_string()),
            ("outbound-address", self.outbound(pod.last).to_string()),
            ("admin-address", own(ADMIN)),
            ("status-address", own(15021)),
            ("metrics-address", self.metrics(pod).to_string()),
        ]
    }
}

/// The objects of the base.
static BASE: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let text = fs::read_to_string(paths::project().join("integration/corpus/base.yaml"));
    objects(&text.expect("the base"))
});

fn objects(text: &str) -> Vec<Value> {
    let trees = yaml::split(text).into_iter();
    let trees = trees.filter_map(|document| yaml::parse(document.text).expect("YAML"));
    trees.map(|tree| tree.to_json()).collect()
}

/// A pod of the base.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    app: String,
    version: String,
    pub(crate) account: String,
    last: u8,
    port: u16,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The pods of a workload.
pub(crate) fn pods((namespace, app): (&str, &str)) -> Vec<Pod> {
    let of = |object: &&Value| {
        object["kind"] == "Pod"
            && object["metadata"]["namespace"] == namespace
            && object["metadata"]["labels"]["app"] == app
    };
    let pod = |object: &Value| {
        let port = object.pointer("/spec/containers/0/ports/0/containerPort");
        Pod {
            namespace: namespace.to_owned(),
            name: text(object, "/metadata/name").to_owned(),
            app: app.to_owned(),
            version: text(object, "/metadata/labels/version").to_owned(),
            account: text(object, "/spec/serviceAccountName").to_owned(),
            last: text(object, "/status/podIP")
                .rsplit('.')
                .next()
                .and_then(|last| last.parse().ok())
                .expect("an address"),
            port: port.and_then(Value::as_u64).and_then(|p| p.try_into().ok()).unwrap_or(0),
        }
    };
    BASE.iter().filter(of).map(pod).collect()
}

/// Certificates of every account, and the authority's.
struct Credentials {
    authority: PathBuf,
    accounts: BTreeMap<(String, String), (PathBuf, PathBuf)>,
    /// Self-signed for `myapp.example.com`.
    gateway: (PathBuf, PathBuf),
    _folder: tempfile::TempDir,
}

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = self_signed(folder.path(), "authority", &["-subj", "/CN=test"]);
    let accounts: BTreeSet<(String, String)> = BASE
        .iter()
        .filter(|object| object["kind"] == "Pod")
        .map(|pod| {
            let part = |pointer| text(pod, pointer).to_owned();
            (part("/metadata/namespace"), part("/spec/serviceAccountName"))
        })
        .collect();
    let made = |(namespace, account): (String, String)| {
        let id = format!("URI:spiffe://cluster.local/ns/{namespace}/sa/{account}");
        let name = format!("{namespace}-{account}");
        let files = signed(folder.path(), &name, "/", &authority, &id);
        ((namespace, account), files)
    };
    let about = ["-subj", "/CN=myapp", "-addext", "subjectAltName=DNS:myapp.example.com"];
    Credentials {
        accounts: accounts.into_iter().map(made).collect(),
        gateway: self_signed(folder.path(), "gateway", &about),
        authority: authority.0,
        _folder: folder,
    }
});

/// What a site is to be.
pub(crate) struct Setup {
    example: String,
    servers: Vec<(&'static str, &'static str)>,
    callers: Vec<(&'static str, &'static str)>,
    keys: Option<(KeySource, KeySet)>,
    gateway: bool,
    settings: bool,
    /// Pods that nobody serves.
    away: &'static [&'static str],
}

impl Setup {
    /// With these objects beside the base.
    pub(crate) fn of(example: impl Into<String>) -> Self {
        Self {
            example: example.into(),
            servers: Vec::new(),
            callers: Vec::new(),
            keys: None,
            gateway: false,
            settings: true,
            away: &[],
        }
    }

    /// The pods of a workload serve, each beside its sidecar.
    pub(crate) fn server(mut self, namespace: &'static str, app: &'static str) -> Self {
        self.servers.push((namespace, app));
        self
    }

    /// The first pod of a workload calls.
    pub(crate) fn caller(mut self, namespace: &'static str, app: &'static str) -> Self {
        self.callers.push((namespace, app));
        self
    }

    /// With the ingress gateway.
    pub(crate) fn gateway(mut self) -> Self {
        self.gateway = true;
        self
    }

    /// With keys of tokens as they were fetched from an address.
    pub(crate) fn keys(mut self, url: &str, keys: &str) -> Self {
        let keys = KeySet::parse(keys).expect("keys");
        self.keys = Some((KeySource::Url(url.into()), keys));
        self
    }

    /// The objects have the mesh's settings.
    pub(crate) fn without_settings(mut self) -> Self {
        self.settings = false;
        self
    }

    /// Nobody serves these pods.
    pub(crate) fn away(mut self, pods: &'static [&'static str]) -> Self {
        self.away = pods;
        self
    }

    pub(crate) async fn start(self) -> Site {
        Site::start(self).await
    }
}

/// Running proxies, and the applications behind them. Fields are dropped in order: files last.
pub(crate) struct Site {
    proxies: BTreeMap<String, Process>,
    pub(crate) block: Block,
    applications: BTreeMap<String, Arc<Application>>,
    pods: BTreeMap<String, Pod>,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn start(setup: Setup) -> Self {
        let block = Block::claim();
        let all: Vec<Pod> = setup.servers.iter().copied().flat_map(pods).collect();
        let calling: Vec<Pod> =
            setup.callers.iter().map(|caller| pods(*caller)[0].clone()).collect();
        let mut applications = BTreeMap::new();
        let here = |pod: &&Pod| !setup.away.contains(&&*pod.name);
        let served: Vec<Pod> = all.iter().filter(here).cloned().collect();
        for pod in &served {
            let application = serve(&block, pod).await;
            applications.insert(format!("{}/{}", pod.namespace, pod.name), application);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let text = setup.text(&block);
        let makes = Makes { block: &block, text: &text, keys: setup.keys.as_ref() };
        let mut configurations = BTreeMap::new();
        if !served.is_empty() {
            configurations.insert("servers".to_owned(), makes.servers(&served));
        }
        for pod in &calling {
            configurations.insert(pod.app.clone(), makes.caller(pod));
        }
        if setup.gateway {
            configurations.insert("gateway".to_owned(), makes.gateway());
        }
        let mut proxies: BTreeMap<String, Process> = configurations
            .into_iter()
            .map(|(name, configuration)| {
                let envoy = envoy(folder.path(), &name, &configuration);
                (name, envoy)
            })
            .collect();
        let mut wait = |name: &str, address: SocketAddr| {
            let proxy = proxies.get_mut(name).expect("it was started");
            proxy.until(&format!("serving {address}"), || TcpStream::connect(address).is_ok());
        };
        for pod in &served {
            wait("servers", (block.pod(pod.last), pod.port).into());
        }
        for pod in &calling {
            let called = pods(setup.servers[0])[0].port;
            wait(&pod.app, (block.outbound(pod.last), called).into());
        }
        if setup.gateway {
            wait("gateway", (block.gateway(), 8080).into());
        }
        let pods = all.into_iter().chain(calling);
        let pods = pods.map(|pod| (format!("{}/{}", pod.namespace, pod.name), pod)).collect();
        Self { proxies, block, applications, pods, _folder: folder }
    }

    /// The application of a pod.
    pub(crate) fn application(&self, pod: &str) -> &Arc<Application> {
        let mut found = self.applications.values().filter(|one| one.pod == pod);
        found.next().unwrap_or_else(|| panic!("no application {pod}"))
    }

    /// All applications of a version.
    pub(crate) fn version(&self, version: &str) -> Vec<&Arc<Application>> {
        self.applications.values().filter(|one| one.version == version).collect()
    }

    /// All applications.
    pub(crate) fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }

    fn pod(&self, name: &str) -> &Pod {
        let mut found = self.pods.values().filter(|pod| pod.name == name || pod.app == name);
        found.next().unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// Where a pod is called.
    pub(crate) fn address(&self, pod: &str) -> SocketAddr {
        let pod = self.pod(pod);
        (self.block.pod(pod.last), pod.port).into()
    }

    /// Where a caller calls what has this port.
    pub(crate) fn outbound(&self, caller: &str, port: u16) -> SocketAddr {
        (self.block.outbound(self.pod(caller).last), port).into()
    }

    /// Where a caller calls the service `APP-echo`.
    pub(crate) fn echo(&self, caller: &str, app: &str) -> SocketAddr {
        self.outbound(caller, ECHO + u16::from(first(app)))
    }

    /// What a proxy answers to a question about itself.
    pub(crate) fn admin(&self, proxy: &str, path: &str) -> String {
        let last = match proxy {
            "servers" => 0,
            "gateway" => 1,
            caller => self.pod(caller).last,
        };
        let url = format!("http://{}:{ADMIN}{path}", self.block.admin(last));
        ferromesh_integration::plane::curl(&url).unwrap_or_default()
    }

    /// A cluster as a proxy has it; `null` if it does not.
    pub(crate) fn cluster(&self, proxy: &str, name: &str) -> Value {
        let dump = self.admin(proxy, "/config_dump?resource=static_clusters");
        let dump: Value = serde_json::from_str(&dump).unwrap_or_default();
        let all = dump["configs"].as_array().into_iter().flatten();
        let mut found = all.map(|one| &one["cluster"]).filter(|cluster| cluster["name"] == name);
        found.next().cloned().unwrap_or_default()
    }

    /// A number that a proxy counts of a cluster; 0 if it does not know the name.
    pub(crate) fn count(&self, proxy: &str, cluster: &str, name: &str) -> u64 {
        let listed = self.admin(proxy, "/stats?usedonly");
        let prefix = format!("cluster.{cluster};.{name}: ");
        let line = listed.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
    }

    /// What a proxy logged of requests: number, status, flags, attempts.
    pub(crate) fn logged(&self, proxy: &str) -> Vec<[String; 4]> {
        let output = self.proxies[proxy].output();
        let lines = output.lines().filter_map(|line| line.strip_prefix("LOG "));
        let words = lines.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        words.filter_map(|words| words.try_into().ok()).collect()
    }

    /// Waits until a proxy has logged what it did with a request.
    pub(crate) fn logged_of(&self, proxy: &str, number: &str) -> [String; 4] {
        let mut found = None;
        ferromesh_integration::process::until(
            std::time::Duration::from_secs(10),
            &format!("a line of request {number}"),
            || {
                found = self.logged(proxy).into_iter().find(|line| line[0] == number);
                found.is_some()
            },
        );
        found.expect("it was waited for")
    }
}

/// The application of a pod, and what sends bytes back there.
pub(crate) async fn serve(block: &Block, pod: &Pod) -> Arc<Application> {
    let address = block.application(pod.last);
    echo((address, ECHO).into()).await;
    Application::serve(&pod.name, &pod.version, (address, pod.port).into()).await
}

/// The last part of the address of a workload's first pod.
fn first(app: &str) -> u8 {
    let of =
        |object: &&Value| object["kind"] == "Pod" && object["metadata"]["labels"]["app"] == app;
    let pod = BASE.iter().find(of).unwrap_or_else(|| panic!("no pod of {app}"));
    pods((text(pod, "/metadata/namespace"), app))[0].last
}

impl Setup {
    /// Everything that the mesh of a site is made of, as a file.
    pub(crate) fn text(&self, block: &Block) -> String {
        let wanted: Vec<(&str, &str)> = self.servers.iter().chain(&self.callers).copied().collect();
        let is_wanted = |object: &&Value| {
            let name = text(object, "/metadata/name");
            let namespace = text(object, "/metadata/namespace");
            let gateway = self.gateway && namespace == "istio-system";
            let of = |(its, app): &(&str, &str)| namespace == *its && name.starts_with(app);
            object["kind"] == "Namespace" || gateway || wanted.iter().any(of)
        };
        let mut all: Vec<Value> = BASE.iter().filter(is_wanted).cloned().collect();
        for (namespace, app) in &self.servers {
            all.extend(echo_objects(block, namespace, app));
        }
        if self.settings {
            all.push(json!({
                "apiVersion": "mesh.istio.io/v1alpha1", "kind": "MeshConfig",
                "metadata": {"name": "default"},
                "spec": {"accessLogFile": "/dev/stdout", "accessLogFormat": LOG},
            }));
        }
        let text: String = all.iter().map(|object| format!("{object}\n---\n")).collect();
        let moved = format!("127.{}.110.", block.number);
        let edge = format!("127.{}.119.", block.number);
        text.replace("10.244.0.", &moved).replace("10.244.9.", &edge) + &self.example
    }
}

/// A service for bytes at the pods of a workload.
fn echo_objects(block: &Block, namespace: &str, app: &str) -> [Value; 2] {
    let name = format!("{app}-echo");
    let port = ECHO + u16::from(first(app));
    let endpoints: Vec<Value> = pods((namespace, app))
        .iter()
        .map(|pod| {
            json!({
                "addresses": [block.pod(pod.last)], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod.name, "namespace": namespace},
            })
        })
        .collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.96.3.1", "selector": {"app": app},
                "ports": [{"name": "tcp", "port": port, "targetPort": ECHO}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "tcp", "port": ECHO}], "endpoints": endpoints,
        }),
    ]
}

/// Makes the configurations of a site's Envoys.
struct Makes<'a> {
    block: &'a Block,
    text: &'a str,
    keys: Option<&'a (KeySource, KeySet)>,
}

impl Makes<'_> {
    /// What a node is sent, with everything in it that it would ask for.
    fn sent(&self, node: &str, metadata: &[(&str, String)]) -> (Vec<Value>, Vec<Value>) {
        let parsed = parse_files([("mesh.yaml", self.text.as_bytes())]);
        let mut changes = changes(parsed);
        if let Some((source, keys)) = self.keys {
            changes.push(Change::KeySet { source: source.clone(), keys: Some(keys.clone()) });
        }
        let metadata: Vec<(&str, &str)> =
            metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut made = bootstrap(translate_changes(node, &metadata, changes));
        let mut taken = |key: &str| match made["static_resources"][key].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        };
        (taken("listeners"), taken("clusters"))
    }

    fn sidecar(&self, pod: &Pod) -> (Vec<Value>, Vec<Value>) {
        let Pod { namespace, name, last, .. } = pod;
        let address = self.block.pod(*last);
        let node = format!("sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
        let metadata = [
            ("INTERCEPTION_MODE", "NONE".to_owned()),
            ("FERROMESH_APP_ADDRESS", self.block.application(*last).to_string()),
            ("FERROMESH_INBOUND_ADDRESS", address.to_string()),
            ("FERROMESH_OUTBOUND_ADDRESS", self.block.outbound(*last).to_string()),
        ];
        self.sent(&node, &metadata)
    }

    /// The sidecars of all servers in one: what is each one's own is called after it.
    fn servers(&self, pods: &[Pod]) -> Value {
        let mut listeners = Vec::new();
        let mut clusters = BTreeMap::new();
        for pod in pods {
            let (sent, behind) = self.sidecar(pod);
            let inbound = sent.into_iter().filter(|l| l["traffic_direction"] == "INBOUND");
            let mut own: Vec<Value> = inbound.collect();
            for mut cluster in behind {
                let name = text(&cluster, "/name").to_owned();
                let mut called = name.clone();
                if name.starts_with("inbound") || name.starts_with("Inbound") {
                    called = format!("{name}@{}", pod.name);
                    cluster["name"] = called.clone().into();
                    own.iter_mut().for_each(|listener| replace(listener, &name, &called));
                }
                rename_secret(&mut cluster, &secret(pod));
                clusters.entry(called).or_insert(cluster);
            }
            for listener in &mut own {
                rename_secret(listener, &secret(pod));
                listener["name"] = format!("{}@{}", text(listener, "/name"), pod.name).into();
            }
            listeners.extend(own);
        }
        self.configuration(0, listeners, clusters.into_values().collect())
    }

    fn caller(&self, pod: &Pod) -> Value {
        let (mut listeners, mut clusters) = self.sidecar(pod);
        listeners.retain(|listener| listener["traffic_direction"] != "INBOUND");
        listeners.iter_mut().chain(&mut clusters).for_each(|r| rename_secret(r, &secret(pod)));
        self.configuration(pod.last, listeners, clusters)
    }

    fn gateway(&self) -> Value {
        let address = self.block.gateway();
        let node = format!(
            "router~{address}~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local"
        );
        let metadata = [
            ("INTERCEPTION_MODE", "NONE".to_owned()),
            ("FERROMESH_INBOUND_ADDRESS", address.to_string()),
        ];
        let (mut listeners, mut clusters) = self.sent(&node, &metadata);
        let own = "istio-system-istio-ingressgateway";
        listeners.iter_mut().chain(&mut clusters).for_each(|r| rename_secret(r, own));
        self.configuration(1, listeners, clusters)
    }

    fn configuration(&self, last: u8, listeners: Vec<Value>, clusters: Vec<Value>) -> Value {
        let file = |path: &Path| json!({"filename": path});
        let certificate = |name: String, (chain, key): &(PathBuf, PathBuf)| {
            json!({"name": name, "tls_certificate": {
                "certificate_chain": file(chain), "private_key": file(key),
            }})
        };
        let credentials = &*CREDENTIALS;
        let accounts = credentials.accounts.iter().map(|((namespace, account), files)| {
            certificate(format!("{namespace}-{account}"), files)
        });
        let roots = json!({"name": "ROOTCA", "validation_context": {
            "trusted_ca": file(&credentials.authority),
        }});
        let edge = certificate("kubernetes://myapp-tls-secret".into(), &credentials.gateway);
        let mut configuration = json!({
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"socket_address": {
                "address": self.block.admin(last), "port_value": ADMIN,
            }}},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        configuration["static_resources"]["secrets"] = accounts.chain([roots, edge]).collect();
        remove_fields(&mut configuration, &["sds_config"]);
        configuration
    }
}

fn secret(pod: &Pod) -> String {
    format!("{}-{}", pod.namespace, pod.account)
}

fn envoy(folder: &Path, name: &str, configuration: &Value) -> Process {
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, configuration.to_string()).expect("a file");
    let mut command = Command::new(paths::envoy());
    command.arg("-c").arg(&file).args(["--concurrency", "1", "--use-dynamic-base-id"]);
    command.args(["--log-level", "warning", "--file-flush-interval-msec", "50"]);
    Process::start(name, folder, command)
}
