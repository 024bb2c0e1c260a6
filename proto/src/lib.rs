//! Wire types that every part of Ferromesh shares: the slice of Envoy's discovery API that travels
//! on an ADS stream, the secret messages and log entries of the agent's sockets, Istio's certificate
//! service, SPIFFE ids, type URLs, the bootstrap of a stock Envoy, and what makers of metrics are
//! told.
//!
//! A leaf: it knows neither configuration nor policy, and nothing in the workspace is imported
//! here.

/// Code generated from `proto/*.proto`; `tests/generated.rs` proves that it is fresh.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod generated {
    pub mod envoy {
        pub mod data {
            pub mod accesslog {
                pub mod v3 {
                    include!("generated/envoy.data.accesslog.v3.rs");
                }
            }
        }
        pub mod service {
            pub mod accesslog {
                pub mod v3 {
                    include!("generated/envoy.service.accesslog.v3.rs");
                }
            }
            pub mod discovery {
                pub mod v3 {
                    include!("generated/envoy.service.discovery.v3.rs");
                }
            }
            pub mod extension {
                pub mod v3 {
                    include!("generated/envoy.service.extension.v3.rs");
                }
            }
            pub mod secret {
                pub mod v3 {
                    include!("generated/envoy.service.secret.v3.rs");
                }
            }
        }
        pub mod extensions {
            pub mod transport_sockets {
                pub mod tls {
                    pub mod v3 {
                        include!("generated/envoy.extensions.transport_sockets.tls.v3.rs");
                    }
                }
            }
        }
    }
    pub mod istio {
        pub mod v1 {
            pub mod auth {
                include!("generated/istio.v1.auth.rs");
            }
        }
    }
}

/// Envoy's discovery service: `envoy.service.discovery.v3`.
pub mod discovery {
    pub use crate::generated::envoy::service::discovery::v3::*;
}
/// Secrets as they travel over SDS: `envoy.extensions.transport_sockets.tls.v3`.
pub mod secret {
    pub use crate::generated::envoy::extensions::transport_sockets::tls::v3::*;
    pub use crate::generated::envoy::service::secret::v3::*;
}
/// The service that has configurations of filters: `envoy.service.extension.v3`.
pub mod extension {
    pub use crate::generated::envoy::service::extension::v3::*;
}
/// Entries of an Envoy's access log, and the service that takes them:
/// `envoy.data.accesslog.v3`, `envoy.service.accesslog.v3`.
pub mod access_log {
    pub use crate::generated::envoy::data::accesslog::v3::*;
    pub use crate::generated::envoy::service::accesslog::v3::*;
}
/// Istio's certificate signing service: `istio.v1.auth`.
pub mod istio_ca {
    pub use crate::generated::istio::v1::auth::*;
}

pub mod bootstrap;
pub mod recurring;
pub mod resource;
pub mod retry;
pub mod spiffe;
pub mod stats;

/// The type of requests by which a proxy tells whether its machine is well: without an error it is.
pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// What names of secrets begin with that registries of images take, `image-pull://NAMESPACE/NAME`:
/// each a `.dockerconfigjson`, for agents.
pub const IMAGE_PULL: &str = "image-pull://";

/// The program that agents beside Envoys say they are.
pub const AGENT: &str = "ferromesh-agent";

pub use resource::{BOOTSTRAP, EncodedResource, ResourceType, Version};
pub use spiffe::{SpiffeId, TrustDomain};
