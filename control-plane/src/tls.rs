//! The TLS doors of 15012 and 15017: the control plane's own certificate, replaced before it ends, and optional client
//! certificates, checked against the mesh's trust bundle and nothing else.

use std::{
    future::Future as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use ferromesh_cert_authority::{Authority, IssueError, PeerCertificates, TrustBundle};
use futures_util::Stream;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    Request, Status,
    transport::server::{Connected, TcpConnectInfo},
};

/// Time for a client to finish its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time; each costs about a millisecond of CPU.
const CONCURRENT_HANDSHAKES: usize = 256;
/// Pause after the system refused a connection (no more files).
const BACKOFF: Duration = Duration::from_millis(100);
/// A connection lasts for this share of what is left of its client's certificate: clients renew around half.
const CONNECTION_SHARE: f64 = 0.9;
/// A client that could not renew does not come back faster than this.
const SHORTEST_CONNECTION: Duration = Duration::from_secs(1);
/// Pause after a certificate could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// Why the door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority gave no certificate.
    #[error("no certificate for the control plane's own port: {0}")]
    Certificate(#[from] IssueError),
    /// What it gave cannot be used.
    #[error("the control plane's certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The trust bundle cannot be used.
    #[error("the trust bundle cannot be used: {0}")]
    Bundle(#[from] rustls::server::VerifierBuilderError),
    /// The runtime is stopping.
    #[error("stopped")]
    Stopped,
}

/// Names and addresses that the server's certificate carries, and what is spoken behind it.
#[derive(Clone, Debug)]
pub struct ServerNames {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Protocols that the port speaks, best first (ALPN).
    pub protocols: &'static [&'static [u8]],
}

/// The TLS settings that new connections get.
pub struct Door {
    authority: Arc<Authority>,
    names: ServerNames,
    config: ArcSwap<ServerConfig>,
    clock: fn() -> SystemTime,
}

impl Door {
    /// Gets a certificate; returns the door and when the certificate is to be replaced.
    ///
    /// # Errors
    /// [`TlsError`] when there is no usable certificate.
    pub async fn open(
        authority: Arc<Authority>,
        names: ServerNames,
        clock: fn() -> SystemTime,
    ) -> Result<(Arc<Self>, Duration), TlsError> {
        let (config, renewal) = make(&authority, &names, clock).await?;
        Ok((Arc::new(Self { authority, names, config: ArcSwap::from_pointee(config), clock }), renewal))
    }

    /// Replaces the certificate at half of its life and the bundle when it changes, for as long as it is polled.
    pub async fn keep_fresh(self: Arc<Self>, mut renewal: Duration) {
        let mut bundle = self.authority.trust_bundle();
        loop {
            tokio::select! {
                () = tokio::time::sleep(renewal) => {}
                changed = bundle.changed() => if changed.is_err() { return },
            }
            renewal = match make(&self.authority, &self.names, self.clock).await {
                Ok((config, renewal)) => {
                    self.config.store(Arc::new(config));
                    renewal
                }
                Err(error) => {
                    tracing::error!(%error, "keeping the present certificate for now");
                    RETRY
                }
            };
        }
    }

    /// Connections that have finished their handshake. Each handshake runs by itself, so that a slow client delays
    /// nobody. Ends when the receiver is dropped.
    pub fn accept(self: Arc<Self>, listener: TcpListener) -> Incoming {
        let (ready, connections) = mpsc::channel(64);
        tokio::spawn(async move {
            let turns = Arc::new(Semaphore::new(CONCURRENT_HANDSHAKES));
            while !ready.is_closed() {
                let Ok(turn) = turns.clone().acquire_owned().await else { return };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ready.closed() => return,
                };
                let (stream, remote) = match accepted {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(BACKOFF).await;
                        continue;
                    }
                };
                let (door, ready) = (self.clone(), ready.clone());
                tokio::spawn(async move {
                    if let Some(connection) = door.shake_hands(stream, remote).await {
                        drop(turn);
                        // The server is stopping.
                        let _ = ready.send(connection).await;
                    }
                });
            }
        });
        Incoming(connections)
    }

    /// When to close a connection, so that its client comes back with the certificate that it has renewed meanwhile:
    /// Envoy shows a new one on new connections only, and would repeat its calls on this one for ever.
    fn end_of(&self, certificates: &PeerCertificates) -> Option<Pin<Box<Sleep>>> {
        let left = certificates.not_after()?.duration_since((self.clock)()).unwrap_or_default();
        Some(Box::pin(tokio::time::sleep(left.mul_f64(CONNECTION_SHARE).max(SHORTEST_CONNECTION))))
    }

    async fn shake_hands(&self, stream: TcpStream, remote: SocketAddr) -> Option<Connection> {
        let local = stream.local_addr().ok();
        stream.set_nodelay(true).ok()?;
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
                let certificates =
                    PeerCertificates(Arc::new(certificates.into_iter().map(|c| c.into_owned()).collect()));
                let end = self.end_of(&certificates);
                Some(Connection { stream, end, peer: Peer { certificates, local, remote } })
            }
            Ok(Err(error)) => {
                tracing::debug!(%remote, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(%remote, "TLS handshake took too long");
                None
            }
        }
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A configuration with a new certificate, and how long to wait before the next.
async fn make(
    authority: &Arc<Authority>,
    names: &ServerNames,
    clock: fn() -> SystemTime,
) -> Result<(ServerConfig, Duration), TlsError> {
    let (signer, wanted) = (authority.clone(), names.clone());
    let issued =
        tokio::task::spawn_blocking(move || signer.server_certificate(wanted.names, wanted.addresses, clock())).await;
    let certificate = issued.map_err(|_| TlsError::Stopped)??;
    let renewal = certificate.renew_at.duration_since(clock()).unwrap_or_default();
    let bundle = authority.trust_bundle().borrow().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&bundle)?), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificate.chain, PrivateKeyDer::Pkcs8(certificate.key))?;
    config.alpn_protocols = names.protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would skip the check of a client certificate against today's bundle.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((config, renewal))
}

fn roots(bundle: &TrustBundle) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    bundle.roots().iter().try_for_each(|root| store.add(root.clone()))?;
    Ok(store)
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    certificates: PeerCertificates,
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

/// Puts what is known of the peer where the services look for it.
///
/// # Errors
/// Never.
pub fn introduce(mut request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(peer) = request.extensions().get::<Peer>().cloned() {
        request.extensions_mut().insert(peer.certificates);
        request.extensions_mut().insert(TcpConnectInfo { local_addr: peer.local, remote_addr: Some(peer.remote) });
    }
    Ok(request)
}

/// A TLS connection.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Set for a client with a certificate.
    end: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Where it comes from.
    pub fn remote(&self) -> SocketAddr {
        self.peer.remote
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // An end of input: the server then ends its streams and closes.
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Connections ready to be served.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|c| c.map(Ok))
    }
}
