//! Rules that continue in other objects.

use serde_json::{Value, json};

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler, Work},
    debug::to_json,
    dialect::Kind,
    ir::{MeshDefaults, ObjectId},
    view::View,
};
use ferromesh_proto::ResourceType;

fn table(namespace: &str, name: &str, spec: Value) -> Change {
    upsert(Kind::VIRTUAL_SERVICE, namespace, name, 0, json!({ "spec": spec }))
}

fn service() -> Change {
    let ports = json!([{"name": "http", "port": 80}]);
    let spec = json!({"clusterIP": "10.0.0.1", "ports": ports});
    upsert(Kind::SERVICE, "shop", "cart", 0, json!({ "spec": spec }))
}

/// A rule for everything of `cart`, whose settings hold where a part says nothing.
fn root() -> Change {
    let outer = json!({
        "name": "outer",
        "match": [{"headers": {"x-a": {"exact": "1"}}}, {"headers": {"x-b": {"exact": "2"}}}],
        "delegate": {"name": "part", "namespace": "bank"},
        "timeout": "5s",
        "rewrite": {"uri": "/outer"},
        "headers": {"request": {"set": {"x-outer": "1"}}},
    });
    let rest = json!({"directResponse": {"status": 404}});
    table("shop", "root", json!({"hosts": ["cart"], "http": [outer, rest]}))
}

fn part(rules: Value) -> Change {
    table("bank", "part", json!({ "http": rules }))
}

fn to_cart(rule: Value) -> Value {
    let mut rule = rule;
    let host = json!({"host": "cart.shop.svc.cluster.local"});
    rule["route"] = json!([{ "destination": host }]);
    rule
}

/// The routes for `cart` that a sidecar of `shop` is sent.
fn routes(compiler: &mut Compiler) -> Vec<Value> {
    let node = nodes().swap_remove(0);
    let class = compiler.classify(&node).expect("the universe's nodes have a class");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let table = |view: &std::sync::Arc<View>| {
        let resource = view.tables[ResourceType::Route.index()].get("80")?;
        Some(to_json(ResourceType::Route, &resource.body).expect("readable"))
    };
    let table = views.iter().find_map(table).expect("the port has routes");
    let hosts = table["virtual_hosts"].as_array().expect("a list").iter();
    let mut cart = hosts.filter(|host| host["name"] == "cart.shop.svc.cluster.local:80");
    cart.next().expect("the service is there")["routes"].as_array().expect("a list").clone()
}

/// The names of the routes, of those that a table gives.
fn names(compiler: &mut Compiler) -> Vec<String> {
    let routes = routes(compiler);
    routes.iter().map(|route| route["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_part_holds_within_the_rule_that_continues_there_with_its_own_settings_first() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let own = to_cart(json!({
        "name": "own", "match": [{"uri": {"prefix": "/v2"}}],
        "timeout": "1s", "rewrite": {"uri": "/own"},
    }));
    let rest = to_cart(json!({}));
    compiler.apply(vec![service(), root(), part(json!([own, rest]))]);
    let routes = routes(&mut compiler);
    assert_eq!(names(&mut compiler), ["outer-own", "outer-own", "outer", "outer", ""]);
    let header = |route: &Value| route["match"]["headers"][0]["name"].clone();
    let seen: Vec<_> = routes.iter().map(header).collect();
    assert_eq!(seen, [json!("x-a"), json!("x-b"), json!("x-a"), json!("x-b"), Value::Null]);
    for (route, prefix, timeout, rewrite) in
        [(&routes[1], "/v2", "1s", "/own"), (&routes[3], "/", "5s", "/outer")]
    {
        assert_eq!(route["match"]["prefix"], prefix, "{route:#}");
        assert_eq!(route["route"]["timeout"], timeout);
        assert_eq!(route["route"]["prefix_rewrite"], rewrite);
        assert_eq!(route["request_headers_to_add"][0]["header"]["key"], "x-outer");
        let config = &route["metadata"]["filter_metadata"]["istio"]["config"];
        assert_eq!(config, "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/root");
    }
    assert_eq!(routes[4]["direct_response"]["status"], 404);
}

#[test]
fn a_limit_of_zero_takes_back_the_one_of_the_rule_that_continues() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), root(), part(json!([to_cart(json!({"timeout": "0s"}))]))]);
    assert_eq!(routes(&mut compiler)[0]["route"]["timeout"], "0s");
}

#[test]
fn a_rule_without_its_part_takes_no_request() {
    let rules = || json!([to_cart(json!({}))]);
    let hidden = json!({"exportTo": ["."], "http": rules()});
    let whole = json!({"hosts": ["other"], "http": rules()});
    let narrower = json!({"exportTo": ["shop"], "http": rules()});
    let cases = [
        (Vec::new(), 1),
        (vec![part(rules())], 3),
        (vec![table("bank", "part", hidden)], 1),
        (vec![table("bank", "part", narrower)], 3),
        (vec![table("bank", "part", whole)], 1),
    ];
    for (given, expected) in cases {
        let mut compiler = Compiler::new(MeshDefaults::default());
        compiler.apply([service(), root()].into_iter().chain(given).collect());
        assert_eq!(names(&mut compiler).len(), expected);
    }
}

#[test]
fn a_part_that_comes_changes_and_goes_is_followed() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), root()]);
    assert_eq!(names(&mut compiler), [""]);
    let rule = |name: &str| to_cart(json!({ "name": name }));
    compiler.apply(vec![part(json!([rule("a")]))]);
    assert_eq!(names(&mut compiler), ["outer-a", "outer-a", ""]);
    compiler.apply(vec![part(json!([rule("b")]))]);
    assert_eq!(names(&mut compiler), ["outer-b", "outer-b", ""]);
    let id =
        ObjectId { kind: Kind::VIRTUAL_SERVICE, namespace: "bank".into(), name: "part".into() };
    compiler.apply(vec![Change::Delete(id)]);
    assert_eq!(names(&mut compiler), [""]);
}

#[test]
fn what_a_part_asks_of_requests_repeats_no_outline() {
    let rule = |path: &str| to_cart(json!({"match": [{"uri": {"prefix": path}}]}));
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), root(), part(json!([rule("/a")]))]);
    assert_eq!(names(&mut compiler).len(), 3);
    let before = compiler.work();
    compiler.apply(vec![part(json!([rule("/b")]))]);
    assert_eq!(routes(&mut compiler)[0]["match"]["prefix"], "/b");
    let Work { outlines_planned, full_rebuilds, .. } = compiler.work();
    assert_eq!((outlines_planned, full_rebuilds), (before.outlines_planned, before.full_rebuilds));
}
