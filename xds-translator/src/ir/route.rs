//! Routing rules: what happens to a request for a host.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::Serialize;

use super::{Hostname, Labels, ObjectId, Origin, Visibility};

/// The rules one object gives for a set of hosts (Istio `VirtualService`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RouteTable {
    /// The object.
    pub origin: Origin,
    /// Fully qualified hosts; unique; never empty.
    pub hosts: Vec<Hostname>,
    /// What it is attached to; never empty (default: the mesh).
    pub attachments: Vec<Attachment>,
    /// Which namespaces' proxies may use it.
    pub export_to: Visibility,
    /// HTTP rules; the first match wins.
    pub http: Vec<HttpRule>,
    /// TLS rules by SNI; the first match wins.
    pub tls: Vec<TlsRule>,
    /// TCP rules; the first match wins.
    pub tcp: Vec<TcpRule>,
}

/// What a route table is attached to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Attachment {
    /// Every sidecar.
    Mesh,
    /// The gateway configuration object with this identity.
    Gateway(ObjectId),
}

/// One HTTP rule: matches are OR-ed, conditions inside a match AND-ed; no match means every request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct HttpRule {
    /// Name for the route; may be empty.
    pub name: Arc<str>,
    /// Alternatives; empty means match all.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: HttpAction,
    /// Header changes for the whole rule.
    pub headers: HeaderOps,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// `None` = no limit (Envoy `timeout: 0s`).
    pub timeout: Option<Duration>,
    /// Retries.
    pub retry: Retry,
    /// Copies of requests; may be empty.
    pub mirrors: Vec<Mirror>,
    /// CORS policy.
    pub cors: Option<Cors>,
}

/// Conditions on a request; all must hold.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct HttpMatch {
    /// Name for the route; may be empty.
    pub name: Arc<str>,
    /// On the path (without query).
    pub uri: Option<StringMatch>,
    /// Paths compare without case.
    pub ignore_uri_case: bool,
    /// On headers, by lower-case name; `Present` for "any value".
    pub headers: BTreeMap<Arc<str>, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<Arc<str>, StringMatch>,
    /// On query parameters.
    pub query: BTreeMap<Arc<str>, StringMatch>,
    /// On the method.
    pub method: Option<StringMatch>,
    /// On the authority.
    pub authority: Option<StringMatch>,
    /// On the scheme.
    pub scheme: Option<StringMatch>,
    /// The listener's port, decided when planning.
    pub port: Option<u16>,
    /// Labels of the client, decided when planning.
    pub source_labels: Labels,
    /// Namespace of the client, decided when planning.
    pub source_namespace: Option<Arc<str>>,
    /// Restricts the match to these attachments; empty means all of the table's.
    pub attachments: Vec<Attachment>,
    /// `statPrefix`.
    pub stat_prefix: Option<Arc<str>>,
}

/// A condition on a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with (dialects other than Istio, and policies).
    Suffix(Arc<str>),
    /// RE2, on the whole text. Checked when lowered.
    Regex(Arc<str>),
    /// Anything, as long as it is there.
    Present,
}

/// What happens to a matched request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum HttpAction {
    /// Send it on; weights are relative; at least one destination; zero weights are dropped unless all are zero.
    Forward {
        /// Where to.
        destinations: Vec<WeightedDestination>,
        /// How path and authority change.
        rewrite: Rewrite,
    },
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer directly.
    Direct {
        /// Status code.
        status: u16,
        /// Body; may be empty.
        body: Arc<[u8]>,
    },
}

/// A destination with its share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct WeightedDestination {
    /// Where.
    pub destination: Destination,
    /// Relative weight; 1 for a lone destination without one.
    pub weight: u32,
    /// Header changes for this destination only.
    pub headers: HeaderOps,
}

/// A host, port and subset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Destination {
    /// Fully qualified host.
    pub host: Hostname,
    /// `None`: the service's only port, or the listener's.
    pub port: Option<u16>,
    /// Named subset; empty for none.
    pub subset: Arc<str>,
}

/// Path and authority changes.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Rewrite {
    /// How the path changes.
    pub path: Option<PathRewrite>,
    /// The new authority.
    pub authority: Option<Arc<str>>,
}

/// How a path changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PathRewrite {
    /// Replaces the matched prefix, or the whole path of an exact match (`rewrite.uri`).
    Prefix(Arc<str>),
    /// Replaces what a regex matches.
    Regex {
        /// RE2 pattern.
        pattern: Arc<str>,
        /// Substitution, with `\1` groups.
        substitution: Arc<str>,
    },
}

/// A redirect answer.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Redirect {
    /// The new path.
    pub path: Option<RedirectPath>,
    /// The new host.
    pub authority: Option<Arc<str>>,
    /// The new port.
    pub port: Option<RedirectPort>,
    /// The new scheme.
    pub scheme: Option<Arc<str>>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// Path of a redirect.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RedirectPath {
    /// The whole path.
    Full(Arc<str>),
    /// The matched prefix only.
    Prefix(Arc<str>),
}

/// Port of a redirect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The new scheme's default, so none is written (`FROM_PROTOCOL_DEFAULT`).
    ProtocolDefault,
    /// The one the request came to (`FROM_REQUEST_PORT`).
    Request,
}

/// Header changes on a request and its response. Names are lower case.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct HeaderOps {
    /// On the request.
    pub request: HeaderChanges,
    /// On the response.
    pub response: HeaderChanges,
}

/// Header changes in one direction.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct HeaderChanges {
    /// Overwrite.
    pub set: BTreeMap<Arc<str>, Arc<str>>,
    /// Append.
    pub add: BTreeMap<Arc<str>, Arc<str>>,
    /// Remove; in the order written.
    pub remove: Vec<Arc<str>>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A share in millionths; 1,000,000 is all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);
}

/// Injected faults; delay and abort are drawn independently.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Fault {
    /// Delay before forwarding.
    pub delay: Option<(Duration, PerMillion)>,
    /// Answer instead of forwarding.
    pub abort: Option<(Abort, PerMillion)>,
}

/// The answer of an injected abort.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status code.
    Grpc(u32),
}

/// How often and when a request is tried again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Retry {
    /// Nothing said: the mesh's default applies (2 retries on connection faults).
    MeshDefault,
    /// `attempts: 0`.
    Off,
    /// As written.
    Policy(RetryPolicy),
}

/// A retry policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RetryPolicy {
    /// Number of retries; at least 1.
    pub attempts: u32,
    /// Limit of one try.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions, in the order written; `None` = the mesh's default list.
    pub retry_on: Option<Vec<Arc<str>>>,
    /// Statuses that are retried (bare numbers in `retryOn`); sorted, unique.
    pub retriable_statuses: Vec<u16>,
    /// May go to another locality.
    pub remote_localities: bool,
    /// Prefer an endpoint not tried before; `None` = default (yes).
    pub ignore_previous_hosts: Option<bool>,
    /// Base of the exponential back-off.
    pub backoff: Option<Duration>,
}

/// A copy of requests whose answers are dropped.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Mirror {
    /// Where copies go.
    pub destination: Destination,
    /// Which share; never zero.
    pub share: PerMillion,
}

/// Cross-origin policy.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Cors {
    /// Origins.
    pub origins: Vec<StringMatch>,
    /// Methods.
    pub methods: Vec<Arc<str>>,
    /// Request headers.
    pub headers: Vec<Arc<str>>,
    /// Response headers.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a browser keeps the answer.
    pub max_age: Option<Duration>,
    /// Credentials allowed.
    pub credentials: Option<bool>,
    /// Preflights that match no origin are forwarded (`unmatchedPreflights` other than IGNORE).
    pub forward_unmatched_preflights: bool,
}

/// A rule for TLS that passes through, chosen by SNI.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TlsRule {
    /// Alternatives; never empty.
    pub matches: Vec<L4Match>,
    /// Where to; never empty.
    pub destinations: Vec<WeightedDestination>,
}

/// A rule for plain TCP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TcpRule {
    /// Alternatives; empty means every connection.
    pub matches: Vec<L4Match>,
    /// Where to; never empty.
    pub destinations: Vec<WeightedDestination>,
}

/// Conditions on a connection.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct L4Match {
    /// SNI names; empty for TCP.
    pub sni_hosts: Vec<Hostname>,
    /// Destination networks; empty means any.
    pub destination_subnets: Vec<IpNet>,
    /// The listener's port.
    pub port: Option<u16>,
    /// Labels of the client, decided when planning.
    pub source_labels: Labels,
    /// Namespace of the client, decided when planning.
    pub source_namespace: Option<Arc<str>>,
    /// Restricts the match to these attachments; empty means all.
    pub attachments: Vec<Attachment>,
}
