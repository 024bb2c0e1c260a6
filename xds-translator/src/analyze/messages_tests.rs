//! Each message of Istio's analysis on a text that deserves it, and not on its neighbour.

use std::collections::BTreeSet;

use super::{Fate, MESSAGES, analyze_input};
use crate::{
    diagnostic::{Diagnostic, Severity},
    dialect::parse_files,
    ir::MeshDefaults,
};

fn findings(text: &str) -> Vec<Diagnostic> {
    analyze_input(&parse_files([("a.yaml", text.as_bytes())]), &MeshDefaults::default())
}

fn object(kind: &str, name: &str, rest: &str) -> String {
    let api = match kind {
        "Namespace" | "Pod" | "Service" | "Secret" => "v1",
        "Deployment" => "apps/v1",
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => {
            "security.istio.io/v1"
        }
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        _ => "networking.istio.io/v1",
    };
    let namespace = if kind == "Namespace" { "" } else { ", namespace: shop" };
    // What begins with a comma is further metadata.
    let (meta, content) = match rest.strip_prefix(", ") {
        Some(rest) => rest.split_once('\n').unwrap_or((rest, "")),
        None => ("", rest),
    };
    let meta = if meta.is_empty() { String::new() } else { format!(", {meta}") };
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{namespace}{meta}}}\n{content}\n"
    )
}

fn rules(name: &str, spec: &str) -> String {
    object("VirtualService", name, &format!("spec: {{{spec}}}"))
}

fn backend(spec: &str) -> String {
    object("DestinationRule", "cart", &format!("spec: {{host: cart, {spec}}}"))
}

fn service(name: &str, rest: &str) -> String {
    object(
        "Service",
        name,
        &format!("spec: {{selector: {{app: cart}}, clusterIP: 10.0.0.1, ports: [{rest}]}}"),
    )
}

fn namespace(labels: &str) -> String {
    object("Namespace", "shop", &format!(", labels: {{{labels}}}\n"))
}

/// A pod with these further fields of metadata, and of its specification.
fn pod(meta: &str, spec: &str) -> String {
    object("Pod", "cart-1", &format!(", {meta}\nspec: {{{spec}}}\nstatus: {{podIP: 10.1.0.1}}"))
}

fn deployment(meta: &str, spec: &str) -> String {
    object(
        "Deployment",
        "cart",
        &format!(
            "spec: {{template: {{metadata: {{labels: {{app: cart}}{meta}}}, spec: {{{spec}}}}}}}"
        ),
    )
}

fn annotated(kind: &str, annotation: &str) -> String {
    object(kind, "shop", &format!(", annotations: {{{annotation}}}\n"))
}

fn gateway(spec: &str) -> String {
    object("Gateway", "edge", &format!("spec: {{{spec}}}"))
}

const CART: &str = "{name: http, port: 80}";
const EDGE: &str = "labels: {app: edge}";
const PROXY: &str = "containers: [{name: istio-proxy}]";
const SERVER: &str = "selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test]}]";

/// A filter with one patch, and further fields of the object.
fn filter(patch: &str, more: &str) -> String {
    object("EnvoyFilter", "patch", &format!("spec: {{{more}configPatches: [{{{patch}}}]}}"))
}

/// Code, a text that deserves the message, and one that does not.
fn table() -> Vec<(&'static str, String, String)> {
    let route = "route: [{destination: {host: cart}}]";
    let cart = service("cart", CART);
    let edge = |extra: &str| {
        let rest = format!(
            "spec: {{selector: {{app: edge}}, clusterIP: 10.0.0.2, ports: [{{name: http, port: 80}}{extra}]}}"
        );
        pod(EDGE, PROXY) + &object("Service", "edge", &rest)
    };
    let split = |subset: &str| format!("route: [{{destination: {{host: cart{subset}}}}}]");
    let tls = |fields: &str| backend(&format!("trafficPolicy: {{tls: {{mode: SIMPLE{fields}}}}}"));
    let port_tls = |fields: &str| {
        backend(&format!(
            "trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: SIMPLE{fields}}}}}]}}"
        ))
    };
    let sidecar = |name: &str, selector: &str| {
        object("Sidecar", name, &format!("spec: {{{selector}egress: [{{hosts: ['./*']}}]}}"))
    };
    let of_cart = "workloadSelector: {labels: {app: cart}}, ";
    let policy = |spec: &str| object("AuthorizationPolicy", "guard", &format!("spec: {{{spec}}}"));
    let from =
        |name: &str| policy(&format!("rules: [{{from: [{{source: {{namespaces: [{name}]}}}}]}}]"));
    let injected = || namespace("istio-injection: enabled");
    let cart_pod = |spec: &str| pod("labels: {app: cart}", spec);
    let entry = |name: &str, protocol: &str, addresses: &str| {
        object(
            "ServiceEntry",
            name,
            &format!(
                "spec: {{hosts: [x.test], resolution: DNS, ports: [{{number: 80, name: a, protocol: {protocol}}}]{addresses}}}"
            ),
        )
    };
    let two_rules = |first: &str, second: &str| {
        cart.clone()
            + &rules(
                "cart",
                &format!("hosts: [cart], http: [{{{first}{route}}}, {{{second}{route}}}]"),
            )
    };
    let matched = |prefix: &str| format!("match: [{{uri: {{prefix: {prefix}}}}}], ");
    let bound = |host: &str| {
        cart.clone()
            + &gateway(SERVER)
            + &rules("cart", &format!("hosts: [{host}], gateways: [edge], http: [{{{route}}}]"))
    };
    let login = object(
        "RequestAuthentication",
        "login",
        "spec: {jwtRules: [{issuer: 'https://login.test'}]}",
    );
    let claimed = |more: &str| {
        let of_group = "match: [{headers: {'@request.auth.claims.group': {exact: a}}}], ";
        edge("")
            + &cart
            + &gateway(SERVER)
            + &rules(
                "a",
                &format!("hosts: [a.test], gateways: [edge], http: [{{{of_group}{route}}}]"),
            )
            + more
    };
    let external = |name: &str| {
        object(
            "Service",
            "out",
            &format!(
                "spec: {{type: ExternalName, externalName: a.test, ports: [{{name: {name}, port: 80}}]}}"
            ),
        )
    };
    let credential = |data: &str| {
        edge(", {name: https, port: 443}")
            + &object("Secret", "c", &format!("type: kubernetes.io/tls\ndata: {{{data}}}"))
            + &gateway(
                "selector: {app: edge}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: c}}]",
            )
    };
    let condition = |status: &str| {
        object(
            "ServiceEntry",
            "x",
            &format!(
                "spec: {{hosts: [x.test], resolution: DNS}}\nstatus: {{conditions: [{{type: istio.io/WaypointBound, status: '{status}'}}]}}"
            ),
        )
    };
    let router = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
    let insert = |operation: &str, more: &str| {
        let at = "match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.cors}}}}}";
        filter(
            &format!(
                "applyTo: HTTP_FILTER, {at}, patch: {{operation: {operation}, value: {router}}}"
            ),
            more,
        )
    };
    let services =
        |second: &str| injected() + &cart + &service("other", second) + &deployment("", "");
    let subset = |version: &str| {
        cart.clone()
            + &pod("labels: {app: cart, version: v1}", PROXY)
            + &backend(&format!("subsets: [{{name: v1, labels: {{version: {version}}}}}]"))
    };
    let secret = "tls.crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==, tls.key: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCg==";
    vec![
        (
            "IST0002",
            cart.clone()
                + &rules(
                    "a",
                    &format!(
                        "hosts: [cart], http: [{{{route}, fault: {{delay: {{fixedDelay: 1s, percent: 5}}}}}}]"
                    ),
                ),
            cart.clone()
                + &rules(
                    "a",
                    &format!(
                        "hosts: [cart], http: [{{{route}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 5}}}}}}}}]"
                    ),
                ),
        ),
        (
            "IST0101",
            rules("a", &format!("hosts: [cart], http: [{{{route}}}]")),
            cart.clone() + &rules("a", &format!("hosts: [cart], http: [{{{route}}}]")),
        ),
        ("IST0101", injected() + &from("ship"), injected() + &from("sh*")),
        ("IST0101", cart_pod(PROXY) + &gateway(SERVER), edge("") + &gateway(SERVER)),
        (
            "IST0101",
            pod(EDGE, PROXY) + &sidecar("a", of_cart),
            cart_pod(PROXY) + &sidecar("a", of_cart),
        ),
        ("IST0102", namespace("a: b"), namespace("istio-injection: disabled")),
        (
            "IST0103",
            injected() + &cart_pod("containers: [{name: app}]"),
            injected() + &cart_pod(PROXY),
        ),
        (
            "IST0103",
            injected() + &cart_pod("containers: [{name: app}]"),
            injected()
                + &pod("labels: {sidecar.istio.io/inject: 'false'}", "containers: [{name: app}]"),
        ),
        (
            "IST0106",
            rules("a", "hosts: [cart]"),
            cart.clone() + &rules("a", &format!("hosts: [cart], http: [{{{route}}}]")),
        ),
        (
            "IST0107",
            annotated("Service", "sidecar.istio.io/proxyCPU: '1'"),
            annotated("Service", "networking.istio.io/exportTo: '*'"),
        ),
        (
            "IST0107",
            annotated("Deployment", "sidecar.istio.io/proxyCPU: '1'"),
            deployment(", annotations: {sidecar.istio.io/proxyCPU: '1'}", ""),
        ),
        (
            "IST0108",
            annotated("Service", "sidecar.istio.io/proxyCPUs: '1'"),
            annotated("Service", "example.com/proxyCPUs: '1'"),
        ),
        (
            "IST0109",
            cart.clone()
                + &rules("a", &format!("hosts: [cart], http: [{{{route}}}]"))
                + &rules("b", &format!("hosts: [cart], http: [{{{route}}}]")),
            cart.clone()
                + &rules("a", &format!("hosts: [cart], http: [{{{route}}}]"))
                + &rules("b", &format!("hosts: [b.test], http: [{{{route}}}]")),
        ),
        (
            "IST0110",
            cart_pod(PROXY) + &sidecar("a", of_cart) + &sidecar("b", of_cart),
            cart_pod(PROXY) + &sidecar("a", of_cart) + &sidecar("b", ""),
        ),
        ("IST0111", sidecar("a", "") + &sidecar("b", ""), sidecar("a", "")),
        (
            "IST0116",
            services("{name: dns, port: 80, protocol: UDP}"),
            services("{name: dns, port: 81, protocol: UDP}"),
        ),
        ("IST0118", service("cart", "{name: web, port: 80}"), cart.clone()),
        (
            "IST0123",
            namespace("istio-injection: enabled, istio.io/rev: a"),
            namespace("istio-injection: disabled, istio.io/rev: a"),
        ),
        (
            "IST0125",
            pod("annotations: {sidecar.istio.io/interceptionMode: BOTH}", PROXY),
            pod("annotations: {sidecar.istio.io/interceptionMode: TPROXY}", PROXY),
        ),
        (
            "IST0125",
            pod("annotations: {traffic.sidecar.istio.io/excludeInboundPorts: '80,x'}", PROXY),
            pod("annotations: {traffic.sidecar.istio.io/excludeInboundPorts: '80, 81'}", PROXY),
        ),
        (
            "IST0125",
            pod("annotations: {sidecar.istio.io/proxyMemory: much}", PROXY),
            pod("annotations: {sidecar.istio.io/proxyMemory: 128Mi}", PROXY),
        ),
        (
            "IST0127",
            cart_pod(PROXY) + &policy("selector: {matchLabels: {app: x}}"),
            cart_pod(PROXY) + &policy("selector: {matchLabels: {app: cart}}"),
        ),
        ("IST0128", cart.clone() + &tls(""), cart.clone() + &tls(", caCertificates: /ca.pem")),
        (
            "IST0129",
            cart.clone() + &port_tls(""),
            cart.clone() + &port_tls(", caCertificates: /ca.pem"),
        ),
        ("IST0130", two_rules("", ""), two_rules(&matched("/a"), "")),
        (
            "IST0130",
            two_rules(&matched("/a"), &matched("/a/b")),
            two_rules(&matched("/a/b"), &matched("/a")),
        ),
        (
            "IST0131",
            two_rules(&matched("/a"), &matched("/a")),
            two_rules(&matched("/a"), &matched("/b")),
        ),
        ("IST0132", bound("b.test"), bound("a.test")),
        ("IST0133", cart.clone() + &backend("workloadSelector: {}"), cart.clone()),
        (
            "IST0134",
            entry("x", "TCP", "") + &entry("y", "TCP", "").replace("x.test", "y.test"),
            entry("x", "TCP", "")
                + &entry("y", "TCP", ", addresses: [10.9.0.1]").replace("x.test", "y.test"),
        ),
        (
            "IST0135",
            pod("annotations: {sidecar.istio.io/inject: 'true'}", PROXY),
            pod("labels: {sidecar.istio.io/inject: 'true'}", PROXY),
        ),
        (
            "IST0136",
            pod("annotations: {sidecar.istio.io/proxyCPU: '1'}", PROXY),
            pod("annotations: {proxy.istio.io/config: 'concurrency: 1'}", PROXY),
        ),
        (
            "IST0137",
            services("{name: http-b, port: 81, targetPort: 80}"),
            services("{name: http-b, port: 81, targetPort: 81}"),
        ),
        (
            "IST0140",
            cart.clone()
                + &gateway(SERVER)
                + &rules("a", &format!("hosts: [cart], http: [{{{}}}]", split(", subset: v1")))
                + &rules(
                    "b",
                    &format!("hosts: [a.test], gateways: [edge], http: [{{{}}}]", split("")),
                ),
            cart.clone()
                + &gateway(SERVER)
                + &rules("a", &format!("hosts: [cart], http: [{{{}}}]", split(", subset: v1")))
                + &rules(
                    "b",
                    &format!(
                        "hosts: [a.test], gateways: [edge], http: [{{{}}}]",
                        split(", subset: v1")
                    ),
                ),
        ),
        (
            "IST0144",
            deployment("", "securityContext: {runAsUser: 1337}"),
            deployment("", "securityContext: {runAsUser: 1338}"),
        ),
        (
            "IST0144",
            pod(EDGE, "containers: [{name: app, securityContext: {runAsUser: 1337}}]"),
            pod(EDGE, "containers: [{name: istio-proxy, securityContext: {runAsUser: 1337}}]"),
        ),
        (
            "IST0145",
            edge("")
                + &gateway(SERVER)
                + &object(
                    "Gateway",
                    "other",
                    "spec: {selector: {app: edge}, servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]}",
                ),
            edge("")
                + &gateway(SERVER)
                + &object(
                    "Gateway",
                    "other",
                    "spec: {selector: {app: edge}, servers: [{port: {number: 81, name: tcp, protocol: TCP}, hosts: ['*']}]}",
                ),
        ),
        (
            "IST0146",
            deployment("", "containers: [{name: istio-proxy, image: auto}]"),
            injected() + &deployment("", "containers: [{name: istio-proxy, image: auto}]"),
        ),
        (
            "IST0147",
            pod(EDGE, "containers: [{name: istio-proxy, image: auto}]"),
            pod(EDGE, "containers: [{name: istio-proxy, image: 'proxy:1'}]"),
        ),
        ("IST0149", claimed(""), claimed(&login)),
        ("IST0150", external("tcp"), external("tcp-web")),
        ("IST0150", external("web"), external("http")),
        ("IST0151", insert("INSERT_BEFORE", ""), insert("INSERT_BEFORE", "priority: 1, ")),
        (
            "IST0152",
            filter("applyTo: CLUSTER, patch: {operation: REPLACE, value: {name: a}}", ""),
            insert("REPLACE", "priority: 1, "),
        ),
        (
            "IST0153",
            filter("applyTo: ROUTE_CONFIGURATION, patch: {operation: ADD, value: {name: a}}", ""),
            filter("applyTo: CLUSTER, patch: {operation: ADD, value: {name: a}}", ""),
        ),
        (
            "IST0154",
            filter("applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}", ""),
            filter("applyTo: CLUSTER, patch: {operation: REMOVE}", ""),
        ),
        (
            "IST0161",
            edge(", {name: https, port: 443}")
                + &gateway(
                    "selector: {app: edge}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: c}}]",
                ),
            credential(secret),
        ),
        (
            "IST0162",
            edge("")
                + &gateway(
                    "selector: {app: edge}, servers: [{port: {number: 81, name: http, protocol: HTTP}, hosts: [a.test]}]",
                ),
            edge("") + &gateway(SERVER),
        ),
        ("IST0171", condition("False"), condition("True")),
        ("IST0173", subset("v2"), subset("v1")),
        (
            "IST0174",
            backend("trafficPolicy: {loadBalancer: {simple: RANDOM}}"),
            cart.clone() + &backend("trafficPolicy: {loadBalancer: {simple: RANDOM}}"),
        ),
        (
            "IST0177",
            entry("x", "HTTP", "") + &entry("y", "TLS", ""),
            entry("x", "HTTP", "") + &entry("y", "HTTP", ""),
        ),
    ]
}

#[test]
fn every_message_is_said_where_it_is_due() {
    let mistakes: Vec<String> = table()
        .iter()
        .flat_map(|(code, due, not_due)| {
            let missing = objection(code, due);
            let found = findings(not_due).into_iter();
            let said = found.filter(|d| d.istio_code == Some(code));
            let said = said.map(|d| format!("{code} on its neighbour: {d}\n{not_due}"));
            missing.into_iter().chain(said).collect::<Vec<String>>()
        })
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// What is wrong with the findings on a text that deserves a message.
fn objection(code: &str, text: &str) -> Option<String> {
    let severity = MESSAGES.iter().find(|m| m.code == code).expect("a message").severity;
    let found = findings(text);
    let said: Vec<&Diagnostic> = found.iter().filter(|d| d.istio_code == Some(code)).collect();
    let fits = |finding: &&&Diagnostic| {
        let placed = finding.object.is_some() && finding.position.is_some();
        let mended = finding.fix.is_some() || finding.expected.is_some() || code == "IST0171";
        // Who is to be selected may come later.
        let milder = code == "IST0101" && finding.message == "selects no workload";
        let severe = match severity {
            Severity::Error => finding.severity.fails_analysis() || milder,
            severity => finding.severity <= severity,
        };
        placed && mended && severe
    };
    if said.is_empty() {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        return Some(format!("no {code}:\n{text}\n{}", found.join("\n")));
    }
    said.iter().find(|finding| !fits(finding)).map(|finding| finding.to_string())
}

#[test]
fn the_table_has_a_text_for_every_message_that_is_found() {
    let tried: BTreeSet<&str> = table().iter().map(|(code, ..)| *code).collect();
    // Conditions on versions of proxies are refused until they are served.
    let refused = ["IST0155"];
    let found = MESSAGES.iter().filter(|m| matches!(m.fate, Fate::Found)).map(|m| m.code);
    let lacking: Vec<&str> =
        found.filter(|code| !tried.contains(code) && !refused.contains(code)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    assert!(MESSAGES.windows(2).all(|pair| pair[0].code < pair[1].code));
}

/// What `ARCHITECTURE.md` says of the messages is what the table says.
#[test]
fn the_documented_messages_are_these() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md"));
    for message in MESSAGES {
        let fate = match message.fate {
            Fate::Found => "found",
            Fate::Not(why) => why,
        };
        let row = format!("| {} | {} | {fate} |", message.code, message.name);
        assert!(text.contains(&row), "ARCHITECTURE.md lacks\n{row}");
    }
}
