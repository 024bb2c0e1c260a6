//! Kinds of objects, as their users address them. Which kinds there are is the dialects' affair.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Serialize, Serializer};

/// A kind of object. Kinds of different groups that share a name are different kinds; they sort by
/// [`KindNames::order`].
#[derive(Clone, Copy)]
pub struct Kind(&'static KindNames);

/// How users address objects of a kind.
#[derive(Debug)]
pub struct KindNames {
    /// Place among all kinds; unique.
    pub order: u16,
    /// API group; empty for Kubernetes' core group.
    pub group: &'static str,
    /// Versions that are read, preferred first; never empty. All have the same fields.
    pub versions: &'static [&'static str],
    /// `kind:` as written in objects.
    pub name: &'static str,
    /// REST resource name.
    pub plural: &'static str,
    /// Kebab-case name, as in Istio's config paths.
    pub kebab: &'static str,
    /// Whether objects live in namespaces.
    pub scope: Scope,
}

/// Where objects of a kind live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

impl Kind {
    /// The kind with these names.
    pub const fn new(names: &'static KindNames) -> Self {
        Self(names)
    }

    /// API group; empty for Kubernetes' core group.
    pub fn group(self) -> &'static str {
        self.0.group
    }

    /// Versions that are read, preferred first; never empty.
    pub fn versions(self) -> &'static [&'static str] {
        self.0.versions
    }

    /// The preferred `apiVersion`.
    pub fn api_version(self) -> String {
        match self.0.group {
            "" => self.0.versions[0].to_owned(),
            group => format!("{group}/{}", self.0.versions[0]),
        }
    }

    /// `kind:` as written in objects.
    pub fn kind_name(self) -> &'static str {
        self.0.name
    }

    /// REST resource name.
    pub fn plural(self) -> &'static str {
        self.0.plural
    }

    /// The resource as Kubernetes names it where the group matters, such as
    /// `gateways.networking.istio.io`; the plural alone in the core group.
    pub fn resource(self) -> String {
        match self.0.group {
            "" => self.0.plural.to_owned(),
            group => format!("{}.{group}", self.0.plural),
        }
    }

    /// Kebab-case name, as in Istio's config paths.
    pub fn kebab(self) -> &'static str {
        self.0.kebab
    }

    /// Where objects live.
    pub fn scope(self) -> Scope {
        self.0.scope
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(self) -> bool {
        self.0.scope == Scope::Namespaced
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.0.order == other.0.order
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order.cmp(&other.0.order)
    }
}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.order.hash(state);
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.name)
    }
}
