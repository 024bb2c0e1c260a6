//! What an operator may choose about the authority, checked once.

use std::{fmt, time::Duration};

use ferromesh_proto::{SpiffeId, TrustDomain};

/// The shortest certificate worth issuing: below it clock skew and network time eat the lifetime.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);
/// How far `not_before` lies in the past, so that a peer whose clock lags accepts a fresh
/// certificate (as Istio does).
pub const BACKDATE: Duration = Duration::from_secs(120);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lifetimes and names of an authority.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only trust domain that this authority signs for.
    pub trust_domain: TrustDomain,
    /// Lifetime of a workload's certificate when the request names none.
    pub leaf_ttl: Duration,
    /// The longest lifetime that a request may name.
    pub max_ttl: Duration,
    /// Lifetime of the signing certificate; it is replaced at half of it.
    pub intermediate_ttl: Duration,
    /// Lifetime of a root that is made on first start.
    pub root_ttl: Duration,
    /// Lifetime of the control plane's own certificates; it asks for the next one at half of it.
    pub server_ttl: Duration,
    /// The id that the control plane's own certificates carry beside their DNS names.
    pub server_id: SpiffeId,
}

impl Settings {
    /// Defaults for a trust domain: leaves and the control plane's own certificates 24 h,
    /// intermediate 7 d, root 10 y, and the control plane's own id
    /// `spiffe://TD/ns/istio-system/sa/ferromesh`.
    pub fn new(trust_domain: TrustDomain) -> Self {
        let server_id = SpiffeId::new(trust_domain.clone(), "istio-system", "ferromesh")
            .expect("both names are DNS labels");
        Self {
            trust_domain,
            leaf_ttl: DAY,
            max_ttl: DAY,
            intermediate_ttl: 7 * DAY,
            root_ttl: 3650 * DAY,
            server_ttl: DAY,
            server_id,
        }
    }

    /// Refuses lifetimes that would break renewal: an intermediate shorter than six leaves, a root
    /// shorter than its intermediate, a default above the maximum.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting and what it must be.
    pub fn check(&self) -> Result<(), SettingsError> {
        at_least("leaf lifetime", self.leaf_ttl, SHORTEST_LIFETIME, "the shortest lifetime")?;
        at_least(
            "longest leaf lifetime",
            self.max_ttl,
            self.leaf_ttl,
            "the default leaf lifetime",
        )?;
        at_least(
            "control plane's certificate lifetime",
            self.server_ttl,
            SHORTEST_LIFETIME,
            "the shortest lifetime",
        )?;
        at_least(
            "intermediate lifetime",
            self.intermediate_ttl,
            6 * self.leaf_ttl,
            "six leaf lifetimes",
        )?;
        at_least(
            "root lifetime",
            self.root_ttl,
            self.intermediate_ttl,
            "the intermediate lifetime",
        )?;
        if self.server_id.trust_domain() == &self.trust_domain {
            Ok(())
        } else {
            Err(SettingsError::ForeignServerId(self.server_id.to_string()))
        }
    }
}

fn at_least(
    setting: &'static str,
    got: Duration,
    floor: Duration,
    why: &'static str,
) -> Result<(), SettingsError> {
    if got >= floor {
        Ok(())
    } else {
        Err(SettingsError::TooShort { setting, got: Seconds(got), floor: Seconds(floor), why })
    }
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A lifetime below what another setting needs.
    #[error("{setting}: expected at least {floor} ({why}), got {got}")]
    TooShort {
        /// Which lifetime.
        setting: &'static str,
        /// What was given.
        got: Seconds,
        /// The least that works.
        floor: Seconds,
        /// Where the floor comes from.
        why: &'static str,
    },
    /// The control plane's own id lies outside the trust domain.
    #[error("the control plane's own id {0} is not in the authority's trust domain")]
    ForeignServerId(String),
}

/// A duration that prints as whole seconds, `20s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

/// Whether a missing store may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstStart {
    /// No part of this control plane's state ever existed here: a missing authority is made.
    Allowed,
    /// State exists: a missing authority is a loss, and an error, since a new root would cut off
    /// every workload.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_that_break_renewal_are_refused() {
        let good = Settings::new(TrustDomain::default());
        good.check().expect("defaults work");
        Settings { leaf_ttl: Duration::from_secs(20), ..good.clone() }
            .check()
            .expect("20 s leaves work");
        for bad in [
            Settings { leaf_ttl: Duration::from_secs(1), ..good.clone() },
            Settings { leaf_ttl: 2 * DAY, ..good.clone() },
            Settings { intermediate_ttl: 5 * DAY, ..good.clone() },
            Settings { root_ttl: DAY, ..good.clone() },
            Settings { trust_domain: TrustDomain::new("other").unwrap(), ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
