//! What is watched: the served kinds of the table of kinds, each as its API server offers it.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::{Diagnostic, FieldPath},
    dialect::{Kind, Object, parse_value},
    ir::ObjectId,
    yaml,
};
use serde_json::{Value, json};

/// The ConfigMap that holds the mesh's configuration, and the key below which it stands: Istio's.
const MESH_CONFIG_MAP: &str = "istio";
const MESH_KEY: &str = "mesh";
/// The annotation in which kubectl keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind to watch.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// The kind as the API server knows it.
    pub(super) resource: Kind,
    /// Only this namespace; `None`: all.
    pub(super) namespace: Option<Arc<str>>,
    /// Only objects with these fields.
    pub(super) fields: Option<&'static str>,
}

/// Everything that is watched.
pub(super) fn watched(root_namespace: &Arc<str>) -> Vec<Watched> {
    let watch = |kind| match kind {
        // Pods say more than what made them.
        Kind::Deployment => None,
        Kind::MeshConfig => Some(Watched {
            resource: Kind::ConfigMap,
            namespace: Some(root_namespace.clone()),
            fields: Some("metadata.name=istio"),
        }),
        Kind::Secret => Some(Watched { resource: kind, namespace: None, fields: Some("type=kubernetes.io/tls") }),
        _ => Some(Watched { resource: kind, namespace: None, fields: None }),
    };
    Kind::all_served().filter_map(watch).collect()
}

impl Watched {
    /// Whether the kind comes with every API server, so that nothing needs to be discovered.
    pub(super) fn built_in(&self) -> bool {
        matches!(self.resource.group(), "" | "discovery.k8s.io")
    }

    /// Which object of ours a value of the API server is; `None`: it has no name.
    pub(super) fn identify(&self, value: &Value) -> Option<ObjectId> {
        if self.resource == Kind::ConfigMap {
            return Some(ObjectId { kind: Kind::MeshConfig, namespace: "".into(), name: "default".into() });
        }
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").unwrap_or_default().into();
        Some(ObjectId { kind: self.resource, namespace, name: text("/metadata/name")?.into() })
    }

    /// Whether objects have a status that we write: those of the mesh's own kinds.
    pub(super) fn has_our_status(&self) -> bool {
        !self.built_in()
    }

    /// Drops what nobody here reads: bookkeeping of the API server and copies by kubectl.
    pub(super) fn trim(&self, value: &mut Value) {
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
            if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
            }
        }
    }

    /// Reads a value of the API server.
    ///
    /// # Errors
    /// What is wrong with the object.
    pub(super) fn read(&self, value: Value) -> Result<(Object, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.resource == Kind::ConfigMap { parse_value(mesh_config(&value)?) } else { parse_value(value) }
    }
}

/// The mesh's configuration out of its ConfigMap, where it stands as a text of its own.
fn mesh_config(config_map: &Value) -> Result<Value, Vec<Diagnostic>> {
    let text = config_map.pointer(&format!("/data/{MESH_KEY}")).and_then(Value::as_str).unwrap_or_default();
    let spec = match yaml::parse(text) {
        Ok(node) => node.map_or_else(|| json!({}), |node| node.to_json()),
        Err(error) => {
            let message = format!("ConfigMap {MESH_CONFIG_MAP}, line {} of the text: {}", error.line, error.message);
            let field = FieldPath::root().field("data").field(MESH_KEY);
            let mut finding = Diagnostic::error(error.code, field, message);
            finding.fix = error.fix;
            return Err(vec![finding]);
        }
    };
    Ok(json!({
        "apiVersion": Kind::MeshConfig.api_version(),
        "kind": Kind::MeshConfig.kind_name(),
        "metadata": { "name": "default", "resourceVersion": config_map.pointer("/metadata/resourceVersion") },
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(resource: Kind) -> Watched {
        watched(&"istio-system".into()).into_iter().find(|w| w.resource == resource).expect("it is watched")
    }

    #[test]
    fn every_served_kind_is_watched_but_what_only_manifests_hold() {
        let watched: Vec<Kind> = watched(&"istio-system".into()).iter().map(|w| w.resource).collect();
        assert!(watched.contains(&Kind::VirtualService) && watched.contains(&Kind::EndpointSlice));
        assert!(!watched.contains(&Kind::Deployment) && !watched.contains(&Kind::MeshConfig));
    }

    #[test]
    fn bookkeeping_is_dropped() {
        let written = json!({
            "metadata": { "name": "a", "managedFields": [1], "annotations": { LAST_APPLIED: "{}", "mine": "x" } },
            "spec": {}, "status": { "podIP": "10.0.0.1" },
        });
        for kind in [Kind::Pod, Kind::VirtualService] {
            let mut value = written.clone();
            find(kind).trim(&mut value);
            assert_eq!(value["metadata"], json!({ "name": "a", "annotations": { "mine": "x" } }));
            assert_eq!(value["status"], written["status"], "{kind}");
        }
    }

    #[test]
    fn the_config_map_becomes_the_mesh_configuration() {
        let watched = find(Kind::ConfigMap);
        let map =
            |text: &str| json!({ "metadata": { "name": "istio", "resourceVersion": "7" }, "data": { "mesh": text } });
        let (object, findings) =
            watched.read(map("outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n")).expect("it is read");
        assert_eq!(Some(object.id), watched.identify(&map("")));
        assert_eq!(findings, Vec::new());
        assert!(watched.read(map("")).is_ok());
        let broken = watched.read(map("a: b: c\n")).expect_err("not YAML");
        assert!(broken[0].message.contains("line 1"), "{}", broken[0].message);
        assert!(watched.read(map("noSuchField: 1\n")).is_err());
    }
}
