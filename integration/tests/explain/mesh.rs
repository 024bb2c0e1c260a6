//! Random meshes: services with versions, one that asks, and what is set for all of them; rules and
//! policies are put in by modules of their own. Written as a user writes them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{authorizer, block::Block, credentials::Credentials};

/// Random choices that a seed repeats.
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        // Neighbouring streams must not have neighbouring states (SplitMix64's increment).
        Self(StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Services of namespace `shop`; the last has no pods.
pub(crate) const SERVICES: [&str; 4] = ["one", "two", "three", "none"];
/// Namespaces and accounts of everybody.
pub(crate) const ACCOUNTS: [(&str, &str); 6] = [
    ("shop", "one"),
    ("shop", "two"),
    ("shop", "three"),
    ("shop", "web"),
    ("bank", "web"),
    ("istio-system", "gateway"),
];
/// Ports of every service: its own, and the workloads'.
pub(crate) const PORTS: [(u16, u16); 2] = [(80, 8080), (9090, 9091)];
const TCP: (u16, u16) = (7000, 7001);
/// The port where the application speaks TLS itself.
pub(crate) const TLS: (u16, u16) = (8443, 8444);

pub(crate) const PATHS: [&str; 8] =
    ["/", "/api", "/api/v1", "/api/v2/x", "/admin", "/img/a.png", "/api//v1", "/x/../admin"];
pub(crate) const VALUES: [&str; 4] = ["one", "two", "onetwo", ""];
/// Of browsers; rules allow the first two.
pub(crate) const ORIGINS: [&str; 3] = ["https://a.test", "https://b.example", "https://evil.test"];

/// A server: a pod with a sidecar.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) service: &'static str,
    pub(crate) version: &'static str,
    pub(crate) address: Ipv4Addr,
    ready: bool,
}

/// A mesh and who asks in it.
pub(crate) struct Mesh {
    pub(crate) objects: Vec<Value>,
    pub(crate) pods: Vec<Pod>,
    /// Namespace of the client; `None`: the gateway is asked.
    pub(crate) client: Option<&'static str>,
    /// Conditions of every rule, by its name.
    pub(crate) kinds: BTreeMap<String, Vec<&'static str>>,
    pub(crate) client_address: Ipv4Addr,
    pub(crate) gateway_address: Ipv4Addr,
    /// Where the application of every pod is.
    pub(crate) application: Ipv4Addr,
    /// Where the one is who is asked about requests.
    authorizer: Ipv4Addr,
}

impl Mesh {
    pub(crate) fn random(dice: &mut Dice, block: &Block, credentials: &Credentials) -> Self {
        let client = *dice.pick(&[Some("shop"), Some("shop"), Some("bank"), None, None]);
        let mut mesh = Self {
            objects: Vec::new(),
            pods: Vec::new(),
            client,
            kinds: BTreeMap::new(),
            client_address: block.pod(50),
            gateway_address: block.gateway(),
            application: block.application(),
            authorizer: block.authorizer(),
        };
        mesh.settings(dice);
        mesh.services(dice, block);
        mesh.callers();
        mesh.routes(dice);
        mesh.policies(dice, credentials);
        mesh
    }

    /// Its objects as a file.
    pub(crate) fn text(&self) -> String {
        let objects: Vec<String> = self.objects.iter().map(Value::to_string).collect();
        objects.join("\n---\n")
    }

    fn settings(&mut self, dice: &mut Dice) {
        let mode = dice.pick(&["ALLOW_ANY", "REGISTRY_ONLY"]);
        let normalization = dice.pick(&["BASE", "MERGE_SLASHES", "NONE"]);
        self.objects.push(json!({
            "apiVersion": "mesh.istio.io/v1alpha1", "kind": "MeshConfig",
            "metadata": {"name": "default"},
            "spec": {
                "outboundTrafficPolicy": {"mode": mode},
                "pathNormalization": {"normalization": normalization},
                "accessLogFile": "/dev/stdout", "accessLogFormat": crate::site::LOG_FORMAT,
                "extensionProviders": [authorizer::provider()],
            },
        }));
        self.objects.push(authorizer::service(self.authorizer));
        if dice.chance(15) && self.client.is_some() {
            self.objects.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                "metadata": {"name": "default", "namespace": self.client},
                "spec": {"egress": [{"hosts": [
                    "shop/one.shop.svc.cluster.local", "shop/two.shop.svc.cluster.local",
                ]}]},
            }));
        }
    }

    fn services(&mut self, dice: &mut Dice, block: &Block) {
        for (index, service) in SERVICES.into_iter().enumerate() {
            let ports = PORTS.iter().map(|(port, target)| {
                json!({"name": format!("http-{port}"), "port": port, "targetPort": target})
            });
            let ports: Vec<Value> = ports
                .chain([
                    json!({"name": "tcp", "port": TCP.0, "targetPort": TCP.1}),
                    json!({"name": "tls", "port": TLS.0, "targetPort": TLS.1}),
                ])
                .collect();
            let mut metadata = json!({"name": service, "namespace": "shop"});
            if service == "three" && dice.chance(20) {
                metadata["annotations"] = json!({"networking.istio.io/exportTo": "."});
            }
            self.objects.push(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata,
                "spec": {
                    "clusterIP": block.service(index), "selector": {"app": service},
                    "ports": ports,
                },
            }));
            if service == "none" {
                continue;
            }
            for (place, version) in ["v1", "v2"].into_iter().enumerate() {
                self.pods.push(Pod {
                    name: format!("{service}-{version}"),
                    service,
                    version,
                    address: block.pod(index * 2 + place + 1),
                    ready: !dice.chance(15),
                });
            }
            let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
            let mut rule = json!({
                "host": format!("{service}.shop.svc.cluster.local"),
                "subsets": [subset("v1"), subset("v2")],
            });
            if dice.chance(25) {
                rule["trafficPolicy"]["tls"] = json!({"mode": "DISABLE"});
            }
            if dice.chance(32) {
                // Whoever fails is out until the mesh ends.
                rule["trafficPolicy"]["outlierDetection"] = json!({
                    "consecutive5xxErrors": 1, "baseEjectionTime": "300s", "maxEjectionPercent": 100,
                });
            }
            self.objects.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": service, "namespace": "shop"}, "spec": rule,
            }));
        }
        let pods: Vec<Value> = self
            .pods
            .iter()
            .map(|pod| {
                let labels = json!({
                    "app": pod.service, "version": pod.version,
                    "security.istio.io/tlsMode": "istio",
                });
                object(&pod.name, "shop", pod.service, &labels, pod.address, pod.ready)
            })
            .collect();
        self.objects.extend(pods);
    }

    fn callers(&mut self) {
        let labels = json!({"app": "web", "security.istio.io/tlsMode": "istio"});
        let namespace = self.client.unwrap_or("shop");
        self.objects.push(object("web-0", namespace, "web", &labels, self.client_address, true));
        let labels = json!({"istio": "ingressgateway"});
        let address = self.gateway_address;
        self.objects.push(object("gateway-0", "istio-system", "gateway", &labels, address, true));
    }
}

fn object(
    name: &str,
    namespace: &str,
    account: &str,
    labels: &Value,
    address: Ipv4Addr,
    ready: bool,
) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready}]},
    })
}
