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
