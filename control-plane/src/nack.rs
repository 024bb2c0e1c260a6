//! What a proxy says no to: read by the session of its stream, explained by the pipeline, and kept
//! by the status until it is taken back.

use std::sync::Arc;

use ferromesh_proto::ResourceType;

/// A client's refusal of a response, or of a part of it; it keeps what it had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nack {
    /// Of which type.
    pub kind: ResourceType,
    /// The resources that the client names as the reason; empty when it names none.
    pub resources: Vec<Arc<str>>,
    /// What it refuses by that: those, or all that were sent when it names none. Unique.
    pub suspects: Vec<Arc<str>>,
    /// Its words, shortened.
    pub message: String,
    /// The version it last accepted as far as it says, as it spells it; empty when it says nothing.
    pub accepted_version: String,
}
