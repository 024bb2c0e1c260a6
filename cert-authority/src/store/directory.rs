//! State in a directory that belongs to one process: it appears complete or not at all, and each
//! write replaces a file.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{KEY, Kept, Revision, SEALED, StateStore, StoreError};
use crate::files;

/// Larger files are not ours: the state is a few kilobytes.
const MAX_FILE: u64 = 16 << 20;

/// A directory of mode 0700 with two files of mode 0600. Its parent must be on the same file
/// system.
pub struct Directory(PathBuf);

impl Directory {
    /// State in `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl StateStore for Directory {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self) -> Result<Option<Kept>, StoreError> {
        let names: Vec<_> = match fs::read_dir(&self.0) {
            Ok(entries) => entries
                .map(|e| e.map(|e| e.file_name()))
                .collect::<Result<_, _>>()
                .map_err(failed(&self.0))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&self.0)(e)),
        };
        let has = |name: &str| names.iter().any(|n| n == name);
        let incomplete = |why: &str| Err(StoreError::Incomplete(why.to_owned()));
        match (has(KEY), has(SEALED)) {
            (true, true) => {}
            (true, false) => return incomplete(&format!("{SEALED} is missing, {KEY} is there")),
            (false, true) => return incomplete(&format!("{KEY} is missing, {SEALED} is there")),
            (false, false) if names.is_empty() => return Ok(None),
            (false, false) => return incomplete("it holds other files and no authority"),
        }
        if let Err(error) = files::tighten(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "others have rights to it");
        }
        let (key, sealed) = (self.0.join(KEY), self.0.join(SEALED));
        let key = Zeroizing::new(files::read_private(&key, MAX_FILE).map_err(failed(&key))?);
        let sealed = files::read(&sealed, MAX_FILE).map_err(failed(&sealed))?;
        Ok(Some(Kept { key, sealed, revision: only() }))
    }

    fn create(&self, key: &[u8], sealed: &[u8]) -> Result<Revision, StoreError> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let nascent = self.0.with_file_name(format!(".{name}.new"));
        // Left by a crash before it was ever published: nobody has seen that root.
        match fs::remove_dir_all(&nascent) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&nascent)(e)),
            _ => {}
        }
        create_private_dir(&nascent).map_err(failed(&nascent))?;
        for (name, content) in [(KEY, key), (SEALED, sealed)] {
            let path = nascent.join(name);
            files::create(&path, 0o600, content).map_err(failed(&path))?;
        }
        files::sync_parent(&nascent.join(KEY)).map_err(failed(&nascent))?;
        fs::rename(&nascent, &self.0)
            .and_then(|()| files::sync_parent(&self.0))
            .map_err(failed(&self.0))?;
        Ok(only())
    }

    /// A reader, and a restart after a crash at any moment, see the old content or the new one.
    fn replace(&self, sealed: &[u8], _: &Revision) -> Result<Revision, StoreError> {
        let path = self.0.join(SEALED);
        files::replace(&path, 0o600, sealed).map_err(failed(&path))?;
        Ok(only())
    }
}

/// The directory has one writer, so its revisions are never compared.
fn only() -> Revision {
    Revision(String::new())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    |source| StoreError::Failed(format!("{}: {source}", path.display()))
}

/// Makes a directory that only its owner can enter; its parents are made with default rights.
fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}
