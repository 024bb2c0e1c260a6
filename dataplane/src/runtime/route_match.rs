//! What a request must be like, for a route or for a rule of a filter. Spec: Envoy `RouteMatch`.

use super::{
    facts::RequestFacts,
    matcher::{HeaderMatcher, QueryMatcher, Share},
    metadata::MetadataMatcher,
    path::PathMatcher,
};

/// What a request must be like; all parts must match.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// Path without query.
    pub path: PathMatcher,
    /// Headers.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters.
    pub query: Vec<QueryMatcher>,
    /// Dynamic metadata.
    pub metadata: Vec<MetadataMatcher>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// Only this part of them.
    pub share: Share,
}

impl RouteMatch {
    /// Whether a request with this random number matches.
    pub fn matches(&self, request: &RequestFacts<'_>, random: u64) -> bool {
        self.path.matches(request)
            && self.headers.iter().all(|header| header.matches(request))
            && self.query_matches(request)
            && self.metadata.iter().all(|matcher| matcher.matches(request.metadata))
            && (!self.grpc || is_grpc(request))
            && self.share.contains(random)
    }

    fn query_matches(&self, request: &RequestFacts<'_>) -> bool {
        self.query.is_empty() || {
            let query = request.query();
            self.query.iter().all(|parameter| parameter.matches(query))
        }
    }
}

fn is_grpc(request: &RequestFacts<'_>) -> bool {
    let content_type = request.header("content-type").unwrap_or_default();
    content_type
        .strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}
