//! Predicates over one string.

use std::sync::Arc;

use regex::Regex;

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
    text.as_bytes()
        .get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.is_some_and(|start| text.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes()))
}
