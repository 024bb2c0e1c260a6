//! Fault injection: which faults a request gets. Delay and abort are drawn independently of each
//! other. Spec: Envoy `HTTPFault`.

use std::time::Duration;

use http::HeaderMap;

use super::{Answer, FilterRequest, Payload, Step};
use crate::runtime::{
    facts::RequestFacts,
    flags::Flags,
    matcher::{HeaderMatcher, Share},
};

/// Faults to inject.
#[derive(Clone, Debug)]
pub struct FaultConfig {
    /// Wait before going on.
    pub delay: Option<FaultDelay>,
    /// Answer instead of going on.
    pub abort: Option<FaultAbort>,
    /// All must match, else there is no fault.
    pub headers: Vec<HeaderMatcher>,
}

/// A delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// For how many.
    pub share: Share,
}

/// An abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultAbort {
    /// The answer.
    pub status: AbortStatus,
    /// For how many.
    pub share: Share,
}

/// The answer of an abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbortStatus {
    /// An HTTP status, with body `fault filter abort`.
    Http(u16),
    /// HTTP 200 with this `grpc-status`.
    Grpc(u32),
}

const TEXT: &str = "fault filter abort";

impl FaultConfig {
    /// Draws the request's faults.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>) -> Step {
        let faults = draw(self, &request.facts(), request.random);
        let answer = faults.abort.map(|status| Box::new(status.answer()));
        match (faults.delay, answer) {
            (Some(delay), answer) => {
                request.flag(Flags::DELAY_INJECTED);
                Step::Wait(delay, answer)
            }
            (None, Some(answer)) => Step::Answer(answer),
            (None, None) => Step::Continue,
        }
    }
}

impl AbortStatus {
    fn answer(self) -> Answer {
        let payload = match self {
            Self::Http(status) => Payload::Text { status, text: TEXT.into(), grpc: None },
            Self::Grpc(status) => Payload::Grpc { status, text: TEXT.into() },
        };
        let (flag, details) = (Flags::FAULT_INJECTED, "fault_filter_abort".into());
        Answer { payload, flag, details, changes: None, headers: HeaderMap::new() }
    }
}

/// The faults of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Faults {
    /// Wait so long first.
    delay: Option<Duration>,
    /// Answer so instead of going on.
    abort: Option<AbortStatus>,
}

/// Draws the faults for a request.
fn draw(
    config: &FaultConfig,
    request: &RequestFacts<'_>,
    mut random: impl FnMut() -> u64,
) -> Faults {
    if !config.headers.iter().all(|header| header.matches(request)) {
        return Faults::default();
    }
    Faults {
        delay: config
            .delay
            .filter(|delay| delay.share.contains(random()))
            .map(|delay| delay.duration),
        abort: config
            .abort
            .filter(|abort| abort.share.contains(random()))
            .map(|abort| abort.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{facts::fixture, matcher::ValueMatcher};

    fn check(headers: Vec<HeaderMatcher>, randoms: [u64; 2], delayed: bool, aborted: bool) {
        let connection = fixture::loopback();
        let request = fixture::get(&connection);
        let config = FaultConfig {
            delay: Some(FaultDelay {
                duration: Duration::from_secs(1),
                share: Share::per_million(500_000),
            }),
            abort: Some(FaultAbort {
                status: AbortStatus::Http(500),
                share: Share::per_million(500_000),
            }),
            headers,
        };
        let mut randoms = randoms.into_iter();
        let faults = draw(&config, &request, || randoms.next().expect("two numbers at most"));
        assert_eq!(
            (faults.delay.is_some(), faults.abort.is_some()),
            (delayed, aborted),
            "{randoms:?}"
        );
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
