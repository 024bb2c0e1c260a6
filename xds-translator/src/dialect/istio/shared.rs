//! Types that several Istio kinds use.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::dialect::{
    decode::Decoder,
    schema::{Decode, ObjectSchema, Shape, choice, object},
};

/// A condition on a text: at most one of `exact`, `prefix`, `regex`; none of them asks only that
/// the text is there.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub enum StringMatch {
    /// `{}`: present.
    #[default]
    Present,
    /// `exact`.
    Exact(Arc<str>),
    /// `prefix`.
    Prefix(Arc<str>),
    /// `regex`, RE2.
    Regex(Arc<str>),
}

object! { no_null;
    /// A condition on a text: one of its fields.
    StringMatchFields {
        /// Equal to this.
        "exact" exact: Option<Arc<str>>,
        /// Begins with this.
        "prefix" prefix: Option<Arc<str>>,
        /// The whole text matches this RE2 expression.
        "regex" regex: Option<Arc<str>>,
    }
}

impl StringMatch {
    /// The schema of the fields.
    pub const SCHEMA: &'static ObjectSchema = StringMatchFields::SCHEMA;
}

impl Decode for StringMatch {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        if let Some(text) = value.as_str() {
            at.wrong_type("an object", value, Some(format!("{{exact: {text:?}}}")));
            return Self::default();
        }
        let fields = StringMatchFields::decode(value, at);
        let mut given = [
            fields.exact.map(Self::Exact),
            fields.prefix.map(Self::Prefix),
            fields.regex.map(Self::Regex),
        ]
        .into_iter()
        .flatten();
        let first = given.next();
        if given.next().is_some() {
            at.invalid("only one of `exact`, `prefix`, `regex` may be given", None);
        }
        first.unwrap_or_default()
    }

    /// Only the name is given: it must be there (Istio `HTTPMatchRequest.headers`).
    fn decode_null(_: &mut Decoder) -> Self {
        Self::Present
    }

    fn shape() -> Shape {
        StringMatchFields::shape()
    }
}

object! { no_null;
    /// Selects workloads by labels (`selector`); without labels: all in its scope.
    WorkloadSelector {
        /// Every one of these labels must be there with this value.
        "matchLabels" match_labels: BTreeMap<Arc<str>, Arc<str>>,
    }
}

object! { no_null;
    /// Selects workloads by labels (`workloadSelector` of networking kinds); without labels: all in
    /// its scope.
    LabelSelector {
        /// Every one of these labels must be there with this value.
        "labels" labels: BTreeMap<Arc<str>, Arc<str>>,
    }
}

object! {
    /// A port that an object declares.
    Port {
        /// Number, 1 to 65535.
        "number" number: u16 [required],
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, REDIS, MYSQL, TCP or TLS; without case.
        "protocol" protocol: Arc<str>,
        /// Its name.
        "name" name: Arc<str>,
        /// Where it arrives at the workload; absent or 0: the same number.
        "targetPort" target_port: u16,
    }
}

object! {
    /// A share in percent.
    Percent {
        /// 0.0 to 100.0.
        "value" value: f64,
    }
}

object! { no_null;
    /// The object a policy is attached to instead of a selector.
    TargetRef {
        /// API group.
        "group" group: Arc<str>,
        /// Kind.
        "kind" kind: Arc<str> [required],
        /// Name.
        "name" name: Arc<str> [required],
        /// Namespace; only the policy's own.
        "namespace" namespace: Arc<str>,
    }
}

choice! {
    /// A TLS version.
    TlsProtocol {
        /// Chosen by the proxy.
        Auto = "TLS_AUTO",
        /// 1.0.
        V1_0 = "TLSV1_0",
        /// 1.1.
        V1_1 = "TLSV1_1",
        /// 1.2.
        V1_2 = "TLSV1_2",
        /// 1.3.
        V1_3 = "TLSV1_3",
    }
}

object! { no_null;
    /// What a server does with TLS (Gateway servers, Sidecar ingress).
    ServerTls {
        /// Answer plaintext requests with 301 to https.
        "httpsRedirect" https_redirect: bool,
        /// What is done with the connection.
        "mode" mode: Option<ServerTlsMode>,
        /// Path of the certificate on the proxy's disk.
        "serverCertificate" server_certificate: Arc<str>,
        /// Path of its key.
        "privateKey" private_key: Arc<str>,
        /// Path of the CA bundle for client certificates.
        "caCertificates" ca_certificates: Arc<str>,
        /// Path of the lists of revoked certificates, one of each CA of clients.
        "caCrl" ca_crl: Arc<str>,
        /// Secret with certificate and key, in the namespace of the gateway's pods.
        "credentialName" credential_name: Arc<str>,
        /// Several Secrets (RSA and ECDSA).
        "credentialNames" credential_names: Vec<Arc<str>>,
        /// Secret with the CA of clients; default `NAME-cacert`.
        "caCertCredentialName" ca_cert_credential_name: Arc<str>,
        /// Certificates on the proxy's disk, several.
        "tlsCertificates" tls_certificates: Vec<TlsCertificate>,
        /// Names that client certificates must carry.
        "subjectAltNames" subject_alt_names: Vec<Arc<str>>,
        /// Accepted keys of clients: SHA-256 of each in base64. One of these or of
        /// `verifyCertificateHash` must fit.
        "verifyCertificateSpki" verify_certificate_spki: Vec<Arc<str>>,
        /// Accepted certificates of clients: SHA-256 of each in hexadecimal.
        "verifyCertificateHash" verify_certificate_hash: Vec<Arc<str>>,
        /// Least version.
        "minProtocolVersion" min_protocol_version: Option<TlsProtocol>,
        /// Greatest version.
        "maxProtocolVersion" max_protocol_version: Option<TlsProtocol>,
        /// Cipher suites, by OpenSSL name.
        "cipherSuites" cipher_suites: Vec<Arc<str>>,
        /// Curves.
        "ecdhCurves" ecdh_curves: Vec<Arc<str>>,
        /// Do not verify client certificates.
        "insecureSkipVerify" insecure_skip_verify: Option<bool>
            [idle("what clients prove is verified as `mode` says")],
    }
}

object! { no_null;
    /// A certificate on the proxy's disk.
    TlsCertificate {
        /// Path of the certificate.
        "serverCertificate" server_certificate: Arc<str>,
        /// Path of its key.
        "privateKey" private_key: Arc<str>,
        /// Path of the CA bundle for client certificates; one for all of them.
        "caCertificates" ca_certificates: Arc<str>,
    }
}

choice! {
    /// What a server does with TLS.
    ServerTlsMode {
        /// Left alone, routed by SNI.
        Passthrough = "PASSTHROUGH",
        /// Terminated.
        Simple = "SIMPLE",
        /// Terminated, a client certificate is demanded.
        Mutual = "MUTUAL",
        /// Left alone, routed by the mesh's SNI form.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// Terminated with the mesh's certificates.
        IstioMutual = "ISTIO_MUTUAL",
        /// Terminated, a client certificate is checked if there is one.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }
}
