//! Secrets: SDS resources, certificates written into TLS contexts, and the slots that hold them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret::Type},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    check_name,
    field::{At, Invalid, required},
};
use crate::{
    file,
    identity::files::{FileContent, FileSecret},
    runtime::secret::{SecretMaterial, SecretSlot},
};

/// Slots of secrets by name. A slot lives as long as a configuration uses it.
#[derive(Debug, Default)]
pub struct SecretSlots(BTreeMap<String, Weak<SecretSlot>>);

impl SecretSlots {
    /// The slot of this name, made empty if no configuration uses it yet.
    pub fn slot(&mut self, name: &str) -> Arc<SecretSlot> {
        self.0.retain(|_, slot| slot.strong_count() > 0);
        self.existing(name).unwrap_or_else(|| {
            let slot = SecretSlot::new(name);
            self.0.insert(name.to_owned(), Arc::downgrade(&slot));
            slot
        })
    }

    /// The slot of this name, if a configuration uses it.
    pub fn existing(&self, name: &str) -> Option<Arc<SecretSlot>> {
        self.0.get(name).and_then(Weak::upgrade)
    }
}

/// Compiles an SDS resource.
pub(super) fn compile(name: &str, message: &Secret) -> Result<SecretMaterial, Invalid> {
    check_name(name, &message.name)?;
    match &message.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            self::certificate(certificate).at("tls_certificate")
        }
        Some(Type::ValidationContext(context)) => {
            let source = required("validation_context.trusted_ca", context.trusted_ca.as_ref())?;
            trust(source).at("validation_context.trusted_ca")
        }
        _ => Err(Invalid::new("expected a tls_certificate or a validation_context")),
    }
}

/// Reads a certificate chain with its key.
pub(super) fn certificate(message: &TlsCertificate) -> Result<SecretMaterial, Invalid> {
    let chain = required("certificate_chain", message.certificate_chain.as_ref())?;
    let key = required("private_key", message.private_key.as_ref())?;
    let pem = Zeroizing::new(read(key).at("private_key")?);
    // The parser's own message may quote its input, so it stays out of the NACK.
    let key = self::key(&pem).at("private_key")?;
    Ok(SecretMaterial::Certificate {
        chain: read(chain).and_then(|pem| certificates(&pem)).at("certificate_chain")?,
        key,
    })
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Invalid> {
    let key =
        PrivateKeyDer::from_pem_slice(pem).map_err(|_| Invalid::new("not a PEM private key"))?;
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| Invalid::new("not an RSA, ECDSA or Ed25519 key"))?;
    Ok(key)
}

/// Reads a secret that lies in files of this machine.
pub(super) fn in_files(files: &FileSecret) -> Result<SecretMaterial, Invalid> {
    match files.read().map_err(|error| Invalid::new(error.to_string()))? {
        FileContent::Roots(pem) => Ok(SecretMaterial::Trust(certificates(&pem)?)),
        FileContent::Certificate(chain, pem) => {
            Ok(SecretMaterial::Certificate { chain: certificates(&chain)?, key: key(&pem)? })
        }
    }
}

/// Reads a bundle of roots.
pub(super) fn trust(source: &DataSource) -> Result<SecretMaterial, Invalid> {
    Ok(SecretMaterial::Trust(certificates(&read(source)?)?))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Invalid::new(format!("not PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(Invalid::new("expected at least one PEM certificate, got none"));
    }
    Ok(certificates)
}

fn read(source: &DataSource) -> Result<Vec<u8>, Invalid> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::Filename(path)) => file::read(path.as_ref())
            .map_err(|error| Invalid::new(format!("cannot read {path}: {error}")).at("filename")),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(Invalid::new("not supported by this proxy").at("environment_variable"))
        }
        None => Err(Invalid::new("required, but missing")),
    }
}
