//! Route configurations.

use super::{
    Known::{
        Each, Guard, In, Marker, NoEffect, Packed, PackedAs, PackedMap, Read, Refused, Values,
    },
    base::{DATA_SOURCE, HEADER_OPTION, RUNTIME_FRACTION},
    matcher::{HEADER, METADATA_MATCHER, QUERY, REGEX, REGEX_REWRITE},
    messages,
    rate_limit::RATE_LIMIT,
    reason::{FREE_CHOICE, ONE_SPAN, OPTIONAL, PEOPLE, RUNTIME, STATISTICS, TYPE_DECIDES},
};

messages! {
    ROUTES = "envoy.config.route.v3.RouteConfiguration" {
        1 "name": Read;
        2 "virtual_hosts": Each(&VIRTUAL_HOST);
        3 "internal_only_headers": Guard;
        4 "response_headers_to_add": Each(&HEADER_OPTION);
        5 "response_headers_to_remove": Read;
        6 "request_headers_to_add": Each(&HEADER_OPTION);
        7 "validate_clusters":
            NoEffect("a cluster that is not there is answered when it is asked for");
        8 "request_headers_to_remove": Read;
        9 "vhds": Refused;
        10 "most_specific_header_mutations_wins": Read;
        11 "max_direct_response_body_size_bytes":
            NoEffect("a limit for the configuration itself, which has passed it");
        12 "cluster_specifier_plugins": Refused;
        13 "request_mirror_policies": Refused;
        14 "ignore_port_in_host_matching": Read;
        15 "ignore_path_parameters_in_path_matching": Guard;
        16 "typed_per_filter_config": Refused;
        17 "metadata": NoEffect(PEOPLE);
        18 "vhost_header": Refused;
        19 "route_specifiers": Refused;
    }

    VIRTUAL_HOST = "envoy.config.route.v3.VirtualHost" {
        1 "name": Read;
        2 "domains": Read;
        3 "routes": Each(&ROUTE);
        4 "require_tls": Values(2);
        5 "virtual_clusters": NoEffect(STATISTICS);
        6 "rate_limits": Each(&RATE_LIMIT);
        7 "request_headers_to_add": Each(&HEADER_OPTION);
        8 "cors": Refused;
        10 "response_headers_to_add": Each(&HEADER_OPTION);
        11 "response_headers_to_remove": Read;
        13 "request_headers_to_remove": Read;
        14 "include_request_attempt_count": Read;
        15 "typed_per_filter_config": PackedMap;
        16 "retry_policy": In(&RETRY);
        17 "hedge_policy": Refused;
        18 "per_request_buffer_limit_bytes": Read;
        19 "include_attempt_count_in_response": Read;
        20 "retry_policy_typed_config": Refused;
        21 "matcher": Guard;
        22 "request_mirror_policies": Refused;
        23 "include_is_timeout_retry_header": Refused;
        24 "metadata": NoEffect(PEOPLE);
        25 "request_body_buffer_limit": Read;
        26 "route_specifiers": Refused;
    }

    ROUTE = "envoy.config.route.v3.Route" {
        1 "match": In(&ROUTE_MATCH);
        2 "route": In(&FORWARD);
        3 "redirect": In(&REDIRECT);
        4 "metadata": NoEffect(PEOPLE);
        5 "decorator": In(&DECORATOR);
        7 "direct_response": In(&DIRECT);
        9 "request_headers_to_add": Each(&HEADER_OPTION);
        10 "response_headers_to_add": Each(&HEADER_OPTION);
        11 "response_headers_to_remove": Read;
        12 "request_headers_to_remove": Read;
        13 "typed_per_filter_config": PackedMap;
        14 "name": Read;
        15 "tracing": Refused;
        16 "per_request_buffer_limit_bytes": Read;
        17 "filter_action": Read;
        18 "non_forwarding_action": Read;
        19 "stat_prefix": NoEffect(STATISTICS);
        20 "request_body_buffer_limit": Read;
        21 "route_specifiers": Refused;
    }

    ROUTE_MATCH = "envoy.config.route.v3.RouteMatch" {
        1 "prefix": Read;
        2 "path": Read;
        4 "case_sensitive": Read;
        6 "headers": Each(&HEADER);
        7 "query_parameters": Each(&QUERY);
        8 "grpc": Marker;
        9 "runtime_fraction": In(&RUNTIME_FRACTION);
        10 "safe_regex": In(&REGEX);
        11 "tls_context": Refused;
        12 "connect_matcher": Marker;
        13 "dynamic_metadata": Each(&METADATA_MATCHER);
        14 "path_separated_prefix": Read;
        15 "path_match_policy": Refused;
        16 "filter_state": Refused;
        17 "cookies": Refused;
    }

    FORWARD = "envoy.config.route.v3.RouteAction" {
        1 "cluster": Read;
        2 "cluster_header": Read;
        3 "weighted_clusters": In(&WEIGHTED);
        4 "metadata_match": Refused;
        5 "prefix_rewrite": Read;
        6 "host_rewrite_literal": Read;
        7 "auto_host_rewrite": Read;
        8 "timeout": Read;
        9 "retry_policy": In(&RETRY);
        11 "priority": Refused;
        13 "rate_limits": Each(&RATE_LIMIT);
        14 "include_vh_rate_limits": Read;
        15 "hash_policy": Each(&HASH);
        17 "cors": Refused;
        20 "cluster_not_found_response_code": Values(2);
        23 "max_grpc_timeout": Read;
        24 "idle_timeout": Read;
        25 "upgrade_configs": Each(&ROUTE_UPGRADE);
        26 "internal_redirect_action": Refused;
        27 "hedge_policy": Refused;
        28 "grpc_timeout_offset": Refused;
        29 "host_rewrite_header": Read;
        30 "request_mirror_policies": Each(&MIRROR);
        31 "max_internal_redirects": Refused;
        32 "regex_rewrite": In(&REGEX_REWRITE);
        33 "retry_policy_typed_config": Refused;
        34 "internal_redirect_policy": Refused;
        35 "host_rewrite_path_regex": Refused;
        36 "max_stream_duration": In(&STREAM_DURATION);
        37 "cluster_specifier_plugin": Refused;
        38 "append_x_forwarded_host": Read;
        39 "inline_cluster_specifier_plugin": Refused;
        40 "early_data_policy": Refused;
        41 "path_rewrite_policy": Refused;
        42 "flush_timeout": Refused;
        44 "host_rewrite": Refused;
        45 "path_rewrite": Refused;
    }

    STREAM_DURATION = "envoy.config.route.v3.RouteAction.MaxStreamDuration" {
        1 "max_stream_duration": Read;
        2 "grpc_timeout_header_max": Read;
        3 "grpc_timeout_header_offset": Refused;
    }

    ROUTE_UPGRADE = "envoy.config.route.v3.RouteAction.UpgradeConfig" {
        1 "upgrade_type": Read;
        2 "enabled": Read;
        3 "connect_config": Refused;
    }

    WEIGHTED = "envoy.config.route.v3.WeightedCluster" {
        1 "clusters": Each(&WEIGHT);
        2 "runtime_key_prefix": NoEffect(RUNTIME);
        3 "total_weight": NoEffect("the sum of the weights, which Envoy demands it to be");
        4 "header_name": Refused;
        5 "use_hash_policy": Refused;
    }

    WEIGHT = "envoy.config.route.v3.WeightedCluster.ClusterWeight" {
        1 "name": Read;
        2 "weight": Read;
        3 "metadata_match": Refused;
        4 "request_headers_to_add": Each(&HEADER_OPTION);
        5 "response_headers_to_add": Each(&HEADER_OPTION);
        6 "response_headers_to_remove": Read;
        9 "request_headers_to_remove": Read;
        10 "typed_per_filter_config": PackedMap;
        11 "host_rewrite_literal": Read;
        12 "cluster_header": Refused;
    }

    RETRY = "envoy.config.route.v3.RetryPolicy" {
        1 "retry_on": Read;
        2 "num_retries": Read;
        3 "per_try_timeout": Read;
        4 "retry_priority": In(&RETRY_PRIORITY);
        5 "retry_host_predicate": Each(&HOST_PREDICATE);
        6 "host_selection_retry_max_attempts": Read;
        7 "retriable_status_codes": Read;
        8 "retry_back_off": In(&BACK_OFF);
        9 "retriable_headers": Refused;
        10 "retriable_request_headers": Refused;
        11 "rate_limited_retry_back_off": Refused;
        12 "retry_options_predicates": Refused;
        13 "per_try_idle_timeout": Refused;
        14 "refresh_cluster_on_retry": Refused;
    }

    RETRY_PRIORITY = "envoy.config.route.v3.RetryPolicy.RetryPriority" {
        1 "name": NoEffect(TYPE_DECIDES);
        3 "typed_config": PackedAs(&PREVIOUS_PRIORITIES);
    }

    PREVIOUS_PRIORITIES =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig" {
        1 "update_frequency": NoEffect(FREE_CHOICE);
    }

    HOST_PREDICATE = "envoy.config.route.v3.RetryPolicy.RetryHostPredicate" {
        1 "name": Read;
        3 "typed_config": Packed;
    }

    PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" {}

    OMIT_CANARY_HOSTS =
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate" {}

    BACK_OFF = "envoy.config.route.v3.RetryPolicy.RetryBackOff" {
        1 "base_interval": Read;
        2 "max_interval": Read;
    }

    HASH = "envoy.config.route.v3.RouteAction.HashPolicy" {
        1 "header": In(&HASH_HEADER);
        2 "cookie": In(&HASH_COOKIE);
        3 "connection_properties": In(&HASH_CONNECTION);
        4 "terminal": Read;
        5 "query_parameter": In(&HASH_QUERY);
        6 "filter_state": Refused;
    }

    HASH_HEADER = "envoy.config.route.v3.RouteAction.HashPolicy.Header" {
        1 "header_name": Read;
        2 "regex_rewrite": Refused;
    }

    HASH_COOKIE = "envoy.config.route.v3.RouteAction.HashPolicy.Cookie" {
        1 "name": Read;
        2 "ttl": Read;
        3 "path": Read;
        4 "attributes": Each(&COOKIE_ATTRIBUTE);
    }

    COOKIE_ATTRIBUTE = "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute" {
        1 "name": Read;
        2 "value": Read;
    }

    HASH_CONNECTION = "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties" {
        1 "source_ip": Read;
    }

    HASH_QUERY = "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter" {
        1 "name": Read;
    }

    MIRROR = "envoy.config.route.v3.RouteAction.RequestMirrorPolicy" {
        1 "cluster": Read;
        3 "runtime_fraction": In(&RUNTIME_FRACTION);
        4 "trace_sampled": NoEffect(ONE_SPAN);
        5 "cluster_header": Refused;
        6 "disable_shadow_host_suffix_append": Read;
        7 "request_headers_mutations": Refused;
        8 "host_rewrite_literal": Refused;
    }

    REDIRECT = "envoy.config.route.v3.RedirectAction" {
        1 "host_redirect": Read;
        2 "path_redirect": Read;
        3 "response_code": Read;
        4 "https_redirect": Read;
        5 "prefix_rewrite": Read;
        6 "strip_query": Read;
        7 "scheme_redirect": Read;
        8 "port_redirect": Read;
        9 "regex_rewrite": In(&REGEX_REWRITE);
        10 "path_rewrite": Refused;
    }

    DIRECT = "envoy.config.route.v3.DirectResponseAction" {
        1 "status": Read;
        2 "body": In(&DATA_SOURCE);
        3 "body_format": Refused;
    }

    DECORATOR = "envoy.config.route.v3.Decorator" {
        1 "operation": Read;
        2 "propagate": Read;
    }

    FILTER_CONFIG = "envoy.config.route.v3.FilterConfig" {
        1 "config": Packed;
        2 "is_optional": NoEffect(OPTIONAL);
        3 "disabled": Refused;
    }
}
