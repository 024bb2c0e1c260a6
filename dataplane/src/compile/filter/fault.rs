//! Fault injection.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::extensions::filters::{
        common::fault::v3::{FaultDelay as WireDelay, fault_delay::FaultDelaySecifier},
        http::fault::v3::{FaultAbort as WireAbort, HttpFault, fault_abort::ErrorType},
    },
    google::protobuf::Any,
};

use super::super::{
    field::{At, Invalid, duration, each, required, share, status, unpack},
    known::{
        Known::{Each, In, NoEffect, Read, Refused},
        base::FRACTION,
        matcher::HEADER,
        messages,
        reason::{RUNTIME, STATISTICS},
    },
    matcher,
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride,
        fault::{AbortStatus, FaultAbort, FaultConfig, FaultDelay},
    },
    matcher::Share,
};

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let fault: HttpFault = unpack(config)?;
    Ok(Some(HttpFilter::Fault(fault_config(&fault)?.map(Arc::new))))
}

/// Compiles what a route sets: one without faults of its own still replaces those of the filter.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let fault: HttpFault = unpack(config)?;
    let none = FaultConfig { delay: None, abort: None, headers: Vec::new() };
    Ok(FilterOverride::Fault(Arc::new(fault_config(&fault)?.unwrap_or(none))))
}

fn fault_config(message: &HttpFault) -> Result<Option<FaultConfig>, Invalid> {
    let fault = FaultConfig {
        delay: message.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: message.abort.as_ref().map(abort).transpose().at("abort")?,
        headers: each("headers", &message.headers, matcher::header)?,
    };
    Ok(Some(fault).filter(|fault| fault.delay.is_some() || fault.abort.is_some()))
}

fn delay(message: &WireDelay) -> Result<FaultDelay, Invalid> {
    let Some(FaultDelaySecifier::FixedDelay(fixed)) = &message.fault_delay_secifier else {
        return Err(Invalid::new("expected a fixed_delay, others are not supported by this proxy"));
    };
    Ok(FaultDelay {
        duration: duration("fixed_delay", fixed)?,
        share: message.percentage.as_ref().map_or(Share::NONE, share),
    })
}

fn abort(message: &WireAbort) -> Result<FaultAbort, Invalid> {
    let status = match required("error_type", message.error_type.as_ref())? {
        ErrorType::HttpStatus(code) => AbortStatus::Http(status("http_status", *code)?),
        ErrorType::GrpcStatus(code) => AbortStatus::Grpc(*code),
        ErrorType::HeaderAbort(_) => {
            return Err(Invalid::new("not supported by this proxy").at("header_abort"));
        }
    };
    Ok(FaultAbort { status, share: message.percentage.as_ref().map_or(Share::NONE, share) })
}

messages! {
    FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault" {
        1 "delay": In(&DELAY);
        2 "abort": In(&ABORT);
        3 "upstream_cluster": Refused;
        4 "headers": Each(&HEADER);
        5 "downstream_nodes": Refused;
        6 "max_active_faults": Refused;
        7 "response_rate_limit": Refused;
        8 "delay_percent_runtime": NoEffect(RUNTIME);
        9 "abort_percent_runtime": NoEffect(RUNTIME);
        10 "delay_duration_runtime": NoEffect(RUNTIME);
        11 "abort_http_status_runtime": NoEffect(RUNTIME);
        12 "max_active_faults_runtime": NoEffect(RUNTIME);
        13 "response_rate_limit_percent_runtime": NoEffect(RUNTIME);
        14 "abort_grpc_status_runtime": NoEffect(RUNTIME);
        15 "disable_downstream_cluster_stats": NoEffect(STATISTICS);
        16 "filter_metadata": Refused;
    }

    ABORT = "envoy.extensions.filters.http.fault.v3.FaultAbort" {
        2 "http_status": Read;
        3 "percentage": In(&FRACTION);
        4 "header_abort": Refused;
        5 "grpc_status": Read;
        6 "response_body": Refused;
    }

    DELAY = "envoy.extensions.filters.common.fault.v3.FaultDelay" {
        3 "fixed_delay": Read;
        4 "percentage": In(&FRACTION);
        5 "header_delay": Refused;
    }
}
