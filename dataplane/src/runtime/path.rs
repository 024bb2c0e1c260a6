//! Predicates over a request's path.

use std::sync::Arc;

use regex::Regex;

use super::{facts::RequestFacts, matcher::starts_with_ignore_case};

/// A predicate over the path without query.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// Equal.
    Exact {
        /// The path.
        path: Arc<str>,
        /// ASCII case counts.
        case_sensitive: bool,
    },
    /// Begins with.
    Prefix {
        /// The prefix.
        path: Arc<str>,
        /// ASCII case counts.
        case_sensitive: bool,
    },
    /// Equal, or begins with it and a slash.
    Segments {
        /// The prefix, without a slash at its end.
        path: Arc<str>,
        /// ASCII case counts.
        case_sensitive: bool,
    },
    /// The whole path matches.
    Regex(Regex),
    /// A CONNECT request.
    Connect,
}

impl PathMatcher {
    /// Whether the request's path matches.
    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let path = request.path_only();
        match self {
            Self::Exact { path: wanted, case_sensitive: true } => **wanted == *path,
            Self::Exact { path: wanted, case_sensitive: false } => {
                wanted.eq_ignore_ascii_case(path)
            }
            Self::Prefix { path: prefix, case_sensitive } => {
                has_prefix(path, prefix, *case_sensitive)
            }
            Self::Segments { path: prefix, case_sensitive } => {
                has_prefix(path, prefix, *case_sensitive)
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(expression) => expression.is_match(path),
            Self::Connect => request.method == "CONNECT",
        }
    }

    /// How many bytes of a matching path a prefix rewrite replaces.
    pub(super) fn literal_len(&self, path: &str) -> usize {
        match self {
            Self::Prefix { path: prefix, .. } | Self::Segments { path: prefix, .. } => {
                prefix.len().min(path.len())
            }
            Self::Exact { .. } | Self::Regex(_) => path.len(),
            Self::Connect => 0,
        }
    }
}

/// Whether `path` begins with `prefix`.
fn has_prefix(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    if case_sensitive { path.starts_with(prefix) } else { starts_with_ignore_case(path, prefix) }
}
