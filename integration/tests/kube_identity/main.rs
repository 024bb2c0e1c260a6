//! Who is who in a real cluster: tokens of pods become certificates and streams, everything else is
//! refused with a reason in the audit log; one root outlives every control plane and is published
//! everywhere. Needs root, and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

mod caller;
mod plane;
mod token;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ferromesh_integration::{kube_cluster::KubeCluster, process::until};
use ferromesh_proto::ResourceType;
use tonic::Code;

use self::plane::{Plane, SOON, refused};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const CART_NODE: &str = "sidecar~10.80.0.1~cart.shop~shop.svc.cluster.local";
/// A proxy whose account it has, on a machine that no pod is.
const MACHINE_NODE: &str = "sidecar~10.9.9.9~machine.shop~shop.svc.cluster.local";
const ROOT_MAP: &str = "istio-ca-root-cert";

/// The certificate that signs is replaced half a minute after it was made: it is dated back by two.
const SHORT_LIVED: [&str; 4] = ["--leaf-ttl", "30s", "--signer-ttl", "180s"];

/// Two namespaces with an account and a pod each, which nobody runs, and a gateway's credential in
/// one of them.
const PEOPLE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: vault, namespace: bank}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop}
spec: {serviceAccountName: cart, schedulerName: nobody, containers: [{name: app, image: none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: bank}
spec: {serviceAccountName: vault, schedulerName: nobody, containers: [{name: app, image: none}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn pods_prove_who_they_are_and_one_root_outlives_every_control_plane() {
    let cluster = KubeCluster::up();
    let missing = refused("127.80.70.1", &cluster, &[]);
    assert!(missing.contains("kubectl create namespace istio-system"), "{missing}");
    cluster.kubectl(&["create", "namespace", "istio-system"]);
    cluster.apply(PEOPLE);

    let planes = replicas_that_start_at_once_share_one_root(&cluster);
    let plane = &planes[0];
    a_good_token_gets_a_certificate_and_configuration_and_the_certificate_renews_itself(
        &cluster, plane,
    )
    .await;
    bad_tokens_get_nothing_and_the_log_says_why(&cluster, plane).await;
    a_certificate_renews_itself_only_while_a_pod_has_its_account(&cluster, plane).await;
    nobody_gets_what_is_of_another(&cluster, plane).await;
    every_namespace_holds_the_root(&cluster, &planes);
    replicas_know_which_machines_are_connected_elsewhere(&cluster, &planes).await;
    certificates_prove_while_the_api_server_is_away_and_tokens_wait(&cluster, plane).await;
    replicas_renew_their_signer_together(&cluster, &planes).await;
    let root = plane.roots();
    drop(planes);
    an_empty_file_system_keeps_the_root_and_a_lost_secret_is_never_replaced(&cluster, &root);
    the_root_of_a_live_istiod_is_left_alone_until_told_otherwise(&cluster);
}

fn replicas_that_start_at_once_share_one_root(cluster: &KubeCluster) -> [Plane; 2] {
    let mut planes =
        ["127.80.70.1", "127.80.71.1"].map(|host| Plane::begin(host, cluster, &SHORT_LIVED));
    planes.iter_mut().for_each(Plane::until_ready);
    let roots: BTreeSet<String> = planes.iter().map(Plane::roots).collect();
    assert_eq!(roots.len(), 1, "{roots:?}");
    assert_eq!(roots.first().map(|pem| pem.matches("BEGIN CERTIFICATE").count()), Some(1));
    let secret =
        cluster.kubectl(&["get", "secret", "ferromesh-ca", "-n", "istio-system", "-o", "json"]);
    assert!(
        secret.contains("authority.sealed")
            && secret.contains("ferromesh.io/certificate-authority"),
        "{secret}"
    );
    planes
}

async fn a_good_token_gets_a_certificate_and_configuration_and_the_certificate_renews_itself(
    cluster: &KubeCluster,
    plane: &Plane,
) {
    let port = plane.port();
    let token = token::of_pod(cluster, "shop", "cart", "cart");
    let first = port.sign(Some(&token), None, CART).await.expect("a certificate");
    assert_eq!((first.chain.len(), &first.roots), (2, &plane.roots()));
    plane.until_said(&["certificate issued", CART, "kubernetes token JTI=", "of pod shop/cart"]);
    assert!(
        plane.metrics().contains("mesh_token_reviews_total{outcome=\"accepted\"} 1"),
        "{}",
        plane.metrics()
    );
    assert!(port.clusters(Some(&token), None, CART_NODE).await.expect("a stream") > 0);

    let second = port.sign(None, Some(&first), CART).await.expect("a renewal");
    assert_ne!(first.chain[0], second.chain[0]);
    assert!(
        port.clusters(None, Some(&second), CART_NODE).await.expect("a stream by certificate") > 0
    );
    assert!(!plane.output().contains(&token), "the log shows a token");
}

/// A caller with this token gets neither certificate nor stream, is told nothing, and the log has
/// all of `words`.
async fn check_refused(plane: &Plane, token: &str, words: &[&str]) {
    let port = plane.port();
    let refusal = port.sign(Some(token), None, CART).await.err().expect("refused");
    assert_eq!((refusal.code(), refusal.message()), (Code::Unauthenticated, "not authenticated"));
    plane.until_said(
        &[&["audit", "certificate request not authenticated", "peer=Some(127."], words].concat(),
    );
    let refusal = port.clusters(Some(token), None, CART_NODE).await.expect_err("refused");
    assert_eq!((refusal.code(), refusal.message()), (Code::Unauthenticated, "not authenticated"));
    plane.until_said(
        &[&["audit", "xDS stream not authenticated", "peer=Some(127."], words].concat(),
    );
    assert!(!plane.output().contains(token), "the log shows a token");
}

async fn bad_tokens_get_nothing_and_the_log_says_why(cluster: &KubeCluster, plane: &Plane) {
    let pod = ["--bound-object-kind", "Pod", "--bound-object-name", "cart"];
    let other_audience =
        token::make(cluster, "shop", "cart", &[&["--audience", "vault"], &pod[..]].concat());
    check_refused(plane, &other_audience, &["system:serviceaccount:shop:cart", "audiences"]).await;
    let no_audience = token::make(cluster, "shop", "cart", &pod);
    check_refused(
        plane,
        &no_audience,
        &["system:serviceaccount:shop:cart", "audiences", "kubernetes.default"],
    )
    .await;
    let no_pod = token::make(cluster, "shop", "cart", &["--audience", "istio-ca"]);
    check_refused(plane, &no_pod, &["system:serviceaccount:shop:cart", "bound to no pod"]).await;
    let expired = token::expired(cluster, &token::of_pod(cluster, "shop", "cart", "cart"));
    check_refused(plane, &expired, &["system:serviceaccount:shop:cart", "expired"]).await;
    check_refused(plane, "no.token", &["not a JWT"]).await;

    cluster.apply(
        &PEOPLE
            .replace("name: cart, namespace: shop}\nspec", "name: brief, namespace: shop}\nspec"),
    );
    let of_deleted = token::of_pod(cluster, "shop", "cart", "brief");
    let port = plane.port();
    port.sign(Some(&of_deleted), None, CART).await.expect("while the pod lives");
    cluster.kubectl(&["delete", "pod", "brief", "-n", "shop", "--grace-period=0", "--force"]);
    // Acceptances are remembered for seconds: by us, and for longer by the API server, which
    // forgets that a pod is gone.
    let begin = Instant::now();
    while port.sign(Some(&of_deleted), None, CART).await.is_ok() {
        assert!(begin.elapsed() < SOON, "a token outlives its pod");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    check_refused(plane, &of_deleted, &["system:serviceaccount:shop:cart"]).await;
    let said = plane.output();
    assert!(
        said.contains("pod shop/brief does not exist") || said.contains("has been invalidated"),
        "{said}"
    );
}

async fn a_certificate_renews_itself_only_while_a_pod_has_its_account(
    cluster: &KubeCluster,
    plane: &Plane,
) {
    let port = plane.port();
    let guest = CART.replace("cart", "guest");
    cluster.kubectl(&["create", "serviceaccount", "guest", "-n", "shop"]);
    cluster.apply(&PEOPLE.replace(
        "name: cart, namespace: shop}\nspec: {serviceAccountName: cart",
        "name: guest, namespace: shop}\nspec: {serviceAccountName: guest",
    ));
    // Signed at once, whether or not the pod is known already.
    let token = token::of_pod(cluster, "shop", "guest", "guest");
    let held = port.sign(Some(&token), None, &guest).await.expect("a certificate");
    until(SOON, "the pod is known", || plane.workloads().contains("guest"));
    port.sign(None, Some(&held), &guest).await.expect("a renewal");
    cluster.kubectl(&["delete", "pod", "guest", "-n", "shop", "--grace-period=0", "--force"]);
    let begin = Instant::now();
    let refusal = loop {
        match port.sign(None, Some(&held), &guest).await {
            Ok(_) => assert!(begin.elapsed() < SOON, "a certificate outlives its pods"),
            Err(refusal) => break refusal,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(refusal.code(), Code::PermissionDenied);
    plane.until_said(&["audit", "renewal refused: no such workload", &guest, "peer=Some(127."]);
}

async fn nobody_gets_what_is_of_another(cluster: &KubeCluster, plane: &Plane) {
    let port = plane.port();
    let cart = token::of_pod(cluster, "shop", "cart", "cart");
    let vault = token::of_pod(cluster, "bank", "vault", "vault");

    // Another namespace's token, and another identity of the same namespace.
    let refusal = port.sign(Some(&vault), None, CART).await.err().expect("refused");
    assert!(
        refusal.code() == Code::InvalidArgument && refusal.message().contains("ns/bank/sa/vault"),
        "{refusal}"
    );
    plane.until_said(&[
        "audit",
        "certificate request refused",
        "id=spiffe://cluster.local/ns/bank/sa/vault",
        CART,
    ]);
    let other = "spiffe://cluster.local/ns/shop/sa/admin";
    let refusal = port.sign(Some(&cart), None, other).await.err().expect("refused");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    plane.until_said(&[
        "audit",
        "certificate request refused",
        &format!("id={CART}"),
        other,
        "of pod shop/cart",
    ]);
    let refusal = port.clusters(Some(&vault), None, CART_NODE).await.expect_err("refused");
    assert_eq!(refusal.code(), Code::PermissionDenied);
    plane.until_said(&["audit", "xDS stream refused", "ns/bank/sa/vault"]);

    // Secrets of another namespace, and such as no Gateway names.
    let held = port.sign(Some(&cart), None, CART).await.expect("a certificate");
    let names = ["kubernetes://bank/web", "kubernetes://web"];
    let mut stream = port
        .ask(None, Some(&held), CART_NODE, (ResourceType::Secret, &names))
        .await
        .expect("a stream");
    for (name, why) in names.into_iter().zip(["of namespace bank", "no Gateway"]) {
        plane.until_said(&["audit", "secret refused", name, CART, "cart.shop", why]);
    }
    let answer = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(answer.is_err(), "{answer:?}");
}

fn published(cluster: &KubeCluster, namespace: &str) -> Option<String> {
    let path = "jsonpath={.data.root-cert\\.pem}";
    cluster.try_kubectl(&["get", "configmap", ROOT_MAP, "-n", namespace, "-o", path]).ok()
}

fn until_published(cluster: &KubeCluster, namespace: &str, root: &str) {
    until(SOON, &format!("the root in namespace {namespace}"), || {
        published(cluster, namespace).as_deref() == Some(root)
    });
}

fn every_namespace_holds_the_root(cluster: &KubeCluster, planes: &[Plane; 2]) {
    let root = planes[0].roots();
    for namespace in ["default", "kube-system", "istio-system", "shop", "bank"] {
        until_published(cluster, namespace, &root);
    }
    cluster.kubectl(&["create", "namespace", "late"]);
    until_published(cluster, "late", &root);
    cluster.kubectl(&[
        "patch",
        "configmap",
        ROOT_MAP,
        "-n",
        "shop",
        "-p",
        r#"{"data":{"root-cert.pem":"forged"}}"#,
    ]);
    until_published(cluster, "shop", &root);
    cluster.kubectl(&[
        "label",
        "configmap",
        ROOT_MAP,
        "-n",
        "bank",
        "istio.io/config-",
        "app.kubernetes.io/managed-by-",
    ]);
    let ours = [
        "get",
        "configmaps",
        "-A",
        "-l",
        "istio.io/config=true,app.kubernetes.io/managed-by=ferromesh",
        "-o",
        "name",
    ];
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"]).lines().count();
    until(SOON, "both labels everywhere", || cluster.kubectl(&ours).lines().count() == namespaces);
    cluster.kubectl(&["delete", "configmap", ROOT_MAP, "-n", "late"]);
    until_published(cluster, "late", &root);
    let shown = format!("mesh_roots_published {namespaces}");
    until(SOON, &shown, || planes.iter().any(|plane| plane.metrics().contains(&shown)));
    cluster.kubectl(&["delete", "namespace", "late", "--timeout=60s"]);

    // A deleted Secret is put back by those who know what was in it.
    cluster.kubectl(&["delete", "secret", "ferromesh-ca", "-n", "istio-system"]);
    until(SOON, "the Secret again", || {
        cluster.try_kubectl(&["get", "secret", "ferromesh-ca", "-n", "istio-system"]).is_ok()
    });
}

/// Pods are the API server's to tell.
async fn replicas_know_which_machines_are_connected_elsewhere(
    cluster: &KubeCluster,
    [first, second]: &[Plane; 2],
) {
    let token = token::of_pod(cluster, "shop", "cart", "cart");
    let held = first.port().sign(Some(&token), None, CART).await.expect("a certificate");
    let clusters = (ResourceType::Cluster, ["*"].as_slice());
    let port = first.port();
    let pod = port.ask(None, Some(&held), CART_NODE, clusters).await.expect("a stream");
    let machine = port.ask(None, Some(&held), MACHINE_NODE, clusters).await.expect("a stream");
    let knows = |plane: &Plane, number: usize| {
        plane.metrics().lines().any(|line| line == format!("mesh_connected_elsewhere {number}"))
    };
    until(SOON, "the machine is known to the other replica", || knows(second, 1));
    let said = || {
        let words = "jsonpath={.items[*].data.connections}";
        let label = "ferromesh.io/connections";
        cluster.kubectl(&["get", "configmaps", "-n", "istio-system", "-l", label, "-o", words])
    };
    assert_eq!(said(), format!("{CART} 10.9.9.9"));
    assert!(knows(first, 0), "nobody hears itself");
    drop((pod, machine));
    until(SOON, "the machine is gone", || knows(second, 0));
    assert_eq!(said(), "");
}

async fn certificates_prove_while_the_api_server_is_away_and_tokens_wait(
    cluster: &KubeCluster,
    plane: &Plane,
) {
    let port = plane.port();
    let [token, other] = [(); 2].map(|()| token::of_pod(cluster, "shop", "cart", "cart"));
    let held = port.sign(Some(&other), None, CART).await.expect("a certificate");
    cluster.restart("apiserver");
    let by_token = port.sign(Some(&token), None, CART).await;
    port.sign(None, Some(&held), CART).await.expect("a renewal needs nobody else");
    assert!(port.clusters(None, Some(&held), CART_NODE).await.expect("nor does a stream") > 0);
    assert_eq!(by_token.err().map(|status| status.code()), Some(Code::Unavailable));
    plane.until_said(&["audit", "cannot be checked now", "system:serviceaccount:shop:cart"]);
    let begin = Instant::now();
    while let Err(status) = port.sign(Some(&token), None, CART).await {
        assert!(status.code() == Code::Unavailable && begin.elapsed() < SOON, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One replica makes the next signer, the other takes it over.
async fn replicas_renew_their_signer_together(cluster: &KubeCluster, planes: &[Plane; 2]) {
    let renewed =
        || planes.iter().any(|plane| plane.output().contains("signing certificate renewed"));
    until(2 * SOON, "the signer is renewed", renewed);
    let token = token::of_pod(cluster, "shop", "cart", "cart");
    let begin = Instant::now();
    loop {
        let mut signers = BTreeSet::new();
        for plane in planes {
            let issued = plane.port().sign(Some(&token), None, CART).await.expect("a certificate");
            assert_eq!(issued.roots, planes[0].roots());
            signers.insert(issued.chain[1].to_vec());
        }
        if signers.len() == 1 {
            break;
        }
        assert!(begin.elapsed() < SOON, "the replicas sign with different certificates");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn an_empty_file_system_keeps_the_root_and_a_lost_secret_is_never_replaced(
    cluster: &KubeCluster,
    root: &str,
) {
    assert_eq!(Plane::start("127.80.70.1", cluster, &[]).roots(), root);

    let secret =
        cluster.kubectl(&["get", "secret", "ferromesh-ca", "-n", "istio-system", "-o", "json"]);
    let damage = r#"{"data":{"authority.sealed":"ZGFtYWdlZA=="}}"#;
    cluster.kubectl(&["patch", "secret", "ferromesh-ca", "-n", "istio-system", "-p", damage]);
    let words = refused("127.80.70.1", cluster, &["--new-root"]);
    assert!(words.contains("restore Secret istio-system/ferromesh-ca from a backup"), "{words}");
    cluster.kubectl(&["delete", "secret", "ferromesh-ca", "-n", "istio-system"]);
    let words = refused("127.80.70.1", cluster, &[]);
    assert!(words.contains("key is lost") && words.contains("--new-root"), "{words}");
    assert!(cluster.try_kubectl(&["get", "secret", "ferromesh-ca", "-n", "istio-system"]).is_err());

    cluster.apply(&without_version(&secret));
    assert_eq!(Plane::start("127.80.70.1", cluster, &[]).roots(), root);
}

/// What a backup holds.
fn without_version(object: &str) -> String {
    let mut object: serde_json::Value = serde_json::from_str(object).expect("JSON");
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|key, _| ["name", "namespace", "labels"].contains(&key.as_str()));
    object.to_string()
}

/// As istiod leaves it: no word of ours, and endpoints that say that it serves.
const ISTIOD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: shop, labels: {istio.io/config: 'true'}}
data: {root-cert.pem: of-istiod}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: istiod-1, namespace: istio-system, labels: {app: istiod, kubernetes.io/service-name: istiod}}
addressType: IPv4
endpoints: [{addresses: [10.9.8.7], conditions: {ready: true}}]
ports: [{name: grpc-xds, port: 15010, protocol: TCP}]
";

fn the_root_of_a_live_istiod_is_left_alone_until_told_otherwise(cluster: &KubeCluster) {
    cluster.kubectl(&["delete", "configmap", ROOT_MAP, "-n", "shop"]);
    cluster.apply(ISTIOD);
    {
        let plane = Plane::start("127.80.70.1", cluster, &[]);
        plane.until_said(&[
            "ERROR",
            "a live istiod owns ConfigMap istio-ca-root-cert",
            "--take-over-roots",
            "istiod-1",
        ]);
        until(SOON, "the metric", || plane.metrics().contains("mesh_roots_withheld 1"));
        cluster.kubectl(&["create", "namespace", "waits"]);
        until(SOON, "the metric", || plane.metrics().contains("mesh_roots_withheld 2"));
        assert_eq!(published(cluster, "shop").as_deref(), Some("of-istiod"));
        assert_eq!(published(cluster, "waits"), None);
    }
    let plane = Plane::start("127.80.70.1", cluster, &["--take-over-roots"]);
    for namespace in ["shop", "waits"] {
        until_published(cluster, namespace, &plane.roots());
    }
}
