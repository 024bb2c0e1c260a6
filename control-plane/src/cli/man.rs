//! `ferromesh man`: the manual pages, as packages have them.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command};

/// `ferromesh man`.
#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder
    folder: PathBuf,
}

/// Writes the pages of `program`: one for each command.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn run(command: &Man, program: Command) -> anyhow::Result<()> {
    let failed = || format!("writing manual pages into {}", command.folder.display());
    fs::create_dir_all(&command.folder).with_context(failed)?;
    clap_mangen::generate_to(program, &command.folder).with_context(failed)
}
