//! HTTP connection managers.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager as Wire,
    http_connection_manager::{
        CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
        ServerHeaderTransformation,
    },
};

use super::{
    Context, access_log,
    field::{At, Invalid, flag, limit, optional_duration, refuse, required},
    filter, limits, metrics, route, tls, trace,
};
use crate::runtime::{
    http::{
        ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, ForwardClientCertMode,
        HttpConnectionManager, LongestConnection, MessageHash, RouteSource, ServerHeader,
    },
    trace::Tracing,
};

const DEFAULT_STREAM_IDLE: Duration = Duration::from_secs(300);
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Compiles a connection manager; `version` tells it from others.
pub(super) fn compile(
    context: &mut Context,
    version: MessageHash,
    message: &Wire,
) -> Result<HttpConnectionManager, Invalid> {
    let common = message.common_http_protocol_options.as_ref();
    let h1 = message.http_protocol_options.as_ref();
    let silent = message.add_proxy_protocol_connection_state.is_some_and(|on| !on.value);
    refuse(&[("add_proxy_protocol_connection_state", silent)])?;
    Ok(HttpConnectionManager {
        version,
        stat_prefix: message.stat_prefix.as_str().into(),
        codec: codec(message)?,
        routes: routes(context, message)?,
        filters: filter::chain(&message.http_filters)?,
        normalize_path: flag(message.normalize_path.as_ref(), false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: escaped_slashes(message),
        use_remote_address: flag(message.use_remote_address.as_ref(), false),
        xff_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        client_cert: client_cert(message),
        server_name: match message.server_name.as_str() {
            "" => "envoy".into(),
            name => name.into(),
        },
        server_header: match message.server_header_transformation() {
            ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        upgrades: upgrades(message),
        upgrades_http2: message.http2_protocol_options.as_ref().is_some_and(|h2| h2.allow_connect),
        stream_idle_timeout: with_default(
            "stream_idle_timeout",
            message.stream_idle_timeout.as_ref(),
            DEFAULT_STREAM_IDLE,
        )?,
        request_timeout: limit("request_timeout", message.request_timeout.as_ref())?,
        idle_timeout: with_default(
            "common_http_protocol_options.idle_timeout",
            common.and_then(|common| common.idle_timeout.as_ref()),
            DEFAULT_IDLE,
        )?,
        longest: longest(message)?,
        drain_timeout: optional_duration("drain_timeout", message.drain_timeout.as_ref())?
            .unwrap_or(DEFAULT_DRAIN),
        limits: limits::downstream(message)?,
        accept_http_10: h1.is_some_and(|h1| h1.accept_http_10),
        generate_request_id: flag(message.generate_request_id.as_ref(), true),
        preserve_external_request_id: message.preserve_external_request_id,
        via: message.via.as_str().into(),
        tracing: tracing(message)?,
        access_logs: access_log::compile("access_log", &message.access_log)?,
        metrics: metrics::of_filters(&message.http_filters)?,
    })
}

/// Zero is the shortest of durations, as at Envoy.
fn longest(message: &Wire) -> Result<Option<LongestConnection>, Invalid> {
    let common = message.common_http_protocol_options.as_ref();
    let duration = common.and_then(|common| common.max_connection_duration.as_ref());
    let duration =
        optional_duration("common_http_protocol_options.max_connection_duration", duration)?;
    let http1_by_answer = message.http1_safe_max_connection_duration;
    Ok(duration.map(|duration| LongestConnection { duration, http1_by_answer }))
}

fn tracing(message: &Wire) -> Result<Option<Arc<Tracing>>, Invalid> {
    let ids = trace::request_ids(message.request_id_extension.as_ref())?;
    let compile = |tracing| trace::compile(tracing, ids).at("tracing");
    Ok(message.tracing.as_ref().map(compile).transpose()?.map(Arc::new))
}

fn codec(message: &Wire) -> Result<Codec, Invalid> {
    match message.codec_type() {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => {
            Err(Invalid::new("HTTP3 is not supported by this proxy").at("codec_type"))
        }
    }
}

fn routes(context: &mut Context, message: &Wire) -> Result<RouteSource, Invalid> {
    match required("route_specifier", message.route_specifier.as_ref())? {
        RouteSpecifier::RouteConfig(config) => {
            let config = route::route_config(config).at("route_config")?;
            Ok(RouteSource::Inline(Arc::new(config)))
        }
        RouteSpecifier::Rds(rds) => {
            let ads = rds.config_source.as_ref().is_some_and(tls::is_ads);
            if !ads {
                let reason = "expected ads, other sources are not supported by this proxy";
                return Err(Invalid::new(reason).at("rds.config_source"));
            }
            context.needs.routes.insert(rds.route_config_name.clone());
            Ok(RouteSource::Rds(rds.route_config_name.as_str().into()))
        }
        RouteSpecifier::ScopedRoutes(_) => {
            Err(Invalid::new("not supported by this proxy").at("scoped_routes"))
        }
    }
}

fn escaped_slashes(message: &Wire) -> EscapedSlashes {
    use PathWithEscapedSlashesAction as Action;
    match message.path_with_escaped_slashes_action() {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    }
}

fn client_cert(message: &Wire) -> ForwardClientCert {
    let details = message.set_current_client_cert_details.as_ref();
    ForwardClientCert {
        mode: match message.forward_client_cert_details() {
            ForwardClientCertDetails::Sanitize => ForwardClientCertMode::Sanitize,
            ForwardClientCertDetails::ForwardOnly => ForwardClientCertMode::ForwardOnly,
            ForwardClientCertDetails::AppendForward => ForwardClientCertMode::AppendForward,
            ForwardClientCertDetails::SanitizeSet => ForwardClientCertMode::SanitizeSet,
            ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCertMode::AlwaysForwardOnly,
        },
        details: details.map_or_else(ClientCertDetails::default, |details| ClientCertDetails {
            subject: flag(details.subject.as_ref(), false),
            uri: details.uri,
            dns: details.dns,
            cert: details.cert,
            chain: details.chain,
        }),
    }
}

fn upgrades(message: &Wire) -> Vec<Arc<str>> {
    let enabled =
        message.upgrade_configs.iter().filter(|upgrade| flag(upgrade.enabled.as_ref(), true));
    enabled.map(|upgrade| upgrade.upgrade_type.to_ascii_lowercase().into()).collect()
}

/// A time limit in which zero means none and nothing means the default.
fn with_default(
    field: &str,
    value: Option<&envoy_types::pb::google::protobuf::Duration>,
    default: Duration,
) -> Result<Option<Duration>, Invalid> {
    let value = optional_duration(field, value)?.unwrap_or(default);
    Ok(Some(value).filter(|value| !value.is_zero()))
}
