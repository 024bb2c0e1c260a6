//! What a null says, for every field of every kind: a template whose variable is empty writes one,
//! and so does a document that is cut off. It must never match, select or let in more than the
//! author can have meant.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    istio::{mesh_config::MeshConfig, shared::StringMatch, virtual_service::VirtualService},
    kind::Serving,
    kubernetes::{Deployment, EndpointSlice, Pod, Secret, Service},
    schema::{Field, ObjectSchema, Shape},
    *,
};
use crate::diagnostic::{FieldPath, Severity};

/// Fields in which a null is the same as no field, by the reason why that is harmless.
const HARMLESS: &[(&str, &[&str])] = &[
    (
        "a name, an address or a place; without it there is none, or the default of the type",
        &[
            "Server: name",
            "HttpRoute: name",
            "Port: name protocol targetPort",
            "CookieAttribute: value",
            "HttpCookie: path ttl attributes",
            "WorkloadEntry: address ports network locality weight",
            "IngressListener: captureMode defaultEndpoint",
            "EgressListener: captureMode",
            "Delegate: namespace",
            "MeshConfig: ingressService ingressClass ingressSelector ingressControllerMode trustDomain trustDomainAliases rootNamespace accessLogFile accessLogFormat accessLogEncoding",
        ],
    ),
    (
        "a list of rules, endpoints or parts: without it there are none, and nothing is sent by them",
        &[
            "VirtualService: http tls tcp",
            "DestinationRule: subsets",
            "ServiceEntry: ports resolution endpoints",
            "HttpRoute: route redirect directResponse delegate",
            "RouteDestination: weight",
            "HttpRouteDestination: weight",
        ],
    ),
    (
        "a change of what is sent, or an answer: without it what is sent stays as it is",
        &[
            "HttpRoute: rewrite fault mirror mirrors mirrorPercent mirror_percent mirrorPercentage headers",
            "HttpRouteDestination: headers",
            "HttpRedirect: uri prefixRewrite authority port derivePort scheme redirectCode",
            "HttpDirectResponse: body",
            "HttpBody: string bytes",
            "HttpRewrite: uri authority uriRegexRewrite",
            "HttpFault: delay abort",
            "FaultDelay: percent percentage exponentialDelay",
            "FaultAbort: grpcStatus http2Error percentage",
            "HttpMirror: percentage",
            "Percent: value",
            "Headers: request response",
            "HeaderOperations: set add remove",
            "TrafficPolicy: proxyProtocol",
            "ProxyProtocol: version",
            "Tunnel: protocol",
        ],
    ),
    (
        "what a browser may do: without it nothing more is allowed",
        &[
            "HttpRoute: corsPolicy",
            "CorsPolicy: allowOrigin allowOrigins allowMethods allowHeaders exposeHeaders maxAge allowCredentials unmatchedPreflights",
        ],
    ),
    (
        "how load is spread, limited and tried again: without it the documented default holds",
        &[
            "HttpRoute: timeout retries",
            "HttpRetry: attempts perTryTimeout retryOn retryRemoteLocalities retryIgnorePreviousHosts backoff",
            "TrafficPolicy: loadBalancer connectionPool outlierDetection retryBudget",
            "PortTrafficPolicy: loadBalancer connectionPool outlierDetection",
            "LoadBalancer: simple consistentHash localityLbSetting zoneAwareLbSetting warmupDurationSecs warmup",
            "ConsistentHash: httpHeaderName httpCookie useSourceIp httpQueryParameterName ringHash maglev minimumRingSize",
            "RingHash: minimumRingSize",
            "Warmup: minimumPercent aggression",
            "LocalityLbSetting: distribute failover failoverPriority enabled",
            "Failover: from",
            "ZoneAwareLbSetting: enabled minClusterSize failover failoverPriority",
            "ConnectionPool: tcp http",
            "TcpPool: maxConnections connectTimeout tcpKeepalive maxConnectionDuration idleTimeout",
            "TcpKeepalive: probes time interval",
            "HttpPool: http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout h2UpgradePolicy useClientProtocol maxConcurrentStreams http2KeepAlive",
            "OutlierDetection: consecutiveErrors splitExternalLocalOriginErrors consecutiveLocalOriginFailures consecutiveGatewayErrors consecutive5xxErrors interval baseEjectionTime maxEjectionPercent minHealthPercent outlierDetectionHttpErrorCodes",
            "RetryBudget: percent minRetryConcurrency",
            "IngressListener: connectionPool",
            "Sidecar: inboundConnectionPool",
            "DefaultTrafficPolicy: connectionPool outlierDetection",
        ],
    ),
    (
        "what is told of traffic, and whom: without it the documented default holds, and nobody passes by it",
        &[
            "MeshConfig: extensionProviders defaultProviders enableTracing inboundClusterStatName outboundClusterStatName enableEnvoyAccessLogService disableEnvoyListenerLog",
            "ProxyDefaults: tracing tracingServiceName zipkinAddress envoyAccessLogService extraStatTags proxyStatsMatcher",
            "ProxyStatsMatcher: inclusionPrefixes inclusionSuffixes inclusionRegexps",
            "MeshTracing: zipkin datadog customTags maxPathTagLength sampling enableIstioTags",
            "MeshTag: literal environment header",
            "NamedTag: defaultValue",
            "ProxyDefaults: proxyHeaders",
            "ProxyHeaders: forwardedClientCert setCurrentClientCertDetails requestId server attemptCount envoyDebugHeaders",
            "ClientCertDetails: subject cert chain dns uri",
            "HeaderSwitch: disabled",
            "ServerHeader: disabled value",
            "MetadataExchangeHeaders: mode",
        ],
    ),
    (
        "a setting of the mesh: without it the documented default holds, which is mutual TLS by itself",
        &[
            "MeshConfig: proxyListenPort proxyInboundListenPort proxyHttpPort connectTimeout protocolDetectionTimeout tcpKeepalive dnsRefreshRate inboundTrafficPolicy enableAutoMtls h2UpgradePolicy defaultHttpRetryPolicy defaultInboundHttpRetryPolicy defaultTrafficPolicy localityLbSetting defaultConfig",
            "MeshConfig: configSources enablePrometheusMerge zoneAwareLbSetting",
            "ProxyDefaults: gatewayTopology concurrency terminationDrainDuration statusPort interceptionMode proxyMetadata holdApplicationUntilProxyStarts",
            "GatewayTopology: numTrustedProxies forwardClientCertDetails proxyProtocol",
            "InboundTrafficPolicy: mode",
        ],
    ),
];

/// What stands below `spec` of every kind that is defined here.
fn schemas() -> impl Iterator<Item = (Kind, &'static ObjectSchema)> {
    let defined = kinds().filter_map(|row| match row.serving {
        Serving::Served(served) => Some((row.kind, served.definition?.schema)),
        _ => None,
    });
    defined.chain([(Kind::MESH_CONFIG, MeshConfig::SCHEMA)])
}

/// One way to write a null into an object.
struct Written {
    /// The type and the field, `VirtualService.hosts`; a value of a map or list has no name.
    field: Option<String>,
    path: FieldPath,
    spec: Value,
    /// Whether anything is done with the field.
    acted_on: bool,
}

impl Written {
    fn unnamed(path: &FieldPath, spec: Value) -> Self {
        Self { field: None, path: path.clone(), spec, acted_on: true }
    }
}

/// Puts a value into its place in a spec.
type Place<'a> = &'a dyn Fn(Value) -> Value;

fn nulls(
    schema: &'static ObjectSchema,
    path: &FieldPath,
    place: Place<'_>,
    all: &mut Vec<Written>,
) {
    for Field { name, shape, idle, refused, .. } in schema.fields {
        let path = path.field(*name);
        let field = |value: Value| place(json!({ *name: value }));
        let written = Some(format!("{}.{name}", schema.name));
        let spec = field(Value::Null);
        let acted_on = idle.is_none() && refused.is_none();
        all.push(Written { field: written, path: path.clone(), spec, acted_on });
        below(shape(), &path, &field, all);
    }
}

fn below(shape: Shape, path: &FieldPath, place: Place<'_>, all: &mut Vec<Written>) {
    match shape {
        Shape::Object(schema) => nulls(schema, path, place, all),
        Shape::List(item) => {
            let (path, item_of) = (path.index(0), |value: Value| place(json!([value])));
            all.push(Written::unnamed(&path, item_of(Value::Null)));
            below(item(), &path, &item_of, all);
        }
        Shape::Map(value) => {
            let (path, value_of) = (path.field("80"), |value: Value| place(json!({ "80": value })));
            let says = matches!(value(), Shape::Object(s) if s.name == StringMatch::SCHEMA.name);
            if !says {
                all.push(Written::unnamed(&path, value_of(Value::Null)));
            }
            below(value(), &path, &value_of, all);
        }
        _ => {}
    }
}

fn refused(kind: Kind, written: &Written) -> bool {
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind_name(),
        "metadata": { "name": "default" }, "spec": written.spec,
    });
    let findings = parse_value(object).err().unwrap_or_default();
    findings.iter().any(|d| d.severity == Severity::Error && d.field == written.path)
}

#[test]
fn a_null_is_refused_or_listed_with_the_reason_why_it_is_harmless() {
    let mut absent = BTreeSet::new();
    for (kind, schema) in schemas() {
        let mut all = Vec::new();
        nulls(schema, &FieldPath::of("spec"), &|value| value, &mut all);
        for written in all.iter().filter(|w| w.acted_on && !refused(kind, w)) {
            let Some(field) = &written.field else { panic!("{kind} {}: taken", written.path) };
            absent.insert(field.clone());
        }
        let whole = Written::unnamed(&FieldPath::of("spec"), Value::Null);
        assert!(refused(kind, &whole), "{kind}: a document that ends behind `spec:` is taken");
    }
    let listed: BTreeSet<String> = HARMLESS
        .iter()
        .flat_map(|(_, fields)| *fields)
        .flat_map(|line| {
            let (schema, fields) = line.split_once(": ").expect("a type and its fields");
            fields.split(' ').map(move |field| format!("{schema}.{field}"))
        })
        .collect();
    let unlisted: Vec<_> = absent.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&absent).collect();
    assert!(
        unlisted.is_empty() && stale.is_empty(),
        "not listed: {unlisted:#?}\nrefused: {stale:#?}"
    );
}

#[test]
fn kinds_of_kubernetes_take_a_null_for_an_absent_field_as_its_api_server_does() {
    let open =
        [Service::SCHEMA, Pod::SCHEMA, EndpointSlice::SCHEMA, Deployment::SCHEMA, Secret::SCHEMA];
    for schema in open {
        assert!(schema.open, "{} is ours, and belongs into the table", schema.name);
    }
}

#[test]
fn a_condition_without_a_value_asks_that_the_name_is_there() {
    let matches = json!({ "headers": { "a": null }, "withoutHeaders": { "b": null }, "queryParams": { "c": null } });
    let rule = json!({ "match": [matches], "route": [{ "destination": { "host": "a" } }] });
    let object = json!({
        "apiVersion": Kind::VIRTUAL_SERVICE.api_version(), "kind": "VirtualService",
        "metadata": { "name": "a" }, "spec": { "hosts": ["a"], "http": [rule] },
    });
    let (object, findings) = parse_value(object).expect("accepted");
    assert!(findings.is_empty(), "{findings:?}");
    let spec: &VirtualService = object.content().expect("a VirtualService");
    let http = &spec.http[0].matches[0];
    for (conditions, name) in
        [(&http.headers, "a"), (&http.without_headers, "b"), (&http.query_params, "c")]
    {
        assert_eq!(conditions.get(name), Some(&StringMatch::Present), "{name}");
    }
}
