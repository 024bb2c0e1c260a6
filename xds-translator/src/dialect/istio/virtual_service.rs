//! `networking.istio.io VirtualService`: fields only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::shared::{Percent, StringMatch};
use crate::dialect::schema::{choice, object};

object! {
    /// Traffic rules for a set of hosts.
    VirtualService {
        /// Hosts that the rules are for; a short name is completed with the object's namespace.
        /// Absent: the rules hold where other VirtualServices delegate to this one.
        "hosts" hosts: Vec<Arc<str>> [no_null],
        /// Gateways, `NAME` or `NAMESPACE/NAME`, and `mesh` for all sidecars; absent: `mesh`.
        "gateways" gateways: Vec<Arc<str>> [no_null],
        /// Rules for HTTP; the first match wins.
        "http" http: Vec<HttpRoute>,
        /// Rules for TLS that is passed through; the first match wins.
        "tls" tls: Vec<TlsRoute>,
        /// Rules for TCP; the first match wins.
        "tcp" tcp: Vec<TcpRoute>,
        /// Namespaces that may use it: `.`, `*` or names.
        "exportTo" export_to: Vec<Arc<str>> [no_null],
    }
}

object! {
    /// One HTTP rule.
    HttpRoute {
        /// Name for logs and metrics.
        "name" name: Arc<str>,
        /// Alternatives; absent: every request.
        "match" matches: Vec<HttpMatch> [no_null],
        /// Where requests go.
        "route" route: Vec<HttpRouteDestination>,
        /// Answer with a redirect.
        "redirect" redirect: Option<HttpRedirect>,
        /// Answer directly.
        "directResponse" direct_response: Option<HttpDirectResponse>,
        /// The rules of a VirtualService without hosts take the place of this one, as far as they
        /// ask for more; what they do not set is as it is here.
        "delegate" delegate: Option<Delegate>,
        /// Change path and authority.
        "rewrite" rewrite: Option<HttpRewrite>,
        /// Limit for the whole request.
        "timeout" timeout: Option<Duration>,
        /// Retries.
        "retries" retries: Option<HttpRetry>,
        /// Injected faults.
        "fault" fault: Option<HttpFault>,
        /// Copies of requests go here too.
        "mirror" mirror: Option<Destination>,
        /// As `mirror`, several.
        "mirrors" mirrors: Vec<HttpMirror>,
        /// Deprecated: use `mirrorPercentage`.
        "mirrorPercent" mirror_percent: Option<u32>,
        /// Deprecated: use `mirrorPercentage`.
        "mirror_percent" mirror_percent_legacy: Option<u32>,
        /// Share of requests that is mirrored; absent: all.
        "mirrorPercentage" mirror_percentage: Option<Percent>,
        /// Cross-origin policy.
        "corsPolicy" cors_policy: Option<CorsPolicy>,
        /// Header changes.
        "headers" headers: Option<Headers>,
    }
}

object! { no_null;
    /// Conditions on a request; all must hold.
    HttpMatch {
        /// Name for logs and metrics.
        "name" name: Arc<str>,
        /// On the path.
        "uri" uri: Option<StringMatch>,
        /// On the scheme.
        "scheme" scheme: Option<StringMatch>,
        /// On the method.
        "method" method: Option<StringMatch>,
        /// On the authority.
        "authority" authority: Option<StringMatch>,
        /// On headers, by name.
        "headers" headers: BTreeMap<Arc<str>, StringMatch>,
        /// The port that the client called.
        "port" port: Option<u16>,
        /// Labels of the client.
        "sourceLabels" source_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Gateways this match is for; absent: all of the object's.
        "gateways" gateways: Vec<Arc<str>>,
        /// On query parameters, by name.
        "queryParams" query_params: BTreeMap<Arc<str>, StringMatch>,
        /// Paths compare without case.
        "ignoreUriCase" ignore_uri_case: bool,
        /// Headers that must not match.
        "withoutHeaders" without_headers: BTreeMap<Arc<str>, StringMatch>,
        /// Namespace of the client.
        "sourceNamespace" source_namespace: Arc<str>,
        /// Prefix of the route's statistics.
        "statPrefix" stat_prefix: Arc<str>,
    }
}

object! {
    /// A destination with its share.
    HttpRouteDestination {
        /// Where.
        "destination" destination: Destination [required],
        /// Relative share; absent is 0, and all zero is an equal share.
        "weight" weight: Option<i32>,
        /// Header changes for this destination.
        "headers" headers: Option<Headers>,
    }
}

object! {
    /// A host, a subset of it and a port.
    Destination {
        /// Host; a short name is completed with the object's namespace.
        "host" host: Arc<str> [required],
        /// Subset of the host's DestinationRule.
        "subset" subset: Arc<str> [no_null],
        /// Port; needed when the service has several.
        "port" port: Option<PortSelector> [no_null],
    }
}

object! { no_null;
    /// A port by number.
    PortSelector {
        /// Number.
        "number" number: u16,
    }
}

object! {
    /// A redirect answer.
    HttpRedirect {
        /// The new path.
        "uri" uri: Arc<str>,
        /// Replaces the matched prefix.
        "prefixRewrite" prefix_rewrite: Arc<str>,
        /// The new host.
        "authority" authority: Arc<str>,
        /// The new port.
        "port" port: Option<u16>,
        /// Where the new port comes from.
        "derivePort" derive_port: Option<RedirectPortSelection>,
        /// The new scheme.
        "scheme" scheme: Arc<str>,
        /// 301 (default), 302, 303, 307 or 308.
        "redirectCode" redirect_code: Option<u32>,
    }
}

choice! {
    /// Where the port of a redirect comes from.
    RedirectPortSelection {
        /// The scheme's default, so none is written.
        ProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The port the request came to.
        RequestPort = "FROM_REQUEST_PORT",
    }
}

object! {
    /// A direct answer.
    HttpDirectResponse {
        /// Status code.
        "status" status: u32 [required],
        /// Body.
        "body" body: Option<HttpBody>,
    }
}

object! {
    /// A body; one of its fields.
    HttpBody {
        /// As text.
        "string" string: Option<Arc<str>>,
        /// As base64.
        "bytes" bytes: Option<Arc<str>>,
    }
}

object! {
    /// Another VirtualService.
    Delegate {
        /// Its name.
        "name" name: Arc<str>,
        /// Its namespace; absent: the same.
        "namespace" namespace: Arc<str>,
    }
}

object! {
    /// Changes of path and authority.
    HttpRewrite {
        /// Replaces the matched prefix, or the whole path of another match.
        "uri" uri: Arc<str>,
        /// The new authority.
        "authority" authority: Arc<str>,
        /// Replaces what a regex matches in the path.
        "uriRegexRewrite" uri_regex_rewrite: Option<RegexRewrite>,
    }
}

object! {
    /// A substitution.
    RegexRewrite {
        /// RE2 expression.
        "match" pattern: Arc<str>,
        /// Substitution with `\1` groups.
        "rewrite" rewrite: Arc<str>,
    }
}

object! {
    /// How often and when a request is tried again.
    HttpRetry {
        /// Number of retries; 0 switches them off.
        "attempts" attempts: Option<i32>,
        /// Limit of one try.
        "perTryTimeout" per_try_timeout: Option<Duration>,
        /// Envoy's conditions and status codes, comma-separated.
        "retryOn" retry_on: Arc<str>,
        /// May go to another locality.
        "retryRemoteLocalities" retry_remote_localities: Option<bool>,
        /// Prefer endpoints not tried before.
        "retryIgnorePreviousHosts" retry_ignore_previous_hosts: Option<bool>,
        /// Base of the exponential back-off.
        "backoff" backoff: Option<Duration>,
    }
}

object! {
    /// Injected faults.
    HttpFault {
        /// Delay before forwarding.
        "delay" delay: Option<FaultDelay>,
        /// Answer instead of forwarding.
        "abort" abort: Option<FaultAbort>,
    }
}

object! {
    /// An injected delay.
    FaultDelay {
        /// Deprecated: use `percentage`.
        "percent" percent: Option<u32>,
        /// Share of requests; absent: all.
        "percentage" percentage: Option<Percent>,
        /// How long.
        "fixedDelay" fixed_delay: Option<Duration>,
        /// Not implemented, in Istio neither.
        "exponentialDelay" exponential_delay: Option<Duration>,
    }
}

object! {
    /// An injected answer.
    FaultAbort {
        /// HTTP status.
        "httpStatus" http_status: Option<u32>,
        /// gRPC status by name or number.
        "grpcStatus" grpc_status: Arc<str>,
        /// Not implemented, in Istio neither.
        "http2Error" http2_error: Arc<str>,
        /// Share of requests; absent: all.
        "percentage" percentage: Option<Percent>,
    }
}

object! {
    /// A copy of requests.
    HttpMirror {
        /// Where copies go.
        "destination" destination: Destination [required],
        /// Share; absent: all.
        "percentage" percentage: Option<Percent>,
    }
}

object! {
    /// Cross-origin policy.
    CorsPolicy {
        /// Deprecated: use `allowOrigins`.
        "allowOrigin" allow_origin: Vec<Arc<str>>,
        /// Allowed origins.
        "allowOrigins" allow_origins: Vec<StringMatch>,
        /// Allowed methods.
        "allowMethods" allow_methods: Vec<Arc<str>>,
        /// Allowed request headers.
        "allowHeaders" allow_headers: Vec<Arc<str>>,
        /// Response headers that a page may read.
        "exposeHeaders" expose_headers: Vec<Arc<str>>,
        /// How long a browser keeps the answer.
        "maxAge" max_age: Option<Duration>,
        /// Whether credentials are allowed.
        "allowCredentials" allow_credentials: Option<bool>,
        /// What happens to preflights that match no origin.
        "unmatchedPreflights" unmatched_preflights: UnmatchedPreflights,
    }
}

choice! {
    /// What happens to preflights that match no origin.
    UnmatchedPreflights {
        /// They are forwarded.
        Unspecified = "UNSPECIFIED",
        /// They are forwarded.
        Forward = "FORWARD",
        /// They are answered without CORS headers.
        Ignore = "IGNORE",
    }
}

object! {
    /// Header changes.
    Headers {
        /// On the request.
        "request" request: Option<HeaderOperations>,
        /// On the response.
        "response" response: Option<HeaderOperations>,
    }
}

object! {
    /// Header changes in one direction.
    HeaderOperations {
        /// Overwrite.
        "set" set: BTreeMap<Arc<str>, Arc<str>>,
        /// Append.
        "add" add: BTreeMap<Arc<str>, Arc<str>>,
        /// Remove.
        "remove" remove: Vec<Arc<str>>,
    }
}

object! {
    /// One rule for TLS.
    TlsRoute {
        /// Alternatives.
        "match" matches: Vec<TlsMatch> [required],
        /// Where connections go.
        "route" route: Vec<RouteDestination> [required],
    }
}

object! { no_null;
    /// Conditions on a TLS connection; all must hold.
    TlsMatch {
        /// SNI names; one must match.
        "sniHosts" sni_hosts: Vec<Arc<str>> [required],
        /// Destination networks.
        "destinationSubnets" destination_subnets: Vec<Arc<str>>,
        /// The port that the client called.
        "port" port: Option<u16>,
        /// Labels of the client.
        "sourceLabels" source_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Gateways this match is for.
        "gateways" gateways: Vec<Arc<str>>,
        /// Namespace of the client.
        "sourceNamespace" source_namespace: Arc<str>,
    }
}

object! {
    /// One rule for TCP.
    TcpRoute {
        /// Alternatives; absent: every connection.
        "match" matches: Vec<TcpMatch> [no_null],
        /// Where connections go.
        "route" route: Vec<RouteDestination> [required],
    }
}

object! { no_null;
    /// Conditions on a TCP connection; all must hold.
    TcpMatch {
        /// Destination networks.
        "destinationSubnets" destination_subnets: Vec<Arc<str>>,
        /// The port that the client called.
        "port" port: Option<u16>,
        /// Accepted and ignored, as in Istio.
        "sourceSubnet" source_subnet: Arc<str>
            [idle("Istio does not look at it either: connections from everywhere match")],
        /// Labels of the client.
        "sourceLabels" source_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Gateways this match is for.
        "gateways" gateways: Vec<Arc<str>>,
        /// Namespace of the client.
        "sourceNamespace" source_namespace: Arc<str>,
    }
}

object! {
    /// A destination of connections with its share.
    RouteDestination {
        /// Where.
        "destination" destination: Destination [required],
        /// Relative share.
        "weight" weight: Option<i32>,
    }
}
