//! The kubelet has no identity in the mesh: its probes of the application go to the agent, which
//! asks the application.
//!
//! A probe over HTTP, gRPC or TCP becomes one of `/app-health/CONTAINER/{livez,readyz,startupz}` at
//! the agent, a hook over HTTP one of `/app-health/CONTAINER/{poststartz,prestopz}`; what it was
//! before goes to the agent as [`VARIABLE`]. Named ports are resolved here, for the agent knows no
//! container. What runs a program, asks another host, or cannot be understood is left alone.

use serde_json::{Map, Value, json};

use super::pod;

/// The agent's variable with what the probes were: by path, as the kubelet wrote them, ports as
/// numbers.
pub(super) const VARIABLE: &str = "FERROMESH_APP_PROBES";
/// Where the agent answers for applications.
const PATH: &str = "/app-health/";
/// Probes, and the last part of their paths.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// What the kubelet asks at the beginning and the end of a container, and the last part of their
/// paths.
const HOOKS: [(&str, &str); 2] = [("postStart", "poststartz"), ("preStop", "prestopz")];
/// Hooks end when they end, or with the patience of the kubelet, in seconds.
const HOOK_TIMEOUT: u64 = 3600;
/// What Kubernetes takes if a probe names no time, in seconds.
const DEFAULT_TIMEOUT: u64 = 1;

/// What an earlier injection told the agent.
pub(super) fn known(proxy: &Value) -> Map<String, Value> {
    let variables = proxy.get("env").and_then(Value::as_array).into_iter().flatten();
    let mut told = variables
        .filter(|variable| pod::name(variable) == VARIABLE)
        .filter_map(|variable| serde_json::from_str(variable.get("value")?.as_str()?).ok());
    told.next_back().unwrap_or_default()
}

/// The proxy's container without what an earlier injection told the agent.
pub(super) fn without_known(mut proxy: Value) -> Value {
    if let Some(variables) = proxy.get_mut("env").and_then(Value::as_array_mut) {
        variables.retain(|variable| pod::name(variable) != VARIABLE);
    }
    proxy
}

/// Takes out of `made` the probes and hooks that `written` has: of two ways to ask one thing only the
/// one that is written may stand.
pub(super) fn leave_to(written: &Value, made: &mut Value) {
    let Some(fields) = made.as_object_mut() else { return };
    for (probe, _) in PROBES.iter().filter(|(probe, _)| written.get(probe).is_some()) {
        fields.remove(*probe);
    }
    if let Some(lifecycle) = fields.get_mut("lifecycle").and_then(Value::as_object_mut) {
        lifecycle.retain(|hook, _| written.pointer(&format!("/lifecycle/{hook}")).is_none());
    }
}

/// Rewrites the probes and hooks of every application container; what they were is added to
/// `known`.
pub(super) fn rewrite(
    pod: &mut Value,
    mut known: Map<String, Value>,
    agent_port: u16,
) -> Map<String, Value> {
    for container in pod::applications(pod) {
        let name = pod::name(container).to_owned();
        let ports = container.get("ports").cloned().unwrap_or_default();
        for (field, word) in PROBES.into_iter().chain(HOOKS) {
            let hook = HOOKS.contains(&(field, word));
            let holder = if hook { container.get_mut("lifecycle") } else { Some(&mut *container) };
            let Some(probe) = holder.and_then(|holder| holder.get_mut(field)?.as_object_mut())
            else {
                continue;
            };
            let Some(mut meant) = meaning(probe, &ports, agent_port) else { continue };
            if hook {
                meant["timeoutSeconds"] = json!(HOOK_TIMEOUT);
            }
            let path = format!("{PATH}{name}/{word}");
            ["httpGet", "tcpSocket", "grpc"].iter().for_each(|action| drop(probe.remove(*action)));
            probe.insert(
                "httpGet".to_owned(),
                json!({ "path": path, "port": agent_port, "scheme": "HTTP" }),
            );
            known.insert(path, meant);
        }
    }
    known
}

/// What a probe asks, in the agent's form.
fn meaning(probe: &Map<String, Value>, ports: &Value, agent_port: u16) -> Option<Value> {
    let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_TIMEOUT);
    let (action, asked) = ["httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .find_map(|action| Some((action, probe.get(action)?)))?;
    let text =
        |field: &str| asked.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("host").is_some() {
        return None;
    }
    let port = port(asked.get("port")?, ports)?;
    let meant = match action {
        "httpGet" => {
            let path = text("path").unwrap_or("/");
            if port == agent_port && path.starts_with(PATH) {
                return None;
            }
            let mut get =
                json!({ "path": path, "port": port, "scheme": text("scheme").unwrap_or("HTTP") });
            if let Some(headers) = asked.get("httpHeaders").filter(|headers| headers.is_array()) {
                get["httpHeaders"] = headers.clone();
            }
            get
        }
        "grpc" => json!({ "port": port, "service": text("service").unwrap_or_default() }),
        _ => json!({ "port": port }),
    };
    Some(json!({ action: meant, "timeoutSeconds": timeout }))
}

/// A port by number, or by its name among those of the container.
fn port(port: &Value, ports: &Value) -> Option<u16> {
    let number = |value: &Value| {
        value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
    };
    let Some(name) = port.as_str() else { return number(port) };
    let mut ports = ports.as_array().into_iter().flatten();
    let named = ports
        .find(|port| pod::name(port) == name)
        .and_then(|port| number(port.get("containerPort")?));
    named.or_else(|| name.parse().ok().filter(|port| *port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rewrites the readiness probe of a container `app` with a port `web`: the probe then, and
    /// what the agent is told.
    fn rewritten(probe: Value) -> (Value, Value) {
        let container = json!({
            "name": "app", "readinessProbe": probe,
            "ports": [{ "name": "web", "containerPort": 8080 }],
        });
        let mut pod = json!({ "spec": { "containers": [container] } });
        let told = rewrite(&mut pod, Map::new(), 15020);
        (pod["spec"]["containers"][0]["readinessProbe"].take(), Value::Object(told))
    }

    #[test]
    fn the_agent_is_told_what_the_kubelet_meant() {
        let header = json!([{ "name": "X-Probe", "value": "1" }]);
        for (probe, told) in [
            (
                json!({ "httpGet": { "path": "/up", "port": "web" } }),
                json!({ "httpGet": { "path": "/up", "port": 8080, "scheme": "HTTP" }, "timeoutSeconds": 1 }),
            ),
            (
                json!({ "httpGet": { "port": 8443, "scheme": "HTTPS", "httpHeaders": header }, "timeoutSeconds": 7 }),
                json!({
                    "httpGet": { "path": "/", "port": 8443, "scheme": "HTTPS", "httpHeaders": header },
                    "timeoutSeconds": 7,
                }),
            ),
            (
                json!({ "tcpSocket": { "port": "9000" } }),
                json!({ "tcpSocket": { "port": 9000 }, "timeoutSeconds": 1 }),
            ),
            (
                json!({ "grpc": { "port": 9000, "service": null } }),
                json!({ "grpc": { "port": 9000, "service": "" }, "timeoutSeconds": 1 }),
            ),
        ] {
            let (rewritten, known) = rewritten(probe.clone());
            let get = json!({ "path": "/app-health/app/readyz", "port": 15020, "scheme": "HTTP" });
            assert_eq!(rewritten["httpGet"], get, "{probe}");
            assert_eq!((rewritten.get("tcpSocket"), rewritten.get("grpc")), (None, None));
            assert_eq!(rewritten.get("timeoutSeconds"), probe.get("timeoutSeconds"));
            assert_eq!(known["/app-health/app/readyz"], told, "{probe}");
        }
    }

    #[test]
    fn hooks_over_http_go_to_the_agent_too() {
        let get = json!({ "httpGet": { "path": "/bye", "port": 80 } });
        let exec = json!({ "exec": { "command": ["true"] } });
        let container =
            json!({ "name": "app", "lifecycle": { "preStop": get, "postStart": exec } });
        let mut pod = json!({ "spec": { "containers": [container] } });
        let told = rewrite(&mut pod, Map::new(), 15020);
        let lifecycle = &pod["spec"]["containers"][0]["lifecycle"];
        assert_eq!(lifecycle["preStop"]["httpGet"]["path"], "/app-health/app/prestopz");
        assert_eq!(lifecycle["postStart"], exec);
        let expected = json!({ "httpGet": { "path": "/bye", "port": 80, "scheme": "HTTP" }, "timeoutSeconds": 3600 });
        assert_eq!(told["/app-health/app/prestopz"], expected);
    }

    #[test]
    fn what_needs_no_agent_or_is_not_understood_is_left_alone() {
        for probe in [
            json!({ "exec": { "command": ["true"] } }),
            json!({ "httpGet": { "port": 80, "host": "example.org" } }),
            json!({ "httpGet": { "port": "unknown" } }),
            json!({ "tcpSocket": { "port": 0 } }),
            json!({ "httpGet": { "path": "/app-health/app/readyz", "port": 15020 } }),
            json!({}),
        ] {
            assert_eq!(rewritten(probe.clone()), (probe, json!({})));
        }
    }
}
