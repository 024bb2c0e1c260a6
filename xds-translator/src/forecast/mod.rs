//! What a change of configuration would do, before it is made: which proxies get which other
//! resources, and where requests go then.
//!
//! The compiler itself takes the change in, so that nothing is forecast that would not be sent.

mod difference;
mod shares;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use ferromesh_proto::{EncodedResource, ResourceType};
use serde::{Deserialize, Serialize};

pub use self::{
    difference::FieldChange,
    shares::{RouteChange, Share},
};
use crate::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    debug::{self, DebugError},
    ir::MeshDefaults,
    view::View,
};

/// What a change does to every proxy; empty if nobody gets anything else.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Forecast {
    /// Each once, in the order of the first proxy of each.
    pub effects: Vec<Effect>,
}

/// What a change does to some proxies, to all of them the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Effect {
    /// Which; sorted, unique.
    pub proxies: BTreeSet<String>,
    /// In the order of types and names; never empty.
    pub resources: Vec<ResourceChange>,
}

/// A resource that is another than before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResourceChange {
    /// Its type, as `cluster`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it comes, goes or changes.
    #[serde(flatten)]
    pub step: Step,
    /// Routes in it by which requests go elsewhere, or no more; in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteChange>,
    /// Whether some request or connection is treated otherwise than before.
    pub traffic: bool,
}

/// What becomes of a resource.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Step {
    /// It was not there before.
    Added,
    /// It is there no more.
    Removed,
    /// It has other content.
    Changed {
        /// In which fields; in their order.
        fields: Vec<FieldChange>,
    },
}

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {source}")]
pub struct ForecastError {
    kind: &'static str,
    name: Arc<str>,
    source: DebugError,
}

impl Forecast {
    /// Whether some request or connection is treated otherwise than before.
    pub fn changes_traffic(&self) -> bool {
        self.effects.iter().flat_map(|effect| &effect.resources).any(|resource| resource.traffic)
    }
}

/// What `change` would do to the `proxies` of a mesh whose configuration is `current`. `base` holds
/// what is known before any configuration. Proxies that are refused get nothing.
///
/// # Errors
/// A resource cannot be shown.
pub fn forecast(
    base: MeshDefaults,
    current: Vec<Change>,
    change: Vec<Change>,
    proxies: &[NodeIdentity],
) -> Result<Forecast, ForecastError> {
    let mut compiler = Compiler::new(base);
    compiler.apply(current);
    let before: Vec<_> = proxies.iter().map(|proxy| views(&mut compiler, proxy)).collect();
    compiler.apply(change);
    let mut effects: BTreeMap<Replaced, BTreeSet<String>> = BTreeMap::new();
    for (proxy, before) in proxies.iter().zip(before) {
        let replaced = replaced(&before, &views(&mut compiler, proxy));
        if !replaced.is_empty() {
            effects.entry(replaced).or_default().insert(title(proxy));
        }
    }
    // Resources that differ elsewhere may change alike.
    let mut alike: Vec<Effect> = Vec::new();
    for (replaced, proxies) in effects {
        let resources = replaced.iter().map(resource_change).collect::<Result<Vec<_>, _>>()?;
        match alike.iter_mut().find(|effect| effect.resources == resources) {
            Some(effect) => effect.proxies.extend(proxies),
            None => alike.push(Effect { proxies, resources }),
        }
    }
    alike.sort_by(|a, b| a.proxies.cmp(&b.proxies));
    Ok(Forecast { effects: alike })
}

/// Resources that are others than before, in the order of names: what they were and what they are.
type Replaced = Vec<(Name, Sides)>;
type Name = (ResourceType, Arc<str>);
type Sides = [Option<Bytes>; 2];
type Resources = BTreeMap<Name, Arc<EncodedResource>>;

fn views(compiler: &mut Compiler, proxy: &NodeIdentity) -> Vec<Arc<View>> {
    let class = compiler.classify(proxy);
    class
        .map(|class| class.views.iter().map(|key| compiler.view(key)).collect())
        .unwrap_or_default()
}

fn replaced(before: &[Arc<View>], after: &[Arc<View>]) -> Replaced {
    let [before, after] = [before, after].map(resources);
    let names: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
    let sides = names.into_iter().map(|name| {
        let side = |all: &Resources| all.get(name).map(|resource| resource.body.clone());
        (name.clone(), [side(&before), side(&after)])
    });
    sides.filter(|(_, [before, after])| before != after).collect()
}

/// Everything of some views, by type and name.
fn resources(views: &[Arc<View>]) -> Resources {
    let tables = |kind: ResourceType| views.iter().map(move |view| &view.tables[kind.index()]);
    let of_kind = |kind: ResourceType| {
        let all = tables(kind).flat_map(|table| table.iter());
        all.map(move |(name, resource)| ((kind, name.clone()), resource.clone()))
    };
    ResourceType::ALL.into_iter().flat_map(of_kind).collect()
}

fn resource_change(((kind, name), sides): &(Name, Sides)) -> Result<ResourceChange, ForecastError> {
    let (kind, noun) = (*kind, kind.row().noun);
    let show = |bytes: &Option<Bytes>| {
        let shown = bytes.as_ref().map(|bytes| debug::to_json(kind, bytes)).transpose();
        shown.map_err(|source| ForecastError { kind: noun, name: name.clone(), source })
    };
    let (before, after) = (show(&sides[0])?, show(&sides[1])?);
    let routes = match kind {
        ResourceType::Route => shares::changes(before.as_ref(), after.as_ref()),
        _ => Vec::new(),
    };
    let step = match (&before, &after) {
        (Some(before), Some(after)) => Step::Changed { fields: difference::between(before, after) },
        (None, _) => Step::Added,
        (Some(_), None) => Step::Removed,
    };
    let traffic = matters(kind, &step);
    Ok(ResourceChange { kind: noun.to_owned(), name: name.clone(), step, routes, traffic })
}

/// What nothing refers to carries nothing: clusters and endpoints that come or go are told by the
/// routes and listeners that name them.
fn matters(kind: ResourceType, step: &Step) -> bool {
    match step {
        Step::Changed { fields } => fields.iter().any(FieldChange::matters),
        Step::Added | Step::Removed => {
            !matches!(kind, ResourceType::Cluster | ResourceType::Endpoint)
        }
    }
}

fn title(proxy: &NodeIdentity) -> String {
    let kind = proxy.kind.name();
    let (namespace, name) = (&proxy.workload.namespace, &proxy.workload.name);
    match &**name {
        "" => format!("{kind} in {namespace}"),
        name => format!("{kind} {namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests;
