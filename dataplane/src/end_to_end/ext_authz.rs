//! A service that is asked about requests, through real sockets: what passes, and that nothing does
//! without an answer. What is expected is what Envoy 1.40 answers with the same configuration.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};

use super::{
    fixture::*,
    peer::{Answer, Server, client, get, send},
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride, FilterOverrides,
        ext_authz::{AskOverride, BodyShown, ExtAuthz, HttpService, Service},
    },
    matcher::{Share, StringMatcher},
};

fn names(names: &[&str]) -> Vec<StringMatcher> {
    names.iter().map(|name| StringMatcher::Exact((*name).into())).collect()
}

fn ask() -> ExtAuthz {
    ExtAuthz {
        service: Service::Http(HttpService {
            cluster: "oracle".into(),
            timeout: Duration::from_millis(300),
            path_prefix: "/check".into(),
            added: vec![(HeaderName::from_static("x-added"), HeaderValue::from_static("yes"))],
            to_upstream: names(&["x-seen"]),
            to_upstream_appended: vec![],
            to_refused: names(&["x-why", "set-cookie"]),
            to_allowed: names(&["x-down"]),
        }),
        enabled: Share::ALL,
        asked: None,
        shown: Some(names(&["x-do", "content-type"])),
        hidden: vec![],
        body: None,
        fail_open: false,
        tells_failure: true,
        status_on_error: 503,
        reroutes: false,
    }
}

/// Answers as the request wishes, and tells what it was shown.
async fn oracle() -> Server {
    Server::start(|request, _| async move {
        let (parts, body) = request.into_parts();
        let wish = parts.headers.get("x-do").map_or("allow", |wish| wish.to_str().unwrap());
        let names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        let body = body.collect().await.unwrap().to_bytes();
        let has = |name: &str| names.contains(&name);
        let seen = format!(
            "{} {} {} {} {}",
            parts.uri.path(),
            has("x-hidden"),
            has("authorization"),
            has("x-added"),
            String::from_utf8_lossy(&body)
        );
        let answer = Response::builder().header("x-seen", seen).header("x-down", "told");
        let answer = match wish {
            "allow" => answer.header("x-envoy-auth-headers-to-remove", "x-gone"),
            "deny" => answer
                .status(403)
                .header("x-why", "because")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2"),
            "fail" => answer.status(500),
            _ => std::future::pending().await,
        };
        answer.body(Full::from("no")).unwrap()
    })
    .await
}

async fn proxy(filter: ExtAuthz, server: &Server, oracle: &Server) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut open = to("a", |_| {}).routes.remove(0);
    open.matching = route("/open", open.action.clone()).matching;
    let disabled = FilterOverride::ExtAuthz(Arc::new(AskOverride::Disabled));
    open.overrides = FilterOverrides::new(vec![("envoy.filters.http.ext_authz".into(), disabled)]);
    let mut all = to("a", |_| {});
    all.routes.insert(0, open);
    let mut manager = with_routes(vec![all]);
    manager.filters.insert(0, HttpFilter::ExtAuthz(Arc::new(filter)));
    let clusters =
        vec![proxy.cluster("a", &[server.address]), proxy.cluster("oracle", &[oracle.address])];
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    proxy
}

async fn post(proxy: &Proxy, wish: &str, body: &'static str) -> Answer {
    let request = Request::post(proxy.url("/a"))
        .header("x-do", wish)
        .header("x-hidden", "1")
        .header("x-gone", "1")
        .header("authorization", "Basic x")
        .header("x-seen", "mine");
    send(&client(), request.body(Full::from(Bytes::from(body))).unwrap()).await
}

#[tokio::test]
async fn who_is_let_in_goes_on_as_the_service_says_and_others_are_told_why() {
    let (server, oracle) = (Server::echoing().await, oracle().await);
    let proxy = proxy(ask(), &server, &oracle).await;
    let passed = post(&proxy, "allow", "text").await;
    assert_eq!((passed.status, passed.header("x-down")), (200, "told"));
    assert!(passed.body.contains("x-seen: /check/a false true true\n"), "{}", passed.body);
    assert!(!passed.body.contains("x-gone"), "{}", passed.body);
    assert!(passed.body.ends_with("\n\ntext"), "{}", passed.body);
    let denied = post(&proxy, "deny", "").await;
    assert_eq!((denied.status, &*denied.body), (403, "no"));
    assert_eq!((denied.header("x-why"), denied.header("x-down")), ("because", ""));
    assert_eq!(denied.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(server.hits(), 1);
    assert_eq!(get(&client(), proxy.url("/open")).await.status, 200);
    assert_eq!(oracle.hits(), 2, "where nobody is to be asked nobody is");
}

#[tokio::test]
async fn without_an_answer_nobody_passes_unless_it_is_said_so() {
    let (server, oracle) = (Server::echoing().await, oracle().await);
    let closed = proxy(ask(), &server, &oracle).await;
    let asking = post(&closed, "hang", "");
    let (hanging, failing) = tokio::join!(asking, post(&closed, "fail", ""));
    assert_eq!((hanging.status, failing.status, server.hits()), (503, 503, 0));
    let open = ExtAuthz { fail_open: true, ..ask() };
    let open = proxy(open, &server, &oracle).await;
    for wish in ["hang", "fail"] {
        let passed = post(&open, wish, "").await;
        assert!(passed.body.contains("x-envoy-auth-failure-mode-allowed: true"), "{wish}");
    }
}

#[tokio::test]
async fn the_service_is_shown_as_much_of_a_body_as_it_may_be() {
    let (server, oracle) = (Server::echoing().await, oracle().await);
    let with =
        |partial| ExtAuthz { body: Some(BodyShown { most: 4, partial, raw: false }), ..ask() };
    let part = proxy(with(true), &server, &oracle).await;
    let passed = post(&part, "allow", "a long text").await;
    assert!(passed.body.contains("x-seen: /check/a false true true a lo\n"), "{}", passed.body);
    assert!(passed.body.ends_with("\n\na long text"), "{}", passed.body);
    let whole = proxy(with(false), &server, &oracle).await;
    assert!(post(&whole, "allow", "text").await.body.ends_with("\n\ntext"));
    let long = post(&whole, "allow", "a long text").await;
    assert_eq!((long.status, server.hits()), (413, 2));
}
