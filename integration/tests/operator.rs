//! What an operator types, against a running control plane: findings where they are looked for, what
//! commands print, and how they end.
#![cfg(feature = "e2e")]

use std::time::Duration;

use ferromesh_integration::{
    plane::{ControlPlane, subscribe},
    process::until,
};
use ferromesh_proto::ResourceType;

const PATIENCE: Duration = Duration::from_secs(30);
const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews.example]
  http:
  - route: [{destination: {host: nowhere.shop.svc.cluster.local}}]
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: reviews}, ports: [{name: http, port: 80}]}
";

struct Desk(ControlPlane);

impl Desk {
    /// What a command printed; it must end as `well` says.
    fn types(&self, line: &str, well: bool) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (ended_well, said) = self.0.administer(&words);
        assert_eq!(ended_well, well, "{line}: {said}");
        said
    }

    fn sees(&self, line: &str, well: bool, parts: &[&str]) {
        let said = self.types(line, well);
        for part in parts {
            assert!(said.contains(part), "{line}: no {part:?} in\n{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_show_where_people_look_and_commands_end_as_they_should() {
    let plane = ControlPlane::new("127.80.53.1");
    plane.write("service.yaml", SERVICE);
    let process = plane.start();
    let desk = Desk(plane);
    desk.sees("diagnostics", true, &["0 findings"]);
    desk.0.write("routes.yaml", ROUTES);
    let mark = "routes.yaml:8:";
    until(PATIENCE, "the finding is in the log", || process.output().contains(mark));
    desk.sees("diagnostics", false, &[mark, "error-ref[FM0201]", "nowhere"]);
    desk.sees("diagnostics -n bank", true, &["0 findings"]);
    desk.sees("check", false, &["√ a control plane answers", "× nothing is refused", "1 errors"]);
    until(PATIENCE, "the finding is counted", || {
        desk.0.metrics().contains("mesh_findings{severity=\"error-ref\"} 1")
    });

    let wide = desk.types("get vs -A -o wide", true);
    let row = wide.lines().find(|line| line.contains("reviews")).expect("a row");
    assert!(row.contains("routes.yaml:1") && row.contains("1 error-ref"), "{row}");
    desk.sees("get vs reviews -n shop -o yaml", true, &["kind: \"VirtualService\""]);
    desk.sees("get svc -o name", true, &["services/reviews"]);
    desk.sees(
        "get vs reviews",
        false,
        &["no VirtualService reviews is in force in namespace default"],
    );
    desk.sees("get vs reviews -A", true, &["nowhere.shop"]);
    desk.sees("describe vs reviews -n shop", true, &["Source:     directory", mark, "Object:"]);
    desk.sees("delete vs reviews -n shop", false, &["routes.yaml:1: take it out there"]);

    let nonsense = "apiVersion: example.org/v1\nkind: Nonsense\nmetadata: {name: a}\n";
    std::fs::write(desk.0.path("apply.yaml"), format!("{SERVICE}---\n{nonsense}")).expect("a file");
    let file = desk.0.path("apply.yaml").display().to_string();
    desk.sees(&format!("apply -f {file}"), false, &["Service shop/reviews stored", "1 documents"]);
    desk.sees("delete svc reviews -n shop", true, &["Service shop/reviews deleted"]);

    let _stream = subscribe(&desk.0.host, "client", ResourceType::Cluster, &["*"]).await;
    until(PATIENCE, "the proxy is listed", || {
        desk.0.administer(&["proxy-status"]).1.contains("client.default")
    });
    let clusters = desk.types("proxy-config client.default clusters", true);
    assert!(clusters.contains("SERVICE FQDN") && clusters.contains("reviews.shop"), "{clusters}");
    desk.sees("proxy-config routes client.default", true, &["VHOST NAME", "reviews.shop"]);
    desk.sees("proxy-config client.default nonsense", false, &["listeners, routes, clusters"]);
    desk.sees("version", true, &["client: ", "control plane: ", "proxies: 1 × "]);
    desk.sees("check", false, &["‼ every proxy has proved its identity"]);

    // Said once, although it was looked for again and again; mended, and it is gone.
    assert_eq!(process.output().matches(mark).count(), 1, "{}", process.output());
    desk.0.write("routes.yaml", "# nothing\n");
    until(PATIENCE, "the finding is gone", || {
        desk.0.administer(&["diagnostics"]).1.contains("0 findings")
    });
}
