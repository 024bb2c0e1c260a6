//! Values with a form, of any dialect: lists, ranges, hosts, networks, namespaces.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::decode::Decoder;
use crate::diagnostic::{Code, Diagnostic};

/// Runs `check` over the elements of the list `field`, each at its own path.
pub(super) fn each<T>(
    field: &'static str,
    items: &[T],
    at: &mut Decoder,
    mut check: impl FnMut(&T, &mut Decoder),
) {
    at.within(field, |at| {
        for (index, item) in items.iter().enumerate() {
            at.within_index(index, |at| check(item, at));
        }
    });
}

/// Statuses that Envoy answers with (`envoy.type.v3.StatusCode`); it refuses a filter with others.
const STATUSES: [std::ops::RangeInclusive<u16>; 11] = [
    200..=208,
    226..=226,
    300..=305,
    307..=308,
    400..=417,
    421..=424,
    426..=426,
    428..=429,
    431..=431,
    500..=508,
    510..=511,
];

/// Whether a filter may be told to answer with this status.
pub(super) fn is_known_status(code: u16) -> bool {
    STATUSES.iter().any(|known| known.contains(&code))
}

/// Notes a number outside its bounds.
pub(super) fn check_range(
    field: &'static str,
    value: i64,
    bounds: std::ops::RangeInclusive<i64>,
    at: &mut Decoder,
) {
    if !bounds.contains(&value) {
        at.within(field, |at| {
            let path = at.path();
            let expected = format!("{}..={}", bounds.start(), bounds.end());
            at.note(
                Diagnostic::error(Code::InvalidValue, path, "out of range")
                    .expected(expected, value.to_string()),
            );
        });
    }
}

/// Notes a share outside 0 to 100 percent.
pub(super) fn check_percent(field: &'static str, percent: f64, at: &mut Decoder) {
    if !(0.0..=100.0).contains(&percent) {
        at.within(field, |at| {
            let path = at.path();
            at.note(
                Diagnostic::error(Code::InvalidValue, path, "out of range")
                    .expected("0 to 100 percent", percent.to_string()),
            );
        });
    }
}

/// What a host may look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HostForm {
    /// A name, complete or not, or an address.
    Exact,
    /// A name, `*` or `*.suffix`; no address.
    Wildcard,
    /// As [`Self::Wildcard`], and an address.
    WildcardOrAddress,
}

/// Notes a host of a wrong form.
pub(super) fn check_host(host: &str, form: HostForm, at: &mut Decoder) {
    let wildcard = form != HostForm::Exact;
    let name = host.strip_prefix("*.").filter(|_| wildcard).unwrap_or(host);
    let is_address = host.parse::<IpAddr>().is_ok();
    // The first label of several may be a number, as may a name of one label.
    let valid = is_dns_name(name) && (!name.contains('.') || is_domain(name));
    let fits = match is_address {
        true => form != HostForm::Wildcard,
        false => valid || (wildcard && host == "*"),
    };
    if !fits {
        let (message, fix) = objection_to_host(host, name, form);
        at.invalid(message, fix);
    }
}

/// What is wrong with a host whose part without wildcard is `name`, and what was meant.
fn objection_to_host(host: &str, name: &str, form: HostForm) -> (String, Option<String>) {
    let quoted = |host: &str| format!("`{host}`");
    let without_port =
        name.rsplit_once(':').filter(|(h, p)| is_dns_name(h) && p.parse::<u16>().is_ok());
    if host.is_empty() {
        ("empty host".to_owned(), None)
    } else if let Some((_, rest)) = host.split_once("://") {
        ("a host, not a URL".to_owned(), rest.split(['/', ':']).next().map(quoted))
    } else if host.parse::<IpAddr>().is_ok() || host.parse::<IpNet>().is_ok() {
        (format!("`{host}`: a name is expected here, not an address"), None)
    } else if let Some((bare, _)) = without_port {
        ("a host without a port".to_owned(), Some(quoted(bare)))
    } else if host.contains('*') && form == HostForm::Exact {
        ("wildcards are not allowed here".to_owned(), None)
    } else if let Some(suffix) = host.strip_prefix('*').filter(|s| is_dns_name(s)) {
        ("`*` stands for whole labels only".to_owned(), Some(format!("`*.{suffix}`")))
    } else if host.contains('*') {
        ("`*` may only stand at the beginning".to_owned(), None)
    } else {
        (format!("`{host}` is not a host name"), None)
    }
}

/// Whether a text is a label of a domain name (RFC 1123).
pub(super) fn is_label(label: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && end(bytes.first())
        && end(bytes.last())
}

/// Whether a text consists of labels with dots between them, perhaps with one at its end.
pub(super) fn is_dns_name(name: &str) -> bool {
    let whole = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 255 && whole.split('.').all(is_label)
}

/// Whether a text is a domain name, which no address is: its last label is not a number.
pub(super) fn is_domain(name: &str) -> bool {
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    is_dns_name(name) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// Notes a text that is neither an address nor a network.
pub(super) fn check_network(text: &str, at: &mut Decoder) {
    if text.parse::<IpAddr>().is_err() && text.parse::<IpNet>().is_err() {
        let path = at.path();
        let expected = "an address or a network such as `10.0.0.0/8`";
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not a network")
                .expected(expected, format!("`{text}`")),
        );
    }
}

/// Notes a text that is no address.
pub(super) fn check_address(text: &str, at: &mut Decoder) {
    if text.parse::<IpAddr>().is_err() {
        let path = at.path();
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not an address")
                .expected("an IPv4 or IPv6 address", format!("`{text}`")),
        );
    }
}

/// Whom an `exportTo` list may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everybody, or namespaces.
    Somebody,
    /// Also nobody, `~`.
    Anybody,
}

/// Notes entries of an `exportTo` list that are no namespaces, or the same as others.
pub(super) fn check_export_to(list: &[Arc<str>], audience: Audience, at: &mut Decoder) {
    let mut seen: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let own: Arc<str> = at.namespace().into();
    let nobody = audience == Audience::Anybody;
    at.within("exportTo", |at| {
        for (index, item) in list.iter().enumerate() {
            let meant = if &**item == "." && !own.is_empty() { &own } else { item };
            let first = *seen.entry(meant.clone()).or_insert(index);
            at.within_index(index, |at| {
                if first != index {
                    let message = format!("the same as `exportTo[{first}]`");
                    return at.invalid(message, Some("remove it".to_owned()));
                }
                let word = matches!(&**item, "." | "*") || (nobody && &**item == "~");
                if !word && !is_label(item) {
                    let expected = if nobody {
                        "`.`, `*`, `~` or a namespace"
                    } else {
                        "`.`, `*` or a namespace"
                    };
                    let finding =
                        Diagnostic::error(Code::InvalidValue, at.path(), "not a namespace");
                    at.note(finding.expected(expected, format!("`{item}`")));
                }
            });
        }
    });
    if list.len() > 1 && list.iter().any(|i| matches!(&**i, "*" | "~")) {
        at.within("exportTo", |at| at.invalid("`*` and `~` stand alone", None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_form() {
        let table = [
            ("reviews", HostForm::Exact, true),
            ("reviews.default.svc.cluster.local", HostForm::Exact, true),
            ("10.0.0.1", HostForm::Exact, true),
            ("*", HostForm::Wildcard, true),
            ("*.example.com", HostForm::Wildcard, true),
            ("*", HostForm::Exact, false),
            ("a.*.com", HostForm::Wildcard, false),
            ("*a.com", HostForm::Wildcard, false),
            ("http://a.com", HostForm::Wildcard, false),
            ("a.com:80", HostForm::Wildcard, false),
            ("", HostForm::Wildcard, false),
            ("a b", HostForm::Wildcard, false),
            ("-a.com", HostForm::Wildcard, false),
            ("a.com.", HostForm::Wildcard, true),
            ("123", HostForm::Wildcard, true),
            ("a.123", HostForm::Wildcard, false),
            ("a_b.com", HostForm::Wildcard, false),
            ("10.0.0.1", HostForm::Wildcard, false),
            ("10.0.0.1", HostForm::WildcardOrAddress, true),
            ("10.0.0.0/8", HostForm::WildcardOrAddress, false),
        ];
        for (host, form, valid) in table {
            let mut at = Decoder::default();
            check_host(host, form, &mut at);
            assert_eq!(at.finish().is_empty(), valid, "{host}");
        }
    }
}
