//! Answers as checks look at them: counted by what they show, or one by itself.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use futures_util::{StreamExt, stream};

use crate::demo::client::{Answer, Caller};

/// How much earlier than asked a timer may fire: event loops count from the start of their round,
/// which is long on a busy machine.
pub(super) const CLOCK: Duration = Duration::from_millis(50);

/// Sends `count` equal GETs, a few at a time, and counts the answers by `label`.
pub(super) async fn count(
    caller: &Caller,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    count: usize,
    label: impl Fn(&Answer) -> String,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut answers =
        stream::iter((0..count).map(|_| caller.get(host, path, headers))).buffer_unordered(16);
    let mut counts = BTreeMap::new();
    while let Some(answer) = answers.next().await {
        *counts.entry(label(&answer?)).or_default() += 1;
    }
    Ok(counts)
}

/// Label of a good answer: the version; of a bad one: its status.
pub(super) fn version_or_status(answer: &Answer) -> String {
    if answer.status.is_success() {
        answer.version().to_owned()
    } else {
        answer.status.as_u16().to_string()
    }
}

/// Every label with its number.
pub(super) fn listed(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(label, n)| format!("{n} × {label}")).collect();
    parts.join(", ")
}

/// All answers carry `label`, and there are `expected` of them.
pub(super) fn only(
    counts: &BTreeMap<String, usize>,
    label: &str,
    expected: usize,
) -> anyhow::Result<()> {
    if counts.len() == 1 && counts.get(label) == Some(&expected) {
        return Ok(());
    }
    bail!("expected {expected} × {label}, got {}", listed(counts))
}

/// An answer's status is `expected`.
pub(super) fn status(answer: &Answer, expected: u16) -> anyhow::Result<()> {
    if answer.status.as_u16() == expected {
        return Ok(());
    }
    bail!("expected status {expected}, got {} ({})", answer.status, answer.body)
}
