//! Gateways.

use std::{net::IpAddr, sync::Arc};

use crate::dialect::lowering::Lowering;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::{
        gateway::{Gateway, Server},
        shared::{ServerTls as Declared, ServerTlsMode as Mode, TlsProtocol},
    },
    ir::{
        GatewayConfig, GatewayHost, GatewayProtocol, GatewayServer, Hostname, Pins, ServerTls,
        ServerTlsMode, TlsVersion, TlsWords,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn gateway(&mut self, spec: &Gateway) -> Item {
        let servers = spec.servers.iter().enumerate();
        Item::Gateway(Arc::new(GatewayConfig {
            origin: self.origin(),
            selector: spec.selector.clone().into(),
            servers: servers
                .filter_map(|(i, s)| self.server(&FieldPath::of("spec.servers").index(i), s))
                .collect(),
        }))
    }

    fn server(&mut self, at: &FieldPath, server: &Server) -> Option<GatewayServer> {
        let protocol = match &*server.port.protocol.to_ascii_uppercase() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => GatewayProtocol::Http,
            "HTTPS" => GatewayProtocol::Https,
            "TLS" => GatewayProtocol::Tls,
            "TCP" | "MONGO" | "MYSQL" | "REDIS" => GatewayProtocol::Tcp,
            other => {
                let expected =
                    "HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, REDIS, MYSQL, TCP or TLS";
                self.invalid(at.field("port").field("protocol"), expected, other);
                return None;
            }
        };
        let secure = matches!(protocol, GatewayProtocol::Https | GatewayProtocol::Tls);
        if secure && server.tls.is_none() {
            let message = format!("a server that speaks {} needs `tls`", server.port.protocol);
            self.note(Diagnostic::error(Code::MissingField, at.field("tls"), message));
            return None;
        }
        // A TCP server may terminate TLS; an HTTP server's `tls` only redirects.
        let terminates = secure || protocol == GatewayProtocol::Tcp;
        Some(GatewayServer {
            at: at.to_string().into(),
            port: server.port.number,
            port_name: server.port.name.clone(),
            protocol,
            bind: self.bind(
                at,
                &server.bind,
                "gateways on Unix sockets are not served yet; the server is left out",
            )?,
            hosts: server.hosts.iter().map(|h| self.gateway_host(h)).collect(),
            https_redirect: server.tls.as_ref().is_some_and(|t| t.https_redirect),
            tls: server
                .tls
                .as_ref()
                .filter(|_| terminates)
                .map(|tls| lower_tls(&at.field("tls"), tls)),
        })
    }

    /// The address to bind; `Some(None)`: none is written. `None`: it cannot be bound, which was
    /// said, of a Unix socket by these words.
    pub(super) fn bind(
        &mut self,
        at: &FieldPath,
        bind: &str,
        unix_socket: &str,
    ) -> Option<Option<IpAddr>> {
        match (bind, bind.parse()) {
            ("", _) => Some(None),
            (_, Ok(ip)) => Some(Some(ip)),
            _ if bind.starts_with("unix:") => {
                self.unserved(at.field("bind"), unix_socket);
                None
            }
            _ => {
                self.invalid(at.field("bind"), "an IP address", bind);
                None
            }
        }
    }

    fn gateway_host(&self, text: &str) -> GatewayHost {
        let (namespace, host) = match text.split_once('/') {
            Some(("*", host)) => (None, host),
            Some((".", host)) => (Some(self.namespace().clone()), host),
            Some((namespace, host)) => (Some(namespace.into()), host),
            None => (None, text),
        };
        GatewayHost { namespace, host: Hostname::new(host) }
    }
}

pub(super) fn lower_tls(at: &FieldPath, tls: &Declared) -> ServerTls {
    let several = tls.credential_names.iter().enumerate();
    let several = several.map(|(i, name)| (name, at.field("credentialNames").index(i)));
    let named = std::iter::once((&tls.credential_name, at.field("credentialName"))).chain(several);
    let (credentials, credential_fields) = named
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, field)| (name.clone(), field.to_string().into()))
        .unzip();
    ServerTls {
        mode: match tls.mode.unwrap_or_default() {
            Mode::Passthrough => ServerTlsMode::Passthrough,
            Mode::Simple => ServerTlsMode::Simple,
            Mode::Mutual => ServerTlsMode::Mutual,
            Mode::OptionalMutual => ServerTlsMode::OptionalMutual,
            Mode::IstioMutual => ServerTlsMode::MeshMutual,
            Mode::AutoPassthrough => ServerTlsMode::AutoPassthrough,
        },
        credentials,
        ca_credential: (!tls.ca_cert_credential_name.is_empty())
            .then(|| tls.ca_cert_credential_name.clone()),
        files: certificate_files(tls),
        ca_file: client_authority(tls),
        crl_file: tls.ca_crl.clone(),
        subject_alt_names: tls.subject_alt_names.clone(),
        pins: Pins {
            keys: tls.verify_certificate_spki.clone(),
            certificates: tls.verify_certificate_hash.clone(),
        },
        min_version: tls.min_protocol_version.and_then(version),
        max_version: tls.max_protocol_version.and_then(version),
        words: TlsWords::new(&tls.cipher_suites, &tls.ecdh_curves),
        credential_fields,
        ca_credential_field: at.field("caCertCredentialName").to_string().into(),
    }
}

/// The pairs on the proxy's disk; `tlsCertificates` takes the place of the single pair.
fn certificate_files(tls: &Declared) -> Vec<(Arc<str>, Arc<str>)> {
    let single = std::iter::once((&tls.server_certificate, &tls.private_key));
    let several = tls.tls_certificates.iter().map(|c| (&c.server_certificate, &c.private_key));
    let complete =
        |(certificate, key): &(&Arc<str>, &Arc<str>)| !certificate.is_empty() && !key.is_empty();
    let chosen: Vec<_> = match tls.tls_certificates.is_empty() {
        true => single.filter(complete).collect(),
        false => several.filter(complete).collect(),
    };
    chosen.into_iter().map(|(certificate, key)| (certificate.clone(), key.clone())).collect()
}

/// The bundle for client certificates, wherever it is written ([`super::super::rules`] holds that
/// there is one).
fn client_authority(tls: &Declared) -> Arc<str> {
    let several = tls.tls_certificates.iter().map(|c| &c.ca_certificates);
    let mut named = std::iter::once(&tls.ca_certificates).chain(several);
    named.find(|path| !path.is_empty()).cloned().unwrap_or_default()
}

fn version(version: TlsProtocol) -> Option<TlsVersion> {
    match version {
        TlsProtocol::Auto => None,
        TlsProtocol::V1_0 => Some(TlsVersion::V1_0),
        TlsProtocol::V1_1 => Some(TlsVersion::V1_1),
        TlsProtocol::V1_2 => Some(TlsVersion::V1_2),
        TlsProtocol::V1_3 => Some(TlsVersion::V1_3),
    }
}
