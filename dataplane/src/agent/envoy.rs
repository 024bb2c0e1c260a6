//! Runs Envoy as a child: starts it, starts it again when it fails, drains it before it ends.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::{
    admin::{DrainScope, EnvoyAdmin},
    bootstrap::Start,
    tied::{self, Tie},
};
use crate::drain::DrainSettings;

/// How long Envoy may take to end after SIGTERM.
const TERMINATION: Duration = Duration::from_secs(5);
/// How often open connections are counted during a drain.
const DRAIN_POLL: Duration = Duration::from_millis(200);

/// How Envoy is run.
#[derive(Clone, Debug)]
pub struct EnvoySettings {
    /// The program.
    pub binary: PathBuf,
    /// How its life is tied to ours.
    pub tie: Option<Tie>,
    /// Its bootstrap.
    pub bootstrap: Start,
    /// Its admin interface, as the bootstrap says.
    pub admin: SocketAddr,
    /// Worker threads; Envoy's default (one per core) without it.
    pub concurrency: Option<u32>,
    /// `warn`, `info`…
    pub log_level: String,
    /// Further arguments, last.
    pub extra_args: Vec<String>,
    /// How long it goes on at its end; a limit of zero ends it at once.
    pub drain: DrainSettings,
    /// What drains first.
    pub drain_scope: DrainScope,
}

impl EnvoySettings {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.bootstrap.arguments();
        // One agent, one Envoy: shared memory for restarts would make two of them on a host
        // collide.
        arguments.push("--disable-hot-restart".into());
        if let Some(concurrency) = self.concurrency {
            arguments.extend(["--concurrency".into(), concurrency.to_string()]);
        }
        arguments.extend(["-l".into(), self.log_level.clone()]);
        let drain_seconds = self.drain.limit.as_secs().max(1).to_string();
        arguments.extend([
            "--drain-time-s".into(),
            drain_seconds,
            "--drain-strategy".into(),
            "immediate".into(),
        ]);
        arguments.extend(self.extra_args.iter().cloned());
        arguments
    }
}

/// Why Envoy does not run.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// The program cannot be started.
    #[error("cannot start Envoy {binary}: {source}; install Envoy or name the program", binary = .binary.display())]
    Start {
        /// Which program.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program cannot be started, as a line of the log before says.
    #[error("cannot start Envoy {binary}: install Envoy or name the program", binary = .0.display())]
    NotStarted(PathBuf),
    /// It ended again and again.
    #[error(
        "Envoy ended {times} times in a row shortly after its start, last with {status}: its own log says why"
    )]
    Unstable {
        /// How often.
        times: u32,
        /// How it ended last.
        status: ExitStatus,
    },
    /// The system lost the child.
    #[error("cannot wait for Envoy: {0}")]
    Wait(#[source] io::Error),
}

/// Whether and when a program that ended is started again: pure.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct RestartPolicy {
    failures: u32,
}

impl RestartPolicy {
    const FIRST_WAIT: Duration = Duration::from_millis(500);
    const LONGEST_WAIT: Duration = Duration::from_secs(30);
    /// Whoever ran this long did not fail because of how it was started.
    const STABLE: Duration = Duration::from_secs(60);
    const GIVE_UP_AFTER: u32 = 5;

    /// It ended after running for `ran`: how long to wait, or `None` to give up.
    fn ended(&mut self, ran: Duration) -> Option<Duration> {
        self.failures = if ran >= Self::STABLE { 1 } else { self.failures + 1 };
        let wait = Self::FIRST_WAIT * 2u32.pow(self.failures.min(10) - 1);
        (self.failures < Self::GIVE_UP_AFTER).then(|| wait.min(Self::LONGEST_WAIT))
    }
}

/// Runs Envoy until `stop`, then drains and ends it. Returns early when Envoy ends by itself
/// without an error.
///
/// # Errors
/// [`EnvoyError`] when it cannot be started, or fails again and again.
pub async fn supervise(
    settings: &EnvoySettings,
    stop: CancellationToken,
) -> Result<(), EnvoyError> {
    let mut policy = RestartPolicy::default();
    let mut settings = settings.clone();
    loop {
        let started = Instant::now();
        let mut child = start(&settings)?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(EnvoyError::Wait)?,
            () = stop.cancelled() => return end(&settings, child).await,
        };
        if status.success() {
            tracing::info!("Envoy ended by itself");
            return Ok(());
        }
        if settings.tie.is_some() && status.code() == Some(tied::NOT_STARTED.into()) {
            return Err(EnvoyError::NotStarted(settings.binary.clone()));
        }
        let wait = match (policy.ended(started.elapsed()), settings.bootstrap.without_additions()) {
            (Some(wait), _) => wait,
            (None, Some(own)) => {
                tracing::error!("Envoy goes on without what is added to its bootstrap");
                settings.bootstrap = own;
                policy = RestartPolicy::default();
                RestartPolicy::FIRST_WAIT
            }
            (None, None) => {
                return Err(EnvoyError::Unstable { times: policy.failures, status });
            }
        };
        tracing::error!(%status, restart_in_ms = wait.as_millis(), "Envoy ended, starting it again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn start(settings: &EnvoySettings) -> Result<Child, EnvoyError> {
    let mut command = match &settings.tie {
        Some(tie) => tie.command(&settings.binary),
        None => Command::new(&settings.binary),
    };
    command
        .args(settings.arguments())
        .stdin(Stdio::null())
        // In a group of its own, so that Ctrl-C on a terminal reaches the agent only, which then
        // drains.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| EnvoyError::Start { binary: settings.binary.clone(), source })
}

async fn end(settings: &EnvoySettings, mut child: Child) -> Result<(), EnvoyError> {
    if !settings.drain.limit.is_zero() {
        tokio::select! {
            () = drain(settings) => {}
            // It may crash, or be ended by somebody else, meanwhile.
            _ = child.wait() => return Ok(()),
        }
    }
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // An error means that it is gone, which the wait below sees.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(TERMINATION, child.wait()).await.is_err() {
        tracing::warn!("Envoy does not end, killing it");
        child.kill().await.map_err(EnvoyError::Wait)?;
    }
    Ok(())
}

/// Until no connection is open, or the drain time is over.
async fn drain(settings: &EnvoySettings) {
    let admin = EnvoyAdmin::new(settings.admin);
    if let Err(error) = admin.drain(settings.drain_scope).await {
        tracing::warn!(%error, "Envoy cannot be drained");
        return;
    }
    let started = Instant::now();
    tracing::info!(at_most_s = settings.drain.limit.as_secs(), "draining Envoy");
    while started.elapsed() < settings.drain.limit {
        tokio::time::sleep(DRAIN_POLL).await;
        let open = admin.active_connections().await;
        if started.elapsed() >= settings.drain.grace && matches!(open, Ok(0)) {
            return;
        }
    }
    tracing::info!("drain time is over, closing what is still open");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_restarted_ever_more_slowly_and_then_given_up() {
        let mut policy = RestartPolicy::default();
        let waits: Vec<_> = (0..5).map(|_| policy.ended(Duration::ZERO)).collect();
        let expected = [500, 1000, 2000, 4000].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(waits[..4], expected);
        assert_eq!(waits[4], None);
    }

    #[test]
    fn a_program_that_ran_for_long_starts_afresh() {
        let mut policy = RestartPolicy { failures: 4 };
        assert_eq!(policy.ended(Duration::from_secs(3600)), Some(RestartPolicy::FIRST_WAIT));
    }

    fn settings(binary: &str, arguments: &[&str]) -> EnvoySettings {
        EnvoySettings {
            binary: binary.into(),
            tie: None,
            bootstrap: Start::Own("/dev/null".into()),
            admin: ([127, 0, 0, 1], 9).into(),
            concurrency: Some(2),
            log_level: "warn".into(),
            extra_args: arguments.iter().map(|a| (*a).to_owned()).collect(),
            drain: DrainSettings { grace: Duration::ZERO, limit: Duration::ZERO },
            drain_scope: DrainScope::Inbound,
        }
    }

    #[test]
    fn arguments_are_envoy_s_with_the_user_s_last() {
        let arguments =
            settings("envoy", &["--component-log-level", "upstream:debug"]).arguments().join(" ");
        let expected = "-c /dev/null --disable-hot-restart --concurrency 2 -l warn --drain-time-s 1 --drain-strategy \
                        immediate --component-log-level upstream:debug";
        assert_eq!(arguments, expected);
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = supervise(&settings("/nonexistent/envoy", &[]), CancellationToken::new())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nonexistent/envoy"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_ends_well_ends_the_supervision() {
        supervise(&settings("true", &[]), CancellationToken::new()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_fails_by_what_is_added_goes_on_without() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("envoy");
        std::fs::write(&script, "#!/bin/sh\n[ \"$2\" = own ]\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let mut settings = settings(&script.display().to_string(), &[]);
        let (added, own, text) = ("added".into(), "own".into(), "{}".to_owned());
        settings.bootstrap = Start::Extended { added, own, text };
        supervise(&settings, CancellationToken::new()).await.unwrap();
        settings.bootstrap = Start::Own("other".into());
        let error = supervise(&settings, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, EnvoyError::Unstable { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_stop_ends_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("envoy");
        std::fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (settings, stop) = (settings(&script.display().to_string(), &[]), stop.clone());
            async move { supervise(&settings, stop).await }
        });
        tokio::task::yield_now().await;
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
