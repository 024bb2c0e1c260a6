//! Reads certificate requests (PKCS#10) from strangers: size, form, key policy and proof of
//! possession.
//!
//! Of a request only the public key and the names it asks for are kept; extensions, subject and CA
//! flags are dropped here and cannot reach a certificate.

use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    asn1_rs::Tag,
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, Oid,
    },
    prelude::FromDer,
    public_key::PublicKey as ParsedKey,
    x509::SubjectPublicKeyInfo,
};

/// Largest request text, in bytes: an RSA-4096 request with many names is below 4 KiB.
pub const MAX_PEM: usize = 16 << 10;

/// Why a request is refused; safe to show to its sender.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrError {
    /// Above [`MAX_PEM`].
    #[error("certificate request of {0} bytes: at most {MAX_PEM} are allowed")]
    TooLarge(usize),
    /// Not exactly one PEM block of the right kind.
    #[error("expected exactly one PEM block CERTIFICATE REQUEST and nothing else")]
    Pem,
    /// Not a PKCS#10 request in DER, or bytes follow it.
    #[error("the certificate request is not valid DER")]
    Der,
    /// The request is signed with an algorithm that is not allowed, such as one with SHA-1.
    #[error(
        "signature algorithm {0} is not allowed: expected ECDSA or RSA with SHA-256 or stronger"
    )]
    SignatureAlgorithm(String),
    /// The key is of a kind or size that is not allowed.
    #[error(
        "public key not allowed: {0}; expected EC P-256, EC P-384, or RSA of 2048 to 4096 bits with exponent 65537"
    )]
    Key(String),
    /// The sender does not hold the private key.
    #[error("the request is not signed by the key in it")]
    Possession,
}

/// What kind of key a certificate will hold; decides its key usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// EC P-256 or P-384.
    Ec,
    /// RSA, 2048 to 4096 bits.
    Rsa,
}

/// A public key that the key policy allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    spki_der: Vec<u8>,
    kind: KeyKind,
}

impl PublicKey {
    /// Checks a DER SubjectPublicKeyInfo against the key policy.
    ///
    /// # Errors
    /// [`CsrError::Key`] when the kind, curve, size or exponent is not allowed, [`CsrError::Der`]
    /// when it is malformed.
    pub fn from_spki(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        Ok(Self { spki_der: der.to_vec(), kind: check_key(&spki)? })
    }

    /// The key as DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// EC or RSA.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }
}

/// A request whose sender has proven to hold the private key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Csr {
    key: PublicKey,
    uri_names: Vec<String>,
}

impl Csr {
    /// Reads and checks a PEM request.
    ///
    /// # Errors
    /// [`CsrError`] tells which rule it breaks. Cost: one signature verification.
    pub fn parse(pem: &str) -> Result<Self, CsrError> {
        let der = only_block(pem)?;
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        let key = PublicKey::from_spki(csr.certification_request_info.subject_pki.raw)?;
        check_signature_algorithm(&csr.signature_algorithm.algorithm)?;
        csr.verify_signature().map_err(|_| CsrError::Possession)?;
        Ok(Self { key, uri_names: uri_names(&csr) })
    }

    /// The key to certify.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// URI names that the sender asks for, in order; often empty.
    pub fn uri_names(&self) -> &[String] {
        &self.uri_names
    }
}

fn only_block(pem: &str) -> Result<CertificateSigningRequestDer<'static>, CsrError> {
    if pem.len() > MAX_PEM {
        return Err(CsrError::TooLarge(pem.len()));
    }
    let text = pem.trim();
    let framed = text.starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        && text.ends_with("-----END CERTIFICATE REQUEST-----");
    if !framed || text.matches("-----BEGIN").count() != 1 || text.matches("-----END").count() != 1 {
        return Err(CsrError::Pem);
    }
    CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| CsrError::Pem)
}

fn check_signature_algorithm(oid: &Oid<'_>) -> Result<(), CsrError> {
    let allowed = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
    ];
    if allowed.contains(oid) {
        Ok(())
    } else {
        Err(CsrError::SignatureAlgorithm(oid.to_id_string()))
    }
}

fn check_key(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, CsrError> {
    let algorithm = &spki.algorithm.algorithm;
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        check_curve(spki)
    } else if *algorithm == OID_PKCS1_RSAENCRYPTION {
        check_rsa(spki)
    } else {
        Err(CsrError::Key(format!("algorithm {}", algorithm.to_id_string())))
    }
}

/// The point must have the curve's length; that it lies on the curve is checked when the signature
/// is.
fn check_curve(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, CsrError> {
    // `as_oid` reads the content of any element, also of the spelled-out parameters of a home-made
    // curve.
    let named = spki.algorithm.parameters.as_ref().filter(|p| p.tag() == Tag::Oid);
    let curve = named.and_then(|p| p.as_oid().ok());
    let point = &spki.subject_public_key.data;
    let coordinate = match curve {
        Some(oid) if oid == OID_EC_P256 => 32,
        Some(oid) if oid == OID_NIST_EC_P384 => 48,
        Some(oid) => return Err(CsrError::Key(format!("curve {}", oid.to_id_string()))),
        None => return Err(CsrError::Key("curve without a name".into())),
    };
    if point.len() == 1 + 2 * coordinate && point[0] == 4 {
        Ok(KeyKind::Ec)
    } else {
        Err(CsrError::Key("the point is not uncompressed, or not of the curve's length".into()))
    }
}

fn check_rsa(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, CsrError> {
    let Ok(ParsedKey::RSA(key)) = spki.parsed() else { return Err(CsrError::Der) };
    let modulus =
        key.modulus.iter().position(|b| *b != 0).map_or(&[][..], |first| &key.modulus[first..]);
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |b| b.leading_zeros() as usize);
    match key.try_exponent() {
        Ok(65537) if (2048..=4096).contains(&bits) => Ok(KeyKind::Rsa),
        exponent => {
            Err(CsrError::Key(format!("RSA of {bits} bits, exponent {}", exponent.unwrap_or(0))))
        }
    }
}

fn uri_names(csr: &X509CertificationRequest<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for extension in csr.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(san) = extension {
            let uris = san.general_names.iter();
            names.extend(uris.filter_map(|name| {
                if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
            }));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pem, signer::local::testing};
    use proptest::prelude::*;
    use rcgen::{
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        PKCS_RSA_SHA256,
    };

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn allowed_keys_pass_and_others_do_not() {
        for (algorithm, expected) in [
            (&PKCS_ECDSA_P256_SHA256, Some(KeyKind::Ec)),
            (&PKCS_ECDSA_P384_SHA384, Some(KeyKind::Ec)),
            (&PKCS_RSA_SHA256, Some(KeyKind::Rsa)),
            (&PKCS_ED25519, None),
            (&PKCS_ECDSA_P521_SHA512, None),
        ] {
            let parsed = Csr::parse(&testing::csr(algorithm, &[], |_| {}));
            assert_eq!(
                parsed.as_ref().ok().map(|csr| csr.key().kind()),
                expected,
                "{algorithm:?}: {parsed:?}"
            );
        }
    }

    /// Requests of OpenSSL, `testdata/csr/NAME.pem`.
    fn check_foreign(text: &str, expected: Result<KeyKind, &str>) {
        match (Csr::parse(text), expected) {
            (Ok(csr), Ok(kind)) => assert_eq!(csr.key().kind(), kind),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error}: expected {part}")
            }
            (got, _) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn weak_and_odd_keys_and_signatures_are_refused() {
        check_foreign(include_str!("../testdata/csr/rsa1024.pem"), Err("RSA of 1024 bits"));
        check_foreign(include_str!("../testdata/csr/rsa8192.pem"), Err("RSA of 8192 bits"));
        check_foreign(include_str!("../testdata/csr/rsa_exponent3.pem"), Err("exponent 3"));
        check_foreign(
            include_str!("../testdata/csr/rsa_sha1.pem"),
            Err("1.2.840.113549.1.1.5 is not allowed"),
        );
        check_foreign(
            include_str!("../testdata/csr/ecdsa_sha1.pem"),
            Err("1.2.840.10045.4.1 is not allowed"),
        );
        check_foreign(include_str!("../testdata/csr/secp256k1.pem"), Err("curve 1.3.132.0.10"));
        check_foreign(
            include_str!("../testdata/csr/p256_explicit.pem"),
            Err("curve without a name"),
        );
        check_foreign(include_str!("../testdata/csr/p256_sha384.pem"), Ok(KeyKind::Ec));
    }

    #[test]
    fn names_are_read_in_order() {
        let other = "spiffe://cluster.local/ns/shop/sa/other";
        assert_eq!(
            Csr::parse(&testing::good_csr(&[])).unwrap().uri_names(),
            <[String; 0]>::default()
        );
        assert_eq!(Csr::parse(&testing::good_csr(&[ID, other])).unwrap().uri_names(), [ID, other]);
    }

    fn check_form(text: &str, expected: CsrError) {
        assert_eq!(Csr::parse(text), Err(expected), "{text:.80}");
    }

    #[test]
    fn exactly_one_block_of_limited_size_is_read() {
        let good = testing::good_csr(&[ID]);
        assert!(Csr::parse(&format!("\n{good}\n")).is_ok());
        check_form("", CsrError::Pem);
        check_form(&format!("{good}{good}"), CsrError::Pem);
        check_form(&format!("garbage\n{good}"), CsrError::Pem);
        check_form(&format!("{good}garbage"), CsrError::Pem);
        check_form(&good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), CsrError::Pem);
        check_form(&good.replace("CERTIFICATE REQUEST", "PRIVATE KEY"), CsrError::Pem);
        let huge = format!("{good}{}", "\n".repeat(MAX_PEM));
        check_form(&huge, CsrError::TooLarge(huge.len()));
    }

    fn der(pem: &str) -> Vec<u8> {
        only_block(pem).unwrap().to_vec()
    }

    fn request_pem(der: &[u8]) -> String {
        pem::certificate(&der.to_vec().into()).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = der(&testing::good_csr(&[ID]));
        bytes.push(0);
        check_form(&request_pem(&bytes), CsrError::Der);
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let mut mine = der(&testing::good_csr(&[]));
        let theirs = der(&testing::good_csr(&[]));
        // Same names and lengths, so the public keys can be exchanged in place.
        let parse = |bytes: &[u8]| {
            X509CertificationRequest::from_der(bytes)
                .unwrap()
                .1
                .certification_request_info
                .subject_pki
                .raw
                .to_vec()
        };
        let (own_key, their_key) = (parse(&mine), parse(&theirs));
        let at = mine.windows(own_key.len()).position(|w| w == own_key).unwrap();
        mine[at..at + own_key.len()].copy_from_slice(&their_key);
        check_form(&request_pem(&mine), CsrError::Possession);
    }

    proptest! {
        #[test]
        fn arbitrary_requests_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Csr::parse(&request_pem(&bytes));
            let _ = Csr::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_request_with_a_changed_byte_never_panics_and_never_names_another_key(position in 0usize..200, bit in 0u8..8) {
            let good = der(&testing::good_csr(&[ID]));
            let mut bad = good.clone();
            let position = position % bad.len();
            bad[position] ^= 1 << bit;
            // The outermost tag is not signed, so a parser may overlook its spelling; what it reads
            // is the same then.
            let parsed = Csr::parse(&request_pem(&bad));
            prop_assert!(parsed.is_err() || parsed == Csr::parse(&request_pem(&good)));
        }
    }
}
