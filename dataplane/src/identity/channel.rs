//! gRPC channels to the control plane over TLS, with the workload's certificate once it has one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferromesh_proto::bootstrap::HostPort;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::Identity;
use crate::{file, resolve::Resolver};

/// The look-up, connecting and the TLS handshake together may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A control plane that vanished without a word is noticed after these two together.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the control plane's TLS port is and how it is recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsTarget {
    /// Its address.
    pub address: HostPort,
    /// DNS name that its certificate must carry.
    pub server_name: String,
    /// PEM file with the roots that its certificate is checked against; read again for each
    /// connection.
    pub roots_file: PathBuf,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The file of roots cannot be used.
    #[error("{path}: {why}: expected the mesh's root certificates as PEM", path = .path.display())]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The configured server name cannot stand in a ClientHello.
    #[error("{0:?} is not a server name")]
    ServerName(String),
    /// The held certificate cannot be used.
    #[error("client certificate: {0}")]
    ClientCertificate(#[from] rustls::Error),
    /// Nobody listens, the handshake failed, or the server is not whom it should be.
    #[error("control plane {address}: {why}")]
    Connect {
        /// Where.
        address: HostPort,
        /// The chain of causes.
        why: String,
    },
}

/// Opens a channel; the name is looked up anew for each of its connections; `held` proves who we
/// are, without it the server learns only our address.
///
/// The channel connects again by itself with the same certificate: open a new one after a rotation.
///
/// # Errors
/// [`ChannelError`] names the file or address at fault.
pub async fn connect(
    target: &TlsTarget,
    held: Option<&Identity>,
    resolver: &Resolver,
) -> Result<Channel, ChannelError> {
    open(target, client_config(target, held, Presented::Certificate)?, resolver).await
}

/// Opens a channel that presents no certificate; `held` lends only its roots.
///
/// # Errors
/// As [`connect`].
pub async fn connect_anonymously(
    target: &TlsTarget,
    held: Option<&Identity>,
    resolver: &Resolver,
) -> Result<Channel, ChannelError> {
    open(target, client_config(target, held, Presented::Nothing)?, resolver).await
}

/// What the server gets to see of a held identity.
enum Presented {
    Certificate,
    Nothing,
}

async fn open(
    target: &TlsTarget,
    config: ClientConfig,
    resolver: &Resolver,
) -> Result<Channel, ChannelError> {
    let server_name = ServerName::try_from(target.server_name.clone())
        .map_err(|_| ChannelError::ServerName(target.server_name.clone()))?;
    let connector = TlsConnector::from(Arc::new(config));
    let (address, resolver) = (target.address.clone(), resolver.clone());
    let dial = tower::service_fn(move |_| {
        dial(connector.clone(), server_name.clone(), address.clone(), resolver.clone())
    });
    let failed = |e: &dyn std::error::Error| ChannelError::Connect {
        address: target.address.clone(),
        why: causes(e),
    };
    // The scheme only names the connector's business: TLS is spoken below.
    let endpoint =
        Endpoint::from_shared(format!("http://{}", target.address)).map_err(|e| failed(&e))?;
    endpoint
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(dial)
        .await
        .map_err(|e| failed(&e))
}

type DialError = Box<dyn std::error::Error + Send + Sync>;

async fn dial(
    connector: TlsConnector,
    server_name: ServerName<'static>,
    address: HostPort,
    resolver: Resolver,
) -> Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, DialError> {
    let connected =
        async { connector.connect(server_name, resolver.connect(&address).await?).await };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connected)
        .await
        .map_err(|_| format!("no answer within {}s", CONNECT_TIMEOUT.as_secs()))??;
    Ok(TokioIo::new(stream))
}

fn client_config(
    target: &TlsTarget,
    held: Option<&Identity>,
    presented: Presented,
) -> Result<ClientConfig, ChannelError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&target.roots_file, held)?);
    let mut config = match (held, presented) {
        (Some(held), Presented::Certificate) => {
            builder.with_client_auth_cert(held.chain.clone(), held.key.clone_key())?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check against a changed bundle.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The file's roots, and those that came with the held certificate: after a rotation of the root
/// they are newer.
fn roots(path: &Path, held: Option<&Identity>) -> Result<RootCertStore, ChannelError> {
    let wrong = |why: String| ChannelError::Roots { path: path.to_owned(), why };
    let pem = file::read(path).map_err(|e| wrong(e.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        store
            .add(certificate.map_err(|e| wrong(e.to_string()))?)
            .map_err(|e| wrong(e.to_string()))?;
    }
    if store.is_empty() {
        return Err(wrong("it holds no certificate".into()));
    }
    store.add_parsable_certificates(held.into_iter().flat_map(|held| held.roots.iter().cloned()));
    Ok(store)
}

/// An error with all its causes: the outermost one alone says only "transport error".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
