//! What an operator types, against a running control plane: findings where they are looked for, what
//! commands print, and how they end.
#![cfg(feature = "e2e")]

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{
    plane::{ControlPlane, curl, program, subscribe},
    process::{Process, until},
};
use ferromesh_proto::ResourceType;
use serde_json::Value;

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

/// Lines of the log, which are JSON, that say this.
fn logged(process: &Process, what: &str) -> Vec<Value> {
    let lines = process.output();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["fields"]["message"] == what).collect()
}

/// `promtool check metrics` has nothing to say of metrics.
fn linted(metrics: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool: integration/peers.sh installs it");
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(metrics.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success() && said.concat().is_empty(), "{said:?}\n{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_logged_and_what_is_logged_is_changed_while_it_runs() {
    let plane = ControlPlane::new("127.80.77.1").with("--log-format", "json");
    plane.write("service.yaml", SERVICE);
    let process = plane.start();
    let desk = Desk(plane);
    let taken = || logged(&process, "configuration taken in");
    until(PATIENCE, "what is taken in is logged", || taken().len() == 1);
    assert_eq!(taken()[0]["fields"]["written"], 1);
    let stream = subscribe(&desk.0.host, "client", ResourceType::Cluster, &["*"]).await;
    until(PATIENCE, "who comes is logged", || logged(&process, "proxy connected").len() == 1);
    drop(stream);
    until(PATIENCE, "who goes is logged", || logged(&process, "proxy gone").len() == 1);
    let gone = &logged(&process, "proxy gone")[0]["fields"];
    assert!(gone["proxy"].as_str().is_some_and(|id| id.contains("client.default")), "{gone}");

    desk.sees("log", true, &["info"]);
    desk.sees("log info,a=nonsense", false, &["target=level pairs"]);
    desk.sees("log warnin", false, &["\"warnin\" is no level"]);
    desk.sees("log -o json", true, &["\"filter\": \"info"]);
    desk.sees("log error", true, &["error"]);
    let second = SERVICE.replace("name: reviews", "name: ratings");
    desk.0.write("second.yaml", &second);
    until(PATIENCE, "it is in force", || {
        desk.types("get svc -A -o name", true).contains("ratings")
    });
    desk.sees("log info", true, &["info"]);
    desk.sees("log", true, &["info"]);
    desk.0.write("third.yaml", SERVICE.replace("name: reviews", "name: details"));
    until(PATIENCE, "it is logged again", || taken().len() == 2);
    desk.sees("get svc -A -o name", true, &["details"]);
    // Whoever changes it is told of, by what was chosen before.
    let changes = logged(&process, "what is logged is to be changed");
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["fields"]["who"], "administrator", "{changes:?}");

    let text = curl(&format!("http://{}/metrics", desk.0.address(15014))).expect("metrics");
    assert!(text.contains("# TYPE mesh_full_rebuilds_total counter"), "{text}");
    assert!(text.contains("# HELP pilot_xds ") && !text.contains("# EOF"), "{text}");
    linted(&text);
    let mut command = Command::new("curl");
    command.args(["-sfi", "-H", "accept: application/openmetrics-text; version=1.0.0"]);
    let output = command.arg(format!("http://{}/metrics", desk.0.address(15014))).output();
    let open = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.contains("# TYPE mesh_full_rebuilds counter") && open.contains("# EOF"), "{open}");
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

#[test]
fn a_control_plane_is_asked_by_its_name() {
    let plane = ControlPlane::new("127.80.78.1");
    plane.write("service.yaml", SERVICE);
    let _process = plane.start();
    let types = |line: &str, well: bool| {
        let mut command = program();
        command.env("XDG_CONFIG_HOME", plane.folder()).args(line.split_whitespace());
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr];
        let said = said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(output.status.success(), well, "{line}: {said}");
        said
    };
    let server = format!("http://{}", plane.address(8080));
    let token = plane.path("data/admin-token").display().to_string();
    types(&format!("context add shop --server {server} --admin-token-file {token}"), true);
    types("context add bank --server http://127.80.78.9:8080", true);
    let said = types("get svc -A --context nobody", false);
    assert!(said.contains("expected one of bank, shop"), "{said}");
    let said = types("context use shop", true);
    assert!(said.contains("shop") && said.contains(&server), "{said}");
    assert!(types("get svc -A", true).contains("reviews"));
    assert!(types("token create -n shop -s cart", true).starts_with("ey"), "by its token");
    assert!(types("get svc -A --context bank", false).contains("127.80.78.9"));
    types("context remove shop", true);
    assert!(!types("context list", true).contains(&server));
    // As users of other tools type it.
    let said = types(&format!("verify-install --server {server}"), true);
    assert!(said.contains("a control plane answers"), "{said}");
    assert!(types("multicluster link", false).contains("a mesh is one cluster"));
}
