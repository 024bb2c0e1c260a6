//! A machine of a WorkloadGroup, beside whose proxy we run: tells the control plane whether it is
//! well.
//!
//! Over a stream of its own, because an Envoy speaks to the control plane itself. It asks for
//! nothing, and it proves the same identity, so that it speaks for the same machine.

use std::time::Duration;

use ferromesh_proto::{
    HEALTH_INFORMATION,
    discovery::{
        DeltaDiscoveryRequest, Node, Status,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{
    identity::{
        IdentityWatch,
        channel::{self, TlsTarget},
    },
    pod::{Application, HealthProbe},
    resolve::Resolver,
};

/// Between two streams; the control plane remembers a machine for ten seconds.
const AGAIN: Duration = Duration::from_secs(2);
/// gRPC's code for an error that says no more (`google.rpc.Status.code`).
const UNKNOWN: i32 = 2;

/// What is needed to tell how a machine is.
pub struct Machine {
    /// Who its proxy is.
    pub node: Node,
    /// The control plane.
    pub target: TlsTarget,
    /// The proxy's certificate, without which nobody believes anything.
    pub identity: IdentityWatch,
    /// What is asked.
    pub application: Application,
    /// How it is asked.
    pub probe: HealthProbe,
}

impl Machine {
    /// Tells it for ever.
    pub async fn run(self) {
        let (told, health) = watch::channel(None);
        tokio::spawn(self.probe.clone().watch(self.application, told));
        loop {
            if let Err(why) = self.tell(health.clone()).await {
                tracing::debug!(%why, "the machine's health cannot be told");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tells it until the stream ends.
    async fn tell(&self, mut health: watch::Receiver<Option<bool>>) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| channel::causes(error);
        let mut identity = self.identity.clone();
        let held = identity.wait_for(Option::is_some).await.map_err(|e| text(&e))?.clone();
        health.wait_for(Option::is_some).await.map_err(|e| text(&e))?;
        let channel = channel::connect(&self.target, held.as_deref(), &Resolver::default()).await;
        let mut client = AggregatedDiscoveryServiceClient::new(channel.map_err(|e| text(&e))?);
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut node = Some(self.node.clone());
        let mut say = |well: Option<bool>| {
            // Where the stream has ended, reading tells.
            let _ = requests.send(report(node.take(), well == Some(true)));
        };
        say(*health.borrow_and_update());
        let stream = UnboundedReceiverStream::new(outgoing);
        let answers = client.delta_aggregated_resources(stream).await;
        let mut answers = answers.map_err(|status| status.to_string())?.into_inner();
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status.to_string()),
                },
                changed = health.changed() => match changed {
                    Ok(()) => say(*health.borrow_and_update()),
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}

fn report(node: Option<Node>, well: bool) -> DeltaDiscoveryRequest {
    let error = || Status { code: UNKNOWN, message: "the probe failed".to_owned() };
    DeltaDiscoveryRequest {
        node,
        type_url: HEALTH_INFORMATION.to_owned(),
        error_detail: (!well).then(error),
        ..DeltaDiscoveryRequest::default()
    }
}
