//! Opens a connection to an endpoint: source address, keep-alive, then TLS if the endpoint's transport asks for it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::LiveEndpoint;
use crate::{
    redirect::{PASSTHROUGH_V4, PASSTHROUGH_V6},
    runtime::{
        cluster::{Cluster, ConnectionSettings, MeshAlpn, TcpKeepalive, Transport},
        facts::PeerCertificate,
    },
    tls::{MaybeTls, TlsContexts},
};

/// Which protocol a connection is opened for: it decides about the ALPN list that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Tcp,
}

/// Whose ALPN list is offered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AlpnSource {
    /// The transport's own list.
    Transport,
    /// The cluster's list for the request's protocol, where it has one.
    Mesh,
}

/// What to open.
#[derive(Clone, Copy)]
pub struct Dial<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The endpoint.
    pub endpoint: &'a LiveEndpoint,
    /// What for.
    pub purpose: Purpose,
    /// Whose ALPN list.
    pub alpn: AlpnSource,
    /// The request's host, for transports that take the server name from it.
    pub host: Option<&'a str>,
}

/// An open connection.
pub struct Dialed {
    /// Its stream.
    pub stream: MaybeTls<TcpStream>,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The server's certificate, if it has shown one.
    pub peer: Option<Arc<PeerCertificate>>,
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took longer than the cluster allows.
    #[error("connection timeout")]
    Timeout(Duration),
    /// The system or the peer refused.
    #[error("{0}")]
    Tcp(#[source] io::Error),
    /// The handshake failed.
    #[error("TLS error: {0}")]
    Tls(#[source] io::Error),
}

impl Dial<'_> {
    /// Connects, within the cluster's time limit.
    ///
    /// # Errors
    /// [`ConnectError`] tells a timeout, a refused connection and a failed handshake apart.
    pub async fn connect(&self, contexts: &TlsContexts) -> Result<Dialed, ConnectError> {
        let limit = self.cluster.connection.connect_timeout;
        tokio::time::timeout(limit, self.connect_unlimited(contexts)).await.unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    async fn connect_unlimited(&self, contexts: &TlsContexts) -> Result<Dialed, ConnectError> {
        let settings = &self.cluster.connection;
        let stream = tcp(self.endpoint.state.address, settings).await.map_err(ConnectError::Tcp)?;
        let local = stream.local_addr().ok();
        match settings.transport_for(&self.endpoint.spec) {
            Transport::Plaintext => Ok(Dialed { stream: MaybeTls::Plain(stream), local, peer: None }),
            Transport::Tls(spec) => {
                let alpn = self.offered(&spec.alpn);
                let connected =
                    contexts.client(spec).connect(stream, &alpn, self.host).await.map_err(ConnectError::Tls)?;
                Ok(Dialed { stream: MaybeTls::Tls(Box::new(connected.stream.into())), local, peer: connected.peer })
            }
        }
    }

    /// The ALPN list: the mesh's for the protocol, else the transport's, else what the protocol itself is called.
    fn offered(&self, transport: &[Arc<str>]) -> Vec<Arc<str>> {
        let of_mesh = match (&self.cluster.mesh_alpn, self.alpn) {
            (Some(MeshAlpn { h1, h2 }), AlpnSource::Mesh) => match self.purpose {
                Purpose::Http1 => &h1[..],
                Purpose::Http2 => &h2[..],
                Purpose::Tcp => &[],
            },
            _ => &[],
        };
        match (of_mesh, transport, self.purpose) {
            ([], [], Purpose::Http1) => vec!["http/1.1".into()],
            ([], [], Purpose::Http2) => vec!["h2".into()],
            ([], list, _) | (list, _, _) => list.to_vec(),
        }
    }
}

async fn tcp(address: SocketAddr, settings: &ConnectionSettings) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    match settings.bind {
        Some(source) if source.is_ipv4() == address.is_ipv4() => bind(&socket, source)?,
        // Clusters name only the address of IPv4. Where interception is not ours, nobody has made the other.
        Some(source) if source == PASSTHROUGH_V4 => drop(bind(&socket, PASSTHROUGH_V6.into())),
        _ => {}
    }
    if let Some(keepalive) = settings.keepalive {
        SockRef::from(&socket).set_tcp_keepalive(&parameters(keepalive))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    socket.bind(SocketAddr::new(source, 0))
}

fn parameters(keepalive: TcpKeepalive) -> socket2::TcpKeepalive {
    let mut parameters = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        parameters = parameters.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        parameters = parameters.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        parameters = parameters.with_retries(probes);
    }
    parameters
}
