//! Services that proxies tell something: how Envoy calls them.

use std::sync::Arc;

use super::{
    any::duration,
    pb::core::{
        self, GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
        http_uri::HttpUpstreamType,
    },
};
use crate::{ir::HttpCall, plan::PlannedCollector};

/// A service that is called over gRPC.
pub(super) fn grpc(collector: &PlannedCollector) -> GrpcService {
    let envoy = EnvoyGrpc {
        cluster_name: collector.cluster.to_string(),
        authority: collector.host.to_string(),
        ..Default::default()
    };
    GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)), ..Default::default() }
}

/// A service that is called over HTTP.
pub(super) fn http(collector: &PlannedCollector, call: &HttpCall) -> HttpService {
    let uri = HttpUri {
        uri: format!("http://{}{}", collector.host, call.path),
        timeout: Some(duration(call.timeout)),
        http_upstream_type: Some(HttpUpstreamType::Cluster(collector.cluster.to_string())),
    };
    let set = |pair| HeaderValueOption {
        header: Some(header(pair)),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    };
    HttpService {
        http_uri: Some(uri),
        request_headers_to_add: call.headers.iter().map(set).collect(),
        ..Default::default()
    }
}

/// A header of a call.
pub(super) fn header((name, value): &(Arc<str>, Arc<str>)) -> HeaderValue {
    HeaderValue { key: name.to_string(), value: value.to_string(), ..Default::default() }
}
