//! One workload behind a proxy, Envoy or ours, with a control plane of its own and an application
//! that answers with what it got: what tests ask of both, word by word.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    paths,
    plane::ControlPlane,
    process::{Process, until},
};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A workload `cart` of `shop`, called without TLS. `BLOCK` is a network, `PORT` the application's.
const MESH: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
spec: {serviceAccountName: cart, containers: [{name: app, ports: [{containerPort: PORT}]}]}
status: {phase: Running, podIP: BLOCK.2, podIPs: [{ip: BLOCK.2}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: PORT}]}
";

/// Control plane, proxy and application. Fields are dropped in order: files last.
pub struct Workload {
    /// The proxy.
    pub proxy: Process,
    _server: Process,
    /// The control plane, whose folder of YAML is the mesh.
    pub plane: ControlPlane,
    /// Where the workload is called.
    pub address: String,
}

impl Workload {
    /// `kind`: `envoy` or `run`, ours. `block`: of loopback addresses.
    ///
    /// # Panics
    /// It does not serve in time.
    pub fn start(kind: &str, block: &str) -> Self {
        Self::start_with(kind, block, "")
    }

    /// [`Self::start`] with further objects in the mesh, in the file `more.yaml`.
    ///
    /// # Panics
    /// It does not serve in time.
    pub fn start_with(kind: &str, block: &str, more: &str) -> Self {
        Self::start_told(kind, block, more, &[])
    }

    /// [`Self::start_with`] with further options of the proxy.
    ///
    /// # Panics
    /// It does not serve in time.
    pub fn start_told(kind: &str, block: &str, more: &str, options: &[&str]) -> Self {
        let port = application(&format!("{block}.3"));
        let plane = ControlPlane::new(format!("{block}.1"));
        plane.write("mesh.yaml", MESH.replace("BLOCK", block).replace("PORT", &port.to_string()));
        plane.write("more.yaml", more.replace("BLOCK", block));
        let address = format!("{block}.2:{port}");
        let workload = Self::serving((kind, "sidecar"), plane, address, options);
        workload.until_status(200);
        workload
    }

    /// The same pod as a gateway, with these objects in the file `gateway.yaml`; one of its servers
    /// listens at port 80.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_gateway(kind: &str, block: &str, objects: &str) -> Self {
        let plane = ControlPlane::new(format!("{block}.1"));
        plane.write("mesh.yaml", MESH.replace("BLOCK", block).replace("PORT", "80"));
        plane.write("gateway.yaml", objects);
        Self::serving((kind, "router"), plane, format!("{block}.2:80"), &[])
    }

    fn serving(
        (kind, role): (&str, &str),
        plane: ControlPlane,
        address: String,
        options: &[&str],
    ) -> Self {
        let server = plane.start();
        // The control plane is at the first address of the block.
        let block = plane.host.strip_suffix(".1").unwrap_or(&plane.host);
        let mut command = proxy(kind, "cart", &plane, (block, 0));
        command.args(["--name", "cart-0", "--type", role, "--concurrency", "1"]).args(options);
        let mut proxy = Process::start("proxy", plane.folder(), command);
        proxy.until("serving", || TcpStream::connect(&address).is_ok());
        Self { proxy, _server: server, plane, address }
    }

    /// The answer to a request for this path with these lines of headers; empty if there is none.
    ///
    /// # Panics
    /// As [`Self::send`].
    pub fn ask(&self, path: &str, headers: &str) -> String {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: cart\r\n{headers}connection: close\r\n\r\n"
        ))
    }

    /// The answer to these bytes, by its length or until the connection ends; empty if there is
    /// none.
    ///
    /// # Panics
    /// The system has no sockets.
    pub fn send(&self, request: &str) -> String {
        send_to(&self.address, request)
    }

    /// The status that a plain request is answered with; 0 if it is not.
    pub fn status(&self) -> u16 {
        status(&self.ask("/", ""))
    }

    /// Waits until an answer has this in it.
    ///
    /// # Panics
    /// None has in time.
    pub fn until_answered(&self, expected: &str) {
        until(LIMIT, expected, || self.ask("/", "").contains(expected));
    }

    /// Waits until plain requests are answered with this status.
    ///
    /// # Panics
    /// They are not in time.
    pub fn until_status(&self, expected: u16) {
        until(LIMIT, &format!("an answer of {expected}"), || self.status() == expected);
    }

    /// Takes a file out of the mesh.
    ///
    /// # Panics
    /// It is not there.
    pub fn remove(&self, file: &str) {
        fs::remove_file(self.plane.path("config").join(file)).expect("removed");
    }

    /// Whether a refusal by the proxy is told on an object of this kind.
    pub fn is_refused(&self, kind: &str) -> bool {
        let text = self.plane.get("/api/v1/diagnostics").unwrap_or_default();
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut all = found["items"].as_array().into_iter().flatten();
        all.any(|d| d["object"]["kind"] == kind && d["code"] == "FM0401")
    }
}

/// The answer of an address to these bytes, by its length or until the connection ends; empty if
/// there is none.
///
/// # Panics
/// The system has no sockets.
pub fn send_to(address: &str, request: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    if stream.write_all(request.as_bytes()).is_err() {
        return String::new();
    }
    // Who answers need not close at once.
    while whole(&answer).is_none() {
        match stream.read(&mut part) {
            Ok(more @ 1..) => answer.extend_from_slice(&part[..more]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer; 0 if it is none.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// A proxy of `kind` (`run`, `envoy`) that proves its account in `shop` and intercepts nothing.
/// Its addresses are in `block`, a network without its last number, from `first` on: 2 the workload
/// and inbound, 3 the application, 4 outbound, 5 its own ports. Its name is the caller's to add.
///
/// # Panics
/// A file cannot be written, or there is no token to be had.
pub fn proxy(
    kind: &str,
    account: &str,
    plane: &ControlPlane,
    (block, first): (&str, u8),
) -> Command {
    let work = plane.path(&format!("{account}.work"));
    fs::create_dir(&work).expect("a directory");
    let token = plane.path(&format!("{account}.token"));
    fs::write(&token, plane.join_token("shop", account)).expect("a file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.arg(kind);
    let mut flag = |name: &str, value: String| {
        command.args([format!("--{name}"), value]);
    };
    flag("control-plane", plane.address(15012));
    flag("root-cert", plane.file("data/root-cert.pem"));
    flag("token-file", token.display().to_string());
    flag("work-dir", work.display().to_string());
    for (name, value) in [
        ("namespace", "shop"),
        ("service-account", account),
        ("interception", "none"),
        ("drain-time", "1s"),
    ] {
        flag(name, value.to_owned());
    }
    for (name, host) in
        [("ip", 2), ("app-address", 3), ("inbound-address", 2), ("outbound-address", 4)]
    {
        flag(name, format!("{block}.{}", first + host));
    }
    for (name, port) in [("admin", 15000), ("status", 15021), ("metrics", 15090)] {
        flag(&format!("{name}-address"), format!("{block}.{}:{port}", first + 5));
    }
    if kind == "envoy" {
        flag("envoy-path", paths::envoy().display().to_string());
    }
    command
}

/// Answers every request with 200 and what it got, on a port of its own.
fn application(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("an address");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Requests one after the other; of a body the length must be known.
fn serve(mut stream: TcpStream) {
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(length) = whole(&read) {
            let request: Vec<u8> = read.drain(..length).collect();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            if stream.write_all(&[head.as_bytes(), &request].concat()).is_err() {
                return;
            }
        }
        match stream.read(&mut part) {
            Ok(more @ 1..) => read.extend_from_slice(&part[..more]),
            _ => return,
        }
    }
}

/// How many bytes the first message has, if it is there and says so; without a length it has no
/// body.
fn whole(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        return None;
    }
    let mut lengths = text.lines().filter_map(|line| line.strip_prefix("content-length:"));
    let body: usize = lengths.next().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(head + body).filter(|length| *length <= read.len())
}
