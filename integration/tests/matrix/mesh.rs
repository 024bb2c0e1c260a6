//! One mesh in network namespaces that serves every copy of every case at once, and whom its
//! requests reach.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ferromesh_integration::{
    matrix::{Ask, CaseCopy},
    namespace::{Bridge, Pod, run},
    plane::ControlPlane,
    process::{Process, until},
    sidecar::{PodProxy, publish_root, until_ready},
};
use ferromesh_xds_translator::yaml;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    application::Servers,
    client::{Answer, send},
    credentials::Credentials,
    frames::{self, Pings},
};

/// Which proxy stands beside callers, and which at the gateway and beside who is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Proxies {
    pub(crate) callers: &'static str,
    pub(crate) callees: &'static str,
}

/// Fields are dropped in order: programs before the namespaces they run in.
pub(crate) struct Mesh {
    processes: Vec<Process>,
    pods: Vec<Arc<Pod>>,
    pub(crate) servers: Servers,
    pub(crate) credentials: Credentials,
    control: ControlPlane,
    /// What lets connections to [`SILENT`] wait for ever.
    full: Option<(TcpListener, Vec<Socket>)>,
    third: u8,
    _bridge: Bridge,
}

/// A port of the outsider where a connection is neither taken nor refused.
const SILENT: u16 = 7001;

/// Pods: name, last part of the address, namespace and account, role of the proxy if there is one.
const PODS: [(&str, u8, [&str; 2], &str); 5] = [
    ("client", 11, ["shop", "client"], "sidecar"),
    ("stranger", 12, ["other", "stranger"], "sidecar"),
    ("web-0", 13, ["shop", "web"], "sidecar"),
    ("edge", 15, ["istio-system", "edge"], "router"),
    ("outsider", 16, ["", ""], ""),
];
/// The servers outside have these addresses beside the outsider's own: v1, v2, v3.
const OUTSIDE: std::ops::RangeInclusive<u8> = 201..=203;
/// All of these addresses are the outsider's too.
const SERVERS: &str = "10.200.0.0/13";
/// Labels that say where the client is, and everybody else.
const PLACES: [&str; 2] = ["istio-locality=eu.a", "istio-locality=us.c"];
/// What lets Envoy write its log while it is read.
const LOGS_AT_ONCE: &[&str] = &["--", "--file-flush-interval-msec", "50"];
/// Longest wait until everything is known to every proxy.
const ARRIVAL: Duration = Duration::from_secs(60);

impl Mesh {
    /// Starts a mesh that serves these copies, and waits until all of it is in force.
    pub(crate) fn start(third: u8, proxies: Proxies, copies: &[&CaseCopy]) -> Self {
        let bridge = Bridge::new(third);
        let control = ControlPlane::new(format!("127.77.{third}.1"))
            .listening("xds-tls", format!("10.77.{third}.1:15012"));
        let credentials = Credentials::make(control.folder());
        let pod = |(name, last, ..): &(&str, u8, [&str; 2], &str)| {
            Arc::new(Pod::new(&bridge, name, *last, &[]))
        };
        let pods: Vec<Arc<Pod>> = PODS.iter().map(pod).collect();
        let mut mesh = Self {
            processes: Vec::new(),
            pods,
            servers: Servers::default(),
            credentials,
            control,
            full: None,
            third,
            _bridge: bridge,
        };
        mesh.write(copies);
        mesh.serve();
        let plane = mesh.control.start();
        publish_root(&mesh.control);
        mesh.processes = mesh.start_proxies(proxies);
        mesh.processes.push(plane);
        mesh.settle();
        mesh
    }

    /// Serves these copies, and no others.
    pub(crate) fn write(&self, copies: &[&CaseCopy]) {
        let base = yaml::split(include_str!("base.yaml")).into_iter();
        let base = base.filter_map(|document| yaml::parse(document.text).expect("YAML"));
        let mut objects: Vec<Value> = base.map(|tree| tree.to_json()).collect();
        objects.push(self.credentials.secret());
        for object in copies.iter().flat_map(|copy| &copy.objects) {
            match object["kind"] == "MeshConfig" {
                // There is one.
                true => merge(&mut objects[0]["spec"], &object["spec"]),
                false => objects.push(object.clone()),
            }
        }
        let text: Vec<String> =
            objects.into_iter().map(|object| self.here(object).to_string()).collect();
        // In one step, so that no half of it is read.
        let (new, file) = (self.control.path("new.yaml"), self.control.path("config/mesh.yaml"));
        fs::write(&new, text.join("\n---\n")).and_then(|()| fs::rename(new, file)).expect("a file");
    }

    /// An object of this mesh: with its addresses, keys and files.
    fn here(&self, mut object: Value) -> Value {
        let files = self.control.file("");
        let jwks = self.credentials.issuer.jwks();
        let network = format!("10.77.{}.", self.third);
        let parts = [("10.77.0.", &*network), ("$JWKS", &*jwks), ("$FILES/", &*files)];
        each_text(&mut object, &mut |text| {
            for (from, to) in parts {
                if text.contains(from) {
                    *text = text.replace(from, to);
                }
            }
        });
        object
    }

    fn serve(&mut self) {
        let outsider = self.pod("outsider").clone();
        let outsider = &*outsider;
        for last in OUTSIDE {
            let address = format!("10.77.{}.{last}/24", self.third);
            run("ip", &["-n", &outsider.name, "addr", "add", &address, "dev", "eth0"]);
        }
        // Every copy may have a server at an address of its own.
        run("ip", &["-n", &outsider.name, "route", "add", "local", SERVERS, "dev", "lo"]);
        for caller in ["client", "stranger"].map(|name| self.pod(name)) {
            let via = outsider.address.to_string();
            run("ip", &["-n", &caller.name, "route", "add", SERVERS, "via", &via]);
        }
        let listen = |pod: &Pod, port: u16| -> TcpListener {
            pod.inside(|| TcpListener::bind(("0.0.0.0", port)).expect("a free port"))
        };
        self.servers.serve(listen(outsider, 80), outside, None);
        self.servers.serve(listen(outsider, 81), other_port, None);
        self.servers.serve(listen(outsider, 8443), outside, Some(self.credentials.acceptor()));
        self.servers.serve_bytes(listen(outsider, 9000), outside);
        frames::serve(&self.servers, listen(outsider, 82), Pings::Answered);
        frames::serve(&self.servers, listen(outsider, 83), Pings::Ignored);
        self.full = Some(outsider.inside(|| full(SILENT)));
        let web = self.pod("web-0");
        self.servers.serve(listen(web, 8080), |_| "web".to_owned(), None);
        self.servers.serve(listen(web, 8081), |_| "web at 8081".to_owned(), None);
    }

    fn start_proxies(&self, proxies: Proxies) -> Vec<Process> {
        let address = format!("10.77.{}.1:15012", self.third);
        let with_proxy = PODS.iter().zip(&self.pods).filter(|((.., role), _)| !role.is_empty());
        let started: Vec<(&Pod, Process)> = with_proxy
            .map(|((name, _, [namespace, account], role), pod)| {
                if *role == "sidecar" {
                    pod.redirect(&[]);
                }
                let calls = matches!(*name, "client" | "stranger");
                let kind = if calls { proxies.callers } else { proxies.callees };
                let mut options = vec!["--label", PLACES[usize::from(*name != "client")]];
                options.extend(if kind == "envoy" { LOGS_AT_ONCE } else { &[] });
                let options = &options;
                let proxy = PodProxy { kind, role, namespace, account, name, options };
                (&**pod, proxy.start(&self.control, &address, pod))
            })
            .collect();
        let wait = |(pod, mut process): (&Pod, Process)| {
            until_ready(&mut process, pod);
            process
        };
        started.into_iter().map(wait).collect()
    }

    /// Waits until every proxy has taken all that it was sent.
    fn settle(&self) {
        until(ARRIVAL, "everything in force", || {
            let proxies = self.control.get("/api/v1/proxies").unwrap_or_default();
            let listed: Value = serde_json::from_str(&proxies).unwrap_or_default();
            let connected = listed["items"].as_array().map_or(0, Vec::len);
            connected == PODS.len() - 1 && !proxies.contains("STALE")
        });
    }

    /// The errors that are found: the object's name, the code, and what is said.
    pub(crate) fn errors(&self) -> Vec<[String; 3]> {
        let listed = self.control.get("/api/v1/diagnostics").unwrap_or_default();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let errors = items.into_iter().filter(|finding| finding["severity"] == "error");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        errors
            .map(|finding| {
                let said = format!("{}: {}", text(&finding["field"]), text(&finding["message"]));
                [text(&finding["object"]["name"]), text(&finding["code"]), said]
            })
            .collect()
    }

    /// The connections from a pod to an address, and their timers, a line for each.
    pub(crate) fn sockets(&self, pod: &str, address: &str) -> String {
        let listed = self.pod(pod).exec(Path::new("ss"), &["-tnoH", "dst", address]);
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }

    /// How many lines that the proxies wrote are so.
    pub(crate) fn logged(&self, is_so: impl Fn(&str) -> bool) -> usize {
        let logs = self.processes.iter().map(Process::output);
        logs.map(|log| log.lines().filter(|line| is_so(line)).count()).sum()
    }

    fn pod(&self, name: &str) -> &Arc<Pod> {
        let index = PODS.iter().position(|(own, ..)| *own == name);
        &self.pods[index.unwrap_or_else(|| panic!("no pod {name}"))]
    }

    /// Sends one of the requests of an ask.
    pub(crate) async fn send(&self, ask: &Ask) -> Answer {
        let pod = self.pod(ask.from.as_deref().expect("a copy says who asks"));
        let address = ask.address.as_deref().expect("a copy says where");
        let address = address.replace("10.77.0.", &format!("10.77.{}.", self.third));
        send(&self.credentials, pod.clone(), address, ask).await
    }
}

/// Puts the fields of one map into another.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(list) => list.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(map) => map.values_mut().for_each(|value| each_text(value, change)),
        _ => {}
    }
}

/// A listener whose queue is full: further handshakes are not answered.
fn full(port: u16) -> (TcpListener, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address: SocketAddr = ([0, 0, 0, 0], port).into();
    listener.bind(&address.into()).and_then(|()| listener.listen(0)).expect("a free port");
    let own: SocketAddr = ([127, 0, 0, 1], port).into();
    let fill = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket can be so");
        // It goes on by itself.
        let _ = socket.connect(&own.into());
        socket
    };
    let waiting = (0..4).map(fill).collect();
    (listener.into(), waiting)
}

/// The name of a server outside.
fn outside(address: SocketAddr) -> String {
    match address.ip().to_string().rsplit('.').next().and_then(|last| last.parse::<u8>().ok()) {
        Some(last) if OUTSIDE.contains(&last) => format!("v{}", last - 200),
        _ => "outside".to_owned(),
    }
}

fn other_port(address: SocketAddr) -> String {
    format!("{} at 81", outside(address))
}
