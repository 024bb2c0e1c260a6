//! Attacks on the doors of a control plane that serves proxies, administrators and probes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use futures_util::{FutureExt, StreamExt, stream};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{OnceCell, mpsc},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{
    flood::Flood,
    frames::*,
    good::{self, Ask},
    proxy::{half_handshake, huge_head, listen, open, repeat, slow_body, slow_head},
    round::{self, Victim},
    site::Site,
};

/// Memory that a control plane may take more while it is attacked: of what is begun and of what is
/// kept, one visitor has 96 MiB.
const BOUND: u64 = 256 << 20;

/// What a client needs to call on the TLS port.
struct Caller {
    site: Arc<Site>,
    roots: RootCertStore,
    csr: String,
    accounts: AtomicU32,
}

/// A workload that is known: by its token, and by the certificate that it got for it.
struct Known {
    channel: Channel,
    token: String,
    /// Its own certificate first.
    chain: Vec<String>,
}

impl Caller {
    fn new(site: Arc<Site>) -> Arc<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(site.path("data/root-cert.pem"))
            .expect("the file of roots")
        {
            roots.add(root.expect("PEM")).expect("a root");
        }
        let csr = site.certificate_request();
        Arc::new(Self { site, roots, csr, accounts: AtomicU32::new(0) })
    }

    /// Opens a connection; with a chain as the workload whose it is.
    async fn connect(&self, chain: &[String]) -> Result<Channel, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(self.roots.clone());
        let mut config = if chain.is_empty() {
            builder.with_no_client_auth()
        } else {
            let certificates = chain
                .iter()
                .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"));
            let key = PrivateKeyDer::from_pem_file(self.site.path("key.pem"))
                .expect("the key of the request");
            builder.with_client_auth_cert(certificates.collect(), key).expect("a key that fits")
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (address, tls) = (self.site.control_plane(15012), TlsConnector::from(Arc::new(config)));
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let name = ServerName::try_from("ferromesh.local").expect("a name");
                let stream = TcpStream::connect(address).await?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://ferromesh.local");
        endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
    }

    /// An administrator makes a token, and a workload gets its certificate with it.
    async fn certificate(&self, account: String) -> Result<Known, String> {
        let token = self.site.join_token(&account).await;
        let channel = self.connect(&[]).await?;
        let request = with_token(self.certificate_request(), &token)?;
        let answer =
            IstioCertificateServiceClient::new(channel.clone()).create_certificate(request).await;
        let chain = answer.map_err(|status| status.to_string())?.into_inner().cert_chain;
        if chain.len() == 3 {
            Ok(Known { channel, token, chain })
        } else {
            Err(format!("{} certificates", chain.len()))
        }
    }

    fn certificate_request(&self) -> IstioCertificateRequest {
        IstioCertificateRequest { csr: self.csr.clone(), ..Default::default() }
    }

    /// A workload that starts: its certificate, then its clusters.
    async fn start(&self) -> Result<(), String> {
        let number = self.accounts.fetch_add(1, Ordering::Relaxed);
        let Known { channel, token, .. } = self.certificate(format!("good-{number}")).await?;
        let id = format!("sidecar~10.84.0.1~good-{number}.default~default.svc.cluster.local");
        let hello = DeltaDiscoveryRequest {
            node: Some(Node { id, ..Node::default() }),
            type_url: ResourceType::Cluster.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        // The stream stays open until its sender goes.
        let (sender, outbox) = mpsc::unbounded_channel();
        let _ = sender.send(hello);
        let outbox =
            stream::unfold(outbox, async |mut outbox| Some((outbox.recv().await?, outbox)));
        let requests = with_token(Box::pin(outbox), &token)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let opened = client
            .delta_aggregated_resources(requests)
            .await
            .map_err(|status| status.to_string())?;
        let response = opened.into_inner().message().await.map_err(|status| status.to_string())?;
        drop(sender);
        let clusters = response.map_or(0, |response| response.resources.len());
        if clusters > 0 { Ok(()) } else { Err("no clusters".to_owned()) }
    }
}

fn with_token<T>(body: T, token: &str) -> Result<tonic::Request<T>, String> {
    let mut request = tonic::Request::new(body);
    let bearer = format!("Bearer {token}").parse().map_err(|_| "a token is ASCII".to_owned())?;
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

/// Workloads that start, and probes.
fn good(site: &Site, caller: &Arc<Caller>) -> Vec<(&'static str, Ask)> {
    let probe =
        |port: u16, path: &str| good::probe(format!("http://{}{path}", site.control_plane(port)));
    let caller = caller.clone();
    let start: Ask = Arc::new(move || {
        let caller = caller.clone();
        async move { caller.start().await }.boxed()
    });
    vec![
        ("a workload that starts", start),
        ("ready", probe(8080, "/healthz/ready")),
        ("metrics", probe(15014, "/metrics")),
        ("diagnostics", probe(8080, "/api/v1/diagnostics")),
    ]
}

/// What is done to each port.
fn attacks(site: &Site, caller: &Arc<Caller>) -> Vec<(SocketAddr, Flood)> {
    let begun = Flood::new("large requests without an end", 60, begun_request);
    let mut attacks = vec![
        (15012, Flood::new("silent connections", 1500, silent)),
        (15012, Flood::new("half a handshake", 500, half_handshake)),
        (15012, certificates(caller)),
        (15012, renewals(caller)),
        (15010, Flood::new("silent connections", 1500, silent)),
        (15010, Flood::new("half a preface", 500, half_preface)),
        (15010, begun),
        (15010, Flood::new("names that nobody has", 20, invented_names)),
        (8080, Flood::new("questions", 100, questions)),
    ];
    for port in [8080, 15014] {
        attacks.push((port, Flood::new("silent connections", 600, silent)));
        attacks.push((port, Flood::new("slow heads", 600, slow_head)));
        attacks.push((port, Flood::new("slow bodies", 600, slow_body)));
        attacks.push((port, Flood::new("large bodies without an end", 200, begun_body)));
        attacks.push((port, Flood::new("huge heads", 20, huge_head)));
    }
    attacks.into_iter().map(|(port, flood)| (site.control_plane(port), flood)).collect()
}

/// One identity that asks for certificates without end.
fn certificates(caller: &Arc<Caller>) -> Flood {
    let caller = caller.clone();
    let connection = move |_| {
        let caller = caller.clone();
        async move {
            let Ok(known) = caller.certificate("evil".to_owned()).await else { return };
            let mut client = IstioCertificateServiceClient::new(known.channel);
            for _ in 0..1000 {
                let Ok(request) = with_token(caller.certificate_request(), &known.token) else {
                    return;
                };
                let _ = client.create_certificate(request).await;
            }
        }
        .boxed()
    };
    Flood { name: "certificates without end", connections: 8, connection: Arc::new(connection) }
}

/// One workload that renews its certificate, with the one that it has, without end.
fn renewals(caller: &Arc<Caller>) -> Flood {
    let (caller, chain) = (caller.clone(), Arc::<OnceCell<Vec<String>>>::default());
    let connection = move |_| {
        let (caller, chain) = (caller.clone(), chain.clone());
        async move {
            let first = chain.get_or_try_init(async || {
                Ok::<_, String>(caller.certificate("renewing".to_owned()).await?.chain)
            });
            let Ok(chain) = first.await else { return };
            let Ok(channel) = caller.connect(chain).await else { return };
            let mut client = IstioCertificateServiceClient::new(channel);
            for _ in 0..1000 {
                let _ = client.create_certificate(caller.certificate_request()).await;
            }
        }
        .boxed()
    };
    Flood { name: "renewals without end", connections: 8, connection: Arc::new(connection) }
}

async fn silent(to: SocketAddr) {
    if let Some(mut stream) = open(to, b"").await {
        listen(&mut stream).await;
    }
}

async fn half_preface(to: SocketAddr) {
    if let Some(mut stream) = open(to, b"PRI * HTTP/2.0\r\n").await {
        listen(&mut stream).await;
    }
}

/// The same question, again and again.
async fn questions(to: SocketAddr) {
    let request = b"GET /api/v1/proxies HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_vec();
    if let Some(stream) = open(to, &request).await {
        repeat(stream, request).await;
    }
}

/// The largest body that is taken, all but its end.
async fn begun_body(to: SocketAddr) {
    let length = 4 << 20;
    let head = format!(
        "POST /api/v1/objects HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n\r\n"
    );
    let Some(mut stream) = open(to, head.as_bytes()).await else { return };
    if stream.write_all(&vec![b' '; length - 1]).await.is_ok() {
        listen(&mut stream).await;
    }
}

/// A stream that announces a large request, and begins it with as much as is taken before it is
/// read.
async fn begun_request(to: SocketAddr) {
    let text =
        |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let mut head = [vec![0x83, 0x86, 0x04], text(path), vec![0x01], text("a")].concat();
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        head.extend([vec![0], text(name), text(value)].concat());
    }
    let mut bytes = [beginning(), frame(HEADERS, END_HEADERS, 1, &head)].concat();
    let announced = 15_u32 << 20;
    bytes.extend(frame(DATA, 0, 1, &[&[0], &announced.to_be_bytes()[..]].concat()));
    // Just below the window of a stream and its connection.
    for _ in 0..69 {
        bytes.extend(frame(DATA, 0, 1, &[0; 15_000]));
    }
    if let Some(mut stream) = open(to, &bytes).await {
        listen(&mut stream).await;
    }
}

/// A proxy that asks for ever more names that nobody has, long ones, and keeps its stream.
async fn invented_names(to: SocketAddr) {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{to}")) else { return };
    let Ok(channel) = endpoint.connect().await else { return };
    let id = "sidecar~10.84.0.1~evil.default~default.svc.cluster.local".to_owned();
    let asking = stream::iter(0..).map(move |number: u64| DeltaDiscoveryRequest {
        node: Some(Node { id: id.clone(), ..Node::default() }),
        type_url: ResourceType::Endpoint.type_url().to_owned(),
        resource_names_subscribe: vec![format!("{number}-{}", "n".repeat(256 << 10))],
        ..DeltaDiscoveryRequest::default()
    });
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let Ok(opened) = client.delta_aggregated_resources(asking).await else { return };
    let mut answers = opened.into_inner();
    while answers.message().await.is_ok_and(|answer| answer.is_some()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_serves_others_whatever_some_send() {
    let site = Arc::new(Site::start("127.84.1").await);
    let caller = Caller::new(site.clone());
    let victim =
        Victim { name: "control plane", process: site.process("control-plane"), bound: BOUND };
    round::run(&victim, &good(&site, &caller), &attacks(&site, &caller)).await;
}
