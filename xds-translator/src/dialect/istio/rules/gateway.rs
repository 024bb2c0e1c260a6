//! Rules of Gateways.

use std::collections::BTreeSet;

use super::{
    line::{check_socket, remark_refused_by_ours, socket_path},
    tls::{check_cipher_suites, check_curves, remark_curves_of_envoy, remark_suites_of_envoy},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_address, check_host, check_range, each, is_label},
        istio::{
            gateway::{Gateway, Server},
            shared::{Port, ServerTls, ServerTlsMode, TlsProtocol},
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
    check_protocol(port, protocol_needed, at);
}

/// Notes a port of a listener: one on a Unix socket has the number 0, any other has another.
pub(super) fn check_bound_port(port: &Port, bind: &str, protocol_needed: bool, at: &mut Decoder) {
    let on_socket = socket_path(bind).is_some();
    if on_socket && port.number != 0 {
        let path = at.path().field("number");
        let finding = Diagnostic::error(Code::InvalidValue, path, "a Unix socket has no port");
        let finding = finding.expected("0", port.number.to_string()).instead(0);
        at.note(finding.fix("`number: 0`"));
    }
    if !on_socket && port.number == 0 {
        check_range("number", 0, 1..=65535, at);
    }
    check_protocol(port, protocol_needed, at);
    if port.target_port != 0 {
        at.within("targetPort", |at| {
            let fix = Some("take it out; Services lead to the ports of pods".to_owned());
            at.invalid("means nothing for a listener", fix);
        });
    }
}

fn check_protocol(port: &Port, protocol_needed: bool, at: &mut Decoder) {
    let protocol = port.protocol.to_ascii_uppercase();
    if protocol.is_empty() {
        if protocol_needed {
            at.missing("protocol", Some("such as `HTTP`, `HTTPS`, `TLS` or `TCP`".to_owned()));
        }
    } else if !PROTOCOLS.contains(&&*protocol) {
        let finding = Diagnostic::error(
            Code::InvalidValue,
            at.path().field("protocol"),
            "not a known protocol",
        );
        let finding = finding
            .expected(format!("one of {}", PROTOCOLS.join(", ")), format!("`{}`", port.protocol));
        at.note(suggest::advise(finding, &protocol, PROTOCOLS.iter().copied()));
    }
}

pub(in crate::dialect::istio) fn check(gateway: &Gateway, at: &mut Decoder) {
    check_name(at);
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

/// Notes a name that no VirtualService could write: `gateways` tells namespaces by dots.
fn check_name(at: &mut Decoder) {
    let name = at.name().to_owned();
    if !name.is_empty() && !is_label(&name) {
        let path = crate::diagnostic::FieldPath::of("metadata.name");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not the name of a Gateway");
        let finding = finding.expected("a name without dots", format!("`{name}`"));
        at.note(finding.fix(format!("`{}`", name.replace('.', "-"))));
    }
}

fn check_server(server: &Server, at: &mut Decoder) {
    at.within("port", |at| {
        check_bound_port(&server.port, &server.bind, true, at);
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

/// Notes what nothing can be bound to.
pub(super) fn check_bind(bind: &str, at: &mut Decoder) {
    at.within("bind", |at| match socket_path(bind) {
        Some(_) => check_socket(bind, at),
        None if bind.is_empty() => {}
        None => check_address(bind, at),
    });
}

fn check_scoped_host(host: &str, at: &mut Decoder) {
    let Some((namespace, host)) = host.split_once('/') else {
        return check_whole_host(host, HostForm::WildcardOrAddress, at);
    };
    if !matches!(namespace, "*" | ".") && !is_label(namespace) {
        at.invalid(format!("`{namespace}` is not a namespace, `*` or `.`"), None);
    }
    check_whole_host(host, HostForm::WildcardOrAddress, at);
}

/// Notes a host that is none, or a short one, which nothing would complete.
pub(super) fn check_whole_host(host: &str, form: HostForm, at: &mut Decoder) {
    if host != "*" && !host.is_empty() && !host.contains(['.', ':']) {
        let fix = Some(format!("`{host}.{}.svc.cluster.local`, or its domain", at.namespace()));
        return at.invalid(format!("`{host}` is short: a whole name is expected"), fix);
    }
    check_host(host, form, at);
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
    // Of another, which is noted already, nothing is known.
    if PROTOCOLS.contains(&protocol) && !matches!(protocol, "HTTPS" | "TLS") {
        let fix = Some("`protocol: TLS`, or take it out".to_owned());
        at.invalid(format!("a server of protocol {protocol} has no TLS settings"), fix);
    }
    if tls.https_redirect {
        at.within("httpsRedirect", |at| {
            let message = "clients speak TLS here: nothing is redirected but what a trusted proxy in \
                           front marks as plain http (x-forwarded-proto)";
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message).fix("move it to the HTTP server")
            })
        });
    }
    check_termination(tls, at);
}

/// Notes settings of TLS that do not go together, whoever terminates it.
pub(super) fn check_termination(tls: &ServerTls, at: &mut Decoder) {
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
    check_certificates(tls, mode, at);
    check_versions(tls, at);
}

/// Notes a certificate that is missing, given twice, or given where none is used.
fn check_certificates(tls: &ServerTls, mode: ServerTlsMode, at: &mut Decoder) {
    let files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let credential = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let sources = [
        files,
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    match mode {
        ServerTlsMode::IstioMutual => return check_mesh_certificates(tls, at),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            return remark_unused_certificates(tls, mode, at);
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    if sources.iter().filter(|given| **given).count() > 1 {
        at.invalid(
            "only one of `credentialName`, `credentialNames`, `tlsCertificates`, or \
             `serverCertificate` with `privateKey`, may be given",
            None,
        );
    }
    for (field, count) in [
        ("credentialNames", tls.credential_names.len()),
        ("tlsCertificates", tls.tls_certificates.len()),
    ] {
        if count > MOST_CERTIFICATES {
            let message = format!("{count} of them; at most {MOST_CERTIFICATES} are allowed");
            at.within(field, |at| at.invalid(message, None));
        }
    }
    check_files(tls, at);
    if !sources.contains(&true) {
        at.missing(
            "credentialName",
            Some("name a Secret, or give `serverCertificate` and `privateKey`".to_owned()),
        );
    }
    let authority = !tls.ca_certificates.is_empty()
        || tls.tls_certificates.iter().any(|pair| !pair.ca_certificates.is_empty());
    let asks = matches!(mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let none_named = tls.ca_cert_credential_name.is_empty() && !authority;
    if asks && sources.contains(&true) && !credential && none_named {
        at.missing("caCertificates", Some("give the CA of the clients' certificates".to_owned()));
    }
    // Whose CA is in a Secret has its list there: a file beside it would keep nobody out.
    let from_credential = !tls.ca_cert_credential_name.is_empty() || (credential && !authority);
    if asks && from_credential && !tls.ca_crl.is_empty() {
        at.within("caCrl", |at| {
            let fix = Some("put the list into the Secret of the CA, as `ca.crl`".to_owned());
            at.invalid("the CA of the clients is in a Secret, and this in a file", fix);
        });
    }
}

/// One of each kind of key.
const MOST_CERTIFICATES: usize = 2;

/// The certificates that are given, each with its field.
fn given_certificates(tls: &ServerTls) -> impl Iterator<Item = &'static str> {
    let given = [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field)
}

fn check_mesh_certificates(tls: &ServerTls, at: &mut Decoder) {
    for field in given_certificates(tls) {
        at.within(field, |at| {
            let fix = Some("take it out, or mode `MUTUAL`".to_owned());
            at.invalid("mode ISTIO_MUTUAL uses the mesh's own certificates", fix);
        });
    }
}

fn remark_unused_certificates(tls: &ServerTls, mode: ServerTlsMode, at: &mut Decoder) {
    for field in given_certificates(tls) {
        let message = format!("mode {} terminates nothing, so it is not used", mode.as_str());
        at.within(field, |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message)
                    .fix("take it out, or mode `SIMPLE`")
            });
        });
    }
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
    let own = [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)];
    let half = own.iter().any(|(_, path)| !path.is_empty());
    for (field, _) in own.into_iter().filter(|(_, path)| half && path.is_empty()) {
        at.missing(field, Some("a certificate goes with its key".to_owned()));
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
        ("caCrl", &tls.ca_crl),
    ];
    for (field, _) in named.into_iter().filter(|(_, name)| !name.is_empty()) {
        let message = "no client certificate is asked for in mode SIMPLE, so this does nothing";
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
