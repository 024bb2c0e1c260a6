//! Listeners, filter chains and network filters.

use super::{
    super::trace::{REQUEST_ID_EXTENSION, TRACING},
    Known::{Each, Guard, In, Marker, NoEffect, Packed, Read, Refused, Values},
    base::{ADDRESS, ADS_SOURCE, CIDR, RANGE, TRANSPORT_SOCKET},
    log::ACCESS_LOG,
    messages,
    protocol::{DOWNSTREAM_COMMON, DOWNSTREAM_HTTP1, DOWNSTREAM_HTTP2},
    reason::{
        FINGERPRINTS, MEMORY, NO_OVERLOAD, OPTIONAL, PACE, PEOPLE, STATISTICS, TYPE_DECIDES,
        WORKERS,
    },
    route::ROUTES,
};

messages! {
    LISTENER = "envoy.config.listener.v3.Listener" {
        1 "name": Read;
        2 "address": In(&ADDRESS);
        3 "filter_chains": Each(&FILTER_CHAIN);
        4 "use_original_dst": Read;
        5 "per_connection_buffer_limit_bytes": Read;
        6 "metadata": NoEffect(PEOPLE);
        7 "deprecated_v1": In(&OLDER_BINDING);
        8 "drain_type": Refused;
        9 "listener_filters": Each(&LISTENER_FILTER);
        10 "transparent": Read;
        11 "freebind": Refused;
        12 "tcp_fast_open_queue_length": NoEffect(PACE);
        13 "socket_options": Each(&SOCKET_OPTION);
        15 "listener_filters_timeout": Read;
        16 "traffic_direction": Values(2);
        17 "continue_on_listener_filters_timeout": Read;
        18 "udp_listener_config": Refused;
        19 "api_listener": Refused;
        20 "connection_balance_config": NoEffect(WORKERS);
        21 "reuse_port": NoEffect(WORKERS);
        22 "access_log": Each(&ACCESS_LOG);
        24 "tcp_backlog_size": NoEffect(PACE);
        25 "default_filter_chain": In(&FILTER_CHAIN);
        26 "bind_to_port": Read;
        27 "internal_listener": Refused;
        28 "stat_prefix": NoEffect(STATISTICS);
        29 "enable_reuse_port": NoEffect(WORKERS);
        30 "enable_mptcp": Refused;
        31 "ignore_global_conn_limit": NoEffect(NO_OVERLOAD);
        32 "filter_chain_matcher": Guard;
        33 "additional_addresses": Each(&ADDITIONAL_ADDRESS);
        34 "max_connections_to_accept_per_socket_event":
            NoEffect("how many connections a worker takes at a time");
        35 "bypass_overload_manager": NoEffect(NO_OVERLOAD);
        36 "fcds_config": Refused;
        37 "tcp_keepalive": Refused;
        38 "per_connection_buffer_high_watermark_timeout": Refused;
        39 "stats_matcher": NoEffect(STATISTICS);
    }

    OLDER_BINDING = "envoy.config.listener.v3.Listener.DeprecatedV1" {
        1 "bind_to_port": Read;
    }

    SOCKET_OPTION = "envoy.config.core.v3.SocketOption" {
        1 "description": NoEffect(PEOPLE);
        2 "level": Read;
        3 "name": Read;
        4 "int_value": Read;
        5 "buf_value": Refused;
        6 "state": NoEffect("the one option that is taken is set before binding");
        7 "type": Refused;
        8 "ip_version": Refused;
    }

    ADDITIONAL_ADDRESS = "envoy.config.listener.v3.AdditionalAddress" {
        1 "address": In(&ADDRESS);
        2 "socket_options": Refused;
        3 "tcp_keepalive": Refused;
    }

    LISTENER_FILTER = "envoy.config.listener.v3.ListenerFilter" {
        1 "name": Read;
        3 "typed_config": Packed;
        4 "filter_disabled": In(&PREDICATE);
        5 "config_discovery": Guard;
    }

    PREDICATE = "envoy.config.listener.v3.ListenerFilterChainMatchPredicate" {
        1 "or_match": In(&PREDICATES);
        2 "and_match": Refused;
        3 "not_match": In(&PREDICATE);
        4 "any_match": Read;
        5 "destination_port_range": In(&RANGE);
    }

    PREDICATES = "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet" {
        1 "rules": Each(&PREDICATE);
    }

    FILTER_CHAIN = "envoy.config.listener.v3.FilterChain" {
        1 "filter_chain_match": In(&CHAIN_MATCH);
        3 "filters": Each(&NETWORK_FILTER);
        4 "use_proxy_proto": Read;
        5 "metadata": NoEffect(PEOPLE);
        6 "transport_socket": In(&TRANSPORT_SOCKET);
        7 "name": Read;
        9 "transport_socket_connect_timeout": Read;
    }

    CHAIN_MATCH = "envoy.config.listener.v3.FilterChainMatch" {
        3 "prefix_ranges": Each(&CIDR);
        4 "address_suffix": Refused;
        5 "suffix_len": Refused;
        6 "source_prefix_ranges": Refused;
        7 "source_ports": Refused;
        8 "destination_port": Read;
        9 "transport_protocol": Read;
        10 "application_protocols": Read;
        11 "server_names": Read;
        12 "source_type": Refused;
        13 "direct_source_prefix_ranges": Refused;
    }

    NETWORK_FILTER = "envoy.config.listener.v3.Filter" {
        1 "name": NoEffect(TYPE_DECIDES);
        4 "typed_config": Packed;
        5 "config_discovery": Read;
    }

    ORIGINAL_DST_FILTER = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" {}

    TLS_INSPECTOR = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" {
        1 "enable_ja3_fingerprinting": NoEffect(FINGERPRINTS);
        2 "initial_read_buffer_size": NoEffect(MEMORY);
        3 "enable_ja4_fingerprinting": NoEffect(FINGERPRINTS);
        4 "close_connection_on_client_hello_parsing_errors": Refused;
        5 "max_client_hello_size": Refused;
    }

    HTTP_INSPECTOR = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" {}

    PROXY_HEADER = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" {
        1 "rules": Guard;
        2 "allow_requests_without_proxy_protocol": Read;
        3 "pass_through_tlvs": Refused;
        4 "disallowed_versions": Read;
        5 "stat_prefix": NoEffect(STATISTICS);
        6 "tlv_location": NoEffect("no rule reads what a header says beyond addresses");
    }

    TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" {
        1 "stat_prefix": Read;
        2 "cluster": Read;
        3 "downstream_idle_timeout": Refused;
        4 "upstream_idle_timeout": Refused;
        5 "access_log": Each(&ACCESS_LOG);
        7 "max_connect_attempts": Read;
        8 "idle_timeout": Read;
        9 "metadata_match": Refused;
        10 "weighted_clusters": In(&TCP_WEIGHTED);
        11 "hash_policy": Each(&TCP_HASH);
        12 "tunneling_config": Refused;
        13 "max_downstream_connection_duration": Read;
        14 "on_demand": Refused;
        15 "access_log_flush_interval": Refused;
        16 "flush_access_log_on_connected": Refused;
        17 "access_log_options": Refused;
        18 "backoff_options": Refused;
        19 "proxy_protocol_tlvs": Refused;
        20 "max_downstream_connection_duration_jitter_percentage": Refused;
        21 "upstream_connect_mode": Refused;
        22 "max_early_data_bytes": Refused;
        23 "proxy_protocol_tlv_merge_policy": Refused;
        24 "check_drain_close": Refused;
    }

    TCP_WEIGHTED = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster" {
        1 "clusters": Each(&TCP_WEIGHT);
    }

    TCP_WEIGHT =
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight" {
        1 "name": Read;
        2 "weight": Read;
        3 "metadata_match": Refused;
    }

    TCP_HASH = "envoy.type.v3.HashPolicy" {
        1 "source_ip": Marker;
        2 "filter_state": Refused;
    }

    MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" {
        1 "codec_type": Values(3);
        2 "stat_prefix": Read;
        3 "rds": In(&RDS);
        4 "route_config": In(&ROUTES);
        5 "http_filters": Each(&HTTP_FILTER);
        6 "add_user_agent": Refused;
        7 "tracing": In(&TRACING);
        8 "http_protocol_options": In(&DOWNSTREAM_HTTP1);
        9 "http2_protocol_options": In(&DOWNSTREAM_HTTP2);
        10 "server_name": Read;
        12 "drain_timeout": Read;
        13 "access_log": Each(&ACCESS_LOG);
        14 "use_remote_address": Read;
        15 "generate_request_id": Read;
        16 "forward_client_cert_details": Values(4);
        17 "set_current_client_cert_details": In(&CLIENT_CERT);
        18 "proxy_100_continue":
            NoEffect("100 is answered when the body is asked for, by who takes it");
        19 "xff_num_trusted_hops": Read;
        20 "represent_ipv4_remote_address_as_ipv4_mapped_ipv6": Guard;
        21 "skip_xff_append": Read;
        22 "via": Read;
        23 "upgrade_configs": Each(&UPGRADE);
        24 "stream_idle_timeout": Read;
        25 "internal_address_config": Guard;
        26 "delayed_close_timeout": Refused;
        28 "request_timeout": Read;
        29 "max_request_headers_kb": Read;
        30 "normalize_path": Read;
        31 "scoped_routes": Read;
        32 "preserve_external_request_id": Read;
        33 "merge_slashes": Read;
        34 "server_header_transformation": Values(2);
        35 "common_http_protocol_options": In(&DOWNSTREAM_COMMON);
        36 "request_id_extension": In(&REQUEST_ID_EXTENSION);
        37 "always_set_request_id_in_response": Refused;
        38 "local_reply_config": Refused;
        39 "strip_matching_host_port": Guard;
        40 "stream_error_on_invalid_http_message": Refused;
        41 "request_headers_timeout": Read;
        42 "strip_any_host_port": Guard;
        43 "path_normalization_options": Guard;
        44 "http3_protocol_options": Refused;
        45 "path_with_escaped_slashes_action": Values(4);
        46 "original_ip_detection_extensions": Guard;
        47 "strip_trailing_host_dot": Guard;
        48 "scheme_header_transformation": Refused;
        49 "proxy_status_config": Refused;
        50 "typed_header_validation_config": Guard;
        51 "append_x_forwarded_port": Refused;
        52 "early_header_mutation_extensions": Guard;
        53 "add_proxy_protocol_connection_state": Read;
        54 "access_log_flush_interval": Refused;
        55 "flush_access_log_on_new_request": Refused;
        56 "access_log_options": Refused;
        57 "append_local_overload": NoEffect(NO_OVERLOAD);
        58 "http1_safe_max_connection_duration": Read;
        59 "stream_flush_timeout": Refused;
        60 "forward_client_cert_matcher": Guard;
        61 "forward_proto_config": Guard;
        62 "drain_timeout_jitter": Refused;
    }

    RDS = "envoy.extensions.filters.network.http_connection_manager.v3.Rds" {
        1 "config_source": In(&ADS_SOURCE);
        2 "route_config_name": Read;
    }

    HTTP_FILTER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter" {
        1 "name": Read;
        4 "typed_config": Packed;
        5 "config_discovery": Read;
        6 "is_optional": NoEffect(OPTIONAL);
        7 "disabled": Refused;
    }

    CLIENT_CERT =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails" {
        1 "subject": Read;
        3 "cert": Read;
        4 "dns": Read;
        5 "uri": Read;
        6 "chain": Read;
        7 "format": Refused;
        8 "issuer": Refused;
    }

    UPGRADE =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig" {
        1 "upgrade_type": Read;
        2 "filters": Guard;
        3 "enabled": Read;
    }
}
