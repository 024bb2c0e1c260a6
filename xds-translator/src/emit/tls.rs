//! TLS contexts on both sides: where certificates and trust come from, who is accepted, what is
//! negotiated.

use std::{sync::Arc, time::Duration};

use super::{
    any::{boolean, duration, names, transport_socket},
    pb::{core, matcher, tls},
};
use crate::{
    ir::{Pins, TlsVersion, TlsWords},
    plan::{DownstreamTls, SanMatch, SecretRef, TrustRef, UpstreamTls},
};

/// The agent's SDS server, a static cluster of the bootstrap.
const SDS_CLUSTER: &str = "sds-grpc";
/// The secret with the workload's certificate.
const WORKLOAD_SECRET: &str = "default";
/// Envoy's spelling of a wait that ends only with what is waited for.
const FOR_EVER: Duration = Duration::ZERO;
/// The secret with the mesh's roots.
const ROOTS_SECRET: &str = "ROOTCA";
/// The roots of the public PKI, as a file: only the proxy's machine knows where they are.
const SYSTEM_ROOTS: &str = "system";
/// How long Envoy waits for a secret that lies in a file. Where that is missing, the resource is
/// put in force without it, which closes it; waiting for ever would leave the one before in force,
/// perhaps in plaintext.
const WAIT_FOR_FILE: Duration = Duration::from_secs(1);

/// A cluster's TLS socket.
pub(super) fn upstream(plan: &UpstreamTls) -> core::TransportSocket {
    let accepted = accepted(&plan.sans, &Pins::default());
    let mut common = common(plan.certificate.as_slice(), plan.trust.as_ref(), accepted, &plan.alpn);
    // Envoy's own limit for a client is TLS 1.2 (`TlsParameters.tls_maximum_protocol_version`).
    common.tls_params = versions(Some(TlsVersion::V1_2), Some(TlsVersion::V1_3), &plan.words);
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: plan.sni.to_string(),
        ..Default::default()
    };
    transport_socket(names::TLS, &context)
}

/// A filter chain's TLS socket.
pub(super) fn downstream(plan: &DownstreamTls) -> core::TransportSocket {
    let accepted = accepted(&plan.sans, &plan.pins);
    let mut common = common(&plan.certificates, plan.trust.as_ref(), accepted, &plan.alpn);
    common.tls_params = versions(plan.min_version, plan.max_version, &plan.words);
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: boolean(plan.require_client),
        ..Default::default()
    };
    transport_socket(names::TLS, &context)
}

fn common(
    certificates: &[SecretRef],
    trust: Option<&TrustRef>,
    accepted: tls::CertificateValidationContext,
    alpn: &[Arc<str>],
) -> tls::CommonTlsContext {
    tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates.iter().map(certificate_secret).collect(),
        alpn_protocols: alpn.iter().map(|p| p.to_string()).collect(),
        validation_context_type: trust.map(|t| validation(t, accepted)),
        ..Default::default()
    }
}

/// Files are named as secrets of the agent, by the names that Istio's agents know: Envoy would
/// refuse the whole resource for a file that is not there.
fn certificate_secret(certificate: &SecretRef) -> tls::SdsSecretConfig {
    match certificate {
        SecretRef::Workload => agent_secret(WORKLOAD_SECRET, FOR_EVER),
        SecretRef::Credential(name) => ads_secret(format!("kubernetes://{name}")),
        SecretRef::Files(chain, key) => {
            agent_secret(&format!("file-cert:{chain}~{key}"), WAIT_FOR_FILE)
        }
    }
}

/// What a peer's certificate must be, whoever vouches for it.
fn accepted(sans: &[SanMatch], pins: &Pins) -> tls::CertificateValidationContext {
    let texts = |all: &[Arc<str>]| all.iter().map(|text| text.to_string()).collect();
    tls::CertificateValidationContext {
        match_typed_subject_alt_names: sans.iter().flat_map(san_matchers).collect(),
        verify_certificate_spki: texts(&pins.keys),
        verify_certificate_hash: texts(&pins.certificates),
        ..Default::default()
    }
}

fn validation(
    trust: &TrustRef,
    accepted: tls::CertificateValidationContext,
) -> tls::common_tls_context::ValidationContextType {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let from_secret = |secret, accepted| {
        ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(accepted),
            validation_context_sds_secret_config: Some(secret),
            ..Default::default()
        })
    };
    match trust {
        TrustRef::Mesh => from_secret(agent_secret(ROOTS_SECRET, FOR_EVER), accepted),
        TrustRef::Credential(name) => {
            from_secret(ads_secret(format!("kubernetes://{name}-cacert")), accepted)
        }
        TrustRef::Files { roots, revoked } => {
            from_secret(agent_secret(&files_secret(roots, revoked), WAIT_FOR_FILE), accepted)
        }
    }
}

/// `file-root:ROOTS`, and `file-root:ROOTS~REVOKED`, which other agents do not know: without the
/// secret nobody is let in.
fn files_secret(roots: &str, revoked: &str) -> String {
    let roots = if roots.is_empty() { SYSTEM_ROOTS } else { roots };
    let separator = if revoked.is_empty() { "" } else { "~" };
    format!("file-root:{roots}{separator}{revoked}")
}

/// Matchers for one accepted name. Envoy 1.40 warns about the untyped form that Istio sends, so the
/// type of the name is told from its spelling: a URI has a scheme, an address parses, the rest are
/// DNS names.
fn san_matchers(san: &SanMatch) -> Vec<tls::SubjectAltNameMatcher> {
    use matcher::string_matcher::MatchPattern;
    use tls::subject_alt_name_matcher::SanType;
    let (name, pattern) = match san {
        SanMatch::Exact(name) => (name, MatchPattern::Exact(name.to_string())),
        SanMatch::Prefix(name) => (name, MatchPattern::Prefix(name.to_string())),
    };
    let san_type = if name.contains("://") {
        SanType::Uri
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        SanType::IpAddress
    } else {
        SanType::Dns
    };
    let matcher = matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    vec![tls::SubjectAltNameMatcher {
        san_type: san_type as i32,
        matcher: Some(matcher),
        ..Default::default()
    }]
}

fn versions(
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
    words: &TlsWords,
) -> Option<tls::TlsParameters> {
    let TlsWords { suites, curves } = words;
    let worded = *words != TlsWords::default();
    (min.is_some() || max.is_some() || worded).then(|| tls::TlsParameters {
        ecdh_curves: curves.iter().map(|c| c.to_string()).collect(),
        tls_minimum_protocol_version: protocol(min),
        tls_maximum_protocol_version: protocol(max),
        cipher_suites: suites.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    })
}

fn protocol(version: Option<TlsVersion>) -> i32 {
    use tls::tls_parameters::TlsProtocol;
    let protocol = match version {
        None => TlsProtocol::TlsAuto,
        Some(TlsVersion::V1_0) => TlsProtocol::TlSv10,
        Some(TlsVersion::V1_1) => TlsProtocol::TlSv11,
        Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
        Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
    };
    protocol as i32
}

/// A secret of the workload's own agent, and how long Envoy waits for it.
fn agent_secret(name: &str, wait: Duration) -> tls::SdsSecretConfig {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: SDS_CLUSTER.to_owned(),
        ..Default::default()
    };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        ..Default::default()
    };
    let api = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    let source = core::config_source::ConfigSourceSpecifier::ApiConfigSource(api);
    let source =
        core::ConfigSource { initial_fetch_timeout: Some(duration(wait)), ..config_source(source) };
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

/// A gateway's credential: from the control plane, on the stream that everything else comes on.
fn ads_secret(name: String) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name, sds_config: Some(config_source(ads())) }
}

/// The aggregated stream.
pub(super) fn ads() -> core::config_source::ConfigSourceSpecifier {
    core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})
}

/// A source that speaks version 3 of the protocol.
pub(super) fn config_source(
    source: core::config_source::ConfigSourceSpecifier,
) -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(source),
        ..Default::default()
    }
}
