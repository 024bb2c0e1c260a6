//! What the parts of a control plane are made of.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::SystemTime};

use anyhow::anyhow;
use ferromesh_cert_authority::Authority;
use ferromesh_xds_translator::{compiler::Compiler, ir::MeshDefaults};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::state;
use crate::{
    ads::shared::{Parts, Shared},
    config::Settings,
    event::{EventSender, SourceId},
    findings::Findings,
    judge::Judge,
    kube_cluster::KubeCluster,
    metrics::Metrics,
    pipeline::Mesh,
    secret::Secrets,
    source::connections::Connections,
    status::Proxies,
};

/// Work that the control plane cannot be without.
pub(super) type Tasks = JoinSet<anyhow::Result<()>>;

/// What the parts of a control plane are made of.
pub(super) struct Core {
    pub(super) settings: Settings,
    /// The cluster that it belongs to.
    pub(super) cluster: Option<KubeCluster>,
    pub(super) authority: Arc<Authority>,
    pub(super) secrets: Arc<Secrets>,
    /// To the pipeline.
    pub(super) events: EventSender,
    pub(super) judge: Judge,
    pub(super) shared: Arc<Shared>,
}

impl Core {
    /// Starts the pipeline; it publishes nothing before every source has told what it has.
    pub(super) fn new(
        tasks: &mut Tasks,
        settings: Settings,
        cluster: Option<KubeCluster>,
        authority: Arc<Authority>,
    ) -> Self {
        let defaults = MeshDefaults {
            trust_domain: settings.trust_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..MeshDefaults::default()
        };
        // Who does not know yet which proxies are connected elsewhere, or were connected before a
        // restart, would take them for gone.
        let mut expected = BTreeSet::from([SourceId::Rest, SourceId::Keys, SourceId::Connections]);
        expected.extend(cluster.is_some().then_some(SourceId::Kubernetes));
        expected.extend((!settings.config.is_empty()).then_some(SourceId::Directory));
        let metrics = Metrics::new();
        let (mesh, events, end) = Mesh::start(
            Compiler::new(defaults.clone()),
            expected,
            settings.leaf_ttl,
            metrics.clone(),
        );
        tasks.spawn(async move {
            let _ = end.await;
            Err(anyhow!("the compiler stopped: this is a bug; restart the control plane"))
        });
        let judge = Judge::new(mesh.clone(), defaults);
        let secrets = Arc::new(Secrets::default());
        let connections = Arc::new(match &cluster {
            Some(_) => Connections::of_replica(),
            None => Connections::kept(settings.proxies_file(), settings.proxy_grace),
        });
        tasks.spawn(forever(connections.clone().tell(events.clone())));
        let shared = Shared::new(Parts {
            mesh,
            secrets: secrets.clone(),
            proxies: Arc::new(Proxies::default()),
            connections: connections.clone(),
            metrics,
            identifier: format!(
                "ferromesh {} {:08x}",
                env!("CARGO_PKG_VERSION"),
                rand::random::<u32>()
            ),
            clock: SystemTime::now,
            stop: CancellationToken::new(),
        });
        let (proxies, metrics) = (shared.proxies.clone(), shared.metrics.clone());
        tasks.spawn(forever(async move { proxies.tend(&metrics).await }));
        Self { settings, cluster, authority, secrets, events, judge, shared }
    }

    /// All that is found. In a cluster, whose proxies are there is told by others.
    pub(super) fn findings(&self) -> Findings {
        let Shared { mesh, proxies, connections, .. } = &*self.shared;
        let alone = self.cluster.is_none().then(|| connections.clone());
        Findings::new(mesh.clone(), self.judge.clone(), proxies.clone(), alone)
    }

    /// Keeps the authority going, and its roots in a file for agents on this machine.
    pub(super) fn tend_authority(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let (authority, metrics, file) =
            (&self.authority, &self.shared.metrics, self.settings.root_file());
        tasks.spawn(forever(authority.clone().run_upkeep(SystemTime::now)));
        let roots = authority.trust_bundle().borrow().clone();
        state::publish_roots(&file, &roots, metrics)?;
        tasks.spawn(forever(state::follow_roots(authority.clone(), file, metrics.clone())));
        Ok(())
    }
}

/// A part that never ends by itself.
pub(super) async fn forever(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}
