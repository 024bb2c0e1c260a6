//! Control-plane benchmark: a real API server, a mesh of services, and many clients that speak
//! incremental xDS; what each kind of change costs, beside what istiod needed for the same.
//!
//!   fm-bench-control-plane [--services S] [--proxies P] [--runs N] [--events NAME,...] [--json
//!   FILE]
//!
//! The control plane has core 1 for itself, clients and cluster share core 0. CPU is the control
//! plane's thread time without the share that it always spends; times run from just before the call
//! of the API server. Needs root (`integration/kube.sh`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its result")]

mod api;
mod board;
mod counted;
mod figures;
mod fleet;
mod options;
mod proxy;
mod report;
mod scenario;
mod server;
mod setting;

use std::{fs, time::Duration};

use anyhow::Context;
use ferromesh_integration::{kube_cluster::KubeCluster, plane::install_definitions};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use self::{
    api::Api,
    options::{Options, USAGE},
    scenario::Outcome,
};

/// Everything but the control plane runs here.
const CORE: usize = 0;

fn main() -> anyhow::Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let mut core = CpuSet::new();
    core.set(CORE)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("keeping to one core")?;
    let cluster = KubeCluster::up();
    install_definitions(&cluster, Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&options, &cluster))?;
    println!("{}", report::table(&options, &outcome));
    if let Some(file) = &options.json {
        let json = format!("{:#}\n", report::json(&options, &outcome));
        fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

async fn run(options: &Options, cluster: &KubeCluster) -> anyhow::Result<Outcome> {
    let api = Api::connect(cluster.folder()).await?;
    scenario::populate(&api, options.services).await?;
    scenario::measure(&api, options, &cluster.kubeconfig()).await
}
