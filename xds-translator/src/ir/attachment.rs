//! What routing rules are attached to.

use std::sync::Arc;

use serde::Serialize;

use super::ObjectId;

/// What a route table is attached to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Attachment {
    /// Every sidecar.
    Mesh,
    /// The gateway configuration object with this identity.
    Gateway(ObjectId),
    /// Of such an object the servers whose port has this name.
    Section(ObjectId, Arc<str>),
}

impl Attachment {
    /// What it is a part of, or itself: tables are looked up by that.
    pub fn whole(&self) -> Self {
        match self {
            Self::Mesh => Self::Mesh,
            Self::Gateway(id) | Self::Section(id, _) => Self::Gateway(id.clone()),
        }
    }

    /// Whether it takes in a server of a gateway configuration object.
    pub fn reaches(&self, gateway: &ObjectId, port_name: &str) -> bool {
        match self {
            Self::Mesh => false,
            Self::Gateway(id) => id == gateway,
            Self::Section(id, section) => id == gateway && **section == *port_name,
        }
    }
}
