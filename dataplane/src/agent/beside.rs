//! What an agent itself asks of the control plane, beside its Envoy: one type of resources, over a
//! stream of its own.

use std::time::Duration;

use ferromesh_proto::{
    AGENT, ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::{
    identity::{
        IdentityWatch,
        channel::{self, TlsTarget},
    },
    resolve::Resolver,
};

/// Until a control plane that does not answer is asked again.
pub const AGAIN: Duration = Duration::from_secs(5);
/// gRPC's `INVALID_ARGUMENT`, which a NACK carries.
const INVALID_ARGUMENT: i32 = 3;

/// Who asks, and whom.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The Envoy that it asks for.
    node: Node,
    target: TlsTarget,
    identity: IdentityWatch,
}

impl Asker {
    /// Asks for what the proxy `node` gets.
    pub fn new(node: Node, target: TlsTarget, identity: IdentityWatch) -> Self {
        Self { node: Node { user_agent_name: AGENT.to_owned(), ..node }, target, identity }
    }

    /// Opens a stream that subscribes to these resources of a type.
    ///
    /// # Errors
    /// The control plane cannot be reached, with why.
    pub async fn open(&self, kind: ResourceType, names: Vec<String>) -> Result<Stream, String> {
        let held = self.identity.borrow().clone();
        let channel = channel::connect(&self.target, held.as_deref(), &Resolver::default()).await;
        let channel = channel.map_err(|error| channel::causes(&error))?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        let first = DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            resource_names_subscribe: names,
            ..about(kind)
        };
        // Where the stream has ended, reading tells.
        let _ = requests.send(first);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let answers = client.delta_aggregated_resources(outgoing).await;
        let answers = answers.map_err(|status| status.to_string())?.into_inner();
        Ok(Stream { kind, requests, answers, nonce: String::new() })
    }
}

/// An open stream.
pub struct Stream {
    kind: ResourceType,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
    nonce: String,
}

impl Stream {
    /// The next answer, to be told of by [`Self::tell`].
    ///
    /// # Errors
    /// The stream has ended, with why.
    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, String> {
        let answer = self.answers.message().await.map_err(|status| status.to_string())?;
        let answer = answer.ok_or("the control plane has ended the stream")?;
        self.nonce.clone_from(&answer.nonce);
        Ok(answer)
    }

    /// Tells that what came last is in force, or why it is not.
    pub fn tell(&self, why: Option<String>) {
        let _ = self.requests.send(DeltaDiscoveryRequest {
            response_nonce: self.nonce.clone(),
            error_detail: why.map(|message| Status { code: INVALID_ARGUMENT, message }),
            ..about(self.kind)
        });
    }
}

fn about(kind: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() }
}
