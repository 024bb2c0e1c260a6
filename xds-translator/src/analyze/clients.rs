//! Who could use what the objects say.
//!
//! The clients of a mesh are its known workloads: a workload that some Gateway selects by labels is
//! a gateway, every other pod a sidecar, and so is every WorkloadEntry with a service account. A
//! namespace that is named and of which no client is known is taken to have a sidecar without
//! labels, but for those of Kubernetes itself; a Gateway that selects no known workload is taken to
//! have a proxy in its own namespace. Files seldom hold pods, and what is wrong for everybody who
//! may come is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::input::{Input, is_entry};
use crate::{
    class::{NodeFacts, NodeIdentity, NodeKind, client_view, is_gateway},
    dialect::Kind,
    ir::{
        Attachment, Hostname, Labels, Locality, ObjectId, RouteTable, Visibility, Workload,
        WorkloadId,
    },
    plan::{
        Caller, CaptureMode, MetricsMaker, ViewKey, caller, destinations, find_service,
        l4_destinations,
    },
    snapshot::{Item, Reader},
};

/// Clients for which every route leads to the same.
pub(super) struct Clients {
    /// The view of one of them.
    pub(super) view: ViewKey,
    pub(super) namespaces: BTreeSet<Arc<str>>,
}

/// The proxies that are clients of the mesh, each kind once.
pub(super) fn nodes(input: &Input<'_>) -> Vec<NodeIdentity> {
    let snapshot = &input.snapshot;
    let mut nodes: BTreeMap<(NodeKind, Arc<str>, Labels), NodeIdentity> = BTreeMap::new();
    let mut add = |kind, id: WorkloadId, labels: &Labels| {
        let node = || node(kind, id.clone(), labels);
        nodes.entry((kind, id.namespace.clone(), labels.clone())).or_insert_with(node);
    };
    for workload in snapshot.all_workloads() {
        if is_gateway(snapshot, workload) {
            add(NodeKind::Router, workload.id.clone(), &workload.labels);
        } else if has_sidecar(workload) {
            add(NodeKind::Sidecar, workload.id.clone(), &workload.labels);
        }
    }
    for gateway in input.gateways() {
        let selects = |workload: &Arc<Workload>| gateway.selector.matches(&workload.labels);
        if !gateway.selector.is_empty() && !snapshot.all_workloads().any(selects) {
            let namespace = gateway.origin.id.namespace.clone();
            add(NodeKind::Router, stranger(namespace), &gateway.selector.sample());
        }
    }
    let known: BTreeSet<Arc<str>> =
        nodes.keys().map(|(_, namespace, _)| namespace.clone()).collect();
    for namespace in namespaces(input).difference(&known) {
        let node = node(NodeKind::Sidecar, stranger(namespace.clone()), &Labels::new());
        nodes.insert((NodeKind::Sidecar, namespace.clone(), Labels::new()), node);
    }
    nodes.into_values().collect()
}

/// Groups of clients that cannot be told apart by where routes lead.
pub(super) fn clients(input: &Input<'_>) -> Vec<Clients> {
    let reader = Reader::new(&input.snapshot);
    let led_to = input.tables().flat_map(|t| destinations(t).chain(l4_destinations(t)));
    let hosts: BTreeSet<&Hostname> = led_to.map(|destination| &destination.host).collect();
    let mut views: BTreeMap<ViewKey, BTreeSet<Arc<str>>> = BTreeMap::new();
    for node in nodes(input) {
        if let Some(view) = client_view(&input.snapshot, &node) {
            views.entry(view).or_default().insert(node.workload.namespace);
        }
    }
    let mut groups: BTreeMap<Sight, Clients> = BTreeMap::new();
    for (view, namespaces) in views {
        let Some(caller) = caller(&view) else { continue };
        let sight = Sight::of(&reader, &view, &caller, &hosts);
        let group =
            groups.entry(sight).or_insert_with(|| Clients { view, namespaces: BTreeSet::new() });
        group.namespaces.extend(namespaces);
    }
    groups.into_values().collect()
}

/// Whether a workload that is no gateway is a client.
fn has_sidecar(workload: &Workload) -> bool {
    let outside = is_entry(workload) && workload.service_account.is_empty();
    !outside && !workload.host_network
}

/// Namespaces that an object is in or is shown to, without Kubernetes' own.
fn namespaces(input: &Input<'_>) -> BTreeSet<Arc<str>> {
    let own = input.objects().map(|object| match object.id.kind == Kind::NAMESPACE {
        true => object.id.name.clone(),
        false => object.id.namespace.clone(),
    });
    let own = own.filter(|namespace| !namespace.is_empty());
    let shown = input.items().iter().filter_map(|item| match item {
        Item::Service(definition) => Some(&definition.service.export_to),
        Item::Routes(table) => Some(&table.export_to),
        Item::Backend(policy) => Some(&policy.export_to),
        _ => None,
    });
    let shown = shown.flat_map(|visibility| match visibility {
        Visibility::Public => BTreeSet::new(),
        Visibility::Namespaces(names) => names.clone(),
    });
    own.chain(shown).filter(|namespace| !namespace.starts_with("kube-")).collect()
}

/// A workload that nobody knows.
fn stranger(namespace: Arc<str>) -> WorkloadId {
    WorkloadId { namespace, name: "".into() }
}

fn node(kind: NodeKind, workload: WorkloadId, labels: &Labels) -> NodeIdentity {
    NodeIdentity {
        kind,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        workload,
        facts: NodeFacts {
            labels: labels.clone(),
            service_account: "default".into(),
            capture: CaptureMode::Redirect,
            metrics: MetricsMaker::default(),
            captures_dns: false,
            http_proxy_port: None,
            locality: Locality::default(),
            cluster_id: "".into(),
            group: None,
            metadata: BTreeMap::new(),
        },
        proven: None,
    }
}

/// Everything that decides where routes of a client lead. Items are told apart by their address,
/// for they are shared and the snapshot stands still.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sight {
    /// Gateways have settings of their own, and are few.
    gateway: Option<ViewKey>,
    /// As far as a Sidecar object or a match asks for it.
    namespace: Option<Arc<str>>,
    scope: Option<ObjectId>,
    labels: Labels,
    services: Vec<usize>,
    tables: Vec<usize>,
    /// Of every host that some route leads to.
    policies: Vec<Vec<usize>>,
}

impl Sight {
    fn of(
        reader: &Reader<'_>,
        view: &ViewKey,
        caller: &Caller<'_>,
        hosts: &BTreeSet<&Hostname>,
    ) -> Self {
        let namespace = caller.namespace;
        let tables = reader.route_tables(&Attachment::Mesh, namespace);
        let asked = caller.scope.is_some() || tables.iter().any(|t| asks_for_namespace(t));
        let policies = hosts.iter().map(|host| {
            let Some(service) = find_service(reader, host, namespace) else { return Vec::new() };
            let key = &service.key;
            let found =
                reader.backend_policies(&key.host, &key.namespace, namespace, caller.labels);
            found.iter().map(address).collect()
        });
        Self {
            gateway: (*caller.attachments != [Attachment::Mesh]).then(|| view.clone()),
            namespace: asked.then(|| namespace.clone()),
            scope: caller.scope.cloned(),
            labels: caller.labels.clone(),
            services: reader.services_visible_to(namespace).iter().map(address).collect(),
            policies: policies.collect(),
            tables: tables.iter().map(address).collect(),
        }
    }
}

fn asks_for_namespace(table: &RouteTable) -> bool {
    let http = table.http.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_namespace);
    let tls = table.tls.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_namespace);
    let tcp = table.tcp.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_namespace);
    http.chain(tls).chain(tcp).any(Option::is_some)
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}
