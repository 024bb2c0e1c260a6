//! `ferromesh context`: control planes by name.

use anyhow::bail;
use clap::Subcommand;
use http::{Uri, uri::Scheme};

use super::{
    print::print,
    table::{Form, plain_table},
};
use crate::config::{Contexts, RemoteOptions, Target};

/// `ferromesh context`.
#[derive(Subcommand, Debug)]
pub(super) enum Context {
    /// Show every control plane that has a name
    #[command(after_help = "Example:\n  ferromesh context list")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
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
        Context::List { output: Form::Text } => {
            print(&table(&contexts));
            return Ok(());
        }
        Context::List { output: Form::Json } => {
            print(&serde_json::to_string_pretty(&contexts)?);
            return Ok(());
        }
        Context::Add { name } => {
            let Some(server) = remote.server.clone() else {
                bail!("expected the control plane's REST API: --server http://HOST:8080")
            };
            check(name, &server)?;
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

/// What is given is looked at now, and not by the first command that needs it.
fn check(name: &str, server: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.contains(char::is_whitespace) {
        bail!("{name:?}: expected a name in one word");
    }
    let uri = server.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some());
    if uri.is_none() {
        bail!(
            "--server {server:?}: expected the control plane's REST API, such as http://10.0.0.5:8080"
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_or_no_api_is_refused_at_once() {
        check("shop", "http://10.0.0.5:8080").expect("good");
        check("shop", "http://[::1]:8080/").expect("good");
        for (name, server) in [
            ("", "http://10.0.0.5:8080"),
            ("my shop", "http://10.0.0.5:8080"),
            ("shop", "10.0.0.5:8080"),
            ("shop", "https://10.0.0.5:8080"),
            ("shop", "shop"),
            ("shop", ""),
        ] {
            let error = check(name, server).expect_err("none").to_string();
            assert!(error.contains("expected"), "{name:?} {server:?}: {error}");
        }
    }
}
