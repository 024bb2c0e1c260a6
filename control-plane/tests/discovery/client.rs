//! Clients that speak xDS as proxies do.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node,
        Status as RpcStatus, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{PATIENCE, is_type, plane::Plane};

/// Requests that must be answered before silence is believed: what could be sent of its own accord
/// is looked at between any two of them, in no order.
const FENCES: usize = 16;
/// A type that the server does not serve, and says so at once.
const FOREIGN: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// Bytes that a deaf client lets the server send on a stream.
pub(crate) const SMALL_WINDOW: u32 = 4 << 10;

pub(crate) fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let value = |v: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(v.to_owned())),
    };
    let fields = metadata.iter().map(|(k, v)| ((*k).to_owned(), value(v))).collect();
    Node { id: id.to_owned(), metadata: Some(prost_types::Struct { fields }), ..Default::default() }
}

pub(crate) fn delta_node(id: &str) -> Node {
    node(id, &[])
}

/// A delta response, by name and version.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: ResourceType,
    pub(crate) removed: Vec<String>,
    /// Bytes of the message.
    pub(crate) length: usize,
    nonce: String,
    versions: HashMap<String, String>,
    sorted: BTreeSet<String>,
}

impl Received {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.sorted.contains(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.sorted.iter().map(String::as_str)
    }

    pub(crate) fn versions(&self) -> HashMap<String, String> {
        self.versions.clone()
    }
}

/// A delta client.
pub(crate) struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Option<Streaming<DeltaDiscoveryResponse>>,
    opening: Option<tokio::task::JoinHandle<Result<Streaming<DeltaDiscoveryResponse>, Status>>>,
    node: Option<Node>,
}

impl Delta {
    /// A stream whose first request names the node.
    pub(crate) async fn connect(channel: Channel, id: &str) -> Self {
        Self { node: Some(node(id, &[])), ..Self::start(channel, None) }
    }

    pub(crate) async fn with_token(channel: Channel, id: &str, token: &str) -> Self {
        Self { node: Some(node(id, &[])), ..Self::start(channel, Some(token)) }
    }

    /// A stream that sends what it is told and nothing else.
    pub(crate) async fn open(channel: Channel) -> Self {
        Self::start(channel, None)
    }

    fn start(channel: Channel, token: Option<&str>) -> Self {
        let (requests, outbox) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(outbox));
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
        }
        let opening = tokio::spawn(async move {
            let mut client = AggregatedDiscoveryServiceClient::new(channel);
            client.delta_aggregated_resources(request).await.map(tonic::Response::into_inner)
        });
        Self { requests, responses: None, opening: Some(opening), node: None }
    }

    async fn responses(&mut self) -> Result<&mut Streaming<DeltaDiscoveryResponse>, Status> {
        if let Some(opening) = self.opening.take() {
            self.responses = Some(opening.await.expect("the task ends")?);
        }
        Ok(self.responses.as_mut().expect("opened"))
    }

    pub(crate) fn request(&self, kind: ResourceType) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() }
    }

    pub(crate) async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = request.node.or(self.node.take());
        // The server may have closed the stream already; the test looks at why.
        let _ = self.requests.send(request).await;
    }

    pub(crate) async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        self.send(DeltaDiscoveryRequest { resource_names_subscribe: names, ..self.request(kind) })
            .await;
    }

    /// Subscribes and returns the answer, unanswered.
    pub(crate) async fn ask(&mut self, kind: ResourceType, names: &[&str]) -> Received {
        self.subscribe(kind, names).await;
        let answer = self.next().await;
        assert_eq!(answer.kind, kind);
        answer
    }

    /// Subscribes, and accepts the answer.
    pub(crate) async fn fetch(&mut self, kind: ResourceType, names: &[&str]) -> Received {
        let answer = self.ask(kind, names).await;
        self.accept(&answer).await;
        // The acceptance is known to the server once it has answered a later request.
        self.roundtrip().await;
        answer
    }

    async fn roundtrip(&mut self) {
        let name = "nothing of this name".to_owned();
        self.send(DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name.clone()],
            ..self.request(ResourceType::Route)
        })
        .await;
        let answer = self.next().await;
        assert_eq!(
            (answer.kind, &answer.removed),
            (ResourceType::Route, &vec![name.clone()]),
            "{answer:?}"
        );
        let nonce = answer.nonce;
        let forget = DeltaDiscoveryRequest {
            resource_names_unsubscribe: vec![name],
            response_nonce: nonce,
            ..self.request(ResourceType::Route)
        };
        self.send(forget).await;
    }

    pub(crate) async fn next_raw(&mut self) -> DeltaDiscoveryResponse {
        let message = async { self.responses().await?.message().await };
        timeout(PATIENCE, message)
            .await
            .expect("a response in time")
            .expect("a response")
            .expect("an open stream")
    }

    pub(crate) async fn next(&mut self) -> Received {
        let response = self.next_raw().await;
        let (kind, length) = (is_type(&response.type_url), response.encoded_len());
        for resource in &response.resources {
            let any = resource.resource.as_ref().expect("a body");
            assert_eq!(any.type_url, response.type_url);
        }
        let versions: HashMap<String, String> =
            response.resources.into_iter().map(|r| (r.name, r.version)).collect();
        let sorted = versions.keys().cloned().collect();
        Received {
            kind,
            removed: response.removed_resources,
            length,
            nonce: response.nonce,
            versions,
            sorted,
        }
    }

    pub(crate) async fn accept(&mut self, response: &Received) {
        self.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..self.request(response.kind)
        })
        .await;
    }

    pub(crate) async fn refuse(&mut self, response: &Received, message: &str) {
        let error_detail = Some(RpcStatus { code: 3, message: message.to_owned() });
        let request = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail,
            ..self.request(response.kind)
        };
        self.send(request).await;
    }

    /// Asks for what is answered at once, again and again: nothing else may come in between.
    pub(crate) async fn expect_silence(&mut self) {
        for fence in 0..FENCES {
            let name = format!("fence-{fence}");
            self.send(DeltaDiscoveryRequest {
                type_url: FOREIGN.to_owned(),
                resource_names_subscribe: vec![name.clone()],
                ..Default::default()
            })
            .await;
            let answer = self.next_raw().await;
            assert_eq!(
                (answer.type_url.as_str(), &answer.removed_resources),
                (FOREIGN, &vec![name]),
                "expected silence, got {answer:?}"
            );
        }
    }

    /// The status with which the server closes the stream.
    pub(crate) async fn failure(&mut self) -> Status {
        let message = async { self.responses().await?.message().await };
        timeout(PATIENCE, message).await.expect("an end in time").expect_err("an error")
    }
}

/// A delta client that asks for everything and reads nothing: what exceeds its window stays with
/// the server.
pub(crate) struct Deaf {
    /// Its stream, which nobody has read yet.
    pub(crate) stream: Delta,
    received: Arc<AtomicUsize>,
}

impl Deaf {
    /// On a connection of its own.
    pub(crate) async fn connect(plane: &Plane, id: &str) -> Self {
        let (address, received) = (plane.control.addresses.xds, Arc::<AtomicUsize>::default());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let count = received.clone();
        let dial = tower::service_fn(move |_| {
            let count = count.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                Ok::<_, io::Error>(TokioIo::new(Counted { tcp, count }))
            }
        });
        let channel = endpoint
            .initial_stream_window_size(SMALL_WINDOW)
            .connect_with_connector(dial)
            .await
            .expect("the port is open");
        let mut stream = Delta::connect(channel, id).await;
        stream.send(stream.request(ResourceType::Cluster)).await;
        stream.subscribe(ResourceType::Route, &["80"]).await;
        Self { stream, received }
    }

    /// Bytes that have arrived on its connection.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until its window is full.
    pub(crate) async fn until_blocked(&self) {
        let full = async {
            while self.received() < SMALL_WINDOW as usize {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, full).await.expect("the server sends what the window allows");
    }
}

/// A connection that counts what arrives.
struct Counted {
    tcp: TcpStream,
    count: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.count.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// The status with which a stream of an unproven caller ends.
pub(crate) async fn first_failure(channel: Channel, token: Option<&str>) -> Status {
    let mut stream = Delta::start(channel, token);
    stream.send(stream.request(ResourceType::Cluster)).await;
    stream.failure().await
}

/// A state-of-the-world client.
pub(crate) struct SotwClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl SotwClient {
    pub(crate) async fn connect(channel: Channel, id: &str) -> Self {
        let (requests, outbox) = mpsc::channel(16);
        let hello = DiscoveryRequest {
            node: Some(node(id, &[])),
            type_url: ResourceType::Endpoint.type_url().to_owned(),
            ..Default::default()
        };
        requests.send(hello).await.expect("room");
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(outbox))
            .await
            .expect("a stream");
        Self { requests, responses: responses.into_inner() }
    }

    /// Subscribes, accepts the answer, and says how many resources it held.
    pub(crate) async fn fetch(&mut self, kind: ResourceType, names: &[&str]) -> usize {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let request = DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names: names,
            ..Default::default()
        };
        self.requests.send(request.clone()).await.expect("an open stream");
        let message =
            timeout(PATIENCE, self.responses.message()).await.expect("a response in time");
        let response = message.expect("a response").expect("an open stream");
        assert_eq!(is_type(&response.type_url), kind);
        let ack = DiscoveryRequest {
            version_info: response.version_info,
            response_nonce: response.nonce,
            ..request
        };
        self.requests.send(ack).await.expect("an open stream");
        response.resources.len()
    }
}

/// A client certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

pub(crate) async fn secure_channel(plane: &Plane, identity: Option<&Identity>) -> Channel {
    try_secure_channel(plane, identity).await.expect("a TLS connection")
}

/// Connects to the TLS port, and makes sure that the server has accepted the handshake.
pub(crate) async fn try_secure_channel(
    plane: &Plane,
    identity: Option<&Identity>,
) -> Result<Channel, String> {
    let config = client_config(plane, identity);
    let address = plane.control.addresses.xds_tls;
    let connector = TlsConnector::from(Arc::new(config));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let dial = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("ferromesh.local").expect("a name");
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    let channel = endpoint.connect_with_connector(dial).await.map_err(|e| e.to_string())?;
    // In TLS 1.3 a refused client certificate shows with the first answer only, as whatever fault
    // the transport meets first. An answer of the service itself means that the port is open.
    let mut probe = IstioCertificateServiceClient::new(channel.clone());
    match probe.create_certificate(IstioCertificateRequest::default()).await {
        Err(status)
            if !matches!(
                status.code(),
                tonic::Code::Unauthenticated | tonic::Code::InvalidArgument
            ) =>
        {
            Err(status.to_string())
        }
        _ => Ok(channel),
    }
}

fn client_config(plane: &Plane, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&plane.roots()) {
        roots.add(root.expect("PEM")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(i) => {
            builder.with_client_auth_cert(i.chain.clone(), i.key.clone_key()).expect("a key pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Gets a certificate with a join token.
pub(crate) async fn sign(plane: &Plane, token: &str) -> Identity {
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("a request")
        .pem()
        .expect("PEM");
    let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    let mut client = IstioCertificateServiceClient::new(secure_channel(plane, None).await);
    let chain =
        client.create_certificate(request).await.expect("a certificate").into_inner().cert_chain;
    let ders = chain[..chain.len() - 1]
        .iter()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"));
    Identity {
        chain: ders.collect(),
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8"),
    }
}

pub(crate) fn self_signed() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["thief".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("PKCS#8");
    Identity { chain: vec![made.cert.der().clone()], key }
}
