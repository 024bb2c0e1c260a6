//! Endpoints that fail are left alone for as long as a rule says.

use std::time::{Duration, Instant};

use ferromesh_integration::process::until;

use crate::{
    client::Ask,
    routing::{MYAPP, ask, myapp},
    rows::{example, fixed},
    site::{Setup, Site},
};

/// How long an ejection lasts at least, in all examples.
const LEAST: Duration = Duration::from_secs(30);

/// A pod that answers with `status` gets `errors` requests and then none for as long as it must not.
async fn is_ejected(
    site: &Site,
    (caller, cluster): (&str, &str),
    get: &Ask,
    pod: &str,
    (status, errors): (u16, usize),
) {
    let application = site.application(pod);
    let before = application.hits();
    application.answers(status);
    until_hits(get, || application.hits() - before >= errors).await;
    until(Duration::from_secs(5), &format!("{pod} is ejected"), || {
        ejected(site, caller, cluster) == 1
    });
    let begin = Instant::now();
    let mut asked = 0;
    while begin.elapsed() < LEAST - Duration::from_millis(500) {
        for reply in get.many(10, 2).await {
            assert_eq!(reply.status, Some(200), "{pod} is left alone: {reply:?}");
            asked += 1;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(asked > 300);
    assert_eq!(application.hits() - before, errors, "{pod} got more");
}

/// Asks one by one until something holds.
async fn until_hits(get: &Ask, reached: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if reached() {
            return;
        }
        let _ = get.send().await;
    }
    panic!("a thousand requests were not enough");
}

/// How many endpoints of a cluster a caller leaves alone.
fn ejected(site: &Site, caller: &str, cluster: &str) -> u64 {
    site.count(caller, cluster, "outlier_detection.ejections_active")
}

/// When all pods fail, between one and so many endpoints are left alone.
async fn at_most(site: &Site, (caller, cluster): (&str, &str), get: &Ask, most: u64) {
    site.applications().for_each(|application| application.answers(500));
    for _ in 0..200 {
        let _ = get.send().await;
    }
    let left = ejected(site, caller, cluster);
    assert!((1..=most).contains(&left), "{left} of {cluster}");
}

const HTTPBIN: (&str, u16) = ("httpbin", 8000);
const HTTPBIN_CLUSTER: (&str, &str) =
    ("productpage", "outbound|8000||httpbin.default.svc.cluster.local");
const MYAPP_CLUSTER: (&str, &str) =
    ("frontend", "outbound|8080||myapp.production.svc.cluster.local");

fn httpbin(text: String) -> Setup {
    Setup::of(text).server("default", "httpbin").caller("default", "productpage")
}

pub(crate) async fn five_gateway_errors_eject_for_half_a_minute() {
    let site = httpbin(fixed(example("s0-07", &[]))).start().await;
    let get = ask(&site, "productpage", HTTPBIN, "/");
    is_ejected(&site, HTTPBIN_CLUSTER, &get, "httpbin-v1-0", (502, 5)).await;
    site.applications().for_each(|application| application.answers(504));
    for _ in 0..100 {
        let _ = get.send().await;
    }
    let left = ejected(&site, HTTPBIN_CLUSTER.0, HTTPBIN_CLUSTER.1);
    assert!((1..=2).contains(&left), "{left} of three");
    let cluster = site.cluster(HTTPBIN_CLUSTER.0, HTTPBIN_CLUSTER.1);
    assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"]["value"], 40);
}

/// As an API server leaves it that drops what it does not know.
pub(crate) async fn five_errors_eject_for_half_a_minute() {
    let text = example("s0-07", &[]);
    let pruned: Vec<&str> =
        text.lines().filter(|line| !line.contains("consecutiveGatewayFailure")).collect();
    let site = httpbin(pruned.join("\n")).start().await;
    let get = ask(&site, "productpage", HTTPBIN, "/");
    is_ejected(&site, HTTPBIN_CLUSTER, &get, "httpbin-v1-0", (500, 5)).await;
}

pub(crate) async fn both_subsets_eject() {
    let site = Setup::of(fixed(example("s1-02", &[])))
        .server("production", "api-service")
        .caller("production", "web-service")
        .start()
        .await;
    let get = ask(&site, "web-service", ("api-service", 8080), "/x");
    let chrome = get.clone().header("user-agent", "Chrome");
    let [v1, v2] = ["v1", "v2"]
        .map(|subset| format!("outbound|8080|{subset}|api-service.production.svc.cluster.local"));
    let [v1, v2] = [("web-service", v1.as_str()), ("web-service", v2.as_str())];
    tokio::join!(
        is_ejected(&site, v1, &get, "api-service-v1-0", (500, 5)),
        is_ejected(&site, v2, &chrome, "api-service-v2-1", (503, 5)),
    );
    at_most(&site, v1, &get, 2).await;
    at_most(&site, v2, &chrome, 2).await;
}

pub(crate) async fn a_default_counts_to_five() {
    // A number where the field has no effect changes nothing.
    let text = example("s2-02", &[]).replace("consecutiveErrors: 5", "consecutiveErrors: 2");
    assert!(text.contains("consecutiveErrors: 2"));
    let site =
        Setup::of(text).server("default", "backend").caller("default", "productpage").start().await;
    let get = ask(&site, "productpage", ("backend", 8080), "/");
    let cluster = ("productpage", "outbound|8080||backend.default.svc.cluster.local");
    is_ejected(&site, cluster, &get, "backend-v1-0", (500, 5)).await;
    at_most(&site, cluster, &get, 1).await;
}

pub(crate) async fn half_of_the_endpoints_may_go() {
    let site = myapp(example("s4-02", &[])).start().await;
    let get = ask(&site, "frontend", MYAPP, "/");
    is_ejected(&site, MYAPP_CLUSTER, &get, "myapp-v1-0", (500, 5)).await;
    at_most(&site, MYAPP_CLUSTER, &get, 3).await;
}

pub(crate) async fn all_of_the_endpoints_may_go() {
    let site = myapp(example("s4-07", &[])).start().await;
    let get = ask(&site, "frontend", MYAPP, "/");
    is_ejected(&site, MYAPP_CLUSTER, &get, "myapp-v1-0", (500, 3)).await;
    site.applications().for_each(|application| application.answers(500));
    until_hits(&get, || ejected(&site, MYAPP_CLUSTER.0, MYAPP_CLUSTER.1) == 6).await;
    let hits = || site.applications().map(|application| application.hits()).sum::<usize>();
    // Who was out first comes back meanwhile, until it has failed again.
    for round in 0..20 {
        let (before, number) = (hits(), format!("round-{round}"));
        let replies = get.clone().header("x-n", &number).many(20, 4).await;
        if replies.iter().all(|reply| (reply.status, &*reply.by) == (Some(503), "")) {
            assert_eq!(hits(), before, "nobody is asked");
            assert_eq!(site.logged_of("frontend", &number)[2], "UH");
            return;
        }
    }
    panic!("somebody is always asked");
}
