//! One look at what a directory holds, and at what could not be seen of it. The command line looks
//! at folders by the same rules.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::files;
use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::MAX_FILE_BYTES,
};

/// Levels of folders that are looked into.
const DEEPEST: usize = 32;

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every YAML or JSON file, hidden ones (editors' drafts) left out.
    pub(crate) files: BTreeSet<PathBuf>,
    /// What is to be said about the rest.
    pub(crate) trouble: Vec<Diagnostic>,
    /// What could not be looked into: whatever it held may still be there.
    closed: BTreeSet<PathBuf>,
    /// Folders in the place of files.
    folders: BTreeSet<PathBuf>,
}

impl Seen {
    /// Looks at everything below `path`.
    pub(crate) fn look(&mut self, path: &Path) {
        match fs::canonicalize(path) {
            Ok(root) => Listing { root: root.clone(), seen: self, visited: BTreeSet::from([root]) }
                .folder(path, 0),
            Err(error) => self.close(path, Some(unreadable(path, &error))),
        }
    }

    /// Whether a file that is not among those that were seen may be there all the same.
    pub(super) fn may_hold(&self, path: &Path) -> bool {
        self.folders.contains(path) || path.ancestors().any(|above| self.closed.contains(above))
    }

    fn close(&mut self, path: &Path, trouble: Option<Diagnostic>) {
        self.closed.insert(path.to_owned());
        self.trouble.extend(trouble);
    }
}

/// Links are resolved once, and only what lies in the directory counts: whoever may put a link into
/// it may not have anything else read by it.
struct Listing<'a> {
    root: PathBuf,
    seen: &'a mut Seen,
    /// Folders on the way to here and those that were looked into, so that links in circles end.
    visited: BTreeSet<PathBuf>,
}

impl Listing<'_> {
    fn folder(&mut self, path: &Path, depth: usize) {
        let listed = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
        });
        let mut paths = match listed {
            Ok(paths) => paths,
            Err(error) => return self.seen.close(path, Some(unreadable(path, &error))),
        };
        // In an order that does not depend on the file system, since of two ways to a folder the
        // first counts.
        paths.sort_unstable();
        for path in paths {
            let hidden =
                path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !hidden {
                self.entry(&path, depth);
            }
        }
    }

    fn entry(&mut self, path: &Path, depth: usize) {
        let named =
            matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        let (target, kind) =
            match fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target))) {
                Ok((metadata, target)) => (target, metadata.file_type()),
                Err(error) => return self.unresolved(path, named, &error),
            };
        let inside = target.starts_with(&self.root);
        if kind.is_dir() && inside && depth < DEEPEST {
            if named {
                self.seen.folders.insert(path.to_owned());
            }
            if self.visited.insert(target) {
                self.folder(path, depth + 1);
            }
        } else if kind.is_file() && inside {
            if named {
                self.seen.files.insert(path.to_owned());
            }
        } else {
            let said = named || kind.is_dir();
            self.seen.close(path, said.then(|| left_out(path, kind, inside)));
        }
    }

    /// An entry that leads nowhere that can be seen.
    fn unresolved(&mut self, path: &Path, named: bool, error: &io::Error) {
        // Deleted since it was listed.
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return;
        }
        // Somebody's broken link is nobody's business, unless something was behind it.
        let said = named && error.kind() != io::ErrorKind::NotFound;
        self.seen.close(path, said.then(|| unreadable(path, error)));
    }
}

/// Reads a file that was listed.
///
/// # Errors
/// It cannot be read, or is no regular file any more.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Since it was listed, a pipe may have taken its place: opening one would wait for somebody who
    // writes.
    let file = files::open_linked(path, fs::OpenOptions::new().read(true))?;
    read_bounded(file)
}

/// Reads to the end, or one byte more than is allowed: enough to be refused by the parser, however
/// much there is.
///
/// # Errors
/// The system's.
pub(crate) fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why something that looks like configuration is not read.
fn left_out(path: &Path, kind: fs::FileType, inside: bool) -> Diagnostic {
    let (why, fix) = match (kind.is_file() || kind.is_dir(), inside) {
        (true, false) => {
            ("it is a link that leads out of the directory", "put the file itself there")
        }
        (true, true) => ("its folder lies too deep", "move it up"),
        (false, _) => ("it is no regular file", "put a file there"),
    };
    let message = format!("{} is not read: {why}", path.display());
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message).fix(fix)
}

/// What is said of a file or folder that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let message = format!("cannot read {}: {error}", path.display());
    let fix = match error.kind() {
        io::ErrorKind::InvalidData => "save it again, or remove the file to take its objects away",
        _ => "check that it is there, and its permissions",
    };
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message).fix(fix)
}

/// What is said of a file whose last good version stays in force.
pub(super) fn kept(path: &Path) -> Diagnostic {
    let message = format!(
        "what {} held when it was read last stays in force: it cannot be read, and was not seen to be gone",
        path.display()
    );
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message)
        .fix("make it readable again, or remove it from a directory that can be listed")
}
