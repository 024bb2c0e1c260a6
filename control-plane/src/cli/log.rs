//! `ferromesh log`: what a control plane logs.

use clap::Args;
use http::Method;
use serde_json::json;

use super::{
    print::print,
    remote::Remote,
    table::{Form, text},
};

/// `ferromesh log`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh log                                            what is logged now
  ferromesh log debug                                      everything, until it is changed again
  ferromesh log info,ferromesh_control_plane::ads=debug    more of one part
  ferromesh proxy-config log --level debug                 of a proxy on this machine, by its admin endpoint")]
pub(crate) struct Log {
    /// What is to be logged: a level (error, warn, info, debug, trace, off), or target=level pairs
    /// with commas
    filter: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl Remote {
    /// Prints what is logged, or changes it.
    ///
    /// # Errors
    /// It is no filter, or no answer.
    pub(crate) async fn log(&self, command: &Log) -> anyhow::Result<()> {
        let answer = match &command.filter {
            Some(filter) => {
                self.ask(Method::PUT, "/api/v1/log", Some(&json!({ "filter": filter }))).await?
            }
            None => self.read("/api/v1/log").await?,
        };
        match command.output {
            Form::Text => print(&text(&answer["filter"])),
            Form::Json => print(&serde_json::to_string_pretty(&answer)?),
        }
        Ok(())
    }
}
