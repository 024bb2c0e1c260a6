//! Rules of Gateways and Sidecars.

use std::collections::BTreeSet;

use super::{
    backend::check_pool,
    line::{check_socket, remark_refused_by_ours},
    tls::{check_cipher_suites, check_curves, remark_curves_of_envoy, remark_suites_of_envoy},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_address, check_host, check_range, each, is_dns_name},
        istio::{
            gateway::{Gateway, Server},
            shared::{Port, ServerTls, ServerTlsMode, TlsProtocol},
            sidecar::{EgressListener, IngressListener, Sidecar},
        },
        scalar::parse_port,
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
        let finding = Diagnostic::error(
            Code::InvalidValue,
            at.path().field("protocol"),
            "not a known protocol",
        );
        let mut finding = finding
            .expected(format!("one of {}", PROTOCOLS.join(", ")), format!("`{}`", port.protocol));
        finding.fix = near.map(|n| format!("`{n}`"));
        at.note(finding);
    }
}

pub(in crate::dialect::istio) fn check(gateway: &Gateway, at: &mut Decoder) {
    let mut names = BTreeSet::new();
    each("servers", &gateway.servers, at, |server, at| {
        check_server(server, at);
        let name = &server.port.name;
        // Routes are known by them.
        if !name.is_empty() && !names.insert(name.clone()) {
            at.within("port", |at| {
                at.within("name", |at| at.invalid(format!("a second port `{name}`"), None))
            });
        }
    });
}

fn check_server(server: &Server, at: &mut Decoder) {
    at.within("port", |at| {
        check_port(&server.port, true, at);
        if server.port.name.is_empty() {
            let number = server.port.number;
            let scheme = server.port.protocol.to_ascii_lowercase();
            at.missing("name", Some(format!("a name of its own, such as `{scheme}-{number}`")));
        }
    });
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

/// Protocols of servers that answer HTTP in plaintext, whatever their `tls` says.
const PLAINTEXT_HTTP: &[&str] = &["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", "HTTP_PROXY"];

/// Notes settings that would be read as a guard and do nothing: of `tls`, a plaintext server has
/// `httpsRedirect` alone (Istio: "server cannot have TLS settings for plain text HTTP ports").
fn check_plaintext(tls: &ServerTls, protocol: &str, at: &mut Decoder) {
    let redirect = ServerTls { https_redirect: tls.https_redirect, ..ServerTls::default() };
    let passthrough = ServerTls { mode: Some(ServerTlsMode::Passthrough), ..redirect.clone() };
    if *tls != redirect && *tls != passthrough {
        at.invalid(
            format!("a server of protocol {protocol} is plaintext, and has no TLS settings but `httpsRedirect`"),
            Some("`protocol: HTTPS`, or take the others out".to_owned()),
        );
    }
}

fn check_server_tls(tls: &ServerTls, protocol: &str, at: &mut Decoder) {
    if PLAINTEXT_HTTP.contains(&protocol) {
        return check_plaintext(tls, protocol, at);
    }
    if tls.https_redirect {
        at.within("httpsRedirect", |at| {
            at.invalid(
                "only servers of plaintext HTTP can redirect to https",
                Some("move it to the HTTP server".to_owned()),
            )
        });
    }
    check_cipher_suites(&tls.cipher_suites, at);
    remark_suites_of_envoy(&tls.cipher_suites, at);
    check_curves(&tls.ecdh_curves, at);
    remark_curves_of_envoy(&tls.ecdh_curves, at);
    let mode = tls.mode.unwrap_or_default();
    if matches!(mode, ServerTlsMode::Simple | ServerTlsMode::Passthrough)
        && !tls.subject_alt_names.is_empty()
    {
        let message = "no client certificate is asked for in this mode, so these names do nothing";
        at.within("subjectAltNames", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message).fix("mode `MUTUAL`")
            })
        });
    }
    if mode == ServerTlsMode::Simple {
        remark_client_authorities(tls, at);
    }
    check_pins(tls, mode, at);
    check_files(tls, at);
    let files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let credential = !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    let needs_certificate = matches!(
        mode,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if needs_certificate && !files && !credential {
        at.missing(
            "credentialName",
            Some("name a Secret, or give `serverCertificate` and `privateKey`".to_owned()),
        );
    }
    let by_credential = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let authority = !tls.ca_certificates.is_empty()
        || tls.tls_certificates.iter().any(|pair| !pair.ca_certificates.is_empty());
    let asks = matches!(mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let none_named = tls.ca_cert_credential_name.is_empty() && !authority;
    if asks && (files || credential) && !by_credential && none_named {
        at.missing("caCertificates", Some("give the CA of the clients' certificates".to_owned()));
    }
    check_versions(tls, at);
}

/// Notes pins that are none, or that nobody would look at: a server that seems to be for some
/// clients only must not be for all.
fn check_pins(tls: &ServerTls, mode: ServerTlsMode, at: &mut Decoder) {
    let asks = matches!(
        mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual | ServerTlsMode::IstioMutual
    );
    type Form = (&'static str, fn(&str) -> bool);
    const KEY: Form = ("44 characters of base64, SHA-256 of a key", is_base64_of_hash);
    const CERTIFICATE: Form =
        ("64 hexadecimal digits, or pairs of them with colons between", is_hex_of_hash);
    for (field, pins, (expected, is_pin)) in [
        ("verifyCertificateSpki", &tls.verify_certificate_spki, KEY),
        ("verifyCertificateHash", &tls.verify_certificate_hash, CERTIFICATE),
    ] {
        if pins.is_empty() {
            continue;
        }
        each(field, pins, at, |pin, at| {
            if !is_pin(pin) {
                let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a SHA-256");
                at.note(finding.expected(expected, format!("`{pin}`")));
            }
        });
        at.within(field, |at| match asks {
            true => remark_refused_by_ours("listeners with it", at),
            false => at.invalid(
                "no client certificate is asked for in this mode",
                Some("mode `MUTUAL`".to_owned()),
            ),
        });
    }
}

fn is_base64_of_hash(text: &str) -> bool {
    let digit = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/');
    let digits = text.strip_suffix('=').unwrap_or_default();
    digits.len() == 43 && digits.bytes().all(digit)
}

fn is_hex_of_hash(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let hex = |part: &&str| part.bytes().all(|c| c.is_ascii_hexdigit());
    let lengths = match &pairs[..] {
        [whole] => whole.len() == 64,
        pairs => pairs.len() == 32 && pairs.iter().all(|pair| pair.len() == 2),
    };
    lengths && pairs.iter().all(hex)
}

/// Notes pairs of which a half is missing, and several authorities of clients, of which only one
/// could count.
fn check_files(tls: &ServerTls, at: &mut Decoder) {
    if !tls.tls_certificates.is_empty() && !tls.server_certificate.is_empty() {
        at.invalid(
            "only one of `serverCertificate`, `tlsCertificates` may be given",
            Some("all pairs in `tlsCertificates`".to_owned()),
        );
    }
    let mut authorities: BTreeSet<&str> = BTreeSet::from([&*tls.ca_certificates]);
    authorities.extend(tls.tls_certificates.iter().map(|pair| &*pair.ca_certificates));
    authorities.remove("");
    each("tlsCertificates", &tls.tls_certificates, at, |pair, at| {
        for (field, path) in
            [("serverCertificate", &pair.server_certificate), ("privateKey", &pair.private_key)]
        {
            if path.is_empty() {
                at.missing(field, Some("a path on the gateway's disk".to_owned()));
            }
        }
    });
    if authorities.len() > 1 {
        let message = "several authorities of clients, of which a server has one";
        at.within("caCertificates", |at| {
            at.invalid(message, Some("one bundle with all of them".to_owned()))
        });
    }
}

/// Says that nobody is asked for a certificate whose authority is named.
fn remark_client_authorities(tls: &ServerTls, at: &mut Decoder) {
    let named = [
        ("caCertificates", &tls.ca_certificates),
        ("caCertCredentialName", &tls.ca_cert_credential_name),
    ];
    for (field, _) in named.into_iter().filter(|(_, name)| !name.is_empty()) {
        let message =
            "no client certificate is asked for in mode SIMPLE, so this authority does nothing";
        at.within(field, |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message).fix("mode `MUTUAL`")
            })
        });
    }
}

/// Notes a range without any version, and says where our own proxy has none of it.
fn check_versions(tls: &ServerTls, at: &mut Decoder) {
    let given = |version: Option<TlsProtocol>| version.filter(|v| *v != TlsProtocol::Auto);
    let Some(max) = given(tls.max_protocol_version) else { return };
    let min = given(tls.min_protocol_version);
    if min.unwrap_or(TlsProtocol::V1_2) > max {
        let path = at.path().field("maxProtocolVersion");
        let expected = match min {
            Some(min) => format!("at least `minProtocolVersion`, {}", min.as_str()),
            None => "at least TLSV1_2, which holds where `minProtocolVersion` is not given".into(),
        };
        let message = "`minProtocolVersion` is above `maxProtocolVersion`";
        let finding = Diagnostic::error(Code::InvalidValue, path, message);
        at.note(finding.expected(expected, max.as_str()));
    } else if max < TlsProtocol::V1_2 {
        at.within("maxProtocolVersion", |at| remark_refused_by_ours("listeners with it", at));
    }
}

pub(in crate::dialect::istio) fn check_sidecar(sidecar: &Sidecar, at: &mut Decoder) {
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
            at.invalid(
                format!("`{host}` does not say which namespace"),
                Some(format!("`./{host}` or `*/{host}`")),
            );
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
    let port_of = |prefix: &str| endpoint.strip_prefix(prefix).and_then(parse_port).is_some();
    if endpoint.starts_with("unix://") {
        at.within("defaultEndpoint", |at| check_socket(endpoint, at));
    }
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
