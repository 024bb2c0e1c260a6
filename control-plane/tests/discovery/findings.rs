//! One meaning at every door: the same objects have the same findings offline, in a dry run of all
//! of them, when they are written, in admission, in statuses and in the list of diagnostics.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use ferromesh_control_plane::judge::Judge;
use ferromesh_xds_translator::{
    dialect::{Kind, Object, parse_file, split_api_version},
    ir::MeshDefaults,
};
use http::Method;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{PATIENCE, agreement::Checkers};

/// Code, object and field of a finding.
type Finding = (String, String, String);

/// References that lead nowhere by an object's own words and by the mesh's, conflicts, and remarks.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: bank}
spec: {clusterIP: 10.96.7.1, ports: [{name: http, port: 80}, {name: odd, port: 81}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: stock, namespace: bank}
spec: {host: stock, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lost, namespace: bank}
spec: {host: nobody}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stock, namespace: desk}
spec:
  hosts: [stock.bank.svc.cluster.local]
  http:
  - route: [{destination: {host: stock.bank.svc.cluster.local, subset: v1}}]
    mirrors: [{destination: {host: nowhere}}]
  - route: [{destination: {host: stock.bank.svc.cluster.local, port: {number: 99}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rival, namespace: desk}
spec:
  hosts: [stock.bank.svc.cluster.local]
  gateways: [mesh, gone]
  http: [{route: [{destination: {host: stock.bank.svc.cluster.local}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: bank}
spec: {selector: {matchLabels: {app: nobody}}}
---
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {defaultDestinationRuleExportTo: [.]}
";

/// What is said of some objects, by a list of findings as JSON.
fn about(objects: &[Value], findings: &Value) -> BTreeSet<Finding> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = findings.as_array().into_iter().flatten();
    let ours = findings.filter(|finding| objects.iter().any(|object| is_of(finding, object)));
    ours.map(|f| (text(&f["code"]), f["object"].to_string(), text(&f["field"]))).collect()
}

fn is_of(finding: &Value, object: &Value) -> bool {
    let (id, meta) = (&finding["object"], &object["metadata"]);
    id["name"] == meta["name"]
        && id["namespace"] == *meta.get("namespace").unwrap_or(&json!(""))
        && id["kind"] == object["kind"]
}

/// What `ferromesh analyze` finds in files.
async fn offline(files: &[&Path]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferromesh"));
    command.args(["analyze", "-o", "json"]);
    for file in files {
        command.arg("-f").arg(file);
    }
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("it runs");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["diagnostics"].clone()
}

fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let kind = Kind::find(split_api_version(&api_version).0, &kind).expect("a kind");
    let meta = &object["metadata"];
    format!(
        "/api/v1/objects/{}/{}/{}",
        kind.plural(),
        text(&meta["namespace"]),
        text(&meta["name"])
    )
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_objects_have_the_same_findings_at_every_door() {
    let checkers = Checkers::open().await;
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    fs::write(file.path(), OBJECTS).expect("a file");
    let objects: Vec<Value> =
        parse_file("", OBJECTS.as_bytes()).everything().map(Object::raw).collect();
    let said = offline(&[&checkers.plane.config(), file.path()]).await;
    let expected = about(&objects, &said);
    let codes: BTreeSet<&str> = expected.iter().map(|(code, ..)| code.as_str()).collect();
    assert_eq!(
        codes,
        BTreeSet::from(["FM0201", "FM0203", "FM0205", "FM0207", "FM0210", "FM0239", "FM0244"])
    );

    let address = format!("http://{}", checkers.plane.control.addresses.http);
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    let dry = format!("{address}/api/v1/objects?dryRun=true");
    let (status, body) = checkers.ask(Method::POST, &dry, &list).await;
    assert_eq!(status, 200, "{body}");
    let items = parsed(&body)["items"].as_array().cloned().expect("answers");
    let rehearsed: BTreeSet<Finding> =
        items.iter().flat_map(|item| about(&objects, &item["diagnostics"])).collect();
    assert_eq!(rehearsed, expected, "in a dry run of all");

    for object in &objects {
        let (status, body) =
            checkers.ask(Method::PUT, &format!("{address}{}", path(object)), object).await;
        assert_eq!(status, 201, "{body}");
    }
    let listed = async || {
        let url = format!("{address}/api/v1/diagnostics");
        about(&objects, &parsed(&checkers.ask(Method::GET, &url, &Value::Null).await.1)["items"])
    };
    let reached = timeout(PATIENCE, async {
        while listed().await != expected {
            tokio::task::yield_now().await;
        }
    });
    assert!(reached.await.is_ok(), "listed are {:#?} instead of {expected:#?}", listed().await);
    let judge = Judge::new(checkers.plane.control.mesh.clone(), MeshDefaults::default());
    let statuses = json!(*judge.everything().await.expect("it runs"));
    assert_eq!(about(&objects, &statuses), expected, "for statuses");
    for object in &objects {
        let own = |finding: &&Finding| finding.1 == about_one(object, &said);
        let wanted: BTreeSet<Finding> = expected.iter().filter(own).cloned().collect();
        let again = format!("{address}{}?dryRun=true", path(object));
        let answer = parsed(&checkers.ask(Method::PUT, &again, object).await.1);
        assert_eq!(about(&objects, &answer["diagnostics"]), wanted, "in a dry run of {object}");
        admits(&checkers, object, &said).await;
    }
    checkers.plane.stop().await;
}

/// The identity of an object as findings spell it; empty without any.
fn about_one(object: &Value, said: &Value) -> String {
    let mut findings = said.as_array().into_iter().flatten();
    findings.find(|f| is_of(f, object)).map(|f| f["object"].to_string()).unwrap_or_default()
}

/// Admission warns of everything that is more than a remark, and of nothing else.
async fn admits(checkers: &Checkers, object: &Value, said: &Value) {
    let (allowed, words) = checkers.admit(object).await;
    assert!(allowed, "{words}");
    let findings = said.as_array().into_iter().flatten().filter(|f| is_of(f, object));
    let grave: Vec<&Value> = findings.filter(|f| f["severity"] != "info").collect();
    let warnings = parsed(&words)["warnings"].as_array().map_or(0, Vec::len);
    assert_eq!(warnings, grave.len(), "{words}");
    for finding in grave {
        let code = format!("[{}]", finding["code"].as_str().expect("a code"));
        let field = finding["field"].as_str().expect("a field");
        assert!(words.contains(&code) && words.contains(field), "{finding} in {words}");
    }
}
