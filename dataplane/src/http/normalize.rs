//! Brings a request path into one form before it is matched, so that policies and routes cannot be dodged by another
//! spelling. Pure. Spec: Envoy `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`; RFC 3986 6.2.2.

use std::borrow::Cow;

use crate::runtime::{HttpConnectionManager, http::EscapedSlashes};

/// What becomes of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Normalized<'a> {
    /// Goes on like this.
    Path(Cow<'a, str>),
    /// The client is sent to this path.
    Redirect(String),
    /// Refused with 400.
    Refused,
}

/// Normalises a request target; the query stays as it is.
pub(crate) fn normalize<'a>(target: &'a str, manager: &HttpConnectionManager) -> Normalized<'a> {
    let (path, rest) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
    if !path.starts_with('/') {
        // `*` of OPTIONS, or the authority of CONNECT.
        return Normalized::Path(Cow::Borrowed(target));
    }
    let escaped = has_escaped_slash(path);
    if escaped && manager.escaped_slashes == EscapedSlashes::Reject {
        return Normalized::Refused;
    }
    let mut changed = Cow::Borrowed(path);
    if escaped && manager.escaped_slashes != EscapedSlashes::Keep {
        changed = Cow::Owned(unescape_slashes(&changed));
    }
    let redirect = escaped && manager.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
    if manager.normalize_path {
        match canonical(&changed) {
            Some(canonical) if canonical != *changed => changed = Cow::Owned(canonical),
            Some(_) => {}
            None => return Normalized::Refused,
        }
    }
    if manager.merge_slashes && changed.contains("//") {
        changed = Cow::Owned(merge_slashes(&changed));
    }
    match (redirect, changed) {
        (true, changed) => Normalized::Redirect(format!("{changed}{rest}")),
        (false, Cow::Borrowed(_)) => Normalized::Path(Cow::Borrowed(target)),
        (false, Cow::Owned(changed)) => Normalized::Path(Cow::Owned(changed + rest)),
    }
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(is_slash_escape)
}

fn is_slash_escape(bytes: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(b"%2f") || bytes.eq_ignore_ascii_case(b"%5c")
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at..at + 3);
        match escape {
            Some(escape) if is_slash_escape(escape) => {
                out.push(if escape.eq_ignore_ascii_case(b"%2f") { '/' } else { '\\' });
                rest = &rest[at + 3..];
            }
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// Decodes unreserved characters, upper-cases the other escapes, turns backslashes, and removes dot segments; `None` for
/// a broken escape or an encoded NUL.
fn canonical(path: &str) -> Option<String> {
    let needs_work = path.bytes().any(|b| matches!(b, b'%' | b'\\')) || path.contains("/.");
    if !needs_work {
        return Some(path.to_owned());
    }
    remove_dot_segments(&decode_unreserved(path)?)
}

fn decode_unreserved(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'\\' {
            out.push('/');
            rest = &rest[at + 1..];
            continue;
        }
        let escape = rest.get(at + 1..at + 3)?;
        let byte = u8::from_str_radix(escape, 16).ok().filter(|_| !escape.starts_with('+'))?;
        match byte {
            0 => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&escape.to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    Some(out + rest)
}

/// RFC 3986 section 5.2.4; `None` when the path climbs above its root.
fn remove_dot_segments(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path[1..].split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop()?;
                }
                if index == last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::serve::tests::manager;

    fn check(path: &str, escaped: EscapedSlashes, merge: bool, expected: Normalized<'_>) {
        let mut manager = manager();
        manager.normalize_path = true;
        manager.merge_slashes = merge;
        manager.escaped_slashes = escaped;
        assert_eq!(normalize(path, &manager), expected, "{path}");
    }

    fn path(text: &str) -> Normalized<'_> {
        Normalized::Path(Cow::Borrowed(text))
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        use EscapedSlashes::Keep;
        for (given, expected) in [
            ("/a/b?x=/../y", "/a/b?x=/../y"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/a%2e%2e/b", "/a../b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a\\b", "/a/b"),
            ("/a//b", "/a//b"),
            ("*", "*"),
        ] {
            check(given, Keep, false, path(expected));
        }
        check("//a///b/", Keep, true, path("/a/b/"));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        for given in ["/..", "/../a", "/a/%2e%2e/%2e%2e/b", "/a%00", "/a%zz", "/a%2", "/%+1"] {
            check(given, EscapedSlashes::Keep, false, Normalized::Refused);
        }
    }

    #[test]
    fn escaped_slashes_follow_the_setting() {
        check("/a%2Fb", EscapedSlashes::Reject, false, Normalized::Refused);
        check("/a%2fb?c", EscapedSlashes::UnescapeAndForward, false, path("/a/b?c"));
        check("/a%2f..%5cb", EscapedSlashes::UnescapeAndForward, false, path("/b"));
        check("/a%2fb?c", EscapedSlashes::UnescapeAndRedirect, false, Normalized::Redirect("/a/b?c".to_owned()));
        check("/ab", EscapedSlashes::Reject, false, path("/ab"));
    }
}
