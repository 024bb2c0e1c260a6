//! TLS on a connection: the handshake in time, and its costly part in turn.

use std::{sync::Arc, time::Duration};

use ferromesh_cert_authority::PeerCertificates;
use rustls::server::Acceptor;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::LazyConfigAcceptor;

use super::{network::ClientNetwork, not_served::NotServed, turns::Turns, wire::Wire};
use crate::tls::ServerIdentity;

/// Makes TLS connections of TCP connections.
#[derive(Clone)]
pub struct TlsAcceptor {
    /// Who the server is to its callers.
    pub identity: Arc<ServerIdentity>,
    /// Whose handshake is computed next; shared by all ports of the process.
    pub handshakes: Arc<Turns<ClientNetwork>>,
}

impl TlsAcceptor {
    /// Shakes hands within `limit`, the wait for a turn not counted: the connection, and the
    /// certificates that the client proved to have.
    ///
    /// # Errors
    /// The handshake took too long or failed.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        network: ClientNetwork,
        limit: Duration,
    ) -> Result<(Wire, PeerCertificates), NotServed> {
        let deadline = Instant::now() + limit;
        let hello =
            timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
        let hello =
            hello.map_err(|_| NotServed::SlowHandshake)?.map_err(|_| NotServed::Handshake)?;
        let asked = Instant::now();
        let turn = self.handshakes.turn(network).await;
        let waited = asked.elapsed();
        // The key exchange and the signature: all that costs is done here, before the answer waits
        // for the client.
        let accepting = hello.into_stream(self.identity.config());
        drop(turn);
        let accepted = timeout_at(deadline + waited, accepting).await;
        let stream =
            accepted.map_err(|_| NotServed::SlowHandshake)?.map_err(|_| NotServed::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let certificates =
            PeerCertificates(Arc::new(certificates.into_iter().map(|c| c.into_owned()).collect()));
        let lifetime = self.identity.lifetime(&certificates);
        Ok((Wire::tls(stream, lifetime), certificates))
    }
}
