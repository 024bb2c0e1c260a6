//! Budgets of retries.

use std::time::Duration;

use crate::{
    diagnostic::{Change, Code, Diagnostic},
    dialect::{decode::Decoder, schema::object},
    ir,
};

object! { no_null;
    /// How many requests of a service may be tried again.
    RetryBudget {
        /// As a share of the requests.
        "retryRatio" retry_ratio: Option<f64>,
        /// And so many in a second besides.
        "minRetriesPerSecond" min_retries_per_second: Option<u32>,
        /// For how long requests count (1s to 60s).
        "ttl" ttl: Option<Duration>,
    }
}

/// The longest and the shortest time for which requests count.
const COUNTED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

impl RetryBudget {
    pub(super) fn check(&self, at: &mut Decoder) {
        if self.retry_ratio.is_none() {
            missing(at, "retryRatio", 0.2.into());
        }
        if self.min_retries_per_second.is_none() {
            missing(at, "minRetriesPerSecond", 10.into());
        }
        if self.ttl.is_none() {
            missing(at, "ttl", "10s".into());
        }
        let [least, most] = COUNTED;
        if self.ttl.is_some_and(|ttl| ttl < least || ttl > most) {
            let message = "out of range: 1s to 60s";
            at.within("ttl", |at| at.invalid(message, Some("`10s`".to_owned())));
        }
        if self.retry_ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
            let message = "proxies count shares of at most all requests: 0 to 1";
            at.within("retryRatio", |at| at.invalid(message, Some("`0.2`".to_owned())));
        }
    }

    /// What a backend takes. The floor is a number of retries at a time, as proxies count it.
    pub(super) fn lower(written: Option<&Self>) -> ir::RetryBudget {
        let ratio = written.and_then(|budget| budget.retry_ratio).unwrap_or(0.2);
        let floor = written.and_then(|budget| budget.min_retries_per_second).unwrap_or(10);
        // Within 0 to 100: a rule.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let percent = (ratio.clamp(0.0, 1.0) * 100.0).round() as u32;
        ir::RetryBudget { percent, minimum: floor, window: None }
    }
}

fn missing(at: &mut Decoder, field: &'static str, value: serde_json::Value) {
    let path = at.path();
    let fix = format!("`{field}: {}`", value.as_str().map_or(value.to_string(), str::to_owned));
    let finding = Diagnostic::error(Code::MissingField, path.field(field), "missing, but required");
    at.note(finding.fix(fix).change(Change::Add(path, field, value)));
}
