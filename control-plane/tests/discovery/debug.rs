//! What tools of Istio's read of a control plane, with a proxy that is connected.

use ferromesh_proto::ResourceType::{Cluster, Listener};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use crate::{
    client::Delta,
    plane::{Plane, SIDECAR},
};

/// Status and body of an answer to `GET`; `host` is whom the request is for.
async fn get(address: std::net::SocketAddr, path: &str, host: &str) -> (u16, Value) {
    ask(address, path, &[("host", host)]).await
}

async fn ask(address: std::net::SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let request = Request::builder().uri(format!("http://{address}{path}"));
    let with = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, with);
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let answer = client.request(request.body(Empty::new()).expect("a request")).await;
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_istio_find_what_they_ask_for_on_both_ports() {
    let plane = Plane::start().await;
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;
    proxy.fetch(Cluster, &[]).await;
    proxy.fetch(Listener, &[]).await;
    plane.until_count(1).await;
    let addresses = plane.control.addresses;
    for port in [addresses.http, addresses.metrics] {
        let ask = async |path: &str| {
            let (status, body) = get(port, path, "localhost").await;
            assert_eq!(status, 200, "{path}: {body}");
            body
        };
        let synced = ask("/debug/syncz").await;
        assert_eq!(synced[0]["proxy"], "cart-0.shop", "{synced}");
        assert_eq!(synced[0]["cluster_id"], "Kubernetes");
        let sent = synced[0]["cluster_sent"].as_str().expect("a version");
        assert!(!sent.is_empty(), "{synced}");
        assert_eq!(synced[0]["endpoint_sent"], "", "nobody asked for any: {synced}");

        let services = ask("/debug/registryz").await;
        let cart = "cart.shop.svc.cluster.local";
        let found = services.as_array().expect("a list").iter().find(|s| s["hostname"] == cart);
        let found = found.unwrap_or_else(|| panic!("{services}"));
        assert_eq!(found["Attributes"]["Name"], "cart");
        assert_eq!(found["ports"][0]["port"], 80);

        let endpoints = ask("/debug/endpointz").await;
        let of_cart = |e: &&Value| e["svc"].as_str().is_some_and(|svc| svc.starts_with(cart));
        let found = endpoints.as_array().expect("a list").iter().find(of_cart);
        let found = found.unwrap_or_else(|| panic!("{endpoints}"));
        assert_eq!(found["ep"][0]["Address"], "10.1.0.1");

        let clusters = ask("/debug/clusterz").await;
        assert_eq!(
            (&clusters[0]["id"], &clusters[0]["syncStatus"]),
            (&"Kubernetes".into(), &"synced".into())
        );

        let objects = ask("/debug/configz").await;
        let kinds = objects.as_array().expect("a list").iter().map(|o| o["kind"].clone());
        let kinds: Vec<Value> = kinds.collect();
        assert!(kinds.contains(&"VirtualService".into()), "{kinds:?}");
        assert!(!kinds.contains(&"Secret".into()), "{kinds:?}");

        let dump = ask("/debug/config_dump?proxyID=cart-0.shop").await;
        let first = &dump["configs"][0];
        assert_eq!(first["@type"], "type.googleapis.com/envoy.admin.v3.ClustersConfigDump");
        let clusters = first["dynamic_active_clusters"].as_array().expect("clusters");
        assert!(clusters.iter().any(|c| c["cluster"]["name"] == format!("outbound|80||{cart}")));
        assert!(!dump.to_string().contains("PRIVATE KEY"), "{dump}");

        assert_eq!(get(port, "/debug/config_dump?proxyID=nobody.shop", "localhost").await.0, 404);
        assert_eq!(get(port, "/debug/syncz?some=thing", "localhost").await.0, 400);
        // A page elsewhere must not read it by a name that leads here.
        assert_eq!(get(port, "/debug/syncz", "evil.example").await.0, 421);
    }
    assert_eq!(get(addresses.metrics, "/metrics", "evil.example").await.0, 200);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_loopback_tools_need_a_token_and_scrapes_do_not() {
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let plane = Plane::start_changed(&[], |settings| settings.metrics_address = everywhere).await;
    let port = plane.control.addresses.metrics.port();
    let metrics = ([127, 0, 0, 1], port).into();
    for path in ["/debug/syncz", "/debug/config_dump?proxyID=a.b", "/debug/configz"] {
        assert_eq!(get(metrics, path, "localhost").await.0, 401, "{path}");
        assert_eq!(ask(metrics, path, &[("authorization", "Bearer guess")]).await.0, 401, "{path}");
    }
    let token = format!("Bearer {}", plane.token());
    assert_eq!(ask(metrics, "/debug/syncz", &[("authorization", &token)]).await.0, 200);
    assert_eq!(get(metrics, "/metrics", "localhost").await.0, 200);
    // Each port is guarded by where it listens itself.
    assert_eq!(get(plane.control.addresses.http, "/debug/syncz", "localhost").await.0, 200);
    plane.stop().await;
}
