//! A downstream connection as whatever serves it sees it, and what becomes of it when a
//! configuration would not take it any more.
//!
//! That is decided here and nowhere else: HTTP asks before each request, and every connection asks
//! when a configuration comes that may take others. One that is not taken any more ends after the
//! proxy's drain time, however much is under way.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    rc::Rc,
    sync::Arc,
};

use tokio::time::{Instant, sleep_until};

use super::{Worker, deadlines::later, shared::Counted};
use crate::{
    codec::{requests::Requests, tap::Seen},
    runtime::{
        ConnectionFacts, FilterChain, HttpConnectionManager, Listener, RuntimeConfig, Terminal,
        filter::ConnectionState,
    },
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
    /// How the connection stands to the configuration that was asked last.
    pub(crate) standing: Standing,
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

/// How a connection stands to the configurations that have come since it was taken.
pub(crate) struct Standing {
    generation: Cell<u64>,
    verdict: Cell<Result<(), Overtaken>>,
    /// When one came that would not have taken the connection.
    overtaken: Cell<Option<Instant>>,
}

impl Standing {
    /// Taken by the configuration of this generation.
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation: Cell::new(generation),
            verdict: Cell::new(Ok(())),
            overtaken: Cell::new(None),
        }
    }
}

/// A configuration would not take the connection as the one before has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overtaken {
    /// It would be treated otherwise: its client is asked to go, and served until then.
    Otherwise,
    /// It would be closed: nothing that comes is served any more.
    Refused,
}

impl Downstream {
    /// Who we are to the peer, by URI names of our certificate; nobody without TLS.
    pub(crate) fn own_names(&self) -> &[Arc<str>] {
        self.tls.as_ref().map(|tls| &tls.local_uri_sans[..]).unwrap_or_default()
    }

    /// Judges the connection by `config`, once for each configuration. The chain in force is then
    /// the one that would take it today, if one would.
    pub(crate) fn judge(&self, config: &RuntimeConfig) -> Result<(), Overtaken> {
        let standing = &self.standing;
        if standing.generation.replace(config.generation) != config.generation {
            let today = self.chain_of_today(config);
            let verdict = today.map(|chain| drop(self.chain.replace(chain)));
            if verdict.is_err() {
                let since = standing.overtaken.get().unwrap_or_else(Instant::now);
                standing.overtaken.set(Some(since));
            }
            standing.verdict.set(verdict);
        }
        standing.verdict.get()
    }

    /// Finds the chain by which `config` would take this connection.
    fn chain_of_today(&self, config: &RuntimeConfig) -> Result<Arc<FilterChain>, Overtaken> {
        let before = self.chain.borrow();
        let listener = config.listener(&self.listener.name).ok_or(Overtaken::Otherwise)?;
        let chain = config.find_chain(listener, &self.facts).ok_or(Overtaken::Refused)?;
        let admitted =
            chain.rbac.iter().all(|rbac| rbac.decide_connection(&self.facts).is_allowed());
        if chain.tls.is_some() != before.tls.is_some() || !admitted {
            return Err(Overtaken::Refused);
        }
        let same_protocol = matches!(
            (&chain.terminal, &before.terminal),
            (Terminal::Http(_), Terminal::Http(_)) | (Terminal::Tcp(_), Terminal::Tcp(_))
        );
        // What is to be told of the client was not kept.
        let untold = chain.tells_certificates() && !before.tells_certificates();
        if !same_protocol || untold || chain.tls != before.tls {
            return Err(Overtaken::Otherwise);
        }
        Ok(Arc::clone(chain))
    }

    /// Whether a configuration has come that would not have taken the connection. There is no way
    /// back: its client may have been told.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.standing.overtaken.get().is_some()
    }

    /// Returns once [`Self::is_overtaken`], with when it became so.
    pub(crate) async fn overtaken(&self) -> Instant {
        self.judged(|| self.standing.overtaken.get()).await
    }

    /// Returns when the connection must end: it is overtaken, and its time to end is over.
    pub(crate) async fn outlived(&self) {
        self.drained(self.overtaken().await).await;
    }

    /// The same for a request of `manager` that has become a stream of bytes. What access rules saw
    /// of it is gone, so that it must also end if another manager would be asked for it today.
    pub(crate) async fn outlived_request(&self, manager: &HttpConnectionManager) {
        let otherwise = || match &self.chain.borrow().terminal {
            Terminal::Http(today) => today.version != manager.version,
            Terminal::Tcp(_) => true,
        };
        let since = self
            .judged(|| self.standing.overtaken.get().or_else(|| otherwise().then(Instant::now)))
            .await;
        self.drained(since).await;
    }

    /// Judges the connection by the configuration in force and every one that may take others,
    /// until `end` has something to say.
    async fn judged<T>(&self, end: impl Fn() -> Option<T>) -> T {
        let mut admission = self.worker.admission.clone();
        loop {
            // The verdict is kept.
            let _ = self.judge(&self.worker.shared.newest(&mut admission));
            if let Some(end) = end() {
                return end;
            }
            if admission.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    async fn drained(&self, since: Instant) {
        sleep_until(later(since, self.worker.shared.drain_time)).await;
    }
}
