//! What a change is told to do, from objects to words.

use ferromesh_proto::ResourceType;

use super::*;
use crate::{
    analyze::proxies,
    dialect::{Kind, Object, parse_files},
    ir::ObjectId,
    snapshot::Credentials,
};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: bank}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 81}]}
";

fn routes(one: u32, two: u32, more: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  exportTo: ['.']
  http:
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {one}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {two}}}
{more}"
    )
}

fn objects(text: &str) -> Vec<Object> {
    let parsed = parse_files([("mesh.yaml", text.as_bytes())]);
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.diagnostics);
    parsed.objects
}

fn upserts(objects: &[Object]) -> Vec<Change> {
    objects.iter().map(|object| Change::Upsert(Box::new(object.clone()))).collect()
}

fn of(current: &str, change: Vec<Change>) -> Forecast {
    let current = objects(current);
    let base = MeshDefaults::default();
    let known = proxies(&current, &Credentials::new(), &base);
    forecast(base, upserts(&current), change, &known).expect("a forecast")
}

#[test]
fn who_gets_what_and_where_requests_go_is_told() {
    let before = format!("{MESH}---{}", routes(90, 10, ""));
    let told = of(&before, upserts(&objects(&routes(70, 30, ""))));
    assert!(told.changes_traffic());
    let [effect] = told.effects.as_slice() else { panic!("{told:?}") };
    assert_eq!(effect.proxies, ["sidecar in shop".to_owned()].into(), "it is shown to shop alone");
    let [resource] = effect.resources.as_slice() else { panic!("{effect:?}") };
    assert_eq!((&*resource.kind, &*resource.name), ("route configuration", "80"));
    let [route] = resource.routes.as_slice() else { panic!("{resource:?}") };
    assert_eq!(route.change, "led elsewhere");
    let shares: Vec<(f64, f64)> = route.shares.iter().map(|s| (s.before, s.after)).collect();
    assert_eq!(shares, [(90.0, 70.0), (10.0, 30.0)]);
    assert!(route.shares[1].to.contains("|v2|"), "{route:?}");
}

#[test]
fn a_change_that_means_the_same_reaches_nobody() {
    let before = format!("{MESH}---{}", routes(90, 10, ""));
    assert!(of(&before, upserts(&objects(&routes(90, 10, "")))).effects.is_empty());
}

#[test]
fn what_is_deleted_is_told_where_it_was_in_force() {
    let before = format!("{MESH}---{}", routes(0, 100, ""));
    let id =
        ObjectId { kind: Kind::VIRTUAL_SERVICE, namespace: "shop".into(), name: "reviews".into() };
    let told = of(&before, vec![Change::Delete(id)]);
    let routes: Vec<&RouteChange> =
        told.effects.iter().flat_map(|e| &e.resources).flat_map(|r| &r.routes).collect();
    let [route] = routes.as_slice() else { panic!("{told:?}") };
    let to: Vec<&str> = route.shares.iter().map(|share| share.to.as_str()).collect();
    assert!(to.iter().any(|to| to.contains("||reviews")), "{route:?}");
    assert!(to.iter().any(|to| to.contains("|v2|")), "{route:?}");
}

#[test]
fn what_no_route_names_carries_nothing() {
    let none = Step::Added;
    assert!(!matters(ResourceType::Cluster, &none) && matters(ResourceType::Route, &none));
    let changed = |path: &str| Step::Changed {
        fields: vec![FieldChange { path: path.to_owned(), before: None, after: None }],
    };
    assert!(!matters(ResourceType::Route, &changed("virtual_hosts[a].metadata.x")));
    assert!(matters(ResourceType::Route, &changed("virtual_hosts[a].routes[0].timeout")));
}

#[test]
fn elements_of_lists_are_paired_by_what_tells_them_apart() {
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
    let before = json(r#"{"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}], "b": [1, 2]}"#);
    let after = json(
        r#"{"a": [{"name": "n"}, {"name": "y", "v": 3}, {"name": "x", "v": 1}], "b": [1, 3]}"#,
    );
    let found = difference::between(&before, &after);
    let paths: Vec<&str> = found.iter().map(|field| field.path.as_str()).collect();
    assert_eq!(paths, ["a[y].v", "a[n]", "a (order)", "b[1]"]);
}
