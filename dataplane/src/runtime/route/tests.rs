//! Tables of host, path and weight decisions, as Envoy takes them.

use regex::Regex;
use xxhash_rust::xxh64::xxh64;

use super::{super::action::*, *};
use crate::runtime::{
    facts::fixture,
    matcher::{HeaderMatcher, QueryMatcher, Share, StringMatcher, ValueMatcher, anchored_regex},
    path::PathMatcher,
    target::{WeightedCluster, WeightedClusters},
};

fn route(name: &str, path: PathMatcher) -> Route {
    let matching = RouteMatch {
        path,
        headers: vec![],
        query: vec![],
        metadata: vec![],
        grpc: false,
        share: Share::ALL,
    };
    let action = Action::Direct(DirectResponse { status: 200, body: name.to_owned().into() });
    let (headers, overrides) = (Default::default(), Default::default());
    Route {
        name: name.into(),
        matching,
        action,
        headers,
        overrides,
        operation: None,
        body_limit: None,
    }
}

fn host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|d| (*d).into()).collect(),
        routes,
        require_tls: false,
        headers: Default::default(),
        retry: None,
        attempt_count_in_request: false,
        attempt_count_in_response: false,
        overrides: Default::default(),
        rate_limits: vec![],
        body_limit: None,
    }
}

fn prefix(path: &str) -> PathMatcher {
    PathMatcher::Prefix { path: path.into(), case_sensitive: true }
}

fn with_request<T>(
    target: &str,
    headers: &http::HeaderMap,
    ask: impl FnOnce(&RequestFacts<'_>) -> T,
) -> T {
    let connection = fixture::loopback();
    let start = target.find('/').unwrap();
    let (authority, path) = target.split_at(start);
    ask(&RequestFacts { authority, path, headers, ..fixture::get(&connection) })
}

fn find_name(config: &RouteConfig, target: &str) -> String {
    with_request(target, &http::HeaderMap::new(), |request| match config.find(request, 0) {
        RouteDecision::Route { host, route } => format!("{}/{}", host.name, route.name),
        RouteDecision::RequireTls(host) => format!("{} wants tls", host.name),
        RouteDecision::NoRoute(host) => format!("{} has none", host.name),
        RouteDecision::NoHost => "none".to_owned(),
    })
}

#[test]
fn the_most_specific_domain_wins() {
    let all = || vec![route("r", prefix("/"))];
    let config = RouteConfig::new(
        "80".into(),
        false,
        vec![
            host("exact", &["www.example.com", "www.example.com:8080"], all()),
            host("long", &["*.b.example.com"], all()),
            host("short", &["*.example.com"], all()),
            host("dash", &["*-x.org"], all()),
            host("start", &["www.*"], all()),
            host("any", &["*"], all()),
        ],
    )
    .unwrap();
    for (authority, expected) in [
        ("www.example.com", "exact"),
        ("WWW.Example.com", "exact"),
        ("www.example.com:8080", "exact"),
        ("www.example.com:81", "start"),
        ("a.b.example.com", "long"),
        ("b.example.com", "short"),
        (".example.com", "any"),
        ("example.com", "any"),
        ("a-x.org", "dash"),
        ("www.net", "start"),
        ("", "any"),
    ] {
        assert_eq!(
            find_name(&config, &format!("{authority}/")),
            format!("{expected}/r"),
            "{authority}"
        );
    }
}

#[test]
fn a_port_is_ignored_only_when_asked_and_equal_domains_are_refused() {
    let config = |ignore| {
        RouteConfig::new("r".into(), ignore, vec![host("h", &["a", "[::1]"], vec![])]).unwrap()
    };
    assert_eq!(find_name(&config(true), "a:80/"), "h has none");
    assert_eq!(find_name(&config(true), "[::1]:80/"), "h has none");
    assert_eq!(find_name(&config(true), "[::1]/"), "h has none");
    assert_eq!(find_name(&config(false), "a:80/"), "none");
    let twice = vec![host("h", &["a"], vec![]), host("i", &["b", "a"], vec![])];
    assert_eq!(RouteConfig::new("r".into(), true, twice).unwrap_err(), "a".into());
}

#[test]
fn the_first_matching_route_wins() {
    let exact = |path: &str| PathMatcher::Exact { path: path.into(), case_sensitive: true };
    let segments = PathMatcher::Segments { path: "/seg".into(), case_sensitive: true };
    let regex = PathMatcher::Regex(anchored_regex("/v[0-9]+/x").unwrap());
    let loose = PathMatcher::Prefix { path: "/Loose".into(), case_sensitive: false };
    let routes = vec![
        route("exact", exact("/a")),
        route("segments", segments),
        route("regex", regex),
        route("loose", loose),
        route("connect", PathMatcher::Connect),
        route("prefix", prefix("/p")),
    ];
    let config = RouteConfig::new("r".into(), true, vec![host("h", &["*"], routes)]).unwrap();
    for (target, expected) in [
        ("/a?x=/b", "h/exact"),
        ("/ab", "h has none"),
        ("/seg", "h/segments"),
        ("/seg/b", "h/segments"),
        ("/segment", "h has none"),
        ("/v12/x", "h/regex"),
        ("/v12/x/y", "h has none"),
        ("/lOOse/1", "h/loose"),
        ("/prefix", "h/prefix"),
    ] {
        assert_eq!(find_name(&config, target), expected, "{target}");
    }
}

#[test]
fn headers_query_share_and_grpc_all_must_match() {
    let mut matching = RouteMatch {
        path: prefix("/"),
        headers: vec![HeaderMatcher {
            name: "end-user".into(),
            value: ValueMatcher::Text(StringMatcher::Exact("jason".into())),
            invert: false,
            missing_is_empty: false,
        }],
        query: vec![QueryMatcher {
            name: "q".into(),
            value: Some(StringMatcher::Exact("1".into())),
        }],
        metadata: vec![],
        grpc: true,
        share: Share::per_million(500_000),
    };
    let mut headers = http::HeaderMap::new();
    headers.insert("end-user", "jason".parse().unwrap());
    headers.insert("content-type", "application/grpc+proto".parse().unwrap());
    let matches = |matching: &RouteMatch, target: &str, headers: &http::HeaderMap, random| {
        with_request(target, headers, |request| matching.matches(request, random))
    };
    assert!(matches(&matching, "a/?q=1", &headers, 499_999));
    assert!(!matches(&matching, "a/?q=1", &headers, 500_000));
    assert!(!matches(&matching, "a/?q=2", &headers, 0));
    assert!(!matches(&matching, "a/?q=1", &http::HeaderMap::new(), 0));
    headers.insert("content-type", "application/grpc-web".parse().unwrap());
    assert!(!matches(&matching, "a/?q=1", &headers, 0));
    matching.grpc = false;
    assert!(matches(&matching, "a/?q=1", &headers, 0));
}

#[test]
fn plaintext_is_sent_to_https_where_a_host_asks_for_it() {
    let mut secure = host("h", &["a"], vec![route("r", prefix("/"))]);
    secure.require_tls = true;
    let config = RouteConfig::new("r".into(), true, vec![secure]).unwrap();
    assert_eq!(find_name(&config, "a/x"), "h wants tls");
}

#[test]
fn weights_split_numbers_exactly() {
    let weighted = |name: &str, weight| WeightedCluster {
        name: name.into(),
        weight,
        headers: Default::default(),
        host_rewrite: None,
        overrides: Default::default(),
    };
    let clusters =
        WeightedClusters::new(vec![weighted("v1", 90), weighted("off", 0), weighted("v2", 10)])
            .unwrap();
    let count = |name: &str| (0..1000).filter(|n| *clusters.pick(*n).name == *name).count();
    assert_eq!((count("v1"), count("off"), count("v2")), (900, 0, 100));
    assert!(WeightedClusters::new(vec![weighted("v1", 0)]).is_none());
}

#[test]
fn paths_are_rewritten_as_the_route_matched() {
    let exact = PathMatcher::Exact { path: "/old".into(), case_sensitive: true };
    let regex = || {
        PathRewrite::Regex(
            Regex::new("^/service/([^/]+)(/.*)$").unwrap(),
            "${2}/instance/${1}".into(),
        )
    };
    for (rewrite, matched, path, expected) in [
        (PathRewrite::Keep, prefix("/a"), "/a/b", None),
        (PathRewrite::Prefix("/new".into()), prefix("/a"), "/a/b?c=/a", Some("/new/b?c=/a")),
        (PathRewrite::Prefix("/".into()), prefix("/a/"), "/a/b", Some("/b")),
        (PathRewrite::Prefix("/new".into()), exact, "/old?x", Some("/new?x")),
        (regex(), prefix("/"), "/service/foo/v1/api?x=1", Some("/v1/api/instance/foo?x=1")),
        (regex(), prefix("/"), "/other", Some("/other")),
    ] {
        assert_eq!(rewrite.apply(path, &matched).as_deref(), expected, "{rewrite:?} {path}");
    }
}

#[test]
fn redirects_keep_what_they_do_not_change() {
    let keep =
        Redirect { status: 301, scheme: None, host: None, port: None, ..Redirect::to_https() };
    let https = Redirect::to_https();
    let host = Redirect { host: Some("b.example".into()), ..keep.clone() };
    let port = Redirect { port: Some(8443), ..https.clone() };
    let whole = Redirect { path: RedirectPath::Whole("/n".into()), ..keep.clone() };
    let stripped = Redirect { strip_query: true, ..whole.clone() };
    let rewritten =
        Redirect { path: RedirectPath::Rewrite(PathRewrite::Prefix("/q".into())), ..keep.clone() };
    for (redirect, target, expected) in [
        (&keep, "a:81/p/x?y", "http://a:81/p/x?y"),
        (&https, "a:80/p", "https://a/p"),
        (&https, "a:81/p", "https://a:81/p"),
        (&host, "a:81/p", "http://b.example/p"),
        (&port, "a/p", "https://a:8443/p"),
        (&whole, "a/p?y=1", "http://a/n?y=1"),
        (&stripped, "a/p?y=1", "http://a/n"),
        (&rewritten, "a/p/x?y=1", "http://a/q/x?y=1"),
    ] {
        let location =
            with_request(target, &http::HeaderMap::new(), |r| redirect.location(r, &prefix("/p")));
        assert_eq!(location, expected, "{redirect:?}");
    }
}

#[test]
fn retry_conditions_are_read_by_name() {
    let on = RetryOn::parse("connect-failure, refused-stream,unavailable,retriable-status-codes")
        .unwrap();
    assert!(on.intersects(RetryOn::CONNECT_FAILURE) && on.intersects(RetryOn::GRPC_UNAVAILABLE));
    assert!(!on.intersects(RetryOn::SERVER_ERROR));
    assert_eq!(RetryOn::parse("5xx,sometimes"), Err("sometimes".to_owned()));
}

#[test]
fn hash_sources_read_the_request() {
    let mut headers = http::HeaderMap::new();
    headers.insert("cookie", "a=1; user=\"jo\"".parse().unwrap());
    let cookie = |name: &str| HashSource::Cookie { name: name.into(), new: None };
    for (source, expected) in [
        (cookie("user"), Some("jo")),
        (cookie("b"), None),
        (HashSource::Query("q".into()), Some("7")),
        (HashSource::SourceIp, Some("127.0.0.1")),
        (HashSource::Header("cookie".into()), Some("a=1; user=\"jo\"")),
    ] {
        let hash = with_request("a/?q=7", &headers, |request| source.hash(request));
        let expected = expected.map(|text: &str| xxh64(text.as_bytes(), 0));
        assert_eq!(hash, expected, "{source:?}");
    }
    // Lines are hashed one after the other, in an order of their own.
    let both = |lines: [&str; 2]| {
        let mut headers = http::HeaderMap::new();
        for line in lines {
            headers.append("x-key", line.parse().unwrap());
        }
        let source = HashSource::Header("x-key".into());
        with_request("a/", &headers, |request| source.hash(request))
    };
    assert_eq!(both(["z", "a"]), Some(xxh64(b"z", xxh64(b"a", 0))));
    assert_eq!(both(["z", "a"]), both(["a", "z"]));
}
