//! Responses as bytes, made while the transport takes them.
//!
//! A full state is megabytes, and a whole mesh may connect at once. So a response is not put
//! together in memory: small resources are gathered into pieces of one HTTP/2 frame when there is
//! room for the next one, and the bodies of large ones go out as they are, shared by all streams.
//! Only the encoding around the bodies is a stream's own.

use std::{sync::Arc, vec};

use bytes::{BufMut, Bytes};
use ferromesh_proto::EncodedResource;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

/// Bytes of a piece: the largest HTTP/2 frame that every peer takes (RFC 9113, 4.2).
pub(super) const PIECE: usize = 16 << 10;
/// A body of this size is worth a frame of its own; smaller ones are copied.
const SHARED: usize = 8 << 10;
/// gRPC's prefix: not compressed, and the length of the message.
const PREFIX: usize = 5;

/// Field numbers that the messages of both variants have in common.
const RESOURCES: u32 = 2;
/// Fields of `google.protobuf.Any`.
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;
/// Fields of the incremental `Resource`.
const VERSION: u32 = 1;
const RESOURCE: u32 = 2;
const NAME: u32 = 3;
/// Length of an encoded version.
const VERSION_LENGTH: usize = 16;

/// How the resources of a response are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// As the resource itself (state of the world).
    Plain,
    /// With its name and version (incremental).
    Named,
}

/// A response that becomes bytes piece by piece.
pub(super) struct Outgoing {
    form: Form,
    type_url: String,
    /// What the next piece begins with.
    begun: Vec<u8>,
    /// Bytes that are not begun yet.
    left: usize,
    resources: vec::IntoIter<Arc<EncodedResource>>,
    /// The body that comes next.
    body: Option<Bytes>,
}

impl Outgoing {
    /// The response that consists of `fields` (the message without its resources) and the
    /// resources.
    pub(super) fn new(
        form: Form,
        type_url: String,
        fields: &impl Message,
        resources: Vec<Arc<EncodedResource>>,
    ) -> Self {
        let mut outgoing = Self {
            form,
            type_url,
            begun: Vec::new(),
            left: 0,
            resources: vec::IntoIter::default(),
            body: None,
        };
        outgoing.left = resources.iter().map(|r| field(outgoing.length(r))).sum();
        let length = fields.encoded_len() + outgoing.left;
        outgoing.begun.reserve_exact((PREFIX + length).min(PIECE));
        outgoing.begun.put_u8(0);
        outgoing.begun.put_u32(u32::try_from(length).expect("a response is smaller than 4 GB"));
        fields.encode(&mut outgoing.begun).expect("a vector has room");
        outgoing.resources = resources.into_iter();
        outgoing
    }

    /// Length of a resource as an element of the list.
    fn length(&self, resource: &EncodedResource) -> usize {
        match self.form {
            Form::Plain => self.any(resource),
            Form::Named => {
                field(VERSION_LENGTH) + field(resource.name.len()) + field(self.any(resource))
            }
        }
    }

    fn any(&self, resource: &EncodedResource) -> usize {
        field(self.type_url.len()) + field(resource.body.len())
    }

    /// Encodes everything of a resource that comes before its body.
    fn head(&self, resource: &EncodedResource, out: &mut Vec<u8>) {
        begin(RESOURCES, self.length(resource), out);
        if self.form == Form::Named {
            text(VERSION, &resource.version.hex(), out);
            text(NAME, resource.name.as_bytes(), out);
            begin(RESOURCE, self.any(resource), out);
        }
        text(TYPE_URL, self.type_url.as_bytes(), out);
        begin(VALUE, resource.body.len(), out);
    }
}

impl Iterator for Outgoing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(body) = self.body.take() {
            return Some(body);
        }
        let mut piece = std::mem::take(&mut self.begun);
        while let Some(resource) = self.resources.as_slice().first() {
            let whole = field(self.length(resource));
            let shared = if resource.body.len() >= SHARED { resource.body.len() } else { 0 };
            if !piece.is_empty() && piece.len() + whole - shared > PIECE {
                break;
            }
            if piece.capacity() == 0 {
                piece.reserve_exact(self.left.min(PIECE));
            }
            self.head(resource, &mut piece);
            if shared == 0 {
                piece.put_slice(&resource.body);
            } else {
                self.body = Some(resource.body.clone());
            }
            self.left -= whole;
            self.resources.next();
            if shared > 0 {
                break;
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

/// Length of a field with a value of `length` bytes. All field numbers here are encoded in one
/// byte.
fn field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn begin(tag: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn text(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    begin(tag, value.len(), out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{
        Version,
        discovery::{Any, DeltaDiscoveryResponse, DiscoveryResponse, Resource},
    };

    use super::*;

    fn resource(number: usize, size: usize) -> Arc<EncodedResource> {
        let body = vec![u8::try_from(number % 251).expect("small"); size].into();
        Arc::new(EncodedResource {
            name: format!("resource-{number}").into(),
            version: Version(number as u64),
            body,
        })
    }

    fn pieces(form: Form, fields: &impl Message, resources: &[Arc<EncodedResource>]) -> Vec<Bytes> {
        Outgoing::new(form, "type".to_owned(), fields, resources.to_vec()).collect()
    }

    /// What a gRPC client reads from the pieces.
    fn read<M: Message + Default>(pieces: &[Bytes]) -> M {
        let bytes = pieces.concat();
        assert_eq!(bytes[0], 0, "not compressed");
        assert_eq!(
            u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
            bytes.len() - PREFIX
        );
        M::decode(&bytes[PREFIX..]).expect("a message")
    }

    fn check(sizes: &[usize]) {
        let resources: Vec<_> =
            sizes.iter().enumerate().map(|(number, size)| resource(number, *size)).collect();
        let any = |r: &EncodedResource| Any { type_url: "type".to_owned(), value: r.body.clone() };
        let named = |r: &Arc<EncodedResource>| Resource {
            name: r.name.to_string(),
            version: r.version.to_string(),
            resource: Some(any(r)),
            ..Resource::default()
        };
        let mut delta =
            DeltaDiscoveryResponse { nonce: "n".to_owned(), ..DeltaDiscoveryResponse::default() };
        let sent = pieces(Form::Named, &delta, &resources);
        delta.resources = resources.iter().map(named).collect();
        assert_eq!(read::<DeltaDiscoveryResponse>(&sent), delta, "{sizes:?}");
        let mut list = DiscoveryResponse { nonce: "n".to_owned(), ..DiscoveryResponse::default() };
        let sent = pieces(Form::Plain, &list, &resources);
        list.resources = resources.iter().map(|r| any(r)).collect();
        assert_eq!(read::<DiscoveryResponse>(&sent), list, "{sizes:?}");
    }

    #[test]
    fn pieces_are_the_message() {
        check(&[]);
        check(&[0]);
        check(&[0, 1, 100, 127, 128, 129]);
        check(&[SHARED - 1, SHARED, SHARED + 1, 3, 5 * PIECE, 5 * PIECE, 1]);
        check(&[1000; 100]);
        check(&[PIECE - 200; 3]);
    }

    #[test]
    fn small_resources_share_a_piece_and_large_bodies_are_not_copied() {
        let resources: Vec<_> = (0..100).map(|number| resource(number, 1000)).collect();
        let sent = pieces(Form::Named, &DeltaDiscoveryResponse::default(), &resources);
        assert!(sent.len() < 10 && sent.iter().all(|piece| piece.len() <= PIECE), "{}", sent.len());
        let large = resource(0, 500_000);
        let sent = pieces(
            Form::Named,
            &DeltaDiscoveryResponse::default(),
            &[large.clone(), resource(1, 10)],
        );
        assert!(sent.iter().any(|piece| piece.as_ptr() == large.body.as_ptr()));
        assert!(sent.iter().map(Bytes::len).sum::<usize>() - large.body.len() < 200);
    }
}
