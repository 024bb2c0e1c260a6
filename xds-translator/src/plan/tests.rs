//! Tests of whole outlines and items over small meshes.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::ResourceType;

use super::{fixture::*, *};
use crate::{
    dialect::Kind,
    ir::{
        Attachment, BackendPolicy, ConnectionPool, Destination, DestinationPort, EgressListener,
        GatewayConfig, GatewayHost, GatewayProtocol, GatewayServer, HeaderOps, Hostname,
        HttpAction, HttpMatch, HttpRule, Labels, LimitRefusal, ListenerPort, MeshDefaults, Origin,
        OutboundTraffic, OutlierDetection, OwnQuota, PathMatch, PeerTls, PeerTlsPolicy, Pins,
        PolicyScope, PolicyTarget, Protocol, Quota, Rate, RateLimit, Redirect, RedirectPort,
        Resolution, Retry, RetryCondition, RetryPolicy, RouteTable, RuleOrder, ScopeHost,
        ScopeNamespace, Selector, ServerTls, ServerTlsMode, ServiceKey, SidecarScope, Subset,
        TcpRule, TlsWords, TrafficPolicy, Unreachable, Visibility, WeightedDestination,
    },
    snapshot::{Item, MeshSnapshot, Reader},
};

fn outbound(namespace: &str) -> OutboundKey {
    OutboundKey {
        namespace: namespace.into(),
        scope: None,
        client_labels: Labels::new(),
        locality: None,
        knows_peers: false,
        capture: CaptureMode::Redirect,
        features: Features::default(),
        telemetry: TelemetryKey::default(),
        patches: PatchesKey::default(),
    }
}

fn outline(mesh: &MeshSnapshot, key: OutboundKey) -> Outline {
    plan_outline(&Reader::new(mesh), &ViewKey::Outbound(key))
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.resource_name().to_string()).collect()
}

/// The virtual hosts of a route configuration, planned.
fn hosts(mesh: &MeshSnapshot, outline: &Outline, route: &str) -> Vec<VirtualHostPlan> {
    let frame =
        outline.routes.iter().find(|frame| &*frame.name == route).expect("the route exists");
    let planned = frame.virtual_hosts.iter().filter_map(|key| plan_item(&Reader::new(mesh), key));
    let hosts = planned.map(|item| match item {
        PlanItem::VirtualHost(host) => host,
        other => panic!("a route configuration consists of virtual hosts, got {other:?}"),
    });
    hosts.collect()
}

/// `NAME → cluster, cluster` of every virtual host.
fn routing(hosts: &[VirtualHostPlan]) -> Vec<String> {
    let cluster = |route: &RoutePlan| match &route.action {
        RouteActionPlan::Forward(f) => {
            f.clusters.iter().map(|c| c.name.to_string()).collect::<Vec<_>>().join("+")
        }
        RouteActionPlan::Redirect(_) => "redirect".to_owned(),
        RouteActionPlan::Direct { status, .. } => status.to_string(),
    };
    let routes =
        |host: &VirtualHostPlan| host.routes.iter().map(cluster).collect::<Vec<_>>().join(", ");
    hosts.iter().map(|host| format!("{} → {}", host.name, routes(host))).collect()
}

fn cluster(mesh: &MeshSnapshot, outline: &Outline, name: &str) -> ClusterPlan {
    let entry = outline
        .of(ResourceType::Cluster)
        .iter()
        .find(|entry| &*entry.resource_name() == name)
        .expect("the cluster exists");
    let item = match entry {
        Entry::Shared(key) => plan_item(&Reader::new(mesh), key),
        Entry::Own(item) => Some((**item).clone()),
    };
    match item {
        Some(PlanItem::Cluster(cluster)) => *cluster,
        other => panic!("{name} is a cluster, got {other:?}"),
    }
}

fn http(namespace: &str, name: &str, port: u16) -> Item {
    service_item(service(namespace, name, "10.96.0.1", &[(port, Protocol::Http)]))
}

fn routes(table: RouteTable) -> Item {
    Item::Routes(Arc::new(table))
}

const CART: &str = "cart.shop.svc.cluster.local";
const NEW: &str = "new.shop.svc.cluster.local";

fn path(prefix: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() }
}

// -------------------------------------------------------------------------------------------------
// sidecars

#[test]
fn clients_of_one_opinion_share_clusters_and_virtual_hosts() {
    let mesh = mesh([http("shop", "cart", 80)]);
    let (a, b) = (outline(&mesh, outbound("a")), outline(&mesh, outbound("b")));
    assert_eq!(a, b);
    // Only the names that resolve differ for a client of the same namespace.
    let own = outline(&mesh, outbound("shop"));
    assert_eq!(
        (own.of(ResourceType::Cluster), own.of(ResourceType::Endpoint)),
        (a.of(ResourceType::Cluster), a.of(ResourceType::Endpoint))
    );
    assert_ne!(own.routes, a.routes);
}

#[test]
fn a_policy_of_the_clients_namespace_makes_items_of_its_own() {
    let own = BackendPolicy {
        export_to: Visibility::Namespaces(["a".into()].into()),
        ..policy("a", "own", CART)
    };
    let mesh = mesh([http("shop", "cart", 80), Item::Backend(Arc::new(own))]);
    let (a, b) = (outline(&mesh, outbound("a")), outline(&mesh, outbound("b")));
    assert_ne!(a.of(ResourceType::Cluster), b.of(ResourceType::Cluster));
    assert_eq!(names(a.of(ResourceType::Cluster)), names(b.of(ResourceType::Cluster)));
}

#[test]
fn rules_end_at_the_first_that_matches_everything() {
    let rules = vec![
        rule(vec![path("/new")], NEW),
        rule(vec![path("/"), path("/never")], CART),
        rule(Vec::new(), "never.example"),
    ];
    let mesh = mesh([
        http("shop", "cart", 80),
        http("shop", "new", 80),
        routes(table("shop", "t", &[CART], rules)),
    ]);
    let outline = outline(&mesh, outbound("shop"));
    assert_eq!(
        routing(&hosts(&mesh, &outline, "80")),
        [
            format!("{CART}:80 → outbound|80||{NEW}, outbound|80||{CART}"),
            format!("{NEW}:80 → outbound|80||{NEW}"),
            "allow_any → PassthroughCluster".to_owned(),
        ]
    );
}

#[test]
fn the_most_specific_host_wins_and_then_the_oldest_table() {
    let with_age = |created, table: RouteTable| {
        let origin = Origin { created, ..table.origin.clone() };
        routes(RouteTable { origin, ..table })
    };
    let to = |host: &str| vec![rule(Vec::new(), host)];
    let mesh = mesh([
        http("shop", "cart", 80),
        with_age(
            1,
            table("shop", "wildcard", &["*.shop.svc.cluster.local"], to("wildcard.example")),
        ),
        with_age(3, table("shop", "young", &[CART], to("young.example"))),
        with_age(2, table("shop", "old", &[CART], to("old.example"))),
    ]);
    let outline = outline(&mesh, outbound("shop"));
    assert_eq!(
        routing(&hosts(&mesh, &outline, "80"))[0],
        format!("{CART}:80 → outbound|80||old.example")
    );
}

#[test]
fn a_rule_that_cannot_match_the_client_leaves_the_service_as_it_is() {
    let only = HttpMatch { source_namespace: Some("a".into()), ..HttpMatch::default() };
    let rules = vec![rule(vec![only], NEW)];
    let mesh = mesh([http("shop", "cart", 80), routes(table("shop", "t", &[CART], rules))]);
    let first = |namespace: &str| {
        routing(&hosts(&mesh, &outline(&mesh, outbound(namespace)), "80")).remove(0)
    };
    assert_eq!(first("a"), format!("{CART}:80 → outbound|80||{NEW}"));
    assert_eq!(first("b"), format!("{CART}:80 → outbound|80||{CART}"));
}

#[test]
fn hosts_beside_a_service_get_its_port_and_every_host_gets_port_80() {
    let rules = vec![rule(Vec::new(), CART)];
    let mesh = mesh([
        http("shop", "cart", 8080),
        http("shop", "edge", 80),
        http("shop", "other", 9090),
        routes(table("shop", "t", &[CART, "cart.example.com"], rules)),
    ]);
    let outline = outline(&mesh, outbound("shop"));
    let on = |port: &str| routing(&hosts(&mesh, &outline, port));
    assert!(on("8080").contains(&format!("cart.example.com:8080 → outbound|8080||{CART}")));
    // Istio does the same: the service lacks port 80, so the request fails with "no cluster"
    // instead of passing by.
    assert!(on("80").contains(&format!("{CART}:80 → outbound|80||{CART}")));
    assert!(on("80").contains(&format!("cart.example.com:80 → outbound|80||{CART}")));
    assert!(on("9090").iter().all(|host| !host.contains("cart")));
}

#[test]
fn a_destination_with_one_port_is_meant_by_its_host_alone() {
    let rules = vec![rule(Vec::new(), "stock.shop.svc.cluster.local")];
    let mesh = mesh([
        http("shop", "cart", 80),
        http("shop", "stock", 9000),
        routes(table("shop", "t", &[CART], rules)),
    ]);
    let outline = outline(&mesh, outbound("shop"));
    assert_eq!(
        routing(&hosts(&mesh, &outline, "80"))[0],
        format!("{CART}:80 → outbound|9000||stock.shop.svc.cluster.local")
    );
}

#[test]
fn a_redirect_to_the_requests_port_names_it() {
    let redirect = Redirect { port: Some(RedirectPort::Request), ..Redirect::default() };
    let rule = HttpRule { action: HttpAction::Redirect(redirect), ..rule(Vec::new(), CART) };
    let mesh =
        mesh([http("shop", "cart", 8080), routes(table("shop", "moved", &[CART], vec![rule]))]);
    let hosts = hosts(&mesh, &outline(&mesh, outbound("a")), "8080");
    let RouteActionPlan::Redirect(planned) = &hosts[0].routes[0].action else {
        panic!("a redirect")
    };
    assert_eq!(planned.port, Some(8080));
}

/// As [`RuleOrder::AsWritten`] never does at a sidecar: there the oldest table keeps a host.
#[test]
fn tables_by_specificity_share_a_host_in_the_mesh() {
    let tables = |order| {
        let by = |name: &str, prefix: &str| {
            let rules = vec![rule(vec![path(prefix)], CART)];
            routes(RouteTable { order, ..table("shop", name, &[CART], rules) })
        };
        let mesh = mesh([http("shop", "cart", 80), by("a", "/a"), by("b", "/a/b")]);
        let outline = outline(&mesh, outbound("shop"));
        let host = hosts(&mesh, &outline, "80").remove(0);
        host.routes.iter().map(|route| route.operation.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(tables(RuleOrder::AsWritten), [format!("{CART}:80/a*")]);
    let both = ["/a/b*", "/a*"].map(|path| format!("{CART}:80{path}"));
    assert_eq!(tables(RuleOrder::BySpecificity), both);
}

#[test]
fn retries_have_defaults_that_a_rule_replaces() {
    let retry = |retry: Retry| {
        let rules = vec![HttpRule { retry, ..rule(Vec::new(), CART) }];
        let mesh = mesh([http("shop", "cart", 80), routes(table("shop", "t", &[CART], rules))]);
        let outline = outline(&mesh, outbound("shop"));
        match hosts(&mesh, &outline, "80").remove(0).routes.remove(0).action {
            RouteActionPlan::Forward(forward) => forward.retry,
            other => panic!("the rule forwards, got {other:?}"),
        }
    };
    let default = retry(Retry::MeshDefault).expect("there is a default");
    assert_eq!((default.attempts, default.avoid_previous_hosts), (2, true));
    assert_eq!(retry(Retry::Off), None);
    let written = RetryPolicy {
        attempts: 3,
        conditions: Some(vec![RetryCondition::Reset]),
        statuses: vec![503],
        remote_localities: false,
        ignore_previous_hosts: None,
        backoff: None,
    };
    let written = retry(Retry::Policy(written)).expect("it is written");
    assert_eq!(
        (&written.conditions[..], &written.statuses[..]),
        (&[RetryCondition::Reset, RetryCondition::ListedStatus][..], &[503][..])
    );
}

#[test]
fn unknown_names_are_refused_where_the_mesh_says_so_or_nobody_knows_where_they_lead() {
    let scope = SidecarScope {
        origin: origin(Kind::SIDECAR, "shop", "default"),
        selector: Selector::default(),
        egress: Vec::new(),
        ingress: Vec::new(),
        outbound_traffic: Some(OutboundTraffic::RegistryOnly),
        inbound_pool: None,
    };
    let id = scope.origin.id.clone();
    let mesh = mesh([http("shop", "cart", 80), Item::Scope(Arc::new(scope))]);
    let last = |key: OutboundKey| {
        routing(&hosts(&mesh, &outline(&mesh, key), "80")).pop().expect("there is a last")
    };
    assert_eq!(last(outbound("shop")), "allow_any → PassthroughCluster");
    assert_eq!(last(OutboundKey { scope: Some(id), ..outbound("shop") }), "block_all → 502");
    let called =
        CaptureMode::None { outbound: "127.0.1.3".parse().ok(), inbound: None, application: None };
    assert_eq!(last(OutboundKey { capture: called, ..outbound("shop") }), "block_all → 502");
}

#[test]
fn a_scope_hides_what_it_does_not_name() {
    let host =
        ScopeHost { namespace: ScopeNamespace::Named("shop".into()), host: Hostname::new("*") };
    let scope = SidecarScope {
        origin: origin(Kind::SIDECAR, "shop", "default"),
        selector: Selector::default(),
        egress: vec![EgressListener {
            port: None,
            bind: None,
            capture: Default::default(),
            hosts: vec![host],
            hidden: Vec::new(),
        }],
        ingress: Vec::new(),
        outbound_traffic: None,
        inbound_pool: None,
    };
    let id = scope.origin.id.clone();
    let mesh =
        mesh([http("shop", "cart", 80), http("other", "stock", 80), Item::Scope(Arc::new(scope))]);
    let seen = names(
        outline(&mesh, OutboundKey { scope: Some(id), ..outbound("shop") })
            .of(ResourceType::Endpoint),
    );
    assert_eq!(seen, [format!("outbound|80||{CART}")]);
}

/// A Sidecar object with one egress listener for these hosts.
fn scope(namespace: &str, port: Option<u16>, hosts: Vec<ScopeHost>) -> SidecarScope {
    let port =
        port.map(|number| ListenerPort { number, name: "http".into(), protocol: Protocol::Http });
    SidecarScope {
        origin: origin(Kind::SIDECAR, namespace, "default"),
        selector: Selector::default(),
        egress: vec![EgressListener {
            port,
            bind: None,
            capture: Default::default(),
            hosts,
            hidden: Vec::new(),
        }],
        ingress: Vec::new(),
        outbound_traffic: None,
        inbound_pool: None,
    }
}

fn everything_in(namespace: ScopeNamespace) -> ScopeHost {
    ScopeHost { namespace, host: Hostname::new("*") }
}

#[test]
fn a_scope_sees_what_rules_for_connections_lead_to() {
    let to = |host: &str| WeightedDestination {
        destination: Destination {
            host: Hostname::new(host),
            port: DestinationPort::Number(3306),
            subset: "".into(),
            at: "".into(),
            of: None,
        },
        weight: 1,
        unreachable: Unreachable::Fail,
        headers: HeaderOps::default(),
    };
    let stock = "stock.other.svc.cluster.local";
    let rule = TcpRule { at: "".into(), matches: Vec::new(), destinations: vec![to(stock)] };
    let routed = RouteTable { tcp: vec![rule], ..table("shop", "db", &[CART], Vec::new()) };
    let own = scope("shop", None, vec![everything_in(ScopeNamespace::Named("shop".into()))]);
    let id = own.origin.id.clone();
    let database = |namespace: &str, name: &str, address: &str| {
        service_item(service(namespace, name, address, &[(3306, Protocol::Tcp)]))
    };
    let mesh = mesh([
        database("shop", "cart", "10.0.0.1"),
        database("other", "stock", "10.0.0.2"),
        Item::Scope(Arc::new(own)),
        routes(routed),
    ]);
    let outline = outline(&mesh, OutboundKey { scope: Some(id), ..outbound("shop") });
    let seen = names(outline.of(ResourceType::Cluster));
    assert!(seen.contains(&format!("outbound|3306||{stock}")), "{seen:?}");
}

#[test]
fn a_dot_in_a_scope_of_the_root_namespace_is_the_namespace_of_whoever_asks() {
    let named = everything_in(ScopeNamespace::Named("istio-system".into()));
    let scope = scope("istio-system", None, vec![everything_in(ScopeNamespace::Clients), named]);
    let id = scope.origin.id.clone();
    let services =
        [http("shop", "cart", 80), http("other", "stock", 80), http("istio-system", "edge", 80)];
    let mesh = mesh(services.into_iter().chain([Item::Scope(Arc::new(scope))]));
    let edge = "outbound|80||edge.istio-system.svc.cluster.local".to_owned();
    for (namespace, own) in [("shop", CART), ("other", "stock.other.svc.cluster.local")] {
        let outline =
            outline(&mesh, OutboundKey { scope: Some(id.clone()), ..outbound(namespace) });
        let mut expected = [format!("outbound|80||{own}"), edge.clone()];
        expected.sort();
        assert_eq!(names(outline.of(ResourceType::Endpoint)), expected, "a client of {namespace}");
    }
}

/// An ExternalName Service of `shop` that lists these ports, or none.
fn alias(name: &str, target: &str, ports: &[(u16, Protocol)]) -> Item {
    let mut alias = service("shop", name, "", ports);
    alias.resolution = Resolution::Alias(Hostname::new(target));
    service_item(alias)
}

#[test]
fn another_name_of_a_service_is_good_for_all_its_ports_whatever_it_lists() {
    let ports = [(8000, Protocol::Http), (9000, Protocol::Http), (3306, Protocol::Mysql)];
    for listed in [&[][..], &[(80, Protocol::Http)], &[(3306, Protocol::Tcp)]] {
        let cart = service_item(service("shop", "cart", "10.96.0.1", &ports));
        let chain = alias("nickname", "alias.shop.svc.cluster.local", &[]);
        let mesh = mesh([cart, alias("alias", CART, listed), chain]);
        let outline = outline(&mesh, outbound("shop"));
        for port in [8000, 9000] {
            let routing = routing(&hosts(&mesh, &outline, &port.to_string()));
            for name in ["alias", "nickname"] {
                let expected =
                    format!("{name}.shop.svc.cluster.local:{port} → outbound|{port}||{CART}");
                assert!(routing.contains(&expected), "{listed:?}: no {expected} in {routing:#?}");
            }
        }
        // Its bytes are told by the address that the name resolves to: a wildcard would take those
        // of everybody.
        let listeners = names(outline.of(ResourceType::Listener));
        assert_eq!(
            listeners,
            ["0.0.0.0_8000", "0.0.0.0_9000", "10.96.0.1_3306", "virtualOutbound"],
            "{listed:?}"
        );
        assert!(
            !names(outline.of(ResourceType::Cluster)).iter().any(|name| name.contains("alias")),
            "{listed:?}"
        );
    }
}

#[test]
fn a_scope_does_not_see_what_it_hides() {
    let cart = || service_item(service("shop", "cart", "10.96.0.1", &[(8000, Protocol::Http)]));
    let vault = || service_item(service("bank", "vault", "10.96.0.2", &[(8000, Protocol::Http)]));
    let of_bank = "vault.bank.svc.cluster.local";
    for (namespace, host, seen) in [
        (ScopeNamespace::Named("bank".into()), "*", vec![CART]),
        (ScopeNamespace::Any, of_bank, vec![CART]),
        (ScopeNamespace::Clients, "*", vec![of_bank]),
        (ScopeNamespace::Named("bank".into()), CART, vec![CART, of_bank]),
    ] {
        let mut scope = scope("shop", None, vec![everything_in(ScopeNamespace::Any)]);
        scope.egress[0].hidden = vec![ScopeHost { namespace, host: Hostname::new(host) }];
        let id = scope.origin.id.clone();
        let mesh = mesh([cart(), vault(), Item::Scope(Arc::new(scope))]);
        let outline = outline(&mesh, OutboundKey { scope: Some(id), ..outbound("shop") });
        let expected: Vec<String> =
            seen.iter().map(|host| format!("outbound|8000||{host}")).collect();
        assert_eq!(names(outline.of(ResourceType::Endpoint)), expected, "{host}");
    }
}

#[test]
fn a_scope_that_names_an_alias_sees_what_it_stands_for() {
    let host = ScopeHost {
        namespace: ScopeNamespace::Clients,
        host: Hostname::new("alias.shop.svc.cluster.local"),
    };
    for port in [None, Some(8000)] {
        let scope = scope("shop", port, vec![host.clone()]);
        let id = scope.origin.id.clone();
        let cart = service_item(service("shop", "cart", "10.96.0.1", &[(8000, Protocol::Http)]));
        let mesh = mesh([cart, alias("alias", CART, &[]), Item::Scope(Arc::new(scope))]);
        let outline = outline(&mesh, OutboundKey { scope: Some(id), ..outbound("shop") });
        assert_eq!(
            routing(&hosts(&mesh, &outline, "8000"))[0],
            format!("alias.shop.svc.cluster.local:8000 → outbound|8000||{CART}"),
            "{port:?}"
        );
        assert_eq!(
            names(outline.of(ResourceType::Endpoint)),
            [format!("outbound|8000||{CART}")],
            "{port:?}"
        );
    }
}

#[test]
fn an_alias_leads_to_the_clusters_of_its_target() {
    let mut alias = service("shop", "alias", "", &[(80, Protocol::Http)]);
    alias.resolution = Resolution::Alias(Hostname::new(CART));
    let mut outside = service("shop", "outside", "", &[(80, Protocol::Http)]);
    outside.resolution = Resolution::Alias(Hostname::new("outside.example"));
    let mesh = mesh([http("shop", "cart", 80), service_item(alias), service_item(outside)]);
    let outline = outline(&mesh, outbound("shop"));
    assert_eq!(
        routing(&hosts(&mesh, &outline, "80"))[0],
        format!("alias.shop.svc.cluster.local:80 → outbound|80||{CART}")
    );
    assert!(!names(outline.of(ResourceType::Cluster)).iter().any(|name| name.contains("alias")));
    let by_name = cluster(&mesh, &outline, "outbound|80||outside.shop.svc.cluster.local").discovery;
    assert!(matches!(by_name, Discovery::Dns { logical: false, .. }), "{by_name:?}");
}

// -------------------------------------------------------------------------------------------------
// clusters

#[test]
fn the_upstream_protocol_follows_port_and_policy() {
    let upgrade =
        ConnectionPool { h2_upgrade: Some(true), http_block: true, ..ConnectionPool::default() };
    let cases = [
        (Protocol::Http, None, UpstreamProtocol::Http1, &["istio-http/1.1", "istio"][..]),
        (Protocol::Grpc, None, UpstreamProtocol::Http2, &["istio-h2", "istio", "h2"]),
        (Protocol::Auto, None, UpstreamProtocol::Downstream, &["istio"]),
        (Protocol::Tcp, None, UpstreamProtocol::Http1, &["istio"]),
        (Protocol::Http, Some(upgrade), UpstreamProtocol::Http2, &["istio-h2", "istio", "h2"]),
    ];
    for (protocol, pool, expected, alpn) in cases {
        let traffic = TrafficPolicy { connection_pool: pool, ..TrafficPolicy::default() };
        let rule = BackendPolicy { traffic, ..policy("shop", "rule", CART) };
        let cart = service_item(service("shop", "cart", "10.96.0.1", &[(80, protocol)]));
        let mesh = mesh([cart, Item::Backend(Arc::new(rule))]);
        let plan =
            cluster(&mesh, &outline(&mesh, outbound("shop")), &format!("outbound|80||{CART}"));
        let UpstreamTransport::PerEndpoint(tls) = &plan.transport else {
            panic!("automatic, got {:?}", plan.transport)
        };
        assert_eq!(
            (plan.http.protocol, &tls.alpn[..]),
            (expected, &mtls::texts(alpn)[..]),
            "{protocol:?}"
        );
        assert_eq!(plan.mesh_alpn.is_some(), protocol != Protocol::Tcp, "{protocol:?}");
    }
}

#[test]
fn a_service_outside_the_mesh_is_called_without_its_certificates() {
    let mut outside = service("shop", "cart", "", &[(443, Protocol::Tls)]);
    outside.external = true;
    let mesh = mesh([service_item(outside)]);
    let plan = cluster(&mesh, &outline(&mesh, outbound("shop")), &format!("outbound|443||{CART}"));
    assert_eq!((plan.transport, plan.mesh_alpn), (UpstreamTransport::Plain, None));
}

#[test]
fn subsets_are_clusters_and_an_unknown_one_is_none() {
    let subset = Subset {
        at: "".into(),
        name: "v1".into(),
        labels: labels(&[("version", "v1")]),
        traffic: TrafficPolicy::default(),
    };
    let outlier = OutlierDetection { min_health_percent: Some(40), ..OutlierDetection::default() };
    let traffic = TrafficPolicy { outlier: Some(outlier), ..TrafficPolicy::default() };
    let rule = BackendPolicy { traffic, subsets: vec![subset], ..policy("shop", "rule", CART) };
    let mesh = mesh([http("shop", "cart", 80), Item::Backend(Arc::new(rule))]);
    let outline = outline(&mesh, outbound("shop"));
    let v1 = cluster(&mesh, &outline, &format!("outbound|80|v1|{CART}"));
    assert_eq!((v1.panic_percent, v1.provenance.subset.as_deref()), (40, Some("v1")));
    let key = outline.of(ResourceType::Cluster).iter().find_map(|entry| match entry {
        Entry::Shared(key) => match &**key {
            ItemKey::Cluster(key) => Some(ClusterKey { subset: "v9".into(), ..key.clone() }),
            _ => None,
        },
        Entry::Own(_) => None,
    });
    let key = key.expect("there are clusters");
    assert_eq!(plan_item(&Reader::new(&mesh), &ItemKey::Cluster(key.clone())), None);
    assert_eq!(plan_item(&Reader::new(&mesh), &ItemKey::Assignment(key)), None);
}

#[test]
fn headless_services_are_reached_where_the_client_was_going_only_if_it_can_know() {
    let mut peers = service("shop", "peers", "", &[(80, Protocol::Http)]);
    peers.resolution = Resolution::OriginalDst;
    peers.headless = true;
    let mesh = mesh([service_item(peers)]);
    let redirected = outline(&mesh, outbound("shop"));
    let called = CaptureMode::None { outbound: None, inbound: None, application: None };
    let addressed = outline(&mesh, OutboundKey { capture: called, ..outbound("shop") });
    let name = "outbound|80||peers.shop.svc.cluster.local";
    assert!(matches!(cluster(&mesh, &redirected, name).discovery, Discovery::OriginalDst { .. }));
    assert_eq!(cluster(&mesh, &addressed, name).discovery, Discovery::Eds);
    assert_eq!(
        (
            names(redirected.of(ResourceType::Endpoint)).len(),
            names(addressed.of(ResourceType::Endpoint))
        ),
        (0, vec![name.to_owned()])
    );
}

// -------------------------------------------------------------------------------------------------
// inbound

fn inbound(ports: Vec<(ServiceKey, u16, u16)>) -> InboundKey {
    InboundKey {
        namespace: "shop".into(),
        labels: labels(&[("app", "cart")]),
        service_account: "cart".into(),
        ports,
        scope: None,
        capture: CaptureMode::Redirect,
        address: None,
        features: Features::default(),
        telemetry: TelemetryKey::default(),
        patches: PatchesKey::default(),
    }
}

#[test]
fn the_first_service_of_a_port_gives_the_limits_of_its_inbound_cluster() {
    let pool = ConnectionPool { max_connections: Some(5), ..ConnectionPool::default() };
    let outlier = Some(OutlierDetection::default());
    let traffic =
        TrafficPolicy { connection_pool: Some(pool), outlier, ..TrafficPolicy::default() };
    let rule = BackendPolicy { traffic, ..policy("shop", "rule", CART) };
    let mesh = mesh([
        http("shop", "cart", 80),
        http("shop", "cart-v1", 80),
        Item::Backend(Arc::new(rule)),
    ]);
    let keys = [service_key("shop", "cart"), service_key("shop", "cart-v1")];
    let key = inbound(keys.into_iter().map(|key| (key, 80, 8080)).collect());
    let outline = plan_outline(&Reader::new(&mesh), &ViewKey::Inbound(key));
    let plan = cluster(&mesh, &outline, "inbound|8080||");
    let served: Vec<&str> = plan.provenance.services.iter().map(|(_, name, _)| &**name).collect();
    assert_eq!(served, ["cart", "cart-v1"]);
    assert_eq!((plan.limits.max_connections, plan.outlier), (Some(5), None));
    assert_eq!(plan.discovery, Discovery::OriginalDst { port_override: None });
}

/// What the chains of `virtualInbound` take on a port, or on every port that none of them names.
fn taken(mesh: &MeshSnapshot, key: &InboundKey, port: Option<u16>) -> Option<PeerTls> {
    let outline = plan_outline(&Reader::new(mesh), &ViewKey::Inbound(key.clone()));
    let listener = outline.of(ResourceType::Listener).iter().find_map(|entry| match entry {
        Entry::Own(item) => match &**item {
            PlanItem::Listener(listener) if &*listener.name == "virtualInbound" => {
                Some(listener.clone())
            }
            _ => None,
        },
        Entry::Shared(_) => None,
    })?;
    let chains: Vec<_> =
        listener.chains.iter().filter(|chain| chain.matches.port == port).collect();
    let (secure, open) =
        (chains.iter().any(|c| c.tls.is_some()), chains.iter().any(|c| c.tls.is_none()));
    match (secure, open) {
        (true, true) => Some(PeerTls::Permissive),
        (true, false) => Some(PeerTls::Strict),
        (false, true) => Some(PeerTls::Disable),
        (false, false) => None,
    }
}

#[test]
fn a_mode_of_a_port_holds_whether_a_service_names_the_port_or_not() {
    use PeerTls::{Disable, Permissive, Strict};
    let modes = [None, Some(Disable), Some(Permissive), Some(Strict)];
    for (of_all, of_port) in
        modes.iter().flat_map(|of_all| modes.iter().map(move |of_port| (*of_all, *of_port)))
    {
        let policy = PeerTlsPolicy {
            origin: origin(Kind::PEER_AUTHENTICATION, "shop", "cart"),
            selector: labels(&[("app", "cart")]).into(),
            mode: of_all,
            ports: [(8080, of_port), (9090, of_port), (15006, of_port)].into(),
        };
        let mesh = mesh([http("shop", "cart", 80), Item::PeerTls(Arc::new(policy))]);
        let key = inbound(vec![(service_key("shop", "cart"), 80, 8080)]);
        let of_all = of_all.unwrap_or(Permissive);
        let expected = of_port.unwrap_or(of_all);
        assert_eq!(taken(&mesh, &key, None), Some(of_all), "{of_all:?} {of_port:?}");
        // Nothing but the refusal of its own port, as always.
        assert_eq!(taken(&mesh, &key, Some(15006)), Some(Disable), "{of_all:?} {of_port:?}");
        for port in [8080, 9090] {
            let taken = taken(&mesh, &key, Some(port)).unwrap_or(of_all);
            assert_eq!(taken, expected, "port {port}: {of_all:?} {of_port:?}");
        }
    }
}

fn requests(limit: &LimitPlan) -> u32 {
    match &limit.quota {
        QuotaPlan::Own(own) => own.rate.requests,
        QuotaPlan::Shared { .. } | QuotaPlan::Exhausted => 0,
    }
}

/// The limits of requests at ports of a workload; `None`: at ports of which nothing is known.
fn limited(mesh: &MeshSnapshot, key: &InboundKey, port: Option<u16>) -> Vec<u32> {
    let outline = plan_outline(&Reader::new(mesh), &ViewKey::Inbound(key.clone()));
    let Some(Entry::Own(item)) = outline.of(ResourceType::Listener).first() else {
        panic!("one listener of its own")
    };
    let PlanItem::Listener(listener) = &**item else { panic!("a listener") };
    let chains = listener.chains.iter().filter(|chain| chain.matches.port == port);
    let connections = chains.filter_map(|chain| match &chain.terminal {
        TerminalFilter::Http(http) => Some(http),
        TerminalFilter::Tcp(_) => None,
    });
    let limits = connections.map(|http| http.rate_limits.iter().map(requests).collect());
    let limits: BTreeSet<Vec<u32>> = limits.collect();
    // Every chain of a port has the same.
    assert!(limits.len() < 2, "{limits:?}");
    limits.into_iter().next().unwrap_or_default()
}

#[test]
fn requests_are_limited_at_the_port_that_is_meant() {
    let limit = |name: &str, target, requests| {
        Item::RateLimit(Arc::new(RateLimit {
            origin: origin(Kind::SERVICE, "shop", name),
            scope: PolicyScope::Namespace("shop".into()),
            selector: labels(&[("app", "cart")]).into(),
            gateway: None,
            target,
            ports: None,
            quota: Quota::Own(OwnQuota::of(Rate {
                requests,
                window: std::time::Duration::from_secs(1),
            })),
            refusal: LimitRefusal::default(),
        }))
    };
    let at = |limits: Vec<Item>, port| {
        let mesh = mesh([http("shop", "cart", 8080)].into_iter().chain(limits));
        limited(&mesh, &inbound(vec![(service_key("shop", "cart"), 8080, 8080)]), port)
    };
    let of_port = |port| vec![limit("a", PolicyTarget::port(port), 5)];
    assert_eq!(at(of_port(8080), Some(8080)), [5]);
    assert!(at(of_port(8080), None).is_empty());
    // A port to which no service leads is taken out of the unknown ones.
    assert_eq!(at(of_port(9000), Some(9000)), [5]);
    assert!(at(of_port(9000), Some(8080)).is_empty() && at(of_port(9000), None).is_empty());
    let both = || vec![limit("a", PolicyTarget::All, 7), limit("b", PolicyTarget::port(8080), 5)];
    assert_eq!(at(both(), Some(8080)), [7, 5]);
    assert_eq!(at(both(), None), [7]);
}

#[test]
fn called_by_address_a_workload_listens_itself_and_forwards_to_its_application() {
    let mesh = mesh([http("shop", "cart", 80)]);
    let capture = CaptureMode::None {
        outbound: None,
        inbound: "127.0.1.2".parse().ok(),
        application: "127.0.1.1".parse().ok(),
    };
    let key = InboundKey { capture, ..inbound(vec![(service_key("shop", "cart"), 80, 8080)]) };
    let outline = plan_outline(&Reader::new(&mesh), &ViewKey::Inbound(key));
    assert_eq!(names(outline.of(ResourceType::Listener)), ["127.0.1.2_8080"]);
    assert_eq!(names(outline.of(ResourceType::Cluster)), ["inbound|8080||"]);
    let Discovery::Static(localities) = cluster(&mesh, &outline, "inbound|8080||").discovery else {
        panic!("the application is at a fixed address")
    };
    let application = PlannedAddress::Ip("127.0.1.1".parse().expect("an address"), 8080);
    assert_eq!(localities[0].endpoints[0].address, application);
}

// -------------------------------------------------------------------------------------------------
// gateways

fn gateway_outline(mesh: &MeshSnapshot) -> Outline {
    let key = GatewayKey {
        namespace: "edge".into(),
        gateways: vec![origin(Kind::GATEWAY, "edge", "edge").id],
        labels: Labels::new(),
        client_labels: Labels::new(),
        ports: vec![(80, 8080)],
        locality: None,
        knows_peers: false,
        bind: None,
        service_account: "edge".into(),
        edge: None,
        features: Features::default(),
        telemetry: TelemetryKey::default(),
        patches: PatchesKey::default(),
    };
    plan_outline(&Reader::new(mesh), &ViewKey::Gateway(key))
}

fn gateway(servers: Vec<GatewayServer>) -> Item {
    let origin = origin(Kind::GATEWAY, "edge", "edge");
    Item::Gateway(Arc::new(GatewayConfig { origin, selector: Selector::default(), servers }))
}

fn server(namespace: Option<&str>, host: &str) -> GatewayServer {
    GatewayServer {
        at: "".into(),
        port: 80,
        port_name: "http".into(),
        protocol: GatewayProtocol::Http,
        bind: None,
        hosts: vec![GatewayHost { namespace: namespace.map(Arc::from), host: Hostname::new(host) }],
        https_redirect: false,
        tls: None,
    }
}

fn at_edge(table: RouteTable) -> Item {
    let attachments = vec![Attachment::Gateway(origin(Kind::GATEWAY, "edge", "edge").id)];
    routes(RouteTable { attachments, ..table })
}

#[test]
fn a_gateway_without_routes_answers_404() {
    let mesh = mesh([gateway(vec![server(None, "*")])]);
    let outline = gateway_outline(&mesh);
    assert_eq!(names(outline.of(ResourceType::Listener)), ["0.0.0.0_8080"]);
    assert_eq!(routing(&hosts(&mesh, &outline, "http.8080")), ["blackhole:80 → "]);
}

#[test]
fn a_server_takes_routes_of_its_namespaces_only_and_for_the_narrower_host() {
    let to_cart = || vec![rule(Vec::new(), CART)];
    let mesh = mesh([
        http("shop", "cart", 8000),
        gateway(vec![server(Some("shop"), "*.example"), server(None, "open.test")]),
        at_edge(table("shop", "a", &["cart.example", "*"], to_cart())),
        at_edge(table("evil", "b", &["cart.example"], to_cart())),
    ]);
    let outline = gateway_outline(&mesh);
    let cluster = format!("outbound|8000||{CART}");
    assert_eq!(
        routing(&hosts(&mesh, &outline, "http.8080")),
        [
            format!("*.example:80 → {cluster}"),
            format!("cart.example:80 → {cluster}"),
            format!("open.test:80 → {cluster}"),
        ]
    );
}

#[test]
fn a_table_of_a_section_is_for_the_servers_of_that_name() {
    let named =
        |name: &str, host: &str| GatewayServer { port_name: name.into(), ..server(None, host) };
    let id = origin(Kind::GATEWAY, "edge", "edge").id;
    let of_section = |name: &str, table: RouteTable| {
        let attachments = vec![Attachment::Section(id.clone(), name.into())];
        routes(RouteTable { attachments, ..table })
    };
    let to_cart = || vec![rule(Vec::new(), CART)];
    let mesh = mesh([
        http("shop", "cart", 8000),
        gateway(vec![named("a", "*.a.example"), named("b", "*.b.example")]),
        of_section("a", table("shop", "one", &["x.a.example", "x.b.example"], to_cart())),
        at_edge(table("shop", "all", &["y.a.example", "y.b.example"], to_cart())),
    ]);
    let outline = gateway_outline(&mesh);
    let served: Vec<String> =
        hosts(&mesh, &outline, "http.8080").iter().map(|host| host.name.to_string()).collect();
    assert_eq!(served, ["x.a.example:80", "y.a.example:80", "y.b.example:80"]);
}

#[test]
fn tables_that_share_a_host_are_merged_with_what_matches_everything_last() {
    let mesh = mesh([
        http("shop", "cart", 80),
        http("shop", "new", 80),
        gateway(vec![server(None, "*")]),
        at_edge(table("shop", "a", &["x.example"], vec![rule(Vec::new(), CART)])),
        at_edge(table("shop", "b", &["x.example"], vec![rule(vec![path("/new")], NEW)])),
    ]);
    let outline = gateway_outline(&mesh);
    assert_eq!(
        routing(&hosts(&mesh, &outline, "http.8080")),
        [format!("x.example:80 → outbound|80||{NEW}, outbound|80||{CART}")]
    );
}

#[test]
fn a_redirecting_server_demands_tls_for_its_hosts() {
    let redirect = GatewayServer { https_redirect: true, ..server(None, "x.example") };
    let mesh = mesh([gateway(vec![redirect])]);
    let host = hosts(&mesh, &gateway_outline(&mesh), "http.8080").remove(0);
    assert_eq!((&*host.name, host.require_tls, host.routes.len()), ("x.example:80", true, 0));
}

fn secure(port_name: &str, host: &str, mode: ServerTlsMode) -> GatewayServer {
    GatewayServer {
        port: 443,
        port_name: port_name.into(),
        protocol: GatewayProtocol::Https,
        tls: Some(ServerTls {
            mode,
            credentials: vec![host.trim_start_matches("*.").into()],
            ca_credential: None,
            files: Vec::new(),
            ca_file: "".into(),
            crl_file: "".into(),
            subject_alt_names: Vec::new(),
            pins: Pins::default(),
            min_version: None,
            max_version: None,
            words: TlsWords::default(),
            credential_fields: vec!["".into()],
            ca_credential_field: "".into(),
        }),
        ..server(None, host)
    }
}

#[test]
fn retries_towards_the_application_are_those_of_the_mesh() {
    let policy = |attempts| {
        Retry::Policy(RetryPolicy {
            attempts,
            conditions: Some(vec![RetryCondition::ConnectFailure]),
            statuses: vec![503],
            remote_localities: false,
            ignore_previous_hosts: None,
            backoff: None,
        })
    };
    let before = vec![RetryCondition::ResetBeforeRequest];
    let listed = vec![RetryCondition::ConnectFailure, RetryCondition::ListedStatus];
    for (inbound_retry, expected) in [
        (Retry::MeshDefault, Some((2, before))),
        (Retry::Off, None),
        (policy(7), Some((7, listed))),
    ] {
        let mesh = MeshDefaults { inbound_retry, ..MeshDefaults::default() };
        let planned = super::inbound::inbound_retry(&mesh);
        assert_eq!(planned.map(|retry| (retry.attempts, retry.conditions)), expected);
    }
}

/// SNI names with the domains that are served behind them, each with its status or cluster.
fn behind(mesh: &MeshSnapshot, outline: &Outline) -> Vec<String> {
    let [Entry::Own(item)] = outline.of(ResourceType::Listener) else { panic!("one listener") };
    let PlanItem::Listener(listener) = &**item else { panic!("a listener") };
    let chains = listener.chains.iter().map(|chain| {
        let TerminalFilter::Http(http) = &chain.terminal else { panic!("a chain for HTTP") };
        let RouteSource::Rds(name) = &http.routes else { panic!("routes of their own") };
        let asks = chain.tls.as_ref().is_some_and(|tls| tls.require_client);
        let hosts = routing(&hosts(mesh, outline, name)).join("; ");
        format!("{} {asks}: {hosts}", chain.matches.server_names.join(","))
    });
    chains.collect()
}

#[test]
fn servers_never_share_routes_whatever_their_ports_are_called() {
    let to_cart = || vec![rule(Vec::new(), CART)];
    let mesh = mesh([
        http("shop", "cart", 80),
        gateway(vec![
            secure("", "public.test", ServerTlsMode::Simple),
            secure("", "secret.test", ServerTlsMode::Mutual),
            secure("a", "more.test", ServerTlsMode::Mutual),
        ]),
        at_edge(table("shop", "a", &["public.test", "secret.test", "more.test"], to_cart())),
    ]);
    // What cannot be told apart is not served.
    let cluster = format!("outbound|80||{CART}");
    assert_eq!(
        behind(&mesh, &gateway_outline(&mesh)),
        [
            format!("public.test false: public.test:443 → {cluster}"),
            format!("more.test true: more.test:443 → {cluster}"),
        ]
    );
}

#[test]
fn a_host_is_served_by_the_server_that_names_it_most_closely() {
    use ServerTlsMode::{Mutual, Simple};
    let to_cart = || vec![rule(Vec::new(), CART)];
    let mesh = mesh([
        http("shop", "cart", 80),
        gateway(vec![secure("a", "*.test", Simple), secure("b", "secret.test", Mutual)]),
        at_edge(table("shop", "a", &["*.test", "public.test", "secret.test"], to_cart())),
    ]);
    let cluster = format!("outbound|80||{CART}");
    assert_eq!(
        behind(&mesh, &gateway_outline(&mesh)),
        [
            format!(
                "*.test false: *.test:443 → {cluster}; public.test:443 → {cluster}; secret.test:443 → 421"
            ),
            format!("secret.test true: secret.test:443 → {cluster}"),
        ]
    );
}

#[test]
fn a_server_of_every_host_keeps_the_names_that_it_gives() {
    use ServerTlsMode::{Mutual, Simple};
    let any = GatewayHost { namespace: None, host: Hostname::new("*") };
    let mut first = secure("a", "a.b.test", Simple);
    first.hosts.push(any);
    let mesh = mesh([gateway(vec![first, secure("b", "*.b.test", Mutual)])]);
    let served = behind(&mesh, &gateway_outline(&mesh));
    assert_eq!(
        served,
        [
            "a.b.test false: *.b.test:443 → 421",
            " false: *.b.test:443 → 421",
            "*.b.test true: a.b.test:443 → 421",
        ]
    );
}
