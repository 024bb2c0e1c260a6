//! Network and HTTP filters.

pub(super) mod alpn;
pub(super) mod ask;
pub(super) mod cors;
pub(super) mod fault;
pub(super) mod hcm;
pub(super) mod metrics;
pub(super) mod names;
pub(super) mod rate_limit;
pub(super) mod rbac;
pub(super) mod tcp_proxy;
pub(super) mod token;
pub(super) mod tracing;

use prost::{Message, Name};

use super::{
    any::any,
    pb::{hcm as pb_hcm, listener},
};

/// A filter of a chain.
fn network<T: Name + Message>(name: &str, config: &T) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(config))),
    }
}

/// A filter of an HTTP connection manager.
fn http<T: Name + Message>(name: &str, config: &T) -> pb_hcm::HttpFilter {
    pb_hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(pb_hcm::http_filter::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}
