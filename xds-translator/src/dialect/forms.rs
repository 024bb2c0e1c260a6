//! Values with a form, of any dialect: lists, ranges, hosts, networks, namespaces.

use std::net::IpAddr;

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
    /// Also `*` and `*.suffix`.
    Wildcard,
}

/// Notes a host of a wrong form.
pub(super) fn check_host(host: &str, form: HostForm, at: &mut Decoder) {
    let name = match (form, host.strip_prefix('*')) {
        (HostForm::Wildcard, Some("")) => return,
        (HostForm::Wildcard, Some(suffix)) => suffix.strip_prefix('.').unwrap_or(host),
        _ => host,
    };
    if is_dns_name(name) || name.parse::<IpAddr>().is_ok() || name.parse::<IpNet>().is_ok() {
        return;
    }
    let (message, fix) = if host.is_empty() {
        ("empty host".to_owned(), None)
    } else if host.contains("://") {
        (
            "a host, not a URL".to_owned(),
            host.split("://")
                .nth(1)
                .and_then(|h| h.split(['/', ':']).next())
                .map(|h| format!("`{h}`")),
        )
    } else if name.rsplit_once(':').is_some_and(|(h, p)| is_dns_name(h) && p.parse::<u16>().is_ok())
    {
        ("a host without a port".to_owned(), name.rsplit_once(':').map(|(h, _)| format!("`{h}`")))
    } else if host.contains('*') && form == HostForm::Exact {
        ("wildcards are not allowed here".to_owned(), None)
    } else if let Some(suffix) = host.strip_prefix('*').filter(|s| is_dns_name(s)) {
        ("`*` stands for whole labels only".to_owned(), Some(format!("`*.{suffix}`")))
    } else if host.contains('*') {
        ("`*` may only stand at the beginning".to_owned(), None)
    } else {
        (format!("`{host}` is not a host name"), None)
    };
    at.invalid(message, fix);
}

pub(super) fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    !name.is_empty() && name.len() <= 253 && name.split('.').all(label)
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

/// Notes entries of an `exportTo` list that are no namespaces.
pub(super) fn check_export_to(list: &[std::sync::Arc<str>], at: &mut Decoder) {
    each("exportTo", list, at, |item, at| {
        if !matches!(&**item, "." | "*" | "~") && !is_dns_name(item) {
            let path = at.path();
            at.note(
                Diagnostic::error(Code::InvalidValue, path, "not a namespace")
                    .expected("`.`, `*`, `~` or a namespace", format!("`{item}`")),
            );
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
        ];
        for (host, form, valid) in table {
            let mut at = Decoder::default();
            check_host(host, form, &mut at);
            assert_eq!(at.finish().is_empty(), valid, "{host}");
        }
    }
}
