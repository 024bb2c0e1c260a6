//! Settings: flags first, then `FERROMESH_*` variables, then a file, then safe defaults. The only
//! place of this crate that reads the environment.

mod contexts;
mod file;
mod remote;

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use ferromesh_cert_authority::files;
use ferromesh_proto::TrustDomain;
use ferromesh_xds_translator::{dialect::scalar::parse_duration, ir::MeshDefaults};
use ipnet::IpNet;

use self::file::SettingsFile;
pub use self::{
    contexts::{Contexts, Target},
    remote::RemoteOptions,
};

/// `ferromesh serve`: every option has a safe default.
#[derive(Args, Clone, Default, Debug)]
#[command(
    after_help = "Each option can also be given as a variable (--xds-address: FERROMESH_XDS_ADDRESS) or in the settings file \
(xds-address: 127.0.0.1:15010); a flag beats a variable, a variable beats the file.

Examples:
  ferromesh serve --config ./mesh                      serve a directory of YAML, watched
  ferromesh serve --kubeconfig ~/.kube/config          follow a Kubernetes cluster
  ferromesh serve --config ./mesh --xds-tls-address 0.0.0.0:15012
                                                       let proxies of other machines in, each with its identity"
)]
pub struct ServeOptions {
    /// Settings file (YAML, the options' names as keys)
    #[arg(long, value_name = "FILE", env = "FERROMESH_SETTINGS")]
    pub settings: Option<PathBuf>,
    /// Directory of YAML to watch; may be given several times
    #[arg(long, value_name = "DIR", env = "FERROMESH_CONFIG", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// Follow the Kubernetes cluster of this kubeconfig; in a pod without --config: the pod's own
    /// cluster
    #[arg(long, value_name = "FILE", env = "FERROMESH_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where state is kept: objects written by REST, the certificate authority [default:
    /// ./ferromesh-data]
    #[arg(long, value_name = "DIR", env = "FERROMESH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Plaintext xDS; callers are believed, secrets are never served [default: 127.0.0.1:15010]
    #[arg(long, value_name = "ADDRESS", env = "FERROMESH_XDS_ADDRESS")]
    pub xds_address: Option<SocketAddr>,
    /// xDS and certificate signing over TLS [default: 127.0.0.1:15012]
    #[arg(long, value_name = "ADDRESS", env = "FERROMESH_XDS_TLS_ADDRESS")]
    pub xds_tls_address: Option<SocketAddr>,
    /// REST API and health [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "FERROMESH_HTTP_ADDRESS")]
    pub http_address: Option<SocketAddr>,
    /// Prometheus metrics [default: 127.0.0.1:15014]
    #[arg(long, value_name = "ADDRESS", env = "FERROMESH_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// Webhooks over TLS, for the API server of the cluster that is followed, such as 0.0.0.0:15017
    /// [default: none]
    #[arg(long, value_name = "ADDRESS", env = "FERROMESH_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// Settings of injected pods (YAML), followed [default: those of a new installation]
    #[arg(long, value_name = "FILE", env = "FERROMESH_INJECTION_SETTINGS")]
    pub injection_settings: Option<PathBuf>,
    /// Serve plaintext xDS on an address other than loopback, where anybody may claim to be anyone
    #[arg(long, env = "FERROMESH_ALLOW_PLAINTEXT_XDS")]
    pub allow_plaintext_xds: bool,
    /// Trust domain of the mesh; fixed when the certificate authority is made [default:
    /// cluster.local]
    #[arg(long, value_name = "NAME", env = "FERROMESH_TRUST_DOMAIN")]
    pub trust_domain: Option<String>,
    /// Namespace of the mesh's own configuration, where the control plane runs [default:
    /// istio-system]
    #[arg(long, value_name = "NAME", env = "FERROMESH_ROOT_NAMESPACE")]
    pub root_namespace: Option<String>,
    /// Name of this replica among its equals, such as the pod's [default: the host's name and a
    /// random number]
    #[arg(long, value_name = "NAME", env = "FERROMESH_POD_NAME")]
    pub pod_name: Option<String>,
    /// In a cluster: make a new root although the mesh had one whose Secret is lost; every workload
    /// must then be restarted
    #[arg(long, env = "FERROMESH_NEW_ROOT")]
    pub new_root: bool,
    /// Outside a cluster: delete the stored Secrets whose key is lost, instead of refusing to start
    #[arg(long, env = "FERROMESH_DISCARD_SEALED_SECRETS")]
    pub discard_sealed_secrets: bool,
    /// In a cluster: publish the mesh's root even where a live istiod publishes its own, whose
    /// proxies then lose their mesh
    #[arg(long, env = "FERROMESH_TAKE_OVER_ROOTS")]
    pub take_over_roots: bool,
    /// Lifetime of workloads' certificates, such as 24h or 20s [default: 24h]
    #[arg(long, value_name = "DURATION", env = "FERROMESH_LEAF_TTL")]
    pub leaf_ttl: Option<String>,
    /// Outside a cluster: how long a workload is still called whose proxy was connected and is gone
    /// [default: 60s]
    #[arg(long, value_name = "DURATION", env = "FERROMESH_PROXY_GRACE")]
    pub proxy_grace: Option<String>,
    /// Lifetime of the certificate that signs those, at least six times theirs; renewed at half of
    /// it [default: 168h]
    #[arg(long, value_name = "DURATION", env = "FERROMESH_SIGNER_TTL")]
    pub signer_ttl: Option<String>,
    /// File with the administrator's token of the REST API [default: one is made, DATA/admin-token]
    #[arg(long, value_name = "FILE", env = "FERROMESH_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// File with further users of the REST API, viewers, editors and administrators, each with a token
    /// of its own (`ferromesh user add`), followed [default: none]
    #[arg(long, value_name = "FILE", env = "FERROMESH_API_USERS")]
    pub api_users: Option<PathBuf>,
    /// File with further roots, in PEM, of the servers that keys of request tokens are fetched from
    /// (RequestAuthentication's jwksUri), beside the system's
    #[arg(long, value_name = "FILE", env = "FERROMESH_JWKS_ROOTS")]
    pub jwks_roots: Option<PathBuf>,
    /// Networks that those keys may be fetched from although they are this machine's, its link's or
    /// a metadata service's
    #[arg(long, value_name = "NETWORK", env = "FERROMESH_JWKS_NETWORKS", value_delimiter = ',')]
    pub jwks_networks: Vec<String>,
    /// How often those keys are fetched again [default: 20m]
    #[arg(long, value_name = "DURATION", env = "FERROMESH_JWKS_REFRESH")]
    pub jwks_refresh: Option<String>,
    /// What is logged: a level, or target=level pairs with commas; `ferromesh log` changes it later
    /// [default: RUST_LOG, else info]
    #[arg(long, value_name = "FILTER", env = "FERROMESH_LOG")]
    pub log: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, value_name = "STYLE", env = "FERROMESH_LOG_FORMAT")]
    pub log_format: Option<String>,
    /// Names that the server's certificate carries, beside ferromesh.local and localhost
    #[arg(long, value_name = "NAME", env = "FERROMESH_SERVER_NAMES", value_delimiter = ',')]
    pub server_names: Vec<String>,
}

/// How a cluster's API server is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KubeClusterAccess {
    /// As this kubeconfig says.
    Kubeconfig(PathBuf),
    /// As every pod of the cluster can.
    Pod,
}

/// Checked settings of the control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories of YAML; may be empty.
    pub config: Vec<PathBuf>,
    /// The cluster to follow, if any.
    pub cluster: Option<KubeClusterAccess>,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Plaintext xDS; loopback unless explicitly allowed otherwise.
    pub xds_address: SocketAddr,
    /// xDS and certificate signing over TLS.
    pub xds_tls_address: SocketAddr,
    /// REST API and health.
    pub http_address: SocketAddr,
    /// Prometheus metrics.
    pub metrics_address: SocketAddr,
    /// Webhooks over TLS; none without a cluster.
    pub webhook_address: Option<SocketAddr>,
    /// File with the settings of injected pods; `None`: defaults.
    pub injection_settings: Option<PathBuf>,
    /// Trust domain.
    pub trust_domain: TrustDomain,
    /// Namespace of the mesh's own configuration.
    pub root_namespace: Arc<str>,
    /// Name of this replica; no other has it.
    pub pod_name: String,
    /// A new root may be made although the mesh had one.
    pub new_root: bool,
    /// Stored Secrets whose key is lost are deleted.
    pub discard_sealed_secrets: bool,
    /// A live istiod's root is replaced.
    pub take_over_roots: bool,
    /// Lifetime of workloads' certificates.
    pub leaf_ttl: Duration,
    /// How long a workload is still called whose proxy is gone; not in a cluster.
    pub proxy_grace: Duration,
    /// Lifetime of the certificate that signs those; the authority's default without it.
    pub signer_ttl: Option<Duration>,
    /// The administrator's token, where somebody else keeps it; `None`: in the data directory, made
    /// when it is missing.
    pub admin_token_file: Option<PathBuf>,
    /// Users of the REST API beside the administrator.
    pub api_users: Option<PathBuf>,
    /// Further roots of servers of keys; `None`: the system's alone.
    pub jwks_roots: Option<PathBuf>,
    /// Networks that keys may be fetched from although they are closed to that by themselves.
    pub jwks_networks: Vec<IpNet>,
    /// How often keys are fetched again.
    pub jwks_refresh: Duration,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_style: Style,
    /// Names of the server's certificate; `ferromesh.local` first.
    pub server_names: Vec<String>,
}

/// How lines of the log look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Style {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged by default: the client of the API server repeats what its user says better.
pub const DEFAULT_LOG: &str = "info,kube_client=off,kube_runtime=off";
/// The name that the control plane's certificate always carries, and that agents ask for.
pub const SERVER_NAME: &str = "ferromesh.local";
/// Shorter certificates would be renewed faster than anybody can use them.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// Of `--proxy-grace`: in less a proxy cannot even reconnect, and instants do not reach without end.
const GRACE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 3600);
/// Servers of keys are not ours to flood.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// A signer is dated back by two minutes: half of a shorter life would be over when it begins.
const SHORTEST_SIGNER_TTL: Duration = Duration::from_secs(180);

impl ServeOptions {
    /// Reads the settings file, fills in what flags and variables left open, and checks everything.
    ///
    /// # Errors
    /// The file cannot be read, a value is not of its form, or a combination is unsafe; with what
    /// to do.
    pub fn check(self) -> anyhow::Result<Settings> {
        let mut file = match &self.settings {
            Some(path) => SettingsFile::read(path)?,
            None => SettingsFile::default(),
        };
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = file.list("config", self.config);
        let kubeconfig = self
            .kubeconfig
            .or(file.take("kubeconfig").map(PathBuf::from))
            .map(KubeClusterAccess::Kubeconfig);
        let cluster = kubeconfig
            .or_else(|| (config.is_empty() && in_pod()).then_some(KubeClusterAccess::Pod));
        let server_names = file.list("server-names", self.server_names);
        let log_style = self.log_format.or(file.take("log-format"));
        let networks: Vec<String> = file.list("jwks-networks", self.jwks_networks);
        let refresh = self.jwks_refresh.or(file.take("jwks-refresh"));
        let ttl = self.leaf_ttl.or(file.take("leaf-ttl")).unwrap_or_else(|| "24h".to_owned());
        let grace = self.proxy_grace.or(file.take("proxy-grace"));
        let signer_ttl =
            self.signer_ttl.or(file.take("signer-ttl")).map(|ttl| duration("--signer-ttl", &ttl));
        let trust_domain = self.trust_domain.or(file.take("trust-domain"));
        let root_namespace = self.root_namespace.or(file.take("root-namespace"));
        let settings = Settings {
            config,
            cluster,
            data_dir: self
                .data_dir
                .or(file.take("data-dir").map(PathBuf::from))
                .unwrap_or_else(|| "ferromesh-data".into()),
            xds_address: file.address("xds-address", self.xds_address, loopback(15010))?,
            xds_tls_address: file.address(
                "xds-tls-address",
                self.xds_tls_address,
                loopback(15012),
            )?,
            http_address: file.address("http-address", self.http_address, loopback(8080))?,
            metrics_address: file.address(
                "metrics-address",
                self.metrics_address,
                loopback(15014),
            )?,
            webhook_address: file.optional_address("webhook-address", self.webhook_address)?,
            injection_settings: self
                .injection_settings
                .or(file.take("injection-settings").map(PathBuf::from)),
            trust_domain: trust_domain
                .map_or(Ok(TrustDomain::default()), |t| TrustDomain::new(&t))
                .context("--trust-domain")?,
            root_namespace: root_namespace
                .map_or_else(|| MeshDefaults::default().root_namespace, Arc::from),
            pod_name: self.pod_name.or(file.take("pod-name")).unwrap_or_else(some_name),
            new_root: file.says("new-root")? || self.new_root,
            discard_sealed_secrets: file.says("discard-sealed-secrets")?
                || self.discard_sealed_secrets,
            take_over_roots: file.says("take-over-roots")? || self.take_over_roots,
            leaf_ttl: duration("--leaf-ttl", &ttl)?,
            proxy_grace: duration("--proxy-grace", grace.as_deref().unwrap_or("60s"))?,
            signer_ttl: signer_ttl.transpose()?,
            admin_token_file: self
                .admin_token_file
                .or(file.take("admin-token-file").map(PathBuf::from)),
            api_users: self.api_users.or(file.take("api-users").map(PathBuf::from)),
            jwks_roots: self.jwks_roots.or(file.take("jwks-roots").map(PathBuf::from)),
            jwks_networks: networks.iter().map(|net| network(net)).collect::<Result<_, _>>()?,
            jwks_refresh: duration("--jwks-refresh", refresh.as_deref().unwrap_or("20m"))?,
            log: self.log.or(file.take("log")).or_else(rust_log).unwrap_or(DEFAULT_LOG.to_owned()),
            log_style: log_style.map_or(Ok(Style::default()), |style| named_style(&style))?,
            server_names: named(server_names),
        };
        let allowed = file.says("allow-plaintext-xds")? || self.allow_plaintext_xds;
        file.nothing_left()?;
        settings.safe(allowed)?;
        Ok(settings)
    }
}

/// More of a file with a token or a name is not read.
const LARGEST_TOKEN: u64 = 64 << 10;

/// Where a pod finds its token.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Whether this is a pod that may talk to its cluster's API server.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn in_pod() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(POD_TOKEN).is_file()
}

/// What every program of this kind is told to log.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn rust_log() -> Option<String> {
    env::var("RUST_LOG").ok().filter(|chosen| !chosen.trim().is_empty())
}

fn named_style(text: &str) -> anyhow::Result<Style> {
    match text {
        "text" => Ok(Style::Text),
        "json" => Ok(Style::Json),
        other => bail!("--log-format {other:?}: expected text or json"),
    }
}

/// A name that no other replica has.
fn some_name() -> String {
    let host = files::read_named(Path::new("/proc/sys/kernel/hostname"), LARGEST_TOKEN);
    let host = host.unwrap_or_default();
    format!("{}-{:08x}", host.trim(), rand::random::<u32>())
}

fn duration(option: &str, text: &str) -> anyhow::Result<Duration> {
    parse_duration(text)
        .with_context(|| format!("{option} {text:?}: expected a duration such as 24h or 20s"))
}

fn network(text: &str) -> anyhow::Result<IpNet> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    one.or_else(|_| text.parse()).with_context(|| {
        format!("--jwks-networks {text:?}: expected an address or a network such as 10.0.0.0/8")
    })
}

fn named(mut further: Vec<String>) -> Vec<String> {
    let mut names = vec![SERVER_NAME.to_owned(), "localhost".to_owned()];
    further.retain(|n| !names.contains(n));
    names.append(&mut further);
    names
}

impl Settings {
    fn safe(&self, plaintext_allowed: bool) -> anyhow::Result<()> {
        if !self.xds_address.ip().is_loopback() && !plaintext_allowed {
            bail!(
                "--xds-address {}: plaintext xDS believes every caller; keep it on loopback, let proxies use --xds-tls-address, \
                 or give --allow-plaintext-xds",
                self.xds_address
            );
        }
        if let (Some(address), None) = (self.webhook_address, &self.cluster) {
            bail!(
                "--webhook-address {address}: only the API server of a cluster asks webhooks; give --kubeconfig"
            );
        }
        if self.leaf_ttl < SHORTEST_TTL {
            bail!("--leaf-ttl {:?}: expected at least {SHORTEST_TTL:?}", self.leaf_ttl);
        }
        if !GRACE.contains(&self.proxy_grace) {
            bail!(
                "--proxy-grace {:?}: expected 1s to 87600h; a long one keeps endpoints of proxies that are gone",
                self.proxy_grace
            );
        }
        if self.jwks_refresh < SHORTEST_REFRESH {
            bail!("--jwks-refresh {:?}: expected at least {SHORTEST_REFRESH:?}", self.jwks_refresh);
        }
        if let Some(ttl) = self.signer_ttl.filter(|ttl| *ttl < SHORTEST_SIGNER_TTL) {
            bail!("--signer-ttl {ttl:?}: expected at least {SHORTEST_SIGNER_TTL:?}");
        }
        Ok(())
    }

    /// The certificate authority's folder.
    pub fn authority_dir(&self) -> PathBuf {
        self.data_dir.join("ca")
    }

    /// The folder of this replica's ledger where the authority's state is kept elsewhere.
    pub fn ledger_dir(&self) -> PathBuf {
        self.data_dir.join("ledger")
    }

    /// The folder of objects written by REST.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// The roots that agents trust, as PEM; written at every start and change.
    pub fn root_file(&self) -> PathBuf {
        self.data_dir.join("root-cert.pem")
    }

    /// The administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.data_dir.join("admin-token")
    }

    /// The proxies that were connected last.
    pub fn proxies_file(&self) -> PathBuf {
        self.data_dir.join("proxies")
    }

    /// The word that what the data directory holds is all that there is.
    pub fn accept_file(&self) -> PathBuf {
        self.data_dir.join("accept-state")
    }

    /// The mark of the last write to the store that was acknowledged.
    pub fn mark_file(&self) -> PathBuf {
        self.data_dir.join("acknowledged")
    }

    /// What the parts of the data directory were when they were seen last.
    pub fn witness_file(&self) -> PathBuf {
        self.data_dir.join("witness")
    }

    /// The same in the parts themselves: none of them is put back without what proves it older than
    /// the others.
    pub fn witness_copies(&self) -> [PathBuf; 2] {
        [self.authority_dir(), self.store_dir()].map(|part| part.join("witness"))
    }

    /// Everything of the data directory that proves an earlier run.
    pub fn state_parts(&self) -> [PathBuf; 7] {
        [
            self.authority_dir(),
            self.store_dir(),
            self.vault_file(),
            self.token_file(),
            self.root_file(),
            self.mark_file(),
            self.witness_file(),
        ]
    }

    /// The key of stored Secrets.
    pub fn vault_file(&self) -> PathBuf {
        self.data_dir.join("secrets.key")
    }

    /// The names that the certificate of the webhooks carries: those of the server, and that of its
    /// Service.
    pub fn webhook_names(&self) -> Vec<String> {
        let mut names = self.server_names.clone();
        let service = format!("ferromesh.{}.svc", self.root_namespace);
        if !names.contains(&service) {
            names.push(service);
        }
        names
    }

    /// The addresses that the certificate of a server carries, which listens on `bound`.
    pub fn server_addresses(bound: SocketAddr) -> Vec<IpAddr> {
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        if !bound.ip().is_unspecified() && !addresses.contains(&bound.ip()) {
            addresses.push(bound.ip());
        }
        addresses
    }
}

/// Whether to print colours where a terminal shows them: not if `NO_COLOR` is set to anything.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn colours(terminal: bool) -> bool {
    terminal && env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// Finds a program on the PATH.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn search_path(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").ok()?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn checked(options: ServeOptions) -> Result<Settings, String> {
        options.check().map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn every_default_is_loopback() {
        let settings = checked(ServeOptions::default()).expect("defaults are good");
        for address in [
            settings.xds_address,
            settings.xds_tls_address,
            settings.http_address,
            settings.metrics_address,
        ] {
            assert!(address.ip().is_loopback());
        }
        assert_eq!(settings.leaf_ttl, Duration::from_secs(24 * 3600));
        assert_eq!(settings.server_names[0], SERVER_NAME);
    }

    #[test]
    fn plaintext_for_everybody_must_be_asked_for() {
        let options =
            ServeOptions { xds_address: "0.0.0.0:15010".parse().ok(), ..ServeOptions::default() };
        assert!(checked(options.clone()).expect_err("refused").contains("--allow-plaintext-xds"));
        assert!(checked(ServeOptions { allow_plaintext_xds: true, ..options }).is_ok());
    }

    #[test]
    fn a_flag_beats_the_file_and_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.yaml");
        fs::write(
            &path,
            "# ours\nleaf-ttl: 1h\nxds-address: 127.0.0.1:1 # note\nhttp-address: 127.0.0.1:2\n",
        )
        .expect("writing");
        let flags = ServeOptions {
            settings: Some(path.clone()),
            xds_address: "127.0.0.1:9".parse().ok(),
            ..ServeOptions::default()
        };
        let settings = checked(flags.clone()).expect("good");
        assert_eq!((settings.xds_address.port(), settings.http_address.port()), (9, 2));
        assert_eq!(settings.leaf_ttl, Duration::from_secs(3600));
        fs::write(&path, "leaf-tll: 1h\n").expect("writing");
        assert!(checked(flags).expect_err("refused").contains("leaf-tll"));
    }

    #[test]
    fn a_switch_that_is_neither_on_nor_off_and_a_key_written_twice_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.yaml");
        let options = ServeOptions { settings: Some(path.clone()), ..ServeOptions::default() };
        for (text, taken_over) in [("true", true), ("false", false), ("\"true\"", true)] {
            fs::write(&path, format!("take-over-roots: {text}\n")).expect("writing");
            assert_eq!(checked(options.clone()).expect("good").take_over_roots, taken_over);
        }
        for switch in
            ["new-root", "take-over-roots", "discard-sealed-secrets", "allow-plaintext-xds"]
        {
            for text in ["yes", "True", "1", ""] {
                fs::write(&path, format!("{switch}: {text}\n")).expect("writing");
                let error = checked(options.clone()).expect_err(text);
                assert!(error.contains(switch) && error.contains("true or false"), "{error}");
            }
        }
        fs::write(&path, "leaf-ttl: 1h\nleaf-ttl: 2h\n").expect("writing");
        let error = checked(options.clone()).expect_err("refused");
        assert!(error.contains("settings.yaml:2") && error.contains("twice"), "{error}");
    }

    #[test]
    fn whatever_the_file_says_may_be_given_as_a_flag_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.yaml");
        let text = "config: a,b\nkubeconfig: k\ndata-dir: d\nxds-address: 127.0.0.1:1\n\
                    xds-tls-address: 127.0.0.1:2\nhttp-address: 127.0.0.1:3\n\
                    metrics-address: 127.0.0.1:4\nwebhook-address: 127.0.0.1:5\n\
                    injection-settings: i\nallow-plaintext-xds: true\ntrust-domain: a.example\n\
                    root-namespace: r\npod-name: p\nnew-root: true\n\
                    discard-sealed-secrets: true\ntake-over-roots: true\nleaf-ttl: 1h\nproxy-grace: 5s\n\
                    signer-ttl: 12h\nadmin-token-file: t\napi-users: u\nserver-names: x,y\n\
                    jwks-roots: r\njwks-networks: 10.0.0.0/8,127.0.0.1\njwks-refresh: 1h\n\
                    log: warn\nlog-format: json\n";
        fs::write(&path, text).expect("writing");
        let mut line = vec!["serve".to_owned(), format!("--settings={}", path.display())];
        for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            line.push(if value == "true" {
                format!("--{key}")
            } else {
                format!("--{key}={value}")
            });
        }
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: ServeOptions,
        }
        let parsed =
            <Line as clap::Parser>::try_parse_from(&line).unwrap_or_else(|e| panic!("{e}"));
        let both = checked(parsed.options).expect("the flag counts");
        let written = ServeOptions { settings: Some(path), ..ServeOptions::default() };
        assert_eq!(format!("{both:?}"), format!("{:?}", checked(written).expect("good")));
        assert_eq!(both.config, [PathBuf::from("a"), PathBuf::from("b")]);
        assert!(both.server_names.ends_with(&["x".to_owned(), "y".to_owned()]));
    }

    #[test]
    fn no_file_that_an_option_names_is_read_without_end() {
        for endless in ["/dev/zero", "/dev/full"] {
            let options =
                ServeOptions { settings: Some(endless.into()), ..ServeOptions::default() };
            let error = checked(options).expect_err("refused");
            assert!(error.contains(endless) && error.contains("larger than"), "{error}");
        }
    }

    #[test]
    fn a_kubeconfig_is_given_by_flag_or_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.yaml");
        fs::write(&path, "kubeconfig: /etc/mesh/kubeconfig\n").expect("writing");
        let written = ServeOptions { settings: Some(path), ..ServeOptions::default() };
        let given = ServeOptions { kubeconfig: Some("mine".into()), ..written.clone() };
        for (options, file) in [(written, "/etc/mesh/kubeconfig"), (given, "mine")] {
            assert_eq!(
                checked(options).expect("good").cluster,
                Some(KubeClusterAccess::Kubeconfig(file.into()))
            );
        }
    }

    #[test]
    fn a_bad_value_names_its_option() {
        for grace in ["0", "999ms", "5124095576030431h"] {
            let options =
                ServeOptions { proxy_grace: Some(grace.into()), ..ServeOptions::default() };
            assert!(checked(options).expect_err(grace).contains("expected 1s to 87600h"));
        }
        let options = ServeOptions { leaf_ttl: Some("soon".into()), ..ServeOptions::default() };
        assert!(checked(options).expect_err("refused").contains("--leaf-ttl \"soon\""));
        let options = ServeOptions { signer_ttl: Some("60s".into()), ..ServeOptions::default() };
        assert!(checked(options).expect_err("refused").contains("--signer-ttl 60s"));
        let options = ServeOptions { trust_domain: Some("Bad!".into()), ..ServeOptions::default() };
        assert!(checked(options).expect_err("refused").contains("--trust-domain"));
    }
}
