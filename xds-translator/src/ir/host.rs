//! Host names as routing sees them: lower case, fully qualified, possibly a wildcard.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::Serialize;

/// A lower-case host name: exact (`reviews.default.svc.cluster.local`), a suffix wildcard
/// (`*.example.com`) or `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Lower-cases `name` (DNS names compare without case) and drops one trailing dot.
    pub fn new(name: &str) -> Self {
        let name = if name.len() > 1 { name.strip_suffix('.').unwrap_or(name) } else { name };
        Self(name.to_ascii_lowercase().into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text, for types that keep it.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// Whether the name starts with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every name that `other` stands for is also one that `self` stands for: `*` contains
    /// all, `*.a.com` contains `b.a.com`, `*.b.a.com` and itself, and an exact name contains
    /// itself.
    pub fn contains(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            None => self.0 == other.0,
            Some(suffix) => {
                other.0.trim_start_matches('*').ends_with(suffix)
                    && (suffix.is_empty() || other.0.len() >= self.0.len())
            }
        }
    }

    /// Whether some name is matched by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// Most specific first: exact names before wildcards, longer wildcards before shorter, then by
    /// text.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let rank = |h: &Self| (h.is_wildcard(), usize::MAX - h.0.len());
        rank(self).cmp(&rank(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Hostname {
    fn from(s: &str) -> Self {
        Self::new(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_contain_what_they_stand_for() {
        let table = [
            ("*", "a.com", true),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "*.b.a.com", true),
            ("*.a.com", "*.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.a.com", "*", false),
            ("a.com", "A.com.", true),
            ("a.com", "b.a.com", false),
        ];
        for (outer, inner, expected) in table {
            assert_eq!(
                Hostname::new(outer).contains(&Hostname::new(inner)),
                expected,
                "{outer} ⊇ {inner}"
            );
        }
    }

    #[test]
    fn exact_names_sort_before_long_wildcards_before_star() {
        let mut hosts: Vec<Hostname> = ["*", "*.com", "a.com", "*.a.com"].map(Hostname::new).into();
        hosts.sort_by(Hostname::by_specificity);
        assert_eq!(
            hosts.iter().map(Hostname::as_str).collect::<Vec<_>>(),
            ["a.com", "*.a.com", "*.com", "*"]
        );
    }
}
