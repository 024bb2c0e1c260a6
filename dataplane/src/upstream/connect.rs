//! Opens a connection to an endpoint: source address, keep-alive, then TLS if the endpoint's
//! transport asks for it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::HeaderMap;
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{LiveCluster, LiveEndpoint, own::OwnConnection};
use crate::{
    redirect::{PASSTHROUGH_V4, PASSTHROUGH_V6},
    runtime::{
        cluster::{AutomaticNames, ConnectionSettings, MeshAlpn, TcpKeepalive, Transport},
        facts::PeerCertificate,
        proxy_header::{self, Ends, ProxyVersion},
        secret::UpstreamTls,
    },
    tls::{MaybeTls, TlsContexts, TlsError, client::Names},
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
    pub cluster: &'a LiveCluster,
    /// The endpoint.
    pub endpoint: &'a LiveEndpoint,
    /// What for.
    pub purpose: Purpose,
    /// Whose ALPN list.
    pub alpn: AlpnSource,
    /// What the request calls the server, if the cluster asks it: before what the endpoint and the
    /// transport say.
    pub names: Names<'a>,
    /// The connection on whose behalf it is, if there is one.
    pub ends: Option<Ends>,
}

/// What a request calls the server: the host that it is sent to, or a header where the cluster
/// names one. An address is not sent as server name (RFC 6066 section 3), but a certificate can be
/// for it.
pub fn names_of<'a>(asked: &AutomaticNames, host: &'a str, headers: &'a HeaderMap) -> Names<'a> {
    if !asked.server_name && !asked.validation {
        return Names::default();
    }
    let of_header = asked.header.as_deref().and_then(|name| headers.get(name)?.to_str().ok());
    let name = host_of(of_header.filter(|value| !value.is_empty()).unwrap_or(host));
    let is_address = name.parse::<IpAddr>().is_ok();
    Names {
        sent: Some(name).filter(|_| asked.server_name && !is_address),
        expected: Some(name).filter(|_| asked.validation),
    }
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            host.trim_matches(['[', ']'])
        }
        _ => authority.trim_matches(['[', ']']),
    }
}

/// An open connection.
pub struct Dialed {
    /// Its stream.
    pub stream: MaybeTls<TcpStream>,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The server's certificate, if it has shown one.
    pub peer: Option<Arc<PeerCertificate>>,
    /// To be held as long as the stream.
    pub own: OwnConnection,
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
    /// Connecting in the way that is in force would protect less than the control plane wants.
    #[error(
        "closed until this proxy is sent a version of the cluster that it accepts: those that it has refused protect more"
    )]
    Closed,
}

impl ConnectError {
    /// We lack what the connection needs, such as a certificate: it says nothing of the endpoint.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Tls(error) if error.get_ref().is_some_and(|cause| cause.is::<TlsError>()))
    }
}

impl Dial<'_> {
    /// Connects, within the cluster's time limit.
    ///
    /// # Errors
    /// [`ConnectError`] tells a timeout, a refused connection and a failed handshake apart.
    pub async fn connect(&self, contexts: &TlsContexts) -> Result<Dialed, ConnectError> {
        let limit = self.cluster.connection.connect_timeout;
        tokio::time::timeout(limit, self.connect_unlimited(contexts))
            .await
            .unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    async fn connect_unlimited(&self, contexts: &TlsContexts) -> Result<Dialed, ConnectError> {
        let settings = &self.cluster.connection;
        let (announced, transport) = settings.transport_for(&self.endpoint.spec).parts();
        let (mut stream, own) = match transport {
            Transport::Closed => return Err(ConnectError::Closed),
            _ => self.tcp().await.map_err(ConnectError::Tcp)?,
        };
        let local = stream.local_addr().ok();
        if let Some(version) = announced {
            let header = proxy_header::written(version, self.announced(version, local));
            stream.write_all(&header).await.map_err(ConnectError::Tcp)?;
        }
        match transport {
            Transport::Closed | Transport::Announced(..) => Err(ConnectError::Closed),
            Transport::Plaintext => {
                Ok(Dialed { stream: MaybeTls::Plain(stream), local, peer: None, own })
            }
            Transport::Tls(spec) => {
                let alpn = self.offered(&spec.alpn);
                let connected = contexts
                    .client(spec)
                    .connect(stream, &alpn, self.names(spec))
                    .await
                    .map_err(ConnectError::Tls)?;
                Ok(Dialed {
                    stream: MaybeTls::Tls(Box::new(connected.stream.into())),
                    local,
                    peer: connected.peer,
                    own,
                })
            }
        }
    }

    /// What the header says: version 1 has no way to say that a connection is nobody else's but
    /// to tell our own ends, as Envoy does.
    fn announced(&self, version: ProxyVersion, local: Option<SocketAddr>) -> Option<Ends> {
        let destination = self.endpoint.state.address;
        let own = || Some(Ends { source: local?, destination });
        self.ends.or_else(|| (version == ProxyVersion::V1).then(own).flatten())
    }

    async fn tcp(&self) -> io::Result<(TcpStream, OwnConnection)> {
        let address = self.endpoint.state.address;
        let socket = prepared(address, &self.cluster.connection)?;
        let own = self.cluster.state.own.begin(address, || begin(&socket, address))?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.set_nodelay(true)?;
        Ok((stream, own))
    }

    fn names<'a>(&'a self, spec: &'a UpstreamTls) -> Names<'a> {
        let varying = self.varying_names(spec);
        Names { sent: varying.sent.or(spec.sni.as_deref()), ..varying }
    }

    /// What does not follow from the cluster and its transport alone: connections that differ here
    /// are not shared.
    pub(super) fn varying_names(&self, spec: &UpstreamTls) -> Names<'_> {
        let of_endpoint = || self.endpoint.spec.host_name().filter(|_| spec.sni_from_endpoint);
        Names { sent: self.names.sent.or_else(of_endpoint), ..self.names }
    }

    /// The ALPN list: the mesh's for the protocol, else the transport's, else what the protocol
    /// itself is called.
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

/// A socket for a connection to this address.
fn prepared(address: SocketAddr, settings: &ConnectionSettings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match settings.bind {
        Some(source) if source.is_ipv4() == address.is_ipv4() => bind(&socket, source)?,
        // Clusters name only the address of IPv4. Where interception is not ours, nobody has made
        // the other.
        Some(source) if source == PASSTHROUGH_V4 => drop(bind(&socket, PASSTHROUGH_V6.into())),
        _ => {}
    }
    if let Some(keepalive) = settings.keepalive {
        socket.set_tcp_keepalive(&parameters(keepalive))?;
    }
    Ok(socket)
}

/// Begins to connect; answers our address.
fn begin(socket: &Socket, address: SocketAddr) -> io::Result<SocketAddr> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    socket.bind(&SocketAddr::new(source, 0).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_server_as_in_envoy() {
        let auto = |header: Option<&str>| AutomaticNames {
            server_name: true,
            validation: true,
            header: header.map(Into::into),
        };
        let headers: HeaderMap =
            [(http::HeaderName::from_static("x-sni"), "b.test:99".parse().unwrap())]
                .into_iter()
                .collect();
        let names = |asked: &AutomaticNames, host| names_of(asked, host, &headers);
        let both = |name| Names { sent: Some(name), expected: Some(name) };
        assert_eq!(names(&AutomaticNames::default(), "a.test"), Names::default());
        assert_eq!(names(&auto(None), "a.test:8443"), both("a.test"));
        assert_eq!(names(&auto(Some("x-sni")), "a.test"), both("b.test"));
        assert_eq!(names(&auto(Some("x-none")), "a.test"), both("a.test"));
        for address in ["127.0.0.1", "127.0.0.1:443", "[::1]:443"] {
            let name = names(&auto(None), address);
            assert_eq!(name.sent, None, "{address}");
            assert!(name.expected.is_some_and(|name| name.parse::<IpAddr>().is_ok()), "{address}");
        }
        let only_validated = AutomaticNames { server_name: false, ..auto(None) };
        assert_eq!(
            names(&only_validated, "a.test"),
            Names { sent: None, expected: Some("a.test") }
        );
    }
}
