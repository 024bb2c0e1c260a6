//! Resources of one type by name, in a form whose copies share almost everything.
//!
//! A mesh has some fifty views, and a change of one endpoint makes a new state of each. A table is
//! therefore a list of sorted chunks: a changed copy costs one pointer per chunk and one chunk, not
//! one pointer per resource.

use std::{ops::Index, sync::Arc};

use ferromesh_proto::EncodedResource;

/// A chunk is split when it grows beyond this; a table made at once has chunks of half this size.
const CHUNK: usize = 64;

/// Resources of one type, sorted by name.
#[derive(Clone, Default)]
pub struct Table {
    /// None is empty; all names of one are before all names of the next.
    chunks: Vec<Arc<Vec<Arc<EncodedResource>>>>,
    len: usize,
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The resource with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<EncodedResource>> {
        let chunk = self.chunks.get(self.chunk_of(name))?;
        find(chunk, name).ok().map(|at| &chunk[at])
    }

    /// Whether there is a resource with this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Puts a resource in the place of the one with its name; that one, if there was any. `name` is
    /// the resource's.
    pub fn insert(
        &mut self,
        name: Arc<str>,
        resource: Arc<EncodedResource>,
    ) -> Option<Arc<EncodedResource>> {
        debug_assert_eq!(name, resource.name);
        if self.chunks.is_empty() {
            self.chunks.push(Arc::new(vec![resource]));
            self.len = 1;
            return None;
        }
        // A name behind all others belongs to the last chunk.
        let at = self.chunk_of(&name).min(self.chunks.len() - 1);
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let place = match find(chunk, &name) {
            Ok(place) => return Some(std::mem::replace(&mut chunk[place], resource)),
            Err(place) => place,
        };
        chunk.insert(place, resource);
        self.len += 1;
        if chunk.len() > CHUNK {
            let second = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, Arc::new(second));
        }
        None
    }

    /// Takes a resource out.
    pub fn remove(&mut self, name: &str) -> Option<Arc<EncodedResource>> {
        let at = self.chunk_of(name);
        let place = find(self.chunks.get(at)?, name).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let removed = chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// Looks up names that come in order: each costs about one comparison instead of a search.
    pub fn walk(&self) -> Walk<'_> {
        Walk { chunks: &self.chunks, at: 0 }
    }

    /// Resources with their names, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<EncodedResource>)> {
        self.values().map(|resource| (&resource.name, resource))
    }

    /// Names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.values().map(|resource| &resource.name)
    }

    /// Resources, in the order of names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<EncodedResource>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The chunk that holds a name, or would: the first whose last name is not before it.
    fn chunk_of(&self, name: &str) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| &*last.name < name))
    }
}

/// A place in a table, which moves forward only.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    chunks: &'a [Arc<Vec<Arc<EncodedResource>>>],
    /// In the first of the chunks.
    at: usize,
}

impl<'a> Walk<'a> {
    /// The resource with this name, which must be after all that were asked for.
    pub fn find(&mut self, name: &str) -> Option<&'a Arc<EncodedResource>> {
        let before = |chunk: &Arc<Vec<Arc<EncodedResource>>>| {
            chunk.last().is_some_and(|last| &*last.name < name)
        };
        if self.chunks.first().is_some_and(before) {
            self.chunks = &self.chunks[self.chunks.partition_point(before)..];
            self.at = 0;
        }
        let left = self.chunks.first()?.get(self.at..)?;
        let next = left.first().filter(|resource| *resource.name == *name).map(|_| 0);
        let place = next.map_or_else(|| find(left, name), Ok);
        self.at += place.map_or_else(|missing| missing, |found| found + 1);
        place.ok().map(|place| &left[place])
    }
}

fn find(chunk: &[Arc<EncodedResource>], name: &str) -> Result<usize, usize> {
    chunk.binary_search_by(|resource| (*resource.name).cmp(name))
}

impl FromIterator<Arc<EncodedResource>> for Table {
    /// Of resources with one name the last stays.
    fn from_iter<I: IntoIterator<Item = Arc<EncodedResource>>>(resources: I) -> Self {
        let mut sorted: Vec<Arc<EncodedResource>> = resources.into_iter().collect();
        sorted.reverse();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        sorted.dedup_by(|later, kept| later.name == kept.name);
        let chunks = sorted.chunks(CHUNK / 2).map(|chunk| Arc::new(chunk.to_vec())).collect();
        Self { chunks, len: sorted.len() }
    }
}

impl FromIterator<(Arc<str>, Arc<EncodedResource>)> for Table {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<EncodedResource>)>>(resources: I) -> Self {
        resources.into_iter().map(|(_, resource)| resource).collect()
    }
}

impl Index<&str> for Table {
    type Output = Arc<EncodedResource>;

    /// # Panics
    /// When there is no resource with this name.
    fn index(&self, name: &str) -> &Arc<EncodedResource> {
        self.get(name).expect("the caller knows that the resource is there")
    }
}

/// Equal when the resources are, however they are spread over chunks.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.values().eq(other.values())
    }
}

impl Eq for Table {}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use ferromesh_proto::Version;
    use proptest::prelude::*;

    use super::*;

    fn resource(name: u16, version: u64) -> Arc<EncodedResource> {
        Arc::new(EncodedResource {
            name: format!("r{name:05}").into(),
            version: Version(version),
            body: Bytes::new(),
        })
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_by_name(
            first in prop::collection::vec((0..400u16, 0..9u64), 0..300),
            steps in prop::collection::vec((0..400u16, prop::option::of(0..9u64)), 0..300),
            stride in 1..50u16,
        ) {
            let mut table: Table = first.iter().map(|(name, version)| resource(*name, *version)).collect();
            let mut model: BTreeMap<Arc<str>, Arc<EncodedResource>> =
                first.iter().map(|(n, v)| resource(*n, *v)).map(|r| (r.name.clone(), r)).collect();
            let (before, model_before) = (table.clone(), model.clone());
            for (name, version) in steps {
                let given = resource(name, version.unwrap_or_default());
                let (removed, expected) = match version {
                    Some(_) => (table.insert(given.name.clone(), given.clone()), model.insert(given.name.clone(), given)),
                    None => (table.remove(&given.name), model.remove(&given.name)),
                };
                prop_assert_eq!(removed, expected);
            }
            prop_assert!(table.iter().eq(model.iter()) && table.len() == model.len());
            prop_assert!(model.iter().all(|(name, r)| table.get(name) == Some(r)));
            let mut walk = table.walk();
            let asked = (0..400u16).filter(|number| number % stride == 0).map(|number| resource(number, 0).name.clone());
            prop_assert!(asked.into_iter().all(|name| walk.find(&name) == model.get(&name)));
            prop_assert_eq!(&table, &model.values().cloned().collect::<Table>());
            prop_assert!(before.iter().eq(model_before.iter()), "a copy keeps what it had");
        }
    }
}
