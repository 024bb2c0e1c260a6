//! Table tests of lowering: YAML in, values of the intermediate form out.

use serde_json::{Value, json};

use super::lower;
use crate::{
    dialect::parse_file,
    ir::{KeySet, MeshDefaults},
    snapshot::Item,
};

fn value(item: &Item) -> Value {
    let value = match item {
        Item::Mesh(mesh) => serde_json::to_value(mesh),
        Item::Service(definition) => serde_json::to_value(&definition.service),
        Item::Workload(workload) => serde_json::to_value(workload),
        Item::Routes(table) => serde_json::to_value(table),
        Item::Backend(policy) => serde_json::to_value(policy),
        Item::MatchSet(set) => serde_json::to_value(set),
        Item::Gateway(gateway) => serde_json::to_value(gateway),
        Item::Scope(scope) => serde_json::to_value(scope),
        Item::PeerTls(policy) => serde_json::to_value(policy),
        Item::Access(policy) => serde_json::to_value(policy),
        Item::Callers(set) => serde_json::to_value(set),
        Item::Port(port) => serde_json::to_value(port),
        Item::AccessDefault(default) => serde_json::to_value(default),
        Item::Outbound(policy) => serde_json::to_value(policy),
        Item::Tokens(policy) => serde_json::to_value(policy),
        Item::RateLimit(limit) => serde_json::to_value(limit),
        Item::Telemetry(policy) => serde_json::to_value(policy),
        Item::Patches(set) => serde_json::to_value(set),
        Item::Proxy(policy) => serde_json::to_value(policy),
        Item::Group(group) => return json!(format!("{group:?}")),
        Item::Slice(slice) => return json!(format!("{slice:?}")),
    };
    value.expect("the intermediate form has only text keys")
}

fn objects(yaml: &str) -> Vec<crate::dialect::Object> {
    let parsed = parse_file("test.yaml", yaml.as_bytes());
    let rejected: Vec<_> =
        parsed.rejected.iter().flat_map(|r| &r.diagnostics).map(ToString::to_string).collect();
    assert!(!parsed.objects.is_empty(), "{yaml}: {rejected:?}");
    parsed.objects
}

/// Lowers one object and looks at fields of what it gives, by JSON pointer below the list of items.
fn check(yaml: &str, expected: &[(&str, Value)]) {
    let lowered = lower(&objects(yaml)[0], &MeshDefaults::default());
    let items = Value::Array(lowered.items.iter().map(value).collect());
    for (pointer, expected) in expected {
        let got = items.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(got, expected, "{pointer} of {items:#}\n{:?}", lowered.diagnostics);
    }
}

fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: shop}}\nspec: {spec}\n"
    )
}

fn istio(kind: &str, spec: &str) -> String {
    let group = if kind.ends_with("tication") || kind.ends_with("Policy") {
        "security"
    } else {
        "networking"
    };
    format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn services_keep_addresses_ports_and_visibility() {
    check(
        &service(
            "{clusterIP: 10.0.0.1, selector: {app: r}, ports: [{name: dns, port: 53, protocol: UDP}, {name: http, port: 80, targetPort: web}]}",
        ),
        &[
            ("/0/key/host", json!("reviews.shop.svc.cluster.local")),
            ("/0/addresses", json!([{"Ip": "10.0.0.1"}])),
            (
                "/0/ports",
                json!([{"number": 80, "name": "http", "protocol": "Http", "target": {"Name": "web"}}]),
            ),
            ("/0/resolution", json!("Static")),
            ("/0/export_to", json!("Public")),
        ],
    );
    check(
        &service("{clusterIP: None, ports: [{port: 80}]}"),
        &[("/0/headless", json!(true)), ("/0/resolution", json!("OriginalDst"))],
    );
    check(
        &service("{type: ExternalName, externalName: Db.Example.com}"),
        &[("/0/resolution", json!({"Alias": "db.example.com"}))],
    );
    let exported = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop, annotations: {networking.istio.io/exportTo: \"., bank\"}}\nspec: {}\n";
    check(exported, &[("/0/export_to", json!({"Namespaces": ["bank", "shop"]}))]);
}

#[test]
fn pods_are_workloads_of_their_deployment() {
    let pod = "
apiVersion: v1
kind: Pod
metadata:
  name: cart-5d8f-x
  namespace: shop
  labels: {app: cart, security.istio.io/tlsMode: istio, topology.kubernetes.io/region: eu, topology.istio.io/subzone: r1}
  ownerReferences: [{kind: ReplicaSet, name: cart-5d8f, controller: true, apiVersion: apps/v1, uid: u}]
spec: {containers: [{name: app, ports: [{name: web, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}
";
    check(
        pod,
        &[
            ("/0/workload_name", json!("cart")),
            ("/0/service_account", json!("default")),
            ("/0/mesh_tls", json!("Always")),
            ("/0/addresses", json!(["10.1.0.1", "fd00::1"])),
            ("/0/named_ports", json!({"web": 8080})),
            ("/0/container_ports", json!([8080])),
            ("/0/locality", json!({"region": "eu", "zone": "", "sub_zone": "r1"})),
            ("/0/ready", json!(true)),
        ],
    );
}

#[test]
fn short_hosts_are_completed_with_the_namespace() {
    let spec = "{hosts: [reviews, reviews.shop.svc.cluster.local, '*.example.com'], gateways: [mesh, edge, istio-system/main], http: [{route: [{destination: {host: ratings}}]}]}";
    let gateway = |namespace: &str, name: &str| json!({"Gateway": {"kind": "Gateway", "namespace": namespace, "name": name}});
    check(
        &istio("VirtualService", spec),
        &[
            ("/0/hosts", json!(["reviews.shop.svc.cluster.local", "*.example.com"])),
            (
                "/0/attachments",
                json!(["Mesh", gateway("istio-system", "main"), gateway("shop", "edge")]),
            ),
            (
                "/0/http/0/action/Forward/destinations/0/destination/host",
                json!("ratings.shop.svc.cluster.local"),
            ),
            ("/0/http/0/action/Forward/destinations/0/weight", json!(1)),
            ("/0/http/0/retry", json!("MeshDefault")),
        ],
    );
}

#[test]
fn weights_faults_mirrors_and_retries_read_as_in_istio() {
    let spec = "{hosts: [a], http: [{
        route: [{destination: {host: a}, weight: 90}, {destination: {host: b}, weight: 10}, {destination: {host: c}, weight: 0}],
        fault: {delay: {percentage: {value: 0.1}, fixedDelay: 5s}, abort: {grpcStatus: UNAVAILABLE}},
        mirror: {host: m}, mirrorPercentage: {value: 25},
        retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503, reset'}}, {route: [{destination: {host: a}}], retries: {attempts: 0}}]}";
    check(
        &istio("VirtualService", spec),
        &[
            ("/0/http/0/action/Forward/destinations/1/weight", json!(10)),
            ("/0/http/0/action/Forward/destinations/2", Value::Null),
            ("/0/http/0/fault/delay/1", json!(1000)),
            ("/0/http/0/fault/abort", json!([{"Grpc": 14}, 1_000_000])),
            ("/0/http/0/mirrors/0/share", json!(250_000)),
            ("/0/http/0/retry/Policy/conditions", json!(["ServerError", "Reset"])),
            ("/0/http/0/retry/Policy/statuses", json!([503])),
            ("/0/http/0/timeouts/request", Value::Null),
            ("/0/http/0/timeouts/per_try", json!({"secs": 2, "nanos": 0})),
            ("/0/http/1/retry", json!("Off")),
        ],
    );
}

#[test]
fn service_entries_give_a_service_per_host() {
    let spec = "{hosts: [b.example.com, a.example.com], addresses: [10.0.0.1], ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}], resolution: DNS, exportTo: ['.']}";
    check(
        &istio("ServiceEntry", spec),
        &[
            ("/0/key/host", json!("a.example.com")),
            ("/1/key/host", json!("b.example.com")),
            ("/0/addresses", json!([{"Ip": "10.0.0.1"}])),
            ("/0/ports/0/target", json!({"Number": 8443})),
            ("/0/resolution", json!({"Dns": {"round_robin": false}})),
            ("/0/external", json!(true)),
            ("/0/export_to", json!({"Namespaces": ["shop"]})),
        ],
    );
}

#[test]
fn backend_policies_keep_subsets_ports_and_tls() {
    let spec = "{host: reviews, trafficPolicy: {
        loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}},
        connectionPool: {tcp: {maxConnections: 100}, http: {http2MaxRequests: 0}},
        tls: {mode: ISTIO_MUTUAL},
        portLevelSettings: [{port: {number: 9080}, outlierDetection: {consecutive5xxErrors: 0}}]},
        subsets: [{name: v1, labels: {version: v1}}]}";
    check(
        &istio("DestinationRule", spec),
        &[
            ("/0/host", json!("reviews.shop.svc.cluster.local")),
            ("/0/traffic/load_balancer/algorithm/ConsistentHash/table", json!({"Ring": 1024})),
            ("/0/traffic/connection_pool/max_connections", json!(100)),
            ("/0/traffic/connection_pool/max_requests", Value::Null),
            ("/0/traffic/tls", json!({"Mesh": {"sni": "", "subject_alt_names": []}})),
            ("/0/traffic/ports/9080/outlier/consecutive_5xx", json!(0)),
            ("/0/subsets/0/labels", json!({"version": "v1"})),
        ],
    );
}

#[test]
fn gateway_hosts_and_credentials_are_resolved() {
    let spec = "{selector: {istio: edge}, servers: [
        {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['./a.example.com', '*/b.example.com', c.example.com], tls: {mode: MUTUAL, credentialName: cert}},
        {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}]}";
    check(
        &istio("Gateway", spec),
        &[
            ("/0/servers/0/hosts/0", json!({"namespace": "shop", "host": "a.example.com"})),
            ("/0/servers/0/hosts/1", json!({"namespace": null, "host": "b.example.com"})),
            ("/0/servers/0/tls/credentials", json!(["cert"])),
            ("/0/servers/0/tls/mode", json!("Mutual")),
            ("/0/servers/1/https_redirect", json!(true)),
            ("/0/servers/1/tls", Value::Null),
        ],
    );
}

#[test]
fn sidecar_hosts_and_endpoints_are_resolved() {
    let spec = "{egress: [{hosts: ['./*', '*/a.example.com', '~/*']}], ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080'}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}";
    check(
        &istio("Sidecar", spec),
        &[
            ("/0/egress/0/hosts/0/namespace", json!("Clients")),
            ("/0/egress/0/hosts/1/namespace", json!("Any")),
            ("/0/egress/0/hosts/2/namespace", json!("Nobody")),
            ("/0/ingress/0/default_endpoint", json!({"Loopback": 8080})),
            ("/0/outbound_traffic", json!("RegistryOnly")),
        ],
    );
}

#[test]
fn the_mesh_may_ask_for_more_than_tls_1_2_but_not_for_less() {
    for (version, expected) in
        [("TLSV1_3", "V1_3"), ("TLSV1_2", "V1_2"), ("TLSV1_0", "V1_2"), ("TLS_AUTO", "V1_2")]
    {
        let mesh = format!("mesh: {{meshMTLS: {{minProtocolVersion: {version}}}}}\n");
        check(&mesh, &[("/0/mesh_tls_min", json!(expected))]);
    }
}

#[test]
fn peer_tls_by_port_needs_a_selector() {
    let spec = "{selector: {matchLabels: {app: a}}, mtls: {mode: UNSET}, portLevelMtls: {8080: {mode: DISABLE}}}";
    check(
        &istio("PeerAuthentication", spec),
        &[("/0/mode", Value::Null), ("/0/ports", json!({"8080": "Disable"}))],
    );
}

#[test]
fn access_rules_keep_every_condition_and_their_place() {
    let spec = "{action: DENY, rules: [
        {from: [{source: {principals: ['*', '*/sa/b'], notPrincipals: [cluster.local/ns/a/sa/b], trustDomains: ['*.corp'], notTrustDomains: [old], remoteIpBlocks: [10.1.2.3/8]}}],
         to: [{operation: {hosts: [A.example.com], paths: ['/a/{*}/b.c', '/d/{**}', '/e/{**}/f', '/g*'], notPaths: ['*'], ports: ['8080']}}],
         when: [{key: 'request.headers[X-Token]', values: ['*']}, {key: 'request.headers[:method]', notValues: [GET]},
                {key: source.serviceAccount, values: [sleep, bank/teller]}, {key: source.trustDomain, values: ['*.corp']},
                {key: destination.port, notValues: ['9']}]},
        {from: [{source: {principals: [evil.corp/ns/a/sa/b], trustDomains: ['*.corp']}}]}]}";
    let values = |wanted: Value, refused: Value| json!({"wanted": wanted, "refused": refused});
    let regex = |text: &str| json!({"Regex": text});
    check(
        &istio("AuthorizationPolicy", spec),
        &[
            ("/0/action", json!("Deny")),
            (
                "/0/rules/0/from/0",
                json!([
                    {"Principal": values(json!(["Present", {"Suffix": "/sa/b"}]), json!([{"Exact": "cluster.local/ns/a/sa/b"}]))},
                    {"TrustDomain": values(json!([{"Suffix": ".corp"}]), json!([{"Exact": "old"}]))},
                    {"RemoteIp": values(json!(["10.0.0.0/8"]), json!([]))},
                ]),
            ),
            (
                "/0/rules/0/to/0",
                json!([
                    {"Host": values(json!([{"Exact": "A.example.com"}]), json!([]))},
                    {"Port": values(json!([8080]), json!([]))},
                    {"Path": values(
                        json!([regex("/a/[^/]+/b\\.c"), {"Prefix": "/d/"}, regex("/e/.*/f"), {"Prefix": "/g"}]),
                        json!(["Present"]),
                    )},
                ]),
            ),
            (
                "/0/rules/0/when_from",
                json!([
                    {"Header": ["x-token", values(json!(["Present"]), json!([]))]},
                    {"Header": [":method", values(json!([]), json!([{"Exact": "GET"}]))]},
                    // An account without namespace is one of the policy's own.
                    {"Account": values(
                        json!([{"namespace": "shop", "name": "sleep"}, {"namespace": "bank", "name": "teller"}]),
                        json!([]),
                    )},
                    {"TrustDomain": values(json!([{"Suffix": ".corp"}]), json!([]))},
                ]),
            ),
            ("/0/rules/0/when_to", json!([{"Port": values(json!([]), json!([9]))}])),
            // Whoever is named beside a trust domain is left to the proxy to match: no rule is
            // lost.
            ("/0/rules/1/from/0/0/Principal/wanted/0/Exact", json!("evil.corp/ns/a/sa/b")),
            ("/0/rules/2", Value::Null),
        ],
    );
}

#[test]
fn what_guards_access_and_is_not_served_is_refused_and_stands_in_closed() {
    // What is accepted needs no stand-in.
    let accepted = objects(&istio("AuthorizationPolicy", "{rules: [{}]}"));
    assert!(lower(&accepted[0], &MeshDefaults::default()).closed.is_empty());
    let attached = |action: &str| {
        let target = "targetRefs: [{kind: Gateway, name: a, group: gateway.networking.k8s.io}]";
        let spec = format!("{{{action}{target}, rules: [{{}}]}}");
        let policy = objects(&istio("AuthorizationPolicy", &spec));
        lower(&policy[0], &MeshDefaults::default()).closed.iter().map(value).collect::<Vec<_>>()
    };
    let [denied] = &attached("action: DENY, ")[..] else { panic!("a stand-in") };
    assert_eq!(
        (&denied["action"], denied["rules"].as_array().map(Vec::len)),
        (&json!("Deny"), Some(1))
    );
    assert_eq!(
        denied["selector"]["labels"],
        json!({"gateway.networking.k8s.io/gateway-name": "a"})
    );
    let [allowed] = &attached("")[..] else { panic!("a stand-in") };
    assert_eq!((&allowed["action"], &allowed["rules"]), (&json!("Allow"), &json!([])));
    assert!(attached("action: AUDIT, ").is_empty());
}

#[test]
fn a_guard_is_closed_whatever_else_is_said_of_it() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop, annotations: {istio.io/dry-run: 'false'}}\nspec: {action: DENY, targetRef: {kind: Service, name: a}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}\n";
    let lowered = lower(&objects(policy)[0], &MeshDefaults::default());
    assert!(lowered.is_refused(), "{:?}", lowered.diagnostics);
    let [closed] = &lowered.closed[..] else { panic!("a stand-in") };
    assert_eq!(
        (&value(closed)["action"], &value(closed)["dry_run"]),
        (&json!("Deny"), &json!(false))
    );
}

#[test]
fn who_is_asked_is_named_and_what_cannot_be_asked_is_said() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop, annotations: {}}\nspec: {action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/a]}}]}, {from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}\n";
    let lowered = lower(&objects(policy)[0], &MeshDefaults::default());
    let said: Vec<String> = lowered.diagnostics.iter().map(|d| d.field.to_string()).collect();
    assert_eq!(said, [""; 0]);
    let policy = value(&lowered.items[0]);
    assert_eq!((&policy["action"], &policy["authorizer"]), (&json!("Ask"), &json!("opa")));
    assert_eq!(policy["unmatched"], "Pass");
    let denied = "{action: DENY, rules: [{}]}";
    check(&istio("AuthorizationPolicy", denied), &[("/0/authorizer", Value::Null)]);
}

#[test]
fn providers_that_are_asked_keep_every_setting() {
    let mesh = "mesh:
  extensionProviders:
  - name: opa
    envoyExtAuthzGrpc: {service: shop/opa.shop.svc.cluster.local, port: 9191, timeout: 2s, failOpen: true, statusOnError: '503', clearRouteCache: true, includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true, packAsBytes: true}}
  - name: login
    envoyExtAuthzHttp: {service: login.example.com, port: 80, pathPrefix: /check, includeHeadersInCheck: [old], includeRequestHeadersInCheck: [cookie, 'x-*'], includeAdditionalHeadersInCheck: {x-a: b}, headersToUpstreamOnAllow: ['*-user'], headersToDownstreamOnDeny: [set-cookie], headersToDownstreamOnAllow: [x-b]}
  - name: spans
    zipkin: {service: zipkin.example.com, port: 9411}
";
    let time = |secs: u64| json!({"secs": secs, "nanos": 0});
    check(
        mesh,
        &[
            (
                "/0/authorizers/opa",
                json!({
                    "host": "opa.shop.svc.cluster.local", "namespace": "shop", "port": 9191, "timeout": time(2),
                    "fail_open": true, "status_on_error": 503, "reroutes": true,
                    "body": {"most": 10, "partial": true, "raw": true}, "protocol": "Grpc",
                }),
            ),
            (
                "/0/authorizers/login",
                json!({
                    "host": "login.example.com", "namespace": null, "port": 80, "timeout": time(600),
                    "fail_open": false, "status_on_error": null, "reroutes": false, "body": null,
                    "protocol": {"Http": {
                        "path_prefix": "/check", "shown": [{"Exact": "cookie"}, {"Prefix": "x-"}], "added": {"x-a": "b"},
                        "to_upstream": [{"Suffix": "-user"}], "to_refused": [{"Exact": "set-cookie"}], "to_allowed": [{"Exact": "x-b"}],
                    }},
                }),
            ),
            ("/0/authorizers/spans", Value::Null),
        ],
    );
}

#[test]
fn conditions_on_tokens_and_filters_keep_their_parts() {
    let spec = "{action: DENY, rules: [{
        from: [{source: {requestPrincipals: ['https://a.test/b', '*', 'https://a.test/*', '*/b', 'a*', '*b'], notRequestPrincipals: [a/b/c]}}],
        when: [{key: request.auth.principal, notValues: ['*']}, {key: request.auth.audiences, values: [shop, 's*']},
               {key: request.auth.presenter, values: [app]}, {key: 'request.auth.claims[realm][roles]', values: [admin], notValues: ['*x']},
               {key: 'experimental.envoy.filters.network.mysql_proxy[db.table]', values: ['[update]', drop]}]}]}";
    let values = |wanted: Value, refused: Value| json!({"wanted": wanted, "refused": refused});
    let id = |issuer: Value, subject: Value| json!({"issuer": issuer, "subject": subject});
    let exact = |text: &str| json!({"Exact": text});
    let any = || json!("Present");
    let url = || exact("https://a.test");
    let wanted = json!([
        id(url(), exact("b")),
        id(any(), any()),
        id(url(), any()),
        id(any(), exact("b")),
        id(json!({"Prefix": "a"}), any()),
        id(any(), json!({"Suffix": "b"})),
    ]);
    let refused = json!([id(exact("a/b"), exact("c"))]);
    let claim = |path: Value, values: Value| json!({"Claim": [path, values]});
    check(
        &istio("AuthorizationPolicy", spec),
        &[
            ("/0/rules/0/from/0", json!([{"RequestPrincipal": values(wanted, refused)}])),
            (
                "/0/rules/0/when_from",
                json!([
                    {"RequestPrincipal": values(json!([]), json!([id(any(), any())]))},
                    claim(json!(["aud"]), values(json!([exact("shop"), {"Prefix": "s"}]), json!([]))),
                    claim(json!(["azp"]), values(json!([exact("app")]), json!([]))),
                    claim(
                        json!(["realm", "roles"]),
                        values(json!([exact("admin")]), json!([{"Suffix": "x"}])),
                    ),
                ]),
            ),
            (
                "/0/rules/0/when_to",
                json!([{"Metadata": [
                    "envoy.filters.network.mysql_proxy", "db.table",
                    values(
                        json!([
                            {"in_list": true, "condition": exact("update")},
                            {"in_list": false, "condition": exact("drop")},
                        ]),
                        json!([]),
                    ),
                ]}]),
            ),
        ],
    );
}

#[test]
fn an_identity_by_its_uri_is_the_one_that_it_names() {
    let spec = "{rules: [{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}], when: [{key: source.principal, values: ['spiffe://td/*']}]}]}";
    let id = |m: Value| json!([{"Principal": {"wanted": [m], "refused": []}}]);
    check(
        &istio("AuthorizationPolicy", spec),
        &[
            ("/0/rules/0/from/0", id(json!({"Exact": "td/ns/a/sa/b"}))),
            ("/0/rules/0/when_from", id(json!({"Prefix": "td/"}))),
        ],
    );
}

#[test]
fn rules_on_tokens_keep_every_part() {
    let jwks = KeySet::nobodys();
    let spec = format!(
        "{{selector: {{matchLabels: {{app: a}}}}, jwtRules: [
        {{issuer: me, audiences: [a, b], jwks: '{}', fromHeaders: [{{name: x-jwt, prefix: 'JWT '}}], fromParams: [t], fromCookies: [c],
          forwardOriginalToken: true, presence: REQUIRED, outputPayloadToHeader: x-payload, outputClaimToHeaders: [{{header: x-a, claim: a.b}}], spaceDelimitedClaims: [roles, scope]}},
        {{issuer: 'https://a.test'}}, {{jwksUri: 'http://keys.test:8080/k', timeout: 2s}}, {{issuer: b, jwks_uri: 'https://b.test/k'}}]}}",
        jwks.as_str()
    );
    let fetched =
        |source: Value, seconds: u64| json!({"Fetched": [source, {"secs": seconds, "nanos": 0}]});
    check(
        &istio("RequestAuthentication", &spec),
        &[
            ("/0/scope", json!({"Namespace": "shop"})),
            ("/0/selector/labels", json!({"app": "a"})),
            (
                "/0/rules/0/check",
                json!({
                    "issuer": "me", "required": true, "audiences": ["a", "b"], "headers": [["x-jwt", "JWT "]], "parameters": ["t"], "cookies": ["c"],
                    "forward": true, "payload_header": "x-payload", "claim_headers": [["x-a", "a.b"]],
                    "lists_of_words": ["permission", "roles", "scope"],
                }),
            ),
            ("/0/rules/0/keys", json!({"Given": jwks.as_str()})),
            ("/0/rules/1/keys", fetched(json!({"Issuer": "https://a.test"}), 5)),
            ("/0/rules/2/keys", fetched(json!({"Url": "http://keys.test:8080/k"}), 2)),
            ("/0/rules/3/keys", fetched(json!({"Url": "https://b.test/k"}), 5)),
        ],
    );
}

#[test]
fn policies_that_are_attached_by_reference_are_refused_by_name() {
    let target = "{kind: Service, name: cart}";
    for kind in ["AuthorizationPolicy", "RequestAuthentication"] {
        for (spec, field) in [
            (format!("{{targetRefs: [{target}]}}"), "spec.targetRefs[0]"),
            (format!("{{targetRef: {target}}}"), "spec.targetRef"),
        ] {
            let lowered = lower(&objects(&istio(kind, &spec))[0], &MeshDefaults::default());
            let [finding] = &lowered.diagnostics[..] else { panic!("{:?}", lowered.diagnostics) };
            assert!(lowered.is_refused());
            assert_eq!(
                (finding.field.to_string(), finding.got.as_deref()),
                (field.to_owned(), Some("Service `cart`"))
            );
        }
    }
}

#[test]
fn names_of_hosts_and_servers_are_the_same_in_any_case() {
    let spec = "{rules: [{when: [{key: 'request.headers[Host]', values: [A.test]}, {key: 'request.headers[:authority]', notValues: [B.test]}, {key: connection.sni, values: ['*.A.test']}]}]}";
    let values = |wanted: Value, refused: Value| json!({"wanted": wanted, "refused": refused});
    let expected = json!([
        {"Host": values(json!([{"Exact": "A.test"}]), json!([]))},
        {"Host": values(json!([]), json!([{"Exact": "B.test"}]))},
        {"Sni": values(json!([{"Suffix": ".a.test"}]), json!([]))},
    ]);
    let policy = istio("AuthorizationPolicy", spec);
    check(&policy, &[("/0/rules/0/when_to", expected), ("/0/rules/0/when_from", json!([]))]);
}

#[test]
fn a_selector_in_the_root_namespace_is_said_to_select_no_more_than_that() {
    let policy = |namespace: &str, selector: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{selector}mtls: {{mode: STRICT}}}}\n"
        );
        let lowered = lower(&objects(&text)[0], &MeshDefaults::default());
        lowered.diagnostics.iter().map(|d| d.field.to_string()).collect::<Vec<_>>()
    };
    let selector = "selector: {matchLabels: {a: b}}, ";
    assert_eq!(policy("istio-system", selector), ["spec.selector"]);
    assert!(policy("istio-system", "").is_empty() && policy("shop", selector).is_empty());
}

#[test]
fn key_material_lowers_to_nothing() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: shop}\ntype: kubernetes.io/tls\nstringData: {tls.crt: a, tls.key: b}\n";
    check(secret, &[("", json!([]))]);
}

#[test]
fn what_connections_must_be_is_said_once() {
    let spec = "{hosts: [a.test], tls: [{match: [{sniHosts: [a.test, a.test], \
         destinationSubnets: [10.0.0.0/8, 10.1.0.0/16, 10.0.0.0/8]}], \
         route: [{destination: {host: a.test}}]}]}";
    check(
        &istio("VirtualService", spec),
        &[
            ("/0/tls/0/matches/0/sni_hosts", json!(["a.test"])),
            ("/0/tls/0/matches/0/destination_subnets", json!(["10.0.0.0/8", "10.1.0.0/16"])),
        ],
    );
}
