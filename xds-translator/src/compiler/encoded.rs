//! Encoded resources by content, so that views with equal listeners or routes share their bytes.

use std::sync::Arc;

use bytes::Bytes;
use ferromesh_proto::{EncodedResource, ResourceType, Version};
use rustc_hash::FxHashMap;

use super::Work;
use crate::{
    emit::{self, Content},
    ir::Patch,
    patch::{self, RoutePatches},
    plan::{PlanItem, RouteFrame},
};

/// Resources that views own, and route configurations, by what they were made from.
#[derive(Default, Debug)]
pub(super) struct EncodedMemo {
    own: FxHashMap<(ResourceType, Arc<str>, Content), Arc<EncodedResource>>,
    routes: FxHashMap<RouteContent, Arc<EncodedResource>>,
    /// Virtual hosts that patches changed, by what they were and by the patches.
    hosts: FxHashMap<(Version, Content), PatchedHost>,
    /// Bytes that were there when it was last looked for what nobody uses.
    kept: usize,
    /// Bytes that came since then.
    gathered: usize,
}

/// A virtual host with patches in it.
#[derive(Debug)]
struct PatchedHost {
    body: Bytes,
    /// Since it was last looked for what nobody uses.
    used: bool,
}

/// Less than this is not worth a look.
const LITTLE: usize = 1 << 20;
/// What an entry takes beside its body.
const ENTRY: usize = 256;

/// What a route configuration is made from: name, whether ports in `Host` are ignored, virtual
/// hosts in order, patches.
type RouteContent = (Arc<str>, bool, Box<[Version]>, Option<Content>);

impl EncodedMemo {
    /// The encoded form of a view's own resource, with the view's patches in it.
    pub(super) fn own(
        &mut self,
        plan: &PlanItem,
        patches: &[Arc<Patch>],
        work: &mut Work,
    ) -> Arc<EncodedResource> {
        let name = plan.name().clone();
        let key = (plan.resource_type(), name.clone(), patch::content(plan, patches));
        if let Some(known) = self.own.get(&key) {
            return known.clone();
        }
        work.items_encoded += 1;
        let encoded = Arc::new(resource(name, patch::encode(plan, patches).0));
        self.gathered += size(&encoded);
        self.own.insert(key, encoded.clone());
        encoded
    }

    /// A route configuration from its encoded virtual hosts, in order, with the view's patches in
    /// it.
    pub(super) fn route(
        &mut self,
        frame: &RouteFrame,
        virtual_hosts: &[Arc<EncodedResource>],
        patches: &[Arc<Patch>],
        work: &mut Work,
    ) -> Arc<EncodedResource> {
        let versions: Box<[Version]> = virtual_hosts.iter().map(|v| v.version).collect();
        let patches = RoutePatches::of(&frame.name, patches);
        let patched = patches.content();
        let key = (frame.name.clone(), frame.ignore_port_in_host, versions, patched);
        if let Some(known) = self.routes.get(&key) {
            return known.clone();
        }
        work.routes_spliced += 1;
        let parts: Vec<Bytes> = virtual_hosts.iter().map(|v| self.host(v, &patches)).collect();
        let (body, _) = patches.splice(frame, &parts);
        let encoded = Arc::new(resource(frame.name.clone(), body));
        self.gathered += size(&encoded);
        self.routes.insert(key, encoded.clone());
        encoded
    }

    /// A virtual host with what patches do to each in it.
    fn host(&mut self, plain: &Arc<EncodedResource>, patches: &RoutePatches<'_>) -> Bytes {
        let Some(content) = patches.host_content() else { return plain.body.clone() };
        let key = (plain.version, content);
        if let Some(known) = self.hosts.get_mut(&key) {
            known.used = true;
            return known.body.clone();
        }
        let (body, _) = patches.host(&plain.body);
        self.gathered += body.len() + ENTRY;
        self.hosts.insert(key, PatchedHost { body: body.clone(), used: true });
        body
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
        // What no route configuration was put together from since then is of a former state.
        let idle = self.routes.is_empty();
        self.hosts.retain(|_, host| std::mem::take(&mut host.used) && !idle);
        self.hosts.shrink_to(2 * self.hosts.len());
        self.own.shrink_to(2 * self.own.len());
        self.routes.shrink_to(2 * self.routes.len());
        self.kept = self.bytes();
        self.gathered = 0;
    }

    /// What everything takes that is kept.
    pub(super) fn bytes(&self) -> usize {
        let hosts = self.hosts.values().map(|host| host.body.len() + ENTRY);
        self.own.values().chain(self.routes.values()).map(size).chain(hosts).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.routes.is_empty() && self.hosts.is_empty()
    }
}

/// A resource of these bytes. It hashes them: once per encoding or splicing, never per view.
pub(super) fn resource(name: Arc<str>, body: Bytes) -> EncodedResource {
    EncodedResource { name, version: emit::version(&body), body }
}

fn size(encoded: &Arc<EncodedResource>) -> usize {
    encoded.body.len() + ENTRY
}
