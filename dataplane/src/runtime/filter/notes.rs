//! What filters note of a request on its way.

use std::{mem, sync::Arc};

use super::FilterState;
use crate::runtime::metadata::{Metadata, Value};

/// A counter of a filter, as Envoy's statistics are called in Prometheus' text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Counter {
    /// Its name.
    pub name: &'static str,
    /// The label whose value configuration gives.
    pub label: &'static str,
}

/// What filters have noted; nothing is allocated while there is nothing.
#[derive(Clone, Default, Debug)]
pub struct Notes(Option<Box<Noted>>);

#[derive(Clone, Default, Debug)]
struct Noted {
    metadata: Metadata,
    /// By the filter's place in the chain.
    states: Vec<(usize, FilterState)>,
    /// What is still to be counted, each with the value of its label.
    counts: Vec<(Counter, Arc<str>)>,
}

impl Notes {
    /// Dynamic metadata, if any filter has set some.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.0.as_ref().map(|noted| &noted.metadata)
    }

    /// Sets dynamic metadata for later filters, access control and logs.
    pub fn set_metadata(&mut self, namespace: &str, key: &str, value: Value) {
        self.0.get_or_insert_default().metadata.set(namespace, key, value);
    }

    /// Keeps the state of the filter at this place.
    pub fn keep(&mut self, place: usize, state: FilterState) {
        let states = &mut self.0.get_or_insert_default().states;
        states.retain(|(other, _)| *other != place);
        states.push((place, state));
    }

    /// The state that the filter at this place has kept.
    pub fn kept(&self, place: usize) -> Option<&FilterState> {
        let states = &self.0.as_ref()?.states;
        states.iter().find(|(other, _)| *other == place).map(|(_, state)| state)
    }

    /// Takes away the state that the filter at this place has kept.
    pub fn take(&mut self, place: usize) -> Option<FilterState> {
        let states = &mut self.0.as_mut()?.states;
        let at = states.iter().position(|(other, _)| *other == place)?;
        Some(states.swap_remove(at).1)
    }

    /// Counts one more; `value` is what configuration says for the counter's label.
    pub fn count(&mut self, counter: Counter, value: &Arc<str>) {
        self.0.get_or_insert_default().counts.push((counter, Arc::clone(value)));
    }

    /// What was counted since the last time.
    pub fn take_counts(&mut self) -> Vec<(Counter, Arc<str>)> {
        self.0.as_mut().map(|noted| mem::take(&mut noted.counts)).unwrap_or_default()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
