//! What a matching route does: forward with rewrites, retries and limits, redirect, or answer at
//! once.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use regex::Regex;
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::{
    facts::{RequestFacts, split_port},
    matcher::{Share, query_parameter},
    path::PathMatcher,
    rate_limit::RateLimit,
    target::ClusterChoice,
};

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends the request to a cluster.
    Forward(Box<Forward>),
    /// Answers with another location.
    Redirect(Redirect),
    /// Answers at once.
    Direct(DirectResponse),
}

/// Sends the request to a cluster.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Which one.
    pub cluster: ClusterChoice,
    /// Status of the answer if the cluster does not exist.
    pub cluster_not_found_status: u16,
    /// Time for the whole answer, retries included; `None` unlimited.
    pub timeout: Option<Duration>,
    /// Most that `grpc-timeout` may ask for; `None` ignores that header, zero means no limit.
    pub max_grpc_timeout: Option<Duration>,
    /// Ends a silent stream; overrides the connection manager's if set (zero switches it off).
    pub idle_timeout: Option<Duration>,
    /// Changes of the path.
    pub path_rewrite: PathRewrite,
    /// Changes of the host.
    pub host_rewrite: HostRewrite,
    /// Writes the original host to `x-forwarded-host` when it is changed.
    pub append_forwarded_host: bool,
    /// What is tried again; a virtual host's applies if a route has none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What a hash balancer hashes; empty hashes nothing.
    pub hash: Vec<HashPolicy>,
    /// Copies sent elsewhere, whose answers are dropped.
    pub mirrors: Vec<Mirror>,
    /// How requests of this route become descriptors of rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// The virtual host's rate limits count beside these.
    pub include_host_rate_limits: bool,
    /// Protocols to which requests may be upgraded here, beside the connection manager's; `false`
    /// forbids one.
    pub upgrades: Vec<(Arc<str>, bool)>,
}

/// Changes of the path.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// None.
    Keep,
    /// The matched prefix (or whole path, if the route matches exactly) becomes this.
    Prefix(Arc<str>),
    /// Every match of an expression in the path without query becomes this; `$1` names a group.
    Regex(Regex, Arc<str>),
}

impl PathRewrite {
    /// The new path with its query, or `None` if nothing changes.
    pub fn apply(&self, path: &str, matched: &PathMatcher) -> Option<String> {
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let (path, rest) = path.split_at(end);
        let changed = match self {
            Self::Keep => return None,
            Self::Prefix(new) => format!("{new}{}", &path[matched.literal_len(path)..]),
            Self::Regex(expression, new) => expression.replace_all(path, &**new).into_owned(),
        };
        Some(changed + rest)
    }
}

/// Changes of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostRewrite {
    /// None.
    Keep,
    /// This one.
    Literal(Arc<str>),
    /// The endpoint's host name.
    Endpoint,
    /// The value of this header.
    Header(Arc<str>),
}

/// What is tried again, how often and when.
#[derive(Clone, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// Retries after the first attempt.
    pub retries: u32,
    /// Time for one attempt.
    pub per_try_timeout: Option<Duration>,
    /// Statuses that [`RetryOn::RETRIABLE_STATUS_CODES`] means.
    pub statuses: Vec<u16>,
    /// First wait; each next may double it, and a random part of it is used.
    pub back_off_base: Duration,
    /// Longest wait.
    pub back_off_max: Duration,
    /// Chooses an endpoint that was not tried yet, if one is found in so many draws; 0 takes any.
    pub reselect_attempts: u32,
}

/// A set of retry conditions, as `x-envoy-retry-on` names them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RetryOn(u32);

impl RetryOn {
    /// `5xx`: any 5xx, reset or no answer.
    pub const SERVER_ERROR: Self = Self(1);
    /// `gateway-error`: 502, 503, 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: no answer at all.
    pub const RESET: Self = Self(1 << 2);
    /// `connect-failure`.
    pub const CONNECT_FAILURE: Self = Self(1 << 3);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 4);
    /// `refused-stream`.
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    /// `retriable-status-codes`.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 6);
    /// `reset-before-request`: reset before the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 7);
    /// gRPC `cancelled` (1).
    pub const GRPC_CANCELLED: Self = Self(1 << 8);
    /// gRPC `deadline-exceeded` (4).
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 9);
    /// gRPC `internal` (13).
    pub const GRPC_INTERNAL: Self = Self(1 << 10);
    /// gRPC `resource-exhausted` (8).
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 11);
    /// gRPC `unavailable` (14).
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 12);
    /// `envoy-ratelimited`.
    pub const ENVOY_RATE_LIMITED: Self = Self(1 << 13);
    /// `http3-post-connect-failure`; never happens here.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 14);

    const NAMES: [(&'static str, Self); 15] = [
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("envoy-ratelimited", Self::ENVOY_RATE_LIMITED),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// Reads a comma-separated list; an unknown word is the error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.try_fold(Self::default(), |set, word| {
            let known = Self::NAMES.iter().find(|(name, _)| *name == word);
            known.map(|(_, flag)| set.with(*flag)).ok_or_else(|| word.to_owned())
        })
    }

    /// Both sets together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition of `other` is in the set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a hash balancer hashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashPolicy {
    /// The part of the request.
    pub source: HashSource,
    /// Stops here if a hash was found.
    pub terminal: bool,
}

/// A part of the request to hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashSource {
    /// A header.
    Header(Arc<str>),
    /// A cookie.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Made for a client that has none; `None` makes none.
        new: Option<NewCookie>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// A cookie that is made for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCookie {
    /// Its life; less than a second for a session cookie.
    pub ttl: Duration,
    /// `Path` attribute; empty writes none.
    pub path: Arc<str>,
    /// Further attributes; one without a value is written by its name alone.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl HashSource {
    /// The hash of what the request has of it, if it has any.
    pub fn hash(&self, request: &RequestFacts<'_>) -> Option<u64> {
        let text = match self {
            Self::Header(name) => {
                let mut lines: SmallVec<[String; 2]> = SmallVec::new();
                request.each_line(name, &mut |line| lines.push(line.to_owned()));
                // In whatever order they came: each is hashed with the hash of those before it.
                lines.sort_unstable();
                let chained = lines.iter().fold(0, |before, line| xxh64(line.as_bytes(), before));
                return (!lines.is_empty()).then_some(chained);
            }
            Self::Cookie { name, .. } => {
                request.header("cookie").and_then(|line| cookie(&line, name)).map(Cow::Owned)
            }
            Self::SourceIp => Some(Cow::Owned(request.remote_ip.to_string())),
            Self::Query(name) => {
                request.query().and_then(|query| query_parameter(query, name)).map(Cow::Borrowed)
            }
        };
        text.map(|text| xxh64(text.as_bytes(), 0))
    }
}

/// The cookie's value; one without any is as good as missing.
fn cookie(line: &str, name: &str) -> Option<String> {
    let mut pairs = line.split([';', ',']).filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found.map(|(_, value)| value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
}

/// Copies of requests for another cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// Its name.
    pub cluster: Arc<str>,
    /// How many requests are copied.
    pub share: Share,
    /// Does not append `-shadow` to the host.
    pub keep_host: bool,
}

/// Answers with another location.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<Arc<str>>,
    /// New host without port.
    pub host: Option<Arc<str>>,
    /// New port; a default port of the scheme is left out.
    pub port: Option<u16>,
    /// New path.
    pub path: RedirectPath,
    /// Leaves the query out.
    pub strip_query: bool,
}

/// The path of a redirect.
#[derive(Clone, Debug)]
pub enum RedirectPath {
    /// Replaces path and query.
    Whole(Arc<str>),
    /// Changes it like a rewrite.
    Rewrite(PathRewrite),
}

impl Redirect {
    /// Only changes the scheme to `https` (`require_tls`).
    pub fn to_https() -> Self {
        Self {
            status: 301,
            scheme: Some("https".into()),
            host: None,
            port: None,
            path: RedirectPath::Rewrite(PathRewrite::Keep),
            strip_query: false,
        }
    }

    /// The `location` header for a request that matched `matched`.
    pub fn location(&self, request: &RequestFacts<'_>, matched: &PathMatcher) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        format!(
            "{scheme}://{}{}",
            self.authority(request, scheme),
            self.path_and_query(request, matched)
        )
    }

    fn authority(&self, request: &RequestFacts<'_>, scheme: &str) -> String {
        if self.host.is_none() && self.port.is_none() && self.scheme.is_none() {
            return request.authority.to_owned();
        }
        let (host, port) = split_port(request.authority);
        let port = match self.port {
            Some(port) => Some(port),
            // Envoy swaps the whole authority for the new host, and drops a port that only the old
            // scheme implied.
            None if self.host.is_some() => None,
            None if self.scheme.is_some() => port.filter(|port| !is_default(request.scheme, *port)),
            None => port,
        };
        let host = self.host.as_deref().unwrap_or(host);
        match port.filter(|port| !is_default(scheme, *port)) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    fn path_and_query(&self, request: &RequestFacts<'_>, matched: &PathMatcher) -> String {
        let mut path = match &self.path {
            RedirectPath::Whole(path) if path.contains('?') => return absolute(path),
            RedirectPath::Whole(path) => absolute(path),
            RedirectPath::Rewrite(rewrite) => rewrite
                .apply(request.path_only(), matched)
                .unwrap_or_else(|| request.path_only().to_owned()),
        };
        if let Some(query) = request.query().filter(|_| !self.strip_query) {
            path.push('?');
            path.push_str(query);
        }
        path
    }
}

/// A path begins with a slash, whatever the configuration says.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn is_default(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), ("http", 80) | ("https", 443))
}

/// Answers at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectResponse {
    /// Status.
    pub status: u16,
    /// Body; `text/plain` unless a header operation says otherwise.
    pub body: Bytes,
}
