//! What ServiceEntries come to for the clients and the workloads that they are about.

use ferromesh_proto::discovery::Node;
use serde_json::Value;

use crate::{
    class::NodeIdentity,
    compiler::Change,
    dialect::parse_files,
    ir::MeshDefaults,
    translate::{Translation, translate},
};

/// What `NAME.NAMESPACE` at an address gets.
fn sidecar(text: &str, name: &str, address: &str) -> Translation {
    let (_, namespace) = name.split_once('.').expect("a name and a namespace");
    of_node(text, &format!("sidecar~{address}~{name}~{namespace}.svc.cluster.local"))
}

fn of_node(text: &str, id: &str) -> Translation {
    of_described(text, id, &[])
}

fn of_described(text: &str, id: &str, metadata: &[(&str, &str)]) -> Translation {
    let parsed = parse_files([("a.yaml", text.as_bytes())]);
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.diagnostics);
    let value = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let node = Node { id: id.to_owned(), metadata, ..Node::default() };
    let node = NodeIdentity::parse(&node, None).expect("a good node id");
    let changes = parsed.objects.into_iter().map(|o| Change::Upsert(Box::new(o))).collect();
    translate(MeshDefaults::default(), changes, &node).expect("a translation")
}

fn client(text: &str, namespace: &str) -> Translation {
    sidecar(text, &format!("client.{namespace}"), "10.9.9.9")
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

/// Addresses and ports of a cluster's endpoints, in EDS or in the cluster.
fn endpoints(got: &Translation, cluster: &str) -> Option<Vec<String>> {
    let listed = got.endpoints.iter().find(|e| e["cluster_name"] == cluster);
    let inside =
        || got.clusters.iter().find(|c| c["name"] == cluster).map(|c| &c["load_assignment"]);
    let localities = listed.or_else(inside)?["endpoints"].as_array().cloned().unwrap_or_default();
    let all =
        localities.iter().flat_map(|l| l["lb_endpoints"].as_array().cloned().unwrap_or_default());
    let address = |e: Value| {
        let at = &e["endpoint"]["address"]["socket_address"];
        format!("{}:{}", at["address"].as_str().unwrap_or_default(), at["port_value"])
    };
    Some(all.map(address).collect())
}

/// `CLUSTER ADDRESSES`, of every outbound cluster of a host.
fn clusters(got: &Translation, host: &str) -> Vec<String> {
    let names = got.clusters.iter().filter_map(|c| c["name"].as_str());
    let own = names.filter(|name| name.ends_with(&format!("|{host}")));
    own.map(|name| {
        let addresses = endpoints(got, name).unwrap_or_default();
        format!("{} {}", name.split('|').nth(1).unwrap_or_default(), addresses.join(" "))
    })
    .collect()
}

const FIXED: &str = "hosts: [a.test], location: MESH_EXTERNAL, resolution: STATIC";
const HTTP: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";
const TLS: &str = "ports: [{number: 443, name: tls, protocol: TLS}]";

#[test]
fn entries_of_one_host_are_read_as_one_where_they_agree() {
    let first = entry("h1", &format!("{FIXED}, {HTTP}, endpoints: [{{address: 9.9.9.1}}]"));
    let both =
        |spec: &str| clusters(&client(&format!("{first}{}", entry("h2", spec)), "shop"), "a.test");
    let endpoint = "endpoints: [{address: 9.9.9.2}]";
    assert_eq!(both(&format!("{FIXED}, {TLS}, {endpoint}")), ["443 9.9.9.2:443", "80 9.9.9.1:80"]);
    assert_eq!(
        both(&format!("{FIXED}, {HTTP}, {endpoint}")),
        ["80 9.9.9.1:80 9.9.9.2:80"],
        "one port, the endpoints of both"
    );
    let web = "ports: [{number: 80, name: web, protocol: HTTP}, {number: 81, name: more, protocol: HTTP}]";
    assert_eq!(
        both(&format!("{FIXED}, {web}, {endpoint}")),
        ["80 9.9.9.1:80", "81 9.9.9.2:81"],
        "the number is taken by a port of another name"
    );
    let ported = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]";
    assert_eq!(
        both(&format!("{FIXED}, {ported}, {endpoint}")),
        ["80 9.9.9.1:80 9.9.9.2:8080"],
        "each at its own port"
    );
    let apart = [
        format!("hosts: [a.test], resolution: DNS, {TLS}"),
        format!("{FIXED}, {TLS}, {endpoint}, exportTo: ['.']"),
        format!("{FIXED}, {TLS}, workloadSelector: {{labels: {{app: x}}}}"),
    ];
    for spec in apart {
        assert_eq!(both(&spec), ["80 9.9.9.1:80"], "{spec}");
    }
}

#[test]
fn clients_get_the_entries_that_they_see() {
    let (own, all) = ("exportTo: ['.']", "exportTo: ['*']");
    let of = |name: &str, address: &str, export: &str, ports: &str| {
        entry(name, &format!("{FIXED}, {ports}, {export}, endpoints: [{{address: {address}}}]"))
    };
    let text = [
        of("h1", "9.9.9.1", own, HTTP),
        of("h2", "9.9.9.2", all, TLS),
        of("h3", "9.9.9.3", all, HTTP),
    ]
    .concat();
    assert_eq!(clusters(&client(&text, "shop"), "a.test"), ["80 9.9.9.1:80"], "the oldest it sees");
    assert_eq!(
        clusters(&client(&text, "bank"), "a.test"),
        ["443 9.9.9.2:443", "80 9.9.9.3:80"],
        "the first is not shown to it"
    );
}

#[test]
fn an_entry_adds_endpoints_to_a_service_of_the_cluster_and_no_ports() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";
    let host = "a.shop.svc.cluster.local";
    let of = |spec: &str| {
        let entry = entry("h", &format!("hosts: [{host}], {spec}"));
        clusters(&client(&format!("{service}{entry}"), "shop"), host)
    };
    let endpoint = "endpoints: [{address: 9.9.9.1}]";
    assert_eq!(of(&format!("resolution: STATIC, {TLS}, {endpoint}")), ["80 "]);
    assert_eq!(of(&format!("resolution: STATIC, {HTTP}, {endpoint}")), ["80 9.9.9.1:80"]);
    let ports = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]";
    assert_eq!(of(&format!("resolution: STATIC, {ports}, {endpoint}")), ["80 9.9.9.1:8080"]);
    assert_eq!(of(&format!("resolution: DNS, {HTTP}, {endpoint}")), ["80 "]);
}

#[test]
fn addresses_of_entries_that_are_read_as_one_are_all_listened_for() {
    let tcp =
        |number: u16| format!("ports: [{{number: {number}, name: tcp-{number}, protocol: TCP}}]");
    let of = |name: &str, address: &str, number: u16| {
        let ports = tcp(number);
        entry(
            name,
            &format!("{FIXED}, addresses: [{address}], {ports}, endpoints: [{{address: 9.9.9.1}}]"),
        )
    };
    let got = client(&[of("h1", "10.8.0.1", 5000), of("h2", "10.8.0.2", 5001)].concat(), "shop");
    let names: Vec<&str> = got.listeners.iter().filter_map(|l| l["name"].as_str()).collect();
    for name in ["10.8.0.1_5000", "10.8.0.2_5001"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: vm-0, namespace: foo, labels: {app: vm, security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: vm, containers: [{name: app, ports: [{containerPort: 7071}]}]}\nstatus: {phase: Running, podIP: 10.245.0.27, conditions: [{type: Ready, status: \"True\"}]}\n";

fn workload_of(text: &str) -> Translation {
    sidecar(text, "vm-0.foo", "10.245.0.27")
}

/// Ports of the workload's inbound clusters, each with what its chain takes.
fn inbound(got: &Translation) -> Vec<String> {
    let virtual_inbound = got.listeners.iter().find(|l| l["name"] == "virtualInbound");
    let chains = virtual_inbound.expect("a server side")["filter_chains"].as_array().cloned();
    let names = got.clusters.iter().filter_map(|c| c["name"].as_str());
    let ports = names.filter_map(|name| name.strip_prefix("inbound|")?.strip_suffix("||"));
    let speaks = |port: &str| {
        let number: u64 = port.parse().expect("a number");
        let chains = chains.iter().flatten();
        let own = chains.filter(|c| c["filter_chain_match"]["destination_port"] == number);
        let http = own.clone().any(|c| c.to_string().contains("HttpConnectionManager"));
        let bytes = own.clone().any(|c| c.to_string().contains("TcpProxy"));
        format!("{port} http={http} bytes={bytes}")
    };
    ports.map(speaks).collect()
}

#[test]
fn an_entry_with_the_address_of_a_workload_is_the_workloads_own_service() {
    let reported = include_str!(
        "../../../../integration/corpus/reported/14-serviceentry-of-a-known-workload.yaml"
    );
    assert_eq!(
        inbound(&workload_of(&format!("{POD}---\n{reported}"))),
        ["7070 http=false bytes=true"]
    );
    let ported = reported.replace("protocol: TCP", "protocol: HTTP, targetPort: 7071");
    assert_eq!(
        inbound(&workload_of(&format!("{POD}---\n{ported}"))),
        ["7071 http=true bytes=false"]
    );
    let mapped = reported.replace("10.245.0.27", "10.245.0.27, ports: {tcp: 7072}");
    assert_eq!(
        inbound(&workload_of(&format!("{POD}---\n{mapped}"))),
        ["7072 http=false bytes=true"]
    );
    let foreign = reported.replace("namespace: foo", "namespace: bar");
    assert_eq!(
        inbound(&workload_of(&format!("{POD}---\n{foreign}"))),
        [""; 0],
        "of another namespace"
    );
    let elsewhere = reported.replace("10.245.0.27", "10.245.0.28");
    assert_eq!(inbound(&workload_of(&format!("{POD}---\n{elsewhere}"))), [""; 0]);
}

#[test]
fn an_entry_that_selects_a_workload_is_its_own_service() {
    let selecting = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: foo}\nspec: {hosts: [vm.example], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 7070, name: http, protocol: HTTP, targetPort: 7071}], workloadSelector: {labels: {app: vm}}}\n";
    let expected = ["7071 http=true bytes=false"];
    assert_eq!(inbound(&workload_of(&format!("{POD}{selecting}"))), expected);
    let machine = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm-0, namespace: foo}\nspec: {address: 10.245.0.27, labels: {app: vm}, serviceAccount: vm}\n";
    assert_eq!(inbound(&workload_of(&format!("{machine}{selecting}"))), expected);
}

#[test]
fn a_gateways_ports_are_translated_by_an_entry_with_its_address() {
    let gateway = POD.replace("vm-0", "gw-0").replace("app: vm", "app: gw");
    let configuration = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: foo}\nspec: {selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: foo}\nspec: {hosts: [gw.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 10.245.0.27}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: foo}\nspec: {hosts: ['*'], gateways: [g], http: [{directResponse: {status: 200}}]}\n";
    let id = "router~10.245.0.27~gw-0.foo~foo.svc.cluster.local";
    let got = of_node(&format!("{gateway}{configuration}"), id);
    let names: Vec<&str> = got.listeners.iter().filter_map(|l| l["name"].as_str()).collect();
    assert_eq!(names, ["0.0.0.0_8080"]);
}

/// The names that lead to a host on port 80.
fn domains(got: &Translation, host: &str) -> String {
    let hosts =
        got.routes.iter().flat_map(|r| r["virtual_hosts"].as_array().cloned().unwrap_or_default());
    let own = hosts.filter(|h| h["name"] == format!("{host}:80")).map(|h| h["domains"].clone());
    let own: Vec<Value> = own.filter_map(|d| d.as_array().cloned()).flatten().collect();
    own.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

#[test]
fn entries_in_the_clusters_domain_have_its_short_names() {
    let of = |host: &str| entry("e", &format!("hosts: ['{host}'], resolution: NONE, {HTTP}"));
    let (host, full) = ("cart.bank.svc.cluster.local", "cart.bank.svc.cluster.local");
    let text = of(host);
    assert_eq!(
        domains(&client(&text, "bank"), host),
        format!("{full} {full}. cart cart.bank.svc cart.bank"),
        "the namespace is that of the host"
    );
    assert_eq!(
        domains(&client(&text, "shop"), host),
        format!("{full} {full}. cart.bank cart.bank.svc")
    );
    let wide = "*.example.com";
    assert_eq!(domains(&client(&of(wide), "shop"), wide), "*.example.com *.example.com.");
}

fn rule(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn a_given_sni_is_no_name_that_the_certificate_must_carry() {
    let verified = |tls: &str, more: &str| {
        let spec =
            format!("hosts: [a.test], location: MESH_EXTERNAL, resolution: DNS, {HTTP}{more}");
        let text = entry("e", &spec);
        let policy = rule(&format!("host: a.test, trafficPolicy: {{tls: {{{tls}}}}}"));
        let got = client(&format!("{text}{policy}"), "shop");
        let cluster = got.clusters.iter().find(|c| c["name"] == "outbound|80||a.test");
        let cluster = cluster.expect("the cluster").clone();
        let socket = &cluster["transport_socket"]["typed_config"];
        let context = &socket["common_tls_context"]["combined_validation_context"];
        let names = context["default_validation_context"]["match_typed_subject_alt_names"].clone();
        let names = names.as_array().cloned().unwrap_or_default();
        let names = names.iter().map(|n| n["matcher"]["exact"].to_string()).collect::<Vec<_>>();
        let automatic = cluster.to_string().contains("\"auto_san_validation\":true");
        (socket["sni"].as_str().unwrap_or_default().to_owned(), names.join(" "), automatic)
    };
    let of = |sni: &str, names: &str, automatic| (sni.to_owned(), names.to_owned(), automatic);
    for mode in ["mode: SIMPLE", "mode: MUTUAL, clientCertificate: /c, privateKey: /k"] {
        assert_eq!(
            verified(&format!("{mode}, sni: b.test"), ""),
            of("b.test", "", false),
            "{mode}"
        );
        assert_eq!(verified(mode, ""), of("", "", true), "the request's host");
        let named = format!("{mode}, sni: b.test, subjectAltNames: [c.test]");
        assert_eq!(verified(&named, ""), of("b.test", "\"c.test\"", false));
        let of_service = verified(&format!("{mode}, sni: b.test"), ", subjectAltNames: [d.test]");
        assert_eq!(of_service, of("b.test", "\"d.test\"", false));
    }
}

#[test]
fn bytes_may_be_routed_to_the_wildcard_that_a_service_has_for_its_name() {
    let wide = "*.partner.example";
    let service =
        entry("e", &format!("hosts: ['{wide}'], location: MESH_EXTERNAL, resolution: NONE, {TLS}"));
    let table = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{hosts: ['{wide}'], tls: [{{match: [{{port: 443, sniHosts: ['a.partner.example']}}], route: [{{destination: {{host: '{wide}', port: {{number: 443}}}}}}]}}]}}\n"
    );
    let got = client(&format!("{service}{table}"), "shop");
    assert_eq!(got.dangling, []);
    let listener = got.listeners.iter().find(|l| l["name"] == "0.0.0.0_443").expect("a listener");
    let chain = &listener["filter_chains"][0];
    assert_eq!(chain["filter_chain_match"]["server_names"][0], "a.partner.example");
    assert!(chain.to_string().contains(&format!("\"outbound|443||{wide}\"")), "{chain}");
}

/// A pod of a service `cart` of the shop on a node.
fn cart_on(name: &str, address: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}\nspec: {{nodeName: {node}, containers: [{{name: app}}]}}\nstatus: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"True\"}}]}}\n"
    )
}

/// Three nodes in two zones, a service with a pod on each, and a client on the first.
fn zones(service: &str) -> String {
    let service = if service.is_empty() { String::new() } else { format!("{service}, ") };
    let node = |name: &str, zone: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: {zone}}}}}\n"
        )
    };
    [
        node("n1", "a"),
        node("n2", "a"),
        node("n3", "b"),
        cart_on("cart-1", "10.1.0.1", "n1"),
        cart_on("cart-2", "10.1.0.2", "n2"),
        cart_on("cart-3", "10.1.0.3", "n3"),
        cart_on("client", "10.9.9.9", "n1").replace("app: cart", "app: client"),
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop, annotations: {{}}}}\nspec: {{clusterIP: 10.0.0.1, selector: {{app: cart}}, {service}ports: [{{name: http, port: 80}}]}}\n"
        ),
    ]
    .concat()
}

const CART: &str = "outbound|80||cart.shop.svc.cluster.local";

#[test]
fn subsets_may_be_told_by_where_endpoints_are() {
    let subset = |labels: &str| {
        let policy = rule(&format!("host: cart, subsets: [{{name: s, labels: {{{labels}}}}}]"));
        let got = client(&format!("{}{policy}", zones("")), "shop");
        endpoints(&got, "outbound|80|s|cart.shop.svc.cluster.local")
            .expect("an assignment")
            .join(" ")
    };
    let all = "10.1.0.1:80 10.1.0.2:80 10.1.0.3:80";
    let table = [
        ("topology.kubernetes.io/zone: a", "10.1.0.1:80 10.1.0.2:80"),
        ("topology.kubernetes.io/zone: b, topology.kubernetes.io/region: eu", "10.1.0.3:80"),
        ("kubernetes.io/hostname: n2", "10.1.0.2:80"),
        ("topology.istio.io/cluster: Kubernetes", all),
        ("topology.istio.io/network: n", ""),
        ("topology.kubernetes.io/region: us", ""),
    ];
    for (labels, expected) in table {
        assert_eq!(subset(labels), expected, "{labels}");
    }
    let entries = entry(
        "e",
        &format!(
            "hosts: [a.test], resolution: STATIC, {HTTP}, endpoints: [{{address: 9.9.9.1, locality: eu/a/r, network: n}}, {{address: 9.9.9.2}}]"
        ),
    );
    let labels = "topology.istio.io/subzone: r, topology.istio.io/network: n";
    let policy = rule(&format!("host: a.test, subsets: [{{name: s, labels: {{{labels}}}}}]"));
    let got = client(&format!("{entries}{policy}"), "shop");
    assert_eq!(endpoints(&got, "outbound|80|s|a.test").expect("an assignment"), ["9.9.9.1:80"]);
}

/// `PRIORITY ADDRESSES`, by priority.
fn priorities(got: &Translation, cluster: &str) -> Vec<String> {
    let listed =
        got.endpoints.iter().find(|e| e["cluster_name"] == cluster).expect("an assignment");
    let localities = listed["endpoints"].as_array().cloned().unwrap_or_default();
    let mut at: Vec<String> = Vec::new();
    for locality in localities {
        let priority = locality["priority"].as_u64().unwrap_or_default();
        let own = locality["lb_endpoints"].as_array().cloned().unwrap_or_default();
        let own = own.iter().map(|e| e["endpoint"]["address"]["socket_address"]["address"].clone());
        at.extend(own.map(|a| format!("{priority} {}", a.as_str().unwrap_or_default())));
    }
    at.sort();
    at
}

#[test]
fn what_a_service_prefers_needs_no_policy() {
    let with = |spec: &str, annotation: &str| {
        let text =
            zones(spec).replace("annotations: {}", &format!("annotations: {{{annotation}}}"));
        priorities(&client(&text, "shop"), CART)
    };
    let flat = ["0 10.1.0.1", "0 10.1.0.2", "0 10.1.0.3"];
    assert_eq!(with("", ""), flat);
    let zone = ["0 10.1.0.1", "0 10.1.0.2", "1 10.1.0.3"];
    assert_eq!(with("trafficDistribution: PreferClose", ""), zone);
    assert_eq!(with("trafficDistribution: PreferSameZone", ""), zone);
    let annotation = "networking.istio.io/traffic-distribution: preferclose";
    assert_eq!(with("", annotation), zone, "without case");
    let node = ["0 10.1.0.1", "1 10.1.0.2", "2 10.1.0.3"];
    assert_eq!(with("trafficDistribution: PreferSameNode", annotation), node);
    let off =
        rule("host: cart, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}");
    let text = format!("{}{off}", zones("trafficDistribution: PreferClose"));
    assert_eq!(priorities(&client(&text, "shop"), CART), flat, "a policy comes first");
}

#[test]
fn labels_are_compared_for_clients_that_are_nowhere_known() {
    let policy = rule(
        "host: cart, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}, loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}",
    );
    let text = format!("{}{policy}", zones(""));
    let text = text.replace(
        "name: cart-2, namespace: shop, labels: {",
        "name: cart-2, namespace: shop, labels: {version: v1, ",
    );
    let text = text.replace("labels: {app: client}", "labels: {app: client, version: v1}");
    let text = text.replace("kind: Node", "kind: Namespace");
    assert_eq!(
        priorities(&client(&text, "shop"), CART),
        ["0 10.1.0.2", "1 10.1.0.1", "1 10.1.0.3"]
    );
}

#[test]
fn the_dot_of_the_root_namespaces_sidecar_is_the_clients_namespace() {
    let reported = include_str!("../../../../integration/corpus/reported/12-root-sidecar-dot.yaml");
    let service = |name: &str, namespace: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let text = format!(
        "{reported}{}{}{}",
        service("own", "shop", "10.0.0.1"),
        service("foreign", "bank", "10.0.0.2"),
        service("root", "istio-system", "10.0.0.3")
    );
    let got = client(&text, "shop");
    let seen = |name: &str| {
        got.clusters.iter().any(|c| c["name"] == format!("outbound|80||{name}.svc.cluster.local"))
    };
    assert_eq!(["own.shop", "foreign.bank", "root.istio-system"].map(seen), [true, false, true]);
}

#[test]
fn another_name_is_good_for_every_port_of_its_service() {
    let reported =
        include_str!("../../../../integration/corpus/reported/13-externalname-without-ports.yaml");
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: httpbin, namespace: foo}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 8000}]}\n";
    let got = client(&format!("{reported}{service}"), "default");
    let table = got.routes.iter().find(|r| r["name"] == "8000").expect("routes of the port");
    let hosts = table["virtual_hosts"].as_array().cloned().unwrap_or_default();
    let alias =
        hosts.iter().find(|h| h["domains"].to_string().contains("\"alias\"")).expect("the alias");
    assert_eq!(
        alias["routes"][0]["route"]["cluster"],
        "outbound|8000||httpbin.foo.svc.cluster.local"
    );
}

fn listener<'g>(got: &'g Translation, name: &str) -> Option<&'g Value> {
    got.listeners.iter().find(|listener| listener["name"] == name)
}

/// Names of the filters of a listener's chain, with those of its HTTP connections.
fn filters(listener: &Value, chain: usize) -> Vec<String> {
    let chain = &listener["filter_chains"][chain]["filters"];
    let outer = chain.as_array().cloned().unwrap_or_default();
    let inner = outer.iter().flat_map(|filter| {
        filter["typed_config"]["http_filters"].as_array().cloned().unwrap_or_default()
    });
    let names = outer.iter().cloned().chain(inner.collect::<Vec<_>>());
    names.filter_map(|f| f["name"].as_str()?.rsplit('.').next().map(str::to_owned)).collect()
}

#[test]
fn names_that_a_wildcard_stands_for_are_resolved_as_they_are_asked_for() {
    let named = entry(
        "named",
        "hosts: ['*.dyn.test'], location: MESH_EXTERNAL, resolution: DYNAMIC_DNS, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]",
    );
    let other = entry(
        "other",
        "hosts: [a.test], resolution: DNS, ports: [{number: 81, name: http, protocol: HTTP}]",
    );
    let got = client(&format!("{named}{other}"), "shop");
    let cluster = |got: &Translation| {
        let found = got.clusters.iter().find(|c| c["name"] == "outbound|80||*.dyn.test");
        found.expect("the cluster").clone()
    };
    let plain = cluster(&got);
    assert_eq!(plain["lb_policy"], "CLUSTER_PROVIDED");
    assert_eq!(plain["cluster_type"]["name"], "envoy.clusters.dynamic_forward_proxy");
    let insecure = "/cluster_type/typed_config/allow_insecure_cluster_options";
    assert_eq!(plain.pointer(insecure), Some(&Value::Bool(true)), "there is no TLS");
    let http = listener(&got, "0.0.0.0_80").expect("the listener");
    let names = filters(http, 0);
    assert_eq!(names[names.len() - 2..], ["dynamic_forward_proxy", "router"]);
    let unconcerned = listener(&got, "0.0.0.0_81").expect("the other listener");
    assert!(!filters(unconcerned, 0).contains(&"dynamic_forward_proxy".to_owned()));
    let tls = listener(&got, "0.0.0.0_443").expect("the listener");
    assert_eq!(filters(tls, 0), ["sni_dynamic_forward_proxy", "tcp_proxy"]);
    assert_eq!(tls["filter_chains"][0]["filter_chain_match"]["server_names"][0], "*.dyn.test");
    assert_eq!(tls["filter_chains"][0]["filters"][0]["typed_config"]["port_value"], 443);

    let secured = rule("host: '*.dyn.test', trafficPolicy: {tls: {mode: SIMPLE}}");
    let secured = cluster(&client(&format!("{named}{secured}"), "shop"));
    assert_eq!(secured.pointer(insecure), None, "by the name that is asked for");
    assert!(secured.to_string().contains("\"auto_san_validation\":true"));

    let table = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: {hosts: [a.test], http: [{route: [{destination: {host: '*.dyn.test', port: {number: 80}}}]}]}\n";
    let routed = client(&format!("{named}{other}{table}"), "shop");
    let led = listener(&routed, "0.0.0.0_81").expect("the other listener");
    assert!(filters(led, 0).contains(&"dynamic_forward_proxy".to_owned()));
}

#[test]
fn allocated_addresses_are_for_clients_whose_dns_answers_with_them() {
    let entry = |name: &str, more: &str| {
        entry(
            name,
            &format!(
                "hosts: [{name}.test], resolution: DNS, ports: [{{number: 5432, name: tcp, protocol: TCP}}, {{number: 80, name: http, protocol: HTTP}}]{more}"
            ),
        )
    };
    let text = [entry("pg1", ""), entry("pg2", "")].concat();
    let capturing = |text: &str| {
        let id = "sidecar~10.9.9.9~client.shop~shop.svc.cluster.local";
        of_described(text, id, &[("DNS_CAPTURE", "true")])
    };
    let told = capturing(&text);
    for address in ["240.240.11.120", "240.240.23.215"] {
        let name = format!("{address}_5432");
        assert!(listener(&told, &name).is_some(), "{:?}", told.listeners);
    }
    assert!(listener(&told, "0.0.0.0_5432").is_none());
    assert_eq!(domains(&told, "pg1.test"), "pg1.test pg1.test. 240.240.11.120");
    let untold = client(&text, "shop");
    assert!(listener(&untold, "240.240.11.120_5432").is_none());
    assert!(listener(&untold, "0.0.0.0_5432").is_some());
    assert_eq!(domains(&untold, "pg1.test"), "pg1.test pg1.test.");
    let declined = text.replace(
        "name: pg1, namespace: shop",
        "name: pg1, namespace: shop, labels: {networking.istio.io/enable-autoallocate-ip: \"false\"}",
    );
    assert!(listener(&capturing(&declined), "240.240.11.120_5432").is_none());
    let passing = text.replace("resolution: DNS", "resolution: NONE");
    assert!(listener(&capturing(&passing), "240.240.11.120_5432").is_none());
    let addressed = capturing(&entry("pg1", ", addresses: [10.8.0.1]"));
    assert!(listener(&addressed, "10.8.0.1_5432").is_some());
}
