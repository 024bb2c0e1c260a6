//! Who may call where no object describes the port.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    age::{ByAge, age, forget},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{AccessDefault, Labels};

/// Whom a default is about: a namespace, or the workloads in it that have exactly these labels.
type Whom = (Arc<str>, Option<Labels>);

/// Every default.
#[derive(Clone, Default, Debug)]
pub(crate) struct AccessDefaults(BTreeMap<Whom, ByAge<AccessDefault>>);

fn whom(default: &AccessDefault) -> Whom {
    (default.namespace.clone(), default.labels.clone())
}

impl Family for AccessDefaults {
    type Item = AccessDefault;

    fn insert(&mut self, default: &Arc<AccessDefault>) {
        let place = (age(&default.origin), default.origin.id.clone());
        self.0.entry(whom(default)).or_default().insert(place, default.clone());
    }

    fn remove(&mut self, default: &AccessDefault) {
        let place = (age(&default.origin), default.origin.id.clone());
        forget(&mut self.0, &whom(default), &place);
    }

    fn touch(versions: &[&Arc<AccessDefault>], touch: &mut Touch<'_>) {
        for default in versions {
            touch.changes.touch(Dep::Access(default.namespace.clone()));
        }
    }
}

impl<'a> Reader<'a> {
    /// The default in force for workloads with these labels.
    pub(super) fn access_default(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> Option<&'a Arc<AccessDefault>> {
        self.record(Dep::Access(namespace.into()));
        let defaults = &self.snapshot().access_defaults().0;
        let of =
            |labels: Option<Labels>| defaults.get(&(namespace.into(), labels))?.values().next();
        of(Some(labels.clone())).or_else(|| of(None))
    }
}
