//! Puts a proxy together: an admin runtime on this thread, workers on others, from start to drained
//! end.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use ferromesh_proto::bootstrap::{MAX_CONNECTIONS, NodeSettings};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    agent::{self, AgentSettings},
    config::{ProxySettings, telemetry_node},
    drain::{self, Signals},
    identity::{IdentityWatch, csr_client::CsrClient, kept::Kept, rotate},
    listen,
    log::Log,
    machine::Machine,
    node::discovery_node,
    pod,
    redirect::{self, Family, RedirectSettings, Script},
    resolve::Resolver,
    runtime::endpoint::Locality,
    upstream::StateRegistry,
    worker::Shared,
    xds::{Accepted, Client, Progress},
};

/// Keeps keys and tokens in memory from others of the same user: no core is written, neither by an
/// Envoy that this process starts, and no debugger may look (`PR_SET_DUMPABLE`, prctl(2)). What a
/// kernel does not know is left out.
pub fn keep_memory_private() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Lets this process, and an Envoy that it starts, have as many files open as it may: each connection
/// is one. How many that are.
fn raise_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    // Where that is not allowed, there is room for fewer connections.
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// How many connections from downstream a proxy may have that may open so many files: each may need
/// one to an endpoint, and probes and scrapes must find room beside all of them.
fn most_connections(files: usize) -> usize {
    (files / 5 * 2).min(MAX_CONNECTIONS as usize)
}

/// How often workers are looked after.
const WATCH_WORKERS: Duration = Duration::from_millis(500);

type WorkerHandle = thread::JoinHandle<io::Result<()>>;

/// Runs a proxy until it is told to end, then drains it.
///
/// # Errors
/// A port is in use, a thread cannot be started, or a worker ended by itself.
pub fn run_proxy(settings: ProxySettings, log: Log) -> anyhow::Result<()> {
    // The allocator asks for huge pages, of which what a proxy keeps uses a part each: two fifths
    // of its memory, for no speed that could be measured. Not for the agent: its Envoy would
    // inherit it. A kernel without them refuses, which is as well.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    let most = most_connections(raise_files());
    let runtime = admin_runtime()?;
    runtime.block_on(serve_proxy(settings, most, log))
}

/// Runs an agent with its Envoy until it is told to end, then drains it.
///
/// # Errors
/// Something that it needs cannot be had, or Envoy failed.
pub fn run_agent(settings: AgentSettings) -> anyhow::Result<()> {
    raise_files();
    let runtime = admin_runtime()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        tokio::spawn(async move {
            signals.received().await;
            told.cancel();
        });
        Ok(agent::run(settings, stop).await?)
    })
}

/// Programs interception, or only prints the rules.
///
/// # Errors
/// The kernel does not take them.
pub fn redirect(settings: &RedirectSettings, print: bool) -> anyhow::Result<()> {
    if print {
        let tables = redirect::tables(settings, &[Family::V4, Family::V6]);
        write!(io::stdout(), "{}", Script(&tables)).context("the rules cannot be written")?;
        return Ok(());
    }
    let families = redirect::families();
    redirect::install(&redirect::tables(settings, families))
        .context("interception cannot be programmed")?;
    tracing::info!(
        inbound = settings.inbound_port,
        outbound = settings.outbound_port,
        ipv6 = families.contains(&Family::V6),
        "connections of this network namespace go through the proxy"
    );
    Ok(())
}

/// Where the proxy is.
fn here(node: &NodeSettings) -> Locality {
    let part = |text: &String| text.as_str().into();
    node.locality.as_ref().map_or_else(Locality::default, |at| Locality {
        region: part(&at.region),
        zone: part(&at.zone),
        sub_zone: part(&at.sub_zone),
    })
}

fn admin_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("admin runtime")
}

async fn serve_proxy(settings: ProxySettings, most: usize, log: Log) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("signals")?;
    // Ports first: a second proxy on them should end before it asks for a certificate.
    let admin_socket = bind("--admin-address", settings.admin).await?;
    let status_socket = bind("--status-address", settings.status).await?;
    let metrics_socket = bind("--metrics-address", settings.metrics).await?;
    let pod_socket = bind("--agent-address", settings.pod.address).await?;

    let registry = Arc::new(StateRegistry::at(here(&settings.node)));
    let identity = start_identity(&settings);
    let node = telemetry_node(&settings.node);
    let shared = Shared::new(registry.clone(), identity.clone(), node, settings.drain.limit)
        .context("access log")?;
    shared.limit_connections(most);
    let workers = start_workers(&shared, settings.concurrency.get())?;
    let progress = Arc::new(Progress::new(Accepted::new(registry)));
    let quit = CancellationToken::new();
    let admin = Admin {
        shared: shared.clone(),
        progress: progress.clone(),
        node_id: settings.node.id().into(),
        needs_identity: settings.csr.is_some(),
        quit: quit.clone(),
        log: Arc::new(log),
    };
    serve(admin_socket, admin.admin_routes());
    serve(status_socket, admin.status_routes());
    serve(metrics_socket, admin.metrics_routes());
    serve(pod_socket, admin.pod_routes(&settings.pod));
    if let (Some(probe), Some(csr)) = (settings.health, &settings.csr) {
        let machine = Machine {
            node: discovery_node(&settings.node),
            target: csr.target.clone(),
            identity: identity.clone(),
            application: settings.pod.application,
            probe,
        };
        tokio::spawn(machine.run());
    }
    tokio::spawn(progress.clone().follow_files());
    let client = Client {
        node: discovery_node(&settings.node),
        resolver: Resolver::default(),
        control_plane: settings.control_plane,
        identity,
        shared: shared.clone(),
        progress,
    };
    tokio::spawn(client.run());
    tracing::info!(node = %settings.node.id(), workers = workers.len(), admin = %settings.admin, "proxy started");

    tokio::select! {
        () = signals.received() => {}
        () = quit.cancelled() => {}
        () = any_ended(&workers) => bail!("a worker ended by itself"),
    }
    tokio::select! {
        () = drain::drain(&shared, settings.drain) => {}
        () = signals.received() => tracing::warn!("told twice: ending at once"),
    }
    Ok(())
}

async fn bind(flag: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; choose another with {flag}"))
}

fn serve(socket: TcpListener, routes: Router) {
    tokio::spawn(async move {
        if let Err(error) = pod::serve(socket, routes).await {
            tracing::error!(%error, "an admin endpoint ended");
        }
    });
}

/// The watch on which certificates arrive; without TLS it stays empty.
fn start_identity(settings: &ProxySettings) -> IdentityWatch {
    let (publish, identity) = watch::channel(None);
    if let Some(csr) = settings.csr.clone() {
        let keep = |directory: &PathBuf| Kept::new(directory, csr.id.clone());
        let kept = settings.work_dir.as_ref().map(keep);
        tokio::spawn(rotate::run(Arc::new(CsrClient::new(csr)), kept, publish));
    }
    identity
}

fn start_workers(shared: &Arc<Shared>, count: usize) -> anyhow::Result<Vec<WorkerHandle>> {
    let spawn = |index| listen::spawn_worker(index, shared.clone()).context("worker thread");
    (0..count).map(spawn).collect()
}

async fn any_ended(workers: &[WorkerHandle]) {
    while workers.iter().all(|worker| !worker.is_finished()) {
        tokio::time::sleep(WATCH_WORKERS).await;
    }
}
