//! Whatever the values, no list has two entries of one name and no map two values of one key: Helm
//! merges lists by name, and an upgrade that meets a name twice loses both.

use std::fs;

use ferromesh_xds_translator::yaml;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

use super::render::helm_template;

/// How many random values each chart is rendered with.
const CASES: u64 = 12;

/// Names of variables that the charts have, and others.
const VARIABLES: [&str; 8] = [
    "RUST_LOG",
    "FERROMESH_POD_NAME",
    "FERROMESH_LEAF_TTL",
    "FERROMESH_TAKE_OVER_ROOTS",
    "FERROMESH_SERVER_NAMES",
    "FERROMESH_NEW_ROOT",
    "MINE",
    "OTHER",
];
/// Keys of labels and annotations that the charts have, and others.
const KEYS: [&str; 12] = [
    "app",
    "istio",
    "version",
    "helm.sh/chart",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "istio.io/rev",
    "sidecar.istio.io/inject",
    "prometheus.io/scrape",
    "inject.istio.io/templates",
    "ferromesh.io/proxy",
    "example.org/team",
];
/// Labels that select pods, and ask for a proxy: another value is refused by name.
const FIXED: [&str; 4] =
    ["app", "app.kubernetes.io/name", "sidecar.istio.io/inject", "istio.io/rev"];
const VOLUMES: [&str; 5] = ["data", "injection", "administrator", "certs", "more"];

pub(super) struct Random(pub(super) StdRng);

impl Random {
    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        let count = self.0.random_range(0..=of.len());
        let mut chosen: Vec<&str> = of.sample(&mut self.0, count).copied().collect();
        // A user's list may name something twice.
        if let Some(first) = chosen.first().copied().filter(|_| self.0.random_bool(0.3)) {
            chosen.push(first);
        }
        chosen
    }

    fn text(&mut self) -> Value {
        match self.0.random_range(0..4) {
            0 => json!(true),
            1 => json!(self.0.random_range(0..2_000_000)),
            2 => json!("a: 'b' \"c\""),
            _ => json!("x"),
        }
    }

    fn map(&mut self, keys: &[&str]) -> Value {
        let chosen = self.some(keys);
        let map: Map<String, Value> =
            chosen.into_iter().map(|key| (key.to_owned(), self.text())).collect();
        Value::Object(map)
    }

    /// Labels, without those that a chart keeps to itself.
    fn labels(&mut self, fixed: &[&str]) -> Value {
        let free: Vec<&str> = KEYS.into_iter().filter(|key| !fixed.contains(key)).collect();
        self.map(&free)
    }

    /// Objects with names; `rest` is what else each says.
    fn named(&mut self, names: &[&str], rest: &Value) -> Value {
        let item = |name: &str| {
            let mut item = rest.clone();
            item["name"] = json!(name);
            item
        };
        self.some(names).into_iter().map(item).collect()
    }

    fn sourced(&mut self) -> Value {
        let source = json!({ "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } });
        self.named(&VARIABLES, &source)
    }

    fn volumes(&mut self) -> Value {
        self.named(&VOLUMES, &json!({ "emptyDir": {} }))
    }

    fn control_plane(&mut self) -> Value {
        let tags = [json!([]), json!(["prod"]), json!(["prod", "default"])];
        let secrets = [json!([]), json!(["registry"]), json!(["registry", "other"])];
        let scaled = self.0.random_bool(0.5);
        json!({
            "crds": { "enabled": false },
            "takeOverRoots": self.0.random_bool(0.5),
            "env": self.map(&VARIABLES),
            "envVarFrom": self.sourced(),
            "volumes": self.volumes(),
            "podLabels": self.labels(&FIXED[..3]),
            "podAnnotations": self.map(&KEYS),
            "deploymentLabels": self.map(&KEYS),
            "deploymentAnnotations": self.map(&KEYS),
            "serviceAccountAnnotations": self.map(&KEYS),
            "service": { "annotations": self.map(&KEYS) },
            "injection": { "env": self.map(&VARIABLES) },
            "sidecarInjectorWebhook": {
                "enableNamespacesByDefault": self.0.random_bool(0.5),
                "injectedAnnotations": self.map(&KEYS),
            },
            "revisionTags": tags.choose(&mut self.0).expect("some"),
            "image": { "pullSecrets": secrets.choose(&mut self.0).expect("some") },
            "global": { "imagePullSecrets": secrets.choose(&mut self.0).expect("some") },
            "autoscaleEnabled": scaled,
            "memory": if scaled { json!({ "targetAverageUtilization": 70 }) } else { json!({}) },
        })
    }

    /// The same, with labels that the API server takes.
    pub(super) fn upgraded_control_plane(&mut self) -> Value {
        let mut values = self.control_plane();
        for field in ["podLabels", "deploymentLabels"] {
            valid_labels(&mut values[field]);
        }
        values
    }

    /// The same for a gateway, whose kind and labels of selection cannot be changed.
    pub(super) fn upgraded_gateway(&mut self) -> Value {
        let mut values = self.gateway();
        values["kind"] = json!("Deployment");
        values["labels"] = json!({ "team": "edge" });
        values
    }

    fn gateway(&mut self) -> Value {
        let kinds = [json!("Deployment"), json!("DaemonSet")];
        json!({
            "kind": kinds.choose(&mut self.0).expect("some"),
            "labels": self.labels(&FIXED[2..]),
            "annotations": self.map(&KEYS),
            "podAnnotations": self.map(&KEYS),
            "env": self.map(&VARIABLES),
            "envVarFrom": self.sourced(),
            "volumes": self.volumes(),
            "service": { "annotations": self.map(&KEYS) },
            "serviceAccount": { "create": self.0.random_bool(0.5), "annotations": self.map(&KEYS) },
            "proxy": "envoy",
        })
    }
}

fn valid_labels(labels: &mut Value) {
    for label in labels.as_object_mut().into_iter().flatten().map(|(_, label)| label) {
        if label.as_str().is_some_and(|text| text.contains(' ')) {
            *label = json!("y");
        }
    }
}

/// Where a list has two entries of one name.
fn repeated(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            let names: Vec<&str> =
                items.iter().filter_map(|item| item.get("name")?.as_str()).collect();
            for (index, name) in names.iter().enumerate() {
                if names[..index].contains(name) {
                    found.push(format!("{at}: {name}"));
                }
            }
            items.iter().for_each(|item| repeated(item, at, found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| repeated(value, &format!("{at}.{name}"), found));
        }
        _ => {}
    }
}

/// Values of labels and annotations that are no texts.
fn untexted(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| untexted(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let texts = ["labels", "annotations", "matchLabels"].contains(&name.as_str());
                let map = value.as_object().filter(|_| texts).into_iter().flatten();
                let wrong = map.filter(|(_, value)| !value.is_string());
                found.extend(wrong.map(|(key, value)| format!("{name}: {key}: {value}")));
                untexted(value, found);
            }
        }
        _ => {}
    }
}

#[test]
fn no_list_and_no_map_says_a_name_twice_whatever_the_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("values.json");
    for case in 0..CASES {
        for chart in ["ferromesh", "gateway"] {
            let mut random = Random(StdRng::seed_from_u64(case));
            let values = match chart {
                "gateway" => random.gateway(),
                _ => random.control_plane(),
            };
            fs::write(&file, values.to_string()).expect("a file");
            let rendered = helm_template(chart, &["--values", &file.display().to_string()])
                .unwrap_or_else(|e| panic!("{chart} {values}: {e}"));
            let mut found = Vec::new();
            for document in yaml::split(&rendered) {
                let node = yaml::parse(document.text)
                    .unwrap_or_else(|e| panic!("{chart} {values}: {e:?}\n{}", document.text));
                let Some(node) = node else { continue };
                let object = node.to_json();
                repeated(&object, object["kind"].as_str().unwrap_or_default(), &mut found);
                untexted(&object, &mut found);
            }
            assert!(found.is_empty(), "{chart} {values}: {found:#?}");
        }
    }
}

#[test]
fn a_label_that_selects_is_refused_by_name_and_others_are_the_users() {
    for (chart, value, words) in [
        ("ferromesh", "podLabels.app=mine", "podLabels: app is the chart's own (ferromesh)"),
        ("ferromesh", "podLabels.sidecar\\.istio\\.io/inject=true", "sidecar.istio.io/inject is"),
        ("gateway", "labels.istio\\.io/rev=canary", "labels: istio.io/rev is the chart's own"),
    ] {
        let said = helm_template(chart, &["--set", value]).expect_err(value);
        assert!(said.contains(words), "{value}: {said}");
    }
    let values = "crds.enabled=false,podLabels.helm\\.sh/chart=mine,deploymentLabels.app=istiod";
    let rendered = helm_template("ferromesh", &["--set", values]).expect("rendered");
    assert_eq!(rendered.matches("helm.sh/chart: mine").count(), 1);
    assert_eq!(rendered.matches("app: istiod").count(), 1);
}

#[test]
fn a_users_variable_stands_in_the_place_of_the_charts_own() {
    let rendered = helm_template("ferromesh", &["--set", "env.RUST_LOG=debug,crds.enabled=false"])
        .expect("rendered");
    let values: Vec<&str> = rendered
        .lines()
        .skip_while(|line| line.trim() != "- name: RUST_LOG")
        .skip(1)
        .take(1)
        .map(str::trim)
        .collect();
    assert_eq!(values, ["value: debug"]);
    assert_eq!(rendered.matches("name: RUST_LOG").count(), 1);
}
