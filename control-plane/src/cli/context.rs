//! `ferromesh context`: control planes by name.

use anyhow::bail;
use clap::Subcommand;

use super::{print::print, table::plain_table};
use crate::config::{Contexts, RemoteOptions, Target};

/// `ferromesh context`.
#[derive(Subcommand, Debug)]
pub(super) enum Context {
    /// Show every control plane that has a name
    #[command(after_help = "Example:\n  ferromesh context list")]
    List,
    /// Give a control plane a name, or another address to the name
    #[command(
        after_help = "Example:\n  ferromesh context add shop --server http://10.0.0.5:8080 --admin-token-file ~/shop.token"
    )]
    Add {
        /// The name
        name: String,
    },
    /// Ask this control plane from now on, unless --context or --server names another
    #[command(after_help = "Example:\n  ferromesh context use shop")]
    Use {
        /// Its name
        name: String,
    },
    /// Forget a name
    #[command(after_help = "Example:\n  ferromesh context remove shop")]
    Remove {
        /// The name
        name: String,
    },
}

/// Shows or changes the list.
///
/// # Errors
/// There is no such name, or the list cannot be read or written.
pub(super) fn run(command: &Context, remote: &RemoteOptions) -> anyhow::Result<()> {
    let mut contexts = Contexts::read()?;
    match command {
        Context::List => {
            print(&table(&contexts));
            return Ok(());
        }
        Context::Add { name } => {
            let Some(server) = remote.server.clone() else {
                bail!("expected the control plane's REST API: --server http://HOST:8080")
            };
            // From wherever it is read later.
            let file = remote.admin_token_file.as_deref().map(std::path::absolute).transpose()?;
            let target = Target { server, admin_token_file: file };
            contexts.contexts.insert(name.clone(), target);
        }
        Context::Use { name } => {
            contexts.named(name)?;
            contexts.current = Some(name.clone());
        }
        Context::Remove { name } => {
            contexts.named(name)?;
            contexts.contexts.remove(name);
            contexts.current = contexts.current.filter(|current| current != name);
        }
    }
    contexts.write()?;
    print(&table(&contexts));
    Ok(())
}

fn table(contexts: &Contexts) -> String {
    let mut table = plain_table(&["CURRENT", "NAME", "SERVER", "TOKEN"]);
    for (name, target) in &contexts.contexts {
        let current = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
        let token = target.admin_token_file.as_ref().map(|file| file.display().to_string());
        let token = token.unwrap_or_else(|| "-".to_owned());
        table.add_row([current, name, &target.server, &token]);
    }
    table.to_string()
}
