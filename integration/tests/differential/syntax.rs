//! What of a request is well-formed by the grammars of RFC 3986, 9110 and 9112, written from them
//! and not from a proxy.

use crate::exchange::{Case, Request};

/// The text behind the name of a field line, trimmed.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(name.len())?;
    own.eq_ignore_ascii_case(name)
        .then(|| value.strip_prefix(b":").map(<[u8]>::trim_ascii))
        .flatten()
}

/// Field lines of a head; some of the grammar's are several.
fn lines(request: &crate::http1::Request) -> impl Iterator<Item = &[u8]> {
    request.fields.iter().flat_map(|line| line.split(|b| *b == b'\n'))
}

/// Values of a pseudo header of every header block, or of what HTTP/1 has instead.
fn values(
    case: &Case,
    pseudo: &[u8],
    http1: impl Fn(&crate::http1::Request) -> Vec<Vec<u8>>,
) -> Vec<Vec<u8>> {
    match &case.request {
        Request::Http1(request) => http1(request),
        Request::Http2(request) => {
            let fields = request.blocks().flat_map(|(_, fields)| fields);
            fields.filter(|(name, _)| name == pseudo).map(|(_, value)| value.clone()).collect()
        }
    }
}

/// What requests name as their target; of requests in the same write, too.
pub(crate) fn targets(case: &Case) -> impl Iterator<Item = Vec<u8>> {
    let of_line = |line: &[u8]| {
        let at = line.windows(4).position(|w| w == b"GET ")?;
        line[at..].split(|b| *b == b' ').nth(1).map(<[u8]>::to_vec)
    };
    values(case, b":path", |r| {
        let next = r.body.split(|b| *b == b'\n').filter_map(of_line);
        [r.target.clone()].into_iter().chain(next).collect()
    })
    .into_iter()
}

/// Methods of requests.
pub(crate) fn methods(case: &Case) -> impl Iterator<Item = Vec<u8>> {
    values(case, b":method", |r| vec![r.method.clone()]).into_iter()
}

/// Whose host requests name: not exactly one is told by an empty text.
pub(crate) fn hosts(case: &Case) -> impl Iterator<Item = Vec<u8>> {
    let of_target = |target: &[u8]| absolute(target).map(|(authority, _)| authority.to_vec());
    let mut hosts = values(case, b":authority", |r| {
        let mut hosts: Vec<Vec<u8>> =
            lines(r).filter_map(|line| value(line, b"host")).map(<[u8]>::to_vec).collect();
        if hosts.len() != 1 {
            hosts.push(Vec::new());
        }
        hosts.extend(of_target(&r.target));
        hosts
    });
    if matches!(case.request, Request::Http2(_)) {
        let named = values(case, b"host", |_| Vec::new());
        hosts.extend(named);
    }
    hosts.into_iter()
}

/// Whether a target is none of HTTP's (RFC 9110 section 4.2).
pub(crate) fn has_other_scheme(case: &Case) -> bool {
    let is_http = |scheme: &Vec<u8>| {
        scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
    };
    !values(case, b":scheme", |_| Vec::new()).iter().all(is_http)
}

/// Whether an HTTP/2 request names its host by another field.
pub(crate) fn has_no_authority(case: &Case) -> bool {
    matches!(case.request, Request::Http2(_))
        && values(case, b":authority", |_| Vec::new()).is_empty()
}

/// Whether a header block behind the first one of its stream says how long the message is, or whom
/// it is for.
pub(crate) fn has_framing_or_routing_in_trailers(request: &crate::http2::Request) -> bool {
    let blocks = request.blocks().filter(|(stream, _)| *stream == 1).map(|(_, fields)| fields);
    blocks.skip(1).flatten().any(|(name, _)| name == b"content-length" || name == b"host")
}

/// Whether two field lines have the same name.
pub(crate) fn has_lines_of_one_name(case: &Case) -> bool {
    let mut names: Vec<Vec<u8>> = match &case.request {
        Request::Http1(request) => lines(request)
            .filter_map(|line| {
                Some(line[..line.iter().position(|b| *b == b':')?].to_ascii_lowercase())
            })
            .collect(),
        Request::Http2(request) => {
            request.blocks().flat_map(|(_, fields)| fields).map(|(name, _)| name.clone()).collect()
        }
    };
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() < all
}

/// Whether a request asks for another protocol.
pub(crate) fn asks_for_upgrade(request: &crate::http1::Request) -> bool {
    request.fields.iter().any(|line| line.to_ascii_lowercase().windows(8).any(|w| w == b"upgrade:"))
}

/// The authority of an absolute target, and what follows it.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = target.windows(3).position(|w| w == b"://")?;
    let rest = &target[at + 3..];
    Some(rest.split_at(rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len())))
}

/// `uri-host [":" port]` with a host (RFC 9110 section 7.2, RFC 3986 section 3.2).
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|b| *b == b']') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        None => text.split_at(text.iter().position(|b| *b == b':').unwrap_or(text.len())),
    };
    let literal = text.starts_with(b"[");
    // No host of the mesh has an escape in its name (RFC 3986 section 3.2.2: names are those of
    // DNS).
    let fits = |b: &u8| is_unreserved_or_delimiter(*b) || (literal && *b == b':');
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host.iter().all(fits) && port_fits
}

/// Origin-form, absolute-form of HTTP, or `*` (RFC 9112 section 3.2); a fragment is none of it.
pub(crate) fn is_target(text: &[u8]) -> bool {
    let text = &text[..text.iter().position(|b| *b == b'#').unwrap_or(text.len())];
    let lower = text.to_ascii_lowercase();
    let path = match lower.starts_with(b"http://") || lower.starts_with(b"https://") {
        true => &text[text.windows(3).position(|w| w == b"://").map_or(0, |at| at + 3)..],
        false if text == b"*" => return true,
        false if text.starts_with(b"/") => text,
        false => return false,
    };
    let end = path.iter().position(|b| *b == b'?').unwrap_or(path.len());
    let fits = |(at, b): (usize, &u8)| {
        is_unreserved_or_delimiter(*b) || b"%:@/".contains(b) || at >= end && b.is_ascii_graphic()
    };
    // A NUL is for nobody (RFC 3986 section 7.3).
    let has_nul = path.windows(3).any(|w| w == b"%00");
    !has_nul && path.iter().enumerate().all(fits) && has_whole_escapes(&path[..end])
}

/// An absolute target with a query right behind its authority.
pub(crate) fn is_pathless(text: &[u8]) -> bool {
    absolute(text).is_some_and(|(_, rest)| rest.starts_with(b"?"))
}

/// HTTP/1.1, and what old clients speak.
pub(crate) fn is_version(text: &[u8]) -> bool {
    [&b"HTTP/1.1"[..], b"HTTP/1.0"].contains(&text)
}

/// A CR that no LF follows.
pub(crate) fn has_bare_cr(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, b)| *b == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
}

fn has_whole_escapes(text: &[u8]) -> bool {
    let digits =
        |rest: &[u8]| rest.get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    text.split(|b| *b == b'%').skip(1).all(digits)
}

/// RFC 3986 section 2.
fn is_unreserved_or_delimiter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[test]
fn grammars_are_those_of_the_rfcs() {
    for (target, expected) in [
        ("/a?b", true),
        ("/a%2fb?%", true),
        ("*", true),
        ("HTTP://a/b", true),
        ("/a%2", false),
        ("/a<b", false),
        ("/a[b]", false),
        ("a", false),
        ("ftp://a/", false),
    ] {
        assert_eq!(is_target(target.as_bytes()), expected, "{target}");
    }
    for (host, expected) in [
        ("a:80", true),
        ("[::1]:8", true),
        ("a:", true),
        ("", false),
        ("u@a", false),
        ("a:x", false),
        ("a%2", false),
    ] {
        assert_eq!(is_host(host.as_bytes()), expected, "{host}");
    }
}
