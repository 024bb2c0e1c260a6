//! Limits of how many requests are taken.

use super::http;
use crate::{
    emit::{
        any::{duration, per_million, uint32},
        pb::{core, hcm::HttpFilter, local_rate_limit, types},
    },
    ir::{PerMillion, Rate},
};

/// The filter of one limit.
pub(super) fn filter(rate: &Rate) -> HttpFilter {
    let always = || core::RuntimeFractionalPercent {
        default_value: Some(per_million(PerMillion::ALL.0)),
        ..Default::default()
    };
    let config = local_rate_limit::LocalRateLimit {
        stat_prefix: "http_local_rate_limiter".to_owned(),
        token_bucket: Some(types::TokenBucket {
            max_tokens: rate.requests,
            tokens_per_fill: uint32(rate.requests),
            fill_interval: Some(duration(rate.window)),
        }),
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        ..Default::default()
    };
    http("envoy.filters.http.local_ratelimit", &config)
}
