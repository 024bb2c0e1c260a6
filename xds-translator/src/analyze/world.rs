//! An index over the objects that are looked at.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use crate::{
    diagnostic::{Diagnostic, FieldPath, Position},
    dialect::{
        Kind, Object, Spec,
        istio::{
            destination_rule::DestinationRule, gateway::Gateway, security::AuthorizationPolicy,
            service_entry::ServiceEntry, virtual_service::VirtualService,
        },
        kubernetes,
    },
    ir::{Hostname, Labels, MeshDefaults, ObjectId},
    snapshot::Credentials,
    yaml::Node,
};

/// An object with its typed content.
pub(super) type Typed<'a, T> = (&'a Object, &'a T);

/// The objects, by what checks ask for.
#[derive(Default)]
pub(super) struct World<'a> {
    pub(super) by_id: BTreeMap<&'a ObjectId, &'a Object>,
    pub(super) routes: Vec<Typed<'a, VirtualService>>,
    pub(super) backends: Vec<Typed<'a, DestinationRule>>,
    pub(super) gateways: Vec<Typed<'a, Gateway>>,
    pub(super) access: Vec<Typed<'a, AuthorizationPolicy>>,
    pub(super) services: Vec<Typed<'a, kubernetes::Service>>,
    /// Pods and WorkloadEntries by namespace.
    pub(super) workloads: BTreeMap<&'a str, Vec<Workload<'a>>>,
    /// Secrets by namespace and name, and whether they hold a CA for the certificates of clients.
    pub(super) credentials: BTreeMap<(&'a str, &'a str), bool>,
    /// Every exact host that somebody can call.
    hosts: BTreeMap<Hostname, &'a Object>,
    /// Every wildcard host that somebody can call.
    wildcards: Vec<Hostname>,
    /// DestinationRules by exact host.
    backends_of: BTreeMap<Hostname, Vec<Typed<'a, DestinationRule>>>,
    /// DestinationRules of wildcard hosts.
    wildcard_backends: Vec<(Hostname, Typed<'a, DestinationRule>)>,
    root_namespace: Arc<str>,
    /// What lowering rests on.
    pub(super) settings: MeshDefaults,
    /// DNS suffix of Kubernetes services.
    domain: Arc<str>,
    /// Documents that were read again for positions, so that many findings in a long one cost one reading.
    trees: RefCell<Trees>,
}

/// Documents by file and first line.
type Trees = BTreeMap<(Arc<str>, u32), Option<Rc<Node>>>;

/// A pod or WorkloadEntry.
pub(super) struct Workload<'a> {
    pub(super) object: &'a Object,
    pub(super) labels: Labels,
    /// Whether it has a proxy of its own.
    pub(super) proxied: bool,
}

impl<'a> World<'a> {
    /// Indexes the objects.
    pub(super) fn of(
        objects: impl IntoIterator<Item = &'a Object>,
        credentials: &'a Credentials,
        mesh: &MeshDefaults,
    ) -> Self {
        let mut world = Self {
            root_namespace: mesh.root_namespace.clone(),
            domain: mesh.domain.clone(),
            settings: mesh.clone(),
            ..Self::default()
        };
        let known = credentials.iter().map(|((namespace, name), fact)| ((&**namespace, &**name), fact.holds_ca));
        world.credentials.extend(known);
        for object in objects {
            world.by_id.insert(&object.id, object);
            world.take(object);
        }
        let backends = world.backends.clone();
        for (object, rule) in backends {
            let host = world.qualify(&rule.host, &object.id.namespace);
            if host.is_wildcard() {
                world.wildcard_backends.push((host, (object, rule)));
            } else {
                world.backends_of.entry(host).or_default().push((object, rule));
            }
        }
        world
    }

    fn take(&mut self, object: &'a Object) {
        match &object.spec {
            Spec::VirtualService(spec) => self.routes.push((object, spec)),
            Spec::DestinationRule(spec) => self.backends.push((object, spec)),
            Spec::Gateway(spec) => self.gateways.push((object, spec)),
            Spec::AuthorizationPolicy(spec) => self.access.push((object, spec)),
            Spec::Service(spec) => {
                self.services.push((object, spec));
                self.hosts.insert(self.qualify(&object.id.name, &object.id.namespace), object);
            }
            Spec::ServiceEntry(spec) => self.take_entry(object, spec),
            Spec::Pod(pod) => {
                let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
                let proxied = object.meta.labels.get("security.istio.io/tlsMode").is_some_and(|m| &**m == "istio")
                    || containers.into_iter().any(|c| matches!(&*c.name, "istio-proxy" | "ferromesh-proxy"));
                self.workload(object, object.meta.labels.clone(), proxied);
            }
            Spec::Secret(secret) => {
                let has = |key: &str| secret.data.contains_key(key) || secret.string_data.contains_key(key);
                let holds_ca = ["ca.crt", "cacert"].into_iter().any(has);
                self.credentials.insert((&object.id.namespace, &object.id.name), holds_ca);
            }
            Spec::WorkloadEntry(entry) => {
                let labels =
                    entry.labels.iter().chain(&object.meta.labels).map(|(k, v)| (k.clone(), v.clone())).collect();
                self.workload(object, labels, !entry.service_account.is_empty());
            }
            Spec::MeshConfig(mesh) if !mesh.root_namespace.is_empty() => {
                self.root_namespace = mesh.root_namespace.clone()
            }
            _ => {}
        }
    }

    fn take_entry(&mut self, object: &'a Object, entry: &'a ServiceEntry) {
        for host in entry.hosts.iter().map(|h| Hostname::new(h)) {
            if host.is_wildcard() {
                self.wildcards.push(host);
            } else {
                self.hosts.insert(host, object);
            }
        }
    }

    fn workload(&mut self, object: &'a Object, labels: Labels, proxied: bool) {
        self.workloads.entry(&object.id.namespace).or_default().push(Workload { object, labels, proxied });
    }

    /// Where a field of an object is written.
    pub(super) fn locate(&self, object: &Object, field: &FieldPath) -> Option<Position> {
        let place = &object.place;
        let mut trees = self.trees.borrow_mut();
        let tree = trees.entry((place.file.clone(), place.first_line)).or_insert_with(|| place.tree().map(Rc::new));
        place.position(tree.as_deref(), field)
    }

    /// Completes a finding with its object and position.
    pub(super) fn diagnose(&self, object: &Object, finding: Diagnostic) -> Diagnostic {
        let position = self.locate(object, &finding.field);
        finding.object(object.id.clone()).at(position)
    }

    /// The complete form of a host: a name without dots belongs to a Kubernetes Service of the object's namespace.
    pub(super) fn qualify(&self, host: &str, namespace: &str) -> Hostname {
        if host.contains('.') || host.starts_with('*') || host.is_empty() {
            return Hostname::new(host);
        }
        Hostname::new(&format!("{host}.{namespace}.svc.{}", self.domain))
    }

    /// The namespace whose policies hold for the mesh.
    pub(super) fn root_namespace(&self) -> &str {
        &self.root_namespace
    }

    /// Whether somebody can call `host`.
    pub(super) fn knows_host(&self, host: &Hostname) -> bool {
        self.hosts.contains_key(host) || self.wildcards.iter().any(|w| w.contains(host))
    }

    /// Exact hosts that `pattern` stands for, one of them.
    pub(super) fn knows_any(&self, pattern: &Hostname) -> bool {
        self.knows_host(pattern)
            || (pattern.is_wildcard()
                && (self.hosts.keys().any(|h| pattern.contains(h))
                    || self.wildcards.iter().any(|w| w.overlaps(pattern))))
    }

    /// The Kubernetes Service behind a host.
    pub(super) fn service(&self, host: &Hostname) -> Option<Typed<'a, kubernetes::Service>> {
        let object = *self.hosts.get(host)?;
        match &object.spec {
            Spec::Service(spec) => Some((object, spec)),
            _ => None,
        }
    }

    /// DestinationRules that clients in `namespace` may use for `host`.
    pub(super) fn backends_for<'w>(
        &'w self,
        host: &'w Hostname,
        namespace: &'w str,
    ) -> impl Iterator<Item = Typed<'a, DestinationRule>> + 'w {
        let exact = self.backends_of.get(host).into_iter().flatten().copied();
        let wildcard =
            self.wildcard_backends.iter().filter(|(pattern, _)| pattern.contains(host)).map(|(_, rule)| *rule);
        exact.chain(wildcard).filter(move |(object, rule)| exported(&rule.export_to, &object.id.namespace, namespace))
    }

    /// Workloads of a namespace that carry `labels`; of every namespace if it is the root one.
    pub(super) fn selected<'w>(
        &'w self,
        namespace: &'w str,
        labels: &'w Labels,
    ) -> impl Iterator<Item = &'w Workload<'a>> {
        let everywhere = namespace == self.root_namespace();
        let of_scope = self.workloads.iter().filter(move |(ns, _)| everywhere || **ns == namespace);
        of_scope.flat_map(|(_, list)| list).filter(|w| carries(&w.labels, labels))
    }

    /// Whether any workload is known at all: without one, nothing can be said about selectors.
    pub(super) fn knows_workloads(&self) -> bool {
        !self.workloads.is_empty()
    }

    /// Whether an object is there.
    pub(super) fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let id = ObjectId { kind, namespace: namespace.into(), name: name.into() };
        self.by_id.get(&id).copied()
    }
}

/// Whether `labels` has every one of `wanted`.
pub(super) fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether an object of `owner` with this `exportTo` is seen in `namespace`.
pub(super) fn exported(export_to: &[Arc<str>], owner: &str, namespace: &str) -> bool {
    export_to.is_empty()
        || export_to.iter().any(|e| match &**e {
            "*" => true,
            "." => owner == namespace,
            named => named == namespace,
        })
}

/// The one precedence among equals: oldest first, then by namespace and name.
pub(super) fn by_age(a: &Object, b: &Object) -> std::cmp::Ordering {
    a.origin().by_age(&b.origin())
}

/// Why `winner` comes before `loser`.
pub(super) fn reason(winner: &Object, loser: &Object) -> &'static str {
    if winner.meta.created < loser.meta.created { "it is older" } else { "equal age, first by name" }
}
