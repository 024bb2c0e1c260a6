//! Cross-origin requests.

use super::http;
use crate::{
    emit::{
        any::{boolean, names},
        matching::string,
        pb::{
            core,
            cors::{Cors as Filter, CorsPolicy},
            hcm::HttpFilter,
            types::FractionalPercent,
        },
    },
    ir::Cors,
};

/// The filter; does nothing on routes without a policy.
pub(super) fn filter() -> HttpFilter {
    http(names::CORS, &Filter::default())
}

/// A route's policy.
pub(in crate::emit) fn policy(plan: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: plan.origins.iter().map(|o| string(o, false)).collect(),
        allow_methods: plan.methods.join(","),
        allow_headers: plan.headers.join(","),
        expose_headers: plan.expose_headers.join(","),
        max_age: plan.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: plan.credentials.and_then(boolean),
        filter_enabled: Some(core::RuntimeFractionalPercent {
            // The default denominator is a hundred.
            default_value: Some(FractionalPercent { numerator: 100, ..Default::default() }),
            ..Default::default()
        }),
        forward_not_matching_preflights: boolean(plan.forward_unmatched_preflights),
        ..Default::default()
    }
}
