//! From text to objects and findings, as users meet it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{
    istio::{mesh_config::MeshConfig, virtual_service::VirtualService},
    kubernetes::Secret,
    *,
};
use crate::diagnostic::{Diagnostic, Severity};

/// Checks the printed findings of a text, one to a line, each cut to what the table says.
fn check(text: &str, expected: &[&str]) {
    let parsed = parse_file("a.yaml", text.as_bytes());
    let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for (line, part) in found.iter().zip(expected) {
        assert!(line.contains(part), "{text}\n{line}\ndoes not say {part}");
    }
}

/// A VirtualService with one HTTP rule.
fn route(rule: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n  - route: [{{destination: {{host: a}}}}]\n    {rule}\n"
    )
}

/// A DestinationRule with this traffic policy.
fn backend(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  trafficPolicy: {policy}\n"
    )
}

#[test]
fn what_users_rightly_write_is_accepted_without_a_word_but_for_what_our_proxy_lacks() {
    let parsed = parse_file("valid.yaml", include_bytes!("testdata/valid.yaml"));
    let line = |d: &Diagnostic| format!("{} {} {}", d.severity, d.code, d.field);
    assert_eq!(
        parsed.diagnostics.iter().map(line).collect::<Vec<_>>(),
        ["warn FM0105 spec.ingress[1].defaultEndpoint",]
    );
    assert_eq!(parsed.objects.len(), 13);
}

/// An object of Istio's, with its kind's group.
fn istio(kind: &str, spec: &str) -> String {
    let group = match kind {
        "MeshConfig" => "mesh.istio.io/v1alpha1",
        "AuthorizationPolicy" => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: default}}\nspec: {spec}\n")
}

/// A Gateway with one HTTPS server that has these further fields.
fn server(fields: &str) -> String {
    istio(
        "Gateway",
        &format!(
            "{{servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, {fields}}}]}}"
        ),
    )
}

#[test]
fn lists_that_must_be_there_hold_something() {
    let table = [
        (istio("Sidecar", "{egress: [{hosts: []}]}"), "spec.egress[0].hosts: empty"),
        (server("hosts: [], tls: {mode: PASSTHROUGH}"), "spec.servers[0].hosts: empty"),
        (istio("Gateway", "{servers: []}"), "spec.servers: empty"),
        (
            istio("ServiceEntry", "{hosts: [], resolution: DNS, ports: []}"),
            "spec.hosts: empty, but one is required",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
}

#[test]
fn what_costs_a_whole_resource_is_said() {
    let mesh = |spec: &str| istio("MeshConfig", spec);
    let ours = "Ferromesh's own proxy refuses";
    let regex = |rewrite: &str| {
        route(&format!("rewrite: {{uriRegexRewrite: {{match: '/(a)', rewrite: '{rewrite}'}}}}"))
    };
    let tls = |fields: &str| {
        server(&format!("hosts: [a.test], tls: {{mode: SIMPLE, credentialName: a, {fields}}}"))
    };
    let table = [
        (mesh("{accessLogFile: /nonexist/dir/x}"), "spec.accessLogFile"),
        (
            mesh("{accessLogFile: relative/x}"),
            "expected one of /dev/stdout, /dev/stderr, /dev/null",
        ),
        (mesh("{accessLogFormat: '%DURATION:5%'}"), "takes no length"),
        (
            mesh("{accessLogEncoding: JSON, accessLogFormat: '{\"a\": {\"b\": \"%NO%\"}}'}"),
            "not a known command",
        ),
        (
            mesh("{defaultHttpRetryPolicy: {attempts: 1, retryOn: bogus}}"),
            "spec.defaultHttpRetryPolicy.retryOn",
        ),
        (
            backend("{connectionPool: {http: {maxConcurrentStreams: 2147483648}}}"),
            "maxConcurrentStreams: out of range",
        ),
        (regex("\\2"), "expected `\\0` to `\\1`, or `\\\\`"),
        (regex("a\\"), "names no group"),
        (
            route("rewrite: {uri: /b, uriRegexRewrite: {match: /a, rewrite: /c}}"),
            "only one of `uri`, `uriRegexRewrite`",
        ),
        (tls("maxProtocolVersion: TLSV1_1"), "expected at least TLSV1_2"),
        (tls("minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_1"), ours),
        (tls("cipherSuites: [AES128-SHA]"), ours),
        (tls("caCertificates: /ca.pem"), "caCertificates: no client certificate is asked for"),
        (
            istio(
                "Sidecar",
                "{ingress: [{port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: 'unix:///run/a'}]}",
            ),
            ours,
        ),
        (
            istio("WorkloadEntry", &format!("{{address: 'unix:///{}'}}", "a".repeat(107))),
            "expected a path of at most 107 bytes, got 108 bytes",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
    check(&regex("\\1-\\\\"), &[]);
}

#[test]
fn plaintext_by_omission_is_said() {
    let table = [
        (backend("{tls: {}}"), "warn[FM0207]"),
        (backend("{tls: {sni: a.test}}"), "error[FM0104]"),
        (backend("{tls: {mode: DISABLE, sni: a.test}}"), "the other fields do nothing"),
        (
            backend(
                "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
            ),
            "drops `tls: {mode: SIMPLE}`",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
    check(&backend("{tls: {mode: DISABLE}}"), &[]);
}

#[test]
fn a_server_has_a_name_for_its_port() {
    let spec = "{servers: [{port: {number: 443, protocol: HTTPS}, hosts: [a.test], tls: {mode: PASSTHROUGH}}]}";
    check(&istio("Gateway", spec), &["spec.servers[0].port.name: missing, but required"]);
}

#[test]
fn unknown_fields_are_named_with_what_was_meant() {
    let table = [
        (route("retry: {attempts: 1}"), "a.yaml:8:5: error[FM0101]: VirtualService default/a: spec.http[0].retry: unknown field, did you mean `retries`?; fix: rename it to `retries`"),
        (route("timeuot: 5s"), "did you mean `timeout`?"),
        (route("Timeout: 5s"), "did you mean `timeout`?"),
        (route("somethingElse: 5s"), "unknown field; known fields here: name, match, route"),
        (backend("{outlierDetection: {minRequestVolume: 10}}"), "no equivalent"),
        (backend("{outlierDetection: {consecutiveGatewayFailure: 5}}"), "rename it to `consecutiveGatewayErrors`"),
        (backend("{loadbalancer: {simple: RANDOM}}"), "rename it to `loadBalancer`"),
        ("apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\nspecs: {egress: [{hosts: ['*/*']}]}\n".to_owned(), "did you mean `spec`?"),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
}

#[test]
fn wrong_types_say_what_was_expected_and_how_to_write_it() {
    let table = [
        (
            route("timeout: 5"),
            "spec.http[0].timeout: wrong type: expected a duration such as `5s`, `1h30m` or `100ms`, got the number 5",
        ),
        (route("retries: {attempts: '3'}"), "fix: `3` without quotes"),
        (route("retries: {attempts: 1, retryOn: [5xx, reset]}"), r#"fix: "5xx,reset""#),
        (
            route("retries: {attempts: 1, retryOn: 5xx, perTryTimeout: soon}"),
            "wrong type: expected a duration",
        ),
        (
            route("match: {uri: {prefix: /}}"),
            "expected a list, got an object (IST0106); fix: begin it with `- `",
        ),
        (route("match: [{uri: /api}]"), r#"fix: {exact: "/api"}"#),
        (
            route("match: [{headers: {x: {exact: 1}}}]"),
            r#"spec.http[0].match[0].headers.x.exact: wrong type: expected text, got the number 1 (IST0106); fix: quote it: "1""#,
        ),
        (backend("{connectionPool: {tcp: {maxConnections: many}}}"), "expected a whole number"),
        (
            backend("{connectionPool: {tcp: {maxConnections: -1}}}"),
            "out of range: expected 0..=4294967295, got -1",
        ),
        (backend("{tls: {mode: mutual, clientCertificate: c, privateKey: k}}"), "fix: `MUTUAL`"),
        (
            backend("{tls: {mode: SIMPEL}}"),
            "expected one of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL, got `SIMPEL`",
        ),
        (backend("{tls: {mode: SIMPLE, insecureSkipVerify: 'yes'}}"), "fix: `true` without quotes"),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
}

#[test]
fn values_are_checked_by_their_meaning() {
    let table = [
        (route("timeout: 5s\n    redirect: {uri: /}"), "several actions"),
        (
            route("match: [{uri: {exact: /a, prefix: /b}}]"),
            "only one of `exact`, `prefix`, `regex`",
        ),
        (route("match: [{uri: {regex: '('}}]"), "not a regular expression"),
        (route("fault: {abort: {httpStatus: 99}}"), "out of range: expected 200..=599, got 99"),
        (route("fault: {delay: {percentage: {value: 150}, fixedDelay: 1s}}"), "0 to 100 percent"),
        (route("fault: {delay: {percentage: {value: 50}}}"), "fixedDelay: missing, but required"),
        (route("retries: {attempts: 1, retryOn: '5xx,conect-failure'}"), "fix: `connect-failure`"),
        (route("mirror: {host: 'http://b/x'}"), "a host, not a URL (IST0106); fix: `b`"),
        (
            backend("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}"),
            "only one of `simple`, `consistentHash`",
        ),
        (
            backend("{outlierDetection: {maxEjectionPercent: 150}}"),
            "out of range: expected 0..=100, got 150",
        ),
        (
            backend("{tls: {mode: MUTUAL}}"),
            "needs `clientCertificate` and `privateKey`, or `credentialName`",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
}

#[test]
fn security_policies_are_checked() {
    let access = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    let peer = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    let table = [
        (
            access("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/40]}}]}]}"),
            "not a network: expected an address or a network",
        ),
        (access("{rules: [{to: [{operation: {ports: ['http']}}]}]}"), "not a port"),
        (access("{rules: [{to: [{operation: {ports: [80]}}]}]}"), "fix: quote it: \"80\""),
        (
            access("{rules: [{when: [{key: 'request.header[x]', values: [a]}]}]}"),
            "not a known attribute",
        ),
        (
            access("{rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]}"),
            "fix: `a/ns/b/sa/c`",
        ),
        (
            access(
                "{rules: [{when: [{key: source.principal, notValues: ['spiffe://a/ns/b/sa/c']}]}]}",
            ),
            "notValues[0]: a principal is written without `spiffe://`",
        ),
        (
            access("{rules: [{from: [{source: {serviceAccounts: ['shop/*']}}]}]}"),
            "without `*`, got `shop/*`",
        ),
        (
            access("{rules: [{from: [{source: {notServiceAccounts: ['a/b/c']}}]}]}"),
            "not a service account",
        ),
        (
            access("{rules: [{when: [{key: source.serviceAccount, values: ['/a']}]}]}"),
            "not a service account",
        ),
        (access("{rules: [{from: [{source: {trustDomains: ['a/ns/b']}}]}]}"), "fix: `a`"),
        (
            access("{rules: [{when: [{key: source.trustDomain, values: ['a*b']}]}]}"),
            "`*` may only stand at one end",
        ),
        (
            access("{rules: [{when: [{key: 'request.headers[:methd]', values: [a]}]}]}"),
            "fix: `request.headers[:method]`",
        ),
        (
            access("{rules: [{when: [{key: 'request.headers[a', values: [a]}]}]}"),
            "fix: `request.headers[a]`",
        ),
        (access("{rules: [{when: [{key: destination.port, notValues: [http]}]}]}"), "not a port"),
        (
            access("{rules: [{to: [{operation: {paths: ['/*/a/{*}']}}]}]}"),
            "a template may hold only",
        ),
        (
            access("{rules: [{to: [{operation: {notPaths: ['/{**}/a/{*}']}}]}]}"),
            "`{**}` must be the last operator",
        ),
        (
            access("{rules: [{to: [{operation: {paths: ['{*}/a']}}]}]}"),
            "a template begins with `/`",
        ),
        (access("{rules: [{from: [{source: {}}]}]}"), "empty: it would match nobody in particular"),
        (
            access("{rules: [{to: [{operation: {paths: ['/a/{id}']}}]}]}"),
            "a template may hold only",
        ),
        (
            access("{action: DENY}"),
            "error[FM0103]: AuthorizationPolicy default/a: spec.action: action DENY without rules",
        ),
        (access("{action: CUSTOM, rules: [{}]}"), "spec.provider: missing"),
        (
            peer("{mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}"),
            "needs a `selector`",
        ),
        (
            peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: DISABLE}}}"),
            "expected a port number",
        ),
        (peer("{mtls: {mode: strict}}"), "fix: `STRICT`"),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
    let taken = [
        "{action: DENY, rules: [{when: [{key: 'request.headers[:method]', values: [GET]}, {key: 'request.headers[:path]', notValues: [/]}]}]}",
        "{action: DENY, rules: [{when: [{key: 'request.headers[:authority]', values: [a]}, {key: 'request.headers[accept]', values: ['text/*']}]}]}",
        "{rules: [{from: [{source: {principals: ['*.corp/ns/a/sa/b', '*'], trustDomains: ['*.corp']}}]}]}",
        "{rules: [{to: [{operation: {paths: ['/a/{*}/{**}', '/b/{**}/c']}}]}]}",
    ];
    for spec in taken {
        let findings = parse_file("a", access(spec).as_bytes()).diagnostics;
        assert!(findings.is_empty(), "{spec}: {findings:?}");
    }
    assert!(
        parse_file(
            "a",
            peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}}}")
                .as_bytes()
        )
        .diagnostics
        .is_empty()
    );
}

/// A Gateway with these servers.
fn gateway(servers: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: a}}\nspec: {{servers: [{servers}]}}\n"
    )
}

#[test]
fn tls_on_a_plaintext_server_is_an_error_but_for_the_redirect() {
    let server = |protocol: &str, tls: &str| {
        gateway(&format!(
            "{{port: {{number: 80, name: p, protocol: {protocol}}}, hosts: [a.b], tls: {tls}}}"
        ))
    };
    for protocol in ["HTTP", "http", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"] {
        for tls in [
            "{mode: MUTUAL, credentialName: c}",
            "{mode: SIMPLE}",
            "{credentialName: c}",
            "{httpsRedirect: true, mode: MUTUAL, credentialName: c}",
            "{minProtocolVersion: TLSV1_3}",
            "{subjectAltNames: [a]}",
        ] {
            check(&server(protocol, tls), &["spec.servers[0].tls: a server of protocol"]);
        }
        for tls in ["{httpsRedirect: true}", "{httpsRedirect: true, mode: PASSTHROUGH}", "{}"] {
            check(&server(protocol, tls), &[]);
        }
    }
    check(&server("TCP", "{mode: SIMPLE, credentialName: c}"), &["fix: `protocol: TLS`"]);
    check(&server("TLS", "{mode: SIMPLE, credentialName: c}"), &[]);
    check(
        &server("TLS", "{mode: SIMPLE, credentialName: c, httpsRedirect: true}"),
        &["warn[FM0207]: Gateway default/a: spec.servers[0].tls.httpsRedirect"],
    );
}

#[test]
fn words_that_go_to_the_proxy_as_they_are_must_be_known_to_it() {
    let https = |more: &str| {
        gateway(&format!(
            "{{port: {{number: 443, name: s, protocol: HTTPS}}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, {more}}}}}"
        ))
    };
    let mesh = |block: &str| format!("mesh:\n  {block}\n");
    let refused = [
        (
            https("cipherSuites: [X]"),
            "tls.cipherSuites[0]: not a cipher suite that proxies know: expected one of ECDHE-",
        ),
        (
            https("cipherSuites: [ECDHE-RSA-AES128-GCM-SHA265]"),
            "fix: `ECDHE-RSA-AES128-GCM-SHA256`",
        ),
        (https("cipherSuites: ['']"), "not a cipher suite"),
        (https("minProtocolVersion: TLSV1_4"), "not a known value: expected one of TLS_AUTO"),
        (
            backend("{tls: {mode: SIMPLE, caCertificates: /a, sni: a}}")
                .replace("SIMPLE", "SIMPLEST"),
            "fix: `SIMPLE`",
        ),
    ];
    for (text, expected) in refused {
        check(&text, &[expected]);
    }
    for text in [
        https("ecdhCurves: [P-257]"),
        mesh("meshMTLS: {ecdhCurves: [P-257]}"),
        mesh("meshMTLS: {cipherSuites: [X]}"),
        mesh("tlsDefaults: {cipherSuites: [X]}"),
    ] {
        let found = parse_file("a.yaml", text.as_bytes()).diagnostics;
        assert!(found.iter().any(|d| d.message.ends_with("that proxies know")), "{found:?}");
    }
    check(
        &https("cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384], minProtocolVersion: TLSV1_2"),
        &[],
    );
}

#[test]
fn what_is_accepted_without_effect_is_said() {
    let tls = "{mode: SIMPLE, credentialName: c, subjectAltNames: [a]}";
    let server =
        format!("{{port: {{number: 443, name: s, protocol: HTTPS}}, hosts: [a.b], tls: {tls}}}");
    let table = [
        (
            gateway(&server),
            "warn[FM0207]: Gateway default/a: spec.servers[0].tls.subjectAltNames: no client",
        ),
        (
            route("match: [{uri: {regex: /a}, ignoreUriCase: true}]"),
            "spec.http[0].match[0].ignoreUriCase: a regex is compared as it is",
        ),
        (
            istio("MeshConfig", "{hboneIdleTimeout: 1s}"),
            "spec.hboneIdleTimeout: no effect: connections between",
        ),
        (
            istio("MeshConfig", "{defaultConfig: {meshId: a}}"),
            "info[FM0105]: MeshConfig default: spec.defaultConfig.meshId: no effect",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
    check(&route("match: [{uri: {prefix: /a}, ignoreUriCase: true}]"), &[]);
    check(&gateway(&server.replace("SIMPLE", "MUTUAL")), &[]);
}

#[test]
fn of_two_entries_for_one_thing_it_is_said_which_one_holds() {
    let settings =
        "[{port: {number: 80}, tls: {mode: SIMPLE}}, {port: {number: 80}, tls: {mode: DISABLE}}]";
    let second = "portLevelSettings[1]: a second block for port 80: the first holds";
    check(&backend(&format!("{{portLevelSettings: {settings}}}")), &[second]);
    let server = |number: u16| {
        format!("{{port: {{number: {number}, name: p, protocol: HTTP}}, hosts: [a.b]}}")
    };
    let servers = [server(80), server(81)].join(", ");
    check(
        &gateway(&servers),
        &["error[FM0103]: Gateway default/a: spec.servers[1].port.name: a second port `p`"],
    );
    let subsets = backend("{}").replace("trafficPolicy: {}", "subsets: [{name: v1}, {name: v1}]");
    check(&subsets, &["a second subset `v1`"]);
    let object = |kind: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    for key in ["08080", "+8080", "0"] {
        let ports = format!("{{\"{key}\": {{mode: STRICT}}, \"8080\": {{mode: DISABLE}}}}");
        let spec = format!("{{selector: {{matchLabels: {{a: b}}}}, portLevelMtls: {ports}}}");
        check(&object("PeerAuthentication", &spec), &["expected a port number 1..=65535"]);
    }
    for (port, expected) in
        [("+8080", &["not a port"][..]), ("0", &["no connection goes to port 0"]), ("08080", &[])]
    {
        let rules = format!("{{rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}");
        check(&object("AuthorizationPolicy", &rules), expected);
    }
}

#[test]
fn claims_of_tokens_are_for_gateways() {
    let claim = "'@request.auth.claims[group]': {exact: admin}";
    let service = |gateways: &str, matched: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a.test], {gateways}http: [{{match: [{{{matched}}}], route: [{{destination: {{host: a}}}}]}}]}}\n"
        )
    };
    let at_gateways = "gateways: [edge], ";
    for (gateways, matched, place) in [
        ("", format!("headers: {{{claim}}}"), "headers[\"@request.auth.claims[group]\"]: claims"),
        (
            "gateways: [edge, mesh], ",
            format!("withoutHeaders: {{{claim}}}"),
            "withoutHeaders[\"@request.auth",
        ),
        (at_gateways, format!("gateways: [mesh], headers: {{{claim}}}"), "alone"),
        (at_gateways, "headers: {'@request.auth.claims': {exact: a}}".to_owned(), "does not name"),
    ] {
        check(&service(gateways, &matched), &[place]);
    }
    for (gateways, own) in [(at_gateways, ""), ("gateways: [edge, mesh], ", "gateways: [edge], ")] {
        check(&service(gateways, &format!("{own}headers: {{{claim}}}")), &[]);
    }
}

#[test]
fn what_guards_access_and_is_not_served_is_an_error() {
    let object = |api: &str, kind: &str, spec: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n")
    };
    let table = [
        (
            object("access.smi-spec.io/v1alpha3", "TrafficTarget", "{}"),
            "TrafficTarget default/a: kind",
        ),
        (
            object("gateway.networking.k8s.io/v1", "BackendTLSPolicy", "{}"),
            "BackendTLSPolicy default/a: kind",
        ),
    ];
    for (text, place) in table {
        let parsed = parse_file("a.yaml", text.as_bytes());
        let errors: Vec<_> =
            parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
        let [error] = errors[..] else { panic!("{text}: {errors:#?}") };
        let line = error.to_string();
        assert!(
            line.contains("error[FM0011]") && line.contains(place),
            "{text}\n{line}\nis not about {place}"
        );
        assert!(parsed.objects.is_empty(), "{text} is in force");
        let value = crate::yaml::parse(&text).expect("YAML").expect("a document").to_json();
        let refused = parse_value(value).expect_err("refused as JSON too");
        assert!(
            refused.iter().any(|d| d.code == error.code && d.severity == error.severity),
            "{text}: {refused:#?}"
        );
    }
}

#[test]
fn a_sidecar_refuses_settings_of_tls_that_only_gateways_have() {
    let text = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a}
spec:
  ingress:
  - port: {number: 8443, name: https, protocol: HTTPS}
    defaultEndpoint: 127.0.0.1:8080
    tls:
      mode: MUTUAL
      serverCertificate: /etc/certs/a.crt
      privateKey: /etc/certs/a.key
      caCertificates: /etc/certs/ca.crt
      verifyCertificateSpki: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]
      verifyCertificateHash: ['0000000000000000000000000000000000000000000000000000000000000000']
      ecdhCurves: [P-256]
      subjectAltNames: [a.test]
      httpsRedirect: true
      credentialName: a
      credentialNames: [a, b]
      caCertCredentialName: a
      tlsCertificates: [{serverCertificate: /a, privateKey: /b, caCertificates: /c}]
";
    let parsed = parse_file("a.yaml", text.as_bytes());
    assert!(parsed.objects.is_empty());
    let found: BTreeSet<String> = parsed.diagnostics.iter().map(|d| d.field.to_string()).collect();
    for field in [
        "subjectAltNames",
        "httpsRedirect",
        "credentialName",
        "credentialNames",
        "caCertCredentialName",
        "tlsCertificates",
    ] {
        assert!(found.contains(&format!("spec.ingress[0].tls.{field}")), "{field}: {found:?}");
    }
}

#[test]
fn pins_of_clients_are_hashes_and_stand_where_clients_are_asked() {
    let server = |tls: &str| {
        let port = "port: {number: 443, name: s, protocol: HTTPS}";
        let tls = format!("tls: {{credentialName: c, {tls}}}");
        istio("Gateway", &format!("{{servers: [{{{port}, hosts: [a.test], {tls}}}]}}"))
    };
    let key = format!("{}=", "a".repeat(43));
    let pairs = vec!["0f"; 32].join(":");
    let table = [
        (format!("mode: MUTUAL, verifyCertificateSpki: ['{key}']"), None),
        (format!("mode: OPTIONAL_MUTUAL, verifyCertificateHash: ['{pairs}']"), None),
        (format!("mode: MUTUAL, verifyCertificateHash: ['{}']", "0F".repeat(32)), None),
        (format!("mode: SIMPLE, verifyCertificateSpki: ['{key}']"), Some("no client certificate")),
        (format!("mode: MUTUAL, verifyCertificateSpki: ['{key}=']"), Some("not a SHA-256")),
        (format!("mode: MUTUAL, verifyCertificateHash: ['{pairs}:00']"), Some("not a SHA-256")),
    ];
    for (tls, expected) in table {
        let parsed = parse_file("a.yaml", server(&tls).as_bytes());
        let errors: Vec<String> = parsed
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        match expected {
            None => assert_eq!(errors, [""; 0], "{tls}"),
            Some(words) => assert!(errors.len() == 1 && errors[0].contains(words), "{errors:?}"),
        }
    }
}

#[test]
fn text_that_is_no_object_is_never_quoted() {
    for text in ["s3cret\n", "\"s3cret\"\n", "s3cret: s3cret\n", "--- \n- s3cret\n"] {
        let parsed = parse_file("a.yaml", text.as_bytes());
        let said = parsed
            .diagnostics
            .iter()
            .map(|d| d.to_string().replace("s3cret:", ""))
            .collect::<String>();
        assert!(!said.is_empty() && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn kinds_and_versions_are_told_apart() {
    let named =
        |api: &str, kind: &str| format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n");
    let table = [
        (named("networking.istio.io/v2", "VirtualService"), "VirtualService has no version `v2`"),
        (named("networking.istio.io/v1", "VirtualSevice"), "fix: `VirtualService`"),
        (named("v1", "ServiceProfile"), "no kind ServiceProfile in `v1`; fix: `linkerd.io/v1alpha2`"),
        (
            named("securty.istio.io/v1", "AuthorizationPolicy"),
            "error[FM0008]: apiVersion: no kind AuthorizationPolicy in `securty.istio.io/v1`; fix: `security.istio.io/v1`",
        ),
        (
            named("policy.istio.io/v1", "PeerAuthentication"),
            "error[FM0008]: apiVersion: no kind PeerAuthentication in `policy.istio.io/v1`; fix: `security.istio.io/v1`",
        ),
        (
            named("Security.istio.io/v1", "AuthorizationPolicy"),
            "no kind AuthorizationPolicy in `Security.istio.io/v1`; fix: `security.istio.io/v1`",
        ),
        (named("v1", "Servce"), "error[FM0008]: kind: no kind Servce in `v1`; fix: `Service`"),
        (named("gateway.networking.k8s.io/v1alpha2", "UDPRoute"), "info[FM0009]"),
        (named("batch/v1", "Job"), "info[FM0009]: kind: kind Job of `batch/v1` means nothing to the mesh"),
        (
            named("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
            "info[FM0009]: TCPRoute default/a: kind: TCPRoute is not supported yet",
        ),
        (
            "kind: Service\nmetadata: {name: a}\n".to_owned(),
            "apiVersion: missing, or not a text: not an object; fix: apiVersion: v1",
        ),
        ("- a\n- b\n".to_owned(), "not an object: expected a map with apiVersion, kind and metadata, got a list of 2"),
        ("apiVersion: v1\nkind: Service\nspec: {}\n".to_owned(), "metadata.name: missing"),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namspace: b}\n".to_owned(),
            "metadata.namspace: unknown field, did you mean `namespace`?",
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: My_Service}\n".to_owned(), "not a valid name"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: 1}}\n".to_owned(),
            "metadata.labels.x: wrong type: expected text",
        ),
    ];
    for (text, expected) in table {
        check(&text, &[expected]);
    }
}

#[test]
fn a_broken_document_spoils_no_other() {
    let good =
        |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let text = format!(
        "{}---\nfoo: [\n---\n{}---\napiVersion: v1\napiVersion: v1\nkind: Pod\n---\n{}",
        good("a"),
        good("b"),
        good("c")
    );
    let parsed = parse_file("x.yaml", text.as_bytes());
    assert_eq!(parsed.objects.iter().map(|o| &*o.id.name).collect::<Vec<_>>(), ["a", "b", "c"]);
    let lines: Vec<u32> =
        parsed.diagnostics.iter().filter_map(|d| d.position.as_ref()).map(|p| p.line).collect();
    assert_eq!(parsed.diagnostics.len(), 2);
    assert!((5..=6).contains(&lines[0]) && lines[1] == 12, "{lines:?}");
}

#[test]
fn objects_with_errors_are_refused_and_still_readable() {
    let parsed = parse_file("a", route("retry: {attempts: 1}").as_bytes());
    assert!(parsed.objects.is_empty());
    let Some(spec) = parsed.rejected[0].object.content::<VirtualService>() else {
        panic!("a VirtualService")
    };
    assert_eq!(spec.http[0].retries.as_ref().and_then(|r| r.attempts), Some(1));
    assert_eq!(parsed.rejected[0].id.to_string(), "VirtualService default/a");
}

#[test]
fn lists_and_json_and_directives_are_read() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: networking.istio.io/v1\n  kind: Sidecar\n  metadata: {name: b}\n  spec: {egres: []}\n";
    let parsed = parse_file("l.yaml", list.as_bytes());
    assert_eq!(parsed.objects.len(), 1);
    let finding = parsed.diagnostics[0].to_string();
    assert!(
        finding.starts_with("l.yaml:10:10: error[FM0101]: Sidecar default/b: spec.egres: "),
        "{finding}"
    );
    let again = parsed.rejected[0]
        .object
        .locate(&crate::diagnostic::FieldPath::of("spec.egres"))
        .expect("a position");
    assert_eq!((again.line, again.col), (10, 10));
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\"}\n}";
    assert_eq!(parse_file("a.json", json.as_bytes()).objects.len(), 1);
    let bom =
        "\u{feff}%YAML 1.2\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n...\n";
    assert_eq!(parse_file("a", bom.as_bytes()).objects.len(), 1);
}

#[test]
fn the_mesh_configuration_has_three_forms() {
    let bare = "mesh:\n  trustDomain: a.b\n  enableAutoMTLS: true\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomain: a.b\n    enableAutoMTLS: true\n";
    let kind = "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: default}\nspec:\n  trustDomain: a.b\n  enableAutoMTLS: true\n";
    for (text, field) in [
        (bare, "mesh.enableAutoMTLS"),
        (map, "data.mesh.enableAutoMTLS"),
        (kind, "spec.enableAutoMTLS"),
    ] {
        let parsed = parse_file("m.yaml", text.as_bytes());
        assert_eq!(parsed.diagnostics.len(), 1, "{:?}", parsed.diagnostics);
        assert_eq!(parsed.diagnostics[0].field.to_string(), field);
        assert_eq!(parsed.diagnostics[0].fix.as_deref(), Some("rename it to `enableAutoMtls`"));
        let valid = parse_file("m.yaml", text.replace("MTLS", "Mtls").as_bytes());
        let mesh: &MeshConfig = valid.objects[0].content().expect("a mesh configuration");
        assert_eq!((&*mesh.trust_domain, mesh.enable_auto_mtls), ("a.b", Some(true)));
        assert_eq!(valid.objects[0].id.to_string(), "MeshConfig default");
    }
}

#[test]
fn only_the_root_namespace_configures_the_mesh() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: NS}\ndata: {mesh: 'trustDomain: a.b'}\n";
    let kind = "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: default, namespace: NS}\nspec: {trustDomain: a.b}\n";
    for (root, namespace, count) in [
        ("istio-system", "istio-system", 1),
        ("mesh", "mesh", 1),
        ("mesh", "istio-system", 0),
        ("istio-system", "shop", 0),
    ] {
        for text in [map, kind] {
            let text = text.replace("NS", namespace);
            let parsed = parse_file_in(root, "m.yaml", text.as_bytes());
            assert_eq!(parsed.objects.len(), count, "{root}: {text}");
            let said = parsed.diagnostics.iter().map(|d| (d.severity, d.message.contains(root)));
            let expected = if count == 0 { vec![(Severity::Info, true)] } else { vec![] };
            assert_eq!(said.collect::<Vec<_>>(), expected, "{root}: {text}");
        }
    }
    let unnamed = map.replace(", namespace: NS", "");
    assert!(parse_file("m.yaml", unnamed.as_bytes()).objects.is_empty());
    let values = "mesh: {trustDomain: a.b}\nreplicas: 3\n";
    let parsed = parse_file("values.yaml", values.as_bytes());
    assert!(parsed.objects.is_empty() && parsed.refused() == 1, "{:?}", parsed.diagnostics);
}

#[test]
fn what_cannot_be_text_is_said_in_one_finding() {
    let table: [(&[u8], &str); 4] = [
        (b"a: \0b", "binary"),
        (b"a: \xff\xff", "not UTF-8"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"a:\n\tb: 1\n", "not YAML"),
    ];
    for (bytes, expected) in table {
        let parsed = parse_file("x", bytes);
        assert!(
            parsed.diagnostics.len() == 1 && parsed.diagnostics[0].message.contains(expected),
            "{:?}",
            parsed.diagnostics
        );
    }
    let large = vec![b'#'; MAX_FILE_BYTES + 1];
    assert!(parse_file("x", &large).diagnostics[0].message.contains("at most 64 MiB"));
    let long = format!("a: \"{}\"\n", "x".repeat(crate::yaml::MAX_DOCUMENT_BYTES));
    assert!(parse_file("x", long.as_bytes()).diagnostics[0].message.contains("at most 10 MiB"));
}

#[test]
fn lists_hold_objects_and_lists_and_nothing_is_lost_of_them() {
    let service = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}"
        )
    };
    let list = |items: &str| format!("{{apiVersion: v1, kind: List, items: [{items}]}}");
    let inner = list(&format!("{}, {}", service("b"), list(&service("c"))));
    let parsed = parse_file("l.yaml", list(&format!("{}, {inner}", service("a"))).as_bytes());
    let names: Vec<&str> = parsed.objects.iter().map(|object| &*object.id.name).collect();
    assert_eq!((names, parsed.diagnostics.len()), (vec!["a", "b", "c"], 0));
    let of_one_kind = "{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}, spec: {ports: [{port: 80}]}}]}";
    let parsed = parse_file("l.yaml", of_one_kind.as_bytes());
    assert_eq!(
        (parsed.objects.len(), parsed.diagnostics.len()),
        (1, 0),
        "{:?}",
        parsed.diagnostics
    );
    for without in ["", ", items: ", ", items: {}", ", item: []"] {
        let text = format!("{{apiVersion: v1, kind: List{without}}}");
        let parsed = parse_file("l.yaml", text.as_bytes());
        assert_eq!((parsed.refused(), parsed.diagnostics.len()), (1, 1), "{text}");
    }
}

#[test]
fn what_is_required_says_something() {
    let rule = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: {host}, trafficPolicy: {{tls: {{mode: SIMPLE}}}}}}\n"
        )
    };
    for (host, refused) in [("''", true), ("", true), ("a.test", false)] {
        let parsed = parse_file("r.yaml", rule(host).as_bytes());
        assert_eq!(parsed.rejected.len(), usize::from(refused), "{host}: {:?}", parsed.diagnostics);
    }
}

#[test]
fn json_values_are_checked_as_files_are() {
    let valid = json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "a", "namespace": "b", "creationTimestamp": "2024-02-29T12:30:05Z", "resourceVersion": "7"}, "spec": {"mtls": {"mode": "STRICT"}}});
    let (object, findings) = parse_value(valid.clone()).expect("valid");
    assert!(findings.is_empty());
    assert_eq!(
        (object.id.to_string(), object.meta.created, &*object.meta.resource_version),
        ("PeerAuthentication b/a".to_owned(), 1_709_209_805, "7")
    );
    assert_eq!(object.to_json(), valid);
    assert_eq!(object.locate(&crate::diagnostic::FieldPath::root()), None);
    let mut wrong = valid;
    wrong["spec"]["mtls"]["mode"] = json!("STRICKT");
    let findings = parse_value(wrong).expect_err("a wrong mode");
    assert!(findings[0].severity == Severity::Error && findings[0].object.is_some());
    assert!(
        parse_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
            .is_err()
    );
    assert!(parse_value(json!(3)).is_err());
}

#[test]
fn a_secrets_content_is_never_printed() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/tls\ndata: {tls.crt: Y2VydA==, tls.key: c2VjcmV0, bad: [c2VjcmV0]}\nstringData: {x: c2VjcmV0}\n";
    let parsed = parse_file("s.yaml", text.as_bytes());
    let object = &parsed.rejected[0].object;
    let everything = format!("{parsed:?} {object:?} {:?} {}", object.place, object.to_json());
    assert!(!everything.contains("c2VjcmV0"), "{everything}");
    assert!(object.raw().to_string().contains("c2VjcmV0"));
    let whole = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: c2VjcmV0}}\ndata: c2VjcmV0\nstringData: [c2VjcmV0]\n";
    let parsed = parse_file("s.yaml", whole.as_bytes());
    let object = &parsed.rejected[0].object;
    let printed: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert!(
        !format!("{parsed:?} {:?} {} {printed:?}", object.meta, object.to_json())
            .contains("c2VjcmV0")
    );
    let object = &parse_file("s.yaml", text.as_bytes()).rejected[0].object;
    let secret: &Secret = object.content().expect("a Secret");
    assert_eq!(secret.data["tls.key"].expose(), "c2VjcmV0");
}

#[test]
fn thousands_of_findings_are_no_hang() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}",
        "- {apiVersion: v1, kind: Pod, metadata: {name: A}}\n".repeat(2_000)
    );
    assert_eq!(parse_file("x", text.as_bytes()).diagnostics.len(), 2_000);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(parse_file("x", &bytes));
    }

    #[test]
    fn any_json_in_any_kind_never_panics(kind in 0usize..kinds().count(), key in some_field(), value in some_value()) {
        let kind = kinds().nth(kind).expect("a kind").kind;
        let mut spec = serde_json::Map::new();
        spec.insert(key, value.clone());
        let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind_name(), "metadata": {"name": "a"}, "spec": spec, "data": value});
        drop(parse_value(object));
    }
}

fn some_field() -> impl Strategy<Value = String> {
    let known = [
        "hosts",
        "http",
        "tls",
        "tcp",
        "host",
        "subsets",
        "trafficPolicy",
        "servers",
        "selector",
        "ports",
        "endpoints",
        "rules",
        "mtls",
        "egress",
        "ingress",
        "containers",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), "[a-zA-Z]{1,12}"]
}

fn some_value() -> impl Strategy<Value = serde_json::Value> {
    let values =
        [json!(null), json!(-1), json!("x"), json!([1]), json!({"a": {}}), json!([{"name": "a"}])];
    prop::sample::select(values.to_vec())
}

/// The findings of a MeshConfig with these providers.
fn check_providers(providers: &str, expected: &[&str]) {
    check(&istio("MeshConfig", &format!("{{extensionProviders: [{providers}]}}")), expected);
}

#[test]
fn a_provider_is_one_thing_with_a_name_of_its_own() {
    let otel = "opentelemetry: {service: otel.tools.svc.cluster.local, port: 4317}";
    check_providers(&format!("{{name: a, {otel}}}"), &[]);
    check_providers(&format!("{{name: a, {otel}}}, {{name: A, prometheus: {{}}}}"), &["another"]);
    check_providers(&format!("{{name: a, {otel}, prometheus: {{}}}}"), &["exclude each other"]);
    check_providers("{name: a}", &["says nothing of what it provides"]);
    check_providers("{name: a, zipkin: {service: 'x/y.z', port: 0}}", &["port: out of range"]);
    check_providers("{name: a, zipkin: {service: 'a b', port: 1}}", &["is not a host name"]);
    let in_other_form = "{name: a, datadog: {service: a.b, port: 1}}";
    check_providers(in_other_form, &["sends no spans in this form"]);
    let chosen = format!("{{name: a, {}}}", otel.replace("4317}", "4317, dynatraceSampler: {tenant: t, clusterId: 1, httpService: {service: a.b, port: 1, http: {path: /s}}}}"));
    check_providers(&chosen, &["own proxy refuses listeners whose spans a service chooses"]);
    check_providers("{name: a, lightstep: {}}", &["no such tracer or log any more"]);
    let wrong = "{name: a, opentelemetry: {service: a.b, port: 1, http: {path: x, \
                 headers: [{name: ok, envName: X}, {name: 'a b', value: x}]}}}";
    check_providers(wrong, &["not a path", "envName: the control plane's", "not the name of"]);
    let file = "{name: a, envoyFileAccessLog: {path: /tmp/x, logFormat: {text: '%NO%'}}}";
    check_providers(file, &["cannot write there", "not a known command"]);
    let authorizer = "{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1, statusOnError: '99'}}";
    check_providers(authorizer, &["not a status that Envoy knows"]);
    let named = "{name: Opa, envoyExtAuthzGrpc: {service: a.b, port: 1}}";
    check_providers(named, &["a name of a-z"]);
    let headers = "{name: a, envoyExtAuthzHttp: {service: a.b, port: 1, \
                   headersToUpstreamOnAllow: ['*', 'x-*', '*-x', 'a*b'], \
                   includeAdditionalHeadersInCheck: {'a b': c}}}";
    check_providers(
        headers,
        &["[0]: `*` is not a header", "[3]: `a*b` is not", "not a header name"],
    );
    let log = "{name: a, envoyHttpAls: {service: a.b, port: 1}}";
    check_providers(log, &["own proxy refuses listeners whose log goes to a service"]);
    check_providers("{name: a, envoyOtelAls: {service: a.b, port: 1}}", &[]);
}

#[test]
fn default_providers_are_among_the_providers() {
    let with = |defaults: &str| {
        let providers = "[{name: a, envoyFileAccessLog: {path: /dev/stdout}}]";
        let spec = format!("{{extensionProviders: {providers}, defaultProviders: {defaults}}}");
        istio("MeshConfig", &spec)
    };
    check(&with("{accessLogging: [A, envoy], metrics: [prometheus]}"), &[]);
    check(&with("{tracing: [b]}"), &["no provider is called `b`"]);
    check(&with("{tracing: [a]}"), &["provider of something else"]);
}

/// The findings of a Telemetry with this spec.
fn check_telemetry(spec: &str, expected: &[&str]) {
    let head = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\n";
    check(&format!("{head}spec: {spec}\n"), expected);
}

#[test]
fn telemetry_says_what_proxies_can_tell() {
    check_telemetry("{tracing: [{randomSamplingPercentage: 12.5, customTags: {}}]}", &[]);
    check_telemetry("{tracing: [{randomSamplingPercentage: 101}]}", &["0 to 100 percent"]);
    let tags = "{a: {literal: {value: x}, header: {name: y}}, b: {header: {name: 'a b'}}, \
                c: {formatter: {value: '%NO%'}}}";
    check_telemetry(
        &format!("{{tracing: [{{customTags: {tags}}}]}}"),
        &["exactly one of", "not the name of a header", "not a known command"],
    );
    check_telemetry("{tracing: [{providers: [{name: a}]}]}", &[]);
    check_telemetry(
        "{accessLogging: [{filter: {expression: 'response.code >='}}]}",
        &["not a CEL expression"],
    );
    check_telemetry("{metrics: [{providers: [{name: prometheus}]}]}", &[]);
    let tag = "{tagOverrides: {a: {operation: UPSERT}}}";
    check_telemetry(
        &format!("{{metrics: [{{overrides: [{tag}]}}]}}"),
        &["tagOverrides.a.value: missing"],
    );
    let tag = |name: &str, value: &str| {
        let tag = format!("{{operation: UPSERT, value: \"{value}\"}}");
        format!("{{metrics: [{{overrides: [{{tagOverrides: {{{name}: {tag}}}}}]}}]}}")
    };
    for taken in ["request.host", "string(destination.port)", "has(request.host) ? 'a' : 'b'"] {
        check_telemetry(&tag("a_1", taken), &[]);
    }
    for name in ["1a", "a-b", "le", "__name__"] {
        check_telemetry(&tag(name, "request.host"), &["not the name of a label"]);
    }
    check_telemetry(&tag("a", "string(a"), &["not a CEL expression"]);
    check_telemetry(&tag("a", "(1)%(2)"), &["ends the expression"]);
    for refused in ["request.total_size", "filter_state['a']", "request.headers", "b'a'"] {
        let finding = "own proxy refuses listeners whose metrics have such a label";
        check_telemetry(&tag("a", refused), &[finding]);
    }
    let log = |text: &str| format!("{{accessLogging: [{{filter: {{expression: \"{text}\"}}}}]}}");
    check_telemetry(&log("request.headers == {} || request.size * 2 > 1"), &[]);
    check_telemetry(&log("'a' in filter_state"), &["own proxy refuses listeners with such a log"]);
    for metric in ["metric: GRPC_REQUEST_MESSAGES", "customMetric: mine"] {
        check_telemetry(
            &format!("{{metrics: [{{overrides: [{{match: {{{metric}}}, disabled: true}}]}}]}}"),
            &["no such metric"],
        );
    }
    check_telemetry(
        "{metrics: [{overrides: [{match: {customMetric: istio_requests_total}, disabled: true}]}]}",
        &[],
    );
    check_telemetry("{metrics: [{reportingInterval: 5s}]}", &["report nothing at intervals"]);
}
