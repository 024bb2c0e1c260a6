//! What a request must be like, for a route or for a rule of a filter.

use envoy_types::pb::envoy::config::route::v3::{RouteMatch as Wire, route_match::PathSpecifier};

use super::{
    field::{At, Invalid, each, flag, required, share},
    matcher,
};
use crate::runtime::{matcher::Share, path::PathMatcher, route_match::RouteMatch};

/// Compiles what a request must be like.
pub(super) fn compile(message: &Wire) -> Result<RouteMatch, Invalid> {
    let fraction = message
        .runtime_fraction
        .as_ref()
        .map(|fraction| fraction.default_value.as_ref().map(share));
    Ok(RouteMatch {
        path: path(message)?,
        headers: each("headers", &message.headers, matcher::header)?,
        query: each("query_parameters", &message.query_parameters, matcher::query)?,
        metadata: each("dynamic_metadata", &message.dynamic_metadata, matcher::metadata)?,
        grpc: message.grpc.is_some(),
        share: match fraction {
            None => Share::ALL,
            Some(share) => share.unwrap_or(Share::NONE),
        },
    })
}

fn path(message: &Wire) -> Result<PathMatcher, Invalid> {
    let case_sensitive = flag(message.case_sensitive.as_ref(), true);
    match required("path_specifier", message.path_specifier.as_ref())? {
        PathSpecifier::Prefix(path) => {
            Ok(PathMatcher::Prefix { path: path.as_str().into(), case_sensitive })
        }
        PathSpecifier::Path(path) => {
            Ok(PathMatcher::Exact { path: path.as_str().into(), case_sensitive })
        }
        PathSpecifier::PathSeparatedPrefix(path) => {
            Ok(PathMatcher::Segments { path: path.as_str().into(), case_sensitive })
        }
        PathSpecifier::SafeRegex(expression) => {
            Ok(PathMatcher::Regex(matcher::regex(expression).at("safe_regex")?))
        }
        PathSpecifier::ConnectMatcher(_) => Ok(PathMatcher::Connect),
        PathSpecifier::PathMatchPolicy(_) => {
            Err(Invalid::new("not supported by this proxy").at("path_match_policy"))
        }
    }
}
