//! Configurations of filters whose code is in an image: the agent asks the control plane for what
//! its Envoy asks it for, pulls the module, and hands the configuration on with a file in its place.
//!
//! ```text
//! control plane ◀─ADS─ Relay ─watch─▶ a stream per filter ◀─ECDS (Unix socket)─ Envoy
//!                        └──▶ Images ──▶ registry
//! ```
//! What cannot be pulled is said to the control plane and tried again; until then what the
//! configuration says stands in for it: nobody passes, or everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use ferromesh_proto::{
    IMAGE_PULL, ResourceType,
    discovery::{
        Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        Resource,
    },
    extension::extension_config_discovery_service_server::ExtensionConfigDiscoveryService,
    secret::{DataSource, GenericSecret, Secret, data_source::Specifier, secret::Type},
};
use futures_util::{StreamExt, future::join_all};
use prost::Message;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::{
    StreamMap,
    wrappers::{ReceiverStream, WatchStream},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    beside::{AGAIN, Asker, Stream},
    image::{Images, Wanted},
};
use crate::compile::ImagedCode;

/// Until a pull that failed is tried again; twice as long each time, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long the control plane may take to hand on a secret.
const SECRET: Duration = Duration::from_secs(10);
/// Answers that may wait for a slow reader.
const QUEUE: usize = 4;

/// What an Envoy is to have by a name.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Served {
    /// Of the control plane's resource.
    version: String,
    /// Whether it is the code itself, and not what stands in for it.
    whole: bool,
    body: Bytes,
}

type Slot = watch::Sender<Option<Served>>;

/// Shared by the streams of an Envoy and what asks for them.
#[derive(Clone, Default)]
pub struct Relay(Arc<Shared>);

#[derive(Default)]
struct Shared {
    slots: Mutex<BTreeMap<String, Slot>>,
    /// What Envoy has refused: version and reason, by name.
    refused: Mutex<BTreeMap<String, (String, String)>>,
    /// Something is wanted that was not, or refused.
    changed: Notify,
}

impl Relay {
    fn subscribe(&self, name: &str) -> watch::Receiver<Option<Served>> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name.to_owned()).or_insert_with(|| {
            self.0.changed.notify_one();
            watch::channel(None).0
        });
        slot.subscribe()
    }

    fn names(&self) -> Vec<String> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn served(&self, name: &str) -> Option<Served> {
        let slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(name)?.borrow().clone()
    }

    fn publish(&self, name: &str, served: Served) {
        let slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            slot.send_replace(Some(served));
        }
    }

    /// Envoy cannot use what it was sent last.
    fn refuse(&self, names: &BTreeSet<String>, why: &str) {
        let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let Some(served) = self.served(name) else { continue };
            refused.insert(name.clone(), (served.version, why.to_owned()));
        }
        self.0.changed.notify_one();
    }

    fn refusal(&self, name: &str, version: &str) -> Option<String> {
        let refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(name).filter(|(of, _)| of == version).map(|(_, why)| why.clone())
    }

    /// Asks the control plane for what Envoy wants, as long as it wants anything; never ends.
    pub async fn run(self, asker: Asker, images: Images) {
        let mut wait = FIRST_WAIT;
        loop {
            while self.names().is_empty() {
                self.0.changed.notified().await;
            }
            match asker.open(ResourceType::Extension, self.names()).await {
                Ok(stream) => match self.follow(stream, (&asker, &images), wait).await {
                    Ended::Changed => wait = FIRST_WAIT,
                    Ended::Failed => wait = (wait * 2).min(LONGEST_WAIT),
                    Ended::Closed => tokio::time::sleep(AGAIN).await,
                },
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// `wait`: until something that failed is asked for again, so that what is in force then is
    /// said.
    async fn follow(&self, mut stream: Stream, means: (&Asker, &Images), wait: Duration) -> Ended {
        let mut again = None;
        loop {
            let due = async {
                match again {
                    Some(again) => tokio::time::sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                answer = stream.next() => answer,
                () = self.0.changed.notified() => return Ended::Changed,
                () = due => return Ended::Failed,
            };
            let Ok(answer) = answer else { return Ended::Closed };
            let served = join_all(answer.resources.into_iter().map(|one| self.serve(one, means)));
            let failures: Vec<String> = served.await.into_iter().flatten().collect();
            if !failures.is_empty() {
                again = Some(tokio::time::Instant::now() + wait);
            }
            stream.tell((!failures.is_empty()).then(|| failures.join("; ")));
        }
    }

    /// Why the resource is not in force, if it is not.
    async fn serve(
        &self,
        resource: Resource,
        (asker, images): (&Asker, &Images),
    ) -> Option<String> {
        let Resource { name, version, resource: any, .. } = resource;
        let body = any?.value;
        if let Some(why) = self.refusal(&name, &version) {
            return Some(format!("{name}: {why}"));
        }
        let current = self.served(&name).filter(|served| served.version == version);
        if current.is_some_and(|served| served.whole) {
            return None;
        }
        let Some(code) = ImagedCode::read(&body) else {
            self.publish(&name, Served { version, whole: true, body });
            return None;
        };
        let module = match Wanted::parse(&code.url, &code.digest) {
            Ok(wanted) => {
                let secret = wanted.secret.as_deref().map(|name| pull_secret(asker, name));
                images.module(&wanted, secret).await
            }
            Err(why) => Err(why),
        };
        let (why, whole, body) = match module {
            Ok(path) => (None, true, code.with_file(&path)),
            Err(why) => {
                tracing::error!(name, why, "a module cannot be pulled: what is said stands in");
                (Some(format!("{name}: {why}")), false, code.stand_in())
            }
        };
        self.publish(&name, Served { version, whole, body: body.into() });
        why
    }
}

/// The content of a Secret that a registry takes.
async fn pull_secret(asker: &Asker, name: &str) -> Result<Bytes, String> {
    let resource = format!("{IMAGE_PULL}{name}");
    let mut stream = asker.open(ResourceType::Secret, vec![resource.clone()]).await?;
    let answer = tokio::time::timeout(SECRET, stream.next()).await;
    let answer = answer.map_err(|_| "the control plane does not answer".to_owned())??;
    stream.tell(None);
    let found = answer.resources.into_iter().find(|found| found.name == resource);
    let body = found.and_then(|found| Some(found.resource?.value));
    let secret = body.and_then(|body| Secret::decode(body).ok()).and_then(|secret| secret.r#type);
    match secret {
        Some(Type::GenericSecret(GenericSecret {
            secret: Some(DataSource { specifier: Some(Specifier::InlineBytes(content)) }),
        })) => Ok(content),
        _ => Err(format!("the Secret {name} is not there, or has no `.dockerconfigjson`")),
    }
}

/// Why a stream was left.
enum Ended {
    /// Something else is wanted.
    Changed,
    /// Something is to be tried again.
    Failed,
    /// By the control plane.
    Closed,
}

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Relay {
    type StreamExtensionConfigsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaExtensionConfigsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_extension_configs(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamExtensionConfigsStream>, Status> {
        Err(Status::unimplemented("use DeltaExtensionConfigs"))
    }

    async fn delta_extension_configs(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaExtensionConfigsStream>, Status> {
        let (responses, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(answer(self.clone(), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch_extension_configs(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("use DeltaExtensionConfigs"))
    }
}

/// Sends what a stream asks for, whenever it changes; ends with the client.
async fn answer(
    relay: Relay,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) {
    let mut followed: StreamMap<String, WatchStream<Option<Served>>> = StreamMap::new();
    let mut nonce = 0u64;
    loop {
        let (name, served) = tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                for name in request.resource_names_unsubscribe {
                    followed.remove(&name);
                }
                for name in request.resource_names_subscribe {
                    let changes = WatchStream::new(relay.subscribe(&name));
                    followed.insert(name, changes);
                }
                if let Some(error) = request.error_detail {
                    tracing::error!(error.message, "Envoy refused a module");
                    let names: BTreeSet<String> = followed.keys().cloned().collect();
                    relay.refuse(&names, &error.message);
                }
                continue;
            }
            next = followed.next(), if !followed.is_empty() => match next {
                Some((name, Some(served))) => (name, served),
                _ => continue,
            },
            () = responses.closed() => return,
        };
        nonce += 1;
        let type_url = ResourceType::Extension.type_url().to_owned();
        let any = Any { type_url: type_url.clone(), value: served.body };
        let version = format!("{}{}", served.version, if served.whole { "" } else { "-stand-in" });
        let resource = Resource { name, version, resource: Some(any), ..Resource::default() };
        let response = DeltaDiscoveryResponse {
            type_url,
            nonce: nonce.to_string(),
            resources: vec![resource],
            ..DeltaDiscoveryResponse::default()
        };
        if responses.send(Ok(response)).await.is_err() {
            return;
        }
    }
}
