//! The objects that are looked at, with what they come to.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use super::matters;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Position},
    dialect::{
        Kind, Object, Place, Written,
        kubernetes::{self, ingress_class::class_of},
        lower,
    },
    ir::{
        AccessPolicy, BackendPolicy, GatewayConfig, MeshDefaults, MeshTls, ObjectId, Origin,
        RouteTable, Workload,
    },
    snapshot::{Audience, ChangeSet, CredentialFact, Credentials, Item, MeshSnapshot},
};

/// The objects by identity, what each is lowered to, and the snapshot of it all that plans would
/// read.
///
/// An object with errors takes part as far as it could be read, so that one mistake is not reported
/// as many. Endpoints do not: they are many, and come and go without anybody's mistake.
pub(super) struct Input<'a> {
    objects: BTreeMap<&'a ObjectId, &'a Object>,
    items: Vec<Item>,
    pub(super) snapshot: MeshSnapshot,
    /// The objects that findings are wanted about; `None`: all of them.
    pub(super) about: Option<BTreeSet<ObjectId>>,
    /// What lowering found.
    pub(super) lowered: Vec<Diagnostic>,
    /// Documents that were read again for positions, so that many findings in a long one cost one
    /// reading.
    read: RefCell<Read<'a>>,
}

/// Documents by file and first line.
type Read<'a> = BTreeMap<(Arc<str>, u32), Option<Rc<Written<'a>>>>;

impl<'a> Input<'a> {
    /// `base` holds what a mesh configuration does not say; `credentials` those whose Secrets are
    /// not among the objects.
    pub(super) fn of(
        objects: impl IntoIterator<Item = &'a Object>,
        credentials: &Credentials,
        base: &MeshDefaults,
    ) -> Self {
        let objects: BTreeMap<_, _> =
            objects.into_iter().map(|object| (&object.id, object)).collect();
        let mut input = Self {
            objects,
            items: Vec::new(),
            snapshot: MeshSnapshot::default(),
            lowered: Vec::new(),
            about: None,
            read: RefCell::default(),
        };
        let mesh = input.lower(base);
        input.snapshot = MeshSnapshot::new(mesh.clone());
        for item in &input.items {
            input.snapshot.replace(
                &[],
                std::slice::from_ref(item),
                &Audience::default(),
                &mut ChangeSet::default(),
            );
        }
        input.snapshot.restore_mesh(mesh);
        input.add_credentials(credentials);
        input
    }

    /// Lowers every object; the mesh's settings are those of the first mesh configuration, as for
    /// the compiler.
    fn lower(&mut self, base: &MeshDefaults) -> Arc<MeshDefaults> {
        let (configurations, others): (Vec<&Object>, Vec<&Object>) =
            self.objects.values().partition(|object| object.id.kind == Kind::MESH_CONFIG);
        let mut mesh = None;
        for object in configurations {
            let lowered = lower(object, base);
            self.lowered.extend(lowered.diagnostics);
            mesh = mesh.or_else(|| {
                lowered.items.into_iter().find_map(|item| match item {
                    Item::Mesh(mesh) => Some(mesh),
                    _ => None,
                })
            });
        }
        let mesh = mesh.unwrap_or_else(|| Arc::new(base.clone()));
        let class = |object: &&Object| Some((object.id.name.clone(), class_of(object)?));
        let classified = mesh.with_classes(&others.iter().filter_map(class).collect());
        for object in others {
            let lowered = lower(object, &classified);
            self.lowered.extend(lowered.diagnostics);
            if !self.sees(object, &mesh) {
                self.hide(object);
            } else if matters(object.id.kind) {
                self.items.extend(lowered.items);
            }
        }
        mesh
    }

    fn sees(&self, object: &Object, mesh: &MeshDefaults) -> bool {
        if mesh.discovery.is_empty() {
            return true;
        }
        let name = object.id.namespace.clone();
        let id = ObjectId { kind: Kind::NAMESPACE, namespace: "".into(), name };
        let labels = self.objects.get(&id).map(|namespace| &namespace.meta.labels);
        mesh.sees(&object.id.namespace, labels)
    }

    /// Takes out what is not seen, and says so of what is the mesh's own.
    fn hide(&mut self, object: &Object) {
        self.objects.remove(&object.id);
        if object.id.kind.has_status() {
            let message =
                "not seen: none of `discoverySelectors` of the mesh selects its namespace";
            let finding =
                Diagnostic::warning(Code::NoEffect, FieldPath::of("metadata.namespace"), message);
            let finding = finding.fix("labels of the Namespace that one of them asks for");
            self.lowered.extend(object.diagnose_all(vec![finding]));
        }
    }

    fn add_credentials(&mut self, known: &Credentials) {
        let mut ignored = ChangeSet::default();
        for ((namespace, name), fact) in known {
            self.snapshot.set_credential(namespace, name, Some(fact.clone()), &mut ignored);
        }
        for object in self.objects.values() {
            let Some(secret) = object.content::<kubernetes::Secret>() else { continue };
            let has =
                |key: &str| secret.data.contains_key(key) || secret.string_data.contains_key(key);
            let holds_ca = ["ca.crt", "cacert"].into_iter().any(has);
            let fact = CredentialFact { fingerprint: "".into(), not_after: 0, holds_ca };
            let ObjectId { namespace, name, .. } = &object.id;
            self.snapshot.set_credential(namespace, name, Some(fact), &mut ignored);
        }
    }

    /// Every object, in the order of identities.
    pub(super) fn objects(&self) -> impl Iterator<Item = &'a Object> {
        self.objects.values().copied()
    }

    /// Whether findings about an object are wanted; others need not be made.
    pub(super) fn is_wanted(&self, id: &ObjectId) -> bool {
        self.about.as_ref().is_none_or(|about| about.contains(id))
    }

    /// The object with this identity.
    pub(super) fn object(&self, id: &ObjectId) -> Option<&'a Object> {
        self.objects.get(id).copied()
    }

    /// Kubernetes Services with what was written in them.
    pub(super) fn services(&self) -> impl Iterator<Item = (&'a Object, &'a kubernetes::Service)> {
        self.objects().filter_map(|object| Some((object, object.content()?)))
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.items.iter().filter_map(|item| match item {
            Item::Routes(table) => Some(table),
            _ => None,
        })
    }

    /// Those that speak for a host, instead of filling in what others leave out.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Arc<BackendPolicy>> {
        self.items.iter().filter_map(|item| match item {
            Item::Backend(policy) => Some(policy).filter(|policy| !policy.fills_in),
            _ => None,
        })
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = &Arc<GatewayConfig>> {
        self.items.iter().filter_map(|item| match item {
            Item::Gateway(gateway) => Some(gateway),
            _ => None,
        })
    }

    pub(super) fn access(&self) -> impl Iterator<Item = &Arc<AccessPolicy>> {
        self.items.iter().filter_map(|item| match item {
            Item::Access(policy) => Some(policy),
            _ => None,
        })
    }

    /// The namespace whose policies hold for the mesh.
    pub(super) fn root(&self) -> &str {
        &self.snapshot.mesh().root_namespace
    }

    /// Whether any workload is known at all: without one, nothing can be said about selectors.
    pub(super) fn knows_workloads(&self) -> bool {
        self.snapshot.all_workloads().next().is_some()
    }

    /// Whether a workload has a proxy, or had one when it was written.
    pub(super) fn is_proxied(&self, workload: &Workload) -> bool {
        let object = self.object(&workload.origin.id);
        let pod = object.and_then(|object| object.content::<kubernetes::Pod>());
        let named = pod.is_some_and(|pod| has_proxy(&pod.spec));
        workload.mesh_tls == MeshTls::Always
            || !workload.service_account.is_empty() && is_entry(workload)
            || named
    }

    /// Where a field of an object is written.
    pub(super) fn locate(&self, id: &ObjectId, field: &FieldPath) -> Option<Position> {
        let place = &self.object(id)?.place;
        let written = self.read(place);
        place.position(written.as_deref().map(Written::tree), field)
    }

    /// The text that stands in a field of an object that came from a file.
    pub(super) fn written(&self, id: &ObjectId, field: &FieldPath) -> Option<String> {
        let place = &self.object(id)?.place;
        let path = FieldPath(place.root.0.iter().chain(&field.0).cloned().collect());
        let text = self.read(place)?.tree().find(&path)?.to_json();
        text.as_str().map(str::to_owned)
    }

    fn read(&self, place: &'a Place) -> Option<Rc<Written<'a>>> {
        let mut read = self.read.borrow_mut();
        let key = (place.file.clone(), place.first_line);
        read.entry(key).or_insert_with(|| place.read().map(Rc::new)).clone()
    }

    /// Completes a finding with its object, its position and its edit.
    pub(super) fn diagnose(&self, id: &ObjectId, finding: Diagnostic) -> Diagnostic {
        let finding = finding.object(id.clone());
        let Some(object) = self.object(id) else { return finding };
        object.place.complete(self.read(&object.place).as_deref(), finding)
    }

    /// Names another object that plays a part in a finding.
    pub(super) fn relate(
        &self,
        finding: Diagnostic,
        id: &ObjectId,
        field: &FieldPath,
    ) -> Diagnostic {
        finding.related(id.clone(), self.locate(id, field))
    }
}

/// Whether a proxy is among the containers of a pod.
pub(super) fn has_proxy(pod: &kubernetes::PodSpec) -> bool {
    let mut containers = pod.containers.iter().chain(&pod.init_containers);
    containers.any(|c| matches!(&*c.name, "istio-proxy" | "ferromesh-proxy"))
}

/// Whether a workload is a WorkloadEntry.
pub(super) fn is_entry(workload: &Workload) -> bool {
    workload.origin.id.kind == Kind::WORKLOAD_ENTRY
}

/// Why `winner` comes before `loser` ([`Origin::by_age`]).
pub(super) fn reason(winner: &Origin, loser: &Origin) -> &'static str {
    if winner.created < loser.created { "it is older" } else { "equal age, first by name" }
}
