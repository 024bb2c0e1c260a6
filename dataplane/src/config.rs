//! Flags and `FERROMESH_*` variables, and the settings that they make up. The only place that reads
//! the environment.
//!
//! Every flag has a variable of the same name; flags win. Nothing is started here, and only the
//! file of labels is read.

mod labels;
mod redirect;
mod statistics;

pub use redirect::RedirectArgs;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ferromesh_proto::{
    SpiffeId, TrustDomain,
    bootstrap::{Discovery, HostPort, MoreStatistics, NodeSettings, ProxyType, Statistics},
    discovery::Locality,
    spiffe::SpiffeError,
    stats::{METRICS_BY_AGENT, METRICS_BY_PROXY, METRICS_MAKER},
};
use serde_json::{Map, Value};

use crate::{
    agent::{AgentSettings, tied::Tie},
    drain::DrainSettings,
    identity::{channel::TlsTarget, csr_client::CsrSettings},
    log::LogStyle,
    pod::{AppMetrics, AppProbes, Application, HealthProbe, PodSettings},
    telemetry::{Node, trace::Environment},
    xds::ControlPlane,
};

/// Where a pod asks its proxy, by default on the address of the admin interface.
const AGENT_PORT: u16 = 15020;

/// Where an agent has its files by default; gone after a reboot.
const AGENT_DIR: &str = "/var/run/ferromesh";
/// How long open connections may finish at the end of a sidecar, whose application is gone by then.
const SIDECAR_DRAIN: Duration = Duration::from_secs(5);
/// The same for a gateway, which serves meanwhile; Kubernetes kills after 30 s.
const GATEWAY_DRAIN: Duration = Duration::from_secs(20);
/// An address outside (RFC 5737), to which the default route leads.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A mesh proxy, or the agent beside a stock Envoy.
#[derive(Debug, Parser)]
#[command(name = "ferromesh-proxy", version, about, max_term_width = 120)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged: a level, or `target=level` pairs with commas.
    #[arg(long, env = "FERROMESH_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How it is logged.
    #[arg(long, env = "FERROMESH_LOG_FORMAT", value_enum, default_value_t = LogStyle::Text, global = true)]
    pub log_format: LogStyle,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the Ferromesh proxy.
    Run(RunArgs),
    /// Run a stock Envoy with the mesh's identity and configuration.
    Envoy(EnvoyArgs),
    /// Send a pod's TCP connections to its proxy: programs nf_tables in this network namespace,
    /// then ends.
    Redirect(RedirectArgs),
    /// Print what a shell needs to complete commands and options.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        folder: PathBuf,
    },
    /// Become a program that ends with its parent: how an agent starts its Envoy.
    #[command(hide = true)]
    Tied {
        /// The parent's process id.
        parent: i32,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Reach the control plane without TLS: no identity, so no mutual TLS in the mesh.
    #[arg(long, env = "FERROMESH_PLAINTEXT")]
    plaintext: bool,
}

/// Flags of `envoy`.
#[derive(Debug, Args)]
pub struct EnvoyArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Envoy's program: a path, or a name to look up in PATH.
    #[arg(long, env = "FERROMESH_ENVOY_PATH", default_value = "envoy")]
    envoy_path: PathBuf,
    /// The socket on which Envoy gets its certificate; by default `sds` in the work directory.
    #[arg(long, env = "FERROMESH_SDS_SOCKET")]
    sds_socket: Option<PathBuf>,
    /// Let an Envoy of another user in this group use that socket.
    #[arg(long, env = "FERROMESH_SDS_GROUP")]
    sds_group: bool,
    /// Envoy's log level.
    #[arg(long, env = "FERROMESH_ENVOY_LOG_LEVEL", default_value = "warning")]
    envoy_log_level: String,
    /// Do not make Istio's metrics (`istio_requests_total` and others) of what Envoy logs for the
    /// agent.
    #[arg(long, env = "FERROMESH_NO_ISTIO_METRICS")]
    no_istio_metrics: bool,
    /// Keep every statistic of Envoy, those of clusters too.
    #[arg(long, env = "FERROMESH_ALL_STATISTICS")]
    all_statistics: bool,
    /// Further statistics of Envoy: JSON with lists `prefixes`, `suffixes`, `regexes` and `tags`,
    /// `buckets` by prefix, and `flushInterval`.
    #[arg(long, env = "FERROMESH_ENVOY_STATISTICS", value_parser = statistics::read)]
    envoy_statistics: Option<Box<MoreStatistics>>,
    /// Registries (HOST or HOST:PORT) from which images of modules are pulled without TLS, and at
    /// whatever address they are.
    #[arg(
        long,
        env = "FERROMESH_INSECURE_REGISTRIES",
        value_name = "REGISTRY",
        value_delimiter = ','
    )]
    insecure_registries: Vec<String>,
    /// Further arguments for Envoy.
    #[arg(last = true)]
    extra: Vec<String>,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The control plane.
    #[arg(
        long,
        env = "FERROMESH_CONTROL_PLANE",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:15012"
    )]
    control_plane: HostPort,
    /// DNS name that the control plane's certificate must carry.
    #[arg(long, env = "FERROMESH_SERVER_NAME", default_value = "ferromesh.local")]
    server_name: String,
    /// PEM file with the mesh's root certificates.
    #[arg(long, env = "FERROMESH_ROOT_CERT", value_name = "FILE")]
    root_cert: Option<PathBuf>,
    /// File with a join token, for the first certificate.
    #[arg(long, env = "FERROMESH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The mesh's trust domain.
    #[arg(long, env = "FERROMESH_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// The mesh's DNS domain.
    #[arg(long, env = "FERROMESH_DNS_DOMAIN", default_value = "cluster.local")]
    dns_domain: String,
    /// The workload's namespace.
    #[arg(long, env = "FERROMESH_NAMESPACE", default_value = "default")]
    namespace: String,
    /// The workload's service account.
    #[arg(long, env = "FERROMESH_SERVICE_ACCOUNT", default_value = "default")]
    service_account: String,
    /// The workload's (pod's) name.
    #[arg(long, env = "FERROMESH_NAME")]
    name: String,
    /// What metrics call the workload: the Deployment (or alike) that it is one of; by default
    /// --name.
    #[arg(long, env = "FERROMESH_WORKLOAD")]
    workload: Option<String>,
    /// The workload's address; by default the inbound address, or the one from which the control
    /// plane is reached.
    #[arg(long, env = "FERROMESH_IP")]
    ip: Option<IpAddr>,
    /// The kind of proxy.
    #[arg(long = "type", env = "FERROMESH_TYPE", value_enum, default_value_t = Kind::Sidecar)]
    kind: Kind,
    /// A label of the workload, for metrics and logs; may be repeated. Over TLS the control plane
    /// goes by the labels of the WorkloadEntry or Pod, and by these only with --plaintext.
    #[arg(long = "label", env = "FERROMESH_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// File with more labels, one `KEY="VALUE"` a line as Kubernetes' downward API writes them;
    /// those of --label win.
    #[arg(long, env = "FERROMESH_LABELS_FILE", value_name = "FILE")]
    labels_file: Option<PathBuf>,
    /// Where the workload runs, for balancing over zones; by default what its labels say. A sub-zone
    /// that endpoints have is a part of it.
    #[arg(long, env = "FERROMESH_LOCALITY", value_name = "REGION/ZONE/SUBZONE", value_parser = labels::place)]
    locality: Option<Locality>,
    /// The name of the (Kubernetes) cluster that the workload runs in.
    #[arg(long, env = "FERROMESH_CLUSTER_ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// How the application's traffic gets here.
    #[arg(long, env = "FERROMESH_INTERCEPTION", value_enum, default_value_t = Interception::Redirect)]
    interception: Interception,
    /// Interception none: the address on which the application listens.
    #[arg(long, env = "FERROMESH_APP_ADDRESS", required_if_eq("interception", "none"))]
    app_address: Option<IpAddr>,
    /// Interception none: the address on which the proxy listens for others.
    #[arg(long, env = "FERROMESH_INBOUND_ADDRESS", required_if_eq("interception", "none"))]
    inbound_address: Option<IpAddr>,
    /// Interception none: the address on which the proxy listens for the application.
    #[arg(long, env = "FERROMESH_OUTBOUND_ADDRESS", required_if_eq("interception", "none"))]
    outbound_address: Option<IpAddr>,
    /// The admin interface; keep it on loopback.
    #[arg(long, env = "FERROMESH_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
    /// Where `/healthz/ready` is answered.
    #[arg(long, env = "FERROMESH_STATUS_ADDRESS", default_value = "0.0.0.0:15021")]
    status_address: SocketAddr,
    /// Where `/stats/prometheus` is answered.
    #[arg(long, env = "FERROMESH_METRICS_ADDRESS", default_value = "0.0.0.0:15090")]
    metrics_address: SocketAddr,
    /// Where a pod asks its proxy for probes, metrics and its end; by default the admin interface's
    /// address with port 15020.
    #[arg(long, env = "FERROMESH_AGENT_ADDRESS")]
    agent_address: Option<SocketAddr>,
    /// The application's probes: a JSON object of Kubernetes' probes by path, such as
    /// `/app-health/app/readyz`.
    #[arg(long, env = "FERROMESH_APP_PROBES", value_name = "JSON", hide_env_values = true)]
    app_probes: Option<AppProbes>,
    /// The application's metrics, put after the proxy's: `{"port": "8080", "path": "/metrics"}`.
    #[arg(long, env = "FERROMESH_APP_METRICS", value_name = "JSON")]
    app_metrics: Option<AppMetrics>,
    /// The WorkloadGroup that this machine is of, in the workload's namespace: with a certificate of
    /// its account the machine becomes a workload by it.
    #[arg(long, env = "FERROMESH_GROUP", value_name = "NAME")]
    group: Option<String>,
    /// How it is found out whether the machine is well: the `probe` of its WorkloadGroup, as JSON.
    #[arg(long, env = "FERROMESH_HEALTH_PROBE", value_name = "JSON", requires = "group")]
    health_probe: Option<HealthProbe>,
    /// Worker threads; by default one per processor that the container may use.
    #[arg(long, env = "FERROMESH_CONCURRENCY")]
    concurrency: Option<NonZeroUsize>,
    /// How long open connections may finish when the proxy is told to end; by default 5s, and 20s
    /// for a gateway.
    #[arg(long, env = "FERROMESH_DRAIN_TIME", value_parser = duration)]
    drain_time: Option<Duration>,
    /// A directory of this proxy's own: its key and certificate, with which it comes back without a
    /// join token as long as they are valid, and the files of its Envoy. By default
    /// /var/run/ferromesh for `envoy`; `run` keeps nothing then.
    #[arg(long, env = "FERROMESH_WORK_DIR", value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// Beside one workload.
    Sidecar,
    /// A gateway.
    Router,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Interception {
    /// Redirected by the system: the proxy listens on 15001 and 15006.
    Redirect,
    /// Not at all: applications connect to the proxy by address.
    None,
}

/// What makes up a running proxy.
#[derive(Debug)]
pub struct ProxySettings {
    /// Who it is.
    pub node: NodeSettings,
    /// Whom it asks for configuration.
    pub control_plane: ControlPlane,
    /// Whom it asks for certificates; none without TLS.
    pub csr: Option<CsrSettings>,
    /// The admin interface.
    pub admin: SocketAddr,
    /// Where readiness is answered.
    pub status: SocketAddr,
    /// Where metrics are answered.
    pub metrics: SocketAddr,
    /// What a pod asks of its proxy.
    pub pod: PodSettings,
    /// How the machine is asked whether it is well; `None`: it is no machine of a group, or its
    /// group asks nothing.
    pub health: Option<HealthProbe>,
    /// Worker threads.
    pub concurrency: NonZeroUsize,
    /// How long it goes on at its end.
    pub drain: DrainSettings,
    /// Where it keeps its key and certificate; `None`: nowhere.
    pub work_dir: Option<PathBuf>,
}

/// Flags that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// TLS needs roots.
    #[error(
        "--root-cert is required: a file with the mesh's root certificates (or --plaintext for port 15010)"
    )]
    RootCert,
    /// Namespace or service account cannot be part of a SPIFFE id.
    #[error("--namespace, --service-account: {0}")]
    Id(#[from] SpiffeError),
    /// The file of labels is missing or malformed.
    #[error("--labels-file {path}: {why}", path = .path.display())]
    Labels {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl RunArgs {
    /// The settings of a proxy.
    ///
    /// # Errors
    /// [`ConfigError`] for flags that do not go together.
    pub fn settings(self) -> Result<ProxySettings, ConfigError> {
        let common = self.common;
        let csr = if self.plaintext { None } else { Some(common.csr()?) };
        let plaintext = || ControlPlane::Plaintext(common.control_plane.clone());
        let control_plane = csr.as_ref().map_or_else(plaintext, |csr| ControlPlane::Tls {
            target: csr.target.clone(),
            token_file: csr.token_file.clone(),
        });
        Ok(ProxySettings {
            control_plane,
            csr,
            admin: common.admin_address,
            status: common.status_address,
            metrics: common.metrics_address,
            pod: common.pod(),
            health: common.health_probe.clone(),
            concurrency: common.workers(),
            drain: common.drain(),
            work_dir: common.work_dir.clone(),
            node: common.node(Some(METRICS_BY_PROXY))?,
        })
    }
}

impl EnvoyArgs {
    /// The settings of an agent; with `tie`, its Envoy ends with it in any case.
    ///
    /// # Errors
    /// [`ConfigError`] for flags that do not go together.
    pub fn settings(self, tie: Option<Tie>) -> Result<AgentSettings, ConfigError> {
        let common = self.common;
        let csr = common.csr()?;
        Ok(AgentSettings {
            discovery: Discovery::MutualTls {
                address: common.control_plane.clone(),
                server_name: common.server_name.clone(),
            },
            csr,
            run_dir: common.work_dir.clone().unwrap_or_else(|| AGENT_DIR.into()),
            sds_socket: self.sds_socket,
            sds_mode: if self.sds_group { 0o660 } else { 0o600 },
            admin: common.admin_address,
            pod: common.pod(),
            health: common.health_probe.clone(),
            readiness: Some(common.status_address),
            prometheus: Some(common.metrics_address),
            statistics: if self.all_statistics { Statistics::All } else { Statistics::Small },
            more_statistics: self.envoy_statistics.map(|more| *more).unwrap_or_default(),
            envoy: self.envoy_path,
            tie,
            concurrency: u32::try_from(common.workers().get()).ok(),
            log_level: self.envoy_log_level,
            extra_args: self.extra,
            drain: common.drain(),
            istio_metrics: !self.no_istio_metrics,
            insecure_registries: self.insecure_registries.into_iter().collect(),
            node: common.node((!self.no_istio_metrics).then_some(METRICS_BY_AGENT))?,
        })
    }
}

impl CommonArgs {
    fn csr(&self) -> Result<CsrSettings, ConfigError> {
        let target = TlsTarget {
            address: self.control_plane.clone(),
            server_name: self.server_name.clone(),
            roots_file: self.root_cert.clone().ok_or(ConfigError::RootCert)?,
        };
        let id = SpiffeId::new(self.trust_domain.clone(), &self.namespace, &self.service_account)?;
        Ok(CsrSettings { target, id, token_file: self.token_file.clone(), lifetime: None })
    }

    fn workers(&self) -> NonZeroUsize {
        let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.concurrency.unwrap_or_else(processors)
    }

    fn drain(&self) -> DrainSettings {
        let (kind, usual) = match self.kind {
            Kind::Sidecar => (ProxyType::Sidecar, SIDECAR_DRAIN),
            Kind::Router => (ProxyType::Router, GATEWAY_DRAIN),
        };
        DrainSettings::of(kind, self.drain_time.unwrap_or(usual))
    }

    fn address(&self) -> IpAddr {
        self.ip.or(self.inbound_address).unwrap_or_else(|| address_towards(&self.control_plane))
    }

    fn pod(&self) -> PodSettings {
        PodSettings {
            address: self
                .agent_address
                .unwrap_or(SocketAddr::new(self.admin_address.ip(), AGENT_PORT)),
            application: Application {
                address: self.app_address.unwrap_or_else(|| self.address()),
                captured: self.interception == Interception::Redirect,
            },
            probes: self.app_probes.clone().unwrap_or_default(),
            metrics: self.app_metrics.clone(),
            unread: Default::default(),
        }
    }

    /// `metrics`: who makes them.
    fn node(self, metrics: Option<&str>) -> Result<NodeSettings, ConfigError> {
        let mut labels = match &self.labels_file {
            Some(path) => {
                labels::read(path).map_err(|why| ConfigError::Labels { path: path.clone(), why })?
            }
            None => BTreeMap::new(),
        };
        labels.extend(self.labels.iter().cloned());
        Ok(NodeSettings {
            proxy_type: match self.kind {
                Kind::Sidecar => ProxyType::Sidecar,
                Kind::Router => ProxyType::Router,
            },
            address: self.address(),
            metadata: self.metadata(metrics),
            name: self.name,
            workload: self.workload,
            namespace: self.namespace,
            service_account: self.service_account,
            locality: self.locality.or_else(|| labels::locality(&labels)),
            labels,
            cluster_id: self.cluster_id,
            dns_domain: self.dns_domain,
        })
    }

    fn metadata(&self, metrics: Option<&str>) -> Map<String, Value> {
        let mode = match self.interception {
            Interception::Redirect => "REDIRECT",
            Interception::None => "NONE",
        };
        let addresses = [
            ("FERROMESH_APP_ADDRESS", self.app_address),
            ("FERROMESH_INBOUND_ADDRESS", self.inbound_address),
            ("FERROMESH_OUTBOUND_ADDRESS", self.outbound_address),
        ];
        let given =
            addresses.into_iter().filter_map(|(key, address)| Some((key, address?.to_string())));
        let group = self.group.iter().map(|name| ("AUTO_REGISTER_GROUP", name.clone()));
        let mode = std::iter::once(("INTERCEPTION_MODE", mode.to_owned()));
        let metrics = metrics.map(|maker| (METRICS_MAKER, maker.to_owned()));
        let all = mode.chain(given).chain(group).chain(metrics);
        all.map(|(key, value)| (key.to_owned(), Value::String(value))).collect()
    }
}

/// The address from which the control plane would be reached, or most others if it is only a name,
/// since names are not looked up here. Connecting a UDP socket sends nothing.
fn address_towards(control_plane: &HostPort) -> IpAddr {
    let target = match &*control_plane.host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().unwrap_or(SOMEWHERE),
    };
    let unspecified = match target {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let found = UdpSocket::bind((unspecified, 0))
        .and_then(|socket| {
            socket.connect((target, control_plane.port))?;
            socket.local_addr()
        })
        .map(|address| address.ip());
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// How metrics name this workload, and spans whoever tells them.
pub fn telemetry_node(settings: &NodeSettings) -> Node {
    let mut node = Node::from(settings);
    node.origin.environment = environment();
    node
}

/// What is text of it; the rest nobody can ask for.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn environment() -> Environment {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Environment(std::env::vars_os().filter_map(text).collect())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, got {text:?}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether to print colours where a terminal shows them: not if `NO_COLOR` is set to anything.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// Reads `250ms`, `5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 500ms, 5s or 2m, got {text:?}");
    let digits = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let units = BTreeMap::from([("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]);
    let millis = units.get(unit).and_then(|unit| number.checked_mul(*unit)).ok_or_else(expected)?;
    Ok(Duration::from_millis(millis))
}

/// Reads flags; the first argument is the program's name.
///
/// # Errors
/// clap's, which also stands for `--help` and `--version`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(args: &str) -> Result<Cli, clap::Error> {
        parse(args.split_whitespace().map(OsString::from))
    }

    fn run(args: &str) -> Result<ProxySettings, ConfigError> {
        match cli(&format!("ferromesh-proxy run {args}")).unwrap().command {
            Command::Run(args) => args.settings(),
            other => panic!("run was asked for, got {other:?}"),
        }
    }

    #[test]
    fn a_sidecar_without_interception_names_its_addresses_in_its_metadata() {
        let settings = run("--control-plane 127.1.0.1:15012 --root-cert r.pem --token-file t --name reviews-v1 \
            --interception none --app-address 127.1.1.3 --inbound-address 127.1.1.4 --outbound-address 127.1.1.5 \
            --label app=reviews --label version=v1 --concurrency 1 --drain-time 1s")
        .unwrap();
        assert_eq!(
            settings.node.id(),
            "sidecar~127.1.1.4~reviews-v1.default~default.svc.cluster.local"
        );
        let metadata = settings.node.metadata();
        for (key, expected) in [
            ("INTERCEPTION_MODE", "NONE"),
            ("FERROMESH_APP_ADDRESS", "127.1.1.3"),
            ("FERROMESH_INBOUND_ADDRESS", "127.1.1.4"),
            ("FERROMESH_OUTBOUND_ADDRESS", "127.1.1.5"),
        ] {
            assert_eq!(metadata[key], expected);
        }
        assert_eq!(metadata["LABELS"]["version"], "v1");
        assert!(matches!(settings.control_plane, ControlPlane::Tls { .. }));
        assert_eq!(
            settings.csr.unwrap().id.to_string(),
            "spiffe://cluster.local/ns/default/sa/default"
        );
        assert_eq!(settings.drain.limit, Duration::from_secs(1));
        let telemetry = telemetry_node(&settings.node);
        assert_eq!(
            (&*telemetry.workload.canonical_service, &*telemetry.version),
            ("reviews", "v1")
        );
    }

    #[test]
    fn tls_needs_roots_and_plaintext_needs_none() {
        assert!(matches!(run("--name a --ip 10.0.0.1"), Err(ConfigError::RootCert)));
        let settings =
            run("--name a --ip 10.0.0.1 --plaintext --control-plane 127.0.0.1:15010").unwrap();
        assert!(
            settings.csr.is_none() && matches!(settings.control_plane, ControlPlane::Plaintext(_))
        );
        assert!(matches!(run("--name a --root-cert r --namespace A_B"), Err(ConfigError::Id(_))));
    }

    #[test]
    fn flags_that_belong_together_are_asked_for() {
        assert!(cli("ferromesh-proxy run --name a --interception none").is_err());
        assert!(cli("ferromesh-proxy run --name a --label nothing").is_err());
        assert!(cli("ferromesh-proxy run --name a --drain-time 5").is_err());
    }

    #[test]
    fn an_envoy_gets_what_follows_the_dashes() {
        let parsed = cli(
            "x envoy --name a --root-cert r --ip 10.0.0.1 --admin-address 127.9.9.9:1 -- --disable-hot-restart",
        );
        let Command::Envoy(args) = parsed.unwrap().command else { panic!("envoy was asked for") };
        let settings = args.settings(None).unwrap();
        assert_eq!(settings.extra_args, ["--disable-hot-restart"]);
        assert_eq!(settings.pod.address, "127.9.9.9:15020".parse().unwrap());
    }

    #[test]
    fn labels_come_from_a_file_and_flags_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels");
        let flags = format!(
            "--name a --ip 10.0.0.1 --plaintext --labels-file {} --label version=v2",
            path.display()
        );
        let error = run(&flags).unwrap_err().to_string();
        assert!(error.contains("--labels-file") && error.contains("labels:"), "{error}");
        std::fs::write(&path, "app=\"cart\"\nversion=\"v1\"").unwrap();
        let labels = run(&flags).unwrap().node.labels;
        assert_eq!((&*labels["app"], &*labels["version"]), ("cart", "v2"));
    }

    #[test]
    fn the_application_is_asked_at_the_pod_s_address_or_where_it_says() {
        let application =
            |flags: &str| run(&format!("--name a --plaintext {flags}")).unwrap().pod.application;
        let expected = Application { address: [10, 0, 0, 1].into(), captured: true };
        assert_eq!(application("--ip 10.0.0.1"), expected);
        let addresses =
            "--app-address 127.1.1.3 --inbound-address 127.1.1.4 --outbound-address 127.1.1.5";
        let expected = Application { address: [127, 1, 1, 3].into(), captured: false };
        assert_eq!(application(&format!("--interception none {addresses}")), expected);
    }

    #[test]
    fn a_gateway_drains_for_longer_than_a_sidecar() {
        for (flags, grace, limit) in [
            ("", 1000, 5000),
            ("--drain-time 500ms", 500, 500),
            ("--type router", 5000, 20_000),
            ("--type router --drain-time 2s", 2000, 2000),
        ] {
            let drain = run(&format!("--name a --ip 10.0.0.1 --plaintext {flags}")).unwrap().drain;
            let expected = DrainSettings {
                grace: Duration::from_millis(grace),
                limit: Duration::from_millis(limit),
            };
            assert_eq!(drain, expected, "{flags}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("250ms", 250), ("5s", 5000), ("2m", 120_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
