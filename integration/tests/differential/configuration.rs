//! Random configurations: each is one port of the sidecar (inbound or outbound) or of the gateway,
//! with routes and policies of its own, written as an Istio user writes them.

use std::fmt::Write as _;

use crate::{
    application::UPSTREAM_PORT,
    dice::Dice,
    policy::{self, Policy},
    rules::{self, Rule},
    site::Block,
};

/// Which way requests take through a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// To the application beside the sidecar.
    Inbound,
    /// From the application beside the sidecar to another service.
    Outbound,
    /// Into the mesh.
    Gateway,
}

/// What a port speaks, by the name that its service gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speech {
    /// Declared HTTP/1.1.
    Http,
    /// Declared HTTP/2.
    Http2,
    /// Nothing declared: the proxy looks.
    Unknown,
}

impl Speech {
    fn port_name(self) -> &'static str {
        match self {
            Self::Http => "http-x",
            Self::Http2 => "http2-x",
            Self::Unknown => "x",
        }
    }
}

/// One port with its routes and policies.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) speech: Speech,
    /// Hosts that the port serves, as a request names them.
    pub(crate) host: String,
    /// Hosts of the gateway's server and of the virtual service.
    hosts: String,
    rules: Vec<Rule>,
    policies: Vec<Policy>,
}

/// First port of all configurations.
const FIRST_PORT: u16 = 9100;
/// Forms that `pathNormalization` may ask for.
pub(crate) const NORMALIZATIONS: [&str; 5] =
    ["BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES", "NONE", "DEFAULT"];

impl Configuration {
    /// The configuration with this number, the same for the same seed.
    pub(crate) fn random(seed: u64, number: usize) -> Self {
        let mut dice = Dice::new(seed, 1 << 32 | number as u64);
        let kind = [Kind::Inbound, Kind::Outbound, Kind::Gateway][number % 3];
        let port = FIRST_PORT + u16::try_from(number).expect("few configurations");
        let speech = *dice.pick(&[Speech::Http, Speech::Http, Speech::Unknown, Speech::Http2]);
        let (host, hosts) = match kind {
            Kind::Inbound => (format!("w{number}:{port}"), String::new()),
            Kind::Outbound => (format!("s{number}:{port}"), format!("s{number}")),
            Kind::Gateway => gateway_host(&mut dice),
        };
        let rules = if kind == Kind::Inbound { Vec::new() } else { rules::random(&mut dice) };
        let policies =
            if kind == Kind::Outbound { Vec::new() } else { policy::random(&mut dice, &host) };
        Self { kind, port, speech, host, hosts, rules, policies }
    }

    /// Paths that rules and policies speak of.
    pub(crate) fn paths(&self) -> Vec<&'static str> {
        let rules = self.rules.iter().filter_map(|rule| rule.path);
        rules.chain(self.policies.iter().flat_map(|policy| policy.paths.iter().copied())).collect()
    }

    /// What it is made of, for whoever reads about a difference.
    pub(crate) fn yaml(&self) -> String {
        let mut text = String::new();
        let Self { kind, port, speech, .. } = self;
        let name = speech.port_name();
        match kind {
            Kind::Inbound => {
                text += &service(&format!("w{}", self.number()), "workload", *port, *port, name);
            }
            Kind::Outbound => {
                text += &service(
                    &format!("s{}", self.number()),
                    "upstream",
                    *port,
                    UPSTREAM_PORT,
                    name,
                );
                let _ = write!(text, "{}", self.virtual_service("default", "mesh"));
            }
            Kind::Gateway => {
                text += &service(
                    &format!("s{}", self.number()),
                    "upstream",
                    *port,
                    UPSTREAM_PORT,
                    name,
                );
                let gateway = format!("g{}", self.number());
                let _ = write!(text, "{}", self.gateway(&gateway));
                let _ = write!(text, "{}", self.virtual_service("istio-system", &gateway));
            }
        }
        let (namespace, app) = if *kind == Kind::Gateway {
            ("istio-system", "gateway")
        } else {
            ("default", "workload")
        };
        for (index, policy) in self.policies.iter().enumerate() {
            text += &policy.yaml(&format!("p{}-{index}", self.number()), namespace, app, *port);
        }
        if *kind != Kind::Outbound && !self.policies.iter().any(Policy::allows) {
            // ALLOW policies of other ports would close this one.
            text += &Policy::allow_all().yaml(
                &format!("p{}-all", self.number()),
                namespace,
                app,
                *port,
            );
        }
        text
    }

    fn number(&self) -> u16 {
        self.port - FIRST_PORT
    }

    fn gateway(&self, name: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: istio-system}}\n\
             spec:\n  selector: {{app: gateway}}\n  servers:\n  \
             - port: {{number: {}, name: http, protocol: HTTP}}\n    \
             hosts: [{}]\n---\n",
            self.port, self.hosts
        )
    }

    fn virtual_service(&self, namespace: &str, gateway: &str) -> String {
        let mut text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: v{}, namespace: {namespace}}}\n\
             spec:\n  hosts: [{}]\n  gateways: [{gateway}]\n  http:\n",
            self.number(),
            self.hosts
        );
        let destination = format!(
            "{{host: s{}.default.svc.cluster.local, port: {{number: {}}}}}",
            self.number(),
            self.port
        );
        for rule in &self.rules {
            text += &rule.yaml(&destination);
        }
        text + "---\n"
    }
}

fn gateway_host(dice: &mut Dice) -> (String, String) {
    let forms = [
        ("a.example.com", "a.example.com"),
        ("a.example.com", "\"*.example.com\""),
        ("a.example.com", "\"*\""),
        ("b.example.com", "a.example.com, b.example.com"),
    ];
    let (host, hosts) = dice.pick(&forms);
    ((*host).into(), (*hosts).into())
}

fn service(name: &str, app: &str, port: u16, target: u16, port_name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         selector: {{app: {app}}}\n  ports: [{{name: {port_name}, port: {port}, targetPort: {target}}}]\n---\n"
    )
}

fn pod(name: &str, namespace: &str, address: std::net::Ipv4Addr) -> String {
    // What the two sidecars of the mesh are for is said by themselves; nothing here is called by
    // mutual TLS.
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-0, namespace: {namespace}, labels: {{app: {name}}}}}\n\
         spec:\n  serviceAccountName: {name}\n  containers: [{{name: app, image: app}}]\n\
         status:\n  phase: Running\n  podIP: {address}\n  podIPs: [{{ip: {address}}}]\n  \
         conditions: [{{type: Ready, status: \"True\"}}]\n---\n"
    )
}

/// The whole mesh of these configurations.
pub(crate) fn mesh_yaml(
    configurations: &[Configuration],
    normalization: &str,
    block: Block,
) -> String {
    let mut text = format!(
        "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default}}\nspec:\n  \
         pathNormalization: {{normalization: {normalization}}}\n  outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}\n  \
         defaultHttpRetryPolicy: {{attempts: 0}}\n---\n"
    );
    for namespace in ["default", "istio-system"] {
        let _ =
            write!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n");
    }
    text += &pod("workload", "default", block.inbound());
    text += &pod("gateway", "istio-system", block.gateway());
    text += &pod("upstream", "default", block.upstream());
    configurations.iter().for_each(|c| text += &c.yaml());
    text
}
