//! Names of xDS resource types, content versions, and the encoded resource that views and streams share.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// The xDS resource types that Ferromesh serves, in the order in which a push sends additions:
/// clusters before their endpoints, endpoints before listeners, listeners before their routes
/// (xDS protocol, "eventual consistency considerations").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourceType {
    /// CDS: `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// EDS: `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoint,
    /// LDS: `envoy.config.listener.v3.Listener`.
    Listener,
    /// RDS: `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// SDS: `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
}

impl ResourceType {
    /// Every type, in push order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Secret];

    /// The type's place in [`Self::ALL`], for tables indexed by type.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The full type URL, `type.googleapis.com/…`.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type that a URL names, or `None` for a type that Ferromesh does not serve.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// Short name as users know it: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Secret => "SDS",
        }
    }

    /// Whether a first request that names nothing subscribes to everything (xDS protocol: LDS and CDS only).
    pub const fn wildcard_by_default(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// A content version: a hash of what a resource says, equal on every replica and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version(pub u64);

impl Version {
    /// Reads the form that [`fmt::Display`] writes, as a client echoes it; `None` when it is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The form that [`fmt::Display`] writes.
    pub fn hex(self) -> [u8; 16] {
        std::array::from_fn(|at| b"0123456789abcdef"[(self.0 >> (60 - 4 * at)) as usize & 15])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One encoded resource, made once and shared by every view and stream that serves it.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedResource {
    /// The xDS resource name; unique within a type.
    pub name: Arc<str>,
    /// Changes exactly when `body` does.
    pub version: Version,
    /// The encoded message, without its `Any` wrapper.
    pub body: Bytes,
}

impl fmt::Debug for EncodedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may be a secret: a log gets its size only.
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_urls_read_back() {
        for t in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(t.type_url()), Some(t));
            assert_eq!(ResourceType::ALL[t.index()], t);
        }
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/nothing"), None);
    }

    #[test]
    fn versions_read_back_and_refuse_foreign_text() {
        let v = Version(0x00ab_cdef_0123_4567);
        assert_eq!(Version::parse(&v.to_string()), Some(v));
        assert_eq!(v.hex()[..], *v.to_string().as_bytes());
        assert_eq!(Version::parse("2026-11-21T10:00:00Z/4"), None);
        assert_eq!(Version::parse(""), None);
    }
}
