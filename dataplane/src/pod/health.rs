//! Whether a machine is well: its probe is asked again and again, as a kubelet would, and what it
//! comes to is told.

use std::{process::Stdio, str::FromStr, time::Duration};

use http::HeaderMap;
use serde::Deserialize;
use tokio::{
    process::Command,
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Application, check,
    probe::{Probe, Written},
};

/// Kubernetes' defaults.
const PERIOD: u64 = 10;
const SUCCESSES: u32 = 1;
const FAILURES: u32 = 3;
const TIMEOUT: u64 = 1;

/// How a machine is asked whether it is well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthProbe {
    way: Way,
    initial_delay: Duration,
    period: Duration,
    /// So often in a row it has to succeed.
    successes: u32,
    /// So often in a row it has to fail.
    failures: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Way {
    Asked(Probe),
    /// A program and its arguments; never empty.
    Program {
        command: Vec<String>,
        timeout: Duration,
    },
}

/// As `probe` of a WorkloadGroup is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenHealth {
    #[serde(flatten)]
    asked: Written,
    exec: Option<Exec>,
    initial_delay_seconds: Option<u64>,
    period_seconds: Option<u64>,
    success_threshold: Option<u32>,
    failure_threshold: Option<u32>,
}

#[derive(Deserialize)]
struct Exec {
    command: Vec<String>,
}

impl FromStr for HealthProbe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written: WrittenHealth = serde_json::from_str(text)
            .map_err(|e| format!("expected the `probe` of a WorkloadGroup as JSON: {e}"))?;
        let limit = Duration::from_secs(written.asked.timeout_seconds.unwrap_or(TIMEOUT).max(1));
        let way = match written.exec {
            None => Way::Asked(Probe::parse(written.asked)?),
            Some(Exec { command }) if !command.is_empty() && written.asked.is_empty() => {
                Way::Program { command, timeout: limit }
            }
            Some(_) => return Err("expected a command, and no other way beside exec".to_owned()),
        };
        let seconds = |number: Option<u64>, default| Duration::from_secs(number.unwrap_or(default));
        Ok(Self {
            way,
            initial_delay: seconds(written.initial_delay_seconds, 0),
            period: seconds(written.period_seconds, PERIOD).max(Duration::from_secs(1)),
            successes: written.success_threshold.unwrap_or(SUCCESSES).max(1),
            failures: written.failure_threshold.unwrap_or(FAILURES).max(1),
        })
    }
}

impl HealthProbe {
    /// Tells whether the machine is well, whenever that is known first or is another than before,
    /// until nobody hears it.
    pub async fn watch(self, application: Application, told: watch::Sender<Option<bool>>) {
        sleep(self.initial_delay).await;
        let mut count = Count { well: false, streak: 0 };
        while !told.is_closed() {
            let outcome = self.ask(application).await;
            if let Err(why) = &outcome {
                tracing::debug!(%why, "the machine's probe failed");
            }
            if let Some(well) = self.judge(&mut count, outcome.is_ok()) {
                let changed = told.send_if_modified(|told| told.replace(well) != Some(well));
                if changed {
                    tracing::info!(well, "the machine's probe");
                }
            }
            sleep(self.period).await;
        }
    }

    /// What the outcomes up to this one come to; `None`: nothing yet.
    fn judge(&self, count: &mut Count, succeeded: bool) -> Option<bool> {
        count.streak = if count.well == succeeded { count.streak.saturating_add(1) } else { 1 };
        count.well = succeeded;
        let enough = if succeeded { self.successes } else { self.failures };
        (count.streak >= enough).then_some(succeeded)
    }

    async fn ask(&self, application: Application) -> Result<(), String> {
        match &self.way {
            Way::Asked(probe) => {
                let status = check::run(application, probe, &HeaderMap::new()).await?;
                let well = status.is_success() || status.is_redirection();
                if well { Ok(()) } else { Err(format!("the application answers {status}")) }
            }
            Way::Program { command, timeout: limit } => {
                let mut program = Command::new(&command[0]);
                program.args(&command[1..]).kill_on_drop(true);
                program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let ended = timeout(*limit, program.status()).await;
                let ended = ended.map_err(|_| format!("no end within {}s", limit.as_secs()))?;
                let status = ended.map_err(|error| format!("{}: {error}", command[0]))?;
                if status.success() { Ok(()) } else { Err(format!("{}: {status}", command[0])) }
            }
        }
    }
}

/// How often in a row the same came out.
#[derive(Clone, Copy, Debug)]
struct Count {
    well: bool,
    streak: u32,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    fn here() -> Application {
        Application { address: Ipv4Addr::LOCALHOST.into(), captured: false }
    }

    #[test]
    fn a_probe_is_written_as_in_a_group_and_a_wrong_one_is_named() {
        let probe: HealthProbe = r#"{"tcpSocket": {"port": 80}, "periodSeconds": 5,
            "successThreshold": 2, "failureThreshold": 4, "initialDelaySeconds": 1}"#
            .parse()
            .unwrap();
        let times = (probe.initial_delay.as_secs(), probe.period.as_secs());
        assert_eq!((times, probe.successes, probe.failures), ((1, 5), 2, 4));
        for (text, word) in [
            ("{}", "exactly one of"),
            (r#"{"exec": {"command": []}}"#, "a command"),
            (r#"{"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}}"#, "no other way"),
            ("[]", "as JSON"),
        ] {
            let error = text.parse::<HealthProbe>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn outcomes_count_in_a_row() {
        let probe: HealthProbe =
            r#"{"tcpSocket": {"port": 80}, "successThreshold": 2}"#.parse().unwrap();
        let mut count = Count { well: false, streak: 0 };
        let outcomes = [true, false, true, true, false, false, false, true, true];
        let judged = outcomes.map(|outcome| probe.judge(&mut count, outcome));
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(judged, [None, None, None, yes, None, None, no, None, yes]);
    }

    #[tokio::test]
    async fn a_program_and_a_port_say_how_the_machine_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (text, well) in [
            (r#"{"exec": {"command": ["true"]}}"#.to_owned(), true),
            (r#"{"exec": {"command": ["false"]}}"#.to_owned(), false),
            (r#"{"exec": {"command": ["/nonexistent"]}}"#.to_owned(), false),
            (r#"{"exec": {"command": ["sleep", "600"]}}"#.to_owned(), false),
            (format!(r#"{{"tcpSocket": {{"port": {port}}}}}"#), true),
        ] {
            let probe: HealthProbe = text.parse().unwrap();
            assert_eq!(probe.ask(here()).await.is_ok(), well, "{text}");
        }
    }
}
