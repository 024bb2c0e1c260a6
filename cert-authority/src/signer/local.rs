//! Signing with a key in this process: the only place that names `rcgen`.
//!
//! Profile: X509-SVID, RFC 5280, and what `openssl verify -x509_strict`, Envoy and rustls accept
//! together. Every field is set here on fresh parameters, because `rcgen` copies CA flags and names
//! out of requests and has unsafe defaults for serial, validity, key ids and basic constraints.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use ferromesh_proto::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{SignError, SignedChain, Signer};
use crate::{
    csr::{KeyKind, PublicKey},
    policy::ApprovedRequest,
    rotation::Validity,
    settings::{BACKDATE, SHORTEST_LIFETIME},
};

/// OID of the X.520 attribute `serialNumber`, which makes each authority's subject unique: chain
/// builders that try every root of one subject would otherwise run into their limits.
const SERIAL_NUMBER_ATTRIBUTE: [u64; 4] = [2, 5, 4, 5];
/// Upper bound of X.520 for an organization name.
const MAX_ORGANIZATION: usize = 64;

impl From<rcgen::Error> for SignError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// A certificate of the authority with its private key in PKCS#8.
pub(crate) struct CaMaterial {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key_pkcs8: Zeroizing<Vec<u8>>,
}

/// A fresh P-256 key in PKCS#8, for what is not a certificate.
pub(crate) fn generate_key() -> Result<Zeroizing<Vec<u8>>, SignError> {
    Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_der()))
}

/// A fresh P-256 key for a certificate of our own, with its public half.
pub(crate) fn generate_leaf_key() -> Result<(PrivatePkcs8KeyDer<'static>, PublicKey), SignError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let public = PublicKey::from_spki(&key.subject_public_key_info())
        .map_err(|e| SignError::Crypto(e.to_string()))?;
    Ok((key.serialize_der().into(), public))
}

/// Makes a self-signed root.
pub(crate) fn create_root(
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> Result<CaMaterial, SignError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = ca_params(trust_domain, BasicConstraints::Unconstrained, now, now + ttl)?;
    let certificate = params.self_signed(&key)?;
    Ok(CaMaterial {
        certificate: certificate.der().clone(),
        key_pkcs8: Zeroizing::new(key.serialize_der()),
    })
}

/// Makes an intermediate under `root` that may sign leaves only; it ends with the root at the
/// latest.
pub(crate) fn create_intermediate(
    root: &CaMaterial,
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> Result<CaMaterial, SignError> {
    let end = (now + ttl).min(validity(&root.certificate)?.not_after);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = ca_params(trust_domain, BasicConstraints::Constrained(0), now, end)?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer(root)?)?;
    Ok(CaMaterial {
        certificate: certificate.der().clone(),
        key_pkcs8: Zeroizing::new(key.serialize_der()),
    })
}

/// Reads when a certificate is valid.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, SignError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| SignError::Crypto(format!("own certificate: {e}")))?;
    let time = |t: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or(0))
    };
    Ok(Validity {
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
    })
}

fn issuer(material: &CaMaterial) -> Result<Issuer<'static, KeyPair>, SignError> {
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(material.key_pkcs8.as_slice()))?;
    check_key_matches(&material.certificate, &key)?;
    Ok(Issuer::from_ca_cert_der(&material.certificate, key)?)
}

/// A mixed-up pair would sign certificates that nobody accepts.
fn check_key_matches(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), SignError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| SignError::Crypto(format!("own certificate: {e}")))?;
    if parsed.public_key().raw == key.subject_public_key_info() {
        Ok(())
    } else {
        Err(SignError::Crypto("the signing key does not belong to the signing certificate".into()))
    }
}

fn ca_params(
    trust_domain: &TrustDomain,
    constraints: BasicConstraints,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.not_before = whole_seconds(now - BACKDATE);
    params.not_after = whole_seconds(not_after);
    params.serial_number = Some(random_serial());
    params.distinguished_name = ca_subject(trust_domain)?;
    params.subject_alt_names = vec![uri_name(&trust_domain.id())?];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn ca_subject(trust_domain: &TrustDomain) -> Result<DistinguishedName, SignError> {
    let name = trust_domain.as_str();
    let organization = &name[..name.len().min(MAX_ORGANIZATION)];
    let unique = hex(&random_serial().to_bytes());
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organization);
    subject.push(
        DnType::from_oid(&SERIAL_NUMBER_ATTRIBUTE),
        DnValue::PrintableString(unique.as_str().try_into()?),
    );
    Ok(subject)
}

/// Signs leaves with an intermediate.
pub(crate) struct LocalSigner {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

impl LocalSigner {
    /// Takes over an intermediate; its key must belong to its certificate.
    pub(crate) fn new(intermediate: &CaMaterial) -> Result<Self, SignError> {
        Ok(Self {
            issuer: issuer(intermediate)?,
            certificate: intermediate.certificate.clone(),
            validity: validity(&intermediate.certificate)?,
        })
    }

    /// When the signing certificate is valid.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }
}

impl Signer for LocalSigner {
    fn sign(&self, request: &ApprovedRequest, now: SystemTime) -> Result<SignedChain, SignError> {
        if now < self.validity.not_before {
            return Err(SignError::ClockBehind);
        }
        let not_after = (now + request.lifetime()).min(self.validity.not_after);
        if not_after < now + SHORTEST_LIFETIME {
            return Err(SignError::SignerExpiring);
        }
        let serial = random_serial();
        let params = leaf_params(request, serial.clone(), now, not_after)?;
        // From the bytes, not from the request's signature: rcgen would derive the key type from
        // the latter.
        let key = SubjectPublicKeyInfo::from_der(request.key().spki_der())?;
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let not_after = SystemTime::from(params.not_after);
        Ok(SignedChain {
            leaf,
            intermediates: vec![self.certificate.clone()],
            serial: hex(&serial.to_bytes()),
            not_after,
        })
    }
}

fn leaf_params(
    request: &ApprovedRequest,
    serial: SerialNumber,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.not_before = whole_seconds(now - BACKDATE);
    params.not_after = whole_seconds(not_after);
    params.serial_number = Some(serial);
    // An empty subject makes the names critical, as X509-SVID demands.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = leaf_names(request)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = match request.key().kind() {
        KeyKind::Ec => vec![KeyUsagePurpose::DigitalSignature],
        KeyKind::Rsa => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
    };
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn leaf_names(request: &ApprovedRequest) -> Result<Vec<SanType>, SignError> {
    let mut names = vec![uri_name(&request.id().to_string())?];
    for dns in request.dns_names() {
        names.push(SanType::DnsName(
            dns.as_str().try_into().map_err(|_| SignError::Name(dns.clone()))?,
        ));
    }
    names.extend(request.addresses().iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn uri_name(uri: &str) -> Result<SanType, SignError> {
    Ok(SanType::URI(uri.try_into().map_err(|_| SignError::Name(uri.to_owned()))?))
}

/// 16 random bytes, positive and without a leading zero, so that its DER and its text always have
/// one length.
fn random_serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    while !(0x01..0x80).contains(&bytes[0]) {
        rand::fill(&mut bytes).expect("the system's random source works");
    }
    SerialNumber::from_slice(&bytes)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// X.509 times have whole seconds.
fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

/// Requests as friends and foes would send them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use rcgen::SignatureAlgorithm;

    /// A request by a fresh key of `algorithm` for `names`; `spoil` may add what a foe would.
    pub(crate) fn csr(
        algorithm: &'static SignatureAlgorithm,
        uris: &[&str],
        spoil: impl Fn(&mut CertificateParams),
    ) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = uris.iter().map(|uri| uri_name(uri).unwrap()).collect();
        spoil(&mut params);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    /// A well-behaved P-256 request.
    pub(crate) fn good_csr(uris: &[&str]) -> String {
        csr(&PKCS_ECDSA_P256_SHA256, uris, |_| {})
    }

    /// A foe's request: a CA certificate with foreign names and key usages.
    pub(crate) fn greedy_csr(uri: &str) -> String {
        csr(&PKCS_ECDSA_P256_SHA256, &[uri], |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
                .subject_alt_names
                .push(SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()));
            params.distinguished_name.push(DnType::CommonName, "root");
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authenticate::{Caller, Proof},
        csr::Csr,
        policy,
        settings::Settings,
    };
    use ferromesh_proto::SpiffeId;
    use proptest::prelude::*;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm};
    use x509_parser::prelude::*;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    struct Chain {
        root: CaMaterial,
        intermediate: CaMaterial,
    }

    fn chain(settings: &Settings) -> Chain {
        let root = create_root(&settings.trust_domain, settings.root_ttl, now()).unwrap();
        let intermediate =
            create_intermediate(&root, &settings.trust_domain, settings.intermediate_ttl, now())
                .unwrap();
        Chain { root, intermediate }
    }

    fn approved(id: &str, csr: &str, settings: &Settings) -> ApprovedRequest {
        let caller = Caller {
            id: id.parse().unwrap(),
            proof: Proof::Token { kind: "test", token_id: None },
        };
        policy::approve_workload(&caller, &Csr::parse(csr).unwrap(), None, settings).unwrap()
    }

    fn issue(csr: &str, settings: &Settings) -> (Chain, SignedChain) {
        let chain = chain(settings);
        let signed = LocalSigner::new(&chain.intermediate)
            .unwrap()
            .sign(&approved(ID, csr, settings), now())
            .unwrap();
        (chain, signed)
    }

    fn check_signed(child: &X509Certificate<'_>, issuer: &X509Certificate<'_>) {
        child.verify_signature(Some(issuer.public_key())).expect("signed by its issuer");
        assert_eq!(child.issuer().as_raw(), issuer.subject().as_raw(), "names match byte for byte");
        let skid = issuer.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let akid = child.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(aki) => {
                aki.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        });
        assert!(skid.is_some());
        assert_eq!(akid, skid);
    }

    fn check_ca(ca: &X509Certificate<'_>, path_len: Option<u32>) {
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, path_len);
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(
            usage.critical
                && usage.value.key_cert_sign()
                && usage.value.crl_sign()
                && !usage.value.digital_signature()
        );
        assert!(
            ca.extended_key_usage().unwrap().is_none() && ca.name_constraints().unwrap().is_none()
        );
        let names = &ca.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names, &[GeneralName::URI("spiffe://cluster.local")]);
        assert_eq!(
            ca.subject().iter_organization().next().unwrap().as_str().unwrap(),
            "cluster.local"
        );
    }

    fn check_leaf(leaf: &X509Certificate<'_>, rsa: bool) {
        assert_eq!(leaf.subject().iter().count(), 0);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert_eq!(names.value.general_names, [GeneralName::URI(ID)]);
        let constraints = leaf.basic_constraints().unwrap().expect("explicit");
        assert!(constraints.critical && !constraints.value.ca);
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(
            usage.critical
                && usage.value.digital_signature()
                && !usage.value.key_cert_sign()
                && !usage.value.crl_sign()
        );
        assert_eq!(usage.value.key_encipherment(), rsa);
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        let serial = leaf.raw_serial();
        assert!(serial.len() == 16 && (0x01..0x80).contains(&serial[0]));
    }

    fn check_profile(algorithm: &'static SignatureAlgorithm, rsa: bool) {
        let (chain, signed) =
            issue(&testing::csr(algorithm, &[], |_| {}), &Settings::new(TrustDomain::default()));
        let (_, root) = parse_x509_certificate(&chain.root.certificate).unwrap();
        let (_, intermediate) = parse_x509_certificate(&signed.intermediates[0]).unwrap();
        let (_, leaf) = parse_x509_certificate(&signed.leaf).unwrap();
        root.verify_signature(None).expect("self-signed");
        check_ca(&root, None);
        check_ca(&intermediate, Some(0));
        check_leaf(&leaf, rsa);
        check_signed(&intermediate, &root);
        check_signed(&leaf, &intermediate);
        assert_ne!(root.subject().as_raw(), intermediate.subject().as_raw());
        assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 120);
        assert_eq!(leaf.validity().not_after.timestamp(), 1_800_000_000 + 24 * 3600);
    }

    #[test]
    fn certificates_have_the_profile_for_every_kind_of_key() {
        check_profile(&PKCS_ECDSA_P256_SHA256, false);
        check_profile(&PKCS_ECDSA_P384_SHA384, false);
        check_profile(&PKCS_RSA_SHA256, true);
    }

    #[test]
    fn the_key_of_a_certificate_is_the_request_s_whatever_hash_signed_the_request() {
        let csr = include_str!("../../testdata/csr/p256_sha384.pem");
        let (_, signed) = issue(csr, &Settings::new(TrustDomain::default()));
        let (_, leaf) = parse_x509_certificate(&signed.leaf).unwrap();
        assert_eq!(leaf.public_key().raw, Csr::parse(csr).unwrap().key().spki_der());
    }

    #[test]
    fn nothing_of_a_greedy_request_reaches_the_certificate() {
        let (_, signed) = issue(&testing::greedy_csr(ID), &Settings::new(TrustDomain::default()));
        check_leaf(&parse_x509_certificate(&signed.leaf).unwrap().1, false);
    }

    #[test]
    fn a_leaf_never_outlives_its_signer_nor_a_signer_its_root() {
        let day = Duration::from_secs(86_400);
        let settings = Settings { root_ttl: 7 * day, ..Settings::new(TrustDomain::default()) };
        let root = create_root(&settings.trust_domain, 7 * day, now()).unwrap();
        let late =
            create_intermediate(&root, &settings.trust_domain, 7 * day, now() + 6 * day).unwrap();
        let end = validity(&root.certificate).unwrap().not_after;
        assert_eq!(validity(&late.certificate).unwrap().not_after, end);
        let signer = LocalSigner::new(&late).unwrap();
        let request = approved(ID, &testing::good_csr(&[]), &settings);
        assert_eq!(signer.sign(&request, end - Duration::from_secs(60)).unwrap().not_after, end);
        assert!(matches!(signer.sign(&request, end), Err(SignError::SignerExpiring)));
        assert!(matches!(signer.sign(&request, now()), Err(SignError::ClockBehind)));
    }

    #[test]
    fn a_leaf_of_twenty_seconds_is_valid_at_once() {
        let twenty = Duration::from_secs(20);
        let (_, signed) = issue(
            &testing::good_csr(&[]),
            &Settings { leaf_ttl: twenty, ..Settings::new(TrustDomain::default()) },
        );
        assert_eq!(signed.not_after, now() + twenty);
        assert!(validity(&signed.leaf).unwrap().not_before < now());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let settings = Settings::new(TrustDomain::default());
        let Chain { root, intermediate } = chain(&settings);
        let mixed = CaMaterial { certificate: intermediate.certificate, key_pkcs8: root.key_pkcs8 };
        assert!(LocalSigner::new(&mixed).is_err());
    }

    #[test]
    fn serials_do_not_repeat_for_one_key() {
        let settings = Settings::new(TrustDomain::default());
        let signer = LocalSigner::new(&chain(&settings).intermediate).unwrap();
        let request = approved(ID, &testing::good_csr(&[]), &settings);
        let serials: std::collections::BTreeSet<_> =
            (0..50).map(|_| signer.sign(&request, now()).unwrap().serial).collect();
        assert_eq!(serials.len(), 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_id_comes_back_from_its_certificate(ns in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", sa in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            let id = SpiffeId::new(TrustDomain::default(), &ns, &sa).unwrap();
            let settings = Settings::new(TrustDomain::default());
            let request = approved(&id.to_string(), &testing::good_csr(&[]), &settings);
            let signed = LocalSigner::new(&chain(&settings).intermediate).unwrap().sign(&request, now()).unwrap();
            let (_, leaf) = parse_x509_certificate(&signed.leaf).unwrap();
            let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
            let [GeneralName::URI(uri)] = names[..] else { panic!("one URI name expected, got {names:?}") };
            prop_assert_eq!(uri.parse::<SpiffeId>().unwrap(), id);
        }
    }
}
