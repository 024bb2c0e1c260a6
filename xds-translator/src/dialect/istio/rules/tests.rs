//! What istiod refuses is refused here at its field; what stands next to it is taken.

use crate::{
    diagnostic::{Diagnostic, Severity},
    dialect::{Kind, Parsed, parse_file},
};

/// The field that is named, what is refused, and what is taken in its place.
type Row<'a> = (&'a str, &'a str, &'a str);

fn parse(kind: Kind, name: &str, spec: &str) -> Parsed {
    let api_version = kind.api_version();
    let namespace = if kind.namespaced() { ", namespace: shop" } else { "" };
    let text = format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {spec}\n"
    );
    parse_file("a.yaml", text.as_bytes())
}

/// Checks rows that stand in the place of `$` in `frame`.
fn check(kind: Kind, frame: &str, rows: &[Row<'_>]) {
    let mistakes: Vec<String> = rows
        .iter()
        .flat_map(|(field, refused, taken)| {
            let refused = objection(&parse(kind, "a", &frame.replace('$', refused)), field);
            let taken = parse(kind, "a", &frame.replace('$', taken));
            let untaken = (taken.objects.len() != 1).then(|| format!("{:?}", taken.diagnostics));
            refused.into_iter().chain(untaken)
        })
        .collect();
    assert!(mistakes.is_empty(), "{kind}\n{}", mistakes.join("\n"));
}

/// What is wrong with findings that should refuse an object at a field, and nowhere else.
fn objection(parsed: &Parsed, field: &str) -> Option<String> {
    let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    let fields: Vec<String> = errors.map(|d| d.field.to_string()).collect();
    let placed = parsed.diagnostics.iter().all(|d| d.position.is_some());
    let named = fields.iter().all(|found| found.starts_with(field));
    let refused = fields.iter().any(|found| found == field) && parsed.objects.is_empty();
    (!(refused && named && placed)).then(|| format!("{field}: got {:?}", parsed.diagnostics))
}

/// Checks what is accepted with a warning, as Istio does, at a field.
fn warned(kind: Kind, frame: &str, rows: &[(&str, &str)]) {
    for (field, text) in rows {
        let parsed = parse(kind, "a", &frame.replace('$', text));
        let found: Vec<String> =
            parsed.diagnostics.iter().map(|d| format!("{} {}", d.severity, d.field)).collect();
        assert_eq!((parsed.objects.len(), found), (1, vec![format!("warn {field}")]), "{text}");
    }
}

/// A VirtualService with one rule.
const RULE: &str = "{hosts: [a.test], http: [{route: [{destination: {host: a.test}}], $}]}";
/// With one match.
const MATCH: &str =
    "{hosts: [a.test], http: [{match: [{$}], route: [{destination: {host: a.test}}]}]}";
/// With one rule that sends nothing on.
const ACTION: &str = "{hosts: [a.test], http: [{$}]}";

/// Of a part it is not known who continues in it.
#[test]
fn claims_are_asked_for_at_gateways_alone() {
    let claims = "{$, http: [{match: [{withoutHeaders: {'@request.auth.claims.group': {}}}], route: [{destination: {host: a.test}}]}]}";
    let field = "spec.http[0].match[0].withoutHeaders[\"@request.auth.claims.group\"]";
    let taken = "hosts: [a.test], gateways: [g]";
    check(
        Kind::VIRTUAL_SERVICE,
        claims,
        &[
            (field, "hosts: [a.test]", taken),
            (field, "hosts: [a.test], gateways: [g, mesh]", taken),
            (field, "exportTo: ['.']", taken),
        ],
    );
}

#[test]
fn virtual_services_have_hosts_and_rules() {
    let frame = "{$, http: [{route: [{destination: {host: a.test}}]}]}";
    check(
        Kind::VIRTUAL_SERVICE,
        frame,
        &[
            ("spec.hosts[0]", "hosts: ['*']", "hosts: ['*'], gateways: [g]"),
            ("spec.hosts[0]", "hosts: ['*'], gateways: [mesh, g]", "hosts: ['*'], gateways: [x/g]"),
            ("spec.hosts[0]", "hosts: [10.0.0.0/8]", "hosts: [10.0.0.7]"),
            ("spec.hosts[0]", "hosts: [a_b.test]", "hosts: [a-b.test]"),
            ("spec.hosts[0]", "hosts: [a.test.1]", "hosts: [1.a.test]"),
            ("spec.hosts[0]", "hosts: [-a]", "hosts: [a]"),
            ("spec.hosts[0]", "hosts: ['a.*']", "hosts: ['*.a']"),
            ("spec.hosts[1]", "hosts: [a, a]", "hosts: [a, b]"),
            ("spec.hosts[1]", "hosts: ['*.test', a.test]", "hosts: ['*.test', test]"),
            ("spec.hosts[1]", "hosts: ['*.b.test', '*.test']", "hosts: ['*.b.test', '*.c.test']"),
            ("spec.gateways[0]", "hosts: [a], gateways: [x/y/z]", "hosts: [a], gateways: [x/y]"),
            ("spec.gateways[0]", "hosts: [a], gateways: [x/]", "hosts: [a], gateways: [x]"),
            ("spec.gateways[0]", "hosts: [a], gateways: [x_y]", "hosts: [a], gateways: [x-y]"),
            ("spec.exportTo[0]", "hosts: [a], exportTo: ['~']", "hosts: [a], exportTo: ['.']"),
            ("spec.exportTo[0]", "hosts: [a], exportTo: [a.b]", "hosts: [a], exportTo: [a]"),
            ("spec.exportTo[1]", "hosts: [a], exportTo: [., shop]", "hosts: [a], exportTo: [., b]"),
            ("spec.exportTo[1]", "hosts: [a], exportTo: [b, b]", "hosts: [a], exportTo: [b, c]"),
            ("spec.exportTo", "hosts: [a], exportTo: ['*', b]", "hosts: [a], exportTo: ['*']"),
        ],
    );
    let frame = "{hosts: [a.test], $}";
    let rule = "{route: [{destination: {host: a}}]}";
    check(
        Kind::VIRTUAL_SERVICE,
        frame,
        &[
            ("spec", "http: []", "http: [{route: [{destination: {host: a}}]}]"),
            ("spec.http[0]", "http: [{}]", "http: [{redirect: {uri: /}}]"),
            ("spec.http[0]", "http: [{route: []}]", "http: [{directResponse: {status: 200}}]"),
        ],
    );
    let taken = format!(
        "{{hosts: [outbound_.80_._.a.test], gateways: [g], tls: [{{match: [{{sniHosts: [outbound_.80_._.a.test]}}], {}",
        &rule[1..]
    );
    let parsed = parse(Kind::VIRTUAL_SERVICE, "a", &format!("{taken}]}}"));
    assert_eq!(parsed.objects.len(), 1, "{:?}", parsed.diagnostics);
}

#[test]
fn conditions_on_requests_can_hold() {
    check(
        Kind::VIRTUAL_SERVICE,
        MATCH,
        &[
            ("spec.http[0].match[0].scheme.prefix", "scheme: {prefix: ''}", "scheme: {prefix: h}"),
            ("spec.http[0].match[0].method.regex", "method: {regex: ''}", "method: {regex: G.*}"),
            ("spec.http[0].match[0].uri.regex", "uri: {regex: ''}", "uri: {prefix: ''}"),
            ("spec.http[0].match[0].uri.regex", "uri: {regex: '('}", "uri: {regex: '()'}"),
            (
                "spec.http[0].match[0].authority.prefix",
                "authority: {prefix: ''}",
                "authority: {exact: ''}",
            ),
            (
                "spec.http[0].match[0].headers.x.prefix",
                "headers: {x: {prefix: ''}}",
                "headers: {x: {}}",
            ),
            (
                "spec.http[0].match[0].headers.x.regex",
                "headers: {x: {regex: '*'}}",
                "withoutHeaders: {x: {regex: '*'}}",
            ),
            (
                "spec.http[0].match[0].withoutHeaders.x.regex",
                "withoutHeaders: {x: {regex: '['}}",
                "withoutHeaders: {x: {regex: '[a]'}}",
            ),
            (
                "spec.http[0].match[0].queryParams.q.prefix",
                "queryParams: {q: {prefix: ''}}",
                "queryParams: {q: {exact: ''}}",
            ),
            (
                "spec.http[0].match[0].headers[\":path\"]",
                "headers: {':path': {exact: /}}",
                "uri: {exact: /}",
            ),
            (
                "spec.http[0].match[0].headers[\"x.y\"]",
                "headers: {x.y: {exact: a}}",
                "headers: {x_y: {exact: a}}",
            ),
            (
                "spec.http[0].match[0].withoutHeaders[\"\"]",
                "withoutHeaders: {'': {exact: a}}",
                "withoutHeaders: {a: {exact: a}}",
            ),
            ("spec.http[0].match[0].port", "port: 0", "port: 80"),
            ("spec.http[0].match[0].port", "port: 65536", "port: 65535"),
            (
                "spec.http[0].match[0].sourceLabels.a",
                "sourceLabels: {a: 'b c'}",
                "sourceLabels: {a: b}",
            ),
            (
                "spec.http[0].match[0].sourceLabels[\"-a\"]",
                "sourceLabels: {-a: b}",
                "sourceLabels: {x/a: ''}",
            ),
            ("spec.http[0].match[0].sourceNamespace", "sourceNamespace: a.b", "sourceNamespace: a"),
            ("spec.http[0].match[0].gateways[0]", "gateways: [a/b/c]", "gateways: [mesh]"),
        ],
    );
    let long = format!("uri: {{regex: '{}'}}", "a".repeat(1025));
    let parsed = parse(Kind::VIRTUAL_SERVICE, "a", &MATCH.replace('$', &long));
    assert!(parsed.diagnostics[0].to_string().contains("at most 1024 bytes, got 1025 bytes"));
}

#[test]
fn rules_of_http_do_what_they_say() {
    check(
        Kind::VIRTUAL_SERVICE,
        RULE,
        &[
            ("spec.http[0].timeout", "timeout: 0s", "timeout: 1ms"),
            ("spec.http[0].timeout", "timeout: 0.5ms", "timeout: 0.5s"),
            ("spec.http[0].timeout", "timeout: 1.5ms", "timeout: 1500ms"),
            ("spec.http[0].retries.attempts", "retries: {attempts: -1}", "retries: {attempts: 0}"),
            (
                "spec.http[0].retries.attempts",
                "retries: {attempts: 0, perTryTimeout: 1s}",
                "retries: {attempts: 1, perTryTimeout: 1s}",
            ),
            (
                "spec.http[0].retries.attempts",
                "retries: {retryOn: 5xx}",
                "retries: {attempts: 1, retryOn: 5xx}",
            ),
            (
                "spec.http[0].retries.attempts",
                "retries: {retryRemoteLocalities: true}",
                "retries: {attempts: 1, retryRemoteLocalities: true}",
            ),
            (
                "spec.http[0].retries.perTryTimeout",
                "retries: {attempts: 1, perTryTimeout: 0s}",
                "retries: {attempts: 1, perTryTimeout: 2ms}",
            ),
            (
                "spec.http[0].retries.backoff",
                "retries: {attempts: 1, backoff: 10us}",
                "retries: {attempts: 1, backoff: 10ms}",
            ),
            (
                "spec.http[0].retries.retryOn",
                "retries: {attempts: 1, retryOn: 6xx}",
                "retries: {attempts: 1, retryOn: '5xx,503'}",
            ),
            ("spec.http[0].fault", "fault: {}", "fault: {abort: {httpStatus: 503}}"),
            (
                "spec.http[0].fault.abort.httpStatus",
                "fault: {abort: {httpStatus: 199}}",
                "fault: {abort: {httpStatus: 200}}",
            ),
            (
                "spec.http[0].fault.abort.grpcStatus",
                "fault: {abort: {grpcStatus: GONE}}",
                "fault: {abort: {grpcStatus: NOT_FOUND}}",
            ),
            (
                "spec.http[0].fault.abort.http2Error",
                "fault: {abort: {http2Error: INTERNAL_ERROR}}",
                "fault: {abort: {grpcStatus: INTERNAL}}",
            ),
            (
                "spec.http[0].fault.abort.percentage.value",
                "fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}",
                "fault: {abort: {httpStatus: 500, percentage: {value: 0.0001}}}",
            ),
            (
                "spec.http[0].fault.delay.percentage.value",
                "fault: {delay: {fixedDelay: 1s, percentage: {value: 100.1}}}",
                "fault: {delay: {fixedDelay: 1s, percentage: {value: 0}}}",
            ),
            (
                "spec.http[0].fault.delay.fixedDelay",
                "fault: {delay: {fixedDelay: 0s}}",
                "fault: {delay: {fixedDelay: 1ms}}",
            ),
            (
                "spec.http[0].fault.delay.exponentialDelay",
                "fault: {delay: {exponentialDelay: 1s}}",
                "fault: {delay: {fixedDelay: 1s}}",
            ),
            (
                "spec.http[0].corsPolicy.allowOrigins[0]",
                "corsPolicy: {allowOrigins: [{}]}",
                "corsPolicy: {allowOrigins: [{exact: 'https://a'}]}",
            ),
            (
                "spec.http[0].corsPolicy.allowOrigins[0].exact",
                "corsPolicy: {allowOrigins: [{exact: ''}]}",
                "corsPolicy: {allowOrigins: [{exact: '*'}]}",
            ),
            (
                "spec.http[0].corsPolicy.allowOrigins[0].regex",
                "corsPolicy: {allowOrigins: [{regex: '*'}]}",
                "corsPolicy: {allowOrigins: [{regex: '.*'}]}",
            ),
            (
                "spec.http[0].corsPolicy.allowMethods[1]",
                "corsPolicy: {allowMethods: [GET, get]}",
                "corsPolicy: {allowMethods: [GET, '*']}",
            ),
            (
                "spec.http[0].corsPolicy.allowHeaders[0]",
                "corsPolicy: {allowHeaders: ['x y']}",
                "corsPolicy: {allowHeaders: ['*']}",
            ),
            (
                "spec.http[0].corsPolicy.exposeHeaders[0]",
                "corsPolicy: {exposeHeaders: ['']}",
                "corsPolicy: {exposeHeaders: [x-y]}",
            ),
            (
                "spec.http[0].corsPolicy.maxAge",
                "corsPolicy: {maxAge: 1.5s}",
                "corsPolicy: {maxAge: 90s}",
            ),
            (
                "spec.http[0].mirrorPercentage.value",
                "mirror: {host: b}, mirrorPercentage: {value: -1}",
                "mirror: {host: b}, mirrorPercentage: {value: 0}",
            ),
            (
                "spec.http[0].mirrorPercent",
                "mirror: {host: b}, mirrorPercent: 101",
                "mirror: {host: b}, mirrorPercent: 100",
            ),
            (
                "spec.http[0].mirrors[0].percentage.value",
                "mirrors: [{destination: {host: b}, percentage: {value: 101}}]",
                "mirrors: [{destination: {host: b}, percentage: {value: 99.9}}]",
            ),
            (
                "spec.http[0]",
                "mirror: {host: b}, mirrors: [{destination: {host: b}}]",
                "mirrors: [{destination: {host: b}}, {destination: {host: c}}]",
            ),
            ("spec.http[0].mirror.host", "mirror: {host: '*'}", "mirror: {host: '*.b.test'}"),
        ],
    );
}

#[test]
fn headers_are_changed_that_can_be_changed() {
    check(
        Kind::VIRTUAL_SERVICE,
        RULE,
        &[
            (
                "spec.http[0].headers.request.set[\":path\"]",
                "headers: {request: {set: {':path': /}}}",
                "headers: {request: {set: {':authority': a}}}",
            ),
            (
                "spec.http[0].headers.request.remove[0]",
                "headers: {request: {remove: [Host]}}",
                "headers: {request: {remove: [x-host]}}",
            ),
            (
                "spec.http[0].headers.response.set.host",
                "headers: {response: {set: {host: a}}}",
                "headers: {request: {set: {host: a}}}",
            ),
            (
                "spec.http[0].headers.response.add[\":status\"]",
                "headers: {response: {add: {':status': '200'}}}",
                "headers: {response: {add: {x-status: '200'}}}",
            ),
            (
                "spec.http[0].headers.request.add[\"\"]",
                "headers: {request: {add: {'': a}}}",
                "headers: {request: {add: {a: ''}}}",
            ),
            (
                "spec.http[0].headers.request.set.x",
                "headers: {request: {set: {x: '%'}}}",
                "headers: {request: {set: {x: '%%'}}}",
            ),
            (
                "spec.http[0].headers.request.set.x",
                "headers: {request: {set: {x: \"a\\u0001b\"}}}",
                "headers: {request: {set: {x: \"a\\tb\"}}}",
            ),
            (
                "spec.http[0].headers.request",
                "rewrite: {authority: a}, headers: {request: {set: {Host: b}}}",
                "rewrite: {uri: /a}, headers: {request: {set: {Host: b}}}",
            ),
            (
                "spec.http[0].headers.request",
                "headers: {request: {set: {host: a, ':authority': b}}}",
                "headers: {request: {set: {host: a, x: b}}}",
            ),
        ],
    );
}

#[test]
fn answers_and_rewrites_do_something() {
    check(
        Kind::VIRTUAL_SERVICE,
        ACTION,
        &[
            ("spec.http[0].redirect", "redirect: {}", "redirect: {uri: /}"),
            ("spec.http[0].redirect", "redirect: {redirectCode: 302}", "redirect: {scheme: https}"),
            (
                "spec.http[0].redirect",
                "redirect: {uri: /a, prefixRewrite: /b}",
                "redirect: {prefixRewrite: /b}",
            ),
            (
                "spec.http[0].redirect.prefixRewrite",
                "match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}",
                "match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}",
            ),
            ("spec.http[0].redirect.scheme", "redirect: {scheme: ftp}", "redirect: {scheme: http}"),
            (
                "spec.http[0].redirect.redirectCode",
                "redirect: {uri: /, redirectCode: 400}",
                "redirect: {uri: /, redirectCode: 307}",
            ),
            ("spec.http[0].redirect.port", "redirect: {port: 0}", "redirect: {port: 8080}"),
            (
                "spec.http[0].redirect",
                "redirect: {port: 80, derivePort: FROM_REQUEST_PORT}",
                "redirect: {derivePort: FROM_REQUEST_PORT}",
            ),
            (
                "spec.http[0].fault",
                "redirect: {uri: /}, fault: {abort: {httpStatus: 500}}",
                "redirect: {uri: /}",
            ),
            (
                "spec.http[0].fault",
                "directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}",
                "directResponse: {status: 200}",
            ),
            (
                "spec.http[0]",
                "redirect: {uri: /}, rewrite: {uri: /a}",
                "redirect: {uri: /}, timeout: 1s",
            ),
            (
                "spec.http[0]",
                "redirect: {uri: /}, directResponse: {status: 200}",
                "directResponse: {status: 599}",
            ),
            (
                "spec.http[0].directResponse.status",
                "directResponse: {status: 99}",
                "directResponse: {status: 404}",
            ),
            (
                "spec.http[0].directResponse.body",
                "directResponse: {status: 200, body: {string: a, bytes: YQ==}}",
                "directResponse: {status: 200, body: {bytes: YQ==}}",
            ),
        ],
    );
    check(
        Kind::VIRTUAL_SERVICE,
        RULE,
        &[
            ("spec.http[0].rewrite", "rewrite: {}", "rewrite: {uri: /}"),
            (
                "spec.http[0].rewrite.uriRegexRewrite.match",
                "rewrite: {uriRegexRewrite: {match: '', rewrite: /a}}",
                "rewrite: {uriRegexRewrite: {match: /b, rewrite: /a}}",
            ),
            (
                "spec.http[0].rewrite.uriRegexRewrite.rewrite",
                "rewrite: {uriRegexRewrite: {match: /b, rewrite: ''}}",
                "rewrite: {uriRegexRewrite: {match: /b, rewrite: /}}",
            ),
            (
                "spec.http[0].rewrite.uriRegexRewrite.match",
                "rewrite: {uriRegexRewrite: {match: '(?=a)', rewrite: /a}}",
                "rewrite: {uriRegexRewrite: {match: '(?:a)', rewrite: /a}}",
            ),
        ],
    );
}

#[test]
fn routes_lead_to_destinations() {
    check(
        Kind::VIRTUAL_SERVICE,
        "{hosts: [a.test], http: [{route: [$]}]}",
        &[
            (
                "spec.http[0].route[0].destination",
                "{weight: 1}",
                "{destination: {host: a}, weight: 1}",
            ),
            (
                "spec.http[0].route[0].destination.host",
                "{destination: {host: ''}}",
                "{destination: {host: a}}",
            ),
            (
                "spec.http[0].route[0].destination.host",
                "{destination: {host: '*'}}",
                "{destination: {host: '*.a.test'}}",
            ),
            (
                "spec.http[0].route[0].destination.host",
                "{destination: {host: 10.0.0.1}}",
                "{destination: {host: a.b.c.test}}",
            ),
            (
                "spec.http[0].route[0].destination.subset",
                "{destination: {host: a, subset: v.1}}",
                "{destination: {host: a, subset: v-1}}",
            ),
            (
                "spec.http[0].route[0].destination.port.number",
                "{destination: {host: a, port: {number: 0}}}",
                "{destination: {host: a, port: {number: 1}}}",
            ),
            (
                "spec.http[0].route[0].destination.port.number",
                "{destination: {host: a, port: {number: 70000}}}",
                "{destination: {host: a, port: {number: 65535}}}",
            ),
            (
                "spec.http[0].route[0].weight",
                "{destination: {host: a}, weight: -1}",
                "{destination: {host: a}, weight: 0}",
            ),
            (
                "spec.http[0].route",
                "{destination: {host: a}}, {destination: {host: b}}",
                "{destination: {host: a}}, {destination: {host: b}, weight: 1}",
            ),
            (
                "spec.http[0].route[0].headers.request.remove[0]",
                "{destination: {host: a}, headers: {request: {remove: [':path']}}}",
                "{destination: {host: a}, headers: {request: {remove: [path]}}}",
            ),
        ],
    );
    check(
        Kind::VIRTUAL_SERVICE,
        "{hosts: [a.test, '*.b.test'], tls: [{$}]}",
        &[
            (
                "spec.tls[0].route",
                "match: [{sniHosts: [a.test]}], route: []",
                "match: [{sniHosts: [a.test]}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match",
                "match: [], route: [{destination: {host: a}}]",
                "match: [{sniHosts: [x.b.test]}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match[0].sniHosts",
                "match: [{sniHosts: []}], route: [{destination: {host: a}}]",
                "match: [{sniHosts: ['*.b.test']}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match[0].sniHosts[0]",
                "match: [{sniHosts: [c.test]}], route: [{destination: {host: a}}]",
                "match: [{sniHosts: ['*.x.b.test']}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match[0].destinationSubnets[0]",
                "match: [{sniHosts: [a.test], destinationSubnets: [10.0.0.0/99]}], route: [{destination: {host: a}}]",
                "match: [{sniHosts: [a.test], destinationSubnets: [10.0.0.0/9]}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match[0].port",
                "match: [{sniHosts: [a.test], port: 0}], route: [{destination: {host: a}}]",
                "match: [{sniHosts: [a.test], port: 1}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tls[0].match[0].sourceLabels.a",
                "match: [{sniHosts: [a.test], sourceLabels: {a: '*'}}], route: [{destination: {host: a}}]",
                "match: [{sniHosts: [a.test], sourceLabels: {a: b}}], route: [{destination: {host: a}}]",
            ),
        ],
    );
    check(
        Kind::VIRTUAL_SERVICE,
        "{hosts: [a.test], tcp: [{$}]}",
        &[
            ("spec.tcp[0].route", "route: []", "route: [{destination: {host: a}}]"),
            (
                "spec.tcp[0].match[0].destinationSubnets[0]",
                "match: [{destinationSubnets: [a]}], route: [{destination: {host: a}}]",
                "match: [{destinationSubnets: ['::1']}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tcp[0].match[0].gateways[0]",
                "match: [{gateways: ['']}], route: [{destination: {host: a}}]",
                "match: [{gateways: [g]}], route: [{destination: {host: a}}]",
            ),
            (
                "spec.tcp[0].route",
                "route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]",
                "route: [{destination: {host: a}, weight: 1}, {destination: {host: b}}]",
            ),
        ],
    );
    warned(
        Kind::VIRTUAL_SERVICE,
        "{hosts: [10.0.0.1], tls: [{match: [{sniHosts: [$]}], route: [{destination: {host: a}}]}]}",
        &[("spec.tls[0].match[0].sniHosts[0]", "10.0.0.1")],
    );
    warned(
        Kind::VIRTUAL_SERVICE,
        RULE,
        &[
            ("spec.http[0].mirrorPercent", "mirror: {host: b}, mirrorPercent: 5"),
            ("spec.http[0].corsPolicy.allowOrigin", "corsPolicy: {allowOrigin: ['*']}"),
        ],
    );
}

/// A DestinationRule with this policy.
const POLICY: &str = "{host: a, trafficPolicy: {$}}";

#[test]
fn destination_rules_have_a_host_and_settings() {
    check(
        Kind::DESTINATION_RULE,
        "{$}",
        &[
            ("spec.host", "host: ''", "host: '*'"),
            ("spec.host", "host: 10.0.0.1", "host: ten"),
            ("spec.host", "host: 'a.*.test'", "host: '*.a.test'"),
            ("spec.host", "trafficPolicy: {tls: {mode: DISABLE}}", "host: a"),
            ("spec.trafficPolicy", "host: a, trafficPolicy: {}", "host: a"),
            (
                "spec.subsets[0].name",
                "host: a, subsets: [{name: v_1}]",
                "host: a, subsets: [{name: v-1}]",
            ),
            (
                "spec.subsets[0].name",
                "host: a, subsets: [{name: ''}]",
                "host: a, subsets: [{name: v}]",
            ),
            (
                "spec.subsets[1].name",
                "host: a, subsets: [{name: v}, {name: v}]",
                "host: a, subsets: [{name: v}, {name: w}]",
            ),
            (
                "spec.subsets[0].labels.a",
                "host: a, subsets: [{name: v, labels: {a: b/c}}]",
                "host: a, subsets: [{name: v, labels: {a: b.c}}]",
            ),
            (
                "spec.subsets[0].labels[\"a b\"]",
                "host: a, subsets: [{name: v, labels: {a b: c}}]",
                "host: a, subsets: [{name: v, labels: {a/b: c}}]",
            ),
            (
                "spec.subsets[0].trafficPolicy",
                "host: a, subsets: [{name: v, trafficPolicy: {}}]",
                "host: a, subsets: [{name: v, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]",
            ),
            (
                "spec.exportTo",
                "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: ['*']",
                "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: [.]",
            ),
            (
                "spec.exportTo",
                "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: [., x]",
                "host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: [shop]",
            ),
            (
                "spec.workloadSelector.matchLabels.a",
                "host: a, workloadSelector: {matchLabels: {a: '*'}}",
                "host: a, workloadSelector: {matchLabels: {a: b}}",
            ),
            (
                "spec.workloadSelector.matchLabels[\"\"]",
                "host: a, workloadSelector: {matchLabels: {'': b}}",
                "host: a, workloadSelector: {matchLabels: {b: ''}}",
            ),
        ],
    );
    warned(
        Kind::DESTINATION_RULE,
        "{host: a, $}",
        &[("spec.workloadSelector", "workloadSelector: {}")],
    );
}

#[test]
fn settings_of_ports_and_tunnels_are_whole() {
    check(
        Kind::DESTINATION_RULE,
        POLICY,
        &[
            (
                "spec.trafficPolicy.portLevelSettings[0].port",
                "portLevelSettings: [{loadBalancer: {simple: RANDOM}}]",
                "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]",
            ),
            (
                "spec.trafficPolicy.portLevelSettings[0]",
                "portLevelSettings: [{port: {number: 80}}]",
                "portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]",
            ),
            (
                "spec.trafficPolicy.portLevelSettings[0].port.number",
                "portLevelSettings: [{port: {number: 0}, tls: {mode: DISABLE}}]",
                "portLevelSettings: [{port: {number: 1}, tls: {mode: DISABLE}}]",
            ),
            (
                "spec.trafficPolicy",
                "proxyProtocol: {version: V1}, tunnel: {targetHost: a.test, targetPort: 443}",
                "tunnel: {targetHost: a.test, targetPort: 443}",
            ),
            (
                "spec.trafficPolicy.tunnel.protocol",
                "tunnel: {protocol: GET, targetHost: a.test, targetPort: 443}",
                "tunnel: {protocol: POST, targetHost: a.test, targetPort: 443}",
            ),
            (
                "spec.trafficPolicy.tunnel.targetHost",
                "tunnel: {targetHost: '*.test', targetPort: 443}",
                "tunnel: {targetHost: 10.0.0.1, targetPort: 443}",
            ),
            (
                "spec.trafficPolicy.tunnel.targetPort",
                "tunnel: {targetHost: a.test, targetPort: 0}",
                "tunnel: {targetHost: a.test, targetPort: 65535}",
            ),
            (
                "spec.trafficPolicy.retryBudget.percent",
                "retryBudget: {percent: 101}",
                "retryBudget: {percent: 100}",
            ),
            (
                "spec.trafficPolicy.proxyProtocol.version",
                "proxyProtocol: {version: V3}",
                "proxyProtocol: {version: V2}",
            ),
        ],
    );
}

#[test]
fn limits_and_ejection_are_in_bounds() {
    check(
        Kind::DESTINATION_RULE,
        POLICY,
        &[
            (
                "spec.trafficPolicy.connectionPool",
                "connectionPool: {}",
                "connectionPool: {tcp: {}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.maxConnections",
                "connectionPool: {tcp: {maxConnections: -1}}",
                "connectionPool: {tcp: {maxConnections: 1}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.maxConnections",
                "connectionPool: {tcp: {maxConnections: 2147483648}}",
                "connectionPool: {tcp: {maxConnections: 2147483647}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
                "connectionPool: {tcp: {connectTimeout: 0s}}",
                "connectionPool: {tcp: {connectTimeout: 1s}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.maxConnectionDuration",
                "connectionPool: {tcp: {maxConnectionDuration: 1us}}",
                "connectionPool: {tcp: {maxConnectionDuration: 1h}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.idleTimeout",
                "connectionPool: {tcp: {idleTimeout: 1us}}",
                "connectionPool: {tcp: {idleTimeout: 0s}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.time",
                "connectionPool: {tcp: {tcpKeepalive: {time: 0s}}}",
                "connectionPool: {tcp: {tcpKeepalive: {time: 1s}}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.http.idleTimeout",
                "connectionPool: {http: {idleTimeout: 0s}}",
                "connectionPool: {http: {idleTimeout: 1s}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.http.maxRetries",
                "connectionPool: {http: {maxRetries: -1}}",
                "connectionPool: {http: {maxRetries: 0}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.http",
                "connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
                "connectionPool: {http: {h2UpgradePolicy: DEFAULT, useClientProtocol: true}}",
            ),
            (
                "spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout",
                "connectionPool: {http: {http2KeepAlive: {interval: 1s}}}",
                "connectionPool: {http: {http2KeepAlive: {interval: 1s, timeout: 1s}}}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.interval",
                "outlierDetection: {interval: 0s}",
                "outlierDetection: {interval: 1ms}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.baseEjectionTime",
                "outlierDetection: {baseEjectionTime: 100us}",
                "outlierDetection: {baseEjectionTime: 100ms}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.minHealthPercent",
                "outlierDetection: {minHealthPercent: 101}",
                "outlierDetection: {minHealthPercent: 100}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
                "outlierDetection: {maxEjectionPercent: -1}",
                "outlierDetection: {maxEjectionPercent: 0}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
                "outlierDetection: {consecutiveLocalOriginFailures: 5}",
                "outlierDetection: {consecutiveLocalOriginFailures: 5, splitExternalLocalOriginErrors: true}",
            ),
            (
                "spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]",
                "outlierDetection: {outlierDetectionHttpErrorCodes: [99]}",
                "outlierDetection: {outlierDetectionHttpErrorCodes: [500]}",
            ),
        ],
    );
}

#[test]
fn balancing_can_be_done() {
    check(
        Kind::DESTINATION_RULE,
        "{host: a, trafficPolicy: {outlierDetection: {interval: 1s}, loadBalancer: {$}}}",
        &[
            (
                "spec.trafficPolicy.loadBalancer",
                "simple: RANDOM, consistentHash: {useSourceIp: true}",
                "consistentHash: {useSourceIp: true}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash",
                "consistentHash: {useSourceIp: true, httpHeaderName: a}",
                "consistentHash: {httpHeaderName: a}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.attributes[0].name",
                "consistentHash: {httpCookie: {name: a, ttl: 0s, attributes: [{name: ''}]}}",
                "consistentHash: {httpCookie: {name: a, ttl: 0s, attributes: [{name: b}]}}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.attributes[1].name",
                "consistentHash: {httpCookie: {name: a, ttl: 0s, attributes: [{name: b}, {name: b}]}}",
                "consistentHash: {httpCookie: {name: a, ttl: 0s, attributes: [{name: b}, {name: c}]}}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
                "consistentHash: {useSourceIp: true, maglev: {}}",
                "consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
                "consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}",
                "consistentHash: {useSourceIp: true, maglev: {tableSize: 4999999}}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash",
                "consistentHash: {useSourceIp: true, minimumRingSize: 8, ringHash: {}}",
                "consistentHash: {useSourceIp: true, minimumRingSize: 8}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.warmup.duration",
                "warmup: {minimumPercent: 5}",
                "warmup: {duration: 1s, minimumPercent: 5}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.warmup.minimumPercent",
                "warmup: {duration: 1s, minimumPercent: 150}",
                "warmup: {duration: 1s, minimumPercent: 100}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.warmup.aggression",
                "warmup: {duration: 1s, aggression: 0}",
                "warmup: {duration: 1s, aggression: 0.1}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.warmupDurationSecs",
                "warmupDurationSecs: 0s",
                "warmupDurationSecs: 1s",
            ),
            (
                "spec.trafficPolicy.loadBalancer",
                "localityLbSetting: {enabled: true}, zoneAwareLbSetting: {enabled: true}",
                "localityLbSetting: {enabled: true}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting",
                "localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}",
                "localityLbSetting: {failover: [{from: a, to: b}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
                "localityLbSetting: {distribute: [{from: a, to: {a: 50, b: 49}}]}",
                "localityLbSetting: {distribute: [{from: a, to: {a: 50, b: 50}}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.b",
                "localityLbSetting: {distribute: [{from: a, to: {a: 100, b: 0}}]}",
                "localityLbSetting: {distribute: [{from: a, to: {a: 99, b: 1}}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from",
                "localityLbSetting: {distribute: [{from: a//b, to: {a: 100}}]}",
                "localityLbSetting: {distribute: [{from: a/b, to: {a: 100}}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].from",
                "localityLbSetting: {distribute: [{from: a/*, to: {a: 100}}, {from: a/b, to: {a: 100}}]}",
                "localityLbSetting: {distribute: [{from: a/b, to: {a: 100}}, {from: a/*, to: {a: 100}}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to",
                "localityLbSetting: {failover: [{from: a, to: a}]}",
                "localityLbSetting: {failover: [{from: a, to: b}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to",
                "localityLbSetting: {failover: [{from: a, to: b/c}]}",
                "localityLbSetting: {failover: [{from: a, to: c}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].from",
                "localityLbSetting: {failover: [{from: '*', to: b}]}",
                "localityLbSetting: {failover: [{from: c, to: b}]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]",
                "localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}",
                "localityLbSetting: {failoverPriority: [topology.kubernetes.io/zone]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting.failoverPriority[0]",
                "zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/region]}",
                "zoneAwareLbSetting: {failoverPriority: [version]}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting.minClusterSize",
                "zoneAwareLbSetting: {minClusterSize: 0}",
                "zoneAwareLbSetting: {minClusterSize: 1}",
            ),
        ],
    );
    warned(
        Kind::DESTINATION_RULE,
        POLICY,
        &[
            (
                "spec.trafficPolicy.loadBalancer.localityLbSetting",
                "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}",
            ),
            (
                "spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
                "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 8}}",
            ),
        ],
    );
}

#[test]
fn tls_to_a_host_has_one_source_of_certificates() {
    check(
        Kind::DESTINATION_RULE,
        "{host: a, trafficPolicy: {tls: {$}}}",
        &[
            (
                "spec.trafficPolicy.tls",
                "mode: MUTUAL, clientCertificate: /c",
                "mode: MUTUAL, clientCertificate: /c, privateKey: /k",
            ),
            (
                "spec.trafficPolicy.tls.caCertificates",
                "mode: SIMPLE, credentialName: c, caCertificates: /ca",
                "mode: SIMPLE, caCertificates: /ca",
            ),
            (
                "spec.trafficPolicy.tls.clientCertificate",
                "mode: MUTUAL, credentialName: c, clientCertificate: /c",
                "mode: MUTUAL, credentialName: c",
            ),
            (
                "spec.trafficPolicy.tls.caCertificates",
                "mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca",
                "mode: SIMPLE, insecureSkipVerify: true",
            ),
            (
                "spec.trafficPolicy.tls.caCrl",
                "mode: SIMPLE, insecureSkipVerify: true, caCrl: /crl",
                "mode: SIMPLE, caCrl: /crl",
            ),
            (
                "spec.trafficPolicy.tls.caCrl",
                "mode: MUTUAL, credentialName: c, caCrl: /crl",
                "mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCrl: /crl",
            ),
            ("spec.trafficPolicy.tls", "mode: ISTIO_MUTUAL, caCrl: /crl", "mode: ISTIO_MUTUAL"),
            (
                "spec.trafficPolicy.tls.subjectAltNames",
                "mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]",
                "mode: SIMPLE, insecureSkipVerify: false, subjectAltNames: [a]",
            ),
            (
                "spec.trafficPolicy.tls.credentialName",
                "mode: SIMPLE, insecureSkipVerify: true, credentialName: c",
                "mode: MUTUAL, insecureSkipVerify: true, credentialName: c",
            ),
            (
                "spec.trafficPolicy.tls.credentialName",
                "mode: SIMPLE, credentialName: 'configmap://other/c'",
                "mode: SIMPLE, credentialName: 'configmap://shop/c'",
            ),
            (
                "spec.trafficPolicy.tls",
                "mode: ISTIO_MUTUAL, credentialName: c",
                "mode: ISTIO_MUTUAL, sni: a",
            ),
            (
                "spec.trafficPolicy.tls",
                "mode: ISTIO_MUTUAL, caCertificates: /ca",
                "mode: ISTIO_MUTUAL",
            ),
            ("spec.trafficPolicy.tls.mode", "sni: a", "mode: SIMPLE, sni: a"),
        ],
    );
}

#[test]
fn gateways_have_servers_that_can_listen() {
    check(
        Kind::GATEWAY,
        "{servers: [$]}",
        &[
            (
                "spec.servers[0].hosts[0]",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: [a]}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.test]}",
            ),
            (
                "spec.servers[0].hosts[0]",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['~/a.test']}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['./a.test']}",
            ),
            (
                "spec.servers[0].hosts[0]",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['x.y/a.test']}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*/a.test']}",
            ),
            (
                "spec.servers[0].hosts[0]",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*a.test']}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: [10.0.0.1]}",
            ),
            (
                "spec.servers[0].hosts",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: []}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].port",
                "{hosts: ['*']}",
                "{hosts: ['*'], port: {number: 80, name: a, protocol: HTTP}}",
            ),
            (
                "spec.servers[0].port.number",
                "{port: {number: 0, name: a, protocol: HTTP}, hosts: ['*']}",
                "{port: {number: 1, name: a, protocol: HTTP}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].port.number",
                "{port: {number: 80, name: a, protocol: HTTP}, bind: 'unix:///a', hosts: ['*']}",
                "{port: {number: 0, name: a, protocol: HTTP}, bind: 'unix:///a', hosts: ['*']}",
            ),
            (
                "spec.servers[0].port.name",
                "{port: {number: 80, protocol: HTTP}, hosts: ['*']}",
                "{port: {number: 80, name: b, protocol: http}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].port.protocol",
                "{port: {number: 80, name: a}, hosts: ['*']}",
                "{port: {number: 80, name: a, protocol: GRPC}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].port.protocol",
                "{port: {number: 80, name: a, protocol: HTTP3}, hosts: ['*']}",
                "{port: {number: 80, name: a, protocol: HTTP2}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].port.targetPort",
                "{port: {number: 80, name: a, protocol: HTTP, targetPort: 8080}, hosts: ['*']}",
                "{port: {number: 80, name: a, protocol: HTTP, targetPort: 0}, hosts: ['*']}",
            ),
            (
                "spec.servers[1].port.name",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}",
                "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 80, name: b, protocol: HTTP}, hosts: ['*']}",
            ),
            (
                "spec.servers[0].bind",
                "{port: {number: 80, name: a, protocol: HTTP}, bind: localhost, hosts: ['*']}",
                "{port: {number: 80, name: a, protocol: HTTP}, bind: '::1', hosts: ['*']}",
            ),
            (
                "spec.servers[0].bind",
                "{port: {number: 0, name: a, protocol: HTTP}, bind: 'unix://a', hosts: ['*']}",
                "{port: {number: 0, name: a, protocol: HTTP}, bind: 'unix://@a', hosts: ['*']}",
            ),
        ],
    );
    let named = |name| {
        let spec = "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}]}";
        parse(Kind::GATEWAY, name, spec).diagnostics
    };
    assert_eq!(named("a.b")[0].field.to_string(), "metadata.name");
    assert!(named("a-b").is_empty());
}

#[test]
fn servers_of_gateways_terminate_tls_by_one_means() {
    check(
        Kind::GATEWAY,
        "{servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], $}]}",
        &[
            ("spec.servers[0].tls", "name: a", "tls: {mode: SIMPLE, credentialName: c}"),
            (
                "spec.servers[0].tls.credentialName",
                "tls: {mode: SIMPLE}",
                "tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}",
            ),
            (
                "spec.servers[0].tls.caCertificates",
                "tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k}",
                "tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca}",
            ),
            (
                "spec.servers[0].tls.caCrl",
                "tls: {mode: MUTUAL, credentialName: c, caCrl: /crl}",
                "tls: {mode: MUTUAL, credentialName: c, caCertificates: /ca, caCrl: /crl}",
            ),
            (
                "spec.servers[0].tls.caCrl",
                "tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertCredentialName: a, caCrl: /crl}",
                "tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl}",
            ),
            (
                "spec.servers[0].tls.caCrl",
                "tls: {mode: ISTIO_MUTUAL, caCrl: /crl}",
                "tls: {mode: ISTIO_MUTUAL}",
            ),
            (
                "spec.servers[0].tls",
                "tls: {mode: SIMPLE, credentialName: c, serverCertificate: /c, privateKey: /k}",
                "tls: {mode: MUTUAL, credentialName: c}",
            ),
            (
                "spec.servers[0].tls",
                "tls: {mode: SIMPLE, credentialName: c, credentialNames: [d]}",
                "tls: {mode: SIMPLE, credentialNames: [c, d]}",
            ),
            (
                "spec.servers[0].tls.credentialNames",
                "tls: {mode: SIMPLE, credentialNames: [c, d, e]}",
                "tls: {mode: SIMPLE, credentialNames: [c]}",
            ),
            (
                "spec.servers[0].tls.credentialName",
                "tls: {mode: ISTIO_MUTUAL, credentialName: c}",
                "tls: {mode: ISTIO_MUTUAL}",
            ),
            (
                "spec.servers[0].tls.serverCertificate",
                "tls: {mode: ISTIO_MUTUAL, serverCertificate: /c}",
                "tls: {mode: ISTIO_MUTUAL, minProtocolVersion: TLSV1_2}",
            ),
            (
                "spec.servers[0].tls.maxProtocolVersion",
                "tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}",
                "tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_2, maxProtocolVersion: TLSV1_3}",
            ),
            ("spec.servers[0].tls.mode", "tls: {mode: TERMINATE}", "tls: {mode: PASSTHROUGH}"),
        ],
    );
    check(
        Kind::GATEWAY,
        "{servers: [{hosts: ['*'], $}]}",
        &[
            (
                "spec.servers[0].tls",
                "port: {number: 80, name: a, protocol: HTTP}, tls: {mode: SIMPLE, credentialName: c}",
                "port: {number: 80, name: a, protocol: HTTP}, tls: {httpsRedirect: true}",
            ),
            (
                "spec.servers[0].tls",
                "port: {number: 9000, name: a, protocol: TCP}, tls: {mode: SIMPLE, credentialName: c}",
                "port: {number: 9000, name: a, protocol: TLS}, tls: {mode: SIMPLE, credentialName: c}",
            ),
            (
                "spec.servers[0].tls",
                "port: {number: 443, name: a, protocol: TLS}",
                "port: {number: 443, name: a, protocol: TLS}, tls: {mode: PASSTHROUGH}",
            ),
        ],
    );
    warned(
        Kind::GATEWAY,
        "{servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], $}]}",
        &[
            ("spec.servers[0].tls.credentialName", "tls: {mode: PASSTHROUGH, credentialName: c}"),
            (
                "spec.servers[0].tls.httpsRedirect",
                "tls: {mode: SIMPLE, credentialName: c, httpsRedirect: true}",
            ),
        ],
    );
}

/// A ServiceEntry with one port.
const ENTRY: &str = "{hosts: [a.test], ports: [{number: 80, name: http, protocol: HTTP}], $}";

#[test]
fn service_entries_have_hosts_ports_and_addresses() {
    check(
        Kind::SERVICE_ENTRY,
        "{$}",
        &[
            ("spec.hosts", "resolution: DNS", "hosts: [a.test], resolution: DNS"),
            ("spec.hosts[0]", "hosts: ['*']", "hosts: ['*.test']"),
            ("spec.hosts[0]", "hosts: [10.0.0.0/8]", "hosts: [a.test], addresses: [10.0.0.0/8]"),
            ("spec.hosts[0]", "hosts: [10.0.0.1]", "hosts: [a], addresses: [10.0.0.1]"),
            ("spec.hosts[0]", "hosts: ['http://a.test']", "hosts: [a.test.]"),
            (
                "spec.addresses[0]",
                "hosts: [a.test], addresses: [1.2.3.4/99]",
                "hosts: [a.test], addresses: [1.2.3.4/9]",
            ),
            (
                "spec.addresses[0]",
                "hosts: [a.test], addresses: [b.test]",
                "hosts: [a.test], addresses: ['2001:db8::1']",
            ),
            (
                "spec.addresses[0]",
                "hosts: [a.test], addresses: [1.2.3.4/16], resolution: DNS",
                "hosts: [a.test], addresses: [1.2.3.4], resolution: DNS",
            ),
            (
                "spec.ports[1].name",
                "hosts: [a.test], ports: [{name: a, number: 1}, {name: a, number: 2}]",
                "hosts: [a.test], ports: [{name: a, number: 1}, {name: b, number: 2}]",
            ),
            (
                "spec.ports[1].number",
                "hosts: [a.test], ports: [{name: a, number: 1}, {name: b, number: 1}]",
                "hosts: [a.test], ports: [{name: a, number: 1}, {name: b, number: 65535}]",
            ),
            (
                "spec.ports[0].number",
                "hosts: [a.test], ports: [{name: a, number: 99999}]",
                "hosts: [a.test], ports: [{name: a, number: 9999}]",
            ),
            (
                "spec.ports[0].targetPort",
                "hosts: [a.test], ports: [{name: a, number: 1, targetPort: 99999}]",
                "hosts: [a.test], ports: [{name: a, number: 1, targetPort: 9}]",
            ),
            (
                "spec.ports[0].name",
                "hosts: [a.test], ports: [{number: 1}]",
                "hosts: [a.test], ports: [{number: 1, name: A}]",
            ),
            (
                "spec.ports[0].name",
                "hosts: [a.test], ports: [{number: 1, name: a_b}]",
                "hosts: [a.test], ports: [{number: 1, name: a-b}]",
            ),
            (
                "spec.ports[0].protocol",
                "hosts: [a.test], ports: [{number: 1, name: a, protocol: SCTP}]",
                "hosts: [a.test], ports: [{number: 1, name: a, protocol: mongo}]",
            ),
            (
                "spec.ports[0].protocol",
                "hosts: [a.test, b.test], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]",
                "hosts: [a.test, b.test], resolution: DNS, ports: [{number: 1, name: a, protocol: TLS}]",
            ),
            (
                "spec.exportTo[1]",
                "hosts: [a.test], exportTo: [., shop]",
                "hosts: [a.test], exportTo: ['~']",
            ),
            (
                "spec.exportTo",
                "hosts: [a.test], exportTo: ['~', b]",
                "hosts: [a.test], exportTo: [a, b]",
            ),
            (
                "spec.workloadSelector.labels.a",
                "hosts: [a.test], resolution: STATIC, workloadSelector: {labels: {a: '*'}}",
                "hosts: [a.test], resolution: STATIC, workloadSelector: {labels: {a: b}}",
            ),
        ],
    );
}

#[test]
fn endpoints_of_service_entries_can_be_found() {
    check(
        Kind::SERVICE_ENTRY,
        ENTRY,
        &[
            (
                "spec",
                "workloadSelector: {labels: {a: b}}, endpoints: [{address: 1.2.3.4}], resolution: STATIC",
                "endpoints: [{address: 1.2.3.4}], resolution: STATIC",
            ),
            (
                "spec.endpoints",
                "resolution: NONE, endpoints: [{address: 1.2.3.4}]",
                "resolution: NONE",
            ),
            (
                "spec.endpoints",
                "resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.test}, {address: c.test}]",
                "resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.test}]",
            ),
            (
                "spec.endpoints[0].address",
                "resolution: STATIC, endpoints: [{address: b.test}]",
                "resolution: DNS, endpoints: [{address: b.test}]",
            ),
            (
                "spec.endpoints[0].address",
                "resolution: DNS, endpoints: [{address: 'unix:///a'}]",
                "resolution: STATIC, endpoints: [{address: 'unix:///a'}]",
            ),
            (
                "spec.endpoints[0].address",
                "resolution: DNS, endpoints: [{address: 'b_c.test'}]",
                "resolution: DNS, endpoints: [{address: 1.2.3.4}]",
            ),
            (
                "spec.endpoints[0].address",
                "resolution: DNS, endpoints: [{network: n}]",
                "resolution: STATIC, endpoints: [{network: n}]",
            ),
            (
                "spec.endpoints[0].ports.grpc",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {grpc: 1}}]",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 1}}]",
            ),
            (
                "spec.endpoints[0].ports.http",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 0}}]",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 65535}}]",
            ),
            (
                "spec.endpoints[0].labels.a",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, labels: {a: 'b c'}}]",
                "resolution: STATIC, endpoints: [{address: 1.2.3.4, labels: {a: b}}]",
            ),
        ],
    );
    check(
        Kind::SERVICE_ENTRY,
        "{resolution: DYNAMIC_DNS, $}",
        &[
            ("spec.hosts[0]", "hosts: [a.test]", "hosts: ['*.test']"),
            ("spec.addresses", "hosts: ['*.a'], addresses: [1.2.3.4]", "hosts: ['*.a']"),
            ("spec.endpoints", "hosts: ['*.a'], endpoints: [{address: 1.2.3.4}]", "hosts: ['*.b']"),
            (
                "spec.ports[0].protocol",
                "hosts: ['*.a'], ports: [{name: a, number: 1, protocol: TCP}]",
                "hosts: ['*.a'], ports: [{name: a, number: 1, protocol: TLS}]",
            ),
        ],
    );
    check(
        Kind::SERVICE_ENTRY,
        "{resolution: STATIC, hosts: [a.test], endpoints: [{address: 'unix:///a'}], ports: [{name: a, number: 1}$]}",
        &[("spec.endpoints[0].address", ", {name: b, number: 2}", "")],
    );
    check(
        Kind::SERVICE_ENTRY,
        "{resolution: DNS, $}",
        &[(
            "spec.hosts[0]",
            "hosts: ['*.a.test']",
            "hosts: ['*.a.test'], endpoints: [{address: a.test}]",
        )],
    );
    warned(
        Kind::SERVICE_ENTRY,
        ENTRY,
        &[("spec.workloadSelector", "resolution: NONE, workloadSelector: {labels: {a: b}}")],
    );
}

#[test]
fn workload_entries_have_an_address() {
    check(
        Kind::WORKLOAD_ENTRY,
        "{$}",
        &[
            ("spec.address", "weight: 1", "network: n"),
            ("spec.address", "address: 'unix:///dir/'", "address: 'unix:///dir/a'"),
            ("spec.address", "address: 'unix://relative'", "address: 'unix://@abstract'"),
            ("spec.address", "address: 'unix://'", "address: 1.2.3.4"),
            ("spec.address", "address: '*.test'", "address: a.test"),
            ("spec.address", "address: 1.2.3.4.5", "address: '2001:db8::1'"),
            (
                "spec.ports",
                "address: 'unix://@a', ports: {http: 80}",
                "address: a.test, ports: {http: 80}",
            ),
            (
                "spec.ports.http",
                "address: 1.1.1.1, ports: {http: 99999}",
                "address: 1.1.1.1, ports: {http: 9999}",
            ),
            (
                "spec.ports[\"@\"]",
                "address: 1.1.1.1, ports: {'@': 80}",
                "address: 1.1.1.1, ports: {a: 80}",
            ),
            (
                "spec.labels.a",
                "address: 1.1.1.1, labels: {a: -b}",
                "address: 1.1.1.1, labels: {a: b}",
            ),
        ],
    );
}

#[test]
fn sidecars_have_listeners_apart_from_each_other() {
    check(
        Kind::SIDECAR,
        "{$}",
        &[
            ("spec", "workloadSelector: {labels: {a: b}}", "egress: [{hosts: ['./*']}]"),
            (
                "spec.workloadSelector.labels.a",
                "egress: [{hosts: ['./*']}], workloadSelector: {labels: {a: '*'}}",
                "egress: [{hosts: ['./*']}], workloadSelector: {labels: {a: b}}",
            ),
            ("spec.egress[0].hosts", "egress: [{hosts: []}]", "egress: [{hosts: ['~/*']}]"),
            (
                "spec.egress[0].hosts[0]",
                "egress: [{hosts: [a.test]}]",
                "egress: [{hosts: [b/a.test]}]",
            ),
            (
                "spec.egress[0].hosts[0]",
                "egress: [{hosts: [./a]}]",
                "egress: [{hosts: [./a.test]}]",
            ),
            ("spec.egress[0].hosts[0]", "egress: [{hosts: ['b/']}]", "egress: [{hosts: ['b/*']}]"),
            (
                "spec.egress[0].hosts[0]",
                "egress: [{hosts: ['a.b/*']}]",
                "egress: [{hosts: ['*/*.test']}]",
            ),
            (
                "spec.egress[0].hosts[0]",
                "egress: [{hosts: ['./*a.test']}]",
                "egress: [{hosts: ['./*.a.test']}]",
            ),
            (
                "spec.egress[0].hosts[0]",
                "egress: [{hosts: [./10.0.0.1]}]",
                "egress: [{hosts: [./a.test]}]",
            ),
            (
                "spec.egress[0].port",
                "egress: [{hosts: ['./*']}, {hosts: ['b/*'], port: {number: 80, protocol: HTTP, name: a}}]",
                "egress: [{hosts: ['b/*'], port: {number: 80, protocol: HTTP, name: a}}, {hosts: ['./*']}]",
            ),
            (
                "spec.egress[1].port.number",
                "egress: [{hosts: ['./*'], port: {number: 80, protocol: HTTP, name: a}}, {hosts: ['b/*'], port: {number: 80, protocol: HTTP, name: b}}]",
                "egress: [{hosts: ['./*'], port: {number: 80, protocol: HTTP, name: a}}, {hosts: ['b/*'], port: {number: 81, protocol: HTTP, name: b}}]",
            ),
            (
                "spec.egress[0].port.number",
                "egress: [{hosts: ['./*'], port: {number: 0, protocol: HTTP, name: a}}]",
                "egress: [{hosts: ['./*'], port: {number: 0, protocol: HTTP, name: a}, bind: 'unix:///a'}]",
            ),
            (
                "spec.egress[0].port.name",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP, name: a_b}}]",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP}}]",
            ),
            (
                "spec.egress[0].port.targetPort",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP, targetPort: 2}}]",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP, targetPort: 0}}]",
            ),
            (
                "spec.egress[0].captureMode",
                "egress: [{hosts: ['./*'], port: {number: 0, protocol: HTTP}, bind: 'unix:///a', captureMode: IPTABLES}]",
                "egress: [{hosts: ['./*'], port: {number: 0, protocol: HTTP}, bind: 'unix:///a', captureMode: NONE}]",
            ),
            (
                "spec.egress[0].bind",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP}, bind: a}]",
                "egress: [{hosts: ['./*'], port: {number: 1, protocol: HTTP}, bind: 0.0.0.0}]",
            ),
            (
                "spec.outboundTrafficPolicy.mode",
                "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}",
                "outboundTrafficPolicy: {mode: ALLOW_ANY}",
            ),
            (
                "spec.inboundConnectionPool",
                "inboundConnectionPool: {}",
                "inboundConnectionPool: {tcp: {maxConnections: 1}}",
            ),
            (
                "spec.outboundTrafficPolicy.egressProxy.port",
                "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.test}}",
                "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.test, port: {number: 1}}}",
            ),
            (
                "spec.outboundTrafficPolicy.egressProxy",
                "outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.test, port: {number: 1}}}",
                "outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
            ),
        ],
    );
    check(
        Kind::SIDECAR,
        "{ingress: [$]}",
        &[
            ("spec.ingress[0].port", "{defaultEndpoint: '127.0.0.1:1'}", "{port: {number: 1}}"),
            (
                "spec.ingress[0].port.number",
                "{port: {number: 0, protocol: HTTP}}",
                "{port: {number: 2, protocol: HTTP}}",
            ),
            (
                "spec.ingress[1].port.number",
                "{port: {number: 1, protocol: HTTP}}, {port: {number: 1, protocol: TCP}}",
                "{port: {number: 1, protocol: HTTP}}, {port: {number: 2, protocol: TCP}}",
            ),
            (
                "spec.ingress[0].port.protocol",
                "{port: {number: 1, protocol: QUIC}}",
                "{port: {number: 1, protocol: tcp}}",
            ),
            (
                "spec.ingress[0].tls",
                "{port: {number: 1, protocol: HTTP}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}",
                "{port: {number: 1, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}",
            ),
            (
                "spec.ingress[0].tls.caCertCredentialName",
                "{port: {number: 1, protocol: TLS}, tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca, caCertCredentialName: a}}",
                "{port: {number: 1, protocol: TLS}, tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl}}",
            ),
            (
                "spec.ingress[0].bind",
                "{port: {number: 1, protocol: HTTP}, bind: 'unix:///a'}",
                "{port: {number: 1, protocol: HTTP}, bind: '::'}",
            ),
            (
                "spec.ingress[0].defaultEndpoint",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '10.0.0.1:80'}",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '[::1]:80'}",
            ),
            (
                "spec.ingress[0].defaultEndpoint",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '127.0.0.1'}",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '127.0.0.1:80'}",
            ),
            (
                "spec.ingress[0].defaultEndpoint",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '0.0.0.0:70000'}",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: '0.0.0.0:7000'}",
            ),
            (
                "spec.ingress[0].defaultEndpoint",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: 'unix://a'}",
                "{port: {number: 1, protocol: HTTP}, defaultEndpoint: 'unix:///a'}",
            ),
            (
                "spec.ingress[0].connectionPool.tcp.connectTimeout",
                "{port: {number: 1, protocol: HTTP}, connectionPool: {tcp: {connectTimeout: 0s}}}",
                "{port: {number: 1, protocol: HTTP}, connectionPool: {tcp: {connectTimeout: 1s}}}",
            ),
        ],
    );
    warned(
        Kind::SIDECAR,
        "{egress: [{hosts: [$]}]}",
        &[
            ("spec.egress[0].hosts[1]", "./a.test, ./a.test"),
            ("spec.egress[0].hosts[1]", "./a.test, './*'"),
            ("spec.egress[0].hosts[1]", "'*/*', ./a.test"),
        ],
    );
}

#[test]
fn peer_authentications_say_something_of_ports() {
    check(
        Kind::PEER_AUTHENTICATION,
        "{$}",
        &[
            ("spec.mtls.mode", "mtls: {mode: BLAH}", "mtls: {mode: STRICT}"),
            (
                "spec.portLevelMtls.acd",
                "selector: {matchLabels: {a: b}}, portLevelMtls: {acd: {mode: STRICT}}",
                "selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: STRICT}}",
            ),
            ("spec.portLevelMtls", "portLevelMtls: {80: {mode: STRICT}}", "mtls: {mode: UNSET}"),
            (
                "spec.portLevelMtls",
                "selector: {matchLabels: {a: b}}, portLevelMtls: {}",
                "selector: {matchLabels: {a: b}}",
            ),
            (
                "spec.portLevelMtls.0",
                "selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {mode: STRICT}}",
                "selector: {matchLabels: {a: b}}, portLevelMtls: {'1': {mode: STRICT}}",
            ),
            (
                "spec.selector.matchLabels.a",
                "selector: {matchLabels: {a: 'b*'}}",
                "selector: {matchLabels: {a: b}}",
            ),
        ],
    );
    warned(Kind::PEER_AUTHENTICATION, "{$}", &[("spec.selector", "selector: {}")]);
}

#[test]
fn authorization_policies_take_effect() {
    check(
        Kind::AUTHORIZATION_POLICY,
        "{$}",
        &[
            ("spec.action", "action: DENY", "action: DENY, rules: [{}]"),
            ("spec.action", "action: REFUSE, rules: [{}]", "action: AUDIT, rules: [{}]"),
            ("spec.provider", "rules: [{}], provider: {name: a}", "rules: [{}]"),
            (
                "spec",
                "selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}]",
                "selector: {matchLabels: {a: b}}",
            ),
            (
                "spec.selector.matchLabels.a",
                "selector: {matchLabels: {a: '*'}}",
                "selector: {matchLabels: {a: ''}}",
            ),
            (
                "spec.rules[0].from[0].source",
                "rules: [{from: [{}]}]",
                "rules: [{from: [{source: {namespaces: [a]}}]}]",
            ),
            (
                "spec.rules[0].from[0].source",
                "rules: [{from: [{source: {}}]}]",
                "rules: [{from: [{source: {notNamespaces: [a]}}]}]",
            ),
            (
                "spec.rules[0].from[0].source",
                "rules: [{from: [{source: {serviceAccounts: [a], notPrincipals: ['*']}}]}]",
                "rules: [{from: [{source: {serviceAccounts: [a], notIpBlocks: [10.0.0.1]}}]}]",
            ),
            (
                "spec.rules[0].from[0].source.serviceAccounts[0]",
                "rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]",
                "rules: [{from: [{source: {serviceAccounts: [a/b]}}]}]",
            ),
            (
                "spec.rules[0].from[0].source.namespaces[0]",
                "rules: [{from: [{source: {namespaces: ['']}}]}]",
                "rules: [{from: [{source: {namespaces: ['a*']}}]}]",
            ),
            (
                "spec.rules[0].from[0].source.ipBlocks[0]",
                "rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]",
                "rules: [{from: [{source: {ipBlocks: [10.0.0.0/32]}}]}]",
            ),
            (
                "spec.rules[0].from[0].source.remoteIpBlocks[0]",
                "rules: [{from: [{source: {remoteIpBlocks: [a]}}]}]",
                "rules: [{from: [{source: {remoteIpBlocks: ['::/0']}}]}]",
            ),
            (
                "spec.rules[0].from[0].source.trustDomains[0]",
                "rules: [{from: [{source: {trustDomains: [a/b]}}]}]",
                "rules: [{from: [{source: {trustDomains: ['*.b']}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation",
                "rules: [{to: [{}]}]",
                "rules: [{to: [{operation: {methods: [GET]}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation",
                "rules: [{to: [{operation: {}}]}]",
                "rules: [{to: [{operation: {notPaths: [/a]}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation.ports[0]",
                "rules: [{to: [{operation: {ports: ['65536']}}]}]",
                "rules: [{to: [{operation: {ports: ['65535']}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation.hosts[0]",
                "rules: [{to: [{operation: {hosts: ['']}}]}]",
                "rules: [{to: [{operation: {hosts: [a]}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation.paths[0]",
                "rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]",
                "rules: [{to: [{operation: {paths: ['/{*}/{**}']}}]}]",
            ),
            (
                "spec.rules[0].to[0].operation.paths[0]",
                "rules: [{to: [{operation: {paths: ['/{a}']}}]}]",
                "rules: [{to: [{operation: {paths: ['/a*']}}]}]",
            ),
            (
                "spec.rules[0].when[0].key",
                "rules: [{when: [{values: [a]}]}]",
                "rules: [{when: [{key: source.namespace, values: [a]}]}]",
            ),
            (
                "spec.rules[0].when[0].key",
                "rules: [{when: [{key: 'destination.labels[a]', values: [a]}]}]",
                "rules: [{when: [{key: destination.ip, values: [10.0.0.1]}]}]",
            ),
            (
                "spec.rules[0].when[0].key",
                "rules: [{when: [{key: 'request.headers[]', values: [a]}]}]",
                "rules: [{when: [{key: 'request.headers[a]', values: [a]}]}]",
            ),
            (
                "spec.rules[0].when[0].values",
                "rules: [{when: [{key: source.namespace}]}]",
                "rules: [{when: [{key: source.namespace, notValues: [a]}]}]",
            ),
            (
                "spec.rules[0].when[0].values[0]",
                "rules: [{when: [{key: 'request.headers[a]', values: ['']}]}]",
                "rules: [{when: [{key: 'request.headers[a]', values: ['*']}]}]",
            ),
            (
                "spec.rules[0].when[0].values[0]",
                "rules: [{when: [{key: source.ip, values: [a]}]}]",
                "rules: [{when: [{key: source.ip, values: [10.0.0.0/8]}]}]",
            ),
            (
                "spec.rules[0].when[0].values[0]",
                "rules: [{when: [{key: source.serviceAccount, values: [a/b/c]}]}]",
                "rules: [{when: [{key: source.serviceAccount, values: [a/b]}]}]",
            ),
        ],
    );
    let warnings = [
        ("spec.action", "action: AUDIT"),
        ("spec.rules[0].to[0].operation.ports[0]", "rules: [{to: [{operation: {ports: ['0']}}]}]"),
        (
            "spec.rules[0].from[0].source.principals[0]",
            "rules: [{from: [{source: {principals: ['a.test/ns/*/sa/b']}}]}]",
        ),
    ];
    warned(Kind::AUTHORIZATION_POLICY, "{$}", &warnings);
}

/// Of objects that are refused for another reason too, or for now.
#[test]
fn policies_name_what_they_cannot_do() {
    let table = [
        ("{action: CUSTOM, provider: {name: a}}", "spec.action"),
        ("{action: CUSTOM, rules: [{}]}", "spec.provider"),
        (
            "{action: CUSTOM, provider: {name: a}, rules: [{from: [{source: {namespaces: [b]}}]}]}",
            "spec.rules[0].from[0].source.namespaces",
        ),
        (
            "{action: CUSTOM, provider: {name: a}, rules: [{when: [{key: source.principal, values: ['*']}]}]}",
            "spec.rules[0].when[0].key",
        ),
        ("{targetRefs: [{kind: Pod, name: a}]}", "spec.targetRefs[0].kind"),
        ("{targetRefs: [{kind: Gateway, name: a}]}", "spec.targetRefs[0].group"),
        ("{targetRefs: [{kind: Service, name: a, namespace: b}]}", "spec.targetRefs[0].namespace"),
        ("{targetRef: {kind: Service}}", "spec.targetRef.name"),
    ];
    for (spec, field) in table {
        let parsed = parse(Kind::AUTHORIZATION_POLICY, "a", spec);
        let named = |d: &&Diagnostic| d.severity == Severity::Error;
        let fields: Vec<String> =
            parsed.diagnostics.iter().filter(named).map(|d| d.field.to_string()).collect();
        assert!(fields.iter().any(|found| found == field), "{spec}: {fields:?}");
        assert!(parsed.objects.is_empty(), "{spec}");
    }
}

#[test]
fn only_policies_that_allow_or_deny_are_tried_out() {
    let object = |kind: &str, spec: &str, value: &str| {
        let group = match kind {
            "VirtualService" => "networking",
            _ => "security",
        };
        format!(
            "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, annotations: {{istio.io/dry-run: '{value}'}}}}\nspec: {spec}\n"
        )
    };
    let rule = "{rules: [{}]}";
    let routes = "{hosts: [a], http: [{redirect: {uri: /}}]}";
    let table = [
        (object("AuthorizationPolicy", rule, "yes"), false),
        (object("AuthorizationPolicy", rule, "T"), true),
        (object("AuthorizationPolicy", "{action: AUDIT, rules: [{}]}", "true"), false),
        (object("AuthorizationPolicy", "{action: DENY, rules: [{}]}", "false"), true),
        (object("PeerAuthentication", "{mtls: {mode: STRICT}}", "true"), false),
        (object("VirtualService", routes, "true"), false),
    ];
    for (text, taken) in table {
        let parsed = parse_file("a.yaml", text.as_bytes());
        let named = parsed.diagnostics.iter().all(|d| {
            d.field.to_string() == "metadata.annotations[\"istio.io/dry-run\"]" && d.fix.is_some()
        });
        assert!(named && parsed.diagnostics.is_empty() == taken, "{text}{:?}", parsed.diagnostics);
    }
}

#[test]
fn the_mesh_is_configured_within_bounds() {
    check(
        Kind::MESH_CONFIG,
        "{$}",
        &[
            ("spec.trustDomain", "trustDomain: a_b", "trustDomain: a.b"),
            (
                "spec.trustDomainAliases[0]",
                "trustDomainAliases: ['a b']",
                "trustDomainAliases: [a]",
            ),
            ("spec.connectTimeout", "connectTimeout: 0s", "connectTimeout: 1ms"),
            ("spec.connectTimeout", "connectTimeout: 61m", "connectTimeout: 60m"),
            (
                "spec.protocolDetectionTimeout",
                "protocolDetectionTimeout: 10us",
                "protocolDetectionTimeout: 0s",
            ),
            ("spec.proxyListenPort", "proxyListenPort: 15006", "proxyListenPort: 15007"),
            (
                "spec.meshMTLS.ecdhCurves",
                "meshMTLS: {ecdhCurves: [P-256]}",
                "meshMTLS: {minProtocolVersion: TLSV1_2}",
            ),
            (
                "spec.defaultHttpRetryPolicy.attempts",
                "defaultHttpRetryPolicy: {retryOn: 5xx}",
                "defaultHttpRetryPolicy: {attempts: 1, retryOn: 5xx}",
            ),
            (
                "spec.localityLbSetting.distribute[0].to",
                "localityLbSetting: {distribute: [{from: a, to: {a: 1}}]}",
                "localityLbSetting: {distribute: [{from: a, to: {a: 100}}]}",
            ),
            (
                "spec.defaultTrafficPolicy.connectionPool",
                "defaultTrafficPolicy: {connectionPool: {}}",
                "defaultTrafficPolicy: {connectionPool: {http: {maxRetries: 1}}}",
            ),
        ],
    );
    check(
        Kind::MESH_CONFIG,
        "{$}",
        &[
            (
                "spec.discoverySelectors[0].matchExpressions[0].values",
                "discoverySelectors: [{matchExpressions: [{key: a, operator: In}]}]",
                "discoverySelectors: [{matchExpressions: [{key: a, operator: In, values: [b]}]}]",
            ),
            (
                "spec.discoverySelectors[0].matchExpressions[0].values",
                "discoverySelectors: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]",
                "discoverySelectors: [{matchExpressions: [{key: a, operator: Exists}]}]",
            ),
            (
                "spec.configSources[0].address",
                "configSources: [{address: 'fs:///etc/istio'}]",
                "configSources: [{address: 'k8s://'}]",
            ),
            (
                "spec.defaultConfig.interceptionMode",
                "defaultConfig: {interceptionMode: TPROXY}",
                "defaultConfig: {interceptionMode: REDIRECT}",
            ),
            (
                "spec.defaultConfig.zipkinAddress",
                "defaultConfig: {zipkinAddress: zipkin}",
                "defaultConfig: {zipkinAddress: 'zipkin.tracing:9411'}",
            ),
            (
                "spec.enableEnvoyAccessLogService",
                "enableEnvoyAccessLogService: true",
                "enableEnvoyAccessLogService: true, defaultConfig: {envoyAccessLogService: {address: 'als.logs:9000'}}",
            ),
            (
                "spec.defaultConfig.envoyAccessLogService.address",
                "defaultConfig: {envoyAccessLogService: {address: als.logs}}",
                "defaultConfig: {envoyAccessLogService: {address: 'als.logs:9000'}}",
            ),
            // What is not done here and would guard, secure or reach something.
            ("spec.ca", "ca: {address: 'ca.test:443'}", "ca: {}"),
            ("spec.caCertificates", "caCertificates: [{pem: a}]", "caCertificates: []"),
            (
                "spec.meshNetworks",
                "meshNetworks: {networks: {a: {endpoints: [{fromCidr: 10.0.0.0/8}]}}}",
                "meshNetworks: {networks: {}}",
            ),
            (
                "spec.defaultConfig.proxyHeaders.preserveHttp1HeaderCase",
                "defaultConfig: {proxyHeaders: {preserveHttp1HeaderCase: true}}",
                "defaultConfig: {proxyHeaders: {preserveHttp1HeaderCase: false, server: {disabled: true}}}",
            ),
            (
                "spec.defaultConfig.proxyHeaders.server.value",
                "defaultConfig: {proxyHeaders: {server: {value: \"a\\nb\"}}}",
                "defaultConfig: {proxyHeaders: {server: {value: 'a b'}}}",
            ),
            (
                "spec.defaultConfig.proxyHeaders.xForwardedPort",
                "defaultConfig: {proxyHeaders: {xForwardedPort: {enabled: true}}}",
                "defaultConfig: {proxyHeaders: {xForwardedPort: {enabled: false}}}",
            ),
        ],
    );
}

#[test]
fn groups_say_what_their_machines_are_like() {
    check(
        Kind::WORKLOAD_GROUP,
        "{$}",
        &[
            ("spec.template", "probe: {tcpSocket: {port: 1}}", "template: {serviceAccount: a}"),
            (
                "spec.template.serviceAccount",
                "template: {labels: {a: b}}",
                "template: {labels: {a: b}, serviceAccount: a}",
            ),
            (
                "spec.template.address",
                "template: {serviceAccount: a, address: 10.0.0.1}",
                "template: {serviceAccount: a, network: n}",
            ),
            (
                "spec.template.ports.http",
                "template: {serviceAccount: a, ports: {http: 0}}",
                "template: {serviceAccount: a, ports: {http: 1}}",
            ),
            (
                "spec.metadata.labels.a",
                "metadata: {labels: {a: 'b c'}}, template: {serviceAccount: a}",
                "metadata: {labels: {a: b}}, template: {serviceAccount: a}",
            ),
        ],
    );
    check(
        Kind::WORKLOAD_GROUP,
        "{template: {serviceAccount: a}, probe: {$}}",
        &[
            ("spec.probe", "", "exec: {command: ['true']}"),
            ("spec.probe", "tcpSocket: {port: 1}, grpc: {port: 1}", "grpc: {port: 1, service: a}"),
            ("spec.probe.httpGet.port", "httpGet: {port: 0}", "httpGet: {port: 1, path: /a}"),
            (
                "spec.probe.httpGet.scheme",
                "httpGet: {port: 1, scheme: FTP}",
                "httpGet: {port: 1, scheme: HTTPS}",
            ),
            (
                "spec.probe.httpGet.host",
                "httpGet: {port: 1, host: a.test}",
                "httpGet: {port: 1, host: ''}",
            ),
            (
                "spec.probe.periodSeconds",
                "tcpSocket: {port: 1}, periodSeconds: 0",
                "tcpSocket: {port: 1}, initialDelaySeconds: 0",
            ),
        ],
    );
}

#[test]
fn proxies_are_started_with_what_an_environment_can_have() {
    check(
        Kind::PROXY_CONFIG,
        "{$}",
        &[
            (
                "spec.environmentVariables[\"a b\"]",
                "environmentVariables: {'a b': c}",
                "environmentVariables: {a_b: c}",
            ),
            ("spec.concurrency", "concurrency: -1", "concurrency: 0"),
            (
                "spec.selector.matchLabels.a",
                "selector: {matchLabels: {a: '*'}}",
                "selector: {matchLabels: {a: b}}",
            ),
        ],
    );
}

#[test]
fn patches_name_the_filters_they_mean() {
    let remove = "patch: {operation: REMOVE}";
    let frame = format!(
        "{{configPatches: [{{applyTo: HTTP_FILTER, match: {{listener: {{filterChain: {{filter: {{$}}}}}}}}, {remove}}}]}}"
    );
    let at = "spec.configPatches[0].match.listener.filterChain.filter";
    let name = format!("{at}.name");
    let http = "name: envoy.filters.network.http_connection_manager, subFilter: {name: a}";
    check(
        Kind::ENVOY_FILTER,
        &frame,
        &[
            (&name, "subFilter: {name: a}", http),
            (&name, "name: envoy.filters.network.tcp_proxy, subFilter: {name: a}", http),
        ],
    );
    check(
        Kind::ENVOY_FILTER,
        &format!("{{$, configPatches: [{{applyTo: CLUSTER, {remove}}}]}}"),
        &[(
            "spec.workloadSelector.labels.a",
            "workloadSelector: {labels: {a: '*'}}",
            "workloadSelector: {labels: {a: b}}",
        )],
    );
}

#[test]
fn extensions_run_code_that_is_verified() {
    let digest = "ab".repeat(32);
    let server = format!("url: 'https://a.test/m', sha256: '{digest}'");
    let file = "url: 'file:///m.wasm'";
    let with = |more: &str| format!("{file}, {more}");
    let rows: Vec<(&str, String, String)> = vec![
        ("spec.url", "phase: AUTHN".to_owned(), with("phase: AUTHN")),
        (
            "spec.sha256",
            format!("url: 'a.test/m@sha256:{}', sha256: '{}'", "0".repeat(64), "1".repeat(64)),
            format!("url: 'a.test/m@sha256:{}', sha256: '{}'", "a".repeat(64), "A".repeat(64)),
        ),
        ("spec.url", "url: 'a.test/m?v1'".to_owned(), "url: 'a.test/m:v1'".to_owned()),
        ("spec.url", "url: 'ftp://a.test/m'".to_owned(), file.to_owned()),
        ("spec.url", "url: 'file://m'".to_owned(), file.to_owned()),
        ("spec.sha256", "url: 'https://a.test/m'".to_owned(), server.clone()),
        ("spec.sha256", "url: 'http://a.test/m', sha256: abc".to_owned(), server),
        ("spec.sha256", with(&format!("sha256: '{digest}'")), file.to_owned()),
        ("spec.verificationKey", with("verificationKey: k"), file.to_owned()),
        ("spec.pluginConfig", with("pluginConfig: [1]"), with("pluginConfig: {a: [1, {b: x}]}")),
        ("spec.phase", with("phase: LATE"), with("phase: STATS")),
        (
            "spec.match[0].ports[0].number",
            with("match: [{ports: [{number: 0}]}]"),
            with("match: [{mode: CLIENT, ports: [{number: 80}]}]"),
        ),
        (
            "spec.vmConfig.env[1].name",
            with("vmConfig: {env: [{name: A, value: a}, {name: A, value: b}]}"),
            with("vmConfig: {env: [{name: A, value: a}, {name: B, valueFrom: HOST}]}"),
        ),
        (
            "spec.vmConfig.env[0].value",
            with("vmConfig: {env: [{name: A, valueFrom: HOST, value: a}]}"),
            with("vmConfig: {env: [{name: A, valueFrom: HOST}]}"),
        ),
    ];
    let rows: Vec<Row<'_>> = rows.iter().map(|(f, r, t)| (*f, r.as_str(), t.as_str())).collect();
    check(Kind::WASM_PLUGIN, "{$}", &rows);
    check(
        Kind::TRAFFIC_EXTENSION,
        "{$}",
        &[
            ("spec", "priority: 1", "lua: {inlineCode: x}"),
            ("spec", "lua: {inlineCode: x}, wasm: {url: 'file:///m'}", "wasm: {url: 'file:///m'}"),
            ("spec.lua.inlineCode", "lua: {inlineCode: ' '}", "lua: {inlineCode: x}"),
            ("spec.wasm.url", "wasm: {url: 'oci://a.test/m?x'}", "wasm: {url: 'oci://a.test/m'}"),
        ],
    );
}
