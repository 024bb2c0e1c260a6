//! Texts that settings and annotations have in common: ports, ranges, levels and amounts, and what
//! is said of one that is not of its form.

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// Levels of logs: ours, and those of Envoy that have another name.
const LOG_LEVELS: [&str; 8] =
    ["trace", "debug", "info", "warn", "error", "off", "warning", "critical"];

/// Characters of a text that is shown.
const LONGEST_SHOWN: usize = 80;

/// Checks a list of ports: `*`, or numbers with commas, or nothing.
pub(super) fn check_ports(text: &str, at: &mut Decoder) {
    let port = |part: &str| part.parse::<NonZeroU16>().is_ok();
    check_list(text, port, "`*`, or port numbers with commas", at);
}

/// Checks a list of address ranges: `*`, or CIDRs with commas, or nothing.
pub(super) fn check_ranges(text: &str, at: &mut Decoder) {
    check_list(text, is_range, "`*`, or ranges such as 10.0.0.0/8 with commas", at);
}

fn check_list(text: &str, fits: impl Fn(&str) -> bool, expected: &str, at: &mut Decoder) {
    if text.trim().is_empty() || text.trim() == "*" {
        return;
    }
    // Gaps are nothing to complain about: what reads the list later skips them.
    if let Some(part) = text.split(',').map(str::trim).find(|part| !part.is_empty() && !fits(part))
    {
        unfit(part, expected, at);
    }
}

fn is_range(text: &str) -> bool {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= longest))
}

/// Checks what is to be logged: a level, or `target=level` pairs with commas.
pub(super) fn check_log_level(text: &str, at: &mut Decoder) {
    let level = |part: &str| {
        LOG_LEVELS.contains(&part.rsplit_once('=').map_or(part, |(_, level)| level).trim())
    };
    if let Some(part) = text.split(',').find(|part| !level(part)) {
        unfit(
            part,
            "one of trace, debug, info, warn, error, off, or target=level pairs with commas",
            at,
        );
    }
}

/// A duration as our programs and Envoy read it.
pub(super) fn duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Checks an amount as Kubernetes writes it: `100m`, `2`, `1.5`, `64Mi`.
pub(super) fn check_quantity(text: &str, at: &mut Decoder) {
    const UNITS: [&str; 15] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
        unfit(text, "an amount such as 100m, 2 or 64Mi", at);
    }
}

/// Notes that a text is not of the expected form.
pub(super) fn unfit(text: &str, expected: &str, at: &mut Decoder) {
    let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not of the expected form");
    at.note(finding.expected(expected, format!("`{}`", shortened(text))));
}

/// As much of a text as people want to read of it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
