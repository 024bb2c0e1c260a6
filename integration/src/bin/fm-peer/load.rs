//! Constant load: a request every so often, whatever became of the one before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::ensure;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::{ask::Asker, told_to_end};

/// Failures that are told in words; all are counted.
const WORDS: usize = 20;

#[derive(Default)]
struct Counts {
    answered: u64,
    failed: u64,
    versions: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Sends `rate` requests a second until it is told to end. Every second, and at the end when every
/// request has its answer, prints `{"answered": n, "failed": n, "versions": {…}, "failures": […]}`,
/// counted from the start.
pub(crate) async fn load(url: &str, rate: u32, headers: &[&str]) -> anyhow::Result<()> {
    ensure!((1..=10_000).contains(&rate), "RATE is 1 to 10000 a second");
    let asker = Arc::new(Asker::new(url, headers)?);
    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut requests = interval(Duration::from_secs(1) / rate);
    requests.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut report = interval(Duration::from_secs(1));
    let mut end = std::pin::pin!(told_to_end());
    loop {
        tokio::select! {
            _ = requests.tick() => drop(tokio::spawn(send(asker.clone(), counts.clone()))),
            _ = report.tick() => print(&counts),
            told = &mut end => { told?; break }
        }
    }
    while Arc::strong_count(&counts) > 1 {
        report.tick().await;
    }
    print(&counts);
    Ok(())
}

async fn send(asker: Arc<Asker>, counts: Arc<Mutex<Counts>>) {
    let began = SystemTime::now();
    let outcome = asker.ask().await;
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let failure = match outcome {
        Ok((200, body)) => {
            counts.answered += 1;
            *counts
                .versions
                .entry(body["version"].as_str().unwrap_or_default().to_owned())
                .or_default() += 1;
            return;
        }
        Ok((status, body)) => format!("status {status} {body}"),
        Err(error) => format!("{error:#}"),
    };
    counts.failed += 1;
    if counts.failures.len() < WORDS {
        let at = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        counts.failures.push(format!("sent at {at} ms: {failure}"));
    }
}

fn print(counts: &Mutex<Counts>) {
    let Counts { answered, failed, versions, failures } =
        &*counts.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{}",
        json!({ "answered": answered, "failed": failed, "versions": versions, "failures": failures })
    );
}
