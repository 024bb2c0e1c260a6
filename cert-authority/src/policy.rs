//! Who may get which certificate: pure decisions. The only place that can make an
//! [`ApprovedRequest`].

use std::{net::IpAddr, time::Duration};

use ferromesh_proto::{SpiffeId, TrustDomain};

use crate::{
    authenticate::{Caller, Proof},
    csr::{Csr, PublicKey},
    settings::{SHORTEST_LIFETIME, Seconds, Settings},
};

/// A certificate that may be signed exactly as it stands here.
#[derive(Clone, Debug)]
pub struct ApprovedRequest {
    id: SpiffeId,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    key: PublicKey,
    lifetime: Duration,
}

impl ApprovedRequest {
    /// The only SPIFFE id of the certificate.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
    /// Further DNS names; empty for a workload.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }
    /// Further addresses; empty for a workload.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
    /// The key to certify.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
    /// The lifetime from now on; the signer shortens it to its own.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// Why a caller does not get a certificate; safe to show to it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The request names another id than the caller's own, several, or something that is no id.
    #[error(
        "the certificate request asks for {asked:?}, but the caller is {caller}: leave the names out or ask for its own id"
    )]
    ForeignName {
        /// URI names in the request.
        asked: Vec<String>,
        /// The proven id.
        caller: String,
    },
    /// The caller belongs to another trust domain.
    #[error("{caller} is not a member of trust domain {trust_domain}")]
    ForeignTrustDomain {
        /// The proven id.
        caller: String,
        /// The authority's domain.
        trust_domain: TrustDomain,
    },
    /// The request wants to live longer than is allowed, or too short to be useful.
    #[error("lifetime {asked} is not allowed: expected {least} to {most}, or 0 for the default")]
    Lifetime {
        /// What was asked for.
        asked: Seconds,
        /// The shortest that is allowed.
        least: Seconds,
        /// The longest that is allowed.
        most: Seconds,
    },
    /// A renewal by certificate that keeps the old key: a stolen key would stay good for ever.
    #[error(
        "a renewal needs a new key, but the request holds the key of the certificate that it renews"
    )]
    KeyReused,
}

/// Decides about a workload's request: it gets its own id, whatever else the request says.
///
/// # Errors
/// [`Refusal`] says which rule stands against it.
pub fn approve_workload(
    caller: &Caller,
    csr: &Csr,
    asked: Option<Duration>,
    settings: &Settings,
) -> Result<ApprovedRequest, Refusal> {
    if caller.id.trust_domain() != &settings.trust_domain {
        let trust_domain = settings.trust_domain.clone();
        return Err(Refusal::ForeignTrustDomain { caller: caller.id.to_string(), trust_domain });
    }
    check_names(caller, csr)?;
    check_new_key(caller, csr)?;
    Ok(ApprovedRequest {
        id: caller.id.clone(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        key: csr.key().clone(),
        lifetime: lifetime(asked, settings)?,
    })
}

/// Approves a certificate for the control plane's own ports: nobody asks for it over the network.
pub fn approve_server(
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    key: PublicKey,
    settings: &Settings,
) -> ApprovedRequest {
    ApprovedRequest {
        id: settings.server_id.clone(),
        dns_names,
        addresses,
        key,
        lifetime: settings.server_ttl,
    }
}

fn check_names(caller: &Caller, csr: &Csr) -> Result<(), Refusal> {
    let own = caller.id.to_string();
    match csr.uri_names() {
        [] => Ok(()),
        [only] if *only == own => Ok(()),
        names => Err(Refusal::ForeignName { asked: names.to_vec(), caller: own }),
    }
}

fn check_new_key(caller: &Caller, csr: &Csr) -> Result<(), Refusal> {
    match &caller.proof {
        Proof::Certificate { public_key, .. } if public_key == csr.key().spki_der() => {
            Err(Refusal::KeyReused)
        }
        _ => Ok(()),
    }
}

fn lifetime(asked: Option<Duration>, settings: &Settings) -> Result<Duration, Refusal> {
    match asked {
        None => Ok(settings.leaf_ttl),
        Some(asked) if (SHORTEST_LIFETIME..=settings.max_ttl).contains(&asked) => Ok(asked),
        Some(asked) => Err(Refusal::Lifetime {
            asked: Seconds(asked),
            least: Seconds(SHORTEST_LIFETIME),
            most: Seconds(settings.max_ttl),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::local::testing;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const OTHER: &str = "spiffe://cluster.local/ns/bank/sa/vault";

    fn caller(id: &str) -> Caller {
        Caller { id: id.parse().unwrap(), proof: Proof::Token { kind: "test", token_id: None } }
    }

    fn check(
        caller: &Caller,
        names: &[&str],
        asked: Option<u64>,
    ) -> Result<ApprovedRequest, Refusal> {
        let csr = Csr::parse(&testing::good_csr(names)).unwrap();
        let settings = Settings::new(TrustDomain::default());
        approve_workload(caller, &csr, asked.map(Duration::from_secs), &settings)
    }

    #[test]
    fn a_caller_gets_its_own_id_and_no_other() {
        assert_eq!(check(&caller(ID), &[], None).unwrap().id().to_string(), ID);
        assert_eq!(check(&caller(ID), &[ID], None).unwrap().id().to_string(), ID);
        for foreign in [
            &[OTHER][..],
            &[ID, OTHER],
            &[ID, ID],
            &["spiffe://cluster.local"],
            &["https://example.com"],
        ] {
            assert!(
                matches!(check(&caller(ID), foreign, None), Err(Refusal::ForeignName { .. })),
                "{foreign:?}"
            );
        }
    }

    #[test]
    fn another_trust_domain_gets_nothing() {
        let outcome = check(&caller("spiffe://other/ns/shop/sa/cart"), &[], None);
        assert!(matches!(outcome, Err(Refusal::ForeignTrustDomain { .. })));
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!(check(&caller(ID), &[], None).unwrap().lifetime(), Duration::from_secs(86_400));
        assert_eq!(check(&caller(ID), &[], Some(20)).unwrap().lifetime(), Duration::from_secs(20));
        for bad in [1, 86_401, u64::MAX] {
            assert!(
                matches!(check(&caller(ID), &[], Some(bad)), Err(Refusal::Lifetime { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_renewal_needs_a_new_key() {
        let csr = Csr::parse(&testing::good_csr(&[])).unwrap();
        let renewal = |public_key| Caller {
            id: ID.parse().unwrap(),
            proof: Proof::Certificate { serial: "1".into(), public_key },
        };
        let settings = Settings::new(TrustDomain::default());
        let reused =
            approve_workload(&renewal(csr.key().spki_der().to_vec()), &csr, None, &settings);
        assert_eq!(reused.err(), Some(Refusal::KeyReused));
        assert!(approve_workload(&renewal(vec![1]), &csr, None, &settings).is_ok());
    }
}
