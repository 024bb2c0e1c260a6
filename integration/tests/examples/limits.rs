//! How much may be under way, and who gets it.

use std::time::{Duration, Instant};

use ferromesh_integration::process::until;
use futures_util::future::join_all;

use crate::{
    client::{Ask, Reply, share},
    routing::{MYAPP, ask, myapp},
    rows::{example, fixed},
    site::{Setup, Site},
};

/// How long a request may take to come to an application before it counts as waiting.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// Of `count` requests to a service that holds them, so many are served, and the others refused for
/// the caller's limits. They come one after the other: requests that come before there are
/// connections would all be waiting for one.
async fn served(site: &Site, caller: &str, get: &Ask, (count, served): (usize, usize)) {
    let holds = |held| site.applications().for_each(|application| application.holds(held));
    let hits = || site.applications().map(|application| application.hits()).sum::<usize>();
    holds(true);
    let get = get.clone().header("x-n", "limit");
    let mut asked = Vec::new();
    for _ in 0..count {
        let (before, begin) = (hits(), Instant::now());
        let get = get.clone();
        let one = tokio::spawn(async move { get.send().await });
        while hits() == before && !one.is_finished() && begin.elapsed() < ON_ITS_WAY {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asked.push(one);
    }
    // What is over the limits is answered at once; the rest once it may.
    until(Duration::from_secs(20), "refusals of all that is too much", || {
        asked.iter().filter(|one| one.is_finished()).count() + served + 5 >= count
    });
    holds(false);
    let mut seen: Vec<Reply> = Vec::new();
    for one in asked {
        seen.push(one.await.expect("it does not panic"));
    }
    let refused: Vec<&Reply> = seen.iter().filter(|reply| reply.status == Some(503)).collect();
    assert!(refused.iter().all(|reply| reply.body.contains("overflow")), "{refused:?}");
    let got = seen.iter().filter(|reply| reply.status == Some(200)).count();
    assert_eq!(got + refused.len(), count);
    assert!(got.abs_diff(served) <= 5, "{get:?}: {got} of {count} served, not {served}");
    let flags = || {
        let lines = site.logged(caller);
        lines.iter().filter(|[n, _, flags, _]| n == "limit" && flags == "UO").count()
    };
    until(Duration::from_secs(10), "lines of refusals", || flags() == refused.len());
}

/// The limit of a cluster of a proxy, as it is in force.
fn limit(site: &Site, proxy: &str, cluster: &str, name: &str) -> Option<u64> {
    let listed = site.admin(proxy, "/clusters");
    let prefix = format!("{cluster}::default_priority::{name}::");
    listed.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
}

/// Nobody limits it.
const ANY: u64 = u32::MAX as u64;

pub(crate) async fn what_is_over_the_limits_of_a_fixed_rule_is_refused() {
    let site = Setup::of(fixed(example("s0-07", &[])))
        .server("default", "httpbin")
        .caller("default", "productpage")
        .start()
        .await;
    let get = ask(&site, "productpage", ("httpbin", 8000), "/");
    served(&site, "productpage", &get, (200, 150)).await;
    let cluster = "outbound|8000||httpbin.default.svc.cluster.local";
    let (connections, requests) = per_connection(&site, "productpage", cluster);
    assert!(requests <= 2 * connections, "{requests} requests on {connections} connections");
    assert!(site.applications().all(|application| application.most_on_a_connection() <= 2));
    for pod in ["httpbin-v1-0", "httpbin-v1-2"] {
        let own = format!("inbound|8000||@{pod}");
        assert_eq!(limit(&site, "servers", &own, "max_connections"), Some(100));
        assert_eq!(limit(&site, "servers", &own, "max_pending_requests"), Some(50));
        let cluster = site.cluster("servers", &own);
        assert_eq!(cluster["name"], own.as_str());
        assert!(cluster.get("outlier_detection").is_none(), "no ejection: {cluster}");
    }
}

/// Connections of a cluster, and requests on them.
fn per_connection(site: &Site, proxy: &str, cluster: &str) -> (u64, u64) {
    let count = |name: &str| site.count(proxy, cluster, name);
    (count("upstream_cx_total"), count("upstream_rq_total"))
}

pub(crate) async fn few_may_wait_for_a_connection() {
    let site = Setup::of(example("s2-02", &[]))
        .server("default", "backend")
        .caller("default", "productpage")
        .start()
        .await;
    let get = ask(&site, "productpage", ("backend", 8080), "/");
    served(&site, "productpage", &get, (150, 110)).await;
}

pub(crate) async fn many_may_wait_for_few_connections() {
    let site = myapp(example("s4-07", &[])).start().await;
    let get = ask(&site, "frontend", MYAPP, "/");
    served(&site, "frontend", &get, (200, 150)).await;
    let cluster = "outbound|8080||myapp.production.svc.cluster.local";
    assert!(get.many(600, 4).await.iter().all(|reply| reply.status == Some(200)));
    let (connections, requests) = per_connection(&site, "frontend", cluster);
    assert!(requests <= 10 * connections, "{requests} requests on {connections} connections");
    assert!(site.applications().all(|application| application.most_on_a_connection() <= 10));
    for (proxy, cluster) in [("frontend", cluster), ("servers", "inbound|8080||@myapp-v1-0")] {
        for (name, expected) in
            [("max_connections", 50), ("max_pending_requests", 100), ("max_requests", 100)]
        {
            assert_eq!(limit(&site, proxy, cluster, name), Some(expected), "{cluster} {name}");
        }
    }
}

pub(crate) async fn subsets_have_limits_of_their_own() {
    let site = Setup::of(fixed(example("s1-02", &[])))
        .server("production", "api-service")
        .caller("production", "web-service")
        .start()
        .await;
    let of =
        |subset: &str| format!("outbound|8080|{subset}|api-service.production.svc.cluster.local");
    for (proxy, cluster, pending, connections) in [
        ("web-service", of("v1"), 50, ANY),
        ("web-service", of("v2"), 100, ANY),
        ("web-service", of(""), 100, 100),
        ("servers", "inbound|8080||@api-service-v1-0".to_owned(), 100, 100),
    ] {
        let limit = |name: &str| limit(&site, proxy, &cluster, name);
        assert_eq!(limit("max_pending_requests"), Some(pending), "{cluster}");
        assert_eq!(limit("max_connections"), Some(connections), "{cluster}");
    }
    let get = ask(&site, "web-service", ("api-service", 8080), "/x");
    get.only("v1").await;
    get.clone().header("user-agent", "Chrome").only("v2").await;
    for subset in ["v1", "v2"] {
        let count = |name: &str| site.count("web-service", &of(subset), name);
        assert!(count("upstream_cx_http1_total") > 0, "{subset}");
        assert_eq!(count("upstream_cx_http2_total"), 0, "{subset}");
    }
}

pub(crate) async fn a_thousand_requests_are_served_at_once() {
    let site = myapp(example("s4-02", &[])).start().await;
    let get = ask(&site, "frontend", MYAPP, "/");
    // So that there are connections.
    assert!(get.many(200, 50).await.iter().all(|reply| reply.status == Some(200)));
    served(&site, "frontend", &get, (1_100, 1_000)).await;
    let cluster = "outbound|8080||myapp.production.svc.cluster.local";
    let count = |name: &str| site.count("frontend", cluster, name);
    assert!(count("upstream_cx_http2_total") > 0);
    assert_eq!(count("upstream_cx_http1_total"), 0, "between the sidecars it is HTTP/2");
    let seen = site.applications().flat_map(|application| application.seen());
    assert!(seen.into_iter().all(|seen| seen.version == http::Version::HTTP_11));
}

pub(crate) async fn endpoints_take_turns_or_who_is_fast_gets_more() {
    let site = myapp(example("s4-01", &[]) + &example("s4-02", &[])).start().await;
    let get = ask(&site, "frontend", MYAPP, "/");
    let replies = get.many(900, 1).await;
    for pod in ["myapp-v1-0", "myapp-v1-1", "myapp-v1-2"] {
        let part = replies.iter().filter(|reply| reply.pod == pod).count();
        assert!((285..=315).contains(&part), "{pod}: {part}");
    }
    let cluster = "outbound|8080|v1|myapp.production.svc.cluster.local";
    let (connections, requests) = per_connection(&site, "frontend", cluster);
    assert!(requests <= 100 * connections, "{requests} requests on {connections} connections");
    site.application("myapp-v2-1").takes(100);
    let get = get.header("x-version", "v2");
    let parts = join_all((0..4).map(|_| get.many(150, 3))).await;
    let replies: Vec<Reply> = parts.into_iter().flatten().collect();
    let of = |pod: &str| share(&replies, |reply| reply.pod == pod);
    assert!(of("myapp-v2-1") < of("myapp-v2-0").min(of("myapp-v2-2")), "{}", of("myapp-v2-1"));
}
