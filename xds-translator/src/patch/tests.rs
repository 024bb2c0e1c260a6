//! What patches make of a small mesh, from the object to the bytes; the mesh without patches
//! beside it.

use ferromesh_proto::discovery;
use serde_json::{Value, json};

use crate::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    dialect::{Kind, parse_value},
    ir::{KeySet, MeshDefaults, ObjectId},
    translate::translate,
};

const SIDECAR: &str = "sidecar~10.244.0.1~cart-0.shop~shop.svc.cluster.local";
const GATEWAY: &str = "router~10.244.0.2~edge-0.shop~shop.svc.cluster.local";
const HTTP: &str = "envoy.filters.network.http_connection_manager";

fn object(kind: &str, api: &str, name: &str, namespace: &str, content: Value) -> Value {
    let mut object = content;
    object["apiVersion"] = json!(api);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!(namespace);
    object
}

fn pod(name: &str, ip: &str, label: (&str, &str)) -> Value {
    let labels = json!({ label.0: label.1 });
    let content = json!({
        "metadata": { "labels": labels },
        "spec": { "serviceAccountName": "default", "containers": [{ "name": "app" }] },
        "status": {
            "phase": "Running", "podIP": ip, "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    object("Pod", "v1", name, "shop", content)
}

/// A service with a workload, a gateway before it.
fn mesh() -> Vec<Value> {
    let ports = json!([
        { "name": "http", "port": 80, "targetPort": 8080 },
        { "name": "tcp", "port": 9000 },
    ]);
    let service = json!({
        "spec": { "clusterIP": "10.0.0.1", "selector": { "app": "cart" }, "ports": ports },
    });
    let server = json!({
        "port": { "number": 8000, "name": "http", "protocol": "HTTP" }, "hosts": ["*"],
    });
    let gateway = json!({ "spec": { "selector": { "istio": "edge" }, "servers": [server] } });
    let routes = json!({
        "spec": {
            "hosts": ["www.example.com"], "gateways": ["edge"],
            "http": [{ "name": "main", "route": [{ "destination": { "host": "cart" } }] }],
        },
    });
    let networking = "networking.istio.io/v1";
    vec![
        pod("cart-0", "10.244.0.1", ("app", "cart")),
        pod("edge-0", "10.244.0.2", ("istio", "edge")),
        object("Service", "v1", "cart", "shop", service),
        object("Gateway", networking, "edge", "shop", gateway),
        object("VirtualService", networking, "edge", "shop", routes),
    ]
}

fn filter_in(namespace: &str, name: &str, spec: Value) -> Value {
    let api = "networking.istio.io/v1alpha3";
    object("EnvoyFilter", api, name, namespace, json!({ "spec": spec }))
}

fn filter(patches: Value) -> Value {
    filter_in("shop", "patches", json!({ "configPatches": patches }))
}

fn change(object: Value) -> Change {
    let parsed = parse_value(object.clone());
    Change::Upsert(Box::new(parsed.unwrap_or_else(|d| panic!("{}: {object:#}", d[0])).0))
}

fn node(id: &str) -> NodeIdentity {
    let node = discovery::Node { id: id.to_owned(), ..Default::default() };
    NodeIdentity::parse(&node, None).expect("a node")
}

/// What a proxy gets, packed messages expanded: a list for each type.
fn translated(id: &str, filters: &[Value]) -> Value {
    let objects = mesh().into_iter().chain(filters.iter().cloned());
    let changes = objects.map(change).collect();
    let all = translate(MeshDefaults::default(), changes, &node(id)).expect("a translation");
    assert!(all.diagnostics.is_empty(), "{:?}", all.diagnostics);
    serde_json::to_value(&all).expect("JSON")
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array().expect("a list").iter().find(|item| item["name"] == name)
}

/// The HTTP connection of a listener's first chain that has one.
fn connection<'a>(all: &'a Value, listener: &str) -> &'a Value {
    let listener = named(&all["listeners"], listener).expect("the listener");
    let chains = listener["filter_chains"].as_array().into_iter().flatten();
    let filters = chains.chain(listener.get("default_filter_chain"));
    let mut filters = filters.flat_map(|chain| chain["filters"].as_array().expect("filters"));
    &filters.find(|filter| filter["name"] == HTTP).expect("HTTP")["typed_config"]
}

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().into_iter().flatten();
    all.map(|item| item["name"].as_str().unwrap_or_default()).collect()
}

fn lua(name: &str) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": "function envoy_on_request(h) end" },
        },
    })
}

/// A filter that decides over nobody.
fn buffer(name: &str) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": 5,
        },
    })
}

fn patch(apply_to: &str, matches: Value, operation: &str, value: Option<Value>) -> Value {
    let mut body = json!({ "operation": operation });
    if let Some(value) = value {
        body["value"] = value;
    }
    json!({ "applyTo": apply_to, "match": matches, "patch": body })
}

fn http_filter(context: &str, sub_filter: &str) -> Value {
    let filter = match sub_filter {
        "" => json!({ "name": HTTP }),
        name => json!({ "name": HTTP, "subFilter": { "name": name } }),
    };
    json!({ "context": context, "listener": { "filterChain": { "filter": filter } } })
}

#[test]
fn http_filters_come_to_their_places() {
    let router = "envoy.filters.http.router";
    let plain = translated(SIDECAR, &[]);
    let usual = names(&connection(&plain, "0.0.0.0_80")["http_filters"]);
    assert_eq!(usual.last(), Some(&router));
    let last = usual.len() - 1;
    let cors = usual.iter().position(|name| name.ends_with("cors")).expect("cors");
    let table = [
        ("INSERT_BEFORE", router, Some(last)),
        ("INSERT_BEFORE", "envoy.router", Some(last)),
        ("INSERT_BEFORE", "", Some(0)),
        ("INSERT_BEFORE", usual[cors], Some(cors)),
        ("INSERT_AFTER", usual[cors], Some(cors + 1)),
        // Nothing runs behind the router.
        ("INSERT_AFTER", router, Some(last)),
        ("INSERT_AFTER", "", Some(last)),
        ("ADD", "", Some(last)),
        ("INSERT_FIRST", "", Some(0)),
        ("INSERT_FIRST", router, Some(0)),
        ("INSERT_BEFORE", "istio.stats", None),
        ("INSERT_AFTER", "istio.stats", None),
        ("INSERT_FIRST", "istio.stats", None),
    ];
    for (operation, sub_filter, place) in table {
        let matches = http_filter("SIDECAR_OUTBOUND", sub_filter);
        let patches = json!([patch("HTTP_FILTER", matches, operation, Some(buffer("own")))]);
        let all = translated(SIDECAR, &[filter(patches)]);
        let mut expected = usual.clone();
        place.into_iter().for_each(|place| expected.insert(place, "own"));
        let found = names(&connection(&all, "0.0.0.0_80")["http_filters"]);
        assert_eq!(found, expected, "{operation} {sub_filter}");
        let inbound = connection(&all, "virtualInbound");
        assert_eq!(inbound, connection(&plain, "virtualInbound"), "{operation} {sub_filter}");
    }
}

#[test]
fn a_class_says_where_a_filter_is_added() {
    let security = "security.istio.io/v1";
    let keys = KeySet::nobodys();
    let rule = json!({ "issuer": "https://a.test", "jwks": keys.as_str() });
    let tokens = json!({ "spec": { "jwtRules": [rule] } });
    let access = json!({ "spec": { "action": "DENY", "rules": [{ "to": [{ "operation": { "ports": ["8080"] } }] }] } });
    let added = |class: &str| {
        let matches = http_filter("SIDECAR_INBOUND", "");
        let mut patch = patch("HTTP_FILTER", matches, "ADD", Some(buffer(class)));
        patch["patch"]["filterClass"] = json!(class);
        patch
    };
    let all = translated(
        SIDECAR,
        &[
            object("RequestAuthentication", security, "a", "shop", tokens),
            object("AuthorizationPolicy", security, "a", "shop", access),
            filter(json!(["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"].map(added))),
        ],
    );
    let found = names(&connection(&all, "virtualInbound")["http_filters"]);
    let filter = |name: &str| format!("envoy.filters.http.{name}");
    let first =
        [filter("jwt_authn"), "AUTHN".into(), filter("rbac"), "AUTHZ".into(), "STATS".into()];
    assert_eq!(found[..5], first);
    assert_eq!(found[found.len() - 2..], ["UNSPECIFIED".to_owned(), filter("router")]);
}

#[test]
fn a_guard_whose_neighbour_is_not_there_comes_before_everything() {
    let guard = json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        },
    });
    let matches = http_filter("SIDECAR_INBOUND", "istio.stats");
    let patches = json!([patch("HTTP_FILTER", matches, "INSERT_BEFORE", Some(guard))]);
    let all = translated(SIDECAR, &[filter(patches)]);
    let found = names(&connection(&all, "virtualInbound")["http_filters"]);
    assert_eq!(found.first(), Some(&"envoy.filters.http.ext_authz"));
}

#[test]
fn http_filters_are_merged_replaced_and_taken_out() {
    let fault = "envoy.filters.http.fault";
    let matches = || http_filter("SIDECAR_OUTBOUND", fault);
    let of = |patches: Value| {
        let all = translated(SIDECAR, &[filter(patches)]);
        named(&connection(&all, "0.0.0.0_80")["http_filters"], fault).cloned()
    };
    let config = |field: Value| {
        let mut config = field;
        let kind = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
        config["@type"] = json!(kind);
        json!({ "name": fault, "typed_config": config })
    };
    let merged = of(json!([
        patch("HTTP_FILTER", matches(), "MERGE", Some(config(json!({ "max_active_faults": 3 })))),
        patch(
            "HTTP_FILTER",
            matches(),
            "MERGE",
            Some(config(json!({ "headers": [{ "name": "a" }] })))
        ),
        patch(
            "HTTP_FILTER",
            matches(),
            "MERGE",
            Some(config(json!({ "headers": [{ "name": "b" }] })))
        ),
    ]));
    let merged = merged.expect("the filter");
    assert_eq!(merged["typed_config"]["max_active_faults"], 3);
    assert_eq!(names(&merged["typed_config"]["headers"]), ["a", "b"], "lists are appended");
    let mut other = lua(fault);
    other["name"] = json!(fault);
    let replaced = of(json!([patch("HTTP_FILTER", matches(), "REPLACE", Some(other.clone()))]));
    let merged = of(json!([patch("HTTP_FILTER", matches(), "MERGE", Some(other))]));
    for found in [replaced, merged] {
        let kind = found.expect("the filter")["typed_config"]["@type"].clone();
        assert!(kind.as_str().is_some_and(|kind| kind.ends_with("Lua")), "{kind}");
    }
    assert_eq!(of(json!([patch("HTTP_FILTER", matches(), "REMOVE", None)])), None);
}

/// Istio's documentation writes filters in this form.
#[test]
fn a_typed_struct_is_the_message_that_it_stands_for() {
    let value = json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "value": {
                "stat_prefix": "limit",
                "token_bucket": { "max_tokens": 4, "tokens_per_fill": 4, "fill_interval": "60s" },
            },
        },
    });
    let matches = http_filter("SIDECAR_INBOUND", "");
    let patches = json!([patch("HTTP_FILTER", matches, "INSERT_BEFORE", Some(value))]);
    let all = translated(SIDECAR, &[filter(patches)]);
    let limit = &connection(&all, "virtualInbound")["http_filters"][0]["typed_config"];
    assert_eq!(limit["token_bucket"]["max_tokens"], 4);
    assert!(limit["@type"].as_str().is_some_and(|kind| kind.ends_with(".LocalRateLimit")));
}

#[test]
fn network_filters_are_inserted_merged_and_replaced() {
    let echo = json!({
        "name": "echo",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" },
    });
    let on = |name: &str| {
        let filter = json!({ "name": name });
        json!({
            "context": "SIDECAR_INBOUND",
            "listener": { "portNumber": 9000, "filterChain": { "filter": filter } },
        })
    };
    let tcp = "envoy.filters.network.tcp_proxy";
    let of = |patches: Value| translated(SIDECAR, &[filter(patches)]);
    let chains = |all: &Value| -> Vec<Vec<String>> {
        let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
        let chains = listener["filter_chains"].as_array().expect("chains").iter();
        let here = chains.filter(|c| c["filter_chain_match"]["destination_port"] == 9000);
        here.map(|c| names(&c["filters"]).into_iter().map(str::to_owned).collect()).collect()
    };
    let all = of(json!([patch("NETWORK_FILTER", on(tcp), "INSERT_BEFORE", Some(echo.clone()))]));
    assert!(!chains(&all).is_empty());
    assert!(chains(&all).iter().all(|chain| *chain == ["echo", tcp]), "{:?}", chains(&all));
    let all = of(json!([patch("NETWORK_FILTER", on(tcp), "REPLACE", Some(echo))]));
    assert!(chains(&all).iter().all(|chain| *chain == ["echo"]), "{:?}", chains(&all));
    let idle = json!({
        "name": tcp,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "idle_timeout": "33s",
        },
    });
    let all = of(json!([patch("NETWORK_FILTER", on(tcp), "MERGE", Some(idle))]));
    let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
    let text = listener.to_string();
    assert!(text.contains("\"33s\"") && text.contains("inbound|9000||"), "{listener:#}");
}

#[test]
fn a_false_value_that_may_be_absent_replaces_a_true_one() {
    let value = json!({
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "normalize_path": false, "stream_idle_timeout": "7s",
        },
    });
    let matches = http_filter("SIDECAR_OUTBOUND", "");
    let patches = json!([patch("NETWORK_FILTER", matches, "MERGE", Some(value))]);
    let all = translated(SIDECAR, &[filter(patches)]);
    let connection = connection(&all, "0.0.0.0_80");
    assert_eq!(connection["normalize_path"], false);
    assert_eq!(connection["stream_idle_timeout"], "7s");
    assert_eq!(connection["rds"]["route_config_name"], "80", "what is not said stays");
}

#[test]
fn listeners_are_merged_added_and_taken_out() {
    let given = json!({
        "name": "given",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 9 } },
    });
    let inbound = json!({ "context": "SIDECAR_INBOUND", "listener": { "name": "virtualInbound" } });
    let port = json!({ "context": "SIDECAR_OUTBOUND", "listener": { "portNumber": 9000 } });
    let all = translated(
        SIDECAR,
        &[filter(json!([
            patch("LISTENER", inbound, "MERGE", Some(json!({ "tcp_backlog_size": 7 }))),
            patch("LISTENER", json!({}), "ADD", Some(given)),
            patch("LISTENER", port, "REMOVE", None),
        ]))],
    );
    let plain = translated(SIDECAR, &[]);
    let expected: Vec<_> = names(&plain["listeners"]);
    let mut expected: Vec<_> = expected.into_iter().filter(|n| *n != "10.0.0.1_9000").collect();
    assert!(expected.len() < names(&plain["listeners"]).len(), "{expected:?}");
    expected.push("given");
    expected.sort_unstable();
    assert_eq!(names(&all["listeners"]), expected);
    let backlog =
        |name: &str| named(&all["listeners"], name).expect(name)["tcp_backlog_size"].clone();
    assert_eq!(backlog("virtualInbound"), 7);
    assert_eq!(backlog("virtualOutbound"), Value::Null);
}

#[test]
fn clusters_are_merged_added_and_taken_out() {
    let cart = "cart.shop.svc.cluster.local";
    let on = |port: u16| json!({ "cluster": { "service": cart, "portNumber": port } });
    let given = json!({ "name": "given", "type": "STRICT_DNS", "connect_timeout": "1s" });
    let all = translated(
        SIDECAR,
        &[filter(json!([
            patch("CLUSTER", on(80), "MERGE", Some(json!({ "connect_timeout": "3s" }))),
            patch("CLUSTER", on(8080), "MERGE", Some(json!({ "connect_timeout": "4s" }))),
            patch("CLUSTER", json!({}), "ADD", Some(given)),
            patch("CLUSTER", on(9000), "REMOVE", None),
        ]))],
    );
    let timeout = |name: &str| {
        named(&all["clusters"], name).map(|cluster| cluster["connect_timeout"].clone())
    };
    assert_eq!(timeout(&format!("outbound|80||{cart}")), Some(json!("3s")));
    assert_eq!(timeout("inbound|8080||"), Some(json!("4s")), "by the service that leads to it");
    assert_eq!(timeout("given"), Some(json!("1s")));
    assert_eq!(timeout(&format!("outbound|9000||{cart}")), None);
    assert_eq!(timeout("PassthroughCluster"), Some(json!("10s")));
    let endpoints = all["endpoints"].to_string();
    assert!(!endpoints.contains("outbound|9000||"), "endpoints go with their cluster");
}

#[test]
fn one_who_takes_a_cluster_out_may_add_another_of_its_name() {
    let name = "outbound|80||cart.shop.svc.cluster.local";
    let given = json!({ "name": name, "type": "STATIC", "connect_timeout": "1s" });
    let all = translated(
        SIDECAR,
        &[filter(json!([
            patch("CLUSTER", json!({ "cluster": { "name": name } }), "REMOVE", None),
            patch("CLUSTER", json!({}), "ADD", Some(given)),
        ]))],
    );
    assert_eq!(named(&all["clusters"], name).expect("the cluster")["connect_timeout"], "1s");
}

#[test]
fn routes_are_changed_where_they_stand() {
    let header = |value: &str| json!([{ "header": { "key": "x-patch", "value": value } }]);
    let add = |value: &str| Some(json!({ "response_headers_to_add": header(value) }));
    let vhost = "cart.shop.svc.cluster.local:80";
    let on = |condition: Value| json!({ "context": "SIDECAR_OUTBOUND", "routeConfiguration": condition });
    let inbound =
        json!({ "context": "SIDECAR_INBOUND", "routeConfiguration": { "portNumber": 8080 } });
    let answer = json!({
        "name": "answer", "match": { "path": "/own" }, "direct_response": { "status": 204 },
    });
    let host = |name: &str, domain: &str| Some(json!({ "name": name, "domains": [domain] }));
    let forwarding = json!({ "name": vhost, "route": { "action": "ROUTE" } });
    let all = translated(
        SIDECAR,
        &[filter(json!([
            patch("ROUTE_CONFIGURATION", on(json!({ "name": "80" })), "MERGE", add("table")),
            patch("VIRTUAL_HOST", on(json!({ "vhost": { "name": vhost } })), "MERGE", add("host")),
            patch("HTTP_ROUTE", on(json!({ "vhost": forwarding })), "MERGE", add("route")),
            patch(
                "HTTP_ROUTE",
                on(json!({ "vhost": { "name": vhost } })),
                "INSERT_FIRST",
                Some(answer)
            ),
            patch(
                "VIRTUAL_HOST",
                on(json!({ "portNumber": 80 })),
                "ADD",
                host("given", "given.example")
            ),
            patch(
                "VIRTUAL_HOST",
                on(json!({ "portNumber": 80 })),
                "ADD",
                host("twice", "cart.shop.svc.cluster.local")
            ),
            patch("HTTP_ROUTE", inbound, "MERGE", add("inbound")),
        ]))],
    );
    let value = |json: &Value| json["response_headers_to_add"][0]["header"]["value"].clone();
    let table = named(&all["routes"], "80").expect("the table");
    assert_eq!(value(table), "table");
    let changed = named(&table["virtual_hosts"], vhost).expect("the host");
    assert_eq!(value(changed), "host");
    assert_eq!(changed["routes"][0]["name"], "answer");
    assert_eq!(value(&changed["routes"][1]), "route");
    assert_eq!(value(&changed["routes"][0]), Value::Null, "inserted after the merge");
    assert!(named(&table["virtual_hosts"], "given").is_some());
    // Every proxy would refuse the whole table.
    assert!(named(&table["virtual_hosts"], "twice").is_none());
    let others = table["virtual_hosts"].as_array().expect("hosts").iter();
    assert!(others.filter(|host| host["name"] != vhost).all(|host| value(host).is_null()));
    let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
    let chains = listener["filter_chains"].as_array().expect("chains").iter();
    let http = chains.filter_map(|chain| named(&chain["filters"], HTTP));
    let tables = http.map(|filter| &filter["typed_config"]["route_config"]);
    let own: Vec<_> = tables.filter(|table| table["name"] == "inbound|8080||").collect();
    assert!(!own.is_empty(), "{listener:#}");
    for table in own {
        assert_eq!(value(&table["virtual_hosts"][0]["routes"][0]), "inbound");
    }
}

#[test]
fn virtual_hosts_are_replaced_as_a_whole() {
    let vhost = "cart.shop.svc.cluster.local:80";
    let table = |name: &str, value: Value| {
        let on = json!({
            "context": "SIDECAR_OUTBOUND",
            "routeConfiguration": { "name": "80", "vhost": { "name": name } },
        });
        let all = translated(
            SIDECAR,
            &[filter(json!([patch("VIRTUAL_HOST", on, "REPLACE", Some(value))]))],
        );
        named(&all["routes"], "80").expect("the table").clone()
    };
    let own = json!({
        "name": "own", "domains": ["cart.shop.svc.cluster.local", "own.example"],
        "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 418 } }],
    });
    let plain = table("nobody", own.clone());
    let replaced = table(vhost, own.clone());
    assert_eq!(names(&replaced["virtual_hosts"]).len(), names(&plain["virtual_hosts"]).len());
    assert!(named(&replaced["virtual_hosts"], vhost).is_none());
    assert_eq!(named(&replaced["virtual_hosts"], "own"), Some(&own));
    // Every proxy would refuse the whole table.
    assert_eq!(table(vhost, json!({ "name": "own" })), plain, "it claims no domain");
    assert_eq!(table("", own), plain, "all would claim the same");
}

/// The limit cannot be put in beside a domain that another host has, and must not be missing.
#[test]
fn a_virtual_host_whose_guard_cannot_be_put_in_is_closed() {
    let vhost = "cart.shop.svc.cluster.local:80";
    let on = json!({
        "context": "SIDECAR_OUTBOUND",
        "routeConfiguration": { "name": "80", "vhost": { "name": vhost } },
    });
    let merge = |domain: &str| {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
        let guard = json!({
            "domains": [domain],
            "typed_per_filter_config": { "envoy.filters.http.rbac": { "@type": kind } },
        });
        let all = translated(
            SIDECAR,
            &[filter(json!([patch("VIRTUAL_HOST", on.clone(), "MERGE", Some(guard))]))],
        );
        let table = named(&all["routes"], "80").expect("the table");
        named(&table["virtual_hosts"], vhost).expect("the host").clone()
    };
    let put_in = merge("own.example");
    assert!(put_in["typed_per_filter_config"]["envoy.filters.http.rbac"].is_object());
    assert!(put_in["routes"][0]["route"].is_object());
    let closed = merge("*");
    assert_eq!(closed["routes"].as_array().map(Vec::len), Some(1));
    assert_eq!(closed["routes"][0]["direct_response"]["status"], 503);
}

#[test]
fn a_gateway_has_patches_of_its_own() {
    let patches = json!([
        patch("HTTP_FILTER", http_filter("GATEWAY", ""), "INSERT_FIRST", Some(lua("edge"))),
        patch(
            "HTTP_FILTER",
            http_filter("SIDECAR_OUTBOUND", ""),
            "INSERT_FIRST",
            Some(lua("cart"))
        ),
        patch(
            "HTTP_ROUTE",
            json!({
                "context": "GATEWAY",
                "routeConfiguration": {
                    "portNumber": 8000,
                    "vhost": { "name": "www.example.com:8000", "route": { "name": "main" } },
                },
            }),
            "MERGE",
            Some(json!({ "route": { "timeout": "9s" } })),
        ),
    ]);
    let all = translated(GATEWAY, &[filter(patches)]);
    let filters = names(&connection(&all, "0.0.0.0_8000")["http_filters"]);
    assert_eq!(filters.first(), Some(&"edge"));
    assert!(!filters.contains(&"cart"));
    let table = named(&all["routes"], "http.8000").expect("the table");
    let host = named(&table["virtual_hosts"], "www.example.com:8000").expect("the host");
    assert_eq!(host["routes"][0]["route"]["timeout"], "9s");
    assert!(host["routes"][0]["route"]["cluster"].is_string());
}

#[test]
fn the_root_namespace_comes_first_then_priority_then_age_and_selectors_select() {
    let own = |name: &str, priority: i32, selector: Value| {
        let matches = http_filter("SIDECAR_OUTBOUND", "");
        let patches = json!([patch("HTTP_FILTER", matches, "INSERT_FIRST", Some(lua(name)))]);
        json!({ "configPatches": patches, "priority": priority, "workloadSelector": selector })
    };
    let all = json!({ "labels": {} });
    let cart = json!({ "labels": { "app": "cart" } });
    let other = json!({ "labels": { "app": "other" } });
    let filters = [
        filter_in("shop", "c", own("late", 5, cart.clone())),
        filter_in("shop", "b", own("second", 0, all.clone())),
        filter_in("shop", "a", own("first", 0, all.clone())),
        filter_in("shop", "d", own("early", -5, all.clone())),
        filter_in("shop", "e", own("not-selected", 0, other)),
        filter_in("istio-system", "z", own("root", 99, cart)),
        filter_in("bank", "a", own("not-here", 0, all)),
    ];
    let all = translated(SIDECAR, &filters);
    let found = names(&connection(&all, "0.0.0.0_80")["http_filters"]);
    assert_eq!(found[..5], ["late", "second", "first", "early", "root"], "each before the former");
    assert!(!found.iter().any(|name| name.starts_with("not-")), "{found:?}");
}

#[test]
fn who_refuses_a_resource_is_told_whose_patch_is_in_it() {
    let cart = "cart.shop.svc.cluster.local";
    let given = json!({ "name": "given", "type": "STATIC" });
    let on = json!({ "cluster": { "service": cart, "portNumber": 80 } });
    let table = json!({ "routeConfiguration": { "name": "80" } });
    let header = json!({ "response_headers_to_remove": ["a"] });
    let one =
        |name: &str, patches: Value| filter_in("shop", name, json!({ "configPatches": patches }));
    let outbound = http_filter("SIDECAR_OUTBOUND", "");
    let filters = [
        one(
            "clusters",
            json!([patch("CLUSTER", on, "MERGE", Some(json!({ "connect_timeout": "3s" })))]),
        ),
        one("given", json!([patch("CLUSTER", json!({}), "ADD", Some(given))])),
        one("filters", json!([patch("HTTP_FILTER", outbound, "INSERT_FIRST", Some(lua("l")))])),
        one("routes", json!([patch("ROUTE_CONFIGURATION", table, "MERGE", Some(header))])),
    ];
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(mesh().into_iter().chain(filters).map(change).collect());
    let class = compiler.classify(&node(SIDECAR)).expect("a class");
    for key in &class.views {
        compiler.view(key);
    }
    use ferromesh_proto::ResourceType::{Cluster, Listener, Route};
    let blamed = |kind, name: &str| -> Vec<String> {
        let origins = class.views.iter().flat_map(|key| compiler.origins_of(key, kind, name));
        let filters = origins.filter(|id: &ObjectId| id.kind == Kind::ENVOY_FILTER);
        filters.map(|id| id.name.to_string()).collect()
    };
    assert_eq!(blamed(Cluster, &format!("outbound|80||{cart}")), ["clusters"]);
    assert!(blamed(Cluster, &format!("outbound|9000||{cart}")).is_empty());
    assert_eq!(blamed(Cluster, "given"), ["given"]);
    assert_eq!(blamed(Listener, "0.0.0.0_80"), ["filters"]);
    assert!(blamed(Listener, "virtualInbound").is_empty());
    assert_eq!(blamed(Route, "80"), ["routes"]);
}

#[test]
fn what_no_patch_changes_is_shared_with_those_who_have_none() {
    let cart = "cart.shop.svc.cluster.local";
    let on = json!({ "cluster": { "service": cart, "portNumber": 80 } });
    let merge = patch("CLUSTER", on, "MERGE", Some(json!({ "connect_timeout": "3s" })));
    let selector = json!({ "labels": { "app": "cart" } });
    let spec = json!({ "workloadSelector": selector, "configPatches": [merge] });
    let mut compiler = Compiler::new(MeshDefaults::default());
    let other = pod("other-0", "10.244.0.3", ("app", "other"));
    let objects = mesh().into_iter().chain([other, filter_in("shop", "a", spec)]);
    compiler.apply(objects.map(change).collect());
    let other = "sidecar~10.244.0.3~other-0.shop~shop.svc.cluster.local";
    let [patched, plain] = [SIDECAR, other].map(|id| {
        let class = compiler.classify(&node(id)).expect("a class");
        compiler.view(&class.views[0])
    });
    let shared = |name: &str| {
        let kind = ferromesh_proto::ResourceType::Cluster;
        let of = |view: &crate::view::View| view.get(kind, name).expect(name).clone();
        std::sync::Arc::ptr_eq(&of(&patched), &of(&plain))
    };
    assert!(!shared(&format!("outbound|80||{cart}")));
    assert!(shared(&format!("outbound|9000||{cart}")) && shared("PassthroughCluster"));
}

/// The names of a listener's chains, the default one last.
fn chains(all: &Value, listener: &str) -> Vec<String> {
    let listener = named(&all["listeners"], listener).expect("the listener");
    let mut found: Vec<String> =
        names(&listener["filter_chains"]).into_iter().map(str::to_owned).collect();
    found.extend(listener["default_filter_chain"]["name"].as_str().map(str::to_owned));
    found
}

#[test]
fn filter_chains_come_go_and_change() {
    let plain = chains(&translated(SIDECAR, &[]), "virtualInbound");
    let of = |matches: Value, operation: &str, value: Option<Value>| {
        translated(SIDECAR, &[filter(json!([patch("FILTER_CHAIN", matches, operation, value)]))])
    };
    let on_port =
        |port: u16| json!({ "context": "SIDECAR_INBOUND", "listener": { "portNumber": port } });
    let all = of(on_port(8080), "REMOVE", None);
    let left = chains(&all, "virtualInbound");
    assert!(plain.iter().any(|name| name == "0.0.0.0_8080"), "{plain:?}");
    assert!(!left.iter().any(|name| name == "0.0.0.0_8080"), "{left:?}");
    let limit = json!({ "transport_socket_connect_timeout": "7s" });
    let all = of(on_port(8080), "MERGE", Some(limit));
    let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
    for chain in listener["filter_chains"].as_array().expect("chains") {
        let changed = chain["transport_socket_connect_timeout"] == "7s";
        assert_eq!(changed, chain["name"] == "0.0.0.0_8080", "{chain:#}");
    }
    let own = json!({
        "name": "own",
        "filter_chain_match": { "destination_port": 1234 },
        "filters": [{
            "name": "echo",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
            },
        }],
    });
    let inbound = json!({ "context": "SIDECAR_INBOUND", "listener": { "name": "virtualInbound" } });
    let all = of(inbound, "ADD", Some(own));
    assert_eq!(chains(&all, "virtualInbound").last().map(String::as_str), Some("own"));
    assert!(!chains(&all, "virtualOutbound").iter().any(|name| name == "own"));
    let limit = json!({ "transport_socket_connect_timeout": "8s" });
    let named_port = |context: &str, name: &str| {
        let matches = json!({ "context": context, "listener": { "portName": name } });
        let all = of(matches, "MERGE", Some(limit.clone()));
        let listeners = all["listeners"].as_array().expect("listeners").clone();
        let limited = |listener: &Value| listener.to_string().contains(r#""8s""#);
        let names = listeners.into_iter().filter(limited);
        names.map(|l| l["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(named_port("SIDECAR_OUTBOUND", "HTTP"), ["0.0.0.0_80"]);
    assert_eq!(named_port("SIDECAR_OUTBOUND", "tcp"), ["10.0.0.1_9000"]);
    assert_eq!(named_port("SIDECAR_INBOUND", "tcp"), ["virtualInbound"]);
    assert_eq!(named_port("SIDECAR_INBOUND", "grpc"), [""; 0]);
    let matches = json!({ "context": "SIDECAR_INBOUND", "listener": { "portName": "tcp" } });
    let all = of(matches, "MERGE", Some(limit.clone()));
    let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
    for chain in listener["filter_chains"].as_array().expect("chains") {
        let changed = chain["transport_socket_connect_timeout"] == "8s";
        assert_eq!(changed, chain["filter_chain_match"]["destination_port"] == 9000, "{chain:#}");
    }
    let secured = json!({
        "context": "SIDECAR_INBOUND",
        "listener": { "filterChain": { "transportSocket": "envoy.transport_sockets.tls" } },
    });
    let limit = json!({ "transport_socket_connect_timeout": "7s" });
    let all = of(secured, "MERGE", Some(limit));
    let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
    let chains_of = listener["filter_chains"].as_array().expect("chains");
    let changed = chains_of.iter().filter(|c| c["transport_socket_connect_timeout"] == "7s");
    assert!((1..chains_of.len()).contains(&changed.clone().count()));
    assert!(changed.into_iter().all(|chain| chain["transport_socket"].is_object()));
    let default = json!({
        "context": "SIDECAR_OUTBOUND",
        "listener": { "name": "0.0.0.0_80", "filterChain": { "name": "PassthroughFilterChain" } },
    });
    let all = of(default, "REMOVE", None);
    assert!(!chains(&all, "0.0.0.0_80").contains(&"PassthroughFilterChain".to_owned()));
}

#[test]
fn a_listener_that_a_patch_opens_or_closes_is_told_apart() {
    let options = |name: &str, value: Value| {
        let matches = json!({ "context": "ANY", "listener": { "name": name } });
        let patched = filter(json!([patch("LISTENER", matches, "MERGE", Some(value))]));
        let all = translated(SIDECAR, &[patched]);
        named(&all["listeners"], name).expect("the listener")["socket_options"].clone()
    };
    let opened = |on: bool| json!({ "bind_to_port": on });
    let apart = json!([
        { "description": "SO_REUSEADDR", "level": "1", "name": "2", "int_value": "1" },
    ]);
    assert_eq!(options("0.0.0.0_80", opened(true)), apart);
    assert_eq!(options("0.0.0.0_80", opened(false)), Value::Null);
    assert_eq!(options("virtualOutbound", opened(false)), apart);
    assert_eq!(options("virtualOutbound", json!({ "tcp_backlog_size": 7 })), Value::Null);
}

#[test]
fn a_listener_keeps_a_chain_and_no_two_for_one_connection() {
    let applied = |patches: Value| {
        let objects = mesh().into_iter().chain([filter(patches)]).map(change).collect();
        let mut compiler = Compiler::new(MeshDefaults::default());
        compiler.apply(objects);
        let view = compiler.classify(&node(SIDECAR)).expect("a class").views[0].clone();
        let reader = crate::snapshot::Reader::new(compiler.snapshot());
        let outline = crate::plan::plan_outline(&reader, &view);
        let listeners = outline.of(ferromesh_proto::ResourceType::Listener);
        let reports = listeners.iter().filter_map(|entry| match entry {
            crate::plan::Entry::Own(item) => Some(super::encode(item, &outline.patches).1),
            crate::plan::Entry::Shared(_) => None,
        });
        reports.flat_map(|r| r.refused).map(|r| r.reason).collect::<Vec<_>>()
    };
    let outbound =
        || json!({ "context": "SIDECAR_OUTBOUND", "listener": { "name": "virtualOutbound" } });
    let all = json!([patch("FILTER_CHAIN", outbound(), "REMOVE", None)]);
    assert_eq!(applied(all), ["the listener would have no chain"]);
    let twice = json!({ "name": "own", "filter_chain_match": { "destination_port": 15001 } });
    let all = json!([patch("FILTER_CHAIN", outbound(), "ADD", Some(twice))]);
    assert_eq!(applied(all), ["two chains would match the same connections"]);
}

#[test]
fn listener_filters_come_to_their_places() {
    let inspector = "envoy.filters.listener.tls_inspector";
    let own = json!({
        "name": "own",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        },
    });
    let filters = |all: &Value| -> Vec<String> {
        let listener = named(&all["listeners"], "virtualInbound").expect("the listener");
        names(&listener["listener_filters"]).into_iter().map(str::to_owned).collect()
    };
    let usual = filters(&translated(SIDECAR, &[]));
    let at = usual.iter().position(|name| name == inspector).expect("an inspector");
    let table = [
        ("ADD", "", Some(usual.len())),
        ("INSERT_FIRST", "", Some(0)),
        ("INSERT_BEFORE", inspector, Some(at)),
        ("INSERT_AFTER", inspector, Some(at + 1)),
        ("INSERT_AFTER", "nobody", None),
    ];
    for (operation, name, place) in table {
        let listener = json!({ "listenerFilter": name });
        let matches = json!({ "context": "SIDECAR_INBOUND", "listener": listener });
        let patches = json!([patch("LISTENER_FILTER", matches, operation, Some(own.clone()))]);
        let mut expected = usual.clone();
        place.into_iter().for_each(|place| expected.insert(place, "own".to_owned()));
        assert_eq!(
            filters(&translated(SIDECAR, &[filter(patches)])),
            expected,
            "{operation} {name}"
        );
    }
    let named = json!({ "listener": { "listenerFilter": inspector } });
    let patches = json!([patch("LISTENER_FILTER", named, "REMOVE", None)]);
    assert!(!filters(&translated(SIDECAR, &[filter(patches)])).contains(&inspector.to_owned()));
}

#[test]
fn a_patch_may_be_for_proxies_that_say_something_of_themselves() {
    let on = |proxy: Value| {
        let matches =
            json!({ "proxy": proxy, "cluster": { "service": "cart.shop.svc.cluster.local" } });
        filter(json!([patch(
            "CLUSTER",
            matches,
            "MERGE",
            Some(json!({ "connect_timeout": "3s" }))
        )]))
    };
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = [("ISTIO_VERSION".to_owned(), text("1.31.2")), ("TEAM".to_owned(), text("a"))];
    let metadata = prost_types::Struct { fields: fields.into() };
    let telling =
        discovery::Node { id: SIDECAR.to_owned(), metadata: Some(metadata), ..Default::default() };
    let telling = NodeIdentity::parse(&telling, None).expect("a node");
    let table = [
        (json!({ "proxyVersion": r"^1\.31" }), true),
        (json!({ "proxyVersion": r"^1\.30" }), false),
        (json!({ "metadata": { "TEAM": "a" } }), true),
        (json!({ "metadata": { "TEAM": "b" } }), false),
        (json!({ "proxyVersion": "1", "metadata": { "TEAM": "b" } }), false),
        (json!({}), true),
    ];
    for (proxy, expected) in table {
        let patched = |node: &NodeIdentity| {
            let changes = mesh().into_iter().chain([on(proxy.clone())]).map(change).collect();
            let all = translate(MeshDefaults::default(), changes, node).expect("a translation");
            let name = "outbound|80||cart.shop.svc.cluster.local";
            let cluster = all.clusters.iter().find(|cluster| cluster["name"] == name);
            cluster.expect("the cluster")["connect_timeout"] == "3s"
        };
        assert_eq!(patched(&telling), expected, "{proxy}");
        assert_eq!(patched(&node(SIDECAR)), proxy == json!({}), "who says nothing: {proxy}");
    }
}

#[test]
fn a_configuration_stands_apart_from_the_filter_that_asks_for_it() {
    let filter_of = |name: &str| {
        json!({
            "name": name,
            "config_discovery": {
                "config_source": { "ads": {}, "resource_api_version": "V3" },
                "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"],
            },
        })
    };
    let ask = |name: &str| {
        let matches = http_filter("SIDECAR_INBOUND", "");
        patch("HTTP_FILTER", matches, "INSERT_FIRST", Some(filter_of(name)))
    };
    let add = |context: &str| {
        let value = json!({ "name": "mark", "typed_config": lua("mark")["typed_config"] });
        patch("EXTENSION_CONFIG", json!({ "context": context }), "ADD", Some(value))
    };
    // Of any side it is with what clients see; the filter finds it there.
    for context in ["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "ANY"] {
        let all = translated(SIDECAR, &[filter(json!([ask("mark"), add(context)]))]);
        assert_eq!(names(&all["extensions"]), ["mark"], "{context}");
        let kind = &all["extensions"][0]["typed_config"]["@type"];
        assert!(kind.as_str().is_some_and(|kind| kind.ends_with(".Lua")), "{kind}");
        let filters = names(&connection(&all, "virtualInbound")["http_filters"]);
        assert_eq!(filters[0], "mark");
    }
    let gateway = translated(GATEWAY, &[filter(json!([add("SIDECAR_INBOUND")]))]);
    assert_eq!(gateway.get("extensions"), None, "it is for sidecars");
    // Of two of one name the first stays.
    let mut other = add("ANY");
    other["patch"]["value"]["typed_config"] = buffer("mark")["typed_config"].clone();
    let all = translated(SIDECAR, &[filter(json!([add("ANY"), other]))]);
    assert_eq!(names(&all["extensions"]), ["mark"]);
    let kind = &all["extensions"][0]["typed_config"]["@type"];
    assert!(kind.as_str().is_some_and(|kind| kind.ends_with(".Lua")), "{kind}");
}

#[test]
fn extensions_stand_where_their_phase_says() {
    let security = "security.istio.io/v1";
    let tokens = object(
        "RequestAuthentication",
        security,
        "login",
        "shop",
        json!({ "spec": { "jwtRules": [{ "issuer": "a", "jwks": KeySet::nobodys().as_str() }] } }),
    );
    let access = object(
        "AuthorizationPolicy",
        security,
        "cart",
        "shop",
        json!({ "spec": { "rules": [{ "to": [{ "operation": { "methods": ["GET"] } }] }] } }),
    );
    let extension = |phase: &str, priority: i32| {
        let name = format!("{}{priority}", phase.to_lowercase());
        let lua = json!({ "inlineCode": "function envoy_on_request(h) end" });
        let spec = json!({ "lua": lua, "phase": phase, "priority": priority });
        object(
            "TrafficExtension",
            "extensions.istio.io/v1alpha1",
            &name,
            "shop",
            json!({ "spec": spec }),
        )
    };
    let extensions = [
        extension("STATS", 1),
        extension("AUTHZ", 1),
        extension("AUTHN", 1),
        extension("AUTHN", 2),
        extension("AUTHZ", 2),
    ];
    let order = |guards: &[Value]| {
        let objects: Vec<Value> = guards.iter().chain(&extensions).cloned().collect();
        let all = translated(SIDECAR, &objects);
        assert_eq!(names(&all["extensions"]).len(), extensions.len());
        let filters = names(&connection(&all, "virtualInbound")["http_filters"]);
        let short = |name: &&str| {
            let name = name.rsplit_once("shop.").map_or(*name, |(_, name)| name);
            name.trim_start_matches("envoy.filters.http.").to_owned()
        };
        filters.iter().map(short).collect::<Vec<_>>().join(" ")
    };
    let guarded = order(&[tokens.clone(), access.clone()]);
    let expected = "authn2 authn1 jwt_authn authz2 authz1 rbac stats1 grpc_stats";
    assert!(guarded.starts_with(expected), "{guarded}");
    let open = order(&[]);
    assert!(open.starts_with("authn2 authn1 authz2 authz1 stats1 grpc_stats"), "{open}");
}
