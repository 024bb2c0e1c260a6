//! Brings a request path into one form before it is matched, so that policies and routes cannot be
//! dodged by another spelling. Pure. Spec: Envoy `normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`; RFC 3986 6.2.2.
//!
//! The form is Envoy's, byte for byte, with two exceptions, since Envoy leaves more than one
//! spelling there. What becomes a dot segment with parameters only by decoding (`/x/%2e%2e;/admin`)
//! is one, too: some applications take it for `/admin`. A `%` without two digits (RFC 3986 section
//! 2.1) is refused, since decoding could make an escape of it (`/%%361dmin`).

use std::{borrow::Cow, fmt::Write};

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
            Some(Cow::Owned(canonical)) if canonical != *changed => changed = Cow::Owned(canonical),
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

/// Decodes unreserved characters, turns backslashes, encodes what no path may hold, and removes dot
/// segments with their parameters; `None` for a broken escape or an encoded NUL.
fn canonical(path: &str) -> Option<Cow<'_, str>> {
    if !needs_work(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let mut kept = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let decoded = decode(without_parameters(segment))?;
        let mut parts = decoded.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none() && segments.peek().is_none();
            match without_parameters(part) {
                "." => {}
                ".." => kept.truncate(kept.rfind('/').unwrap_or(0)),
                _ => {
                    kept.push('/');
                    kept.push_str(part);
                    continue;
                }
            }
            if is_last {
                kept.push('/');
            }
        }
    }
    Some(Cow::Owned(kept))
}

fn needs_work(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().any(|b| {
        let starts_with_dot = *b == b'.' && before == b'/';
        before = *b;
        starts_with_dot || must_change(*b)
    })
}

fn must_change(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\') || is_encoded(byte)
}

/// A dot segment without what follows its first `;`; any other segment as it is.
fn without_parameters(segment: &str) -> &str {
    match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots,
        _ => segment,
    }
}

/// What no path holds unencoded (RFC 3986 section 3.3), and clients send all the same.
fn is_encoded(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    let bytes = segment.as_bytes();
    if !bytes.iter().any(|b| must_change(*b)) {
        return Some(Cow::Borrowed(segment));
    }
    let mut out = String::with_capacity(segment.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => out.push('/'),
            b'%' => match escaped(&bytes[at..])? {
                0 => return None,
                b @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                    out.push(char::from(b));
                    at += 2;
                }
                _ => out.push('%'),
            },
            b if is_encoded(*b) => {
                let _ = write!(out, "%{b:02X}");
            }
            b => out.push(char::from(*b)),
        }
    }
    Some(Cow::Owned(out))
}

/// The byte that the two digits behind a `%` stand for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match rest {
        [high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
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
    use proptest::{prelude::*, sample};

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

    /// What an Envoy 1.40 with the settings of the mesh sends upstream for the same path; `None`:
    /// it answers 400.
    #[test]
    fn spellings_of_one_path_become_the_one_that_envoy_makes_of_them() {
        for (given, expected) in [
            ("/..", Some("/")),
            ("/../a", Some("/a")),
            ("/a/..", Some("/")),
            ("/a/../..", Some("/")),
            ("/a/../../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/b/../", Some("/a/")),
            ("/a/b/.", Some("/a/b/")),
            ("/a/./b", Some("/a/b")),
            ("/.", Some("/")),
            ("/./", Some("/")),
            ("/...", Some("/...")),
            ("/a/..b", Some("/a/..b")),
            ("/a/...", Some("/a/...")),
            ("/a/.b", Some("/a/.b")),
            ("/a/b..", Some("/a/b..")),
            ("/x/..;/admin", Some("/admin")),
            ("/x/..;a=b/admin", Some("/admin")),
            ("/x/.;/admin", Some("/x/admin")),
            ("/x/;/admin", Some("/x/;/admin")),
            ("/x/..;", Some("/")),
            ("/x/.;", Some("/x/")),
            ("/..;/admin", Some("/admin")),
            ("/x/%2e%2e/admin", Some("/admin")),
            ("/x/.%2e/admin", Some("/admin")),
            ("/x/%2E./admin", Some("/admin")),
            ("/x/%2e/admin", Some("/x/admin")),
            ("/a//../b", Some("/a/b")),
            ("/a//b", Some("/a//b")),
            ("//a", Some("//a")),
            ("/a/%2f../b", Some("/a/%2f../b")),
            ("/a%2f..%2fb", Some("/a%2f..%2fb")),
            ("/a%5c..%5cb", Some("/a%5c..%5cb")),
            ("/a\\..\\b", Some("/b")),
            ("/a\\b", Some("/a/b")),
            ("/%61dmin", Some("/admin")),
            ("/%41", Some("/A")),
            ("/%7e", Some("/~")),
            ("/%2d", Some("/-")),
            ("/%5f", Some("/_")),
            ("/%30", Some("/0")),
            ("/%2a", Some("/%2a")),
            ("/%3b", Some("/%3b")),
            ("/%3B", Some("/%3B")),
            ("/%40", Some("/%40")),
            ("/%25", Some("/%25")),
            ("/%2561", Some("/%2561")),
            ("/%20", Some("/%20")),
            ("/%22", Some("/%22")),
            ("/%7f", Some("/%7f")),
            ("/%80", Some("/%80")),
            ("/%C3%A9", Some("/%C3%A9")),
            ("/%c3%a9", Some("/%c3%a9")),
            ("/%ff", Some("/%ff")),
            ("/%01", Some("/%01")),
            ("/%00", None),
            ("/a;b/../c", Some("/c")),
            ("/a/..%3b/c", Some("/a/..%3b/c")),
            ("/a/..%00/c", None),
            ("/a?b/../c", Some("/a?b/../c")),
            ("/a?b\\c", Some("/a?b\\c")),
            ("/a?%61", Some("/a?%61")),
            ("/a?b//c", Some("/a?b//c")),
            ("/a/..?x", Some("/?x")),
            ("/%3f", Some("/%3f")),
            ("/%23", Some("/%23")),
            ("/a%3Fb/../c", Some("/c")),
            ("/a'b", Some("/a'b")),
            ("/a(b)", Some("/a(b)")),
            ("/a!b", Some("/a!b")),
            ("/a*b", Some("/a*b")),
            ("/a,b", Some("/a,b")),
            ("/a=b", Some("/a=b")),
            ("/a&b", Some("/a&b")),
            ("/a$b", Some("/a$b")),
            ("/a+b", Some("/a+b")),
            ("/a:b", Some("/a:b")),
            ("/a@b", Some("/a@b")),
            ("/a[b]", Some("/a[b]")),
            ("/a~b", Some("/a~b")),
            ("/a|b", Some("/a%7Cb")),
            ("/a\"b", Some("/a%22b")),
            ("/a<b", Some("/a%3Cb")),
            ("/a>b", Some("/a%3Eb")),
            ("/a^b", Some("/a%5Eb")),
            ("/a`b", Some("/a%60b")),
            ("/a{b", Some("/a%7Bb")),
            ("/a}b", Some("/a%7Db")),
            ("/a?\"<>^`{|}[]", Some("/a?\"<>^`{|}[]")),
            ("/a/%2e%2e", Some("/")),
            ("/a/.%2e", Some("/")),
            ("/a/%2e", Some("/a/")),
            ("/a/b/%2e%2e/", Some("/a/")),
            ("/a/..%2f", Some("/a/..%2f")),
            ("/a/..%5c", Some("/a/..%5c")),
            ("/a/..\\b", Some("/b")),
            ("/x/..;a;b/..;c/admin", Some("/admin")),
            ("/x/.;/..;", Some("/")),
            ("/x/y/.;/..;/z", Some("/x/z")),
            ("/x/..;%2f", Some("/")),
            ("/x/...;/a", Some("/x/...;/a")),
            ("/x/;../a", Some("/x/;../a")),
            ("/x/a;/../b", Some("/x/b")),
            ("/x/..%3b/..;", Some("/x/")),
            ("/x/..;?q", Some("/?q")),
            ("/x/..;a?q;b", Some("/?q;b")),
            ("/..;", Some("/")),
            ("/x/..;/..;/y", Some("/y")),
            ("//..;/a", Some("/a")),
            ("/a/..;/..;/..;/b", Some("/b")),
            ("/x/..;a\\b", Some("/")),
            ("/x/..;\\b", Some("/")),
            ("/x/..;a/..;b", Some("/")),
            ("/x/y..;/a", Some("/x/y..;/a")),
            ("/x/y.;/a", Some("/x/y.;/a")),
            ("/x/.;a/.;b/", Some("/x/")),
            ("/x/..;/", Some("/")),
            ("/x/..;a=/../b", Some("/b")),
            ("/x/..;%00/y", Some("/y")),
            ("/x/..;a%2fb/c", Some("/c")),
            ("/x/..;a%5cb/c", Some("/c")),
            ("/x/.\\y", Some("/x/y")),
            ("/x\\.\\y", Some("/x/y")),
            ("/x\\y", Some("/x/y")),
            ("/x\\..", Some("/")),
            ("/x/..\\..\\a", Some("/a")),
            ("/a/b/c/../..", Some("/a/")),
            ("/a/b/c/./../../g", Some("/a/g")),
            ("/a/%2e%2e/%2e%2e/b", Some("/b")),
            ("/;/../a", Some("/a")),
            ("/a;x/..;y/b;z/.", Some("/b;z/")),
            ("/a/.;", Some("/a/")),
            ("/.;/a", Some("/a")),
            ("/.;x", Some("/")),
            ("/a/b;/..;/c", Some("/a/c")),
            ("/a/..;;/c", Some("/c")),
            ("/a/..;.;/c", Some("/c")),
            ("/a/..;../c", Some("/c")),
            ("/a/..;/../..;/d", Some("/d")),
            ("/a/b/..;x%2e/c", Some("/a/c")),
        ] {
            let expected = expected.map_or(Normalized::Refused, path);
            check(given, EscapedSlashes::Keep, false, expected);
        }
        check("*", EscapedSlashes::Keep, false, path("*"));
        check("//a///b/", EscapedSlashes::Keep, true, path("/a/b/"));
        check("/a\\\\b?x//y", EscapedSlashes::Keep, true, path("/a/b?x//y"));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        for given in ["/a%00", "/a%zz", "/a%2", "/%", "/%+1", "/%%361dmin"] {
            check(given, EscapedSlashes::Keep, false, Normalized::Refused);
        }
    }

    #[test]
    fn a_dot_segment_with_parameters_is_one_however_it_is_written() {
        for given in [
            "/x/%2e%2e;/admin",
            "/x/.%2E;a=b/admin",
            "/x\\..;\\admin",
            "/x/%2e;y/..;z/admin",
            "/x/y/..;/%2e.;/admin",
        ] {
            check(given, EscapedSlashes::Keep, false, path("/admin"));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_to_normalize(parts in proptest::collection::vec(sample::select(PARTS), 0..12)) {
            let given = format!("/{}", parts.concat());
            let mut manager = manager();
            manager.normalize_path = true;
            let Normalized::Path(once) = normalize(&given, &manager) else { return Ok(()) };
            prop_assert_eq!(normalize(&once, &manager), Normalized::Path(Cow::Borrowed(&*once)));
            let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
            prop_assert!(!once.split('/').any(dots), "{} became {}", given, once);
        }
    }

    /// What paths are dodged with.
    const PARTS: &[&str] = &[
        "/", "/", "a", ".", "..", ";", "..;", "%2e", "%2E", "%2f", "%5c", "\\", "%25", "%", "%3b",
        "%61", "%7C", "|", "é", "36",
    ];

    #[test]
    fn escaped_slashes_follow_the_setting() {
        check("/a%2Fb", EscapedSlashes::Reject, false, Normalized::Refused);
        check("/a%2fb?c", EscapedSlashes::UnescapeAndForward, false, path("/a/b?c"));
        check("/a%2f..%5cb", EscapedSlashes::UnescapeAndForward, false, path("/b"));
        check(
            "/a%2fb?c",
            EscapedSlashes::UnescapeAndRedirect,
            false,
            Normalized::Redirect("/a/b?c".to_owned()),
        );
        check("/ab", EscapedSlashes::Reject, false, path("/ab"));
    }
}
