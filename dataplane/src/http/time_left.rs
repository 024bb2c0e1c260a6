//! The time that a request has for its answer, and how endpoints are told of it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::headers::{GRPC_TIMEOUT, X_ENVOY_EXPECTED_TIMEOUT};

/// The time that an endpoint has for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLeft {
    /// For all attempts, from the end of the request.
    pub(super) whole: Option<Duration>,
    pub(super) per_try: Option<Duration>,
    /// `x-envoy-expected-rq-timeout-ms` is written.
    pub(super) is_told: bool,
    /// `grpc-timeout` is written over (`max_grpc_timeout`).
    pub(super) in_grpc: bool,
}

impl TimeLeft {
    /// Tells the endpoint of an attempt that begins so long after the end of the request how much
    /// time it has: of the attempt, but no more than is left of the whole.
    pub(super) fn tell(self, headers: &mut HeaderMap, elapsed: Duration) {
        let Some(expected) = self.of_attempt(elapsed) else { return };
        if self.is_told {
            headers.insert(X_ENVOY_EXPECTED_TIMEOUT, HeaderValue::from(expected));
        }
        if self.in_grpc
            && let Ok(value) = HeaderValue::from_str(&write_grpc_timeout(expected))
        {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }

    /// In milliseconds. An attempt whose time is over has one, since none would mean all time.
    fn of_attempt(self, elapsed: Duration) -> Option<u64> {
        let left = self.whole.map(|whole| millis(whole).saturating_sub(millis(elapsed)).max(1));
        let per_try = self.per_try.map(millis).filter(|limit| *limit > 0);
        match (left, per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout"), rounded down.
fn write_grpc_timeout(mut count: u64) -> String {
    const MOST: u64 = 99_999_999;
    let mut unit = "m";
    for (next, parts) in [("S", 1000), ("M", 60), ("H", 60)] {
        if count > MOST {
            (count, unit) = (count / parts, next);
        }
    }
    format!("{}{unit}", count.min(MOST))
}

/// `8S`, `500m`… (gRPC over HTTP/2, "Timeout").
pub(super) fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = Some(digits).filter(|digits| digits.len() <= 8)?.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_told_of_the_time_of_its_attempt() {
        let ms = |count: Option<u64>| count.map(Duration::from_millis);
        for (whole, per_try, elapsed, expected) in [
            (None, None, 0, None),
            (Some(5000), None, 0, Some("5000")),
            (Some(5000), Some(500), 0, Some("500")),
            (Some(5000), Some(9000), 0, Some("5000")),
            (Some(5000), Some(500), 4800, Some("200")),
            (Some(5000), None, 5000, Some("1")),
            (None, Some(500), 700, Some("500")),
            (Some(5000), Some(0), 0, Some("5000")),
        ] {
            let time =
                TimeLeft { whole: ms(whole), per_try: ms(per_try), is_told: true, in_grpc: true };
            let mut headers = HeaderMap::new();
            time.tell(&mut headers, Duration::from_millis(elapsed));
            let told = headers.get(X_ENVOY_EXPECTED_TIMEOUT).map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{time:?} after {elapsed}");
            let in_grpc = headers.get(GRPC_TIMEOUT).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(in_grpc, expected.map(|ms| format!("{ms}m")), "{time:?} after {elapsed}");
        }
        for (count, expected) in
            [(99_999_999, "99999999m"), (100_000_000, "100000S"), (u64::MAX, "99999999H")]
        {
            assert_eq!(write_grpc_timeout(count), expected);
        }
    }

    #[test]
    fn grpc_timeouts_are_read() {
        for (text, expected) in [
            ("8S", Some(Duration::from_secs(8))),
            ("500m", Some(Duration::from_millis(500))),
            ("1H", Some(Duration::from_secs(3600))),
            ("7u", Some(Duration::from_micros(7))),
            ("S", None),
            ("", None),
            ("123456789S", None),
            ("5x", None),
            ("5é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }
}
