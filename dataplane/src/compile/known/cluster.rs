//! Clusters and their endpoints.

use super::{
    Known::{
        Each, Guard, In, Labels, Marker, NoEffect, Packed, PackedAs, PackedMap, Read, Refused,
        Values, Zero,
    },
    base::{ADDRESS, ADS_SOURCE, PERCENT, TCP_KEEPALIVE, TRANSPORT_SOCKET},
    messages,
    protocol::{AUTOMATIC_NAMES, OLDER_HTTP2},
    reason::{FREE_CHOICE, NO_HEALTH_CHECKS, OFF, PACE, PEOPLE, STATISTICS, TYPE_DECIDES},
};

/// What the control plane says for people about the object that a cluster is made of.
const CLUSTER_LABELS: &[(&str, &str)] = &[
    ("istio.config", "the object that a cluster is made of, for people"),
    ("istio.external", "whether a host is outside of the mesh, for people"),
    ("istio.subset", "the subset that a cluster stands for, for people"),
];

messages! {
    CLUSTER = "envoy.config.cluster.v3.Cluster" {
        1 "name": Read;
        2 "type": Read;
        3 "eds_cluster_config": In(&EDS);
        4 "connect_timeout": Read;
        5 "per_connection_buffer_limit_bytes": Read;
        6 "lb_policy": Read;
        8 "health_checks": Refused;
        9 "max_requests_per_connection": Read;
        10 "circuit_breakers": In(&CIRCUIT_BREAKERS);
        13 "http_protocol_options": Refused;
        14 "http2_protocol_options": In(&OLDER_HTTP2);
        16 "dns_refresh_rate": Read;
        17 "dns_lookup_family": Read;
        18 "dns_resolvers": Refused;
        19 "outlier_detection": In(&OUTLIER);
        20 "cleanup_interval":
            NoEffect("an original destination is not kept beyond its connections");
        21 "upstream_bind_config": In(&BIND);
        22 "lb_subset_config": Refused;
        23 "ring_hash_lb_config": In(&RING_HASH);
        24 "transport_socket": In(&TRANSPORT_SOCKET);
        25 "metadata": In(&CLUSTER_METADATA);
        26 "protocol_selection": Refused;
        27 "common_lb_config": In(&COMMON_LB);
        28 "alt_stat_name": NoEffect(STATISTICS);
        29 "common_http_protocol_options": Refused;
        30 "upstream_connection_options": In(&CONNECTION_OPTIONS);
        31 "close_connections_on_host_health_failure": Refused;
        32 "ignore_health_on_host_removal": NoEffect(NO_HEALTH_CHECKS);
        33 "load_assignment": In(&INLINE_ASSIGNMENT);
        34 "original_dst_lb_config": In(&ORIGINAL_DST);
        36 "typed_extension_protocol_options": PackedMap;
        37 "least_request_lb_config": In(&LEAST_REQUEST);
        38 "cluster_type": In(&CLUSTER_TYPE);
        39 "respect_dns_ttl": Read;
        40 "filters": Each(&CLUSTER_FILTER);
        41 "load_balancing_policy": Refused;
        42 "lrs_server": NoEffect(STATISTICS);
        43 "transport_socket_matches": Each(&SOCKET_MATCH);
        44 "dns_failure_refresh_rate": Refused;
        45 "use_tcp_for_dns_lookups": Refused;
        46 "upstream_http_protocol_options": In(&AUTOMATIC_NAMES);
        47 "track_timeout_budgets": NoEffect(STATISTICS);
        48 "upstream_config": Refused;
        49 "track_cluster_stats": NoEffect(STATISTICS);
        50 "preconnect_policy": Refused;
        51 "connection_pool_per_downstream_connection": Refused;
        52 "maglev_lb_config": In(&MAGLEV);
        53 "dns_resolution_config": Refused;
        54 "wait_for_warm_on_init": Refused;
        55 "typed_dns_resolver_config": In(&DNS_RESOLVER);
        56 "round_robin_lb_config": In(&ROUND_ROBIN);
        57 "lrs_report_endpoint_metrics": NoEffect(STATISTICS);
        58 "dns_jitter": NoEffect(PACE);
        59 "transport_socket_matcher": Guard;
        60 "per_connection_buffer_high_watermark_timeout": Refused;
        61 "stats_matcher": NoEffect(STATISTICS);
        62 "queuing_policies": Refused;
    }

    CLUSTER_METADATA = "envoy.config.core.v3.Metadata" {
        1 "filter_metadata": Labels(CLUSTER_LABELS);
        2 "typed_filter_metadata": NoEffect(PEOPLE);
    }

    EDS = "envoy.config.cluster.v3.Cluster.EdsClusterConfig" {
        1 "eds_config": In(&ADS_SOURCE);
        2 "service_name": Read;
    }

    RING_HASH = "envoy.config.cluster.v3.Cluster.RingHashLbConfig" {
        1 "minimum_ring_size": Read;
        3 "hash_function": Refused;
        4 "maximum_ring_size": Read;
    }

    MAGLEV = "envoy.config.cluster.v3.Cluster.MaglevLbConfig" {
        1 "table_size": Read;
    }

    LEAST_REQUEST = "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig" {
        1 "choice_count": Read;
        2 "active_request_bias": Refused;
        3 "slow_start_config": NoEffect(FREE_CHOICE);
    }

    ROUND_ROBIN = "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig" {
        1 "slow_start_config": NoEffect(FREE_CHOICE);
    }

    ORIGINAL_DST = "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig" {
        1 "use_http_header": Refused;
        2 "http_header_name": Refused;
        3 "upstream_port_override": Read;
        4 "metadata_key": Refused;
    }

    COMMON_LB = "envoy.config.cluster.v3.Cluster.CommonLbConfig" {
        1 "healthy_panic_threshold": In(&PERCENT);
        2 "zone_aware_lb_config": In(&ZONE_AWARE);
        3 "locality_weighted_lb_config": Marker;
        4 "update_merge_window": NoEffect(PACE);
        5 "ignore_new_hosts_until_first_hc": NoEffect(NO_HEALTH_CHECKS);
        6 "close_connections_on_host_set_change": Refused;
        7 "consistent_hashing_lb_config": Refused;
        8 "override_host_status": Refused;
    }

    ZONE_AWARE = "envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig" {
        1 "routing_enabled": In(&PERCENT);
        2 "min_cluster_size": Read;
        3 "fail_traffic_on_panic": Refused;
    }

    CLUSTER_TYPE = "envoy.config.cluster.v3.Cluster.CustomClusterType" {
        1 "name": NoEffect(TYPE_DECIDES);
        2 "typed_config": Packed;
    }

    SOCKET_MATCH = "envoy.config.cluster.v3.Cluster.TransportSocketMatch" {
        1 "name": Read;
        2 "match": Read;
        3 "transport_socket": In(&TRANSPORT_SOCKET);
    }

    CLUSTER_FILTER = "envoy.config.cluster.v3.Filter" {
        1 "name": NoEffect(TYPE_DECIDES);
        2 "typed_config": Packed;
        3 "config_discovery": Refused;
    }

    CIRCUIT_BREAKERS = "envoy.config.cluster.v3.CircuitBreakers" {
        1 "thresholds": Each(&THRESHOLDS);
        2 "per_host_thresholds": Refused;
    }

    THRESHOLDS = "envoy.config.cluster.v3.CircuitBreakers.Thresholds" {
        1 "priority": Values(1);
        2 "max_connections": Read;
        3 "max_pending_requests": Read;
        4 "max_requests": Read;
        5 "max_retries": Read;
        6 "track_remaining": NoEffect(STATISTICS);
        7 "max_connection_pools": Refused;
        8 "retry_budget": In(&RETRY_BUDGET);
    }

    RETRY_BUDGET = "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget" {
        1 "budget_percent": In(&PERCENT);
        2 "min_retry_concurrency": Read;
        3 "budget_interval": Refused;
    }

    OUTLIER = "envoy.config.cluster.v3.OutlierDetection" {
        1 "consecutive_5xx": Read;
        2 "interval": Read;
        3 "base_ejection_time": Read;
        4 "max_ejection_percent": Read;
        5 "enforcing_consecutive_5xx": Read;
        6 "enforcing_success_rate": Zero(OFF);
        7 "success_rate_minimum_hosts": Refused;
        8 "success_rate_request_volume": Refused;
        9 "success_rate_stdev_factor": Refused;
        10 "consecutive_gateway_failure": Read;
        11 "enforcing_consecutive_gateway_failure": Read;
        12 "split_external_local_origin_errors": Read;
        13 "consecutive_local_origin_failure": Read;
        14 "enforcing_consecutive_local_origin_failure": Read;
        15 "enforcing_local_origin_success_rate": Zero(OFF);
        16 "failure_percentage_threshold": Refused;
        17 "enforcing_failure_percentage": Zero(OFF);
        18 "enforcing_failure_percentage_local_origin": Zero(OFF);
        19 "failure_percentage_minimum_hosts": Refused;
        20 "failure_percentage_request_volume": Refused;
        21 "max_ejection_time": Read;
        22 "max_ejection_time_jitter": Refused;
        23 "successful_active_health_check_uneject_host": NoEffect(NO_HEALTH_CHECKS);
        24 "monitors": Refused;
        25 "always_eject_one_host": Read;
        26 "detect_degraded_hosts": Refused;
    }

    CONNECTION_OPTIONS = "envoy.config.cluster.v3.UpstreamConnectionOptions" {
        1 "tcp_keepalive": In(&TCP_KEEPALIVE);
        2 "set_local_interface_name_on_upstream_connections":
            NoEffect("no operator of a log tells it");
        3 "happy_eyeballs_config": Refused;
    }

    BIND = "envoy.config.core.v3.BindConfig" {
        1 "source_address": In(&SOURCE_ADDRESS);
        2 "freebind": Refused;
        3 "socket_options": Refused;
        4 "additional_source_addresses": Refused;
        5 "extra_source_addresses": Refused;
        6 "local_address_selector": Refused;
        7 "validate_network_namespaces": Refused;
    }

    /// Where connections come from.
    SOURCE_ADDRESS = "envoy.config.core.v3.SocketAddress" {
        1 "protocol": Refused;
        2 "address": Read;
        3 "port_value": Read;
        4 "named_port": Read;
        5 "resolver_name": Refused;
        6 "ipv4_compat": Refused;
        7 "network_namespace_filepath": Refused;
    }

    DNS_CLUSTER = "envoy.extensions.clusters.dns.v3.DnsCluster" {
        3 "dns_refresh_rate": Read;
        4 "dns_failure_refresh_rate": Refused;
        5 "respect_dns_ttl": Read;
        6 "dns_jitter": NoEffect(PACE);
        7 "typed_dns_resolver_config": In(&DNS_RESOLVER);
        8 "dns_lookup_family": Values(5);
        9 "all_addresses_in_single_endpoint": Read;
        10 "dns_min_refresh_rate": Refused;
    }

    DNS_RESOLVER = "envoy.config.core.v3.TypedExtensionConfig" {
        1 "name": NoEffect(TYPE_DECIDES);
        2 "typed_config": PackedAs(&CARES);
    }

    CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" {
        1 "resolvers": Refused;
        2 "dns_resolver_options": Refused;
        3 "use_resolvers_as_fallback": Refused;
        4 "filter_unroutable_families": Refused;
        5 "udp_max_queries": NoEffect(PACE);
        6 "query_timeout_seconds": NoEffect(PACE);
        7 "query_tries": NoEffect(PACE);
        8 "rotate_nameservers": NoEffect(PACE);
        9 "edns0_max_payload_size": NoEffect(PACE);
        10 "max_udp_channel_duration": NoEffect(PACE);
        11 "reinit_channel_on_timeout": NoEffect(PACE);
        12 "qcache_max_ttl": Refused;
    }

    ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment" {
        1 "cluster_name": Read;
        2 "endpoints": Each(&LOCALITY_ENDPOINTS);
        4 "policy": In(&ASSIGNMENT_POLICY);
        5 "named_endpoints": Refused;
    }

    /// One that is written into its cluster.
    INLINE_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment" {
        1 "cluster_name": NoEffect("the assignment is written into its cluster");
        2 "endpoints": Each(&LOCALITY_ENDPOINTS);
        4 "policy": In(&ASSIGNMENT_POLICY);
        5 "named_endpoints": Refused;
    }

    ASSIGNMENT_POLICY = "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy" {
        2 "drop_overloads": Refused;
        3 "overprovisioning_factor": Read;
        4 "endpoint_stale_after": Refused;
        6 "weighted_priority_health": Refused;
    }

    LOCALITY_ENDPOINTS = "envoy.config.endpoint.v3.LocalityLbEndpoints" {
        1 "locality": In(&LOCALITY);
        2 "lb_endpoints": Each(&LB_ENDPOINT);
        3 "load_balancing_weight": Read;
        5 "priority": Read;
        6 "proximity": Refused;
        7 "load_balancer_endpoints": Refused;
        8 "leds_cluster_locality_config": Refused;
        9 "metadata": NoEffect(PEOPLE);
    }

    LOCALITY = "envoy.config.core.v3.Locality" {
        1 "region": Read;
        2 "zone": Read;
        3 "sub_zone": Read;
    }

    LB_ENDPOINT = "envoy.config.endpoint.v3.LbEndpoint" {
        1 "endpoint": In(&ENDPOINT);
        2 "health_status": Read;
        3 "metadata": In(&ENDPOINT_METADATA);
        4 "load_balancing_weight": Read;
        5 "endpoint_name": Read;
    }

    ENDPOINT_METADATA = "envoy.config.core.v3.Metadata" {
        1 "filter_metadata": Labels(&[]);
        2 "typed_filter_metadata": NoEffect(PEOPLE);
    }

    ENDPOINT = "envoy.config.endpoint.v3.Endpoint" {
        1 "address": In(&ADDRESS);
        2 "health_check_config": NoEffect(NO_HEALTH_CHECKS);
        3 "hostname": Read;
        4 "additional_addresses": Refused;
        5 "observability_name": NoEffect(STATISTICS);
    }
}
