//! Pre-compiled predicates that routes, policies and filters share: strings, headers, query parameters, shares.
//!
//! Pure: no allocation on the matching path except where several header lines must be joined.

use std::sync::Arc;

use regex::Regex;

use super::facts::RequestFacts;

/// A predicate over one string. Case-insensitive patterns hold lower-case text.
#[derive(Clone, Debug)]
pub enum StringMatcher {
    /// Equal.
    Exact(Arc<str>),
    /// Equal, ASCII case ignored.
    ExactIgnoreCase(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Begins with, ASCII case ignored.
    PrefixIgnoreCase(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Ends with, ASCII case ignored.
    SuffixIgnoreCase(Arc<str>),
    /// Contains.
    Contains(Arc<str>),
    /// Contains, ASCII case ignored.
    ContainsIgnoreCase(Arc<str>),
    /// The whole string matches; the expression is anchored when it is compiled.
    Regex(Regex),
}

impl StringMatcher {
    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(s) => **s == *text,
            Self::ExactIgnoreCase(s) => s.eq_ignore_ascii_case(text),
            Self::Prefix(s) => text.starts_with(&**s),
            Self::PrefixIgnoreCase(s) => starts_with_ignore_case(text, s),
            Self::Suffix(s) => text.ends_with(&**s),
            Self::SuffixIgnoreCase(s) => ends_with_ignore_case(text, s),
            Self::Contains(s) => text.contains(&**s),
            Self::ContainsIgnoreCase(s) => text.to_ascii_lowercase().contains(&**s),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Compiles an RE2 expression so that it must match the whole string, as every Envoy matcher does.
pub fn anchored_regex(expression: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{expression})$"))
}

/// Whether `text` begins with `prefix`, ASCII case ignored.
pub(super) fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.is_some_and(|start| text.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes()))
}

/// What a header's value must be like.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// The header exists (`true`) or does not (`false`).
    Present(bool),
    /// The value matches.
    Text(StringMatcher),
    /// The value is a whole number in `start..end`.
    Range(std::ops::Range<i64>),
}

/// A predicate over one header (Envoy's `HeaderMatcher`).
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// Lower-case name, or a pseudo header such as `:method`.
    pub name: Arc<str>,
    /// The predicate.
    pub value: ValueMatcher,
    /// Negates the result; a missing header still does not match unless it counts as empty.
    pub invert: bool,
    /// A missing header is treated as an empty value.
    pub missing_is_empty: bool,
}

impl HeaderMatcher {
    /// Whether the request's header matches.
    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let value = request.header(&self.name);
        if let ValueMatcher::Present(wanted) = self.value {
            return (value.is_some() == wanted) != self.invert;
        }
        let text = match (&value, self.missing_is_empty) {
            (Some(text), _) => &**text,
            (None, true) => "",
            // Envoy: an absent header matches no value, inverted or not.
            (None, false) => return false,
        };
        self.value_matches(text) != self.invert
    }

    /// Whether a message without any header, pseudo headers included, matches.
    pub fn matches_absent(&self) -> bool {
        match self.value {
            ValueMatcher::Present(wanted) => wanted == self.invert,
            _ => self.missing_is_empty && self.value_matches("") != self.invert,
        }
    }

    fn value_matches(&self, text: &str) -> bool {
        match &self.value {
            ValueMatcher::Present(wanted) => *wanted,
            ValueMatcher::Text(matcher) => matcher.matches(text),
            ValueMatcher::Range(range) => text.trim().parse().is_ok_and(|number: i64| range.contains(&number)),
        }
    }
}

/// A predicate over one query parameter; `None` asks for presence only.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// Parameter name, compared as written.
    pub name: Arc<str>,
    /// What its first value must be like.
    pub value: Option<StringMatcher>,
}

impl QueryMatcher {
    /// Whether the query (without `?`) has the parameter with such a value.
    pub fn matches(&self, query: Option<&str>) -> bool {
        let value = query.and_then(|query| query_parameter(query, &self.name));
        match (&self.value, value) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(matcher), Some(value)) => matcher.matches(value),
        }
    }
}

/// The first value of a query parameter; a parameter without `=` has an empty one.
pub fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// A share of requests in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Share(u32);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// `parts` per million; more than a million means everything.
    pub const fn per_million(parts: u32) -> Self {
        Self(if parts > 1_000_000 { 1_000_000 } else { parts })
    }

    /// Whether a request with this random number belongs to the share.
    pub const fn contains(self, random: u64) -> bool {
        random % 1_000_000 < self.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::facts::ConnectionFacts;

    #[test]
    fn string_matchers_follow_envoy() {
        use StringMatcher as M;
        for (matcher, text, expected) in [
            (M::Exact("a".into()), "a", true),
            (M::Exact("a".into()), "A", false),
            (M::ExactIgnoreCase("a".into()), "A", true),
            (M::Prefix("/a".into()), "/ab", true),
            (M::PrefixIgnoreCase("/a".into()), "/AB", true),
            (M::PrefixIgnoreCase("/aé".into()), "/", false),
            (M::Suffix("b".into()), "ab", true),
            (M::SuffixIgnoreCase("b".into()), "AB", true),
            (M::SuffixIgnoreCase("abc".into()), "c", false),
            (M::Contains("b".into()), "abc", true),
            (M::ContainsIgnoreCase("b".into()), "aBc", true),
            (M::Regex(anchored_regex("a|bc").unwrap()), "abc", false),
            (M::Regex(anchored_regex("a|bc").unwrap()), "bc", true),
        ] {
            assert_eq!(matcher.matches(text), expected, "{matcher:?} on {text:?}");
        }
    }

    fn check_header(headers: &[(&'static str, &str)], value: ValueMatcher, invert: bool, empty: bool) -> bool {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let connection = ConnectionFacts::plaintext(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let request = RequestFacts {
            connection: &connection,
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            remote_ip: connection.source.ip(),
            headers: &map,
        };
        HeaderMatcher { name: "x".into(), value, invert, missing_is_empty: empty }.matches(&request)
    }

    #[test]
    fn a_missing_header_matches_only_absence_or_emptiness() {
        let exact = |s: &str| ValueMatcher::Text(StringMatcher::Exact(s.into()));
        assert!(!check_header(&[], exact("a"), false, false));
        assert!(!check_header(&[], exact("a"), true, false));
        assert!(check_header(&[], exact("a"), true, true));
        assert!(check_header(&[], ValueMatcher::Present(false), false, false));
        assert!(check_header(&[], ValueMatcher::Present(true), true, false));
        assert!(!check_header(&[("x", "a")], ValueMatcher::Present(false), false, false));
        assert!(check_header(&[("x", "a")], ValueMatcher::Present(true), false, false));
        assert!(!check_header(&[("x", "a")], exact("a"), true, false));
        assert!(check_header(&[("x", "7")], ValueMatcher::Range(5..8), false, false));
        assert!(!check_header(&[("x", "8")], ValueMatcher::Range(5..8), false, false));
    }

    #[test]
    fn query_parameters_match_by_first_value() {
        let matcher = QueryMatcher { name: "a".into(), value: Some(StringMatcher::Exact("1".into())) };
        assert!(matcher.matches(Some("b=2&a=1&a=3")));
        assert!(!matcher.matches(Some("a=3&a=1")));
        assert!(!matcher.matches(None));
        assert!(QueryMatcher { name: "a".into(), value: None }.matches(Some("a")));
    }

    #[test]
    fn a_share_takes_exactly_its_part() {
        let hits = (0..1_000_000).filter(|n| Share::per_million(100_000).contains(*n)).count();
        assert_eq!(hits, 100_000);
        assert!(Share::ALL.contains(u64::MAX) && !Share::NONE.contains(0));
    }
}
