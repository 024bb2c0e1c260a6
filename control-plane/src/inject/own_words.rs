//! What a pod's author says of our containers in annotations: `proxy.istio.io/overrides`, and the
//! proxy's further volumes.

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};
use serde_json::{Map, Value};

use super::{overlay, pod, values::unfit};

/// Containers as their author wrote them, before they were injected: `{"containers": […],
/// "initContainers": […]}`.
const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Volumes by name, as JSON.
const VOLUMES: &str = "sidecar.istio.io/userVolume";
/// Where the proxy finds them, by name, as JSON.
const MOUNTS: &str = "sidecar.istio.io/userVolumeMount";

/// Reads the containers that say something of ours.
pub(super) fn containers(pod: &Value, at: &mut Decoder) -> Vec<Value> {
    pod::annotated(pod, OVERRIDES, at, |text, at| {
        let read: Option<Map<String, Value>> = serde_json::from_str(text).ok();
        let lists = |map: &Map<String, Value>| -> Option<Vec<Value>> {
            let known = |name: &str| pod::CONTAINER_LISTS.contains(&name);
            if !map.keys().all(|name| known(name)) {
                return None;
            }
            let lists: Option<Vec<Vec<Value>>> =
                map.values().map(|list| list.as_array().cloned()).collect();
            let all: Vec<Value> = lists?.into_iter().flatten().collect();
            all.iter().all(Value::is_object).then_some(all)
        };
        let Some(all) = read.as_ref().and_then(lists) else {
            unfit(text, "{\"containers\": […], \"initContainers\": […]} in JSON", at);
            return Vec::new();
        };
        let (ours, others): (Vec<Value>, Vec<Value>) =
            all.into_iter().partition(|c| matches!(pod::name(c), pod::PROXY | pod::REDIRECT));
        for other in others {
            at.remark(|path| {
                let name = pod::name(&other).to_owned();
                let message = format!("no effect: no container `{name}` is injected");
                Diagnostic::warning(Code::NotActedOn, path, message).fix(format!(
                    "name it {} or {}",
                    pod::PROXY,
                    pod::REDIRECT
                ))
            });
        }
        ours
    })
    .unwrap_or_default()
}

/// Lays what the annotation says over a container of ours.
pub(super) fn lay(made: &mut Value, containers: &[Value]) {
    let name = pod::name(made).to_owned();
    for container in containers.iter().filter(|container| pod::name(container) == name) {
        overlay::lay(made, container.clone());
    }
}

/// Volumes that the author adds for the proxy.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct UserVolumes {
    /// Volumes of the pod.
    pub(super) volumes: Vec<Value>,
    /// Mounts of the proxy.
    pub(super) mounts: Vec<Value>,
}

impl UserVolumes {
    /// Reads both annotations.
    pub(super) fn read(pod: &Value, at: &mut Decoder) -> Self {
        let mut read = |key| pod::annotated(pod, key, at, named).unwrap_or_default();
        Self { volumes: read(VOLUMES), mounts: read(MOUNTS) }
    }
}

/// Reads `{"NAME": {…}}` as a list of objects with names.
fn named(text: &str, at: &mut Decoder) -> Vec<Value> {
    let read: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    let Some(map) = read.filter(|map| map.values().all(Value::is_object)) else {
        unfit(text, "objects by name, {\"NAME\": {…}} in JSON", at);
        return Vec::new();
    };
    map.into_iter()
        .map(|(name, mut value)| {
            value["name"] = Value::String(name);
            value
        })
        .collect()
}
