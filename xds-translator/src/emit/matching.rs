//! Conditions: on texts, headers, query parameters, paths and networks.

use ipnet::IpNet;

use super::{
    any::{boolean, names, uint32},
    pb::{
        core,
        matcher::{
            self, ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher, list_matcher,
            metadata_matcher::{PathSegment, path_segment::Segment},
            string_matcher::MatchPattern,
            value_matcher,
        },
        route::{
            self, header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
        },
    },
};
use crate::{
    ir::{ClaimMatch, HttpMatch, PathMatch, StringMatch},
    plan::{MetadataMatch, MetadataSource, TextPlace},
};

/// A regular expression on the whole text.
pub(super) fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: pattern.to_owned(), ..Default::default() }
}

/// A condition on a text that is there. `Present` asks for at least one character, as Istio's
/// policies do.
///
/// Envoy refuses empty patterns other than `exact`, so they are said in another way.
pub(super) fn string(condition: &StringMatch, ignore_case: bool) -> matcher::StringMatcher {
    let pattern = match condition {
        StringMatch::Prefix(s) | StringMatch::Suffix(s) if s.is_empty() => {
            MatchPattern::SafeRegex(regex(".*"))
        }
        StringMatch::Regex(s) if s.is_empty() => MatchPattern::Exact(String::new()),
        StringMatch::Exact(s) => MatchPattern::Exact(s.to_string()),
        StringMatch::Prefix(s) => MatchPattern::Prefix(s.to_string()),
        StringMatch::Suffix(s) => MatchPattern::Suffix(s.to_string()),
        StringMatch::Regex(s) => MatchPattern::SafeRegex(regex(s)),
        StringMatch::Present => MatchPattern::SafeRegex(regex(".+")),
    };
    // Envoy refuses the flag beside a regular expression.
    let ignore_case = ignore_case && !matches!(pattern, MatchPattern::SafeRegex(_));
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case }
}

/// A condition on a header.
pub(super) fn header(
    name: &str,
    condition: &StringMatch,
    ignore_case: bool,
) -> route::HeaderMatcher {
    let specifier = match condition {
        StringMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        condition => HeaderMatchSpecifier::StringMatch(string(condition, ignore_case)),
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

/// A condition that a header must not meet; a missing header does not meet it.
fn without_header(name: &str, condition: &StringMatch) -> route::HeaderMatcher {
    route::HeaderMatcher {
        invert_match: true,
        treat_missing_header_as_empty: *condition != StringMatch::Present,
        ..header(name, condition, false)
    }
}

fn query_parameter(name: &str, condition: &StringMatch) -> route::QueryParameterMatcher {
    let specifier = match condition {
        StringMatch::Present => QueryParameterMatchSpecifier::PresentMatch(true),
        condition => QueryParameterMatchSpecifier::StringMatch(string(condition, false)),
    };
    route::QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}

/// What a route matches; `None`: everything.
pub(super) fn route_match(matches: Option<&HttpMatch>) -> route::RouteMatch {
    let Some(m) = matches else {
        return route::RouteMatch { path_specifier: Some(path(None)), ..Default::default() };
    };
    let pseudo = [(":method", &m.method), (":authority", &m.authority), (":scheme", &m.scheme)];
    let headers = m.headers.iter().map(|(name, condition)| header(name, condition, false));
    let without = m.without_headers.iter().map(|(name, condition)| without_header(name, condition));
    let pseudo = pseudo.into_iter().filter_map(|(name, c)| Some(header(name, c.as_ref()?, false)));
    route::RouteMatch {
        path_specifier: Some(path(m.path.as_ref())),
        case_sensitive: boolean(!m.ignore_path_case),
        headers: headers.chain(without).chain(pseudo).collect(),
        query_parameters: m
            .query
            .iter()
            .map(|(name, condition)| query_parameter(name, condition))
            .collect(),
        dynamic_metadata: m.claims.iter().map(claim).collect(),
        ..Default::default()
    }
}

fn path(condition: Option<&PathMatch>) -> route::route_match::PathSpecifier {
    use route::route_match::PathSpecifier;
    match condition {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Exact(s)) => PathSpecifier::Path(s.to_string()),
        Some(PathMatch::Prefix(s)) => PathSpecifier::Prefix(s.to_string()),
        // Envoy refuses `/`, which every path begins with.
        Some(PathMatch::Segments(s)) if s.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Segments(s)) => PathSpecifier::PathSeparatedPrefix(s.to_string()),
        Some(PathMatch::Regex(s)) if s.is_empty() => PathSpecifier::Path(String::new()),
        Some(PathMatch::Regex(s)) => PathSpecifier::SafeRegex(regex(s)),
    }
}

fn claim(m: &ClaimMatch) -> MetadataMatcher {
    let found = MetadataMatch::any_claim(&m.path, &m.condition);
    MetadataMatcher { invert: m.refused, ..metadata(&found) }
}

/// Where the claims of a valid token are kept.
pub(super) const TOKEN_PAYLOAD: &str = "payload";

/// A condition on what a filter found out.
pub(super) fn metadata(found: &MetadataMatch) -> MetadataMatcher {
    let (filter, within) = match &found.source {
        MetadataSource::Token => (names::TOKENS, Some(TOKEN_PAYLOAD)),
        MetadataSource::Filter(name) => (&**name, None),
    };
    let path = within.into_iter().chain(found.path.iter().map(AsRef::as_ref));
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.map(segment).collect(),
        value: Some(text_in(found)),
        invert: false,
    }
}

fn text_in(found: &MetadataMatch) -> ValueMatcher {
    use value_matcher::MatchPattern as Pattern;
    let value = |pattern| ValueMatcher { match_pattern: Some(pattern) };
    let text = value(Pattern::StringMatch(string(&found.condition, false)));
    let element = |text: ValueMatcher| {
        let one_of = list_matcher::MatchPattern::OneOf(Box::new(text));
        value(Pattern::ListMatch(Box::new(ListMatcher { match_pattern: Some(one_of) })))
    };
    match found.place {
        TextPlace::Value => text,
        TextPlace::Element => element(text),
        TextPlace::Anywhere => {
            let value_matchers = vec![element(text.clone()), text];
            value(Pattern::OrMatch(OrMatcher { value_matchers }))
        }
    }
}

/// A network.
pub(super) fn cidr(network: &IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: network.addr().to_string(),
        prefix_len: uint32(network.prefix_len().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::tests::check_part;

    #[test]
    fn conditions_are_spelled_as_envoy_takes_them() {
        let text = |s: &str| s.into();
        let table = [
            (StringMatch::Exact(text("a")), r#"{"exact":"a"}"#),
            (StringMatch::Prefix(text("a")), r#"{"prefix":"a"}"#),
            (StringMatch::Suffix(text("a")), r#"{"suffix":"a"}"#),
            (StringMatch::Regex(text("a.*")), r#"{"safe_regex":{"regex":"a.*"}}"#),
            (StringMatch::Present, r#"{"safe_regex":{"regex":".+"}}"#),
            (StringMatch::Prefix(text("")), r#"{"safe_regex":{"regex":".*"}}"#),
            (StringMatch::Suffix(text("")), r#"{"safe_regex":{"regex":".*"}}"#),
            (StringMatch::Regex(text("")), r#"{"exact":""}"#),
        ];
        for (condition, expected) in table {
            check_part(&string(&condition, false), expected);
        }
        check_part(
            &string(&StringMatch::Regex(text("a")), true),
            r#"{"safe_regex":{"regex":"a"}}"#,
        );
        check_part(
            &string(&StringMatch::Exact(text("a")), true),
            r#"{"exact":"a","ignore_case":true}"#,
        );
    }

    #[test]
    fn a_match_keeps_every_condition() {
        let present = || StringMatch::Present;
        let exact = |s: &str| StringMatch::Exact(s.into());
        let m = HttpMatch {
            path: Some(PathMatch::Regex(".*\\.png".into())),
            ignore_path_case: true,
            headers: [("end-user".into(), exact("jason")), ("x".into(), present())].into(),
            without_headers: [("y".into(), exact("1")), ("z".into(), present())].into(),
            query: [("q".into(), exact("1"))].into(),
            method: Some(exact("GET")),
            claims: vec![ClaimMatch {
                path: vec!["realm".into(), "group".into()],
                condition: exact("staff"),
                refused: true,
            }],
            ..Default::default()
        };
        check_part(
            &route_match(Some(&m)),
            r#"{"safe_regex":{"regex":".*\\.png"},"case_sensitive":false,
                "headers":[{"name":"end-user","string_match":{"exact":"jason"}},
                           {"name":"x","present_match":true},
                           {"name":"y","string_match":{"exact":"1"},"invert_match":true,"treat_missing_header_as_empty":true},
                           {"name":"z","present_match":true,"invert_match":true},
                           {"name":":method","string_match":{"exact":"GET"}}],
                "query_parameters":[{"name":"q","string_match":{"exact":"1"}}],
                "dynamic_metadata":[{"filter":"envoy.filters.http.jwt_authn",
                    "path":[{"key":"payload"},{"key":"realm"},{"key":"group"}],
                    "value":{"or_match":{"value_matchers":[{"list_match":{"one_of":{"string_match":{"exact":"staff"}}}},
                        {"string_match":{"exact":"staff"}}]}},
                    "invert":true}]}"#,
        );
        check_part(&route_match(None), r#"{"prefix":"/"}"#);
    }

    #[test]
    fn paths_are_spelled_by_their_kind() {
        let text = |s: &str| s.into();
        let table = [
            (PathMatch::Exact(text("/a")), r#"{"path":"/a"}"#),
            (PathMatch::Prefix(text("/a")), r#"{"prefix":"/a"}"#),
            (PathMatch::segments("/a/"), r#"{"path_separated_prefix":"/a"}"#),
            (PathMatch::segments("/"), r#"{"prefix":"/"}"#),
            (PathMatch::Regex(text("/a.*")), r#"{"safe_regex":{"regex":"/a.*"}}"#),
            (PathMatch::Regex(text("")), r#"{"path":""}"#),
        ];
        for (condition, expected) in table {
            let matched = route::RouteMatch {
                path_specifier: Some(path(Some(&condition))),
                ..Default::default()
            };
            check_part(&matched, expected);
        }
    }
}
