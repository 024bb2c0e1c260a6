//! Tokens that the API server has accepted a moment ago, so that a proxy that opens a stream and
//! asks for a certificate costs one review. Refusals are not remembered: the next try may be right.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use ferromesh_cert_authority::Caller;

/// A pod that is deleted keeps its identity for no longer.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Callers at a time; further ones are asked about each time.
const MOST: usize = 4096;

/// Stands for a token, which is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(token: &str) -> Self {
        Self(digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

#[derive(Default)]
pub(super) struct Accepted(HashMap<Digest, (Caller, SystemTime)>);

impl Accepted {
    /// Whom the token proves, if that was found out just before `now`.
    pub(super) fn get(&mut self, token: &Digest, now: SystemTime) -> Option<Caller> {
        let (caller, until) = self.0.get(token)?;
        // A clock that was set back must not prolong anything.
        (now < *until && *until <= now + REMEMBERED).then(|| caller.clone())
    }

    /// Remembers, never beyond the token's own end.
    pub(super) fn put(
        &mut self,
        token: Digest,
        caller: Caller,
        now: SystemTime,
        expiry: SystemTime,
    ) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MOST {
            self.0.insert(token, (caller, expiry.min(now + REMEMBERED)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferromesh_cert_authority::Proof;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn caller() -> Caller {
        let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an id");
        Caller { id, proof: Proof::Token { kind: "test", token_id: None } }
    }

    /// Whether a token that ends at `expiry` and was accepted at 100 is remembered at `when`.
    fn check(expiry: u64, when: u64, expected: bool) {
        let mut accepted = Accepted::default();
        accepted.put(Digest::of("a"), caller(), at(100), at(expiry));
        assert_eq!(
            accepted.get(&Digest::of("a"), at(when)).is_some(),
            expected,
            "until {expiry}, at {when}"
        );
        assert_eq!(accepted.get(&Digest::of("b"), at(when)), None);
    }

    #[test]
    fn an_acceptance_lasts_for_seconds_and_never_longer_than_the_token() {
        check(1000, 100, true);
        check(1000, 104, true);
        check(1000, 105, false);
        check(102, 101, true);
        check(102, 102, false);
        check(1000, 90, false);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_old_makes_room() {
        let mut accepted = Accepted::default();
        for n in 0..MOST + 10 {
            accepted.put(Digest::of(&n.to_string()), caller(), at(100), at(1000));
        }
        assert_eq!(accepted.0.len(), MOST);
        accepted.put(Digest::of("late"), caller(), at(200), at(1000));
        assert_eq!(accepted.0.len(), 1);
    }
}
