//! Envoy's response flags: two to five letters on why an answer is not simply the upstream's.

use std::fmt;

/// A set of response flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `UH`: no endpoint may take the request.
    pub const NO_HEALTHY_UPSTREAM: Self = Self(1);
    /// `UF`: the connection to the endpoint failed.
    pub const UPSTREAM_CONNECTION_FAILURE: Self = Self(1 << 1);
    /// `UO`: a circuit breaker is open.
    pub const UPSTREAM_OVERFLOW: Self = Self(1 << 2);
    /// `NR`: no route.
    pub const NO_ROUTE: Self = Self(1 << 3);
    /// `URX`: the last of several attempts has failed.
    pub const RETRY_LIMIT_EXCEEDED: Self = Self(1 << 4);
    /// `NC`: the route's cluster does not exist.
    pub const NO_CLUSTER: Self = Self(1 << 5);
    /// `DC`: downstream went away.
    pub const DOWNSTREAM_TERMINATION: Self = Self(1 << 6);
    /// `UT`: upstream did not answer in time.
    pub const UPSTREAM_TIMEOUT: Self = Self(1 << 7);
    /// `UC`: upstream closed the connection.
    pub const UPSTREAM_TERMINATION: Self = Self(1 << 8);
    /// `UR`: upstream reset the stream.
    pub const UPSTREAM_RESET: Self = Self(1 << 9);
    /// `DI`: delayed by a fault.
    pub const DELAY_INJECTED: Self = Self(1 << 10);
    /// `FI`: aborted by a fault.
    pub const FAULT_INJECTED: Self = Self(1 << 11);
    /// `UAEX`: refused by a policy.
    pub const UNAUTHORIZED: Self = Self(1 << 12);
    /// `SI`: silent for too long.
    pub const STREAM_IDLE_TIMEOUT: Self = Self(1 << 13);
    /// `UPE`: upstream broke the protocol.
    pub const UPSTREAM_PROTOCOL_ERROR: Self = Self(1 << 14);
    /// `DPE`: downstream broke the protocol.
    pub const DOWNSTREAM_PROTOCOL_ERROR: Self = Self(1 << 15);
    /// `DR`: downstream reset the stream.
    pub const DOWNSTREAM_REMOTE_RESET: Self = Self(1 << 16);

    /// `RL`: a local rate limit was reached.
    pub const RATE_LIMITED: Self = Self(1 << 17);
    /// The service that counts requests has not answered.
    pub const RATE_LIMIT_ERROR: Self = Self(1 << 18);

    /// The last ones are set by no part of this proxy: an agent reads them from its Envoy.
    const NAMES: [(Self, &'static str); 30] = [
        (Self::NO_HEALTHY_UPSTREAM, "UH"),
        (Self::UPSTREAM_CONNECTION_FAILURE, "UF"),
        (Self::UPSTREAM_OVERFLOW, "UO"),
        (Self::NO_ROUTE, "NR"),
        (Self::RETRY_LIMIT_EXCEEDED, "URX"),
        (Self::NO_CLUSTER, "NC"),
        (Self::DOWNSTREAM_TERMINATION, "DC"),
        (Self::UPSTREAM_TIMEOUT, "UT"),
        (Self::UPSTREAM_TERMINATION, "UC"),
        (Self::UPSTREAM_RESET, "UR"),
        (Self::DELAY_INJECTED, "DI"),
        (Self::FAULT_INJECTED, "FI"),
        (Self::UNAUTHORIZED, "UAEX"),
        (Self::STREAM_IDLE_TIMEOUT, "SI"),
        (Self::UPSTREAM_PROTOCOL_ERROR, "UPE"),
        (Self::DOWNSTREAM_PROTOCOL_ERROR, "DPE"),
        (Self::DOWNSTREAM_REMOTE_RESET, "DR"),
        (Self::RATE_LIMITED, "RL"),
        (Self::RATE_LIMIT_ERROR, "RLSE"),
        (Self(1 << 19), "LH"),
        (Self(1 << 20), "LR"),
        (Self(1 << 21), "IH"),
        (Self(1 << 22), "UMSDR"),
        (Self(1 << 23), "RFCF"),
        (Self(1 << 24), "NFCF"),
        (Self(1 << 25), "DT"),
        (Self(1 << 26), "OM"),
        (Self(1 << 27), "DF"),
        (Self(1 << 28), "DO"),
        (Self(1 << 29), "UDO"),
    ];

    /// The flags of these names, which stand between commas; unknown ones are left out.
    pub fn named(names: &str) -> Self {
        let known = |name: &str| Self::NAMES.into_iter().find(|(_, own)| *own == name);
        let flags = names.split(',').filter_map(|name| known(name.trim()));
        flags.fold(Self::NONE, |all, (flag, _)| all.with(flag))
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any flag is set.
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.0 & flag.0 != 0).map(|(_, name)| name)
    }
}

/// The names joined by commas, or `-`.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.any() {
            return f.write_str("-");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_envoy_writes_them() {
        assert_eq!(Flags::default().to_string(), "-");
        assert_eq!(Flags::UPSTREAM_TIMEOUT.to_string(), "UT");
        let both = Flags::UPSTREAM_CONNECTION_FAILURE.with(Flags::RETRY_LIMIT_EXCEEDED);
        assert_eq!(both.to_string(), "UF,URX");
        assert_eq!(Flags::named("URX,UF,?"), both);
        assert_eq!((Flags::named("-"), Flags::named("DF").to_string()), (Flags::NONE, "DF".into()));
    }
}
