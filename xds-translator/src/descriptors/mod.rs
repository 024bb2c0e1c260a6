//! What the Envoy API's messages look like: the descriptors that `build.rs` took from the
//! `envoy-types` package, and the order of bytes that makes equal messages equal.

mod canonical;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub(crate) use self::canonical::canonicalize;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let set: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(set)
        .expect("build.rs wrote a descriptor set that the package's own generator made")
});

/// Every message of the Envoy API; decoded on first use.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}
