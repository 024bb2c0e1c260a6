//! Services that filters ask by gRPC.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    GrpcService as Wire, HeaderValue as WireHeader, grpc_service::TargetSpecifier,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    field::{At, Invalid, each, optional_duration, required},
    known::{
        Known::{Each, Guard, In, NoEffect, Read, Refused},
        base::HEADER_VALUE,
        messages,
        reason::MEMORY,
    },
};
use crate::runtime::filter::grpc::GrpcService;

/// Where Envoy waits for ever: longer than any request lives.
const WITHOUT_END: Duration = Duration::from_secs(24 * 3600);

/// Compiles a service, of which the caller says how long it is waited for where this does not.
pub(super) fn service(message: &Wire, timeout: Option<Duration>) -> Result<GrpcService, Invalid> {
    let target = match required("target_specifier", message.target_specifier.as_ref())? {
        TargetSpecifier::EnvoyGrpc(target) => target,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(Invalid::new("not supported by this proxy").at("google_grpc"));
        }
    };
    let cluster = &target.cluster_name;
    required("cluster_name", Some(()).filter(|()| !cluster.is_empty()).as_ref())
        .at("envoy_grpc")?;
    let authority = if target.authority.is_empty() { cluster } else { &target.authority };
    let own = optional_duration("timeout", message.timeout.as_ref())?;
    let timeout = timeout.or(own).filter(|timeout| !timeout.is_zero()).unwrap_or(WITHOUT_END);
    let metadata: HeaderMap =
        each("initial_metadata", &message.initial_metadata, header)?.into_iter().collect();
    Ok(GrpcService {
        cluster: cluster.as_str().into(),
        authority: authority.as_str().into(),
        metadata,
        timeout,
    })
}

/// A header as it stands, without any format.
pub(super) fn header(message: &WireHeader) -> Result<(HeaderName, HeaderValue), Invalid> {
    let name = HeaderName::from_bytes(message.key.as_bytes()).map_err(|_| {
        Invalid::new(format!("expected the name of a header, got {:?}", message.key)).at("key")
    })?;
    if message.value.contains('%') {
        return Err(
            Invalid::new("expected no format, others are not supported by this proxy").at("value")
        );
    }
    let value = HeaderValue::from_str(&message.value)
        .map_err(|_| Invalid::new("expected what a header field can hold").at("value"))?;
    Ok((name, value))
}

messages! {
    GRPC_SERVICE = "envoy.config.core.v3.GrpcService" {
        1 "envoy_grpc": In(&ENVOY_GRPC);
        2 "google_grpc": Guard;
        3 "timeout": Read;
        5 "initial_metadata": Each(&HEADER_VALUE);
        6 "retry_policy": Refused;
    }

    ENVOY_GRPC = "envoy.config.core.v3.GrpcService.EnvoyGrpc" {
        1 "cluster_name": Read;
        2 "authority": Read;
        3 "retry_policy": Refused;
        4 "max_receive_message_length": NoEffect(MEMORY);
        5 "skip_envoy_headers": Refused;
    }
}
