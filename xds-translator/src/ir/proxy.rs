//! What proxies are started with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{Labels, Origin, Selector};

/// Ports that a proxy and its agent listen on themselves.
pub const RESERVED_PORTS: [u16; 9] =
    [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090];

/// What a proxy is started with; what is not said is left to who says it less specially.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ProxyStart {
    /// Worker threads; 0: as many as there are processors.
    pub threads: Option<u32>,
    /// How long open connections may finish when it ends.
    pub drain: Option<Duration>,
    /// Whether its application starts only once it is ready.
    pub hold: Option<bool>,
    /// Where its agent answers; 0: nowhere, and it has no probes.
    pub agent_port: Option<u16>,
    /// Whether its agent shows the application's metrics beside its own.
    pub merge_metrics: Option<bool>,
    /// Which statistics it keeps beside those that it always does.
    pub statistics: Option<StatisticNames>,
    /// Parts of their names that become tags.
    pub statistic_tags: Option<Vec<Arc<str>>>,
    /// Further variables of its environment.
    pub environment: BTreeMap<Arc<str>, Arc<str>>,
}

/// Names of statistics; a statistic that any of these is true of is meant.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct StatisticNames {
    /// Beginnings.
    pub prefixes: Vec<Arc<str>>,
    /// Ends.
    pub suffixes: Vec<Arc<str>>,
    /// Regular expressions for the whole name.
    pub regexes: Vec<Arc<str>>,
}

impl ProxyStart {
    /// What this says, and what `other` says where this says nothing; variables one by one.
    #[must_use]
    pub fn over(self, other: &Self) -> Self {
        let mut environment = other.environment.clone();
        environment.extend(self.environment);
        Self {
            threads: self.threads.or(other.threads),
            drain: self.drain.or(other.drain),
            hold: self.hold.or(other.hold),
            agent_port: self.agent_port.or(other.agent_port),
            merge_metrics: self.merge_metrics.or(other.merge_metrics),
            statistics: self.statistics.or_else(|| other.statistics.clone()),
            statistic_tags: self.statistic_tags.or_else(|| other.statistic_tags.clone()),
            environment,
        }
    }
}

/// What the proxies of some workloads are started with.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ProxyPolicy {
    /// The object. In the root namespace without selector it is the mesh's.
    pub origin: Origin,
    /// Workloads of its namespace; empty: all.
    pub selector: Selector,
    /// What it says.
    pub start: ProxyStart,
}

impl ProxyPolicy {
    /// Whether it may hold for workloads with these labels. `root`: the root namespace.
    pub fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        let own = *self.origin.id.namespace == *namespace;
        let mesh_wide = *self.origin.id.namespace == *root && self.selector.is_empty();
        (own || mesh_wide) && self.selector.matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_goes_first_and_variables_one_by_one() {
        let variables = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let special = ProxyStart {
            threads: Some(0),
            environment: variables(&[("A", "1"), ("B", "1")]),
            ..ProxyStart::default()
        };
        let general = ProxyStart {
            threads: Some(4),
            hold: Some(false),
            environment: variables(&[("B", "2"), ("C", "2")]),
            ..ProxyStart::default()
        };
        let expected = ProxyStart {
            threads: Some(0),
            hold: Some(false),
            environment: variables(&[("A", "1"), ("B", "1"), ("C", "2")]),
            ..ProxyStart::default()
        };
        assert_eq!(special.over(&general), expected);
    }
}
