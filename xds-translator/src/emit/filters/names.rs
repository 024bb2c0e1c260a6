//! Names that are resolved when somebody asks for them: the cache of Envoy's dynamic forward proxy,
//! and the filters that fill it.

use super::{http, network};
use crate::emit::pb::{
    cluster::cluster::DnsLookupFamily, hcm::HttpFilter, listener::Filter, name_cache,
    named_handshakes, named_requests,
};

/// Name of the one cache of a proxy: filters and clusters that share it must agree on its settings.
const CACHE: &str = "named_hosts";

/// The cache, as clusters and filters name it.
pub(in crate::emit) fn cache() -> name_cache::DnsCacheConfig {
    name_cache::DnsCacheConfig {
        name: CACHE.to_owned(),
        dns_lookup_family: DnsLookupFamily::V4Preferred as i32,
        ..Default::default()
    }
}

/// Resolves the host of requests to named clusters; others pass.
pub(in crate::emit) fn requests() -> HttpFilter {
    use named_requests::filter_config::ImplementationSpecifier;
    let config = named_requests::FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache())),
        ..Default::default()
    };
    http("envoy.filters.http.dynamic_forward_proxy", &config)
}

/// Resolves the SNI, to go to a port of it.
pub(in crate::emit) fn handshakes(port: u16) -> Filter {
    use named_handshakes::filter_config::PortSpecifier;
    let config = named_handshakes::FilterConfig {
        dns_cache_config: Some(cache()),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    network("envoy.filters.network.sni_dynamic_forward_proxy", &config)
}
