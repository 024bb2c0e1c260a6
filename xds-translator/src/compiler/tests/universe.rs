//! A small universe of objects that get in each other's way: few names, many variants.

use ferromesh_proto::discovery;
use proptest::prelude::*;
use prost_types::{Struct, Value as Metadatum, value::Kind as MetadataKind};
use serde_json::{Value, json};

use super::universe_ports;
use crate::{
    class::NodeIdentity,
    compiler::Change,
    dialect::{Kind, parse_value},
    ir::{Connection, KeySet, KeySource, Member, ObjectId, Presence},
    snapshot::CredentialFact,
};

const NAMESPACES: [&str; 3] = ["shop", "bank", "istio-system"];

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) struct Step {
    maker: usize,
    namespace: usize,
    name: usize,
    variant: usize,
    delete: bool,
}

/// Makes the specification of an object from (namespace, name, variant).
type Maker = fn(&str, usize, usize) -> Value;

const MAKERS: [(Kind, Maker); 37] = [
    (Kind::NAMESPACE, bare),
    (Kind::SERVICE_ACCOUNT, bare),
    (Kind::DEPLOYMENT, bare),
    (Kind::SERVICE, service),
    (Kind::POD, pod),
    (Kind::NODE, kube_node),
    (Kind::ENDPOINT_SLICE, slice),
    (Kind::VIRTUAL_SERVICE, virtual_service),
    (Kind::DESTINATION_RULE, destination_rule),
    (Kind::PEER_AUTHENTICATION, peer_authentication),
    (Kind::AUTHORIZATION_POLICY, authorization_policy),
    (Kind::REQUEST_AUTHENTICATION, request_authentication),
    (Kind::SERVICE_ENTRY, service_entry),
    (Kind::WORKLOAD_ENTRY, workload_entry),
    (Kind::SIDECAR, sidecar),
    (Kind::ENVOY_FILTER, envoy_filter),
    (Kind::GATEWAY, gateway),
    (Kind::INGRESS, ingress),
    (Kind::INGRESS_CLASS, ingress_class),
    (Kind::TRAFFIC_SPLIT, traffic_split),
    (Kind::HTTP_ROUTE_GROUP, route_group),
    (Kind::TELEMETRY, telemetry),
    (Kind::RATE_LIMIT, rate_limit),
    (Kind::WASM_PLUGIN, wasm_plugin),
    (Kind::TRAFFIC_EXTENSION, traffic_extension),
    (Kind::PROXY_CONFIG, proxy_config),
    (Kind::WORKLOAD_GROUP, workload_group),
    (Kind::SERVICE_PROFILE, universe_ports::service_profile),
    (Kind::LINKERD_SERVER, universe_ports::port_server),
    (Kind::LINKERD_HTTP_ROUTE, universe_ports::port_route),
    (Kind::LINKERD_AUTHORIZATION_POLICY, universe_ports::port_authorization),
    (Kind::MESH_TLS_AUTHENTICATION, universe_ports::mesh_tls_authentication),
    (Kind::NETWORK_AUTHENTICATION, universe_ports::network_authentication),
    (Kind::SERVER_AUTHORIZATION, universe_ports::server_authorization),
    (Kind::HTTP_LOCAL_RATE_LIMIT_POLICY, universe_ports::local_rate_limit),
    (Kind::EGRESS_NETWORK, universe_ports::egress_network),
    (Kind::MESH_CONFIG, mesh_config),
];

/// Any step. Changes of the mesh's settings are rare, because they hide mistakes: they rebuild
/// everything.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let maker = prop_oneof![40 => 0..MAKERS.len() - 1, 1 => Just(MAKERS.len() - 1), 3 => MAKERS.len()..MAKERS.len() + 4];
    (maker, 0..NAMESPACES.len(), 0..2usize, 0..6usize, prop::bool::weighted(0.2)).prop_map(
        |(maker, namespace, name, variant, delete)| Step {
            maker,
            namespace,
            name,
            variant,
            delete,
        },
    )
}

impl Step {
    pub(super) fn change(&self) -> Change {
        let namespace = NAMESPACES[self.namespace];
        let Some((kind, make)) = MAKERS.get(self.maker) else {
            return match self.maker - MAKERS.len() {
                0 => self.credential(namespace),
                1 => self.key_set(),
                2 => self.member(namespace),
                _ => self.connection(namespace),
            };
        };
        let kind = *kind;
        let name = match kind == Kind::SERVICE_PROFILE {
            // The name of such an object is that of a service.
            true => format!("service{}.shop.svc.cluster.local", self.name),
            false => format!("{}{}", kind.kebab(), self.name),
        };
        match self.delete {
            true => {
                let namespace = if kind.namespaced() { namespace } else { "" };
                Change::Delete(ObjectId {
                    kind,
                    namespace: namespace.into(),
                    name: name.as_str().into(),
                })
            }
            false => upsert(
                kind,
                namespace,
                &name,
                self.variant,
                make(namespace, self.name, self.variant),
            ),
        }
    }

    /// Keys of a source that some policies name, or of one that none does.
    fn key_set(&self) -> Change {
        let source = KeySource::Url(format!("https://keys{}.test/", self.name).into());
        let set = json!({"keys": [{"kty": "oct", "k": format!("{}", self.variant)}]});
        let keys = KeySet::parse(&set.to_string()).expect("a set of keys");
        Change::KeySet { source, keys: (!self.delete).then_some(keys) }
    }

    /// A machine that comes, goes or says how it is; of the last variant it claims a pod's address.
    fn member(&self, namespace: &str) -> Change {
        let account = format!("account{}", self.variant % 2);
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
        let net = if self.variant == 5 { 244 } else { 250 };
        let address = format!("10.{net}.{}.{}", self.namespace, self.name);
        let connection = Connection {
            identity: identity.parse().expect("an identity"),
            address: address.parse().expect("an address"),
        };
        let member = Member {
            group: format!("workload-group{}", self.name).into(),
            healthy: [None, Some(true), Some(false)][self.variant % 3],
        };
        Change::Member { connection, member: (!self.delete).then_some(member) }
    }

    /// A proxy that comes, goes or stays away, mostly at a pod's address.
    fn connection(&self, namespace: &str) -> Change {
        let account = format!("account{}", self.variant % 2);
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
        let connection = Connection {
            identity: identity.parse().expect("an identity"),
            address: address(namespace, self.name).parse().expect("an address"),
        };
        let presence = match (self.delete, self.variant % 3) {
            (true, _) => Presence::Unknown,
            (false, 0) => Presence::Away,
            (false, _) => Presence::Connected,
        };
        Change::Connection { connection, presence }
    }

    fn credential(&self, namespace: &str) -> Change {
        let fact = CredentialFact {
            fingerprint: format!("{}", self.variant).into(),
            not_after: 0,
            holds_ca: false,
        };
        Change::Credential {
            namespace: namespace.into(),
            name: "cert".into(),
            fact: (!self.delete).then_some(fact),
        }
    }
}

/// An object from its content.
pub(super) fn upsert(
    kind: Kind,
    namespace: &str,
    name: &str,
    variant: usize,
    mut content: Value,
) -> Change {
    let object = content.as_object_mut().expect("makers give objects");
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    meta["name"] = json!(name);
    if kind.namespaced() {
        meta["namespace"] = json!(namespace);
    }
    // Ages differ and tie, so that precedence among equals is exercised.
    meta["creationTimestamp"] = json!(format!("2026-01-0{}T00:00:00Z", 1 + variant % 3));
    object.insert("apiVersion".into(), json!(kind.api_version()));
    object.insert("kind".into(), json!(kind.kind_name()));
    let (object, _) = parse_value(content).unwrap_or_else(|d| panic!("{kind} {name}: {}", d[0]));
    Change::Upsert(Box::new(object))
}

#[test]
fn every_served_kind_is_made() {
    let made = |kind: &Kind| MAKERS.iter().any(|(own, _)| own == kind);
    // Secrets enter as facts ([`Step::credential`]).
    let missing = Kind::all_served().filter(|kind| *kind != Kind::SECRET && !made(kind));
    assert_eq!(missing.collect::<Vec<_>>(), []);
}

/// Objects of which only the metadata is read.
fn bare(_: &str, _: usize, variant: usize) -> Value {
    let access = ["deny", "all-authenticated", "all-unauthenticated"][variant % 3];
    json!({"metadata": {
        "labels": {"variant": variant.to_string()},
        "annotations": {"config.linkerd.io/default-inbound-policy": access},
    }})
}

fn traffic_split(_: &str, name: usize, variant: usize) -> Value {
    let service = ["service0", "service1", "service0.shop.svc.cluster.local"][variant % 3];
    let share = |name: &str, weight: usize| json!({"service": name, "weight": weight});
    let mut spec = json!({
        "service": service,
        "backends": [share("service0", 90 - variant), share("service1", 10 + name)],
    });
    if variant > 2 {
        let group = format!("http-route-group{}", variant % 2);
        spec["matches"] = json!([{"kind": "HTTPRouteGroup", "name": group}]);
    }
    json!({"spec": spec})
}

fn route_group(_: &str, name: usize, variant: usize) -> Value {
    let path = json!({"name": "path", "pathRegex": format!("/v{variant}"), "methods": ["GET"]});
    let header = json!({"name": "header", "headers": {"x-group": format!("{name}.*")}});
    let matches = if variant == 4 { json!([path]) } else { json!([path, header]) };
    json!({"spec": {"matches": matches}})
}

fn service(_: &str, name: usize, variant: usize) -> Value {
    let port = [80, 80, 9080, 80, 80, 80][variant];
    let port_name = ["http", "http", "tcp", "auto", "grpc", "http"][variant];
    let mut spec = json!({
        "selector": {"app": format!("app{name}")},
        "clusterIP": format!("10.0.0.{}", 1 + name),
        "ports": [{"name": port_name, "port": port, "targetPort": if variant == 1 { json!("web") } else { json!(8080) }}],
    });
    match variant {
        4 => spec["clusterIP"] = json!("None"),
        5 if name == 1 => {
            spec =
                json!({"type": "ExternalName", "externalName": "service0.shop.svc.cluster.local"})
        }
        5 => drop(spec.as_object_mut().map(|s| s.remove("selector"))),
        _ => {}
    }
    if variant == 1 {
        spec["trafficDistribution"] = json!("PreferSameNode");
    }
    let annotations = match variant {
        0 => {
            json!({"retry.linkerd.io/http": "5xx", "balancer.linkerd.io/failure-accrual": "consecutive"})
        }
        2 => json!({"networking.istio.io/traffic-distribution": "prefersamezone"}),
        3 => json!({"networking.istio.io/exportTo": "."}),
        _ => json!({}),
    };
    json!({"metadata": {"annotations": annotations}, "spec": spec})
}

fn pod(namespace: &str, name: usize, variant: usize) -> Value {
    let tls = match variant {
        1 | 4 => "anything.else/tlsMode",
        _ => "security.istio.io/tlsMode",
    };
    // Two hops before some gateways, one of which nobody can read.
    let annotations = match variant {
        5 if name == 0 => {
            json!({"proxy.istio.io/config": "{gatewayTopology: {numTrustedProxies: 2}}"})
        }
        5 => json!({"proxy.istio.io/config": "{gatewayTopology: {numTrustedProxies: many}}"}),
        4 => json!({"config.linkerd.io/default-inbound-policy": "deny"}),
        _ => json!({}),
    };
    json!({
        "metadata": {"annotations": annotations, "labels": {
            "app": format!("app{}", if variant == 3 { 1 - name } else { name }),
            "version": format!("v{}", variant % 2),
            "istio": if variant == 5 { "ingressgateway" } else { "none" },
            tls: if variant == 2 { "disabled" } else { "istio" },
        }},
        "spec": {
            "serviceAccountName": format!("account{}", variant % 2),
            "nodeName": format!("node{}", variant % 3),
            "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": address(namespace, name),
            "conditions": [{"type": "Ready", "status": if variant == 4 { "False" } else { "True" }}],
        },
    })
}

fn kube_node(_: &str, _: usize, variant: usize) -> Value {
    let zone = ["a", "a", "b", "c", "", ""][variant];
    json!({"metadata": {"labels": {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": zone}}})
}

fn address(namespace: &str, name: usize) -> String {
    let third = NAMESPACES.iter().position(|n| *n == namespace).unwrap_or_default();
    format!("10.244.{third}.{name}")
}

fn slice(namespace: &str, name: usize, variant: usize) -> Value {
    let target =
        json!({"kind": "Pod", "name": format!("pod{}", variant % 2), "namespace": namespace});
    let mut endpoint = json!({
        "addresses": [address(namespace, variant % 2)],
        "conditions": {"ready": variant != 3, "terminating": variant == 4},
    });
    if variant != 2 {
        endpoint["targetRef"] = target;
    }
    let port = ["http", "tcp", "auto"][variant % 3];
    json!({
        "metadata": {"labels": {"kubernetes.io/service-name": format!("service{name}")}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080}],
        "endpoints": [endpoint],
    })
}

fn virtual_service(_: &str, name: usize, variant: usize) -> Value {
    let host = [
        "service0",
        "service1",
        "ext.example.com",
        "*.example.com",
        "service0.shop.svc.cluster.local",
        "service0",
    ][variant];
    let destination = |subset: &str, weight: usize| json!({"destination": {"host": host.trim_start_matches("*."), "subset": subset}, "weight": weight});
    let rule = json!({
        "match": [{"sourceLabels": if variant == 1 { json!({"version": "v1"}) } else { json!({}) }, "uri": {"prefix": format!("/{name}")}}],
        "route": [destination("v0", 90 - variant), destination("v1", 10 + variant)],
    });
    let fallback =
        json!({"route": [{"destination": {"host": "service1", "port": {"number": 80}}}]});
    let gateways = match variant {
        3 => json!(["istio-system/gateway0"]),
        4 => json!(["mesh", "istio-system/gateway0"]),
        _ => json!(["mesh"]),
    };
    let export = if variant == 5 { json!(["."]) } else { json!(["*"]) };
    // Parts, hidden ones too; they come and go where others continue in them, and become tables.
    if name == 1 && (variant == 2 || variant == 3) {
        let rules = json!([rule, fallback]);
        let export = if variant == 3 { json!(["."]) } else { json!(["*"]) };
        return json!({"spec": {"exportTo": export, "http": rules}});
    }
    let delegate = json!({"name": "virtual-service1", "namespace": "shop"});
    let continued = json!({"match": [{"uri": {"prefix": "/"}, "port": 80}], "delegate": delegate});
    let http = if variant.is_multiple_of(2) {
        json!([rule, continued, fallback])
    } else {
        json!([rule, fallback])
    };
    json!({"spec": {"hosts": [host], "gateways": gateways, "exportTo": export, "http": http}})
}

fn destination_rule(_: &str, name: usize, variant: usize) -> Value {
    let host = [
        "service0",
        "service1",
        "*.example.com",
        "service0.shop.svc.cluster.local",
        "service0",
        "service1",
    ][variant];
    let mut spec = json!({
        "host": host,
        "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 10 + name}}},
        "subsets": [{"name": "v0", "labels": {"version": "v0"}}, {"name": "v1", "labels": {"version": "v1"}}],
        "exportTo": [if matches!(variant, 3 | 4) { "." } else { "*" }],
    });
    match variant {
        1 => spec["trafficPolicy"]["tls"] = json!({"mode": "DISABLE"}),
        2 => {
            spec["trafficPolicy"]["loadBalancer"] =
                json!({"consistentHash": {"httpHeaderName": "x-user"}})
        }
        4 => spec["workloadSelector"] = json!({"matchLabels": {"version": "v1"}}),
        3 => {
            spec["subsets"][0]["labels"] = json!({"topology.kubernetes.io/zone": "a"});
            let zones = json!({"zoneAwareLbSetting": {"enabled": name != 0}});
            spec["trafficPolicy"]["loadBalancer"] = zones;
        }
        5 => {
            spec["trafficPolicy"]["outlierDetection"] = json!({"consecutive5xxErrors": 3});
            if name == 1 {
                let priority = json!(["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
                let setting = json!({"failoverPriority": priority});
                spec["trafficPolicy"]["loadBalancer"] = json!({"localityLbSetting": setting});
            }
        }
        _ => {}
    }
    json!({"spec": spec})
}

fn peer_authentication(_: &str, _: usize, variant: usize) -> Value {
    let mode = ["STRICT", "PERMISSIVE", "DISABLE"][variant % 3];
    let mut spec = json!({"mtls": {"mode": mode}});
    if variant > 2 {
        spec["selector"] = json!({"matchLabels": {"app": "app0"}});
        spec["portLevelMtls"] = json!({"8080": {"mode": "PERMISSIVE"}, "9999": {"mode": "STRICT"}});
    }
    json!({"spec": spec})
}

fn authorization_policy(_: &str, name: usize, variant: usize) -> Value {
    let rule = json!({"from": [{"source": {"namespaces": ["shop"]}}], "to": [{"operation": {"methods": ["GET"]}}]});
    let selector = if variant > 2 { json!({"matchLabels": {"version": "v1"}}) } else { json!({}) };
    if variant == 1 {
        // One that asks, and one that is refused: in its stead stands its last accepted version, or
        // a closed door.
        if name == 1 {
            let target = json!([{"kind": "Service", "name": "service0"}]);
            return json!({"spec": {"targetRefs": target, "rules": [rule]}});
        }
        let asked = json!({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}], "to": rule["to"]});
        return json!({"spec": {"action": "CUSTOM", "provider": {"name": "p"}, "selector": selector, "rules": [asked]}});
    }
    if variant == 5 {
        let when = json!([{"key": "request.auth.claims[group]", "notValues": ["staff"]}]);
        return json!({"spec": {"selector": selector, "action": "DENY", "rules": [{"when": when}]}});
    }
    let action = if variant.is_multiple_of(2) { "ALLOW" } else { "DENY" };
    json!({"spec": {"selector": selector, "action": action, "rules": [rule]}})
}

fn request_authentication(_: &str, name: usize, variant: usize) -> Value {
    let keys = format!("https://keys{name}.test/");
    let rules = match variant {
        0 => json!([]),
        1 => json!([{"issuer": "a", "jwks": KeySet::nobodys().as_str()}]),
        // Refused: in its stead stands its last accepted version, or a closed door.
        2 => {
            let target = json!([{"kind": "Service", "name": "service0"}]);
            let rules = json!([{"issuer": "a", "jwksUri": keys}]);
            return json!({"spec": {"targetRefs": target, "jwtRules": rules}});
        }
        3 => json!([{"issuer": "https://a.test"}, {"issuer": "a", "jwksUri": keys}]),
        _ => json!([{"issuer": "b", "jwksUri": keys, "fromCookies": ["c"]}]),
    };
    let mut spec = json!({"jwtRules": rules});
    if variant > 3 {
        spec["selector"] = json!({"matchLabels": {"version": "v1"}});
    }
    json!({"spec": spec})
}

fn service_entry(namespace: &str, name: usize, variant: usize) -> Value {
    // Two of a namespace may be read as one service, with a port of each.
    let number = if variant == 0 { 443 + name } else { 443 };
    let port = json!({"number": number, "name": "tls", "protocol": if variant == 1 { "HTTP" } else { "TLS" }});
    let spec = match variant {
        0 | 1 => {
            json!({"hosts": ["ext.example.com"], "ports": [port], "resolution": "DNS", "location": "MESH_EXTERNAL"})
        }
        2 => {
            json!({"hosts": ["ext.example.com", "www.example.com"], "ports": [port], "resolution": "STATIC", "endpoints": [{"address": format!("10.9.0.{name}")}, {"address": address(namespace, name)}]})
        }
        3 => {
            let resolution = ["NONE", "DYNAMIC_DNS"][name];
            json!({"hosts": ["*.example.com"], "ports": [port], "resolution": resolution})
        }
        4 => {
            json!({"hosts": ["vm.example.com"], "ports": [port], "resolution": "STATIC", "location": "MESH_INTERNAL", "workloadSelector": {"labels": {"app": "app0"}}})
        }
        _ if name == 1 => {
            let port = json!({"number": 80, "name": "http", "protocol": "HTTP"});
            json!({"hosts": [format!("service0.{namespace}.svc.cluster.local")], "ports": [port], "resolution": "STATIC", "endpoints": [{"address": "10.9.0.7"}]})
        }
        _ => {
            json!({"hosts": ["ext.example.com"], "ports": [port], "resolution": "DNS", "exportTo": ["."], "addresses": ["10.8.0.1"]})
        }
    };
    json!({"spec": spec})
}

fn workload_entry(_: &str, name: usize, variant: usize) -> Value {
    let account = if variant == 1 { "" } else { "account0" };
    let address =
        if variant == 2 { "vm.internal.example".to_owned() } else { format!("10.7.0.{name}") };
    json!({"spec": {"address": address, "labels": {"app": "app0", "version": format!("v{}", variant % 2)}, "serviceAccount": account, "ports": {"tls": 8443}}})
}

fn sidecar(_: &str, _: usize, variant: usize) -> Value {
    let hosts =
        [json!(["*/*"]), json!(["./*"]), json!(["shop/*", "istio-system/*"])][variant % 3].clone();
    let mut spec = json!({"egress": [{"hosts": hosts}], "outboundTrafficPolicy": {"mode": if variant == 1 { "REGISTRY_ONLY" } else { "ALLOW_ANY" }}});
    if variant == 2 || variant == 5 {
        let host = "service0.shop.svc.cluster.local";
        let proxy = json!({"host": host, "port": {"number": 80}});
        spec["outboundTrafficPolicy"] = json!({"mode": "ALLOW_ANY", "egressProxy": proxy});
    }
    if variant > 2 {
        spec["workloadSelector"] = json!({"labels": {"app": "app0"}});
    }
    json!({"spec": spec})
}

fn telemetry(_: &str, name: usize, variant: usize) -> Value {
    let selector = json!({"matchLabels": {"app": format!("app{name}")}});
    let mut spec = if variant > 2 { json!({"selector": selector}) } else { json!({}) };
    let side = ["CLIENT_AND_SERVER", "CLIENT", "SERVER"][variant % 3];
    let tracer = ["otel", "zipkin", "nobody"][variant % 3];
    let log = ["envoy", "als", "file"][(variant + name) % 3];
    if variant != 1 {
        spec["tracing"] = json!([{
            "match": {"mode": side},
            "providers": [{"name": tracer}],
            "randomSamplingPercentage": 10 * variant,
        }]);
    }
    if variant != 2 {
        spec["accessLogging"] = json!([{
            "match": {"mode": side},
            "providers": [{"name": log}],
            "disabled": variant == 5,
            "filter": {"expression": format!("response.code > {}", 100 * variant)},
        }]);
    }
    if variant != 3 {
        let host = json!({"operation": "UPSERT", "value": "request.host"});
        spec["metrics"] = json!([{"overrides": [{
            "match": {"metric": "REQUEST_COUNT", "mode": side},
            "tagOverrides": {"host": host, "source_app": {"operation": "REMOVE"}},
        }]}]);
    }
    json!({"spec": spec})
}

fn proxy_config(_: &str, name: usize, variant: usize) -> Value {
    let mut spec = json!({"concurrency": variant, "environmentVariables": {"A": "b"}});
    if variant > 2 {
        spec["selector"] = json!({"matchLabels": {"app": format!("app{name}")}});
    }
    json!({"spec": spec})
}

fn workload_group(_: &str, name: usize, variant: usize) -> Value {
    let locality = ["", "eu/b/", "eu/a/rack1"][variant % 3];
    let template = json!({
        "serviceAccount": format!("account{}", variant % 2),
        "labels": {"app": format!("app{name}"), "version": format!("v{}", variant % 2)},
        "ports": {"http": 8080 + variant},
        "locality": locality,
    });
    let mut spec = json!({ "template": template });
    if variant > 3 {
        spec["probe"] = json!({"tcpSocket": {"port": 8080}});
    }
    json!({"spec": spec})
}

fn envoy_filter(_: &str, name: usize, variant: usize) -> Value {
    let patch = |apply_to: &str, matches: Value, operation: &str, value: Value| {
        let mut patch = json!({"operation": operation});
        if !value.is_null() {
            patch["value"] = value;
        }
        json!({"applyTo": apply_to, "match": matches, "patch": patch})
    };
    let lua = json!({
        "name": format!("lua{name}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": "function envoy_on_request(h) end"},
        },
    });
    let router = json!({"listener": {"filterChain": {"filter": {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }}}});
    let given = json!({
        "name": "given", "type": "STRICT_DNS", "connect_timeout": format!("{}s", 1 + name),
    });
    let header = json!({"header": {"key": "x-patch", "value": format!("{name}")}});
    let on_host = json!({
        "context": "SIDECAR_OUTBOUND",
        "routeConfiguration": {
            "portNumber": 80,
            "vhost": {"name": "service0.shop.svc.cluster.local:80"},
        },
    });
    let service = json!({"cluster": {"service": "service0.shop.svc.cluster.local"}});
    let mut outbound_service = service.clone();
    // Some proxies say it of themselves, and some do not.
    let mut addressed = service.clone();
    addressed["proxy"] = json!({"metadata": {"INTERCEPTION_MODE": "NONE"}});
    outbound_service["context"] = json!("SIDECAR_OUTBOUND");
    let patches = match variant {
        0 => vec![
            patch("HTTP_FILTER", router, "INSERT_BEFORE", lua.clone()),
            // Another wins where two add a configuration of one name.
            patch(
                "EXTENSION_CONFIG",
                json!({"context": if name == 0 { "GATEWAY" } else { "ANY" }}),
                "ADD",
                json!({"name": "shared", "typed_config": lua["typed_config"]}),
            ),
        ],
        1 => vec![
            patch("CLUSTER", service, "MERGE", json!({"per_connection_buffer_limit_bytes": 99})),
            patch("CLUSTER", addressed, "MERGE", json!({"connect_timeout": "3s"})),
            patch("CLUSTER", json!({}), "ADD", given),
        ],
        2 => vec![
            patch(
                "ROUTE_CONFIGURATION",
                json!({}),
                "MERGE",
                json!({"response_headers_to_add": [header]}),
            ),
            patch(
                "VIRTUAL_HOST",
                on_host,
                "MERGE",
                json!({"include_attempt_count_in_response": true}),
            ),
        ],
        3 => vec![
            // What leads to the workload itself would be left without its cluster.
            patch("CLUSTER", outbound_service, "REMOVE", Value::Null),
            patch(
                "LISTENER",
                json!({"context": "SIDECAR_INBOUND"}),
                "MERGE",
                json!({"tcp_backlog_size": 7}),
            ),
        ],
        4 => vec![
            patch("HTTP_ROUTE", json!({}), "MERGE", json!({"response_headers_to_add": [header]})),
            patch(
                "NETWORK_FILTER",
                json!({"context": "GATEWAY"}),
                "INSERT_FIRST",
                json!({
                    "name": "echo",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
                    },
                }),
            ),
        ],
        _ => vec![
            patch("HTTP_FILTER", json!({"context": "SIDECAR_INBOUND"}), "INSERT_FIRST", lua),
            patch(
                "FILTER_CHAIN",
                json!({"listener": {"filterChain": {"transportProtocol": "raw_buffer"}}}),
                "MERGE",
                json!({"transport_socket_connect_timeout": "7s"}),
            ),
            patch(
                "LISTENER_FILTER",
                json!({"listener": {"listenerFilter": "envoy.filters.listener.tls_inspector"}}),
                "INSERT_BEFORE",
                json!({
                    "name": "proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                    },
                }),
            ),
        ],
    };
    let mut spec = json!({"configPatches": patches, "priority": variant % 2});
    if variant > 2 {
        spec["workloadSelector"] = json!({"labels": {"app": "app0"}});
    }
    json!({"spec": spec})
}

fn rate_limit(_: &str, name: usize, variant: usize) -> Value {
    let service = ["service0.shop.svc.cluster.local", "service0", "nobody"][variant % 3];
    let part = json!({"source": "HEADER", "name": "x-user"});
    let alike =
        json!({"by": [{"source": "PATH", "value": "/a"}], "requests": 1, "interval": "60s"});
    let mut spec = match variant {
        0 | 1 => json!({"local": {"requests": 1 + name, "interval": "1s", "alike": [alike]}}),
        _ => json!({"global": {
            "service": service, "port": 80, "domain": "mesh", "descriptors": [{"by": [part]}],
            "failureMode": if variant == 5 { "ALLOW" } else { "DENY" },
        }}),
    };
    match variant {
        1 => spec["port"] = json!(8080),
        2 => spec["gateway"] = json!("gateway0"),
        3 => spec["selector"] = json!({"matchLabels": {"version": "v1"}}),
        _ => {}
    }
    json!({ "spec": spec })
}

fn wasm_plugin(_: &str, name: usize, variant: usize) -> Value {
    let phase = ["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"][variant % 4];
    let mut spec = json!({
        "url": format!("file:///opt/{name}.wasm"), "phase": phase, "priority": variant,
        "pluginConfig": {"variant": variant},
    });
    match variant {
        1 => {
            spec["url"] = json!("https://code.test/m.wasm");
            spec["sha256"] = json!("0".repeat(64));
        }
        2 => spec["match"] = json!([{"mode": "SERVER", "ports": [{"number": 8080}]}]),
        // Refused: in its stead stands its last accepted version, or a closed door.
        3 => spec["targetRefs"] = json!([{"kind": "Service", "name": "service0"}]),
        4 => spec["type"] = json!("NETWORK"),
        _ => spec["failStrategy"] = json!("FAIL_OPEN"),
    }
    if variant == 5 {
        spec["selector"] = json!({"matchLabels": {"app": "app0"}});
    }
    json!({ "spec": spec })
}

fn traffic_extension(_: &str, name: usize, variant: usize) -> Value {
    let code = format!("function envoy_on_request(h) h:headers():add('x', '{variant}') end");
    let mut spec = json!({"lua": {"inlineCode": code}, "priority": name});
    if variant > 3 {
        spec = json!({"wasm": {"url": "https://code.test/m.wasm", "sha256": "0".repeat(64)}});
    }
    if variant.is_multiple_of(2) {
        let mode = ["CLIENT", "SERVER", "CLIENT_AND_SERVER"][variant / 2];
        spec["match"] = json!([{"mode": mode}, {"mode": "CLIENT", "ports": [{"number": 80}]}]);
    }
    json!({ "spec": spec })
}

fn gateway(_: &str, name: usize, variant: usize) -> Value {
    let http = json!({"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"], "tls": {"httpsRedirect": variant == 1}});
    let https = json!({
        "port": {"number": 443, "name": format!("https{name}"), "protocol": "HTTPS"},
        "hosts": ["ext.example.com"],
        "tls": {"mode": if variant == 2 { "MUTUAL" } else { "SIMPLE" }, "credentialName": "cert"},
    });
    let relay = json!({
        "port": {"number": 443, "name": "relay", "protocol": "TLS"},
        "hosts": ["*.local"], "tls": {"mode": "AUTO_PASSTHROUGH"},
    });
    let servers = match variant {
        0 => json!([http]),
        4 => json!([http, relay]),
        _ => json!([http, https]),
    };
    json!({"spec": {"selector": {"istio": if variant == 5 { "other" } else { "ingressgateway" }}, "servers": servers}})
}

fn ingress(_: &str, name: usize, variant: usize) -> Value {
    let port = if variant == 2 { json!({"name": "http"}) } else { json!({"number": 80}) };
    let backend = |service: usize| {
        let name = format!("service{service}");
        json!({"service": {"name": name, "port": port}})
    };
    let path =
        |path: &str, how: &str| json!({"path": path, "pathType": how, "backend": backend(name)});
    let paths =
        json!([path("/", "Prefix"), path("/a", if variant == 3 { "Prefix" } else { "Exact" })]);
    let mut rules = vec![json!({"host": "ext.example.com", "http": {"paths": paths}})];
    if variant > 3 {
        rules.push(json!({"host": "*.example.com", "http": {"paths": [path("/w*", "ImplementationSpecific")]}}));
    }
    let class = ["istio", "other", "istio", "ingress-class0", "ingress-class1", ""][variant];
    let mut spec = json!({"ingressClassName": class, "rules": rules});
    if variant == 4 {
        spec["defaultBackend"] = backend(1 - name);
    }
    if variant > 2 {
        spec["tls"] = json!([{"hosts": ["ext.example.com"], "secretName": "cert"}]);
    }
    json!({ "spec": spec })
}

/// Of the names that Ingresses have for their class.
fn ingress_class(_: &str, _: usize, variant: usize) -> Value {
    let controller = ["istio.io/ingress-controller", "example.com/other"][variant % 2];
    let by_default = (variant > 3).to_string();
    let annotations = json!({"ingressclass.kubernetes.io/is-default-class": by_default});
    json!({"metadata": {"annotations": annotations}, "spec": {"controller": controller}})
}

fn mesh_config(_: &str, _: usize, variant: usize) -> Value {
    let mut spec = match variant {
        0 => json!({"trustDomain": "other.example"}),
        1 => json!({"defaultServiceExportTo": ["."]}),
        2 => json!({
            "enableAutoMtls": false,
            "accessLogFile": "/dev/stdout",
            "disableEnvoyListenerLog": true,
            "outboundClusterStatName": "%SERVICE%.%SUBSET_NAME%",
        }),
        3 => json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}),
        4 => json!({"rootNamespace": "bank", "ingressControllerMode": "OFF"}),
        5 => {
            let service = "shop/service0.shop.svc.cluster.local";
            json!({"extensionProviders": [{"name": "p", "envoyExtAuthzGrpc": {"service": service, "port": 80}}]})
        }
        _ => json!({}),
    };
    let host = "service0.shop.svc.cluster.local";
    spec["extensionProviders"] = json!([
        {"name": "otel", "opentelemetry": {"service": host, "port": 80}},
        {"name": "zipkin", "zipkin": {"service": "shop/ext.example.com", "port": 443}},
        {"name": "als", "envoyHttpAls": {"service": host, "port": 9080}},
        {"name": "file", "envoyFileAccessLog": {"path": "/dev/stderr"}},
    ]);
    if variant == 1 {
        spec["discoverySelectors"] = json!([{"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["bank"]},
        ]}]);
    }
    if variant == 3 {
        spec["defaultProviders"] = json!({"tracing": ["otel"], "accessLogging": ["als"]});
    }
    json!({"spec": spec})
}

/// Proxies that ask: sidecars of the universe's pods with and without proof, one the registry never
/// knows, a gateway.
pub(super) fn nodes() -> Vec<NodeIdentity> {
    let proven = |namespace: &str, account: &str| {
        format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().ok()
    };
    let text = |t: &str| Metadatum { kind: Some(MetadataKind::StringValue(t.to_owned())) };
    let none = [("INTERCEPTION_MODE", "NONE"), ("FERROMESH_OUTBOUND_ADDRESS", "127.0.1.1")]
        .map(|(k, v)| (k.to_owned(), text(v)));
    let gateway_labels = Struct { fields: [("istio".to_owned(), text("ingressgateway"))].into() };
    let labels = [(
        "LABELS".to_owned(),
        Metadatum { kind: Some(MetadataKind::StructValue(gateway_labels)) },
    )];
    [
        node("sidecar", "10.244.0.0", "pod0", "shop", [].into(), None),
        node("sidecar", "10.244.0.1", "pod1", "shop", none.into(), None),
        node("sidecar", "10.244.1.0", "pod0", "bank", [].into(), proven("bank", "account0")),
        node("sidecar", "10.99.0.9", "stranger", "bank", [].into(), proven("bank", "account0")),
        node("sidecar", "10.250.0.0", "vm", "shop", [].into(), proven("shop", "account0")),
        node("router", "10.99.0.8", "edge", "istio-system", labels.into(), None),
        node(
            "router",
            "10.244.2.1",
            "pod1",
            "istio-system",
            [].into(),
            proven("istio-system", "account1"),
        ),
    ]
    .into()
}

fn node(
    kind: &str,
    ip: &str,
    name: &str,
    namespace: &str,
    metadata: std::collections::HashMap<String, Metadatum>,
    proven: Option<ferromesh_proto::SpiffeId>,
) -> NodeIdentity {
    let metadata = Struct { fields: metadata.into_iter().collect() };
    let id = format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local");
    let node = discovery::Node { id, metadata: Some(metadata), ..discovery::Node::default() };
    NodeIdentity::parse(&node, proven).expect("the universe's nodes are well formed")
}
