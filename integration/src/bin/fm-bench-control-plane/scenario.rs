//! The events of the benchmark: each is made by a call to the API server, followed to the last
//! client, and measured until the control plane rests again.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ferromesh_proto::ResourceType;
use serde_json::{Value, json};

use crate::{
    api::Api,
    board::{Arrivals, Sign},
    figures::{Event, Figure, Figures},
    fleet::{self, Fleet},
    options::Options,
    server::Server,
    setting::{self, Collection},
};

/// How long the server is watched to see what it spends on nothing.
const IDLE_WATCH: Duration = Duration::from_secs(10);

/// Everything that was measured.
pub(crate) struct Outcome {
    /// The runs of each event.
    pub(crate) runs: Vec<(Event, Vec<Figures>)>,
    /// Clusters, assignments, listeners and route configurations of each client.
    pub(crate) resources: [usize; 4],
}

/// A connected mesh.
pub(crate) struct Scenario<'a> {
    api: &'a Api,
    options: &'a Options,
    server: Server,
    fleet: Fleet,
    /// CPU time per second that the server spends on nothing.
    idle: f64,
}

/// The state of all counters when an event begins.
struct Begin {
    cpu: Duration,
    bytes: u64,
    resources: usize,
    turned_away: usize,
    at: Instant,
}

/// Makes the objects of the mesh.
///
/// # Errors
/// The API server refuses one.
pub(crate) async fn populate(api: &Api, services: usize) -> anyhow::Result<()> {
    // The control plane's own state is kept in the root namespace.
    let root = std::iter::once("istio-system".to_owned());
    for name in root.chain((0..setting::NAMESPACES).map(setting::namespace)) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.create("/api/v1/namespaces", &namespace).await?;
    }
    api.create_all(Collection::Services, (0..services).map(setting::service)).await?;
    api.create_all(Collection::EndpointSlices, (0..services).map(setting::slice)).await?;
    let routed = (0..services / 10).map(|number| setting::virtual_service(number, services));
    api.create_all(Collection::VirtualServices, routed).await?;
    // The service that comes and goes has its endpoints all the time.
    api.create_all(Collection::EndpointSlices, std::iter::once(setting::slice(services))).await
}

/// Measures every event.
///
/// # Errors
/// The server or a stream ended, or the API server refused something.
pub(crate) async fn measure(
    api: &Api,
    options: &Options,
    kubeconfig: &Path,
) -> anyhow::Result<Outcome> {
    let cold_runs = if options.events.contains(&Event::ColdConnect) { options.runs } else { 1 };
    let mut cold = Vec::new();
    let mut scenario = loop {
        let (scenario, figures) = Scenario::cold(api, options, kubeconfig).await?;
        cold.push(figures);
        if cold.len() == cold_runs {
            break scenario;
        }
    };
    scenario.idle = scenario.server.idle_share(IDLE_WATCH).await?;
    let mut runs = vec![(Event::ColdConnect, cold)];
    for event in Event::ALL.into_iter().filter(|event| options.events.contains(event)) {
        let mut figures = Vec::new();
        for run in 0..options.runs {
            match event {
                Event::ColdConnect => {}
                Event::Endpoint => {
                    figures.push(scenario.endpoint(run, setting::ENDPOINTS - 1).await?);
                    figures.push(scenario.endpoint(run, setting::ENDPOINTS).await?);
                }
                Event::Route => figures.push(scenario.route(run).await?),
                Event::Service => {
                    figures.push(scenario.add_service().await?);
                    figures.push(scenario.delete_service().await?);
                }
                Event::Reconnect => figures.push(scenario.reconnect().await?),
            }
        }
        if event != Event::ColdConnect {
            runs.push((event, figures));
        }
    }
    // Who was sent nothing after coming back still follows.
    scenario.endpoint(0, 1).await?;
    let resources = fleet::counts(&scenario.fleet.disconnect().await?)?;
    Ok(Outcome { runs, resources })
}

impl<'a> Scenario<'a> {
    /// A new server, and clients that have nothing.
    async fn cold(
        api: &'a Api,
        options: &'a Options,
        kubeconfig: &Path,
    ) -> anyhow::Result<(Self, Figures)> {
        let server = Server::start(kubeconfig);
        server.quiet(0.0).await?;
        let idle = server.idle_share(Duration::from_secs(1)).await?;
        let (rss_none, _) = server.memory()?;
        let (fleet, proxies) = Fleet::new(options.proxies);
        let mut scenario = Self { api, options, server, fleet, idle };
        let begin = scenario.begin()?;
        scenario.fleet.connect(proxies);
        scenario.fleet.configured().await?;
        let wall = begin.at.elapsed();
        let mut figures = scenario.end(&begin).await?;
        figures.insert(1, (Figure::Wall, wall.as_secs_f64()));
        let (rss_all, rss_peak) = scenario.server.memory()?;
        figures.extend([
            (Figure::RssNone, rss_none),
            (Figure::RssAll, rss_all),
            (Figure::RssPeak, rss_peak),
        ]);
        Ok((scenario, figures))
    }

    /// Sets the number of a service's endpoints.
    async fn endpoint(&self, number: usize, count: usize) -> anyhow::Result<Figures> {
        let path = object(Collection::EndpointSlices, number);
        let change = json!({"endpoints": setting::endpoints(number, count)});
        let sign =
            Sign { kind: ResourceType::Endpoint, name: setting::cluster(number), gone: false };
        self.event(&[sign], self.api.patch(&path, &change)).await
    }

    /// Changes the weights of a route.
    async fn route(&self, run: usize) -> anyhow::Result<Figures> {
        let weight = u32::try_from(run % 80).unwrap_or_default() + 5;
        let change: Value = json!({"spec": setting::routes(0, self.options.services, weight)});
        self.event(
            &[route_sign()],
            self.api.patch(&object(Collection::VirtualServices, 0), &change),
        )
        .await
    }

    async fn add_service(&self) -> anyhow::Result<Figures> {
        let number = self.options.services;
        let sign = |kind| Sign { kind, name: setting::cluster(number), gone: false };
        let signs = [sign(ResourceType::Cluster), sign(ResourceType::Endpoint), route_sign()];
        let path = Collection::Services.path(&setting::namespace(number));
        self.event(&signs, self.api.create(&path, &setting::service(number))).await
    }

    async fn delete_service(&self) -> anyhow::Result<Figures> {
        let number = self.options.services;
        let gone = Sign { kind: ResourceType::Cluster, name: setting::cluster(number), gone: true };
        self.event(&[gone, route_sign()], self.api.delete(&object(Collection::Services, number)))
            .await
    }

    /// All clients go, and come back with what they have.
    async fn reconnect(&mut self) -> anyhow::Result<Figures> {
        let proxies = self.fleet.disconnect().await?;
        self.server.quiet(self.idle).await?;
        let begin = self.begin()?;
        self.fleet.connect(proxies);
        self.fleet.opened().await?;
        self.end(&begin).await
    }

    /// Measures from just before the call until the server rests.
    async fn event(
        &self,
        signs: &[Sign],
        call: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Figures> {
        self.api.wake().await?;
        let begin = self.begin()?;
        self.fleet.board.expect(signs, self.options.proxies);
        call.await?;
        let Arrivals { first, complete } = self.fleet.board.arrivals(self.options.proxies).await?;
        let mut figures = self.end(&begin).await?;
        let at = |share: usize| {
            complete[(complete.len() * share / 100).min(complete.len() - 1)].as_secs_f64()
        };
        figures.extend([
            (Figure::First, first.as_secs_f64()),
            (Figure::P99, at(99)),
            (Figure::Last, at(100)),
        ]);
        Ok(figures)
    }

    fn begin(&self) -> anyhow::Result<Begin> {
        let board = &self.fleet.board;
        Ok(Begin {
            cpu: self.server.cpu()?,
            bytes: board.bytes.load(Ordering::Relaxed),
            resources: board.resources.load(Ordering::Relaxed),
            turned_away: board.turned_away.load(Ordering::Relaxed),
            at: Instant::now(),
        })
    }

    async fn end(&self, begin: &Begin) -> anyhow::Result<Figures> {
        self.server.quiet(self.idle).await?;
        let Begin { cpu, bytes, resources, turned_away, at } = self.begin()?;
        let idle = self.idle * at.duration_since(begin.at).as_secs_f64();
        Ok(vec![
            (Figure::Cpu, ((cpu - begin.cpu).as_secs_f64() - idle).max(0.0)),
            (Figure::Bytes, (bytes - begin.bytes) as f64),
            (Figure::Resources, (resources - begin.resources) as f64),
            (Figure::TurnedAway, (turned_away - begin.turned_away) as f64),
        ])
    }
}

fn route_sign() -> Sign {
    Sign { kind: ResourceType::Route, name: setting::PORT.to_owned(), gone: false }
}

fn object(collection: Collection, number: usize) -> String {
    format!("{}/{}", collection.path(&setting::namespace(number)), setting::name(number))
}
