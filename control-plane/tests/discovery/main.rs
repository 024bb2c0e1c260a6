//! The control plane in one process, as proxies meet it: real ports, a directory of YAML, and
//! clients that speak xDS.

mod agreement;
mod client;
mod debug;
mod explain;
mod findings;
mod forecast;
mod keys;
mod machines;
mod plane;
mod slow_callers;

use std::time::Duration;

use ferromesh_control_plane::{
    app::ControlPlane,
    status::{ProxyStatus, Sync},
};
use ferromesh_proto::{
    ResourceType::{self, Cluster, Endpoint, Listener, Route, Secret},
    discovery::DeltaDiscoveryRequest,
};
use tonic::Code;

use self::{
    client::{Deaf, Delta, SotwClient, delta_node, node, secure_channel},
    plane::{GATEWAY, Plane, SIDECAR},
};

const CART: &str = "outbound|80||cart.shop.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_proxy_gets_everything_in_order_and_then_only_what_changes() {
    let plane = Plane::start().await;
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;

    let clusters = proxy.fetch(Cluster, &[]).await;
    assert!(clusters.contains(CART), "{clusters:?}");
    let endpoints: Vec<&str> = clusters.names().filter(|n| n.starts_with("outbound|")).collect();
    let endpoints = proxy.fetch(Endpoint, &endpoints).await;
    assert!(endpoints.contains(CART));
    let listeners = proxy.fetch(Listener, &[]).await;
    assert!(
        listeners.contains("virtualOutbound") && listeners.contains("virtualInbound"),
        "{listeners:?}"
    );
    let routes = proxy.fetch(Route, &["80"]).await;
    assert!(routes.contains("80"));
    let synced = |p: &ProxyStatus, kind: ResourceType| {
        matches!(p.sync[kind.short_name()], Sync::Synced { .. })
    };
    plane.until(|p| [Cluster, Endpoint, Listener, Route].iter().all(|k| synced(p, *k))).await;
    assert_eq!(plane.only_proxy().sync["SDS"], Sync::NotSent);

    // A new endpoint concerns nothing but one assignment.
    plane.write("slice.yaml", &plane::slice(&["10.1.0.1", "10.1.0.11"]));
    let change = proxy.next().await;
    assert_eq!((change.kind, change.names().collect::<Vec<_>>()), (Endpoint, vec![CART]));
    proxy.accept(&change).await;

    // A route change concerns nothing but one route configuration.
    plane.write("route.yaml", &plane::route(30));
    let change = proxy.next().await;
    assert_eq!((change.kind, change.names().collect::<Vec<_>>()), (Route, vec!["80"]));
    proxy.accept(&change).await;
    proxy.expect_silence().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_the_world_proxy_gets_the_same() {
    let plane = Plane::start().await;
    let mut proxy = SotwClient::connect(plane.plaintext().await, SIDECAR).await;
    let clusters = proxy.fetch(Cluster, &[]).await;
    let listeners = proxy.fetch(Listener, &[]).await;
    assert!(clusters > 3 && listeners > 2, "{clusters} clusters, {listeners} listeners");
    assert_eq!(proxy.fetch(Endpoint, &[CART]).await, 1);
    assert_eq!(proxy.fetch(Route, &["80"]).await, 1);
    assert_eq!(plane.only_proxy().protocol, "sotw");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_comes_back_with_equal_versions_is_sent_nothing() {
    let plane = Plane::start().await;
    let mut first = Delta::connect(plane.plaintext().await, SIDECAR).await;
    let known = first.fetch(Cluster, &[]).await.versions();
    drop(first);
    let mut second = Delta::connect(plane.plaintext().await, SIDECAR).await;
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: known, ..second.request(Cluster) };
    second.send(request).await;
    second.expect_silence().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_shows_in_the_status_and_on_the_object_that_caused_it() {
    let plane = Plane::start().await;
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;
    proxy.fetch(Cluster, &[]).await;
    let routes = proxy.ask(Route, &["80"]).await;
    proxy.refuse(&routes, "route 80: something this proxy cannot do").await;
    proxy.expect_silence().await;
    let status = plane.only_proxy();
    assert!(
        matches!(&status.sync["RDS"], Sync::Nack { message, .. } if message.contains("cannot do")),
        "{:?}",
        status.sync
    );
    let found = plane.control.proxies.diagnostics();
    let object =
        found.iter().filter_map(|d| d.object.as_ref()).find(|o| o.name.as_ref() == "cart-route");
    assert!(object.is_some(), "{found:#?}");

    plane.write("route.yaml", &plane::route(40));
    let change = proxy.next().await;
    assert_eq!(change.kind, Route);
    proxy.accept(&change).await;
    plane.until(|p| matches!(p.sync["RDS"], Sync::Synced { .. })).await;
    assert!(plane.control.proxies.diagnostics().is_empty());
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_cannot_be_are_told_why() {
    let plane = Plane::start().await;
    let refused = async |request: DeltaDiscoveryRequest| {
        let mut proxy = Delta::open(plane.plaintext().await).await;
        proxy.send(request).await;
        proxy.failure().await
    };
    let cds = |node: &str| DeltaDiscoveryRequest {
        node: (!node.is_empty()).then(|| delta_node(node)),
        type_url: Cluster.type_url().to_owned(),
        ..Default::default()
    };
    assert_eq!(refused(cds("")).await.code(), Code::InvalidArgument);
    let bad = refused(cds("someone")).await;
    assert!(bad.code() == Code::InvalidArgument && bad.message().contains("TYPE~IP~NAME"), "{bad}");
    let untyped = DeltaDiscoveryRequest { node: Some(delta_node(SIDECAR)), ..Default::default() };
    assert_eq!(refused(untyped).await.code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_nobody_serves_keeps_the_stream_open() {
    let plane = Plane::start().await;
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;
    let strange = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    let names = vec!["filter".to_owned()];
    let request = DeltaDiscoveryRequest {
        type_url: strange.to_owned(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    proxy.send(request).await;
    let answer = proxy.next_raw().await;
    assert_eq!(
        (answer.type_url.as_str(), answer.removed_resources),
        (strange, vec!["filter".to_owned()])
    );
    assert!(proxy.fetch(Cluster, &[]).await.contains(CART));
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_up_nobody() {
    // More than a stream may have on its way to the socket, many times what the deaf let through.
    let plane = Plane::start_with(&[("many.yaml", plane::services(400))]).await;
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;
    let everything = proxy.fetch(Cluster, &[]).await.length;
    assert!(everything > 32 * client::SMALL_WINDOW as usize, "{everything} bytes");

    let mut deaf = Vec::new();
    for _ in 0..20 {
        deaf.push(Deaf::connect(&plane, SIDECAR).await);
    }
    for client in &deaf {
        client.until_blocked().await;
    }
    proxy.fetch(Route, &["80"]).await;
    let mut newest = None;
    for weight in 1..20 {
        plane.write("route.yaml", &plane::route(weight));
        let change = proxy.next().await;
        proxy.accept(&change).await;
        newest = Some(change.versions());
    }
    let most = everything / 4;
    assert!(deaf.iter().all(|client| client.received() < most), "the streams are not blocked");

    // What one of them missed meanwhile comes as one change, once it listens.
    let late = &mut deaf[0].stream;
    for kind in [Cluster, Route] {
        let response = late.next().await;
        assert_eq!(response.kind, kind);
        late.accept(&response).await;
    }
    assert_eq!(Some(late.next().await.versions()), newest);
    drop(deaf);
    plane.until_count(1).await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_tls_port_a_caller_must_prove_who_it_is() {
    let plane = Plane::start().await;
    let anonymous = secure_channel(&plane, None).await;
    assert_eq!(client::first_failure(anonymous, None).await.code(), Code::Unauthenticated);
    let nonsense = secure_channel(&plane, None).await;
    assert_eq!(
        client::first_failure(nonsense, Some("nonsense")).await.code(),
        Code::Unauthenticated
    );

    // A good token of another namespace, or another account than the workload's.
    for (namespace, account) in [("other", "cart"), ("shop", "thief")] {
        let token = plane.join_token(namespace, account);
        let channel = secure_channel(&plane, None).await;
        let mut proxy = Delta::with_token(channel, SIDECAR, &token).await;
        proxy
            .send(DeltaDiscoveryRequest {
                node: Some(node(SIDECAR, &[])),
                ..proxy.request(Cluster)
            })
            .await;
        assert_eq!(proxy.failure().await.code(), Code::PermissionDenied, "{namespace}/{account}");
    }

    let token = plane.join_token("shop", "cart");
    let mut proxy = Delta::with_token(secure_channel(&plane, None).await, SIDECAR, &token).await;
    assert!(proxy.fetch(Cluster, &[]).await.contains(CART));
    assert_eq!(
        plane.only_proxy().identity.as_deref(),
        Some("spiffe://cluster.local/ns/shop/sa/cart")
    );
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_the_signing_service_opens_the_door() {
    let plane = Plane::start().await;
    let token = plane.join_token("shop", "cart");
    let identity = client::sign(&plane, &token).await;
    let channel = secure_channel(&plane, Some(&identity)).await;
    let mut proxy = Delta::connect(channel, SIDECAR).await;
    assert!(proxy.fetch(Listener, &[]).await.contains("virtualInbound"));
    assert_eq!(
        plane.only_proxy().identity.as_deref(),
        Some("spiffe://cluster.local/ns/shop/sa/cart")
    );

    // A certificate of somebody else's authority does not even get through the handshake.
    let stranger = client::self_signed();
    assert!(client::try_secure_channel(&plane, Some(&stranger)).await.is_err());
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_its_own_credentials_over_tls_and_nobody_gets_them_in_the_clear() {
    let plane = Plane::start().await;
    let names = ["kubernetes://web-cert", "kubernetes://not-mine"];

    let mut believed = Delta::connect(plane.plaintext().await, GATEWAY).await;
    believed.subscribe(Secret, &names).await;
    believed.expect_silence().await;

    let token = plane.join_token("shop", "cart");
    let mut sidecar = Delta::with_token(secure_channel(&plane, None).await, SIDECAR, &token).await;
    sidecar.subscribe(Secret, &names).await;
    sidecar.expect_silence().await;

    let token = plane.join_token("edge", "gateway");
    let mut gateway = Delta::with_token(secure_channel(&plane, None).await, GATEWAY, &token).await;
    gateway.subscribe(Secret, &names).await;
    let secrets = gateway.next().await;
    assert_eq!(
        (secrets.kind, secrets.names().collect::<Vec<_>>()),
        (Secret, vec!["kubernetes://web-cert"])
    );
    gateway.accept(&secrets).await;
    gateway.expect_silence().await;

    // A renewed certificate reaches the gateway at once.
    plane.write("secret.yaml", &plane::secret("web-cert", "edge"));
    let renewed = gateway.next().await;
    assert_eq!(renewed.names().collect::<Vec<_>>(), ["kubernetes://web-cert"]);
    assert_ne!(renewed.versions(), secrets.versions());
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_becomes_known_gets_its_inbound_side() {
    let plane = Plane::start().await;
    let late = "sidecar~10.1.0.99~late-0.shop~shop.svc.cluster.local";
    let token = plane.join_token("shop", "late");
    let mut proxy = Delta::with_token(secure_channel(&plane, None).await, late, &token).await;
    assert!(!proxy.fetch(Listener, &[]).await.contains("virtualInbound"));
    plane.write("late.yaml", &plane::pod("late-0", "shop", "late", "10.1.0.99"));
    let change = proxy.next().await;
    assert!(change.kind == Listener && change.contains("virtualInbound"), "{change:?}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_stops_the_start_with_advice() {
    let plane = Plane::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = plane::settings(dir.path());
    settings.xds_address = plane.control.addresses.xds;
    let error = ControlPlane::start(settings, std::sync::Arc::default())
        .await
        .err()
        .expect("the port is taken")
        .to_string();
    assert!(error.contains("--xds-address") && error.contains("stop the process"), "{error}");
    plane.stop().await;
}

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_type(url: &str) -> ResourceType {
    ResourceType::from_type_url(url).unwrap_or_else(|| panic!("unexpected type {url}"))
}

fn find<'a>(list: &'a [ProxyStatus], id: &str) -> Option<&'a ProxyStatus> {
    list.iter().find(|p| p.id == id)
}
