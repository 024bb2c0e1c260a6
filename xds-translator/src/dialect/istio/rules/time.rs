//! Durations: Istio takes whole milliseconds, at least one.

use std::time::Duration;

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// Notes a duration that is given and is no whole number of milliseconds, or none.
pub(super) fn check_duration(field: &'static str, duration: Option<Duration>, at: &mut Decoder) {
    let Some(duration) = duration else { return };
    at.within(field, |at| {
        if at.is_refused_here() {
            return;
        }
        if duration.is_zero() {
            let fix = Some("take it out, which is what switches it off".to_owned());
            at.invalid("0 is no duration here: at least 1ms is expected", fix);
        } else if duration < Duration::from_millis(1) {
            at.note(invalid("shorter than 1ms", 1, at));
        } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            at.note(invalid("only whole milliseconds are taken", duration.as_millis(), at));
        }
    });
}

/// The refusal of a duration that is to have this many milliseconds.
fn invalid(message: &str, instead: u128, at: &Decoder) -> Diagnostic {
    Diagnostic::error(Code::InvalidValue, at.path(), message).instead(format!("{instead}ms"))
}

/// As [`check_duration`], of one that 0 switches off.
pub(super) fn check_optional_duration(
    field: &'static str,
    duration: Option<Duration>,
    at: &mut Decoder,
) {
    check_duration(field, duration.filter(|duration| !duration.is_zero()), at);
}
