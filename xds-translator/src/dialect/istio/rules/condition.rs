//! Conditions of VirtualServices' rules, on requests and connections.

use std::{collections::BTreeMap, sync::Arc};

use super::label::check_labels;
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_host, check_network, check_range, each, is_domain, is_label},
        istio::{
            shared::StringMatch,
            virtual_service::{HttpMatch, TcpMatch, TlsMatch, VirtualService},
        },
    },
    ir::Hostname,
};

/// What stands for all sidecars among the gateways.
const MESH: &str = "mesh";

/// Whether sidecars have the rules too.
pub(super) fn is_for_mesh(rules: &VirtualService) -> bool {
    rules.gateways.is_empty() || rules.gateways.iter().any(|name| &**name == MESH)
}

/// Notes hosts that are none, or that another one stands for.
pub(super) fn check_hosts(rules: &VirtualService, at: &mut Decoder) {
    let by_sni = rules.tls.iter().flat_map(|r| &r.matches).any(|m| !m.sni_hosts.is_empty());
    let mesh = is_for_mesh(rules);
    each("hosts", &rules.hosts, at, |host, at| {
        if mesh && &**host == "*" {
            let fix = Some("name the hosts, or `gateways` without `mesh`".to_owned());
            return at.invalid("`*` would take all traffic of the mesh", fix);
        }
        if mesh || !by_sni || !is_server_name_of_mesh(host) {
            check_host(host, HostForm::WildcardOrAddress, at);
        }
    });
    at.within("hosts", |at| {
        for (index, host) in rules.hosts.iter().enumerate() {
            let earlier = rules.hosts[..index].iter();
            if let Some(first) = earlier.clone().position(|other| overlap(other, host)) {
                let message = format!("`{host}` and `hosts[{first}]` stand for the same names");
                at.within_index(index, |at| at.invalid(message, Some("remove one".to_owned())));
            }
        }
    });
}

/// Whether some name is meant by both, as they are written: names that are completed to the same
/// are no mistake.
fn overlap(one: &str, other: &str) -> bool {
    let within = |outer: &str, inner: &str| match outer.strip_prefix('*') {
        Some(suffix) => inner.trim_start_matches('*').ends_with(suffix),
        None => outer == inner,
    };
    within(one, other) || within(other, one)
}

/// Whether a name is one by which meshes call a service of another network:
/// `outbound_.PORT_.SUBSET_.HOST`.
fn is_server_name_of_mesh(name: &str) -> bool {
    let mut parts = name.splitn(4, '_');
    let [Some("outbound"), Some(port), Some(_), Some(host)] =
        [parts.next(), parts.next(), parts.next(), parts.next()]
    else {
        return false;
    };
    let port = port.strip_prefix('.').is_some_and(|port| port.parse::<u16>().is_ok());
    let named = |host: &str| is_domain(host.strip_prefix("*.").unwrap_or(host));
    port && host.strip_prefix('.').is_some_and(named)
}

/// Notes names that no gateway can have.
pub(super) fn check_gateways(names: &[Arc<str>], at: &mut Decoder) {
    each("gateways", names, at, |name, at| {
        let valid = match name.split_once('/') {
            None => is_domain(name),
            Some((namespace, name)) => is_label(namespace) && is_label(name),
        };
        if !valid {
            let message = format!("`{name}` is not `mesh`, a gateway's name or `NAMESPACE/NAME`");
            at.invalid(message, None);
        }
    });
}

/// Notes conditions on the client that none can meet.
fn check_client(
    labels: &BTreeMap<Arc<str>, Arc<str>>,
    namespace: &str,
    gateways: &[Arc<str>],
    at: &mut Decoder,
) {
    check_labels("sourceLabels", labels, at);
    check_gateways(gateways, at);
    if !namespace.is_empty() && !is_label(namespace) {
        at.within("sourceNamespace", |at| {
            at.invalid(format!("`{namespace}` is not a namespace"), None)
        });
    }
}

/// Notes texts that Envoy takes no condition on, and conditions on clients that none can meet.
pub(super) fn check_request(m: &HttpMatch, at: &mut Decoder) {
    check_client(&m.source_labels, &m.source_namespace, &m.gateways, at);
    // A path begins with nothing, other texts do not (Envoy `StringMatcher.prefix`).
    if let Some(StringMatch::Regex(_)) = &m.uri {
        check_text("uri", m.uri.as_ref(), at);
    }
    check_text("scheme", m.scheme.as_ref(), at);
    check_text("method", m.method.as_ref(), at);
    check_text("authority", m.authority.as_ref(), at);
    check_texts("headers", &m.headers, at);
    check_texts("queryParams", &m.query_params, at);
    check_texts("withoutHeaders", &m.without_headers, at);
}

fn check_texts(field: &'static str, texts: &BTreeMap<Arc<str>, StringMatch>, at: &mut Decoder) {
    at.within(field, |at| {
        for (name, text) in texts {
            // Istio's way to say that the header must not be there.
            if field == "withoutHeaders" && *text == StringMatch::Regex("*".into()) {
                continue;
            }
            at.within_key(name, |at| check_match(text, at));
        }
    });
}

fn check_text(field: &'static str, text: Option<&StringMatch>, at: &mut Decoder) {
    if let Some(text) = text {
        at.within(field, |at| check_match(text, at));
    }
}

/// Notes a prefix that every text has, and an expression that Istio does not hand on.
pub(super) fn check_match(text: &StringMatch, at: &mut Decoder) {
    match text {
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            let fix = Some("`{}`, if any value will do".to_owned());
            at.within("prefix", |at| at.invalid("empty: every text begins with it", fix));
        }
        StringMatch::Regex(regex) => at.within("regex", |at| check_expression(regex, at)),
        _ => {}
    }
}

/// Notes an expression that is empty, does not compile, or is larger than Istio takes.
pub(super) fn check_expression(regex: &str, at: &mut Decoder) {
    const LONGEST: usize = 1024;
    if regex.is_empty() {
        return at.invalid("empty", None);
    }
    if regex.len() > LONGEST {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "too long an expression");
        let expected = format!("at most {LONGEST} bytes");
        return at.note(finding.expected(expected, format!("{} bytes", regex.len())));
    }
    at.check_regex(regex);
}

/// Notes conditions that no TLS connection to the hosts can meet.
pub(super) fn check_tls(rules: &VirtualService, m: &TlsMatch, at: &mut Decoder) {
    let mesh = is_for_mesh(rules);
    each("sniHosts", &m.sni_hosts, at, |name, at| {
        if name.parse::<std::net::IpAddr>().is_ok() {
            return at.remark(|path| {
                let message = "clients send no address as the name of a server (RFC 6066)";
                Diagnostic::warning(Code::NoEffect, path, message)
                    .fix("a host, or a rule of `tcp` with `destinationSubnets`")
            });
        }
        if mesh || !is_server_name_of_mesh(name) {
            check_host(name, HostForm::Wildcard, at);
        }
        let own = Hostname::new(name);
        if !rules.hosts.iter().any(|host| Hostname::new(host).contains(&own)) {
            let expected = format!("a part of `hosts`, {}", rules.hosts.join(", "));
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "none of the hosts");
            at.note(finding.expected(expected, format!("`{name}`")));
        }
    });
    check_connection(&m.destination_subnets, m.port, at);
    check_client(&m.source_labels, &m.source_namespace, &m.gateways, at);
}

/// Notes conditions that no TCP connection can meet.
pub(super) fn check_tcp(m: &TcpMatch, at: &mut Decoder) {
    check_connection(&m.destination_subnets, m.port, at);
    check_client(&m.source_labels, &m.source_namespace, &m.gateways, at);
}

fn check_connection(networks: &[Arc<str>], port: Option<u16>, at: &mut Decoder) {
    each("destinationSubnets", networks, at, |network, at| check_network(network, at));
    if port == Some(0) {
        check_range("port", 0, 1..=65535, at);
    }
}
