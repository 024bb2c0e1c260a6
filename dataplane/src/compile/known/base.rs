//! Messages that occur everywhere.

use super::{
    Known::{In, Marker, NoEffect, Packed, Read, Refused, Values},
    messages,
    reason::{ONE_API, OWN_SECRETS, PATIENCE, RUNTIME},
};

messages! {
    PERCENT = "envoy.type.v3.Percent" {
        1 "value": Read;
    }

    FRACTION = "envoy.type.v3.FractionalPercent" {
        1 "numerator": Read;
        2 "denominator": Values(2);
    }

    RUNTIME_FRACTION = "envoy.config.core.v3.RuntimeFractionalPercent" {
        1 "default_value": In(&FRACTION);
        2 "runtime_key": NoEffect(RUNTIME);
    }

    HTTP_STATUS = "envoy.type.v3.HttpStatus" {
        1 "code": Read;
    }

    RANGE = "envoy.type.v3.Int32Range" {
        1 "start": Read;
        2 "end": Read;
    }

    CIDR = "envoy.config.core.v3.CidrRange" {
        1 "address_prefix": Read;
        2 "prefix_len": Read;
    }

    SOCKET_ADDRESS = "envoy.config.core.v3.SocketAddress" {
        1 "protocol": Read;
        2 "address": Read;
        3 "port_value": Read;
        4 "named_port": Read;
        5 "resolver_name": Refused;
        6 "ipv4_compat": Refused;
        7 "network_namespace_filepath": Refused;
    }

    ADDRESS = "envoy.config.core.v3.Address" {
        1 "socket_address": In(&SOCKET_ADDRESS);
        2 "pipe": Read;
        3 "envoy_internal_address": Read;
    }

    TCP_KEEPALIVE = "envoy.config.core.v3.TcpKeepalive" {
        1 "keepalive_probes": Read;
        2 "keepalive_time": Read;
        3 "keepalive_interval": Read;
    }

    /// Where routes and endpoints come from.
    ADS_SOURCE = "envoy.config.core.v3.ConfigSource" {
        1 "path": Read;
        2 "api_config_source": Read;
        3 "ads": Marker;
        4 "initial_fetch_timeout": NoEffect(PATIENCE);
        5 "self": In(&SELF_SOURCE);
        6 "resource_api_version": NoEffect(ONE_API);
        7 "authorities": Refused;
        8 "path_config_source": Read;
    }

    /// Where secrets come from.
    SECRET_SOURCE = "envoy.config.core.v3.ConfigSource" {
        1 "path": Read;
        2 "api_config_source": NoEffect(OWN_SECRETS);
        3 "ads": Marker;
        4 "initial_fetch_timeout": NoEffect(PATIENCE);
        5 "self": In(&SELF_SOURCE);
        6 "resource_api_version": NoEffect(ONE_API);
        7 "authorities": Refused;
        8 "path_config_source": Read;
    }

    SELF_SOURCE = "envoy.config.core.v3.SelfConfigSource" {
        1 "transport_api_version": NoEffect(ONE_API);
    }

    TRANSPORT_SOCKET = "envoy.config.core.v3.TransportSocket" {
        1 "name": Read;
        3 "typed_config": Packed;
    }

    DATA_SOURCE = "envoy.config.core.v3.DataSource" {
        1 "filename": Read;
        2 "inline_bytes": Read;
        3 "inline_string": Read;
        4 "environment_variable": Read;
        5 "watched_directory": Refused;
    }

    FORMAT = "envoy.config.core.v3.SubstitutionFormatString" {
        1 "text_format": Read;
        2 "json_format": Read;
        3 "omit_empty_values": Refused;
        4 "content_type": NoEffect("no response is made of it");
        5 "text_format_source": In(&DATA_SOURCE);
        6 "formatters": NoEffect("an operator that is not built in is refused where it is used");
        7 "json_format_options": NoEffect("keys are always sorted");
    }

    HEADER_OPTION = "envoy.config.core.v3.HeaderValueOption" {
        1 "header": In(&HEADER_VALUE);
        2 "append": Read;
        3 "append_action": Read;
        4 "keep_empty_value": Read;
    }

    HEADER_VALUE = "envoy.config.core.v3.HeaderValue" {
        1 "key": Read;
        2 "value": Read;
        3 "raw_value": Refused;
    }
}
