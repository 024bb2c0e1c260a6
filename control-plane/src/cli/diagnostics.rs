//! `ferromesh diagnostics`: every finding about a running mesh.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    print::{print, print_error},
    remote::Remote,
    table::{Form, finding},
};

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// `ferromesh diagnostics`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Exits with 1 when something is refused or refers to what does not exist.

Examples:
  ferromesh diagnostics
  ferromesh diagnostics -n shop --severity warn
  ferromesh diagnostics -w                            go on, and print what comes and goes
  ferromesh diagnostics -o json")]
pub(crate) struct Diagnostics {
    /// Only about objects of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only what matters at least so much
    #[arg(long, value_enum, default_value_t)]
    severity: Severity,
    /// Go on, and print what comes and goes
    #[arg(short, long, conflicts_with = "output")]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How much a finding matters, worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ValueEnum)]
enum Severity {
    Error,
    ErrorRef,
    Warn,
    #[default]
    Info,
}

impl Severity {
    fn of(item: &Value) -> Self {
        let word = item["severity"].as_str().unwrap_or_default();
        Self::from_str(word, true).unwrap_or(Self::Error)
    }
}

impl Diagnostics {
    fn wants(&self, item: &Value) -> bool {
        let namespace = self.namespace.as_deref();
        Severity::of(item) <= self.severity
            && namespace.is_none_or(|namespace| item["object"]["namespace"] == namespace)
    }
}

impl Remote {
    /// Prints findings.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn diagnostics(&self, command: &Diagnostics) -> anyhow::Result<ExitCode> {
        if command.watch {
            return self.watch_diagnostics(command).await;
        }
        let items = self.found(command).await?;
        let fails = items.iter().any(|item| Severity::of(item) <= Severity::ErrorRef);
        match command.output {
            Form::Json => print(&serde_json::to_string_pretty(&json!({ "items": items }))?),
            Form::Text => {
                items.iter().for_each(|item| print(&finding(item)));
                print_error(&format!("{} findings", items.len()));
            }
        }
        Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn found(&self, command: &Diagnostics) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.read("/api/v1/diagnostics").await?;
        let Value::Array(mut items) = answer["items"].take() else { return Ok(Vec::new()) };
        items.retain(|item| command.wants(item));
        Ok(items)
    }

    async fn watch_diagnostics(&self, command: &Diagnostics) -> anyhow::Result<ExitCode> {
        let mut before = BTreeSet::new();
        loop {
            let items = self.found(command).await?;
            let now: BTreeSet<String> = items.iter().map(finding).collect();
            news(&before, &now).iter().for_each(|line| print(line));
            before = now;
            sleep(WATCH).await;
        }
    }
}

/// What came, then what went.
fn news(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let came = now.difference(before).map(|line| format!("+ {line}"));
    let went = before.difference(now).map(|line| format!("- {line}"));
    came.chain(went).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: Diagnostics,
    }

    #[test]
    fn findings_are_chosen_by_namespace_and_by_how_much_they_matter() {
        let item = |severity: &str, namespace: &str| json!({ "severity": severity, "object": { "namespace": namespace } });
        let table = [
            ("", "info", "shop", true),
            ("-n shop", "info", "shop", true),
            ("-n shop", "error", "bank", false),
            ("--severity warn", "error-ref", "bank", true),
            ("--severity warn", "warn", "bank", true),
            ("--severity warn", "info", "bank", false),
            ("--severity error", "error-ref", "bank", false),
        ];
        for (line, severity, namespace, expected) in table {
            let words = format!("diagnostics {line}");
            let line =
                Line::try_parse_from(words.split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(line.command.wants(&item(severity, namespace)), expected, "{words}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_told_once() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(news(&set(&[]), &set(&["a", "b"])), ["+ a", "+ b"]);
        assert_eq!(news(&set(&["a", "b"]), &set(&["b", "c"])), ["+ c", "- a"]);
        assert_eq!(news(&set(&["a"]), &set(&["a"])), [] as [&str; 0]);
    }
}
