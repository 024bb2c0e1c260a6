//! Control-plane benchmark: a real API server, a mesh of services, and many clients that speak incremental xDS; what each
//! kind of change costs, beside what istiod needed for the same.
//!
//!   fm-bench-control-plane [--services S] [--proxies P] [--runs N] [--events NAME,...] [--json FILE]
//!
//! The control plane has core 1 for itself, clients and cluster share core 0. CPU is the control plane's thread time without
//! the share that it always spends; times run from just before the call of the API server. Needs root (`integration/kube.sh`).

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

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, ensure};
use ferromesh_integration::{cluster::Cluster, paths, process::until};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use self::{api::Api, options::Options, scenario::Outcome};

/// Everything but the control plane runs here.
const CORE: usize = 0;

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut core = CpuSet::new();
    core.set(CORE)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("keeping to one core")?;
    let cluster = Cluster::up();
    install_definitions(&cluster)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&options, &cluster))?;
    println!("{}", report::table(&options, &outcome));
    if let Some(file) = &options.json {
        let json = format!("{:#}\n", report::json(&options, &outcome));
        fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

async fn run(options: &Options, cluster: &Cluster) -> anyhow::Result<Outcome> {
    let api = Api::connect(cluster.folder()).await?;
    scenario::populate(&api, options.services).await?;
    scenario::measure(&api, options, &cluster.kubeconfig()).await
}

fn install_definitions(cluster: &Cluster) -> anyhow::Result<()> {
    let output = Command::new(paths::program("ferromesh")).arg("crds").output()?;
    ensure!(output.status.success(), "ferromesh crds: {}", String::from_utf8_lossy(&output.stderr));
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, output.stdout)?;
    let path = file.path().to_str().context("paths of tests are UTF-8")?;
    cluster.kubectl(&["apply", "--server-side", "--filename", path]);
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=10s"];
    until(Duration::from_secs(60), "definitions in force", || cluster.try_kubectl(&wait).is_ok());
    Ok(())
}
