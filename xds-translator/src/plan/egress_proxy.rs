//! The service through which traffic for unknown destinations goes.

use std::sync::Arc;

use super::{client::Client, naming, route::find_service, traffic::MergedPolicy};
use crate::{
    ir::{EgressProxy, OutboundTraffic, Service},
    snapshot::Reader,
};

/// What becomes of traffic for unknown destinations, with the service found that it is to go
/// through.
#[derive(Clone, Debug)]
pub(crate) enum Unknown<'a> {
    /// It goes on.
    Passes,
    /// It is refused.
    Refused,
    /// It goes to a cluster of a service.
    Through(Arc<str>, &'a Arc<Service>),
}

impl<'a> Unknown<'a> {
    /// For a client. What was to go through a service that is not there is refused, since it may not
    /// go elsewhere.
    pub(crate) fn of(reader: &Reader<'a>, client: &Client<'_>, traffic: &OutboundTraffic) -> Self {
        match traffic {
            OutboundTraffic::AllowAny => Self::Passes,
            OutboundTraffic::RegistryOnly => Self::Refused,
            OutboundTraffic::Through(proxy) => match find_proxy(reader, client, proxy) {
                Some(service) => {
                    let host = service.key.host.as_str();
                    let cluster = naming::outbound_cluster(proxy.port, &proxy.subset, host);
                    Self::Through(cluster, service)
                }
                None => Self::Refused,
            },
        }
    }
}

/// The service of an egress proxy, as a client finds it; `None`: it, its port or its subset is not
/// there.
pub(crate) fn find_proxy<'a>(
    reader: &Reader<'a>,
    client: &Client<'_>,
    proxy: &EgressProxy,
) -> Option<&'a Arc<Service>> {
    let service = find_service(reader, &proxy.host, client.namespace)?;
    service.port(proxy.port)?;
    let policies = client.policies(reader, service);
    MergedPolicy::new(&policies).has_subset(&proxy.subset).then_some(service)
}
