//! Clients that a balancer keeps with an endpoint by a cookie.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;

use super::{
    fixture::*,
    peer::{Server, client, send},
};
use crate::runtime::{
    action::{HashPolicy, HashSource, NewCookie},
    cluster::{HashFunction, HashKey, LbPolicy},
};

fn by_cookie(ttl: Option<Duration>) -> HashPolicy {
    let new = ttl.map(|ttl| NewCookie { ttl, path: "".into(), attributes: vec![] });
    HashPolicy { source: HashSource::Cookie { name: "sid".into(), new }, terminal: false }
}

async fn proxy(servers: &[&Server], policy: LbPolicy, ttl: Option<Duration>) -> Proxy {
    let mut proxy = Proxy::start(None);
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut cluster = proxy.cluster("ring", &addresses);
    cluster.policy = policy;
    let host = to("ring", |forward| forward.hash = vec![by_cookie(ttl)]);
    let listener = proxy.listener(http_chain(with_routes(vec![host])));
    proxy.configure(vec![listener], vec![cluster]).await;
    proxy
}

/// Asks on a connection of its own; answers who has answered, and the cookie that was set.
async fn ask(proxy: &Proxy, cookie: Option<&str>) -> (String, Option<String>) {
    let mut request = Request::get(proxy.url("/"));
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let answer = send(&client(), request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 200);
    let set =
        answer.headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
    (answer.body, set)
}

const RING: LbPolicy = LbPolicy::RingHash {
    minimum: 1024,
    maximum: 8 << 20,
    function: HashFunction::XxHash,
    key: HashKey::Address,
};
const MAGLEV: LbPolicy = LbPolicy::Maglev { table_size: 65_537, key: HashKey::Address };

#[tokio::test]
async fn a_client_without_the_cookie_gets_one_and_stays_with_its_endpoint() {
    let (one, two) = (Server::saying("one").await, Server::saying("two").await);
    for policy in [RING, MAGLEV] {
        let proxy = proxy(&[&one, &two], policy, Some(Duration::from_secs(60))).await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..16 {
            let (first, set) = ask(&proxy, None).await;
            let set = set.expect("a cookie");
            let (cookie, attributes) = set.split_once("; ").unwrap();
            assert_eq!(attributes, "Max-Age=60; HttpOnly", "{set}");
            for _ in 0..4 {
                assert_eq!(ask(&proxy, Some(cookie)).await, (first.clone(), None), "{cookie}");
            }
            seen.insert(first);
        }
        assert_eq!(seen.len(), 2, "clients are spread");
    }
}

#[tokio::test]
async fn a_cookie_is_made_only_where_it_chooses_and_where_a_life_is_given() {
    let one = Server::saying("one").await;
    let session = proxy(&[&one], RING, Some(Duration::ZERO)).await;
    let set = ask(&session, Some("sid=")).await.1.expect("an empty cookie is none");
    assert!(set.starts_with("sid=\"") && set.ends_with("\"; HttpOnly"), "{set}");
    let lifeless = proxy(&[&one], RING, None).await;
    assert_eq!(ask(&lifeless, None).await.1, None);
    let round_robin = proxy(&[&one], LbPolicy::RoundRobin, Some(Duration::from_secs(60))).await;
    assert_eq!(ask(&round_robin, None).await.1, None);
}
