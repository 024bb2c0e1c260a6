//! What is said and what is sent agree, over random meshes: a name that users wrote dangles in what
//! some proxy gets if and only if a finding says so.
//!
//! The proxies are the clients that [`super::clients`] defines, over every pod of the mesh. Names
//! are clusters that routes, mirrors and TCP proxies lead to, and credentials that listeners and
//! clusters ask for. A subset that no pod belongs to is no such name, since its cluster is there,
//! without endpoints: it has a finding of its own, if and only if pods of the service are known. A
//! finding about a destination is a false one if some proxy is led there and none of them
//! misses the cluster; what nobody is led to (a rule behind one that takes everything, a weight of
//! zero, a host that an older VirtualService has, a server whose host another Gateway has) may have
//! a finding or none. Not counted is the route configuration `80` that Istio gives hosts of other
//! ports ([`crate::plan::references`]), nor are credentials of gateways of which no proxy is known,
//! since nobody knows where they look.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::ResourceType;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{analyze, clients, input::Input};
use crate::{
    class::NodeKind,
    closure,
    compiler::{Change, Compiler},
    debug::to_json,
    diagnostic::{Code, Diagnostic},
    dialect::{Kind, Object, parse_value},
    ir::{Hostname, MeshDefaults, ObjectId},
    snapshot::{CredentialFact, Credentials},
    view::View,
};

/// SplitMix64: one number decides a whole mesh.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a small bound")
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

const NAMESPACES: [&str; 4] = ["shop", "bank", "client", "istio-system"];
const HOSTS: [&str; 8] = [
    "s0",
    "s1",
    "s0.shop.svc.cluster.local",
    "s1.bank.svc.cluster.local",
    "s0.bank.svc.cluster.local",
    "ext.example.com",
    "deep.example.com",
    "nowhere.example.org",
];

struct Mesh {
    draw: Draw,
    /// Decides about parts alone, so that a mesh is otherwise the same with them.
    parts: Draw,
    objects: Vec<Object>,
    credentials: Credentials,
}

impl Mesh {
    fn random(seed: u64) -> Self {
        let mut mesh = Self {
            draw: Draw(seed),
            parts: Draw(!seed),
            objects: Vec::new(),
            credentials: Credentials::new(),
        };
        mesh.settings();
        for namespace in NAMESPACES {
            for number in 0..2 {
                mesh.in_namespace(namespace, number);
            }
        }
        std::mem::swap(&mut mesh.draw, &mut mesh.parts);
        for namespace in NAMESPACES {
            mesh.part(namespace);
        }
        std::mem::swap(&mut mesh.draw, &mut mesh.parts);
        mesh.slices();
        mesh
    }

    fn in_namespace(&mut self, namespace: &str, number: usize) {
        type Maker = fn(&mut Mesh, &str, usize);
        let makers: [(Maker, usize); 9] = [
            (Self::service, 2),
            (Self::pod, 2),
            (Self::entry, 3),
            (Self::routes, 2),
            (Self::backend, 2),
            (Self::sidecar, 6),
            (Self::gateway, 3),
            (Self::credential, 1),
            (Self::routes_of_connections, 4),
        ];
        for (make, times) in makers {
            if self.draw.once_in(times) {
                make(self, namespace, number);
            }
        }
    }

    fn add(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        mut content: Value,
    ) -> Vec<Diagnostic> {
        let age = self.draw.below(3);
        let meta = content.as_object_mut().expect("an object").entry("metadata");
        let meta = meta.or_insert_with(|| json!({}));
        meta["name"] = json!(name);
        if kind.namespaced() {
            meta["namespace"] = json!(namespace);
        }
        meta["creationTimestamp"] = json!(format!("2026-01-0{}T00:00:00Z", 1 + age));
        content["apiVersion"] = json!(kind.api_version());
        content["kind"] = json!(kind.kind_name());
        let (object, said) = parse_value(content).unwrap_or_else(|d| panic!("{kind}: {}", d[0]));
        self.objects.push(object);
        said
    }

    fn export_to(&mut self) -> Vec<&'static str> {
        let choices: [&[&str]; 8] =
            [&[], &[], &[], &["*"], &["."], &["shop"], &["bank", "."], &["~"]];
        self.draw.one(&choices).to_vec()
    }

    /// Whom an object of a namespace is exported to, each once; `nobody` too, where that is allowed.
    fn exported(&mut self, namespace: &str, nobody: bool) -> Vec<&'static str> {
        let mut list = self.export_to();
        list.retain(|to| nobody || *to != "~");
        if list.contains(&".") {
            list.retain(|to| *to != namespace);
        }
        list
    }

    fn settings(&mut self) {
        if self.draw.once_in(4) {
            return;
        }
        let mut spec = json!({
            "defaultServiceExportTo": self.export_to(),
            "defaultVirtualServiceExportTo": self.export_to(),
            "defaultDestinationRuleExportTo": self.export_to(),
            "outboundTrafficPolicy": {"mode": self.draw.one(&["ALLOW_ANY", "REGISTRY_ONLY"])},
            "rootNamespace": self.draw.one(&["istio-system", "istio-system", "bank"]),
            "enableAutoMtls": self.draw.once_in(2),
        });
        if self.draw.once_in(4) {
            spec["proxyHttpPort"] = json!(15080);
        }
        if self.draw.once_in(4) {
            let hidden = self.draw.one(&NAMESPACES);
            let others = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [hidden]});
            spec["discoverySelectors"] = json!([{ "matchExpressions": [others] }]);
        }
        let said = self.add(Kind::MESH_CONFIG, "", "istio", json!({ "spec": spec }));
        assert!(said.is_empty(), "{said:?}");
    }

    fn service(&mut self, namespace: &str, number: usize) {
        let all = [("http", 80), ("http-a", 9080), ("tls", 443), ("auto", 7000), ("tcp", 3306)];
        let first = self.draw.below(all.len());
        let mut ports = vec![all[first]];
        if self.draw.once_in(2) {
            ports.push(all[(first + 1 + self.draw.below(all.len() - 1)) % all.len()]);
        }
        let ports: Vec<Value> =
            ports.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
        let third = NAMESPACES.iter().position(|n| *n == namespace).unwrap_or_default();
        let address = format!("10.0.{third}.{}", 1 + number);
        let mut spec = json!({"selector": {"app": format!("a{number}")}, "clusterIP": address, "ports": ports});
        match self.draw.below(8) {
            0 => spec["clusterIP"] = json!("None"),
            1 => {
                let target = self.draw.one(&["s0.shop.svc.cluster.local", "away.example.net"]);
                spec = json!({"type": "ExternalName", "externalName": target, "ports": ports});
            }
            _ => {}
        }
        let export = self.export_to().join(",");
        let annotations = match export.as_str() {
            "" => json!({}),
            export => json!({"networking.istio.io/exportTo": export}),
        };
        let content = json!({"metadata": {"annotations": annotations}, "spec": spec});
        self.add(Kind::SERVICE, namespace, &format!("s{number}"), content);
    }

    fn pod(&mut self, namespace: &str, number: usize) {
        let labels = json!({
            "app": format!("a{}", self.draw.below(2)),
            "version": self.draw.one(&["v0", "v1"]),
            "istio": self.draw.one(&["none", "none", "ingressgateway"]),
            "security.istio.io/tlsMode": "istio",
        });
        let third = NAMESPACES.iter().position(|n| *n == namespace).unwrap_or_default();
        let status = json!({"phase": "Running", "podIP": format!("10.244.{third}.{}", 1 + number)});
        let content = json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app"}]},
            "status": status,
        });
        self.add(Kind::POD, namespace, &format!("p{number}"), content);
    }

    fn entry(&mut self, namespace: &str, number: usize) {
        let host = self.draw.one(&["ext.example.com", "*.example.com", "www.example.com"]);
        let (protocol, port) = self.draw.one(&[("HTTP", 80), ("TLS", 443), ("TCP", 3306)]);
        let ports = json!([{"number": port, "name": "p", "protocol": protocol}]);
        let resolution = if host.starts_with('*') { "NONE" } else { "DNS" };
        let spec = json!({
            "hosts": [host], "ports": ports, "resolution": resolution,
            "location": "MESH_EXTERNAL", "exportTo": self.exported(namespace, true),
        });
        self.add(Kind::SERVICE_ENTRY, namespace, &format!("e{number}"), json!({ "spec": spec }));
    }

    fn host_of_destination(&mut self) -> &'static str {
        if self.draw.once_in(12) { "*.example.com" } else { self.draw.one(&HOSTS) }
    }

    fn destination(&mut self) -> Value {
        let mut destination = json!({"host": self.host_of_destination(), "subset": self.draw.one(&["", "", "v0", "v1"])});
        if self.draw.once_in(3) {
            let port = self.draw.one(&[80, 443, 3306, 7000, 9080]);
            destination["port"] = json!({ "number": port });
        }
        destination
    }

    fn hosts(&mut self) -> Vec<&'static str> {
        let mut hosts = vec![self.draw.one(&HOSTS)];
        if self.draw.once_in(3) {
            hosts.push(self.draw.one(&["s0", "s1", "*.example.com", "shop.example.org"]));
        }
        // Names that another host stands for are refused.
        if Hostname::new(hosts[0]).overlaps(&Hostname::new(hosts[hosts.len() - 1])) {
            hosts.truncate(1);
        }
        hosts
    }

    fn gateways(&mut self) -> Vec<&'static str> {
        let choices: [&[&str]; 5] =
            [&[], &["mesh"], &["mesh", "g0"], &["istio-system/g0"], &["istio-system/g1", "mesh"]];
        self.draw.one(&choices).to_vec()
    }

    fn routes(&mut self, namespace: &str, number: usize) {
        let mut rules: Vec<Value> = (0..1 + self.draw.below(3)).map(|i| self.rule(i)).collect();
        if self.parts.once_in(3) {
            // Without a name: the routes are known by those of the part.
            let delegate = json!({"name": "part", "namespace": self.parts.one(&NAMESPACES)});
            let matches =
                self.parts.one(&[json!([]), json!([{"uri": {"prefix": "/"}, "port": 80}])]);
            rules.insert(0, json!({"match": matches, "delegate": delegate}));
        }
        let spec = json!({
            "hosts": self.hosts(), "gateways": self.gateways(),
            "exportTo": self.exported(namespace, false),
            "http": rules,
        });
        self.add(Kind::VIRTUAL_SERVICE, namespace, &format!("r{number}"), json!({ "spec": spec }));
    }

    /// Rules that others continue in; their names say whose they are.
    fn part(&mut self, namespace: &str) {
        if self.draw.once_in(3) {
            return;
        }
        let mut rules: Vec<Value> = (0..1 + self.draw.below(2)).map(|i| self.rule(i)).collect();
        for rule in &mut rules {
            rule["name"] = json!(format!("{}.{namespace}", text(&rule["name"])));
        }
        let spec = json!({"exportTo": self.exported(namespace, false), "http": rules});
        self.add(Kind::VIRTUAL_SERVICE, namespace, "part", json!({ "spec": spec }));
    }

    /// Rules have names, by which routes are told apart.
    fn rule(&mut self, index: usize) -> Value {
        let condition = match self.draw.below(6) {
            0 => json!([{"sourceLabels": {"version": "v1"}}]),
            1 => json!([{"sourceNamespace": self.draw.one(&["shop", "client"])}]),
            2 => json!([{"port": self.draw.one(&[80, 9080])}]),
            3 => json!([{"uri": {"prefix": format!("/{index}")}}]),
            4 => json!([{"gateways": ["mesh"], "uri": {"prefix": "/m"}}]),
            _ => json!([]),
        };
        let weights = self.draw.one(&[[100, 0], [50, 50]]);
        let routes: Vec<Value> = match self.draw.once_in(2) {
            true => vec![json!({ "destination": self.destination() })],
            false => weights
                .iter()
                .map(|weight| json!({"destination": self.destination(), "weight": weight}))
                .collect(),
        };
        let mut rule =
            json!({"name": format!("rule-{index}"), "match": condition, "route": routes});
        if self.draw.once_in(4) {
            rule["mirrors"] = json!([{"destination": self.destination()}]);
        }
        rule
    }

    fn routes_of_connections(&mut self, namespace: &str, number: usize) {
        let route = json!([{ "destination": self.destination() }]);
        let mut spec = json!({
            "hosts": self.hosts(), "gateways": self.gateways(),
            "exportTo": self.exported(namespace, false),
        });
        match self.draw.once_in(2) {
            true => spec["tcp"] = json!([{"match": [{"port": 3306}], "route": route}]),
            false => {
                let sni = spec["hosts"].clone();
                let condition = json!([{"port": 443, "sniHosts": sni}]);
                spec["tls"] = json!([{"match": condition, "route": route}]);
            }
        }
        self.add(Kind::VIRTUAL_SERVICE, namespace, &format!("c{number}"), json!({ "spec": spec }));
    }

    fn backend(&mut self, namespace: &str, number: usize) {
        let host = self.draw.one(&["s0", "s1", "s0.shop.svc.cluster.local", "*.example.com", "*"]);
        let names: [&[&str]; 4] = [&["v0", "v1"], &["v0"], &["v1"], &[]];
        let mut subsets = Vec::new();
        for name in self.draw.one(&names) {
            let version = if self.draw.once_in(4) { "v9" } else { *name };
            let mut subset = json!({"name": name, "labels": {"version": version}});
            if self.draw.once_in(5) {
                subset["trafficPolicy"] = self.tls();
            }
            subsets.push(subset);
        }
        let mut spec = json!({"host": host, "subsets": subsets});
        spec["exportTo"] = json!(self.exported(namespace, false));
        if self.draw.once_in(4) {
            spec["trafficPolicy"] = self.tls();
        }
        if self.draw.once_in(5) {
            spec["workloadSelector"] = json!({"matchLabels": {"version": "v1"}});
            spec["exportTo"] = json!(self.draw.one(&[&["."][..], &[]]));
        }
        self.add(Kind::DESTINATION_RULE, namespace, &format!("d{number}"), json!({ "spec": spec }));
    }

    fn tls(&mut self) -> Value {
        let (mode, name) =
            (self.draw.one(&["SIMPLE", "MUTUAL"]), self.draw.one(&["cert0", "cert1"]));
        let names = json!(["a.example.com"]);
        json!({"tls": {"mode": mode, "credentialName": name, "subjectAltNames": names}})
    }

    /// Every pod is an endpoint of the services that select it.
    fn slices(&mut self) {
        let of = |kind: Kind| {
            let objects = self.objects.iter().filter(move |object| object.id.kind == kind);
            objects.map(|object| (object.id.clone(), object.raw())).collect::<Vec<_>>()
        };
        let (pods, services) = (of(Kind::POD), of(Kind::SERVICE));
        for (id, service) in services {
            let app = &service["spec"]["selector"]["app"];
            if app.is_null() {
                continue;
            }
            let selected = |(pod, raw): &&(ObjectId, Value)| {
                pod.namespace == id.namespace && raw["metadata"]["labels"]["app"] == *app
            };
            let endpoint = |(pod, raw): &(ObjectId, Value)| {
                json!({
                    "addresses": [raw["status"]["podIP"]], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "name": &*pod.name, "namespace": &*pod.namespace},
                })
            };
            let endpoints: Vec<Value> = pods.iter().filter(selected).map(endpoint).collect();
            let content = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": &*id.name}},
                "addressType": "IPv4", "ports": service["spec"]["ports"], "endpoints": endpoints,
            });
            self.add(Kind::ENDPOINT_SLICE, &id.namespace, &id.name, content);
        }
    }

    fn sidecar(&mut self, namespace: &str, number: usize) {
        let hosts: [&[&str]; 5] =
            [&["*/*"], &["./*"], &["shop/*"], &["~/*"], &["bank/*", "*/ext.example.com"]];
        let mut spec = json!({"egress": [{"hosts": self.draw.one(&hosts)}]});
        if self.draw.once_in(2) {
            spec["workloadSelector"] = json!({"labels": {"app": format!("a{number}")}});
        }
        self.add(Kind::SIDECAR, namespace, &format!("sc{number}"), json!({ "spec": spec }));
    }

    fn gateway(&mut self, namespace: &str, number: usize) {
        let mut servers = vec![json!({
            "port": {"number": 80, "name": "http", "protocol": "HTTP"},
            "hosts": [self.draw.one(&["*", "shop/*", "*.example.com", "*.svc.cluster.local"])],
        })];
        if self.draw.once_in(2) {
            servers.push(json!({
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"],
                "tls": {"mode": self.draw.one(&["SIMPLE", "MUTUAL"]), "credentialName": "cert0"},
            }));
        }
        if self.draw.once_in(3) {
            servers.push(json!({
                "port": {"number": 3306, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"],
            }));
        }
        let selector = self.draw.one(&["ingressgateway", "ingressgateway", "elsewhere"]);
        let spec = json!({"selector": {"istio": selector}, "servers": servers});
        self.add(Kind::GATEWAY, namespace, &format!("g{number}"), json!({ "spec": spec }));
    }

    fn credential(&mut self, namespace: &str, number: usize) {
        let name = self.draw.one(&["cert0", "cert0-cacert", "cert1", "cert1-cacert"]);
        let holds_ca = self.draw.once_in(2);
        let fact =
            CredentialFact { fingerprint: format!("{number}").into(), not_after: 0, holds_ca };
        self.credentials.insert((namespace.into(), name.into()), fact);
    }
}

/// What one proxy is sent, as far as it names something.
#[derive(Default)]
struct Sent {
    kind: Option<NodeKind>,
    namespace: Arc<str>,
    /// Whether it is a pod of the mesh, and no stand-in.
    known: bool,
    /// VirtualService, rule and cluster of every route that users wrote.
    routed: BTreeSet<(ObjectId, String, String)>,
    /// Clusters that connections are sent to.
    connected: BTreeSet<String>,
    clusters: BTreeSet<String>,
    credentials: BTreeSet<String>,
    /// How many endpoints each cluster has that lists any.
    endpoints: BTreeMap<String, usize>,
}

impl Sent {
    fn of(views: &[Arc<View>]) -> Self {
        let mut sent = Self::default();
        for view in views {
            sent.clusters
                .extend(view.tables[ResourceType::Cluster.index()].keys().map(|n| n.to_string()));
            for (kind, read) in [
                (ResourceType::Route, Self::routes as fn(&mut Self, &Value)),
                (ResourceType::Listener, Self::listener),
                (ResourceType::Endpoint, Self::assignment),
                // As listeners: what they ask for.
                (ResourceType::Cluster, Self::listener),
            ] {
                for resource in view.tables[kind.index()].values() {
                    let asks = || resource.body.windows(13).any(|part| part == b"kubernetes://");
                    if kind == ResourceType::Cluster && !asks() {
                        continue;
                    }
                    read(&mut sent, &to_json(kind, &resource.body).expect("readable"));
                }
            }
        }
        sent
    }

    fn routes(&mut self, configuration: &Value) {
        for route in list(&configuration["virtual_hosts"]).flat_map(|host| list(&host["routes"])) {
            let config = &route["metadata"]["filter_metadata"]["istio"]["config"];
            let Some(root) = config.as_str().and_then(virtual_service) else { continue };
            let name = text(&route["name"]);
            let part = |(_, namespace): (&str, &str)| ObjectId {
                name: "part".into(),
                namespace: namespace.into(),
                ..root.clone()
            };
            let table = name.split_once('.').map_or_else(|| root.clone(), part);
            for cluster in clusters_of(&route["route"]) {
                self.routed.insert((table.clone(), name.clone(), cluster));
            }
        }
    }

    fn listener(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let is = |t: &str| fields.get("@type").is_some_and(|v| text(v).ends_with(t));
                if is("TcpProxy") {
                    self.connected.extend(clusters_of(value));
                }
                if fields.contains_key("sds_config") {
                    self.credentials.extend(
                        text(&value["name"]).strip_prefix("kubernetes://").map(str::to_owned),
                    );
                }
                fields.values().for_each(|field| self.listener(field));
            }
            Value::Array(items) => items.iter().for_each(|item| self.listener(item)),
            _ => {}
        }
    }

    fn assignment(&mut self, assignment: &Value) {
        let localities = list(&assignment["endpoints"]);
        let number = localities.map(|locality| list(&locality["lb_endpoints"]).count()).sum();
        self.endpoints.insert(text(&assignment["cluster_name"]), number);
    }

    /// Whether Istio has this cluster's name on its route `80` only.
    fn is_aside(&self, cluster: &str) -> bool {
        let Some((80, _, host)) = parts(cluster) else { return false };
        let ports: BTreeSet<u16> = self
            .clusters
            .iter()
            .filter_map(|name| parts(name))
            .filter(|(_, subset, of)| (*subset, *of) == ("", host))
            .map(|(port, ..)| port)
            .collect();
        self.kind == Some(NodeKind::Sidecar) && !ports.is_empty() && !ports.contains(&80)
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Clusters of a route action or a TCP proxy.
fn clusters_of(action: &Value) -> BTreeSet<String> {
    let weighted = list(&action["weighted_clusters"]["clusters"]).map(|c| text(&c["name"]));
    let mirrors = list(&action["request_mirror_policies"]).map(|m| text(&m["cluster"]));
    let one = std::iter::once(text(&action["cluster"]));
    one.chain(weighted).chain(mirrors).filter(|name| !name.is_empty()).collect()
}

/// Port, subset and host of a cluster.
fn parts(cluster: &str) -> Option<(u16, &str, &str)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
    Some((parts.next()?.parse().ok()?, parts.next()?, parts.next()?))
}

/// `/apis/GROUP/v1/namespaces/NS/virtual-service/NAME`
fn virtual_service(config: &str) -> Option<ObjectId> {
    let parts: Vec<&str> = config.split('/').collect();
    let [.., namespace, "virtual-service", name] = parts[..] else { return None };
    let (namespace, name) = (namespace.into(), name.into());
    Some(ObjectId { kind: Kind::VIRTUAL_SERVICE, namespace, name })
}

/// A destination that somebody wrote.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Written {
    table: ObjectId,
    field: String,
    /// `rule-0`; empty for connections.
    rule: String,
    hosts: BTreeSet<String>,
    subset: String,
    port: Option<u16>,
}

impl Written {
    fn names(&self, cluster: &str) -> bool {
        parts(cluster).is_some_and(|(port, subset, host)| {
            self.hosts.contains(host)
                && *subset == *self.subset
                && self.port.is_none_or(|own| own == port)
        })
    }
}

/// Every destination of every VirtualService; a host with what it is an alias of.
fn written(objects: &[Object]) -> Vec<Written> {
    let mut aliases: BTreeMap<String, String> = BTreeMap::new();
    for object in objects.iter().filter(|o| o.id.kind == Kind::SERVICE) {
        let target = text(&object.raw()["spec"]["externalName"]);
        if !target.is_empty() {
            aliases.insert(complete(&object.id.name, &object.id.namespace), target);
        }
    }
    let mut found = Vec::new();
    for object in objects.iter().filter(|o| o.id.kind == Kind::VIRTUAL_SERVICE) {
        let spec = object.raw()["spec"].clone();
        for kind in ["http", "tls", "tcp"] {
            for (i, rule) in list(&spec[kind]).enumerate() {
                for part in ["route", "mirrors"] {
                    for (j, target) in list(&rule[part]).enumerate() {
                        let to = &target["destination"];
                        let host = complete(&text(&to["host"]), &object.id.namespace);
                        let mut hosts = BTreeSet::from([host.clone()]);
                        let mut at = host;
                        while let Some(next) = aliases.get(&at) {
                            if !hosts.insert(next.clone()) {
                                break;
                            }
                            at = next.clone();
                        }
                        found.push(Written {
                            table: object.id.clone(),
                            field: format!("spec.{kind}[{i}].{part}[{j}].destination"),
                            rule: text(&rule["name"]),
                            hosts,
                            subset: text(&to["subset"]),
                            port: to["port"]["number"].as_u64().and_then(|p| u16::try_from(p).ok()),
                        });
                    }
                }
            }
        }
    }
    found
}

fn complete(host: &str, namespace: &str) -> String {
    let full = format!("{host}.{namespace}.svc.cluster.local");
    Hostname::new(if host.contains('.') { host } else { &full }).to_string()
}

/// What the proxies of a mesh are sent.
fn sent(mesh: &Mesh) -> Vec<Sent> {
    let base = MeshDefaults::default();
    let mut compiler = Compiler::new(base.clone());
    let objects = mesh.objects.iter().map(|object| Change::Upsert(Box::new(object.clone())));
    let credentials = mesh.credentials.iter().map(|((namespace, name), fact)| {
        let (namespace, name) = (namespace.clone(), name.clone());
        Change::Credential { namespace, name, fact: Some(fact.clone()) }
    });
    compiler.apply(objects.chain(credentials).collect());
    let input = Input::of(&mesh.objects, &mesh.credentials, &base);
    let mut all = Vec::new();
    for node in clients::nodes(&input) {
        let class = compiler.classify(&node).expect("nobody proves anything");
        let views: Vec<Arc<View>> = class.views.iter().map(|key| compiler.view(key)).collect();
        for dangling in closure::check(&views) {
            let named =
                dangling.to.0 == ResourceType::Cluster && dangling.to.1.starts_with("outbound|");
            assert!(named, "{:?}: {dangling:?}", node.workload);
        }
        let (namespace, known) = (node.workload.namespace, !node.workload.name.is_empty());
        let sent = Sent { kind: Some(node.kind), namespace, known, ..Sent::of(&views) };
        for name in &sent.credentials {
            let may = |name: &str| class.credentials.contains(name);
            let given = may(name) || name.strip_suffix("-cacert").is_some_and(may);
            assert!(given, "{} asks for {name}, which nobody gives it", sent.namespace);
        }
        all.push(sent);
    }
    all
}

fn is_about(finding: &Diagnostic, written: &Written) -> bool {
    finding.object.as_ref() == Some(&written.table)
        && finding.field.to_string().starts_with(&written.field)
}

/// Checks one mesh; the seed is in every complaint.
fn check(seed: u64) {
    let mesh = Mesh::random(seed);
    let findings = analyze(&mesh.objects, &mesh.credentials, &MeshDefaults::default());
    let missing: Vec<&Diagnostic> =
        findings.iter().filter(|f| f.code == Code::MissingReference).collect();
    let (sent, written) = (sent(&mesh), written(&mesh.objects));
    let found = |to: &Written| missing.iter().any(|finding| is_about(finding, to));
    for proxy in &sent {
        let whom = format!("seed {seed}: a {:?} in {}", proxy.kind, proxy.namespace);
        for (table, rule, cluster) in &proxy.routed {
            let mut named = written.iter().filter(|w| w.table == *table && w.rule == *rule);
            let lost = !proxy.clusters.contains(cluster) && parts(cluster).is_some();
            // A port that somebody wrote is no port of Istio's own.
            let aside = proxy.is_aside(cluster)
                && !named.clone().any(|w| w.names(cluster) && w.port.is_some());
            let told = named.any(|w| w.names(cluster) && found(w));
            assert!(!lost || aside || told, "{whom}: {table} {rule} leads to {cluster}: unsaid");
        }
        for cluster in proxy.connected.difference(&proxy.clusters) {
            let connections = |w: &&Written| w.rule.is_empty() && w.names(cluster);
            let told = written.iter().filter(connections).any(found);
            assert!(told, "{whom}: connections lead to {cluster}: unsaid");
        }
    }
    for to in written.iter().filter(|to| found(to)) {
        check_true(seed, to, &written, &sent);
    }
    check_credentials(seed, &mesh, &findings, &sent);
    check_subsets(seed, &mesh, &findings, &sent);
}

/// Subsets of DestinationRules: the object's host and its name for clients, a subset and its labels.
fn subsets(mesh: &Mesh) -> Vec<(String, String, Value)> {
    let rules = mesh.objects.iter().filter(|o| o.id.kind == Kind::DESTINATION_RULE);
    let subsets = rules.flat_map(|rule| {
        let spec = rule.raw()["spec"].clone();
        let host = text(&spec["host"]);
        let host = if host.starts_with('*') { host } else { complete(&host, &rule.id.namespace) };
        let subsets = list(&spec["subsets"]).cloned().collect::<Vec<_>>().into_iter();
        subsets.map(move |s| (host.clone(), text(&s["name"]), s["labels"].clone()))
    });
    subsets.collect()
}

/// Subsets without endpoints of services that have some, in both directions. Of a rule for many
/// hosts nothing is said: a subset may be meant for some of them.
fn check_subsets(seed: u64, mesh: &Mesh, findings: &[Diagnostic], sent: &[Sent]) {
    let all = subsets(mesh);
    let told: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| finding.code == Code::EmptySubset)
        .map(|finding| &*finding.message)
        .collect();
    for proxy in sent {
        for (cluster, number) in &proxy.endpoints {
            let Some((port, subset, host)) = parts(cluster).filter(|(_, s, _)| !s.is_empty())
            else {
                continue;
            };
            let whole = proxy.endpoints.get(&format!("outbound|{port}||{host}")).copied();
            let defining = |(of, name, _): &&(String, String, Value)| {
                let covers = of == host || Hostname::new(of).contains(&Hostname::new(host));
                covers && name == subset
            };
            let labels: BTreeSet<String> =
                all.iter().filter(defining).map(|(.., labels)| labels.to_string()).collect();
            let for_many = all.iter().filter(defining).any(|(of, ..)| of.starts_with('*'));
            let said = told.contains(&*format!("subset `{subset}` selects no pod of `{host}`"));
            let empty = *number == 0 && whole.is_some_and(|whole| whole > 0);
            let whom = format!("seed {seed}: {cluster} in {}", proxy.namespace);
            assert!(!empty || said || for_many, "{whom} is empty: unsaid");
            // Several rules may define it differently, for different clients.
            let filled = *number > 0 && labels.len() == 1;
            assert!(!filled || !said, "{whom} has {number} endpoints, and a finding says no");
        }
    }
}

/// A finding about a destination is no false one.
fn check_true(seed: u64, to: &Written, written: &[Written], sent: &[Sent]) {
    let similar = |other: &&Written| {
        let same_place = match to.rule.is_empty() {
            true => other.rule.is_empty(),
            false => (&other.table, &other.rule) == (&to.table, &to.rule),
        };
        same_place
            && other.field != to.field
            && other.subset == to.subset
            && !other.hosts.is_disjoint(&to.hosts)
    };
    // Of several in one rule that lead to one host it cannot be seen which is meant, nor of
    // connections to a whole service whether a rule sends them there.
    let alike = to.rule.is_empty() && to.subset.is_empty();
    if alike || written.iter().any(|other| similar(&other)) {
        return;
    }
    let mut led = false;
    for proxy in sent {
        let routed = proxy.routed.iter().filter(|(t, r, _)| *t == to.table && *r == to.rule);
        let clusters: Vec<&String> = match to.rule.is_empty() {
            true => proxy.connected.iter().collect(),
            false => routed.map(|(.., cluster)| cluster).collect(),
        };
        for cluster in clusters.into_iter().filter(|cluster| to.names(cluster)) {
            if !proxy.clusters.contains(cluster) {
                return;
            }
            led = true;
        }
    }
    assert!(
        !led,
        "seed {seed}: {to:?}: everybody who is led there finds it, and a finding says no"
    );
}

/// Credentials that gateways ask for and do not find, in both directions.
fn check_credentials(seed: u64, mesh: &Mesh, findings: &[Diagnostic], sent: &[Sent]) {
    let told = findings.iter().filter(|f| f.code == Code::MissingCredential);
    let told: Vec<&str> = told.map(|f| f.message.as_str()).collect();
    let clients = || sent.iter().filter(|s| s.known);
    for proxy in clients() {
        let namespace = &proxy.namespace;
        for name in &proxy.credentials {
            let named = format!("Secret `{name}`");
            let said = told.iter().any(|t| t.contains(&named) && speaks_of(t, namespace));
            // Who lacks the certificate too is told of that.
            let certificate = name
                .strip_suffix("-cacert")
                .is_some_and(|of| proxy.credentials.contains(of) && !has(mesh, namespace, of));
            assert!(
                said || certificate || has(mesh, namespace, name),
                "seed {seed}: no {name} in {namespace}: unsaid"
            );
        }
    }
    for text in told {
        let name = text.split('`').nth(1).expect("a name");
        let asks = |s: &&Sent| s.credentials.contains(name) && speaks_of(text, &s.namespace);
        let mut asking = clients().filter(asks).peekable();
        let true_word = asking.peek().is_none() || asking.any(|s| !has(mesh, &s.namespace, name));
        assert!(true_word, "seed {seed}: everybody has {name}: {text}");
    }
}

/// Whether a message says that a credential is lacking in a namespace.
fn speaks_of(text: &str, namespace: &str) -> bool {
    let (_, named) = text.split_once("in namespace ").unwrap_or_default();
    let mut words = named.split([',', ' ']).take_while(|word| !matches!(*word, "nor" | "where"));
    words.any(|word| word == namespace)
}

/// Whether a credential is in a namespace, or a CA in the credential beside which it is looked for.
fn has(mesh: &Mesh, namespace: &Arc<str>, name: &str) -> bool {
    let known = |name: &str| mesh.credentials.get(&(namespace.clone(), Arc::from(name)));
    let beside = name.strip_suffix("-cacert").and_then(known);
    known(name).is_some() || beside.is_some_and(|fact| fact.holds_ca)
}

/// Meshes that once disagreed: a route of Istio's own port 80 to another name of a service that the
/// client does not see; a word of a message that is a namespace's name too.
#[test]
fn meshes_that_once_disagreed() {
    check(4_407_158_548_798_957_066);
    check(12_528_424_123_621_022_718);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn a_name_dangles_if_and_only_if_a_finding_says_so(seed in any::<u64>()) {
        check(seed);
    }
}
