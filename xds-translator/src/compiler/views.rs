//! The views in use: outlines, the items they name, and the tables that streams see.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::{EncodedResource, ResourceType};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{
    Compiler,
    ids::{ItemId, ViewId},
    index::Consumer,
    items::Replanned,
};
use crate::{
    ir::{ObjectId, Patch},
    patch::{self, Report, RoutePatches},
    plan::{self, Entry, ItemKey, Outline, ViewKey},
    snapshot::{ChangeSet, Dep, Reader},
    view::{CHANGE_LOG, Table, View, ViewChange},
};

/// Every view that somebody uses.
#[derive(Default, Debug)]
pub(super) struct Views {
    by_key: BTreeMap<Arc<ViewKey>, ViewId>,
    states: FxHashMap<ViewId, State>,
    last: u32,
}

/// One view.
#[derive(Debug)]
struct State {
    outline: Outline,
    deps: Vec<Dep>,
    layout: Layout,
    view: Arc<View>,
}

/// Where a view uses an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// As a resource of this type.
    Resource(ResourceType),
    /// As a part of the route configuration with this position in the outline.
    Frame(usize),
}

type Tables = [Table; ResourceType::COUNT];

impl Views {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<ViewKey>> {
        self.by_key.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn ids(&self) -> Vec<ViewId> {
        self.by_key.values().copied().collect()
    }

    /// How many facts the outlines read, all together.
    #[cfg(test)]
    pub(super) fn facts(&self) -> usize {
        self.states.values().map(|state| state.deps.len()).sum()
    }
}

impl Compiler {
    /// The view with this key, planned on first use and kept up to date until it is released.
    pub fn view(&mut self, key: &ViewKey) -> Arc<View> {
        if let Some(state) = self.views.by_key.get(key).and_then(|id| self.views.states.get(id)) {
            return state.view.clone();
        }
        let key = Arc::new(key.clone());
        self.views.last += 1;
        let id = ViewId(self.views.last);
        let (mut outline, deps) = self.plan_outline(&key);
        let layout = self.lay_out(id, &outline, None);
        self.share_keys(&mut outline, &layout);
        let tables = self.tables(&outline, &layout).map(Arc::new);
        let view = Arc::new(View { key: key.clone(), generation: 1, tables, log: Arc::new([]) });
        self.index.replace(Consumer::Outline(id), &[], &deps);
        let state = State { outline, deps, layout, view: view.clone() };
        self.views.by_key.insert(key, id);
        self.views.states.insert(id, state);
        view
    }

    /// Nobody uses the view any more: it and the items that only it used are forgotten.
    pub fn release(&mut self, key: &ViewKey) {
        let Some(id) = self.views.by_key.remove(key) else { return };
        let Some(state) = self.views.states.remove(&id) else { return };
        self.index.replace(Consumer::Outline(id), &state.deps, &[]);
        for item in state.layout.places.keys() {
            self.items.release(*item, id, &mut self.index);
        }
    }

    /// Gives back what released views and former states have taken. Call it after some were
    /// released, and from time to time; it looks at everything that is kept.
    pub fn trim(&mut self) {
        self.memo.forget();
        self.items.shrink();
        self.index.shrink();
        self.views.states.shrink_to(2 * self.views.states.len());
    }

    /// The objects that shaped a resource of a view; sorted, unique. Empty for resources that the
    /// view does not have and for those that no object shapes.
    pub fn origins_of(&self, key: &ViewKey, kind: ResourceType, name: &str) -> Vec<ObjectId> {
        let Some(state) = self.views.by_key.get(key).and_then(|id| self.views.states.get(id))
        else {
            return Vec::new();
        };
        let mut deps: Vec<&Dep> = Vec::new();
        for (item, places) in &state.layout.places {
            let used = places.iter().any(|place| match place {
                Place::Resource(of) => {
                    *of == kind && self.items.encoded(*item).is_some_and(|e| &*e.name == name)
                }
                Place::Frame(position) => {
                    kind == ResourceType::Route && &*state.outline.routes[*position].name == name
                }
            });
            if used {
                deps.extend(self.items.deps(*item));
            }
        }
        let mut origins: BTreeSet<ObjectId> =
            deps.into_iter().filter_map(|dep| self.origin(dep)).collect();
        for entry in state.outline.of(kind) {
            if let Entry::Own(item) = entry
                && **item.name() == *name
            {
                origins.extend(plan::origins_of(&Reader::new(&self.snapshot), key, item));
            }
        }
        origins.extend(self.patchers(state, kind, name));
        origins.into_iter().collect()
    }

    /// The objects whose patches are in a resource that a view has of its own.
    fn patchers(&self, state: &State, kind: ResourceType, name: &str) -> BTreeSet<ObjectId> {
        let outline = &state.outline;
        let mut report = Report::default();
        for entry in outline.of(kind) {
            if let Entry::Own(item) = entry
                && **item.name() == *name
            {
                report.merge(patch::encode(item, &outline.patches).1);
            }
        }
        for (position, frame) in outline.routes.iter().enumerate() {
            if kind == ResourceType::Route && *frame.name == *name {
                let parts = self.parts(&state.layout, position);
                let parts: Vec<_> = parts.iter().map(|part| part.body.clone()).collect();
                let own = RoutePatches::of(&frame.name, &outline.patches);
                report.merge(own.apply(frame, &parts).1);
            }
        }
        report.applied.into_iter().map(|(object, _)| object).collect()
    }

    /// What a view consists of; `None`: the view is not kept.
    pub(super) fn outline(&self, key: &ViewKey) -> Option<&Outline> {
        let id = self.views.by_key.get(key)?;
        Some(&self.views.states.get(id)?.outline)
    }

    fn origin(&self, dep: &Dep) -> Option<ObjectId> {
        match dep {
            Dep::Object(id) => Some(id.clone()),
            Dep::Service(key) => self.snapshot.services().service(key).map(|s| s.origin.id.clone()),
            _ => None,
        }
    }

    /// Repeats the plans that read a changed fact, and gives the views that this changed.
    pub(super) fn refresh(&mut self, touched: &ChangeSet) -> Vec<Arc<View>> {
        let (items, outlines) = match touched.everything {
            true => (self.items.ids(), self.views.ids()),
            false => self.index.readers_of(touched.deps.iter()),
        };
        // Outlines first: an item that no outline names any more need not be planned.
        let mut changed: BTreeMap<ViewId, Arc<View>> = BTreeMap::new();
        let replanned: Vec<ViewId> =
            outlines.into_iter().filter(|id| self.replan_outline(*id)).collect();
        let mut by_view: BTreeMap<ViewId, Vec<Replanned>> = BTreeMap::new();
        for id in items {
            let Some(item) = self.items.replan(id, &self.snapshot, &mut self.index, &mut self.work)
            else {
                continue;
            };
            for view in self.items.views(id) {
                by_view.entry(view).or_default().push(item.clone());
            }
        }
        for id in replanned {
            by_view.remove(&id);
            changed.extend(self.republish(id).map(|view| (id, view)));
        }
        for (id, items) in by_view {
            changed.extend(self.update(id, &items).map(|view| (id, view)));
        }
        self.memo.sweep();
        changed.into_values().collect()
    }

    fn plan_outline(&mut self, key: &ViewKey) -> (Outline, Vec<Dep>) {
        self.work.outlines_planned += 1;
        let reader = Reader::new(&self.snapshot);
        let outline = plan::plan_outline(&reader, key);
        (outline, reader.into_deps())
    }

    /// Acquires the items that an outline names, and notes where it uses them. Of the view's former
    /// outline nearly everything stays, and need not be looked up.
    fn lay_out(&mut self, view: ViewId, outline: &Outline, former: Option<&State>) -> Layout {
        let mut layout = Layout::default();
        for kind in ResourceType::ALL {
            let mut kept = former.map(|state| Kept::of(state, kind)).unwrap_or_default();
            for entry in outline.of(kind) {
                let Entry::Shared(key) = entry else {
                    layout.lists[kind.index()].push(None);
                    continue;
                };
                let id = kept.find(entry).unwrap_or_else(|| self.acquire(view, key));
                layout.places.entry(id).or_default().push(Place::Resource(kind));
                layout.lists[kind.index()].push(Some(id));
            }
        }
        for (position, frame) in outline.routes.iter().enumerate() {
            let ids: Vec<ItemId> =
                frame.virtual_hosts.iter().map(|key| self.acquire(view, key)).collect();
            for id in &ids {
                layout.places.entry(*id).or_default().push(Place::Frame(position));
            }
            layout.frames.push(ids);
        }
        layout
    }

    /// Replaces the keys of an outline by the copies that all views share.
    fn share_keys(&self, outline: &mut Outline, layout: &Layout) {
        let share = |key: &mut Arc<ItemKey>, id: ItemId| {
            self.items.key(id).into_iter().for_each(|own| *key = own.clone())
        };
        for (kind, ids) in ResourceType::ALL.into_iter().zip(&layout.lists) {
            for (entry, id) in outline.of_mut(kind).iter_mut().zip(ids) {
                if let (Entry::Shared(key), Some(id)) = (entry, id) {
                    share(key, *id);
                }
            }
        }
        for (frame, ids) in outline.routes.iter_mut().zip(&layout.frames) {
            frame.virtual_hosts.iter_mut().zip(ids).for_each(|(key, id)| share(key, *id));
        }
    }

    fn acquire(&mut self, view: ViewId, key: &Arc<ItemKey>) -> ItemId {
        self.items.acquire(key, view, &self.snapshot, &mut self.index, &mut self.work)
    }

    /// Plans an outline again and takes the new one over; whether it is another than before.
    fn replan_outline(&mut self, id: ViewId) -> bool {
        let Some(mut state) = self.views.states.remove(&id) else { return false };
        let (mut outline, deps) = self.plan_outline(&state.view.key.clone());
        self.index.replace(Consumer::Outline(id), &state.deps, &deps);
        state.deps = deps;
        let changed = state.outline != outline;
        if changed {
            let layout = self.lay_out(id, &outline, Some(&state));
            for item in state.layout.places.keys().filter(|item| !layout.places.contains_key(item))
            {
                self.items.release(*item, id, &mut self.index);
            }
            self.share_keys(&mut outline, &layout);
            state.outline = outline;
            state.layout = layout;
        }
        self.views.states.insert(id, state);
        changed
    }

    /// Publishes a view whose outline changed.
    fn republish(&mut self, id: ViewId) -> Option<Arc<View>> {
        let state = self.views.states.remove(&id)?;
        let tables = self.tables(&state.outline, &state.layout);
        let mut names = Vec::new();
        for kind in ResourceType::ALL {
            differences(kind, &state.view.tables[kind.index()], &tables[kind.index()], &mut names);
        }
        publish(state, id, &mut self.views, names, |shared| {
            for (shared, table) in shared.iter_mut().zip(tables) {
                if **shared != table {
                    *shared = Arc::new(table);
                }
            }
        })
    }

    /// Takes changed items into a view whose outline did not change.
    fn update(&mut self, id: ViewId, items: &[Replanned]) -> Option<Arc<View>> {
        let state = self.views.states.remove(&id)?;
        let mut replaced: Vec<(ResourceType, Arc<str>, Option<Arc<EncodedResource>>)> = Vec::new();
        let mut frames = BTreeSet::new();
        for item in items {
            for place in state.layout.places.get(&item.id).into_iter().flatten() {
                match place {
                    Place::Frame(position) => drop(frames.insert(*position)),
                    Place::Resource(kind) => {
                        let name = item.new.as_ref().or(item.old.as_ref()).map(|e| e.name.clone());
                        replaced.extend(name.map(|name| (*kind, name, item.new.clone())));
                    }
                }
            }
        }
        for position in frames {
            let route = self.route(&state.outline, &state.layout, position);
            let kept = state.view.get(ResourceType::Route, &route.name);
            if kept.is_none_or(|kept| kept.version != route.version) {
                replaced.push((ResourceType::Route, route.name.clone(), Some(route)));
            }
        }
        let names = replaced.iter().map(|(kind, name, _)| (*kind, name.clone())).collect();
        publish(state, id, &mut self.views, names, |tables| {
            for (kind, name, resource) in replaced {
                let table = Arc::make_mut(&mut tables[kind.index()]);
                match resource {
                    Some(resource) => drop(table.insert(name, resource)),
                    None => drop(table.remove(&name)),
                }
            }
        })
    }

    fn tables(&mut self, outline: &Outline, layout: &Layout) -> Tables {
        let mut tables = Tables::default();
        for (kind, ids) in ResourceType::ALL.into_iter().zip(&layout.lists) {
            let entries = outline.of(kind).iter().zip(ids);
            let encoded =
                entries.filter_map(|(entry, id)| self.encoded(entry, *id, &outline.patches));
            tables[kind.index()] = encoded.collect();
        }
        let routes = (0..layout.frames.len()).map(|position| self.route(outline, layout, position));
        // A type is sent whole or put together from parts, never both.
        tables[ResourceType::Route.index()] = routes.collect();
        tables
    }

    fn encoded(
        &mut self,
        entry: &Entry,
        id: Option<ItemId>,
        patches: &[Arc<Patch>],
    ) -> Option<Arc<EncodedResource>> {
        match entry {
            Entry::Own(plan) => Some(self.memo.own(plan, patches, &mut self.work)),
            Entry::Shared(_) => self.items.encoded(id?).cloned(),
        }
    }

    fn route(
        &mut self,
        outline: &Outline,
        layout: &Layout,
        position: usize,
    ) -> Arc<EncodedResource> {
        let parts = self.parts(layout, position);
        self.memo.route(&outline.routes[position], &parts, &outline.patches, &mut self.work)
    }

    /// The encoded virtual hosts of a route configuration.
    fn parts(&self, layout: &Layout, position: usize) -> Vec<Arc<EncodedResource>> {
        let ids = layout.frames[position].iter();
        ids.filter_map(|id| self.items.encoded(*id)).cloned().collect()
    }
}

/// Which items an outline uses, and where.
#[derive(Default, Debug)]
struct Layout {
    /// By type, the items at the positions of the outline's entries; `None` for a view's own
    /// resources.
    lists: [Vec<Option<ItemId>>; ResourceType::COUNT],
    /// Items of each route configuration, in the outline's order.
    frames: Vec<Vec<ItemId>>,
    /// Where each item is used.
    places: FxHashMap<ItemId, SmallVec<[Place; 1]>>,
}

/// Walks a former list beside a new one. Both are sorted, so that what stays is found where the
/// last find ended.
#[derive(Default)]
struct Kept<'a> {
    entries: &'a [Entry],
    ids: &'a [Option<ItemId>],
}

impl<'a> Kept<'a> {
    /// How many entries may have gone in between until the item is rather looked up.
    const AHEAD: usize = 4;

    fn of(state: &'a State, kind: ResourceType) -> Self {
        Self { entries: state.outline.of(kind), ids: &state.layout.lists[kind.index()] }
    }

    fn find(&mut self, entry: &Entry) -> Option<ItemId> {
        let at = self.entries.iter().take(Self::AHEAD).position(|former| former == entry)?;
        let id = self.ids[at];
        self.entries = &self.entries[at + 1..];
        self.ids = &self.ids[at + 1..];
        id
    }
}

/// Names that are in one table only, or with another version.
fn differences(
    kind: ResourceType,
    old: &Table,
    new: &Table,
    names: &mut Vec<(ResourceType, Arc<str>)>,
) {
    let (mut old, mut new) = (old.values().peekable(), new.values().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(gone), Some(came)) if Arc::ptr_eq(gone, came) => Ordering::Equal,
            (Some(gone), Some(came)) => gone.name.cmp(&came.name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let gone = if order.is_le() { old.next() } else { None };
        let came = if order.is_ge() { new.next() } else { None };
        if gone.map(|resource| resource.version) != came.map(|resource| resource.version) {
            names.extend(came.or(gone).map(|resource| (kind, resource.name.clone())));
        }
    }
}

/// Publishes the next generation of a view, unless nothing changed.
fn publish(
    mut state: State,
    id: ViewId,
    views: &mut Views,
    mut names: Vec<(ResourceType, Arc<str>)>,
    change: impl FnOnce(&mut [Arc<Table>; ResourceType::COUNT]),
) -> Option<Arc<View>> {
    names.sort_unstable();
    names.dedup();
    let published = (!names.is_empty()).then(|| {
        let former = &state.view;
        let generation = former.generation + 1;
        let mut tables = former.tables.clone();
        change(&mut tables);
        let kept = former.log.len().saturating_sub(CHANGE_LOG - 1);
        let entry = Arc::new(ViewChange { generation, names });
        let log = former.log[kept..].iter().cloned().chain([entry]).collect();
        Arc::new(View { key: former.key.clone(), generation, tables, log })
    });
    if let Some(view) = &published {
        state.view = view.clone();
    }
    views.states.insert(id, state);
    published
}
