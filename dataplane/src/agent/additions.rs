//! What users add to the bootstrap of an Envoy (EnvoyFilter, BOOTSTRAP): asked for before it starts,
//! and tried out by Envoy itself.
//!
//! An Envoy that cannot start with it starts without, and the control plane is told why. What
//! changes later holds from the agent's next start on, as with Istio's; until then the control
//! plane is told that it does not hold yet.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use ferromesh_proto::{BOOTSTRAP, ResourceType, discovery::DeltaDiscoveryResponse};
use tokio::process::Command;

use super::{
    beside::{AGAIN, Asker, Stream},
    bootstrap::Start,
    envoy::EnvoySettings,
};

/// How long the control plane may take to say what is added.
const ANSWER: Duration = Duration::from_secs(5);
/// How long Envoy may take to say whether it can start.
const TRIAL: Duration = Duration::from_secs(20);
/// How much of what Envoy says of a mistake is told.
const LONGEST_REASON: usize = 2048;
/// What is told of additions that came after the start.
const LATER: &str = "the Envoy runs with what its bootstrap had at its start: this holds once its \
                     agent is started again";

/// Extends what an Envoy is started with by what users add, if it can start with that. What is
/// returned is to be polled while Envoy runs; `None`: nothing is added.
pub async fn extend(envoy: &mut EnvoySettings, asker: Asker) -> Option<Follower> {
    let asked = tokio::time::timeout(ANSWER, ask(&asker)).await;
    let (stream, added) = match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok((stream, Some(added))) => (stream, added),
        Ok((_, None)) => return None,
        Err(why) => {
            tracing::warn!(
                why,
                "what is added to the bootstrap cannot be asked for: Envoy starts without"
            );
            return Some(Follower { asker, stream: None, tried: None, refused: None });
        }
    };
    let refused = match attempt(envoy, &added).await {
        Ok(extended) => {
            envoy.bootstrap = extended;
            tracing::info!("Envoy starts with what is added to its bootstrap");
            None
        }
        Err(why) => {
            tracing::error!(why, "Envoy starts without what is added to its bootstrap");
            Some(why)
        }
    };
    stream.tell(refused.clone());
    Some(Follower { asker, stream: Some(stream), tried: Some(added), refused })
}

/// Hears of additions that change while Envoy runs.
pub struct Follower {
    asker: Asker,
    stream: Option<Stream>,
    /// What was added when Envoy started.
    tried: Option<Bytes>,
    /// Why it was started without.
    refused: Option<String>,
}

impl Follower {
    /// Tells the control plane what does not hold yet; ends when nothing is added any more, and
    /// nothing was.
    pub async fn run(mut self) {
        loop {
            let (stream, added) = match self.stream.take() {
                Some(stream) => (stream, None),
                None => match ask(&self.asker).await {
                    Ok((stream, added)) => (stream, Some(added)),
                    Err(_) => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            if added.as_ref().is_some_and(Option::is_none) && self.tried.is_none() {
                return;
            }
            if let Some(added) = added {
                stream.tell(self.objection(added.as_ref()));
            }
            self.follow(stream).await;
        }
    }

    async fn follow(&self, mut stream: Stream) {
        while let Ok(answer) = stream.next().await {
            let added = added_by(answer);
            let why = self.objection(added.as_ref());
            if added != self.tried {
                tracing::warn!("what is added to the bootstrap has changed: {LATER}");
            }
            stream.tell(why);
        }
    }

    /// Why what is added does not hold.
    fn objection(&self, added: Option<&Bytes>) -> Option<String> {
        match added == self.tried.as_ref() {
            true => self.refused.clone(),
            // What is taken away cannot be refused.
            false => added.map(|_| LATER.to_owned()),
        }
    }
}

/// Asks what is added; `None`: nothing is.
async fn ask(asker: &Asker) -> Result<(Stream, Option<Bytes>), String> {
    let mut stream = asker.open(ResourceType::Bootstrap, vec![BOOTSTRAP.to_owned()]).await?;
    let added = added_by(stream.next().await?);
    Ok((stream, added))
}

fn added_by(answer: DeltaDiscoveryResponse) -> Option<Bytes> {
    let mut bodies = answer.resources.into_iter().filter(|resource| resource.name == BOOTSTRAP);
    bodies.find_map(|resource| Some(resource.resource?.value))
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
    let Start::Own(own) = own else { return Ok(own.clone()) };
    let text = fs::read_to_string(own)?;
    let added = write(own.parent().unwrap_or(Path::new(".")), added)?;
    Ok(Start::Extended { added, own: own.clone(), text })
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
