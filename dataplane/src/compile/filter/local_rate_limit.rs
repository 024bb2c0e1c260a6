//! Rate limits of this process.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        extensions::{
            common::ratelimit::v3::{
                LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
                rate_limit_descriptor::Entry,
            },
            filters::http::local_ratelimit::v3::LocalRateLimit as Wire,
        },
        r#type::v3::TokenBucket as WireBucket,
    },
    google::protobuf::Any,
};
use rustc_hash::FxHashMap;

use super::super::{
    field::{At, Invalid, duration, each, flag, number, required, share, unpack},
    header,
    known::{
        Known::{Each, In, Read, Refused, Values},
        base::{HEADER_OPTION, HTTP_STATUS, RUNTIME_FRACTION},
        messages,
        rate_limit::RATE_LIMIT,
    },
    rate_limit,
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride,
        local_rate_limit::{DefaultBucket, Limiter, LocalRateLimit, TokenBucket, descriptor_key},
    },
    matcher::Share,
    rate_limit::HostLimits,
};

/// Buckets are filled no more often, as in Envoy.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

/// Compiles the filter, which may leave the limits to routes.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    Ok(Some(HttpFilter::LocalRateLimit(Arc::new(limit(&unpack(config)?)?))))
}

/// Compiles what a route sets, instead of all that the filter says.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: Wire = unpack(config)?;
    required("token_bucket", message.token_bucket.as_ref())?;
    Ok(FilterOverride::LocalRateLimit(Arc::new(limit(&message)?)))
}

fn limit(message: &Wire) -> Result<LocalRateLimit, Invalid> {
    if message.stat_prefix.is_empty() {
        return Err(Invalid::new("required, but missing").at("stat_prefix"));
    }
    Ok(LocalRateLimit {
        stat_prefix: message.stat_prefix.as_str().into(),
        status: status(message),
        enabled: part(message.filter_enabled.as_ref()),
        enforced: part(message.filter_enforced.as_ref()),
        request_headers: Arc::new(header::added(
            "request_headers_to_add_when_not_enforced",
            &message.request_headers_to_add_when_not_enforced,
        )?),
        response_headers: Arc::new(header::added(
            "response_headers_to_add",
            &message.response_headers_to_add,
        )?),
        limiter: Arc::new(limiter(message)?),
        per_connection: message.local_rate_limit_per_downstream_connection,
        stage: rate_limit::stage(message.stage)?,
        own_limits: each("rate_limits", &message.rate_limits, rate_limit::policy)?,
        host_limits: match message.vh_rate_limits() {
            VhRateLimitsOptions::Override => HostLimits::Override,
            VhRateLimitsOptions::Include => HostLimits::Include,
            VhRateLimitsOptions::Ignore => HostLimits::Ignore,
        },
        limit_headers: message.enable_x_ratelimit_headers()
            == XRateLimitHeadersRfcVersion::DraftVersion03,
        retry_after: message.enable_retry_after_header,
        resource_exhausted: message.rate_limited_as_resource_exhausted,
    })
}

/// What is no error is taken for 429, as in Envoy.
fn status(message: &Wire) -> u16 {
    let code = message.status.as_ref().map_or(0, |status| status.code);
    u16::try_from(code).ok().filter(|code| (400..600).contains(code)).unwrap_or(429)
}

/// The share of a fraction; nobody, where none is given. Nothing here has Envoy's runtime, so the
/// default counts.
fn part(message: Option<&RuntimeFractionalPercent>) -> Share {
    message.and_then(|part| part.default_value.as_ref()).map_or(Share::NONE, share)
}

fn limiter(message: &Wire) -> Result<Limiter, Invalid> {
    let default = match &message.token_bucket {
        None => DefaultBucket::None,
        // It never holds a token, whatever its interval.
        Some(wire) if wire.max_tokens == 0 => DefaultBucket::Closed,
        Some(wire) => DefaultBucket::Bucket(bucket(wire).at("token_bucket")?),
    };
    let mut descriptors = FxHashMap::default();
    for (key, bucket) in each("descriptors", &message.descriptors, descriptor)? {
        if descriptors.insert(key, bucket).is_some() {
            return Err(Invalid::new("two have the same entries").at("descriptors"));
        }
    }
    let always_default = flag(message.always_consume_default_token_bucket.as_ref(), true);
    Ok(Limiter { default, descriptors, always_default })
}

fn descriptor(message: &LocalRateLimitDescriptor) -> Result<(Box<str>, Arc<TokenBucket>), Invalid> {
    let entries = each("entries", &message.entries, entry)?;
    if entries.is_empty() {
        return Err(Invalid::new("expected at least one").at("entries"));
    }
    let wire = required("token_bucket", message.token_bucket.as_ref())?;
    Ok((descriptor_key(entries).into(), bucket(wire).at("token_bucket")?))
}

fn entry(message: &Entry) -> Result<(&str, &str), Invalid> {
    required("key", Some(&()).filter(|()| !message.key.is_empty()))?;
    // Stands for any value in Envoy, each with a bucket of its own.
    required("value", Some(&()).filter(|()| !message.value.is_empty()))?;
    Ok((&message.key, &message.value))
}

fn bucket(message: &WireBucket) -> Result<Arc<TokenBucket>, Invalid> {
    let interval = required("fill_interval", message.fill_interval.as_ref())?;
    let interval = duration("fill_interval", interval)?;
    if interval < SHORTEST_FILL {
        return Err(Invalid::new("expected at least 0.05s").at("fill_interval"));
    }
    let tokens = number(message.tokens_per_fill.as_ref(), 1);
    if tokens == 0 {
        return Err(Invalid::new("expected at least 1").at("tokens_per_fill"));
    }
    Ok(Arc::new(TokenBucket::new(message.max_tokens, tokens, interval)))
}

messages! {
    LOCAL_RATE_LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" {
        1 "stat_prefix": Read;
        2 "status": In(&HTTP_STATUS);
        3 "token_bucket": In(&TOKEN_BUCKET);
        4 "filter_enabled": In(&RUNTIME_FRACTION);
        5 "filter_enforced": In(&RUNTIME_FRACTION);
        6 "response_headers_to_add": Each(&HEADER_OPTION);
        8 "descriptors": Each(&DESCRIPTOR);
        9 "stage": Read;
        10 "request_headers_to_add_when_not_enforced": Each(&HEADER_OPTION);
        11 "local_rate_limit_per_downstream_connection": Read;
        12 "enable_x_ratelimit_headers": Values(1);
        13 "vh_rate_limits": Values(2);
        14 "always_consume_default_token_bucket": Read;
        15 "rate_limited_as_resource_exhausted": Read;
        16 "local_cluster_rate_limit": Refused;
        17 "rate_limits": Each(&RATE_LIMIT);
        18 "max_dynamic_descriptors": Refused;
        19 "enable_retry_after_header": Read;
    }

    TOKEN_BUCKET = "envoy.type.v3.TokenBucket" {
        1 "max_tokens": Read;
        2 "tokens_per_fill": Read;
        3 "fill_interval": Read;
    }

    DESCRIPTOR = "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor" {
        1 "entries": Each(&ENTRY);
        2 "token_bucket": In(&TOKEN_BUCKET);
        3 "shadow_mode": Refused;
    }

    ENTRY = "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry" {
        1 "key": Read;
        2 "value": Read;
    }
}
