//! How the mesh calls a workload: `service.istio.io/canonical-name` and `-revision`, by Istio's
//! rules.

use ferromesh_xds_translator::ir::cron_job;
use serde_json::Value;

use super::pod;

const NAME: &str = "service.istio.io/canonical-name";
const REVISION: &str = "service.istio.io/canonical-revision";
/// Labels that name a workload, best first.
const NAMING: [&str; 3] = [NAME, "app.kubernetes.io/name", "app"];
/// Labels that tell a workload's versions apart, best first.
const VERSIONING: [&str; 3] = [REVISION, "app.kubernetes.io/version", "version"];
/// Longest value of a label.
const LONGEST: usize = 63;

/// The workload that makes a pod: a Deployment rather than its ReplicaSet, a CronJob rather than
/// its Job; the pod itself if nothing does.
pub(super) fn workload(pod: &Value) -> String {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controller = owners
        .into_iter()
        .flatten()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let Some(owner) = controller else {
        let own =
            pod::text(pod, "/metadata/name").or_else(|| pod::text(pod, "/metadata/generateName"));
        return own.unwrap_or_default().trim_end_matches('-').to_owned();
    };
    let name = pod::name(owner);
    match owner.get("kind").and_then(Value::as_str) {
        Some("ReplicaSet") => {
            let hash = pod::label(pod, "pod-template-hash");
            hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
                .unwrap_or(name)
                .to_owned()
        }
        Some("Job") => cron_job(name).to_owned(),
        _ => name.to_owned(),
    }
}

/// Adds the labels of the mesh; those that are there stay.
pub(super) fn label(pod: &mut Value, workload: &str) {
    let first =
        |labels: &[&str]| labels.iter().find_map(|key| pod::label(pod, key)).map(str::to_owned);
    let name = first(&NAMING).unwrap_or_else(|| workload.to_owned());
    let revision = first(&VERSIONING).unwrap_or_else(|| "latest".to_owned());
    pod::map(pod, "metadata");
    let labels = pod::map(&mut pod["metadata"], "labels");
    for (key, value) in
        [(NAME, name), (REVISION, revision), ("security.istio.io/tlsMode", "istio".to_owned())]
    {
        // Names of workloads may be longer than labels.
        let value: String = value.chars().take(LONGEST).collect();
        let value = value.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        labels.entry(key).or_insert_with(|| Value::String(value.to_owned()));
    }
}
