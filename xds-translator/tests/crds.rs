//! A golden of the CustomResourceDefinitions: one line per field, so that a change of what API
//! servers take is read in review. `UPDATE_GOLDEN=1` writes it anew.

use std::{fs, path::Path};

use ferromesh_xds_translator::crds::custom_resource_definitions;
use serde_json::Value;

#[test]
fn fields_and_their_types_are_those_of_the_golden() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/crds.txt");
    let got: String = custom_resource_definitions().iter().map(listing).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &got).expect("the golden can be written");
    }
    let want = fs::read_to_string(&golden).unwrap_or_default();
    let differs = got.lines().zip(want.lines()).find(|(got, want)| got != want);
    assert!(
        got == want,
        "{differs:?} differs from {}; UPDATE_GOLDEN=1 refreshes it",
        golden.display()
    );
}

#[test]
fn every_version_of_a_kind_has_the_same_schema() {
    for definition in custom_resource_definitions() {
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        assert!(
            versions.iter().all(|v| v["schema"] == versions[0]["schema"]),
            "{}",
            definition["metadata"]["name"]
        );
    }
}

#[test]
fn every_field_says_what_it_is() {
    for definition in custom_resource_definitions() {
        documented(&definition["metadata"]["name"].to_string(), spec(&definition));
    }
}

fn spec(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

fn documented(path: &str, schema: &Value) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(
            field["description"].as_str().is_some_and(|doc| !doc.is_empty()),
            "{path} says nothing"
        );
        documented(&path, field);
        documented(&path, &field["items"]);
        documented(&path, &field["additionalProperties"]);
    }
}

fn listing(definition: &Value) -> String {
    let versions: Vec<&str> = definition["spec"]["versions"]
        .as_array()
        .expect("versions")
        .iter()
        .map(|v| v["name"].as_str().expect("a name"))
        .collect();
    let mut lines = format!(
        "{} [{}]\n",
        definition["metadata"]["name"].as_str().expect("a name"),
        versions.join(" ")
    );
    walk("spec", spec(definition), &mut lines);
    lines
}

fn walk(path: &str, schema: &Value, lines: &mut String) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&name.as_str()) { " required" } else { "" };
        let (suffix, inner) = inside(field);
        let path = format!("{path}.{name}{suffix}");
        lines.push_str(&format!("  {path}: {}{mark}\n", summary(inner)));
        walk(&path, inner, lines);
    }
}

/// Goes through lists and maps to what they hold.
fn inside(field: &Value) -> (String, &Value) {
    let (mark, inner) = match (field.get("items"), field.get("additionalProperties")) {
        (Some(items), _) => ("[]", items),
        (_, Some(values)) => ("{}", values),
        _ => return (String::new(), field),
    };
    let (rest, inner) = inside(inner);
    (format!("{mark}{rest}"), inner)
}

fn summary(schema: &Value) -> String {
    let kind = schema["type"].as_str().unwrap_or("any");
    let mut words = vec![kind.to_owned()];
    words.extend(schema["format"].as_str().map(|f| format!("({f})")));
    words.extend(schema.get("minimum").map(|n| format!(">={n}")));
    words.extend(schema.get("maximum").map(|n| format!("<={n}")));
    words.extend(schema.get("maxProperties").map(|n| format!("(at most {n} field)")));
    let choice: Vec<&str> =
        schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.extend((!choice.is_empty()).then(|| choice.join("|")));
    words.join(" ")
}
