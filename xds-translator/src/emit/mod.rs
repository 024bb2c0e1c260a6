//! Emitting: spells a plan item as the Envoy message that says it, and the message as bytes.
//!
//! Every decision was made when planning; this stage only knows how Envoy and Istio spell things. It
//! never sees the snapshot, a key or a proxy. Equal plan items give equal bytes, on every replica.

mod access_log;
mod any;
mod canonical;
mod cluster;
mod endpoint;
mod filter_chain;
mod filters;
mod headers;
mod listener;
mod matching;
mod metadata;
mod pb;
mod route;
mod route_action;
mod tls;
mod version;

use bytes::{BufMut, Bytes, BytesMut};
use ferromesh_proto::Version;
use prost::{
    Message, Name,
    encoding::{WireType, encode_key, encode_varint},
};

pub use self::version::EMIT_REVISION;
use crate::plan::{PlanItem, RouteFrame};

/// The item as an encoded message, without an `Any` around it: `Cluster`, `ClusterLoadAssignment`, `Listener`, or for
/// a virtual host the part of a `RouteConfiguration` that [`splice_route`] takes.
pub fn emit(item: &PlanItem) -> Bytes {
    match item {
        PlanItem::Cluster(plan) => encode(&cluster::cluster(plan)),
        PlanItem::Assignment(plan) => encode(&endpoint::assignment(plan)),
        PlanItem::VirtualHost(plan) => encode(&route::virtual_host(plan)),
        PlanItem::Listener(plan) => encode(&listener::listener(plan)),
    }
}

/// What [`emit`] gives for the item, as a hash: changes exactly when the item or [`EMIT_REVISION`] does.
pub fn version(item: &PlanItem) -> Version {
    version::of(item)
}

/// A route configuration from its encoded virtual hosts, in the frame's order.
pub fn splice_route(frame: &RouteFrame, virtual_hosts: &[(Version, Bytes)]) -> (Version, Bytes) {
    const VIRTUAL_HOSTS: u32 = 2;
    let head = route::configuration_frame(&frame.name, frame.ignore_port_in_host).encode_to_vec();
    let length = virtual_hosts.iter().map(|(_, body)| body.len() + 8).sum::<usize>() + head.len();
    let mut body = BytesMut::with_capacity(length);
    body.put_slice(&head);
    for (_, virtual_host) in virtual_hosts {
        encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut body);
        encode_varint(virtual_host.len() as u64, &mut body);
        body.put_slice(virtual_host);
    }
    let parts: Vec<Version> = virtual_hosts.iter().map(|(version, _)| *version).collect();
    (version::of(&(&frame.name, frame.ignore_port_in_host, parts)), body.freeze())
}

/// Canonical bytes of a message.
fn encode<T: Message + Name>(message: &T) -> Bytes {
    let mut body = message.encode_to_vec();
    canonical::canonicalize(&T::full_name(), &mut body);
    body.into()
}

#[cfg(test)]
pub(crate) mod tests;
