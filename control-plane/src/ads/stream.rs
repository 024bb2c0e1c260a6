//! The task of one stream: feeds requests, view changes and secrets into the session, and sends
//! what it answers.
//!
//! The session is asked for a response only when the transport has room for one, so that a slow
//! reader holds up nobody and costs nothing but its own delay.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use ferromesh_proto::{
    HEALTH_INFORMATION,
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Node},
};
use ferromesh_xds_translator::{
    class::{NodeIdentity, ProxyClass, Refusal as ClassRefusal},
    snapshot::Reclassify,
};
use futures_util::{StreamExt, stream::SelectAll};
use prost::Message;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

use super::{
    Fault, Response, Session, Variant, Verdict,
    auth::Admission,
    delta,
    inbox::Inbox,
    keeping::Keeping,
    secrets::{FollowedSecrets, why_refused},
    shared::Shared,
    sotw,
    wire::Outgoing,
};
use crate::{
    accept::{Occupied, Visit},
    pipeline::{Complaint, Lease, Published, Stopped},
    source::connections::Connected,
    status::{Arrival, Registration},
};

/// Time for a client to say who it is.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Time that a new stream waits for the sources to be read.
const SYNC: Duration = Duration::from_secs(3);
/// The session's unit of time.
const TICK: Duration = Duration::from_secs(1);
/// How often a caller's credentials are checked again.
const RECHECK: Duration = Duration::from_secs(60);

/// A variant of the protocol, as its messages.
pub(super) trait Protocol: Send + 'static {
    const VARIANT: Variant;
    type Request: Message + Default + Send + 'static;
    /// Takes the node out of a request: Envoy may send 60 KB of it every time.
    fn take_node(request: &mut Self::Request) -> Option<Node>;
    /// Whether its machine is well, where the request says that and asks for nothing.
    fn health(request: &Self::Request) -> Option<bool>;
    fn receive(session: &mut Session, request: Self::Request) -> Result<Option<Verdict>, Fault>;
    fn encode(response: Response, identifier: &str) -> Outgoing;
}

/// State of the world.
pub(super) struct Sotw;
/// Incremental.
pub(super) struct Delta;

impl Protocol for Sotw {
    const VARIANT: Variant = Variant::Sotw;
    type Request = DiscoveryRequest;
    fn take_node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }
    fn health(request: &DiscoveryRequest) -> Option<bool> {
        (request.type_url == HEALTH_INFORMATION).then_some(request.error_detail.is_none())
    }
    fn receive(session: &mut Session, request: DiscoveryRequest) -> Result<Option<Verdict>, Fault> {
        session.on_sotw(request)
    }
    fn encode(response: Response, identifier: &str) -> Outgoing {
        sotw::encode(response, identifier)
    }
}

impl Protocol for Delta {
    const VARIANT: Variant = Variant::Delta;
    type Request = DeltaDiscoveryRequest;
    fn take_node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }
    fn health(request: &DeltaDiscoveryRequest) -> Option<bool> {
        (request.type_url == HEALTH_INFORMATION).then_some(request.error_detail.is_none())
    }
    fn receive(
        session: &mut Session,
        request: DeltaDiscoveryRequest,
    ) -> Result<Option<Verdict>, Fault> {
        session.on_delta(request)
    }
    fn encode(response: Response, identifier: &str) -> Outgoing {
        delta::encode(response, identifier)
    }
}

type Out = mpsc::Sender<Result<Outgoing, Status>>;

/// Serves one stream to its end.
pub(super) async fn serve<P: Protocol>(
    shared: Arc<Shared>,
    admission: Admission,
    requests: Inbox<P::Request>,
    out: Out,
) {
    let peer = admission.remote;
    let outcome = match ProxyStream::<P>::open(shared.clone(), admission, requests, &out).await {
        Ok(Some(stream)) => {
            shared.metrics.streams.inc();
            let (id, begin) = (stream.registration.id.clone(), Instant::now());
            let outcome = stream.run(&out).await;
            shared.metrics.streams.dec();
            let why = outcome.as_ref().err().map_or("its stream ended", Status::message);
            tracing::info!(proxy = id, connected_s = begin.elapsed().as_secs(), why, "proxy gone");
            outcome
        }
        Ok(None) => Ok(()),
        Err(status) => {
            shared.metrics.refused_streams.inc();
            tracing::info!(?peer, code = ?status.code(), why = status.message(), "stream refused");
            Err(status)
        }
    };
    if let Err(status) = outcome {
        if status.code() == Code::Internal {
            shared.metrics.internal_errors.inc();
        }
        // A client that reads nothing does not learn why.
        let _ = timeout(TICK, out.send(Err(status))).await;
    }
}

fn say_hello(arrival: &Arrival) {
    let Arrival { id, identity, remote, protocol, version, .. } = arrival;
    let identity = identity.as_ref().map(ToString::to_string).unwrap_or_default();
    tracing::info!(proxy = id, identity, peer = ?remote, protocol, version, "proxy connected");
}

/// Logs why a proxy that names a group is no workload by it, which nothing else tells its operator.
async fn note_membership(shared: &Shared, id: &str, node: &NodeIdentity) -> Result<(), Status> {
    let (Some(name), Some(proven)) = (&node.facts.group, &node.proven) else { return Ok(()) };
    let snapshot = shared.mesh.snapshot().await.map_err(stopping)?;
    match snapshot.workload_group(proven.namespace(), name) {
        None => tracing::warn!(proxy = id, group = %name, "there is no such WorkloadGroup"),
        Some(group) if *group.service_account != *proven.service_account() => {
            let account = &group.service_account;
            tracing::warn!(proxy = id, group = %name, %account, "the account of the WorkloadGroup is not proved");
        }
        Some(_) => {}
    }
    Ok(())
}

/// Characters of what a proxy says of its program.
const LONGEST_VERSION: usize = 64;

/// Which program a proxy says that it is, with its version as far as it tells.
fn program_of(node: &Node) -> String {
    let built = node.user_agent_build_version.and_then(|built| built.version);
    let built = built.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch));
    let version = built.unwrap_or_else(|| node.user_agent_version.clone());
    let said = format!("{} {version}", node.user_agent_name);
    // Anybody may say anything: only as much is kept as a version needs.
    said.trim().chars().take(LONGEST_VERSION).collect()
}

struct ProxyStream<P: Protocol> {
    shared: Arc<Shared>,
    admission: Admission,
    requests: Inbox<P::Request>,
    node: NodeIdentity,
    class: ProxyClass,
    session: Session,
    keeping: Keeping,
    registration: Registration,
    /// Follows the views of `leases`.
    views: SelectAll<WatchStream<Published>>,
    leases: Vec<Lease>,
    reclassified: broadcast::Receiver<Arc<Reclassify>>,
    secrets: FollowedSecrets,
    /// The session may have something to send.
    hungry: bool,
    /// Its connection does not have to make room for others.
    _occupied: Option<Occupied>,
    /// It counts as connected; `None` where nobody is told.
    connected: Option<Connected>,
    /// The oldest change that the client has not accepted in full.
    unsettled_since: Option<Instant>,
}

impl<P: Protocol> ProxyStream<P> {
    /// Waits for the client to say who it is, and finds out what it gets; `None` when it leaves
    /// before.
    async fn open(
        shared: Arc<Shared>,
        admission: Admission,
        mut requests: Inbox<P::Request>,
        out: &Out,
    ) -> Result<Option<Self>, Status> {
        let first = tokio::select! {
            first = timeout(FIRST_REQUEST, requests.next()) => first,
            () = out.closed() => return Ok(None),
            () = shared.stop.cancelled() => return Err(stopping(Stopped)),
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))?;
        let Some(mut first) = first? else { return Ok(None) };
        let node = P::take_node(&mut first).filter(|n| !n.id.is_empty());
        let node = node.ok_or_else(|| {
            Status::invalid_argument("the first request of a stream must name the node")
        })?;
        let (id, version) = (node.id.clone(), program_of(&node));
        let proven = admission.caller.as_ref().map(|c| c.id.clone());
        let node = NodeIdentity::parse(&node, proven)
            .map_err(|refusal| refuse(&id, &admission, &refusal))?;
        let keeping = Keeping::begin(shared.kept(), admission.visitor(), &id, &node)?;

        let turn = shared.arrivals().turn(admission.visitor()).await?;
        let synced = timeout(SYNC, shared.mesh.until_synced()).await;
        synced
            .map_err(|_| Status::unavailable("the configuration is still being read; try again"))?;
        // Subscribed first: a change between here and the classification must not be missed.
        let reclassified = shared.mesh.reclassified();
        let class = shared.mesh.classify(node.clone()).await.map_err(stopping)?;
        let class = class.map_err(|refusal| refuse(&id, &admission, &refusal))?;
        let leases = lease_all(&shared, &class).await?;
        drop(turn);
        note_membership(&shared, &id, &node).await?;

        let stream = shared.next_stream();
        let arrival = Arrival {
            stream,
            id,
            kind: node.kind.name(),
            namespace: class.namespace.clone(),
            identity: node.proven.clone(),
            remote: admission.remote,
            protocol: P::VARIANT.name(),
            version,
        };
        say_hello(&arrival);
        let registration = shared.proxies.register(arrival, (shared.clock)());
        let mut session =
            Session::new(stream, P::VARIANT, leases.iter().map(Lease::current).collect());
        session.remember(&registration.refused_resources());
        let secrets = FollowedSecrets::new(shared.secrets.clone());
        let occupied = admission.visit.as_ref().map(Visit::occupy);
        let connected = shared.connections.enter(&node, &class);
        let mut stream = Self {
            shared,
            admission,
            requests,
            node,
            class,
            session,
            keeping,
            registration,
            views: SelectAll::new(),
            leases: Vec::new(),
            reclassified,
            secrets,
            hungry: true,
            _occupied: occupied,
            connected,
            unsettled_since: None,
        };
        stream.attach(leases);
        stream.on_request(first).await?;
        Ok(Some(stream))
    }

    /// Runs until the client leaves, the server stops, or the caller may no longer be served.
    async fn run(mut self, out: &Out) -> Result<(), Status> {
        // These are made once: anew in every turn, each would be entered into a shared list and
        // taken out again.
        let stop = self.shared.stop.clone();
        let (mut stopped, mut closed) = (pin!(stop.cancelled()), pin!(out.closed()));
        let (mut tick, mut check) = (pin!(sleep(TICK)), pin!(sleep(RECHECK)));
        let mut ticking = false;
        loop {
            if !ticking && self.session.wants_ticks() {
                ticking = true;
                tick.as_mut().reset(Instant::now() + TICK);
            }
            tokio::select! {
                request = self.requests.next() => match request {
                    Ok(Some(request)) => self.on_request(request).await?,
                    Err(status) if is_told(&status) => return Err(status),
                    // A broken connection is no error of anybody's.
                    Ok(None) | Err(_) => return Ok(()),
                },
                Some(published) = self.views.next() => self.on_view(published),
                (name, secret) = self.secrets.next() => {
                    self.session.on_secret(&name, secret);
                    self.hungry = true;
                }
                changed = self.reclassified.recv() => self.on_reclassified(changed).await?,
                permit = out.reserve(), if self.hungry => match permit {
                    Ok(permit) => self.feed(permit),
                    Err(_) => return Ok(()),
                },
                () = &mut closed => return Ok(()),
                () = &mut tick, if ticking => {
                    ticking = false;
                    self.session.tick();
                    self.hungry = true;
                }
                () = &mut check => {
                    check.as_mut().reset(Instant::now() + RECHECK);
                    self.admission.renew().await?;
                    self.keeping.settle(&mut self.session);
                }
                () = &mut stopped => return Err(stopping(Stopped)),
            }
            // Usually there is room: a change then costs one turn, and its answer another.
            while self.hungry
                && let Ok(permit) = out.try_reserve()
            {
                self.feed(permit);
            }
        }
    }

    /// Sends the next response, if there is one.
    fn feed(&mut self, permit: mpsc::Permit<'_, Result<Outgoing, Status>>) {
        match self.session.next_response() {
            Some(response) => permit.send(Ok(self.note(response))),
            None => self.rest(),
        }
        self.forgive();
    }

    async fn on_request(&mut self, mut request: P::Request) -> Result<(), Status> {
        P::take_node(&mut request);
        if let Some(healthy) = P::health(&request) {
            if let Some(connected) = &self.connected {
                connected.report(healthy);
            }
            return Ok(());
        }
        let verdict = P::receive(&mut self.session, request).map_err(|fault| match fault {
            Fault::MissingType => Status::invalid_argument(fault.to_string()),
            Fault::TooManyNames(_) | Fault::TooManyTypes => {
                Status::resource_exhausted(fault.to_string())
            }
        })?;
        self.keeping.follow(&mut self.session)?;
        self.hungry = true;
        self.follow_secrets();
        match verdict {
            None => {}
            Some(Verdict::Accepted(kind)) => {
                self.registration.accepted(kind);
                self.settle();
            }
            Some(Verdict::Refused(nack)) => {
                tracing::warn!(proxy = %self.registration.id, kind = nack.kind.short_name(), message = %nack.message, "refused by the proxy");
                self.shared.metrics.rejected(nack.kind);
                let views = self.class.views.clone();
                let complaint =
                    Complaint { proxy: self.registration.id.clone(), views, nack: nack.clone() };
                let blame = self.shared.mesh.blame(complaint).await.map_err(stopping)?;
                self.registration.refused(&nack, blame, (self.shared.clock)());
                self.unsettled_since = None;
            }
        }
        self.forgive();
        Ok(())
    }

    /// Takes back what is no longer refused: accepted, gone, or not asked for any more.
    fn forgive(&mut self) {
        if self.registration.refuses() {
            self.registration.still_refuses(&self.session.outstanding());
        }
    }

    fn on_view(&mut self, published: Published) {
        self.session.on_view(published.view);
        if !self.session.is_settled() {
            self.hungry = true;
            self.unsettled_since.get_or_insert(published.at);
        }
    }

    /// Notes how long a change took, once the client has accepted all of it.
    fn settle(&mut self) {
        if self.unsettled_since.is_some() && self.session.is_settled() {
            let since = self.unsettled_since.take();
            self.shared.metrics.converged(since.map_or(Duration::ZERO, |s| s.elapsed()));
        }
    }

    /// Nothing is owed now. A client that came back with everything it needs was sent nothing, and
    /// is up to date.
    fn rest(&mut self) {
        self.hungry = false;
        if self.registration.has_unsent() {
            for (kind, version) in self.session.settled_types() {
                self.registration.resumed(kind, version);
            }
        }
    }

    fn note(&self, response: Response) -> Outgoing {
        if let Ok(kind) = response.kind {
            self.registration.sent(kind, response.version);
            self.shared.metrics.pushed(kind);
        }
        P::encode(response, &self.shared.identifier)
    }

    /// The proxy may belong to another class now. After missed messages, it is looked at in any
    /// case.
    async fn on_reclassified(
        &mut self,
        changed: Result<Arc<Reclassify>, broadcast::error::RecvError>,
    ) -> Result<(), Status> {
        let concerned = match changed {
            Ok(changed) => changed.concerns(&self.node.workload, self.node.address),
            Err(broadcast::error::RecvError::Lagged(_)) => true,
            Err(broadcast::error::RecvError::Closed) => return Err(stopping(Stopped)),
        };
        if !concerned {
            return Ok(());
        }
        let class = self.shared.mesh.classify(self.node.clone()).await.map_err(stopping)?;
        let class =
            class.map_err(|refusal| refuse(&self.registration.id, &self.admission, &refusal))?;
        if class.views != self.class.views {
            let leases = lease_all(&self.shared, &class).await?;
            self.session.on_views(leases.iter().map(Lease::current).collect());
            self.attach(leases);
            self.hungry = true;
        }
        self.class = class;
        self.connected = self.shared.connections.enter(&self.node, &self.class);
        self.follow_secrets();
        Ok(())
    }

    fn attach(&mut self, leases: Vec<Lease>) {
        self.views = leases.iter().map(|l| WatchStream::from_changes(l.follow())).collect();
        self.registration.views(leases.iter().map(|l| l.key().clone()).collect());
        self.leases = leases;
    }

    /// Follows the secrets that the client asks for and may have. Without a proven identity it may
    /// have none.
    fn follow_secrets(&mut self) {
        let nobody = BTreeSet::new();
        let allowed = if self.node.proven.is_some() { &self.class.credentials } else { &nobody };
        for name in self.secrets.newly_refused(self.session.secret_names(), allowed) {
            let reason = why_refused(&name, &self.class.namespace, self.node.proven.is_some());
            let (node, peer) = (&self.registration.id, self.admission.remote);
            let id = self.node.proven.as_ref().map(ToString::to_string);
            tracing::warn!(target: "audit", secret = &*name, %node, id, ?peer, reason, "secret refused");
        }
        let dropped =
            self.secrets.follow(self.session.secret_names(), allowed, &self.class.namespace);
        for name in dropped {
            self.session.on_secret(&name, None);
            self.hungry = true;
        }
        if !self.session.secret_names().is_empty() {
            self.registration.secrets(self.secrets.names());
        }
    }
}

async fn lease_all(shared: &Shared, class: &ProxyClass) -> Result<Vec<Lease>, Status> {
    let mut leases = Vec::with_capacity(class.views.len());
    for key in &class.views {
        leases.push(shared.mesh.lease(key).await.map_err(stopping)?);
    }
    Ok(leases)
}

/// Whether a stream that ends so is told why: it asked for more than it may.
fn is_told(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::DeadlineExceeded | Code::ResourceExhausted)
}

fn stopping(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

/// A proxy that says what cannot be is told so; one that claims to be another is refused, and the
/// audit log hears of it.
fn refuse(id: &str, admission: &Admission, refusal: &ClassRefusal) -> Status {
    match refusal {
        ClassRefusal::Claim { .. } | ClassRefusal::Account { .. } => {
            tracing::warn!(target: "audit", node = id, peer = ?admission.remote, reason = %refusal, "xDS stream refused");
            Status::permission_denied(
                "not permitted: the proven identity does not belong to this node",
            )
        }
        _ => Status::invalid_argument(refusal.to_string()),
    }
}
