//! How the path of a request changes, by what its route matches.

use std::sync::Arc;

use regex::escape;

use super::PathChange;
use crate::ir::{HttpMatch, PathMatch, PathRewrite};

/// The change that a rewrite means for requests of a match; `None`: of every request.
pub(crate) fn path_change(rewrite: &PathRewrite, m: Option<&HttpMatch>) -> PathChange {
    match rewrite {
        PathRewrite::Full(path) => PathChange::Full(path.clone()),
        PathRewrite::Prefix(prefix) => PathChange::Prefix(prefix.clone()),
        PathRewrite::Segments(new) => segments(new, m),
        PathRewrite::Regex { pattern, substitution } => {
            PathChange::Regex { pattern: pattern.clone(), substitution: substitution.clone() }
        }
    }
}

/// Puts segments in the place of those that the match asks for.
///
/// Where one of both ends in a slash, or is empty, a proxy that replaces characters leaves two
/// slashes behind, or none: there an expression takes the slash that follows along.
fn segments(new: &Arc<str>, m: Option<&HttpMatch>) -> PathChange {
    let old = match m.and_then(|m| m.path.as_ref()) {
        None => "",
        Some(path) if path.is_any() => "",
        Some(PathMatch::Segments(old)) => old,
        Some(_) => return PathChange::Prefix(new.clone()),
    };
    if !old.is_empty() && !new.is_empty() && !new.ends_with('/') {
        return PathChange::Prefix(new.clone());
    }
    let case = if m.is_some_and(|m| m.ignore_path_case) { "(?i)" } else { "" };
    PathChange::Regex {
        pattern: format!("{case}^{}/?", escape(old)).into(),
        substitution: literal(&format!("{}/", new.trim_end_matches('/'))),
    }
}

/// A text as a substitution that stands for itself.
fn literal(text: &str) -> Arc<str> {
    text.replace('\\', r"\\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a path that the match is met by, as proxies apply the change.
    fn changed(rewrite: PathRewrite, matched: &str, path: &str) -> String {
        let m = HttpMatch { path: Some(PathMatch::segments(matched)), ..HttpMatch::default() };
        let prefix = matched.trim_end_matches('/');
        match path_change(&rewrite, Some(&m)) {
            PathChange::Full(new) => new.to_string(),
            PathChange::Prefix(new) => format!("{new}{}", &path[prefix.len()..]),
            PathChange::Regex { pattern, substitution } => {
                let pattern = regex::Regex::new(&pattern).unwrap();
                pattern.replace_all(path, regex::NoExpand(&substitution)).into_owned()
            }
        }
    }

    /// The table of Gateway API's HTTPPathModifier.
    #[test]
    fn segments_are_replaced_without_doubling_or_losing_a_slash() {
        let table = [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "/xyz/", "/foo", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("/foo", "/", "/foo/", "/"),
            ("/foo", "/", "/foo", "/"),
            ("/", "/xyz", "/bar", "/xyz/bar"),
            ("/", "/xyz", "/", "/xyz/"),
            ("/", "/", "/bar", "/bar"),
            ("/a.b", "/", "/a.b/c", "/c"),
        ];
        for (matched, new, path, expected) in table {
            let rewrite = PathRewrite::Segments(new.into());
            assert_eq!(changed(rewrite, matched, path), expected, "{matched} {new:?} {path}");
        }
    }

    #[test]
    fn a_match_of_characters_is_replaced_by_characters() {
        let m = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
        let rewrite = PathRewrite::Segments("/xyz/".into());
        for path in [PathMatch::Prefix("/a".into()), PathMatch::Exact("/a".into())] {
            assert_eq!(path_change(&rewrite, Some(&m(path))), PathChange::Prefix("/xyz/".into()));
        }
        let whole = PathRewrite::Full("/new".into());
        assert_eq!(path_change(&whole, None), PathChange::Full("/new".into()));
    }

    #[test]
    fn a_backslash_stands_for_itself() {
        let m = HttpMatch { path: Some(PathMatch::segments("/a")), ..HttpMatch::default() };
        let change = path_change(&PathRewrite::Segments(r"/\1/".into()), Some(&m));
        let expected = PathChange::Regex { pattern: "^/a/?".into(), substitution: r"/\\1/".into() };
        assert_eq!(change, expected);
    }
}
