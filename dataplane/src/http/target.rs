//! Which host and path a request names, and what names none (RFC 9112 section 3.2, RFC 9113 section
//! 8.3.1). Pure.
//!
//! Routes and policies compare names, so a name must be one for everybody: what another recipient
//! may read as a different host or path is refused with 400 before anything is matched.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::reply::Local;

/// What a request is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target<'a> {
    /// Host and port as received; empty only if a client of HTTP/1.0 names none.
    pub(crate) authority: &'a str,
    /// Path and query as received, not normalised.
    pub(crate) path: Cow<'a, str>,
}

/// Reads a request's target.
///
/// # Errors
/// The answer to a request that names none, several, or something that cannot be forwarded.
pub(crate) fn read<'a>(
    method: &Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    version: Version,
) -> Result<Target<'a>, Local> {
    let http1 = version < Version::HTTP_2;
    if http1 && !is_known(method) {
        return Err(Local::BAD_REQUEST);
    }
    let authority = authority(uri, headers, version)?;
    if *method == Method::CONNECT {
        // No tunnel is offered, not even where it could be had.
        let names_port = uri.authority().is_some()
            && authority.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty());
        return Err(if names_port { Local::UPGRADE_REFUSED } else { Local::BAD_REQUEST });
    }
    // What has none is in authority-form, or in origin-form.
    let scheme_fits = match uri.scheme() {
        Some(_) => scheme(uri).is_some(),
        None => uri.authority().is_none(),
    };
    // HTTP/1 may leave out an empty path, HTTP/2 may not.
    if !http1 && uri.path().is_empty() {
        return Err(Local::BAD_REQUEST);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = match path.as_bytes() {
        _ if http1 && !path.is_ascii() => return Err(Local::BAD_REQUEST),
        [b'/', ..] => Cow::Borrowed(path),
        // An empty path before a query stands for `/` (RFC 9110 section 4.2.3).
        [b'?', ..] if uri.scheme().is_some() && http1 => Cow::Owned(format!("/{path}")),
        b"*" if *method == Method::OPTIONS => Cow::Borrowed(path),
        _ => return Err(Local::BAD_REQUEST),
    };
    if scheme_fits { Ok(Target { authority, path }) } else { Err(Local::BAD_REQUEST) }
}

/// The scheme that a target names, in absolute-form or by `:scheme`, if it is one of HTTP's (RFC
/// 9110 section 4.2).
pub(crate) fn scheme(uri: &Uri) -> Option<&'static str> {
    let named = uri.scheme_str()?;
    ["http", "https"].into_iter().find(|scheme| named.eq_ignore_ascii_case(scheme))
}

/// The target's authority wins over `Host` (RFC 9112 section 3.2.2); HTTP/1.1 needs exactly one
/// `Host` all the same.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap, version: Version) -> Result<&'a str, Local> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let host = first.map(HeaderValue::to_str).transpose();
    let (Ok(host), None) = (host, second) else { return Err(Local::BAD_REQUEST) };
    let host = host.filter(|host| !(host.is_empty() && uri.authority().is_some()));
    match uri.authority().map(|authority| authority.as_str()) {
        Some(target) if is_authority(target) && host.is_none_or(is_authority) => Ok(target),
        None if host.is_some_and(is_authority) => Ok(host.unwrap_or_default()),
        None if host.is_none() && version == Version::HTTP_10 => Ok(""),
        _ => Err(Local::BAD_REQUEST),
    }
}

/// Whether the text is `uri-host [":" port]` with a host that is not empty (RFC 9110 sections 4.2.1
/// and 7.2, RFC 3986 section 3.2.2). User information is none of it (RFC 9110 section 4.2.4).
fn is_authority(text: &str) -> bool {
    let end = text.bytes().position(|byte| !is_host_byte(byte)).unwrap_or(text.len());
    // Nearly every name is of these; the others are looked at part by part.
    match text.as_bytes().split_at(end) {
        ([], _) => is_rare_authority(text),
        (_, []) => true,
        (_, [b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
        _ => is_rare_authority(text),
    }
}

/// The same for literals and escapes.
fn is_rare_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((literal, port)) if is_literal(literal) => ("", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_fits = port.strip_prefix(':').unwrap_or(port).bytes().all(|b| b.is_ascii_digit());
    let named = text.starts_with('[') || !host.is_empty();
    // Digits behind a literal without a colon are no port.
    named && is_registered_name(host) && port_fits && (port.is_empty() || port.starts_with(':'))
}

fn is_literal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| is_host_byte(b) || b == b':')
}

fn is_registered_name(text: &str) -> bool {
    text.bytes().all(|b| is_host_byte(b) || b == b'%') && (!text.contains('%') || escapes_fit(text))
}

fn escapes_fit(text: &str) -> bool {
    let is_escape = |rest: &str| {
        rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    text.split('%').skip(1).all(is_escape)
}

/// `unreserved / sub-delims` (RFC 3986 section 2).
fn is_host_byte(byte: u8) -> bool {
    const HOST: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0);
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let (others, mut at) = (b"-._~!$&'()*+,;=", 0);
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    HOST[usize::from(byte)]
}

/// The methods that Envoy's HTTP/1 codec knows unless custom ones are allowed; they are
/// case-sensitive (RFC 9110 section 9.1), so `get` is none: a policy about GET does not cover it,
/// and some applications do not mind.
fn is_known(method: &Method) -> bool {
    let text = method.as_str();
    let common = matches!(
        text,
        "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE"
    );
    common || RARE_METHODS.contains(&text)
}

const RARE_METHODS: [&str; 25] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Status of the answer, or authority and path.
    fn target(
        version: Version,
        method: &str,
        uri: &str,
        hosts: &[&str],
    ) -> Result<(String, String), u16> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let uri: Uri = uri.parse().map_err(|_| 400u16)?;
        let read = read(&method.parse().unwrap(), &uri, &headers, version);
        read.map(|target| (target.authority.to_owned(), target.path.into_owned()))
            .map_err(|local| local.status)
    }

    fn named(authority: &str, path: &str) -> Result<(String, String), u16> {
        Ok((authority.to_owned(), path.to_owned()))
    }

    #[test]
    fn a_host_is_a_name_and_a_port() {
        let good = [
            "a",
            "A.example",
            "a.example.",
            "a:80",
            "a:",
            "a:99999",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "[v1.a]",
            "a_b",
            "a%20b",
            "a~b",
            "a,b",
            "a;b=c&d$e!*'()+",
        ];
        for host in good {
            assert_eq!(target(Version::HTTP_11, "GET", "/", &[host]), named(host, "/"), "{host}");
        }
        // Of these Envoy 1.40 forwards: user information, an empty host, bare or half brackets,
        // ports and escapes that are none.
        let bad = [
            "a#",
            "a/",
            "a?",
            "a\\",
            "a, x",
            "a x",
            "a\tx",
            "u@a",
            "u:p@a",
            "@a",
            "",
            " ",
            "[::1",
            "::1",
            "a]b",
            "[]",
            "[::1]80",
            "[::1]:x",
            "[::1%25eth0]",
            "a:b",
            "a:80:90",
            ":80",
            "%zz",
            "a%",
            "a\"b",
            "a<b",
            "a|b",
            "a^b",
            "a`b",
            "a{b}",
            "é",
        ];
        for host in bad {
            assert_eq!(target(Version::HTTP_11, "GET", "/", &[host]), Err(400), "{host}");
            assert_eq!(
                target(Version::HTTP_11, "GET", "http://a/", &[host]).is_ok(),
                host.is_empty(),
                "{host}"
            );
        }
    }

    #[test]
    fn every_form_of_a_target_names_one_host_and_one_path() {
        let http1 = |method, uri, hosts: &[&str]| target(Version::HTTP_11, method, uri, hosts);
        for (method, uri, expected) in [
            ("GET", "/x?y", named("good", "/x?y")),
            ("GET", "//x", named("good", "//x")),
            ("GET", "http://a.example/x", named("a.example", "/x")),
            ("GET", "HTTPS://A.example:8443", named("A.example:8443", "/")),
            ("GET", "http://a?x", named("a", "/?x")),
            ("OPTIONS", "*", named("good", "*")),
            ("GET", "*", Err(400)),
            ("GET", "ftp://a/x", Err(400)),
            ("GET", "http://u@a/x", Err(400)),
            ("GET", "http://a:x/", Err(400)),
            ("GET", "a.example", Err(400)),
            ("GET", "a.example:80", Err(400)),
            ("GET", "/é", Err(400)),
            ("CONNECT", "a:80", Err(403)),
            ("CONNECT", "a", Err(400)),
            ("get", "/", Err(400)),
            ("Get", "/", Err(400)),
            ("FOO", "/", Err(400)),
            ("PURGE", "/", named("good", "/")),
        ] {
            assert_eq!(http1(method, uri, &["good"]), expected, "{method} {uri}");
        }
        assert_eq!(http1("GET", "/", &[]), Err(400));
        assert_eq!(http1("GET", "/", &["good", "good"]), Err(400));
        assert_eq!(http1("GET", "http://a/", &["good", "good"]), Err(400));
        assert_eq!(http1("GET", "http://a/", &[]), named("a", "/"));
        assert_eq!(target(Version::HTTP_10, "GET", "/", &[]), named("", "/"));
    }

    #[test]
    fn http_2_is_held_to_the_same_names() {
        let http2 = |method, uri, hosts: &[&str]| target(Version::HTTP_2, method, uri, hosts);
        assert_eq!(http2("GET", "http://a/x", &[]), named("a", "/x"));
        assert_eq!(http2("get", "HTTPS://a/é", &[]), named("a", "/é"));
        assert_eq!(http2("GET", "ftp://a/", &[]), Err(400));
        assert_eq!(http2("GET", "/x", &["a"]), named("a", "/x"));
        assert_eq!(http2("GET", "http://a/x", &["b"]), named("a", "/x"));
        for (uri, hosts) in [
            ("/x", &[][..]),
            ("/x", &["a", "b"]),
            ("http://u@a/x", &[]),
            ("/x", &["a#"]),
            ("*", &["a"]),
        ] {
            assert_eq!(http2("GET", uri, hosts), Err(400), "{uri} {hosts:?}");
        }
    }
}
