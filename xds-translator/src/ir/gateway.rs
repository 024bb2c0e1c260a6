//! Gateway listeners: what a gateway proxy opens to clients outside the mesh.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Field, Hostname, Origin, Selector, TlsWords};

/// One gateway configuration object (Istio `Gateway`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct GatewayConfig {
    /// The object.
    pub origin: Origin,
    /// Selects gateway workloads by label, in every namespace; empty selects all gateways.
    pub selector: Selector,
    /// Servers, in the order written.
    pub servers: Vec<GatewayServer>,
}

/// One server of a gateway.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct GatewayServer {
    /// Where it is written.
    pub at: Field,
    /// The port clients of the gateway's Service use; mapped to a listener port by that Service.
    pub port: u16,
    /// The port's name; part of the HTTPS route name.
    pub port_name: Arc<str>,
    /// What is spoken.
    pub protocol: GatewayProtocol,
    /// Address to bind; `None`: all.
    pub bind: Option<IpAddr>,
    /// Hosts that may be served; never empty.
    pub hosts: Vec<GatewayHost>,
    /// `tls.httpsRedirect`: answer plaintext with 301.
    pub https_redirect: bool,
    /// TLS; `None` on plaintext servers.
    pub tls: Option<ServerTls>,
}

/// Protocol of a gateway server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum GatewayProtocol {
    /// HTTP, HTTP2, GRPC, GRPC-WEB.
    Http,
    /// HTTPS: TLS that is terminated, then HTTP (or passed through).
    Https,
    /// TLS, then TCP.
    Tls,
    /// TCP.
    Tcp,
}

/// A host of a gateway server with the namespaces whose routes may bind to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct GatewayHost {
    /// `None`: any namespace; `.` is already resolved.
    pub namespace: Option<Arc<str>>,
    /// The host; may be a wildcard.
    pub host: Hostname,
}

/// Server-side TLS of a gateway.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ServerTls {
    /// What is done with the connection.
    pub mode: ServerTlsMode,
    /// Credential names (Secrets in the namespace of the gateway's workload); may be empty.
    pub credentials: Vec<Arc<str>>,
    /// A credential with the CA of clients, when it is not `NAME-cacert`.
    pub ca_credential: Option<Arc<str>>,
    /// Certificates on the gateway's disk, with their keys; paths, never empty. Used where no
    /// credential is named.
    pub files: Vec<(Arc<str>, Arc<str>)>,
    /// Path of the CA bundle for clients; empty for none.
    pub ca_file: Arc<str>,
    /// Path of the lists of what the authorities in `ca_file` have revoked; empty for none.
    pub crl_file: Arc<str>,
    /// Names that client certificates must carry; may be empty.
    pub subject_alt_names: Vec<Arc<str>>,
    /// What client certificates must be, beside what their authority says.
    pub pins: Pins,
    /// Minimum version; `None`: Envoy's default.
    pub min_version: Option<TlsVersion>,
    /// Maximum version; `None`: Envoy's default.
    pub max_version: Option<TlsVersion>,
    /// What may be negotiated.
    pub words: TlsWords,
    /// Where each of `credentials` is written, in their order.
    pub credential_fields: Vec<Field>,
    /// Where `ca_credential` is written, or would be.
    pub ca_credential_field: Field,
}

/// The client certificates that are taken; one of either list. Both empty: every one that an
/// authority vouches for.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Pins {
    /// SHA-256 of keys, in base64.
    pub keys: Vec<Arc<str>>,
    /// SHA-256 of certificates, in hexadecimal.
    pub certificates: Vec<Arc<str>>,
}

/// What a gateway does with TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ServerTlsMode {
    /// Leaves it alone and routes by SNI.
    Passthrough,
    /// Terminates it.
    Simple,
    /// Terminates it and demands a client certificate.
    Mutual,
    /// Terminates it and checks a client certificate if there is one.
    OptionalMutual,
    /// Terminates it with the mesh's own certificates.
    MeshMutual,
    /// Leaves it alone and routes by the mesh's SNI form.
    AutoPassthrough,
}

/// A TLS version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum TlsVersion {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}
