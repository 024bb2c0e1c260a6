//! Random meshes: services with versions, rules with every kind of condition, policies, and one
//! that asks. Written as a user writes them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::site::{Block, Credentials};

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

pub(crate) const PATHS: [&str; 8] =
    ["/", "/api", "/api/v1", "/api/v2/x", "/admin", "/img/a.png", "/api//v1", "/x/../admin"];
pub(crate) const VALUES: [&str; 4] = ["one", "two", "onetwo", ""];

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
            },
        }));
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
            let ports: Vec<Value> =
                ports.chain([json!({"name": "tcp", "port": TCP.0, "targetPort": TCP.1})]).collect();
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
                rule["trafficPolicy"] = json!({"tls": {"mode": "DISABLE"}});
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

    // ---------------------------------------------------------------------------------------------
    // rules

    fn routes(&mut self, dice: &mut Dice) {
        let redirect = dice.chance(8);
        self.objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "istio-system"},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"],
                 "tls": {"httpsRedirect": redirect}},
                {"port": {"number": 9090, "name": "more", "protocol": "HTTP"}, "hosts": ["*.test"]},
            ]},
        }));
        for (index, service) in SERVICES.into_iter().enumerate() {
            if !dice.chance(80) {
                continue;
            }
            let count = 2 + dice.below(4);
            let rules: Vec<Value> = (0..count)
                .map(|rule| {
                    let last = rule + 1 == count && dice.chance(60);
                    self.rule(dice, format!("r{index}-{rule}"), service, last)
                })
                .collect();
            self.objects.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": service, "namespace": "shop"},
                "spec": {
                    "hosts": [
                        format!("{service}.shop.svc.cluster.local"), format!("{service}.test"),
                    ],
                    "gateways": ["mesh", "istio-system/edge"],
                    "http": rules,
                },
            }));
        }
    }

    fn rule(&mut self, dice: &mut Dice, name: String, service: &str, last: bool) -> Value {
        let mut kinds = Vec::new();
        let mut rule = json!({"name": name});
        if !last {
            rule["match"] = json!([condition(dice, service, &mut kinds)]);
        }
        match dice.below(12) {
            0 => rule["directResponse"] = json!({"status": dice.pick(&[200, 403, 418])}),
            1 => {
                rule["redirect"] =
                    json!({"uri": "/elsewhere", "redirectCode": dice.pick(&[301, 302, 307])});
            }
            _ => self.forward(dice, &mut rule, service),
        }
        self.kinds.insert(name, kinds);
        rule
    }

    fn forward(&mut self, dice: &mut Dice, rule: &mut Value, service: &str) {
        let destination = |dice: &mut Dice, service: &str| {
            let host = format!("{service}.shop.svc.cluster.local");
            let mut destination = json!({"host": host});
            if dice.chance(60) {
                destination["subset"] = json!(dice.pick(&["v1", "v2", "v1", "v2", "v3"]));
            }
            if dice.chance(30) {
                destination["port"] = json!({"number": dice.pick(&PORTS).0});
            }
            destination
        };
        let other = *dice.pick(&SERVICES[..3]);
        rule["route"] = match dice.below(4) {
            0 => json!([
                {"destination": destination(dice, service), "weight": 70},
                {"destination": destination(dice, other), "weight": 30},
            ]),
            1 => json!([{"destination": destination(dice, other)}]),
            _ => json!([{"destination": destination(dice, service)}]),
        };
        if dice.chance(20) {
            rule["rewrite"] = json!({"uri": dice.pick(&["/api", "/rewritten", "/admin"])});
        } else if dice.chance(10) {
            rule["rewrite"] = json!({"authority": "other.test"});
        }
        if dice.chance(15) {
            rule["headers"] = json!({"request": {"set": {"x-a": "one"}, "remove": ["x-b"]}});
        }
        if dice.chance(6) {
            rule["fault"] = json!({"abort": {"httpStatus": 503, "percentage": {"value": 100}}});
        }
        // What is not tried again says at once what it came to.
        rule["retries"] = json!({"attempts": 0});
    }

    // ---------------------------------------------------------------------------------------------
    // policies

    fn policies(&mut self, dice: &mut Dice, credentials: &Credentials) {
        let mut push = |kind: &str, name: String, namespace: &str, spec: Value| {
            self.objects.push(json!({
                "apiVersion": "security.istio.io/v1", "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            }));
        };
        if dice.chance(50) {
            let mode = dice.pick(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE"]);
            push("PeerAuthentication", "all".into(), "shop", json!({"mtls": {"mode": mode}}));
        }
        for service in &SERVICES[..3] {
            let selector = json!({"matchLabels": {"app": service}});
            if dice.chance(35) {
                let mode = dice.pick(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE"]);
                let mut spec = json!({"selector": selector, "mtls": {"mode": mode}});
                if dice.chance(25) {
                    let port = dice.pick(&PORTS).1.to_string();
                    spec["portLevelMtls"] =
                        json!({port: {"mode": dice.pick(&["STRICT", "PERMISSIVE"])}});
                }
                push("PeerAuthentication", format!("own-{service}"), "shop", spec);
            }
            if dice.chance(40) {
                let mut rule =
                    json!({"issuer": "https://login.test", "jwks": credentials.issuer.jwks()});
                if dice.chance(40) {
                    rule["audiences"] = json!(["shop"]);
                }
                if dice.chance(25) {
                    rule["fromHeaders"] = json!([{"name": "x-jwt", "prefix": "JWT "}]);
                }
                let spec = json!({"selector": selector, "jwtRules": [rule]});
                push("RequestAuthentication", format!("own-{service}"), "shop", spec);
            }
            for number in 0..dice.below(3) {
                let action = dice.pick(&["ALLOW", "DENY", "DENY"]);
                let rules: Vec<Value> = (0..=dice.below(2)).map(|_| access(dice)).collect();
                let spec = json!({"selector": selector, "action": action, "rules": rules});
                push("AuthorizationPolicy", format!("{service}-{number}"), "shop", spec);
            }
        }
        if dice.chance(25) {
            let selector = json!({"matchLabels": {"istio": "ingressgateway"}});
            let rules = [access_of_requests(dice)];
            let spec = json!({"selector": selector, "action": "DENY", "rules": rules});
            push("AuthorizationPolicy", "edge".into(), "istio-system", spec);
        }
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

/// One match of a rule, with the kinds of its conditions.
fn condition(dice: &mut Dice, service: &str, kinds: &mut Vec<&'static str>) -> Value {
    // What is seldom met is asked for more often.
    const ASKED: [u8; 21] = [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10, 11, 11, 11, 12, 12];
    let mut m = json!({});
    let mut take = |kind: &'static str| kinds.push(kind);
    for _ in 0..=dice.below(2) {
        let value = *dice.pick(&VALUES[..3]);
        let header = *dice.pick(&["x-a", "x-b"]);
        let kind = *dice.pick(&ASKED);
        if kind < 3 && m.get("uri").is_some() {
            continue;
        }
        match kind {
            0 => {
                take("exact");
                m["uri"] = json!({"exact": dice.pick(&PATHS[..6])});
            }
            1 => {
                take("prefix");
                m["uri"] = json!({"prefix": dice.pick(&["/api", "/api/v", "/admin", "/img/"])});
            }
            2 => {
                take("regex");
                m["uri"] =
                    json!({"regex": dice.pick(&["/api/v[0-9].*", ".*\\.png", "/(api|admin)"])});
            }
            3 => {
                take("header exact");
                m["headers"][header] = json!({"exact": value});
            }
            4 => {
                take("header prefix");
                m["headers"][header] = json!({"prefix": "one"});
            }
            5 => {
                take("header regex");
                m["headers"][header] = json!({"regex": "(one|two)+"});
            }
            6 => {
                take("header present");
                m["headers"][header] = json!({});
            }
            7 => {
                take("without header");
                m["withoutHeaders"][header] = json!({"exact": value});
            }
            8 => {
                take("query");
                m["queryParams"]["q"] = json!({"exact": value});
            }
            9 => {
                take("method");
                m["method"] = json!({"exact": dice.pick(&["GET", "POST"])});
            }
            10 => {
                take("authority");
                let prefix = json!({"prefix": service});
                let exact = json!({"exact": format!("{service}.test")});
                m["authority"] = dice.pick(&[prefix, exact]).clone();
            }
            11 => {
                take("port");
                m["port"] = json!(dice.pick(&PORTS).0);
            }
            _ => {
                take("gateway");
                m["gateways"] = json!([dice.pick(&["mesh", "istio-system/edge"])]);
            }
        }
    }
    m
}

/// A rule of a policy about callers and what they ask for.
fn access(dice: &mut Dice) -> Value {
    let mut rule = access_of_requests(dice);
    match dice.below(6) {
        0 => rule["from"] = json!([{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]),
        1 => rule["from"] = json!([{"source": {"namespaces": ["bank"]}}]),
        2 => {
            rule["from"] = json!([{"source": {"notPrincipals": ["cluster.local/ns/bank/sa/web"]}}])
        }
        3 => rule["from"] = json!([{"source": {"requestPrincipals": ["https://login.test/*"]}}]),
        4 => rule["when"] = json!([{"key": "request.auth.claims[group]", "values": ["staff"]}]),
        _ => {}
    }
    rule
}

fn access_of_requests(dice: &mut Dice) -> Value {
    let operation = match dice.below(6) {
        0 => json!({"methods": ["POST"]}),
        1 => json!({"paths": ["/admin*"]}),
        2 => json!({"ports": ["8080"]}),
        3 => json!({"hosts": ["*.test", "one*"]}),
        4 => json!({"notPaths": ["/api*"], "methods": ["GET", "PUT"]}),
        _ => return json!({"when": [{"key": "request.headers[x-a]", "values": ["one", "two*"]}]}),
    };
    json!({"to": [{"operation": operation}]})
}
