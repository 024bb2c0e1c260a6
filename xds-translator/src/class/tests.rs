//! Table tests of classification: who gets which views under which proof.

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_proto::{SpiffeId, discovery};
use prost_types::{Struct, Value, value::Kind};

use super::*;
use crate::{
    compiler::{Change, Compiler},
    dialect::parse_file,
    ir::MeshDefaults,
    plan::{CaptureMode, MetricsMaker},
};

const MESH: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, version: v1}}
spec: {serviceAccountName: cart, containers: [{name: app, ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: edge, labels: {istio: edge}}
spec: {serviceAccountName: edge, containers: [{name: proxy}]}
status: {phase: Running, podIP: 10.1.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: web}, {name: tcp, port: 90, targetPort: missing}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: edge}
spec: {selector: {istio: edge}, clusterIP: 10.0.0.2, ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}, {name: status, port: 15021}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: main, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: MUTUAL, credentialName: cert}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: for-all, namespace: shop}
spec: {servers: [{port: {number: 8443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: for-gateways}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: partner, namespace: shop}
spec: {host: partner.example, exportTo: ['.'], trafficPolicy: {tls: {mode: MUTUAL, credentialName: partner-client}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: for-cart, namespace: shop}
spec: {workloadSelector: {labels: {app: cart}}, egress: [{hosts: ['./*']}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: istio-system}
spec: {egress: [{hosts: ['*/*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: canary, namespace: shop}
spec: {hosts: [cart], http: [{match: [{sourceLabels: {version: v1}}], route: [{destination: {host: cart}}]}]}
";

fn mesh() -> Compiler {
    mesh_with("")
}

/// The mesh, with some more objects.
fn mesh_with(more: &str) -> Compiler {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let parsed = parse_file("mesh.yaml", format!("{MESH}{more}").as_bytes());
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.diagnostics);
    compiler
        .apply(parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect());
    compiler
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn node(
    id: &str,
    metadata: &[(&str, Value)],
    proven: Option<&str>,
) -> Result<NodeIdentity, Refusal> {
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let node = discovery::Node {
        id: id.to_owned(),
        metadata: Some(Struct { fields }),
        ..discovery::Node::default()
    };
    NodeIdentity::parse(
        &node,
        proven.map(|id| id.parse::<SpiffeId>().expect("tests write good ids")),
    )
}

fn class(
    id: &str,
    metadata: &[(&str, Value)],
    proven: Option<&str>,
) -> Result<ProxyClass, Refusal> {
    mesh().classify(&node(id, metadata, proven)?)
}

const CART: &str = "sidecar~10.1.0.1~cart-1.shop~shop.svc.cluster.local";
const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn a_known_sidecar_gets_both_views_with_facts_of_the_registry() {
    let lies = Struct {
        fields: BTreeMap::from([("app".to_owned(), text("admin"))]).into_iter().collect(),
    };
    let lies = [("LABELS", Value { kind: Some(Kind::StructValue(lies)) })];
    let class = class(CART, &lies, Some(CART_ID)).expect("the workload runs as this account");
    let [outbound, inbound] = &class.views[..] else { panic!("{class:?}") };
    let (ViewKey::Outbound(outbound), ViewKey::Inbound(inbound)) = (&**outbound, &**inbound) else {
        panic!("{class:?}")
    };
    assert_eq!(outbound.scope.as_ref().map(|s| &*s.name), Some("for-cart"));
    assert_eq!(outbound.client_labels, Labels::from([("version".into(), "v1".into())]));
    assert_eq!(inbound.labels.get("app").map(|l| &**l), Some("cart"));
    let ports: Vec<_> = inbound
        .ports
        .iter()
        .map(|(s, port, target)| (s.host.to_string(), *port, *target))
        .collect();
    assert_eq!(ports, [("cart.shop.svc.cluster.local".to_owned(), 80, 8080)]);
    assert!(class.credentials.is_empty());
}

#[test]
fn a_sidecar_gets_credentials_of_rules_of_its_namespace_that_select_it() {
    let given = |namespace: &str, selector: &str, id: &str| {
        let rule = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: till, namespace: {namespace}}}\nspec: {{host: till.example, {selector} trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: till-client}}}}}}\n"
        );
        let node = node(id, &[], Some(CART_ID)).expect("a good node");
        mesh_with(&rule).classify(&node).expect("the account is its own").credentials
    };
    let selector = |app: &str| format!("workloadSelector: {{matchLabels: {{app: {app}}}}},");
    let all: BTreeSet<Arc<str>> = ["till-client", "till-client-cacert"].map(Arc::from).into();
    assert_eq!(given("shop", &selector("cart"), CART), all);
    assert_eq!(given("shop", &selector("till"), CART), BTreeSet::new());
    assert_eq!(given("bank", &selector("cart"), CART), BTreeSet::new());
    assert_eq!(given("shop", "", CART), BTreeSet::new(), "gateways alone use it");
    let unknown = "sidecar~10.9.9.9~cart-9.shop~x";
    let given = given("shop", &selector("cart"), unknown);
    assert_eq!(given, BTreeSet::new(), "nobody knows its labels");
}

#[test]
fn a_proof_decides_over_every_claim() {
    let other = "spiffe://cluster.local/ns/bank/sa/cart";
    let admin = "spiffe://cluster.local/ns/shop/sa/admin";
    assert!(matches!(class(CART, &[], Some(other)), Err(Refusal::Claim { what: "namespace", .. })));
    assert!(matches!(class(CART, &[], Some(admin)), Err(Refusal::Account { .. })));
    let claims = [("SERVICE_ACCOUNT", text("admin"))];
    assert!(matches!(
        class(CART, &claims, Some(CART_ID)),
        Err(Refusal::Claim { what: "service account", .. })
    ));
}

#[test]
fn an_unknown_workload_gets_outbound_only_unless_the_port_believes_it() {
    let stranger = "sidecar~10.9.9.9~new.shop~shop.svc.cluster.local";
    let fields = BTreeMap::from([("app".to_owned(), text("cart"))]).into_iter().collect();
    let labels = [("LABELS", Value { kind: Some(Kind::StructValue(Struct { fields })) })];
    let proven = class(stranger, &labels, Some(CART_ID)).expect("unknown is not refused");
    assert_eq!((proven.views.len(), proven.workload), (1, None));
    let ViewKey::Outbound(outbound) = &*proven.views[0] else {
        panic!("the first view is outbound")
    };
    assert_eq!(
        outbound.scope.as_ref().map(|s| &*s.name),
        Some("default"),
        "labels of metadata select nothing"
    );
    let believed = class(stranger, &labels, None).expect("the plaintext port believes");
    assert_eq!(believed.views.len(), 2);
}

#[test]
fn the_address_finds_a_workload_that_names_itself_differently() {
    let class = class("sidecar~10.1.0.1~vm.shop~x", &[], Some(CART_ID)).expect("same account");
    assert_eq!(class.workload.map(|w| w.name.to_string()), Some("cart-1".to_owned()));
}

#[test]
fn a_gateway_gets_the_gateways_that_select_it_and_their_credentials() {
    let class =
        class("router~10.1.0.2~edge-1.edge~x", &[], Some("spiffe://cluster.local/ns/edge/sa/edge"))
            .expect("known");
    let ViewKey::Gateway(key) = &*class.views[0] else { panic!("{class:?}") };
    assert_eq!(key.gateways.iter().map(|g| &*g.name).collect::<Vec<_>>(), ["for-all", "main"]);
    assert_eq!(key.ports, [(443, 8443)]);
    assert_eq!(
        class.credentials.iter().map(|c| &**c).collect::<Vec<_>>(),
        ["cert", "cert-cacert", "for-gateways"]
    );
    assert_eq!(&*class.namespace, "edge");
}

#[test]
fn a_proven_stranger_is_no_gateway_by_its_own_word() {
    let fields = BTreeMap::from([("istio".to_owned(), text("edge"))]).into_iter().collect();
    let labels = [("LABELS", Value { kind: Some(Kind::StructValue(Struct { fields })) })];
    let id = "router~10.9.9.9~fake.shop~x";
    let proven = class(id, &labels, Some(CART_ID)).expect("unknown is not refused");
    assert!(proven.credentials.is_empty());
    let believed = class(id, &labels, None).expect("the plaintext port believes");
    assert!(believed.credentials.contains("cert"), "and serves no secrets anyway");
}

#[test]
fn nobody_gets_credentials_by_calling_itself_a_gateway() {
    for id in ["router~10.9.9.9~stranger.shop~x", "router~10.1.0.1~cart-1.shop~x"] {
        let class = class(id, &[], Some(CART_ID)).expect("the account is its own");
        assert_eq!(class.credentials, BTreeSet::new(), "{id}");
    }
    let edge = "router~10.1.0.2~edge-1.edge~x";
    let class =
        class(edge, &[], Some("spiffe://cluster.local/ns/edge/sa/edge")).expect("a gateway");
    assert!(class.credentials.contains("cert") && class.credentials.contains("for-gateways"));
}

#[test]
fn addresses_of_mode_none_go_to_the_views_they_shape() {
    let metadata = [
        ("INTERCEPTION_MODE", text("NONE")),
        ("FERROMESH_OUTBOUND_ADDRESS", text("127.0.1.1")),
        ("FERROMESH_APP_ADDRESS", text("127.0.1.2")),
    ];
    let class = class(CART, &metadata, None).expect("known");
    let [outbound, inbound] = &class.views[..] else { panic!("{class:?}") };
    let (ViewKey::Outbound(outbound), ViewKey::Inbound(inbound)) = (&**outbound, &**inbound) else {
        panic!("{class:?}")
    };
    let ip = |text: &str| text.parse().ok();
    assert_eq!(
        outbound.capture,
        CaptureMode::None { outbound: ip("127.0.1.1"), inbound: None, application: None }
    );
    assert_eq!(
        inbound.capture,
        CaptureMode::None { outbound: None, inbound: None, application: ip("127.0.1.2") }
    );
    assert_eq!(inbound.address, ip("10.1.0.1"));
}

#[test]
fn malformed_nodes_are_refused_with_the_field() {
    type Case<'a> = (&'a str, &'a [(&'a str, Value)], &'a str);
    let bad: [Case<'_>; 7] = [
        ("", &[], "bad node id"),
        ("sidecar~10.1.0.1~cart-1.shop", &[], "bad node id"),
        ("sidecar~10.1.0.1~cart~x", &[], "bad node id"),
        ("ztunnel~10.1.0.1~a.b~x", &[], "not served"),
        ("sidecar~nowhere~a.b~x", &[], "names no IP address"),
        (CART, &[("INTERCEPTION_MODE", text("MAGIC"))], "INTERCEPTION_MODE"),
        (CART, &[("HTTP_PROXY_PORT", text("many"))], "HTTP_PROXY_PORT"),
    ];
    for (id, metadata, message) in bad {
        let refusal = node(id, metadata, None).expect_err("malformed").to_string();
        assert!(refusal.contains(message), "{id:?}: {refusal}");
    }
    let listed = [("INSTANCE_IPS", text("bad, 10.1.0.1"))];
    assert!(node("sidecar~~cart-1.shop~x", &listed, None).is_ok());
}

#[test]
fn who_makes_metrics_is_in_every_view() {
    for (told, maker) in [
        (None, MetricsMaker::Nobody),
        (Some("proxy"), MetricsMaker::Proxy),
        (Some("agent"), MetricsMaker::Agent),
        (Some("else"), MetricsMaker::Nobody),
    ] {
        let metadata: Vec<_> =
            told.map(|word| ("FERROMESH_METRICS", text(word))).into_iter().collect();
        let class = class(CART, &metadata, Some(CART_ID)).expect("known");
        for view in &class.views {
            let telemetry = match &**view {
                ViewKey::Outbound(key) => &key.telemetry,
                ViewKey::Inbound(key) => &key.telemetry,
                ViewKey::Gateway(key) => &key.telemetry,
                ViewKey::Peers(_) => continue,
            };
            assert_eq!(telemetry.metrics, maker, "{told:?}");
        }
    }
}
