//! Values by host, found by the names that lie below the host: by each end of the name, so that
//! what it costs does not grow with the number of hosts.

use std::{collections::BTreeMap, sync::Arc};

use crate::ir::Hostname;

/// Values by host.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<T> {
    exact: BTreeMap<Hostname, T>,
    /// By what follows the `*`.
    wildcards: BTreeMap<Arc<str>, (Hostname, T)>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), wildcards: BTreeMap::new() }
    }
}

impl<T> HostMap<T> {
    /// Puts a value in, in the place of another of the host.
    pub(crate) fn insert(&mut self, host: Hostname, value: T) {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => drop(self.wildcards.insert(suffix.into(), (host.clone(), value))),
            None => drop(self.exact.insert(host, value)),
        }
    }

    /// The hosts that contain a name, itself included, with their values; in no order.
    pub(crate) fn containing<'m>(
        &'m self,
        name: &'m Hostname,
    ) -> impl Iterator<Item = (&'m Hostname, &'m T)> {
        let rest = name.as_str().trim_start_matches('*');
        let ends = rest.char_indices().map(|(begin, _)| begin).chain([rest.len()]);
        let ends = ends.filter(move |_| !self.wildcards.is_empty());
        let wildcards = ends.filter_map(move |begin| self.wildcards.get(&rest[begin..]));
        let wildcards = wildcards.map(|(host, value)| (host, value));
        let exact = self.exact.get_key_value(name);
        wildcards.filter(move |(host, _)| host.contains(name)).chain(exact)
    }

    /// Every host; those without wildcard first.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.exact.keys().chain(self.wildcards.values().map(|(host, _)| host))
    }
}

impl FromIterator<Hostname> for HostMap<()> {
    fn from_iter<I: IntoIterator<Item = Hostname>>(hosts: I) -> Self {
        let mut map = Self::default();
        hosts.into_iter().for_each(|host| map.insert(host, ()));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn host() -> impl Strategy<Value = Hostname> {
        "(\\*|\\*?(\\.?[ab]{1,2}){1,3})".prop_map(|text| Hostname::new(&text))
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_contains_the_name(hosts in prop::collection::vec(host(), 0..12), name in host()) {
            let map: HostMap<()> = hosts.iter().cloned().collect();
            let found: BTreeSet<&Hostname> = map.containing(&name).map(|(host, ())| host).collect();
            let expected: BTreeSet<&Hostname> = hosts.iter().filter(|host| host.contains(&name)).collect();
            prop_assert_eq!(found, expected);
            let all: BTreeSet<&Hostname> = map.hosts().collect();
            prop_assert_eq!(all, hosts.iter().collect());
        }
    }
}
