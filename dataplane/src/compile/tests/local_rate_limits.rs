//! The filter `local_ratelimit` as control planes send it.

use envoy_types::pb::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        extensions::{
            common::ratelimit::v3::{
                LocalClusterRateLimit, LocalRateLimitDescriptor, rate_limit_descriptor::Entry,
            },
            filters::http::local_ratelimit::v3::LocalRateLimit as Wire,
        },
        r#type::v3::{FractionalPercent, HttpStatus, TokenBucket as WireBucket},
    },
    google::protobuf::{BoolValue, Duration as WireDuration, UInt32Value},
};

use super::{
    routes::{forward, prefix, to},
    *,
};
use crate::runtime::{
    filter::{
        FilterOverride,
        local_rate_limit::{DefaultBucket, LocalRateLimit},
    },
    matcher::Share,
};

fn bucket(max_tokens: u32, millis: i32) -> WireBucket {
    let fill_interval = WireDuration { seconds: 0, nanos: millis * 1_000_000 };
    WireBucket { max_tokens, tokens_per_fill: None, fill_interval: Some(fill_interval) }
}

fn percent(numerator: u32) -> Option<RuntimeFractionalPercent> {
    let default_value = Some(FractionalPercent { numerator, denominator: 0 });
    Some(RuntimeFractionalPercent { default_value, runtime_key: "key".to_owned() })
}

fn limit() -> Wire {
    Wire { stat_prefix: "s".to_owned(), token_bucket: Some(bucket(5, 100)), ..Default::default() }
}

fn compile(wire: &Wire) -> Result<Arc<LocalRateLimit>, String> {
    let listener = with_http_filter(http_filter("envoy.filters.http.local_ratelimit", any(wire)))?;
    match http_filters(&listener)[..] {
        [HttpFilter::LocalRateLimit(limit), HttpFilter::Router { .. }] => Ok(Arc::clone(limit)),
        ref other => panic!("expected a rate limit, got {other:?}"),
    }
}

#[test]
fn what_is_not_said_is_as_in_envoy() {
    let limit = compile(&limit()).unwrap();
    assert_eq!((limit.enabled, limit.enforced), (Share::NONE, Share::NONE));
    assert_eq!((limit.status, limit.stage, limit.per_connection), (429, 0, false));
    assert!(limit.limiter.always_default && !limit.limit_headers && !limit.resource_exhausted);
    let DefaultBucket::Bucket(bucket) = &limit.limiter.default else { panic!("a bucket") };
    assert_eq!(format!("{bucket:?}"), "TokenBucket { capacity: 5.0, per_second: 10.0, .. }");
}

#[test]
fn what_is_said_is_kept() {
    let wire = Wire {
        status: Some(HttpStatus { code: 503 }),
        filter_enabled: percent(100),
        filter_enforced: percent(50),
        enable_x_ratelimit_headers: 1,
        always_consume_default_token_bucket: Some(BoolValue { value: false }),
        rate_limited_as_resource_exhausted: true,
        stage: 2,
        ..limit()
    };
    let compiled = compile(&wire).unwrap();
    assert_eq!((compiled.status, compiled.stage), (503, 2));
    assert_eq!((compiled.enabled, compiled.enforced), (Share::ALL, Share::per_million(500_000)));
    assert!(compiled.limit_headers && compiled.resource_exhausted);
    assert!(!compiled.limiter.always_default);
    let no_error = Wire { status: Some(HttpStatus { code: 200 }), ..limit() };
    assert_eq!(compile(&no_error).unwrap().status, 429);
    let closed = Wire { token_bucket: Some(bucket(0, 100)), ..limit() };
    assert!(matches!(compile(&closed).unwrap().limiter.default, DefaultBucket::Closed));
    let none = Wire { token_bucket: None, ..limit() };
    assert!(matches!(compile(&none).unwrap().limiter.default, DefaultBucket::None));
}

fn descriptor(key: &str, value: &str, bucket: WireBucket) -> LocalRateLimitDescriptor {
    LocalRateLimitDescriptor {
        entries: vec![Entry { key: key.to_owned(), value: value.to_owned() }],
        token_bucket: Some(bucket),
        ..Default::default()
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let with = |descriptors| Wire { descriptors, ..limit() };
    let good = || descriptor("k", "v", bucket(1, 100));
    let shadow = LocalRateLimitDescriptor { shadow_mode: true, ..good() };
    let cluster = Some(LocalClusterRateLimit::default());
    for (wire, place) in [
        (Wire { stat_prefix: String::new(), ..limit() }, "stat_prefix: required"),
        (Wire { token_bucket: Some(bucket(1, 49)), ..limit() }, "token_bucket.fill_interval: exp"),
        (Wire { local_cluster_rate_limit: cluster, ..limit() }, "local_cluster_rate_limit: not"),
        (
            Wire { max_dynamic_descriptors: Some(UInt32Value { value: 1 }), ..limit() },
            "max_dynamic_descriptors: not",
        ),
        (Wire { stage: 11, ..limit() }, "stage: expected 0..=10, got 11"),
        (with(vec![shadow]), "descriptors[0].shadow_mode: not"),
        (with(vec![good(), good()]), "descriptors: two have the same entries"),
        (
            with(vec![descriptor("k", "", bucket(1, 100))]),
            "descriptors[0].entries[0].value: required",
        ),
        (
            with(vec![descriptor("k", "v", bucket(1, 10))]),
            "descriptors[0].token_bucket.fill_interval: expected at least 0.05s",
        ),
    ] {
        let error = compile(&wire).unwrap_err();
        assert!(error.contains(&format!("http_filters[0].typed_config.{place}")), "{error}");
    }
}

#[test]
fn a_route_must_have_a_bucket_and_is_found_by_the_filters_name() {
    let route = |wire: &Wire| {
        let mut route = forward("r", prefix("/"), to("c"));
        route.typed_per_filter_config.insert("limits".to_owned(), any(wire));
        let host = envoy_types::pb::envoy::config::route::v3::VirtualHost {
            name: "h".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        };
        let message = envoy_types::pb::envoy::config::route::v3::RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: vec![host],
            ..Default::default()
        };
        let compiled = context().routes("80", &message.encode_to_vec());
        compiled.map(|compiled| compiled.value).map_err(|rejection| rejection.to_string())
    };
    let routes = route(&limit()).unwrap();
    let overrides = &routes.virtual_hosts()[0].routes[0].overrides;
    assert!(matches!(overrides.get("limits"), Some(FilterOverride::LocalRateLimit(_))));
    assert!(overrides.get("others").is_none());
    let error = route(&Wire { token_bucket: None, ..limit() }).unwrap_err();
    assert!(error.contains("typed_per_filter_config[limits].token_bucket: required"), "{error}");
}
