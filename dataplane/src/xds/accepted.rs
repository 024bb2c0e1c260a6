//! What was accepted from the control plane, compiled, and which of it may serve already.
//!
//! A new cluster waits for its endpoints and a new listener for its routes (xDS: warming); until
//! then the one of the same name that serves goes on. A refused resource changes nothing. Pure: the
//! caller brings the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferromesh_proto::{ResourceType, bootstrap::LOCAL_CLUSTER};
use rustc_hash::FxHasher;

use super::session::{Changed, Update};
use crate::{
    compile::{Compiled, Context, Needs, Rejection},
    runtime::{
        Listener, RouteConfig, RuntimeConfig, cluster::Discovery, endpoint::EndpointSet,
        secret::SecretMaterial,
    },
    upstream::{LiveCluster, StateRegistry},
    worker::ActiveConfig,
};

/// A secret that does not come holds nothing up for longer (only connections that need it fail),
/// and nothing that does not come keeps a proxy from starting for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Accepted resources.
pub struct Accepted {
    context: Context,
    states: Arc<StateRegistry>,
    clusters: BTreeMap<String, Place<LiveCluster>>,
    listeners: BTreeMap<String, Place<Listener>>,
    routes: BTreeMap<String, Resource<RouteConfig>>,
    /// `None`: the control plane says that there are none.
    endpoints: BTreeMap<String, Option<Versioned<EndpointSet>>>,
    /// `None`: the control plane says that there is none.
    secrets: BTreeMap<String, Option<Versioned<SecretMaterial>>>,
    rejections: BTreeMap<(ResourceType, String), Refusal>,
    received: BTreeSet<ResourceType>,
    generation: u64,
    stale: bool,
}

/// A cluster or listener: the one that serves and the one that will.
struct Place<T> {
    serving: Option<Resource<T>>,
    warming: Option<(Resource<T>, Instant)>,
}

struct Resource<T> {
    version: String,
    compiled: Compiled<T>,
    /// Serves instead, since a later version was refused that guards more.
    closed: Option<Arc<T>>,
}

struct Versioned<T> {
    version: String,
    value: Arc<T>,
}

/// A refused resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The version that was refused.
    pub version: String,
    /// Why.
    pub rejection: Rejection,
}

/// One line of a summary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The resource's name.
    pub name: String,
    /// The version that serves, if any does.
    pub serving: Option<String>,
    /// The version that waits for something, if any does.
    pub warming: Option<String>,
}

impl Accepted {
    /// Nothing yet.
    pub fn new(states: Arc<StateRegistry>) -> Self {
        Self {
            context: Context::default(),
            states,
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            secrets: BTreeMap::new(),
            rejections: BTreeMap::new(),
            received: BTreeSet::new(),
            generation: 0,
            stale: false,
        }
    }

    /// Applies an update; what it refuses stays as it was, or is closed where the refused version
    /// guards more.
    pub fn apply(&mut self, update: &Update, now: Instant) -> Vec<Rejection> {
        let mut refused = Vec::new();
        for changed in &update.changed {
            let outcome = self.accept(update.kind, changed, now);
            let key = (update.kind, changed.name.clone());
            match outcome {
                Ok(()) => drop(self.rejections.remove(&key)),
                Err(mut rejection) => {
                    rejection.closed = self.close(update.kind, changed);
                    let refusal =
                        Refusal { version: changed.version.clone(), rejection: rejection.clone() };
                    self.rejections.insert(key, refusal);
                    refused.push(rejection);
                }
            }
        }
        for name in &update.removed {
            self.rejections.remove(&(update.kind, name.clone()));
            self.remove(update.kind, name);
        }
        self.received.insert(update.kind);
        self.settle(now);
        refused
    }

    /// Lets what has waited long enough serve; to be called now and then while
    /// [`Self::is_warming`].
    pub fn settle(&mut self, now: Instant) {
        self.promote_clusters(now);
        self.promote_listeners(now);
        self.forget_unneeded();
    }

    /// Looks at the files of secrets in use ([`crate::compile::SecretSlots::look_at_files`]).
    pub fn look_at_files(&mut self) -> Vec<String> {
        self.context.secrets.look_at_files()
    }

    /// The configuration, if it has changed since it was taken last.
    pub fn take_config(&mut self) -> Option<ActiveConfig> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        self.generation += 1;
        let listeners = self.listeners.values().filter_map(Place::value).collect();
        let clusters = self.clusters.values().filter_map(Place::value);
        let routes = self.routes.values().map(Resource::value);
        let runtime = RuntimeConfig::new(self.generation, listeners, routes);
        Some(ActiveConfig::new(runtime, clusters))
    }

    /// Names that resources refer to, whether they serve or wait.
    pub fn needs(&self) -> Needs {
        let mut all = Needs::default();
        let clusters = self.clusters.values().flat_map(Place::needs);
        for needs in clusters.chain(self.listeners.values().flat_map(Place::needs)) {
            all.endpoints.extend(needs.endpoints.iter().cloned());
            all.routes.extend(needs.routes.iter().cloned());
            all.secrets.extend(needs.secrets.iter().cloned());
            all.peers |= needs.peers;
        }
        if all.peers {
            all.endpoints.insert(LOCAL_CLUSTER.to_owned());
        }
        all
    }

    /// Whether the control plane has sent resources of this type.
    pub fn has_received(&self, kind: ResourceType) -> bool {
        self.received.contains(&kind)
    }

    /// Whether anything waits.
    pub fn is_warming(&self) -> bool {
        self.clusters.values().any(|place| place.warming.is_some())
            || self.listeners.values().any(|place| place.warming.is_some())
    }

    /// The addresses of listeners that wait, where they are to have sockets of their own.
    pub(super) fn waiting_addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let waiting = self.listeners.values().filter_map(|place| place.warming.as_ref());
        let listeners = waiting.map(|(resource, _)| resource.value());
        let bound = listeners.filter(|listener| listener.bind_to_port);
        bound
            .flat_map(|listener| {
                let addresses = listener.addresses.clone();
                addresses.into_iter().map(move |address| (Arc::clone(&listener.name), address))
            })
            .collect()
    }

    /// Whether anything has waited only briefly, so that a proxy that starts had better wait for it
    /// too. What waits longer may wait for ever, as a listener whose routes nobody defines.
    pub fn holds_start_up(&self, now: Instant) -> bool {
        let clusters = self.clusters.values().filter_map(Place::waiting_since);
        let mut since = clusters.chain(self.listeners.values().filter_map(Place::waiting_since));
        since.any(|since| now.saturating_duration_since(since) < LONGEST_WAIT)
    }

    /// What is refused now, by type and name.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.rejections.values()
    }

    /// Names and versions of one type.
    pub fn summaries(&self, kind: ResourceType) -> Vec<Summary> {
        match kind {
            ResourceType::Cluster => {
                self.clusters.iter().map(|(name, place)| place.summary(name)).collect()
            }
            ResourceType::Listener => {
                self.listeners.iter().map(|(name, place)| place.summary(name)).collect()
            }
            ResourceType::Route => {
                self.routes.iter().map(|(name, routes)| held(name, Some(&routes.version))).collect()
            }
            ResourceType::Endpoint => summarise(&self.endpoints),
            ResourceType::Secret => summarise(&self.secrets),
            _ => Vec::new(),
        }
    }

    fn accept(
        &mut self,
        kind: ResourceType,
        changed: &Changed,
        now: Instant,
    ) -> Result<(), Rejection> {
        let Changed { name, version, body } = changed;
        match kind {
            ResourceType::Cluster => {
                let compiled = self.context.cluster(name, body)?;
                let compiled = compiled.map(|spec| LiveCluster::bind(&self.states, spec));
                self.clusters.entry(name.clone()).or_default().warm(version, compiled, now);
            }
            ResourceType::Listener => {
                let compiled = self.context.listener(name, fingerprint(body), body)?;
                self.listeners.entry(name.clone()).or_default().warm(version, compiled, now);
            }
            ResourceType::Route => {
                let compiled = self.context.routes(name, body)?;
                self.routes.insert(name.clone(), Resource::new(version, compiled));
                self.stale = true;
            }
            ResourceType::Endpoint => {
                let value = self.context.endpoints(name, body)?.value;
                self.publish_endpoints(name, &value);
                self.endpoints
                    .insert(name.clone(), Some(Versioned { version: version.clone(), value }));
            }
            ResourceType::Secret => {
                let value = self.context.secret(name, body)?.value;
                self.secrets
                    .insert(name.clone(), Some(Versioned { version: version.clone(), value }));
                self.fill_slot(name);
            }
            _ => return Err(self.context.untaken(kind, name)),
        }
        Ok(())
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        match kind {
            ResourceType::Cluster => self.stale |= self.clusters.remove(name).is_some(),
            ResourceType::Listener => self.stale |= self.listeners.remove(name).is_some(),
            // Routes and endpoints end with whoever refers to them: Envoy keeps the last ones too.
            ResourceType::Route => {}
            ResourceType::Endpoint => drop(self.endpoints.entry(name.to_owned()).or_insert(None)),
            // A withdrawn certificate must not serve on.
            ResourceType::Secret => {
                self.secrets.insert(name.to_owned(), None);
                self.fill_slot(name);
            }
            _ => {}
        }
    }

    fn publish_endpoints(&self, name: &str, set: &EndpointSet) {
        if name == LOCAL_CLUSTER {
            return self.states.peers().publish(set);
        }
        let clusters = self.clusters.values().flat_map(Place::all);
        let concerned = clusters
            .filter(|cluster| matches!(&cluster.discovery, Discovery::Eds(eds) if **eds == *name));
        for cluster in concerned {
            cluster.state.publish(set);
        }
    }

    fn fill_slot(&self, name: &str) {
        let Some(slot) = self.context.secrets.existing(name) else { return };
        slot.store(
            self.secrets.get(name).and_then(Option::as_ref).map(|secret| secret.value.clone()),
        );
    }

    fn promote_clusters(&mut self, now: Instant) {
        for place in self.clusters.values_mut() {
            let endpoints = &self.endpoints;
            let secrets = &self.secrets;
            let ready = |needs: &Needs, since| {
                needs.endpoints.iter().all(|name| endpoints.contains_key(name))
                    && secrets_came(needs, secrets, since, now)
            };
            let Some(cluster) = place.promote(ready) else { continue };
            start_endpoints(&cluster, endpoints);
            self.stale = true;
        }
    }

    fn promote_listeners(&mut self, now: Instant) {
        for place in self.listeners.values_mut() {
            let (routes, secrets) = (&self.routes, &self.secrets);
            let ready = |needs: &Needs, since| {
                needs.routes.iter().all(|name| routes.contains_key(name))
                    && secrets_came(needs, secrets, since, now)
            };
            self.stale |= place.promote(ready).is_some();
        }
    }

    fn forget_unneeded(&mut self) {
        let needs = self.needs();
        let before = self.routes.len();
        self.routes.retain(|name, _| needs.routes.contains(name));
        self.stale |= self.routes.len() != before;
        self.endpoints.retain(|name, _| needs.endpoints.contains(name));
        self.secrets.retain(|name, _| needs.secrets.contains(name));
        self.rejections.retain(|(kind, name), _| match kind {
            ResourceType::Cluster | ResourceType::Listener => true,
            ResourceType::Endpoint => needs.endpoints.contains(name),
            ResourceType::Route => needs.routes.contains(name),
            ResourceType::Secret => needs.secrets.contains(name),
            _ => false,
        });
    }
}

fn secrets_came(
    needs: &Needs,
    secrets: &BTreeMap<String, Option<Versioned<SecretMaterial>>>,
    since: Instant,
    now: Instant,
) -> bool {
    let all = needs.secrets.iter().all(|name| secrets.contains_key(name));
    all || now.saturating_duration_since(since) >= LONGEST_WAIT
}

/// Gives a cluster that is about to serve its endpoints.
fn start_endpoints(
    cluster: &LiveCluster,
    endpoints: &BTreeMap<String, Option<Versioned<EndpointSet>>>,
) {
    match &cluster.discovery {
        Discovery::Eds(name) => {
            let set = endpoints.get(&**name).and_then(Option::as_ref).map(|set| set.value.clone());
            cluster.state.publish(&set.unwrap_or_default());
        }
        Discovery::Static(set) => cluster.state.publish(set),
        Discovery::StrictDns(set, refresh) => cluster.state.resolve(set.clone(), *refresh, false),
        Discovery::LogicalDns(set, refresh) => cluster.state.resolve(set.clone(), *refresh, true),
        Discovery::OriginalDst { .. } => {}
    }
}

impl<T> Resource<T> {
    fn new(version: &str, compiled: Compiled<T>) -> Self {
        Self { version: version.to_owned(), compiled, closed: None }
    }

    fn value(&self) -> Arc<T> {
        self.closed.as_ref().unwrap_or(&self.compiled.value).clone()
    }
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { serving: None, warming: None }
    }
}

impl<T> Place<T> {
    fn warm(&mut self, version: &str, compiled: Compiled<T>, now: Instant) {
        self.warming = Some((Resource::new(version, compiled), now));
    }

    fn promote(&mut self, ready: impl FnOnce(&Needs, Instant) -> bool) -> Option<Arc<T>> {
        let (resource, _) =
            self.warming.take_if(|(resource, since)| ready(&resource.compiled.needs, *since))?;
        let value = resource.compiled.value.clone();
        self.serving = Some(resource);
        Some(value)
    }

    fn value(&self) -> Option<Arc<T>> {
        self.serving.as_ref().map(Resource::value)
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.warming.as_ref().map(|(_, since)| *since)
    }

    fn resources(&self) -> impl Iterator<Item = &Resource<T>> {
        self.serving.iter().chain(self.warming.iter().map(|(resource, _)| resource))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.resources()
            .flat_map(|resource| std::iter::once(&resource.compiled.value).chain(&resource.closed))
    }

    fn needs(&self) -> impl Iterator<Item = &Needs> {
        self.resources().map(|resource| &resource.compiled.needs)
    }

    fn summary(&self, name: &str) -> Summary {
        Summary {
            name: name.to_owned(),
            serving: self.serving.as_ref().map(|resource| resource.version.clone()),
            warming: self.warming.as_ref().map(|(resource, _)| resource.version.clone()),
        }
    }
}

fn summarise<T>(resources: &BTreeMap<String, Option<Versioned<T>>>) -> Vec<Summary> {
    let version = |resource: &Option<Versioned<T>>| {
        resource.as_ref().map(|resource| resource.version.clone())
    };
    resources.iter().map(|(name, resource)| held(name, version(resource).as_ref())).collect()
}

fn held(name: &str, version: Option<&String>) -> Summary {
    Summary { name: name.to_owned(), serving: version.cloned(), warming: None }
}

/// Tells listeners of one name apart; equal messages are equal listeners.
fn fingerprint(body: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    body.hash(&mut hasher);
    hasher.finish()
}

mod closing;
#[cfg(test)]
mod tests;
