//! The containers and volumes that a pod gets.
//!
//! Names are Istio's, which tools look for. The proxy may do nothing but open sockets: a user of
//! its own, no capabilities, nothing to write but a folder in memory. Only what programs
//! redirection may change the network, and it has ended before anything else begins.

use ferromesh_xds_translator::diagnostic::{Code, Diagnostic, FieldPath};
use serde_json::{Map, Value, json};

use super::{
    annotations::{PodOverrides, Template},
    overlay, pod,
    settings::{InjectionSettings, ProxyKind, Quantities, Resources, Timing},
    statistics, values,
};

/// Ports that are never redirected: agent, readiness and metrics of the proxy.
const OWN_PORTS: [u16; 2] = [15021, 15090];
/// The annotation that says what was added.
const STATUS: &str = "sidecar.istio.io/status";
/// The annotation that says which container kubectl means if none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The key by which we know our own hand in it.
const INJECTOR: (&str, &str) = ("injector", "ferromesh");
/// Lets a gateway without privileges listen on ports such as 80; safe, for the pod has a network of
/// its own.
const LOW_PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");

const WORK_DIR: &str = "/var/run/ferromesh";
const TOKEN_DIR: &str = "/var/run/secrets/tokens";
const ROOT_DIR: &str = "/var/run/secrets/istio";
const POD_DIR: &str = "/etc/istio/pod";
/// Where the proxy finds [`pod::VOLUMES`].
const PLACES: [&str; 4] = [WORK_DIR, POD_DIR, TOKEN_DIR, ROOT_DIR];

/// The proxy's container.
pub(super) fn proxy(overrides: &PodOverrides, settings: &InjectionSettings) -> Value {
    let own = pod::VOLUMES.into_iter().zip(PLACES).map(|(name, path)| match path {
        WORK_DIR => json!({ "name": name, "mountPath": path }),
        _ => json!({ "name": name, "mountPath": path, "readOnly": true }),
    });
    let mounts: Vec<Value> = own.chain(overrides.volumes.mounts.iter().cloned()).collect();
    let command = match overrides.proxy {
        ProxyKind::Ferromesh => "run",
        ProxyKind::Envoy => "envoy",
    };
    let mut proxy = json!({
        "name": pod::PROXY,
        "image": overrides.image,
        "imagePullPolicy": settings.pull_policy.as_str(),
        "args": [command],
        "env": variables(overrides, settings),
        "ports": [{ "name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP" }],
        "resources": resources(&overrides.resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": pod::PROXY_UID,
            "runAsGroup": pod::PROXY_UID,
            "runAsNonRoot": true,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": mounts,
    });
    if let Some(readiness) = overrides.readiness {
        proxy["readinessProbe"] = probe(readiness);
        // What a native sidecar's startup probe has not seen ready, nothing behind it starts.
        if overrides.hold {
            proxy["startupProbe"] = probe(settings.startup);
        }
    }
    proxy
}

fn probe(timing: Timing) -> Value {
    json!({
        "httpGet": { "path": "/healthz/ready", "port": 15021, "scheme": "HTTP" },
        "initialDelaySeconds": timing.initial_delay,
        "periodSeconds": timing.period,
        "timeoutSeconds": timing.timeout,
        "failureThreshold": timing.failure_threshold,
    })
}

fn resources(resources: &Resources) -> Value {
    let amounts = |quantities: &Quantities| -> Map<String, Value> {
        quantities.written().map(|(name, amount)| (name.to_owned(), json!(amount))).collect()
    };
    let parts =
        [("limits", amounts(&resources.limits)), ("requests", amounts(&resources.requests))];
    parts
        .into_iter()
        .filter(|(_, amounts)| !amounts.is_empty())
        .map(|(name, amounts)| (name.to_owned(), Value::Object(amounts)))
        .collect()
}

/// The proxy's variables: `ferromesh-proxy run --help` says what they mean.
fn variables(overrides: &PodOverrides, settings: &InjectionSettings) -> Vec<Value> {
    let text = |name: &str, value: &str| json!({ "name": name, "value": value });
    let of_pod = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } });
    let mut variables = vec![
        text("FERROMESH_CONTROL_PLANE", &settings.discovery_address),
        text("FERROMESH_ROOT_CERT", &format!("{ROOT_DIR}/root-cert.pem")),
        text("FERROMESH_TOKEN_FILE", &format!("{TOKEN_DIR}/istio-token")),
        text("FERROMESH_TRUST_DOMAIN", settings.trust_domain.as_str()),
        text("FERROMESH_DNS_DOMAIN", &settings.cluster_domain),
        text("FERROMESH_CLUSTER_ID", &settings.cluster_id),
        of_pod("FERROMESH_NAME", "metadata.name"),
        of_pod("FERROMESH_NAMESPACE", "metadata.namespace"),
        of_pod("FERROMESH_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        of_pod("FERROMESH_IP", "status.podIP"),
        text("FERROMESH_LABELS_FILE", &format!("{POD_DIR}/labels")),
        text("FERROMESH_WORK_DIR", WORK_DIR),
        text("FERROMESH_AGENT_ADDRESS", &format!("0.0.0.0:{}", overrides.agent_port)),
        text("FERROMESH_LOG", &log_filter(&overrides.log_level)),
        text("FERROMESH_DRAIN_TIME", &values::duration(overrides.drain_time)),
        match overrides.concurrency {
            Some(threads) => text("FERROMESH_CONCURRENCY", &threads.to_string()),
            // Rounded up; without a limit, what the node has.
            None => {
                json!({ "name": "FERROMESH_CONCURRENCY", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } })
            }
        },
    ];
    match overrides.chosen.proxy {
        Template::Sidecar => variables.push(text("FERROMESH_INTERCEPTION", "redirect")),
        Template::Gateway => variables.push(text("FERROMESH_TYPE", "router")),
    }
    if overrides.proxy == ProxyKind::Envoy {
        let level = envoy_log_level(&overrides.envoy_log_level);
        variables.extend(level.map(|level| text("FERROMESH_ENVOY_LOG_LEVEL", level)));
        let told = overrides.statistics.told();
        let told = (!told.is_empty()).then(|| Value::Object(told).to_string());
        variables.extend(told.map(|told| text(statistics::VARIABLE, &told)));
    }
    variables.retain(|variable| !overrides.env.contains_key(pod::name(variable)));
    variables.extend(overrides.env.iter().map(|(name, value)| text(name, value)));
    variables
}

/// Our words for what is to be logged.
fn log_filter(levels: &str) -> String {
    levels.replace("warning", "warn").replace("critical", "error")
}

/// Envoy's word for a log level that was asked for; it says less than our agent by default.
fn envoy_log_level(level: &str) -> Option<&str> {
    match level {
        "warn" => Some("warning"),
        "trace" | "debug" | "warning" | "error" | "critical" | "off" => Some(level),
        _ => None,
    }
}

/// Tells the agent what metrics call the workload, unless the pod says so itself.
pub(super) fn name(proxy: &mut Value, workload: &str) {
    const VARIABLE: &str = "FERROMESH_WORKLOAD";
    let variables = pod::list(proxy, "env");
    let said = variables.iter().any(|variable| pod::name(variable) == VARIABLE);
    if !said && !workload.is_empty() {
        variables.push(json!({ "name": VARIABLE, "value": workload }));
    }
}

/// Tells the agent something, unless it is empty.
pub(super) fn tell(proxy: &mut Value, variable: &str, what: &Map<String, Value>) {
    if !what.is_empty() {
        let text = Value::Object(what.clone()).to_string();
        pod::list(proxy, "env").push(json!({ "name": variable, "value": text }));
    }
}

/// Puts redirection and proxy before all other init containers, so that these find the network as
/// the application will: redirected, and with the proxy at work.
pub(super) fn add_sidecar(
    pod: &mut Value,
    mut redirect: Value,
    mut proxy: Value,
) -> Result<(), Box<Diagnostic>> {
    if pod.pointer("/spec/containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let message = "the pod is nothing but a proxy, and no sidecar of anything";
        let finding =
            Diagnostic::error(Code::InvalidValue, FieldPath::of("spec.containers"), message);
        return Err(Box::new(finding.fix("annotate it `inject.istio.io/templates: gateway`")));
    }
    if pod::annotation(pod, DEFAULT_CONTAINER).is_none()
        && let Some(first) = pod::text(pod, "/spec/containers/0/name").map(str::to_owned)
    {
        pod::annotate(pod, DEFAULT_CONTAINER, first);
    }
    // Makes it a native sidecar.
    proxy["restartPolicy"] = json!("Always");
    if let Some((_, written)) = pod::take_container(pod, pod::REDIRECT) {
        overlay::lay(&mut redirect, written);
    }
    pod::list(pod::spec(pod), "initContainers").splice(0..0, [redirect, proxy]);
    Ok(())
}

/// The container that programs redirection, and ends.
pub(super) fn redirect(overrides: &PodOverrides, settings: &InjectionSettings) -> Value {
    let chosen = &overrides.redirect;
    let own = std::iter::once(overrides.agent_port)
        .chain(OWN_PORTS)
        .map(|port| port.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let excluded = match chosen.exclude_inbound_ports.trim() {
        "" => own,
        "*" => "*".to_owned(),
        ports => format!("{ports},{own}"),
    };
    let flags: [(&str, &str); 9] = [
        ("--proxy-uid", "1337"),
        ("--inbound-port", "15006"),
        ("--outbound-port", "15001"),
        ("--include-outbound-cidrs", &chosen.include_outbound_ranges),
        ("--exclude-outbound-cidrs", &chosen.exclude_outbound_ranges),
        ("--include-outbound-ports", &chosen.include_outbound_ports),
        ("--exclude-outbound-ports", &chosen.exclude_outbound_ports),
        ("--include-inbound-ports", &chosen.include_inbound_ports),
        ("--exclude-inbound-ports", &excluded),
    ];
    let arguments =
        std::iter::once("redirect").chain(flags.iter().flat_map(|(flag, value)| [*flag, *value]));
    json!({
        "name": pod::REDIRECT,
        "image": overrides.image,
        "imagePullPolicy": settings.pull_policy.as_str(),
        "args": arguments.collect::<Vec<_>>(),
        "resources": resources(&settings.init_resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Puts a gateway's proxy where its author wrote it.
pub(super) fn add_gateway(pod: &mut Value, proxy: Value, place: Option<(&'static str, usize)>) {
    let spec = pod::spec(pod);
    let containers = pod::list(spec, "containers");
    let index = place.map_or(0, |(_, index)| index.min(containers.len()));
    containers.insert(index, proxy);
    pod::map(spec, "securityContext");
    let sysctls = pod::list(&mut spec["securityContext"], "sysctls");
    if !sysctls.iter().any(|sysctl| pod::name(sysctl) == LOW_PORTS.0) {
        sysctls.push(json!({ "name": LOW_PORTS.0, "value": LOW_PORTS.1 }));
    }
}

/// Adds the proxy's volumes, and `more`; a volume of the same name that is there already is its
/// author's.
pub(super) fn add_volumes(pod: &mut Value, more: &[Value]) {
    let field =
        |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    let token =
        json!({ "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token" });
    let made = [
        json!({ "name": pod::VOLUMES[0], "emptyDir": { "medium": "Memory" } }),
        json!({
            "name": pod::VOLUMES[1],
            "downwardAPI": { "items": [field("labels", "metadata.labels"), field("annotations", "metadata.annotations")] },
        }),
        json!({ "name": pod::VOLUMES[2], "projected": { "sources": [{ "serviceAccountToken": token }] } }),
        json!({ "name": pod::VOLUMES[3], "configMap": { "name": "istio-ca-root-cert" } }),
    ];
    add_named(pod::list(pod::spec(pod), "volumes"), made.into_iter().chain(more.iter().cloned()));
}

/// Adds the Secrets with which the images are pulled.
pub(super) fn add_pull_secrets(pod: &mut Value, settings: &InjectionSettings) {
    if !settings.pull_secrets.is_empty() {
        let secrets = settings.pull_secrets.iter().map(|name| json!({ "name": name }));
        add_named(pod::list(pod::spec(pod), "imagePullSecrets"), secrets);
    }
}

fn add_named(list: &mut Vec<Value>, items: impl IntoIterator<Item = Value>) {
    for item in items {
        if !list.iter().any(|present| pod::name(present) == pod::name(&item)) {
            list.push(item);
        }
    }
}

/// Writes down what was added, in Istio's form.
pub(super) fn mark(pod: &mut Value, overrides: &PodOverrides, settings: &InjectionSettings) {
    let (init, main) = match overrides.chosen.proxy {
        Template::Sidecar => (vec![pod::REDIRECT, pod::PROXY], vec![]),
        Template::Gateway => (vec![], vec![pod::PROXY]),
    };
    let status = json!({
        "initContainers": init,
        "containers": main,
        "volumes": pod::VOLUMES,
        "imagePullSecrets": settings.pull_secrets,
        "revision": settings.revision,
        INJECTOR.0: INJECTOR.1,
    });
    pod::annotate(pod, STATUS, status.to_string());
    for (key, value) in &settings.injected_annotations {
        if pod::annotation(pod, key).is_none() {
            pod::annotate(pod, key, &**value);
        }
    }
}

/// Whether another program has injected the pod, which would only be spoilt by ours.
pub(super) fn injected_by_another(pod: &Value) -> bool {
    pod::annotation(pod, STATUS).is_some_and(|status| {
        let status: Value = serde_json::from_str(status).unwrap_or_default();
        status.get(INJECTOR.0).and_then(Value::as_str) != Some(INJECTOR.1)
    })
}
