//! How HTTP is spoken with clients and servers.

use super::{
    Known::{Guard, In, NoEffect, Read, Refused},
    messages,
    reason::{CODEC, MEMORY},
};

messages! {
    /// Of connections that clients open.
    DOWNSTREAM_COMMON = "envoy.config.core.v3.HttpProtocolOptions" {
        1 "idle_timeout": Read;
        2 "max_headers_count": Read;
        3 "max_connection_duration": Read;
        4 "max_stream_duration": Refused;
        5 "headers_with_underscores_action": Guard;
        6 "max_requests_per_connection": Refused;
        7 "max_response_headers_kb": Refused;
        8 "max_connection_duration_jitter": Refused;
    }

    /// Of connections that clients open.
    DOWNSTREAM_HTTP1 = "envoy.config.core.v3.Http1ProtocolOptions" {
        1 "allow_absolute_url": NoEffect("always read (RFC 9112 section 3.2.2)");
        2 "accept_http_10": Read;
        3 "default_host_for_http_10": Refused;
        4 "header_key_format": Refused;
        5 "enable_trailers": Refused;
        6 "allow_chunked_length": Refused;
        7 "override_stream_error_on_invalid_http_message": Refused;
        8 "send_fully_qualified_url": Refused;
        9 "use_balsa_parser": NoEffect(CODEC);
        10 "allow_custom_methods": Refused;
        11 "ignore_http_11_upgrade": Guard;
    }

    /// Of connections that clients open.
    DOWNSTREAM_HTTP2 = "envoy.config.core.v3.Http2ProtocolOptions" {
        1 "hpack_table_size": NoEffect(MEMORY);
        2 "max_concurrent_streams": Read;
        3 "initial_stream_window_size": NoEffect(MEMORY);
        4 "initial_connection_window_size": NoEffect(MEMORY);
        5 "allow_connect": Read;
        6 "allow_metadata": Refused;
        7 "max_outbound_frames": Refused;
        8 "max_outbound_control_frames": Read;
        9 "max_consecutive_inbound_frames_with_empty_payload": Read;
        10 "max_inbound_priority_frames_per_stream": Read;
        11 "max_inbound_window_update_frames_per_data_frame_sent": Read;
        12 "stream_error_on_invalid_http_messaging": Refused;
        13 "custom_settings_parameters": Refused;
        14 "override_stream_error_on_invalid_http_message": Refused;
        15 "connection_keepalive": Refused;
        16 "use_oghttp2_codec": NoEffect(CODEC);
        17 "max_metadata_size": Refused;
        18 "enable_huffman_encoding": NoEffect(CODEC);
        19 "max_header_field_size_kb": Refused;
        20 "disallow_obs_text": Guard;
        21 "stream_reset_burst": Refused;
        22 "stream_reset_rate": Refused;
    }

    /// Of connections to servers.
    UPSTREAM_COMMON = "envoy.config.core.v3.HttpProtocolOptions" {
        1 "idle_timeout": Read;
        2 "max_headers_count": Read;
        3 "max_connection_duration": Read;
        4 "max_stream_duration": Refused;
        5 "headers_with_underscores_action": Refused;
        6 "max_requests_per_connection": Read;
        7 "max_response_headers_kb": Read;
        8 "max_connection_duration_jitter": Refused;
    }

    /// Of connections to servers.
    UPSTREAM_HTTP1 = "envoy.config.core.v3.Http1ProtocolOptions" {
        1 "allow_absolute_url": NoEffect("about requests that come in");
        2 "accept_http_10": NoEffect("about requests that come in");
        3 "default_host_for_http_10": Refused;
        4 "header_key_format": Refused;
        5 "enable_trailers": Refused;
        6 "allow_chunked_length": Refused;
        7 "override_stream_error_on_invalid_http_message": Refused;
        8 "send_fully_qualified_url": Refused;
        9 "use_balsa_parser": NoEffect(CODEC);
        10 "allow_custom_methods": Refused;
        11 "ignore_http_11_upgrade": Refused;
    }

    /// Of connections to servers.
    UPSTREAM_HTTP2 = "envoy.config.core.v3.Http2ProtocolOptions" {
        1 "hpack_table_size": NoEffect(MEMORY);
        2 "max_concurrent_streams": Read;
        3 "initial_stream_window_size": NoEffect(MEMORY);
        4 "initial_connection_window_size": NoEffect(MEMORY);
        5 "allow_connect": Read;
        6 "allow_metadata": Refused;
        7 "max_outbound_frames": Refused;
        8 "max_outbound_control_frames": Read;
        9 "max_consecutive_inbound_frames_with_empty_payload": Read;
        10 "max_inbound_priority_frames_per_stream": Read;
        11 "max_inbound_window_update_frames_per_data_frame_sent": Read;
        12 "stream_error_on_invalid_http_messaging": Refused;
        13 "custom_settings_parameters": Refused;
        14 "override_stream_error_on_invalid_http_message": Refused;
        15 "connection_keepalive": In(&KEEPALIVE);
        16 "use_oghttp2_codec": NoEffect(CODEC);
        17 "max_metadata_size": Refused;
        18 "enable_huffman_encoding": NoEffect(CODEC);
        19 "max_header_field_size_kb": Refused;
        20 "disallow_obs_text": Refused;
        21 "stream_reset_burst": Refused;
        22 "stream_reset_rate": Refused;
    }

    /// In a cluster itself: that servers speak HTTP/2, and nothing of how.
    OLDER_HTTP2 = "envoy.config.core.v3.Http2ProtocolOptions" {
        1 "hpack_table_size": Refused;
        2 "max_concurrent_streams": Refused;
        3 "initial_stream_window_size": Refused;
        4 "initial_connection_window_size": Refused;
        5 "allow_connect": Refused;
        6 "allow_metadata": Refused;
        7 "max_outbound_frames": Refused;
        8 "max_outbound_control_frames": Refused;
        9 "max_consecutive_inbound_frames_with_empty_payload": Refused;
        10 "max_inbound_priority_frames_per_stream": Refused;
        11 "max_inbound_window_update_frames_per_data_frame_sent": Refused;
        12 "stream_error_on_invalid_http_messaging": Refused;
        13 "custom_settings_parameters": Refused;
        14 "override_stream_error_on_invalid_http_message": Refused;
        15 "connection_keepalive": Refused;
        16 "use_oghttp2_codec": Refused;
        17 "max_metadata_size": Refused;
        18 "enable_huffman_encoding": Refused;
        19 "max_header_field_size_kb": Refused;
        20 "disallow_obs_text": Refused;
        21 "stream_reset_burst": Refused;
        22 "stream_reset_rate": Refused;
    }

    KEEPALIVE = "envoy.config.core.v3.KeepaliveSettings" {
        1 "interval": Read;
        2 "timeout": Read;
        3 "interval_jitter": Refused;
        4 "connection_idle_interval": Refused;
    }

    AUTOMATIC_NAMES = "envoy.config.core.v3.UpstreamHttpProtocolOptions" {
        1 "auto_sni": Read;
        2 "auto_san_validation": Read;
        3 "override_auto_sni_header": Read;
    }

    HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
        1 "common_http_protocol_options": In(&UPSTREAM_COMMON);
        2 "upstream_http_protocol_options": In(&AUTOMATIC_NAMES);
        3 "explicit_http_config": In(&EXPLICIT_HTTP);
        4 "use_downstream_protocol_config": In(&DOWNSTREAM_PROTOCOL);
        5 "auto_config": Read;
        6 "http_filters": Refused;
        7 "header_validation_config": Refused;
        8 "outlier_detection": Refused;
        9 "request_mirror_policies": Refused;
        10 "hash_policy": Refused;
        11 "retry_policy": Refused;
    }

    EXPLICIT_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig" {
        1 "http_protocol_options": In(&UPSTREAM_HTTP1);
        2 "http2_protocol_options": In(&UPSTREAM_HTTP2);
        3 "http3_protocol_options": Read;
    }

    DOWNSTREAM_PROTOCOL =
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig" {
        1 "http_protocol_options": In(&UPSTREAM_HTTP1);
        2 "http2_protocol_options": In(&UPSTREAM_HTTP2);
        3 "http3_protocol_options": Refused;
    }
}
