//! The memo of items: each planned once for all views that refer to it.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::EncodedResource;
use rustc_hash::FxHashMap;

use super::{
    Work,
    encoded::resource,
    ids::{ItemId, ViewId},
    index::{Consumer, DepIndex},
};
use crate::{
    emit::Content,
    patch,
    plan::{self, ItemKey},
    snapshot::{Dep, MeshSnapshot, Reader},
};

/// Every item that some view refers to.
#[derive(Default, Debug)]
pub(super) struct Items {
    by_key: FxHashMap<Arc<ItemKey>, ItemId>,
    slots: Vec<Option<Memo>>,
    free: Vec<ItemId>,
}

/// One item.
#[derive(Debug)]
struct Memo {
    key: Arc<ItemKey>,
    /// `None`: the item vanished, and its views do without.
    encoded: Option<Encoded>,
    deps: Vec<Dep>,
    views: BTreeSet<ViewId>,
}

/// What an item was encoded from, and into.
#[derive(Clone, Debug)]
struct Encoded {
    content: Content,
    resource: Arc<EncodedResource>,
}

impl Items {
    /// The item with this key, planned now if nobody referred to it before.
    pub(super) fn acquire(
        &mut self,
        key: &Arc<ItemKey>,
        view: ViewId,
        snapshot: &MeshSnapshot,
        index: &mut DepIndex,
        work: &mut Work,
    ) -> ItemId {
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => self.plan_new(key, snapshot, index, work),
        };
        if let Some(memo) = self.memo_mut(id) {
            memo.views.insert(view);
        }
        id
    }

    fn plan_new(
        &mut self,
        key: &Arc<ItemKey>,
        snapshot: &MeshSnapshot,
        index: &mut DepIndex,
        work: &mut Work,
    ) -> ItemId {
        let key = key.clone();
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ItemId(
                u32::try_from(self.slots.len() - 1)
                    .expect("items are counted in u32: memory ends before"),
            )
        });
        let (encoded, deps) = plan(&key, None, snapshot, work);
        index.replace(Consumer::Item(id), &[], &deps);
        self.by_key.insert(key.clone(), id);
        self.slots[id.0 as usize] = Some(Memo { key, encoded, deps, views: BTreeSet::new() });
        id
    }

    /// A view no longer refers to the item; without any view it is forgotten.
    pub(super) fn release(&mut self, id: ItemId, view: ViewId, index: &mut DepIndex) {
        let Some(memo) = self.memo_mut(id) else { return };
        memo.views.remove(&view);
        if !memo.views.is_empty() {
            return;
        }
        if let Some(memo) = self.slots[id.0 as usize].take() {
            index.replace(Consumer::Item(id), &memo.deps, &[]);
            self.by_key.remove(&memo.key);
            self.free.push(id);
        }
    }

    /// Plans an item again. The former and the new resource, if they differ.
    pub(super) fn replan(
        &mut self,
        id: ItemId,
        snapshot: &MeshSnapshot,
        index: &mut DepIndex,
        work: &mut Work,
    ) -> Option<Replanned> {
        let memo = self.memo_mut(id)?;
        let (encoded, deps) = plan(&memo.key, memo.encoded.as_ref(), snapshot, work);
        index.replace(Consumer::Item(id), &memo.deps, &deps);
        memo.deps = deps;
        let new = encoded.as_ref().map(|e| e.resource.clone());
        let old = std::mem::replace(&mut memo.encoded, encoded).map(|e| e.resource);
        let version =
            |resource: &Option<Arc<EncodedResource>>| resource.as_ref().map(|r| r.version);
        (version(&old) != version(&new)).then_some(Replanned { id, old, new })
    }

    /// Its key, one copy for all.
    pub(super) fn key(&self, id: ItemId) -> Option<&Arc<ItemKey>> {
        self.memo(id).map(|memo| &memo.key)
    }

    pub(super) fn encoded(&self, id: ItemId) -> Option<&Arc<EncodedResource>> {
        self.memo(id)?.encoded.as_ref().map(|e| &e.resource)
    }

    pub(super) fn deps(&self, id: ItemId) -> &[Dep] {
        self.memo(id).map_or(&[], |memo| &memo.deps)
    }

    pub(super) fn views(&self, id: ItemId) -> impl Iterator<Item = ViewId> {
        self.memo(id).into_iter().flat_map(|memo| memo.views.iter().copied())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Gives back room that far more items took than there are now.
    pub(super) fn shrink(&mut self) {
        self.by_key.shrink_to(2 * self.by_key.len());
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        let places = self.slots.len();
        self.free.retain(|id| (id.0 as usize) < places);
        self.slots.shrink_to(2 * places);
        self.free.shrink_to(2 * self.free.len());
    }

    /// Every item.
    pub(super) fn ids(&self) -> Vec<ItemId> {
        let mut ids: Vec<ItemId> = self.by_key.values().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn memo(&self, id: ItemId) -> Option<&Memo> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn memo_mut(&mut self, id: ItemId) -> Option<&mut Memo> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }
}

/// An item whose outcome is another than before.
#[derive(Clone, Debug)]
pub(super) struct Replanned {
    pub(super) id: ItemId,
    pub(super) old: Option<Arc<EncodedResource>>,
    pub(super) new: Option<Arc<EncodedResource>>,
}

/// Plans one item; encodes it unless the former outcome has the same content.
fn plan(
    key: &ItemKey,
    former: Option<&Encoded>,
    snapshot: &MeshSnapshot,
    work: &mut Work,
) -> (Option<Encoded>, Vec<Dep>) {
    work.items_planned += 1;
    let reader = Reader::new(snapshot);
    let planned = plan::plan_item(&reader, key);
    let patches = plan::item_patches(&reader, key);
    let encoded = planned.map(|item| {
        let content = patch::content(&item, &patches);
        if let Some(former) = former.filter(|f| f.content == content) {
            return former.clone();
        }
        work.items_encoded += 1;
        let made = resource(item.name().clone(), patch::encode(&item, &patches).0);
        // Another plan may give the same bytes: the views' copy stays the only one.
        let resource = match former {
            Some(former) if *former.resource == made => former.resource.clone(),
            _ => Arc::new(made),
        };
        Encoded { content, resource }
    });
    (encoded, reader.into_deps())
}
