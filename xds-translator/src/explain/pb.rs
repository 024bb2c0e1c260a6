//! Short names for the generated modules that are read here, and the message in an `Any`.

pub(super) use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3 as cluster, core::v3 as core, endpoint::v3 as endpoint,
            listener::v3 as listener, rbac::v3 as rbac, route::v3 as route,
        },
        extensions::{
            filters::{
                common::{fault::v3 as fault_delay, set_filter_state::v3 as filter_state},
                http::{
                    cors::v3 as cors, ext_authz::v3 as ask, fault::v3 as fault,
                    jwt_authn::v3 as token, rbac::v3 as http_rbac,
                    set_filter_state::v3 as set_filter_state,
                },
                network::{
                    http_connection_manager::v3 as hcm, rbac::v3 as network_rbac,
                    tcp_proxy::v3 as tcp_proxy,
                },
            },
            transport_sockets::{
                proxy_protocol::v3 as proxy_protocol, raw_buffer::v3 as raw_buffer, tls::v3 as tls,
            },
        },
        r#type::{matcher::v3 as matcher, v3 as types},
    },
    google::protobuf,
};
use prost::{Message, Name};

/// The message, if it is of this type.
pub(super) fn unpack<T: Message + Name + Default>(any: &protobuf::Any) -> Option<T> {
    (any.type_url == T::type_url()).then(|| T::decode(&*any.value).ok()).flatten()
}

/// The last part of a type's name, as people say it.
pub(super) fn short_type(any: &protobuf::Any) -> &str {
    any.type_url.rsplit(['/', '.']).next().unwrap_or_default()
}
