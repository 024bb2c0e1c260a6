//! What proxies are started with.

use std::sync::Arc;

use super::token::selector;
use crate::{
    dialect::{
        istio::{
            mesh_config::{MeshConfig, ProxyDefaults, ProxyStatsMatcher},
            proxy_config::ProxyConfig,
        },
        lowering::Lowering,
    },
    ir::{ProxyPolicy, ProxyStart, StatisticNames},
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
    ProxyStart {
        merge_metrics: mesh.enable_prometheus_merge,
        ..start(mesh.default_config.clone().unwrap_or_default())
    }
}

/// What a proxy is started with by settings of Istio's `ProxyConfig`, of the mesh or of a pod.
pub(in crate::dialect) fn start(config: ProxyDefaults) -> ProxyStart {
    let names = |matcher: ProxyStatsMatcher| StatisticNames {
        prefixes: matcher.prefixes,
        suffixes: matcher.suffixes,
        regexes: matcher.regexes,
    };
    let tags = config.extra_stat_tags;
    ProxyStart {
        threads: config.concurrency,
        drain: config.termination_drain_duration,
        hold: config.hold_application,
        agent_port: config.status_port,
        merge_metrics: None,
        statistics: config.proxy_stats_matcher.map(names),
        statistic_tags: (!tags.is_empty()).then_some(tags),
        environment: config.proxy_metadata,
    }
}
