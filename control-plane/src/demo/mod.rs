//! `ferromesh demo`: a whole mesh on this machine, proven check by check. The only module that
//! imports the data plane, and only to start it again as a process of its own: the two still meet
//! on the wire alone.

mod checks;
mod client;
mod files;
mod layout;
mod mesh;
mod options;
mod processes;
mod sample;
mod table;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use checks::{CHECKS, Check, Outcome};
use files::PUBLIC_HOST;
use layout::GATEWAY;
use mesh::Mesh;
pub use options::DemoOptions;
use options::Output;
use serde_json::json;
use table::Interval;
use tokio::signal::unix::{SignalKind, signal};

use crate::config;

/// Lifetime of certificates when the checks must see them rotate.
const SHORT_TTL: &str = "20s";

/// Runs the demo until it is done or Ctrl-C.
///
/// # Errors
/// The mesh cannot be started. A check that does not hold is no error: the exit code says so.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    if let Some(text) = options.only.as_deref().filter(|text| chosen(Some(text)).count() == 0) {
        let names: Vec<String> = CHECKS.iter().map(|check| format!("  {}", check.name)).collect();
        bail!("--only {text:?}: no check has that in its name; there are\n{}", names.join("\n"));
    }
    let ttl = if options.once { SHORT_TTL } else { "1h" };
    let quiet = options.output == Output::Json;
    let started = tokio::select! {
        started = Mesh::start(&options, ttl, |step| if !quiet { say(&format!("· {step}")) }) => started,
        () = interrupted() => return Ok(ExitCode::from(130)),
    };
    let mesh = started?;
    let code = if options.once { prove(&mesh, &options).await } else { watch(&mesh).await };
    if let Some(kept) = mesh.stop(options.keep).await {
        say(&format!("kept {}", kept.display()));
    }
    Ok(code)
}

/// Ctrl-C, a closed terminal, or a polite kill: each ends the demo in order, so that no process is
/// left behind.
async fn interrupted() {
    let listen = |kind| signal(kind).expect("the runtime handles signals");
    let (mut terminate, mut hang_up) =
        (listen(SignalKind::terminate()), listen(SignalKind::hangup()));
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

/// Talks to a person, who may have gone.
fn say(text: &str) {
    let mut person = std::io::stdout();
    let _ = writeln!(person, "{text}").and_then(|()| person.flush());
}

/// The checks whose names contain a text; all without one.
fn chosen(only: Option<&str>) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(move |check| only.is_none_or(|text| check.name.contains(text)))
}

async fn prove(mesh: &Mesh, options: &DemoOptions) -> ExitCode {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for check in chosen(options.only.as_deref()) {
        let outcome = tokio::select! {
            outcome = check.run(mesh) => outcome,
            () = interrupted() => return ExitCode::from(130),
        };
        if options.output == Output::Text {
            say(&line(&outcome));
        }
        outcomes.push(outcome);
    }
    let failed = outcomes.iter().filter(|o| !o.holds).count();
    match options.output {
        Output::Text if failed == 0 && !outcomes.is_empty() => {
            say(&format!("all {} checks hold", outcomes.len()))
        }
        Output::Text => say(&format!(
            "{failed} of {} checks do not hold; logs: run again with --keep",
            outcomes.len()
        )),
        Output::Json => say(&json!({ "holds": failed == 0, "checks": outcomes }).to_string()),
    }
    if failed == 0 && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(outcome: &Outcome) -> String {
    let coloured = config::colours(std::io::stdout().is_terminal());
    let mark = match (outcome.holds, coloured) {
        (true, true) => "\x1b[32m✓\x1b[0m",
        (true, false) => "✓",
        (false, true) => "\x1b[31m✗\x1b[0m",
        (false, false) => "✗",
    };
    format!("{mark} {}: {} ({:.1} s)", outcome.name, outcome.detail, outcome.seconds)
}

async fn watch(mesh: &Mesh) -> ExitCode {
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        say("\x1b[2J\x1b[H");
    }
    let caller = mesh.outside();
    let traffic = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let caller = caller.clone();
            tokio::spawn(async move { caller.get(PUBLIC_HOST, "/productpage", &[]).await });
        }
    });
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let mut printed = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if Interval::take(mesh).print().is_err() {
                    break;
                }
                // On a terminal the hints stay below the table; in a pipe they come first and once.
                if terminal || printed == 0 {
                    hints(mesh);
                }
                printed += 1;
            }
            () = interrupted() => break,
        }
    }
    traffic.abort();
    ExitCode::SUCCESS
}

fn hints(mesh: &Mesh) {
    let dir = mesh.config_dir();
    say(&format!("Configuration: {}  (edit and save; the table follows)", dir.display()));
    say("  · 10-reviews.yaml: change the weights 90 and 10");
    say(
        "  · 40-security.yaml: remove bookinfo-reviews from the principals, and ratings refuses reviews",
    );
    say("  · 20-details.yaml: add a fault to the last rule");
    say(&format!(
        "From outside: curl -H 'Host: {PUBLIC_HOST}' http://{}:8080/productpage",
        mesh.network.inbound(GATEWAY)
    ));
    say(&format!(
        "REST: http://{}/api/v1/proxies  Logs: {}  Stop: Ctrl-C",
        mesh.network.control_plane(8080),
        mesh.dir().display()
    ));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: DemoOptions,
    }

    #[tokio::test]
    async fn an_unknown_check_is_an_error_that_names_those_that_there_are() {
        let line = ["demo", "--once", "--only", "telepathy"];
        let options = Line::try_parse_from(line).unwrap_or_else(|e| panic!("{e}")).options;
        let error = run(options).await.expect_err("no such check").to_string();
        assert!(error.contains("telepathy") && error.contains("STRICT refuses"), "{error}");
        assert_eq!((chosen(None).count(), chosen(Some("gateway")).count()), (CHECKS.len(), 2));
    }
}
