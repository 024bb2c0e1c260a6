//! Services that are asked whether a call may pass: which of them, and where they are.

use std::{collections::BTreeMap, sync::Arc};

use super::{client::resolve_alias, naming};
use crate::{
    ir::{Authorizer, Service, ServiceKey},
    snapshot::Reader,
};

/// Why nobody can be asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum NobodyAsked {
    /// The mesh has no authorizer of this name.
    Unknown,
    /// No service has its host.
    Host,
    /// The service has no such port.
    Port,
}

/// The authorizer of this name, and the cluster of its service.
///
/// # Errors
/// Why there is none.
pub(crate) fn authorizer<'a>(
    reader: &Reader<'a>,
    name: &str,
) -> Result<(&'a Authorizer, Arc<str>), NobodyAsked> {
    let authorizer = reader.mesh().authorizers.get(name).ok_or(NobodyAsked::Unknown)?;
    let service = service(reader, authorizer).ok_or(NobodyAsked::Host)?;
    service.port(authorizer.port).ok_or(NobodyAsked::Port)?;
    Ok((authorizer, naming::outbound_cluster(authorizer.port, "", service.key.host.as_str())))
}

/// The service of an authorizer; of an alias, what it stands for.
fn service<'a>(reader: &Reader<'a>, authorizer: &Authorizer) -> Option<&'a Arc<Service>> {
    let root = &reader.mesh().root_namespace;
    let service = match &authorizer.namespace {
        Some(namespace) => reader
            .service_by_host(&authorizer.host, namespace)
            .filter(|service| service.key.namespace == *namespace),
        None => reader.service_by_host(&authorizer.host, root),
    };
    resolve_alias(reader, service?, root)
}

/// The services of all authorizers.
pub(crate) fn services<'a>(reader: &Reader<'a>) -> Vec<&'a Arc<Service>> {
    let services = reader.mesh().authorizers.values().filter_map(|a| service(reader, a));
    let services: BTreeMap<&ServiceKey, &Arc<Service>> =
        services.map(|service| (&service.key, service)).collect();
    services.into_values().collect()
}
