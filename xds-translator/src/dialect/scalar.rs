//! Texts with a meaning of their own: durations, timestamps, and the names of gRPC statuses.

use std::time::Duration;

/// gRPC status names, by number.
pub(crate) const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads a duration as Go and protobuf write it: `1h30m`, `1.5s`, `100ms`, `0`. Negative ones and
/// bare numbers other than 0 are refused.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.len() - tail.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, tail) = tail.split_at(unit_len);
        nanos = nanos.checked_add(decimal_nanos(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    if text.is_empty() {
        return None;
    }
    let secs = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(secs, u32::try_from(nanos % 1_000_000_000).ok()?))
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` units of `unit` nanoseconds each, exact up to nanoseconds.
fn decimal_nanos(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / scale)
}

/// Reads a port, 1 to 65535, as it is written in decimal: one text for each port, so that no two keys
/// of a map name the same one.
pub fn parse_port(text: &str) -> Option<u16> {
    let plain = text.starts_with(|c: char| matches!(c, '1'..='9'));
    text.parse().ok().filter(|_| plain)
}

/// Reads a port with 0, which no connection has, as digits; zeros may lead.
pub fn any_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads an RFC 3339 timestamp as seconds since the epoch; fractions are dropped.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let clock = clock.split_once('.').map_or(clock, |(c, _)| c);
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    in_range.then_some(
        days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
            - zone_seconds(zone)?,
    )
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60;
    (seconds <= 86_400).then_some(if sign == "-" { -seconds } else { seconds })
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March so that leap days
/// come last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719_468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let table = [
            ("5s", Some(5_000_000)),
            ("1h30m", Some(5_400_000_000)),
            ("100ms", Some(100_000)),
            ("1.5s", Some(1_500_000)),
            (".5s", Some(500_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1m0.25s", Some(60_250_000)),
            ("", None),
            ("5", None),
            ("5 s", None),
            ("s", None),
            ("-1s", None),
            ("5sec", None),
            ("1.2.3s", None),
            ("99999999999999999999999h", None),
        ];
        for (text, micros) in table {
            assert_eq!(parse_duration(text).map(|d| d.as_micros()), micros, "{text:?}");
        }
    }

    #[test]
    fn a_port_has_one_text() {
        for (text, port) in [("1", 1), ("8080", 8080), ("65535", 65535)] {
            assert_eq!(parse_port(text), Some(port));
        }
        for text in ["0", "", "+80", "-80", "080", "00", " 80", "80 ", "65536", "0x50", "http"] {
            assert_eq!(parse_port(text), None, "{text:?}");
        }
    }

    #[test]
    fn timestamps_are_seconds_since_the_epoch() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T12:30:05Z", Some(1_709_209_805)),
            ("2024-02-29T14:30:05.123+02:00", Some(1_709_209_805)),
            ("2000-12-31T23:59:59-00:00", Some(978_307_199)),
            ("yesterday", None),
            ("2024-13-01T00:00:00Z", None),
            ("", None),
        ];
        for (text, seconds) in table {
            assert_eq!(parse_timestamp(text), seconds, "{text:?}");
        }
    }
}
