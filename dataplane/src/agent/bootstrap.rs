//! Writes Envoy's bootstrap where Envoy reads it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ferromesh_proto::bootstrap::{BootstrapSettings, render};

/// Renders `settings` into `DIR/envoy.json`, readable by the agent's user only, and returns its
/// path.
///
/// # Errors
/// When the file cannot be written; an older one stays whole then.
pub fn write(dir: &Path, settings: &BootstrapSettings) -> io::Result<PathBuf> {
    let path = dir.join("envoy.json");
    let nascent = dir.join(".envoy.json.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&nascent)?;
    file.write_all(render(settings).as_bytes())?;
    fs::rename(&nascent, &path)?;
    Ok(path)
}

/// What an Envoy is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// The file that [`write`] has written.
    Own(PathBuf),
    /// What it holds, over what users add.
    Extended {
        /// What users add, as an encoded `envoy.config.bootstrap.v3.Bootstrap`, in a file whose
        /// name ends with `.pb`.
        added: PathBuf,
        /// The file of our own.
        own: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl Start {
    /// Envoy's arguments. It merges the second into the first, as protobuf does (`--config-yaml`).
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Own(path) => vec!["-c".into(), path.display().to_string()],
            Self::Extended { added, text, .. } => {
                let added = added.display().to_string();
                vec!["-c".into(), added, "--config-yaml".into(), text.clone()]
            }
        }
    }

    /// The same without what users add; `None`: there is nothing of it.
    pub fn without_additions(&self) -> Option<Self> {
        match self {
            Self::Own(_) => None,
            Self::Extended { own, .. } => Some(Self::Own(own.clone())),
        }
    }
}
