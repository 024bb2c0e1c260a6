//! Fields without effect on a request, each with the reason.

/// The beginning of a field's pattern, or with a star before it any part of one, and why nobody
/// reads it.
pub(crate) const REASONS: &[(&str, &str)] = &[
    // How resources and secrets are fetched: our proxy has one stream, an identity of its own, and
    // its own patience.
    (
        "*.initial_fetch_timeout",
        "our proxy waits by rules of its own, and serves nothing more weakly meanwhile",
    ),
    ("*.resource_api_version", "there is one version of the API"),
    (
        "*.sds_config.api_config_source",
        "the workload's own secrets come from its identity or its files, not over a socket",
    ),
    // Names for people, statistics and logs: types and matches decide.
    ("*.transport_socket.name", "the type of its configuration decides"),
    ("*.filters[].name", "the type of its configuration decides"),
    ("*.retry_host_predicate[].name", "the type of its configuration decides"),
    ("LDS.listener_filters[].name", "the type of its configuration decides"),
    ("CDS.cluster_type.name", "the type of its configuration decides"),
    ("CDS.load_assignment.cluster_name", "the assignment is written into its cluster"),
    ("CDS.alt_stat_name", "a name in Envoy's statistics"),
    ("*<RBAC>.stat_prefix", "a name in Envoy's statistics"),
    ("*<RBAC>.shadow_rules_stat_prefix", "a name in Envoy's statistics"),
    (
        "*<HttpConnectionManager>.http_filters[].typed_config<FilterConfig>",
        "gRPC statistics of Envoy; ours count all alike",
    ),
    (
        "CDS.metadata.filter_metadata{istio}.fields{config}",
        "the object that a cluster is made of, for people",
    ),
    (
        "CDS.metadata.filter_metadata{istio}.fields{external}",
        "whether a host is outside of the mesh, for people",
    ),
    (
        "CDS.metadata.filter_metadata{istio}.fields{subset}",
        "the subset that a cluster stands for, for people",
    ),
    ("RDS.virtual_hosts[].routes[].metadata", "the object that a route is made of, for people"),
    // Tracing: our proxy has no tracer; a request's id is made and passed on all the same.
    ("*<HttpConnectionManager>.tracing", "our proxy has no tracer"),
    (
        "*<HttpConnectionManager>.request_id_extension",
        "ids are always UUIDs, and no tracer reads a bit of them",
    ),
    ("*.request_mirror_policies[].trace_sampled", "our proxy has no tracer"),
    // Memory and pace.
    (
        "LDS.max_connections_to_accept_per_socket_event",
        "how many connections a worker takes at a time",
    ),
    (
        "LDS.listener_filters[].typed_config<TlsInspector>.initial_read_buffer_size",
        "the size of a buffer",
    ),
    (
        "RDS.max_direct_response_body_size_bytes",
        "a limit for the configuration itself, which has passed it",
    ),
    ("CDS.cleanup_interval", "an original destination is not kept beyond its connections"),
    // What our proxy always does, or never.
    ("*.validate_clusters", "a cluster that is not there is answered when it is asked for"),
    (
        "*<HttpConnectionManager>.http_protocol_options.allow_absolute_url",
        "always read (RFC 9112 section 3.2.2)",
    ),
    (
        "*<HttpConnectionManager>.proxy_100_continue",
        "100 is answered when the body is asked for, by who takes it",
    ),
    ("*.use_downstream_protocol_config.http_protocol_options", "empty: HTTP/1 as it is by default"),
    (
        "*.use_downstream_protocol_config.http2_protocol_options",
        "empty: HTTP/2 as it is by default",
    ),
    (
        "CDS.outlier_detection.enforcing_success_rate",
        "0 switches off a detector that our proxy does not have",
    ),
    ("CDS.transport_socket_matches[].match", "empty: every endpoint, as without it"),
    (
        "*.typed_config<Config>.on_request_headers[].skip_if_empty",
        "no list is no override, whatever this says",
    ),
    (
        "CDS.round_robin_lb_config.slow_start_config",
        "which of the healthy endpoints serves a request is free; our proxy gives a new one its share at once",
    ),
];

/// Refusals that examples of the corpus lead to: what they ask for is not served by our proxy, and
/// said to be so.
pub(crate) const REFUSED: &[&str] = &[
    // A Sidecar whose application listens on a Unix socket.
    "endpoint.address: expected a socket_address, others are not supported by this proxy",
];

/// Whether an entry speaks of this field, or of something above it.
pub(crate) fn covers(entry: &str, pattern: &str) -> bool {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[', '<', '{']);
    match entry.strip_prefix('*') {
        None => pattern.strip_prefix(entry).is_some_and(ends),
        Some(part) => pattern.match_indices(part).any(|(at, _)| ends(&pattern[at + part.len()..])),
    }
}
