//! Incremental equals full: after any history every view, class and diagnostic is as if built from
//! scratch.

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_proto::ResourceType;
use proptest::prelude::*;
use serde_json::json;

use super::universe::{Step, nodes, step, upsert};
use crate::{
    class::NodeIdentity,
    closure,
    compiler::{Change, Compiler},
    dialect::Kind,
    emit,
    ir::{MeshDefaults, Presence},
    plan::ViewKey,
    view::View,
};

type Known = BTreeMap<Arc<ViewKey>, Arc<View>>;

fn apply(compiler: &mut Compiler, steps: &[Step], known: &mut Known) {
    let classes = |compiler: &Compiler| {
        nodes().iter().map(|node| compiler.classify(node)).collect::<Vec<_>>()
    };
    let before = classes(compiler);
    let outcome = compiler.apply(steps.iter().map(Step::change).collect());
    for ((node, before), after) in nodes().iter().zip(before).zip(classes(compiler)) {
        let told = outcome.reclassify.concerns(&node.workload, node.address);
        assert!(
            told || before == after,
            "the class of {:?} changed unsaid: {before:?} to {after:?}",
            node.workload
        );
    }
    for view in outcome.views {
        check_log(&known[&view.key], &view);
        known.insert(view.key.clone(), view);
    }
}

/// The log of a view names exactly what differs from its former state.
fn check_log(old: &View, new: &View) {
    assert_eq!(new.generation, old.generation + 1);
    let change = new
        .changes_since(old.generation)
        .expect("the log reaches back one generation")
        .next()
        .expect("one");
    let mut names = Vec::new();
    for kind in ResourceType::ALL {
        let version = |view: &View, name: &str| view.get(kind, name).map(|r| r.version);
        let all = old.tables[kind.index()].keys().chain(new.tables[kind.index()].keys());
        names.extend(
            all.filter(|name| version(old, name) != version(new, name))
                .map(|name| (kind, name.clone())),
        );
    }
    names.sort();
    names.dedup();
    assert_eq!(change.names, names);
}

/// Classes of all nodes; their views become known.
fn classify(compiler: &mut Compiler, known: &mut Known) {
    for node in nodes() {
        let Ok(class) = compiler.classify(&node) else { continue };
        for key in class.views {
            let view = compiler.view(&key);
            known.entry(key).or_insert(view);
        }
    }
}

fn check_equal(compiler: &mut Compiler, known: &Known) {
    let mut fresh = compiler.rebuild();
    for node in nodes() {
        assert_eq!(compiler.classify(&node), fresh.classify(&node), "class of {:?}", node.workload);
        check_closed(&mut fresh, &node);
    }
    assert!(compiler.diagnostics().eq(fresh.diagnostics()));
    for (key, published) in known {
        let (kept, built) = (compiler.view(key), fresh.view(key));
        assert!(Arc::ptr_eq(&kept, published), "a change of {key:?} was not published");
        for kind in ResourceType::ALL {
            let (kept, built) = (&kept.tables[kind.index()], &built.tables[kind.index()]);
            assert!(
                kept.keys().eq(built.keys()),
                "{kind:?} names of {key:?}: {:?} instead of {:?}",
                kept.keys().collect::<Vec<_>>(),
                built.keys().collect::<Vec<_>>()
            );
            for (name, resource) in built.iter() {
                assert_eq!(
                    kept[name].version, resource.version,
                    "version of {kind:?} {name} of {key:?}"
                );
                assert_eq!(kept[name].body, resource.body, "bytes of {kind:?} {name} of {key:?}");
                // Both: a version that a memo kept must still be the one of these bytes.
                for made in [&kept[name], resource] {
                    let version = emit::version(&made.body);
                    assert_eq!(made.version, version, "{kind:?} {name} of {key:?} by its bytes");
                }
            }
        }
    }
}

/// Everything that the node's resources refer to is there (invariant 4), except clusters that a
/// rule of the user names and nobody defines.
fn check_closed(compiler: &mut Compiler, node: &NodeIdentity) {
    let Ok(class) = compiler.classify(node) else { return };
    let views: Vec<Arc<View>> = class.views.iter().map(|key| compiler.view(key)).collect();
    let named = |(kind, name): &(ResourceType, String)| {
        *kind == ResourceType::Cluster && name.starts_with("outbound|")
    };
    for dangling in closure::check(&views) {
        assert!(named(&dangling.to), "{:?}: {dangling:?}", node.workload);
    }
}

/// A service of many; another one with each `variant`.
fn service(number: usize, variant: usize) -> Change {
    let port = json!({"name": "http", "port": 80});
    let annotations =
        json!({"networking.istio.io/exportTo": if variant.is_multiple_of(2) { "*" } else { "." }});
    let content = json!({"metadata": {"annotations": annotations}, "spec": {"clusterIP": "10.0.0.1", "ports": [port]}});
    upsert(Kind::SERVICE, "bank", &format!("many-{number}"), variant, content)
}

fn remove_everything(compiler: &mut Compiler) {
    let objects = compiler.objects().map(|object| Change::Delete(object.id.clone()));
    let gone = |change| match change {
        Change::Credential { namespace, name, .. } => {
            Change::Credential { namespace, name, fact: None }
        }
        Change::KeySet { source, .. } => Change::KeySet { source, keys: None },
        Change::Member { connection, .. } => Change::Member { connection, member: None },
        Change::Connection { connection, .. } => {
            Change::Connection { connection, presence: Presence::Unknown }
        }
        other => other,
    };
    let credentials = compiler.credential_changes().into_iter().map(gone);
    let keys = compiler.key_set_changes().into_iter().map(gone);
    let members = compiler.member_changes().into_iter().map(gone);
    let connections = compiler.connection_changes().into_iter().map(gone);
    let gone = credentials.chain(keys).chain(members).chain(connections);
    let changes = objects.chain(gone).collect();
    compiler.apply(changes);
}

/// Streams come and go for days: what was made for those that left, and former states of what is in
/// use, go with them.
#[test]
fn former_states_of_what_is_in_use_are_forgotten() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply((0..200).map(|port| service(port, 0)).collect());
    let key = compiler.classify(&nodes()[0]).expect("a class").views[0].clone();
    let mut most = 0;
    for round in 1..100 {
        let _view = compiler.view(&key);
        compiler.apply(vec![service(0, round)]);
        most = most.max(compiler.memo.bytes());
    }
    compiler.trim();
    let live = compiler.memo.bytes();
    assert!(most <= 2 * live + (2 << 20), "{most} bytes for {live} that are in use");
    compiler.release(&key);
    compiler.trim();
    assert_eq!(compiler.memo.bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_full(
        before in prop::collection::vec(step(), 20..60),
        after in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..12),
    ) {
        let mut compiler = Compiler::new(MeshDefaults::default());
        let mut known = Known::new();
        apply(&mut compiler, &before, &mut known);
        classify(&mut compiler, &mut known);
        let half = after.len() / 2;
        after[..half].iter().for_each(|steps| apply(&mut compiler, steps, &mut known));
        check_equal(&mut compiler, &known);
        // Views of classes that only came about on the way are kept up to date from there on.
        classify(&mut compiler, &mut known);
        after[half..].iter().for_each(|steps| apply(&mut compiler, steps, &mut known));
        check_equal(&mut compiler, &known);
        // What nobody uses leaves nothing behind, and comes back the same.
        let keys: Vec<Arc<ViewKey>> = known.into_keys().collect();
        keys.iter().for_each(|key| compiler.release(key));
        compiler.trim();
        prop_assert!(compiler.is_idle());
        let again = keys.iter().map(|key| (key.clone(), compiler.view(key))).collect();
        check_equal(&mut compiler, &again);
        drop(again);
        // Neither do objects that are gone.
        keys.iter().for_each(|key| compiler.release(key));
        remove_everything(&mut compiler);
        compiler.trim();
        prop_assert!(compiler.is_idle());
        let empty = Compiler::new(MeshDefaults::default());
        prop_assert_eq!(format!("{:#?}", compiler.snapshot), format!("{:#?}", empty.snapshot));
        prop_assert_eq!(format!("{:#?}", compiler.objects), format!("{:#?}", empty.objects));
    }
}
