//! What a process holds: resident memory, open files.

use std::fs;

/// A look at a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    /// Resident memory, in bytes.
    pub(crate) memory: u64,
    /// Open files, sockets among them.
    pub(crate) files: usize,
}

/// Looks at a process.
///
/// # Panics
/// It has ended.
pub(crate) fn of(process: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("the process runs").count();
    Held { memory: kilobytes * 1024, files }
}

/// The greatest memory that was seen while this lives.
pub(crate) struct Watch {
    task: tokio::task::JoinHandle<()>,
    peak: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

/// How often a watch looks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl Watch {
    /// Watches a process from now on.
    pub(crate) fn start(process: u32) -> Self {
        let peak = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(of(process).memory));
        let seen = std::sync::Arc::clone(&peak);
        let task = tokio::spawn(async move {
            let mut pauses = tokio::time::interval(PAUSE);
            loop {
                pauses.tick().await;
                seen.fetch_max(of(process).memory, std::sync::atomic::Ordering::Relaxed);
            }
        });
        Self { task, peak }
    }

    /// The greatest memory so far.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
