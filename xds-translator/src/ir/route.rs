//! Routing rules: what happens to a request for a host.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    Attachment, Field, Hostname, HttpMatch, L4Match, ObjectId, Origin, Retry, SharedMatches,
    StringMatch, Timeouts, Visibility,
};

/// The rules one object gives for a set of hosts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RouteTable {
    /// The object.
    pub origin: Origin,
    /// Fully qualified hosts; unique. None: the table is a part, whose rules hold where those of
    /// other tables continue in it ([`HttpAction::Continue`]).
    pub hosts: Vec<Hostname>,
    /// What it is attached to (default: the mesh); empty for a part alone.
    pub attachments: Vec<Attachment>,
    /// Which namespaces' proxies may use it.
    pub export_to: Visibility,
    /// HTTP rules; the first match in [`Self::order`] wins.
    pub http: Vec<HttpRule>,
    /// In which order HTTP rules are tried.
    pub order: RuleOrder,
    /// Whether it counts where others name its hosts too.
    pub standing: Standing,
    /// TLS rules by SNI; the first match wins.
    pub tls: Vec<TlsRule>,
    /// TCP rules; the first match wins.
    pub tcp: Vec<TcpRule>,
    /// Where its names are written. Default in outline form.
    pub fields: RouteFields,
}

impl RouteTable {
    /// Whether it holds only where other tables continue in it.
    pub fn is_part(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether a rule of the table is for requests to a host.
    pub fn serves(&self, rule: &HttpRule, host: &Hostname) -> bool {
        let containing = || self.hosts.iter().filter(|own| own.contains(host));
        let closest = || containing().min_by(|one, other| one.by_specificity(other));
        rule.hosts.is_empty() || closest().is_some_and(|closest| rule.hosts.contains(closest))
    }

    /// The parts in which its rules continue, in the order of the rules.
    pub fn parts(&self) -> impl Iterator<Item = &ObjectId> {
        self.http.iter().filter_map(|rule| match &rule.action {
            HttpAction::Continue { part, .. } => Some(part),
            _ => None,
        })
    }

    /// Whether it is attached to a server of a gateway configuration object.
    pub fn is_attached_to(&self, gateway: &ObjectId, port_name: &str) -> bool {
        self.attachments.iter().any(|attachment| attachment.reaches(gateway, port_name))
    }
}

/// In which order the HTTP rules of a table are tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RuleOrder {
    /// As they are written. Of a host's tables the oldest one counts, where the listener does not
    /// merge them.
    AsWritten,
    /// The most specific match first, whichever table of the host has it, so that all tables of the
    /// host with this order are read as one. A path that must be equal comes before a beginning of
    /// a path, then expressions, then any path; of each the longer one. Then a condition on the
    /// method, more conditions on headers, more on query parameters; then the older table, the
    /// first by namespace and name, and what is written first.
    BySpecificity,
}

/// Which of a host's tables counts, before their age is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub enum Standing {
    /// In the place of all others. Of several that of the client's namespace comes first.
    First,
    /// Before those that stand last.
    #[default]
    Usual,
    /// Where no other is for the host.
    Last,
}

/// Where the names in a route table are written, and names that no request needs.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct RouteFields {
    /// Of each of the table's hosts, in their order.
    pub hosts: Vec<Field>,
    /// Gateway configurations that the table or one of its matches names; in the order written.
    pub gateways: Vec<(ObjectId, Field)>,
    /// Destinations without a share of requests.
    pub idle: Vec<Destination>,
}

/// One HTTP rule: matches are OR-ed, conditions inside a match AND-ed; no match means every
/// request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct HttpRule {
    /// Where it is written; empty in outline form.
    pub at: Field,
    /// Name for the route; may be empty.
    pub name: Arc<str>,
    /// The rule is for these of the table's hosts; empty: for all of them. A request is for the
    /// most specific host of the table that contains its own ([`RouteTable::serves`]).
    pub hosts: Vec<Hostname>,
    /// Alternatives.
    pub matches: Vec<HttpMatch>,
    /// Further alternatives, which objects of their own hold. With none of either, the rule matches
    /// every request.
    pub shared_matches: Vec<SharedMatches>,
    /// What to do.
    pub action: HttpAction,
    /// Header changes for the whole rule.
    pub headers: HeaderOps,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// Copies of requests; may be empty.
    pub mirrors: Vec<Mirror>,
    /// CORS policy.
    pub cors: Option<Cors>,
}

impl HttpRule {
    /// Forwards every request, and says nothing else.
    pub fn forward(at: Field, destinations: Vec<WeightedDestination>) -> Self {
        Self {
            at,
            name: "".into(),
            hosts: Vec::new(),
            matches: Vec::new(),
            shared_matches: Vec::new(),
            action: HttpAction::Forward { destinations, rewrite: Rewrite::default() },
            headers: HeaderOps::default(),
            fault: None,
            timeouts: Timeouts::default(),
            retry: Retry::MeshDefault,
            mirrors: Vec::new(),
            cors: None,
        }
    }

    /// Whether it asks nothing of a request.
    pub fn is_unconditional(&self) -> bool {
        self.matches.is_empty() && self.shared_matches.is_empty()
    }
}

/// What happens to a matched request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum HttpAction {
    /// Send it on; weights are relative; at least one destination; zero weights are dropped unless
    /// all are zero.
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
    /// The rules of another table, a part, take the place of this one, as far as they ask for more
    /// than it does. What they do not set is as it is set here. Only as lowered: who reads tables
    /// of a snapshot reads them put together.
    Continue {
        /// The other table.
        part: ObjectId,
        /// How path and authority change where its rules do not say.
        rewrite: Rewrite,
    },
}

/// A destination with its share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct WeightedDestination {
    /// Where.
    pub destination: Destination,
    /// Relative weight; 1 for a lone destination without one.
    pub weight: u32,
    /// What becomes of its share while it cannot be reached.
    pub unreachable: Unreachable,
    /// Header changes for this destination only.
    pub headers: HeaderOps,
}

/// What becomes of the share of a destination whose service, or whose port, is not there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Unreachable {
    /// It stays, and its requests fail as those of a server that is down (503).
    Fail,
    /// It stays, and its requests are answered by an error of whoever configured it (500). Where
    /// destinations of one rule differ, all of the rule's that cannot be reached answer so.
    /// Connections of other protocols fail.
    Misconfigured,
    /// The others get it, unless there are none.
    Skip,
}

/// The port of a destination.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum DestinationPort {
    /// This one.
    Number(u16),
    /// The service's port of this name.
    Named(Arc<str>),
    /// The service's only one, or the one that the client used.
    Inferred,
    /// The one that the client used.
    Requested,
}

impl DestinationPort {
    /// The port that is written; `None`: it follows from the service or the request.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Named(_) | Self::Inferred | Self::Requested => None,
        }
    }
}

/// A host, port and subset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Destination {
    /// Fully qualified host.
    pub host: Hostname,
    /// Its port.
    pub port: DestinationPort,
    /// Named subset; empty for none.
    pub subset: Arc<str>,
    /// Where its host is written, with port and subset, if they are, beside it; empty in outline
    /// form of HTTP rules.
    pub at: Field,
    /// The object in which it is written, if that is not its table's: a part of it.
    pub of: Option<ObjectId>,
}

/// Path and authority changes.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Rewrite {
    /// How the path changes.
    pub path: Option<PathRewrite>,
    /// The new authority.
    pub authority: Option<Arc<str>>,
}

/// How a path changes. The query stays.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PathRewrite {
    /// Replaces the whole path.
    Full(Arc<str>),
    /// Replaces the characters that the match asks for at the beginning, or the whole path of an
    /// exact match.
    Prefix(Arc<str>),
    /// Replaces the segments that the match asks for at the beginning ([`PathMatch::Segments`]); a
    /// slash where the two meet is one slash, and an empty path is `/`. As [`Self::Prefix`] with a
    /// match of another kind.
    ///
    /// [`PathMatch::Segments`]: super::PathMatch::Segments
    Segments(Arc<str>),
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
    pub path: Option<PathRewrite>,
    /// The new host.
    pub authority: Option<Arc<str>>,
    /// The new port.
    pub port: Option<RedirectPort>,
    /// The new scheme.
    pub scheme: Option<Arc<str>>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// Port of a redirect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The new scheme's default, so none is written.
    ProtocolDefault,
    /// The one the request came to.
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
    /// Where it is written.
    pub at: Field,
    /// Alternatives; never empty.
    pub matches: Vec<L4Match>,
    /// Where to; never empty.
    pub destinations: Vec<WeightedDestination>,
}

/// A rule for plain TCP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TcpRule {
    /// Where it is written.
    pub at: Field,
    /// Alternatives; empty means every connection.
    pub matches: Vec<L4Match>,
    /// Where to; never empty.
    pub destinations: Vec<WeightedDestination>,
}
