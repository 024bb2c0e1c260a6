//! `ferromesh user`: users of the REST API beside the administrator.

use std::path::PathBuf;

use clap::Subcommand;

use super::print::{print, print_error};
use crate::admin::users::{self, Role};

/// `ferromesh user`.
#[derive(Subcommand, Debug)]
pub(super) enum User {
    /// Put a user into a file, and print the new token, which is nowhere else
    #[command(after_help = "To take a user out, take its line out of the file.

Examples:
  ferromesh user add ann --role editor --file users > ann.token
  ferromesh serve --config ./mesh --api-users users")]
    Add {
        /// The name, as the journal and the audit log have it
        name: String,
        /// What the user may do: viewer, editor or admin
        #[arg(long, value_enum)]
        role: Role,
        /// The file that `ferromesh serve --api-users` reads
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

/// Changes the file.
///
/// # Errors
/// The name is taken, or the file cannot be used.
pub(super) fn run(command: &User) -> anyhow::Result<()> {
    let User::Add { name, role, file } = command;
    let token = users::add(file, name, *role)?;
    print(&token);
    print_error(&format!("{name} is {} by {}", role.name(), file.display()));
    Ok(())
}
