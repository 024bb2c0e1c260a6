//! Fault injection: which faults a request gets. Pure but for the random numbers that are passed in; delay and abort are
//! drawn independently of each other.

use std::time::Duration;

use crate::runtime::{
    RequestFacts,
    http::{AbortStatus, FaultConfig},
};

/// The faults of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Wait so long first.
    pub(crate) delay: Option<Duration>,
    /// Answer so instead of going on.
    pub(crate) abort: Option<AbortStatus>,
}

/// Draws the faults for a request.
pub(crate) fn draw(config: &FaultConfig, request: &RequestFacts<'_>, mut random: impl FnMut() -> u64) -> Faults {
    if !config.headers.iter().all(|header| header.matches(request)) {
        return Faults::default();
    }
    Faults {
        delay: config.delay.filter(|delay| delay.share.contains(random())).map(|delay| delay.duration),
        abort: config.abort.filter(|abort| abort.share.contains(random())).map(|abort| abort.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        ConnectionFacts,
        facts::NoHeaders,
        http::{FaultAbort, FaultDelay},
        matcher::{HeaderMatcher, Share, ValueMatcher},
    };

    fn check(headers: Vec<HeaderMatcher>, randoms: [u64; 2], delayed: bool, aborted: bool) {
        let connection = ConnectionFacts::plaintext(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let request = RequestFacts {
            connection: &connection,
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            remote_ip: connection.source.ip(),
            headers: &NoHeaders,
        };
        let config = FaultConfig {
            delay: Some(FaultDelay { duration: Duration::from_secs(1), share: Share::per_million(500_000) }),
            abort: Some(FaultAbort { status: AbortStatus::Http(500), share: Share::per_million(500_000) }),
            headers,
        };
        let mut randoms = randoms.into_iter();
        let faults = draw(&config, &request, || randoms.next().expect("two numbers at most"));
        assert_eq!((faults.delay.is_some(), faults.abort.is_some()), (delayed, aborted), "{randoms:?}");
    }

    #[test]
    fn delay_and_abort_are_drawn_independently() {
        check(vec![], [0, 0], true, true);
        check(vec![], [0, 999_999], true, false);
        check(vec![], [999_999, 0], false, true);
        check(vec![], [999_999, 999_999], false, false);
    }

    #[test]
    fn a_request_that_does_not_match_gets_none() {
        let present = HeaderMatcher {
            name: "x".into(),
            value: ValueMatcher::Present(true),
            invert: false,
            missing_is_empty: false,
        };
        check(vec![present], [0, 0], false, false);
    }
}
