//! What the Envoy API's messages look like: the descriptors that `build.rs` took from the
//! `envoy-types` package, with one message that it leaves out, and the order of bytes that makes
//! equal messages equal.

mod canonical;

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
        field_descriptor_proto::{Label, Type},
    },
};

pub(crate) use self::canonical::canonicalize;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let set: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let mut pool = DescriptorPool::decode(set)
        .expect("build.rs wrote a descriptor set that the package's own generator made");
    pool.add_file_descriptor_proto(typed_struct())
        .expect("a message of types that the set has, under a name that it has not");
    pool
});

/// `xds.type.v3.TypedStruct`, which the package leaves out.
fn typed_struct() -> FileDescriptorProto {
    let field = |name: &str, number, kind: Type, type_name: Option<&str>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        type_name: type_name.map(str::to_owned),
        ..Default::default()
    };
    let message = DescriptorProto {
        name: Some("TypedStruct".to_owned()),
        field: vec![
            field("type_url", 1, Type::String, None),
            field("value", 2, Type::Message, Some(".google.protobuf.Struct")),
        ],
        ..Default::default()
    };
    FileDescriptorProto {
        name: Some("xds/type/v3/typed_struct.proto".to_owned()),
        package: Some("xds.type.v3".to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![message],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

/// Every message of the Envoy API; decoded on first use.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}
