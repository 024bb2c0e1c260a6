//! Asks the application what the kubelet would have asked it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::{
    Application,
    probe::{Action, HttpGet, Probe, Scheme},
};
use crate::{identity::channel::causes, tls::client::unverified_client};

/// As many as the kubelet follows.
const REDIRECTS: usize = 10;
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;
/// Headers that belong to one connection.
const OF_CONNECTION: [HeaderName; 5] =
    [header::CONNECTION, header::HOST, header::TE, header::TRANSFER_ENCODING, header::UPGRADE];

type ProbeError = Box<dyn std::error::Error + Send + Sync>;

/// The application's answer: its HTTP status, or 200 for another probe that succeeded.
///
/// # Errors
/// What failed, for people.
pub(super) async fn run(
    application: Application,
    probe: &Probe,
    kubelet: &HeaderMap,
) -> Result<StatusCode, String> {
    let asking = async {
        match &probe.action {
            Action::Http(get) => http(application, get, kubelet).await,
            Action::Tcp(port) => {
                application.connect(SocketAddr::new(application.address, *port)).await?;
                Ok(StatusCode::OK)
            }
            Action::Grpc { port, service } => grpc(application, *port, service).await,
        }
    };
    let limit = probe.timeout;
    let outcome = tokio::time::timeout(limit, asking)
        .await
        .map_err(|_| format!("no answer within {}s", limit.as_secs()))?;
    outcome.map_err(|error| causes(&*error))
}

/// Follows redirections within the application, as the kubelet does; one that leads elsewhere is an
/// answer.
async fn http(
    application: Application,
    get: &HttpGet,
    kubelet: &HeaderMap,
) -> Result<StatusCode, ProbeError> {
    let address = SocketAddr::new(application.address, get.port);
    let mut path =
        if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    for _ in 0..=REDIRECTS {
        let request = request(get, &path, address, kubelet)?;
        let stream = application.connect(address).await?;
        let response = match get.scheme {
            Scheme::Http => exchange(stream, request).await?,
            Scheme::Https => {
                let connector = TlsConnector::from(Arc::new(unverified_client(&[b"http/1.1"])?));
                exchange(
                    connector.connect(ServerName::IpAddress(address.ip().into()), stream).await?,
                    request,
                )
                .await?
            }
        };
        match next_path(&response, address) {
            Some(next) => path = next,
            None => return Ok(response.status()),
        }
    }
    Err(format!("more than {REDIRECTS} redirections").into())
}

fn request(
    get: &HttpGet,
    path: &str,
    address: SocketAddr,
    kubelet: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, ProbeError> {
    let mut request = Request::builder().uri(path).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.extend(kubelet.iter().map(|(name, value)| (name.clone(), value.clone())));
    for name in &OF_CONNECTION {
        headers.remove(name);
    }
    headers.insert(header::HOST, HeaderValue::from_str(&address.to_string())?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let own = get
        .http_headers
        .iter()
        .map(|own| Ok((own.name.parse::<HeaderName>()?, own.value.parse()?)));
    let own = own.collect::<Result<Vec<(HeaderName, HeaderValue)>, ProbeError>>()?;
    for (name, _) in &own {
        headers.remove(name);
    }
    for (name, value) in own {
        headers.append(name, value);
    }
    Ok(request)
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    // Driven here, so that nothing outlives the probe; the body is of no interest.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}

/// Where the application sends us, if it is to itself.
fn next_path(response: &Response<Incoming>, address: SocketAddr) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location: Uri = response.headers().get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
    let own = location
        .host()
        .is_none_or(|host| host.trim_matches(['[', ']']) == address.ip().to_string())
        && location.port_u16().is_none_or(|port| port == address.port());
    let path = location.path_and_query()?.as_str();
    (own && path.starts_with('/')).then(|| path.to_owned())
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(
    application: Application,
    port: u16,
    service: &str,
) -> Result<StatusCode, ProbeError> {
    let address = SocketAddr::new(application.address, port);
    let dial =
        tower::service_fn(
            move |_| async move { application.connect(address).await.map(TokioIo::new) },
        );
    let channel =
        Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(dial).await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, HEALTH_CHECK.parse()?, codec).await?.into_inner();
    if answer.status == SERVING {
        Ok(StatusCode::OK)
    } else {
        Err(format!("gRPC health status {}", answer.status).into())
    }
}
