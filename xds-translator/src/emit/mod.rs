//! Emitting: spells a plan item as the Envoy message that says it, and the message as bytes.
//!
//! Every decision was made when planning; this stage only knows how Envoy and Istio spell things.
//! It never sees the snapshot, a key or a proxy. Equal plan items give equal bytes, on every
//! replica.

mod access_log;
mod any;
mod cluster;
mod collector;
mod content;
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

use bytes::{BufMut, Bytes, BytesMut};
use ferromesh_proto::Version;
use prost::{
    Message, Name,
    encoding::{WireType, encode_key, encode_varint},
};
use xxhash_rust::xxh3::xxh3_64;

pub use self::content::Content;
pub(crate) use self::listener::told_apart;
use crate::{
    descriptors::canonicalize,
    plan::{PlanItem, RouteFrame},
};

/// The item as an encoded message, without an `Any` around it: `Cluster`, `ClusterLoadAssignment`,
/// `Listener`, or for a virtual host the part of a `RouteConfiguration` that [`splice_route`]
/// takes.
pub fn emit(item: &PlanItem) -> Bytes {
    match item {
        PlanItem::Cluster(plan) => encode(&cluster::cluster(plan)),
        PlanItem::Assignment(plan) => encode(&endpoint::assignment(plan)),
        PlanItem::VirtualHost(plan) => encode(&route::virtual_host(plan)),
        PlanItem::Listener(plan) => encode(&listener::listener(plan)),
        PlanItem::Given(plan) => Bytes::copy_from_slice(&plan.message.body),
    }
}

/// The item as a hash: of items with equal content [`emit`] need run for one only.
pub fn content(item: &PlanItem) -> Content {
    Content::of(item)
}

/// The version of a resource with this encoded message: xxh3-64 of the bytes. Another build that
/// spells an unchanged item differently thereby gives it another version, and a proxy that
/// reconnects gets the resource again.
pub fn version(body: &[u8]) -> Version {
    Version(xxh3_64(body))
}

/// A route configuration from its encoded virtual hosts, in the frame's order.
pub fn splice_route(frame: &RouteFrame, virtual_hosts: &[Bytes]) -> Bytes {
    let head = route::configuration_frame(&frame.name, frame.ignore_port_in_host).encode_to_vec();
    with_virtual_hosts(&head, virtual_hosts)
}

/// An encoded route configuration with these encoded virtual hosts behind it.
pub(crate) fn with_virtual_hosts(head: &[u8], virtual_hosts: &[Bytes]) -> Bytes {
    const VIRTUAL_HOSTS: u32 = 2;
    let length = virtual_hosts.iter().map(|body| body.len() + 8).sum::<usize>() + head.len();
    let mut body = BytesMut::with_capacity(length);
    body.put_slice(head);
    for virtual_host in virtual_hosts {
        encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut body);
        encode_varint(virtual_host.len() as u64, &mut body);
        body.put_slice(virtual_host);
    }
    body.freeze()
}

/// Canonical bytes of a message.
fn encode<T: Message + Name>(message: &T) -> Bytes {
    let mut body = message.encode_to_vec();
    canonicalize(&T::full_name(), &mut body);
    body.into()
}

#[cfg(test)]
pub(crate) mod tests;
