//! What a control plane does because it belongs to a cluster: follow it, take part in its election
//! of a leader, and as the leader write statuses, roots and the webhooks' trust.

use std::sync::Arc;

use tokio::sync::watch;

use super::parts::{Core, Tasks, forever};
use crate::{
    kube_cluster::{
        KubeCluster, authority,
        connection_pages::{OtherPages, OwnPages},
        leader,
        status::Writer,
        status_cache::StatusCache,
        trust, webhooks,
    },
    source::{connections::replicas, kubernetes},
};

/// Starts everything; `webhooks`: whether the API server may ask this control plane.
pub(super) fn join(tasks: &mut Tasks, core: &Core, cluster: &KubeCluster, webhooks: bool) {
    let statuses = Arc::new(StatusCache::default());
    let namespace = core.settings.root_namespace.clone();
    let metrics = core.shared.metrics.clone();
    let watches = kubernetes::run(
        cluster.clone(),
        namespace.clone(),
        core.secrets.clone(),
        core.events.clone(),
        statuses.clone(),
        metrics.clone(),
    );
    tasks.spawn(async { Ok(watches.await?) });
    let state = authority::follow(cluster.clone(), namespace.clone(), core.authority.clone());
    tasks.spawn(async { Ok(state.await?) });

    let (connections, instance) = (core.shared.connections.clone(), &core.settings.pod_name);
    let own = OwnPages::new(cluster, &namespace, instance);
    tasks.spawn(forever(replicas::tell(connections.clone(), own)));
    let others = OtherPages::new(cluster, &namespace, instance);
    tasks.spawn(forever(replicas::hear(connections, others, metrics.clone())));

    let leads = elect(core, cluster);
    let writer = Writer {
        cluster: cluster.clone(),
        mesh: core.shared.mesh.clone(),
        proxies: core.shared.proxies.clone(),
        statuses,
        metrics: metrics.clone(),
        judge: core.judge.clone(),
        instance: core.settings.pod_name.clone(),
        root_namespace: core.settings.root_namespace.clone(),
    };
    tasks.spawn(forever(writer.clone().tell(leads.clone())));
    tasks.spawn(forever(writer.run(leads.clone())));
    let bundle = core.authority.trust_bundle();
    if webhooks {
        let mesh = core.shared.mesh.clone();
        let ready = async move { mesh.until_synced().await };
        tasks.spawn(forever(webhooks::keep(cluster.clone(), ready, bundle.clone(), leads.clone())));
    }
    let take_over = core.settings.take_over_roots;
    tasks.spawn(forever(trust::publish(
        cluster.clone(),
        namespace,
        take_over,
        bundle,
        leads,
        metrics,
    )));
}

/// Takes part in the election of a leader until the end; says whether this replica leads.
fn elect(core: &Core, cluster: &KubeCluster) -> watch::Receiver<bool> {
    let (leading, leads) = watch::channel(false);
    let shared = &core.shared;
    let (cluster, stop, metrics) = (cluster.clone(), shared.stop.clone(), shared.metrics.clone());
    let (namespace, identity) =
        (core.settings.root_namespace.clone(), core.settings.pod_name.clone());
    let mut shown = leads.clone();
    // Waited for at the end, so that the Lease is given up.
    shared
        .tasks
        .spawn(async move { leader::run(cluster, &namespace, identity, leading, stop).await });
    shared.tasks.spawn(async move {
        while shown.changed().await.is_ok() {
            metrics.leader.set((*shown.borrow_and_update()).into());
        }
    });
    leads
}
