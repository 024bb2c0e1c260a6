//! Writes DER as PEM (RFC 7468). Reading is `rustls_pki_types`' job.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;

/// One certificate as PEM, with a final line feed.
pub fn certificate(der: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", der)
}

/// Several certificates as PEM, one after another.
pub fn certificates<'a>(ders: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    ders.into_iter().map(certificate).collect()
}

fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in lines {
        pem.push_str(line);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_is_written_reads_back() {
        for length in [1, 47, 48, 49, 400] {
            let der = CertificateDer::from(vec![7u8; length]);
            let read: Vec<_> =
                CertificateDer::pem_slice_iter(certificates([&der, &der]).as_bytes())
                    .map(Result::unwrap)
                    .collect();
            assert_eq!(read, [der.clone(), der]);
        }
    }
}
