//! What the snapshot makes of several objects together, and what stays in force.

use std::{collections::BTreeSet, net::IpAddr};

use ferromesh_proto::{ResourceType, discovery::Node};
use serde_json::{Value, json};

use super::universe::upsert;
use crate::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::{Kind, stand_in},
    ir::{
        AccessAction, Connection, Health, Hostname, Labels, MeshDefaults, ObjectId, PeerTls,
        Presence, ServiceKey,
    },
    plan::{CaptureMode, Features, OutboundKey, PatchesKey, TelemetryKey, ViewKey},
    snapshot::Reader,
};

fn cart() -> ServiceKey {
    ServiceKey::kubernetes(Hostname::new("cart.shop.svc.cluster.local"), "shop".into())
}

fn service(extra: Value) -> Change {
    let mut spec = json!({"selector": {"app": "cart"}, "clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    for (key, value) in extra.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    upsert(Kind::SERVICE, "shop", "cart", 0, json!({"spec": spec}))
}

fn pod(name: &str, ip: &str, status: &str) -> Change {
    let content = json!({
        "metadata": {"labels": {"app": "cart", "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": "cart", "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": status}]},
    });
    upsert(Kind::POD, "shop", name, 0, content)
}

fn slice(name: &str, endpoints: Value) -> Change {
    let content = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    });
    upsert(Kind::ENDPOINT_SLICE, "shop", name, 0, content)
}

fn endpoint(ip: &str, pod: &str, conditions: Value) -> Value {
    json!({"addresses": [ip], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"}})
}

/// The endpoints of the cart after some changes: address, whether its pod is known, health.
fn check(changes: Vec<Change>, expected: &[(&str, bool, Health)]) -> Compiler {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(changes);
    let reader = Reader::new(compiler.snapshot());
    let endpoints = reader.endpoints(&cart()).map(|e| e.ports[&80].clone()).unwrap_or_default();
    let expected = expected
        .iter()
        .map(|(ip, known, health)| (ip.parse::<IpAddr>().expect("an address"), *known, *health));
    let got = endpoints.iter().map(|e| match e.address {
        crate::ir::EndpointAddress::Ip(ip, 8080) => (ip, e.identity.is_some(), e.health),
        _ => panic!("{e:?}"),
    });
    assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    compiler
}

#[test]
fn a_pod_that_arrives_later_completes_its_endpoint() {
    let slice = slice("cart-x", json!([endpoint("10.1.0.1", "cart-1", json!({}))]));
    let mut compiler =
        check(vec![service(json!({})), slice], &[("10.1.0.1", false, Health::Healthy)]);
    compiler.apply(vec![pod("cart-1", "10.1.0.1", "True")]);
    let reader = Reader::new(compiler.snapshot());
    assert_eq!(&*reader.identities(&cart())[0], "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(!reader.has_plaintext_endpoint(&cart()));
}

#[test]
fn slices_add_up_and_leave_out_what_terminates() {
    let slices = [
        slice(
            "cart-x",
            json!([
                endpoint("10.1.0.1", "a", json!({"ready": true})),
                endpoint("10.1.0.2", "b", json!({"ready": false}))
            ]),
        ),
        slice(
            "cart-y",
            json!([
                endpoint("10.1.0.3", "c", json!({"ready": false, "terminating": true})),
                endpoint("10.1.0.1", "a", json!({}))
            ]),
        ),
    ];
    let changes = |extra| [service(extra)].into_iter().chain(slices.clone()).collect::<Vec<_>>();
    check(
        changes(json!({})),
        &[("10.1.0.1", false, Health::Healthy), ("10.1.0.2", false, Health::Unhealthy)],
    );
    let all_ready = json!({"publishNotReadyAddresses": true});
    check(
        changes(all_ready),
        &[("10.1.0.1", false, Health::Healthy), ("10.1.0.2", false, Health::Healthy)],
    );
}

#[test]
fn without_any_slice_ready_pods_are_the_endpoints() {
    let pods =
        || vec![service(json!({})), pod("a", "10.1.0.1", "True"), pod("b", "10.1.0.2", "False")];
    check(pods(), &[("10.1.0.1", true, Health::Healthy)]);
    let mut with_slice = pods();
    with_slice.push(slice("cart-x", json!([])));
    check(with_slice, &[]);
}

#[test]
fn nobody_is_sent_to_a_workload_whose_proxy_is_away() {
    let known = |presence| Change::Connection {
        connection: Connection {
            identity: "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity"),
            address: "10.1.0.1".parse().expect("an address"),
        },
        presence,
    };
    let pods = vec![service(json!({})), pod("a", "10.1.0.1", "True"), pod("b", "10.1.0.2", "True")];
    let expected = [("10.1.0.1", true, Health::Healthy), ("10.1.0.2", true, Health::Healthy)];
    let mut compiler = check(pods, &expected);
    let mut left = |changes: Vec<Change>| {
        compiler.apply(changes);
        let reader = Reader::new(compiler.snapshot());
        let all = reader.endpoints(&cart()).expect("a service").ports[&80].clone();
        all.iter().map(|endpoint| reader.is_away(endpoint)).collect::<Vec<_>>()
    };
    assert_eq!(left(vec![]), [false, false]);
    assert_eq!(left(vec![known(Presence::Connected)]), [false, false]);
    assert_eq!(left(vec![known(Presence::Away)]), [true, false]);
    let content = json!({
        "metadata": {"labels": {"app": "cart", "security.istio.io/tlsMode": "disabled"}},
        "spec": {"serviceAccountName": "cart", "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let without = upsert(Kind::POD, "shop", "a", 0, content);
    assert_eq!(left(vec![without]), [false, false], "it may be there without its proxy");
    assert_eq!(left(vec![pod("a", "10.1.0.1", "True")]), [true, false]);
    assert_eq!(left(vec![known(Presence::Unknown)]), [false, false]);
}

#[test]
fn workload_entries_stand_beside_slices() {
    let spec = json!({"address": "10.2.0.1", "labels": {"app": "cart"}, "serviceAccount": "vm", "ports": {"http": 8080}});
    let entry = upsert(Kind::WORKLOAD_ENTRY, "shop", "vm", 0, json!({"spec": spec}));
    let slice = slice("cart-x", json!([endpoint("10.1.0.1", "a", json!({}))]));
    let expected = [("10.1.0.1", false, Health::Healthy), ("10.2.0.1", true, Health::Healthy)];
    check(vec![service(json!({})), slice.clone(), entry.clone()], &expected);
    check(vec![service(json!({})), entry, slice], &expected);
}

#[test]
fn headless_services_show_their_addresses() {
    let compiler = check(
        vec![service(json!({"clusterIP": "None"})), pod("a", "10.1.0.1", "True")],
        &[("10.1.0.1", true, Health::Healthy)],
    );
    let reader = Reader::new(compiler.snapshot());
    assert_eq!(
        &*reader.headless_addresses(&cart(), 80),
        ["10.1.0.1".parse::<IpAddr>().expect("an address")]
    );
}

#[test]
fn a_refused_object_leaves_its_last_accepted_version_in_force() {
    let policy = |rules: Value| {
        upsert(Kind::AUTHORIZATION_POLICY, "shop", "p", 0, json!({"spec": {"rules": rules}}))
    };
    let refused = upsert(
        Kind::AUTHORIZATION_POLICY,
        "shop",
        "p",
        0,
        json!({"spec": {"targetRefs": [{"kind": "Gateway", "name": "x", "group": "gateway.networking.k8s.io"}]}}),
    );
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![policy(json!([{}]))]);
    let outcome = compiler.apply(vec![refused]);
    assert_eq!(outcome.diagnosed.len(), 1);
    let policies = |compiler: &Compiler| {
        Reader::new(compiler.snapshot()).access_policies("shop", &Labels::new())
    };
    assert_eq!(policies(&compiler).len(), 1, "the accepted version still allows");
    assert_eq!(policies(&compiler.rebuild()).len(), 1);
    compiler.apply(vec![policy(json!([]))]);
    assert!(policies(&compiler)[0].rules.is_empty() && compiler.diagnostics().next().is_none());
}

#[test]
fn a_guard_that_is_refused_on_first_sight_is_in_force_closed_until_a_version_is_accepted() {
    let policy =
        |spec: Value| upsert(Kind::AUTHORIZATION_POLICY, "shop", "p", 0, json!({"spec": spec}));
    let attached = |path: &str| {
        let to = json!([{"operation": {"paths": [path]}}]);
        let target = json!({"kind": "Service", "name": "x"});
        policy(json!({"action": "DENY", "targetRef": target, "rules": [{"to": to}]}))
    };
    let denied = |compiler: &Compiler| {
        let policies = Reader::new(compiler.snapshot()).access_policies("shop", &Labels::new());
        policies.iter().filter(|p| p.action == AccessAction::Deny).count()
    };
    let mut compiler = Compiler::new(MeshDefaults::default());
    // Twice: what was never accepted does not become the last accepted version by being replaced.
    compiler.apply(vec![attached("/a")]);
    compiler.apply(vec![attached("/b")]);
    assert_eq!(
        (denied(&compiler), denied(&compiler.rebuild()), compiler.diagnostics().count()),
        (1, 1, 1)
    );
    compiler.apply(vec![policy(json!({"rules": [{}]}))]);
    assert_eq!((denied(&compiler), compiler.diagnostics().count()), (0, 0));
    compiler.apply(vec![attached("/a")]);
    assert_eq!(
        (denied(&compiler), compiler.diagnostics().count()),
        (0, 1),
        "the accepted version still allows"
    );
}

#[test]
fn a_guard_of_which_nobody_knows_for_whom_comes_before_what_is_said_of_all() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let permissive = json!({"spec": {"mtls": {"mode": "PERMISSIVE"}}});
    compiler.apply(vec![upsert(Kind::PEER_AUTHENTICATION, "shop", "default", 0, permissive)]);
    let taken = |compiler: &Compiler| {
        Reader::new(compiler.snapshot()).peer_tls("shop", &Labels::new(), None)
    };
    assert_eq!(taken(&compiler), PeerTls::Permissive);
    let id =
        ObjectId { kind: Kind::PEER_AUTHENTICATION, namespace: "shop".into(), name: "p".into() };
    let refused = json!({"spec": {"selector": ["cart"], "mtls": {"mode": "STRICT"}}});
    let closed = stand_in::closed(&id, &refused).expect("it guards");
    compiler.apply(vec![Change::Upsert(Box::new(closed))]);
    assert_eq!((taken(&compiler), taken(&compiler.rebuild())), (PeerTls::Strict, PeerTls::Strict));
}

#[test]
fn a_refused_gateway_keeps_its_hosts_from_wider_servers_of_others() {
    let gateway = |host: &str, tls: Value| {
        let port = json!({"number": 443, "name": "a", "protocol": "HTTPS"});
        json!({"spec": {"servers": [{"port": port, "hosts": [host], "tls": tls}]}})
    };
    let simple = json!({"mode": "SIMPLE", "credentialName": "c"});
    let table = json!({"spec": {"hosts": ["secret.a.test"], "gateways": ["wide", "secret"], "http": [{"directResponse": {"status": 200}}]}});
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![
        upsert(Kind::GATEWAY, "edge", "wide", 0, gateway("*.a.test", simple)),
        upsert(Kind::VIRTUAL_SERVICE, "edge", "secret", 0, table),
    ]);
    let node = Node {
        id: "router~10.0.0.9~edge-0.edge~edge.svc.cluster.local".to_owned(),
        ..Node::default()
    };
    let identity = NodeIdentity::parse(&node, None).expect("a good node id");
    let misdirects = |compiler: &mut Compiler| {
        let class = compiler.classify(&identity).expect("the node is served");
        let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
        let tables =
            views.iter().flat_map(|view| view.tables[ResourceType::Route.index()].values());
        let bodies: Vec<String> =
            tables.map(|table| String::from_utf8_lossy(&table.body).into_owned()).collect();
        assert!(bodies.iter().any(|body| body.contains("secret.a.test")), "{bodies:?}");
        bodies.iter().any(|body| body.contains("misdirected"))
    };
    assert!(!misdirects(&mut compiler), "one server has the host");
    let id = ObjectId { kind: Kind::GATEWAY, namespace: "edge".into(), name: "secret".into() };
    let refused = gateway("secret.a.test", json!({"mode": "MUTUAL", "credentialNam": "c"}));
    let closed = stand_in::closed(&id, &refused).expect("it guards");
    compiler.apply(vec![Change::Upsert(Box::new(closed))]);
    assert!(misdirects(&mut compiler), "without a certificate of the client");
}

#[test]
fn a_backend_policy_is_in_force_where_it_is_exported_to_and_nowhere_else() {
    let table: [(&[&str], [bool; 2]); 6] = [
        (&[], [true, true]),
        (&["*"], [true, true]),
        (&["."], [true, false]),
        (&["shop"], [true, false]),
        (&["other"], [false, true]),
        (&["third"], [false, false]),
    ];
    for (export_to, seen) in table {
        let spec = json!({"host": "cart", "exportTo": export_to, "trafficPolicy": {"tls": {"mode": "DISABLE"}}});
        let mut compiler = Compiler::new(MeshDefaults::default());
        let rule = upsert(Kind::DESTINATION_RULE, "shop", "cart", 0, json!({"spec": spec}));
        compiler.apply(vec![service(json!({})), rule]);
        let reader = Reader::new(compiler.snapshot());
        let in_force = ["shop", "other"].map(|client| {
            !reader.backend_policies(&cart().host, "shop", client, &Labels::new()).is_empty()
        });
        assert_eq!(in_force, seen, "{export_to:?}");
    }
}

#[test]
fn the_narrowest_peer_policy_that_speaks_decides() {
    let policy = |namespace: &str, name: &str, age: usize, spec: Value| {
        upsert(Kind::PEER_AUTHENTICATION, namespace, name, age, json!({"spec": spec}))
    };
    let labels = Labels::from([("app".into(), "cart".into())]);
    let selector = json!({"matchLabels": {"app": "cart"}});
    let mut compiler = Compiler::new(MeshDefaults::default());
    let mut check = |change: Option<Change>, port: u16, expected: PeerTls| {
        compiler.apply(change.into_iter().collect());
        assert_eq!(
            Reader::new(compiler.snapshot()).peer_tls("shop", &labels, Some(port)),
            expected
        );
    };
    check(None, 80, PeerTls::Permissive);
    check(
        Some(policy("istio-system", "mesh", 0, json!({"mtls": {"mode": "STRICT"}}))),
        80,
        PeerTls::Strict,
    );
    check(
        Some(policy("shop", "ns", 0, json!({"mtls": {"mode": "PERMISSIVE"}}))),
        80,
        PeerTls::Permissive,
    );
    let ports = json!({"selector": selector, "mtls": {"mode": "UNSET"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}});
    check(Some(policy("shop", "cart", 1, ports)), 80, PeerTls::Disable);
    check(None, 81, PeerTls::Permissive);
    check(
        Some(policy(
            "shop",
            "younger",
            2,
            json!({"selector": selector, "mtls": {"mode": "STRICT"}}),
        )),
        81,
        PeerTls::Permissive,
    );
    check(
        Some(policy("shop", "older", 0, json!({"selector": selector, "mtls": {"mode": "STRICT"}}))),
        81,
        PeerTls::Strict,
    );
}

#[test]
fn a_destination_may_be_the_wildcard_that_a_service_has_for_its_name() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let host = "*.partner.example";
    let entry = json!({
        "hosts": [host], "resolution": "NONE", "location": "MESH_EXTERNAL",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    });
    let route = json!([{"destination": {"host": host}}]);
    compiler.apply(vec![
        upsert(Kind::SERVICE_ENTRY, "shop", "partner", 0, json!({"spec": entry})),
        upsert(
            Kind::VIRTUAL_SERVICE,
            "shop",
            "partner",
            0,
            json!({"spec": {"hosts": [host], "http": [{"route": route, "timeout": "7s"}]}}),
        ),
    ]);
    let view = compiler.view(&shop());
    let routes = view.get(ResourceType::Route, "80").expect("routes of the port");
    let routes = to_json(ResourceType::Route, &routes.body).expect("readable");
    let hosts = routes["virtual_hosts"].as_array().expect("hosts");
    let own = hosts.iter().find(|h| h["domains"][0] == host).expect("the wildcard's host");
    let action = &own["routes"][0]["route"];
    assert_eq!(
        (&action["timeout"], &action["cluster"]),
        (&json!("7s"), &json!("outbound|80||*.partner.example"))
    );
    assert!(view.get(ResourceType::Cluster, "outbound|80||*.partner.example").is_some());
}

/// Clients of a namespace.
fn shop() -> ViewKey {
    ViewKey::Outbound(OutboundKey {
        namespace: "shop".into(),
        scope: None,
        client_labels: Labels::new(),
        locality: None,
        knows_peers: false,
        capture: CaptureMode::Redirect,
        features: Features::default(),
        telemetry: TelemetryKey::default(),
        patches: PatchesKey::default(),
    })
}

#[test]
fn a_resource_tells_which_objects_shaped_it() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let rule = json!({"host": "cart", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}}});
    compiler.apply(vec![
        service(json!({})),
        upsert(Kind::DESTINATION_RULE, "shop", "limits", 0, json!({"spec": rule})),
    ]);
    let key = shop();
    compiler.view(&key);
    let origins = compiler.origins_of(
        &key,
        ResourceType::Cluster,
        "outbound|80||cart.shop.svc.cluster.local",
    );
    let id = |kind, name: &str| ObjectId { kind, namespace: "shop".into(), name: name.into() };
    assert_eq!(origins, [id(Kind::SERVICE, "cart"), id(Kind::DESTINATION_RULE, "limits")]);
}

#[test]
fn a_listener_tells_the_objects_behind_it_and_no_others() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let tcp = |name: &str, ip: &str, port: u16| {
        let spec = json!({"selector": {"app": name}, "clusterIP": ip, "ports": [{"name": "tcp", "port": port}]});
        upsert(Kind::SERVICE, "shop", name, 0, json!({"spec": spec}))
    };
    let policy = |kind, namespace: &str, name: &str, app: &str, mut spec: Value| {
        spec["selector"] = json!({"matchLabels": {"app": app}});
        upsert(kind, namespace, name, 0, json!({"spec": spec}))
    };
    let rules = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/x"]}}]}]});
    compiler.apply(vec![
        service(json!({})),
        tcp("redis", "10.0.0.2", 6379),
        tcp("other", "10.0.0.3", 6380),
        upsert(
            Kind::VIRTUAL_SERVICE,
            "shop",
            "moved",
            0,
            json!({"spec": {"hosts": ["redis"], "tcp": [{"route": [{"destination": {"host": "other", "port": {"number": 6380}}}]}]}}),
        ),
        pod("cart-0", "10.1.0.1", "True"),
        policy(Kind::AUTHORIZATION_POLICY, "shop", "mine", "cart", rules.clone()),
        policy(Kind::AUTHORIZATION_POLICY, "shop", "another", "redis", rules),
        policy(Kind::PEER_AUTHENTICATION, "shop", "strict", "cart", json!({"mtls": {"mode": "STRICT"}})),
        policy(Kind::PEER_AUTHENTICATION, "shop", "elsewhere", "redis", json!({"mtls": {"mode": "STRICT"}})),
    ]);
    let node = ferromesh_proto::discovery::Node {
        id: "sidecar~10.1.0.1~cart-0.shop~shop.svc.cluster.local".to_owned(),
        ..Default::default()
    };
    let class =
        compiler.classify(&NodeIdentity::parse(&node, None).expect("a node")).expect("a class");
    let mut check = |kind: ResourceType, name: &str, expected: &[&str]| {
        let mut origins = BTreeSet::new();
        for key in &class.views {
            compiler.view(key);
            origins.extend(compiler.origins_of(key, kind, name));
        }
        let origins: Vec<String> =
            origins.iter().map(|id| format!("{}/{}", id.kind.kind_name(), id.name)).collect();
        assert_eq!(origins, expected, "{name}");
    };
    let inbound = ["Service/cart", "PeerAuthentication/strict", "AuthorizationPolicy/mine"];
    check(ResourceType::Listener, "virtualInbound", &inbound);
    check(ResourceType::Cluster, "inbound|8080||", &["Service/cart"]);
    check(ResourceType::Listener, "10.0.0.2_6379", &["Service/other", "VirtualService/moved"]);
    check(ResourceType::Listener, "10.0.0.3_6380", &["Service/other"]);
    // Every HTTP service of the port shares it; their routes tell them apart.
    check(ResourceType::Listener, "0.0.0.0_80", &[]);
    check(ResourceType::Listener, "no-such", &[]);
}
