//! `networking.istio.io Sidecar`: fields only.

use std::sync::Arc;

use super::{
    destination_rule::ConnectionPool,
    shared::{LabelSelector, Port, ServerTls},
    virtual_service::Destination,
};
use crate::dialect::schema::{choice, object};

object! {
    /// What sidecars see and open.
    Sidecar {
        /// Workloads of the namespace; absent: all.
        "workloadSelector" workload_selector: Option<LabelSelector> [no_null],
        /// Listeners for traffic to the workload.
        "ingress" ingress: Vec<IngressListener> [no_null],
        /// Listeners for traffic from the workload.
        "egress" egress: Vec<EgressListener> [no_null],
        /// Limits of every inbound connection pool.
        "inboundConnectionPool" inbound_connection_pool: Option<ConnectionPool>,
        /// What happens to traffic for unknown hosts.
        "outboundTrafficPolicy" outbound_traffic_policy: Option<OutboundTrafficPolicy> [no_null],
    }
}

object! {
    /// A listener for traffic to the workload.
    IngressListener {
        /// Its port.
        "port" port: Port [required],
        /// Address to bind.
        "bind" bind: Arc<str> [no_null],
        /// How traffic gets there.
        "captureMode" capture_mode: CaptureMode,
        /// Where it goes: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
        "defaultEndpoint" default_endpoint: Arc<str>,
        /// TLS of clients outside the mesh, where mutual TLS is off for the port.
        "tls" tls: Option<ServerTls> [no_null],
        /// Limits.
        "connectionPool" connection_pool: Option<ConnectionPool>,
    }
}

object! {
    /// A listener for traffic from the workload.
    EgressListener {
        /// Its port; absent: every port of the visible services.
        "port" port: Option<Port> [no_null],
        /// Address or Unix socket to bind.
        "bind" bind: Arc<str> [no_null],
        /// How traffic gets there.
        "captureMode" capture_mode: CaptureMode,
        /// Visible hosts, `NAMESPACE/HOST`.
        "hosts" hosts: Vec<Arc<str>> [required],
    }
}

choice! {
    /// How traffic gets to a listener.
    CaptureMode {
        /// As the proxy's interception mode says.
        Default = "DEFAULT",
        /// By iptables.
        Iptables = "IPTABLES",
        /// The application connects itself.
        None = "NONE",
    }
}

object! {
    /// What happens to traffic for unknown hosts.
    OutboundTrafficPolicy {
        /// Pass or refuse.
        "mode" mode: OutboundTrafficMode [no_null],
        /// Where it goes instead.
        "egressProxy" egress_proxy: Option<Destination> [no_null],
    }
}

choice! {
    /// Pass or refuse.
    OutboundTrafficMode {
        /// Refused.
        RegistryOnly = "REGISTRY_ONLY",
        /// Passed.
        AllowAny = "ALLOW_ANY",
        /// Passed, resolved by the proxy.
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS",
    }
}
