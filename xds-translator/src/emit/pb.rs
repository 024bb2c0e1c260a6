//! Short names for the generated modules that emitting uses.

pub(super) use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3 as accesslog, cluster::v3 as cluster,
            common::matcher::v3 as common_matcher, core::v3 as core, endpoint::v3 as endpoint,
            listener::v3 as listener, ratelimit::v3 as limit_service, rbac::v3 as rbac,
            route::v3 as route, trace::v3 as trace,
        },
        extensions::{
            access_loggers::{
                file::v3 as file_access_log, filters::cel::v3 as cel_filter, grpc::v3 as grpc_log,
                open_telemetry::v3 as otlp_log,
            },
            clusters::{
                common::dns::v3 as dns_family, dns::v3 as dns_cluster,
                dynamic_forward_proxy::v3 as named_cluster,
            },
            common::{dynamic_forward_proxy::v3 as name_cache, ratelimit::v3 as counted},
            filters::{
                common::{fault::v3 as fault_delay, set_filter_state::v3 as filter_state},
                http::{
                    cors::v3 as cors, dynamic_forward_proxy::v3 as named_requests,
                    ext_authz::v3 as ask, fault::v3 as fault, grpc_stats::v3 as grpc_stats,
                    jwt_authn::v3 as token, local_ratelimit::v3 as local_rate_limit,
                    ratelimit::v3 as rate_limit, rbac::v3 as http_rbac, router::v3 as router,
                    set_filter_state::v3 as set_filter_state,
                },
                listener::{
                    http_inspector::v3 as http_inspector, original_dst::v3 as original_dst,
                    proxy_protocol::v3 as from_proxy_protocol, tls_inspector::v3 as tls_inspector,
                },
                network::{
                    ext_authz::v3 as network_ask, http_connection_manager::v3 as hcm,
                    rbac::v3 as network_rbac, sni_dynamic_forward_proxy::v3 as named_handshakes,
                    tcp_proxy::v3 as tcp_proxy,
                },
            },
            request_id::uuid::v3 as uuid,
            retry::{
                host::previous_hosts::v3 as previous_hosts,
                priority::previous_priorities::v3 as previous_priorities,
            },
            tracers::opentelemetry::{
                resource_detectors::v3 as otlp_detectors, samplers::v3 as otlp_samplers,
            },
            transport_sockets::{
                proxy_protocol::v3 as proxy_protocol, raw_buffer::v3 as raw_buffer, tls::v3 as tls,
            },
            upstreams::http::v3 as upstream_http,
        },
        r#type::{
            matcher::v3 as matcher, metadata::v3 as metadata_kind, tracing::v3 as tracing,
            v3 as types,
        },
    },
    google::protobuf,
    opentelemetry::proto::common::v1 as otlp,
};
