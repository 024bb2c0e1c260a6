//! When the signing certificate is replaced: a pure decision, `state, now → action`.
//!
//! Only roots are published, and every leaf travels with the intermediate that signed it, so a new
//! intermediate needs no preparation: it signs from the moment it is durable, while leaves of the
//! old one stay valid.

use std::time::{Duration, SystemTime};

/// The time in which a certificate may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First instant.
    pub not_before: SystemTime,
    /// Last instant.
    pub not_after: SystemTime,
}

impl Validity {
    /// The whole span; zero when the bounds are reversed.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// What is left at `now`; zero once over.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

/// What to do about the signing certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing before `until`.
    Keep {
        /// When to ask again at the latest.
        until: SystemTime,
    },
    /// Make a new intermediate now; the old one may sign meanwhile if it is still valid.
    RenewIntermediate,
    /// The clock stands before the root's validity: nothing that is signed now would be accepted.
    ClockBehind,
    /// The root is over: nothing can be signed any more.
    RootExpired,
}

/// Decides about an intermediate of lifetime `ttl` under `root`: renewed at half its life, as long
/// as that gains time.
pub fn decide(root: Validity, intermediate: Validity, ttl: Duration, now: SystemTime) -> Action {
    if now < root.not_before {
        return Action::ClockBehind;
    }
    if now >= root.not_after {
        return Action::RootExpired;
    }
    let due = intermediate.not_after - intermediate.lifetime() / 2;
    // Near the root's end a new intermediate would end where the old one does: replacing it for
    // ever gains nothing.
    let gains = (now + ttl).min(root.not_after) > intermediate.not_after;
    if (now >= due || now < intermediate.not_before) && gains {
        Action::RenewIntermediate
    } else {
        Action::Keep { until: if now < due { due } else { root.not_after } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn check(now: u64, intermediate: (u64, u64), expected: Action) {
        let root = Validity { not_before: at(1_000), not_after: at(10_000) };
        let intermediate =
            Validity { not_before: at(intermediate.0), not_after: at(intermediate.1) };
        assert_eq!(
            decide(root, intermediate, Duration::from_secs(1_000), at(now)),
            expected,
            "at {now}"
        );
    }

    #[test]
    fn an_intermediate_is_renewed_at_half_its_life() {
        check(2_000, (2_000, 3_000), Action::Keep { until: at(2_500) });
        check(2_499, (2_000, 3_000), Action::Keep { until: at(2_500) });
        check(2_500, (2_000, 3_000), Action::RenewIntermediate);
        check(9_000, (2_000, 3_000), Action::RenewIntermediate);
    }

    #[test]
    fn near_the_end_of_the_root_an_equal_intermediate_is_not_made_again() {
        check(9_900, (9_000, 10_000), Action::Keep { until: at(10_000) });
        check(9_400, (9_000, 9_500), Action::RenewIntermediate);
    }

    #[test]
    fn nothing_is_signed_outside_the_root_s_validity() {
        check(999, (2_000, 3_000), Action::ClockBehind);
        check(10_000, (9_000, 10_000), Action::RootExpired);
    }
}
