//! One client: subscribes as Envoy does, acknowledges everything, and remembers names and versions
//! but no bodies.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use ferromesh_proto::{
    ResourceType, Version,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use ferromesh_xds_translator::debug;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tonic::{Code, Streaming, transport::Endpoint};

use crate::{board::Board, counted::Counted, server::ADDRESS, setting};

/// Envoy's windows for one stream and for a connection (1.36 and later).
const WINDOWS: (u32, u32) = (16 << 20, 24 << 20);
/// Largest response.
const LARGEST: usize = 256 << 20;
/// Pause before a client that was turned away comes back (Envoy: 0.5 s, growing, with jitter).
const PAUSE: Duration = Duration::from_secs(1);
/// Types that are subscribed to as a whole, and those that are asked for by name.
const WILDCARDS: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::Listener];
const BY_NAME: [ResourceType; 2] = [ResourceType::Endpoint, ResourceType::Route];

/// Texts that many clients have in common, kept once.
#[derive(Default)]
pub(crate) struct Texts(Mutex<HashSet<Arc<str>>>);

impl Texts {
    fn shared(&self, text: &str) -> Arc<str> {
        let mut known = self.0.lock().expect("nobody panics with it");
        if let Some(shared) = known.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = text.into();
        known.insert(shared.clone());
        shared
    }
}

/// A client, connected or not.
pub(crate) struct Proxy {
    number: usize,
    board: Arc<Board>,
    texts: Arc<Texts>,
    /// Versions by name, by type.
    has: [HashMap<Arc<str>, Version>; ResourceType::ALL.len()],
    /// What was asked for by name and has not come yet.
    missing: HashSet<(usize, Arc<str>)>,
    configured: bool,
}

/// The two ends of a stream.
struct Link {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Proxy {
    /// The client with this number, which has nothing yet.
    pub(crate) fn new(number: usize, board: Arc<Board>, texts: Arc<Texts>) -> Self {
        Self {
            number,
            board,
            texts,
            has: Default::default(),
            missing: HashSet::new(),
            configured: false,
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// How many resources of a type it has.
    pub(crate) fn count(&self, kind: ResourceType) -> usize {
        self.has[kind.index()].len()
    }

    /// Connects, tells what it has, and follows until `stop`. As Envoy, it comes back when it is
    /// told to.
    ///
    /// # Errors
    /// The server closes the stream after it took it in, or sends what cannot be understood.
    pub(crate) async fn follow(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<Self> {
        loop {
            let mut link = self.connect().await?;
            let ended = loop {
                tokio::select! {
                    _ = stop.changed() => return Ok(self),
                    response = link.responses.message() => match response {
                        Ok(response) => {
                            for request in self.take(&response.context("the server closed the stream")?)? {
                                let _ = link.requests.send(request);
                            }
                        }
                        Err(status) => break status,
                    }
                }
            };
            ensure!(ended.code() == Code::ResourceExhausted && self.missing.is_empty(), "{ended}");
            self.board.turned_away.fetch_add(1, Ordering::Relaxed);
            self.board.opened.fetch_sub(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    async fn connect(&self) -> anyhow::Result<Link> {
        let endpoint = Endpoint::from_shared(format!("http://{}:15010", *ADDRESS))?
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1);
        let bytes = self.board.bytes.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let bytes = bytes.clone();
            async move {
                let stream = TcpStream::connect((*ADDRESS, 15010)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(Counted { stream, bytes }))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await?;
        let (requests, outbox) = mpsc::unbounded_channel();
        for request in self.hello() {
            let _ = requests.send(request);
        }
        let outbox =
            stream::unfold(outbox, async |mut outbox| Some((outbox.recv().await?, outbox)));
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST);
        let responses = client.delta_aggregated_resources(Box::pin(outbox)).await?.into_inner();
        self.board.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Link { requests, responses })
    }

    /// First requests: with nothing, the two wildcards; otherwise all types, with what is there.
    fn hello(&self) -> Vec<DeltaDiscoveryRequest> {
        let namespace = setting::namespace(self.number);
        let address = Ipv4Addr::from(
            u32::from(Ipv4Addr::new(10, 220, 0, 0)) + u32::try_from(self.number).unwrap_or(0),
        );
        let id = format!(
            "sidecar~{address}~client-{}.{namespace}~{namespace}.svc.cluster.local",
            self.number
        );
        let mut node = Some(Node { id, ..Node::default() });
        let subscribed = BY_NAME.iter().filter(|kind| self.count(**kind) > 0);
        let first = |kind: &ResourceType| DeltaDiscoveryRequest {
            node: node.take(),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: match kind.wildcard_by_default() {
                true => vec!["*".to_owned()],
                false => self.has[kind.index()].keys().map(ToString::to_string).collect(),
            },
            initial_resource_versions: {
                let versions = self.has[kind.index()].iter();
                versions.map(|(name, version)| (name.to_string(), version.to_string())).collect()
            },
            ..DeltaDiscoveryRequest::default()
        };
        WILDCARDS.iter().chain(subscribed).map(first).collect()
    }

    /// Takes a response in; what to say in return.
    fn take(
        &mut self,
        response: &DeltaDiscoveryResponse,
    ) -> anyhow::Result<Vec<DeltaDiscoveryRequest>> {
        let kind = ResourceType::from_type_url(&response.type_url)
            .context("a type that was not asked for")?;
        self.board.observe(self.number, kind, response);
        let mut learnt = Vec::new();
        for resource in &response.resources {
            let name = self.texts.shared(&resource.name);
            let body = resource.resource.as_ref().map_or(&[][..], |body| &body.value);
            let version =
                Version::parse(&resource.version).context("a version of another server")?;
            let new = self.has[kind.index()].insert(name.clone(), version).is_none();
            match kind {
                // Every cluster of this mesh that is named so has its endpoints from here.
                ResourceType::Cluster if new && name.starts_with("outbound|") => learnt.push(name),
                ResourceType::Listener => {
                    learnt.extend(routes_of(body)?.iter().map(|name| self.texts.shared(name)))
                }
                _ => drop(self.missing.remove(&(kind.index(), name))),
            }
        }
        let mut gone = Vec::new();
        for name in &response.removed_resources {
            self.has[kind.index()].remove(name.as_str());
            gone.extend((kind == ResourceType::Cluster).then(|| name.clone()));
        }
        let mut requests = self.subscribe(kind, learnt, gone);
        requests.push(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        });
        self.note_configured();
        Ok(requests)
    }

    /// Asks for what a cluster or listener refers to, and for no more of what is gone.
    fn subscribe(
        &mut self,
        kind: ResourceType,
        learnt: Vec<Arc<str>>,
        gone: Vec<String>,
    ) -> Vec<DeltaDiscoveryRequest> {
        let of = if kind == ResourceType::Cluster {
            ResourceType::Endpoint
        } else {
            ResourceType::Route
        };
        let has = &mut self.has[of.index()];
        for name in &gone {
            has.remove(name.as_str());
            self.missing.remove(&(of.index(), name.as_str().into()));
        }
        let new = learnt.into_iter().filter(|name| !has.contains_key(name));
        let new: Vec<Arc<str>> =
            new.filter(|name| self.missing.insert((of.index(), name.clone()))).collect();
        if new.is_empty() && gone.is_empty() {
            return Vec::new();
        }
        vec![DeltaDiscoveryRequest {
            type_url: of.type_url().to_owned(),
            resource_names_subscribe: new.iter().map(ToString::to_string).collect(),
            resource_names_unsubscribe: gone,
            ..DeltaDiscoveryRequest::default()
        }]
    }

    fn note_configured(&mut self) {
        let complete = self.missing.is_empty()
            && ResourceType::ALL[..4].iter().all(|kind| self.count(*kind) > 0);
        if complete && !self.configured {
            self.configured = true;
            self.board.configured.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Names of the route configurations that a listener refers to.
fn routes_of(body: &[u8]) -> anyhow::Result<Vec<String>> {
    fn collect(json: &Value, names: &mut Vec<String>) {
        match json {
            Value::Object(fields) => {
                names.extend(
                    fields.get("route_config_name").and_then(Value::as_str).map(str::to_owned),
                );
                fields.values().for_each(|value| collect(value, names));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    collect(&debug::to_json(ResourceType::Listener, body)?, &mut names);
    Ok(names)
}
