//! Pre-compiled predicates that routes, policies and filters share: strings, headers, query
//! parameters, shares.
//!
//! Pure: no allocation on the matching path except where several header lines must be joined.

use std::sync::Arc;

use super::facts::RequestFacts;
pub(super) use super::text::starts_with_ignore_case;
pub use super::text::{StringMatcher, anchored_regex};

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

/// How far the lines of a field that is sent more than once must agree. Nobody knows which of them
/// the application reads, or whether it joins them (RFC 9110 section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// One of the lines matches: what routes ask, as in Envoy.
    Any,
    /// One of the lines matches, or all of them joined: what must not be missed.
    Possible,
    /// Every line matches: what must be certain.
    Certain,
}

impl Reading {
    /// What the opposite must be read by for the same caution.
    pub fn of_opposite(self) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Possible => Self::Certain,
            Self::Certain => Self::Possible,
        }
    }
}

impl HeaderMatcher {
    /// Whether the request's header matches by Envoy's rule: one line does, or with `invert` none.
    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.matches_by(Reading::Any, request)
    }

    /// Whether the request's header matches by a reading.
    pub fn matches_by(&self, reading: Reading, request: &RequestFacts<'_>) -> bool {
        let reading = if self.invert { reading.of_opposite() } else { reading };
        let (mut lines, mut matching) = (0u32, 0u32);
        request.each_line(&self.name, &mut |line| {
            lines += 1;
            matching += u32::from(self.value_matches(line));
        });
        if let ValueMatcher::Present(wanted) = self.value {
            return ((lines > 0) == wanted) != self.invert;
        }
        let matched = match (lines, reading) {
            (0, _) if self.missing_is_empty => self.value_matches(""),
            // Envoy: an absent header matches no value, inverted or not.
            (0, _) => return false,
            (_, Reading::Certain) => matching == lines,
            (2.., Reading::Possible) if matching == 0 => {
                request.header(&self.name).is_some_and(|joined| self.value_matches(&joined))
            }
            (_, Reading::Any | Reading::Possible) => matching > 0,
        };
        matched != self.invert
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
            ValueMatcher::Range(range) => {
                text.trim().parse().is_ok_and(|number: i64| range.contains(&number))
            }
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
    use crate::runtime::facts::fixture;

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

    fn read_header(headers: &[&str], matcher: &HeaderMatcher, reading: Reading) -> bool {
        let mut map = http::HeaderMap::new();
        for value in headers {
            map.append("x", value.parse().unwrap());
        }
        let connection = fixture::loopback();
        let request = RequestFacts { headers: &map, ..fixture::get(&connection) };
        matcher.matches_by(reading, &request)
    }

    fn header(value: ValueMatcher, invert: bool, missing_is_empty: bool) -> HeaderMatcher {
        HeaderMatcher { name: "x".into(), value, invert, missing_is_empty }
    }

    fn exact(text: &str) -> ValueMatcher {
        ValueMatcher::Text(StringMatcher::Exact(text.into()))
    }

    #[test]
    fn a_missing_header_matches_only_absence_or_emptiness() {
        let check = |lines: &[&str], value, invert, empty| {
            read_header(lines, &header(value, invert, empty), Reading::Any)
        };
        assert!(!check(&[], exact("a"), false, false));
        assert!(!check(&[], exact("a"), true, false));
        assert!(check(&[], exact("a"), true, true));
        assert!(check(&[], ValueMatcher::Present(false), false, false));
        assert!(check(&[], ValueMatcher::Present(true), true, false));
        assert!(!check(&["a"], ValueMatcher::Present(false), false, false));
        assert!(check(&["a"], ValueMatcher::Present(true), false, false));
        assert!(!check(&["a"], exact("a"), true, false));
        assert!(check(&["7"], ValueMatcher::Range(5..8), false, false));
        assert!(!check(&["8"], ValueMatcher::Range(5..8), false, false));
    }

    /// `envoy`: a route of Envoy 1.40 matches the lines.
    fn check_lines(
        lines: &[&str],
        matcher: &HeaderMatcher,
        envoy: bool,
        possible: bool,
        certain: bool,
    ) {
        let read = |reading| read_header(lines, matcher, reading);
        let all = (read(Reading::Any), read(Reading::Possible), read(Reading::Certain));
        assert_eq!(all, (envoy, possible, certain), "{lines:?} {matcher:?}");
    }

    #[test]
    fn lines_of_one_field_are_judged_one_by_one() {
        let is = |text| header(exact(text), false, false);
        let is_not = |text| header(exact(text), true, false);
        check_lines(&["a"], &is("a"), true, true, true);
        check_lines(&["a", "b"], &is("a"), true, true, false);
        check_lines(&["b", "a"], &is("a"), true, true, false);
        check_lines(&["a", "a"], &is("a"), true, true, true);
        check_lines(&["b", "b"], &is("a"), false, false, false);
        check_lines(&["a,b"], &is("a"), false, false, false);
        check_lines(&["a", "b"], &is("a,b"), false, true, false);
        check_lines(&["a"], &is_not("a"), false, false, false);
        check_lines(&["a", "b"], &is_not("a"), false, true, false);
        check_lines(&["a", "a"], &is_not("a"), false, false, false);
        check_lines(&["b", "b"], &is_not("a"), true, true, true);
        check_lines(&["a", "b"], &is_not("a,b"), true, true, false);
        check_lines(
            &["9", "3"],
            &header(ValueMatcher::Range(1..5), false, false),
            true,
            true,
            false,
        );
        check_lines(
            &["a", "b"],
            &header(ValueMatcher::Present(true), false, false),
            true,
            true,
            true,
        );
    }

    #[test]
    fn query_parameters_match_by_first_value() {
        let matcher =
            QueryMatcher { name: "a".into(), value: Some(StringMatcher::Exact("1".into())) };
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
