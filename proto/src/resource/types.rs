//! The table of resource types: what a stream and a view must know of each. A new type is a variant
//! and a row; nothing else orders types, gates them or says who may ask for everything.

/// The xDS resource types that Ferromesh serves, in the order in which a push sends additions:
/// clusters before their endpoints, endpoints before listeners, listeners before their routes
/// (xDS protocol, "eventual consistency considerations"). Who takes only some of them says so by
/// what it does with others, so that a new one is a change of this file.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourceType {
    /// CDS: `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// EDS: `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoint,
    /// LDS: `envoy.config.listener.v3.Listener`.
    Listener,
    /// RDS: `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// ECDS: `envoy.config.core.v3.TypedExtensionConfig`.
    Extension,
    /// SDS: `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// What users add to that which a proxy starts with: `envoy.config.bootstrap.v3.Bootstrap`.
    /// One resource, [`BOOTSTRAP`], for who asks for it before it starts.
    Bootstrap,
}

/// The only name of its type.
pub const BOOTSTRAP: &str = "bootstrap";

use ResourceType::{Bootstrap, Cluster, Endpoint, Extension, Listener, Route, Secret};

/// What holds for one resource type.
#[derive(Debug)]
pub struct Row {
    /// The type.
    pub kind: ResourceType,
    /// The full type URL, `type.googleapis.com/…`.
    pub type_url: &'static str,
    /// As users know it: `CDS`.
    pub short_name: &'static str,
    /// In lower case, as metrics have it.
    pub label: &'static str,
    /// One resource of it, in words.
    pub noun: &'static str,
    /// What dumps call all of them.
    pub section: &'static str,
    /// Who gets every resource.
    pub wildcard: Wildcard,
    /// Where its resources come from.
    pub served_from: ServedFrom,
    /// What is told of one that is not there.
    pub absence: Absence,
    /// The type whose resource of the same name a client needs again after each change of one: a
    /// cluster warms until its endpoints come, even if they are unchanged.
    pub followed_by: Option<ResourceType>,
    /// Make before break: a change waits until new resources of these types, to which it may refer,
    /// are accepted. Such types are warmed by their clients.
    pub makes_after: &'static [ResourceType],
    /// Break after make: a removal waits until these types, which may still refer to it, are
    /// settled.
    pub breaks_after: &'static [ResourceType],
    /// A removal also waits for removals of these types.
    pub removed_after: &'static [ResourceType],
}

/// Who gets every resource of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wildcard {
    /// Who asks for it, and who names nothing in a first request (xDS protocol: LDS and CDS only).
    /// In state of the world every response then lists all resources, so that absence means
    /// deletion.
    Default,
    /// Who asks for it.
    Asked,
    /// Nobody.
    Never,
}

/// Where the resources of a type come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServedFrom {
    /// From the views of the proxy.
    Views,
    /// From the provider of secrets, by name.
    Secrets,
}

/// What a client is told of a resource that it asks for and that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// That it is not there, and when it goes.
    Told,
    /// When it goes; one that never was is awaited: Envoy treats every answer but a secret as an
    /// error.
    Awaited,
    /// Nothing: who has it keeps it for as long as it is needed.
    Untold,
}

/// By [`ResourceType::index`].
const ROWS: &[Row; ResourceType::COUNT] = &[
    Row {
        kind: Cluster,
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        short_name: "CDS",
        label: "cds",
        noun: "cluster",
        section: "clusters",
        wildcard: Wildcard::Default,
        served_from: ServedFrom::Views,
        absence: Absence::Told,
        followed_by: Some(Endpoint),
        makes_after: &[],
        breaks_after: &[Listener, Route],
        removed_after: &[],
    },
    Row {
        kind: Endpoint,
        type_url: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        short_name: "EDS",
        label: "eds",
        noun: "assignment",
        section: "endpoints",
        wildcard: Wildcard::Asked,
        served_from: ServedFrom::Views,
        absence: Absence::Told,
        followed_by: None,
        makes_after: &[],
        breaks_after: &[Listener, Route],
        removed_after: &[Cluster],
    },
    Row {
        kind: Listener,
        type_url: "type.googleapis.com/envoy.config.listener.v3.Listener",
        short_name: "LDS",
        label: "lds",
        noun: "listener",
        section: "listeners",
        wildcard: Wildcard::Default,
        served_from: ServedFrom::Views,
        absence: Absence::Told,
        followed_by: None,
        makes_after: &[Cluster, Endpoint],
        breaks_after: &[],
        removed_after: &[],
    },
    Row {
        kind: Route,
        type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        short_name: "RDS",
        label: "rds",
        noun: "route configuration",
        section: "routes",
        wildcard: Wildcard::Asked,
        served_from: ServedFrom::Views,
        absence: Absence::Told,
        followed_by: None,
        makes_after: &[Cluster, Endpoint],
        breaks_after: &[Listener],
        removed_after: &[],
    },
    Row {
        kind: Extension,
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        short_name: "ECDS",
        label: "ecds",
        noun: "extension configuration",
        section: "extensions",
        wildcard: Wildcard::Never,
        served_from: ServedFrom::Views,
        // A listener that is drained keeps its subscriptions, and Envoy answers with 500 what still
        // comes over it as soon as it hears that a configuration is gone.
        absence: Absence::Untold,
        followed_by: None,
        makes_after: &[Cluster, Endpoint],
        breaks_after: &[],
        removed_after: &[],
    },
    Row {
        kind: Secret,
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        short_name: "SDS",
        label: "sds",
        noun: "secret",
        section: "secrets",
        wildcard: Wildcard::Never,
        served_from: ServedFrom::Secrets,
        absence: Absence::Awaited,
        followed_by: None,
        makes_after: &[],
        breaks_after: &[],
        removed_after: &[],
    },
    Row {
        kind: Bootstrap,
        type_url: "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap",
        short_name: "BDS",
        label: "bds",
        noun: "bootstrap",
        section: "bootstraps",
        wildcard: Wildcard::Never,
        served_from: ServedFrom::Views,
        absence: Absence::Told,
        followed_by: None,
        makes_after: &[],
        breaks_after: &[],
        removed_after: &[],
    },
];

impl ResourceType {
    /// How many types there are.
    pub const COUNT: usize = Bootstrap as usize + 1;

    /// Every type, in push order.
    pub const ALL: [Self; Self::COUNT] = {
        assert!(ROWS.len() == Self::COUNT, "every variant has a row");
        let mut all = [Cluster; Self::COUNT];
        let mut at = 0;
        while at < Self::COUNT {
            assert!(ROWS[at].kind as usize == at, "rows are in the order of variants");
            all[at] = ROWS[at].kind;
            at += 1;
        }
        all
    };

    /// The type's place in [`Self::ALL`], for tables indexed by type.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What holds for the type.
    pub const fn row(self) -> &'static Row {
        &ROWS[self.index()]
    }

    /// The full type URL, `type.googleapis.com/…`.
    pub const fn type_url(self) -> &'static str {
        self.row().type_url
    }

    /// The type that a URL names, or `None` for a type that Ferromesh does not serve.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// Short name as users know it: `CDS`, `EDS`, `LDS`, `RDS`, `ECDS`, `SDS`, `BDS`.
    pub const fn short_name(self) -> &'static str {
        self.row().short_name
    }

    /// Whether a first request that names nothing subscribes to everything.
    pub const fn wildcard_by_default(self) -> bool {
        matches!(self.row().wildcard, Wildcard::Default)
    }

    /// Whether a client warms resources of this type, so that changes that refer to new ones wait.
    pub fn is_warmed(self) -> bool {
        ROWS.iter().any(|row| row.makes_after.contains(&self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_urls_read_back() {
        for t in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(t.type_url()), Some(t));
            assert_eq!(ResourceType::ALL[t.index()], t);
            assert_eq!(t.short_name().to_ascii_lowercase(), t.row().label);
        }
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/nothing"), None);
    }

    /// A gate that waits for itself, over others or directly, would never open.
    #[test]
    fn no_gate_waits_for_itself() {
        for gates in [
            (|row: &Row| row.makes_after) as fn(&Row) -> &'static [ResourceType],
            |row| row.breaks_after,
            |row| row.removed_after,
        ] {
            for kind in ResourceType::ALL {
                let mut reached = gates(kind.row()).to_vec();
                for _ in ResourceType::ALL {
                    let next: Vec<_> = reached.iter().flat_map(|k| gates(k.row())).collect();
                    reached.extend(next);
                    reached.sort_unstable();
                    reached.dedup();
                }
                assert!(!reached.contains(&kind), "{kind:?}");
            }
        }
    }
}
