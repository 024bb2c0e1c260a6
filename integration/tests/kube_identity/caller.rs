//! A proxy's side of 15012: TLS, a certificate request made by openssl, and a stream.

use std::sync::{Arc, Once};

use ferromesh_integration::certificate;
use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// A certificate with its key, and the roots that came with it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pub(crate) roots: String,
}

/// Where a control plane is, and what it is trusted by.
#[derive(Clone)]
pub(crate) struct TlsPort {
    pub(crate) host: &'static str,
    pub(crate) roots: String,
}

impl TlsPort {
    async fn connect(&self, identity: Option<&Identity>) -> Channel {
        static PROVIDER: Once = Once::new();
        PROVIDER
            .call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root.expect("PEM")).expect("a root");
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(i) => builder
                .with_client_auth_cert(i.chain.clone(), i.key.clone_key())
                .expect("a key pair"),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, host) = (TlsConnector::from(Arc::new(config)), self.host);
        let dial = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect((host, 15012)).await?;
                let name = ServerName::try_from("ferromesh.local").expect("a name");
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://{host}:15012")).expect("an address");
        endpoint.connect_with_connector(dial).await.expect("the port answers")
    }

    /// Asks for a certificate that names `uri`, with a token or a held certificate.
    pub(crate) async fn sign(
        &self,
        token: Option<&str>,
        held: Option<&Identity>,
        uri: &str,
    ) -> Result<Identity, Status> {
        let (key, csr) = request_for(uri);
        let request = authorized(IstioCertificateRequest { csr, ..Default::default() }, token);
        let mut client = IstioCertificateServiceClient::new(self.connect(held).await);
        let mut elements = client.create_certificate(request).await?.into_inner().cert_chain;
        let roots = elements.pop().expect("the roots come last");
        let chain = elements
            .iter()
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
            .collect();
        Ok(Identity { chain, key, roots })
    }

    /// Opens a stream as node `id` and asks for resources.
    pub(crate) async fn ask(
        &self,
        token: Option<&str>,
        held: Option<&Identity>,
        id: &str,
        (kind, names): (ResourceType, &[&str]),
    ) -> Result<Follow, Status> {
        let (requests, outbox) = mpsc::unbounded_channel();
        let hello = DeltaDiscoveryRequest {
            node: Some(Node { id: id.to_owned(), ..Node::default() }),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        let _ = requests.send(hello);
        let outbox =
            stream::unfold(outbox, async |mut outbox| Some((outbox.recv().await?, outbox)));
        let mut client = AggregatedDiscoveryServiceClient::new(self.connect(held).await);
        let responses = client
            .delta_aggregated_resources(authorized(Box::pin(outbox), token))
            .await?
            .into_inner();
        Ok(Follow { _requests: requests, responses })
    }

    /// How many clusters a proxy with these credentials gets.
    pub(crate) async fn clusters(
        &self,
        token: Option<&str>,
        held: Option<&Identity>,
        id: &str,
    ) -> Result<usize, Status> {
        let mut stream = self.ask(token, held, id, (ResourceType::Cluster, &["*"])).await?;
        Ok(stream.next().await?.resources.len())
    }
}

/// An open stream.
pub(crate) struct Follow {
    _requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Follow {
    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        self.responses.message().await?.ok_or_else(|| Status::aborted("the stream ended"))
    }
}

fn authorized<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    }
    request
}

/// A new key, and a request of openssl's that names `uri`.
fn request_for(uri: &str) -> (PrivateKeyDer<'static>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("key.pem");
    let names = format!("subjectAltName=critical,URI:{uri}");
    let request = certificate::request(&key, &["-addext", &names]);
    let key = PrivateKeyDer::from_pem_file(&key).expect("a key");
    (key, request)
}
