//! Balancing over zones: who is told of its replicas, and what clusters say.

use ferromesh_proto::{ResourceType, bootstrap::LOCAL_CLUSTER, discovery::Node};
use serde_json::{Value, json};

use super::universe::upsert;
use crate::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::MeshDefaults,
};

/// A pod of the client or of the cart, at `10.1.0.LAST`.
fn pod(app: &str, name: &str, last: u8, zone: &str, more: Value) -> Change {
    let mut labels = json!({"app": app, "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": zone});
    for (key, value) in more.as_object().expect("labels") {
        labels[key] = value.clone();
    }
    let content = json!({
        "metadata": {"labels": labels},
        "spec": {"serviceAccountName": app, "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": format!("10.1.0.{last}"), "conditions": [{"type": "Ready", "status": "True"}]},
    });
    upsert(Kind::POD, "shop", name, 0, content)
}

fn service(app: &str, last: u8) -> Change {
    let spec = json!({"selector": {"app": app}, "clusterIP": format!("10.0.0.{last}"), "ports": [{"name": "http", "port": 80}]});
    upsert(Kind::SERVICE, "shop", app, 0, json!({"spec": spec}))
}

fn rule(balancer: Value) -> Change {
    let spec = json!({"host": "cart", "trafficPolicy": {"loadBalancer": balancer}});
    upsert(Kind::DESTINATION_RULE, "shop", "cart", 0, json!({"spec": spec}))
}

fn zones(setting: Value) -> Value {
    json!({"zoneAwareLbSetting": setting})
}

/// What a mesh with two replicas of the client in three zones tells its first.
struct Site(Compiler);

impl Site {
    fn new() -> Self {
        let mut compiler = Compiler::new(MeshDefaults::default());
        let hash = |hash: &str| json!({"pod-template-hash": hash});
        compiler.apply(vec![
            service("client", 1),
            service("cart", 2),
            service("other", 3),
            pod("client", "client-5d4-a", 1, "a", hash("5d4")),
            pod("client", "client-5d4-b", 2, "b", hash("5d4")),
            pod("client", "client-6e5-b", 3, "b", hash("6e5")),
            pod(
                "client",
                "client-5d4-u",
                4,
                "c",
                json!({"pod-template-hash": "5d4", "topology.kubernetes.io/region": "us"}),
            ),
            pod("cart", "cart-0", 11, "a", json!({"version": "v1"})),
            pod("cart", "cart-1", 12, "b", json!({"version": "v2"})),
            pod("cart", "cart-2", 13, "c", json!({"topology.kubernetes.io/region": "us"})),
            pod("cart", "cart-3", 14, "c", json!({"topology.kubernetes.io/region": "asia"})),
        ]);
        Self(compiler)
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Value> {
        let id = "sidecar~10.1.0.1~client-5d4-a.shop~shop.svc.cluster.local";
        let node = Node { id: id.to_owned(), ..Node::default() };
        let node = NodeIdentity::parse(&node, None).expect("a node");
        let class = self.0.classify(&node).expect("it is known");
        class.views.iter().find_map(|key| {
            let view = self.0.view(key);
            to_json(kind, &view.get(kind, name)?.body).ok()
        })
    }

    fn balancing(&mut self, service: &str) -> Value {
        let name = format!("outbound|80||{service}.shop.svc.cluster.local");
        let cluster = self.resource(ResourceType::Cluster, &name).expect("a cluster");
        let mut common = cluster["common_lb_config"].clone();
        common.as_object_mut().expect("it says something").remove("healthy_panic_threshold");
        common
    }

    /// Zone and priority of every locality of an assignment.
    fn places(&mut self, name: &str) -> Vec<(String, u64)> {
        let assignment = self.resource(ResourceType::Endpoint, name).expect("an assignment");
        let localities = assignment["endpoints"].as_array().cloned().unwrap_or_default();
        let one = |group: &Value| {
            let part = |name: &str| group["locality"][name].as_str().unwrap_or_default().to_owned();
            (
                format!("{}/{}", part("region"), part("zone")),
                group["priority"].as_u64().unwrap_or(0),
            )
        };
        localities.iter().map(one).collect()
    }
}

const CART: &str = "outbound|80||cart.shop.svc.cluster.local";

fn places(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(place, priority)| ((*place).to_owned(), *priority)).collect()
}

#[test]
fn replicas_are_told_only_where_zones_matter_and_then_nothing_else_goes_by_zones() {
    let mut site = Site::new();
    assert_eq!(site.resource(ResourceType::Endpoint, LOCAL_CLUSTER), None);
    assert_eq!(site.balancing("cart"), json!({}));

    site.0.apply(vec![rule(zones(json!({"minClusterSize": 2})))]);
    // Those of another template, and in another region, are none.
    assert_eq!(site.places(LOCAL_CLUSTER), places(&[("eu/a", 0), ("eu/b", 0)]));
    let peers = site.resource(ResourceType::Endpoint, LOCAL_CLUSTER).expect("peers");
    assert_eq!(peers["endpoints"][1]["lb_endpoints"].as_array().map(Vec::len), Some(1), "{peers}");
    assert_eq!(site.balancing("cart"), json!({"zone_aware_lb_config": {"min_cluster_size": "2"}}));
    let off = json!({"zone_aware_lb_config": {"routing_enabled": {}}});
    assert_eq!(site.balancing("other"), off);

    // A replica that comes is told of.
    let more = json!({"pod-template-hash": "5d4"});
    site.0.apply(vec![pod("client", "client-5d4-c", 5, "c", more)]);
    assert_eq!(site.places(LOCAL_CLUSTER), places(&[("eu/a", 0), ("eu/b", 0), ("eu/c", 0)]));

    site.0.apply(vec![rule(zones(json!({"enabled": false})))]);
    assert_eq!(site.resource(ResourceType::Endpoint, LOCAL_CLUSTER), None);
    assert_eq!(site.balancing("cart"), off);
    assert_eq!(site.balancing("other"), json!({}));
}

#[test]
fn zones_of_the_region_share_and_other_regions_take_over() {
    let mut site = Site::new();
    let without: &[(&str, u64)] = &[("asia/c", 0), ("eu/a", 0), ("eu/b", 0), ("us/c", 0)];
    for (setting, expected) in [
        (json!({}), &[("eu/a", 0), ("eu/b", 0), ("asia/c", 1), ("us/c", 1)][..]),
        (
            json!({"failover": [{"from": "eu", "to": "us"}]}),
            &[("eu/a", 0), ("eu/b", 0), ("us/c", 1), ("asia/c", 2)],
        ),
        (
            json!({"failoverPriority": ["version=v2"]}),
            &[("eu/b", 0), ("eu/a", 1), ("asia/c", 2), ("us/c", 2)],
        ),
        (json!({"enabled": false}), without),
    ] {
        site.0.apply(vec![rule(zones(setting.clone()))]);
        assert_eq!(site.places(CART), places(expected), "{setting}");
    }
}

#[test]
fn a_policy_comes_before_what_the_service_prefers_and_that_before_the_mesh() {
    let mesh = |spec: Value| {
        upsert(Kind::MESH_CONFIG, "istio-system", "default", 0, json!({"spec": spec}))
    };
    let mut site = Site::new();
    let zone_aware =
        |size: u64| json!({"zone_aware_lb_config": {"min_cluster_size": size.to_string()}});
    site.0.apply(vec![mesh(zones(json!({"minClusterSize": 3})))]);
    assert_eq!(site.balancing("cart"), zone_aware(3));
    assert_eq!(site.balancing("other"), zone_aware(3));
    site.0.apply(vec![rule(zones(json!({"minClusterSize": 2})))]);
    assert_eq!(site.balancing("cart"), zone_aware(2));
    site.0.apply(vec![rule(json!({"localityLbSetting": {"enabled": false}}))]);
    assert_eq!(site.balancing("cart"), json!({"zone_aware_lb_config": {"routing_enabled": {}}}));
    let service = json!({
        "metadata": {"annotations": {"networking.istio.io/traffic-distribution": "PreferClose"}},
        "spec": {"selector": {"app": "other"}, "clusterIP": "10.0.0.3", "ports": [{"name": "http", "port": 80}]},
    });
    site.0.apply(vec![upsert(Kind::SERVICE, "shop", "other", 0, service)]);
    assert_eq!(site.balancing("other"), json!({"locality_weighted_lb_config": {}}));
}
