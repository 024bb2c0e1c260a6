//! VirtualServices and mesh settings: retries.

use std::time::Duration;

use crate::{
    dialect::istio::{retry_words::retry_condition, virtual_service as vs},
    ir::{Retry, RetryPolicy},
};

/// Istio's retries: nothing said is the mesh's default, and no positive number of attempts switches
/// them off.
pub(super) fn retry(retries: Option<&vs::HttpRetry>) -> Retry {
    let Some(retries) = retries else { return Retry::MeshDefault };
    let Some(attempts) = retries.attempts.and_then(|a| u32::try_from(a).ok()).filter(|a| *a > 0)
    else {
        return Retry::Off;
    };
    let words: Vec<&str> =
        retries.retry_on.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    let status = |w: &&str| w.parse::<u16>().ok().filter(|s| (100..600).contains(s));
    let mut statuses: Vec<u16> = words.iter().filter_map(status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let conditions = words.iter().filter_map(|word| retry_condition(word)).collect();
    Retry::Policy(RetryPolicy {
        attempts,
        conditions: (!words.is_empty()).then_some(conditions),
        statuses,
        remote_localities: retries.retry_remote_localities == Some(true),
        ignore_previous_hosts: retries.retry_ignore_previous_hosts,
        backoff: retries.backoff.filter(|t| !t.is_zero()),
    })
}

/// Limit of one try; without retries Istio has none.
pub(super) fn try_timeout(retries: Option<&vs::HttpRetry>) -> Option<Duration> {
    let retried = matches!(retry(retries), Retry::Policy(_));
    retries?.per_try_timeout.filter(|t| retried && !t.is_zero())
}
