//! Single changes do no more work than they must.

use serde_json::json;

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler, Work},
    dialect::Kind,
    ir::{MeshDefaults, ObjectId},
};

fn service(name: &str) -> Change {
    let spec = json!({"selector": {"app": name}, "clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}]});
    upsert(Kind::SERVICE, "shop", name, 0, json!({"spec": spec}))
}

fn pod(name: &str, app: &str, ip: &str) -> Change {
    let content = json!({
        "metadata": {"labels": {"app": app, "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": app},
        "status": {"phase": "Running", "podIP": ip},
    });
    upsert(Kind::POD, "shop", name, 0, content)
}

fn routes(weight: u32) -> Change {
    let destination =
        |host: &str, weight: u32| json!({"destination": {"host": host}, "weight": weight});
    let rule = json!({"route": [destination("cart", weight), destination("pay", 100 - weight)]});
    upsert(
        Kind::VIRTUAL_SERVICE,
        "shop",
        "routes",
        0,
        json!({"spec": {"hosts": ["cart"], "http": [rule]}}),
    )
}

/// A shop of two services, seen by a sidecar in each of two namespaces, and what one change of it
/// costs.
fn check(name: &str, change: Change, changed_views: usize, expected: impl Fn(&Work) -> bool) {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![
        service("cart"),
        service("pay"),
        pod("cart-1", "cart", "10.244.0.0"),
        routes(90),
    ]);
    for node in nodes() {
        let class = compiler.classify(&node).expect("the universe's nodes have a class");
        class.views.iter().for_each(|key| drop(compiler.view(key)));
    }
    let before = compiler.work();
    let outcome = compiler.apply(vec![change]);
    let after = compiler.work();
    let work = Work {
        full_rebuilds: after.full_rebuilds - before.full_rebuilds,
        objects_lowered: after.objects_lowered - before.objects_lowered,
        items_planned: after.items_planned - before.items_planned,
        items_encoded: after.items_encoded - before.items_encoded,
        outlines_planned: after.outlines_planned - before.outlines_planned,
        routes_spliced: after.routes_spliced - before.routes_spliced,
    };
    assert!(expected(&work), "{name}: {work:?}");
    assert_eq!(outcome.views.len(), changed_views, "{name}");
}

#[test]
fn an_equal_object_costs_nothing_behind_lowering() {
    let nothing = Work { objects_lowered: 1, ..Work::default() };
    check("the same routes", routes(90), 0, |work| *work == nothing);
    check("the same pod", pod("cart-1", "cart", "10.244.0.0"), 0, |work| *work == nothing);
    check(
        "an unknown object's end",
        Change::Delete(ObjectId { kind: Kind::POD, namespace: "x".into(), name: "y".into() }),
        0,
        |work| *work == Work::default(),
    );
}

#[test]
fn a_weight_repeats_no_outline() {
    check("another weight", routes(80), 3, |work| {
        work.outlines_planned == 0 && work.items_encoded >= 1 && work.items_encoded <= 3
    });
}

#[test]
fn a_pod_of_a_known_account_changes_assignments_only() {
    check("another pod", pod("cart-2", "cart", "10.244.0.7"), 5, |work| {
        work.outlines_planned == 0
            && work.routes_spliced == 0
            && (1..=4).contains(&work.items_encoded)
    });
}

#[test]
fn only_the_mesh_configuration_rebuilds_everything() {
    let mesh = upsert(
        Kind::MESH_CONFIG,
        "",
        "default",
        0,
        json!({"spec": {"accessLogFile": "/dev/stdout"}}),
    );
    check("access log", mesh, 4, |work| work.full_rebuilds == 1);
    check("a service", service("ship"), 5, |work| work.full_rebuilds == 0);
}

#[test]
fn a_new_service_plans_its_own_items_only() {
    check("another service", service("ship"), 5, |work| {
        work.items_planned <= 8 && work.items_encoded <= 8
    });
}

#[test]
fn an_outline_reads_no_more_facts_in_a_larger_mesh() {
    let facts = |services: usize| {
        let mut compiler = Compiler::new(MeshDefaults::default());
        compiler.apply((0..services).map(|number| service(&format!("service-{number}"))).collect());
        for node in nodes() {
            let class = compiler.classify(&node).expect("the universe's nodes have a class");
            class.views.iter().for_each(|key| drop(compiler.view(key)));
        }
        compiler.views.facts()
    };
    assert_eq!(facts(40), facts(4));
}
