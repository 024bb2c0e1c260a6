//! TLS contexts of filter chains and clusters.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
        common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{
    Context,
    field::{At, Invalid, each, flag, refuse, required},
    secret,
};
use crate::{
    identity::files::FileSecret,
    runtime::secret::{
        DownstreamTls, PeerValidation, SanMatcher, SecretMaterial, SecretRef, SecretSlot,
        TlsVersions, UpstreamTls,
    },
};

/// The suites of TLS 1.2 that our library has, by OpenSSL's names.
const SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Secret names that the workload's own identity answers.
const WORKLOAD_CERTIFICATE: &str = "default";
const WORKLOAD_ROOTS: &str = "ROOTCA";

/// Compiles the TLS context of a filter chain.
pub(super) fn downstream(
    context: &mut Context,
    message: &DownstreamTlsContext,
) -> Result<DownstreamTls, Invalid> {
    refuse(&[("require_sni", flag(message.require_sni.as_ref(), false))])?;
    let common = required("common_tls_context", message.common_tls_context.as_ref())?;
    let require_client_certificate = flag(message.require_client_certificate.as_ref(), false);
    let parts = common_parts(context, common).at("common_tls_context")?;
    if require_client_certificate && parts.validation.is_none() {
        return Err(Invalid::new(
            "client certificates are required, but there is nothing to check them against",
        )
        .at("common_tls_context.validation_context"));
    }
    Ok(DownstreamTls {
        certificate: parts.certificate.ok_or_else(|| {
            Invalid::new("expected a certificate, got none").at("common_tls_context")
        })?,
        validation: parts.validation,
        require_client_certificate,
        alpn: parts.alpn,
        suites: suites(common.tls_params.as_ref(), parts.versions)
            .at("common_tls_context.tls_params.cipher_suites")?,
        versions: parts.versions,
    })
}

/// The suites of TLS 1.2 that we have among those that are listed; `[A|B]` lists equals. The others
/// only narrow it.
fn suites(
    parameters: Option<&TlsParameters>,
    versions: TlsVersions,
) -> Result<Vec<Arc<str>>, Invalid> {
    let listed =
        parameters.map(|parameters| parameters.cipher_suites.as_slice()).unwrap_or_default();
    let names = listed.iter().flat_map(|entry| entry.trim_matches(['[', ']']).split('|'));
    let known: Vec<Arc<str>> = names.filter(|name| SUITES.contains(name)).map(Into::into).collect();
    if known.is_empty() && !listed.is_empty() && versions.tls12 {
        return Err(Invalid::new(format!(
            "expected one of {}, got {}",
            SUITES.join(", "),
            listed.join(", ")
        )));
    }
    Ok(known)
}

/// Compiles the TLS context of a cluster.
pub(super) fn upstream(
    context: &mut Context,
    message: &UpstreamTlsContext,
) -> Result<UpstreamTls, Invalid> {
    let common = required("common_tls_context", message.common_tls_context.as_ref())?;
    let suites =
        common.tls_params.as_ref().is_some_and(|parameters| !parameters.cipher_suites.is_empty());
    refuse(&[("common_tls_context.tls_params.cipher_suites", suites)])?;
    let parts = common_parts(context, common).at("common_tls_context")?;
    if message.auto_sni_san_validation && parts.validation.is_none() {
        return Err(Invalid::new("expected trusted roots, got none").at("auto_sni_san_validation"));
    }
    Ok(UpstreamTls {
        certificate: parts.certificate,
        validation: parts.validation,
        sni: Some(message.sni.as_str()).filter(|name| !name.is_empty()).map(Into::into),
        sni_from_endpoint: message.auto_host_sni,
        match_server_name: message.auto_sni_san_validation,
        alpn: parts.alpn,
        versions: parts.versions,
    })
}

struct CommonParts {
    certificate: Option<SecretRef>,
    validation: Option<PeerValidation>,
    alpn: Vec<Arc<str>>,
    versions: TlsVersions,
}

fn common_parts(context: &mut Context, message: &CommonTlsContext) -> Result<CommonParts, Invalid> {
    Ok(CommonParts {
        certificate: certificate(context, message)?,
        validation: validation(context, message)?,
        alpn: message.alpn_protocols.iter().map(|name| name.as_str().into()).collect(),
        versions: versions(message.tls_params.as_ref()).at("tls_params")?,
    })
}

fn certificate(
    context: &mut Context,
    message: &CommonTlsContext,
) -> Result<Option<SecretRef>, Invalid> {
    let (inline, by_name) =
        (&message.tls_certificates, &message.tls_certificate_sds_secret_configs);
    match (inline.as_slice(), by_name.as_slice()) {
        ([], []) => Ok(None),
        ([certificate], []) => {
            let material = secret::certificate(certificate).at("tls_certificates[0]")?;
            Ok(Some(inline_slot(material)))
        }
        ([], [config]) => {
            let reference = named(context, config, WORKLOAD_CERTIFICATE);
            reference.map(Some).at("tls_certificate_sds_secret_configs[0]")
        }
        _ => Err(Invalid::new("expected one certificate, several are not supported by this proxy")
            .at("tls_certificates")),
    }
}

fn validation(
    context: &mut Context,
    message: &CommonTlsContext,
) -> Result<Option<PeerValidation>, Invalid> {
    match &message.validation_context_type {
        None => Ok(None),
        Some(ValidationContextType::ValidationContext(inline)) => {
            inline_validation(inline).at("validation_context")
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let roots = named(context, config, WORKLOAD_ROOTS)
                .at("validation_context_sds_secret_config")?;
            Ok(Some(PeerValidation { roots, sans: Vec::new() }))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let config = combined.validation_context_sds_secret_config.as_ref();
            let roots = required("validation_context_sds_secret_config", config)
                .and_then(|config| named(context, config, WORKLOAD_ROOTS))
                .at("combined_validation_context")?;
            let field = "combined_validation_context.default_validation_context";
            let sans = combined
                .default_validation_context
                .as_ref()
                .map_or(Ok(Vec::new()), names)
                .at(field)?;
            Ok(Some(PeerValidation { roots, sans }))
        }
        Some(_) => Err(Invalid::new("not supported by this proxy").at("validation_context_type")),
    }
}

fn inline_validation(
    message: &CertificateValidationContext,
) -> Result<Option<PeerValidation>, Invalid> {
    let sans = names(message)?;
    let Some(source) = &message.trusted_ca else {
        // Envoy then trusts any certificate; a list of names without roots would only look like a
        // check.
        return required("trusted_ca", sans.is_empty().then_some(&())).map(|()| None);
    };
    let roots = inline_slot(secret::trust(source, message.crl.as_ref())?);
    Ok(Some(PeerValidation { roots, sans }))
}

#[allow(deprecated, reason = "istiod still sends `match_subject_alt_names`")]
fn names(message: &CertificateValidationContext) -> Result<Vec<SanMatcher>, Invalid> {
    let mut sans = each("match_subject_alt_names", &message.match_subject_alt_names, san)?;
    sans.extend(each(
        "match_typed_subject_alt_names",
        &message.match_typed_subject_alt_names,
        typed_san,
    )?);
    Ok(sans)
}

fn typed_san(message: &SubjectAltNameMatcher) -> Result<SanMatcher, Invalid> {
    match message.san_type() {
        SanType::Uri | SanType::Dns => {
            required("matcher", message.matcher.as_ref()).and_then(san).at("matcher")
        }
        other => Err(Invalid::new(format!("expected URI or DNS, got {}", other.as_str_name()))
            .at("san_type")),
    }
}

fn san(matcher: &StringMatcher) -> Result<SanMatcher, Invalid> {
    refuse(&[("ignore_case", matcher.ignore_case)])?;
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(SanMatcher::Exact(text.as_str().into())),
        Some(MatchPattern::Prefix(text)) => Ok(SanMatcher::Prefix(text.as_str().into())),
        Some(MatchPattern::Suffix(text)) => Ok(SanMatcher::Suffix(text.as_str().into())),
        _ => Err(Invalid::new(
            "expected exact, prefix or suffix, others are not supported by this proxy",
        )),
    }
}

fn versions(parameters: Option<&TlsParameters>) -> Result<TlsVersions, Invalid> {
    let Some(parameters) = parameters else { return Ok(TlsVersions { tls12: true, tls13: true }) };
    let minimum = parameters.tls_minimum_protocol_version();
    // Envoy's own highest version for a server and lowest for both are 1.3 and 1.2.
    let versions = match parameters.tls_maximum_protocol_version() {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => {
            TlsVersions { tls12: minimum != TlsProtocol::TlSv13, tls13: true }
        }
        TlsProtocol::TlSv12 => TlsVersions { tls12: minimum != TlsProtocol::TlSv13, tls13: false },
        older => {
            let reason = format!(
                "{} is not supported by this proxy, expected at least TLSv1_2",
                older.as_str_name()
            );
            return Err(Invalid::new(reason).at("tls_maximum_protocol_version"));
        }
    };
    match versions {
        TlsVersions { tls12: false, tls13: false } => {
            Err(Invalid::new("no version lies between minimum and maximum"))
        }
        versions => Ok(versions),
    }
}

fn inline_slot(material: SecretMaterial) -> SecretRef {
    let slot = SecretSlot::new("(inline)");
    slot.store(Some(Arc::new(material)));
    SecretRef::Slot(slot)
}

/// A secret by name: the workload's own from its identity, one in files of this machine, others
/// from the control plane over ADS.
fn named(
    context: &mut Context,
    config: &SdsSecretConfig,
    workload: &str,
) -> Result<SecretRef, Invalid> {
    if config.name == workload {
        return Ok(SecretRef::Workload);
    }
    if let Some(files) = FileSecret::parse(&config.name) {
        return context.secrets.in_files(&config.name, &files).map(SecretRef::Slot).at("name");
    }
    let ads = config.sds_config.as_ref().is_some_and(is_ads);
    if !ads {
        let reason = format!("expected {workload:?} or a source of kind ads for {:?}", config.name);
        return Err(Invalid::new(reason).at("sds_config"));
    }
    context.needs.secrets.insert(config.name.clone());
    Ok(SecretRef::Slot(context.secrets.slot(&config.name)))
}

/// Whether a source is the ADS stream itself; `self` means the same there.
pub(super) fn is_ads(source: &ConfigSource) -> bool {
    matches!(
        source.config_source_specifier,
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))
    )
}
