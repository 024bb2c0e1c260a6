//! What a pod's author says of our containers in annotations: `proxy.istio.io/overrides`, and the
//! proxy's further volumes.

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::{Decoder, describe},
};
use serde_json::{Map, Value};

use super::{overlay, pod, values::unfit};

/// Containers as their author wrote them, before they were injected: `{"containers": […],
/// "initContainers": […]}`.
const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Volumes as JSON: by name, or a list of objects with names.
const VOLUMES: &str = "sidecar.istio.io/userVolume";
/// Where the proxy finds them, in the same forms.
const MOUNTS: &str = "sidecar.istio.io/userVolumeMount";

/// What a field of a container is.
type Form = (&'static str, &'static str, fn(&Value) -> bool);

/// Every field of a container (Kubernetes 1.36, `core/v1` `Container`), in words and as a check.
const FIELDS: [Form; 25] = [
    ("args", "a list of texts", is_texts),
    ("command", "a list of texts", is_texts),
    ("env", "a list of objects", is_objects),
    ("envFrom", "a list of objects", is_objects),
    ("image", "text", Value::is_string),
    ("imagePullPolicy", "text", Value::is_string),
    ("lifecycle", "an object", Value::is_object),
    ("livenessProbe", "an object", Value::is_object),
    ("name", "text", Value::is_string),
    ("ports", "a list of objects", is_objects),
    ("readinessProbe", "an object", Value::is_object),
    ("resizePolicy", "a list of objects", is_objects),
    ("resources", "an object", Value::is_object),
    ("restartPolicy", "text", Value::is_string),
    ("restartPolicyRules", "a list of objects", is_objects),
    ("securityContext", "an object", Value::is_object),
    ("startupProbe", "an object", Value::is_object),
    ("stdin", "true or false", Value::is_boolean),
    ("stdinOnce", "true or false", Value::is_boolean),
    ("terminationMessagePath", "text", Value::is_string),
    ("terminationMessagePolicy", "text", Value::is_string),
    ("tty", "true or false", Value::is_boolean),
    ("volumeDevices", "a list of objects", is_objects),
    ("volumeMounts", "a list of objects", is_objects),
    ("workingDir", "text", Value::is_string),
];

fn is_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}

fn is_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_object))
}

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
        ours.iter()
            .for_each(|container| at.within_key(pod::name(container), |at| check(container, at)));
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

/// Notes what no container has, and what the API server could not read; all else is its to judge.
fn check(container: &Value, at: &mut Decoder) {
    let known: Vec<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    for (field, value) in container.as_object().into_iter().flatten() {
        at.within_key(field, |at| match FIELDS.iter().find(|(known, ..)| known == field) {
            Some((_, expected, fits)) if !value.is_null() && !fits(value) => {
                at.remark(|path| {
                    let finding = Diagnostic::error(Code::WrongType, path, "wrong type");
                    finding.expected(*expected, describe(value))
                });
            }
            Some(_) => {}
            None => at.unknown_word(field, &known),
        });
    }
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
        let volumes = |text: &str, at: &mut Decoder| {
            let volumes = named(text, at);
            let taken = |volume: &&Value| pod::VOLUMES.contains(&pod::name(volume));
            for volume in volumes.iter().filter(taken) {
                let message = format!("volume `{}` is the mesh's own", pod::name(volume));
                at.invalid(message, Some("choose another name".to_owned()));
            }
            volumes
        };
        Self {
            volumes: pod::annotated(pod, VOLUMES, at, volumes).unwrap_or_default(),
            mounts: pod::annotated(pod, MOUNTS, at, named).unwrap_or_default(),
        }
    }
}

/// Reads `{"NAME": {…}}` or `[{"name": "NAME", …}]` as a list of objects with names.
fn named(text: &str, at: &mut Decoder) -> Vec<Value> {
    let list = match serde_json::from_str(text) {
        Ok(Value::Object(map)) if map.values().all(Value::is_object) => {
            let own_name = |(name, mut value): (String, Value)| {
                value["name"] = Value::String(name);
                value
            };
            Some(map.into_iter().map(own_name).collect())
        }
        Ok(Value::Array(list)) if list.iter().all(|item| !pod::name(item).is_empty()) => Some(list),
        _ => None,
    };
    list.unwrap_or_else(|| {
        let forms = "objects by name, {\"NAME\": {…}}, or [{\"name\": \"NAME\", …}], in JSON";
        unfit(text, forms, at);
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(key: &str, text: &str) -> (UserVolumes, Vec<Value>, String) {
        let pod = json!({ "metadata": { "annotations": { key: text } } });
        let mut at = Decoder::default();
        let (volumes, containers) = (UserVolumes::read(&pod, &mut at), containers(&pod, &mut at));
        (volumes, containers, at.finish().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn fields_stand_once() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn volumes_are_read_in_both_forms_that_are_in_use() {
        let expected = [json!({ "name": "certs", "secret": { "secretName": "a" } })];
        for text in [
            r#"{"certs": {"secret": {"secretName": "a"}}}"#,
            r#"[{"name": "certs", "secret": {"secretName": "a"}}]"#,
        ] {
            let (read, _, found) = read(VOLUMES, text);
            assert_eq!((&read.volumes[..], &*found), (&expected[..], ""), "{text}");
        }
        let mounts = r#"[{"name": "certs", "mountPath": "/etc/certs", "readOnly": true}]"#;
        let (read_mounts, _, found) = read(MOUNTS, mounts);
        assert_eq!((read_mounts.mounts.len(), &*found), (1, ""));
        for (text, words) in [
            (r#"[{"secret": {}}]"#, "objects by name"),
            (r#"{"a": "b"}"#, "objects by name"),
            (r#""certs""#, "objects by name"),
            (r#"{"istio-token": {"emptyDir": {}}}"#, "the mesh's own"),
        ] {
            let (_, _, found) = read(VOLUMES, text);
            assert!(found.contains(words), "{text}: {found}");
        }
    }

    #[test]
    fn an_override_that_no_container_has_is_named_and_one_that_nobody_can_read_is_refused() {
        let of = |field: &str| {
            let text = format!(r#"{{"containers": [{{"name": "istio-proxy", {field}}}]}}"#);
            read(OVERRIDES, &text)
        };
        let (_, containers, found) = of(r#""image": "auto", "env": [], "stdin": null"#);
        assert_eq!((containers.len(), &*found), (1, ""));
        for (field, words) in [
            (r#""resorces": {}"#, "warn["),
            (r#""resorces": {}"#, "`resources`"),
            (r#""env": "A=b""#, "error["),
            (r#""env": "A=b""#, "a list of objects"),
            (r#""args": [1]"#, "a list of texts"),
            (r#""securityContext": true"#, "an object"),
        ] {
            let (_, _, found) = of(field);
            assert!(found.contains(words), "{field}: {found}");
        }
    }
}
