//! Conditions of messages on what is known of a request: they hold, they do not, or nobody can
//! tell beforehand.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::RegexBuilder;
use serde_json::Value;

use super::{
    pb::{
        core,
        matcher::{
            MetadataMatcher, PathMatcher, StringMatcher, ValueMatcher, list_matcher,
            metadata_matcher::path_segment::Segment, path_matcher, string_matcher::MatchPattern,
            value_matcher,
        },
        route::{
            HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
        },
    },
    request::Request,
};

/// Whether a condition holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Truth {
    Yes,
    No,
    /// It depends on what is not known beforehand, which the text says.
    Unknown(String),
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            unknown => unknown,
        }
    }

    pub(super) fn xor(self, invert: bool) -> Self {
        if invert { self.not() } else { self }
    }

    /// All hold; what is not known matters only if the others hold.
    pub(super) fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::Yes;
        for truth in truths {
            match truth {
                Self::No => return Self::No,
                Self::Yes => {}
                unknown => all = unknown,
            }
        }
        all
    }

    /// One of them holds.
    pub(super) fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        Self::all(truths.into_iter().map(Self::not)).not()
    }

    pub(super) fn unknown(what: impl Into<String>) -> Self {
        Self::Unknown(what.into())
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Whether an expression describes a whole text. An expression that is none matches nothing: a
/// proxy refuses the resource.
pub(super) fn matches_whole(expression: &str, text: &str) -> bool {
    RegexBuilder::new(&format!("^(?:{expression})$"))
        .dot_matches_new_line(true)
        .build()
        .is_ok_and(|regex| regex.is_match(text))
}

pub(super) fn string(condition: &StringMatcher, text: &str) -> Truth {
    let folded = |text: &str| match condition.ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let text = folded(text);
    let holds = match &condition.match_pattern {
        Some(MatchPattern::Exact(exact)) => text == folded(exact),
        Some(MatchPattern::Prefix(prefix)) => text.starts_with(&folded(prefix)),
        Some(MatchPattern::Suffix(suffix)) => text.ends_with(&folded(suffix)),
        Some(MatchPattern::Contains(part)) => text.contains(&folded(part)),
        Some(MatchPattern::SafeRegex(regex)) => matches_whole(&regex.regex, &text),
        Some(MatchPattern::Custom(custom)) => {
            return Truth::unknown(format!("the matcher {}", custom.name));
        }
        None => false,
    };
    holds.into()
}

/// A condition on text, in words: `is "a"`.
pub(super) fn string_words(condition: &StringMatcher) -> String {
    match &condition.match_pattern {
        Some(MatchPattern::Exact(text)) => format!("is {text:?}"),
        Some(MatchPattern::Prefix(text)) => format!("begins with {text:?}"),
        Some(MatchPattern::Suffix(text)) => format!("ends with {text:?}"),
        Some(MatchPattern::Contains(text)) => format!("contains {text:?}"),
        Some(MatchPattern::SafeRegex(regex)) => format!("matches {:?}", regex.regex),
        Some(MatchPattern::Custom(custom)) => format!("suits {}", custom.name),
        None => "is nothing".to_owned(),
    }
}

/// A header that is missing meets no condition, inverted or not, unless it counts as empty.
pub(super) fn header(condition: &HeaderMatcher, request: &Request) -> Truth {
    let value = request.header(&condition.name);
    let empty = condition.treat_missing_header_as_empty;
    let holds = match (&condition.header_match_specifier, value.as_deref()) {
        (Some(HeaderMatchSpecifier::PresentMatch(present)), value) => {
            return Truth::from((value.is_some() || empty) == *present).xor(condition.invert_match);
        }
        (None, value) => {
            return Truth::from(value.is_some() || empty).xor(condition.invert_match);
        }
        (Some(_), None) if !empty => return Truth::No,
        (Some(specifier), value) => specified(specifier, value.unwrap_or_default()),
    };
    holds.xor(condition.invert_match)
}

fn specified(specifier: &HeaderMatchSpecifier, value: &str) -> Truth {
    match specifier {
        HeaderMatchSpecifier::StringMatch(condition) => string(condition, value),
        HeaderMatchSpecifier::ExactMatch(exact) => (value == exact).into(),
        HeaderMatchSpecifier::SafeRegexMatch(regex) => matches_whole(&regex.regex, value).into(),
        HeaderMatchSpecifier::PrefixMatch(prefix) => value.starts_with(&**prefix).into(),
        HeaderMatchSpecifier::SuffixMatch(suffix) => value.ends_with(&**suffix).into(),
        HeaderMatchSpecifier::ContainsMatch(part) => value.contains(&**part).into(),
        HeaderMatchSpecifier::RangeMatch(range) => {
            let within = |number: i64| range.start <= number && number < range.end;
            value.parse().is_ok_and(within).into()
        }
        HeaderMatchSpecifier::PresentMatch(present) => (*present).into(),
    }
}

/// A condition on a header, in words.
pub(super) fn header_words(condition: &HeaderMatcher) -> String {
    let name = match &*condition.name {
        ":method" => "the method".to_owned(),
        ":authority" => "the authority".to_owned(),
        ":scheme" => "the scheme".to_owned(),
        name => format!("header {name}"),
    };
    let words = match &condition.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(text)) => string_words(text),
        Some(HeaderMatchSpecifier::PresentMatch(true)) | None => "is there".to_owned(),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => "is not there".to_owned(),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => format!("is {text:?}"),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => format!("begins with {text:?}"),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => format!("ends with {text:?}"),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => format!("contains {text:?}"),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => format!("matches {:?}", regex.regex),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            format!("is a number from {} and below {}", range.start, range.end)
        }
    };
    if condition.invert_match { format!("not: {name} {words}") } else { format!("{name} {words}") }
}

pub(super) fn parameter(condition: &QueryParameterMatcher, request: &Request) -> Truth {
    let value = request.parameter(&condition.name);
    match (&condition.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::PresentMatch(present)), value) => {
            (value.is_some() == *present).into()
        }
        (_, None) => Truth::No,
        (Some(QueryParameterMatchSpecifier::StringMatch(text)), Some(value)) => string(text, value),
        (None, Some(_)) => Truth::Yes,
    }
}

/// A condition on a query parameter, in words.
pub(super) fn parameter_words(condition: &QueryParameterMatcher) -> String {
    let words = match &condition.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => string_words(text),
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => "is not there".to_owned(),
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => "is there".to_owned(),
    };
    format!("query parameter {} {words}", condition.name)
}

pub(super) fn path(condition: &PathMatcher, request: &Request) -> Truth {
    match &condition.rule {
        Some(path_matcher::Rule::Path(text)) => string(text, request.path()),
        None => Truth::No,
    }
}

/// What filters found out, by namespace.
pub(super) type Metadata = serde_json::Map<String, Value>;

/// The way to what a condition asks for.
pub(super) fn keys(condition: &MetadataMatcher) -> Vec<&str> {
    let segments = condition.path.iter().filter_map(|segment| segment.segment.as_ref());
    segments.map(|Segment::Key(key)| key.as_str()).collect()
}

pub(super) fn metadata(condition: &MetadataMatcher, found: &Metadata) -> Truth {
    let path = keys(condition);
    let value = path
        .iter()
        .try_fold(found.get(&condition.filter), |value, key| Some(value?.get(*key)))
        .flatten();
    let null = Value::Null;
    let holds = match &condition.value {
        Some(matcher) => value_truth(matcher, value.unwrap_or(&null)),
        None => Truth::No,
    };
    holds.xor(condition.invert)
}

fn value_truth(condition: &ValueMatcher, value: &Value) -> Truth {
    use value_matcher::MatchPattern as Pattern;
    match (&condition.match_pattern, value) {
        (Some(Pattern::NullMatch(_)), value) => value.is_null().into(),
        (Some(Pattern::PresentMatch(present)), value) => (value.is_null() != *present).into(),
        (Some(Pattern::StringMatch(text)), Value::String(value)) => string(text, value),
        (Some(Pattern::BoolMatch(expected)), Value::Bool(value)) => (expected == value).into(),
        (Some(Pattern::ListMatch(list)), Value::Array(values)) => match &list.match_pattern {
            Some(list_matcher::MatchPattern::OneOf(one)) => {
                Truth::any(values.iter().map(|value| value_truth(one, value)))
            }
            None => Truth::No,
        },
        (Some(Pattern::OrMatch(or)), value) => {
            Truth::any(or.value_matchers.iter().map(|one| value_truth(one, value)))
        }
        (Some(Pattern::DoubleMatch(_)), Value::Number(_)) => {
            Truth::unknown("a condition on a number")
        }
        _ => Truth::No,
    }
}

/// Whether an address lies in a network; `who` says whose it is.
pub(super) fn network(range: &core::CidrRange, address: Option<IpAddr>, who: &str) -> Truth {
    let Some(network) = net(range) else { return Truth::No };
    match address {
        Some(address) => network.contains(&address).into(),
        None if network.prefix_len() == 0 => Truth::Yes,
        None => Truth::unknown(format!("{who} (is it in {network}?)")),
    }
}

/// The network that a message names.
pub(super) fn net(range: &core::CidrRange) -> Option<IpNet> {
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    IpNet::new(range.address_prefix.parse().ok()?, u8::try_from(length).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::matcher::RegexMatcher;

    fn matcher(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
        StringMatcher { match_pattern: Some(pattern), ignore_case }
    }

    fn request(headers: &[&str]) -> Request {
        let headers: Vec<String> = headers.iter().map(|text| (*text).to_owned()).collect();
        Request::parse("GET", "http://a.test/p?q=1&q=2&r", &headers).expect("a request")
    }

    #[test]
    fn what_is_not_known_matters_only_where_it_decides() {
        let unknown = || Truth::unknown("x");
        assert_eq!(Truth::all([unknown(), Truth::No]), Truth::No);
        assert_eq!(Truth::all([unknown(), Truth::Yes]), unknown());
        assert_eq!(Truth::any([unknown(), Truth::Yes]), Truth::Yes);
        assert_eq!(Truth::any([unknown(), Truth::No]), unknown());
        assert_eq!((Truth::all([]), Truth::any([])), (Truth::Yes, Truth::No));
    }

    #[test]
    fn texts_are_compared_as_written_or_without_case() {
        use MatchPattern::{Contains, Exact, Prefix, SafeRegex, Suffix};
        let regex = |text: &str| {
            SafeRegex(RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() })
        };
        let table = [
            (Exact("ab".into()), false, "ab", true),
            (Exact("AB".into()), false, "ab", false),
            (Exact("AB".into()), true, "ab", true),
            (Prefix("a".into()), false, "ab", true),
            (Suffix("B".into()), true, "ab", true),
            (Contains("b".into()), false, "abc", true),
            (regex("a|b"), false, "b", true),
            (regex("a|b"), false, "ab", false),
            (regex("a("), false, "a(", false),
        ];
        for (pattern, ignore_case, text, expected) in table {
            let holds = string(&matcher(pattern.clone(), ignore_case), text);
            assert_eq!(holds, expected.into(), "{pattern:?} {text}");
        }
    }

    #[test]
    fn a_missing_header_meets_no_condition_unless_it_counts_as_empty() {
        let exact = |text: &str| {
            Some(HeaderMatchSpecifier::StringMatch(matcher(
                MatchPattern::Exact(text.to_owned()),
                false,
            )))
        };
        let present = || Some(HeaderMatchSpecifier::PresentMatch(true));
        let table = [
            (exact("1"), false, false, &["x: 1"][..], true),
            (exact("1"), true, false, &["x: 2"], true),
            (exact("1"), true, false, &[], false),
            (exact("1"), true, true, &[], true),
            (exact("1,2"), false, false, &["x: 1", "x: 2"], true),
            (present(), false, false, &[], false),
            (present(), true, false, &[], true),
        ];
        for (specifier, invert, empty, headers, expected) in table {
            let condition = HeaderMatcher {
                name: "x".to_owned(),
                header_match_specifier: specifier.clone(),
                invert_match: invert,
                treat_missing_header_as_empty: empty,
            };
            let holds = header(&condition, &request(headers));
            assert_eq!(holds, expected.into(), "{specifier:?} {invert} {empty} {headers:?}");
        }
    }

    #[test]
    fn the_first_value_of_a_parameter_counts_as_it_is_written() {
        let condition = |name: &str, value: Option<&str>| QueryParameterMatcher {
            name: name.to_owned(),
            query_parameter_match_specifier: Some(match value {
                Some(text) => QueryParameterMatchSpecifier::StringMatch(matcher(
                    MatchPattern::Exact(text.to_owned()),
                    false,
                )),
                None => QueryParameterMatchSpecifier::PresentMatch(true),
            }),
        };
        for (name, value, expected) in [
            ("q", Some("1"), true),
            ("q", Some("2"), false),
            ("r", None, true),
            ("r", Some(""), true),
            ("s", None, false),
        ] {
            let holds = parameter(&condition(name, value), &request(&[]));
            assert_eq!(holds, expected.into(), "{name} {value:?}");
        }
    }
}
