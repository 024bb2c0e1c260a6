//! What users add to the bootstrap of an Envoy (EnvoyFilter, BOOTSTRAP): asked for once, before it
//! starts, and tried out by Envoy itself.
//!
//! An Envoy that cannot start with it starts without, and the control plane is told why. What
//! changes later holds from the next start on, as with Istio's agents.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use ferromesh_proto::{
    BOOTSTRAP, ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use tokio::{process::Command, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::{bootstrap::Start, envoy::EnvoySettings};
use crate::{
    identity::{
        IdentityWatch,
        channel::{self, TlsTarget},
    },
    resolve::Resolver,
};

/// How long the control plane may take to say what is added.
const ANSWER: Duration = Duration::from_secs(5);
/// How long Envoy may take to say whether it can start.
const TRIAL: Duration = Duration::from_secs(20);
/// How long the control plane may take to hear it.
const FAREWELL: Duration = Duration::from_secs(2);
/// gRPC's `INVALID_ARGUMENT`, which a NACK carries.
const INVALID_ARGUMENT: i32 = 3;
/// How much of what Envoy says of a mistake is told.
const LONGEST_REASON: usize = 2048;

/// Extends what an Envoy is started with by what users add, if it can start with that.
pub async fn extend(
    envoy: &mut EnvoySettings,
    node: Node,
    target: &TlsTarget,
    identity: &IdentityWatch,
) {
    let asked = Conversation::open(node, target, identity);
    let (conversation, added) = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok((conversation, Some(added)))) => (conversation, added),
        Ok(Ok((_, None))) => return,
        Ok(Err(why)) => return unasked(&why),
        Err(_) => return unasked("no answer in time"),
    };
    let outcome = attempt(envoy, &added).await;
    if let Err(why) = &outcome {
        tracing::error!(why, "Envoy starts without what is added to its bootstrap");
    }
    if let Ok(extended) = &outcome {
        envoy.bootstrap = extended.clone();
        tracing::info!("Envoy starts with what is added to its bootstrap");
    }
    conversation.answer(outcome.err()).await;
}

fn unasked(why: &str) {
    tracing::warn!(why, "what is added to the bootstrap cannot be asked for: Envoy starts without");
}

/// One stream to the control plane.
struct Conversation {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
    nonce: String,
}

impl Conversation {
    /// Asks what is added; `None`: nothing is.
    async fn open(
        node: Node,
        target: &TlsTarget,
        identity: &IdentityWatch,
    ) -> Result<(Self, Option<Bytes>), String> {
        let held = identity.borrow().clone();
        let channel = channel::connect(target, held.as_deref(), &Resolver::default()).await;
        let channel = channel.map_err(|error| channel::causes(&error))?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            resource_names_subscribe: vec![BOOTSTRAP.to_owned()],
            ..about_bootstraps()
        };
        // Where the stream has ended, reading tells.
        let _ = requests.send(request);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let stream = UnboundedReceiverStream::new(outgoing);
        let answers = client.delta_aggregated_resources(stream).await;
        let mut answers = answers.map_err(|status| status.to_string())?.into_inner();
        let answer = answers.message().await.map_err(|status| status.to_string())?;
        let answer = answer.ok_or("the control plane has ended the stream")?;
        let bodies = answer.resources.into_iter().filter(|resource| resource.name == BOOTSTRAP);
        let added = bodies.filter_map(|resource| Some(resource.resource?.value)).next();
        Ok((Self { requests, answers, nonce: answer.nonce }, added))
    }

    /// Tells the control plane that it is in force, or why it is not, and leaves.
    async fn answer(mut self, why: Option<String>) {
        let request = DeltaDiscoveryRequest {
            response_nonce: std::mem::take(&mut self.nonce),
            error_detail: why.map(|message| Status { code: INVALID_ARGUMENT, message }),
            ..about_bootstraps()
        };
        let _ = self.requests.send(request);
        // Who has said all is heard out.
        drop(self.requests);
        let rest = async { while let Ok(Some(_)) = self.answers.message().await {} };
        let _ = tokio::time::timeout(FAREWELL, rest).await;
    }
}

fn about_bootstraps() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ResourceType::Bootstrap.type_url().to_owned(),
        ..Default::default()
    }
}

/// What an Envoy would be started with, after it was asked whether it can.
async fn attempt(envoy: &EnvoySettings, added: &[u8]) -> Result<Start, String> {
    let extended = extended(&envoy.bootstrap, added).map_err(|error| error.to_string())?;
    let mut command = Command::new(&envoy.binary);
    command.args(["--mode", "validate", "--disable-hot-restart", "-l", "critical"]);
    command.args(extended.arguments()).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(TRIAL, command.output()).await;
    let done = done.map_err(|_| "Envoy does not say whether it can start with it".to_owned())?;
    let done = done.map_err(|error| format!("{}: {error}", envoy.binary.display()))?;
    if done.status.success() {
        return Ok(extended);
    }
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let mut reason: String = said.trim().chars().take(LONGEST_REASON).collect();
    if reason.is_empty() {
        reason = format!("Envoy ended with {}", done.status);
    }
    Err(reason)
}

/// Puts what users add beside our own bootstrap.
fn extended(own: &Start, added: &[u8]) -> io::Result<Start> {
    let Start::Own(path) = own else { return Ok(own.clone()) };
    let own = fs::read_to_string(path)?;
    let file = write(path.parent().unwrap_or(Path::new(".")), added)?;
    Ok(Start::Extended { added: file, own })
}

fn write(folder: &Path, added: &[u8]) -> io::Result<PathBuf> {
    let path = folder.join("additions.pb");
    let nascent = folder.join(".additions.pb.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&nascent)?;
    file.write_all(added)?;
    fs::rename(&nascent, &path)?;
    Ok(path)
}
