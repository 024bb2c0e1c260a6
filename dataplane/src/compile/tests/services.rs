//! Filters that ask services, as control planes send them.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                GrpcService, HttpUri, grpc_service::EnvoyGrpc, grpc_service::TargetSpecifier,
                http_uri::HttpUpstreamType,
            },
            ratelimit::v3::RateLimitServiceConfig,
        },
        extensions::filters::{
            http::{
                ext_authz::v3::{BufferSettings, ExtAuthz, HttpService, ext_authz::Services},
                ratelimit::v3::RateLimit,
            },
            network::ext_authz::v3::ExtAuthz as ConnectionAsk,
        },
        r#type::matcher::v3::{
            MetadataMatcher, StringMatcher, ValueMatcher, metadata_matcher::PathSegment,
            metadata_matcher::path_segment::Segment, string_matcher::MatchPattern,
            value_matcher::MatchPattern as ValuePattern,
        },
    },
    google::protobuf::Duration as WireDuration,
};

use super::*;
use crate::runtime::{
    authz::RbacAction,
    filter::ext_authz::{ExtAuthz as Ask, Service},
    matcher::Share,
};

fn service() -> GrpcService {
    let target = EnvoyGrpc { cluster_name: "c".to_owned(), ..Default::default() };
    GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        timeout: Some(WireDuration { seconds: 2, nanos: 0 }),
        ..Default::default()
    }
}

fn ask() -> ExtAuthz {
    ExtAuthz { services: Some(Services::GrpcService(service())), ..Default::default() }
}

fn asking(wire: &ExtAuthz) -> Result<Arc<Ask>, String> {
    let listener = with_http_filter(http_filter("ask", any(wire)))?;
    match http_filters(&listener)[..] {
        [HttpFilter::ExtAuthz(ask), HttpFilter::Router { .. }] => Ok(Arc::clone(ask)),
        ref other => panic!("expected a service that is asked, got {other:?}"),
    }
}

#[test]
fn what_is_not_said_of_a_service_is_as_in_envoy() {
    let ask = asking(&ask()).unwrap();
    assert_eq!((ask.status_on_error, ask.enabled, ask.fail_open), (403, Share::ALL, false));
    let Service::Grpc(service, _) = &ask.service else { panic!("{ask:?}") };
    assert_eq!((&*service.authority, service.timeout.as_secs()), ("c", 2));
}

#[test]
fn what_cannot_be_asked_is_refused_by_its_name() {
    let uri = HttpUri {
        http_upstream_type: Some(HttpUpstreamType::Cluster("c".to_owned())),
        ..Default::default()
    };
    let without_end = HttpService { server_uri: Some(uri), ..Default::default() };
    for (wire, place) in [
        (ExtAuthz::default(), "services: required"),
        (ExtAuthz { include_peer_certificate: true, ..ask() }, "include_peer_certificate: not"),
        (
            ExtAuthz { services: Some(Services::HttpService(without_end)), ..Default::default() },
            "http_service.server_uri.timeout: required",
        ),
        (
            ExtAuthz { with_request_body: Some(BufferSettings::default()), ..ask() },
            "with_request_body.max_request_bytes: expected at least 1",
        ),
    ] {
        let error = asking(&wire).unwrap_err();
        assert!(error.contains(place), "{place}: {error}");
    }
}

#[test]
fn a_service_that_counts_has_a_short_time_unless_it_is_said() {
    let config = RateLimitServiceConfig { grpc_service: Some(service()), ..Default::default() };
    let wire = RateLimit {
        domain: "d".to_owned(),
        rate_limit_service: Some(config),
        ..Default::default()
    };
    let compiled = |wire: &RateLimit| {
        let listener = with_http_filter(http_filter("count", any(wire)))?;
        match http_filters(&listener)[..] {
            [HttpFilter::RateLimit(limit), HttpFilter::Router { .. }] => Ok(Arc::clone(limit)),
            ref other => panic!("expected a service that counts, got {other:?}"),
        }
    };
    let limit = compiled(&wire).unwrap();
    assert_eq!((limit.service.timeout.as_millis(), limit.status), (20, 429));
    assert_eq!(
        (limit.status_on_error, limit.fail_closed, limit.enforced),
        (500, false, Share::ALL)
    );
    for (wire, place) in [
        (RateLimit { domain: String::new(), ..wire.clone() }, "domain: required"),
        (RateLimit { request_type: "x".to_owned(), ..wire.clone() }, "request_type: expected"),
        (RateLimit { enable_retry_after_header: true, ..wire }, "enable_retry_after_header: not"),
    ] {
        let error: String = compiled(&wire).unwrap_err();
        assert!(error.contains(place), "{place}: {error}");
    }
}

#[test]
fn connections_that_somebody_is_to_be_asked_about_are_refused() {
    let marks = NetworkRbac {
        shadow_rules: Some(WireRules {
            action: 1,
            ..rules(Rule::Any(true), Identifier::Any(true))
        }),
        shadow_rules_stat_prefix: "ask_".to_owned(),
        ..Default::default()
    };
    let key = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    let text = StringMatcher {
        match_pattern: Some(MatchPattern::Prefix("p".to_owned())),
        ..Default::default()
    };
    let asked = |path: &str| MetadataMatcher {
        filter: "envoy.filters.network.rbac".to_owned(),
        path: vec![key(path)],
        value: Some(ValueMatcher { match_pattern: Some(ValuePattern::StringMatch(text.clone())) }),
        ..Default::default()
    };
    let with = |asked: Option<MetadataMatcher>, marks: Option<&NetworkRbac>| {
        let ask = ConnectionAsk { filter_enabled_metadata: asked, ..Default::default() };
        let marks = marks.map(|marks| network_filter("marks", any(marks)));
        let rest = [network_filter("ask", any(&ask)), network_filter("tcp", tcp("c"))];
        compile_listener(&listener("l", chain(marks.into_iter().chain(rest).collect())))
    };
    let mark = || Some(asked("ask_shadow_effective_policy_id"));
    for listener in [with(mark(), Some(&marks)).unwrap(), with(None, None).unwrap()] {
        let [rbac] = &listener.chains[0].rbac[..] else { panic!("{listener:?}") };
        assert_eq!((rbac.action, rbac.policies.len()), (RbacAction::Deny, 1));
    }
    for (asked, marks) in [(mark(), None), (Some(asked("other")), Some(&marks))] {
        let error = with(asked, marks).unwrap_err();
        assert!(error.contains("typed_config.filter_enabled_metadata"), "{error}");
    }
}
