//! The doors of the control plane: how every port takes in connections, and what each may cost.
//!
//! ```text
//! accept ─▶ a seat (seats: most connections, whose is given up) ─▶ first byte ─▶ TLS (turns: the costly part, by source)
//!        ─▶ first request ─▶ requests (requests: bodies on a budget, turns by source) ─▶ quiet too long: closed
//! ```
//!
//! Whoever waits costs a socket and nothing else: a turn is held only while the server itself computes, so that nobody
//! holds one by being slow. Nothing is refused for the number of connections of one address (behind one address may be a
//! whole mesh); a source that floods waits behind itself and gives up its own seats first. Every refusal is counted.

pub mod budget;
pub mod requests;
pub mod seats;
#[cfg(test)]
mod tests;
pub mod turns;
mod visit;
mod wire;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use ferromesh_cert_authority::PeerCertificates;
use rustls::server::Acceptor;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use self::{
    seats::{Seat, Seats},
    turns::Turns,
    wire::Wire,
};
use crate::{metrics::Metrics, tls::ServerIdentity};

pub use self::{seats::Occupied, visit::Visit};

/// Pause after the system refused a connection (no more files).
const BACKOFF: Duration = Duration::from_millis(100);

/// Where somebody calls from, for fairness: an address, or the network that an IPv6 host has to itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Source(IpAddr);

impl Source {
    /// Of requests that came through no door.
    pub const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The source of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 => Self(v4),
        }
    }
}

/// What a connection may cost, and how long each part of it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a TLS handshake to its last, without the time that it waits for its turn.
    pub handshake: Duration,
    /// From there to the head of the first request, and of HTTP/1 to that of every further one.
    pub head: Duration,
    /// How long nothing may be asked.
    pub quiet: Duration,
    /// From the head of a request to that of its answer.
    pub answer: Duration,
}

/// Why somebody was not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Every seat is taken by connections that are being served.
    #[error("no room for another connection")]
    Full,
    /// Others needed the seat more.
    #[error("driven out by newer connections")]
    Cleared,
    /// No byte came.
    #[error("no byte came in time")]
    Silent,
    /// The handshake was not finished in time.
    #[error("the TLS handshake took too long")]
    SlowHandshake,
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake,
    /// No request came.
    #[error("no request came in time")]
    NoRequest,
    /// Nothing was asked for long.
    #[error("quiet for too long")]
    Quiet,
    /// The body of a request is larger than is allowed.
    #[error("the body of the request is too large")]
    LargeBody,
    /// The body of a request did not come in time.
    #[error("the body of the request did not come in time")]
    SlowBody,
    /// Too many wait for a turn.
    #[error("too many requests at a time: try again later")]
    Busy,
    /// The answer was not there in time.
    #[error("the request took too long")]
    SlowAnswer,
}

impl Refused {
    /// As metrics call it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Cleared => "cleared",
            Self::Silent => "silent",
            Self::SlowHandshake => "slow_handshake",
            Self::Handshake => "handshake",
            Self::NoRequest => "no_request",
            Self::Quiet => "quiet",
            Self::LargeBody => "large_body",
            Self::SlowBody => "slow_body",
            Self::Busy => "busy",
            Self::SlowAnswer => "slow_answer",
        }
    }
}

/// What is spoken behind a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speech {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

/// One port's door.
pub struct Door {
    /// As metrics call it.
    pub name: &'static str,
    /// What a connection may cost.
    pub limits: Limits,
    /// What is spoken behind it.
    pub speech: Speech,
    /// Who the server is to its callers; `None`: no TLS.
    pub identity: Option<Arc<ServerIdentity>>,
    /// Whose handshake is computed next; shared by doors of one process.
    pub handshakes: Arc<Turns<Source>>,
    /// Room for connections.
    pub seats: Arc<Seats>,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl Door {
    /// Lets connections in until the end; each is served by itself, so that a slow one delays nobody.
    pub async fn serve(self, listener: TcpListener, router: Router) {
        let door = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = door.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => door.clone().seat(stream, remote, &router),
                Err(error) => {
                    tracing::warn!(%error, door = door.name, "a connection could not be accepted");
                    // Most likely there are no more files: somebody has to give one up.
                    door.seats.clear_one();
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    fn seat(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, router: &Router) {
        let source = Source::of(remote.ip());
        let Some(seat) = self.seats.take(source) else { return self.refuse(Refused::Full) };
        self.metrics.connected(self.name, self.seats.taken());
        let router = router.clone();
        tokio::spawn(async move {
            self.clone().welcome(stream, remote, &seat, router).await;
            drop(seat);
            self.metrics.connected(self.name, self.seats.taken());
        });
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, seat: &Arc<Seat>, router: Router) {
        let arrived = tokio::select! {
            arrived = self.arrive(stream, remote, seat) => arrived,
            () = seat.cleared() => Err(Some(Refused::Cleared)),
            () = self.stop.cancelled() => return,
        };
        match arrived {
            Ok((wire, visit)) => visit::serve(self, wire, visit, router).await,
            Err(Some(why)) => self.refuse(why),
            Err(None) => {}
        }
    }

    /// Waits until the other end shows that it is in earnest; `None` when it goes away.
    async fn arrive(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(Wire, Visit), Option<Refused>> {
        stream.set_nodelay(true).map_err(|_| None)?;
        let local = stream.local_addr().ok();
        match timeout(self.limits.first_byte, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(None),
            Err(_) => return Err(Some(Refused::Silent)),
        }
        let source = Source::of(remote.ip());
        let (wire, certificates) = match &self.identity {
            None => (Wire::plain(stream), PeerCertificates::default()),
            Some(identity) => self.shake_hands(identity, stream, source).await?,
        };
        Ok((wire, Visit { source, seat: seat.clone(), certificates, local, remote }))
    }

    async fn shake_hands(
        &self,
        identity: &ServerIdentity,
        stream: TcpStream,
        source: Source,
    ) -> Result<(Wire, PeerCertificates), Option<Refused>> {
        let deadline = Instant::now() + self.limits.handshake;
        let hello = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
        let hello = hello.map_err(|_| Refused::SlowHandshake)?.map_err(|_| Refused::Handshake)?;
        let asked = Instant::now();
        let turn = self.handshakes.turn(source).await;
        let waited = asked.elapsed();
        // The key exchange and the signature: all that costs is done here, before the answer waits for the client.
        let accepting = hello.into_stream(identity.config());
        drop(turn);
        let accepted = timeout_at(deadline + waited, accepting).await;
        let stream = accepted.map_err(|_| Refused::SlowHandshake)?.map_err(|_| Refused::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let certificates = PeerCertificates(Arc::new(certificates.into_iter().map(|c| c.into_owned()).collect()));
        let lifetime = identity.lifetime(&certificates);
        Ok((Wire::tls(stream, lifetime), certificates))
    }

    fn refuse(&self, why: Refused) {
        self.metrics.turned_away(self.name, why);
    }
}
