//! Samples of plan items, checks by JSON form, and what holds for every item.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferromesh_proto::ResourceType;
use prost::{Message, Name};
use serde_json::Value;

use super::*;
use crate::{
    ir::{
        Abort, AccessAction, Authorizer, AuthorizerProtocol, Cors, Edge, Fault, HashKey, Health,
        Hostname, HttpMatch, KeySet, Locality, LogFormat, PathMatch, PathNormalization, PerMillion,
        Pins, PortNames, ProxyHeaders, RetryBudget, RetryCondition, ShownBody, StringMatch,
        TcpKeepalive, TlsVersion, TlsWords, TokenCheck, Tunnel, Warmup,
    },
    plan::*,
};

/// Checks a message by its JSON form.
pub(crate) fn check_part<T: Message + Name>(message: &T, expected: &str) {
    let json = crate::debug::message_to_json(&T::full_name(), &message.encode_to_vec()).unwrap();
    let expected: Value = serde_json::from_str(expected).unwrap();
    assert_eq!(json, expected, "{json:#}\nis not\n{expected:#}");
}

/// The JSON form of a whole resource; a virtual host comes inside a route configuration.
pub(crate) fn json(item: &PlanItem) -> Value {
    let body = emit(item);
    let kind = match item {
        PlanItem::Cluster(_) => ResourceType::Cluster,
        PlanItem::Assignment(_) => ResourceType::Endpoint,
        PlanItem::Listener(_) | PlanItem::Given(_) => item.resource_type(),
        PlanItem::VirtualHost(_) => {
            let frame = RouteFrame {
                name: "80".into(),
                ignore_port_in_host: true,
                virtual_hosts: Vec::new(),
            };
            let body = splice_route(&frame, &[body]);
            return crate::debug::to_json(ResourceType::Route, &body).unwrap();
        }
    };
    crate::debug::to_json(kind, &body).unwrap()
}

/// Checks what stands at JSON pointers of an item; `null` means nothing stands there.
pub(crate) fn check(item: &PlanItem, expected: &[(&str, &str)]) {
    let json = json(item);
    for (pointer, expected) in expected {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let found = json.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(*found, expected, "at {pointer}: {found:#}\nis not {expected:#}\nin {json:#}");
    }
}

/// A cluster with nothing special.
pub(crate) fn cluster(name: &str) -> ClusterPlan {
    ClusterPlan {
        name: name.into(),
        discovery: Discovery::Eds,
        connect_timeout: Duration::from_secs(10),
        balancing: BalancingPlan::LeastRequest(None),
        limits: Limits::default(),
        outlier: None,
        panic_percent: 0,
        http: UpstreamHttp::default(),
        transport: UpstreamTransport::Plain,
        mesh_alpn: None,
        bind_source: None,
        tcp_keepalive: None,
        over_localities: crate::plan::OverLocalities::Unsaid,
        provenance: Provenance::default(),
        original_dst_keep: false,
        proxy_protocol: None,
        alt_stat_name: None,
    }
}

/// The mesh's TLS towards `reviews`.
pub(crate) fn mesh_tls() -> UpstreamTls {
    UpstreamTls {
        certificate: Some(SecretRef::Workload),
        trust: Some(TrustRef::Mesh),
        sans: vec![SanMatch::Exact("spiffe://cluster.local/ns/default/sa/reviews".into())],
        sni: "outbound_.9080_._.reviews.default.svc.cluster.local".into(),
        alpn: vec!["istio".into()],
        auto_sni: false,
        words: TlsWords::default(),
    }
}

/// A cluster that uses every option that an EDS cluster has.
pub(crate) fn full_cluster() -> ClusterPlan {
    ClusterPlan {
        balancing: BalancingPlan::RoundRobin(Some(Warmup {
            window: Duration::from_secs(60),
            minimum_percent: 10,
            aggression_milli: 1500,
        })),
        limits: Limits {
            max_connections: Some(100),
            retry_budget: Some(RetryBudget {
                percent: 20,
                minimum: 3,
                window: Some(Duration::from_secs(10)),
            }),
            ..Default::default()
        },
        outlier: Some(OutlierPlan {
            consecutive_5xx: Some(5),
            consecutive_gateway: Some(0),
            interval: Some(Duration::from_secs(10)),
            ..Default::default()
        }),
        panic_percent: 40,
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Downstream,
            max_requests_per_connection: Some(2),
            h2_keepalive: Some((Duration::from_secs(30), Duration::from_secs(5))),
            error_statuses: vec![401, 503],
            ..Default::default()
        },
        transport: UpstreamTransport::PerEndpoint(mesh_tls()),
        mesh_alpn: Some(MeshAlpn {
            h1: "istio-http/1.1,istio,http/1.1".into(),
            h2: "istio-h2,istio,h2".into(),
        }),
        tcp_keepalive: Some(TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(7)),
            interval: None,
        }),
        over_localities: crate::plan::OverLocalities::Weighted,
        provenance: Provenance {
            config: Some(
                "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews".into(),
            ),
            services: vec![(
                "reviews.default.svc.cluster.local".into(),
                "reviews".into(),
                "default".into(),
            )],
            subset: Some("v1".into()),
            external: true,
        },
        proxy_protocol: Some(1),
        ..cluster("outbound|9080|v1|reviews.default.svc.cluster.local")
    }
}

/// An assignment with two localities and every kind of endpoint.
pub(crate) fn assignment() -> AssignmentPlan {
    let endpoint = |address, mesh_tls, health| EndpointPlan {
        address,
        health,
        weight: 2,
        mesh_tls,
        workload: Some("reviews-v1-0;default;reviews;v1;Kubernetes".into()),
    };
    let ip = |last| PlannedAddress::Ip([10, 0, 0, last].into(), 9080);
    let near = LocalityEndpoints {
        locality: Locality { region: "r".into(), zone: "z".into(), sub_zone: "".into() },
        priority: 0,
        weight: Some(4),
        endpoints: vec![
            endpoint(ip(1), true, Health::Healthy),
            endpoint(ip(2), false, Health::Unhealthy),
        ],
    };
    let far = LocalityEndpoints {
        locality: Locality::default(),
        priority: 1,
        weight: None,
        endpoints: vec![
            endpoint(PlannedAddress::Host("example.com".into(), 443), false, Health::Healthy),
            endpoint(PlannedAddress::Pipe("/run/app.sock".into()), false, Health::Healthy),
        ],
    };
    AssignmentPlan {
        cluster: "outbound|9080||reviews.default.svc.cluster.local".into(),
        localities: vec![near, far],
    }
}

fn weighted(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster { name: name.into(), weight, headers: Default::default(), host_rewrite: None }
}

/// Forwarding to one cluster.
pub(crate) fn forward(cluster: &str) -> ForwardPlan {
    ForwardPlan {
        clusters: vec![weighted(cluster, 1)],
        path: None,
        host_rewrite: None,
        timeout: RouteTimeout::None,
        idle_timeout: None,
        retry: None,
        mirrors: Vec::new(),
        hash: Vec::new(),
        missing_cluster_500: false,
    }
}

/// A route that matches everything.
pub(crate) fn route(action: RouteActionPlan) -> RoutePlan {
    RoutePlan {
        name: "default".into(),
        matches: None,
        action,
        headers: Default::default(),
        fault: None,
        cors: None,
        config: None,
        operation: "".into(),
    }
}

/// A route that uses every option of forwarding.
pub(crate) fn full_route() -> RoutePlan {
    let mut headers = crate::ir::HeaderOps::default();
    headers.request.set = [("x-a".into(), "1".into())].into();
    headers.request.add = [("x-b".into(), "2".into())].into();
    headers.request.remove = vec!["x-c".into()];
    headers.response.remove = vec!["server".into()];
    let forward = ForwardPlan {
        clusters: vec![
            weighted("outbound|80|v1|a", 90),
            WeightedCluster {
                host_rewrite: Some("v2.com".into()),
                ..weighted("outbound|80|v2|a", 10)
            },
        ],
        host_rewrite: Some("other.com".into()),
        path: Some(PathChange::Regex {
            pattern: "^/a/(.*)$".into(),
            substitution: r"/b/\1".into(),
        }),
        timeout: RouteTimeout::After(Duration::from_millis(1500)),
        idle_timeout: Some(Duration::from_secs(30)),
        retry: Some(RetryPlan {
            attempts: 3,
            conditions: vec![RetryCondition::ServerError, RetryCondition::ListedStatus],
            statuses: vec![503],
            per_try_timeout: Some(Duration::from_secs(2)),
            avoid_previous_hosts: true,
            remote_localities: true,
            backoff: Some(Duration::from_millis(25)),
        }),
        mirrors: vec![("outbound|80|v2|a".into(), PerMillion(500_000))],
        hash: vec![
            HashKey::Header("x-user".into()),
            HashKey::Cookie {
                name: "c".into(),
                path: "/".into(),
                ttl: Some(Duration::ZERO),
                attributes: vec![("SameSite".into(), "Lax".into())],
            },
            HashKey::SourceIp,
            HashKey::QueryParameter("q".into()),
        ],
        missing_cluster_500: true,
    };
    RoutePlan {
        matches: Some(HttpMatch {
            path: Some(PathMatch::Prefix("/a".into())),
            ..Default::default()
        }),
        headers,
        fault: Some(Fault {
            delay: Some((Duration::from_secs(5), PerMillion(500_000))),
            abort: Some((Abort::Http(503), PerMillion(100_000))),
        }),
        cors: Some(Cors {
            origins: vec![StringMatch::Exact("https://a.com".into())],
            methods: vec!["GET".into(), "PUT".into()],
            max_age: Some(Duration::from_secs(86400)),
            credentials: Some(true),
            forward_unmatched_preflights: true,
            ..Default::default()
        }),
        config: Some("/apis/networking.istio.io/v1/namespaces/default/virtual-service/a".into()),
        operation: "a:80/*".into(),
        ..route(RouteActionPlan::Forward(Box::new(forward)))
    }
}

/// A virtual host with these routes.
pub(crate) fn virtual_host(routes: Vec<RoutePlan>) -> VirtualHostPlan {
    VirtualHostPlan {
        name: "a.default.svc.cluster.local:80".into(),
        domains: vec!["a.default.svc.cluster.local".into(), "a".into()],
        routes,
        require_tls: false,
        attempt_count: true,
    }
}

/// Policies of one action with several names, and one dry run.
pub(crate) fn access() -> AccessFilter {
    let policy = |i: u8| AccessPolicyPlan {
        permissions: vec![Permission::And(vec![
            Permission::Or(vec![Permission::Header(
                ":method".into(),
                StringMatch::Exact("GET".into()),
                false,
            )]),
            Permission::Path(StringMatch::Prefix("/a/".into())),
            Permission::Not(Box::new(Permission::Port(u16::from(i)))),
        ])],
        principals: vec![Principal::And(vec![
            Principal::Authenticated(StringMatch::Regex(".*/ns/default/.*".into())),
            Principal::DirectIp("10.0.0.0/8".parse().unwrap()),
        ])],
    };
    let named = |i: u8| (Arc::from(format!("ns[default]-policy[p]-rule[{i}]")), policy(i));
    AccessFilter {
        action: AccessAction::Allow,
        policies: Some((0..9).map(named).collect::<BTreeMap<_, _>>()),
        shadow: Some([named(9)].into()),
    }
}

/// A policy on connections.
pub(crate) fn connection_access() -> AccessFilter {
    let refuse = AccessPolicyPlan {
        permissions: vec![
            Permission::Sni(StringMatch::Suffix(".com".into())),
            Permission::Or(Vec::new()),
        ],
        principals: vec![Principal::RemoteIp("::1/128".parse().unwrap()), Principal::Any],
    };
    AccessFilter {
        action: AccessAction::Deny,
        policies: None,
        shadow: Some([("p".into(), refuse)].into()),
    }
}

/// Server-side mesh TLS.
pub(crate) fn server_tls() -> DownstreamTls {
    DownstreamTls {
        certificates: vec![SecretRef::Workload],
        trust: Some(TrustRef::Mesh),
        require_client: true,
        sans: vec![SanMatch::Prefix("spiffe://cluster.local/".into())],
        alpn: vec!["h2".into(), "http/1.1".into()],
        min_version: Some(TlsVersion::V1_2),
        max_version: Some(TlsVersion::V1_3),
        pins: Pins::default(),
        words: TlsWords {
            suites: vec!["ECDHE-ECDSA-AES256-GCM-SHA384".into()],
            curves: Vec::new(),
        },
    }
}

/// An HTTP connection manager with routes over ADS.
pub(crate) fn http(role: HttpRole) -> HttpConnection {
    HttpConnection {
        stat_prefix: "outbound_0.0.0.0_80;".into(),
        routes: RouteSource::Rds("80".into()),
        role,
        edge: Edge::default(),
        headers: ProxyHeaders::default(),
        ask: None,
        tokens: None,
        access: Vec::new(),
        alpn_override: false,
        normalization: PathNormalization::Base,
        access_logs: Vec::new(),
        metrics: None,
        tracing: Some(TracingPlan::marking(PerMillion(10_000), true)),
        rate_limits: Vec::new(),
        http_proxy: false,
        resolves_names: false,
    }
}

/// Tokens of an issuer.
pub(crate) fn token(issuer: &str) -> (TokenCheck, KeySet) {
    let check = TokenCheck {
        required: false,
        issuer: issuer.into(),
        audiences: vec!["shop".into()],
        headers: vec![("x-jwt".into(), "JWT ".into())],
        parameters: vec!["t".into()],
        cookies: vec!["c".into()],
        forward: true,
        payload_header: "x-payload".into(),
        claim_headers: vec![("x-group".into(), "realm.group".into())],
        lists_of_words: vec!["permission".into(), "scope".into()],
    };
    (check, KeySet::nobodys())
}

/// Somebody who is asked about one rule.
pub(crate) fn ask(protocol: AuthorizerProtocol) -> AskFilter {
    let rules = access().policies.unwrap_or_default().into_values();
    let policies = rules.map(|plan| ("istio-ext-authz-opa-rule".into(), plan)).collect();
    let authorizer = Authorizer {
        host: Hostname::new("opa.example.com"),
        namespace: None,
        port: 9191,
        timeout: Duration::from_secs(2),
        fail_open: true,
        status_on_error: Some(503),
        reroutes: true,
        body: Some(ShownBody { most: 10, partial: true, raw: true }),
        protocol,
    };
    let asked = Asked {
        prefix: "istio-ext-authz-opa-".into(),
        cluster: "outbound|9191||opa.example.com".into(),
        authorizer,
    };
    AskFilter { policies, asked: Some(asked) }
}

/// A TCP proxy to one cluster.
pub(crate) fn tcp(cluster: &str) -> TcpProxyPlan {
    TcpProxyPlan {
        stat_prefix: cluster.into(),
        clusters: vec![(cluster.into(), 1)],
        idle_timeout: None,
        max_duration: None,
        hash_source_ip: false,
        tunnel: None,
        resolves_sni: None,
        access_logs: Vec::new(),
        metrics: None,
    }
}

/// A chain that matches everything.
pub(crate) fn chain(terminal: TerminalFilter) -> FilterChainPlan {
    FilterChainPlan {
        name: "".into(),
        matches: ChainMatch::default(),
        tls: None,
        connect_timeout: None,
        ask: None,
        access: Vec::new(),
        terminal,
    }
}

/// A listener with these chains.
pub(crate) fn listener(chains: Vec<FilterChainPlan>) -> ListenerPlan {
    ListenerPlan {
        name: "0.0.0.0_80".into(),
        address: [0, 0, 0, 0].into(),
        port: 80,
        bind: false,
        use_original_dst: false,
        direction: Direction::Outbound,
        listener_filters: Vec::new(),
        filters_timeout: None,
        continue_on_timeout: false,
        chains,
        default_chain: None,
        accept_one: false,
        access_logs: Vec::new(),
        port_names: PortNames::new(),
    }
}

/// A log of everything on standard output.
pub(crate) fn file_log(format: LogFormat) -> AccessLogPlan {
    let sink = LogSinkPlan::File { path: "/dev/stdout".into(), format, omit_empty: false };
    AccessLogPlan { sink, filter: None }
}

/// An inbound listener with mesh TLS, policies on requests and connections, inline routes and logs.
pub(crate) fn full_listener() -> ListenerPlan {
    let json = || vec![file_log(LogFormat::Json("".into()))];
    let text = || vec![file_log(LogFormat::Text("".into()))];
    let routes = RouteConfigPlan {
        name: "inbound|9080||".into(),
        ignore_port_in_host: false,
        virtual_hosts: vec![virtual_host(vec![full_route()])],
    };
    let request = HttpConnection {
        routes: RouteSource::Inline(routes),
        access: vec![access()],
        access_logs: json(),
        ..http(HttpRole::Inbound { mtls: true })
    };
    let tls = ChainMatch {
        port: Some(9080),
        prefixes: vec!["10.0.0.0/8".parse().unwrap()],
        server_names: vec!["*.example.com".into()],
        transport: Some(TransportMatch::Tls),
        alpn: vec!["istio-http/1.1".into(), "istio-h2".into()],
    };
    let http_chain = FilterChainPlan {
        name: "0.0.0.0_9080".into(),
        matches: tls,
        tls: Some(server_tls()),
        ..chain(TerminalFilter::Http(Box::new(request)))
    };
    let bytes = TcpProxyPlan {
        idle_timeout: Some(Duration::from_secs(60)),
        hash_source_ip: true,
        tunnel: Some(Tunnel { target: "far.test:443".into(), by_post: true }),
        clusters: vec![("a".into(), 1), ("b".into(), 2)],
        access_logs: text(),
        ..tcp("InboundPassthroughCluster")
    };
    let tcp_chain =
        FilterChainPlan { access: vec![connection_access()], ..chain(TerminalFilter::Tcp(bytes)) };
    ListenerPlan {
        name: "virtualInbound".into(),
        port: 15006,
        bind: true,
        direction: Direction::Inbound,
        listener_filters: vec![
            ListenerFilter::OriginalDst,
            ListenerFilter::TlsInspector(vec![15006]),
            ListenerFilter::HttpInspector(vec![9080, 15006]),
        ],
        filters_timeout: Some(Duration::from_secs(2)),
        continue_on_timeout: true,
        default_chain: Some(chain(TerminalFilter::Tcp(tcp("PassthroughCluster")))),
        accept_one: true,
        access_logs: text(),
        ..listener(vec![http_chain, tcp_chain])
    }
}

/// One item of each kind, with as much in it as it can hold.
fn items() -> Vec<PlanItem> {
    vec![
        PlanItem::Cluster(Box::new(full_cluster())),
        PlanItem::Assignment(assignment()),
        PlanItem::VirtualHost(virtual_host(vec![full_route()])),
        PlanItem::Listener(Box::new(full_listener())),
    ]
}

#[test]
fn equal_items_give_equal_bytes_a_hundred_times() {
    let first: Vec<Bytes> = items().iter().map(emit).collect();
    for _ in 0..100 {
        assert_eq!(items().iter().map(emit).collect::<Vec<_>>(), first);
    }
}

#[test]
fn contents_follow_the_item() {
    let contents: Vec<Content> = items().iter().map(content).collect();
    assert_eq!(items().iter().map(content).collect::<Vec<_>>(), contents);
    let changed = PlanItem::Cluster(Box::new(ClusterPlan { panic_percent: 41, ..full_cluster() }));
    assert_ne!(content(&changed), contents[0]);
}

/// Whatever an emitter of another build changes in the bytes changes the version.
#[test]
fn another_byte_is_another_version() {
    for item in items() {
        let body = emit(&item).to_vec();
        for at in 0..body.len() {
            let mut other = body.clone();
            other[at] ^= 1;
            assert_ne!(version(&other), version(&body), "byte {at} of {}", item.name());
        }
        assert_ne!(version(&body[1..]), version(&body));
    }
}

/// XXH3 with 64 bits and without a seed, as published: replicas of other builds and machines agree.
#[test]
fn a_version_stays_the_same_over_builds_and_machines() {
    assert_eq!(version(b"").to_string(), "2d06800538d394c2");
    assert_eq!(version(b"outbound|80||a").to_string(), "281b86728bad7c9b");
}

#[test]
fn splicing_virtual_hosts_gives_what_encoding_them_together_gives() {
    let frame =
        RouteFrame { name: "80".into(), ignore_port_in_host: true, virtual_hosts: Vec::new() };
    let hosts: Vec<VirtualHostPlan> = ["b", "a"]
        .map(|name| VirtualHostPlan { name: name.into(), ..virtual_host(vec![full_route()]) })
        .into();
    let parts: Vec<Bytes> = hosts.iter().map(|h| emit(&PlanItem::VirtualHost(h.clone()))).collect();
    let body = splice_route(&frame, &parts);
    let spliced = pb::route::RouteConfiguration::decode(body).unwrap();
    let whole = pb::route::RouteConfiguration {
        virtual_hosts: hosts.iter().map(super::route::virtual_host).collect(),
        ..super::route::configuration_frame("80", true)
    };
    assert_eq!(spliced, whole);
}
