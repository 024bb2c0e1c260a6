//! Variables that a mesh, a ProxyConfig or a pod gives to its proxies (`proxyMetadata`): which of them no program of
//! ours reads, although their names say that they are meant for one.

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{decode::Decoder, suggest},
};

/// Beginning of variables that Istio's agent passes on as metadata of its node.
const ISTIO_METADATA: &str = "ISTIO_META_";
/// Beginning of our own.
const OUR_OWN: &str = "FERROMESH_";
/// Variables that Istio's agent acts on, and no program of ours reads (istio/istio
/// `pilot/cmd/pilot-agent/options`, `pkg/istio-agent`).
const OF_ISTIOS_AGENT: [&str; 24] = [
    "BOOTSTRAP_XDS_AGENT",
    "CA_ADDR",
    "CA_PROVIDER",
    "CA_ROOT_CA",
    "CREDENTIAL_FETCHER_TYPE",
    "DISABLE_ENVOY",
    "DNS_AGENT",
    "ECC_CURVE",
    "ECC_SIGNATURE_ALGORITHM",
    "ENABLE_ENVOY_CORE_DUMP",
    "ENVOY_PROMETHEUS_PORT",
    "ENVOY_STATUS_PORT",
    "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
    "FILE_MOUNTED_CERTS",
    "ISTIO_DELTA_XDS",
    "ISTIO_KUBE_APP_PROBERS",
    "MINIMUM_DRAIN_DURATION",
    "OUTPUT_CERTS",
    "PROXY_XDS_VIA_AGENT",
    "SECRET_GRACE_PERIOD_RATIO",
    "SECRET_TTL",
    "TERMINATION_DRAIN_DURATION_SECONDS",
    "WASM_INSECURE_REGISTRIES",
    "XDS_ROOT_CA",
];
/// Every variable that a proxy or its agent reads; sorted.
pub const OURS: [&str; 50] = [
    "FERROMESH_ADMIN_ADDRESS",
    "FERROMESH_AGENT_ADDRESS",
    "FERROMESH_ALL_STATISTICS",
    "FERROMESH_APP_ADDRESS",
    "FERROMESH_APP_METRICS",
    "FERROMESH_APP_PROBES",
    "FERROMESH_CLUSTER_ID",
    "FERROMESH_CONCURRENCY",
    "FERROMESH_CONTROL_PLANE",
    "FERROMESH_DNS_DOMAIN",
    "FERROMESH_DRAIN_TIME",
    "FERROMESH_ENVOY_LOG_LEVEL",
    "FERROMESH_ENVOY_PATH",
    "FERROMESH_ENVOY_STATISTICS",
    "FERROMESH_EXCLUDE_INBOUND_PORTS",
    "FERROMESH_EXCLUDE_OUTBOUND_CIDRS",
    "FERROMESH_EXCLUDE_OUTBOUND_PORTS",
    "FERROMESH_GROUP",
    "FERROMESH_HEALTH_PROBE",
    "FERROMESH_INBOUND_ADDRESS",
    "FERROMESH_INBOUND_PORT",
    "FERROMESH_INCLUDE_INBOUND_PORTS",
    "FERROMESH_INCLUDE_OUTBOUND_CIDRS",
    "FERROMESH_INCLUDE_OUTBOUND_PORTS",
    "FERROMESH_INTERCEPTION",
    "FERROMESH_IP",
    "FERROMESH_LABELS",
    "FERROMESH_LABELS_FILE",
    "FERROMESH_LOG",
    "FERROMESH_LOG_FORMAT",
    "FERROMESH_METRICS_ADDRESS",
    "FERROMESH_NAME",
    "FERROMESH_NAMESPACE",
    "FERROMESH_NO_ISTIO_METRICS",
    "FERROMESH_OUTBOUND_ADDRESS",
    "FERROMESH_OUTBOUND_PORT",
    "FERROMESH_PLAINTEXT",
    "FERROMESH_PROXY_GID",
    "FERROMESH_PROXY_UID",
    "FERROMESH_ROOT_CERT",
    "FERROMESH_SDS_GROUP",
    "FERROMESH_SDS_SOCKET",
    "FERROMESH_SERVER_NAME",
    "FERROMESH_SERVICE_ACCOUNT",
    "FERROMESH_STATUS_ADDRESS",
    "FERROMESH_TOKEN_FILE",
    "FERROMESH_TRUST_DOMAIN",
    "FERROMESH_TYPE",
    "FERROMESH_WORKLOAD",
    "FERROMESH_WORK_DIR",
];

/// Notes what is no name of a variable, and what nobody reads.
pub(super) fn check(name: &str, at: &mut Decoder) {
    at.within_key(name, |at| {
        if !is_variable(name) {
            at.invalid(format!("`{name}` is not the name of a variable"), None);
        } else if !may_be_read(name) {
            at.remark(|path| unread(path, name));
        }
    });
}

/// Whether an environment can have a variable of this name (Kubernetes).
fn is_variable(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.chars().all(inner) && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// Whether a variable may mean something to somebody: our own if they exist, and whatever is neither
/// ours nor meant for Istio's agent.
fn may_be_read(name: &str) -> bool {
    match name.starts_with(OUR_OWN) {
        true => OURS.contains(&name),
        false => !name.starts_with(ISTIO_METADATA) && !OF_ISTIOS_AGENT.contains(&name),
    }
}

/// The finding on one that is not read.
fn unread(path: FieldPath, name: &str) -> Diagnostic {
    let message = "accepted, but not acted on: no program of ours reads it";
    let finding = Diagnostic::warning(Code::NotActedOn, path, message);
    let near = suggest::nearest(name, OURS.into_iter()).filter(|_| name.starts_with(OUR_OWN));
    match near {
        Some(near) => finding.fix(format!("`{near}`")),
        None => finding
            .fix("a variable FERROMESH_… of `ferromesh-proxy --help` that says it, or remove it"),
    }
}
