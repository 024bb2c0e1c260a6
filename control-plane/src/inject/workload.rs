//! Documents as people write them: pods, what makes pods, and lists of both.

use std::collections::BTreeMap;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    ir::{Labels, cron_job},
    snapshot::MeshSnapshot,
};
use serde_json::Value;

use super::{InjectionSettings, Outcome, Reason, Surroundings, inject, pod};

/// Kinds that make pods, with their API group and where their pod is; the first is the pod itself.
const KINDS: [(&str, &str, &str); 8] = [
    ("", "Pod", ""),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
    ("", "ReplicationController", "/spec/template"),
];

/// What became of an object that makes pods.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// `Kind namespace/name`.
    pub object: String,
    /// Why it was left alone; `None`: it was injected.
    pub left_alone: Option<Reason>,
    /// What its author should know.
    pub warnings: Vec<Diagnostic>,
}

/// Injects every pod that a document makes, in place; `namespaces` are the labels of those
/// namespaces that are known, `namespace` is that of objects that name none, and `mesh` says what
/// proxies are started with. Objects that make no
/// pods stay as they are and are not reported.
///
/// # Errors
/// As [`inject`], with the fields as seen from the pod.
pub fn inject_document(
    document: &mut Value,
    namespace: &str,
    namespaces: &BTreeMap<String, Labels>,
    mesh: &MeshSnapshot,
    settings: &InjectionSettings,
) -> Result<Vec<Report>, Vec<Diagnostic>> {
    if let Some(items) = items(document) {
        let mut reports = Vec::new();
        for item in items {
            reports.extend(inject_document(item, namespace, namespaces, mesh, settings)?);
        }
        return Ok(reports);
    }
    let Some(kind) = kind(document) else { return Ok(Vec::new()) };
    let (_, kind_name, pointer) = *kind;
    let name = pod::text(document, "/metadata/name")
        .or_else(|| pod::text(document, "/metadata/generateName"));
    let name = name.unwrap_or_default().to_owned();
    let namespace = pod::text(document, "/metadata/namespace")
        .filter(|n| !n.is_empty())
        .unwrap_or(namespace)
        .to_owned();
    let Some(template) = document.pointer_mut(pointer) else { return Ok(Vec::new()) };
    let workload = match kind_name {
        "Pod" => None,
        "Job" => Some(cron_job(&name)),
        _ => Some(name.as_str()),
    };
    let around = Surroundings {
        namespace: &namespace,
        namespace_labels: namespaces.get(&namespace),
        workload,
        mesh: Some(mesh),
    };
    let (left_alone, warnings) = match inject(template, &around, settings)? {
        Outcome::Injected { pod, warnings } => {
            *template = pod;
            (None, warnings)
        }
        Outcome::LeftAlone(reason) => (Some(reason), Vec::new()),
    };
    Ok(vec![Report { object: format!("{kind_name} {namespace}/{name}"), left_alone, warnings }])
}

/// The items of a list of objects.
fn items(document: &mut Value) -> Option<&mut Vec<Value>> {
    let list = document.get("kind")?.as_str()?.ends_with("List");
    document.get_mut("items").filter(|_| list)?.as_array_mut()
}

fn kind(document: &Value) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let (version, name) = (pod::text(document, "/apiVersion")?, pod::text(document, "/kind")?);
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    KINDS.iter().find(|kind| (kind.0, kind.1) == (group, name))
}
