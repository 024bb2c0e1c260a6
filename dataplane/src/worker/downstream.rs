//! A downstream connection as whatever serves it sees it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{Worker, shared::Counted};
use crate::{
    codec::{requests::Requests, tap::Seen},
    runtime::{ConnectionFacts, FilterChain, Listener, filter::ConnectionState},
    telemetry::access_log::TlsFacts,
};

/// A downstream connection that a chain has taken.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    /// The listener whose chains were asked.
    pub(crate) listener: Arc<Listener>,
    /// What was known when the chain was chosen, and the peer's certificate.
    pub(crate) facts: ConnectionFacts,
    /// Downstream TLS, if it is terminated here.
    pub(crate) tls: Option<TlsFacts>,
    /// The chain in force; another one after a configuration change, where the connection would be
    /// accepted by that.
    pub(crate) chain: RefCell<Arc<FilterChain>>,
    /// The configuration by which `chain` was chosen.
    pub(crate) generation: Cell<u64>,
    /// The connection came to its own destination address, not by redirection.
    pub(crate) direct: bool,
    /// Requests that it has carried.
    pub(crate) requests: Requests,
    /// What HTTP filters keep for the connection.
    pub(crate) filters: ConnectionState,
    /// What was seen on the stream beside what the codec tells.
    pub(crate) seen: Arc<Seen>,
    pub(crate) _counted: Counted,
}
