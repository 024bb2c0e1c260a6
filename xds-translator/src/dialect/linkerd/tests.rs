//! What Linkerd's objects are lowered to, and what is said of them.

use serde_json::{Value, json};

use crate::{
    diagnostic::{Diagnostic, Severity},
    dialect::{Object, lower, parse_file},
    ir::MeshDefaults,
    snapshot::Item,
};

/// `SEVERITY FIELD` of every finding on a text with one object, parsed and lowered.
fn said(text: &str) -> Vec<String> {
    let line = |d: &Diagnostic| format!("{} {}", d.severity, d.field);
    let parsed = parse_file("a.yaml", text.as_bytes());
    let lowered =
        parsed.objects.iter().flat_map(|o| lower(o, &MeshDefaults::default()).diagnostics);
    let lowered: Vec<Diagnostic> = lowered.collect();
    parsed.diagnostics.iter().chain(&lowered).map(line).collect()
}

fn object(text: &str) -> Object {
    let parsed = parse_file("a.yaml", text.as_bytes());
    let found = format!("{:#?}", parsed.diagnostics);
    parsed.objects.into_iter().next().unwrap_or_else(|| panic!("{text}\n{found}"))
}

fn items(text: &str) -> Vec<Item> {
    lower(&object(text), &MeshDefaults::default()).items
}

fn json_of(item: &Item) -> Value {
    let value = match item {
        Item::Access(policy) => serde_json::to_value(policy),
        Item::Port(port) => serde_json::to_value(port),
        Item::Callers(set) => serde_json::to_value(set),
        Item::Routes(table) => serde_json::to_value(table),
        Item::Backend(policy) => serde_json::to_value(policy),
        Item::RateLimit(limit) => serde_json::to_value(limit),
        Item::Outbound(policy) => serde_json::to_value(policy),
        Item::AccessDefault(default) => serde_json::to_value(default),
        other => return json!(format!("{other:?}")),
    };
    value.expect("JSON")
}

/// Looks at what an object gives, by pointer below the list of items.
fn check(text: &str, expected: &[(&str, Value)]) {
    let all = Value::Array(items(text).iter().map(json_of).collect());
    for (pointer, expected) in expected {
        assert_eq!(all.pointer(pointer).unwrap_or(&Value::Null), expected, "{pointer}: {all:#}");
    }
}

fn policy(kind: &str, spec: &str) -> String {
    let version = match kind {
        "Server" | "HTTPRoute" => "v1beta3",
        "ServerAuthorization" => "v1beta1",
        _ => "v1alpha1",
    };
    format!(
        "apiVersion: policy.linkerd.io/{version}\nkind: {kind}\n\
         metadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
    )
}

fn profile(spec: &str) -> String {
    format!(
        "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\n\
         metadata: {{name: cart.shop.svc.cluster.local, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn what_is_refused_is_refused_where_it_stands() {
    let server = "targetRef: {group: policy.linkerd.io, kind: Server, name: api}";
    let table = [
        (policy("Server", "{podSelector: {}, port: http}"), vec![]),
        (policy("Server", "{port: 80}"), vec!["error spec.podSelector"]),
        (policy("Server", "{podSelector: {}, port: 0}"), vec!["error spec.port"]),
        (policy("Server", "{podSelector: {}, port: A_b}"), vec!["error spec.port"]),
        (
            policy("Server", "{externalWorkloadSelector: {}, port: 80}"),
            vec!["error spec.externalWorkloadSelector"],
        ),
        (
            policy(
                "Server",
                "{podSelector: {matchExpressions: [{key: a, operator: In}]}, port: 1}",
            ),
            vec!["error spec.podSelector.matchExpressions[0].values"],
        ),
        (
            policy("AuthorizationPolicy", &format!("{{{server}, requiredAuthenticationRefs: []}}")),
            vec![],
        ),
        (
            policy("AuthorizationPolicy", &format!("{{{server}}}")),
            vec!["error spec.requiredAuthenticationRefs"],
        ),
        (
            policy(
                "AuthorizationPolicy",
                "{targetRef: {kind: Server, name: api}, requiredAuthenticationRefs: \
                 [{kind: MeshTLSAuthentication, name: m}]}",
            ),
            vec!["error spec.targetRef.group", "error spec.requiredAuthenticationRefs[0].group"],
        ),
        (
            policy(
                "AuthorizationPolicy",
                "{targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: r}, \
                 requiredAuthenticationRefs: []}",
            ),
            vec!["error spec.targetRef.kind"],
        ),
        (
            policy(
                "AuthorizationPolicy",
                "{targetRef: {kind: Namespace, name: bank}, requiredAuthenticationRefs: []}",
            ),
            vec!["error spec.targetRef.name"],
        ),
        (policy("MeshTLSAuthentication", "{}"), vec!["error spec.identities"]),
        (policy("MeshTLSAuthentication", "{identities: [web]}"), vec!["error spec.identities[0]"]),
        (
            policy("NetworkAuthentication", "{networks: [{cidr: 10.0.0.0/99}]}"),
            vec!["error spec.networks[0].cidr"],
        ),
        (
            policy("ServerAuthorization", "{server: {name: api}, client: {}}"),
            vec!["error spec.client"],
        ),
        (
            policy(
                "HTTPLocalRateLimitPolicy",
                &format!("{{{server}, total: {{requestsPerSecond: 5}}}}"),
            ),
            vec![],
        ),
        (
            policy(
                "HTTPLocalRateLimitPolicy",
                &format!("{{{server}, identity: {{requestsPerSecond: 5}}}}"),
            ),
            vec!["error spec.identity"],
        ),
        (policy("EgressNetwork", "{trafficPolicy: Deny}"), vec![]),
        (
            policy("EgressNetwork", "{trafficPolicy: Deny, networks: [{cidr: 1.0.0.0/8}]}"),
            vec!["error spec.networks"],
        ),
        (
            policy("HTTPRoute", "{parentRefs: [{name: cart, kind: Service}]}"),
            vec!["warn spec.parentRefs[0].group"],
        ),
        (
            policy(
                "HTTPRoute",
                "{parentRefs: [{name: api, kind: Server}], rules: [{matches: [{method: GET}]}]}",
            ),
            vec!["error spec.parentRefs[0].kind"],
        ),
        (
            policy(
                "HTTPRoute",
                "{parentRefs: [{name: cart, kind: Service, group: core}], rules: [{filters: \
                 [{type: RequestRedirect}], timeouts: {request: 1s, backendRequest: 2s}}]}",
            ),
            vec!["error spec.rules[0].filters[0]", "error spec.rules[0].timeouts.backendRequest"],
        ),
        (
            profile("{routes: [{name: a, condition: {method: POST}, isRetryable: true}]}"),
            vec!["info apiVersion", "warn spec.routes[0]"],
        ),
        (
            profile("{retryBudget: {retryRatio: 2, minRetriesPerSecond: 1, ttl: 90s}}"),
            vec![
                "info apiVersion",
                "error spec.retryBudget.ttl",
                "error spec.retryBudget.retryRatio",
                "warn spec.routes",
            ],
        ),
        (profile("{opaquePorts: [\"25\"]}"), vec!["info apiVersion", "error spec.opaquePorts"]),
        (
            profile("{routes: [{name: a, condition: {}}]}"),
            vec!["info apiVersion", "error spec.routes[0].condition"],
        ),
        (
            profile(
                "{routes: [{name: a, condition: {method: GET}, responseClasses: \
                 [{condition: {status: {min: 600}}}]}]}",
            ),
            vec!["info apiVersion", "error spec.routes[0].responseClasses[0].condition.status"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(said(&text), expected, "{text}");
    }
}

/// What the examples that never worked are told to be, once their `apiVersion` is a profile's.
#[test]
fn fields_that_no_profile_ever_had_are_refused_with_what_to_write() {
    let seeds = [
        (
            include_str!("../../../../integration/corpus/seeds/s0-05-linkerd-config.yaml"),
            vec![
                "error spec.routes[0].responseClasses[0]",
                "error spec.routes[0].responseClasses[1]",
            ],
        ),
        (
            include_str!("../../../../integration/corpus/seeds/s0-08-linkerd-circuit-breaker.yaml"),
            vec!["error spec.routes[0].circuitBreakers"],
        ),
        (
            include_str!("../../../../integration/corpus/seeds/s0-10-linkerd-retry.yaml"),
            vec!["error spec.routes[0].retries", "warn spec.routes[0]"],
        ),
    ];
    for (text, expected) in seeds {
        let document = text.rsplit("---\n").next().expect("a document");
        let text = document.replace("apiVersion: v1\n", "apiVersion: linkerd.io/v1alpha2\n");
        let mut all = vec!["info apiVersion".to_owned(), "warn metadata.name".to_owned()];
        all.extend(expected.into_iter().map(str::to_owned));
        assert_eq!(said(&text), all, "{text}");
        let parsed = parse_file("a.yaml", text.as_bytes());
        assert!(parsed.diagnostics.iter().all(|d| d.fix.is_some()), "{:#?}", parsed.diagnostics);
    }
}

#[test]
fn policies_are_for_ports_that_servers_describe() {
    check(
        &policy(
            "Server",
            "{podSelector: {matchLabels: {app: web}}, port: http, proxyProtocol: opaque}",
        ),
        &[
            ("/0/port", json!({"Named": "http"})),
            ("/0/protocol", json!("Tcp")),
            ("/0/selector/labels", json!({"app": "web"})),
            ("/1/rules", json!([])),
            ("/1/unmatched", json!("Refuse")),
            ("/1/ports/which/Of/name", json!("a")),
        ],
    );
    check(
        &policy(
            "AuthorizationPolicy",
            "{targetRef: {group: policy.linkerd.io, kind: Server, name: api}, \
             requiredAuthenticationRefs: [{kind: ServiceAccount, name: web}, \
             {group: policy.linkerd.io, kind: NetworkAuthentication, name: near, namespace: bank}]}",
        ),
        &[
            ("/0/ports/which/Of/name", json!("api")),
            ("/0/shared_callers/0/set/namespace", json!("bank")),
            ("/0/rules/0/when_from/0/Account/wanted/0/name", json!("web")),
            ("/0/rules/1", Value::Null),
        ],
    );
    check(
        &policy(
            "ServerAuthorization",
            "{server: {selector: {matchLabels: {tier: api}}}, client: {networks: \
             [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}], meshTLS: {identities: ['*'], \
             serviceAccounts: [{name: web}]}}}",
        ),
        &[
            ("/0/ports/which/Labelled/labels", json!({"tier": "api"})),
            ("/0/rules/0/from/0/0/Principal/wanted", json!(["Present"])),
            ("/0/rules/0/from/0/1/DirectIp/refused", json!(["10.1.0.0/16"])),
            ("/0/rules/0/from/1/0/Account/wanted/0/namespace", json!("shop")),
            ("/0/rules/0/from/2", Value::Null),
        ],
    );
    check(
        &policy(
            "HTTPLocalRateLimitPolicy",
            "{targetRef: {group: policy.linkerd.io, kind: Server, name: api}, \
             total: {requestsPerSecond: 5}}",
        ),
        &[("/0/quota/Own/rate/requests", json!(5)), ("/0/ports/which/Of/name", json!("api"))],
    );
    check(&policy("EgressNetwork", "{trafficPolicy: Allow}"), &[("/0/allowed", json!(true))]);
}

#[test]
fn a_profile_comes_before_all_other_routes_of_its_service() {
    let text = profile(
        "{routes: [{name: GET /a, condition: {method: GET, pathRegex: /a}, timeout: 3s}, \
         {name: b, condition: {pathRegex: /b}, isRetryable: true, responseClasses: \
         [{condition: {status: {min: 500}}, isFailure: true}, \
         {condition: {status: {min: 501, max: 599}}}]}], \
         retryBudget: {retryRatio: 0.25, minRetriesPerSecond: 7, ttl: 10s}}",
    );
    check(
        &text,
        &[
            ("/0/standing", json!("First")),
            ("/0/hosts/0", json!("cart.shop.svc.cluster.local")),
            ("/0/export_to", json!("Public")),
            ("/0/http/0/matches/0/path", json!({"Exact": "/a"})),
            ("/0/http/0/timeouts/request/secs", json!(3)),
            ("/0/http/0/retry", json!("MeshDefault")),
            ("/0/http/1/retry/Policy/statuses", json!([500])),
            ("/0/http/2/matches", json!([])),
            ("/0/http/3", Value::Null),
            ("/1/fills_in", json!(true)),
            ("/1/traffic/retry_budget/percent", json!(25)),
            ("/1/traffic/retry_budget/minimum", json!(7)),
        ],
    );
    // Of another namespace it is for clients there.
    let elsewhere = text.replace("namespace: shop", "namespace: bank");
    check(&elsewhere, &[("/0/export_to", json!({"Namespaces": ["bank"]}))]);
    check(
        &profile(
            "{dstOverrides: [{authority: 'v1.shop.svc.cluster.local:8080', weight: 900m}, \
             {authority: v2.shop.svc.cluster.local, weight: 100m}]}",
        ),
        &[
            ("/0/http/0/action/Forward/destinations/0/weight", json!(900)),
            ("/0/http/0/action/Forward/destinations/0/destination/port", json!({"Number": 8080})),
            ("/0/http/0/action/Forward/destinations/1/destination/port", json!("Requested")),
            ("/1", Value::Null),
        ],
    );
}

#[test]
fn a_route_of_a_service_is_for_its_port_and_its_clients() {
    let route = |parent: &str| {
        policy(
            "HTTPRoute",
            &format!(
                "{{parentRefs: [{{name: cart, kind: Service, group: core, port: 80{parent}}}], \
                 hostnames: ['*.test'], rules: [{{matches: [{{path: {{value: /a/}}, \
                 headers: [{{name: X-A, value: b}}]}}], backendRefs: [{{name: v1, port: 8080, \
                 weight: 90}}, {{name: v2}}], timeouts: {{request: 2s}}}}]}}"
            ),
        )
    };
    check(
        &route(""),
        &[
            ("/0/order", json!("BySpecificity")),
            ("/0/export_to", json!("Public")),
            ("/0/http/0/matches/0/port", json!(80)),
            ("/0/http/0/matches/0/path", json!({"Segments": "/a"})),
            ("/0/http/0/matches/0/headers", json!({"x-a": {"Exact": "b"}})),
            ("/0/http/0/timeouts/request/secs", json!(2)),
            ("/0/http/0/action/Forward/destinations/0/weight", json!(90)),
            ("/0/http/0/action/Forward/destinations/1/weight", json!(1)),
            (
                "/0/http/0/action/Forward/destinations/1/destination/host",
                json!("v2.shop.svc.cluster.local"),
            ),
        ],
    );
    check(
        &route(", namespace: bank"),
        &[
            ("/0/export_to", json!({"Namespaces": ["shop"]})),
            ("/0/hosts", json!(["cart.bank.svc.cluster.local"])),
        ],
    );
    let annotated = route("").replace(
        "namespace: shop}",
        "namespace: shop, annotations: {retry.linkerd.io/http: '5xx,429', \
         retry.linkerd.io/limit: '3', timeout.linkerd.io/request: 9s}}",
    );
    check(
        &annotated,
        &[
            ("/0/http/0/retry/Policy/attempts", json!(3)),
            ("/0/http/0/retry/Policy/statuses", json!([429])),
            ("/0/http/0/timeouts/request/secs", json!(9)),
        ],
    );
}

#[test]
fn a_route_of_a_server_stands_in_closed() {
    let refused = policy("HTTPRoute", "{parentRefs: [{name: api, kind: Server}]}");
    let parsed = parse_file("a.yaml", refused.as_bytes());
    let stand_in = crate::dialect::stand_in::of_rejected(&parsed.rejected[0]).expect("a guard");
    let closed = lower(&stand_in, &MeshDefaults::default()).items;
    let closed = json_of(&closed[0]);
    assert_eq!(
        (&closed["action"], &closed["ports"]["which"]["Of"]["name"]),
        (&json!("Deny"), &json!("api"))
    );
    let server =
        policy("Server", "{podSelector: {matchLabels: {app: web}}, port: 80, accessPolicy: x}");
    let parsed = parse_file("a.yaml", server.as_bytes());
    let stand_in = crate::dialect::stand_in::of_rejected(&parsed.rejected[0]).expect("a guard");
    let closed = lower(&stand_in, &MeshDefaults::default()).items;
    assert_eq!(json_of(&closed[0])["selector"]["labels"], json!({"app": "web"}));
    assert_eq!(json_of(&closed[1])["rules"], json!([]));
}

#[test]
fn annotations_of_other_objects_are_followed_or_said() {
    let service = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop, annotations: \
             {{{annotations}}}}}\nspec: {{selector: {{app: cart}}, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    check(
        &service(
            "retry.linkerd.io/http: 5xx, timeout.linkerd.io/request: 4s, \
             balancer.linkerd.io/failure-accrual: consecutive, \
             balancer.linkerd.io/failure-accrual-consecutive-max-failures: '3'",
        ),
        &[
            ("/1/standing", json!("Last")),
            ("/1/http/0/retry/Policy/attempts", json!(1)),
            ("/1/http/0/timeouts/request/secs", json!(4)),
            ("/2/traffic/outlier/consecutive_5xx", json!(3)),
            ("/2/fills_in", json!(true)),
        ],
    );
    let opaque = items(&service("config.linkerd.io/opaque-ports: '25,80-90'"));
    let [Item::Service(definition)] = &opaque[..] else { panic!("{opaque:?}") };
    assert_eq!(definition.service.ports[0].protocol, crate::ir::Protocol::Tcp);
    assert_eq!(
        said(&service("retry.linkerd.io/http: never, config.linkerd.io/proxy-mode: disabled")),
        [
            "warn metadata.annotations[\"retry.linkerd.io/http\"]",
            "warn metadata.annotations[\"config.linkerd.io/proxy-mode\"]",
        ]
    );
    let namespace = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: \
             {{config.linkerd.io/default-inbound-policy: {word}}}}}\n"
        )
    };
    check(
        &namespace("all-authenticated"),
        &[
            ("/0/namespace", json!("shop")),
            ("/0/rules/0/when_from/0/Principal/wanted", json!(["Present"])),
        ],
    );
    check(&namespace("nobody"), &[("/0/rules", json!([]))]);
    assert_eq!(said(&namespace("nobody")).len(), 1);
}

#[test]
fn no_finding_of_this_dialect_is_without_a_position() {
    let text = profile("{routes: [{name: a, condition: {method: POST}, isRetryable: true}]}");
    let parsed = parse_file("a.yaml", text.as_bytes());
    let placed = parsed.diagnostics.iter().all(|d| d.position.is_some());
    assert!(placed && parsed.diagnostics.iter().all(|d| d.severity != Severity::Error));
}
