//! The secret discovery service for Envoy, on a Unix socket that only the agent's user can open.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ferromesh_proto::{
    EncodedResource, ResourceType,
    discovery::{
        Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        Resource, Status as Nack,
    },
    extension::extension_config_discovery_service_server::ExtensionConfigDiscoveryServiceServer,
    secret::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    code::Relay,
    secret_stream::{Push, SecretStream, Secrets},
};
use crate::identity::IdentityWatch;

/// Answers that may wait for a slow reader; two secrets change every few seconds at most.
const QUEUE: usize = 4;
/// How often files that are served are looked at: they may come later, or change.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);
/// A Unix socket's path must fit into the kernel's address structure.
const MAX_PATH: usize = 107;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SdsError {
    /// The socket cannot be made.
    #[error("SDS socket {path}: {source}", path = .path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path does not fit into a socket address.
    #[error("SDS socket {path}: the path has {length} bytes: at most {MAX_PATH} are possible", path = .path.display())]
    PathTooLong {
        /// Where.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Another process answers there.
    #[error("SDS socket {path}: another agent serves it: give each proxy a directory of its own", path = .path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The server failed.
    #[error("SDS server: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Makes the socket with the given mode, in place of one that a crashed agent left.
///
/// # Errors
/// [`SdsError`] when the path is unusable or another agent answers there.
pub async fn bind(path: &Path, mode: u32) -> Result<UnixListener, SdsError> {
    let length = path.as_os_str().len();
    // The socket is born under a slightly longer name, so that nobody can connect before its mode
    // is set.
    let nascent = path.with_extension("new");
    if nascent.as_os_str().len() > MAX_PATH {
        return Err(SdsError::PathTooLong { path: path.to_owned(), length });
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(SdsError::InUse { path: path.to_owned() });
    }
    let failed = |source| SdsError::Bind { path: path.to_owned(), source };
    match fs::remove_file(&nascent) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&nascent).map_err(failed)?;
    fs::set_permissions(&nascent, fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&nascent, path).map_err(failed)?;
    Ok(listener)
}

/// Serves the newest identity, and what `relay` has, until `stop`.
///
/// # Errors
/// [`SdsError::Serve`] when the server fails.
pub async fn serve(
    listener: UnixListener,
    identity: IdentityWatch,
    relay: Relay,
    stop: CancellationToken,
) -> Result<(), SdsError> {
    let service = SecretDiscoveryServiceServer::new(Sds { identity });
    let incoming = UnixListenerStream::new(listener);
    Ok(Server::builder()
        .add_service(service)
        .add_service(ExtensionConfigDiscoveryServiceServer::new(relay))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?)
}

struct Sds {
    identity: IdentityWatch,
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(start::<Delta>(request.into_inner(), self.identity.clone())))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(start::<StateOfTheWorld>(request.into_inner(), self.identity.clone())))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed: use StreamSecrets or DeltaSecrets"))
    }
}

/// How one of the two protocols reads requests and frames answers.
trait Variant: 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    /// Applies a request to the stream; returns the client's complaint, if it is one.
    fn receive(stream: &mut SecretStream, request: Self::Request) -> Option<Nack>;
    /// The answer to send, or `None` where this protocol has no words for it.
    fn frame(push: Push) -> Option<Self::Response>;
}

fn start<V: Variant>(
    requests: Streaming<V::Request>,
    identity: IdentityWatch,
) -> ReceiverStream<Result<V::Response, Status>> {
    let (responses, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(run::<V>(requests, identity, responses));
    ReceiverStream::new(receiver)
}

/// Ends with the client, or with the agent's identity source.
async fn run<V: Variant>(
    mut requests: Streaming<V::Request>,
    mut identity: IdentityWatch,
    responses: mpsc::Sender<Result<V::Response, Status>>,
) {
    let mut stream = SecretStream::default();
    let mut look = tokio::time::interval(LOOK_AT_FILES);
    let mut told = BTreeSet::new();
    loop {
        tokio::select! {
            _ = look.tick() => if stream.files().is_empty() { continue },
            request = requests.message() => match request {
                Ok(Some(request)) => {
                    if let Some(Nack { code, message }) = V::receive(&mut stream, request) {
                        tracing::error!(code, message, "Envoy refused a secret");
                    }
                }
                Ok(None) | Err(_) => return,
            },
            changed = identity.changed() => if changed.is_err() { return },
            () = responses.closed() => return,
        }
        let mut secrets =
            identity.borrow_and_update().as_deref().map(Secrets::of).unwrap_or_default();
        for error in secrets.add_files(&stream.files()) {
            let error = error.to_string();
            if told.insert(error.clone()) {
                tracing::warn!(
                    error,
                    "Envoy asks for a secret whose file is not there: what needs it is closed until it is"
                );
            }
        }
        let answer = stream.due(Some(&secrets)).and_then(V::frame);
        if let Some(answer) = answer
            && responses.send(Ok(answer)).await.is_err()
        {
            return;
        }
    }
}

struct StateOfTheWorld;

impl Variant for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn receive(stream: &mut SecretStream, request: DiscoveryRequest) -> Option<Nack> {
        if stream.is_current(&request.response_nonce) {
            stream.replace(request.resource_names);
        }
        request.error_detail
    }

    fn frame(push: Push) -> Option<DiscoveryResponse> {
        warn_unknown(&push.unknown);
        (!push.secrets.is_empty()).then(|| DiscoveryResponse {
            version_info: push.version(),
            resources: push.secrets.into_iter().map(any).collect(),
            type_url: ResourceType::Secret.type_url().to_owned(),
            nonce: push.nonce,
            ..DiscoveryResponse::default()
        })
    }
}

struct Delta;

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn receive(stream: &mut SecretStream, request: DeltaDiscoveryRequest) -> Option<Nack> {
        // Subscriptions count whatever the nonce: only what is acknowledged by it would be
        // outdated.
        stream.unsubscribe(&request.resource_names_unsubscribe);
        stream.subscribe(request.resource_names_subscribe);
        stream.holds(&request.initial_resource_versions);
        request.error_detail
    }

    fn frame(push: Push) -> Option<DeltaDiscoveryResponse> {
        warn_unknown(&push.unknown);
        Some(DeltaDiscoveryResponse {
            system_version_info: push.version(),
            resources: push.secrets.into_iter().map(resource).collect(),
            type_url: ResourceType::Secret.type_url().to_owned(),
            nonce: push.nonce,
            removed_resources: push.unknown,
            ..DeltaDiscoveryResponse::default()
        })
    }
}

fn warn_unknown(names: &[String]) {
    for name in names {
        tracing::warn!(
            name,
            "Envoy asks the agent for a secret that it does not have: expected default, ROOTCA, file-root:PATH or file-cert:CHAIN~KEY"
        );
    }
}

fn any(secret: EncodedResource) -> Any {
    Any { type_url: ResourceType::Secret.type_url().to_owned(), value: secret.body }
}

fn resource(secret: EncodedResource) -> Resource {
    Resource {
        version: secret.version.to_string(),
        name: secret.name.to_string(),
        resource: Some(any(secret)),
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, testing};
    use ferromesh_proto::secret::{
        Secret, secret::Type, secret_discovery_service_client::SecretDiscoveryServiceClient,
    };
    use prost::Message;
    use std::sync::Arc;
    use tokio::sync::watch;
    use tonic::transport::Endpoint;

    fn fresh() -> Option<Arc<Identity>> {
        Some(Arc::new(testing::identity("spiffe://cluster.local/ns/shop/sa/cart")))
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        identity: watch::Sender<Option<Arc<Identity>>>,
        client: SecretDiscoveryServiceClient<tonic::transport::Channel>,
        stop: CancellationToken,
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    async fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sds");
        let (identity, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let listener = bind(&path, 0o600).await.unwrap();
        tokio::spawn(serve(listener, receiver, Relay::default(), stop.clone()));
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
        let client = SecretDiscoveryServiceClient::new(endpoint.connect().await.unwrap());
        Fixture { _dir: dir, identity, client, stop }
    }

    fn decode(any: &Any) -> Secret {
        Secret::decode(any.value.clone()).unwrap()
    }

    #[tokio::test]
    async fn a_stream_gets_its_secret_when_it_arrives_and_each_time_it_changes() {
        let mut fixture = fixture().await;
        let (requests, outgoing) = mpsc::channel(4);
        let ask = |nonce: &str| DiscoveryRequest {
            resource_names: vec!["default".into()],
            response_nonce: nonce.into(),
            ..DiscoveryRequest::default()
        };
        requests.send(ask("")).await.unwrap();
        let mut answers = fixture
            .client
            .stream_secrets(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        let mut versions = Vec::new();
        for _ in 0..3 {
            fixture.identity.send_replace(fresh());
            let answer = answers.message().await.unwrap().unwrap();
            let secret = decode(&answer.resources[0]);
            assert_eq!((secret.name.as_str(), answer.resources.len()), ("default", 1));
            assert!(matches!(secret.r#type, Some(Type::TlsCertificate(_))));
            versions.push(answer.version_info);
            requests.send(ask(&answer.nonce)).await.unwrap();
        }
        versions.dedup();
        assert_eq!(versions.len(), 3);
    }

    #[tokio::test]
    async fn a_delta_stream_gets_both_secrets_and_word_of_what_does_not_exist() {
        let mut fixture = fixture().await;
        fixture.identity.send_replace(fresh());
        let (requests, outgoing) = mpsc::channel(4);
        let names = ["default", "ROOTCA", "nothing"].map(str::to_owned).to_vec();
        requests
            .send(DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() })
            .await
            .unwrap();
        let mut answers =
            fixture.client.delta_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(
            answer.resources.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
            ["ROOTCA", "default"]
        );
        assert_eq!(answer.removed_resources, ["nothing"]);
    }

    #[tokio::test]
    async fn the_socket_is_private_and_replaces_a_stale_one_but_not_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sds");
        drop(bind(&path, 0o600).await.unwrap());
        let _live = bind(&path, 0o600).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path, 0o600).await, Err(SdsError::InUse { .. })));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(bind(&long, 0o600).await, Err(SdsError::PathTooLong { .. })));
    }
}
