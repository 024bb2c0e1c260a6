//! A service that counts requests for all.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue as WireHeader, RuntimeFractionalPercent},
        extensions::{
            common::ratelimit::v3::{
                RateLimitDescriptor, rate_limit_descriptor::Entry as WireEntry,
            },
            filters::http::ratelimit::v3::{
                RateLimit as Wire, RateLimitPerRoute, rate_limit::XRateLimitHeadersRfcVersion,
                rate_limit_per_route::VhRateLimitsOptions,
            },
        },
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit},
        },
        r#type::v3::HttpStatus,
    },
    google::protobuf::Any,
};
use http::{HeaderName, HeaderValue};
use prost::Message;

use super::super::{
    field::{At, Invalid, each, limit, required, share, unpack},
    grpc_service::{self, GRPC_SERVICE},
    header,
    known::{
        Known::{Each, Guard, In, NoEffect, Read, Values},
        base::{HEADER_OPTION, HTTP_STATUS, RUNTIME_FRACTION},
        messages,
        rate_limit::RATE_LIMIT as POLICY,
        reason::{ONE_API, STATISTICS},
    },
    metadata, rate_limit,
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride,
        rate_limit::{Codec, Counted, GlobalRateLimit, LimitOverride, LimitState, Origin},
    },
    matcher::Share,
    rate_limit::{Descriptor, HostLimits, LimitPolicies},
};

/// How long the service is waited for where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(20);

/// Where what the service found is left where nothing is said.
const NAMESPACE: &str = "envoy.filters.http.ratelimit";

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: Wire = unpack(config)?;
    let own = required("rate_limit_service", message.rate_limit_service.as_ref())?;
    let service = required("grpc_service", own.grpc_service.as_ref());
    let timeout = limit("timeout", message.timeout.as_ref())?.unwrap_or(TIMEOUT);
    let service = service
        .and_then(|wire| grpc_service::service(wire, Some(timeout)).at("grpc_service"))
        .at("rate_limit_service")?;
    required("domain", Some(()).filter(|()| !message.domain.is_empty()).as_ref())?;
    Ok(Some(HttpFilter::RateLimit(Arc::new(GlobalRateLimit {
        service,
        codec: Codec { encode, decode },
        domain: message.domain.as_str().into(),
        policies: LimitPolicies {
            own: each("rate_limits", &message.rate_limits, rate_limit::policy)?,
            host: HostLimits::Override,
            stage: rate_limit::stage(message.stage)?,
        },
        origin: match message.request_type.as_str() {
            "" | "both" => Origin::Any,
            "internal" => Origin::Internal,
            "external" => Origin::External,
            other => {
                return Err(Invalid::new(format!(
                    "expected internal, external or both, got {other}"
                ))
                .at("request_type"));
            }
        },
        enabled: part(message.filter_enabled.as_ref()),
        enforced: part(message.filter_enforced.as_ref()),
        fail_closed: message.failure_mode_deny,
        status_on_error: error(message.status_on_error.as_ref(), 500),
        status: error(message.rate_limited_status.as_ref(), 429),
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        limit_headers: message.enable_x_ratelimit_headers()
            == XRateLimitHeadersRfcVersion::DraftVersion03,
        tells_limited: !message.disable_x_envoy_ratelimited_header,
        response_headers: Arc::new(header::added(
            "response_headers_to_add",
            &message.response_headers_to_add,
        )?),
        metadata_namespace: match message.metadata_namespace.as_str() {
            "" => NAMESPACE.into(),
            own => own.into(),
        },
    }))))
}

/// Compiles what a route sets.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: RateLimitPerRoute = unpack(config)?;
    Ok(FilterOverride::RateLimit(Arc::new(LimitOverride {
        domain: Some(Arc::<str>::from(message.domain.as_str())).filter(|domain| !domain.is_empty()),
        own: each("rate_limits", &message.rate_limits, rate_limit::policy)?,
        host: match message.vh_rate_limits() {
            VhRateLimitsOptions::Override => HostLimits::Override,
            VhRateLimitsOptions::Include => HostLimits::Include,
            VhRateLimitsOptions::Ignore => HostLimits::Ignore,
        },
    })))
}

/// What is no error is taken for the default, as in Envoy.
fn error(status: Option<&HttpStatus>, default: u16) -> u16 {
    let code = status.map_or(0, |status| status.code);
    u16::try_from(code).ok().filter(|code| (400..600).contains(code)).unwrap_or(default)
}

/// The share of a fraction; everybody, where none is given.
fn part(message: Option<&RuntimeFractionalPercent>) -> Share {
    let part = message.map(|part| part.default_value.as_ref());
    part.map_or(Share::ALL, |part| part.map_or(Share::NONE, share))
}

fn encode(domain: &str, descriptors: &[Descriptor<'_>]) -> Vec<u8> {
    let entry = |(key, value): &(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| WireEntry {
        key: key.clone().into_owned(),
        value: value.clone().into_owned(),
    };
    let descriptor = |descriptor: &Descriptor<'_>| RateLimitDescriptor {
        entries: descriptor.entries.iter().map(entry).collect(),
        ..Default::default()
    };
    let message = RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        ..Default::default()
    };
    message.encode_to_vec()
}

/// What is answered; nothing where it does not say whether the request is above a limit.
fn decode(body: &[u8]) -> Option<Counted> {
    let message = RateLimitResponse::decode(body).ok()?;
    let is_above = match message.overall_code() {
        Code::Ok => false,
        Code::OverLimit => true,
        Code::Unknown => return None,
    };
    Some(Counted {
        is_above,
        limits: message.statuses.iter().filter_map(state).collect(),
        request: fields(&message.request_headers_to_add)?,
        response: fields(&message.response_headers_to_add)?,
        body: message.raw_body.into(),
        metadata: metadata::fields(message.dynamic_metadata.unwrap_or_default()),
    })
}

fn fields(list: &[WireHeader]) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let field = |header: &WireHeader| {
        let name = HeaderName::from_bytes(header.key.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(header.value.as_bytes()).ok()?))
    };
    list.iter().map(field).collect()
}

fn state(status: &DescriptorStatus) -> Option<LimitState> {
    const DAY: u32 = 24 * 3600;
    let limit = status.current_limit.as_ref()?;
    let window = match limit.unit() {
        Unit::Unknown => 0,
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 3600,
        Unit::Day => DAY,
        Unit::Week => 7 * DAY,
        Unit::Month => 30 * DAY,
        Unit::Year => 365 * DAY,
    };
    let reset = status.duration_until_reset.as_ref().map_or(0, |left| left.seconds);
    Some(LimitState {
        name: limit.name.clone(),
        requests: limit.requests_per_unit,
        window,
        remaining: status.limit_remaining,
        reset: u64::try_from(reset).unwrap_or_default(),
    })
}

messages! {
    RATE_LIMIT = "envoy.extensions.filters.http.ratelimit.v3.RateLimit" {
        1 "domain": Read;
        2 "stage": Read;
        3 "request_type": Read;
        4 "timeout": Read;
        5 "failure_mode_deny": Read;
        6 "rate_limited_as_resource_exhausted": Read;
        7 "rate_limit_service": In(&SERVICE);
        8 "enable_x_ratelimit_headers": Values(1);
        9 "disable_x_envoy_ratelimited_header": Read;
        10 "rate_limited_status": In(&HTTP_STATUS);
        11 "response_headers_to_add": Each(&HEADER_OPTION);
        12 "status_on_error": In(&HTTP_STATUS);
        13 "stat_prefix": NoEffect(STATISTICS);
        14 "filter_enabled": In(&RUNTIME_FRACTION);
        15 "filter_enforced": In(&RUNTIME_FRACTION);
        16 "failure_mode_deny_percent": Guard;
        17 "rate_limits": Each(&POLICY);
        18 "metadata_namespace": Read;
        19 "enable_retry_after_header": Guard;
    }

    SERVICE = "envoy.config.ratelimit.v3.RateLimitServiceConfig" {
        2 "grpc_service": In(&GRPC_SERVICE);
        4 "transport_api_version": NoEffect(ONE_API);
    }

    PER_ROUTE = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute" {
        1 "vh_rate_limits": Values(2);
        2 "override_option": Guard;
        3 "rate_limits": Each(&POLICY);
        4 "domain": Read;
    }
}
