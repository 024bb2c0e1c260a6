//! Services that are told something.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    GrpcService as WireGrpc, HeaderValueOption, HttpService, HttpUri,
    header_value_option::HeaderAppendAction, http_uri::HttpUpstreamType,
};
use http::Uri;

use super::{
    field::{At, Invalid, each, limit, required},
    grpc_service,
    known::{
        Known::{Each, In, NoEffect, Read},
        base::HEADER_OPTION,
        messages,
    },
};
use crate::runtime::{collector::HttpCollector, filter::grpc::GrpcService};

/// How long a call may take where nothing is said.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Compiles a service that is called by gRPC.
pub(super) fn grpc(message: &WireGrpc) -> Result<GrpcService, Invalid> {
    grpc_service::service(message, message.timeout.is_none().then_some(PATIENCE))
}

/// Compiles a server that something is posted to.
pub(super) fn http(message: &HttpService) -> Result<HttpCollector, Invalid> {
    let HttpUri { uri: address, timeout, http_upstream_type } =
        required("http_uri", message.http_uri.as_ref())?;
    let cluster = match http_upstream_type {
        Some(HttpUpstreamType::Cluster(cluster)) => cluster,
        None => "",
    };
    let cluster = filled("cluster", cluster).at("http_uri")?;
    let added = each("request_headers_to_add", &message.request_headers_to_add, added)?;
    Ok(HttpCollector {
        cluster: cluster.into(),
        uri: uri(address, cluster).at("http_uri.uri")?,
        headers: added.into_iter().flatten().collect(),
        timeout: limit("timeout", timeout.as_ref()).at("http_uri")?.unwrap_or(PATIENCE),
    })
}

/// A field of a request that has none of that name yet.
fn added(
    message: &HeaderValueOption,
) -> Result<Option<(http::HeaderName, http::HeaderValue)>, Invalid> {
    let header = required("header", message.header.as_ref())?;
    let field = grpc_service::header(header).at("header")?;
    let is_written = message.append_action() != HeaderAppendAction::OverwriteIfExists
        && (message.keep_empty_value || !header.value.is_empty());
    Ok(is_written.then_some(field))
}

/// A text that must not be empty.
pub(super) fn filled<'a>(field: &str, text: &'a str) -> Result<&'a str, Invalid> {
    match text {
        "" => Err(Invalid::new("required, but missing").at(field)),
        text => Ok(text),
    }
}

/// A path alone is one of the host that the cluster is called.
pub(super) fn uri(text: &str, host: &str) -> Result<Uri, Invalid> {
    let parsed: Option<Uri> = text.parse().ok();
    let whole = match parsed {
        Some(uri) if uri.scheme().is_some() => Some(uri),
        Some(uri) if text.starts_with('/') => {
            let path = uri.into_parts().path_and_query.unwrap_or_else(root);
            Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()
        }
        _ => None,
    };
    whole.ok_or_else(|| Invalid::new(format!("expected a URI or a path, got {text:?}")))
}

fn root() -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static("/")
}

messages! {
    /// A server that something is posted to.
    COLLECTOR = "envoy.config.core.v3.HttpService" {
        1 "http_uri": In(&COLLECTOR_URI);
        2 "request_headers_to_add": Each(&HEADER_OPTION);
        3 "formatters": NoEffect("an operator that is not built in is refused where it is used");
    }

    COLLECTOR_URI = "envoy.config.core.v3.HttpUri" {
        1 "uri": Read;
        2 "cluster": Read;
        3 "timeout": Read;
    }
}
