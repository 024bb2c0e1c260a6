//! Random meshes: objects of every kind that is served, each of which is taken without an error.
//!
//! Fields come from the declarations of the kinds, so that a field or kind that is added is made
//! without a line here; what this page knows is words that mean something in the mesh that
//! [`base`] makes, and a beginning for kinds whose fields hang together. What an object is refused
//! for is taken out again, until nothing is.

use std::collections::BTreeSet;

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, Segment, Severity},
    dialect::{
        Kind, lower, parse_value,
        schema::{Field, ObjectSchema, Shape},
    },
    ir::MeshDefaults,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Map, Value, json};

/// The namespaces of a mesh; the last is its root.
pub const NAMESPACES: [&str; 3] = ["shop", "bank", "istio-system"];
/// Deepest value below an object's content.
const MAX_DEPTH: usize = 9;
/// Most findings that are mended in one object.
const MAX_MENDED: usize = 80;

/// Where all choices come from.
pub struct Dice(StdRng);

impl Dice {
    /// The choices that belong to a number.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of these.
    ///
    /// # Panics
    /// There are none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A number below `end`, which is none of these if it is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }
}

/// Objects that are the same in every mesh: workloads at `addresses` (a sidecar's, a gateway's) and
/// others, services for them, and what `credential` (chain, key and authority in PEM) is.
pub fn base(addresses: [&str; 2], credential: [&str; 3]) -> Vec<Value> {
    let object = |kind: &str, namespace: &str, name: &str, rest: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        merge(&mut object, rest);
        object
    };
    let pod = |namespace: &str, name: &str, labels: Value, account: &str, ip: &str| {
        object(
            "Pod",
            namespace,
            name,
            json!({
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": account, "nodeName": "node0", "containers": [
                    {"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": "True"}]},
            }),
        )
    };
    let labels = |app: &str, version: &str| json!({"app": app, "version": version, "security.istio.io/tlsMode": "istio"});
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target});
    let service = |namespace: &str, name: &str, app: &str, ip: &str, ports: Value| {
        let spec = json!({"selector": {"app": app}, "clusterIP": ip, "ports": ports});
        object("Service", namespace, name, json!({ "spec": spec }))
    };
    let [chain, key, authority] = credential;
    let secret = |namespace: &str| {
        let data = json!({"tls.crt": chain, "tls.key": key, "ca.crt": authority});
        let rest = json!({"type": "kubernetes.io/tls", "stringData": data});
        object("Secret", namespace, "cert", rest)
    };
    let several = json!([
        port("http", 80, 8080),
        port("tcp-a", 9000, 9000),
        port("grpc-a", 7070, 7070),
        port("auto", 9999, 9999),
        port("tls", 443, 8443),
    ]);
    vec![
        pod("shop", "app-0", labels("app0", "v0"), "account0", addresses[0]),
        pod("shop", "app-1", labels("app0", "v1"), "account1", "10.244.0.11"),
        pod("bank", "ledger-0", labels("app1", "v0"), "account0", "10.244.1.10"),
        pod("istio-system", "edge-0", json!({"istio": "ingressgateway"}), "edge", addresses[1]),
        service("shop", "service0", "app0", "10.96.9.1", several.clone()),
        service("shop", "service1", "app0", "None", several.clone()),
        service("bank", "service0", "app1", "10.96.9.3", several),
        service("istio-system", "edge", "none", "10.96.9.4", json!([port("http", 80, 80)])),
        secret("istio-system"),
        secret("shop"),
    ]
}

/// Random objects: of every served kind that is not among those of [`base`] at least one, each taken
/// without an error.
pub fn objects(dice: &mut Dice) -> Vec<Value> {
    const OF_A_KIND: usize = 3;
    let mut objects = Vec::new();
    for kind in kinds() {
        let count = if kind == Kind::MESH_CONFIG { 1 } else { 1 + dice.below(OF_A_KIND) };
        objects.extend((0..count).map(|number| object(dice, kind, number)));
    }
    objects
}

/// The kinds of which objects are made: all that are served, but those that say where workloads are,
/// which [`base`] makes, and Secrets, which no dice can make.
pub fn kinds() -> impl Iterator<Item = Kind> + Clone {
    Kind::all_served().filter(|kind| ![Kind::POD, Kind::SECRET].contains(kind))
}

/// A random object of a kind that is taken without an error.
///
/// # Panics
/// Not even the beginning of the kind is.
pub fn object(dice: &mut Dice, kind: Kind, number: usize) -> Value {
    let name = match kind.kebab() {
        // There is one in a mesh.
        "mesh-config" => "default".to_owned(),
        // The others are those of `base`.
        "service" => format!("extra{number}"),
        // The name of such an object is that of a service.
        "service-profile" => format!("service{number}.shop.svc.cluster.local"),
        _ => format!("{}{number}", kind.kebab()),
    };
    let namespace = *dice.one(&NAMESPACES);
    let mut meta = json!({"name": name, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + dice.below(3))});
    if kind.namespaced() {
        meta["namespace"] = namespace.into();
    }
    let bare =
        json!({"apiVersion": kind.api_version(), "kind": kind.kind_name(), "metadata": meta});
    let declared = kind.declared().expect("a served kind");
    let with = |content: Value| {
        let mut object = bare.clone();
        match declared.below {
            Some(field) => object[field] = content,
            None => merge(&mut object, content),
        }
        object
    };
    let beginning = beginning(dice, kind);
    let mut content = beginning.clone();
    if let Shape::Object(schema) = (declared.shape)() {
        merge(&mut content, fields(dice, schema, 0));
    }
    let mut object = with(content);
    for _ in 0..MAX_MENDED {
        match refusal(&object) {
            None => return object,
            Some(finding) => {
                let top = object.clone();
                mend(dice, kind, &mut object, &finding);
                if object == top {
                    break;
                }
            }
        }
    }
    let object = with(beginning);
    match refusal(&object) {
        None => object,
        Some(finding) => panic!("the beginning of {kind} is refused: {finding}\n{object}"),
    }
}

/// Why an object is refused, by itself or as it is lowered.
pub fn refusal(object: &Value) -> Option<Diagnostic> {
    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    match parse_value(object.clone()) {
        Err(findings) => findings.into_iter().find(is_error),
        Ok((object, _)) => {
            lower(&object, &MeshDefaults::default()).diagnostics.into_iter().find(is_error)
        }
    }
}

/// Changes an object where it is refused: what is missing is put in, or else what is refused goes.
fn mend(dice: &mut Dice, kind: Kind, object: &mut Value, finding: &Diagnostic) {
    let path = &finding.field.0;
    if finding.code == Code::MissingField
        && let Some((Segment::Field(name), parent)) = path.split_last()
        && let Some(schema) = schema_at(kind, parent)
        && let Some(field) = schema.fields.iter().find(|field| *field.name == **name)
        && dice.chance(60)
        && let Some(Value::Object(map)) = at(object, parent)
    {
        let value = value(dice, schema, field, parent.len());
        map.insert(field.name.to_owned(), value);
        return;
    }
    // What contradicts itself is refused as a whole; less of it may do.
    if let Some(Value::Object(map)) = at(object, path)
        && !path.is_empty()
        && map.len() > 1
        && dice.chance(80)
    {
        let keys: Vec<String> = map.keys().cloned().collect();
        map.remove(dice.one(&keys));
        return;
    }
    let mut path = &path[..];
    while let Some((last, parent)) = path.split_last() {
        match (at(object, parent), last) {
            (Some(Value::Object(map)), Segment::Field(name)) if map.contains_key(&**name) => {
                map.remove(&**name);
                return;
            }
            (Some(Value::Array(list)), Segment::Index(index)) if *index < list.len() => {
                list.remove(*index);
                return;
            }
            _ => path = parent,
        }
    }
}

fn at<'a>(value: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Field(name) => value.as_object_mut()?.get_mut(&**name),
        Segment::Index(index) => value.as_array_mut()?.get_mut(*index),
    })
}

/// The type of the object that a path of an object leads to.
fn schema_at(kind: Kind, path: &[Segment]) -> Option<&'static ObjectSchema> {
    let declared = kind.declared()?;
    let path = match (declared.below, path) {
        (Some(below), [Segment::Field(first), rest @ ..]) if **first == *below => rest,
        (Some(_), _) => return None,
        (None, path) => path,
    };
    let mut shape = (declared.shape)();
    for segment in path {
        shape = match (shape, segment) {
            (Shape::Object(schema), Segment::Field(name)) => {
                (schema.fields.iter().find(|field| *field.name == **name)?.shape)()
            }
            (Shape::List(item), Segment::Index(_)) => item(),
            (Shape::Map(item), Segment::Field(_)) => item(),
            _ => return None,
        };
    }
    match shape {
        Shape::Object(schema) => Some(schema),
        _ => None,
    }
}

/// Random fields of an object: those that must be there, and some of the others.
fn fields(dice: &mut Dice, schema: &'static ObjectSchema, depth: usize) -> Value {
    let mut map = Map::new();
    // Of these exactly one is said.
    if matches!(schema.name, "StringMatchFields" | "CustomTag" | "MeshTag" | "HttpBody") {
        let field = dice.one(schema.fields);
        map.insert(field.name.to_owned(), value(dice, schema, field, depth));
        return Value::Object(map);
    }
    let percent = if depth == 0 { 55 } else { 35 };
    for field in schema.fields {
        let wanted = field.required || dice.chance(percent);
        if field.is_acted_on() && wanted && depth < MAX_DEPTH && !is_left(schema, field) {
            map.insert(field.name.to_owned(), value(dice, schema, field, depth));
        }
    }
    Value::Object(map)
}

/// What would take the proxies off the mesh, or is no field of its own.
fn is_left(schema: &ObjectSchema, field: &Field) -> bool {
    let shape = (field.shape)();
    matches!(shape, Shape::Any)
        || matches!(
            (schema.name, field.name),
            ("MeshConfig", "trustDomain" | "rootNamespace")
                | ("MeshConfig", "proxyListenPort" | "proxyInboundListenPort" | "proxyHttpPort")
                | (_, "metadata" | "apiVersion" | "kind")
                // The way that this is set under another name.
                | ("JwtRule", "jwks_uri")
        )
}

fn value(
    dice: &mut Dice,
    schema: &'static ObjectSchema,
    field: &'static Field,
    depth: usize,
) -> Value {
    of_shape(dice, schema, field.name, (field.shape)(), depth)
}

fn of_shape(
    dice: &mut Dice,
    schema: &'static ObjectSchema,
    name: &str,
    shape: Shape,
    depth: usize,
) -> Value {
    match shape {
        Shape::Text => (*dice.one(words(schema.name, name))).into(),
        Shape::Bool => dice.chance(50).into(),
        Shape::Integer { min, max } => {
            let fits = |number: &&i64| (min..=max).contains(*number);
            let fitting: Vec<i64> =
                numbers(schema.name, name).iter().filter(fits).copied().collect();
            if fitting.is_empty() { min.into() } else { (*dice.one(&fitting)).into() }
        }
        Shape::Number => (*dice.one(&[0.0, 0.5, 10.0, 33.25, 100.0])).into(),
        Shape::Duration => (*dice.one(&["1s", "0.25s", "5s", "1500ms", "1h", "30s"])).into(),
        Shape::IntegerOrText => dice.one(&[json!(8080), json!("web"), json!(9000)]).clone(),
        Shape::Choice(words) => dice.one(words).name.into(),
        Shape::List(item) => {
            let count = 1 + dice.below(2);
            (0..count).map(|_| of_shape(dice, schema, name, item(), depth + 1)).collect()
        }
        Shape::Map(item) => {
            let count = 1 + dice.below(2);
            let entries = (0..count).map(|_| {
                let key = (*dice.one(keys(schema.name, name))).to_owned();
                // What a label says belongs to its name.
                let value = match (&*key, item()) {
                    ("app", Shape::Text) => "app0".into(),
                    ("version", Shape::Text) => (*dice.one(&["v0", "v1"])).into(),
                    (_, shape) => of_shape(dice, schema, name, shape, depth + 1),
                };
                (key, value)
            });
            Value::Object(entries.collect())
        }
        Shape::Object(schema) => fields(dice, schema, depth + 1),
        Shape::Any => Value::Null,
    }
}

const HOSTS: &[&str] = &[
    "service0",
    "service1.shop.svc.cluster.local",
    "service0.shop.svc.cluster.local",
    "service0.bank.svc.cluster.local",
    "ext.example.com",
    "*.example.com",
    "vm.other.test",
];

/// Words for a field of a type that mean something there.
fn words(schema: &str, field: &str) -> &'static [&'static str] {
    match (schema, field) {
        ("VirtualService" | "DestinationRule" | "Destination", "hosts" | "host") => HOSTS,
        ("ServiceEntry", "hosts") => {
            &["ext.example.com", "*.example.com", "vm.other.test", "a.b.test"]
        }
        ("Server", "hosts") => &["*", "ext.example.com", "*.example.com", "shop/*", "*.local"],
        ("EgressListener", "hosts") => &["*/*", "./*", "shop/*", "*/*.example.com", "bank/*"],
        ("Operation", "hosts" | "notHosts") => {
            &["ext.example.com", "*.example.com", "service0*", "*"]
        }
        (_, "sniHosts") => &["ext.example.com", "*.example.com", "service0.shop.svc.cluster.local"],
        (_, "subset") | ("Subset", "name") => &["v0", "v1"],
        (_, "gateways" | "gateway") => &["mesh", "istio-system/gateway0", "shop/gateway1"],
        (_, "exportTo")
        | (_, "defaultServiceExportTo" | "defaultVirtualServiceExportTo")
        | (_, "defaultDestinationRuleExportTo") => &["*", ".", "bank"],
        ("HttpMatch" | "TlsMatch" | "TcpMatch", "sourceNamespace") => &["shop", "bank"],
        (_, "namespaces" | "notNamespaces" | "namespace") => &["shop", "bank", "ba*"],
        (_, "principals" | "notPrincipals") => {
            &["cluster.local/ns/shop/sa/account0", "*/sa/account1", "*", "cluster.local/*"]
        }
        (_, "serviceAccounts" | "notServiceAccounts") => &["shop/account0", "account1"],
        (_, "trustDomains" | "notTrustDomains" | "trustDomainAliases") => {
            &["cluster.local", "old.test"]
        }
        (_, "requestPrincipals" | "notRequestPrincipals") => &["*", "https://a.test/*", "*/sub"],
        (_, "ipBlocks" | "notIpBlocks" | "remoteIpBlocks" | "notRemoteIpBlocks")
        | (_, "destinationSubnets") => &["10.0.0.0/8", "192.168.1.7", "fd00::/8"],
        ("ServiceEntry", "addresses") => &["10.8.0.1", "10.9.0.0/16", "10.8.0.2"],
        ("WorkloadEntry", "address") => &["10.7.0.1", "10.7.0.2", "vm.internal.test"],
        ("SliceEndpoint", "addresses") => &["10.244.0.11", "10.244.1.10"],
        ("Operation", "ports" | "notPorts") => &["80", "8080", "9000"],
        ("Operation", "paths" | "notPaths") => &["/a", "/b/*", "*/c", "/{*}/d", "/e/{**}"],
        (_, "methods" | "notMethods" | "allowMethods") => &["GET", "POST", "DELETE"],
        ("Condition", "key") => &[
            "request.headers[x-a]",
            "source.ip",
            "source.principal",
            "destination.port",
            "connection.sni",
            "request.auth.claims[group]",
            "source.namespace",
        ],
        ("Condition", "values" | "notValues") => &["10.0.0.0/8", "8080", "staff", "shop*"],
        ("StringMatchFields", "regex") | (_, "pathRegex") => &["/v[0-9]+/.*", ".*", "a|b"],
        ("StringMatchFields", _) => &["/a", "/", "staff", "https://ext.example.com", "GET"],
        ("FileLog", "path") => &["/dev/stdout", "/dev/stderr"],
        (_, "uri" | "prefixRewrite" | "path" | "pathPrefix") => &["/", "/new", "/a/b"],
        ("RegexRewrite", "match") => &["^/a/([^/]+)(/.*)$", "/x"],
        ("RegexRewrite", "rewrite") => &["/\\2/\\1", "/y"],
        (_, "scheme") => &["https", "http"],
        (_, "authority" | "targetHost") => &["other.example.com", "ext.example.com"],
        (_, "retryOn") => &["5xx,reset", "connect-failure,refused-stream,503", "gateway-error", ""],
        (_, "grpcStatus") => &["UNAVAILABLE", "ABORTED", "14"],
        ("Lua", "inlineCode") => &["function envoy_on_request(h) end", "local a = 1"],
        ("HttpBody", "bytes") => &["aGVsbG8="],
        ("Port", "protocol") => &["HTTP", "HTTPS", "TCP", "TLS", "GRPC", "HTTP2", "MONGO"],
        (_, "protocol") => &["TCP", "UDP"],
        (_, "appProtocol") => &["http", "grpc", "kubernetes.io/h2c", "tcp"],
        (_, "bind") => &["127.0.0.1", "0.0.0.0"],
        (_, "defaultEndpoint") => &["127.0.0.1:8080", "0.0.0.0:9000", "unix:///var/run/app.sock"],
        (_, "credentialName" | "credentialNames" | "secretName") => &["cert"],
        (_, "clientCertificate" | "serverCertificate") => &["/etc/certs/chain.pem"],
        (_, "privateKey") => &["/etc/certs/key.pem"],
        (_, "caCertificates") => &["/etc/certs/ca.pem", "system"],
        (_, "subjectAltNames") => {
            &["spiffe://cluster.local/ns/shop/sa/account0", "ext.example.com"]
        }
        (_, "sni") => &["ext.example.com"],
        (_, "cipherSuites") => &["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"],
        (_, "ecdhCurves") => &["X25519", "P-256", "P-384"],
        (_, "locality") => &["eu/a", "eu/b/c", "us"],
        ("Distribute" | "Failover", _) => &["eu", "us", "eu/a/*"],
        (_, "failoverPriority") => &["topology.kubernetes.io/zone", "version", "app=app0"],
        (_, "issuer") => &["https://a.test", "b"],
        (_, "jwksUri") => &["https://keys0.test/", "http://service0.shop/keys"],
        (_, "jwks") => &[r#"{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}"#],
        (_, "provider" | "providers") => &["ask"],
        ("Provider", "name") => &["ask", "ask-http"],
        ("ProviderRef", "name") => &["otel", "zipkin", "als", "file"],
        ("ExtensionProvider", "name") => &["ask", "otel", "zipkin", "als", "file", "ask-http"],
        ("DefaultProviders", _) => &["otel", "file", "als", "prometheus"],
        (_, "service") => &["service0.shop.svc.cluster.local", "shop/ext.example.com"],
        ("LogFilter", "expression") => &["response.code >= 400", "'x-a' in request.headers"],
        ("TagOverride", "value") => &["request.path", "'x'"],
        (_, "accessLogFile") => &["/dev/stdout", ""],
        (_, "accessLogFormat" | "text") => &["%PROTOCOL% %RESPONSE_CODE%\n", "[%START_TIME%]\n"],
        ("Cookie" | "HttpCookie", "name") => &["session"],
        ("TargetRef", "kind") => &["Gateway", "Service"],
        ("MatchReference", "kind") => &["HTTPRouteGroup"],
        ("Reference", "kind") => &["ServiceAccount", "Namespace", "Server"],
        ("Reference", "group") => &["", "policy.linkerd.io"],
        ("Reference" | "ServerRef", "name") => &["linkerd-server0", "shop", "account0"],
        ("AccountRef", "name") => &["account0", "account1"],
        ("ParentRef", "kind") => &["Service"],
        ("ParentRef", "group") => &["core"],
        ("ParentRef" | "BackendRef", "name") => &["service0", "service1"],
        ("BackendRef", "kind") => &["Service"],
        ("BackendRef", "group") => &["", "core"],
        ("RouteMatch" | "RequestCondition", "method") => &["GET", "POST"],
        ("RoutePath", "value") => &["/a", "/b/c", "/"],
        ("RedirectPath", _) => &["/new"],
        ("RequestRedirect", "hostname") | ("PortRoute", "hostnames") => &["ext.example.com"],
        ("CallerNetwork", _) => &["10.0.0.0/8", "192.168.1.7"],
        ("DstOverride", _) => &["service1.shop.svc.cluster.local:80"],
        (_, "identities") => &["*", "account0.shop.serviceaccount.identity.linkerd.cluster.local"],
        ("MatchReference", "name") => &["http-route-group0", "http-route-group1"],
        ("TrafficSplit" | "Backend" | "IngressService", _) => &["service0", "service1"],
        (_, "ingressClassName" | "ingressClass") => &["istio", "other"],
        (_, "pathType") => &["Prefix", "Exact", "ImplementationSpecific"],
        ("ServiceSpec", "type") => &["ClusterIP", "NodePort", "LoadBalancer"],
        (_, "clusterIP") => &["10.96.9.7", "None"],
        (_, "trafficDistribution") => &["PreferClose", "PreferSameZone", "PreferSameNode"],
        (_, "addressType") => &["IPv4"],
        ("Delegate", "name") => &["virtual-service1", "virtual-service2"],
        (_, "proxyVersion") => &["^1\\..*", ".*"],
        (_, "network") => &["", "net1"],
        (_, "address") => &["zipkin.shop:9411", "service0.shop.svc.cluster.local:80"],
        (_, "name") => &["http", "tcp-a", "tls", "x-a", "auto"],
        _ => &["x-a", "x-b", "a"],
    }
}

/// Names for the entries of a map.
fn keys(schema: &str, field: &str) -> &'static [&'static str] {
    match (schema, field) {
        (_, "labels" | "matchLabels" | "sourceLabels") => &["app", "version"],
        (_, "selector") => &["istio", "app"],
        ("ServiceSpec", _) => &["app"],
        ("Distribute", _) => &["eu/*", "us/*"],
        ("WorkloadEntry", "ports") => &["http", "tcp-a", "tls"],
        (_, "portLevelMtls") => &["8080", "9000", "443"],
        _ => &["x-a", "x-b", "end-user", "content-type"],
    }
}

/// Whole numbers for a field.
fn numbers(schema: &str, field: &str) -> &'static [i64] {
    match (schema, field) {
        ("Server" | "Port", "number") => &[80, 443, 8443, 9000, 9080, 15443],
        (_, "number" | "port" | "targetPort" | "containerPort" | "portNumber") => {
            &[80, 443, 8080, 9000, 9999]
        }
        (_, "status" | "httpStatus") => &[200, 404, 503],
        (_, "redirectCode" | "statusCode") => &[301, 302, 307, 308],
        ("StatusRange", _) => &[500, 503],
        (_, "outlierDetectionHttpErrorCodes") => &[500, 503],
        (_, "tableSize") => &[65_537, 251],
        (_, "weight") => &[0, 1, 50, 90],
        (_, "to") => &[50, 100],
        (_, "percent" | "maxEjectionPercent" | "minHealthPercent" | "mirrorPercent") => {
            &[0, 1, 50, 100]
        }
        (_, "numTrustedProxies") => &[0, 1, 2],
        _ => &[1, 2, 3, 10, 100, 1024],
    }
}

/// Content that makes an object of a kind mean something, beside random fields.
fn beginning(dice: &mut Dice, kind: Kind) -> Value {
    let host = *dice.one(HOSTS);
    let destination =
        json!({"destination": {"host": "service0.shop.svc.cluster.local", "port": {"number": 80}}});
    match kind.kebab() {
        "virtual-service" => json!({"hosts": [host], "http": [{"route": [destination]}]}),
        "destination-rule" => json!({
            "host": host,
            "subsets": [{"name": "v0", "labels": {"version": "v0"}}, {"name": "v1", "labels": {"version": "v1"}}],
        }),
        "gateway" => json!({
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
                {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["ext.example.com"],
                    "tls": {"mode": "SIMPLE", "credentialName": "cert"}},
            ],
        }),
        "service-entry" => json!({
            "hosts": [*dice.one(words("ServiceEntry", "hosts"))],
            "ports": [{"number": 443, "name": "tls", "protocol": *dice.one(&["TLS", "HTTP", "TCP"])}],
            "resolution": "NONE",
        }),
        "workload-entry" => json!({"address": "10.7.0.9", "labels": {"app": "app0"}}),
        "sidecar" => json!({"egress": [{"hosts": ["*/*"]}]}),
        "peer-authentication" => {
            json!({"mtls": {"mode": *dice.one(&["STRICT", "PERMISSIVE"])}})
        }
        "envoy-filter" => json!({"configPatches": [patch(dice)]}),
        "mesh-config" => json!({"extensionProviders": [
            {"name": "ask", "envoyExtAuthzGrpc": {"service": "service0.shop.svc.cluster.local", "port": 7070}},
            {"name": "ask-http", "envoyExtAuthzHttp": {"service": "service0.shop.svc.cluster.local", "port": 80}},
            {"name": "otel", "opentelemetry": {"service": "service0.shop.svc.cluster.local", "port": 7070}},
            {"name": "zipkin", "zipkin": {"service": "service0.shop.svc.cluster.local", "port": 80}},
            {"name": "als", "envoyHttpAls": {"service": "service0.shop.svc.cluster.local", "port": 7070}},
            {"name": "file", "envoyFileAccessLog": {"path": "/dev/stdout"}},
        ]}),
        "traffic-extension" => {
            json!({"lua": {"inlineCode": "function envoy_on_request(h) end"}})
        }
        "wasm-plugin" => json!({"url": "file:///opt/plugin.wasm"}),
        "rate-limit" => json!({"local": {"requests": 10, "interval": "1s"}}),
        "workload-group" => {
            json!({"template": {"serviceAccount": "account0", "ports": {"http": 8080}}})
        }
        "linkerd-server" => json!({"podSelector": {"matchLabels": {"app": "app0"}}, "port": 8080}),
        "linkerd-authorization-policy" => json!({
            "targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "linkerd-server0"},
            "requiredAuthenticationRefs": [{"kind": "ServiceAccount", "name": "account0"}],
        }),
        "mesh-tls-authentication" => json!({"identities": ["*"]}),
        "network-authentication" => json!({"networks": [{"cidr": "10.0.0.0/8"}]}),
        "server-authorization" => {
            json!({"server": {"name": "linkerd-server0"}, "client": {"unauthenticated": true}})
        }
        "http-local-rate-limit-policy" => json!({
            "targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "linkerd-server0"},
            "total": {"requestsPerSecond": 10},
        }),
        "egress-network" => json!({"trafficPolicy": *dice.one(&["Allow", "Deny"])}),
        "linkerd-http-route" => json!({
            "parentRefs": [{"group": "core", "kind": "Service", "name": "service0"}],
            "rules": [{"backendRefs": [{"name": "service0"}, {"name": "service1"}]}],
        }),
        "service-profile" => json!({"routes": [
            {"name": "a", "condition": {"pathRegex": "/a"}, "isRetryable": true}]}),
        "traffic-split" => json!({"service": "service0", "backends": [
            {"service": "service0", "weight": 90}, {"service": "service1", "weight": 10}]}),
        "http-route-group" => {
            json!({"matches": [{"name": "a", "pathRegex": "/v.*", "methods": ["GET"]}]})
        }
        "service" => {
            json!({"spec": {"selector": {"app": "app0"}, "ports": [{"name": "http", "port": 80}]}})
        }
        "endpoint-slice" => json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "service0"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.11"]}],
        }),
        "ingress" => {
            json!({"spec": {"ingressClassName": "istio", "rules": [{"host": "ext.example.com",
            "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "service0", "port": {"number": 80}}}}]}}]}})
        }
        _ => json!({}),
    }
}

/// A change of messages that Envoy takes.
fn patch(dice: &mut Dice) -> Value {
    let lua = json!({
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": "function envoy_on_request(h) end"},
        },
    });
    let context = *dice.one(&["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"]);
    let header = json!({"response_headers_to_add": [{"header": {"key": "x-patch", "value": "1"}}]});
    let (apply_to, operation, value) = match dice.below(8) {
        0 => ("HTTP_FILTER", *dice.one(&["INSERT_FIRST", "INSERT_BEFORE"]), lua),
        1 => ("CLUSTER", "MERGE", json!({"per_connection_buffer_limit_bytes": 32_768})),
        2 => {
            ("CLUSTER", "ADD", json!({"name": "given", "type": "STATIC", "connect_timeout": "1s"}))
        }
        3 => ("ROUTE_CONFIGURATION", "MERGE", header),
        4 => ("VIRTUAL_HOST", "MERGE", json!({"include_attempt_count_in_response": true})),
        5 => ("HTTP_ROUTE", "MERGE", header),
        6 => ("LISTENER", "MERGE", json!({"per_connection_buffer_limit_bytes": 65_536})),
        _ => ("FILTER_CHAIN", "MERGE", json!({"transport_socket_connect_timeout": "7s"})),
    };
    json!({"applyTo": apply_to, "match": {"context": context}, "patch": {"operation": operation, "value": value}})
}

/// Lays one value over another: fields of maps one by one, anything else as a whole.
fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}

/// The fields that objects have, as `KIND.path` without places in lists and names of entries.
pub fn fields_of(objects: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for object in objects {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = Kind::from_api(text("apiVersion"), text("kind")) else { continue };
        let Some(declared) = kind.declared() else { continue };
        let content = declared.below.map_or(Some(object), |below| object.get(below));
        if let Some(content) = content {
            set_fields(content, (declared.shape)(), kind.kind_name(), &mut found);
        }
    }
    found
}

fn set_fields(value: &Value, shape: Shape, at: &str, found: &mut BTreeSet<String>) {
    match (shape, value) {
        (Shape::Object(schema), Value::Object(map)) => {
            for field in schema.fields {
                if let Some(value) = map.get(field.name) {
                    let path = format!("{at}.{}", field.name);
                    set_fields(value, (field.shape)(), &path, found);
                    found.insert(path);
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            list.iter().for_each(|value| set_fields(value, item(), at, found));
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.values().for_each(|value| set_fields(value, item(), at, found));
        }
        _ => {}
    }
}

/// Every field of a served kind that is acted on, spelled as by [`fields_of`].
pub fn declared_fields() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for kind in Kind::all_served() {
        if let Some(declared) = kind.declared() {
            declare(kind.kind_name(), (declared.shape)(), &mut Vec::new(), &mut found);
        }
    }
    found
}

fn declare(at: &str, shape: Shape, above: &mut Vec<&'static str>, found: &mut BTreeSet<String>) {
    match shape {
        // A type within itself has no end.
        Shape::Object(schema) if !above.contains(&schema.name) => {
            above.push(schema.name);
            for field in schema.fields.iter().filter(|field| field.is_acted_on()) {
                if !matches!(field.name, "metadata" | "apiVersion" | "kind") {
                    let path = format!("{at}.{}", field.name);
                    declare(&path, (field.shape)(), above, found);
                    found.insert(path);
                }
            }
            above.pop();
        }
        Shape::List(item) | Shape::Map(item) => declare(at, item(), above, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_kind_is_made_and_taken() {
        let mut dice = Dice::new(1);
        let objects = objects(&mut dice);
        for kind in kinds() {
            let made = objects.iter().filter(|object| object["kind"] == kind.kind_name());
            assert!(made.count() > 0, "{kind}");
        }
        assert_eq!(objects.iter().find_map(refusal), None);
    }

    #[test]
    fn a_number_gives_the_same_mesh_again() {
        assert_eq!(objects(&mut Dice::new(7)), objects(&mut Dice::new(7)));
    }

    /// Most fields that are acted on occur in few meshes.
    #[test]
    fn most_fields_are_set() {
        const MESHES: u64 = 40;
        let declared = declared_fields();
        let mut set = BTreeSet::new();
        for seed in 0..MESHES {
            set.extend(fields_of(&objects(&mut Dice::new(seed))));
        }
        let missing: Vec<&String> = declared.difference(&set).collect();
        let all = declared.len();
        assert!(missing.len() * 5 < all * 2, "{} of {all} never: {missing:#?}", missing.len());
    }
}
