//! Routes and resilience, as answers show them.

use std::time::{Duration, Instant};

use ferromesh_integration::mesh::Mesh;

use crate::{CALLERS, REVIEWS, say};

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

fn routes(mesh: &Mesh, http: &str) {
    mesh.cluster.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http:
{http}
"
    ));
    mesh.until_status(
        "shop",
        "virtualservice/reviews",
        ".status.conditions[?(@.type==\"Accepted\")].status",
        |s| s == "True",
    );
}

pub(crate) fn weights_split_requests(mesh: &Mesh) {
    say("weights split requests");
    mesh.cluster.apply(SUBSETS);
    routes(
        mesh,
        "  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}",
    );
    for caller in CALLERS {
        mesh.until(caller, REVIEWS, &[], |answers| answers.version("v1") >= 12);
        let answers = mesh.get(caller.0, caller.1, REVIEWS, 4000, &[]);
        // Ten percent of 4,000, four standard deviations to either side.
        assert!(
            answers.status(200) == 4000 && (324..=476).contains(&answers.version("v2")),
            "{answers:#?}"
        );
    }
}

pub(crate) fn a_header_chooses_the_version(mesh: &Mesh) {
    say("a header chooses the version");
    routes(
        mesh,
        "  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]",
    );
    for caller in CALLERS {
        mesh.until(caller, REVIEWS, &[], |answers| answers.version("v1") == 20);
        mesh.until(caller, REVIEWS, &["end-user=jason"], |answers| answers.version("v2") == 20);
    }
}

pub(crate) fn faults_and_timeouts_happen(mesh: &Mesh) {
    say("faults and timeouts happen");
    routes(
        mesh,
        "  - match: [{headers: {fault: {exact: abort}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{headers: {fault: {exact: delay}}}]
    fault: {delay: {fixedDelay: 1s, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - timeout: 500ms
    route: [{destination: {host: reviews}}]",
    );
    for caller in CALLERS {
        mesh.until(caller, REVIEWS, &["fault=abort"], |answers| answers.status(418) == 20);
        let begin = Instant::now();
        let answers = mesh.get(caller.0, caller.1, REVIEWS, 1, &["fault=delay"]);
        assert!(
            answers.status(200) == 1 && begin.elapsed() >= Duration::from_millis(900),
            "{answers:#?}"
        );
        let answers = mesh.get(caller.0, caller.1, "http://reviews.shop/delay/5000", 4, &[]);
        assert_eq!(answers.status(504), 4, "{answers:#?}");
    }
    mesh.cluster.kubectl(&["delete", "virtualservice/reviews", "--namespace=shop"]);
    for caller in CALLERS {
        mesh.until(caller, REVIEWS, &["fault=abort"], |answers| answers.status(200) == 20);
    }
}

pub(crate) fn a_failing_endpoint_is_ejected(mesh: &Mesh) {
    say("a failing endpoint is ejected");
    let ratings = "http://ratings.shop/";
    let seen = |caller: (&str, &str)| {
        mesh.get(caller.0, caller.1, ratings, 40, &["x-envoy-max-retries=0"]).status(503)
    };
    for caller in CALLERS {
        assert!(seen(caller) >= 5, "half of the endpoints answer every request with 503");
    }
    mesh.cluster.apply(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings, namespace: shop}
spec:
  host: ratings
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 10m, maxEjectionPercent: 100}
",
    );
    for caller in CALLERS {
        mesh.until(caller, ratings, &[], |answers| {
            answers.version("good") == 20 && answers.status(200) == 20
        });
    }
}
