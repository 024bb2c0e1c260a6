//! The Ferromesh data plane: a proxy that runs the same xDS as Envoy, and an agent that gives a
//! stock Envoy its identity.
//!
//! ```text
//! xds (delta ADS) ─▶ compile ─▶ runtime (immutable) ─▶ worker ─▶ listen ─▶ tls ─▶ http | tcp ─▶ upstream
//!        ▲              └─ refuses what it cannot do: NACK with resource, field and reason
//!   identity (CSR, rotation) ─▶ tls, agent (SDS for Envoy)
//! ```
//! It never imports the translator or the control plane: they meet only on the wire. Admin work
//! (xDS, certificates, metrics) runs on one thread, traffic on others, each with a runtime of its
//! own.

pub mod admin;
pub mod agent;
pub mod app;
pub(crate) mod codec;
pub mod compile;
pub mod config;
pub mod drain;
#[cfg(test)]
mod end_to_end;
pub(crate) mod file;
pub mod http;
pub mod identity;
pub mod listen;
pub mod log;
pub mod machine;
pub mod node;
pub mod pod;
pub mod redirect;
pub mod resolve;
pub mod runtime;
pub(crate) mod tcp;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
pub mod xds;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    agent::tied::{NOT_STARTED, NotStarted, Tie},
    config::{Cli, Command},
    log::Log,
};

/// Runs the program with these arguments (the first one is its name) until it ends.
///
/// `words` are those that lead this process here, before the subcommand: `ferromesh demo` starts
/// itself again as a proxy. Starts its own runtimes, so it must not be called from one.
pub fn main_with(args: impl IntoIterator<Item = OsString>, words: &[&str]) -> ExitCode {
    app::keep_memory_private();
    let cli = match config::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // clap's text is for people: usage, help or version, on the stream where it belongs.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let colours = config::colours(std::io::stderr().is_terminal());
    let log = Log::start(&cli.log, cli.log_format, colours);
    match run(cli.command, log, Tie(words.iter().map(OsString::from).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<NotStarted>() { ExitCode::from(NOT_STARTED) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command, log: Log, tie: Tie) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => app::run_proxy(args.settings()?, log),
        Command::Envoy(args) => app::run_agent(args.settings(Some(tie))?),
        Command::Redirect(args) => app::redirect(&args.settings(), args.print),
        Command::Completion { shell } => completion(shell),
        Command::Man { folder } => manual(&folder),
        Command::Tied { parent, program } => Err(agent::tied::exec(parent, &program).into()),
    }
}

/// Prints what a shell needs to complete commands. That nobody reads it is no failure.
fn completion(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let program = Cli::command();
    clap_complete::generate(shell, &mut program.clone(), program.get_name(), &mut script);
    let _ = std::io::stdout().write_all(&script);
    Ok(())
}

/// Writes the manual pages, one for each command.
fn manual(folder: &Path) -> anyhow::Result<()> {
    let failed = || format!("writing manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(failed)
}
