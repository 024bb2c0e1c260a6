//! The names by which proxies tell each other in traces what a request is about: the caller's proxy
//! tells the callee's with the request, and where it did not, is told with the response. Spec:
//! Envoy `Decorator`, `x-envoy-decorator-operation`.

use http::{HeaderMap, HeaderValue};

use super::headers::X_ENVOY_DECORATOR_OPERATION;
use crate::runtime::{HttpConnectionManager, listener::TrafficDirection, route::Route};

/// What a response has to tell of the operation.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing of ours.
    Nothing,
    /// The caller's proxy is told this name.
    Name(HeaderValue),
    /// What the callee's proxy has told us is for us alone.
    Taken,
}

/// Tells the callee's proxy, or takes what the caller's has told us; `route` may be none.
pub(crate) fn tell(
    manager: &HttpConnectionManager,
    direction: TrafficDirection,
    route: Option<&Route>,
    headers: &mut HeaderMap,
) -> Told {
    if !manager.tells_operations {
        return Told::Nothing;
    }
    let name = route.and_then(|route| route.operation.clone());
    if direction == TrafficDirection::Outbound {
        if let Some(name) = name {
            headers.insert(X_ENVOY_DECORATOR_OPERATION, name);
        }
        return Told::Taken;
    }
    match (headers.remove(X_ENVOY_DECORATOR_OPERATION), name) {
        (None, Some(name)) => Told::Name(name),
        _ => Told::Nothing,
    }
}

impl Told {
    /// Writes it into a response.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        match self {
            Self::Nothing => {}
            Self::Name(name) => {
                headers.insert(X_ENVOY_DECORATOR_OPERATION, name);
            }
            // Seldom there: a look at the names costs less than the hash of ours.
            Self::Taken if headers.keys().any(|name| *name == X_ENVOY_DECORATOR_OPERATION) => {
                headers.remove(X_ENVOY_DECORATOR_OPERATION);
            }
            Self::Taken => {}
        }
    }
}
