//! What is watched: the served kinds of the table of kinds, each as its API server offers it.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object, parse_value},
    ir::ObjectId,
    yaml,
};
use serde_json::{Map, Value, json};

/// The ConfigMap that holds the mesh's configuration, and the key below which it stands: Istio's.
pub(in crate::source) const MESH_CONFIG_MAP: &str = "istio";
const MESH_KEY: &str = "mesh";
/// The annotation in which kubectl keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Types of Secrets that hold no credential of a gateway, as a field selector.
const NO_CREDENTIALS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=bootstrap.kubernetes.io/token";
/// Keys of a credential in a Secret: certificate, private key, certificates of clients' CAs, what
/// these have revoked; both spellings that Istio reads.
const CREDENTIAL_KEYS: [[&str; 4]; 2] =
    [["tls.crt", "tls.key", "ca.crt", "ca.crl"], ["cert", "key", "cacert", "crl"]];

/// Labels of a Node that say where it is.
const PLACE: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

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
    let watch = |kind| {
        if kind == Kind::MESH_CONFIG {
            return Watched {
                resource: Kind::CONFIG_MAP,
                namespace: Some(root_namespace.clone()),
                fields: Some("metadata.name=istio"),
            };
        }
        let fields = (kind == Kind::SECRET).then_some(NO_CREDENTIALS);
        Watched { resource: kind, namespace: None, fields }
    };
    // Pods say more than what made them.
    Kind::all_served().filter(|kind| *kind != Kind::DEPLOYMENT).map(watch).collect()
}

impl Watched {
    /// Whether the kind comes with every API server, so that nothing needs to be discovered.
    pub(super) fn built_in(&self) -> bool {
        matches!(self.resource.group(), "" | "discovery.k8s.io")
    }

    /// Which object of ours a value of the API server is; `None`: it has no name.
    pub(super) fn identify(&self, value: &Value) -> Option<ObjectId> {
        if self.resource == Kind::CONFIG_MAP {
            return Some(ObjectId {
                kind: Kind::MESH_CONFIG,
                namespace: "".into(),
                name: "default".into(),
            });
        }
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").unwrap_or_default().into();
        Some(ObjectId { kind: self.resource, namespace, name: text("/metadata/name")?.into() })
    }

    /// Whether objects have a status that we write: those of the mesh's own kinds.
    pub(super) fn has_our_status(&self) -> bool {
        self.resource.has_status()
    }

    /// Whether an object, trimmed, can mean anything to the mesh: most Secrets cannot.
    pub(super) fn matters(&self, value: &Value) -> bool {
        self.resource != Kind::SECRET || value.get("data").is_some()
    }

    /// Drops what nobody here reads: bookkeeping of the API server and copies by kubectl.
    pub(super) fn trim(&self, value: &mut Value) {
        if self.resource == Kind::NODE {
            trim_node(value);
        } else if self.resource == Kind::SECRET {
            trim_secret(value);
        }
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
        if self.resource == Kind::CONFIG_MAP {
            parse_value(mesh_config(&value)?)
        } else {
            parse_value(value)
        }
    }
}

/// Leaves of a Secret the keys of a credential, and no data at all of one that is none. What was
/// meant to be one, by its type, is left for its author to hear of.
fn trim_secret(value: &mut Value) {
    let is_tls = value["type"] == "kubernetes.io/tls";
    let Some(secret) = value.as_object_mut() else { return };
    let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) else { return };
    data.retain(|key, _| CREDENTIAL_KEYS.as_flattened().contains(&key.as_str()));
    let is_credential = |[certificate, key, ca, _]: [&str; 4]| {
        (data.contains_key(certificate) && data.contains_key(key)) || data.contains_key(ca)
    };
    if !is_tls && !CREDENTIAL_KEYS.into_iter().any(is_credential) {
        secret.remove("data");
    }
}

/// Leaves of a Node its name and where it is: all else changes with every heartbeat and every
/// image.
fn trim_node(value: &mut Value) {
    let text = |pointer: &str| value.pointer(pointer).cloned().unwrap_or_default();
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let place: Map<String, Value> = labels
        .filter(|(name, _)| PLACE.contains(&name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    *value = json!({
        "apiVersion": text("/apiVersion"),
        "kind": text("/kind"),
        "metadata": { "name": text("/metadata/name"), "labels": place },
    });
}

/// The mesh's configuration out of its ConfigMap, where it stands as a text of its own.
fn mesh_config(config_map: &Value) -> Result<Value, Vec<Diagnostic>> {
    let Some(text) = config_map.pointer(&format!("/data/{MESH_KEY}")).and_then(Value::as_str)
    else {
        let field = FieldPath::root().field("data").field(MESH_KEY);
        let message = format!(
            "ConfigMap {MESH_CONFIG_MAP} holds no mesh configuration; the last one stays in force"
        );
        let fix = "`mesh: \"\"` for a mesh that is as it comes";
        return Err(vec![Diagnostic::error(Code::MissingField, field, message).fix(fix)]);
    };
    let spec = match yaml::parse(text) {
        Ok(node) => node.map_or_else(|| json!({}), |node| node.to_json()),
        Err(error) => {
            let message = format!(
                "ConfigMap {MESH_CONFIG_MAP}, line {} of the text: {}",
                error.line, error.message
            );
            let field = FieldPath::root().field("data").field(MESH_KEY);
            let mut finding = Diagnostic::error(error.code, field, message);
            finding.fix = error.fix;
            return Err(vec![finding]);
        }
    };
    Ok(json!({
        "apiVersion": Kind::MESH_CONFIG.api_version(),
        "kind": Kind::MESH_CONFIG.kind_name(),
        "metadata": { "name": "default", "resourceVersion": config_map.pointer("/metadata/resourceVersion") },
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(resource: Kind) -> Watched {
        watched(&"istio-system".into())
            .into_iter()
            .find(|w| w.resource == resource)
            .expect("it is watched")
    }

    #[test]
    fn every_served_kind_is_watched_but_what_only_manifests_hold() {
        let watched: Vec<Kind> =
            watched(&"istio-system".into()).iter().map(|w| w.resource).collect();
        assert!(
            watched.contains(&Kind::VIRTUAL_SERVICE) && watched.contains(&Kind::ENDPOINT_SLICE)
        );
        assert!(!watched.contains(&Kind::DEPLOYMENT) && !watched.contains(&Kind::MESH_CONFIG));
    }

    #[test]
    fn bookkeeping_is_dropped() {
        let written = json!({
            "metadata": { "name": "a", "managedFields": [1], "annotations": { LAST_APPLIED: "{}", "mine": "x" } },
            "spec": {}, "status": { "podIP": "10.0.0.1" },
        });
        for kind in [Kind::POD, Kind::VIRTUAL_SERVICE] {
            let mut value = written.clone();
            find(kind).trim(&mut value);
            assert_eq!(value["metadata"], json!({ "name": "a", "annotations": { "mine": "x" } }));
            assert_eq!(value["status"], written["status"], "{kind}");
        }
    }

    #[test]
    fn of_a_secret_only_a_credential_is_left() {
        for (kind, keys, left) in [
            ("kubernetes.io/tls", "tls.crt tls.key keystore.jks", Some("tls.crt tls.key")),
            ("kubernetes.io/tls", "tls.crt", Some("tls.crt")),
            ("Opaque", "tls.crt tls.key ca.crt password", Some("ca.crt tls.crt tls.key")),
            ("Opaque", "cert key", Some("cert key")),
            ("Opaque", "cacert", Some("cacert")),
            ("Opaque", "cacert crl password", Some("cacert crl")),
            ("Opaque", "crl", None),
            ("Opaque", "key", None),
            ("Opaque", "cert tls.key", None),
            ("Opaque", "password", None),
            ("Opaque", "", None),
        ] {
            let data: Map<String, Value> =
                keys.split_whitespace().map(|key| (key.to_owned(), json!("eA=="))).collect();
            let mut value = json!({ "metadata": { "name": "a" }, "type": kind, "data": data });
            find(Kind::SECRET).trim(&mut value);
            let mut found =
                value["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>());
            found.as_mut().into_iter().for_each(|keys| keys.sort());
            assert_eq!(found.map(|keys| keys.join(" ")).as_deref(), left, "{kind} {keys}");
            assert_eq!(find(Kind::SECRET).matters(&value), left.is_some());
        }
    }

    #[test]
    fn of_a_node_only_its_place_is_left() {
        let mut value = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "a", "resourceVersion": "7", "annotations": { "x": "y" },
                "labels": { "topology.kubernetes.io/zone": "z", "kubernetes.io/os": "linux" },
            },
            "spec": {}, "status": { "conditions": [{ "lastHeartbeatTime": "now" }] },
        });
        find(Kind::NODE).trim(&mut value);
        let labels = json!({ "topology.kubernetes.io/zone": "z" });
        let expected = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "a", "labels": labels } });
        assert_eq!(value, expected);
        assert!(find(Kind::NODE).read(value).is_ok());
    }

    #[test]
    fn the_config_map_becomes_the_mesh_configuration() {
        let watched = find(Kind::CONFIG_MAP);
        let map = |text: &str| json!({ "metadata": { "name": "istio", "resourceVersion": "7" }, "data": { "mesh": text } });
        let (object, findings) = watched
            .read(map("outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n"))
            .expect("it is read");
        assert_eq!(Some(object.id), watched.identify(&map("")));
        assert_eq!(findings, Vec::new());
        assert!(watched.read(map("")).is_ok());
        let broken = watched.read(map("a: b: c\n")).expect_err("not YAML");
        assert!(broken[0].message.contains("line 1"), "{}", broken[0].message);
        assert!(watched.read(map("noSuchField: 1\n")).is_err());
        let misspelt = json!({ "metadata": { "name": "istio" }, "data": { "mehs": "{}" } });
        let found = watched.read(misspelt).expect_err("nothing is said about the mesh");
        assert_eq!(found[0].field.to_string(), "data.mesh");
    }
}
