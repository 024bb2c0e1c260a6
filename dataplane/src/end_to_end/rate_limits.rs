//! Rate limits of this process, through real sockets. What is expected is what Envoy 1.40 answers
//! with the same configuration.

use std::{sync::Arc, time::Duration};

use http::{Request, header::CONTENT_TYPE};
use http_body_util::Full;

use super::{
    blame::until,
    fixture::*,
    peer::{Answer, Server, client, get, http2_client, send},
};
use crate::runtime::{
    HttpFilter,
    access_log::AccessLog,
    action::{Action, DirectResponse},
    filter::{
        FilterOverride, FilterOverrides,
        local_rate_limit::{DefaultBucket, Limiter, LocalRateLimit, TokenBucket, descriptor_key},
    },
    format::{Field, FormatOp, HeaderOps, HeaderWrite, WriteAction},
    matcher::Share,
    rate_limit::{DescriptorAction, HostLimits, LimitHeaders, RateLimit},
    route::{Route, VirtualHost},
    target::ClusterChoice,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A bucket of so many tokens, of which one comes back in an hour.
fn bucket(tokens: u32) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(tokens, 1, HOUR))
}

fn limiter(default: DefaultBucket) -> Limiter {
    Limiter { default, descriptors: Default::default(), always_default: true }
}

fn adding(name: &str, value: FormatOp) -> Arc<HeaderOps> {
    let (name, value, action) = (name.into(), vec![value].into(), WriteAction::Append);
    let write = vec![HeaderWrite { name, value, action, keep_empty: false }];
    Arc::new(HeaderOps { remove: vec![], write })
}

/// Everybody shares this many tokens.
fn limit(tokens: u32) -> LocalRateLimit {
    let path = Field::RequestHeader(":path".into(), None);
    LocalRateLimit {
        stat_prefix: "test".into(),
        status: 429,
        enabled: Share::ALL,
        enforced: Share::ALL,
        request_headers: adding("x-over", FormatOp::Literal("yes".into())),
        response_headers: adding("x-extra", FormatOp::Field { field: path, limit: None }),
        limiter: Arc::new(limiter(DefaultBucket::Bucket(bucket(tokens)))),
        per_connection: false,
        stage: 0,
        own_limits: vec![],
        host_limits: HostLimits::Override,
        limit_headers: true,
        retry_after: false,
        resource_exhausted: false,
    }
}

async fn proxy(
    limit: LocalRateLimit,
    hosts: Vec<VirtualHost>,
    server: &Server,
    log: Option<AccessLog>,
) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(hosts);
    manager.filters.insert(0, HttpFilter::LocalRateLimit(Arc::new(limit)));
    manager.access_logs.extend(log);
    let clusters = vec![proxy.cluster("a", &[server.address])];
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    proxy
}

/// The three headers that tell of a limit, joined.
fn told(answer: &Answer) -> String {
    let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    names.map(|name| answer.header(name)).join(" ")
}

fn counted(proxy: &Proxy, name: &str, count: u64) -> bool {
    let label = "envoy_local_http_ratelimit_prefix=\"test\"";
    let line = format!("envoy_http_local_rate_limit_{name}{{{label}}} {count}\n");
    proxy.shared.metrics.render().contains(&line)
}

#[tokio::test]
async fn who_finds_no_token_is_answered_and_logged_as_in_envoy() {
    let server = Server::saying("ok").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let field = |field| FormatOp::Field { field, limit: None };
    let space = || FormatOp::Literal(" ".into());
    let format = vec![
        field(Field::ResponseCode),
        space(),
        field(Field::ResponseFlags),
        space(),
        field(Field::ResponseCodeDetails),
        space(),
        field(Field::ResponseHeader("x-ratelimit-remaining".into(), None)),
        FormatOp::Literal("\n".into()),
    ];
    let log = log_to(&path, format);
    let limit = LocalRateLimit { retry_after: true, ..limit(2) };
    let proxy = proxy(limit, vec![to("a", |_| {})], &server, Some(log)).await;
    let answers = [
        get(&client(), proxy.url("/x")).await,
        get(&client(), proxy.url("/x")).await,
        get(&client(), proxy.url("/x")).await,
    ];
    let heads = answers.each_ref().map(|answer| (answer.status, told(answer)));
    assert_eq!(heads[0], (200, "2 1 0".to_owned()));
    assert_eq!(heads[1], (200, "2 0 3600".to_owned()));
    assert_eq!(heads[2].0, 429);
    let last = &answers[2];
    assert_eq!((last.body.as_str(), last.header("x-extra")), ("local_rate_limited", "/x"));
    assert_eq!(last.header("retry-after"), last.header("x-ratelimit-reset"));
    assert_eq!((answers[0].header("x-extra"), server.hits()), ("", 2));
    for (name, count) in [("enabled", 3), ("ok", 2), ("rate_limited", 1), ("enforced", 1)] {
        assert!(counted(&proxy, name, count), "{name}: {}", proxy.shared.metrics.render());
    }
    let expected = "200 - via_upstream 1\n200 - via_upstream 0\n429 RL local_rate_limited 0\n";
    until(expected, || std::fs::read_to_string(&path).is_ok_and(|text| text == expected)).await;
}

#[tokio::test]
async fn grpc_clients_get_a_status_of_their_own() {
    let server = Server::saying("ok").await;
    for (resource_exhausted, status) in [(false, "14"), (true, "8")] {
        let limiter = Arc::new(limiter(DefaultBucket::Closed));
        let limit = LocalRateLimit { resource_exhausted, limiter, ..limit(0) };
        let proxy = proxy(limit, vec![to("a", |_| {})], &server, None).await;
        let request = Request::post(proxy.url("/")).header(CONTENT_TYPE, "application/grpc");
        let answer = send(&http2_client(), request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, status));
        assert_eq!(answer.header("grpc-message"), "local_rate_limited");
        // A limit that nobody ever passes has no bucket to tell of.
        assert_eq!(told(&answer), "  ");
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn a_limit_that_is_not_enforced_marks_the_request() {
    let server = Server::echoing().await;
    let limit = LocalRateLimit { enforced: Share::NONE, limit_headers: false, ..limit(1) };
    let proxy = proxy(limit, vec![to("a", |_| {})], &server, None).await;
    let first = get(&client(), proxy.url("/")).await;
    let second = get(&client(), proxy.url("/")).await;
    assert_eq!((first.status, second.status), (200, 200));
    assert!(!first.body.contains("x-over") && second.body.contains("x-over: yes"));
    assert_eq!(told(&second), "  ");
    assert!(counted(&proxy, "rate_limited", 1) && !counted(&proxy, "enforced", 1));
}

fn set(limit: LocalRateLimit) -> FilterOverrides {
    let setting = FilterOverride::LocalRateLimit(Arc::new(limit));
    FilterOverrides::new(vec![("envoy.filters.http.local_ratelimit".into(), setting)])
}

#[tokio::test]
async fn a_routes_limit_is_its_own_and_counts_for_answers_of_ours_too() {
    let server = Server::saying("ok").await;
    let to_a = |prefix| route(prefix, Action::Forward(Box::new(forward(one("a")))));
    let direct = Action::Direct(DirectResponse { status: 200, body: "direct".into() });
    let routes = vec![
        Route { overrides: set(limit(1)), ..to_a("/one") },
        Route { overrides: set(limit(1)), ..route("/direct", direct) },
        to_a("/"),
    ];
    let disabled = LocalRateLimit { enabled: Share::NONE, ..limit(0) };
    let proxy = proxy(disabled, vec![host(routes)], &server, None).await;
    let client = client();
    for (path, status, tells) in [
        ("/one", 200, "1 0 3600"),
        ("/one", 429, "1 0 3600"),
        ("/direct", 200, "1 0 3600"),
        ("/direct", 429, "1 0 3600"),
        ("/else", 200, "  "),
        ("/else", 200, "  "),
    ] {
        let answer = get(&client, proxy.url(path)).await;
        assert_eq!((answer.status, told(&answer).as_str()), (status, tells), "{path}");
    }
}

fn one(cluster: &str) -> ClusterChoice {
    ClusterChoice::One(cluster.into())
}

fn by_user(stage: u32) -> RateLimit {
    let (name, key) = ("x-user".into(), "user".into());
    let actions = vec![DescriptorAction::RequestHeader { name, key, skip_if_absent: false }];
    RateLimit { stage, actions, headers: LimitHeaders::AsFilter }
}

#[tokio::test]
async fn descriptors_limit_who_they_describe() {
    let server = Server::saying("ok").await;
    let descriptors = [("bob", 1), ("eve", 2)]
        .map(|(user, tokens)| (descriptor_key([("user", user)]).into(), bucket(tokens)));
    let limiter = Limiter {
        default: DefaultBucket::Bucket(bucket(100)),
        descriptors: descriptors.into_iter().collect(),
        always_default: true,
    };
    let limit = LocalRateLimit { limiter: Arc::new(limiter), ..limit(0) };
    let mut hosts = vec![to("a", |action| action.rate_limits = vec![by_user(1)])];
    hosts[0].rate_limits = vec![by_user(0)];
    // The route has a policy, if of another stage, so that the host's does not count.
    let proxy_of_route = proxy(limit, hosts, &server, None).await;
    let ask = async |proxy: &Proxy, user: &str| {
        let request = Request::get(proxy.url("/")).header("x-user", user);
        let answer = send(&client(), request.body(Full::default()).unwrap()).await;
        (answer.status, answer.header("x-ratelimit-limit").to_owned())
    };
    for _ in 0..3 {
        assert_eq!(ask(&proxy_of_route, "bob").await, (200, "100".to_owned()));
    }
    let descriptors = [("bob", 1), ("eve", 2)]
        .map(|(user, tokens)| (descriptor_key([("user", user)]).into(), bucket(tokens)));
    let limiter = Limiter {
        default: DefaultBucket::Bucket(bucket(100)),
        descriptors: descriptors.into_iter().collect(),
        always_default: true,
    };
    let limit = LocalRateLimit { limiter: Arc::new(limiter), ..self::limit(0) };
    let hosts = vec![to("a", |action| action.rate_limits = vec![by_user(0)])];
    let proxy = proxy(limit, hosts, &server, None).await;
    for (user, status, limit) in [
        ("bob", 200, "1"),
        ("bob", 429, "1"),
        ("eve", 200, "2"),
        ("eve", 200, "2"),
        ("eve", 429, "2"),
        ("carol", 200, "100"),
    ] {
        assert_eq!(ask(&proxy, user).await, (status, limit.to_owned()), "{user}");
    }
}

#[tokio::test]
async fn each_connection_may_have_buckets_of_its_own() {
    let server = Server::saying("ok").await;
    let limit = LocalRateLimit { per_connection: true, ..limit(1) };
    let proxy = proxy(limit, vec![to("a", |_| {})], &server, None).await;
    for _ in 0..2 {
        let client = client();
        assert_eq!(get(&client, proxy.url("/")).await.status, 200);
        assert_eq!(get(&client, proxy.url("/")).await.status, 429);
    }
}
