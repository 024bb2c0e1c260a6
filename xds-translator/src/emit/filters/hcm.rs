//! The HTTP connection manager, with Istio's defaults per role.

use std::time::Duration;

use super::{
    alpn, ask, cors, fault, http, metrics, names, network, rate_limit, rbac, token, tracing,
};
use crate::{
    emit::{
        access_log::logs,
        any::{any, boolean, duration},
        pb::{
            accesslog::AccessLog,
            core, grpc_stats,
            hcm::{
                self, HttpConnectionManager, HttpFilter,
                http_connection_manager::{
                    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                    ServerHeaderTransformation, SetCurrentClientCertDetails, UpgradeConfig,
                },
            },
            listener::Filter,
            router, uuid,
        },
        route::inline_configuration,
        tls::{ads, config_source},
    },
    ir::{CertPart, ClientCertHeader, PathNormalization},
    plan::{HttpConnection, HttpRole, RouteSource, TracingPlan},
};

/// The terminal filter.
pub(in crate::emit) fn filter(plan: &HttpConnection) -> Filter {
    let mut config = HttpConnectionManager {
        stat_prefix: plan.stat_prefix.to_string(),
        route_specifier: Some(routes(&plan.routes)),
        http_filters: http_filters(plan),
        access_log: access_logs(plan),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        // For those that come over HTTP/2 (RFC 8441).
        http2_protocol_options: Some(core::Http2ProtocolOptions {
            allow_connect: true,
            ..Default::default()
        }),
        request_id_extension: Some(request_id(plan.tracing.as_ref())),
        tracing: plan.tracing.as_ref().map(tracing::tracing),
        ..Default::default()
    };
    set_role(&mut config, plan);
    set_normalization(&mut config, plan.normalization);
    if plan.http_proxy {
        let absolute =
            core::Http1ProtocolOptions { allow_absolute_url: boolean(true), ..Default::default() };
        config.http_protocol_options = Some(absolute);
    }
    network("envoy.filters.network.http_connection_manager", &config)
}

fn access_logs(plan: &HttpConnection) -> Vec<AccessLog> {
    let agent = plan.metrics.as_ref().and_then(metrics::http_log);
    logs(&plan.access_logs).into_iter().chain(agent).collect()
}

fn routes(source: &RouteSource) -> RouteSpecifier {
    match source {
        RouteSource::Rds(name) => RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(core::ConfigSource {
                initial_fetch_timeout: Some(duration(Duration::ZERO)),
                ..config_source(ads())
            }),
            route_config_name: name.to_string(),
        }),
        RouteSource::Inline(plan) => RouteSpecifier::RouteConfig(inline_configuration(plan)),
    }
}

fn http_filters(plan: &HttpConnection) -> Vec<HttpFilter> {
    let mut filters: Vec<HttpFilter> = plan.ask.iter().flat_map(ask::http_filters).collect();
    filters.extend(plan.tokens.iter().map(token::filter));
    filters.extend(plan.access.iter().map(rbac::http_filter));
    filters.extend(plan.rate_limits.iter().map(rate_limit::filter));
    filters.extend([grpc_stats_filter(), fault::filter(), cors::filter()]);
    filters.extend(plan.alpn_override.then(alpn::filter));
    filters.extend(plan.metrics.iter().filter_map(metrics::http_filter));
    filters.extend(plan.resolves_names.then(names::requests));
    let suppress_envoy_headers = plan.headers.omitted.debug;
    let router = router::Router { suppress_envoy_headers, ..Default::default() };
    filters.push(http("envoy.filters.http.router", &router));
    filters
}

fn grpc_stats_filter() -> HttpFilter {
    use grpc_stats::filter_config::PerMethodStatSpecifier;
    let config = grpc_stats::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: boolean(false).map(PerMethodStatSpecifier::StatsForAllMethods),
        ..Default::default()
    };
    http("envoy.filters.http.grpc_stats", &config)
}

fn request_id(tracing: Option<&TracingPlan>) -> hcm::RequestIdExtension {
    let decides = tracing.is_none_or(|tracing| tracing.by_request_id);
    let config = uuid::UuidRequestIdConfig {
        use_request_id_for_trace_sampling: boolean(decides),
        ..Default::default()
    };
    hcm::RequestIdExtension { typed_config: Some(any(&config)) }
}

fn set_role(config: &mut HttpConnectionManager, plan: &HttpConnection) {
    let role = plan.role;
    config.use_remote_address = boolean(role == HttpRole::Gateway);
    if plan.headers.omitted.request_id {
        config.generate_request_id = boolean(false);
    }
    match role {
        // Without mutual TLS Envoy drops the header, whatever stands here; so both kinds of chain
        // say the same.
        HttpRole::Inbound { .. } => set_identities(config, plan, ClientCertHeader::Append),
        HttpRole::Outbound => {}
        HttpRole::Gateway => {
            config.xff_num_trusted_hops = plan.edge.trusted_proxies;
            config.http_protocol_options = Some(core::Http1ProtocolOptions::default());
            set_identities(config, plan, plan.edge.client_cert);
        }
    }
}

/// Who answers, and what the application is told of who asks.
fn set_identities(
    config: &mut HttpConnectionManager,
    plan: &HttpConnection,
    usual: ClientCertHeader,
) {
    let headers = &plan.headers;
    match &headers.server {
        Some(name) => config.server_name = name.to_string(),
        None => {
            let transformation = ServerHeaderTransformation::PassThrough;
            config.server_header_transformation = transformation as i32;
        }
    }
    let told = |part, usual| headers.cert_parts.get(&part).copied().unwrap_or(usual);
    config.forward_client_cert_details = client_cert(headers.client_cert.unwrap_or(usual)) as i32;
    config.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
        subject: boolean(told(CertPart::Subject, true)),
        cert: told(CertPart::Certificate, plan.role == HttpRole::Gateway),
        chain: told(CertPart::Chain, false),
        dns: told(CertPart::Dns, true),
        uri: told(CertPart::Uri, true),
        ..Default::default()
    });
}

fn client_cert(header: ClientCertHeader) -> ForwardClientCertDetails {
    match header {
        ClientCertHeader::Remove => ForwardClientCertDetails::Sanitize,
        ClientCertHeader::PassOn => ForwardClientCertDetails::ForwardOnly,
        ClientCertHeader::Append => ForwardClientCertDetails::AppendForward,
        ClientCertHeader::Set => ForwardClientCertDetails::SanitizeSet,
        ClientCertHeader::PassOnAlways => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}

fn set_normalization(config: &mut HttpConnectionManager, normalization: PathNormalization) {
    config.normalize_path = boolean(normalization != PathNormalization::None);
    config.merge_slashes = normalization >= PathNormalization::MergeSlashes;
    let escaped_slashes = match normalization {
        PathNormalization::DecodeAndMergeSlashes => {
            PathWithEscapedSlashesAction::UnescapeAndForward
        }
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    config.path_with_escaped_slashes_action = escaped_slashes as i32;
}
