//! Which limits of requests hold at a port, and who counts.

use std::{collections::BTreeMap, sync::Arc};

use super::{LimitPlan, QuotaPlan, client::resolve_alias, naming};
use crate::{
    ir::{Quota, RateLimit, Service, ServiceKey, SharedQuota},
    snapshot::Reader,
};

/// Why no service can count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum NobodyCounts {
    /// No service has its host.
    Host,
    /// The service has no such port.
    Port,
    /// The port speaks no gRPC.
    Protocol,
}

/// The limits at a port; `None`: at ports of which nothing is known.
pub(crate) fn limits_at(
    reader: &Reader<'_>,
    limits: &[Arc<RateLimit>],
    port: Option<u16>,
) -> Vec<LimitPlan> {
    let holding = limits.iter().filter(|limit| limit.target.reaches(port));
    holding.filter_map(|limit| plan(reader, limit)).collect()
}

/// What becomes of one limit; `None`: it lets everybody pass, since nobody counts.
pub(crate) fn plan(reader: &Reader<'_>, limit: &RateLimit) -> Option<LimitPlan> {
    let quota = match &limit.quota {
        Quota::Own(own) => QuotaPlan::Own(own.clone()),
        Quota::Shared(shared) => match counter(reader, limit, shared) {
            Ok((_, cluster)) => QuotaPlan::Shared { cluster, quota: shared.clone() },
            Err(_) if shared.fail_open => return None,
            Err(_) => QuotaPlan::Exhausted,
        },
    };
    Some(LimitPlan { quota, refusal: limit.refusal.clone() })
}

/// The service that counts, and its cluster.
///
/// # Errors
/// Why there is none.
pub(crate) fn counter<'a>(
    reader: &Reader<'a>,
    limit: &RateLimit,
    shared: &SharedQuota,
) -> Result<(&'a Arc<Service>, Arc<str>), NobodyCounts> {
    let namespace = &limit.origin.id.namespace;
    let service = reader.service_by_host(&shared.host, namespace);
    let service = service.and_then(|service| resolve_alias(reader, service, namespace));
    let service = service.ok_or(NobodyCounts::Host)?;
    let port = service.port(shared.port).ok_or(NobodyCounts::Port)?;
    if !port.protocol.is_http2() {
        return Err(NobodyCounts::Protocol);
    }
    Ok((service, naming::outbound_cluster(shared.port, "", service.key.host.as_str())))
}

/// The services that count for proxies of a namespace.
pub(crate) fn services<'a>(reader: &Reader<'a>, namespace: &str) -> Vec<&'a Arc<Service>> {
    let limits = reader.rate_limits_of(namespace);
    let counters = limits.iter().filter_map(|limit| match &limit.quota {
        Quota::Shared(shared) => counter(reader, limit, shared).ok(),
        Quota::Own(_) => None,
    });
    let services: BTreeMap<&ServiceKey, &Arc<Service>> =
        counters.map(|(service, _)| (&service.key, service)).collect();
    services.into_values().collect()
}
