//! Who is trusted: the roots that members of one trust domain check each other against, and the
//! certificates that may no longer prove anybody.

use std::{collections::BTreeMap, sync::RwLock, time::SystemTime};

use ferromesh_proto::TrustDomain;
use rustls_pki_types::CertificateDer;

use crate::pem;

/// The roots of one trust domain. Bundles of different trust domains are never merged (SPIFFE
/// bundle §4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustBundle {
    /// The domain that these roots, and no others, vouch for.
    pub trust_domain: TrustDomain,
    /// Sorted by DER and unique, so that equal bundles are equal values; never empty.
    roots: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// A bundle of `roots`, in any order.
    pub fn new(
        trust_domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let mut roots: Vec<_> = roots.into_iter().collect();
        roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        Self { trust_domain, roots }
    }

    /// The roots, sorted and unique.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// All roots as PEM, one after another: the last element of a CSR answer and the body of
    /// `ROOTCA`.
    pub fn pem(&self) -> String {
        pem::certificates(&self.roots)
    }
}

/// Serial numbers of revoked certificates that have not expired yet. Shared; the sealed state holds
/// the durable copy.
///
/// A revoked certificate cannot renew itself or speak to the control plane; peers learn nothing of
/// it, which is why certificates are short-lived.
#[derive(Debug, Default)]
pub struct Revocations(RwLock<BTreeMap<String, u64>>);

impl Revocations {
    /// From serial to expiry in seconds since 1970.
    pub(crate) fn new(serials: BTreeMap<String, u64>) -> Self {
        Self(RwLock::new(serials))
    }

    /// Whether a certificate is revoked, by its serial in lower-case hexadecimal.
    pub fn contains(&self, serial: &str) -> bool {
        self.0.read().expect("no holder of this lock panics").contains_key(serial)
    }

    pub(crate) fn replace(&self, serials: BTreeMap<String, u64>) {
        *self.0.write().expect("no holder of this lock panics") = serials;
    }
}

/// Drops serials whose certificates are over at `now`.
pub(crate) fn forget_expired(serials: &mut BTreeMap<String, u64>, now: SystemTime) {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    serials.retain(|_, expiry| *expiry >= now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_sets() {
        let [a, b] = [CertificateDer::from(vec![1]), CertificateDer::from(vec![2])];
        let td = TrustDomain::default();
        assert_eq!(
            TrustBundle::new(td.clone(), [a.clone(), b.clone()]),
            TrustBundle::new(td, [b.clone(), a, b])
        );
    }
}
