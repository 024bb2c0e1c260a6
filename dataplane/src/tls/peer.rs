//! Reads what policies, headers and logs need of a certificate.

use std::{fmt::Write, sync::Arc};

use rustls::{CertificateError, Error};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::runtime::facts::{EncodedChain, PeerCertificate};

/// Reads a certificate.
///
/// # Errors
/// `BadEncoding` when it is not a certificate or its names cannot be read.
pub fn read_peer(der: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
    let certificate = parse(der)?;
    let mut peer = PeerCertificate {
        subject: distinguished_name(certificate.subject()).into(),
        sha256: hexadecimal(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
            .into(),
        ..PeerCertificate::default()
    };
    let names = certificate.subject_alternative_name().map_err(|_| bad_encoding())?;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => peer.uri_sans.push((*uri).into()),
            GeneralName::DNSName(dns) => peer.dns_sans.push((*dns).into()),
            _ => {}
        }
    }
    Ok(peer)
}

/// Reads a client's chain, leaf first; `None` if it has shown none. `whole` also keeps the
/// certificates themselves, for [`PeerCertificate::encoded`].
///
/// # Errors
/// As [`read_peer`].
pub(super) fn read_chain(
    chain: Option<&[CertificateDer<'_>]>,
    whole: bool,
) -> Result<Option<Arc<PeerCertificate>>, Error> {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Ok(None) };
    let mut peer = read_peer(leaf)?;
    peer.encoded = whole.then(|| EncodedChain {
        leaf: url_encoded_pem(leaf).into(),
        chain: chain.unwrap_or_default().iter().map(url_encoded_pem).collect::<String>().into(),
    });
    Ok(Some(Arc::new(peer)))
}

fn bad_encoding() -> Error {
    Error::InvalidCertificate(CertificateError::BadEncoding)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    x509_parser::parse_x509_certificate(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| bad_encoding())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The string form of RFC 2253 section 2: the last name first, joined by commas.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts =
        parts.iter().rev().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    parts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let known = oid2abbrev(oid, oid_registry()).ok();
    match (known, attribute.as_str()) {
        (Some(name), Ok(text)) => format!("{name}={}", escaped(text)),
        // Section 2.4: what is no string, or has no known name, is its encoding.
        (name, _) => {
            let name = name.map_or_else(|| oid.to_id_string(), ToOwned::to_owned);
            format!("{name}=#{}", hexadecimal(attribute.as_slice()))
        }
    }
}

/// Section 2.4: separators are escaped by a backslash, and so is everything outside of printable
/// ASCII, by its bytes, as OpenSSL's `XN_FLAG_RFC2253` does it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if index == 0 => out.push_str("\\#"),
            b' ' if index == 0 || index == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\{other:02X}");
            }
        }
    }
    out
}

/// PEM with the characters percent-encoded that mean something in a header or a URL.
fn url_encoded_pem(der: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let base64 = base64(der);
    let mut out = String::with_capacity(base64.len() + base64.len() / 8 + 96);
    out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (index, char) in base64.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            out.push_str("%0A");
        }
        match char {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            other => out.push(other),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    out
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// What OpenSSL and Envoy 1.40 say of the same names.
    #[test]
    fn a_subject_is_spelled_as_in_rfc_2253() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc; \"x\"");
            params.distinguished_name.push(DnType::CommonName, "cl/ient");
        });
        assert_eq!(&*read_peer(&der).unwrap().subject, r#"CN=cl/ient,O=Acme\, Inc\; \"x\""#);
        assert_eq!(escaped(" #ü\n "), "\\ #\\C3\\BC\\0A\\ ");
        assert_eq!(escaped("#a"), "\\#a");
        assert_eq!(&*read_peer(&certificate(|_| {})).unwrap().subject, "");
    }

    #[test]
    fn names_come_in_their_order_and_the_chain_only_where_it_is_wanted() {
        let der = certificate(|params| {
            let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
            params.subject_alt_names = vec![
                uri("spiffe://td/a"),
                SanType::DnsName("a.test".try_into().unwrap()),
                uri("spiffe://td/b"),
            ];
        });
        let chain = [der.clone(), der];
        let peer = read_chain(Some(&chain), false).unwrap().unwrap();
        assert_eq!(peer.uri_sans, ["spiffe://td/a".into(), "spiffe://td/b".into()]);
        assert_eq!(peer.dns_sans, ["a.test".into()]);
        assert_eq!(peer.encoded, None);
        let whole = read_chain(Some(&chain), true).unwrap().unwrap().encoded.clone().unwrap();
        assert!(whole.leaf.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"), "{}", whole.leaf);
        assert!(whole.leaf.ends_with("%0A-----END%20CERTIFICATE-----%0A"), "{}", whole.leaf);
        assert!(!whole.leaf.contains(['+', '/', '=', ' ', '\n']), "{}", whole.leaf);
        assert_eq!(*whole.chain, *whole.leaf.repeat(2));
        assert_eq!(read_chain(None, true).unwrap(), None);
    }
}
