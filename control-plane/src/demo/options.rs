//! What a person can ask the demo for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `ferromesh demo`: a whole mesh on this machine, without root.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  ferromesh demo                          watch live traffic, edit the printed files, stop with Ctrl-C
  ferromesh demo --once                   run every check and exit 0 or 1
  ferromesh demo --once --proxy envoy     the same with Envoy sidecars
  ferromesh demo --once -o json           the same for a program")]
pub struct DemoOptions {
    /// Which proxy the sidecars are
    #[arg(long, value_enum, default_value_t = ProxyKind::Ferromesh)]
    pub proxy: ProxyKind,
    /// Which proxy the callers (productpage, sleep and the gateway) have, when it is another one
    #[arg(long, value_enum)]
    pub client_proxy: Option<ProxyKind>,
    /// Run the checks once and exit with 0 (all hold) or 1
    #[arg(long)]
    pub once: bool,
    /// Run only checks whose name contains this text
    #[arg(long, value_name = "TEXT", requires = "once")]
    pub only: Option<String>,
    /// Where Envoy is; default: `envoy` on the PATH
    #[arg(long, value_name = "FILE")]
    pub envoy_path: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Keep the working directory (logs, data, configuration) and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// A proxy implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ProxyKind {
    /// Our own, in Rust.
    Ferromesh,
    /// A stock Envoy with our agent.
    Envoy,
}

impl ProxyKind {
    /// The subcommand of `ferromesh-proxy` that starts it.
    pub(crate) fn subcommand(self) -> &'static str {
        match self {
            Self::Ferromesh => "run",
            Self::Envoy => "envoy",
        }
    }
}

/// A form of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document at the end.
    Json,
}

impl DemoOptions {
    /// Which proxy a workload has.
    pub(crate) fn proxy_of(&self, workload: super::layout::Workload) -> ProxyKind {
        let calls =
            workload == super::layout::PRODUCTPAGE || workload.role != super::layout::Role::Service;
        self.client_proxy.filter(|_| calls).unwrap_or(self.proxy)
    }

    /// Whether any workload has an Envoy.
    pub(crate) fn needs_envoy(&self) -> bool {
        self.proxy == ProxyKind::Envoy || self.client_proxy == Some(ProxyKind::Envoy)
    }
}
