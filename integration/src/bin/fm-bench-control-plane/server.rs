//! The control plane under measure: a process on a core of its own, its CPU time and its memory.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context;
use ferromesh_integration::{plane::ControlPlane, process::Process};

/// Where it listens: an address of this process's own, so that two benchmarks do not meet.
pub(crate) static ADDRESS: LazyLock<Ipv4Addr> = LazyLock::new(|| {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 120 + high % 100, low, 1)
});
/// Its core; everything else is on core 0.
const CORE: &str = "1";
/// A time without work that shows that an event is over.
const QUIET: Duration = Duration::from_millis(750);
/// CPU time within [`QUIET`], beyond what is always spent, that still counts as none.
const NOISE: Duration = Duration::from_millis(8);
const LONGEST: Duration = Duration::from_secs(100);

/// A running control plane.
pub(crate) struct Server {
    process: Process,
    /// CPU time of each thread when last looked at: what a thread that ended had spent stays
    /// counted.
    threads: Mutex<HashMap<String, Duration>>,
    _control: ControlPlane,
}

impl Server {
    /// Starts one that follows the cluster, and waits until it has read everything.
    ///
    /// # Panics
    /// It does not become ready, with its last words.
    pub(crate) fn start(kubeconfig: &Path) -> Self {
        let control = ControlPlane::of_cluster(*ADDRESS, kubeconfig)
            .started_by("taskset", &["--cpu-list", CORE]);
        Self { process: control.start(), threads: Mutex::default(), _control: control }
    }

    /// CPU time of all threads since the start.
    ///
    /// # Errors
    /// The process ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut threads = self.threads.lock().expect("nobody panics with it");
        let tasks = format!("/proc/{}/task", self.process.id());
        for task in fs::read_dir(&tasks)
            .with_context(|| format!("the server ended: {}", self.process.output()))?
        {
            let task = task?;
            // A thread may end between the two.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let spent = text
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .context("nanoseconds come first")?;
            threads.insert(
                task.file_name().to_string_lossy().into_owned(),
                Duration::from_nanos(spent),
            );
        }
        Ok(threads.values().sum())
    }

    /// Resident memory in MB: now, and at its highest.
    ///
    /// # Errors
    /// The process ended.
    pub(crate) fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |field: &str| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(field))
                .context("a field of the kernel's")?;
            let kilobytes: f64 =
                line.trim_start_matches(':').trim_end_matches("kB").trim().parse()?;
            anyhow::Ok(kilobytes * 1024.0 / 1e6)
        };
        Ok((of("VmRSS")?, of("VmHWM")?))
    }

    /// CPU time per second while nothing happens, watched for `time`.
    ///
    /// # Errors
    /// The process ended.
    pub(crate) async fn idle_share(&self, time: Duration) -> anyhow::Result<f64> {
        let (before, begin) = (self.cpu()?, Instant::now());
        tokio::time::sleep(time).await;
        Ok((self.cpu()? - before).as_secs_f64() / begin.elapsed().as_secs_f64())
    }

    /// Waits until it does nothing but what it always does (`idle`: CPU time per second). The
    /// moment since when.
    ///
    /// # Errors
    /// The process ended.
    ///
    /// # Panics
    /// It never rests.
    pub(crate) async fn quiet(&self, idle: f64) -> anyhow::Result<Instant> {
        let begin = Instant::now();
        loop {
            let (before, since) = (self.cpu()?, Instant::now());
            tokio::time::sleep(QUIET).await;
            let spent = self.cpu()? - before;
            if spent <= NOISE + QUIET.mul_f64(idle * 1.5) {
                return Ok(since);
            }
            assert!(begin.elapsed() < LONGEST, "the server does not rest");
        }
    }
}
