//! String, header, path and query matchers.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher as WireHeader, QueryParameterMatcher as WireQuery,
        header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{
        MetadataMatcher as WireMetadata, PathMatcher as WirePath, RegexMatcher,
        StringMatcher as WireString, ValueMatcher as WireValue, double_matcher, list_matcher,
        metadata_matcher, path_matcher::Rule, string_matcher::MatchPattern,
        value_matcher::MatchPattern as Pattern,
    },
};
use regex::Regex;

use super::field::{At, Invalid, each, required};
use crate::runtime::{
    matcher::{HeaderMatcher, QueryMatcher, StringMatcher, ValueMatcher, anchored_regex},
    metadata::{MetadataMatcher, ValueMatcher as ValueOf},
};

/// Compiles a string matcher.
pub(super) fn string(matcher: &WireString) -> Result<StringMatcher, Invalid> {
    use StringMatcher as M;
    let ignore_case = matcher.ignore_case;
    let fold = |text: &String| {
        if ignore_case { text.to_ascii_lowercase().into() } else { text.as_str().into() }
    };
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
        Some(MatchPattern::Custom(_)) => {
            return Err(Invalid::new("not supported by this proxy").at("custom"));
        }
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
        Some(S::SafeRegexMatch(matcher)) => {
            text(StringMatcher::Regex(regex(matcher).at("safe_regex_match")?))
        }
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
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            Some(string(matcher).at("string_match")?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(Invalid::new("expected true, false is not supported by this proxy")
                .at("present_match"));
        }
    };
    Ok(QueryMatcher { name: matcher.name.as_str().into(), value })
}

/// A predicate over dynamic metadata.
pub(super) fn metadata(message: &WireMetadata) -> Result<MetadataMatcher, Invalid> {
    let segments = each("path", &message.path, |part| match &part.segment {
        Some(metadata_matcher::path_segment::Segment::Key(key)) => Ok(Arc::from(key.as_str())),
        None => Err(Invalid::new("required, but missing").at("key")),
    })?;
    // Envoy would look for a key that nobody can set.
    required("filter", Some(()).filter(|()| !message.filter.is_empty()).as_ref())?;
    required("path", Some(()).filter(|()| !segments.is_empty()).as_ref())?;
    Ok(MetadataMatcher {
        namespace: message.filter.as_str().into(),
        path: segments,
        value: required("value", message.value.as_ref()).and_then(|v| value(v).at("value"))?,
        invert: message.invert,
    })
}

fn value(message: &WireValue) -> Result<ValueOf, Invalid> {
    Ok(match required("match_pattern", message.match_pattern.as_ref())? {
        Pattern::NullMatch(_) => ValueOf::Null,
        Pattern::BoolMatch(yes) => ValueOf::Bool(*yes),
        Pattern::DoubleMatch(number) => {
            match required("double_match", number.match_pattern.as_ref())? {
                double_matcher::MatchPattern::Range(range) => {
                    ValueOf::Range(range.start, range.end)
                }
                double_matcher::MatchPattern::Exact(number) => ValueOf::Number(*number),
            }
        }
        Pattern::StringMatch(text) => ValueOf::Text(string(text).at("string_match")?),
        Pattern::PresentMatch(yes) => ValueOf::Present(*yes),
        Pattern::ListMatch(list) => match required("list_match", list.match_pattern.as_ref())? {
            list_matcher::MatchPattern::OneOf(one) => {
                ValueOf::OneOf(Box::new(value(one).at("list_match.one_of")?))
            }
        },
        Pattern::OrMatch(any) => {
            ValueOf::Or(each("or_match.value_matchers", &any.value_matchers, value)?)
        }
    })
}
