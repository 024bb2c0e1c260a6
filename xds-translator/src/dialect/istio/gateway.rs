//! `networking.istio.io Gateway`: fields only.

use std::{collections::BTreeMap, sync::Arc};

use super::shared::{Port, ServerTls};
use crate::dialect::schema::object;

object! {
    /// What gateway proxies open to clients outside the mesh.
    Gateway {
        /// Labels of the gateway's pods; absent: every gateway.
        "selector" selector: BTreeMap<Arc<str>, Arc<str>> [no_null],
        /// Its servers.
        "servers" servers: Vec<Server> [required],
    }
}

object! {
    /// One server.
    Server {
        /// The port clients use.
        "port" port: Port [required],
        /// Address or Unix socket to bind; absent: all addresses.
        "bind" bind: Arc<str> [no_null],
        /// Hosts, `NAMESPACE/HOST` to restrict whose routes may bind.
        "hosts" hosts: Vec<Arc<str>> [required],
        /// TLS.
        "tls" tls: Option<ServerTls> [no_null],
        /// Ignored, as in Istio.
        "defaultEndpoint" default_endpoint: Arc<str>
            [idle("Istio does not look at it either: routes say where requests go")],
        /// Name for logs and metrics.
        "name" name: Arc<str>,
    }
}
