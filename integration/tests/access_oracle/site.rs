//! An Envoy that serves what the translator sends for many workloads at once, each with its own
//! policies and address, and the application behind them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{
    offline::remove_fields,
    paths,
    process::{Process, until},
};
use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::Change,
    diagnostic::Severity,
    dialect::parse_file,
    ir::MeshDefaults,
    translate::{Translation, translate},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    authorizers,
    cases::{NAMESPACE, PORTS, Set},
    wire::Credentials,
};

/// Loopback addresses of a site: a block that nobody else uses while the listener lives.
pub(crate) struct Block {
    number: u8,
    _claim: TcpListener,
}

impl Block {
    pub(crate) fn claim() -> Self {
        let claim = |number| {
            TcpListener::bind((Ipv4Addr::new(127, number, 0, 1), 15999)).ok().map(|c| (number, c))
        };
        let (number, claim) =
            (21..=239).find_map(claim).expect("a free block of loopback addresses");
        Self { number, _claim: claim }
    }

    fn application(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, 2, 1)
    }

    /// Where those are who are asked about calls.
    pub(crate) fn authorizers(&self) -> [Ipv4Addr; 2] {
        [1, 2].map(|last| Ipv4Addr::new(127, self.number, 3, last))
    }

    /// Where the workload with this number is called.
    pub(crate) fn workload(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, 1, u8::try_from(index + 1).expect("few workloads at once"))
    }
}

/// A running Envoy. Fields are dropped in order: files last.
pub(crate) struct Site {
    _envoy: Process,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

/// The ends of a call: the client's, and the workload's. A client's port alone is used again for
/// another workload.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// What is logged of a call: its ends, and what the dry runs of ALLOW and of DENY say about
/// requests and about connections.
fn log_format() -> String {
    let shadow = |layer: &str, action: &str| {
        format!(
            "%DYNAMIC_METADATA(envoy.filters.{layer}.rbac:istio_dry_run_{action}_shadow_engine_result)%"
        )
    };
    let results = [("http", "allow"), ("network", "allow"), ("http", "deny"), ("network", "deny")];
    let results = results.map(|(layer, action)| shadow(layer, action));
    format!("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% {}\n", results.join(" "))
}

impl Site {
    /// Starts an Envoy for all sets and waits until it serves them.
    pub(crate) fn start(block: &Block, sets: &[Set], credentials: &Credentials) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("access.log");
        let bootstrap = dir.path().join("envoy.json");
        // The mesh logs to where every proxy can; here it is read.
        let config = bootstrap_of(block, sets, credentials);
        let config = config.to_string().replace("/dev/stdout", &log.display().to_string());
        fs::write(&bootstrap, config).expect("a writable directory");
        let mut command = Command::new(paths::envoy());
        command.arg("-c").arg(&bootstrap).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]);
        command.args(["--file-flush-interval-msec", "50"]);
        let mut envoy = Process::start("envoy", dir.path(), command);
        let open = |index: usize| {
            PORTS.iter().all(|port| TcpStream::connect((block.workload(index), *port)).is_ok())
        };
        envoy.until("serving every workload", || (0..sets.len()).all(open));
        Self { _envoy: envoy, log, _dir: dir }
    }

    /// What the dry runs of ALLOW and of DENY reported about these calls, once all of them are
    /// logged.
    pub(crate) fn dry_runs(&self, calls: &[Ends]) -> BTreeMap<Ends, [Option<bool>; 2]> {
        let mut found = BTreeMap::new();
        until(Duration::from_secs(30), "every call in the access log", || {
            found = fs::read_to_string(&self.log)
                .unwrap_or_default()
                .lines()
                .filter_map(read_line)
                .collect();
            calls.iter().all(|ends| found.contains_key(ends))
        });
        found
    }
}

fn read_line(line: &str) -> Option<(Ends, [Option<bool>; 2])> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[client, workload, http_allow, tcp_allow, http_deny, tcp_deny] = &words[..] else {
        return None;
    };
    let result = |words: [&str; 2]| {
        words.into_iter().find(|word| *word != "-").map(|word| word.contains("allowed"))
    };
    let ends = (client.parse().ok()?, workload.parse().ok()?);
    Some((ends, [result([http_allow, tcp_allow]), result([http_deny, tcp_deny])]))
}

fn bootstrap_of(block: &Block, sets: &[Set], credentials: &Credentials) -> Value {
    let mut listeners = Vec::new();
    let mut clusters = BTreeMap::new();
    for (index, set) in sets.iter().enumerate() {
        let objects = set.objects(&credentials.tokens);
        let objects = objects.into_iter().chain(authorizers::services(block.authorizers()));
        let objects = objects.chain(mesh(set, block.workload(index)));
        let translation = translated(objects, block.workload(index), block.application());
        let inbound = |listener: &Value| listener["traffic_direction"] == "INBOUND";
        listeners.extend(translation.listeners.into_iter().filter(inbound));
        let named =
            |cluster: Value| (cluster["name"].as_str().unwrap_or_default().to_owned(), cluster);
        // The same for every workload, since all have the same application.
        clusters.extend(
            translation
                .clusters
                .into_iter()
                .map(named)
                .filter(|(name, _)| name.starts_with("inbound|") || name.contains(".authz.")),
        );
    }
    // Secrets come from the bootstrap, and the handshake lets strangers through for the policies to
    // see them.
    let taken = ["sds_config", "match_typed_subject_alt_names"];
    listeners.iter_mut().for_each(|listener| remove_fields(listener, &taken));
    let file = |path: &Path| json!({"filename": path});
    json!({"static_resources": {
        "listeners": listeners,
        "clusters": clusters.into_values().collect::<Vec<_>>(),
        "secrets": [
            {"name": "default", "tls_certificate": {
                "certificate_chain": file(&credentials.server.0), "private_key": file(&credentials.server.1),
            }},
            {"name": "ROOTCA", "validation_context": {"trusted_ca": file(&credentials.authority.0)}},
        ],
    }})
}

/// Everything that the sidecar of the workload gets.
fn translated(
    objects: impl Iterator<Item = Value>,
    address: Ipv4Addr,
    application: Ipv4Addr,
) -> Translation {
    let text = objects.map(|object| object.to_string()).collect::<Vec<_>>().join("\n---\n");
    let parsed = parse_file("case.yaml", text.as_bytes());
    assert!(parsed.rejected.is_empty(), "{:#?}\n{text}", parsed.diagnostics);
    let value = |text: String| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text)),
    };
    let fields = [
        ("INTERCEPTION_MODE", "NONE".to_owned()),
        ("FERROMESH_APP_ADDRESS", application.to_string()),
        ("FERROMESH_INBOUND_ADDRESS", address.to_string()),
        ("FERROMESH_OUTBOUND_ADDRESS", address.to_string()),
    ];
    let fields = fields.into_iter().map(|(key, text)| (key.to_owned(), value(text))).collect();
    let id = format!("sidecar~{address}~app-0.{NAMESPACE}~{NAMESPACE}.svc.cluster.local");
    let node = Node { id, metadata: Some(prost_types::Struct { fields }), ..Default::default() };
    let node = NodeIdentity::parse(&node, None).expect("a good node id");
    let changes =
        parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect();
    let translation = translate(MeshDefaults::default(), changes, &node).expect("a translation");
    let refused =
        translation.diagnostics.iter().find(|finding| finding.severity == Severity::Error);
    assert!(refused.is_none(), "{refused:?}\n{text}");
    translation
}

fn mesh(set: &Set, address: Ipv4Addr) -> Vec<Value> {
    let ports = [("http-a", PORTS[0]), ("tcp-b", PORTS[1]), ("c", PORTS[2])];
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
    let labels = json!({"app": "app", "security.istio.io/tlsMode": "istio"});
    vec![
        json!({"apiVersion": "mesh.istio.io/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "default"}, "spec": {
            "trustDomain": set.mesh.trust_domain,
            "trustDomainAliases": set.mesh.aliases,
            "extensionProviders": authorizers::providers(),
            "accessLogFile": "/dev/stdout",
            "accessLogFormat": log_format(),
        }}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app", "namespace": NAMESPACE}, "spec": {
            "selector": {"app": "app"}, "ports": ports,
        }}),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "app-0", "namespace": NAMESPACE, "labels": labels},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        }),
    ]
}

/// Answers every request with 200, and sends everything else back.
pub(crate) async fn serve_application(block: &Block) {
    for port in PORTS {
        let address: SocketAddr = (IpAddr::from(block.application()), port).into();
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
}

async fn answer(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if seen.is_empty() && buffer[0] == 0 {
            return stream.write_all(&buffer[..read]).await;
        }
        seen.extend_from_slice(&buffer[..read]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
}
