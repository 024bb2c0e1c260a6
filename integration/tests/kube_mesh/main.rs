//! The mesh in a real cluster: one chart, a labelled namespace of plain Deployments and Services,
//! and every hop is mutual TLS; each behaviour is seen in answers that came through sidecars, ours
//! and Envoy's, both as callers and as callees. One cluster serves all of it, in order. Needs root,
//! the images of `integration/images.sh`, and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

mod ingress;
mod security;
mod traffic;
mod workloads;

use ferromesh_integration::mesh::Mesh;

/// The callers in the mesh: behind our proxy, and behind Envoy.
const CALLERS: [(&str, &str); 2] =
    [("shop", "deployment/storefront"), ("shop", "deployment/storefront-envoy")];
/// A caller outside the mesh.
const OUTSIDE: (&str, &str) = ("outside", "deployment/caller");
const REVIEWS: &str = "http://reviews.shop/";

/// Progress of a test that takes minutes.
#[allow(clippy::print_stderr, reason = "progress, which the test runner shows when the test fails")]
fn say(what: &str) {
    eprintln!("-- {what}");
}

fn open_the_shop(mesh: &Mesh) {
    // A namespace is labelled before pods come into it; both are in one file, as people write them.
    mesh.cluster.apply(include_str!("shop.yaml"));
    let workloads = [
        "storefront",
        "storefront-envoy",
        "intruder",
        "reviews-v1",
        "reviews-v2",
        "ratings-good",
        "ratings-broken",
    ];
    for workload in workloads {
        mesh.ready("shop", &format!("deployment/{workload}"));
    }
    mesh.ready("outside", "deployment/caller");
}

#[test]
fn plain_manifests_in_a_labelled_namespace_become_a_mesh() {
    let mesh = Mesh::install(&["leafTtl=40s"]);
    open_the_shop(&mesh);

    security::pods_have_a_sidecar_of_the_kind_they_ask_for(&mesh);
    security::the_callee_learns_the_callers_account(&mesh);
    security::strict_refuses_who_is_outside_and_permissive_serves_them(&mesh);
    security::a_principal_may_be_let_in_and_others_are_refused(&mesh);

    traffic::weights_split_requests(&mesh);
    traffic::a_header_chooses_the_version(&mesh);
    traffic::faults_and_timeouts_happen(&mesh);
    traffic::a_failing_endpoint_is_ejected(&mesh);

    ingress::a_gateway_serves_http_and_https_with_a_certificate_that_changes(&mesh);

    workloads::every_kind_of_probe_passes_under_strict(&mesh);
    workloads::a_job_ends(&mesh);
    workloads::each_pod_of_a_headless_service_is_reached_by_name(&mesh);
    workloads::services_without_pods_of_their_own_work(&mesh);
}
