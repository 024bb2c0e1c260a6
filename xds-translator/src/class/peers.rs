//! A proxy's own replicas, by whose places it balances over zones.

use super::Facts;
use crate::{
    ir::ZonePolicy,
    plan::{Kinship, PatchesKey, PeersKey},
};

impl Facts<'_> {
    /// Whether something that the proxy sees balances over zones.
    pub(super) fn zones_matter(&self) -> bool {
        let by_mesh = self.snapshot.mesh().zones.as_ref().is_some_and(ZonePolicy::is_on);
        by_mesh || self.snapshot.backends().zones_matter(self.namespace())
    }

    /// `None` where zones do not matter, or no service leads to the workload.
    pub(super) fn peers(&self) -> Option<PeersKey> {
        let workload = self.workload.filter(|_| self.zones_matter())?;
        let (service, port, _) = self.service_ports().into_iter().next()?;
        Some(PeersKey {
            service,
            port,
            kinship: Kinship::of(&workload.labels, &workload.workload_name, &workload.id.name),
            region: self.place().region,
            patches: PatchesKey::default(),
        })
    }
}
