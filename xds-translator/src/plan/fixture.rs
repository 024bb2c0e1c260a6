//! Small objects for tests of planning, and a mesh made of them.

use std::{net::IpAddr, sync::Arc};

use crate::{
    dialect::Kind,
    ir::{
        AccessAction, AccessPolicy, AccessRule, Attachment, BackendPolicy, Destination,
        DestinationPort, HeaderOps, Hostname, HttpMatch, HttpRule, Labels, MeshDefaults, ObjectId,
        Origin, PolicyScope, PolicyTarget, Protocol, Resolution, RouteFields, RouteTable,
        RuleOrder, Selector, Service, ServiceAddress, ServiceKey, ServicePort, Standing,
        TargetPort, TrafficPolicy, Unmatched, Unreachable, Visibility, WeightedDestination,
    },
    snapshot::{Audience, ChangeSet, Item, MeshSnapshot, ServiceDefinition},
};

/// A mesh with these items and default settings.
pub(crate) fn mesh(items: impl IntoIterator<Item = Item>) -> MeshSnapshot {
    mesh_with(MeshDefaults::default(), items)
}

/// A mesh with these settings.
pub(crate) fn mesh_with(
    settings: MeshDefaults,
    items: impl IntoIterator<Item = Item>,
) -> MeshSnapshot {
    let mut snapshot = MeshSnapshot::new(Arc::new(settings));
    for item in items {
        snapshot.replace(&[], &[item], &Audience::default(), &mut ChangeSet::default());
    }
    snapshot
}

/// The origin of an object of this kind.
pub(crate) fn origin(kind: Kind, namespace: &str, name: &str) -> Origin {
    Origin { id: ObjectId { kind, namespace: namespace.into(), name: name.into() }, created: 0 }
}

/// Labels from pairs.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect()
}

/// A Kubernetes Service `NAME.NAMESPACE` with these ports, reached at `address`.
pub(crate) fn service(
    namespace: &str,
    name: &str,
    address: &str,
    ports: &[(u16, Protocol)],
) -> Service {
    let port = |&(number, protocol): &(u16, Protocol)| ServicePort {
        number,
        name: format!("port-{number}").into(),
        protocol,
        target: TargetPort::Number(number),
    };
    let address: Option<IpAddr> = address.parse().ok();
    Service {
        key: service_key(namespace, name),
        origin: origin(Kind::SERVICE, namespace, name),
        addresses: address.map(ServiceAddress::Ip).into_iter().collect(),
        allocated: None,
        ports: ports.iter().map(port).collect(),
        resolution: Resolution::Static,
        headless: false,
        external: false,
        export_to: Visibility::Public,
        selector: Some(labels(&[("app", name)]).into()),
        labels: Labels::new(),
        subject_alt_names: Vec::new(),
        kubernetes: true,
        publish_not_ready: false,
        distribution: None,
    }
}

/// The key of [`service`].
pub(crate) fn service_key(namespace: &str, name: &str) -> ServiceKey {
    let host = Hostname::new(&format!("{name}.{namespace}.svc.cluster.local"));
    ServiceKey::kubernetes(host, namespace.into())
}

/// The item of a service.
pub(crate) fn service_item(service: Service) -> Item {
    Item::Service(Arc::new(ServiceDefinition { service: Arc::new(service), inline: Vec::new() }))
}

/// A policy that says nothing.
pub(crate) fn policy(namespace: &str, name: &str, host: &str) -> BackendPolicy {
    BackendPolicy {
        origin: origin(Kind::DESTINATION_RULE, namespace, name),
        host: Hostname::new(host),
        export_to: Visibility::Public,
        workload_selector: None,
        fills_in: false,
        traffic: TrafficPolicy::default(),
        subsets: Vec::new(),
    }
}

/// A table for these hosts, attached to the mesh.
pub(crate) fn table(
    namespace: &str,
    name: &str,
    hosts: &[&str],
    http: Vec<HttpRule>,
) -> RouteTable {
    RouteTable {
        origin: origin(Kind::VIRTUAL_SERVICE, namespace, name),
        hosts: hosts.iter().map(|host| Hostname::new(host)).collect(),
        attachments: vec![Attachment::Mesh],
        export_to: Visibility::Public,
        http,
        order: RuleOrder::AsWritten,
        standing: Standing::Usual,
        tls: Vec::new(),
        tcp: Vec::new(),
        fields: RouteFields::default(),
    }
}

/// A rule that sends what matches to one host.
pub(crate) fn rule(matches: Vec<HttpMatch>, host: &str) -> HttpRule {
    let destination = Destination {
        host: Hostname::new(host),
        port: DestinationPort::Inferred,
        subset: "".into(),
        at: "".into(),
        of: None,
    };
    let destinations = vec![WeightedDestination {
        destination,
        weight: 1,
        unreachable: Unreachable::Fail,
        headers: HeaderOps::default(),
    }];
    HttpRule { matches, ..HttpRule::forward("".into(), destinations) }
}

/// An access policy of namespace `shop`.
pub(crate) fn access(
    name: &str,
    action: AccessAction,
    rules: Vec<AccessRule>,
) -> Arc<AccessPolicy> {
    Arc::new(AccessPolicy {
        authorizer: (action == AccessAction::Ask).then(|| "asked".into()),
        origin: origin(Kind::AUTHORIZATION_POLICY, "shop", name),
        scope: PolicyScope::Namespace("shop".into()),
        selector: Selector::default(),
        target: PolicyTarget::All,
        ports: None,
        action,
        rules,
        shared_callers: Vec::new(),
        unmatched: Unmatched::under(action),
        dry_run: false,
    })
}
