//! What a refusal closes: the version in force goes on only where it guards as much as the one that
//! was refused. What was plaintext and shall be TLS is closed until it works.

use std::sync::Arc;

use ferromesh_proto::ResourceType;

use super::{Accepted, Compiled, Place, Resource, Versioned, fingerprint, start_endpoints};
use crate::{
    compile::{Guards, Needs},
    upstream::LiveCluster,
    xds::Changed,
};

/// Stands for the version of a resource of which none was ever accepted.
const NEVER: &str = "(closed)";

impl Accepted {
    /// Closes what a refused version guards and the one in force does not; whether there is such a
    /// thing.
    pub(super) fn close(&mut self, kind: ResourceType, refused: &Changed) -> bool {
        match kind {
            ResourceType::Cluster => self.close_cluster(refused),
            ResourceType::Listener => self.close_listener(refused),
            ResourceType::Route => self.close_routes(refused),
            ResourceType::Endpoint => self.close_endpoints(refused),
            ResourceType::Secret => self.close_secret(refused),
            _ => false,
        }
    }

    /// A cluster that is not there has no traffic: its requests are answered 503 already.
    fn close_cluster(&mut self, Changed { name, body, .. }: &Changed) -> bool {
        let Some(place) = self.clusters.get_mut(name) else { return false };
        let (context, states) = (&self.context, &self.states);
        let close = |Compiled { value, guards, .. }: &Compiled<LiveCluster>| {
            let closed = context.close_cluster(body, value, guards)?;
            Some(Arc::new(LiveCluster::bind(states, closed)))
        };
        place.warming.take_if(|(waiting, _)| close(&waiting.compiled).is_some());
        let Some(serving) = &mut place.serving else { return false };
        let closed = close(&serving.compiled);
        if let Some(closed) = &closed {
            start_endpoints(closed, &self.endpoints);
        }
        self.stale |= serving.put(closed);
        serving.closed.is_some()
    }

    fn close_listener(&mut self, Changed { name, body, .. }: &Changed) -> bool {
        let (context, place) = (&mut self.context, self.listeners.entry(name.clone()).or_default());
        let version = fingerprint(body);
        place.warming.take_if(|(waiting, _)| {
            context.close_listener(name, version, body, Some(&waiting.compiled)).is_some()
        });
        let closed = context.close_listener(name, version, body, place.accepted()).map(Arc::new);
        let is_closed = closed.is_some();
        self.stale |= place.put(closed);
        if place.serving.is_none() && place.warming.is_none() {
            self.listeners.remove(name);
        }
        is_closed
    }

    fn close_routes(&mut self, Changed { name, body, .. }: &Changed) -> bool {
        let serving = self.routes.get(name).filter(|routes| routes.version != NEVER);
        let closed = self
            .context
            .close_routes(body, name, serving.map(|routes| &routes.compiled))
            .map(Arc::new);
        let is_closed = closed.is_some();
        match (self.routes.get_mut(name), closed) {
            (Some(serving), closed) => self.stale |= serving.put(closed),
            (None, Some(closed)) => {
                self.routes.insert(name.clone(), Resource::never(closed));
                self.stale = true;
            }
            (None, None) => {}
        }
        is_closed
    }

    fn close_endpoints(&mut self, Changed { name, body, .. }: &Changed) -> bool {
        let Some(Some(serving)) = self.endpoints.get(name) else { return false };
        let Some(closed) = self.context.close_endpoints(body, &serving.value) else { return false };
        let closed = Versioned { version: serving.version.clone(), value: Arc::new(closed) };
        self.publish_endpoints(name, &closed.value);
        self.endpoints.insert(name.clone(), Some(closed));
        true
    }

    fn close_secret(&mut self, Changed { name, body, .. }: &Changed) -> bool {
        let Some(Some(serving)) = self.secrets.get(name) else { return false };
        if !self.context.closes_secret(body, &serving.value) {
            return false;
        }
        self.secrets.insert(name.clone(), None);
        self.fill_slot(name);
        true
    }
}

impl<T> Resource<T> {
    /// Stands where no version was ever accepted.
    fn never(closed: Arc<T>) -> Self {
        let compiled =
            Compiled { value: closed, needs: Needs::default(), guards: Guards::default() };
        Self::new(NEVER, compiled)
    }

    /// Serves `closed` from now on, or what was accepted; whether that changes anything.
    fn put(&mut self, closed: Option<Arc<T>>) -> bool {
        let changes = closed.is_some() || self.closed.is_some();
        self.closed = closed;
        changes
    }
}

impl<T> Place<T> {
    /// The version in force, if one was ever accepted.
    fn accepted(&self) -> Option<&Compiled<T>> {
        self.serving
            .as_ref()
            .filter(|serving| serving.version != NEVER)
            .map(|serving| &serving.compiled)
    }

    fn put(&mut self, closed: Option<Arc<T>>) -> bool {
        match (&mut self.serving, closed) {
            (Some(serving), closed) => serving.put(closed),
            (None, Some(closed)) => {
                self.serving = Some(Resource::never(closed));
                true
            }
            (None, None) => false,
        }
    }
}
