//! Access logs of the same requests, from an Envoy and from our proxy beside it: the same lines, by
//! the same filters, in text and JSON.
#![cfg(feature = "e2e")]

use std::{collections::BTreeSet, thread};

use ferromesh_integration::{
    process::until,
    workload::{LIMIT, Workload, send_to},
};
use serde_json::{Value, json};

/// Expressions that say what is logged.
const EXPRESSIONS: [&str; 26] = [
    "response.code >= 400",
    "response.code == 200 && response.code_details == 'via_upstream'",
    "request.headers['x-user'] == 'anna'",
    "request.headers['X-USER'] == 'anna'",
    "'x-user' in request.headers && request.url_path.startsWith('/a')",
    "has(request.headers.nope) || request.method == 'POST'",
    "!has(request.headers.nope)",
    "request.headers['nope'] != 'a'",
    "request.headers['nope'] == 'a' || response.code == 200",
    "request.path.matches('^/[ab]/')",
    "request.path.matches('b$')",
    "connection.mtls",
    "request.host == 'cart' && request.scheme == 'http' && request.protocol == 'HTTP/1.1'",
    "request.query == 'x=1'",
    "request.duration < duration('60s')",
    "request.size > 3",
    "source.address.startsWith('127.') && source.port > 0 && destination.port > 0",
    "response.code == 200 && xds.cluster_name.startsWith('inbound|')",
    "request.useragent == 'test' ? true : false",
    "size(request.id) == 36",
    "upstream.port > 0 && upstream.address.contains(':')",
    "request.time > timestamp('2020-01-01T00:00:00Z') && request.time.getFullYear() >= 2020",
    "1 + 2 * 3 == 7 && [1, 2][1] == 2 && {'a': 1}['a'] == 1 && -7 / 2 == -3",
    "response.code == 'x'",
    "request.path.startsWith('/new') && request.host == 'other.test'",
    "request.url_path.startsWith('/old') || request.headers['x-added'] == 'one'",
];

/// Fields of a log in JSON.
const LABELS: &str = "{what: \"log\", path: \"%REQ(:PATH)%\", code: \"%RESPONSE_CODE%\", \
     sent: \"%BYTES_RECEIVED%\", none: \"%REQ(NOPE)%\", mixed: \"%REQ(NOPE)%/%PROTOCOL%\", \
     level: 3, fine: true, ratio: 1.5, inner: {method: \"%REQ(:METHOD)%\", none: \"%REQ(NOPE)%\", \
     list: [\"%PROTOCOL%\", 1, \"%REQ(NOPE)%\"]}}";

/// Operators that are seldom asked for; what has no value is `-`.
const OPERATORS: &str = "OPS %REQ(:PATH)% %REQUEST_HEADER(X-USER)% %RESPONSE_HEADER(SERVER)% \
     %GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER% \
     %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% \
     %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_PEER_DNS_SAN% \
     %DOWNSTREAM_PEER_FINGERPRINT_256% %TRACE_ID%";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: shop}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/denied]}}]}]
";

/// What the route has changed of a request, and what is known of it before.
const REWRITTEN: &str = "REWRITTEN %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
     %REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(:AUTHORITY)% %REQ(X-ADDED)% %REQ(X-USER)%";

/// A host outside, at `APPLICATION`, whose requests are rewritten on their way.
const OUTSIDE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec:
  hosts: [out.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: APPLICATION}]
  endpoints: [{address: BLOCK.3}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: out, namespace: shop}
spec:
  hosts: [out.test]
  http:
  - match: [{uri: {prefix: /old}}]
    rewrite: {uri: /new, authority: other.test}
    headers: {request: {set: {x-added: '%REQ(:PATH)%', x-user: other}}}
    route: [{destination: {host: out.test}}]
  - match: [{uri: {prefix: /added}}]
    headers: {request: {set: {x-added: one}}}
    route: [{destination: {host: out.test}}]
  - route: [{destination: {host: out.test}}]
";

/// A provider for each expression, three for JSON and text without values, and who logs by them.
fn mesh() -> String {
    let mut providers = vec![
        format!(
            "  - name: fields\n    envoyFileAccessLog: {{path: /dev/stdout, logFormat: {{labels: {LABELS}}}}}\n"
        ),
        format!(
            "  - name: filled\n    envoyFileAccessLog: {{path: /dev/stdout, omitEmptyValues: true, \
             logFormat: {{labels: {}}}}}\n",
            LABELS.replace("\"log\"", "\"filled\"")
        ),
        "  - name: words\n    envoyFileAccessLog: {path: /dev/stdout, omitEmptyValues: true, \
         logFormat: {text: \"WORDS %REQ(:PATH)% <%REQ(NOPE)%>\\n\"}}\n"
            .to_owned(),
    ];
    providers.push(format!(
        "  - name: operators\n    envoyFileAccessLog: {{path: /dev/stdout, \
         logFormat: {{text: \"{OPERATORS}\\n\"}}}}\n"
    ));
    providers.push(format!(
        "  - name: rewritten\n    envoyFileAccessLog: {{path: /dev/stdout, \
         logFormat: {{text: \"{REWRITTEN}\\n\"}}}}\n"
    ));
    let mut rules = vec![
        "  - providers: [{name: rewritten}]\n".to_owned(),
        "  - providers: [{name: operators}]\n".to_owned(),
        "  - providers: [{name: fields}]\n".to_owned(),
        "  - providers: [{name: filled}]\n".to_owned(),
        "  - providers: [{name: words}]\n".to_owned(),
    ];
    for (number, expression) in EXPRESSIONS.iter().enumerate() {
        providers.push(format!(
            "  - name: line-{number}\n    envoyFileAccessLog: {{path: /dev/stdout, \
             logFormat: {{text: \"LINE {number} %REQ(:PATH)%\\n\"}}}}\n"
        ));
        rules.push(format!(
            "  - providers: [{{name: line-{number}}}]\n    filter: {{expression: \"{expression}\"}}\n"
        ));
    }
    format!(
        "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default}}\n\
         spec:\n  extensionProviders:\n{}---\n\
         apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
         metadata: {{name: logs, namespace: istio-system}}\nspec:\n  accessLogging:\n{}---{POLICY}",
        providers.concat(),
        rules.concat()
    )
}

/// The lines that a proxy has written for a path, or all that are ours.
fn lines(site: &Workload, of: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let output = site.proxy.output();
    let begins = ["LINE ", "WORDS ", "OPS ", "REWRITTEN ", "{"];
    let ours = output.lines().filter(|line| begins.iter().any(|begin| line.starts_with(begin)));
    ours.filter(|line| of(line)).map(|line| plain(site, line)).collect()
}

/// A line with its fields in order, and without what is one proxy's own.
fn plain(site: &Workload, line: &str) -> String {
    let line = match serde_json::from_str::<Value>(line) {
        Ok(value) => value.to_string(),
        Err(_) => line.to_owned(),
    };
    let (host, port) = site.address.rsplit_once(':').expect("an address");
    let block = host.rsplit_once('.').expect("an address").0;
    line.replace(block, "BLOCK").replace(port, "PORT")
}

#[test]
fn both_proxies_log_the_same() {
    let sites = thread::scope(|scope| {
        let envoy = scope.spawn(|| Workload::start("envoy", "127.92.1"));
        let ours = Workload::start("run", "127.92.2");
        [envoy.join().expect("Envoy's side starts"), ours]
    });
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: cart\r\n{headers}connection: close\r\n\r\n")
    };
    let requests = [
        get("/a/b", "x-user: anna\r\nuser-agent: test\r\n"),
        get("/a/c?x=1", "x-user: bob\r\n"),
        get("/c", ""),
        get("/denied", "x-user: anna\r\n"),
        "POST /b/b HTTP/1.1\r\nhost: cart\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
            .to_owned(),
        get("/last", ""),
    ];
    let told = sites.each_ref().map(|site| {
        site.plane.write("logs.yaml", mesh());
        let (host, port) = site.address.rsplit_once(':').expect("an address");
        let block = host.strip_suffix(".2").expect("a block");
        let outside = OUTSIDE.replace("BLOCK", block).replace("APPLICATION", port);
        site.plane.write("outside.yaml", outside);
        let out = |path: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nhost: out.test\r\nx-user: anna\r\n");
            send_to(&format!("{block}.4:80"), &format!("{head}connection: close\r\n\r\n"))
        };
        until(LIMIT, "the host outside", || out("/begins/old").contains(" 200 "));
        until(LIMIT, "a log as it is configured", || {
            site.ask("/begins", "");
            !lines(site, &|line| line.starts_with("WORDS /begins")).is_empty()
                && site.ask("/denied", "").contains(" 403 ")
        });
        for path in ["/old/a?b=c", "/added", "/as-it-is"] {
            assert!(out(path).contains(" 200 "), "{path}");
        }
        for request in &requests {
            assert!(!site.send(request).is_empty(), "{request}");
        }
        let of_last = |line: &str| line.contains("/last");
        until(LIMIT, "the last lines", || lines(site, &of_last).len() > 10);
        until(LIMIT, "the fields", || {
            lines(site, &|line| of_last(line) && line.starts_with('{')).len() == 2
        });
        let begins = |line: &str| line.contains("/begins") || line.contains("\"x-ready\"");
        lines(site, &|line| !begins(line))
    });
    let [envoy, ours] = told;
    let missing: Vec<_> = envoy.difference(&ours).collect();
    let more: Vec<_> = ours.difference(&envoy).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "only Envoy: {missing:#?}\nonly ours: {more:#?}"
    );
    for line in ["LINE 0 /denied", "LINE 2 /a/b", "LINE 5 /b/b", "WORDS /c <>"] {
        assert!(envoy.contains(line), "{line} of {envoy:#?}");
    }
    let rewritten = "REWRITTEN /new/a?b=c /old/a?b=c /old/a?b=c other.test /old/a?b=c other";
    for line in [rewritten, "REWRITTEN /added /added - out.test one anna", "LINE 24 /new/a?b=c"] {
        assert!(envoy.contains(line), "{line} of {envoy:#?}");
    }
    let fields = json!({
        "what": "log", "path": "/c", "code": 200, "sent": 0, "none": null, "mixed": "-/HTTP/1.1",
        "level": 3, "fine": true, "ratio": 1.5,
        "inner": {"method": "GET", "none": null, "list": ["HTTP/1.1", 1, null]},
    });
    assert!(envoy.contains(&fields.to_string()), "{fields} of {envoy:#?}");
}
