//! Key material of gateways' certificates: split from the configuration at the door, kept here, and
//! handed out by name.
//!
//! The rest of the control plane knows a credential by its fingerprint and expiry only. Sources
//! call [`split`] on every Secret before anything else sees it; a session subscribes to a name it
//! may have.

pub mod sealed;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use ferromesh_xds_translator::{
    compiler::Change,
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object, kubernetes::Secret},
    snapshot::CredentialFact,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};
use tokio::sync::watch;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, SubjectPublicKeyInfo, X509Certificate,
};
use zeroize::Zeroizing;

use crate::event::SourceId;

/// A certificate with its key, or a trust bundle, or both.
#[derive(Clone)]
pub struct SecretMaterial {
    /// Chain, leaf first, as PEM; empty in a secret that holds a CA only.
    pub certificate_chain_pem: Vec<u8>,
    /// Private key as PEM; empty in a secret that holds a CA only.
    pub private_key_pem: Zeroizing<Vec<u8>>,
    /// Trust bundle for clients as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Which of the certificates of these CAs are revoked, as PEM.
    pub crl_pem: Option<Vec<u8>>,
    /// What registries of images take, as a `.dockerconfigjson`.
    pub registries: Option<Zeroizing<Vec<u8>>>,
    /// What the configuration knows of it.
    pub fact: CredentialFact,
}

impl fmt::Debug for SecretMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMaterial").field("fact", &self.fact).finish_non_exhaustive()
    }
}

impl SecretMaterial {
    /// When the first of its lists of revoked certificates is over, in seconds since the epoch:
    /// from then on proxies take nobody's certificate.
    pub fn revocations_end(&self) -> Option<i64> {
        self.crl_pem.as_deref().and_then(revocation_ends)?.into_iter().min()
    }

    /// What the configuration knows of it; `None`: it is for no connection.
    fn known(&self) -> Option<CredentialFact> {
        let of_connections = !self.certificate_chain_pem.is_empty() || self.ca_pem.is_some();
        of_connections.then(|| self.fact.clone())
    }

    /// Whether a proxy that has the one has the other: a key may change although its certificate,
    /// of which alone the configuration knows, does not.
    fn is_same(&self, other: &Self) -> bool {
        self.fact == other.fact
            && self.private_key_pem == other.private_key_pem
            && self.certificate_chain_pem == other.certificate_chain_pem
            && self.ca_pem == other.ca_pem
            && self.crl_pem == other.crl_pem
            && self.registries == other.registries
    }
}

/// A subscription to one secret; `None` while it does not exist.
pub type SecretWatch = watch::Receiver<Option<Arc<SecretMaterial>>>;

/// Hands out secrets by name. Who may have one is decided before anybody asks here.
pub trait SecretProvider: Send + Sync {
    /// Follows a secret, which need not exist yet.
    fn subscribe(&self, namespace: &str, name: &str) -> SecretWatch;
}

/// Secrets in memory, filled by the sources.
#[derive(Default)]
pub struct Secrets(Mutex<BTreeMap<(String, String), Slot>>);

struct Slot {
    /// What each source has; the first in precedence serves.
    by_source: BTreeMap<SourceId, Arc<SecretMaterial>>,
    current: watch::Sender<Option<Arc<SecretMaterial>>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self { by_source: BTreeMap::new(), current: watch::channel(None).0 }
    }
}

const POISONED: &str = "no code panics while it holds this lock";

impl Secrets {
    /// Says what `source` has under a name now, and returns what the configuration should know: the
    /// fact of the secret that serves.
    pub fn set(
        &self,
        source: SourceId,
        namespace: &str,
        name: &str,
        material: Option<SecretMaterial>,
    ) -> Option<CredentialFact> {
        let mut slots = self.0.lock().expect(POISONED);
        let slot = slots.entry((namespace.to_owned(), name.to_owned())).or_default();
        match material {
            Some(material) => drop(slot.by_source.insert(source, Arc::new(material))),
            None => drop(slot.by_source.remove(&source)),
        }
        let serving = slot.by_source.values().next().cloned();
        slot.current.send_if_modified(|current| {
            let same = match (&current, &serving) {
                (Some(current), Some(serving)) => current.is_same(serving),
                (current, serving) => current.is_none() && serving.is_none(),
            };
            current.clone_from(&serving);
            !same
        });
        serving.and_then(|material| material.known())
    }
}

impl SecretProvider for Secrets {
    fn subscribe(&self, namespace: &str, name: &str) -> SecretWatch {
        let mut slots = self.0.lock().expect(POISONED);
        slots.entry((namespace.to_owned(), name.to_owned())).or_default().current.subscribe()
    }
}

/// What an object means to the compiler: a Secret what may be known of it, if it is a credential at
/// all.
///
/// # Errors
/// As [`split`].
pub fn to_change(object: Object) -> Result<Option<Change>, Box<Diagnostic>> {
    if object.id.kind != Kind::SECRET {
        return Ok(Some(Change::Upsert(Box::new(object))));
    }
    let material = split(&object)?;
    Ok(material.and_then(|material| material.known()).map(|fact| Change::Credential {
        namespace: object.id.namespace.clone(),
        name: object.id.name.clone(),
        fact: Some(fact),
    }))
}

/// Takes the key material out of a Secret: the material, or `None` for a secret that is no
/// credential (other types are not ours), and what is wrong with it.
///
/// # Errors
/// A diagnostic naming the key of `data` that cannot be used.
pub fn split(object: &Object) -> Result<Option<SecretMaterial>, Box<Diagnostic>> {
    let Some(secret) = object.content::<Secret>() else { return Ok(None) };
    let value = |names: [&str; 2]| -> Result<Option<Zeroizing<Vec<u8>>>, Box<Diagnostic>> {
        for name in names {
            if let Some(text) = secret.string_data.get(name) {
                return Ok(Some(Zeroizing::new(text.expose().as_bytes().to_vec())));
            }
            if let Some(encoded) = secret.data.get(name) {
                let bytes = BASE64_STANDARD.decode(encoded.expose().trim());
                return match bytes {
                    Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
                    Err(_) => Err(wrong(object, name, "base64", "other text")),
                };
            }
        }
        Ok(None)
    };
    // Both spellings that Istio reads.
    let (certificate, key, ca) =
        (value(["tls.crt", "cert"])?, value(["tls.key", "key"])?, value(["ca.crt", "cacert"])?);
    let registries = value([".dockerconfigjson"; 2])?;
    if let (None, None, None, Some(registries)) = (&certificate, &key, &ca, &registries) {
        return for_registries(object, registries.clone()).map(Some);
    }
    let (certificate, key) = match (certificate, key, &ca) {
        (Some(certificate), Some(key), _) => (certificate, key),
        (None, None, Some(_)) => (Zeroizing::default(), Zeroizing::default()),
        (None, None, None) => return Ok(None),
        (None, _, _) => {
            return Err(wrong(object, "tls.crt", "a certificate chain in PEM", "nothing"));
        }
        (_, None, _) => return Err(wrong(object, "tls.key", "a private key in PEM", "nothing")),
    };
    let fact = check(object, &certificate, &key, ca.as_deref().map(Vec::as_slice))?;
    let crl = value(["ca.crl", "crl"])?.map(|crl| crl.to_vec());
    let fact = with_revocations(object, fact, ca.is_some(), crl.as_deref())?;
    let ca_pem = ca.map(|ca| ca.to_vec());
    Ok(Some(SecretMaterial {
        certificate_chain_pem: certificate.to_vec(),
        private_key_pem: key,
        ca_pem,
        crl_pem: crl,
        registries,
        fact,
    }))
}

/// A secret that is for registries alone.
fn for_registries(
    object: &Object,
    registries: Zeroizing<Vec<u8>>,
) -> Result<SecretMaterial, Box<Diagnostic>> {
    let read: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&registries);
    if read.is_err() {
        return Err(wrong(object, ".dockerconfigjson", "JSON", "something unreadable"));
    }
    let fingerprint = hexadecimal(digest(&SHA256, &registries).as_ref());
    Ok(SecretMaterial {
        certificate_chain_pem: Vec::new(),
        private_key_pem: Zeroizing::default(),
        ca_pem: None,
        crl_pem: None,
        registries: Some(registries),
        fact: CredentialFact {
            fingerprint: fingerprint.into(),
            not_after: i64::MAX,
            holds_ca: false,
        },
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what can be read of the material, so that a proxy is never sent what it must refuse.
fn check(
    object: &Object,
    certificate: &[u8],
    key: &[u8],
    ca: Option<&[u8]>,
) -> Result<CredentialFact, Box<Diagnostic>> {
    let private = (!key.is_empty()).then(|| PrivateKeyDer::from_pem_slice(key)).transpose();
    let Ok(private) = private else {
        return Err(wrong(object, "tls.key", "a private key in PEM", "something unreadable"));
    };
    let (field, pem) = if certificate.is_empty() {
        ("ca.crt", ca.unwrap_or_default())
    } else {
        ("tls.crt", certificate)
    };
    let unreadable = || wrong(object, field, "a certificate chain in PEM", "something unreadable");
    let leaf = CertificateDer::from_pem_slice(pem).map_err(|_| unreadable())?;
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| unreadable())?;
    if private.is_some_and(|private| is_foreign(&parsed, &private)) {
        return Err(wrong(object, "tls.key", "the key of the certificate", "another one"));
    }
    let not_after = parsed.validity().not_after.timestamp();
    let mut content = pem.to_vec();
    content.extend_from_slice(ca.unwrap_or_default());
    let fingerprint =
        digest(&SHA256, &content).as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok(CredentialFact { fingerprint: fingerprint.into(), not_after, holds_ca: ca.is_some() })
}

/// Reads a list of revoked certificates, which changes what a proxy is sent: one that cannot be read
/// would keep nobody out.
fn with_revocations(
    object: &Object,
    fact: CredentialFact,
    holds_ca: bool,
    crl: Option<&[u8]>,
) -> Result<CredentialFact, Box<Diagnostic>> {
    let Some(crl) = crl else { return Ok(fact) };
    if !holds_ca {
        return Err(wrong(object, "ca.crt", "the CA whose certificates are revoked", "nothing"));
    }
    if revocation_ends(crl).is_none() {
        let expected = "lists of revoked certificates in PEM";
        return Err(wrong(object, "ca.crl", expected, "something unreadable"));
    }
    let of_list = digest(&SHA256, crl);
    let of_list: String = of_list.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let fingerprint = format!("{} {of_list}", fact.fingerprint).into();
    Ok(CredentialFact { fingerprint, ..fact })
}

/// When each of some lists of revoked certificates is over, in seconds since the epoch, as far as
/// they say; `None`: something of it is no list, or there is none.
fn revocation_ends(pem: &[u8]) -> Option<Vec<i64>> {
    let mut lists = CertificateRevocationListDer::pem_slice_iter(pem).peekable();
    lists.peek()?;
    let mut ends = Vec::new();
    for list in lists {
        let list = list.ok()?;
        let (rest, list) = CertificateRevocationList::from_der(&list).ok()?;
        if !rest.is_empty() {
            return None;
        }
        ends.extend(list.next_update().map(|end| end.timestamp()));
    }
    Some(ends)
}

/// Whether a key is known to be another certificate's; of kinds of keys that are unknown here,
/// nobody knows.
fn is_foreign(certificate: &X509Certificate<'_>, key: &PrivateKeyDer<'_>) -> bool {
    let Ok(key) = any_supported_type(key) else { return false };
    let Some(public) = key.public_key() else { return false };
    // The bits themselves: a certificate may spell their algorithm in another way.
    let certified = &certificate.public_key().subject_public_key.data;
    SubjectPublicKeyInfo::from_der(&public)
        .is_ok_and(|(_, public)| public.subject_public_key.data != *certified)
}

fn wrong(object: &Object, key: &str, expected: &str, got: &str) -> Box<Diagnostic> {
    let field = FieldPath::root().field("data").field(key);
    let diagnostic =
        Diagnostic::error(Code::WrongType, field, "unusable secret").expected(expected, got);
    Box::new(object.diagnose(diagnostic))
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::dialect::parse_value;
    use serde_json::json;

    use super::*;

    /// A certificate and its key.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["shop.example.com".to_owned()])
            .expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn secret(certificate: &str, key: &str) -> Object {
        let value = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "cert", "namespace": "shop" },
            "stringData": { "tls.crt": certificate, "tls.key": key },
        });
        parse_value(value).expect("a Secret").0
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_one_of_an_unknown_kind_is_not() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert!(split(&secret(&certificate, &key)).is_ok_and(|material| material.is_some()));
        let refused = split(&secret(&certificate, &other)).expect_err("another's key");
        assert!(refused.to_string().contains("the key of the certificate"), "{refused}");
        assert!(!refused.to_string().contains("PRIVATE"), "{refused}");
        let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(split(&secret(&certificate, unknown)).is_ok());
    }

    /// A CA, and its list of revoked certificates without any.
    fn authority() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2046, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = rcgen::Issuer::new(params, key);
        let list = list.signed_by(&issuer).expect("a list").pem().expect("PEM");
        (certificate, list)
    }

    #[test]
    fn revoked_certificates_are_read_beside_their_authority_or_the_secret_is_refused() {
        let (ca, list) = authority();
        let of = |data: serde_json::Value| {
            let value = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": "cert-cacert", "namespace": "shop" },
                "stringData": data,
            });
            split(&parse_value(value).expect("a Secret").0)
        };
        let plain = of(json!({ "ca.crt": ca })).expect("good").expect("a credential");
        let material =
            of(json!({ "cacert": ca, "crl": list })).expect("good").expect("a credential");
        assert_eq!(material.crl_pem.as_deref(), Some(list.as_bytes()));
        assert_ne!(material.fact.fingerprint, plain.fact.fingerprint, "proxies are told");
        assert_eq!(material.revocations_end(), Some(2_398_377_600));
        let garbage = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        for bad in ["nobody".to_owned(), garbage.to_owned(), format!("{list}{garbage}")] {
            let refused = of(json!({ "ca.crt": ca, "ca.crl": bad })).expect_err("no list");
            assert!(refused.to_string().contains("ca.crl"), "{refused}");
        }
        let (certificate, key) = pair();
        let alone = json!({ "tls.crt": certificate, "tls.key": key, "ca.crl": list });
        let refused = of(alone).expect_err("no CA");
        assert!(refused.to_string().contains("ca.crt"), "{refused}");
    }

    #[test]
    fn whatever_of_a_secret_changes_is_told_to_who_follows_it() {
        let (certificate, key) = pair();
        let first = split(&secret(&certificate, &key)).expect("good").expect("a credential");
        let material = |change: fn(&mut SecretMaterial)| {
            let mut material = first.clone();
            change(&mut material);
            Some(material)
        };
        let secrets = Secrets::default();
        let mut followed = secrets.subscribe("shop", "cert");
        let mut told = |material| {
            secrets.set(SourceId::Rest, "shop", "cert", material);
            let told = followed.has_changed().expect("it is served");
            followed.mark_unchanged();
            told
        };
        assert!(!told(None), "it was not there before");
        assert!(told(material(|_| {})));
        assert!(!told(material(|_| {})), "nothing changed");
        assert!(told(material(|m| m.private_key_pem = Zeroizing::new(b"another".to_vec()))));
        assert!(told(material(|_| {})), "back again");
        assert!(told(material(|m| m.ca_pem = Some(b"a CA".to_vec()))));
        assert!(told(material(|m| m.crl_pem = Some(b"a list".to_vec()))));
        assert!(told(None));
    }
}
