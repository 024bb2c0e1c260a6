//! The names by which proxies tell each other in traces what a request is about: the caller's proxy
//! tells the callee's with the request, and where it did not, is told with the response. Spec:
//! Envoy `Decorator`, `x-envoy-decorator-operation`.

use http::{HeaderMap, HeaderValue};

use super::headers::X_ENVOY_DECORATOR_OPERATION;
use crate::runtime::{
    route::{Operation, Route},
    trace::CallSide,
};

/// What a response has to tell of the operation.
#[derive(Debug)]
pub(super) enum Told {
    /// Nothing of ours.
    Nothing,
    /// The caller's proxy is told this name.
    Name(HeaderValue),
    /// What the callee's proxy has told us is for us alone.
    Taken,
}

/// Tells the callee's proxy, or takes what the caller's has told us; `route` may be none. Beside
/// what the response has to tell, the name of our own span, unless it has none but its usual one.
pub(super) fn tell(
    side: CallSide,
    route: Option<&Route>,
    headers: &mut HeaderMap,
) -> (Told, Option<HeaderValue>) {
    let of_route = route.and_then(|route| route.operation.as_ref());
    let told = of_route.filter(|operation| operation.is_told).map(name);
    if side == CallSide::Client {
        if let Some(name) = told {
            headers.insert(X_ENVOY_DECORATOR_OPERATION, name);
        }
        return (Told::Taken, of_route.map(name));
    }
    match (headers.remove(X_ENVOY_DECORATOR_OPERATION), told) {
        (Some(of_caller), _) if !of_caller.is_empty() => (Told::Nothing, Some(of_caller)),
        (Some(_), _) | (None, None) => (Told::Nothing, of_route.map(name)),
        (None, Some(told)) => (Told::Name(told.clone()), Some(told)),
    }
}

fn name(operation: &Operation) -> HeaderValue {
    operation.name.clone()
}

impl Told {
    /// Writes it into a response; what the callee's proxy has told us comes back.
    pub(super) fn write(self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Name(name) => {
                headers.insert(X_ENVOY_DECORATOR_OPERATION, name);
                None
            }
            // Seldom there: a look at the names costs less than the hash of ours.
            Self::Taken if headers.keys().any(|name| *name == X_ENVOY_DECORATOR_OPERATION) => {
                headers.remove(X_ENVOY_DECORATOR_OPERATION)
            }
            Self::Taken => None,
        }
    }
}
