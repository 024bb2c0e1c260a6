//! Ties a program's life to its parent's: killed in any way, an agent takes its Envoy along.
//!
//! Only a process itself may ask for that signal, so the agent starts this very program again,
//! which asks and then becomes Envoy.

use std::{ffi::OsString, io, os::unix::process::CommandExt, path::Path, process};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getppid},
};
use tokio::process::Command;

/// This program, whatever it is called.
const SELF: &str = "/proc/self/exe";
/// A shell's exit code for a program that could not be started.
pub const NOT_STARTED: u8 = 127;

/// The words with which this program is started again so that [`exec`] is reached, before the
/// subcommand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tie(pub Vec<OsString>);

impl Tie {
    /// A command that becomes `program`; its arguments follow.
    ///
    /// Start it from a thread that lives as long as this process: the kernel watches the thread.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(SELF);
        command.args(&self.0).arg("tied").arg(process::id().to_string()).arg("--").arg(program);
        command
    }
}

/// Why the program did not take this process' place.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}: {source}", program = .program.display())]
pub struct NotStarted {
    program: OsString,
    source: io::Error,
}

/// Becomes the program, which ends when `parent` does; returns only why it could not.
pub fn exec(parent: i32, program: &[OsString]) -> NotStarted {
    let (name, arguments) =
        program.split_first().map(|(name, rest)| (name.clone(), rest)).unwrap_or_default();
    let source = match set_pdeathsig(Signal::SIGKILL) {
        Err(error) => error.into(),
        // It may have ended before the kernel was asked.
        Ok(()) if getppid() != Pid::from_raw(parent) => io::Error::other("the agent has ended"),
        Ok(()) => process::Command::new(&name).args(arguments).exec(),
    };
    NotStarted { program: name, source }
}
