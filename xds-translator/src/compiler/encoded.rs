//! Encoded resources by content, so that views with equal listeners or routes share their bytes.

use std::sync::Arc;

use bytes::Bytes;
use ferromesh_proto::{EncodedResource, ResourceType, Version};
use rustc_hash::FxHashMap;

use super::Work;
use crate::{
    emit,
    plan::{PlanItem, RouteFrame},
};

/// Resources that views own, and route configurations, by what they were made from.
#[derive(Default, Debug)]
pub(super) struct EncodedMemo {
    own: FxHashMap<(ResourceType, Arc<str>, Version), Arc<EncodedResource>>,
    routes: FxHashMap<RouteContent, Arc<EncodedResource>>,
    /// Bytes that were there when it was last looked for what nobody uses.
    kept: usize,
    /// Bytes that came since then.
    gathered: usize,
}

/// Less than this is not worth a look.
const LITTLE: usize = 1 << 20;
/// What an entry takes beside its body.
const ENTRY: usize = 256;

/// What a route configuration is made from: name, whether ports in `Host` are ignored, virtual hosts in order.
type RouteContent = (Arc<str>, bool, Box<[Version]>);

impl EncodedMemo {
    /// The encoded form of a view's own resource.
    pub(super) fn own(&mut self, plan: &PlanItem, work: &mut Work) -> Arc<EncodedResource> {
        let (kind, name) = name_of(plan);
        let version = emit::version(plan);
        let key = (kind, name.clone(), version);
        if let Some(known) = self.own.get(&key) {
            return known.clone();
        }
        work.items_encoded += 1;
        let encoded = Arc::new(EncodedResource { name, version, body: emit::emit(plan) });
        self.gathered += size(&encoded);
        self.own.insert(key, encoded.clone());
        encoded
    }

    /// A route configuration from its encoded virtual hosts, in order.
    pub(super) fn route(
        &mut self,
        frame: &RouteFrame,
        virtual_hosts: &[Arc<EncodedResource>],
        work: &mut Work,
    ) -> Arc<EncodedResource> {
        let versions: Box<[Version]> = virtual_hosts.iter().map(|v| v.version).collect();
        let key = (frame.name.clone(), frame.ignore_port_in_host, versions);
        if let Some(known) = self.routes.get(&key) {
            return known.clone();
        }
        work.routes_spliced += 1;
        let parts: Vec<(Version, Bytes)> = virtual_hosts.iter().map(|v| (v.version, v.body.clone())).collect();
        let (version, body) = emit::splice_route(frame, &parts);
        let encoded = Arc::new(EncodedResource { name: frame.name.clone(), version, body });
        self.gathered += size(&encoded);
        self.routes.insert(key, encoded.clone());
        encoded
    }

    /// Forgets what no view holds any more, when as much may have gathered as is in use.
    pub(super) fn sweep(&mut self) {
        if self.gathered > self.kept.max(LITTLE) {
            self.forget();
        }
    }

    /// Forgets everything that no view holds any more.
    pub(super) fn forget(&mut self) {
        self.own.retain(|_, encoded| Arc::strong_count(encoded) > 1);
        self.routes.retain(|_, encoded| Arc::strong_count(encoded) > 1);
        self.own.shrink_to(2 * self.own.len());
        self.routes.shrink_to(2 * self.routes.len());
        self.kept = self.bytes();
        self.gathered = 0;
    }

    /// What everything takes that is kept.
    pub(super) fn bytes(&self) -> usize {
        self.own.values().chain(self.routes.values()).map(size).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.routes.is_empty()
    }
}

fn size(encoded: &Arc<EncodedResource>) -> usize {
    encoded.body.len() + ENTRY
}

/// The resource that a plan item becomes; a virtual host is named as a part of its route configuration.
pub(super) fn name_of(plan: &PlanItem) -> (ResourceType, Arc<str>) {
    match plan {
        PlanItem::Cluster(cluster) => (ResourceType::Cluster, cluster.name.clone()),
        PlanItem::Assignment(assignment) => (ResourceType::Endpoint, assignment.cluster.clone()),
        PlanItem::Listener(listener) => (ResourceType::Listener, listener.name.clone()),
        PlanItem::VirtualHost(host) => (ResourceType::Route, host.name.clone()),
    }
}
