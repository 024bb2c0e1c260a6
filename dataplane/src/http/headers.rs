//! Header fields that a proxy owns: hop-by-hop fields, client addresses, request ids, and
//! configured changes.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::{
    codec::fields::{append_element, joined, lists},
    runtime::{
        HttpConnectionManager,
        format::{FormatOp, HeaderOps, HeaderWrite, WriteAction},
        trace,
    },
};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_ENVOY_ATTEMPT_COUNT: HeaderName =
    HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const X_ENVOY_ORIGINAL_PATH: HeaderName =
    HeaderName::from_static("x-envoy-original-path");
pub(crate) const X_ENVOY_ORIGINAL_HOST: HeaderName =
    HeaderName::from_static("x-envoy-original-host");
pub(crate) const X_ENVOY_DECORATOR_OPERATION: HeaderName =
    HeaderName::from_static("x-envoy-decorator-operation");
pub(crate) const X_ENVOY_EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) const X_ENVOY_SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
pub(crate) const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

pub(crate) const X_ENVOY_EXTERNAL_ADDRESS: HeaderName =
    HeaderName::from_static("x-envoy-external-address");

/// What the names of all headers begin with by which proxies steer one another.
const STEERING: &str = "x-envoy-";
/// Headers by which only a proxy that is trusted may steer ours, and we trust none (Envoy 1.40: no
/// address is internal unless `internal_address_config` says so).
const INTERNAL: [&str; 16] = [
    "x-envoy-internal",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
];
/// Headers that tell of proxies before ours; at the edge there are none.
const EDGE: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
    "x-envoy-original-host",
];

/// Removes what nobody out there is to tell us or the application.
fn remove_internal(headers: &mut HeaderMap, at_edge: bool) {
    // By what is there, which is little: to look for every name in the list would cost more than
    // the rest of a request.
    let is_internal = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with(STEERING)
            && (INTERNAL.contains(&name) || (at_edge && EDGE.contains(&name)))
    };
    let internal: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_internal).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

/// The most that a connection may say of itself, as in Envoy.
const MOST_CONNECTION_OPTIONS: usize = 9;

/// Whether the `connection` header names what everybody must see (RFC 9110 section 7.6.1 forbids
/// it): who the request is for, and for whom a proxy has sent it on.
pub(crate) fn hides(headers: &HeaderMap, target_names_host: bool) -> bool {
    let hidden = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "host"];
    let hidden = if target_names_host { &hidden[..3] } else { &hidden[..] };
    let is_hidden = |option: &str| {
        option.starts_with(':') || hidden.iter().any(|h| option.eq_ignore_ascii_case(h))
    };
    let mut options = lists(headers, &header::CONNECTION).enumerate();
    options.any(|(number, option)| number >= MOST_CONNECTION_OPTIONS || is_hidden(option))
}

/// Makes one cookie of its crumbs, as everybody behind HTTP/2 expects it (RFC 9113 section 8.2.3);
/// of nothing none. As in Envoy, an empty crumb counts behind others (`a=1;`) and not before them.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => return,
        (Some(cookie), None) if !cookie.is_empty() => return,
        _ => {}
    }
    let crumbs = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let crumbs: Vec<&[u8]> = crumbs.skip_while(|crumb| crumb.is_empty()).collect();
    match HeaderValue::from_bytes(crumbs.join(&b"; "[..]).trim_ascii_end()) {
        Ok(cookie) if !cookie.is_empty() => drop(headers.insert(header::COOKIE, cookie)),
        _ => drop(headers.remove(header::COOKIE)),
    }
}

/// Whether there is anything that concerns one hop only; seldom, and told by a look at the names.
pub(crate) fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| match *name {
        header::CONNECTION | header::TE | header::TRANSFER_ENCODING | header::UPGRADE => true,
        _ => *name == KEEP_ALIVE || *name == PROXY_CONNECTION,
    })
}

/// Whether `upgrade` is an option of the connection, without which the field of that name says
/// nothing (RFC 9110 section 7.8).
pub(crate) fn names_upgrade(headers: &HeaderMap) -> bool {
    lists(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Removes what concerns one hop only (RFC 9110 section 7.6.1); `upgrade` keeps what an upgrade
/// needs.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, upgrade: Option<&str>) {
    let named: Vec<HeaderName> = lists(headers, &header::CONNECTION)
        .filter_map(|name| name.parse().ok())
        // Whoever names these wants to hide them from us: they are the hop's, not the connection's.
        .filter(|name| {
            !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION)
        })
        .collect();
    let trailers = lists(headers, &header::TE).any(|coding| {
        let name = coding.split(';').next().unwrap_or_default();
        name.trim_end().eq_ignore_ascii_case("trailers")
    });
    for name in named.iter().chain(&[
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// The client's address, and `x-forwarded-for` and `x-forwarded-proto` brought up to date.
pub(crate) fn forwarded(
    headers: &mut HeaderMap,
    manager: &HttpConnectionManager,
    source: SocketAddr,
    encrypted: bool,
) -> (SocketAddr, &'static str) {
    let hops = manager.xff_trusted_hops as usize;
    let remote = if manager.use_remote_address && hops == 0 {
        source
    } else {
        // At the edge our own peer is the first hop; behind another proxy its last entry is the
        // client.
        let from_right = if manager.use_remote_address { hops - 1 } else { hops };
        forwarded_for(headers, from_right).map_or(source, |ip| SocketAddr::new(ip, 0))
    };
    remove_internal(headers, manager.use_remote_address);
    if manager.use_remote_address {
        if let Ok(address) = HeaderValue::from_str(&remote.ip().to_string()) {
            headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address);
        }
        if !manager.skip_xff_append {
            append_forwarded_for(headers, source.ip());
        }
    }
    let trusted = !manager.use_remote_address || hops > 0;
    (remote, forwarded_scheme(headers, trusted, if encrypted { "https" } else { "http" }))
}

/// The scheme that a proxy before ours has noted, if there may be one; whatever it has noted is
/// passed on.
fn forwarded_scheme(headers: &mut HeaderMap, trusted: bool, ours: &'static str) -> &'static str {
    let mut noted =
        headers.get_all(X_FORWARDED_PROTO).iter().filter(|_| trusted).map(HeaderValue::as_bytes);
    match (noted.next(), noted.next()) {
        (None, _) => {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(ours));
            ours
        }
        (Some(scheme), None) if scheme.eq_ignore_ascii_case(b"https") => "https",
        (Some(scheme), None) if scheme.eq_ignore_ascii_case(b"http") => "http",
        _ => ours,
    }
}

/// The n-th address of `x-forwarded-for` from the right, counted from 0.
fn forwarded_for(headers: &HeaderMap, from_right: usize) -> Option<IpAddr> {
    // By bytes: what a client has written before must not hide what proxies have added.
    let line = joined(headers, &X_FORWARDED_FOR);
    let element = line.rsplit(|byte| *byte == b',').nth(from_right)?;
    std::str::from_utf8(element.trim_ascii()).ok()?.parse().ok()
}

/// Adds a hop to `x-forwarded-for`.
pub(crate) fn append_forwarded_for(headers: &mut HeaderMap, hop: IpAddr) {
    append_element(headers, &X_FORWARDED_FOR, &hop.to_string());
}

/// Makes sure of `x-request-id` if the connection manager generates them.
pub(crate) fn request_id(headers: &mut HeaderMap, manager: &HttpConnectionManager) {
    let external = manager.use_remote_address && !manager.preserve_external_request_id;
    if manager.generate_request_id && (external || !headers.contains_key(X_REQUEST_ID)) {
        if let Ok(id) = HeaderValue::from_bytes(&uuid(rand::random())) {
            headers.insert(X_REQUEST_ID, id);
        }
    } else if manager.use_remote_address && manager.tracing.is_some() {
        trace::unmark(headers);
    }
}

/// A version 4 UUID as text (RFC 9562 section 5.4). Nearly every request gets one: the machinery of
/// `format!` would be a twentieth of what a request costs.
fn uuid(random: u128) -> [u8; 36] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let bits = (random & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bits.to_be_bytes().into_iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 0xF)];
        at += 2;
    }
    text
}

/// What header changes of a request may also touch.
pub(crate) struct Pseudo<'a> {
    pub(crate) authority: &'a mut String,
    pub(crate) path: &'a mut String,
}

/// Applies changes; `render` makes a value out of a format and the headers as they are then.
pub(crate) fn apply(
    ops: &HeaderOps,
    headers: &mut HeaderMap,
    mut pseudo: Option<Pseudo<'_>>,
    render: impl Fn(&[FormatOp], &HeaderMap) -> String,
) {
    for name in &ops.remove {
        headers.remove(&**name);
    }
    for write in &ops.write {
        let value = match &write.value[..] {
            [FormatOp::Literal(text)] => text.to_string(),
            format => render(format, headers),
        };
        if value.is_empty() && !write.keep_empty {
            continue;
        }
        match (&*write.name, &mut pseudo) {
            (":authority" | "host", Some(pseudo)) => *pseudo.authority = value,
            (":path", Some(pseudo)) => *pseudo.path = value,
            _ => write_field(write, &value, headers),
        }
    }
}

fn write_field(write: &HeaderWrite, value: &str, headers: &mut HeaderMap) {
    // Pseudo headers of responses cannot be written.
    let Ok(name) = HeaderName::from_bytes(write.name.as_bytes()) else { return };
    let exists = headers.contains_key(&name);
    // A rendered value may hold bytes that no header can. What was to be replaced by it must not
    // pass for it.
    let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else {
        if matches!(write.action, WriteAction::Overwrite | WriteAction::OverwriteIfExists) {
            headers.remove(name);
        }
        return;
    };
    match write.action {
        WriteAction::Append => {
            headers.append(name, value);
        }
        WriteAction::AddIfAbsent if exists => {}
        WriteAction::OverwriteIfExists if !exists => {}
        WriteAction::Overwrite | WriteAction::AddIfAbsent | WriteAction::OverwriteIfExists => {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::serve::tests::manager;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("te", "gzip, Trailers;q=1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-kept", "1"),
        ]);
        remove_hop_by_hop(&mut headers, None);
        assert_eq!(headers, map(&[("x-kept", "1"), ("te", "trailers")]));
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        remove_hop_by_hop(&mut headers, Some("websocket"));
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn the_connection_header_cannot_remove_what_protects() {
        let mut headers =
            map(&[("connection", "authorization, host"), ("authorization", "x"), ("host", "a")]);
        remove_hop_by_hop(&mut headers, None);
        assert_eq!(headers, map(&[("authorization", "x"), ("host", "a")]));
    }

    #[test]
    fn what_everybody_must_see_is_not_hidden() {
        for (connection, expected) in [
            ("host", true),
            ("close, X-Forwarded-For", true),
            (":path", true),
            ("close, keep-alive, upgrade", false),
            ("a,b,c,d,e,f,g,h,i", false),
            ("a,b,c,d,e,f,g,h,i,j", true),
        ] {
            assert_eq!(hides(&map(&[("connection", connection)]), false), expected, "{connection}");
        }
        assert!(!hides(&map(&[("host", "a")]), false));
        assert!(!hides(&map(&[("connection", "host")]), true));
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
        let mut headers = map(&[("cookie", ""), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "c=3")]));
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1;")]));
        for nothing in [&[("cookie", "")][..], &[("cookie", ""), ("cookie", "")]] {
            let mut headers = map(nothing);
            join_cookies(&mut headers);
            assert_eq!(headers, map(&[]));
        }
    }

    fn check(
        edge: bool,
        hops: u32,
        received: &[(&str, &str)],
        remote: &str,
        scheme: &str,
        xff: Option<&str>,
    ) {
        let mut manager = manager();
        (manager.use_remote_address, manager.xff_trusted_hops) = (edge, hops);
        let mut headers = map(received);
        let (address, proto) = forwarded(&mut headers, &manager, ([10, 0, 0, 1], 5).into(), false);
        assert_eq!(
            (address.ip().to_string().as_str(), proto),
            (remote, scheme),
            "{edge} {hops} {received:?}"
        );
        assert_eq!(
            headers.get(X_FORWARDED_FOR).map(|v| v.to_str().unwrap()),
            xff,
            "{edge} {hops} {received:?}"
        );
        assert_eq!(headers[X_FORWARDED_PROTO], scheme);
        assert_eq!(
            headers.get(X_ENVOY_EXTERNAL_ADDRESS).map(|v| v.to_str().unwrap()),
            edge.then_some(remote)
        );
    }

    #[test]
    fn the_client_is_who_the_trusted_hops_say() {
        let xff = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https")];
        check(true, 0, &xff, "10.0.0.1", "http", Some("1.1.1.1, 2.2.2.2,10.0.0.1"));
        check(true, 1, &xff, "2.2.2.2", "https", Some("1.1.1.1, 2.2.2.2,10.0.0.1"));
        check(true, 2, &xff, "1.1.1.1", "https", Some("1.1.1.1, 2.2.2.2,10.0.0.1"));
        check(true, 3, &xff, "10.0.0.1", "https", Some("1.1.1.1, 2.2.2.2,10.0.0.1"));
        check(false, 0, &xff, "2.2.2.2", "https", Some("1.1.1.1, 2.2.2.2"));
        check(false, 1, &xff, "1.1.1.1", "https", Some("1.1.1.1, 2.2.2.2"));
        check(false, 0, &[], "10.0.0.1", "http", None);
        check(true, 0, &[], "10.0.0.1", "http", Some("10.0.0.1"));
    }

    #[test]
    fn no_bytes_of_a_client_hide_who_it_is() {
        let line = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(bytes).unwrap());
            headers
        };
        let source = ([10, 0, 0, 1], 5).into();
        let mut at_edge = manager();
        at_edge.use_remote_address = true;
        for bytes in [&b"\xff"[..], b"\xc3\xa9, 1.1.1.1", b"1.1.1.1\xff"] {
            let mut headers = line(bytes);
            forwarded(&mut headers, &at_edge, source, false);
            let whole = [bytes, b",10.0.0.1"].concat();
            assert_eq!(headers[X_FORWARDED_FOR].as_bytes(), whole, "as Envoy writes it");
            let next = forwarded(&mut headers, &manager(), ([10, 0, 0, 9], 5).into(), false).0;
            assert_eq!(next.ip().to_string(), "10.0.0.1", "whom the next proxy takes it for");
        }
    }

    #[test]
    fn what_cannot_be_written_over_does_not_stay() {
        let write = |action| HeaderWrite {
            name: "x-user".into(),
            value: vec![FormatOp::Literal("a\0".into())].into(),
            action,
            keep_empty: false,
        };
        let claim = [("x-user", "admin")];
        for (action, expected) in [
            (WriteAction::Overwrite, &[][..]),
            (WriteAction::OverwriteIfExists, &[]),
            (WriteAction::Append, &claim),
            (WriteAction::AddIfAbsent, &claim),
        ] {
            let mut headers = map(&claim);
            let ops = HeaderOps { write: vec![write(action)], ..HeaderOps::default() };
            apply(&ops, &mut headers, None, |_, _| String::new());
            assert_eq!(headers, map(expected), "{action:?}");
        }
        let mut headers = map(&claim);
        let name = vec![FormatOp::Literal("é".into())].into();
        let write = HeaderWrite { value: name, ..write(WriteAction::Overwrite) };
        let ops = HeaderOps { write: vec![write], ..HeaderOps::default() };
        apply(&ops, &mut headers, None, |_, _| String::new());
        assert_eq!(headers["x-user"].as_bytes(), "é".as_bytes());
    }

    #[test]
    fn the_scheme_that_a_trusted_proxy_noted_is_passed_on_as_it_is() {
        for (noted, scheme) in [
            (&["https"][..], "https"),
            (&["HTTPS"], "https"),
            (&["http"], "http"),
            (&["ftp"], "http"),
            (&["https", "http"], "http"),
        ] {
            let fields: Vec<_> = noted.iter().map(|value| ("x-forwarded-proto", *value)).collect();
            let mut headers = map(&fields);
            assert_eq!(
                forwarded(&mut headers, &manager(), ([10, 0, 0, 1], 5).into(), false).1,
                scheme,
                "{noted:?}"
            );
            assert_eq!(headers, map(&fields));
        }
    }

    /// What reaches the application of all headers that Envoy knows, when a client sends them; as
    /// Envoy 1.40 with the settings of a sidecar and of a gateway.
    #[test]
    fn internal_headers_from_outside_go_no_further() {
        let kept = [
            "x-envoy-attempt-count",
            "x-envoy-peer-metadata",
            "x-envoy-peer-metadata-id",
            "x-envoy-is-timeout-retry",
            "x-envoy-livenessprobe",
            "x-envoy-immediate-health-check-fail",
            "x-envoy-degraded",
            "x-envoy-overloaded",
            "x-envoy-upstream-service-time",
            "x-envoy-upstream-canary",
            "x-envoy-ratelimited",
            "x-envoy-foo",
            "x-client-trace-id",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-real-ip",
            "forwarded",
            "via",
            "x-ot-span-context",
        ];
        let received: Vec<(&str, &str)> =
            kept.iter().chain(&INTERNAL).chain(&EDGE).map(|name| (*name, "1")).collect();
        for at_edge in [false, true] {
            let mut manager = manager();
            manager.use_remote_address = at_edge;
            let mut headers = map(&received);
            headers.insert(X_ENVOY_EXTERNAL_ADDRESS, HeaderValue::from_static("9.9.9.9"));
            forwarded(&mut headers, &manager, ([192, 0, 2, 1], 5).into(), false);
            for name in kept {
                assert_eq!(
                    headers.remove(name),
                    Some(HeaderValue::from_static("1")),
                    "{name} {at_edge}"
                );
            }
            let mut left: Vec<String> =
                headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            left.sort();
            let expected: &[&str] = match at_edge {
                true => &[
                    "x-envoy-external-address: 192.0.2.1",
                    "x-forwarded-for: 192.0.2.1",
                    "x-forwarded-proto: http",
                ],
                false => &[
                    "x-envoy-decorator-operation: 1",
                    "x-envoy-downstream-service-cluster: 1",
                    "x-envoy-downstream-service-node: 1",
                    "x-envoy-external-address: 9.9.9.9",
                    "x-envoy-original-host: 1",
                    "x-envoy-original-path: 1",
                    "x-forwarded-proto: http",
                ],
            };
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_request_id_is_made_once() {
        let mut manager = manager();
        manager.generate_request_id = true;
        let mut headers = HeaderMap::new();
        request_id(&mut headers, &manager);
        let made = headers[X_REQUEST_ID].clone();
        assert_eq!((made.len(), made.as_bytes()[14]), (36, b'4'));
        request_id(&mut headers, &manager);
        assert_eq!(headers[X_REQUEST_ID], made);
        manager.use_remote_address = true;
        request_id(&mut headers, &manager);
        assert_ne!(headers[X_REQUEST_ID], made);
    }

    #[test]
    fn configured_changes_follow_their_action() {
        let write = |name: &str, value: &str, action| HeaderWrite {
            name: name.into(),
            value: vec![FormatOp::Literal(value.into())].into(),
            action,
            keep_empty: false,
        };
        let ops = HeaderOps {
            remove: vec!["gone".into()],
            write: vec![
                write("a", "2", WriteAction::Append),
                write("b", "2", WriteAction::Overwrite),
                write("c", "2", WriteAction::AddIfAbsent),
                write("d", "2", WriteAction::OverwriteIfExists),
                write("e", "2", WriteAction::AddIfAbsent),
                write(":authority", "new", WriteAction::Overwrite),
                write("f", "", WriteAction::Append),
            ],
        };
        let mut headers = map(&[("gone", "1"), ("a", "1"), ("b", "1"), ("c", "1")]);
        let (mut authority, mut path) = ("old".to_owned(), "/".to_owned());
        let pseudo = Pseudo { authority: &mut authority, path: &mut path };
        apply(&ops, &mut headers, Some(pseudo), |_, _| String::new());
        assert_eq!(headers, map(&[("a", "1"), ("a", "2"), ("b", "2"), ("c", "1"), ("e", "2")]));
        assert_eq!(authority, "new");
    }
}
