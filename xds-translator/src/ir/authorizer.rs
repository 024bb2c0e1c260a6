//! Services that are asked whether a call may pass (external authorization).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{Hostname, StringMatch};

/// A service that is asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Authorizer {
    /// Its host.
    pub host: Hostname,
    /// The namespace of the service that has the host; `None`: the one that clients of the root
    /// namespace find.
    pub namespace: Option<Arc<str>>,
    /// Its port.
    pub port: u16,
    /// Limit of an answer.
    pub timeout: Duration,
    /// Who gets no answer passes.
    pub fail_open: bool,
    /// What who gets no answer is told; `None`: 403.
    pub status_on_error: Option<u16>,
    /// A request that passes with other headers is routed anew.
    pub reroutes: bool,
    /// How much of a request's body it is shown; `None`: nothing.
    pub body: Option<ShownBody>,
    /// How it is asked.
    pub protocol: AuthorizerProtocol,
}

/// How much of a request's body is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ShownBody {
    /// Most bytes.
    pub most: u32,
    /// The beginning of a longer body, instead of refusing the request by 413.
    pub partial: bool,
    /// As bytes instead of text.
    pub raw: bool,
}

/// How an authorizer is asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum AuthorizerProtocol {
    /// By Envoy's gRPC service, about requests and connections.
    Grpc,
    /// By a request with the same method and path, about requests only; the status decides.
    Http(HttpAuthorizer),
}

/// What goes to and fro with an authorizer that is asked by requests. Names of headers are compared
/// without case.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct HttpAuthorizer {
    /// Before the path that is asked about; may be empty.
    pub path_prefix: Arc<str>,
    /// Headers of the request that it is shown.
    pub shown: Vec<StringMatch>,
    /// Further headers that it is shown.
    pub added: BTreeMap<Arc<str>, Arc<str>>,
    /// Headers of its answer that the request goes on with.
    pub to_upstream: Vec<StringMatch>,
    /// Headers of its answer that a refusal has; empty: all.
    pub to_refused: Vec<StringMatch>,
    /// Headers of its answer that the response has.
    pub to_allowed: Vec<StringMatch>,
}
