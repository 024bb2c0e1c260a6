//! What is stored is in force, whoever leaves and whoever is faster.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use ferromesh_xds_translator::{compiler::Compiler, ir::MeshDefaults};
use serde_json::json;

use super::*;
use crate::{
    metrics::Metrics,
    pipeline::Mesh,
    secret::sealed::Vault,
    store::{Memory, Store},
};

/// A source on a store, its mesh, and the folder of the vault's key.
struct Plane {
    source: Arc<RestSource>,
    store: Arc<dyn Store>,
    mesh: Mesh,
    _dir: tempfile::TempDir,
}

impl Plane {
    async fn new(store: Arc<dyn Store>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = Vault::open(&dir.path().join("key")).expect("a new key");
        let defaults = MeshDefaults::default();
        let (mesh, events, _) = Mesh::start(
            Compiler::new(defaults.clone()),
            BTreeSet::from([SourceId::Rest]),
            Duration::from_secs(60),
            Metrics::new(),
        );
        let local = ObjectStore::Local(LocalStore { store: store.clone(), vault });
        let judge = Judge::new(mesh.clone(), defaults);
        let source = Arc::new(RestSource::new(local, Arc::default(), events, judge));
        source.start().await.expect("started");
        Self { source, store, mesh, _dir: dir }
    }

    async fn put(&self, n: u64) -> Result<u64, WriteError> {
        let put = self.source.put(entry(n), Expect::Any, "test", Mode::Commit);
        put.await.map(|accepted| accepted.kept.revision)
    }

    async fn delete(&self) -> Result<u64, WriteError> {
        let asked = Deletion { expect: Expect::Any, version: "", who: "test", mode: Mode::Commit };
        self.source.delete(&cart(), asked).await
    }

    /// What is stored, and what is in force once everything is applied that was told.
    async fn compared(&self) -> (Vec<Value>, Vec<Value>) {
        self.mesh.findings(SourceId::Rest).await.expect("it runs");
        let in_force = self.mesh.objects().await.expect("it runs");
        let stored = self.store.list().into_iter().map(|entry| entry.value);
        (stored.collect(), in_force.into_iter().map(|(_, object)| object.raw()).collect())
    }
}

fn cart() -> ObjectId {
    let kind = Kind::named("serviceentries").expect("a kind");
    ObjectId { kind, namespace: "shop".into(), name: "cart".into() }
}

fn entry(n: u64) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": "cart", "namespace": "shop", "labels": { "n": n.to_string() } },
        "spec": {
            "hosts": ["cart.example.com"], "location": "MESH_EXTERNAL", "resolution": "DNS",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        },
    })
}

/// A store in which a write says that it has begun, and waits until it may go on.
struct Gated {
    inner: Memory,
    begun: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Gated {
    fn new() -> (Arc<Self>, Receiver<()>, SyncSender<()>) {
        let ((begun, has_begun), (may, go_on)) = (sync_channel(8), sync_channel(8));
        (Arc::new(Self { inner: Memory::default(), begun, go_on: go_on.into() }), has_begun, may)
    }

    fn wait(&self) {
        self.begun.send(()).expect("somebody waits");
        self.go_on.lock().expect("nobody panics").recv().expect("somebody says so");
    }
}

impl Store for Gated {
    fn list(&self) -> Vec<Entry> {
        self.inner.list()
    }

    fn get(&self, key: &StoreKey) -> Option<Entry> {
        self.inner.get(key)
    }

    fn put(
        &self,
        key: &StoreKey,
        value: Value,
        expect: Expect,
        who: &str,
    ) -> Result<u64, StoreError> {
        self.wait();
        self.inner.put(key, value, expect, who)
    }

    fn delete(&self, key: &StoreKey, expect: Expect, who: &str) -> Result<u64, StoreError> {
        self.wait();
        self.inner.delete(key, expect, who)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_client_leaves_is_in_force_when_it_is_stored() {
    let (store, begun, may) = Gated::new();
    let plane = Arc::new(Plane::new(store).await);
    let begun = Arc::new(Mutex::new(begun));
    for (round, deletes) in [(1, false), (2, false), (3, true)] {
        let asking = plane.clone();
        let client = tokio::spawn(async move {
            if deletes { asking.delete().await } else { asking.put(round).await }
        });
        let waiting = begun.clone();
        let write_begins = move || waiting.lock().expect("nobody panics").recv();
        tokio::task::spawn_blocking(write_begins).await.expect("no panic").expect("it begins");
        client.abort();
        assert!(client.await.is_err_and(|left| left.is_cancelled()));
        // The next write is told after it, and refused: there is no such object.
        may.send(()).expect("the write waits");
        let asked = Deletion { expect: Expect::Any, version: "", who: "test", mode: Mode::Commit };
        let nobody = ObjectId { name: "nobody".into(), ..cart() };
        plane.source.delete(&nobody, asked).await.expect_err("refused");
        let (stored, in_force) = plane.compared().await;
        assert_eq!(stored.len(), usize::from(!deletes));
        assert_eq!(in_force, stored, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn what_is_in_force_is_what_was_stored_last_however_many_write_at_once() {
    let plane = Arc::new(Plane::new(Arc::new(Memory::default())).await);
    for round in 0..40 {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let plane = plane.clone();
                tokio::spawn(async move {
                    match writer % 2 {
                        0 => drop(plane.put(round * 100 + writer).await.expect("stored")),
                        _ => drop(plane.delete().await),
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("no panic");
        }
        let (stored, in_force) = plane.compared().await;
        assert_eq!(in_force, stored, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_after_a_write_was_acknowledged_finds_it_in_force() {
    let plane = Plane::new(Arc::new(Memory::default())).await;
    for n in 0..100 {
        plane.put(n).await.expect("stored");
        let in_force = plane.mesh.objects().await.expect("it runs");
        assert_eq!(in_force.first().map(|(_, object)| object.raw()), Some(entry(n)));
        plane.delete().await.expect("deleted");
        assert!(plane.mesh.objects().await.expect("it runs").is_empty(), "round {n}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_the_write_would_and_changes_nothing() {
    let plane = Plane::new(Arc::new(Memory::default())).await;
    let first = plane.put(1).await.expect("stored");
    let dry = |expect, version| Deletion { expect, version, who: "test", mode: Mode::DryRun };
    let rehearse = async |asked| plane.source.delete(&cart(), asked).await;
    assert_eq!(rehearse(dry(Expect::Any, "")).await.expect("it would be deleted"), 0);
    assert!(matches!(
        rehearse(dry(Expect::Revision(first + 1), "")).await,
        Err(WriteError::Store(StoreError::Conflict { .. }))
    ));
    assert!(matches!(rehearse(dry(Expect::Any, "77")).await, Err(WriteError::Outdated { .. })));
    assert!(matches!(rehearse(dry(Expect::Any, "x")).await, Err(WriteError::Condition(_))));
    let again = plane.source.put(entry(2), Expect::Absent, "test", Mode::DryRun).await;
    assert!(matches!(again, Err(WriteError::Store(StoreError::Conflict { .. }))));
    assert_eq!(plane.compared().await.0, [entry(1)]);
}

#[tokio::test]
async fn an_object_that_names_another_revision_is_refused_and_none_is_kept_in_it() {
    let plane = Plane::new(Arc::new(Memory::default())).await;
    let named = |revision: u64| {
        let mut object = entry(revision);
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        object
    };
    let put = async |object, expect| plane.source.put(object, expect, "test", Mode::Commit).await;
    let absent = put(named(1), Expect::Any).await.expect_err("nothing is there");
    assert!(matches!(absent, WriteError::Outdated { .. }), "{absent}");
    let first = plane.put(1).await.expect("stored");
    let second = put(named(first), Expect::Any).await.expect("it is that revision").kept.revision;
    let stale = put(named(first), Expect::Any).await.expect_err("it is another").to_string();
    assert!(stale.contains("metadata.resourceVersion") && stale.contains("read it again"));
    let torn = put(named(second), Expect::Revision(first)).await;
    assert!(matches!(torn, Err(WriteError::Condition(_))));
    let new = put(named(second), Expect::Absent).await;
    assert!(matches!(new, Err(WriteError::Condition(_))));
    let kept = plane.source.get(cart().kind, "shop", "cart").expect("stored");
    assert_eq!((kept.revision, kept.value["metadata"].get("resourceVersion")), (second, None));
}

#[tokio::test]
async fn a_stored_secret_that_cannot_be_read_shows_what_anybody_may_read() {
    let plane = Plane::new(Arc::new(Memory::default())).await;
    let stored = json!({
        "apiVersion": "v1", "kind": "Secret", "sealedData": "anothers",
        "metadata": {
            "name": "cert", "namespace": "shop", "labels": { "app": "shop" },
            "annotations": { "copy": "very private" },
        },
    });
    let key = StoreKey::new("Secret", "shop", "cert");
    let revision = plane.store.put(&key, stored, Expect::Any, "test").expect("stored");
    let shown = plane.source.get(Kind::SECRET, "shop", "cert").expect("it is there");
    assert_eq!(
        (shown.revision, &shown.value["metadata"]["labels"]["app"]),
        (revision, &json!("shop"))
    );
    assert!(!shown.value.to_string().contains("private"), "{}", shown.value);
}
