//! The TCP proxy.

use super::{metrics, network};
use crate::{
    emit::{
        access_log::logs,
        any::duration,
        pb::{
            listener::Filter,
            tcp_proxy::{
                TcpProxy,
                tcp_proxy::{
                    ClusterSpecifier, TunnelingConfig, WeightedCluster,
                    weighted_cluster::ClusterWeight,
                },
            },
            types::{HashPolicy, hash_policy},
        },
    },
    plan::TcpProxyPlan,
};

/// The terminal filter.
pub(in crate::emit) fn filter(plan: &TcpProxyPlan) -> Filter {
    let source_ip = || HashPolicy {
        policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})),
    };
    let agent = plan.metrics.as_ref().and_then(metrics::tcp_log);
    let config = TcpProxy {
        stat_prefix: plan.stat_prefix.to_string(),
        cluster_specifier: Some(clusters(plan)),
        idle_timeout: plan.idle_timeout.map(duration),
        max_downstream_connection_duration: plan.max_duration.map(duration),
        hash_policy: plan.hash_source_ip.then(source_ip).into_iter().collect(),
        tunneling_config: plan.tunnel.as_ref().map(|tunnel| TunnelingConfig {
            hostname: tunnel.target.to_string(),
            use_post: tunnel.by_post,
            ..Default::default()
        }),
        access_log: logs(&plan.access_logs).into_iter().chain(agent).collect(),
        ..Default::default()
    };
    network("envoy.filters.network.tcp_proxy", &config)
}

fn clusters(plan: &TcpProxyPlan) -> ClusterSpecifier {
    let weight = |(name, weight): &(std::sync::Arc<str>, u32)| ClusterWeight {
        name: name.to_string(),
        weight: *weight,
        ..Default::default()
    };
    match plan.clusters.as_slice() {
        [(only, _)] => ClusterSpecifier::Cluster(only.to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.iter().map(weight).collect(),
        }),
    }
}
