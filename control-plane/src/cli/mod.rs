//! The command line: every subcommand, its help, and how it ends.

mod analyze;
mod bootstrap;
mod changes;
mod crds;
mod echo;
mod explain;
mod init;
mod inject;
mod inputs;
mod plan;
mod print;
mod remote;
mod rewrite;
mod translate;
mod unified;
mod workload;
mod yaml;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

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
    Serve(ServeOptions),
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
    Crds,
    /// Store objects through the REST API
    Apply {
        #[command(flatten)]
        command: remote::Apply,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show objects that are in force
    Get {
        #[command(flatten)]
        command: remote::Get,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Delete an object that was stored through the REST API
    Delete {
        #[command(flatten)]
        command: remote::Delete,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show every connected proxy and how far it is
    ProxyStatus {
        #[command(flatten)]
        command: remote::ProxyStatus,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Show what a proxy was sent
    ProxyConfig {
        #[command(flatten)]
        command: remote::ProxyConfig,
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
    Workload {
        #[command(subcommand)]
        command: workload::Workload,
        #[command(flatten)]
        remote: RemoteOptions,
    },
    /// Serve requests to try a mesh with: answers who asks, and asks another server
    Echo(echo::Echo),
    /// Join tokens
    Token {
        #[command(subcommand)]
        command: remote::Token,
        #[command(flatten)]
        remote: RemoteOptions,
    },
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
    let command = Cli::parse().command;
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
        Command::Delete { command, remote } => Remote::new(&remote)?.delete(&command).await?,
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
