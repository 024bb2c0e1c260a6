//! How requests become descriptors of rate limits.

use super::{
    Known::{Each, In, Marker, Read, Refused, Values},
    matcher::{HEADER, METADATA_KEY, QUERY},
    messages,
};

messages! {
    RATE_LIMIT = "envoy.config.route.v3.RateLimit" {
        1 "stage": Read;
        2 "disable_key": Refused;
        3 "actions": Each(&ACTION);
        4 "limit": Refused;
        5 "hits_addend": Refused;
        6 "apply_on_stream_done": Refused;
        7 "x_ratelimit_option": Values(2);
    }

    ACTION = "envoy.config.route.v3.RateLimit.Action" {
        1 "source_cluster": Refused;
        2 "destination_cluster": Marker;
        3 "request_headers": In(&REQUEST_HEADERS);
        4 "remote_address": Marker;
        5 "generic_key": In(&GENERIC_KEY);
        6 "header_value_match": In(&HEADER_VALUE_MATCH);
        7 "dynamic_metadata": In(&OLDER_METADATA);
        8 "metadata": In(&LIMIT_METADATA);
        9 "extension": Refused;
        10 "masked_remote_address": In(&MASKED_ADDRESS);
        11 "query_parameter_value_match": In(&QUERY_VALUE_MATCH);
        12 "query_parameters": In(&QUERY_PARAMETERS);
        13 "remote_address_match": In(&ADDRESS_MATCH);
    }

    REQUEST_HEADERS = "envoy.config.route.v3.RateLimit.Action.RequestHeaders" {
        1 "header_name": Read;
        2 "descriptor_key": Read;
        3 "skip_if_absent": Read;
    }

    QUERY_PARAMETERS = "envoy.config.route.v3.RateLimit.Action.QueryParameters" {
        1 "query_parameter_name": Read;
        2 "descriptor_key": Read;
        3 "skip_if_absent": Read;
    }

    MASKED_ADDRESS = "envoy.config.route.v3.RateLimit.Action.MaskedRemoteAddress" {
        1 "v4_prefix_mask_len": Read;
        2 "v6_prefix_mask_len": Read;
    }

    GENERIC_KEY = "envoy.config.route.v3.RateLimit.Action.GenericKey" {
        1 "descriptor_value": Read;
        2 "descriptor_key": Read;
        3 "default_value": Refused;
    }

    HEADER_VALUE_MATCH = "envoy.config.route.v3.RateLimit.Action.HeaderValueMatch" {
        1 "descriptor_value": Read;
        2 "expect_match": Read;
        3 "headers": Each(&HEADER);
        4 "descriptor_key": Read;
        5 "default_value": Refused;
    }

    QUERY_VALUE_MATCH = "envoy.config.route.v3.RateLimit.Action.QueryParameterValueMatch" {
        1 "descriptor_value": Read;
        2 "expect_match": Read;
        3 "query_parameters": Each(&QUERY);
        4 "descriptor_key": Read;
        5 "default_value": Refused;
    }

    ADDRESS_MATCH = "envoy.config.route.v3.RateLimit.Action.RemoteAddressMatch" {
        1 "descriptor_value": Read;
        2 "descriptor_key": Read;
        3 "default_value": Refused;
        4 "address_matcher": In(&ADDRESS_MATCHER);
    }

    ADDRESS_MATCHER = "envoy.type.matcher.v3.AddressMatcher" {
        1 "ranges": Each(&XDS_CIDR);
        2 "invert_match": Read;
    }

    XDS_CIDR = "xds.core.v3.CidrRange" {
        1 "address_prefix": Read;
        2 "prefix_len": Read;
    }

    LIMIT_METADATA = "envoy.config.route.v3.RateLimit.Action.MetaData" {
        1 "descriptor_key": Read;
        2 "metadata_key": In(&METADATA_KEY);
        3 "default_value": Read;
        4 "source": Values(3);
        5 "skip_if_absent": Read;
    }

    OLDER_METADATA = "envoy.config.route.v3.RateLimit.Action.DynamicMetaData" {
        1 "descriptor_key": Read;
        2 "metadata_key": In(&METADATA_KEY);
        3 "default_value": Read;
    }
}
