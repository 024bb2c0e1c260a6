//! Takes in the connections of a port: a seat, a first byte, a handshake, and then its requests.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use ferromesh_cert_authority::PeerCertificates;
use ferromesh_proto::recurring::Recurring;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{
    network::ClientNetwork,
    not_served::NotServed,
    port::Port,
    seats::{Seat, Seats},
    tls::TlsAcceptor,
    visit::{self, Visit},
    wire::Wire,
};

/// Pause after the system refused a connection (no more files).
const BACKOFF: Duration = Duration::from_millis(100);

/// Takes in the connections of one port.
pub struct Acceptor {
    /// What they have in common.
    pub port: Arc<Port>,
    /// `None`: they are plaintext.
    pub tls: Option<TlsAcceptor>,
    /// Room for them.
    pub seats: Arc<Seats>,
}

impl Acceptor {
    /// Lets connections in until the end; each is served by itself, so that a slow one delays
    /// nobody.
    pub async fn serve(self, listener: TcpListener, router: Router) {
        let acceptor = Arc::new(self);
        let mut trouble = Recurring::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = acceptor.port.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    if let Some(failures) = trouble.worked(Instant::now()) {
                        tracing::info!(failures, port = acceptor.port.name, "accepting again");
                    }
                    acceptor.clone().seat(stream, remote, &router);
                }
                Err(error) => {
                    if let Some(failures) = trouble.failed(&error, Instant::now()) {
                        let port = acceptor.port.name;
                        tracing::warn!(%error, failures, port, "connections cannot be accepted");
                    }
                    // Most likely there are no more files: somebody has to give one up.
                    acceptor.seats.clear_one();
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    fn seat(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, router: &Router) {
        let network = ClientNetwork::of(remote.ip());
        let Some(seat) = self.seats.take(network) else {
            return self.port.refuse(NotServed::Full);
        };
        self.count();
        let router = router.clone();
        tokio::spawn(async move {
            self.clone().welcome(stream, remote, &seat, router).await;
            drop(seat);
            self.count();
        });
    }

    async fn welcome(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        seat: &Arc<Seat>,
        router: Router,
    ) {
        let arrived = tokio::select! {
            arrived = self.arrive(stream, remote, seat) => arrived,
            () = seat.cleared() => Err(Some(NotServed::Cleared)),
            () = self.port.stop.cancelled() => return,
        };
        match arrived {
            Ok((wire, visit)) => visit::serve(self.port.clone(), wire, visit, router).await,
            Err(Some(why)) => self.port.refuse(why),
            Err(None) => {}
        }
    }

    /// Waits until the other end shows that it is in earnest; `None` when it goes away.
    async fn arrive(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(Wire, Visit), Option<NotServed>> {
        stream.set_nodelay(true).map_err(|_| None)?;
        let local = stream.local_addr().ok();
        match timeout(self.port.limits.first_byte, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(None),
            Err(_) => return Err(Some(NotServed::Silent)),
        }
        let network = ClientNetwork::of(remote.ip());
        let (wire, certificates) = match &self.tls {
            None => (Wire::plain(stream), PeerCertificates::default()),
            Some(tls) => tls.accept(stream, network, self.port.limits.handshake).await?,
        };
        Ok((wire, Visit { network, seat: seat.clone(), certificates, local, remote }))
    }

    fn count(&self) {
        self.port.metrics.connected(self.port.name, self.seats.taken());
    }
}
