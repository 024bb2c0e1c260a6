//! What API servers and `kubectl` are told of Istio's kinds: group, kind, names, versions and the
//! stored version are Istio's, so that the definitions install over Istio's own.

use super::{
    destination_rule, envoy_filter, extension, gateway, proxy_config, request_authentication,
    security, service_entry, sidecar, telemetry, virtual_service, workload_group,
};
use crate::dialect::definition::{Column, Definition};

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

pub(super) static VIRTUAL_SERVICE: Definition = Definition {
    schema: virtual_service::VirtualService::SCHEMA,
    short: &["vs"],
    versions: NETWORKING,
    columns: &[
        Column::text("Gateways", ".spec.gateways", "Gateways that the rules are for."),
        Column::text("Hosts", ".spec.hosts", "Hosts that the rules are for."),
    ],
};
pub(super) static DESTINATION_RULE: Definition = Definition {
    schema: destination_rule::DestinationRule::SCHEMA,
    short: &["dr"],
    versions: NETWORKING,
    columns: &[Column::text("Host", ".spec.host", "Host that the policy is for.")],
};
pub(super) static GATEWAY: Definition = Definition {
    schema: gateway::Gateway::SCHEMA,
    short: &["gw"],
    versions: NETWORKING,
    columns: &[Column::text("Selector", ".spec.selector", "Labels of the gateway's pods.")],
};
pub(super) static SERVICE_ENTRY: Definition = Definition {
    schema: service_entry::ServiceEntry::SCHEMA,
    short: &["se"],
    versions: NETWORKING,
    columns: &[
        Column::text("Hosts", ".spec.hosts", "The hosts."),
        Column::text("Location", ".spec.location", "Inside or outside the mesh."),
        Column::text("Resolution", ".spec.resolution", "How endpoints are found."),
    ],
};
pub(super) static WORKLOAD_ENTRY: Definition = Definition {
    schema: service_entry::WorkloadEntry::SCHEMA,
    short: &["we"],
    versions: NETWORKING,
    columns: &[Column::text("Address", ".spec.address", "Address of the workload.")],
};
pub(super) static SIDECAR: Definition =
    Definition { schema: sidecar::Sidecar::SCHEMA, short: &[], versions: NETWORKING, columns: &[] };
pub(super) static PEER_AUTHENTICATION: Definition = Definition {
    schema: security::PeerAuthentication::SCHEMA,
    short: &["pa"],
    versions: SECURITY,
    columns: &[Column::text("Mode", ".spec.mtls.mode", "What is taken from peers.")],
};
pub(super) static AUTHORIZATION_POLICY: Definition = Definition {
    schema: security::AuthorizationPolicy::SCHEMA,
    short: &["ap"],
    versions: SECURITY,
    columns: &[Column::text("Action", ".spec.action", "What a match means.")],
};
pub(super) static REQUEST_AUTHENTICATION: Definition = Definition {
    schema: request_authentication::RequestAuthentication::SCHEMA,
    short: &["ra"],
    versions: SECURITY,
    columns: &[],
};
pub(super) static TELEMETRY: Definition = Definition {
    schema: telemetry::Telemetry::SCHEMA,
    short: &["telemetry"],
    versions: &["v1alpha1", "v1"],
    columns: &[],
};
pub(super) static WASM_PLUGIN: Definition = Definition {
    schema: extension::WasmPlugin::SCHEMA,
    short: &[],
    versions: &["v1alpha1"],
    columns: &[
        Column::text("Phase", ".spec.phase", "Where among the filters it runs."),
        Column::text("URL", ".spec.url", "Where the module is."),
    ],
};
pub(super) static TRAFFIC_EXTENSION: Definition = Definition {
    schema: extension::TrafficExtension::SCHEMA,
    short: &[],
    versions: &["v1alpha1"],
    columns: &[Column::text("Phase", ".spec.phase", "Where among the filters it runs.")],
};
pub(super) static ENVOY_FILTER: Definition = Definition {
    schema: envoy_filter::EnvoyFilter::SCHEMA,
    short: &[],
    versions: &["v1alpha3"],
    columns: &[],
};
pub(super) static WORKLOAD_GROUP: Definition = Definition {
    schema: workload_group::WorkloadGroup::SCHEMA,
    short: &["wg"],
    versions: NETWORKING,
    columns: &[],
};
pub(super) static PROXY_CONFIG: Definition = Definition {
    schema: proxy_config::ProxyConfig::SCHEMA,
    short: &[],
    versions: &["v1beta1"],
    columns: &[],
};
