//! Translation at one stroke: configuration and a node in, everything that the node would get out,
//! as JSON.
//!
//! The road of the control plane without its streams: the same compiler, the same bytes. For
//! offline use and goldens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::ResourceType;
use serde::Serialize;
use serde_json::Value;

use crate::{
    class::{NodeIdentity, Refusal},
    closure::{self, Dangling},
    compiler::{Change, Compiler},
    debug::{self, DebugError},
    diagnostic::Diagnostic,
    ir::MeshDefaults,
    view::View,
};

/// What a node gets. Serializes to
/// `{"listeners":[…],"routes":[…],"clusters":[…],"endpoints":[…],"secrets":[…]}`.
#[derive(Clone, Debug, Serialize)]
pub struct Translation {
    /// LDS, in the order of names, as protobuf JSON; so are the next three.
    pub listeners: Vec<Value>,
    /// RDS.
    pub routes: Vec<Value>,
    /// CDS.
    pub clusters: Vec<Value>,
    /// EDS.
    pub endpoints: Vec<Value>,
    /// Every other type of which the node gets something, by its section.
    #[serde(flatten)]
    pub others: BTreeMap<&'static str, Vec<Value>>,
    /// Names of the secrets that listeners and clusters ask for; sorted, unique.
    pub secrets: BTreeSet<String>,
    /// What lowering found in the objects; what parsing found is not repeated.
    #[serde(skip)]
    pub diagnostics: Vec<Diagnostic>,
    /// Names that are referred to and not there (invariant 4); only names that users wrote may be
    /// among them.
    #[serde(skip)]
    pub dangling: Vec<Dangling>,
}

/// Why there is no translation.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The node gets nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A resource cannot be shown.
    #[error("{kind} {name}: {source}", kind = kind.short_name())]
    Unreadable {
        /// Its type.
        kind: ResourceType,
        /// Its name.
        name: Arc<str>,
        /// What is wrong.
        source: DebugError,
    },
}

/// Translates `changes`, in their order, for `node`. `base` holds what is known before any
/// configuration.
///
/// # Errors
/// The node is refused. Mistakes in objects are diagnostics, not errors.
pub fn translate(
    base: MeshDefaults,
    changes: Vec<Change>,
    node: &NodeIdentity,
) -> Result<Translation, TranslateError> {
    let mut compiler = Compiler::new(base);
    compiler.apply(changes);
    let class = compiler.classify(node)?;
    let views: Vec<Arc<View>> = class.views.iter().map(|key| compiler.view(key)).collect();
    let listeners = table(&views, ResourceType::Listener)?;
    let clusters = table(&views, ResourceType::Cluster)?;
    let mut others = BTreeMap::new();
    for kind in ResourceType::ALL.into_iter().filter(|kind| !SECTIONS.contains(kind)) {
        let resources = table(&views, kind)?;
        others.extend((!resources.is_empty()).then_some((kind.row().section, resources)));
    }
    let mut secrets = BTreeSet::new();
    listeners.iter().chain(&clusters).for_each(|resource| collect_secrets(resource, &mut secrets));
    Ok(Translation {
        listeners,
        routes: table(&views, ResourceType::Route)?,
        clusters,
        endpoints: table(&views, ResourceType::Endpoint)?,
        others,
        secrets,
        diagnostics: compiler.diagnostics().flat_map(|(_, found)| found.iter().cloned()).collect(),
        dangling: closure::check(&views),
    })
}

/// Types that have a field of a translation to themselves.
const SECTIONS: [ResourceType; 4] =
    [ResourceType::Listener, ResourceType::Route, ResourceType::Cluster, ResourceType::Endpoint];

/// One type's resources of all views, in the order of names.
fn table(views: &[Arc<View>], kind: ResourceType) -> Result<Vec<Value>, TranslateError> {
    let union: BTreeMap<_, _> = views.iter().flat_map(|v| v.tables[kind.index()].iter()).collect();
    let show = |(name, resource): (&Arc<str>, &Arc<ferromesh_proto::EncodedResource>)| {
        debug::to_json(kind, &resource.body).map_err(|source| TranslateError::Unreadable {
            kind,
            name: name.clone(),
            source,
        })
    };
    union.into_iter().map(show).collect()
}

/// Finds SDS references: objects with a `name` beside an `sds_config`.
fn collect_secrets(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields) => {
            if let (Some(Value::String(name)), Some(_)) =
                (fields.get("name"), fields.get("sds_config"))
            {
                found.insert(name.clone());
            }
            fields.values().for_each(|value| collect_secrets(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_secrets(item, found)),
        _ => {}
    }
}
