//! Plans of route configurations: every decision made, nothing spelled yet.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::ir::{Cors, Fault, HashKey, HeaderOps, HttpMatch, PerMillion, RetryCondition};

/// A route configuration in a listener (inbound), or the frame of an RDS resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RouteConfigPlan {
    /// Resource name: `80`, `http.8080`, `inbound|9080||`…
    pub name: Arc<str>,
    /// Ports in `Host` are ignored when matching domains.
    pub ignore_port_in_host: bool,
    /// In order: sorted by name, catch-all last.
    pub virtual_hosts: Vec<VirtualHostPlan>,
}

/// A virtual host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct VirtualHostPlan {
    /// `reviews.default.svc.cluster.local:9080`.
    pub name: Arc<str>,
    /// Domains; unique; never empty.
    pub domains: Vec<Arc<str>>,
    /// Routes; the first match wins; may be empty (404).
    pub routes: Vec<RoutePlan>,
    /// Answer plaintext with a redirect to HTTPS.
    pub require_tls: bool,
    /// `include_request_attempt_count`.
    pub attempt_count: bool,
}

/// One route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RoutePlan {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Conditions; `None`: everything (prefix `/`). Port, source and attachment conditions are
    /// already decided.
    pub matches: Option<HttpMatch>,
    /// What happens.
    pub action: RouteActionPlan,
    /// Header changes; never of the authority or another pseudo header.
    pub headers: HeaderOps,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// CORS.
    pub cors: Option<Cors>,
    /// `metadata.filter_metadata.istio.config`.
    pub config: Option<Arc<str>>,
    /// `decorator.operation`; empty: none.
    pub operation: Arc<str>,
}

/// What a route does.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RouteActionPlan {
    /// Forwards.
    Forward(Box<ForwardPlan>),
    /// Redirects.
    Redirect(RedirectPlan),
    /// Answers.
    Direct {
        /// Status.
        status: u16,
        /// Body; may be empty.
        body: Arc<[u8]>,
    },
}

/// Forwarding.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ForwardPlan {
    /// Clusters with weights; one: plain `cluster`; never empty.
    pub clusters: Vec<WeightedCluster>,
    /// Path change.
    pub path: Option<PathChange>,
    /// New authority.
    pub host_rewrite: Option<Arc<str>>,
    /// Limit of the whole request.
    pub timeout: RouteTimeout,
    /// `idle_timeout`; `None`: the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// Retries; `None`: none.
    pub retry: Option<RetryPlan>,
    /// Mirrors: cluster, share.
    pub mirrors: Vec<(Arc<str>, PerMillion)>,
    /// Consistent-hash keys.
    pub hash: Vec<HashKey>,
    /// 500 instead of 503 when the cluster is unknown (gateway semantics).
    pub missing_cluster_500: bool,
}

/// How a path changes; the query stays.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PathChange {
    /// The whole path is replaced.
    Full(Arc<str>),
    /// The prefix that the route matches, or the whole path of an exact match.
    Prefix(Arc<str>),
    /// What an expression finds.
    Regex {
        /// RE2 pattern.
        pattern: Arc<str>,
        /// Substitution, with `\1` groups.
        substitution: Arc<str>,
    },
}

/// A redirect answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RedirectPlan {
    /// The new path.
    pub path: Option<PathChange>,
    /// The new host.
    pub authority: Option<Arc<str>>,
    /// The new port; `None`: none is written.
    pub port: Option<u16>,
    /// The new scheme.
    pub scheme: Option<Arc<str>>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// A cluster with its share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct WeightedCluster {
    /// Name.
    pub name: Arc<str>,
    /// Relative weight; never 0 unless alone.
    pub weight: u32,
    /// Header changes; never of the authority or another pseudo header.
    pub headers: HeaderOps,
    /// New authority; wins over the route's.
    pub host_rewrite: Option<Arc<str>>,
}

/// Time limit of a route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum RouteTimeout {
    /// `timeout: 0s` with `max_grpc_timeout: 0s`.
    None,
    /// Both equal.
    After(Duration),
    /// Inbound: `timeout: 0s`, `max_stream_duration {0, grpc_timeout_header_max 0}`.
    Inbound,
}

/// Retries as planned: defaults are filled in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RetryPlan {
    /// `num_retries`; at least 1.
    pub attempts: u32,
    /// `retry_on`, in this order.
    pub conditions: Vec<RetryCondition>,
    /// `retriable_status_codes`.
    pub statuses: Vec<u16>,
    /// `per_try_timeout`.
    pub per_try_timeout: Option<Duration>,
    /// `previous_hosts` predicate with 5 attempts.
    pub avoid_previous_hosts: bool,
    /// `previous_priorities`.
    pub remote_localities: bool,
    /// `retry_back_off.base_interval`.
    pub backoff: Option<Duration>,
}
