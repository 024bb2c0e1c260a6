//! Route configurations.

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
                header_value_option::HeaderAppendAction,
            },
            route::v3::{
                HeaderMatcher as WireHeader, RetryPolicy as WireRetry, Route as WireRoute,
                RouteAction, RouteConfiguration, RouteMatch as WireMatch, VirtualHost as WireHost,
                WeightedCluster as WireWeighted,
                header_matcher::HeaderMatchSpecifier,
                route,
                route_action::{ClusterSpecifier, RequestMirrorPolicy},
                route_match::PathSpecifier,
                weighted_cluster::ClusterWeight,
            },
        },
        extensions::filters::{
            common::fault::v3::{FaultDelay as WireDelay, fault_delay::FaultDelaySecifier},
            http::fault::v3::{FaultAbort as WireAbort, HttpFault, fault_abort::ErrorType},
        },
        r#type::{
            matcher::v3::{
                RegexMatchAndSubstitute, RegexMatcher, StringMatcher as WireString,
                string_matcher::MatchPattern,
            },
            v3::{FractionalPercent, fractional_percent::DenominatorType},
        },
    },
    google::protobuf::{self, UInt32Value},
};

use super::*;
use crate::runtime::{
    RequestFacts, RouteDecision,
    action::{Action as RouteActionKind, Forward, RetryOn},
    facts::fixture,
    filter::{FilterOverride, fault::AbortStatus},
    format::WriteAction,
    limits::BodyLimit,
    matcher::Share,
    target::ClusterChoice,
};

pub(super) fn prefix(path: &str) -> WireMatch {
    WireMatch { path_specifier: Some(PathSpecifier::Prefix(path.to_owned())), ..Default::default() }
}

pub(super) fn to(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

pub(super) fn forward(name: &str, wanted: WireMatch, action: RouteAction) -> WireRoute {
    WireRoute {
        name: name.to_owned(),
        r#match: Some(wanted),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}

pub(super) fn config(routes: Vec<WireRoute>) -> RouteConfiguration {
    let host = WireHost {
        name: "reviews:80".to_owned(),
        domains: vec!["Reviews".to_owned(), "*.example.com".to_owned()],
        routes,
        ..Default::default()
    };
    RouteConfiguration {
        name: "80".to_owned(),
        virtual_hosts: vec![host],
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

pub(super) fn compile(message: &RouteConfiguration) -> Result<Arc<RouteConfig>, String> {
    let compiled = context().routes(&message.name, &message.encode_to_vec());
    compiled.map(|compiled| compiled.value).map_err(|rejection| rejection.to_string())
}

fn found<T>(config: &RouteConfig, path: &str, read: impl FnOnce(&Forward) -> T) -> T {
    let connection = fixture::loopback();
    let request = RequestFacts { authority: "reviews:9080", path, ..fixture::get(&connection) };
    let RouteDecision::Route { route, .. } = config.find(&request, 0) else {
        panic!("no route for {path}")
    };
    let RouteActionKind::Forward(action) = &route.action else { panic!("expected a forward") };
    read(action)
}

fn percent(numerator: u32) -> Option<FractionalPercent> {
    Some(FractionalPercent { numerator, denominator: DenominatorType::Hundred as i32 })
}

#[test]
fn a_canary_with_retries_mirror_and_timeouts_compiles() {
    let weight = |name: &str, weight| ClusterWeight {
        name: name.to_owned(),
        weight: Some(UInt32Value { value: weight }),
        ..Default::default()
    };
    let weighted =
        WireWeighted { clusters: vec![weight("v1", 90), weight("v2", 10)], ..Default::default() };
    let retry = WireRetry {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
            .to_owned(),
        num_retries: Some(UInt32Value { value: 2 }),
        retriable_status_codes: vec![503],
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    };
    let mirror = RequestMirrorPolicy {
        cluster: "v3".to_owned(),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: percent(50),
            ..Default::default()
        }),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(weighted)),
        timeout: Some(protobuf::Duration { seconds: 0, nanos: 500_000_000 }),
        retry_policy: Some(retry),
        request_mirror_policies: vec![mirror],
        prefix_rewrite: "/new".to_owned(),
        ..Default::default()
    };
    let config = compile(&config(vec![forward("canary", prefix("/"), action)])).unwrap();
    found(&config, "/old", |action| {
        let ClusterChoice::Weighted(weighted) = &action.cluster else { panic!("weighted") };
        assert_eq!(&*weighted.pick(89).name, "v1");
        assert_eq!(&*weighted.pick(90).name, "v2");
        assert_eq!(action.timeout, Some(Duration::from_millis(500)));
        let retry = action.retry.as_ref().unwrap();
        assert!(retry.on.intersects(RetryOn::RETRIABLE_STATUS_CODES) && retry.statuses == [503]);
        assert_eq!((retry.retries, retry.back_off_base), (2, Duration::from_millis(25)));
        assert_eq!(
            (action.mirrors[0].share, action.mirrors[0].keep_host),
            (Share::per_million(500_000), true)
        );
    });
}

#[test]
fn nothing_said_about_a_timeout_means_fifteen_seconds_and_zero_means_none() {
    let none = RouteAction { timeout: Some(protobuf::Duration::default()), ..to("c") };
    let config = compile(&config(vec![
        forward("a", prefix("/a"), to("c")),
        forward("b", prefix("/b"), none),
    ]))
    .unwrap();
    assert_eq!(found(&config, "/a", |action| action.timeout), Some(Duration::from_secs(15)));
    assert_eq!(found(&config, "/b", |action| action.timeout), None);
}

#[test]
fn header_matches_and_faults_compile() {
    let header = WireHeader {
        name: "End-User".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(WireString {
            match_pattern: Some(MatchPattern::Exact("jason".to_owned())),
            ignore_case: false,
        })),
        ..Default::default()
    };
    let fault = HttpFault {
        delay: Some(WireDelay {
            percentage: percent(100),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(protobuf::Duration {
                seconds: 7,
                nanos: 0,
            })),
        }),
        abort: Some(WireAbort {
            percentage: percent(10),
            error_type: Some(ErrorType::HttpStatus(418)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut route = forward("jason", WireMatch { headers: vec![header], ..prefix("/") }, to("v2"));
    route.typed_per_filter_config.insert("envoy.filters.http.fault".to_owned(), any(&fault));
    let config = compile(&config(vec![route, forward("rest", prefix("/"), to("v1"))])).unwrap();
    let choice = found(&config, "/", |action| action.cluster.clone());
    assert!(matches!(choice, ClusterChoice::One(name) if &*name == "v1"));
    let jason = &config.virtual_hosts()[0].routes[0];
    assert_eq!(&*jason.matching.headers[0].name, "end-user");
    let Some(FilterOverride::Fault(fault)) = jason.overrides.get("envoy.filters.http.fault") else {
        panic!("no fault: {:?}", jason.overrides);
    };
    assert_eq!(fault.delay.unwrap().duration, Duration::from_secs(7));
    assert_eq!(fault.abort.unwrap().status, AbortStatus::Http(418));
    assert_eq!(fault.abort.unwrap().share, Share::per_million(100_000));
}

#[test]
fn header_changes_keep_their_kind() {
    let option = |key: &str, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: "%PROTOCOL%".to_owned(),
            ..Default::default()
        }),
        append_action: action as i32,
        ..Default::default()
    };
    let mut route = forward("r", prefix("/"), to("c"));
    route.request_headers_to_add = vec![
        option("X-A", HeaderAppendAction::AppendIfExistsOrAdd),
        option("X-B", HeaderAppendAction::OverwriteIfExistsOrAdd),
    ];
    route.response_headers_to_remove = vec!["Server".to_owned()];
    let config = compile(&config(vec![route])).unwrap();
    let headers = &config.virtual_hosts()[0].routes[0].headers;
    let written: Vec<_> =
        headers.request.write.iter().map(|write| (&*write.name, write.action)).collect();
    assert_eq!(written, [("x-a", WriteAction::Append), ("x-b", WriteAction::Overwrite)]);
    assert_eq!(headers.response.remove, ["server".into()]);
}

#[test]
fn rewrites_by_expression_use_groups() {
    let rewrite = |substitution: &str| RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: "^/v1/(.*)$".to_owned(), ..Default::default() }),
        substitution: substitution.to_owned(),
    };
    let action =
        |substitution| RouteAction { regex_rewrite: Some(rewrite(substitution)), ..to("c") };
    let good = compile(&config(vec![forward("r", prefix("/"), action("/\\1$"))])).unwrap();
    let path = crate::runtime::path::PathMatcher::Prefix { path: "/".into(), case_sensitive: true };
    let new = found(&good, "/v1/x", |action| action.path_rewrite.apply("/v1/x?q", &path));
    assert_eq!(new.as_deref(), Some("/x$?q"));
    let bad = compile(&config(vec![forward("r", prefix("/"), action("/\\2"))])).unwrap_err();
    assert!(
        bad.contains("routes[0].route.regex_rewrite.substitution: \\2 is not a group"),
        "{bad}"
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_its_place() {
    let place = "RDS 80: virtual_hosts[0].routes[0].";
    let regex = WireMatch {
        path_specifier: Some(PathSpecifier::SafeRegex(RegexMatcher {
            regex: "(".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut wasm = forward("r", prefix("/"), to("c"));
    wasm.typed_per_filter_config.insert("w".to_owned(), any(&Wasm::default()));
    let retry = WireRetry { retry_on: "sometimes".to_owned(), ..Default::default() };
    for (route, rest) in [
        (
            forward("r", regex, to("c")),
            "match.safe_regex.regex: not a valid expression: error: unclosed group",
        ),
        (
            forward("r", prefix("/"), RouteAction { priority: 1, ..to("c") }),
            "route.priority: not supported",
        ),
        (
            forward("r", prefix("/"), RouteAction::default()),
            "route.cluster_specifier: required, but missing",
        ),
        (
            forward("r", prefix("/"), RouteAction { retry_policy: Some(retry), ..to("c") }),
            "route.retry_policy.retry_on: unknown condition \"sometimes\"",
        ),
        (
            wasm,
            "typed_per_filter_config[w]: envoy.extensions.filters.http.wasm.v3.Wasm is not supported",
        ),
        (
            WireRoute { action: None, ..forward("r", prefix("/"), to("c")) },
            "action: required, but missing",
        ),
    ] {
        let error = compile(&config(vec![route])).unwrap_err();
        assert!(error.starts_with(&format!("{place}{rest}")), "{error}");
    }
    let mut twice = config(vec![]);
    twice.virtual_hosts.push(twice.virtual_hosts[0].clone());
    assert!(
        compile(&twice).unwrap_err().contains("domain \"reviews\" belongs to two virtual hosts")
    );
}

#[test]
#[allow(deprecated, reason = "older control planes say there how much is kept of a body")]
fn how_much_is_kept_of_a_body_is_read_where_it_is_said() {
    let mut message = config(vec![forward("r", prefix("/"), to("c"))]);
    let host = &mut message.virtual_hosts[0];
    host.per_request_buffer_limit_bytes = Some(UInt32Value { value: 7 });
    host.routes[0].request_body_buffer_limit = Some(protobuf::UInt64Value { value: 9 });
    let compiled = compile(&message).unwrap();
    let connection = fixture::loopback();
    let request = RequestFacts { authority: "reviews", ..fixture::get(&connection) };
    let RouteDecision::Route { host, route } = compiled.find(&request, 0) else {
        panic!("no route")
    };
    assert_eq!(host.body_limit, Some(BodyLimit::Older(7)));
    assert_eq!(route.body_limit, Some(BodyLimit::Own(9)));
    message.virtual_hosts[0].request_body_buffer_limit = Some(protobuf::UInt64Value { value: 9 });
    let refused = compile(&message).unwrap_err();
    let expected = "RDS 80: virtual_hosts[0].request_body_buffer_limit: expected one of";
    assert!(refused.starts_with(expected), "{refused}");
}
