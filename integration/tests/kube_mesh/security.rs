//! Identity, mutual TLS and authorization, as answers show them.

use ferromesh_integration::mesh::Mesh;

use crate::{CALLERS, OUTSIDE, REVIEWS, say};

pub(crate) fn pods_have_a_sidecar_of_the_kind_they_ask_for(mesh: &Mesh) {
    say("pods have a sidecar of the kind they ask for");
    let image = |app: &str| {
        let sidecar = "jsonpath={.items[0].spec.initContainers[?(@.name==\"istio-proxy\")].image}";
        let selector = format!("--selector=app={app}");
        mesh.cluster.kubectl(&["get", "pods", "--namespace=shop", &selector, "--output", sidecar])
    };
    assert_eq!(image("storefront"), "ferromesh/proxy:0.1.0");
    assert_eq!(image("storefront-envoy"), "ferromesh/envoy:0.1.0");
    let outside = [
        "get",
        "pods",
        "--namespace=outside",
        "--output",
        "jsonpath={.items[*].spec.initContainers}",
    ];
    assert_eq!(mesh.cluster.kubectl(&outside), "");
}

pub(crate) fn the_callee_learns_the_callers_account(mesh: &Mesh) {
    say("the callee learns the caller's account");
    for caller in CALLERS {
        let wanted = "URI=spiffe://cluster.local/ns/shop/sa/storefront";
        mesh.until(caller, REVIEWS, &[], |answers| {
            answers.status(200) == 20
                && answers.version("v1") > 0
                && answers.version("v2") > 0
                && answers.seen("x-forwarded-client-cert").contains(wanted)
        });
    }
    assert_eq!(
        mesh.get(OUTSIDE.0, OUTSIDE.1, REVIEWS, 20, &[]).status(200),
        20,
        "plaintext is served until told otherwise"
    );
}

pub(crate) fn strict_refuses_who_is_outside_and_permissive_serves_them(mesh: &Mesh) {
    say("STRICT refuses who is outside, PERMISSIVE serves them");
    let policy = |mode: &str| {
        mesh.cluster.apply(&format!(
            "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"
        ));
    };
    policy("STRICT");
    mesh.until(OUTSIDE, REVIEWS, &[], |answers| {
        answers.statuses.is_empty() && !answers.failed.is_empty()
    });
    for (namespace, workload) in CALLERS {
        let answers = mesh.get(namespace, workload, REVIEWS, 100, &[]);
        assert_eq!(answers.status(200), 100, "{answers:#?}");
    }
    policy("PERMISSIVE");
    mesh.until(OUTSIDE, REVIEWS, &[], |answers| answers.status(200) == 20);
    policy("STRICT");
    mesh.until(OUTSIDE, REVIEWS, &[], |answers| answers.statuses.is_empty());
    mesh.until_status(
        "shop",
        "peerauthentication/default",
        ".status.conditions[?(@.type==\"Accepted\")].status",
        |s| s == "True",
    );
}

pub(crate) fn a_principal_may_be_let_in_and_others_are_refused(mesh: &Mesh) {
    say("a principal may be let in, others are refused");
    let intruder = ("shop", "deployment/intruder");
    assert_eq!(mesh.get(intruder.0, intruder.1, REVIEWS, 20, &[]).status(200), 20);
    mesh.cluster.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/storefront]}}]}]
",
    );
    mesh.until(intruder, REVIEWS, &[], |answers| answers.status(403) == 20);
    for (namespace, workload) in CALLERS {
        let answers = mesh.get(namespace, workload, REVIEWS, 50, &[]);
        assert_eq!(answers.status(200), 50, "{answers:#?}");
    }
    mesh.cluster.kubectl(&["delete", "authorizationpolicy/reviews", "--namespace=shop"]);
    mesh.until(intruder, REVIEWS, &[], |answers| answers.status(200) == 20);
}
