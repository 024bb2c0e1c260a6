//! Ports of workloads that objects of their own describe, by namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    age::{ByAge, age, forget},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{Labels, PortName, SharedPorts, WorkloadPort, WorkloadSet};

/// Every port that an object describes.
#[derive(Clone, Default, Debug)]
pub(crate) struct WorkloadPorts(BTreeMap<Arc<str>, ByAge<WorkloadPort>>);

impl WorkloadPorts {
    /// Those of a namespace, oldest first.
    pub(crate) fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<WorkloadPort>> {
        self.0.get(namespace).into_iter().flat_map(BTreeMap::values)
    }
}

impl Family for WorkloadPorts {
    type Item = WorkloadPort;

    fn insert(&mut self, port: &Arc<WorkloadPort>) {
        let id = &port.origin.id;
        let ports = self.0.entry(id.namespace.clone()).or_default();
        ports.insert((age(&port.origin), id.clone()), port.clone());
    }

    fn remove(&mut self, port: &WorkloadPort) {
        let id = &port.origin.id;
        forget(&mut self.0, &id.namespace, &(age(&port.origin), id.clone()));
    }

    fn touch(versions: &[&Arc<WorkloadPort>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::WorkloadPorts(versions[0].origin.id.namespace.clone()));
    }
}

impl<'a> Reader<'a> {
    /// The ports that objects describe of workloads with these labels, each with its numbers there,
    /// of which there is at least one; oldest first.
    pub fn workload_ports(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> Vec<(&'a Arc<WorkloadPort>, BTreeSet<u16>)> {
        self.record(Dep::WorkloadPorts(namespace.into()));
        let governing =
            self.snapshot().workload_ports().of(namespace).filter(|p| p.selector.matches(labels));
        let numbered = governing.map(|p| (p, self.numbers(p, namespace, labels)));
        numbered.filter(|(_, numbers)| !numbers.is_empty()).collect()
    }

    /// The numbers of the ports of workloads with these labels that are meant; empty: none is.
    pub(super) fn shared_ports(
        &self,
        shared: &SharedPorts,
        namespace: &str,
        labels: &Labels,
    ) -> BTreeSet<u16> {
        let described = self.workload_ports(namespace, labels).into_iter();
        described.filter(|(port, _)| shared.contains(port)).flat_map(|(_, ports)| ports).collect()
    }

    /// Of a port by name what workloads with exactly these labels call so, since replicas need not
    /// agree.
    fn numbers(&self, port: &WorkloadPort, namespace: &str, labels: &Labels) -> BTreeSet<u16> {
        let name = match &port.port {
            PortName::Number(number) => return [*number].into(),
            PortName::Named(name) => name,
        };
        let namespace: Arc<str> = namespace.into();
        self.record(Dep::Addresses(WorkloadSet {
            namespace: Some(namespace.clone()),
            selector: port.selector.clone(),
        }));
        let alike = self.snapshot().workloads().in_namespace(&namespace);
        let alike = alike.filter(|workload| workload.labels == *labels);
        alike.filter_map(|workload| workload.named_ports.get(name).copied()).collect()
    }
}
