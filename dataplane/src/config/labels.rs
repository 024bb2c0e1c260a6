//! Reads labels as Kubernetes' downward API writes them into a file, and where a workload runs out of
//! them.

use std::{collections::BTreeMap, path::Path};

use ferromesh_proto::discovery::Locality;

use crate::file;

/// Labels of a whole place; of several the first counts.
const PLACES: [&str; 2] = ["topology.istio.io/locality", "istio-locality"];
/// Labels of its parts.
const PARTS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// The labels in a file, one `KEY="VALUE"` a line.
///
/// # Errors
/// The file cannot be read, or a line has another form.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    parse(&file::read_text(path).map_err(|e| e.to_string())?)
}

/// Where a workload with these labels runs, as the control plane reads them; `None`: they do not say.
pub(super) fn locality(labels: &BTreeMap<String, String>) -> Option<Locality> {
    // Labels cannot hold slashes, so that dots stand for them.
    if let Some(text) = PLACES.iter().find_map(|key| labels.get(*key)) {
        let slashed = if text.contains('/') { text.clone() } else { text.replace('.', "/") };
        return place(&slashed).ok();
    }
    let [region, zone, sub_zone] = PARTS.map(|key| labels.get(key).cloned().unwrap_or_default());
    (!region.is_empty() || !zone.is_empty()).then_some(Locality { region, zone, sub_zone })
}

/// Reads `REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`.
///
/// # Errors
/// The region is missing.
pub(super) fn place(text: &str) -> Result<Locality, String> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let locality = Locality { region: next(), zone: next(), sub_zone: next() };
    match locality.region.is_empty() {
        true => Err(format!("{text:?}: expected REGION/ZONE/SUBZONE, REGION/ZONE or REGION")),
        false => Ok(locality),
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let pairs = lines.map(|(index, line)| {
        pair(line)
            .ok_or_else(|| format!("line {}: expected KEY=\"VALUE\", got {line:?}", index + 1))
    });
    pairs.collect()
}

fn pair(line: &str) -> Option<(String, String)> {
    let (key, quoted) = line.trim().split_once('=')?;
    // What may stand in a label is quoted alike by Go and by JSON.
    let value = serde_json::from_str(quoted).ok()?;
    (!key.is_empty()).then(|| (key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_a_line() {
        let labels =
            parse("app=\"cart\"\nsecurity.istio.io/tlsMode=\"istio\"\n\nempty=\"\"\n").unwrap();
        let expected = [("app", "cart"), ("empty", ""), ("security.istio.io/tlsMode", "istio")];
        assert!(labels.iter().map(|(key, value)| (&**key, &**value)).eq(expected), "{labels:?}");
    }

    #[test]
    fn labels_say_where_a_workload_runs() {
        let zone = "topology.kubernetes.io/zone";
        let table: [(&[(&str, &str)], Option<[&str; 3]>); 6] = [
            (&[("app", "cart")], None),
            (&[("istio-locality", "eu.a.rack")], Some(["eu", "a", "rack"])),
            (&[("istio-locality", "eu/a.b")], Some(["eu", "a.b", ""])),
            (
                &[("istio-locality", "us"), ("topology.istio.io/locality", "eu.a")],
                Some(["eu", "a", ""]),
            ),
            (&[(zone, "a"), ("topology.kubernetes.io/region", "eu")], Some(["eu", "a", ""])),
            (&[(zone, "a")], Some(["", "a", ""])),
        ];
        for (labels, expected) in table {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let found = locality(&labels).map(|at| [at.region, at.zone, at.sub_zone]);
            assert_eq!(found, expected.map(|parts| parts.map(str::to_owned)), "{labels:?}");
        }
        assert!(place("/a").is_err());
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["app=\"a\"\nversion", "app=\"a\"\nversion=v1", "app=\"a\"\n=\"x\""] {
            assert!(parse(text).unwrap_err().starts_with("line 2: expected"), "{text}");
        }
    }
}
