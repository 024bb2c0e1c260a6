//! Rules of who may do what.

use super::{
    Known::{Each, Guard, In, Map, NoEffect, Read, Values},
    base::{CIDR, RANGE},
    matcher::{FILTER_STATE, HEADER, METADATA_MATCHER, PATH, STRING},
    messages,
    reason::STATISTICS,
};

messages! {
    RULES = "envoy.config.rbac.v3.RBAC" {
        1 "action": Values(2);
        2 "policies": Map(&POLICY);
        3 "audit_logging_options": Guard;
    }

    POLICY = "envoy.config.rbac.v3.Policy" {
        1 "permissions": Each(&PERMISSION);
        2 "principals": Each(&PRINCIPAL);
        3 "condition": Guard;
        4 "checked_condition": Guard;
        5 "cel_config": Guard;
    }

    PERMISSION = "envoy.config.rbac.v3.Permission" {
        1 "and_rules": In(&PERMISSIONS);
        2 "or_rules": In(&PERMISSIONS);
        3 "any": Read;
        4 "header": In(&HEADER);
        5 "destination_ip": In(&CIDR);
        6 "destination_port": Read;
        7 "metadata": In(&METADATA_MATCHER);
        8 "not_rule": In(&PERMISSION);
        9 "requested_server_name": In(&STRING);
        10 "url_path": In(&PATH);
        11 "destination_port_range": In(&RANGE);
        12 "matcher": Guard;
        13 "uri_template": Guard;
        14 "sourced_metadata": In(&SOURCED_METADATA);
    }

    PERMISSIONS = "envoy.config.rbac.v3.Permission.Set" {
        1 "rules": Each(&PERMISSION);
    }

    PRINCIPAL = "envoy.config.rbac.v3.Principal" {
        1 "and_ids": In(&PRINCIPALS);
        2 "or_ids": In(&PRINCIPALS);
        3 "any": Read;
        4 "authenticated": In(&AUTHENTICATED);
        5 "source_ip": In(&CIDR);
        6 "header": In(&HEADER);
        7 "metadata": In(&METADATA_MATCHER);
        8 "not_id": In(&PRINCIPAL);
        9 "url_path": In(&PATH);
        10 "direct_remote_ip": In(&CIDR);
        11 "remote_ip": In(&CIDR);
        12 "filter_state": In(&FILTER_STATE);
        13 "sourced_metadata": In(&SOURCED_METADATA);
        14 "custom": Guard;
    }

    PRINCIPALS = "envoy.config.rbac.v3.Principal.Set" {
        1 "ids": Each(&PRINCIPAL);
    }

    SOURCED_METADATA = "envoy.config.rbac.v3.SourcedMetadata" {
        1 "metadata_matcher": In(&METADATA_MATCHER);
        2 "metadata_source": Guard;
    }

    AUTHENTICATED = "envoy.config.rbac.v3.Principal.Authenticated" {
        2 "principal_name": In(&STRING);
    }

    NETWORK_RBAC = "envoy.extensions.filters.network.rbac.v3.RBAC" {
        1 "rules": In(&RULES);
        2 "shadow_rules": In(&RULES);
        3 "stat_prefix": NoEffect(STATISTICS);
        4 "enforcement_type": Read;
        5 "shadow_rules_stat_prefix": Read;
        6 "matcher": Guard;
        7 "shadow_matcher": Guard;
        8 "delay_deny": Guard;
    }
}
