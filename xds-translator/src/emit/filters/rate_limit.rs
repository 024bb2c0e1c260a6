//! Limits of how many requests are taken.

use std::{collections::BTreeSet, time::Duration};

use super::http;
use crate::{
    emit::{
        any::{duration, names, per_million, uint32},
        headers,
        matching::TOKEN_PAYLOAD,
        pb::{
            core, counted,
            hcm::HttpFilter,
            limit_service, local_rate_limit,
            metadata_kind::{
                MetadataKey,
                metadata_key::{PathSegment, path_segment::Segment},
            },
            rate_limit,
            route::{
                RateLimit,
                rate_limit::{
                    Action,
                    action::{
                        ActionSpecifier, GenericKey, MetaData, RemoteAddress, RequestHeaders,
                        meta_data,
                    },
                },
            },
            types,
        },
    },
    ir::{AlikeQuota, OwnQuota, PerMillion, Rate, RequestPart, SharedQuota},
    plan::{LimitPlan, QuotaPlan},
};

/// The filter of one limit.
pub(super) fn filter(plan: &LimitPlan) -> HttpFilter {
    match &plan.quota {
        QuotaPlan::Own(quota) => own(plan, quota),
        QuotaPlan::Shared { cluster, quota } => shared(plan, cluster, quota),
        // A bucket that never holds anything.
        QuotaPlan::Exhausted => {
            let rate = Rate { requests: 0, window: Duration::from_secs(1) };
            own(plan, &OwnQuota::of(rate))
        }
    }
}

fn own(plan: &LimitPlan, quota: &OwnQuota) -> HttpFilter {
    let always = || core::RuntimeFractionalPercent {
        default_value: Some(per_million(PerMillion::ALL.0)),
        ..Default::default()
    };
    // Of limits of the same parts one descriptor is made, whose values tell them apart.
    let parts = |alike: &AlikeQuota| -> Vec<RequestPart> {
        alike.parts.iter().map(|(part, _)| part.clone()).collect()
    };
    let told: BTreeSet<Vec<RequestPart>> = quota.alike.iter().map(parts).collect();
    let descriptor = |alike: &AlikeQuota| counted::LocalRateLimitDescriptor {
        entries: alike
            .parts
            .iter()
            .map(|(part, value)| counted::rate_limit_descriptor::Entry {
                key: own_key(part),
                value: value.as_deref().unwrap_or_default().to_owned(),
            })
            .collect(),
        token_bucket: Some(bucket(alike.rate)),
        ..Default::default()
    };
    let config = local_rate_limit::LocalRateLimit {
        stat_prefix: "http_local_rate_limiter".to_owned(),
        status: status(plan),
        token_bucket: Some(bucket(quota.rate)),
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        response_headers_to_add: answer_headers(plan),
        descriptors: quota.alike.iter().map(descriptor).collect(),
        rate_limits: told.iter().map(|parts| actions(parts, own_key)).collect(),
        ..Default::default()
    };
    http("envoy.filters.http.local_ratelimit", &config)
}

fn bucket(rate: Rate) -> types::TokenBucket {
    types::TokenBucket {
        max_tokens: rate.requests,
        tokens_per_fill: uint32(rate.requests.max(1)),
        fill_interval: Some(duration(rate.window)),
    }
}

fn shared(plan: &LimitPlan, cluster: &str, quota: &SharedQuota) -> HttpFilter {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: cluster.to_owned(),
        authority: quota.host.as_str().to_owned(),
        ..Default::default()
    };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        timeout: Some(duration(quota.timeout)),
        ..Default::default()
    };
    let config = rate_limit::RateLimit {
        domain: quota.domain.to_string(),
        timeout: Some(duration(quota.timeout)),
        failure_mode_deny: !quota.fail_open,
        rate_limit_service: Some(limit_service::RateLimitServiceConfig {
            grpc_service: Some(service),
            transport_api_version: core::ApiVersion::V3 as i32,
        }),
        rate_limited_status: status(plan),
        response_headers_to_add: answer_headers(plan),
        rate_limits: quota.told.iter().map(|parts| actions(parts, RequestPart::key)).collect(),
        ..Default::default()
    };
    http("envoy.filters.http.ratelimit", &config)
}

/// `None`: 429, which is Envoy's own.
fn status(plan: &LimitPlan) -> Option<types::HttpStatus> {
    let code = plan.refusal.status;
    (code != 429).then(|| types::HttpStatus { code: code.into() })
}

fn answer_headers(plan: &LimitPlan) -> Vec<core::HeaderValueOption> {
    plan.refusal.headers.iter().map(|(name, value)| headers::set(name, value)).collect()
}

/// What a part is called where a proxy counts for itself. Services see the plain names; here a header
/// and a claim, or a header and the path, of one name must not be counted as one another.
fn own_key(part: &RequestPart) -> String {
    match part {
        RequestPart::Header(_) => format!("header {}", part.key()),
        RequestPart::Claim(_) => format!("claim {}", part.key()),
        RequestPart::RemoteAddress | RequestPart::Path | RequestPart::Constant(..) => part.key(),
    }
}

/// How one descriptor is made of a request, whose parts are called as `key` says.
fn actions(parts: &[RequestPart], key: fn(&RequestPart) -> String) -> RateLimit {
    let action = |part: &RequestPart| Action { action_specifier: Some(specifier(part, key(part))) };
    RateLimit { actions: parts.iter().map(action).collect(), ..Default::default() }
}

fn specifier(part: &RequestPart, key: String) -> ActionSpecifier {
    let header = |name: &str, descriptor_key: String| {
        ActionSpecifier::RequestHeaders(RequestHeaders {
            header_name: name.to_owned(),
            descriptor_key,
            ..Default::default()
        })
    };
    match part {
        RequestPart::Header(name) => header(name, key),
        RequestPart::Path => header(":path", key),
        RequestPart::RemoteAddress => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        RequestPart::Constant(_, value) => ActionSpecifier::GenericKey(GenericKey {
            descriptor_value: value.to_string(),
            descriptor_key: key,
            ..Default::default()
        }),
        RequestPart::Claim(path) => {
            let way = std::iter::once(TOKEN_PAYLOAD).chain(path.iter().map(AsRef::as_ref));
            let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
            ActionSpecifier::Metadata(MetaData {
                descriptor_key: key,
                metadata_key: Some(MetadataKey {
                    key: names::TOKENS.to_owned(),
                    path: way.map(segment).collect(),
                }),
                source: meta_data::Source::Dynamic as i32,
                ..Default::default()
            })
        }
    }
}
