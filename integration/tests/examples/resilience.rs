//! What is tried again, and how long anybody waits.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    client::Reply,
    routing::{MYAPP, ask, myapp},
    rows::{example, fixed},
    site::{Setup, Site},
};

fn hits(site: &Site, version: &str) -> usize {
    site.version(version).iter().map(|application| application.hits()).sum()
}

/// All of a version answer so.
fn answers(site: &Site, version: &str, status: u16) {
    site.version(version).iter().for_each(|application| application.answers(status));
}

fn holds(site: &Site, version: &str, held: bool) {
    site.version(version).iter().for_each(|application| application.holds(held));
}

fn took(reply: &Reply, status: u16, seconds: (f64, f64)) {
    assert_eq!(reply.status, Some(status), "{reply:?}");
    let took = reply.took.as_secs_f64();
    assert!((seconds.0..=seconds.1).contains(&took), "{took} s");
}

pub(crate) async fn what_may_be_tried_again_is_tried_four_times() {
    let reviews = |text: String| {
        Setup::of(text).server("default", "reviews").caller("default", "productpage")
    };
    let subsets = example("s0-11", &[2]);
    let site = reviews(fixed(example("s0-09", &[])) + "\n---\n" + &subsets).start().await;
    let get = ask(&site, "productpage", ("reviews", 9080), "/");
    for (status, attempts) in [(503, 4), (409, 4), (404, 1)] {
        answers(&site, "v1", status);
        let before = hits(&site, "v1");
        assert_eq!(get.status().await, Some(status));
        assert_eq!(hits(&site, "v1") - before, attempts, "{status}");
    }
    answers(&site, "v1", 200);
    holds(&site, "v1", true);
    let before = hits(&site, "v1");
    took(&get.send().await, 504, (8.0, 9.5));
    assert_eq!(hits(&site, "v1") - before, 4);
    holds(&site, "v1", false);
    // As an API server leaves it that drops what it does not know.
    let text = example("s0-09", &[]);
    let pruned = text.split("    retry:").next().expect("a part").to_owned() + "\n---\n" + &subsets;
    let site = reviews(pruned).start().await;
    answers(&site, "v1", 503);
    assert_eq!(ask(&site, "productpage", ("reviews", 9080), "/").status().await, Some(503));
    assert_eq!(hits(&site, "v1"), 1);
}

pub(crate) async fn only_the_last_rule_tries_again() {
    let site = myapp(example("s4-01", &[]) + &example("s4-02", &[])).start().await;
    let get = |path: &str| ask(&site, "frontend", MYAPP, path);
    answers(&site, "v1", 503);
    let before = hits(&site, "v1");
    assert_eq!(get("/").status().await, Some(503));
    assert_eq!(hits(&site, "v1") - before, 4);
    let before = (hits(&site, "v1"), hits(&site, "v2"));
    for _ in 0..4 {
        let _ = get("/api").status().await;
    }
    let after = (hits(&site, "v1"), hits(&site, "v2"));
    assert_eq!(after.0 + after.1 - before.0 - before.1, 4, "tried once each");
    drop(site);
    let site = myapp(example("s4-01", &[]) + &example("s4-02", &[])).start().await;
    holds(&site, "v1", true);
    let reply = ask(&site, "frontend", MYAPP, "/").send().await;
    took(&reply, 504, (9.0, 11.0));
    holds(&site, "v1", false);
}

fn api(away: &'static [&'static str]) -> Setup {
    Setup::of(fixed(example("s1-02", &[])))
        .server("production", "api-service")
        .caller("production", "web-service")
        .away(away)
}

pub(crate) async fn who_waits_for_an_answer_is_told_in_time() {
    let site = api(&[]).start().await;
    let get = || ask(&site, "web-service", ("api-service", 8080), "/x");
    holds(&site, "v1", true);
    holds(&site, "v2", true);
    let (plain, chrome) = (get(), get().header("user-agent", "Chrome"));
    let (first, other) = tokio::join!(plain.send(), chrome.send());
    took(&first, 504, (9.0, 11.0));
    took(&other, 504, (29.0, 31.0));
    assert_eq!(hits(&site, "v1"), 1, "who is silent is not asked again");
    holds(&site, "v1", false);
    holds(&site, "v2", false);
}

pub(crate) async fn who_refuses_connections_is_tried_again() {
    // Of each version one pod serves, so that the others' absence is no absence of all.
    let site = api(&[
        "api-service-v1-0",
        "api-service-v1-1",
        "api-service-v1-2",
        "api-service-v2-0",
        "api-service-v2-1",
    ])
    .start()
    .await;
    let get = |n: &str| ask(&site, "web-service", ("api-service", 8080), "/x").header("x-n", n);
    assert_eq!(get("1").status().await, Some(503));
    let [.., attempts] = site.logged_of("web-service", "1");
    assert_eq!(attempts, "4", "three more");
    for number in 10..30 {
        let number = number.to_string();
        let reply = get(&number).header("user-agent", "Chrome").send().await;
        let [.., attempts] = site.logged_of("web-service", &number);
        let attempts: u32 = attempts.parse().expect("a number");
        assert!(attempts <= 3, "two more, the default: {attempts}");
        assert!(reply.status == Some(200) || attempts == 3, "{reply:?} after {attempts}");
    }
}

/// An address that takes no connection: as many wait there as may.
struct Silent {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn at(address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&address.into()).and_then(|()| socket.listen(0)).expect("a free address");
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
        }
        Self { _listener: socket.into(), _waiting: waiting }
    }
}

pub(crate) async fn a_connection_is_not_waited_for_longer_than_the_rule_says() {
    // All but one are away, and the last but one is silent.
    let site = myapp(example("s4-01", &[]) + &example("s4-02", &[]))
        .away(&["myapp-v2-0", "myapp-v2-1", "myapp-v2-2"])
        .start()
        .await;
    let silent: Vec<Silent> =
        ["myapp-v2-0", "myapp-v2-1", "myapp-v2-2"].map(|pod| Silent::at(site.address(pod))).into();
    // The rule for this header tries twice more, each for five seconds.
    let get = ask(&site, "frontend", MYAPP, "/").header("x-version", "v2").header("x-n", "1");
    let reply = get.send().await;
    let [.., attempts] = site.logged_of("frontend", "1");
    let attempts: f64 = attempts.parse().expect("a number");
    took(&reply, 503, (attempts * 4.9, attempts * 5.5 + 1.0));
    drop(silent);
}
