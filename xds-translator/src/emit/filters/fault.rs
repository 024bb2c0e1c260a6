//! Injected faults.

use std::time::Duration;

use super::http;
use crate::{
    emit::{
        any::{duration, names, per_million},
        pb::{fault, fault_delay, hcm::HttpFilter},
    },
    ir::{Abort, Fault, PerMillion},
};

/// The filter; does nothing on routes without faults.
pub(super) fn filter() -> HttpFilter {
    http(names::FAULT, &fault::HttpFault::default())
}

/// A route's faults; a delay of nothing is none, and Envoy refuses it.
pub(in crate::emit) fn injected(plan: &Fault) -> fault::HttpFault {
    fault::HttpFault {
        delay: plan
            .delay
            .filter(|(length, _)| !length.is_zero())
            .map(|(length, share)| delay(length, share)),
        abort: plan.abort.map(|(answer, share)| abort(answer, share)),
        ..Default::default()
    }
}

fn delay(length: Duration, share: PerMillion) -> fault_delay::FaultDelay {
    fault_delay::FaultDelay {
        percentage: Some(per_million(share.0)),
        fault_delay_secifier: Some(fault_delay::fault_delay::FaultDelaySecifier::FixedDelay(
            duration(length),
        )),
    }
}

fn abort(answer: Abort, share: PerMillion) -> fault::FaultAbort {
    use fault::fault_abort::ErrorType;
    let error = match answer {
        Abort::Http(status) => ErrorType::HttpStatus(status.into()),
        Abort::Grpc(status) => ErrorType::GrpcStatus(status),
    };
    fault::FaultAbort {
        percentage: Some(per_million(share.0)),
        error_type: Some(error),
        ..Default::default()
    }
}
