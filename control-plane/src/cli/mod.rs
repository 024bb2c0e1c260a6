//! The command line: every subcommand, its help, and how it ends.

mod analyze;
mod backup;
mod bootstrap;
mod bug_report;
mod changes;
mod check;
mod completion;
mod context;
mod crds;
mod diagnostics;
mod echo;
mod explain;
mod init;
mod inject;
mod inputs;
mod log;
mod man;
mod objects;
mod plan;
mod print;
mod proxy_config;
mod proxy_log;
mod proxy_status;
mod redacted;
mod remote;
mod rewrite;
mod spellings;
mod table;
mod translate;
mod unified;
mod user;
mod version;
mod workload;
mod yaml;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use self::print::{line_of, print_error};
use crate::{
    app,
    config::{RemoteOptions, ServeOptions},
};

/// Ferromesh: a service mesh in one binary
#[derive(Parser, Debug)]
#[command(
    name = "ferromesh",
    version,
    about,
    propagate_version = true,
    after_help = "First steps:
  ferromesh demo                     see a whole mesh on this machine
  ferromesh init my-mesh             make a small mesh of your own, with the commands that run it
  ferromesh analyze -f ./mesh        find mistakes before they are served
  ferromesh serve --config ./mesh    serve a directory of YAML"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole mesh on this machine, without root
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoOptions),
    /// Make a small mesh of your own: files with comments, and the commands that run it
    Init(init::Init),
    /// Run the control plane
    Serve(Box<ServeOptions>),
    /// Print exactly what a proxy would get, offline
    Translate(translate::Translate),
    /// Find mistakes in configuration, offline
    Analyze(analyze::Analyze),
    /// Show what a change would do to proxies and requests, before it is made
    Plan {
        #[command(flatten)]
        command: plan::Plan,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show what becomes of a request, and which objects decided that
    Explain {
        #[command(flatten)]
        command: explain::Explain,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Put proxies into the pods of YAML files, as the webhook of a cluster does
    Inject(inject::Inject),
    /// Print the CustomResourceDefinitions of the kinds that are served, as YAML
    #[command(after_help = "Example:\n  ferromesh crds | kubectl apply --server-side -f -")]
    Crds,
    /// Store objects through the REST API
    Apply {
        #[command(flatten)]
        command: objects::Apply,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show objects that are in force
    Get {
        #[command(flatten)]
        command: objects::Get,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show all that is known of an object: where it is written, what was found, who refuses it
    Describe {
        #[command(flatten)]
        command: objects::Describe,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Delete an object that was stored through the REST API
    Delete {
        #[command(flatten)]
        command: objects::Delete,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show every finding about a running mesh: mistakes, refusals, missing proxies
    Diagnostics {
        #[command(flatten)]
        command: diagnostics::Diagnostics,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Check this machine before a mesh is started, or a running mesh
    Check {
        #[command(flatten)]
        command: check::Check,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show every connected proxy and how far it is
    ProxyStatus {
        #[command(flatten)]
        command: proxy_status::ProxyStatus,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show what a proxy was sent
    ProxyConfig {
        #[command(flatten)]
        command: proxy_config::ProxyConfig,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Print a bootstrap for an Envoy that you start yourself
    Bootstrap {
        #[command(flatten)]
        command: bootstrap::Bootstrap,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Declare workloads outside of a cluster
    #[command(after_help = "Example:
  ferromesh workload add cart-1 --address 10.0.0.7 -s cart -f mesh/cart-1.yaml")]
    Workload {
        #[command(subcommand)]
        command: workload::Workload,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Serve requests to try a mesh with: answers who asks, and asks another server
    Echo(echo::Echo),
    /// Join tokens: with one, a proxy outside of a cluster gets its first certificate
    #[command(after_help = "Example:
  ferromesh token create -n shop -s cart --single-use > cart.token")]
    Token {
        #[command(subcommand)]
        command: remote::Token,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Give control planes names, and choose the one that commands ask
    #[command(after_help = "Example:
  ferromesh context add shop --server http://10.0.0.5:8080 --admin-token-file ~/shop.token
  ferromesh context use shop")]
    Context {
        #[command(subcommand)]
        command: context::Context,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Write down what somebody needs to find out what is wrong, without secrets
    BugReport {
        #[command(flatten)]
        command: bug_report::BugReport,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show or change what a control plane logs
    Log {
        #[command(flatten)]
        command: log::Log,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Copy the state of a control plane on this machine, which may run, under a passphrase
    Backup(backup::Backup),
    /// Put the state of a control plane back into an empty folder
    Restore(backup::Restore),
    /// Users of the REST API beside the administrator: viewers, editors, administrators
    #[command(after_help = "Example:
  ferromesh user add ann --role editor --file users > ann.token")]
    User {
        #[command(subcommand)]
        command: user::User,
    },
    /// Show the versions of this program, of the control plane and of connected proxies
    Version {
        #[command(flatten)]
        command: version::Version,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(man::Man),
    /// Print what a shell needs to complete commands and options
    Completion(completion::Completion),
    /// The proxy, as the demo starts it
    #[cfg(feature = "demo")]
    #[command(hide = true, disable_help_flag = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    app::keep_memory_private();
    let arguments = match spellings::ours(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(why) => {
            print_error(&format!("error: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let command = Cli::parse_from(arguments).command;
    #[cfg(feature = "demo")]
    if let Command::Proxy { arguments } = command {
        let program = OsString::from("ferromesh-proxy");
        return ferromesh_dataplane::main_with(
            std::iter::once(program).chain(arguments),
            &["proxy"],
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(command)) {
        Ok(code) => code,
        Err(error) => {
            print_error(&format!("error: {}", line_of(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    use remote::Remote;
    match command {
        #[cfg(feature = "demo")]
        Command::Demo(options) => return crate::demo::run(options).await,
        #[cfg(feature = "demo")]
        Command::Proxy { .. } => {}
        Command::Serve(options) => app::run(options.check()?).await?,
        Command::Translate(command) => return translate::run(&command),
        Command::Analyze(command) => return analyze::run(&command),
        Command::Plan { command, remote } => return plan::run(&command, &remote).await,
        Command::Explain { command, remote } => return explain::run(&command, &remote).await,
        Command::Inject(command) => return inject::run(&command),
        Command::Crds => crds::run(),
        Command::Init(command) => init::run(&command)?,
        Command::Workload { command, remote } => workload::run(&command, &remote).await?,
        Command::Echo(command) => echo::run(command).await?,
        Command::Apply { command, remote } => Remote::new(&remote)?.apply(&command).await?,
        Command::Get { command, remote } => Remote::new(&remote)?.get(&command).await?,
        Command::Describe { command, remote } => Remote::new(&remote)?.describe(&command).await?,
        Command::Delete { command, remote } => return Remote::new(&remote)?.delete(&command).await,
        Command::Diagnostics { command, remote } => {
            return Remote::new(&remote)?.diagnostics(&command).await;
        }
        Command::Check { command, remote } => return check::run(&command, &remote).await,
        Command::Version { command, remote } => version::run(&command, &remote).await?,
        Command::BugReport { command, remote } => {
            Remote::new(&remote)?.bug_report(&command).await?
        }
        Command::Context { command, remote } => context::run(&command, &remote)?,
        Command::Log { command, remote } => Remote::new(&remote)?.log(&command).await?,
        Command::Backup(command) => backup::back_up(&command)?,
        Command::Restore(command) => backup::restore(&command)?,
        Command::User { command } => user::run(&command)?,
        Command::Man(command) => man::run(&command, Cli::command())?,
        Command::Completion(command) => completion::run(&command, &mut Cli::command()),
        Command::ProxyStatus { command, remote } => {
            Remote::new(&remote)?.proxy_status(&command).await?
        }
        Command::ProxyConfig { command, remote } => {
            Remote::new(&remote)?.proxy_config(&command).await?
        }
        Command::Bootstrap { command, remote } => bootstrap::run(&command, &remote).await?,
        Command::Token { command, remote } => Remote::new(&remote)?.token(&command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that a person can see, with those below it.
    fn visible(command: &clap::Command) -> Vec<&clap::Command> {
        let below =
            command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
        below.flat_map(|c| std::iter::once(c).chain(visible(c))).collect()
    }

    #[test]
    fn the_help_of_every_command_says_what_it_is_for_and_has_an_example() {
        let cli = Cli::command();
        let all = visible(&cli);
        assert!(all.len() > 20, "{}", all.len());
        for command in all {
            let name = command.get_name();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.split(' ').count() > 2 && !about.ends_with('.'), "{name}: {about:?}");
            let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = more.lines().any(|line| line.starts_with("  ferromesh "));
            assert!(more.contains("Example") && example, "{name}: {more:?}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
