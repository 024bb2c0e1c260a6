//! One scrape of a pod reaches proxy and application: Prometheus is sent to the agent, which asks
//! both.

use serde_json::{Map, Value, json};

use super::{annotations::PodOverrides, pod};

/// The agent's variable with the application's endpoint, if it has one.
pub(super) const VARIABLE: &str = "FERROMESH_APP_METRICS";
const SCRAPE: &str = "prometheus.io/scrape";
const SCHEME: &str = "prometheus.io/scheme";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
/// Where the agent shows both.
const MERGED: &str = "/stats/prometheus";

/// Points the pod's scrape annotations at the agent; returns what they said of the application,
/// empty if nothing. `None`: the annotations stay as they are, for they ask for it or were
/// rewritten before.
pub(super) fn take_over(pod: &mut Value, overrides: &PodOverrides) -> Option<Map<String, Value>> {
    let agent_port = overrides.agent_port.to_string();
    let scrape = pod::annotation(pod, SCRAPE);
    let encrypted =
        pod::annotation(pod, SCHEME).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    if !overrides.merge_metrics
        || scrape == Some("false")
        || encrypted
        || pod::annotation(pod, PORT) == Some(&agent_port)
    {
        return None;
    }
    let endpoint = match scrape {
        Some("true") => {
            let port =
                pod::annotation(pod, PORT).map(str::to_owned).unwrap_or_else(|| first_port(pod));
            let path = pod::annotation(pod, PATH).unwrap_or("/metrics");
            Map::from_iter([("path".to_owned(), json!(path)), ("port".to_owned(), json!(port))])
        }
        _ => Map::new(),
    };
    for (key, value) in [(SCRAPE, "true"), (PORT, &agent_port), (PATH, MERGED)] {
        pod::annotate(pod, key, value);
    }
    Some(endpoint)
}

/// The first port that a container declares, as Prometheus would take it.
fn first_port(pod: &mut Value) -> String {
    let port = pod::applications(pod)
        .find_map(|c| c.pointer("/ports/0/containerPort").and_then(Value::as_u64));
    port.unwrap_or(80).to_string()
}
