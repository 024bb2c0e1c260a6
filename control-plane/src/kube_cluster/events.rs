//! Kubernetes Events about objects of the mesh: what `kubectl describe` and `kubectl events` show
//! beside the status.

use ferromesh_xds_translator::ir::ObjectId;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Error,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{KubeCluster, status_cache::ObservedStatus};

/// Who reports, as Events name it.
const CONTROLLER: &str = "ferromesh.io/control-plane";
/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1_024;

/// Publishes Events in the name of this replica. The same again becomes one Event that counts.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// `instance`: the name of this replica.
    pub fn new(cluster: &KubeCluster, instance: &str) -> Self {
        let reporter =
            Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(cluster.client(), reporter) }
    }

    /// Says that something is wrong with an object. `reason` is one word in CamelCase.
    ///
    /// # Errors
    /// The API server does not take it.
    pub async fn warn(
        &self,
        id: &ObjectId,
        observed: &ObservedStatus,
        reason: String,
        note: &str,
    ) -> Result<(), Error> {
        let regarding = ObjectReference {
            api_version: Some(observed.api_version.clone()),
            kind: Some(id.kind.kind_name().to_owned()),
            namespace: Some(id.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(id.name.to_string()),
            uid: Some(observed.uid.clone()),
            resource_version: Some(observed.resource_version.clone()),
            field_path: None,
        };
        let event = Event {
            type_: EventType::Warning,
            reason,
            note: Some(bounded(note).to_owned()),
            action: "Translate".to_owned(),
            secondary: None,
        };
        self.recorder.publish(&event, &regarding).await
    }
}

/// As much of a note as the API server takes.
fn bounded(note: &str) -> &str {
    let ends = note.char_indices().map(|(at, c)| at + c.len_utf8());
    &note[..ends.take_while(|end| *end <= LONGEST_NOTE).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(""), "");
        assert_eq!(bounded(&"é".repeat(600)).len(), LONGEST_NOTE);
        assert_eq!(bounded(&format!("x{}", "é".repeat(600))).len(), LONGEST_NOTE - 1);
    }
}
