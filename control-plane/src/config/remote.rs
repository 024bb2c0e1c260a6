//! How commands reach a running control plane.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use ferromesh_cert_authority::files;
use ferromesh_xds_translator::dialect::scalar::parse_duration;

use super::contexts::{Contexts, Target};

/// The control plane that is asked unless another is named.
const HERE: &str = "http://127.0.0.1:8080";
/// Longer files hold no token.
const LARGEST_TOKEN: u64 = 64 << 10;

/// How commands reach a running control plane.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct RemoteOptions {
    /// The control plane's REST API [default: that of the context, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "FERROMESH_SERVER", global = true)]
    pub server: Option<String>,
    /// The control plane with this name [default: the one that `ferromesh context use` chose]
    #[arg(long, value_name = "NAME", env = "FERROMESH_CONTEXT", global = true)]
    pub context: Option<String>,
    /// File with the administrator's token [default: ferromesh-data/admin-token]
    #[arg(long, value_name = "FILE", env = "FERROMESH_TOKEN_FILE", global = true)]
    pub admin_token_file: Option<PathBuf>,
    /// Wait so long for a control plane that does not answer yet, such as 30s
    #[arg(long, value_name = "DURATION", env = "FERROMESH_WAIT", value_parser = wait, global = true)]
    pub wait: Option<Duration>,
}

fn wait(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("expected a duration such as 30s, got {text:?}"))
}

impl RemoteOptions {
    /// The control plane that is meant: `server` and `context` as they are given, else the user's
    /// current context. Of a server that is given alone, a context says nothing.
    ///
    /// # Errors
    /// There is no such context, or contexts cannot be read.
    pub fn target(&self) -> anyhow::Result<Target> {
        let chosen = match (&self.context, &self.server) {
            (Some(name), _) => Some(Contexts::read()?.named(name)?.clone()),
            (None, Some(_)) => None,
            (None, None) => {
                let contexts = Contexts::read()?;
                contexts.current.as_ref().map(|name| contexts.named(name).cloned()).transpose()?
            }
        };
        let (server, file) = chosen.map_or((None, None), |t| (Some(t.server), t.admin_token_file));
        Ok(Target {
            server: self.server.clone().or(server).unwrap_or_else(|| HERE.to_owned()),
            admin_token_file: self.admin_token_file.clone().or(file),
        })
    }

    /// The administrator's token, if one can be found: variable FERROMESH_TOKEN, the file, that of
    /// the context, the default data directory.
    ///
    /// # Errors
    /// The file that was given cannot be read, or as [`Self::target`].
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        if let Ok(token) = env::var("FERROMESH_TOKEN") {
            return Ok(Some(token));
        }
        let text = match &self.target()?.admin_token_file {
            Some(path) => Some(
                files::read_named(path, LARGEST_TOKEN)
                    .with_context(|| format!("reading {}", path.display()))?,
            ),
            None => files::read_named(Path::new("ferromesh-data/admin-token"), LARGEST_TOKEN).ok(),
        };
        Ok(text.map(|t| t.trim().to_owned()))
    }
}
