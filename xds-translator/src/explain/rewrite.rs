//! How a request is read and changed on its way: its path made plain, headers, authority and path of
//! what is sent on, and where a redirect leads.

use regex::{Captures, Regex};

use super::{
    pb::{
        core::{HeaderValueOption, header_value_option::HeaderAppendAction},
        hcm::{HttpConnectionManager, http_connection_manager::PathWithEscapedSlashesAction},
        matcher::RegexMatchAndSubstitute,
        route::{
            RedirectAction, Route, RouteAction, RouteConfiguration, VirtualHost,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
            route_action::HostRewriteSpecifier,
            route_match::PathSpecifier,
            weighted_cluster::{ClusterWeight, cluster_weight},
        },
    },
    request::{Request, split_port},
};

/// The path as routes and filters see it.
pub(super) fn normalized(manager: &HttpConnectionManager, request: &Request) -> Request {
    let mut path = request.path().to_owned();
    let decodes = PathWithEscapedSlashesAction::UnescapeAndForward as i32;
    if manager.path_with_escaped_slashes_action == decodes {
        for (escaped, slash) in [("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")] {
            path = path.replace(escaped, slash);
        }
    }
    if manager.normalize_path.as_ref().is_some_and(|on| on.value) {
        path = without_dots(&path);
    }
    if manager.merge_slashes {
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    }
    let target = match request.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    Request { target, ..request.clone() }
}

/// A path without `.` and `..` (RFC 3986 section 6.2.2.3), with `\` as `/`, and with characters
/// unescaped that need no escape.
fn without_dots(path: &str) -> String {
    let path = unescaped(&path.replace('\\', "/"));
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
        match byte.filter(plain) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The request as it is sent on.
pub(super) fn sent(
    (config, host): (&RouteConfiguration, &VirtualHost),
    (route, action): (&Route, &RouteAction),
    weight: Option<&ClusterWeight>,
    request: &Request,
) -> Request {
    let mut sent = request.clone();
    if let Some(weight) = weight {
        change(&mut sent, &weight.request_headers_to_remove, &weight.request_headers_to_add);
    }
    change(&mut sent, &route.request_headers_to_remove, &route.request_headers_to_add);
    change(&mut sent, &host.request_headers_to_remove, &host.request_headers_to_add);
    change(&mut sent, &config.request_headers_to_remove, &config.request_headers_to_add);
    let own = weight.and_then(|weight| weight.host_rewrite_specifier.as_ref());
    let authority = match (own, &action.host_rewrite_specifier) {
        (Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(text)), _)
        | (
            None,
            Some(
                HostRewriteSpecifier::HostRewriteLiteral(text)
                | HostRewriteSpecifier::HostRewrite(text),
            ),
        ) => Some(text.clone()),
        (None, Some(HostRewriteSpecifier::HostRewriteHeader(name))) => request.header(name),
        _ => None,
    };
    sent.authority = authority.unwrap_or(sent.authority);
    let path = request.path();
    let rewritten = match (&action.regex_rewrite, &*action.prefix_rewrite, &*action.path_rewrite) {
        (Some(rewrite), ..) => substituted(rewrite, path),
        (None, "", "") => path.to_owned(),
        (None, "", whole) => whole.to_owned(),
        (None, prefix, _) => instead_of_prefix(route, path, prefix),
    };
    sent.target = match request.query() {
        Some(query) => format!("{rewritten}?{query}"),
        None => rewritten,
    };
    sent
}

fn change(request: &mut Request, remove: &[String], add: &[HeaderValueOption]) {
    for name in remove {
        let lower = name.to_ascii_lowercase();
        request.headers.retain(|(own, _)| *own != lower);
    }
    for option in add {
        let Some(header) = &option.header else { continue };
        let name = header.key.to_ascii_lowercase();
        let there = request.headers.iter().any(|(own, _)| *own == name);
        let action = HeaderAppendAction::try_from(option.append_action);
        let (replaces, adds) = match action {
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => (true, true),
            Ok(HeaderAppendAction::AddIfAbsent) => (false, !there),
            Ok(HeaderAppendAction::OverwriteIfExists) => (there, there),
            _ => (false, true),
        };
        if replaces {
            request.headers.retain(|(own, _)| *own != name);
        }
        if adds {
            request.headers.push((name, header.value.clone()));
        }
    }
}

/// A path with another beginning in the place of what the route matches, which is the whole of it
/// where the route matches the whole.
fn instead_of_prefix(route: &Route, path: &str, prefix: &str) -> String {
    let specifier = route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref());
    match specifier {
        Some(PathSpecifier::Prefix(matched) | PathSpecifier::PathSeparatedPrefix(matched)) => {
            format!("{prefix}{}", path.get(matched.len()..).unwrap_or_default())
        }
        _ => prefix.to_owned(),
    }
}

fn substituted(rewrite: &RegexMatchAndSubstitute, path: &str) -> String {
    let pattern = rewrite.pattern.as_ref().map(|pattern| pattern.regex.as_str());
    let Ok(regex) = Regex::new(pattern.unwrap_or_default()) else { return path.to_owned() };
    regex
        .replace_all(path, |found: &Captures<'_>| {
            let mut out = String::new();
            let mut chars = rewrite.substitution.chars();
            while let Some(c) = chars.next() {
                match (c, if c == '\\' { chars.next() } else { None }) {
                    ('\\', Some(digit)) if digit.is_ascii_digit() => {
                        let group = digit.to_digit(10).unwrap_or(0) as usize;
                        out.push_str(found.get(group).map_or("", |group| group.as_str()));
                    }
                    ('\\', Some(other)) => out.push(other),
                    (c, _) => out.push(c),
                }
            }
            out
        })
        .into_owned()
}

pub(super) fn redirect_status(redirect: &RedirectAction) -> u16 {
    match RedirectResponseCode::try_from(redirect.response_code) {
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        _ => 301,
    }
}

pub(super) fn location(redirect: &RedirectAction, route: &Route, request: &Request) -> String {
    let current = if request.secure { "https" } else { "http" };
    let scheme = match &redirect.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https",
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => scheme,
        _ => current,
    };
    let (host, port) = split_port(&request.authority);
    let host = match &*redirect.host_redirect {
        "" => host,
        host => host,
    };
    let port = match (redirect.port_redirect, port) {
        (0, Some(port)) if redirect.host_redirect.is_empty() && scheme == current => {
            format!(":{port}")
        }
        (0, _) => String::new(),
        (port, _) => format!(":{port}"),
    };
    let path = match &redirect.path_rewrite_specifier {
        Some(
            PathRewriteSpecifier::PathRedirect(path) | PathRewriteSpecifier::PathRewrite(path),
        ) => path.clone(),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            instead_of_prefix(route, request.path(), prefix)
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => substituted(rewrite, request.path()),
        None => request.path().to_owned(),
    };
    let query = request.query().filter(|_| !redirect.strip_query && !path.contains('?'));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_needless_escapes_go() {
        for (path, expected) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/../a", "/a"),
            ("/%61/%2e%2E/b", "/b"),
            ("/a%2fb", "/a%2fb"),
            ("/a//b", "/a//b"),
            ("/a\\b", "/a/b"),
            ("/", "/"),
            ("/%", "/%"),
        ] {
            assert_eq!(without_dots(path), expected, "{path}");
        }
    }
}
