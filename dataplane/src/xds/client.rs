//! The task that keeps a delta ADS stream to the control plane: connects, drives the session,
//! publishes configurations, and comes back after a failure. Meanwhile the proxy serves what it
//! has.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ferromesh_proto::{
    ResourceType,
    bootstrap::HostPort,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    recurring::Recurring,
};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{Accepted, Session, Update, accepted::Refusal};
use crate::{
    compile::Rejection,
    file,
    identity::{
        Identity, IdentityWatch,
        channel::{self, ChannelError, TlsTarget},
    },
    resolve::Resolver,
    worker::{BindFailure, Shared, socket},
};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How long to wait for a first certificate before a token alone must do.
const WAIT_FOR_IDENTITY: Duration = Duration::from_secs(5);
/// How long workers may take to open sockets before the answer goes out without their word.
const WAIT_FOR_SOCKETS: Duration = Duration::from_secs(2);
/// How often what waits is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// How often files of secrets are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A mesh of many thousand clusters comes in one response.
const LARGEST_RESPONSE: usize = 1 << 30;

/// How the control plane is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlPlane {
    /// Without TLS: it believes the node id and serves no secrets.
    Plaintext(HostPort),
    /// With TLS and the workload's certificate; with a join token as long as there is none.
    Tls {
        /// Where, and how it is recognised.
        target: TlsTarget,
        /// File with a join token, read at each connection.
        token_file: Option<PathBuf>,
    },
}

/// What others may know of the stream.
pub struct Progress {
    accepted: Mutex<Accepted>,
    connected: AtomicBool,
    ready: AtomicBool,
}

impl Progress {
    /// Nothing has happened yet.
    pub fn new(accepted: Accepted) -> Self {
        Self {
            accepted: Mutex::new(accepted),
            connected: AtomicBool::new(false),
            ready: AtomicBool::new(false),
        }
    }

    /// What was accepted; hold it only briefly.
    pub fn accepted(&self) -> MutexGuard<'_, Accepted> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the files of secrets in use, for whoever keeps them, until the process ends; what
    /// has changed is in force from the next handshake on. What was refused for its files is put
    /// in force once they are there, with or without a stream.
    pub async fn follow_files(self: Arc<Self>, shared: Arc<Shared>) {
        let mut look = tokio::time::interval(LOOK_AT_FILES);
        let mut told = BTreeSet::new();
        loop {
            look.tick().await;
            let wrong = self.accepted().look_at_files(Instant::now());
            self.publish(&shared);
            for error in wrong.into_iter().filter(|error| told.insert(error.clone())) {
                tracing::warn!(error, "a secret's files cannot be used");
            }
        }
    }

    /// Puts a changed configuration in force; its number.
    fn publish(&self, shared: &Shared) -> Option<u64> {
        // Under the lock: else of two that publish the older one could come last.
        let mut accepted = self.accepted();
        let config = accepted.take_config()?;
        let generation = config.generation;
        shared.publish(config);
        Some(generation)
    }

    /// Whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Whether a first complete configuration has been put in force; stays so.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }
}

/// The task's settings.
pub struct Client {
    /// Who we are.
    pub node: Node,
    /// Finds the control plane.
    pub resolver: Resolver,
    /// Whom to ask.
    pub control_plane: ControlPlane,
    /// The workload's certificate.
    pub identity: IdentityWatch,
    /// Where configurations are put in force.
    pub shared: Arc<Shared>,
    /// What others may know.
    pub progress: Arc<Progress>,
}

/// How far a stream came, which says how long to wait before the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    /// It was never accepted.
    Nothing,
    /// It was accepted. Silence is right when nothing changed, so this is no failure; but a server
    /// that accepts and then drops everybody must not be stormed.
    Opened,
    /// It delivered something.
    Response,
}

impl Heard {
    /// Failures in a row that count for the next wait, about a second where the stream was
    /// accepted.
    fn failures_after(self, failures: u32) -> u32 {
        match self {
            Self::Nothing => failures + 1,
            Self::Opened => (failures + 1).min(3),
            Self::Response => 0,
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("control plane {address}: {why}")]
    Connect { address: HostPort, why: String },
    #[error("{path}: {source}", path = .path.display())]
    Token { path: PathBuf, source: std::io::Error },
    #[error("{path}: not a token", path = .0.display())]
    TokenText(PathBuf),
    #[error("control plane: {code}: {message}", code = .0.code(), message = .0.message())]
    Status(#[from] tonic::Status),
    #[error("the control plane ended the stream")]
    Ended,
}

impl Client {
    /// Keeps a stream for ever.
    pub async fn run(self) {
        let mut session = Session::new(self.node.clone());
        let (mut failures, mut trouble) = (0, Recurring::default());
        loop {
            let mut heard = Heard::Nothing;
            let error = match self.stream(&mut session, &mut heard, &mut trouble).await {
                Ok(()) => StreamError::Ended,
                Err(error) => error,
            };
            self.progress.connected.store(false, Relaxed);
            failures = heard.failures_after(failures);
            let wait = back_off(failures, rand::random());
            let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            if trouble.failed(&error, Instant::now()).is_some() {
                tracing::warn!(
                    %error, failures, retry_in_ms,
                    "no configuration stream; serving what is known"
                );
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn stream(
        &self,
        session: &mut Session,
        heard: &mut Heard,
        trouble: &mut Recurring,
    ) -> Result<(), StreamError> {
        let (channel, token) = self.connect().await?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        self.note_late(session);
        send(&requests, session.connected());
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(LARGEST_RESPONSE);
        let mut incoming = client.delta_aggregated_resources(request).await?.into_inner();
        self.progress.connected.store(true, Relaxed);
        *heard = Heard::Opened;
        let first = trouble.is_calm();
        if trouble.worked(Instant::now()).is_some() || first {
            tracing::info!("configuration stream open");
        }
        self.converse(session, &requests, &mut incoming, heard).await
    }

    async fn converse(
        &self,
        session: &mut Session,
        requests: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
        incoming: &mut Streaming<DeltaDiscoveryResponse>,
        heard: &mut Heard,
    ) -> Result<(), StreamError> {
        let mut settle = tokio::time::interval(SETTLE);
        loop {
            tokio::select! {
                response = incoming.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    *heard = Heard::Response;
                    send(requests, self.answer(session, response).await);
                }
                _ = settle.tick() => {
                    self.settle().await;
                    send(requests, self.note_late(session));
                }
            }
        }
    }

    /// Applies a response, puts the result in force, and only then answers.
    async fn answer(
        &self,
        session: &mut Session,
        response: DeltaDiscoveryResponse,
    ) -> Vec<DeltaDiscoveryRequest> {
        let (update, reply) = session.received(response);
        let mut rejections = Vec::new();
        if let Some(update) = &update {
            rejections = self.progress.accepted().apply(update, Instant::now());
            for rejection in &rejections {
                tracing::warn!(%rejection, "refused");
            }
            let mut failures = self.publish().await;
            if update.kind == ResourceType::Listener {
                let waiting = self.progress.accepted().waiting_addresses();
                failures.extend(cannot_bind(waiting));
            }
            rejections.extend(unbound(update, &failures));
            self.judge_readiness();
        }
        let needs = self.progress.accepted().needs();
        session.applied(reply, &rejections, &needs)
    }

    fn note_late(&self, session: &mut Session) -> Vec<DeltaDiscoveryRequest> {
        let (late, needs) = {
            let mut accepted = self.progress.accepted();
            let late = accepted.take_late();
            if late.is_empty() {
                return Vec::new();
            }
            (late, accepted.needs())
        };
        for late in &late {
            tracing::info!(kind = late.kind.short_name(), name = late.name, "accepted at last");
        }
        session.accepted_late(late, &needs)
    }

    async fn settle(&self) {
        let warming = {
            let mut accepted = self.progress.accepted();
            let warming = accepted.is_warming();
            accepted.settle(Instant::now());
            warming
        };
        if warming {
            self.publish().await;
            self.judge_readiness();
        }
    }

    /// Puts a changed configuration in force and waits until sockets are open; tells which are not.
    async fn publish(&self) -> Vec<BindFailure> {
        let Some(generation) = self.progress.publish(&self.shared) else { return Vec::new() };
        tokio::time::timeout(WAIT_FOR_SOCKETS, self.shared.applied(generation))
            .await
            .unwrap_or_default()
    }

    /// Ready means: clusters and listeners have come, and none waits for the rest of it any more,
    /// or in vain.
    fn judge_readiness(&self) {
        let accepted = self.progress.accepted();
        let came = accepted.has_received(ResourceType::Cluster)
            && accepted.has_received(ResourceType::Listener);
        if came
            && !accepted.holds_start_up(Instant::now())
            && !self.progress.ready.swap(true, Relaxed)
        {
            tracing::info!("first configuration in force");
        }
    }

    async fn connect(&self) -> Result<(Channel, Option<MetadataValue<Ascii>>), StreamError> {
        match &self.control_plane {
            ControlPlane::Plaintext(address) => {
                Ok((plaintext(address, &self.resolver).await?, None))
            }
            ControlPlane::Tls { target, token_file } => {
                let identity = self.first_identity().await;
                let channel = channel::connect(target, identity.as_deref(), &self.resolver).await?;
                let token = match (identity, token_file) {
                    (None, Some(path)) => Some(read_token(path)?),
                    _ => None,
                };
                Ok((channel, token))
            }
        }
    }

    async fn first_identity(&self) -> Option<Arc<Identity>> {
        let mut identity = self.identity.clone();
        let came =
            tokio::time::timeout(WAIT_FOR_IDENTITY, identity.wait_for(Option::is_some)).await;
        came.ok()?.ok()?.clone()
    }
}

/// Which of these addresses of listeners cannot be bound now: a listener that waits for its routes
/// has no sockets yet, and whoever has sent it is to hear of it before they come, as from Envoy.
fn cannot_bind(listeners: Vec<(Arc<str>, SocketAddr)>) -> Vec<BindFailure> {
    let tried = listeners.into_iter().filter_map(|(listener, address)| {
        let reason = socket::bound(address).err()?.to_string();
        Some(BindFailure { listener, address, reason })
    });
    tried.collect()
}

/// Listeners of the update whose sockets cannot be opened. Workers try them again; the NACK tells
/// the operator.
fn unbound(update: &Update, failures: &[BindFailure]) -> Vec<Rejection> {
    let sent = |failure: &&BindFailure| {
        update.changed.iter().any(|changed| *changed.name == *failure.listener)
    };
    let concerned = failures.iter().filter(|_| update.kind == ResourceType::Listener).filter(sent);
    concerned.map(rejection).collect()
}

/// The listeners that are refused now for their sockets alone: what the NACK has said of them, for
/// as long as it is true.
pub fn without_sockets(accepted: &Accepted, shared: &Shared) -> Vec<Refusal> {
    let mut failures = shared.bind_failures();
    failures.extend(cannot_bind(accepted.waiting_addresses()));
    let versions = accepted.summaries(ResourceType::Listener);
    let version = |name: &str| {
        let listener = versions.iter().find(|listener| listener.name == name)?;
        listener.warming.clone().or_else(|| listener.serving.clone())
    };
    let refusal = |failure: &BindFailure| {
        let version = version(&failure.listener)?;
        Some(Refusal { version, rejection: rejection(failure) })
    };
    failures.iter().filter_map(refusal).collect()
}

fn rejection(failure: &BindFailure) -> Rejection {
    Rejection {
        kind: ResourceType::Listener,
        name: failure.listener.to_string(),
        field: "address".to_owned(),
        reason: format!(
            "cannot listen on {}: {}; it is tried again",
            failure.address, failure.reason
        ),
        closed: false,
        in_file: false,
    }
}

fn send(requests: &mpsc::UnboundedSender<DeltaDiscoveryRequest>, all: Vec<DeltaDiscoveryRequest>) {
    for request in all {
        // The receiver goes away with the stream, whose end is noticed when reading.
        let _ = requests.send(request);
    }
}

async fn plaintext(address: &HostPort, resolver: &Resolver) -> Result<Channel, StreamError> {
    let failed = |error: tonic::transport::Error| StreamError::Connect {
        address: address.clone(),
        why: channel::causes(&error),
    };
    let (target, resolver) = (address.clone(), resolver.clone());
    let dial = tower::service_fn(move |_| {
        let (target, resolver) = (target.clone(), resolver.clone());
        async move { resolver.connect(&target).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(dial)
        .await
        .map_err(failed)
}

fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, StreamError> {
    let text = file::read_text(path);
    let text = text.map_err(|source| StreamError::Token { path: path.to_owned(), source })?;
    let value = MetadataValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| StreamError::TokenText(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Doubles with each failure, and is spread so that proxies do not come back together; `draw` is
/// random in `0..1`.
fn back_off(failures: u32, draw: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(LONGEST_RETRY);
    doubled.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
