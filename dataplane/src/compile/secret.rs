//! Secrets: SDS resources, certificates written into TLS contexts, and the slots that hold them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret::Type},
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};
use xxhash_rust::xxh3::Xxh3Default;
use zeroize::Zeroizing;

use super::{
    check_name,
    field::{At, Invalid, required},
};
use crate::{
    file,
    identity::files::{FileContent, FileSecret},
    runtime::secret::{SecretMaterial, SecretSlot, Trust},
};

/// Slots of secrets by name. A slot lives as long as a configuration uses it.
#[derive(Debug, Default)]
pub struct SecretSlots {
    by_name: BTreeMap<String, Weak<SecretSlot>>,
    /// What was last seen in the files of those that lie in files.
    seen: BTreeMap<String, u64>,
}

impl SecretSlots {
    /// The slot of this name, made empty if no configuration uses it yet.
    pub fn slot(&mut self, name: &str) -> Arc<SecretSlot> {
        self.by_name.retain(|_, slot| slot.strong_count() > 0);
        self.seen.retain(|name, _| self.by_name.contains_key(name));
        self.existing(name).unwrap_or_else(|| {
            let slot = SecretSlot::new(name);
            self.by_name.insert(name.to_owned(), Arc::downgrade(&slot));
            slot
        })
    }

    /// The slot of this name, if a configuration uses it.
    pub fn existing(&self, name: &str) -> Option<Arc<SecretSlot>> {
        self.by_name.get(name).and_then(Weak::upgrade)
    }

    /// The slot of a secret that lies in files, with what they hold now.
    pub(super) fn in_files(
        &mut self,
        name: &str,
        files: &FileSecret,
    ) -> Result<Arc<SecretSlot>, Invalid> {
        let content = files.read().map_err(|error| Invalid::new(error.to_string()).in_file())?;
        let material = in_files(&content).map_err(Invalid::in_file)?;
        let slot = self.slot(name);
        if self.seen.insert(name.to_owned(), digest(&content)) != Some(digest(&content)) {
            slot.store(Some(Arc::new(material)));
        }
        Ok(slot)
    }

    /// Looks at the files of all secrets in use again, since their machine's keepers replace them;
    /// answers what is wrong with those that cannot be used.
    ///
    /// A file that cannot be read, as while it is replaced, changes nothing. One that holds other
    /// roots or lists than can be read closes what needs it, since those in force may trust whom
    /// it would not.
    pub fn look_at_files(&mut self) -> Vec<String> {
        let slots = self.by_name.iter();
        let in_use = slots.filter_map(|(name, slot)| Some((name, slot.upgrade()?)));
        let mut wrong = Vec::new();
        for (name, slot) in in_use {
            let Some(files) = FileSecret::parse(name) else { continue };
            let content = match files.read() {
                Ok(content) => content,
                Err(error) => {
                    wrong.push(error.to_string());
                    continue;
                }
            };
            let seen = digest(&content);
            if self.seen.insert(name.clone(), seen) == Some(seen) {
                continue;
            }
            match in_files(&content) {
                Ok(material) => slot.store(Some(Arc::new(material))),
                Err(Invalid { reason, .. }) => {
                    if matches!(content, FileContent::Roots { .. }) {
                        slot.store(None);
                    }
                    wrong.push(format!("{name}: {reason}"));
                }
            }
        }
        wrong
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
            trust(source, context.crl.as_ref()).at("validation_context")
        }
        _ => Err(Invalid::new("expected a tls_certificate or a validation_context")),
    }
}

/// Reads a certificate chain with its key.
pub(super) fn certificate(message: &TlsCertificate) -> Result<SecretMaterial, Invalid> {
    let chain = required("certificate_chain", message.certificate_chain.as_ref())?;
    let key = required("private_key", message.private_key.as_ref())?;
    let key = parsed(key, self::key).at("private_key")?;
    let chain = parsed(chain, certificates).at("certificate_chain")?;
    Ok(SecretMaterial::Certificate { chain, key })
}

/// A private key. The parser's own message may quote its input, so it stays out of the NACK.
fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Invalid> {
    let key =
        PrivateKeyDer::from_pem_slice(pem).map_err(|_| Invalid::new("not a PEM private key"))?;
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| Invalid::new("not an RSA, ECDSA or Ed25519 key"))?;
    Ok(key)
}

/// What files of this machine hold.
fn in_files(content: &FileContent) -> Result<SecretMaterial, Invalid> {
    match content {
        FileContent::Roots { roots, revoked } => Ok(SecretMaterial::Trust(Trust {
            roots: certificates(roots)?,
            revoked: revoked.as_deref().map_or(Ok(Vec::new()), revocations)?,
        })),
        FileContent::Certificate(chain, pem) => {
            Ok(SecretMaterial::Certificate { chain: certificates(chain)?, key: key(pem)? })
        }
    }
}

fn digest(content: &FileContent) -> u64 {
    let mut hash = Xxh3Default::new();
    let (first, second) = match content {
        FileContent::Roots { roots, revoked } => (roots, revoked.as_deref().unwrap_or_default()),
        FileContent::Certificate(chain, key) => (chain, &***key),
    };
    hash.update(&first.len().to_le_bytes());
    hash.update(first);
    hash.update(second);
    hash.digest()
}

/// Reads a bundle of roots, and lists of what they have revoked.
pub(super) fn trust(
    roots: &DataSource,
    revoked: Option<&DataSource>,
) -> Result<SecretMaterial, Invalid> {
    let roots = parsed(roots, certificates).at("trusted_ca")?;
    let lists = |source| parsed(source, revocations).at("crl");
    let revoked = revoked.map_or(Ok(Vec::new()), lists)?;
    Ok(SecretMaterial::Trust(Trust { roots, revoked }))
}

/// Lists of revoked certificates; what is no list keeps nobody out, and is refused.
fn revocations(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Invalid> {
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Invalid::new(format!("not PEM lists of revoked certificates: {error}")))?;
    if lists.is_empty() {
        let reason = "expected at least one PEM list of revoked certificates, got none";
        return Err(Invalid::new(reason));
    }
    for list in &lists {
        webpki::OwnedCertRevocationList::from_der(list).map_err(|error| {
            Invalid::new(format!("unusable list of revoked certificates: {error}"))
        })?;
    }
    Ok(lists)
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

fn parsed<T>(
    source: &DataSource,
    parse: impl FnOnce(&[u8]) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    let parsed = read(source).and_then(|pem| parse(&pem));
    match source.specifier {
        Some(Specifier::Filename(_)) => parsed.map_err(Invalid::in_file),
        _ => parsed,
    }
}

fn read(source: &DataSource) -> Result<Zeroizing<Vec<u8>>, Invalid> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(Zeroizing::new(bytes.clone())),
        Some(Specifier::InlineString(text)) => Ok(Zeroizing::new(text.clone().into_bytes())),
        Some(Specifier::Filename(path)) => file::read(path.as_ref())
            .map(Zeroizing::new)
            .map_err(|error| Invalid::new(format!("cannot read {path}: {error}")).at("filename")),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(Invalid::new("not supported by this proxy").at("environment_variable"))
        }
        None => Err(Invalid::new("required, but missing")),
    }
}
