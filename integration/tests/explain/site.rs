//! One Envoy that runs what everybody of a mesh is sent: who asks, and the sidecar of every server;
//! and the application behind them.
//!
//! The client's connections come as from redirection, their original destination told by the PROXY
//! protocol: so which listener takes them is Envoy's choice.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{
    offline::{bootstrap, remove_fields, rename_secret, replace, translate_for},
    paths,
    process::{Process, until},
};
use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    class::NodeIdentity,
    dialect::{Parsed, parse_file},
};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    authorizer,
    block::Block,
    calls::{Call, FAIL},
    credentials::{Credentials, Files},
    gateways::{CREDENTIALS, TLS_PORT},
    mesh::{Mesh, PORTS, Pod, TLS},
    verdict::Prediction,
};

/// What is logged of a request.
pub(crate) const LOG_FORMAT: &str = "%REQ(X-N)% %RESPONSE_CODE% %ROUTE_NAME% \
    %UPSTREAM_CLUSTER_RAW% %UPSTREAM_HOST% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
/// Where the client's connections come to.
const CAPTURE: u16 = 15001;

/// What an access log says of a request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) route: String,
    pub(crate) cluster: String,
    pub(crate) host: String,
    /// Flags of the response, and why it is what it is.
    pub(crate) details: String,
}

/// A running Envoy. Fields are dropped in order: files last.
pub(crate) struct Site {
    _envoy: Process,
    log: PathBuf,
    capture: Option<SocketAddr>,
    gateway: Ipv4Addr,
    nowhere: Ipv4Addr,
    source: Ipv4Addr,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn start(block: &Block, mesh: &Mesh, credentials: &Credentials) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let log = folder.path().join("asker.log");
        let config = configuration(block, mesh, credentials, &log);
        let file = folder.path().join("envoy.json");
        fs::write(&file, config.to_string()).expect("a writable directory");
        let mut command = Command::new(paths::envoy());
        command.arg("-c").arg(&file).args([
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "50",
        ]);
        let mut envoy = Process::start("envoy", folder.path(), command);
        let capture = mesh.client.map(|_| SocketAddr::from((block.capture(), CAPTURE)));
        let askers = match capture {
            Some(capture) => vec![capture],
            None => [80, TLS_PORT].map(|port| (block.gateway(), port).into()).into(),
        };
        let servers: Vec<SocketAddr> =
            mesh.pods.iter().map(|pod| (pod.address, PORTS[0].1).into()).collect();
        envoy.until("listening", || {
            servers.iter().chain(&askers).all(|address| TcpStream::connect(address).is_ok())
        });
        Self {
            _envoy: envoy,
            log,
            capture,
            gateway: block.gateway(),
            nowhere: block.nowhere(),
            source: mesh.client_address,
            _folder: folder,
        }
    }

    /// The status of the answer; `None`: there is none.
    pub(crate) async fn call(
        &self,
        call: &Call,
        destination: Option<IpAddr>,
        credentials: &Credentials,
    ) -> Option<u16> {
        let request = &call.request;
        let address =
            self.capture.unwrap_or_else(|| SocketAddr::from((self.gateway, request.port)));
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        if self.capture.is_some() {
            let to = destination.unwrap_or(self.nowhere.into());
            let line = format!("PROXY TCP4 {} {to} 40000 {}\r\n", self.source, request.port);
            stream.write_all(line.as_bytes()).await.ok()?;
        }
        let answered = async {
            if !request.secure {
                return exchange(stream, call).await;
            }
            let name = ServerName::try_from(request.host.clone()).expect("a name");
            let connector = credentials.connector(call.certificate);
            exchange(connector.connect(name, stream).await.ok()?, call).await
        };
        let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
        answered.unwrap_or_else(|_| panic!("no answer to {}", call.line()))
    }

    /// What the log says of every request that it must speak of.
    pub(crate) fn logged(&self, calls: &[Call], predicted: &[Prediction]) -> BTreeMap<usize, Seen> {
        let expected: Vec<usize> = calls
            .iter()
            .zip(predicted)
            .filter(|(call, prediction)| prediction.is_logged(call))
            .map(|(call, _)| call.number)
            .collect();
        let mut found = BTreeMap::new();
        let mut rounds = 0;
        until(Duration::from_secs(30), "the access log is written", || {
            found = fs::read_to_string(&self.log)
                .unwrap_or_default()
                .lines()
                .filter_map(read_line)
                .collect();
            rounds += 1;
            // What is not there after a second will not come: the comparison says so.
            expected.iter().all(|number| found.contains_key(number)) || rounds > 50
        });
        found
    }
}

/// Sends a request and reads the status of its answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, call: &Call) -> Option<u16> {
    let request = &call.request;
    let mut text = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\n",
        request.method, request.target, request.authority
    );
    for (name, value) in &request.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "content-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // Whoever passes bytes on does not know that the connection is to be closed. An end without
    // TLS's goodbye is an end.
    while !answer.windows(4).any(|end| end == b"\r\n\r\n")
        && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0)
    {}
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    String::from_utf8_lossy(status).parse().ok()
}

fn read_line(line: &str) -> Option<(usize, Seen)> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[number, _, route, cluster, host, _, ..] = &words[..] else { return None };
    let seen = Seen {
        route: route.to_owned(),
        cluster: cluster.to_owned(),
        host: host.to_owned(),
        details: words[5..].join(" "),
    };
    Some((number.parse().ok()?, seen))
}

// -------------------------------------------------------------------------------------------------
// what everybody is sent

/// A node id with its metadata.
type Told = (String, Vec<(&'static str, String)>);

/// A server's sidecar: without redirection, at its pod's address.
fn server(mesh: &Mesh, pod: &Pod) -> Told {
    let id = format!("sidecar~{}~{}.shop~shop.svc.cluster.local", pod.address, pod.name);
    let metadata = vec![
        ("INTERCEPTION_MODE", "NONE".to_owned()),
        ("FERROMESH_APP_ADDRESS", mesh.application.to_string()),
        ("FERROMESH_INBOUND_ADDRESS", pod.address.to_string()),
        ("FERROMESH_OUTBOUND_ADDRESS", pod.address.to_string()),
    ];
    (id, metadata)
}

fn gateway(mesh: &Mesh) -> Told {
    let address = mesh.gateway_address;
    let id = format!("router~{address}~gateway-0.istio-system~istio-system.svc.cluster.local");
    let metadata = vec![
        ("INTERCEPTION_MODE", "NONE".to_owned()),
        ("FERROMESH_INBOUND_ADDRESS", address.to_string()),
    ];
    (id, metadata)
}

/// The proxies that do not run as is usual, as they say who they are.
pub(crate) fn nodes(mesh: &Mesh) -> Vec<NodeIdentity> {
    let servers = mesh.pods.iter().map(|pod| server(mesh, pod));
    servers.chain([gateway(mesh)]).map(|(id, metadata)| node(&id, &metadata)).collect()
}

fn node(id: &str, metadata: &[(&str, String)]) -> NodeIdentity {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let node = Node { id: id.to_owned(), metadata, ..Default::default() };
    NodeIdentity::parse(&node, None).expect("a good node id")
}

/// The objects of a mesh.
pub(crate) fn parsed(mesh: &Mesh) -> Parsed {
    let text = mesh.text();
    let parsed = parse_file("mesh.yaml", text.as_bytes());
    assert!(parsed.rejected.is_empty(), "{:#?}\n{text}", parsed.diagnostics);
    parsed
}

fn configuration(block: &Block, mesh: &Mesh, credentials: &Credentials, log: &Path) -> Value {
    let translated = |(id, metadata): &Told| {
        let metadata: Vec<(&str, &str)> =
            metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        translate_for(id, &metadata, parsed(mesh))
    };
    let asker = match mesh.client {
        Some(namespace) => {
            let address = mesh.client_address;
            let id = format!("sidecar~{address}~web-0.{namespace}~{namespace}.svc.cluster.local");
            translated(&(id, Vec::new()))
        }
        None => translated(&gateway(mesh)),
    };
    let own = match mesh.client {
        Some(namespace) => format!("{namespace}-web"),
        None => "istio-system-gateway".to_owned(),
    };
    let mut config = bootstrap(asker);
    config.as_object_mut().expect("fields").remove("dynamic_resources");
    let resources = config["static_resources"].as_object_mut().expect("fields");
    let mut listeners = taken(resources["listeners"].take());
    listeners.retain(|listener| listener["traffic_direction"] != "INBOUND");
    for listener in &mut listeners {
        capture(block, listener);
        rename_secret(listener, &own);
        replace(listener, "/dev/stdout", &log.display().to_string());
    }
    let mut clusters: BTreeMap<String, Value> = taken(resources["clusters"].take())
        .into_iter()
        .filter(|cluster| {
            // The asker's own ports are not asked for.
            !cluster["name"].as_str().is_some_and(|name| name.starts_with("inbound|"))
        })
        .map(|cluster| (cluster["name"].as_str().unwrap_or_default().to_owned(), cluster))
        .collect();
    for pod in &mesh.pods {
        let translation = translated(&server(mesh, pod));
        let secret = format!("shop-{}", pod.service);
        for mut listener in translation.listeners {
            if listener["traffic_direction"] == "INBOUND" {
                replace(&mut listener, "/dev/stdout", "/dev/null");
                rename_secret(&mut listener, &secret);
                listeners.push(listener);
            }
        }
        for cluster in translation.clusters {
            let name = cluster["name"].as_str().unwrap_or_default().to_owned();
            if name.starts_with("inbound|") || authorizer::is_cluster(&name) {
                clusters.entry(name).or_insert(cluster);
            }
        }
    }
    clusters.values_mut().for_each(|cluster| rename_secret(cluster, &own));
    resources.insert("secrets".to_owned(), secrets(credentials));
    resources.insert("listeners".to_owned(), listeners.into());
    resources.insert("clusters".to_owned(), clusters.into_values().collect());
    remove_fields(&mut config, &["sds_config"]);
    config
}

/// Certificates of accounts and of gateways' credentials, each with the authority where clients are
/// asked for theirs.
fn secrets(credentials: &Credentials) -> Value {
    let file = |path: &Path| json!({"filename": path});
    let certificate = |name: String, (certificate, key): &Files| {
        json!({"name": name, "tls_certificate": {
            "certificate_chain": file(certificate), "private_key": file(key),
        }})
    };
    let roots = |name: String| {
        json!({"name": name, "validation_context": {
            "trusted_ca": file(&credentials.authority.0),
        }})
    };
    let accounts = credentials
        .accounts
        .iter()
        .map(|((namespace, account), files)| certificate(format!("{namespace}-{account}"), files));
    let servers =
        CREDENTIALS.map(|name| certificate(format!("kubernetes://{name}"), &credentials.server));
    let clients = CREDENTIALS[1..].iter().map(|name| roots(format!("kubernetes://{name}-cacert")));
    accounts.chain(servers).chain(clients).chain([roots("ROOTCA".to_owned())]).collect()
}

fn taken(list: Value) -> Vec<Value> {
    match list {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// The listener that hands connections over takes them at an address of its own, and is told by the
/// PROXY protocol where they were going.
fn capture(block: &Block, listener: &mut Value) {
    if listener["use_original_dst"] != true {
        return;
    }
    listener["address"] =
        json!({"socket_address": {"address": block.capture(), "port_value": CAPTURE}});
    const KIND: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {"@type": format!("type.googleapis.com/{KIND}")},
    }]);
}

/// Answers every request with 200, or with 500 what asks for that; over TLS at a port of its own.
pub(crate) async fn serve_application(block: &Block, credentials: &Credentials) {
    for port in [PORTS[0].1, PORTS[1].1, 7001, TLS.1] {
        let address: SocketAddr = (IpAddr::from(block.application()), port).into();
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free address");
        let tls = (port == TLS.1).then(|| credentials.acceptor());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => answer(tls.accept(stream).await?).await,
                        None => answer(stream).await,
                    }
                });
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..read]);
        if seen.ends_with(b"\r\n\r\n") {
            let fails = String::from_utf8_lossy(&seen).contains(&format!("{FAIL}: 1"));
            seen.clear();
            let status = if fails { "500 Internal Server Error" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
