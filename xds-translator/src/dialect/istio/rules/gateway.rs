//! Rules of Gateways and Sidecars.

use super::{
    backend::check_pool,
    check_range, each,
    text::{HostForm, check_address, check_host, is_dns_name},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        istio::{
            gateway::{Gateway, Server},
            shared::{Port, ServerTls, ServerTlsMode},
            sidecar::{EgressListener, IngressListener, Sidecar},
        },
        suggest,
    },
};

/// Protocols a declared port may have.
const PROTOCOLS: &[&str] = &[
    "HTTP",
    "HTTPS",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "GRPC_WEB",
    "TCP",
    "TLS",
    "MONGO",
    "REDIS",
    "MYSQL",
    "UDP",
    "HTTP_PROXY",
    "HBONE",
];

/// Notes a port without number or of an unknown protocol.
pub(super) fn check_port(port: &Port, protocol_needed: bool, at: &mut Decoder) {
    if port.number == 0 {
        check_range("number", 0, 1..=65535, at);
    }
    let protocol = port.protocol.to_ascii_uppercase();
    if protocol.is_empty() {
        if protocol_needed {
            at.missing("protocol", Some("such as `HTTP`, `HTTPS`, `TLS` or `TCP`".to_owned()));
        }
    } else if !PROTOCOLS.contains(&&*protocol) {
        let near = suggest::nearest(&protocol, PROTOCOLS.iter().copied());
        let finding = Diagnostic::error(Code::InvalidValue, at.path().field("protocol"), "not a known protocol");
        let mut finding = finding.expected(format!("one of {}", PROTOCOLS.join(", ")), format!("`{}`", port.protocol));
        finding.fix = near.map(|n| format!("`{n}`"));
        at.note(finding);
    }
}

pub(super) fn check(gateway: &Gateway, at: &mut Decoder) {
    each("servers", &gateway.servers, at, check_server);
}

fn check_server(server: &Server, at: &mut Decoder) {
    at.within("port", |at| check_port(&server.port, true, at));
    each("hosts", &server.hosts, at, |host, at| check_scoped_host(host, at));
    check_bind(&server.bind, at);
    let protocol = server.port.protocol.to_ascii_uppercase();
    match &server.tls {
        None if matches!(&*protocol, "HTTPS" | "TLS") => {
            at.missing("tls", Some("`tls: {mode: SIMPLE, credentialName: …}`".to_owned()));
        }
        None => {}
        Some(tls) => at.within("tls", |at| check_server_tls(tls, &protocol, at)),
    }
}

fn check_bind(bind: &str, at: &mut Decoder) {
    if !bind.is_empty() && !bind.starts_with("unix://") {
        at.within("bind", |at| check_address(bind, at));
    }
}

fn check_scoped_host(host: &str, at: &mut Decoder) {
    match host.split_once('/') {
        None => check_host(host, HostForm::Wildcard, at),
        Some((namespace, host)) => {
            if !matches!(namespace, "*" | "." | "~") && !is_dns_name(namespace) {
                at.invalid(format!("`{namespace}` is not a namespace, `*`, `.` or `~`"), None);
            }
            check_host(host, HostForm::Wildcard, at);
        }
    }
}

fn check_server_tls(tls: &ServerTls, protocol: &str, at: &mut Decoder) {
    let encrypted = matches!(protocol, "HTTPS" | "TLS");
    if tls.https_redirect && encrypted {
        at.within("httpsRedirect", |at| {
            at.invalid("only plaintext servers can redirect to https", Some("move it to the HTTP server".to_owned()))
        });
    }
    if !encrypted {
        return;
    }
    let mode = tls.mode.unwrap_or_default();
    if mode == ServerTlsMode::AutoPassthrough {
        let message = "not acted on yet: the server takes no connections";
        at.within("mode", |at| at.remark(|path| Diagnostic::info(Code::NotActedOn, path, message)));
    }
    let files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let credential =
        !tls.credential_name.is_empty() || !tls.credential_names.is_empty() || !tls.tls_certificates.is_empty();
    let needs_certificate =
        matches!(mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if needs_certificate && !files && !credential {
        at.missing("credentialName", Some("name a Secret, or give `serverCertificate` and `privateKey`".to_owned()));
    }
    if mode == ServerTlsMode::Mutual && files && !credential && tls.ca_certificates.is_empty() {
        at.missing("caCertificates", Some("give the CA of the clients' certificates".to_owned()));
    }
    if let (Some(min), Some(max)) = (tls.min_protocol_version, tls.max_protocol_version)
        && min > max
        && max != crate::dialect::istio::shared::TlsProtocol::Auto
    {
        at.invalid("`minProtocolVersion` is above `maxProtocolVersion`", None);
    }
}

pub(super) fn check_sidecar(sidecar: &Sidecar, at: &mut Decoder) {
    each("egress", &sidecar.egress, at, check_egress);
    each("ingress", &sidecar.ingress, at, check_ingress);
    if let Some(pool) = &sidecar.inbound_connection_pool {
        at.within("inboundConnectionPool", |at| check_pool(pool, at));
    }
}

fn check_egress(listener: &EgressListener, at: &mut Decoder) {
    if let Some(port) = &listener.port
        && !listener.bind.starts_with("unix://")
    {
        at.within("port", |at| check_port(port, false, at));
    }
    if listener.port.is_none() && !listener.bind.is_empty() {
        at.missing("port", Some("`bind` needs a port".to_owned()));
    }
    check_bind(&listener.bind, at);
    each("hosts", &listener.hosts, at, |host, at| {
        if host.contains('/') {
            check_scoped_host(host, at);
        } else {
            at.invalid(format!("`{host}` does not say which namespace"), Some(format!("`./{host}` or `*/{host}`")));
        }
    });
}

fn check_ingress(listener: &IngressListener, at: &mut Decoder) {
    at.within("port", |at| check_port(&listener.port, false, at));
    check_bind(&listener.bind, at);
    if let Some(pool) = &listener.connection_pool {
        at.within("connectionPool", |at| check_pool(pool, at));
    }
    let endpoint = &*listener.default_endpoint;
    let port_of =
        |prefix: &str| endpoint.strip_prefix(prefix).and_then(|p| p.parse::<u16>().ok()).is_some_and(|p| p > 0);
    let valid = endpoint.is_empty()
        || endpoint.strip_prefix("unix://").is_some_and(|path| !path.is_empty())
        || ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:"].into_iter().any(port_of);
    if !valid {
        let path = at.path().field("defaultEndpoint");
        let expected = "`127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`";
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not an endpoint of the workload")
                .expected(expected, format!("`{endpoint}`")),
        );
    }
}
