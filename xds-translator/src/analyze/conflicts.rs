//! Objects of which one takes from another what both want, told by findings.

use super::{
    tests::{ADMIN, split_cart},
    *,
};
use crate::{diagnostic::Code, dialect::parse_files};

const EDGE: &str = "
apiVersion: v1
kind: Secret
metadata: {name: c, namespace: edge}
type: kubernetes.io/tls
data: {tls.crt: eA==, tls.key: eA==}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: edge, labels: {app: edge}}
spec: {containers: [{name: istio-proxy}]}
";

/// `NAME FIELD`, of every finding with this code on an input.
fn found(text: &str, code: Code) -> Vec<String> {
    let findings =
        analyze_input(&parse_files([("a.yaml", text.as_bytes())]), &MeshDefaults::default());
    let about = |finding: &Diagnostic| {
        let id = finding.object.as_ref().expect("an object");
        assert!(finding.position.is_some() && finding.fix.is_some(), "{finding:?}");
        format!("{} {}", id.name, finding.field)
    };
    findings.iter().filter(|f| f.code == code).map(about).collect()
}

fn gateway(name: &str, servers: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: edge}}\nspec: {{selector: {{app: edge}}, servers: [{servers}]}}\n"
    )
}

fn server(port: &str, protocol: &str, host: &str) -> String {
    let tls = match protocol {
        "HTTPS" => ", tls: {mode: SIMPLE, credentialName: c}",
        "TLS" => ", tls: {mode: PASSTHROUGH}",
        _ => "",
    };
    format!("{{port: {{number: {port}, name: p, protocol: {protocol}}}, hosts: [\"{host}\"]{tls}}}")
}

#[test]
fn servers_that_another_gateway_keeps_from_their_place_are_named() {
    let (http, https) = (server("80", "HTTP", "a.test"), server("443", "HTTPS", "a.test"));
    let table: [(&str, &str, &[&str]); 8] = [
        (&http, &server("80", "TCP", "*"), &["second spec.servers[0]"]),
        (&http, &server("80", "HTTP", "a.test"), &[]),
        (&http, &server("81", "TCP", "*"), &[]),
        (&https, &server("443", "HTTPS", "a.test"), &["second spec.servers[0]"]),
        (&https, &server("443", "HTTPS", "b.test"), &[]),
        (&https, &server("443", "TLS", "team/a.test"), &["second spec.servers[0]"]),
        (&https, &server("443", "HTTP", "a.test"), &["second spec.servers[0]"]),
        (&format!("{https}, {https}"), &http, &["first spec.servers[1]"]),
    ];
    for (first, second, expected) in table {
        let text = format!("{EDGE}{}{}", gateway("first", first), gateway("second", second));
        assert_eq!(found(&text, Code::ConflictingServers), expected, "{first} {second}");
    }
    let elsewhere = gateway("second", &server("80", "TCP", "*")).replace("app: edge", "app: other");
    let text = format!("{EDGE}{}{elsewhere}", gateway("first", &http));
    assert_eq!(found(&text, Code::ConflictingServers), [""; 0]);
}

#[test]
fn of_two_servers_for_plain_bytes_the_one_whose_routes_are_not_followed_is_named() {
    let routes = |name: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: edge}}\nspec: {{hosts: [\"*\"], gateways: [{name}], tcp: [{{route: [{{destination: {{host: db, port: {{number: 1}}}}}}]}}]}}\n"
        )
    };
    let tcp = server("9000", "TCP", "*");
    let gateways = format!("{EDGE}{}{}", gateway("first", &tcp), gateway("second", &tcp));
    let both = format!("{gateways}{}{}", routes("first"), routes("second"));
    assert_eq!(found(&both, Code::ConflictingServers), ["second spec.servers[0]"]);
    let one = format!("{gateways}{}", routes("second"));
    assert_eq!(found(&one, Code::ConflictingServers), [""; 0]);
}

#[test]
fn policies_with_different_selectors_that_meet_in_a_workload_are_named() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, tier: back}}
spec: {containers: [{name: istio-proxy}]}
";
    let strict = |name: &str, selector: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{matchLabels: {{{selector}}}}}, mtls: {{mode: STRICT}}}}\n"
        )
    };
    let sidecar = |name: &str, selector: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{workloadSelector: {{labels: {{{selector}}}}}, egress: [{{hosts: [\"*/*\"]}}]}}\n"
        )
    };
    let (app, tier, other) = ("app: cart", "tier: back", "app: other");
    let meeting = format!("{pod}{}{}{}", strict("a", app), strict("b", tier), sidecar("c", tier));
    assert_eq!(found(&meeting, Code::ConflictingPolicies), ["b spec.selector"]);
    let meeting = format!("{pod}{}{}", sidecar("a", app), sidecar("b", tier));
    assert_eq!(found(&meeting, Code::ConflictingPolicies), ["b spec.workloadSelector"]);
    let apart = format!("{pod}{}{}", strict("a", app), strict("b", other));
    assert_eq!(found(&apart, Code::ConflictingPolicies), [""; 0]);
}

#[test]
fn of_two_objects_that_start_the_same_proxies_the_one_without_effect_is_named() {
    let config = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
        )
    };
    let (all, others) = (config("a", "concurrency: 1"), config("b", "concurrency: 2"));
    assert_eq!(found(&format!("{all}{others}"), Code::ConflictingPolicies), ["b spec"]);
    let selecting = config("b", "selector: {matchLabels: {app: cart}}, concurrency: 2");
    assert_eq!(found(&format!("{all}{selecting}"), Code::ConflictingPolicies), [""; 0]);
    let again = config("c", "selector: {matchLabels: {app: cart}}");
    let both = format!("{selecting}{again}");
    assert_eq!(found(&both, Code::ConflictingPolicies), ["c spec.selector"]);
}

#[test]
fn a_credential_that_sidecars_do_not_use_is_named() {
    let rule = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec: {{host: a.test, {spec}}}\n"
        )
    };
    let credential = |path: &str, spec: &str| {
        let found = found(&rule(spec), Code::NoEffect);
        let expected: Vec<String> =
            Some(format!("r {path}")).filter(|_| !path.is_empty()).into_iter().collect();
        assert_eq!(found, expected, "{spec}");
    };
    let tls = "tls: {mode: SIMPLE, credentialName: c}";
    let policy = format!("trafficPolicy: {{{tls}}}");
    credential("spec.trafficPolicy.tls.credentialName", &policy);
    let port = format!("trafficPolicy: {{portLevelSettings: [{{port: {{number: 1}}, {tls}}}]}}");
    credential("spec.trafficPolicy.portLevelSettings[0].tls.credentialName", &port);
    let subset = format!("subsets: [{{name: v1, labels: {{v: a}}, {policy}}}]");
    credential("spec.subsets[0].trafficPolicy.tls.credentialName", &subset);
    credential("", &format!("workloadSelector: {{matchLabels: {{a: b}}}}, {policy}"));
    credential("", "trafficPolicy: {tls: {mode: SIMPLE}}");
}

#[test]
fn a_credential_of_a_rule_is_missed_where_its_clients_run() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\nspec: {hosts: [a.test], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart-1, namespace: shop, labels: {app: cart}}\nspec: {containers: [{name: istio-proxy}]}\n";
    let rule = |selector: &str, mode: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec: {{host: a.test, {selector} trafficPolicy: {{tls: {{mode: {mode}, credentialName: c}}}}}}\n"
        )
    };
    let secret = |name: &str, namespace: &str, key: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {{{key}: x}}\n"
        )
    };
    let missed = |rule: String, secrets: &str| {
        found(&format!("{pod}{entry}{rule}{secrets}"), Code::MissingCredential).len()
    };
    let cart = "workloadSelector: {matchLabels: {app: cart}},";
    let other = "workloadSelector: {matchLabels: {app: other}},";
    assert_eq!(missed(rule(cart, "MUTUAL"), ""), 2, "certificate and authority");
    assert_eq!(missed(rule(cart, "SIMPLE"), ""), 1, "the authority");
    assert_eq!(
        missed(rule(other, "MUTUAL"), "") + missed(rule("", "MUTUAL"), ""),
        0,
        "nobody asks"
    );
    assert_eq!(missed(rule(cart, "SIMPLE"), &secret("c", "shop", "ca.crt")), 0);
    assert_eq!(missed(rule(cart, "SIMPLE"), &secret("c", "shop", "tls.crt")), 1);
    assert_eq!(missed(rule(cart, "SIMPLE"), &secret("c-cacert", "shop", "cacert")), 0);
    assert_eq!(missed(rule(cart, "SIMPLE"), &secret("c", "bank", "ca.crt")), 1);
}

#[test]
fn a_credential_that_is_nowhere_is_said_of_its_gateway_while_no_pod_matches() {
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart-1, namespace: shop, labels: {app: cart}}\nspec: {containers: [{name: istio-proxy}]}\n";
    let gateway = |selector: &str, tls: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: shop}}\nspec: {{selector: {selector}, servers: [{{hosts: ['*'], port: {{number: 443, name: https, protocol: HTTPS}}, tls: {tls}}}]}}\n"
        )
    };
    let secret = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: bank}}\nstringData: {{tls.crt: x, tls.key: x, ca.crt: x}}\n"
        )
    };
    let missed = |text: String| found(&text, Code::MissingCredential);
    let door = "{istio: door}";
    let simple = gateway(door, "{mode: SIMPLE, credentialName: c}");
    let field = "g spec.servers[0].tls.credentialName";
    assert_eq!(missed(format!("{POD}{simple}")), [field]);
    assert_eq!(missed(format!("{POD}{simple}{}", secret("c"))), [""; 0], "its pods may come there");
    assert_eq!(missed(simple.trim_start_matches("---\n").to_owned()), [""; 0], "no pod is known");
    let sds = gateway(door, "{mode: SIMPLE, credentialName: 'sds://c'}");
    assert_eq!(missed(format!("{POD}{sds}")), [""; 0], "others have it");
    let mutual = gateway(door, "{mode: MUTUAL, credentialName: c, caCertCredentialName: d}");
    let ca = "g spec.servers[0].tls.caCertCredentialName";
    assert_eq!(missed(format!("{POD}{mutual}{}", secret("c"))), [ca]);
}

#[test]
fn a_subset_that_no_pod_belongs_to_is_named() {
    let rule = |version: &str| {
        let spec =
            format!("{{host: cart, subsets: [{{name: v1, labels: {{version: {version}}}}}]}}");
        let rule = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec: {spec}\n"
        );
        found(
            &format!(
                "{}{rule}",
                CART.replace("{app: cart}}\nspec: {cont", "{app: cart, version: v1}}\nspec: {cont")
            ),
            Code::EmptySubset,
        )
    };
    assert_eq!(rule("v1"), [""; 0]);
    assert_eq!(rule("v2"), ["r spec.subsets[0].labels"]);
}

#[test]
fn servers_that_overlap_and_let_other_clients_in_are_named() {
    let secret = "{port: {number: 443, name: q, protocol: HTTPS}, hosts: [secret.a.test], tls: {mode: MUTUAL, credentialName: c}}";
    let wide = server("443", "HTTPS", "*.a.test");
    let text = format!("{EDGE}{}", gateway("edge", &format!("{wide}, {secret}")));
    assert_eq!(found(&text, Code::ConflictingServers), ["edge spec.servers[0]"]);
    let alike = secret.replace("MUTUAL", "SIMPLE");
    let text = format!("{EDGE}{}", gateway("edge", &format!("{wide}, {alike}")));
    assert_eq!(found(&text, Code::ConflictingServers), [""; 0]);
}

const CART: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 90, targetPort: 9090}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: istio-proxy, ports: [{containerPort: 7070}]}]}
";

/// An object beside the service, of which the fields that take no effect are named.
fn beside_cart(group: &str, kind: &str, spec: &str) -> Vec<String> {
    let object = format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
    );
    let text = format!("{CART}{object}");
    let parsed = parse_files([("a.yaml", text.as_bytes())]);
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.diagnostics);
    let findings = analyze_input(&parsed, &MeshDefaults::default());
    let about = |f: &&Diagnostic| [Code::NoEffect, Code::ConflictingHosts].contains(&f.code);
    findings.iter().filter(about).map(|f| format!("{} {}", f.severity, f.field)).collect()
}

#[test]
fn ports_that_nobody_has_are_named() {
    let selector = "selector: {matchLabels: {app: cart}}";
    let peers = |port: u16| {
        let spec = format!("{{{selector}, portLevelMtls: {{{port}: {{mode: STRICT}}}}}}");
        beside_cart("security", "PeerAuthentication", &spec)
    };
    assert_eq!(peers(80), ["warn spec.portLevelMtls.80"]);
    assert_eq!(peers(1234), ["info spec.portLevelMtls.1234"]);
    assert!(peers(8080).is_empty() && peers(7070).is_empty());
    let access = |port: u16| {
        let spec = format!(
            "{{{selector}, action: DENY, rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}"
        );
        beside_cart("security", "AuthorizationPolicy", &spec)
    };
    assert_eq!(access(80), ["warn spec.rules[0].to[0].operation.ports"]);
    assert!(access(8080).is_empty());
    let backend = |policy: &str| {
        beside_cart(
            "networking",
            "DestinationRule",
            &format!("{{host: cart, trafficPolicy: {policy}}}"),
        )
    };
    let port = |port: u16| {
        backend(&format!(
            "{{portLevelSettings: [{{port: {{number: {port}}}, loadBalancer: {{simple: RANDOM}}}}]}}"
        ))
    };
    assert_eq!(port(8080), ["warn spec.trafficPolicy.portLevelSettings"]);
    assert!(port(80).is_empty());
    assert_eq!(backend("{tls: {mode: SIMPLE}}"), ["warn spec.trafficPolicy.tls"]);
    assert_eq!(backend("{tls: {mode: SIMPLE, sni: a}}"), ["info spec.trafficPolicy.tls"]);
    assert!(backend("{tls: {mode: SIMPLE, sni: a, subjectAltNames: [a]}}").is_empty());
}

#[test]
fn hosts_that_two_objects_define_are_named() {
    let entry = |host: &str| {
        let spec = format!(
            "{{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: DNS}}"
        );
        beside_cart("networking", "ServiceEntry", &spec)
    };
    assert_eq!(entry("cart.shop.svc.cluster.local"), ["warn spec.hosts"]);
    let adding = |name: &str| {
        let ports = format!("ports: [{{number: 80, name: {name}, protocol: HTTP}}]");
        let spec = format!(
            "{{hosts: [cart.shop.svc.cluster.local], {ports}, resolution: STATIC, endpoints: [{{address: 9.9.9.1}}]}}"
        );
        beside_cart("networking", "ServiceEntry", &spec)
    };
    assert!(adding("http").is_empty(), "its endpoints stand beside the Service's");
    assert_eq!(adding("web"), ["warn spec.hosts"], "no port of the Service is called so");
    assert!(entry("a.test").is_empty());
}

#[test]
fn what_entries_of_one_host_lose_to_each_other_is_named() {
    let entry = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [a.test], {spec}}}\n"
        )
    };
    let http = "resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]";
    let table: [(&str, &[&str]); 7] = [
        (http, &[]),
        ("resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]", &[]),
        ("resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]", &["b spec.hosts"]),
        (
            "resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: web, protocol: HTTP}]",
            &["b spec.ports[1]"],
        ),
        (
            "resolution: DNS, ports: [{number: 80, name: http, protocol: GRPC}]",
            &["b spec.ports[0]"],
        ),
        (&format!("{http}, location: MESH_INTERNAL"), &["b spec.location"]),
        (&format!("{http}, subjectAltNames: [b]"), &["b spec.subjectAltNames"]),
    ];
    for (second, expected) in table {
        let text = format!("{}{}", entry("a", http), entry("b", second));
        assert_eq!(found(&text, Code::ConflictingHosts), expected, "{second}");
    }
    let text = format!(
        "{}{}",
        entry("a", http),
        entry("b", "resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]")
    );
    let findings =
        analyze_input(&parse_files([("a.yaml", text.as_bytes())]), &MeshDefaults::default());
    let words =
        findings.iter().find(|f| f.code == Code::ConflictingHosts).map(|f| f.message.clone());
    let words = words.expect("a finding");
    assert!(words.contains("resolution") && words.contains("lose port 443"), "{words}");
}

#[test]
fn an_address_that_is_allocated_twice_is_named() {
    let entry = |host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}, namespace: shop}}\nspec: {{hosts: [{host}.test], resolution: DNS, ports: [{{number: 80, name: p, protocol: HTTP}}]}}\n"
        )
    };
    let twice = format!("{}{}", entry("h105"), entry("h362"));
    assert_eq!(found(&twice, Code::AddressesRequired), ["h362 spec.hosts"]);
    let given = entry("h105").replace("resolution", "addresses: [240.240.112.80], resolution");
    let twice = format!("{given}{}", entry("h362"));
    assert_eq!(found(&twice, Code::AddressesRequired), ["h362 spec.hosts"]);
    let apart = format!("{}{}", entry("h105"), entry("h363"));
    assert_eq!(found(&apart, Code::AddressesRequired), [""; 0]);
}

#[test]
fn ports_that_nothing_tells_apart_are_named() {
    let entry = |name: &str, protocol: &str, more: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [{name}.test], resolution: DNS, ports: [{{number: 5431, name: x, protocol: HTTP}}, {{number: 5432, name: p, protocol: {protocol}}}]{more}}}\n"
        )
    };
    let lost =
        |first: String, second: String| found(&format!("{first}{second}"), Code::AddressesRequired);
    let tcp = |name: &str| entry(name, "TCP", "");
    assert_eq!(lost(tcp("pg1"), tcp("pg2")), ["pg2 spec.ports[1]"]);
    let addressed = entry("pg2", "TCP", ", addresses: [10.8.0.1]");
    assert_eq!(lost(tcp("pg1"), addressed), [""; 0]);
    assert_eq!(lost(entry("pg1", "TLS", ""), entry("pg2", "TLS", "")), [""; 0], "told by SNI");
    assert_eq!(lost(entry("pg1", "MYSQL", ""), entry("pg2", "HTTP", "")), ["pg2 spec.ports[1]"]);
    let unseen = entry("pg2", "TCP", ", exportTo: [bank]");
    let first = entry("pg1", "TCP", ", exportTo: ['.']");
    assert_eq!(lost(first, unseen), [""; 0], "no client sees both");
}

#[test]
fn a_backend_without_a_port_of_the_split_service_is_named() {
    let text = split_cart("");
    assert_eq!(found(&text, Code::NoEffect), ["cart spec.backends[0].service"]);
    let same = text.replace(ADMIN, "");
    assert_eq!(found(&same, Code::NoEffect), [""; 0]);
}
