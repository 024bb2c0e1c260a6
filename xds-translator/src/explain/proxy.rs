//! What one proxy was sent, as it reads it, and the objects behind it.

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_proto::ResourceType;
use prost::Message;

use super::{
    answer::Decider,
    pb::{
        cluster::Cluster, endpoint::ClusterLoadAssignment, listener::Listener,
        route::RouteConfiguration,
    },
    token::Signatures,
};
use crate::{
    compiler::Compiler,
    diagnostic::{FieldPath, Position},
    ir::{ObjectId, WorkloadId},
    plan::{self, ViewKey},
    view::View,
};

/// What is known beside the configuration.
pub struct World<'a> {
    /// Who verifies tokens.
    pub signatures: &'a dyn Signatures,
    /// Where a field of an object is written.
    pub locate: &'a dyn Fn(&ObjectId, &FieldPath) -> Option<Position>,
    /// The views of a workload's proxy, where one is known to run; `None`: what is usual is taken.
    pub running: &'a dyn Fn(&WorkloadId) -> Option<Vec<Arc<ViewKey>>>,
    /// What proxies refuse, and in which words: by resource.
    pub refused: &'a BTreeMap<(ResourceType, Arc<str>), Vec<String>>,
}

/// A proxy and what it was sent.
pub(super) struct Proxy<'a> {
    pub(super) compiler: &'a Compiler,
    pub(super) world: &'a World<'a>,
    pub(super) views: Vec<Arc<View>>,
    pub(super) title: String,
}

impl Proxy<'_> {
    fn all<T: Message + Default>(&self, kind: ResourceType) -> Vec<T> {
        let tables = self.views.iter().map(|view| &view.tables[kind.index()]);
        let bodies = tables.flat_map(|table| table.values());
        bodies.filter_map(|resource| T::decode(&*resource.body).ok()).collect()
    }

    fn one<T: Message + Default>(&self, kind: ResourceType, name: &str) -> Option<T> {
        let resource = self.views.iter().find_map(|view| view.get(kind, name))?;
        T::decode(&*resource.body).ok()
    }

    pub(super) fn listeners(&self) -> Vec<Listener> {
        self.all(ResourceType::Listener)
    }

    pub(super) fn route_configurations(&self) -> Vec<RouteConfiguration> {
        self.all(ResourceType::Route)
    }

    pub(super) fn route_configuration(&self, name: &str) -> Option<RouteConfiguration> {
        self.one(ResourceType::Route, name)
    }

    pub(super) fn cluster(&self, name: &str) -> Option<Cluster> {
        self.one(ResourceType::Cluster, name)
    }

    pub(super) fn assignment(&self, cluster: &Cluster) -> Option<ClusterLoadAssignment> {
        let own = cluster.eds_cluster_config.as_ref().map(|config| config.service_name.as_str());
        let name = own.filter(|name| !name.is_empty()).unwrap_or(&cluster.name);
        self.one(ResourceType::Endpoint, name)
    }

    fn keys(&self) -> impl Iterator<Item = &ViewKey> {
        self.views.iter().map(|view| &*view.key)
    }

    /// The objects that shaped a resource.
    pub(super) fn makers(&self, kind: ResourceType, name: &str) -> Vec<Decider> {
        let of = |key| self.compiler.origins_of(key, kind, name);
        let mut ids: Vec<ObjectId> = self.keys().flat_map(of).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter().map(|id| self.decider(id, None)).collect()
    }

    /// The rule behind a route, by its place in its virtual host. Where patches moved routes, the
    /// rule is another, and `name` tells.
    pub(super) fn rule(&self, config: &str, host: &str, place: usize, name: &str) -> Vec<Decider> {
        let found = self.keys().find_map(|key| self.compiler.rule_of(key, config, host, place));
        match found.filter(|rule| *rule.name == *name) {
            Some(rule) => vec![self.decider(&rule.object, Some(&rule.field))],
            None => Vec::new(),
        }
    }

    /// The rule of a policy behind the rule of a filter, by its name.
    pub(super) fn access_rule(&self, name: &str) -> Vec<Decider> {
        let found = self.keys().find_map(|key| self.compiler.access_rule_of(key, name));
        let found = found.map(|(id, field)| self.decider(&id, Some(&field)));
        found.into_iter().collect()
    }

    /// The policies that say what access is allowed.
    pub(super) fn access_policies(&self) -> Vec<Decider> {
        self.deciders(self.keys().flat_map(|key| self.compiler.access_policies_of(key)))
    }

    /// The policies that say which tokens are taken.
    pub(super) fn token_policies(&self) -> Vec<Decider> {
        self.deciders(self.keys().flat_map(|key| self.compiler.token_policies_of(key)))
    }

    /// The policies that say whether peers must prove who they are.
    pub(super) fn peer_tls(&self) -> Vec<Decider> {
        self.deciders(self.keys().flat_map(|key| self.compiler.peer_tls_of(key)))
    }

    fn deciders(&self, ids: impl Iterator<Item = ObjectId>) -> Vec<Decider> {
        let mut all: Vec<Decider> = ids.map(|id| self.decider(&id, None)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// An object, with the line of a field of it.
    pub(super) fn decider(&self, id: &ObjectId, field: Option<&str>) -> Decider {
        let path = FieldPath::of(field.unwrap_or_default());
        let position = (self.world.locate)(id, &path);
        Decider {
            object: id.to_string(),
            field: field.filter(|field| !field.is_empty()).map(str::to_owned),
            at: position.map(|position| format!("{}:{}", position.file, position.line)),
        }
    }

    /// The listener port behind a port that clients of a gateway call.
    pub(super) fn listener_port(&self, port: u16) -> u16 {
        let mapped = self.keys().find_map(|key| plan::gateway_port(key, port));
        mapped.unwrap_or(port)
    }

    /// What running proxies say against a resource.
    pub(super) fn refusals(&self, kind: ResourceType, name: &str) -> Vec<String> {
        let found = self.world.refused.get(&(kind, name.into()));
        let noun = kind.row().noun;
        let tell = |who: &String| format!("{noun} {name} is refused by a proxy ({who})");
        found.into_iter().flatten().map(tell).collect()
    }
}
