//! State in a directory that belongs to one process: it appears complete or not at all, and each write replaces a file.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{KEY, Kept, Revision, SEALED, StateStore, StoreError};

/// Larger files are not ours: the state is a few kilobytes.
const MAX_FILE: u64 = 16 << 20;

/// A directory of mode 0700 with two files of mode 0600. Its parent must be on the same file system.
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
            Ok(entries) => {
                entries.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>().map_err(failed(&self.0))?
            }
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
        let key = Zeroizing::new(read_private(&self.0.join(KEY))?);
        let sealed = read_bounded(&self.0.join(SEALED))?;
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
            write_new(&path, content).map_err(failed(&path))?;
        }
        fs::rename(&nascent, &self.0).and_then(|()| sync_parent(&self.0)).map_err(failed(&self.0))?;
        Ok(only())
    }

    /// A reader, and a restart after a crash at any moment, see the old content or the new one.
    fn replace(&self, sealed: &[u8], _: &Revision) -> Result<Revision, StoreError> {
        let path = self.0.join(SEALED);
        replace(&path, sealed).map_err(failed(&path))?;
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

/// Reads a file that nobody but its owner may be able to read.
fn read_private(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mode = fs::metadata(path).map_err(failed(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Failed(format!(
            "{path}: readable by others (mode {mode:03o}): expected 600; run `chmod 600 {path}`",
            path = path.display()
        )));
    }
    read_bounded(path)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, StoreError> {
    if fs::metadata(path).map_err(failed(path))?.len() > MAX_FILE {
        return Err(StoreError::Failed(format!("{}: too large to be ours", path.display())));
    }
    fs::read(path).map_err(failed(path))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    write_new(&temporary, content)?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename or a new file in `path`'s directory survive a power cut.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes a directory that only its owner can enter; its parents are made with default rights.
fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}
