//! Where requests go.

use std::{collections::BTreeSet, time::Duration};

use ferromesh_integration::process::until;
use futures_util::future::join_all;

use crate::{
    client::{Ask, MANY, share},
    rows::{example, fixed},
    site::{Setup, Site},
};

/// A request of a caller for a service by its name.
pub(crate) fn ask(site: &Site, caller: &str, (host, port): (&str, u16), path: &str) -> Ask {
    Ask::get(site.outbound(caller, port), host, path)
}

fn reviews(example: String) -> Setup {
    Setup::of(example).server("default", "reviews").caller("default", "productpage")
}

pub(crate) fn myapp(example: String) -> Setup {
    Setup::of(example).server("production", "myapp").caller("production", "frontend")
}

const REVIEWS: (&str, u16) = ("reviews", 9080);
pub(crate) const MYAPP: (&str, u16) = ("myapp", 8080);

pub(crate) async fn a_header_leads_to_a_version() {
    let site = reviews(example("s0-03", &[])).start().await;
    let get = || ask(&site, "productpage", REVIEWS, "/");
    get().header("end-user", "jason").only("v2").await;
    get().header("END-USER", "jason").only("v2").await;
    get().header("end-user", "Jason").only("v1").await;
    get().header("end-user", "jason2").only("v1").await;
    get().only("v1").await;
    assert!(site.version("v3").iter().all(|application| application.hits() == 0));
    // A subset is all the pods with its labels.
    assert!(site.version("v1").iter().all(|application| application.hits() > 0));
    assert!(site.version("v2").iter().all(|application| application.hits() > 0));
}

pub(crate) async fn a_canary_gets_its_share_and_whoever_asks_for_it() {
    let site = reviews(example("s0-11", &[])).start().await;
    let get = || ask(&site, "productpage", REVIEWS, "/");
    get().header("x-canary", "true").only("v2").await;
    get().header("x-canary", "True").tenth_to_v2().await;
    get().tenth_to_v2().await;
}

pub(crate) async fn the_first_rule_that_matches_wins() {
    let example = fixed(example("s1-02", &[]));
    let site = Setup::of(example)
        .server("production", "api-service")
        .caller("production", "web-service")
        .start()
        .await;
    let agent = "Mozilla/5.0 Chrome/120.0 Safari/537.36";
    for host in ["api-service", "api-service.production.svc.cluster.local"] {
        let get = |path: &str| ask(&site, "web-service", (host, 8080), path);
        get("/other").header("user-agent", agent).only("v2").await;
        get("/other").header("user-agent", "curl").only("v1").await;
        get("/other").only("v1").await;
    }
    let get = |path: &str| ask(&site, "web-service", ("api-service", 8080), path);
    get("/api/v1/x").tenth_to_v2().await;
    get("/api/v1").header("user-agent", agent).tenth_to_v2().await;
}

pub(crate) async fn without_its_subsets_a_route_leads_nowhere() {
    let written = example("s2-01", &[]);
    let backend = |text: String| {
        Setup::of(text).server("default", "backend").caller("default", "productpage")
    };
    let site = backend(written.clone()).start().await;
    let get = ask(&site, "productpage", ("backend", 8080), "/").header("x-n", "1");
    for reply in get.many(20, 4).await {
        assert_eq!((reply.status, &*reply.by), (Some(503), ""));
    }
    assert_eq!(site.logged_of("productpage", "1")[2], "NC");
    assert!(site.applications().all(|application| application.hits() == 0));
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {name: backend, namespace: default}\n\
         spec: {host: backend, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
    let site = backend(written + rule).start().await;
    ask(&site, "productpage", ("backend", 8080), "/").tenth_to_v2().await;
}

pub(crate) async fn headers_come_before_paths() {
    let site = myapp(example("s4-01", &[]) + &example("s4-02", &[])).start().await;
    for host in ["myapp", "myapp.example.com", "myapp.production.svc.cluster.local"] {
        let get = |path: &str| ask(&site, "frontend", (host, 8080), path);
        get("/").header("x-version", "v2").only("v2").await;
        get("/api").header("x-version", "v2").only("v2").await;
        get("/").only("v1").await;
        get("/other").header("x-version", "v1").only("v1").await;
    }
    ask(&site, "frontend", MYAPP, "/api/x").tenth_to_v2().await;
}

pub(crate) async fn a_mirror_gets_a_copy_of_everything_and_answers_nobody() {
    const COPIED: usize = 1_000;
    let site = myapp(example("s4-04", &[]) + &example("s4-02", &[])).start().await;
    let post = ask(&site, "frontend", MYAPP, "/a?b=c").method(http::Method::POST).body("hello");
    for reply in post.many(COPIED, 8).await {
        assert_eq!((reply.status, &*reply.by), (Some(200), "v1"));
    }
    let copies = || site.version("v2").iter().map(|application| application.hits()).sum::<usize>();
    until(Duration::from_secs(10), "every copy", || copies() == COPIED);
    for seen in site.version("v2").iter().flat_map(|application| application.seen()) {
        assert_eq!((&*seen.path, &*seen.body), ("/a?b=c", &b"hello"[..]));
        assert_eq!(seen.header("host"), "myapp");
    }
    // What becomes of a copy is nobody's concern.
    for held in [false, true] {
        for mirror in site.version("v2") {
            mirror.answers(503);
            mirror.holds(held);
        }
        for reply in post.many(60, 4).await {
            assert_eq!((reply.status, &*reply.by), (Some(200), "v1"));
            assert!(reply.took < Duration::from_secs(3), "{reply:?}");
        }
    }
    for mirror in site.version("v2") {
        mirror.holds(false);
    }
}

pub(crate) async fn faults_meet_whom_they_are_for() {
    let site = myapp(example("s4-08", &[])).start().await;
    let get = || ask(&site, "frontend", MYAPP, "/");
    for reply in get().many(200, 8).await {
        assert_eq!(reply.status, Some(200));
        assert!(reply.took < Duration::from_secs(3), "{reply:?}");
    }
    let hits = || site.applications().map(|application| application.hits()).sum::<usize>();
    let before = hits();
    let injected = get().header("x-test-fault", "inject").header("x-n", "f");
    let parts = (0..4).map(|_| injected.many(MANY / 4, MANY / 4));
    let replies: Vec<_> = join_all(parts).await.into_iter().flatten().collect();
    let is_late = |took: Duration| took >= Duration::from_secs(5);
    let aborted = share(&replies, |reply| reply.status == Some(503));
    let delayed = share(&replies, |reply| is_late(reply.took));
    let both = share(&replies, |reply| reply.status == Some(503) && is_late(reply.took));
    assert!((7.0..=13.0).contains(&aborted), "{aborted} % aborted");
    assert!((45.0..=55.0).contains(&delayed), "{delayed} % delayed");
    assert!((3.0..=7.0).contains(&both), "{both} % both: they do not draw independently");
    let served = replies.iter().filter(|reply| reply.status == Some(200)).count();
    assert_eq!(hits() - before, served, "what is aborted reaches nobody");
    let flagged = || {
        let lines = site.logged("frontend");
        let aborted = lines.iter().filter(|[n, status, ..]| n == "f" && status == "503");
        aborted.map(|[.., flags, _]| flags.clone()).collect::<BTreeSet<_>>()
    };
    until(Duration::from_secs(10), "lines of what was aborted", || !flagged().is_empty());
    let flags = flagged();
    assert!(flags.iter().all(|flags| flags.split(',').any(|flag| flag == "FI")), "{flags:?}");
}
