//! What the webhooks' answers are made of.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    accept::{ClientNetwork, turns::Turns},
    inject::InjectionSettings,
    judge::Judge,
    metrics::Metrics,
    pipeline::Mesh,
};

/// Objects judged at a time; each judgement looks at the whole mesh.
const JUDGEMENTS: usize = 2;

/// What the webhooks' answers are made of.
pub struct Webhooks {
    /// The mesh as the pipeline knows it.
    pub mesh: Mesh,
    /// What injected pods get.
    pub settings: Arc<ArcSwap<InjectionSettings>>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    pub(super) judge: Judge,
    pub(super) judgements: Arc<Turns<ClientNetwork>>,
}

impl Webhooks {
    /// Webhooks of a mesh.
    pub fn new(
        mesh: Mesh,
        judge: Judge,
        settings: Arc<ArcSwap<InjectionSettings>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { mesh, settings, metrics, judge, judgements: Turns::new(JUDGEMENTS) }
    }
}
