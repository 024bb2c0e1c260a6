//! String, header, path and query matchers.

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher as WireHeader, QueryParameterMatcher as WireQuery, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{
        PathMatcher as WirePath, RegexMatcher, StringMatcher as WireString, path_matcher::Rule,
        string_matcher::MatchPattern,
    },
};
use regex::Regex;

use super::field::{At, Invalid, required};
use crate::runtime::matcher::{HeaderMatcher, QueryMatcher, StringMatcher, ValueMatcher, anchored_regex};

/// Compiles a string matcher.
pub(super) fn string(matcher: &WireString) -> Result<StringMatcher, Invalid> {
    use StringMatcher as M;
    let ignore_case = matcher.ignore_case;
    let fold = |text: &String| if ignore_case { text.to_ascii_lowercase().into() } else { text.as_str().into() };
    Ok(match matcher.match_pattern.as_ref() {
        Some(MatchPattern::Exact(text)) if ignore_case => M::ExactIgnoreCase(fold(text)),
        Some(MatchPattern::Exact(text)) => M::Exact(fold(text)),
        Some(MatchPattern::Prefix(text)) if ignore_case => M::PrefixIgnoreCase(fold(text)),
        Some(MatchPattern::Prefix(text)) => M::Prefix(fold(text)),
        Some(MatchPattern::Suffix(text)) if ignore_case => M::SuffixIgnoreCase(fold(text)),
        Some(MatchPattern::Suffix(text)) => M::Suffix(fold(text)),
        Some(MatchPattern::Contains(text)) if ignore_case => M::ContainsIgnoreCase(fold(text)),
        Some(MatchPattern::Contains(text)) => M::Contains(fold(text)),
        Some(MatchPattern::SafeRegex(matcher)) => M::Regex(regex(matcher).at("safe_regex")?),
        Some(MatchPattern::Custom(_)) => return Err(Invalid::new("not supported by this proxy").at("custom")),
        None => return Err(Invalid::new("required, but missing").at("match_pattern")),
    })
}

/// Compiles an expression that must match the whole string.
pub(super) fn regex(matcher: &RegexMatcher) -> Result<Regex, Invalid> {
    anchored_regex(&matcher.regex).map_err(|error| bad_regex(&error))
}

/// An expression that cannot be compiled.
pub(super) fn bad_regex(error: &regex::Error) -> Invalid {
    // The library's text draws the position over several lines; a NACK is one.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    Invalid::new(format!("not a valid expression: {last}")).at("regex")
}

/// Compiles a path matcher.
pub(super) fn path(matcher: &WirePath) -> Result<StringMatcher, Invalid> {
    match &matcher.rule {
        Some(Rule::Path(matcher)) => string(matcher).at("path"),
        None => Err(Invalid::new("required, but missing").at("path")),
    }
}

/// Compiles a header matcher.
#[allow(deprecated, reason = "control planes still send the older spellings")]
pub(super) fn header(matcher: &WireHeader) -> Result<HeaderMatcher, Invalid> {
    use HeaderMatchSpecifier as S;
    required("name", Some(&matcher.name).filter(|name| !name.is_empty()))?;
    let text = |matcher| ValueMatcher::Text(matcher);
    let value = match matcher.header_match_specifier.as_ref() {
        None => ValueMatcher::Present(true),
        Some(S::PresentMatch(wanted)) => ValueMatcher::Present(*wanted),
        Some(S::StringMatch(matcher)) => text(string(matcher).at("string_match")?),
        Some(S::ExactMatch(s)) => text(StringMatcher::Exact(s.as_str().into())),
        Some(S::PrefixMatch(s)) => text(StringMatcher::Prefix(s.as_str().into())),
        Some(S::SuffixMatch(s)) => text(StringMatcher::Suffix(s.as_str().into())),
        Some(S::ContainsMatch(s)) => text(StringMatcher::Contains(s.as_str().into())),
        Some(S::SafeRegexMatch(matcher)) => text(StringMatcher::Regex(regex(matcher).at("safe_regex_match")?)),
        Some(S::RangeMatch(range)) => ValueMatcher::Range(range.start..range.end),
    };
    Ok(HeaderMatcher {
        name: matcher.name.to_ascii_lowercase().into(),
        value,
        invert: matcher.invert_match,
        missing_is_empty: matcher.treat_missing_header_as_empty,
    })
}

/// Compiles a query parameter matcher.
pub(super) fn query(matcher: &WireQuery) -> Result<QueryMatcher, Invalid> {
    let value = match matcher.query_parameter_match_specifier.as_ref() {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => Some(string(matcher).at("string_match")?),
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(Invalid::new("expected true, false is not supported by this proxy").at("present_match"));
        }
    };
    Ok(QueryMatcher { name: matcher.name.as_str().into(), value })
}
