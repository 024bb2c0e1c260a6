//! Small meshes, one construct each.

use std::collections::BTreeMap;

use super::*;
use crate::{
    compiler::Change,
    dialect::parse_file,
    ir::{MeshDefaults, ObjectId},
};

/// Two versions of `reviews` and two clients.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 7000}]
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-2, namespace: shop, labels: {app: reviews, version: v2, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: 'READY'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: web, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: teller-1, namespace: bank, labels: {app: teller, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: teller, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.4, podIPs: [{ip: 10.0.0.4}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
";

struct Nobody;

impl Signatures for Nobody {
    fn verify(&self, _: &str, _: &str) -> bool {
        false
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Takes every signature.
struct Anybody;

impl Signatures for Anybody {
    fn verify(&self, _: &str, _: &str) -> bool {
        true
    }

    fn now(&self) -> u64 {
        0
    }
}

fn try_ask(
    more: &str,
    asker: &Asker,
    (method, url, headers): (&str, &str, &[&str]),
) -> Result<Explanation, ExplainError> {
    let text = [&MESH.replace("READY", "True"), more].concat();
    ask_in(&text, asker, (method, url, headers))
}

fn ask_in(
    text: &str,
    asker: &Asker,
    asked: (&str, &str, &[&str]),
) -> Result<Explanation, ExplainError> {
    ask_verified(text, asker, asked, &Nobody)
}

fn ask_verified(
    text: &str,
    asker: &Asker,
    (method, url, headers): (&str, &str, &[&str]),
    signatures: &dyn Signatures,
) -> Result<Explanation, ExplainError> {
    let parsed = parse_file("mesh.yaml", text.as_bytes());
    assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
    let objects: BTreeMap<ObjectId, _> =
        parsed.objects.iter().map(|object| (object.id.clone(), object.clone())).collect();
    let mut compiler = Compiler::new(MeshDefaults::default());
    let upsert = |object| Change::Upsert(Box::new(object));
    compiler.apply(parsed.objects.into_iter().map(upsert).collect());
    let world = World {
        signatures,
        locate: &|id, field| objects.get(id)?.locate(field),
        running: &|_| None,
        refused: &BTreeMap::new(),
    };
    let headers: Vec<String> = headers.iter().map(|text| (*text).to_owned()).collect();
    let request = Request::parse(method, url, &headers).expect("a request");
    explain(&mut compiler, &world, asker, &request)
}

fn from(name: &str) -> Asker {
    Asker::From(name.to_owned())
}

fn get(more: &str, name: &str, url: &str, headers: &[&str]) -> Explanation {
    try_ask(more, &from(name), ("GET", url, headers)).expect("an explanation")
}

fn step(explanation: &Explanation, stage: Stage) -> &Step {
    let steps = &explanation.client.steps;
    let found = steps.iter().rev().find(|step| step.stage == stage);
    found.unwrap_or_else(|| panic!("no {stage:?} in {explanation:#?}"))
}

/// The line of the mesh that holds a text.
fn line(more: &str, text: &str) -> String {
    let whole = [MESH, more].concat();
    let at = whole.lines().position(|line| line.contains(text)).expect("the text");
    format!("mesh.yaml:{}", at + 1)
}

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}, uri: {prefix: /api}}]
    name: jason
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {exact: /gone}}]
    name: gone
    redirect: {uri: /here}
  - match: [{uri: {exact: /told}}]
    directResponse: {status: 418}
  - name: rest
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
";

#[test]
fn a_route_is_told_with_the_rule_that_decided_it_and_what_it_nearly_was() {
    let told = get(RULES, "web.shop", "http://reviews/api/x", &["end-user: jason"]);
    let route = step(&told, Stage::Route);
    assert_eq!(route.name, "jason");
    let decider = Decider {
        object: "VirtualService shop/reviews".to_owned(),
        field: Some("spec.http[0]".to_owned()),
        at: Some(line(RULES, "- match: [{headers: {end-user")),
    };
    assert_eq!(route.decided_by, std::slice::from_ref(&decider));
    assert_eq!(told.outcome(), Outcome::Reached, "{told:#?}");
    let [branch] = &told.branches[..] else { panic!("{told:#?}") };
    assert_eq!(branch.cluster, "outbound|80|v2|reviews.shop.svc.cluster.local");
    let [target] = &branch.endpoints[..] else { panic!("{branch:#?}") };
    assert_eq!(
        (&*target.address, target.workload.as_deref()),
        ("10.0.0.2:8080", Some("shop/reviews-2"))
    );
    let makers: Vec<&str> =
        branch.steps[0].decided_by.iter().map(|decider| &*decider.object).collect();
    assert_eq!(makers, ["Service shop/reviews", "DestinationRule shop/reviews"]);

    let told = get(RULES, "web.shop", "http://reviews.shop/api", &["end-user: eve"]);
    let route = step(&told, Stage::Route);
    assert_eq!((&*route.name, &*route.nearly[0].name), ("rest", "jason"));
    assert_eq!(route.nearly[0].unmet, "header end-user is \"jason\"");
    assert_eq!(route.nearly[0].decided_by, [decider]);
    let shares: Vec<f64> = told.branches.iter().map(|branch| branch.share).collect();
    assert_eq!(shares, [90.0, 10.0]);
}

#[test]
fn what_a_proxy_answers_itself_reaches_nobody() {
    let told = get(RULES, "web.shop", "http://reviews/gone?a=1", &[]);
    let End::Answered { status: 301, what } = &told.client.end else { panic!("{told:#?}") };
    assert_eq!(what, "a redirect to http://reviews/here?a=1");
    assert_eq!(told.outcome(), Outcome::Answered);
    let told = get(RULES, "web.shop", "http://reviews/told", &[]);
    assert!(matches!(told.client.end, End::Answered { status: 418, .. }), "{told:#?}");
}

#[test]
fn a_preflight_is_answered_by_the_route_that_allows_its_origin() {
    let rules = RULES.replace(
        "  - name: rest\n",
        "  - name: rest\n    corsPolicy: {allowOrigins: [{exact: 'https://a.test'}], unmatchedPreflights: FORWARD}\n",
    );
    let ask = |method: &str, origin: &str| {
        let origin = format!("origin: {origin}");
        let headers = [&*origin, "access-control-request-method: GET"];
        let asked = (method, "http://reviews/x", &headers[..]);
        try_ask(&rules, &from("web.shop"), asked).expect("an explanation")
    };
    let told = ask("OPTIONS", "https://a.test");
    assert!(matches!(told.client.end, End::Answered { status: 200, .. }), "{told:#?}");
    assert!(step(&told, Stage::Filter).what.contains("as route \"rest\" says"), "{told:#?}");
    for (method, origin) in [("OPTIONS", "https://b.test"), ("GET", "https://a.test")] {
        assert_eq!(ask(method, origin).outcome(), Outcome::Reached, "{method} {origin}");
    }
}

#[test]
fn nobody_is_asked_about_what_has_no_route() {
    let edge = "
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec: {extensionProviders: [{name: opa, envoyExtAuthzHttp: {service: reviews.shop.svc.cluster.local, port: 80}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {istio: edge}}
spec: {serviceAccountName: edge, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test]}
  - {port: {number: 81, name: more, protocol: HTTP}, hosts: [a.test], tls: {httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec: {hosts: [a.test], gateways: [edge], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews, port: {number: 80}}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {selector: {matchLabels: {istio: edge}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}
";
    for (url, asked) in [
        ("http://a.test/a", true),
        ("http://a.test/b", false),
        ("http://b.test/a", false),
        ("http://a.test:81/b", true),
    ] {
        let asker = Asker::Gateway("edge".to_owned());
        let told = try_ask(edge, &asker, ("GET", url, &[])).expect("an explanation");
        assert_eq!(told.client.depends.len(), usize::from(asked), "{url}: {told:#?}");
    }
}

#[test]
fn filters_behind_the_token_see_the_route_that_its_claims_choose() {
    let keys = crate::ir::KeySet::nobodys();
    let edge = "
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {istio: edge}}
spec: {serviceAccountName: edge, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: edge, namespace: shop}
spec: {selector: {matchLabels: {istio: edge}}, jwtRules: [{issuer: 'https://a.test', jwks: 'KEYS'}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [a.test]
  gateways: [edge]
  http:
  - match: [{headers: {'@request.auth.claims.group': {exact: staff}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: reviews, port: {number: 80}}}]
  - route: [{destination: {host: reviews, port: {number: 80}}}]
";
    let text = [&MESH.replace("READY", "True"), edge].concat().replace("KEYS", keys.as_str());
    let token =
        "authorization: Bearer e30.eyJpc3MiOiJodHRwczovL2EudGVzdCIsImdyb3VwIjoic3RhZmYifQ.x";
    for (headers, expected) in [(&[token][..], Some(418)), (&[], None)] {
        let asker = Asker::Gateway("edge".to_owned());
        let told = ask_verified(&text, &asker, ("GET", "http://a.test/", headers), &Anybody);
        let end = told.expect("an explanation").client.end;
        let status = match end {
            End::Refused { status, .. } => status,
            _ => None,
        };
        assert_eq!(status, expected, "{headers:?}: {end:?}");
    }
}

#[test]
fn a_server_that_takes_mutual_tls_alone_refuses_plaintext() {
    let strict = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
";
    let told = get(strict, "web.shop", "http://reviews/", &[]);
    assert_eq!(told.outcome(), Outcome::Reached, "{told:#?}");
    let tls = &told.branches[0].servers[0].hop.steps[0];
    assert!(tls.what.contains("spiffe://cluster.local/ns/shop/sa/web"), "{tls:?}");
    let plain = format!(
        "{strict}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: plain, namespace: bank}}
spec: {{host: reviews.shop.svc.cluster.local, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}
"
    );
    let told = get(&plain, "teller.bank", "http://reviews.shop/", &[]);
    let hop = &told.branches[0].servers[0].hop;
    assert!(matches!(&hop.end, End::Refused { status: Some(503), .. }), "{told:#?}");
    let last = hop.steps.last().expect("a step");
    assert_eq!(last.decided_by[0].object, "PeerAuthentication shop/strict");
    assert_eq!(told.outcome(), Outcome::Failed);
}

#[test]
fn access_is_judged_by_who_the_client_is_and_dry_runs_refuse_nobody() {
    let policies = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web-only, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - to: [{operation: {paths: [/health]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules: [{to: [{operation: {methods: [GET]}}]}]
";
    let told = get(policies, "web.shop", "http://reviews/", &[]);
    assert_eq!(told.outcome(), Outcome::Reached, "{told:#?}");
    let steps = &told.branches[0].servers[0].hop.steps;
    let tried = steps.iter().find(|step| step.name == "access, dry run").expect("a dry run");
    assert!(tried.what.contains("would be refused"), "{steps:#?}");
    let mut allowing = steps.iter().filter(|step| step.name == "access");
    let allowed = allowing.find_map(|step| step.decided_by.first()).expect("a decider");
    assert_eq!(allowed.field.as_deref(), Some("spec.rules[1]"));
    assert_eq!(allowed.at, Some(line(policies, "- from: [{source: {principals")));
    let told = get(policies, "teller.bank", "http://reviews.shop/", &[]);
    let hop = &told.branches[0].servers[0].hop;
    assert!(matches!(&hop.end, End::Refused { status: Some(403), .. }), "{told:#?}");
    let last = hop.steps.last().expect("a step");
    assert!(last.nearly.iter().any(|near| near.unmet == "the caller is another"), "{last:#?}");
    let health = get(policies, "teller.bank", "http://reviews.shop/health", &[]);
    assert_eq!(health.outcome(), Outcome::Reached, "{health:#?}");
}

#[test]
fn endpoints_that_are_not_healthy_get_nothing() {
    let to_v2 = RULES.replace("subset: v1}, weight: 90", "subset: v2}, weight: 90");
    let text = [&MESH.replace("READY", "False"), &*to_v2].concat();
    let told = ask_in(&text, &from("web.shop"), ("GET", "http://reviews/", &[])).expect("told");
    let branch = &told.branches[0];
    assert!(matches!(branch.end, End::Nowhere { status: Some(503), .. }), "{branch:#?}");
    assert_eq!(told.outcome(), Outcome::Failed);
}

#[test]
fn what_a_client_does_not_see_is_told_with_what_is_in_the_way() {
    let registry_only = "
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
";
    let told = get(registry_only, "web.shop", "http://unknown.test/", &[]);
    assert!(matches!(told.client.end, End::Nowhere { status: Some(502), .. }), "{told:#?}");
    let told = get("", "web.shop", "http://unknown.test/", &[]);
    assert_eq!(told.branches[0].cluster, "PassthroughCluster");
    let nearly = |told: &Explanation| {
        let steps = told.client.steps.iter();
        let all: Vec<String> =
            steps.flat_map(|step| &step.nearly).map(|near| near.unmet.clone()).collect();
        all.join("; ")
    };
    let told = get(registry_only, "web.shop", "http://reviews:81/", &[]);
    assert!(nearly(&told).contains("it has no port 81, but 80, 7000"), "{told:#?}");
    let scope = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: bank}
spec: {egress: [{hosts: ['./*']}]}
";
    let told = get(scope, "teller.bank", "http://reviews.shop/", &[]);
    assert!(nearly(&told).contains("Sidecar bank/default does not list it"), "{told:#?}");
    let own = MESH.replacen(
        "{name: reviews, namespace: shop}",
        "{name: reviews, namespace: shop, annotations: {networking.istio.io/exportTo: '.'}}",
        1,
    );
    let own = own.replace("READY", "True");
    let told = ask_in(&own, &from("teller.bank"), ("GET", "http://reviews.shop/", &[]));
    let told = told.expect("an explanation");
    assert!(nearly(&told).contains("does not show it to bank"), "{told:#?}");
}

#[test]
fn a_gateway_serves_what_is_bound_to_it() {
    let edge = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.test], tls: {httpsRedirect: true}}
  - {port: {number: 8080, name: more, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: c, httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.test]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /reviews}}], route: [{destination: {host: reviews, port: {number: 80}}}]}]
";
    let ask_with = |url: &str, headers: &[&str]| {
        let asker = Asker::Gateway("edge".to_owned());
        try_ask(edge, &asker, ("GET", url, headers)).expect("an explanation")
    };
    let ask = |url: &str| ask_with(url, &[]);
    // What a client says of its scheme is not believed.
    for headers in [&[][..], &["x-forwarded-proto: https"]] {
        let told = ask_with("http://shop.test/reviews", headers);
        assert!(matches!(told.client.end, End::Answered { status: 301, .. }), "{told:#?}");
    }
    let told = ask_with("https://shop.test/reviews", &["x-forwarded-proto: http"]);
    assert_eq!(told.outcome(), Outcome::Reached, "{told:#?}");
    let other = ask("https://other.test/reviews").client.end;
    assert!(matches!(other, End::Refused { status: None, .. }), "{other:?}");
    let told = ask("http://shop.test:8080/reviews");
    assert_eq!(told.outcome(), Outcome::Reached, "{told:#?}");
    let elsewhere = ask("http://shop.test:8080/");
    assert!(matches!(elsewhere.client.end, End::Nowhere { status: Some(404), .. }));
    assert_eq!(step(&elsewhere, Stage::Route).nearly[0].unmet, "the path begins with \"/reviews\"");
    let closed = ask("http://shop.test:9999/");
    assert!(matches!(closed.client.end, End::Nowhere { status: None, .. }), "{closed:#?}");
}

#[test]
fn who_asks_is_found_by_pod_owner_or_account_and_suggested_otherwise() {
    for name in ["web-1.shop", "web.shop", "shop/web", "web", "teller-1"] {
        let told = try_ask("", &from(name), ("GET", "http://reviews.shop/", &[]));
        assert!(told.is_ok(), "{name}: {told:?}");
    }
    let error = try_ask("", &from("wep.shop"), ("GET", "http://a/", &[])).expect_err("unknown");
    assert!(error.to_string().contains("did you mean web"), "{error}");
    let gateway = Asker::Gateway("edge".to_owned());
    let error = try_ask("", &gateway, ("GET", "http://a/", &[])).expect_err("unknown");
    assert!(error.to_string().contains("gateway \"edge\" is not known"), "{error}");
}

#[test]
fn what_nobody_can_tell_is_said() {
    let lua = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: lua, namespace: shop}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_OUTBOUND}
    patch:
      operation: INSERT_FIRST
      value:
        name: envoy.filters.http.lua
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: 'function envoy_on_request(h) end'}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ejects, namespace: bank}
spec:
  host: reviews.shop.svc.cluster.local
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}
";
    let told = get(lua, "web.shop", "http://reviews/", &[]);
    assert!(told.depends().iter().any(|on| on.contains("envoy.filters.http.lua")), "{told:#?}");
    let told = get(lua, "teller.bank", "http://reviews.shop/", &[]);
    let ejection = "after 3 answers with 5xx";
    assert!(told.depends().iter().any(|on| on.contains(ejection)), "{told:#?}");
}

#[test]
fn what_a_proxy_refuses_is_said_of_what_it_runs() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let objects = parse_file("mesh.yaml", MESH.replace("READY", "True").as_bytes()).objects;
    compiler.apply(objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect());
    let cluster = "outbound|80||reviews.shop.svc.cluster.local";
    let refused = BTreeMap::from([(
        (ResourceType::Cluster, Arc::from(cluster)),
        vec!["web-1.shop: no such suite".to_owned()],
    )]);
    let world =
        World { signatures: &Nobody, locate: &|_, _| None, running: &|_| None, refused: &refused };
    let request = Request::parse("GET", "http://reviews/", &[]).expect("a request");
    let told = explain(&mut compiler, &world, &from("web.shop"), &request).expect("told");
    assert!(told.depends().iter().any(|on| on.contains("no such suite")), "{told:#?}");
}
