//! What a watch has seen, by name: never less than everything once everything was listed, also
//! while it lists anew.

use std::collections::{BTreeMap, btree_map};

use kube::runtime::watcher::Event;

#[derive(Debug)]
pub(super) struct Mirror<T> {
    now: BTreeMap<String, T>,
    /// What a list that is being read has so far.
    next: Option<BTreeMap<String, T>>,
    listed: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), next: None, listed: false }
    }
}

impl<T> Mirror<T> {
    /// Takes in what a watch says. `read` gives an object's name, and what matters of it; `None`:
    /// it counts as gone.
    pub(super) fn take<K>(&mut self, event: Event<K>, read: impl Fn(&K) -> (String, Option<T>)) {
        match event {
            Event::Init => self.next = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                if let (Some(next), (name, Some(value))) = (&mut self.next, read(&object)) {
                    next.insert(name, value);
                }
            }
            Event::InitDone => {
                self.now = self.next.take().unwrap_or_default();
                self.listed = true;
            }
            Event::Apply(object) => match read(&object) {
                (name, Some(value)) => drop(self.now.insert(name, value)),
                (name, None) => drop(self.now.remove(&name)),
            },
            Event::Delete(object) => drop(self.now.remove(&read(&object).0)),
        }
    }

    /// Corrects one entry, ahead of the watch.
    pub(super) fn set(&mut self, name: String, value: T) {
        self.now.insert(name, value);
    }

    /// Whether everything was seen once.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.now.get(name)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, String, T> {
        self.now.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mirror: &Mirror<u8>, listed: bool, expected: &[(&str, u8)]) {
        let seen: Vec<_> = mirror.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!((mirror.listed(), seen.as_slice()), (listed, expected));
    }

    #[test]
    fn what_was_seen_stays_until_it_is_deleted_or_missing_from_a_whole_list() {
        let mut mirror = Mirror::default();
        // Nines count as gone.
        let take = |mirror: &mut Mirror<u8>, event: Event<(&str, u8)>| {
            mirror
                .take(event, |(name, value)| ((*name).to_owned(), (*value != 9).then_some(*value)));
        };
        for event in [
            Event::Init,
            Event::InitApply(("a", 1)),
            Event::InitApply(("b", 2)),
            Event::InitApply(("c", 9)),
        ] {
            take(&mut mirror, event);
        }
        check(&mirror, false, &[]);
        take(&mut mirror, Event::InitDone);
        check(&mirror, true, &[("a", 1), ("b", 2)]);
        for event in [
            Event::Apply(("a", 3)),
            Event::Apply(("b", 9)),
            Event::Apply(("d", 4)),
            Event::Delete(("d", 4)),
        ] {
            take(&mut mirror, event);
        }
        check(&mirror, true, &[("a", 3)]);
        take(&mut mirror, Event::Init);
        take(&mut mirror, Event::InitApply(("e", 5)));
        check(&mirror, true, &[("a", 3)]);
        take(&mut mirror, Event::InitDone);
        check(&mirror, true, &[("e", 5)]);
    }
}
