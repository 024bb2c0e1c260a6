//! `MeshConfig`: settings of the whole mesh; fields only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    destination_rule::{
        ConnectionPool, H2UpgradePolicy, LocalityLbSetting, OutlierDetection, TcpKeepalive,
        ZoneAwareLbSetting,
    },
    extension_provider::{DefaultProviders, ExtensionProvider},
    sidecar::OutboundTrafficPolicy,
    virtual_service::HttpRetry,
};
use crate::dialect::schema::{choice, object};

object! {
    /// Settings of the whole mesh.
    MeshConfig {
        /// Port of the listener that catches outbound traffic (15001).
        "proxyListenPort" proxy_listen_port: Option<u16>,
        /// Port of the listener that catches inbound traffic (15006).
        "proxyInboundListenPort" proxy_inbound_listen_port: Option<u16>,
        /// Port of the explicit HTTP proxy; 0: none.
        "proxyHttpPort" proxy_http_port: Option<u16>,
        /// Limit for connecting to a backend (10 s).
        "connectTimeout" connect_timeout: Option<Duration>,
        /// How long to wait for the first bytes when detecting the protocol (0: no limit).
        "protocolDetectionTimeout" protocol_detection_timeout: Option<Duration>,
        /// Idle limit of HBONE connections.
        "hboneIdleTimeout" hbone_idle_timeout: Option<Duration>
            [idle("connections between proxies are mutual TLS, and never HBONE")],
        /// TCP keepalive of every connection to a backend.
        "tcpKeepalive" tcp_keepalive: Option<TcpKeepalive>,
        /// How often proxies resolve names (60 s).
        "dnsRefreshRate" dns_refresh_rate: Option<Duration>,
        /// Class of Ingress objects.
        "ingressClass" ingress_class: Arc<str>,
        /// Service of the default ingress gateway.
        "ingressService" ingress_service: Arc<str>,
        /// Label `istio` of the default ingress gateway.
        "ingressSelector" ingress_selector: Arc<str>,
        /// Which Ingress objects are read.
        "ingressControllerMode" ingress_controller_mode: Option<IngressControllerMode>,
        /// What happens to traffic for unknown hosts (ALLOW_ANY).
        "outboundTrafficPolicy" outbound_traffic_policy: Option<OutboundTrafficPolicy> [no_null],
        /// Where sidecars send inbound traffic (PASSTHROUGH).
        "inboundTrafficPolicy" inbound_traffic_policy: Option<InboundTrafficPolicy>,
        /// Mutual TLS by itself between sidecars (true).
        "enableAutoMtls" enable_auto_mtls: Option<bool>,
        /// TLS settings of mesh traffic.
        "meshMTLS" mesh_mtls: Option<MeshTls> [no_null],
        /// TLS settings of other traffic.
        "tlsDefaults" tls_defaults: Option<TlsDefaults> [no_null],
        /// The trust domain (`cluster.local`).
        "trustDomain" trust_domain: Arc<str>,
        /// Further trust domains whose identities count as ours.
        "trustDomainAliases" trust_domain_aliases: Vec<Arc<str>>,
        /// Further CA certificates.
        "caCertificates" ca_certificates: Vec<Value>
            [refused("only what this mesh's own authority signs is trusted between proxies")],
        /// An external CA.
        "ca" ca: Option<Value>
            [refused("certificates come from this mesh's own authority and from no other")],
        /// Deprecated.
        "certificates" certificates: Vec<Value> [idle("deprecated, and Istio reads it no more")],
        /// Nobody reads it, in Istio neither.
        "verifyCertificateAtClient" verify_certificate_at_client: Option<bool>
            [idle("nobody reads it, in Istio neither: servers are verified")],
        /// Whether HTTP/1.1 becomes HTTP/2 between sidecars.
        "h2UpgradePolicy" h2_upgrade_policy: Option<H2UpgradePolicy>,
        /// How paths are normalized (BASE).
        "pathNormalization" path_normalization: Option<PathNormalization> [no_null],
        /// Retries of routes that say nothing.
        "defaultHttpRetryPolicy" default_http_retry_policy: Option<HttpRetry>,
        /// Retries from a sidecar to its application.
        "defaultInboundHttpRetryPolicy" default_inbound_http_retry_policy: Option<HttpRetry>,
        /// Settings of every backend, below DestinationRules.
        "defaultTrafficPolicy" default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// The namespace whose policies hold for the mesh (`istio-system`).
        "rootNamespace" root_namespace: Arc<str>,
        /// Who sees services that do not say it (`*`).
        "defaultServiceExportTo" default_service_export_to: Vec<Arc<str>> [no_null],
        /// Who sees VirtualServices that do not say it (`*`).
        "defaultVirtualServiceExportTo" default_virtual_service_export_to: Vec<Arc<str>> [no_null],
        /// Who sees DestinationRules that do not say it (`*`).
        "defaultDestinationRuleExportTo" default_destination_rule_export_to: Vec<Arc<str>> [no_null],
        /// Which namespaces are read.
        "discoverySelectors" discovery_selectors: Vec<NamespaceSelector> [no_null],
        /// Settings of single services.
        "serviceSettings" service_settings: Vec<Value>
            [idle("a mesh is one cluster, in which every service is local")],
        /// Scope of services in a mesh of several clusters.
        "serviceScopeConfigs" service_scope_configs: Vec<Value>
            [idle("a mesh is one cluster, in which every service is local")],
        /// Who sees ServiceEntries.
        "serviceEntryVisibility" service_entry_visibility: Option<Value>
            [refused("who sees a ServiceEntry is said by its `exportTo`, or `defaultServiceExportTo`")],
        /// Further sources of configuration.
        "configSources" config_sources: Vec<ConfigSource>,
        /// Locality-aware balancing.
        "localityLbSetting" locality_lb_setting: Option<LocalityLbSetting>,
        /// Zone-aware balancing.
        "zoneAwareLbSetting" zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Path of the access log; absent: none.
        "accessLogFile" access_log_file: Arc<str>,
        /// Its format; absent: Istio's.
        "accessLogFormat" access_log_format: Arc<str>,
        /// Its encoding.
        "accessLogEncoding" access_log_encoding: Option<AccessLogEncoding>,
        /// Send access logs to a service.
        "enableEnvoyAccessLogService" enable_envoy_access_log_service: Option<bool>,
        /// Connections that no chain of a listener takes are not logged.
        "disableEnvoyListenerLog" disable_envoy_listener_log: Option<bool>,
        /// Tracing.
        "enableTracing" enable_tracing: Option<bool>,
        /// One scrape for proxy and application.
        "enablePrometheusMerge" enable_prometheus_merge: Option<bool>,
        /// Pattern of inbound clusters' statistics.
        "inboundClusterStatName" inbound_cluster_stat_name: Arc<str>,
        /// Pattern of outbound clusters' statistics.
        "outboundClusterStatName" outbound_cluster_stat_name: Arc<str>,
        /// Providers used when nothing says otherwise.
        "defaultProviders" default_providers: Option<DefaultProviders>,
        /// Providers of telemetry and authorization.
        "extensionProviders" extension_providers: Vec<ExtensionProvider>,
        /// Defaults of every proxy.
        "defaultConfig" default_config: Option<ProxyDefaults>,
        /// Identity of the mesh's networks.
        "meshNetworks" mesh_networks: Option<Value>
            [refused("a mesh is one network, in which every proxy reaches every other")],
    }
}

object! { no_null;
    /// Selects namespaces by their labels; without conditions: all of them.
    NamespaceSelector {
        /// Every one of these labels must be there with this value.
        "matchLabels" match_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Every one of these must hold.
        "matchExpressions" match_expressions: Vec<NamespaceExpression>,
    }
}

object! { no_null;
    /// A condition on one label.
    NamespaceExpression {
        /// The label.
        "key" key: Arc<str> [required],
        /// What must hold of its value.
        "operator" operator: SelectorOperator [required],
        /// The values of `In` and `NotIn`.
        "values" values: Vec<Arc<str>>,
    }
}

choice! {
    /// What must hold of a label's value.
    SelectorOperator {
        /// It is one of the values.
        In = "In",
        /// It is none of the values, or not there.
        NotIn = "NotIn",
        /// It is there.
        Exists = "Exists",
        /// It is not there.
        DoesNotExist = "DoesNotExist",
    }
}

object! {
    /// Where a control plane reads its configuration.
    ConfigSource {
        /// Only `k8s://`, the cluster that it runs in.
        "address" address: Arc<str>,
        /// TLS towards another source.
        "tlsSettings" tls_settings: Option<Value>
            [refused("the cluster is the only source that is named here")],
        /// What is read there.
        "subscribedResources" subscribed_resources: Vec<Value>
            [refused("the cluster is the only source that is named here")],
    }
}

object! {
    /// A service that is told something.
    RemoteService {
        /// `HOST:PORT`.
        "address" address: Arc<str> [required],
        /// TLS towards it.
        "tlsSettings" tls_settings: Option<Value>
            [refused("TLS towards a service is said by a DestinationRule for its host")],
        /// Keepalive of connections to it.
        "tcpKeepalive" tcp_keepalive: Option<Value>
            [idle("keepalive is said by a DestinationRule for its host")],
    }
}

choice! {
    /// After what spans are named.
    SpanNames {
        /// The label `app` and the namespace.
        AppLabelAndNamespace = "APP_LABEL_AND_NAMESPACE",
        /// The canonical name.
        CanonicalNameOnly = "CANONICAL_NAME_ONLY",
        /// The canonical name and the namespace.
        CanonicalNameAndNamespace = "CANONICAL_NAME_AND_NAMESPACE",
    }
}

choice! {
    /// How traffic gets to a pod's proxy.
    InterceptionMode {
        /// It is redirected, and comes from the proxy's address.
        Redirect = "REDIRECT",
        /// It is redirected and keeps its source address.
        Tproxy = "TPROXY",
        /// Applications call the proxy.
        None = "NONE",
    }
}

object! {
    /// Where sidecars send inbound traffic.
    InboundTrafficPolicy {
        /// The destination.
        "mode" mode: InboundTrafficMode,
    }
}

choice! {
    /// Where sidecars send inbound traffic.
    InboundTrafficMode {
        /// The address the client called.
        Passthrough = "PASSTHROUGH",
        /// The loopback address.
        Localhost = "LOCALHOST",
    }
}

object! { no_null;
    /// TLS settings.
    MeshTls {
        /// Least version.
        "minProtocolVersion" min_protocol_version: Option<super::shared::TlsProtocol>,
        /// Curves.
        "ecdhCurves" ecdh_curves: Vec<Arc<str>>,
        /// Cipher suites of TLS 1.2 that servers of the mesh's own mutual TLS take.
        "cipherSuites" cipher_suites: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// Settings of all TLS but the mesh's own mutual TLS, where nothing closer says them.
    TlsDefaults {
        /// Not acted on, in Istio neither: servers and DestinationRules have TLS 1.2 at least.
        "minProtocolVersion" min_protocol_version: Option<super::shared::TlsProtocol>
            [idle("in Istio neither: servers and DestinationRules have TLS 1.2 at least")],
        /// Curves.
        "ecdhCurves" ecdh_curves: Vec<Arc<str>>,
        /// Cipher suites of TLS 1.2.
        "cipherSuites" cipher_suites: Vec<Arc<str>>,
    }
}

object! {
    /// How paths are normalized.
    PathNormalization {
        /// The degree.
        "normalization" normalization: Normalization [no_null],
    }
}

choice! {
    /// The degree of path normalization.
    Normalization {
        /// Base.
        Default = "DEFAULT",
        /// As it came.
        None = "NONE",
        /// RFC 3986.
        Base = "BASE",
        /// Slashes are merged too.
        MergeSlashes = "MERGE_SLASHES",
        /// Escaped slashes are decoded too.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

object! {
    /// Settings of every backend, below DestinationRules.
    DefaultTrafficPolicy {
        /// Connection limits.
        "connectionPool" connection_pool: Option<ConnectionPool>,
        /// Ejection.
        "outlierDetection" outlier_detection: Option<OutlierDetection>,
    }
}

choice! {
    /// Encoding of the access log.
    AccessLogEncoding {
        /// Lines of text.
        Text = "TEXT",
        /// JSON objects.
        Json = "JSON",
    }
}

object! {
    /// Defaults of every proxy (`ProxyConfig`).
    ProxyDefaults {
        /// Directory of generated configuration.
        "configPath" config_path: Arc<str>
            [idle("proxies keep their files in a folder of their own")],
        /// Path of the proxy.
        "binaryPath" binary_path: Arc<str> [idle("which program runs is said by the image")],
        /// Name of the service.
        "serviceCluster" service_cluster: Arc<str>
            [idle("a proxy is named after its label `app` and its namespace")],
        /// Name of the service in traces.
        "tracingServiceName" tracing_service_name: Option<SpanNames>,
        /// How long a stopping proxy drains (45 s).
        "drainDuration" drain_duration: Option<Duration>
            [idle("what ends, a listener or a proxy, drains for `terminationDrainDuration`")],
        /// How long a terminating proxy waits (5 s).
        "terminationDrainDuration" termination_drain_duration: Option<Duration>,
        /// Address of the control plane.
        "discoveryAddress" discovery_address: Arc<str>
            [idle("where proxies find the control plane is said by the settings of injection")],
        /// Deprecated.
        "discoveryRefreshDelay" discovery_refresh_delay: Option<Duration>
            [idle("deprecated: changes are sent as they come")],
        /// Deprecated.
        "zipkinAddress" zipkin_address: Arc<str>,
        /// Address of statsd.
        "statsdUdpAddress" statsd_udp_address: Arc<str>
            [idle("proxies offer their metrics to Prometheus, and send none")],
        /// Port of the proxy's admin interface (15000).
        "proxyAdminPort" proxy_admin_port: Option<u16>
            [idle("the admin interface is on the loopback address, where nothing else of a pod listens on 15000")],
        /// Deprecated.
        "availabilityZone" availability_zone: Arc<str>
            [idle("deprecated: where a proxy runs is said by its node, or its WorkloadEntry")],
        /// How proxies prove themselves.
        "controlPlaneAuthPolicy" control_plane_auth_policy: Option<Value>
            [idle("deprecated: proxies and control plane always prove themselves")],
        /// Bootstrap file.
        "customConfigFile" custom_config_file: Arc<str>
            [idle("the bootstrap is made by the agent alone")],
        /// Longest name of a statistic.
        "statNameLength" stat_name_length: Option<i32>
            [idle("deprecated: names of statistics are never cut")],
        /// Worker threads.
        "concurrency" concurrency: Option<u32>,
        /// Bootstrap template.
        "proxyBootstrapTemplatePath" proxy_bootstrap_template_path: Arc<str>
            [idle("the bootstrap is made by the agent alone")],
        /// How traffic is captured (REDIRECT).
        "interceptionMode" interception_mode: Option<InterceptionMode>,
        /// Tracing.
        "tracing" tracing: Option<MeshTracing>,
        /// Deprecated.
        "sds" sds: Option<Value>
            [idle("deprecated: certificates always come over the agent's socket")],
        /// Access log service.
        "envoyAccessLogService" envoy_access_log_service: Option<RemoteService>,
        /// Metrics service.
        "envoyMetricsService" envoy_metrics_service: Option<Value>
            [idle("proxies offer their metrics to Prometheus, and send none")],
        /// Environment of the proxy.
        "proxyMetadata" proxy_metadata: BTreeMap<Arc<str>, Arc<str>>,
        /// Envoy's runtime values.
        "runtimeValues" runtime_values: Option<Value>
            [idle("Envoy runs with the features that its release has by default")],
        /// Port of the agent's health endpoint (15020).
        "statusPort" status_port: Option<u16>,
        /// Further tags of statistics.
        "extraStatTags" extra_stat_tags: Vec<Arc<str>>,
        /// What stands before the gateways.
        "gatewayTopology" gateway_topology: Option<GatewayTopology>,
        /// Id of the mesh.
        "meshId" mesh_id: Arc<str>
            [idle("a mesh is one cluster, whose name is said by `clusterId`")],
        /// Readiness probe of a workload that is not a pod.
        "readinessProbe" readiness_probe: Option<Value>
            [idle("a machine's agent is given the probe of its WorkloadGroup")],
        /// Which statistics are kept.
        "proxyStatsMatcher" proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// The application starts after its proxy.
        "holdApplicationUntilProxyStarts" hold_application: Option<bool>,
        /// Further CA certificates.
        "caCertificatesPem" ca_certificates_pem: Vec<Arc<str>>
            [refused("only what this mesh's own authority signs is trusted between proxies")],
        /// The proxy's image.
        "image" image: Option<Value>
            [idle("there is one image of each kind of proxy, which the settings of injection name")],
        /// Hardware keys.
        "privateKeyProvider" private_key_provider: Option<Value>
            [refused("keys of proxies are in their memory: there is no hardware that keeps them")],
        /// Headers that proxies add.
        "proxyHeaders" proxy_headers: Option<ProxyHeaders>,
        /// How often files are flushed.
        "fileFlushInterval" file_flush_interval: Option<Duration>
            [idle("Envoy writes logs out as often as it does by default")],
        /// When files are flushed.
        "fileFlushMinSizeKb" file_flush_min_size_kb: Option<u32>
            [idle("Envoy writes logs out as often as it does by default")],
        /// Compression of statistics.
        "statsCompression" stats_compression: Option<bool>
            [idle("metrics are answered as they are")],
        /// Limits of client connections.
        "connectionSettings" connection_settings: Option<Value>
            [refused("limits of connections are those of DestinationRules and Sidecars")],
    }
}

object! {
    /// Headers that proxies add.
    ProxyHeaders {
        /// What becomes of `x-forwarded-client-cert` (sidecars: `APPEND_FORWARD`; gateways: as
        /// `gatewayTopology` says).
        "forwardedClientCert" forwarded_client_cert: Option<ForwardClientCert>,
        /// What is added to it of a client's certificate.
        "setCurrentClientCertDetails" set_current_client_cert_details: Option<ClientCertDetails>,
        /// `x-request-id`.
        "requestId" request_id: Option<HeaderSwitch>,
        /// `server`.
        "server" server: Option<ServerHeader>,
        /// `x-envoy-attempt-count`.
        "attemptCount" attempt_count: Option<HeaderSwitch>,
        /// What Envoy tells of itself: `x-envoy-upstream-service-time` and the like.
        "envoyDebugHeaders" envoy_debug_headers: Option<HeaderSwitch>,
        /// Headers by which Istio's proxies tell who they are.
        "metadataExchangeHeaders" metadata_exchange_headers: Option<MetadataExchangeHeaders>
            [idle("proxies here tell who they are by their certificates, and add no such headers")],
        /// `x-forwarded-host`.
        "xForwardedHost" x_forwarded_host: Option<Value>
            [refused("what the host was before a rewrite is not told; `headers` of a VirtualService can set it")],
        /// `x-forwarded-port`.
        "xForwardedPort" x_forwarded_port: Option<Value>
            [refused("the port that was called is not told; `headers` of a VirtualService can set it")],
        /// Whether HTTP/1.1 headers are spelled as they came.
        "preserveHttp1HeaderCase" preserve_http1_header_case: Option<bool>
            [refused("headers are passed on in lower case, which all of HTTP takes for the same")],
    }
}

object! {
    /// Whether a header is added.
    HeaderSwitch {
        /// It is not.
        "disabled" disabled: Option<bool>,
    }
}

object! {
    /// The header `server` of answers.
    ServerHeader {
        /// It is what the application says.
        "disabled" disabled: Option<bool>,
        /// What it says (`istio-envoy`).
        "value" value: Arc<str>,
    }
}

object! {
    /// What is told of a client's certificate.
    ClientCertDetails {
        /// Its subject (true).
        "subject" subject: Option<bool>,
        /// The certificate (gateways: true).
        "cert" cert: Option<bool>,
        /// The certificates that lead to an authority.
        "chain" chain: Option<bool>,
        /// Its DNS names (true).
        "dns" dns: Option<bool>,
        /// Its URIs (true).
        "uri" uri: Option<bool>,
    }
}

object! {
    /// Headers by which Istio's proxies tell who they are.
    MetadataExchangeHeaders {
        /// To whom.
        "mode" mode: MetadataExchangeMode,
    }
}

choice! {
    /// To whom proxies tell who they are.
    MetadataExchangeMode {
        /// To everybody.
        Undefined = "UNDEFINED",
        /// To the mesh alone.
        InMesh = "IN_MESH",
    }
}

object! {
    /// Statistics that an Envoy keeps beside those that it always does.
    ProxyStatsMatcher {
        /// Beginnings of their names.
        "inclusionPrefixes" prefixes: Vec<Arc<str>>,
        /// Ends of their names.
        "inclusionSuffixes" suffixes: Vec<Arc<str>>,
        /// Regular expressions for their names.
        "inclusionRegexps" regexes: Vec<Arc<str>>,
    }
}

object! {
    /// What stands before the gateways.
    GatewayTopology {
        /// How many proxies before them are trusted for what they say of the client.
        "numTrustedProxies" num_trusted_proxies: Option<u32>,
        /// What becomes of `x-forwarded-client-cert`.
        "forwardClientCertDetails" forward_client_cert_details: Option<ForwardClientCert>,
        /// The balancer before them speaks the PROXY protocol; no fields.
        "proxyProtocol" proxy_protocol: Option<Value>,
    }
}

choice! {
    /// What becomes of `x-forwarded-client-cert`.
    ForwardClientCert {
        /// As `SANITIZE_SET`.
        Undefined = "UNDEFINED",
        /// It is taken off.
        Sanitize = "SANITIZE",
        /// Over mutual TLS it is passed on.
        ForwardOnly = "FORWARD_ONLY",
        /// Over mutual TLS the client is added to it.
        AppendForward = "APPEND_FORWARD",
        /// Over mutual TLS the client alone is in it.
        SanitizeSet = "SANITIZE_SET",
        /// It is passed on.
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY",
    }
}

choice! {
    /// Which Ingresses are served.
    IngressControllerMode {
        /// As `STRICT`.
        Unspecified = "UNSPECIFIED",
        /// None.
        Off = "OFF",
        /// Those of the class `ingressClass`, and those of no class.
        Default = "DEFAULT",
        /// Those of the class `ingressClass`.
        Strict = "STRICT",
    }
}

object! {
    /// Spans, as every proxy sends them unless a Telemetry object says otherwise.
    MeshTracing {
        /// Takes them in Zipkin's form.
        "zipkin" zipkin: Option<TracerAddress>,
        /// Takes them in Lightstep's form; Envoy has no such tracer any more.
        "lightstep" lightstep: Option<Value>
            [idle("Envoy has no such tracer any more; `opentelemetry` of `extensionProviders` reaches it")],
        /// Takes them in Datadog's form.
        "datadog" datadog: Option<TracerAddress>,
        /// Takes them in Stackdriver's form; Envoy has no such tracer any more.
        "stackdriver" stackdriver: Option<Value>
            [idle("Envoy has no such tracer any more; `opentelemetry` of `extensionProviders` reaches it")],
        /// Takes them in OpenCensus' form; Envoy has no such tracer any more.
        "openCensusAgent" open_census_agent: Option<Value>
            [idle("Envoy has no such tracer any more; `opentelemetry` of `extensionProviders` reaches it")],
        /// What they say, by name.
        "customTags" custom_tags: BTreeMap<Arc<str>, MeshTag>,
        /// Longest path in them; 0: 256.
        "maxPathTagLength" max_path_tag_length: u32,
        /// How many percent of the requests are traced; 0: 1.
        "sampling" sampling: f64,
        /// TLS towards who takes them.
        "tlsSettings" tls_settings: Option<Value>
            [refused("TLS towards a collector is said by a DestinationRule for its host")],
        /// Whether they say what workload they are of (true).
        "enableIstioTags" enable_istio_tags: Option<bool>,
    }
}

object! {
    /// Who takes spans.
    TracerAddress {
        /// `HOST:PORT`.
        "address" address: Arc<str> [required],
    }
}

object! {
    /// What a span says; one of these.
    MeshTag {
        /// Always the same.
        "literal" literal: Option<LiteralTag>,
        /// A variable of the proxy's environment.
        "environment" environment: Option<NamedTag>,
        /// A header of the request.
        "header" header: Option<NamedTag>,
    }
}

object! {
    /// Always the same.
    LiteralTag {
        /// The text.
        "value" value: Arc<str> [required],
    }
}

object! {
    /// Something that is looked up.
    NamedTag {
        /// Its name.
        "name" name: Arc<str> [required],
        /// What is said without it.
        "defaultValue" default_value: Arc<str>,
    }
}
