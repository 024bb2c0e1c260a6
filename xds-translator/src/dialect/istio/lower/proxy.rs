//! What proxies are started with.

use std::sync::Arc;

use super::token::selector;
use crate::{
    dialect::{
        istio::{mesh_config::MeshConfig, proxy_config::ProxyConfig},
        lowering::Lowering,
    },
    ir::{ProxyPolicy, ProxyStart},
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn proxy_config(&mut self, spec: &ProxyConfig) -> Item {
        Item::Proxy(Arc::new(ProxyPolicy {
            origin: self.origin(),
            selector: selector(spec.selector.as_ref()),
            start: ProxyStart {
                threads: spec.concurrency,
                environment: spec.environment.clone(),
                ..ProxyStart::default()
            },
        }))
    }
}

/// What the mesh configuration says.
pub(super) fn mesh_start(mesh: &MeshConfig) -> ProxyStart {
    let config = mesh.default_config.clone().unwrap_or_default();
    ProxyStart {
        threads: config.concurrency,
        drain: config.termination_drain_duration,
        hold: config.hold_application,
        agent_port: config.status_port,
        merge_metrics: mesh.enable_prometheus_merge,
        environment: config.proxy_metadata,
    }
}
