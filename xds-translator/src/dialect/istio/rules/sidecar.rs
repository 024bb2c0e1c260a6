//! Rules of Sidecars.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    backend::check_pool,
    gateway::{check_bind, check_bound_port, check_termination, check_whole_host},
    label::check_workload_selector,
    line::{check_socket, socket_path},
    route::check_destination,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, each, is_domain, is_label},
        istio::{
            shared::{Port, ServerTls, ServerTlsMode},
            sidecar::{
                CaptureMode, EgressListener, IngressListener, OutboundTrafficMode,
                OutboundTrafficPolicy, Sidecar,
            },
        },
        scalar::parse_port,
    },
};

pub(in crate::dialect::istio) fn check_sidecar(sidecar: &Sidecar, at: &mut Decoder) {
    check_workload_selector(sidecar.workload_selector.as_ref(), at);
    let selector = sidecar.workload_selector.clone();
    if *sidecar == (Sidecar { workload_selector: selector, ..Default::default() }) {
        let fix = Some("`egress` with the hosts that are needed".to_owned());
        at.invalid("empty: it says nothing of traffic", fix);
    }
    check_ingress_places(&sidecar.ingress, at);
    check_egress_places(&sidecar.egress, at);
    each("egress", &sidecar.egress, at, check_egress);
    each("ingress", &sidecar.ingress, at, check_ingress);
    if let Some(pool) = &sidecar.inbound_connection_pool {
        at.within("inboundConnectionPool", |at| check_pool(pool, at));
    }
    if let Some(policy) = &sidecar.outbound_traffic_policy {
        at.within("outboundTrafficPolicy", |at| check_outbound(policy, at));
    }
}

/// Notes listeners of one port.
fn check_ingress_places(listeners: &[IngressListener], at: &mut Decoder) {
    let mut taken = BTreeSet::new();
    each("ingress", listeners, at, |listener, at| {
        let port = listener.port.number;
        if port != 0 && !taken.insert(port) {
            second_port(port, at);
        }
    });
}

/// Notes listeners of one port or socket, and one for all ports that is not the last.
fn check_egress_places(listeners: &[EgressListener], at: &mut Decoder) {
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    let mut left = listeners.len();
    each("egress", listeners, at, |listener, at| {
        left -= 1;
        match listener.port.as_ref().map(|port| port.number) {
            None if left > 0 => {
                at.missing("port", Some("the one listener without a port comes last".to_owned()));
            }
            None => {}
            Some(0) if socket_path(&listener.bind).is_none() => {}
            Some(0) if sockets.insert(listener.bind.clone()) => {}
            Some(0) => at.within("bind", |at| {
                at.invalid(format!("a second listener at `{}`", listener.bind), None)
            }),
            Some(port) if ports.insert(port) => {}
            Some(port) => second_port(port, at),
        }
    });
}

fn second_port(port: u16, at: &mut Decoder) {
    at.within("port", |at| {
        at.within("number", |at| at.invalid(format!("a second listener of port {port}"), None))
    });
}

/// Notes a port of a listener; its name may be left out.
fn check_listener_port(port: &Port, bind: &str, at: &mut Decoder) {
    at.within("port", |at| {
        check_bound_port(port, bind, false, at);
        if !port.name.is_empty() && !is_label(&port.name) {
            at.within("name", |at| {
                at.invalid(format!("`{}` is not the name of a port", port.name), None)
            });
        }
    });
}

fn check_egress(listener: &EgressListener, at: &mut Decoder) {
    match &listener.port {
        Some(port) => check_listener_port(port, &listener.bind, at),
        None if !listener.bind.is_empty() => {
            at.missing("port", Some("`bind` needs a port".to_owned()));
        }
        None => {}
    }
    check_bind(&listener.bind, at);
    if socket_path(&listener.bind).is_some() && listener.capture_mode == CaptureMode::Iptables {
        at.within("captureMode", |at| {
            at.invalid("iptables capture nothing that goes to a Unix socket", Some("`NONE`".into()))
        });
    }
    each("hosts", &listener.hosts, at, |host, at| check_visible_host(host, at));
    remark_hosts_twice(&listener.hosts, at);
}

/// Notes a host that does not say which namespace it is of.
fn check_visible_host(host: &str, at: &mut Decoder) {
    let Some((namespace, name)) = host.split_once('/') else {
        return at.invalid(
            format!("`{host}` does not say which namespace"),
            Some(format!("`./{host}` or `*/{host}`")),
        );
    };
    // With `~` before it, what is not visible.
    let named = namespace.strip_prefix('~').unwrap_or(namespace);
    if !matches!(named, "*" | ".") && namespace != "~" && !is_label(named) {
        at.invalid(format!("`{namespace}` is not a namespace, `*`, `.` or `~`"), None);
    }
    check_whole_host(name, HostForm::Wildcard, at);
}

/// Says which hosts others of the list stand for.
fn remark_hosts_twice(hosts: &[Arc<str>], at: &mut Decoder) {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let everything = hosts.iter().any(|host| &**host == "*/*");
    at.within("hosts", |at| {
        for (index, host) in hosts.iter().enumerate() {
            let parts = host.split_once('/').filter(|(namespace, _)| !namespace.starts_with('~'));
            let Some((namespace, name)) = parts else { continue };
            let names = seen.entry(namespace).or_default();
            let covered = names.contains("*") || names.contains(name);
            let covers = name == "*" && !names.is_empty();
            names.insert(name);
            if covered || covers || (everything && &**host != "*/*") {
                at.within_index(index, |at| at.remark(twice(host)));
            }
        }
    });
}

fn twice(host: &str) -> impl FnOnce(crate::diagnostic::FieldPath) -> Diagnostic {
    let message = format!("`{host}` and another of these hosts stand for the same names");
    |path| Diagnostic::warning(Code::NoEffect, path, message).fix("the wider of them alone")
}

fn check_ingress(listener: &IngressListener, at: &mut Decoder) {
    check_listener_port(&listener.port, "", at);
    if socket_path(&listener.bind).is_some() {
        at.within("bind", |at| at.invalid("traffic comes to an address, not to a socket", None));
    } else {
        check_bind(&listener.bind, at);
    }
    let protocol = listener.port.protocol.to_ascii_uppercase();
    if let Some(tls) = &listener.tls {
        at.within("tls", |at| check_ingress_tls(tls, &protocol, at));
    }
    if let Some(pool) = &listener.connection_pool {
        at.within("connectionPool", |at| check_pool(pool, at));
    }
    let endpoint = &*listener.default_endpoint;
    if socket_path(endpoint).is_some() {
        return at.within("defaultEndpoint", |at| check_socket(endpoint, at));
    }
    let port_of = |prefix: &str| endpoint.strip_prefix(prefix).and_then(parse_port).is_some();
    let hosts = ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:"];
    if !endpoint.is_empty() && !hosts.into_iter().any(port_of) {
        let path = at.path().field("defaultEndpoint");
        let expected = "`127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`";
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not an endpoint of the workload")
                .expected(expected, format!("`{endpoint}`")),
        );
    }
}

/// Notes what a sidecar has no means for (Istio).
fn check_ingress_tls(tls: &ServerTls, protocol: &str, at: &mut Decoder) {
    if !matches!(protocol, "HTTPS" | "TLS") {
        let fix = Some("`protocol: HTTPS` or `TLS`".to_owned());
        at.invalid(format!("a listener of protocol {protocol} has no TLS settings"), fix);
    }
    let given = [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("caCertCredentialName", !tls.ca_cert_credential_name.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        at.within(field, |at| at.invalid("a sidecar has no such setting", None));
    }
    let mode = tls.mode.unwrap_or_default();
    if matches!(mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        let path = at.path().field("mode");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a mode of sidecars");
        let expected = "SIMPLE, MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH";
        return at.note(finding.expected(expected, mode.as_str()));
    }
    check_termination(tls, at);
}

fn check_outbound(policy: &OutboundTrafficPolicy, at: &mut Decoder) {
    if policy.mode == OutboundTrafficMode::AllowAnyDynamicDns {
        let path = at.path().field("mode");
        let finding = Diagnostic::error(Code::InvalidValue, path, "a mode of the whole mesh");
        let got = policy.mode.as_str();
        at.note(finding.expected("REGISTRY_ONLY or ALLOW_ANY", got).fix("`mode: ALLOW_ANY`"));
    }
    let Some(proxy) = &policy.egress_proxy else { return };
    at.within("egressProxy", |at| {
        if policy.mode != OutboundTrafficMode::AllowAny {
            at.invalid("only mode ALLOW_ANY sends unknown traffic on", None);
        }
        // A missing host is noted already.
        if !proxy.host.is_empty() && !is_domain(&proxy.host) {
            at.within("host", |at| {
                at.invalid(format!("`{}` is not a host name", proxy.host), None)
            });
        } else {
            check_destination(proxy, at);
        }
        if proxy.port.is_none() {
            at.missing("port", None);
        }
    });
}
