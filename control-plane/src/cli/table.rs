//! How answers are shown to people: forms of output, tables, findings in a line.

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde_json::Value;

/// A form of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Form {
    /// A table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// A value in a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A table without lines.
pub(super) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

/// A proxy's words may have line breaks and control characters, which would take the table apart.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A finding as `ferromesh analyze` prints it.
pub(super) fn finding(value: &Value) -> String {
    let mut line = String::new();
    if let Some(file) = value["file"].as_str() {
        line = format!("{file}:{}:{}: ", text(&value["line"]), text(&value["col"]));
    }
    line.push_str(&format!("{}[{}]: ", text(&value["severity"]), text(&value["code"])));
    let object = &value["object"];
    if object.is_object() {
        let name = [object["namespace"].as_str(), object["name"].as_str()];
        let name: Vec<&str> = name.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        line.push_str(&format!("{} {}: ", text(&object["kind"]), name.join("/")));
    }
    if let Some(field) = value["field"].as_str().filter(|field| !field.is_empty()) {
        line.push_str(&format!("{field}: "));
    }
    line.push_str(&text(&value["message"]));
    if let (Some(expected), Some(got)) = (value["expected"].as_str(), value["got"].as_str()) {
        line.push_str(&format!(": expected {expected}, got {got}"));
    }
    if let Some(code) = value["istio_code"].as_str() {
        line.push_str(&format!(" ({code})"));
    }
    if let Some(fix) = value["fix"].as_str() {
        line.push_str(&format!("; fix: {fix}"));
    }
    one_line(&line)
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::{
        analyze::analyze_input, dialect::parse_files, ir::MeshDefaults,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_over_rest_reads_as_one_of_analyze() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: a, namespace: shop}\nspec:\n  hosts: [a]\n  http:\n\
                    \x20 - timeout: soon\n    route: [{destination: {host: nowhere}}]\n";
        let parsed = parse_files([("a.yaml", text.as_bytes())]);
        let found = analyze_input(&parsed, &MeshDefaults::default());
        assert!(!found.is_empty());
        for of_analyze in found {
            if of_analyze.related.is_empty() {
                assert_eq!(finding(&json!(of_analyze)), of_analyze.to_string());
            }
        }
    }
}
