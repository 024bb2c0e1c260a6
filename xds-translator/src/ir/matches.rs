//! Conditions of routing rules, on requests and on connections.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;

use super::{Attachment, Field, Hostname, Labels, ObjectId, Origin};

/// Alternatives that an object of its own holds; while it is not there, nothing matches them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SharedMatches {
    /// Where the object is named; empty in outline form.
    pub at: Field,
    /// The object.
    pub set: ObjectId,
    /// Those with these names; empty: all.
    pub names: Vec<Arc<str>>,
}

/// Named conditions that rules of other objects refer to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MatchSet {
    /// The object.
    pub origin: Origin,
    /// The conditions, in the order written; each has a name.
    pub matches: Vec<HttpMatch>,
}

/// Conditions on a request; all must hold.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct HttpMatch {
    /// Name for the route; may be empty.
    pub name: Arc<str>,
    /// On the path (without query).
    pub path: Option<PathMatch>,
    /// Paths compare without case.
    pub ignore_path_case: bool,
    /// On headers, by lower-case name; `Present` for "any value".
    pub headers: BTreeMap<Arc<str>, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<Arc<str>, StringMatch>,
    /// On claims of the request's token, which gateways know; sorted by path.
    pub claims: Vec<ClaimMatch>,
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
    /// Restricts the match to these attachments, of which none is a section; empty means all of the
    /// table's.
    pub attachments: Vec<Attachment>,
    /// Prefix of the route's own counters.
    pub stat_prefix: Option<Arc<str>>,
}

/// A condition on a claim, which is a text or a list of texts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ClaimMatch {
    /// Its name, within which other names may be.
    pub path: Vec<Arc<str>>,
    /// What it, or an element of it, must be.
    pub condition: StringMatch,
    /// It must not be that.
    pub refused: bool,
}

/// A condition on a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with these characters.
    Prefix(Arc<str>),
    /// Begins with these whole segments: `/a` is met by `/a`, `/a/` and `/a/b`, not by `/ab`. Has
    /// no slash at its end; empty: every path. See [`PathMatch::segments`].
    Segments(Arc<str>),
    /// RE2, on the whole path. Checked when lowered.
    Regex(Arc<str>),
}

impl PathMatch {
    /// Segments as written; a slash at the end asks for nothing.
    pub fn segments(text: &str) -> Self {
        Self::Segments(text.trim_end_matches('/').into())
    }

    /// Whether every path meets it.
    pub fn is_any(&self) -> bool {
        match self {
            Self::Exact(_) => false,
            Self::Prefix(prefix) => &**prefix == "/",
            Self::Segments(segments) => segments.is_empty(),
            Self::Regex(regex) => &**regex == ".*",
        }
    }
}

/// A condition on a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// RE2, on the whole text. Checked when lowered.
    Regex(Arc<str>),
    /// Anything, as long as it is there.
    Present,
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
    /// Restricts the match to these attachments, of which none is a section; empty means all.
    pub attachments: Vec<Attachment>,
}
