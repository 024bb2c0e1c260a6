//! Under which names clusters are counted, where the mesh says a pattern.

use std::sync::Arc;

use super::naming::service_metadata;
use crate::ir::{Service, ServicePort, TargetPort};

/// What a pattern may speak of.
pub(crate) struct Counted<'a> {
    /// The service; of an inbound cluster the first that leads to it.
    pub(crate) service: &'a Service,
    /// Its port.
    pub(crate) port: &'a ServicePort,
    /// The subset; may be empty.
    pub(crate) subset: &'a str,
}

/// The name by a pattern, which ends as Istio's do; `None`: there is no pattern.
pub(crate) fn stat_name(pattern: &str, counted: &Counted<'_>) -> Option<Arc<str>> {
    let Counted { service, port, subset } = counted;
    if pattern.is_empty() {
        return None;
    }
    let host = service.key.host.as_str();
    let (_, name, namespace) = service_metadata(service);
    let short = if service.kubernetes { format!("{name}.{namespace}") } else { host.to_owned() };
    let target = match &port.target {
        TargetPort::Number(number) => number.to_string(),
        TargetPort::Name(name) => name.to_string(),
    };
    let number = port.number.to_string();
    let words = [
        ("%SERVICE%", &*short),
        ("%SERVICE_NAME%", &*name),
        ("%SERVICE_FQDN%", host),
        ("%SERVICE_PORT%", &*number),
        ("%SERVICE_PORT_NAME%", &*port.name),
        ("%TARGET_PORT%", &*target),
        ("%SUBSET_NAME%", *subset),
    ];
    let named =
        words.iter().fold(pattern.to_owned(), |text, (word, value)| text.replace(word, value));
    Some(format!("{named};").into())
}
