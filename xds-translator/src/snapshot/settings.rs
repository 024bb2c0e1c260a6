//! The mesh-wide settings. They shape everything, so that a change of them builds everything again.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{MeshDefaults, ZonePolicy};

/// The settings in force.
#[derive(Clone, Default, Debug)]
pub(crate) struct Settings(Arc<MeshDefaults>);

impl Settings {
    pub(super) fn new(settings: Arc<MeshDefaults>) -> Self {
        Self(settings)
    }

    pub(super) fn get(&self) -> &Arc<MeshDefaults> {
        &self.0
    }
}

impl Family for Settings {
    type Item = MeshDefaults;

    fn insert(&mut self, settings: &Arc<MeshDefaults>) {
        self.0 = settings.clone();
    }

    fn remove(&mut self, _settings: &MeshDefaults) {
        self.0 = Arc::default();
    }

    fn touch(_versions: &[&Arc<MeshDefaults>], touch: &mut Touch<'_>) {
        touch.changes.everything = true;
    }

    fn label_keys(settings: &MeshDefaults, keys: &mut BTreeSet<Arc<str>>) {
        keys.extend(settings.locality.compared_labels());
        keys.extend(settings.zones.iter().flat_map(ZonePolicy::compared_labels));
    }
}

impl<'a> Reader<'a> {
    /// Mesh-wide settings.
    pub fn mesh(&self) -> &'a MeshDefaults {
        self.record(Dep::Mesh);
        self.snapshot().mesh()
    }
}
