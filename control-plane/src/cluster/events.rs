//! Kubernetes Events about objects of the mesh: what `kubectl describe` and `kubectl events` show beside the status.

use ferromesh_xds_translator::ir::ObjectId;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Error,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{Cluster, status::Held};

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
    pub fn new(cluster: &Cluster, instance: &str) -> Self {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(cluster.client(), reporter) }
    }

    /// Says that something is wrong with an object. `reason` is one word in CamelCase.
    ///
    /// # Errors
    /// The API server does not take it.
    pub async fn warn(&self, id: &ObjectId, held: &Held, reason: String, note: &str) -> Result<(), Error> {
        let regarding = ObjectReference {
            api_version: Some(held.api_version.clone()),
            kind: Some(id.kind.kind_name().to_owned()),
            namespace: Some(id.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(id.name.to_string()),
            uid: Some(held.uid.clone()),
            resource_version: Some(held.resource_version.clone()),
            field_path: None,
        };
        let end = note.floor_char_boundary(LONGEST_NOTE);
        let event = Event {
            type_: EventType::Warning,
            reason,
            note: Some(note[..end].to_owned()),
            action: "Translate".to_owned(),
            secondary: None,
        };
        self.recorder.publish(&event, &regarding).await
    }
}
