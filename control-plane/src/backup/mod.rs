//! A copy of what a control plane keeps on this machine, made of its files while it runs, and put
//! back into an empty folder.
//!
//! The order in which files are read makes the copy whole: what says how much there must be at least
//! (witness, mark) is read before what it speaks of, which only grows. The store's index and the
//! ledger are left out: the one is rebuilt from the journal, the other is an inventory of past
//! certificates that begins anew. Whoever can read the files may copy them, and nobody else: no port
//! hands out the authority's keys.

pub mod sealed;

use std::{
    fmt,
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown},
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::{FirstStart, LedgerError, files, ledger::sled::SledLedger};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// A larger file of state is none that this process could hold.
const LARGEST: u64 = 8 << 30;
/// How often it is begun anew where the authority changes meanwhile.
const TRIES: usize = 5;
/// Where the ledger begins anew.
const LEDGER: &str = "ca/ledger";
const JOURNAL: &str = "store/journal";

/// A part of a data directory: its path in it, and whether there is no control plane without it.
struct Part {
    name: &'static str,
    needed: bool,
    /// It does not change, or seldom: it must be the same when everything else was read.
    steady: bool,
}

const fn part(name: &'static str) -> Part {
    Part { name, needed: false, steady: false }
}

const fn steady(name: &'static str, needed: bool) -> Part {
    Part { name, needed, steady: true }
}

/// What is copied, in the order in which it is read.
const PARTS: [Part; 12] = [
    part("witness"),
    part("ca/witness"),
    part("store/witness"),
    part("acknowledged"),
    steady("store/identity", false),
    Part { name: JOURNAL, needed: true, steady: false },
    steady("ca/key", true),
    steady("ca/authority.sealed", true),
    steady("secrets.key", false),
    steady("admin-token", false),
    steady("root-cert.pem", true),
    part("proxies"),
];
/// What others may read.
const PUBLIC: &str = "root-cert.pem";

/// Why there is no copy, or it was not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no state of a control plane.
    #[error(
        "{} is missing: no control plane keeps its state there; give its folder with --data-dir (in a cluster, \
         its state is the Secret ferromesh-ca and the objects of the API server)",
        path.display()
    )]
    Missing {
        /// What is missing.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Failed {
        /// What it is about.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It never stood still.
    #[error("the certificate authority changed at every try; try again")]
    Unsteady,
    /// What was opened is no list of parts.
    #[error("it holds what no control plane keeps: it is of a later version")]
    Unknown,
    /// It cannot be put back there.
    #[error("{} is not empty: nothing is put back over what is there; give an empty folder with --data-dir", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// Somebody else is at it.
    #[error("{} is in use by another process: give an empty folder with --data-dir", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The ledger cannot be begun.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Files of a data directory with their content, each once, as [`read`] gives them.
pub struct Copied(Vec<Content>);

/// The name of a part and what it holds.
type Content = (&'static str, Zeroizing<Vec<u8>>);

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    |source| BackupError::Failed { path: path.to_owned(), source }
}

/// Copies what is in a data directory, on which a control plane may be running.
///
/// # Errors
/// [`BackupError`].
pub fn read(data: &Path) -> Result<Copied, BackupError> {
    for _ in 0..TRIES {
        let copied: Result<Vec<_>, _> = PARTS.iter().map(|part| read_part(data, part)).collect();
        let copied = copied?;
        let mut again = PARTS.iter().zip(&copied).filter(|(part, _)| part.steady);
        if again.try_fold(true, |same, (part, first)| {
            read_part(data, part).map(|second| same && second == *first)
        })? {
            return Ok(Copied(copied.into_iter().flatten().collect()));
        }
    }
    Err(BackupError::Unsteady)
}

/// A part with its content; `None`: it is not there and need not be.
fn read_part(data: &Path, part: &Part) -> Result<Option<Content>, BackupError> {
    let path = data.join(part.name);
    match files::read(&path, LARGEST) {
        Ok(mut content) => {
            if part.name == JOURNAL {
                // A write that is under way is no write yet.
                content.truncate(content.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1));
            }
            Ok(Some((part.name, Zeroizing::new(content))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && part.needed => {
            Err(BackupError::Missing { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error)),
    }
}

impl Copied {
    /// How many files it holds.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// As bytes: of each file the length and bytes of its name and of its content, big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let length = |(name, content): &Content| 9 + name.len() + content.len();
        // Made at once, so that growing leaves no copies of keys behind.
        let mut bytes = Vec::with_capacity(self.0.iter().map(length).sum::<usize>() + 64);
        for (name, content) in &self.0 {
            bytes.push(u8::try_from(name.len()).expect("names of ours are short"));
            bytes.extend(name.as_bytes());
            bytes.extend((content.len() as u64).to_be_bytes());
            bytes.extend(content.iter());
        }
        bytes
    }

    /// From the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// [`BackupError::Unknown`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, BackupError> {
        let mut copied: Vec<Content> = Vec::new();
        while !bytes.is_empty() {
            let (name, content, rest) = next(bytes).ok_or(BackupError::Unknown)?;
            if copied.iter().any(|(other, _)| *other == name) {
                return Err(BackupError::Unknown);
            }
            copied.push((name, Zeroizing::new(content.to_vec())));
            bytes = rest;
        }
        Ok(Self(copied))
    }

    /// Puts everything into a folder that is empty or not there; it belongs to the folder's owner.
    ///
    /// # Errors
    /// [`BackupError`]. What was put back by then stays, and no control plane starts on it.
    pub fn put_back(&self, data: &Path) -> Result<(), BackupError> {
        files::create_directories(data).map_err(failed(data))?;
        let place = Place::take(data)?;
        for folder in ["ca", "store"] {
            let path = data.join(folder);
            DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
        }
        for (name, content) in &self.0 {
            let path = data.join(name);
            let mode = if *name == PUBLIC { 0o644 } else { 0o600 };
            files::create(&path, mode, content).map_err(failed(&path))?;
            files::sync_parent(&path).map_err(failed(&path))?;
        }
        drop(SledLedger::open(&data.join(LEDGER), FirstStart::Allowed)?);
        place.give_back()
    }
}

/// An empty folder that nobody else is at: no control plane, and not its owner either, who could put
/// links where a superuser makes files and gives them away.
struct Place<'a> {
    path: &'a Path,
    /// Holds the lock by which a control plane keeps others out.
    folder: File,
    before: fs::Metadata,
}

impl<'a> Place<'a> {
    fn take(path: &'a Path) -> Result<Self, BackupError> {
        let folder = File::open(path).map_err(failed(path))?;
        folder.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BackupError::InUse { path: path.to_owned() },
            TryLockError::Error(error) => failed(path)(error),
        })?;
        let before = folder.metadata().map_err(failed(path))?;
        let place = Self { path, folder, before };
        // Whoever may not write there is told so before anything is changed.
        place.must_be_empty()?;
        if place.is_anothers() {
            place.own((geteuid().as_raw(), place.before.gid()), 0o700)?;
            // He was kept out in this moment.
            if let Err(error) = place.must_be_empty() {
                place.own((place.before.uid(), place.before.gid()), place.before.mode())?;
                return Err(error);
            }
        }
        Ok(place)
    }

    fn must_be_empty(&self) -> Result<(), BackupError> {
        let mut entries = fs::read_dir(self.path).map_err(failed(self.path))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty { path: self.path.to_owned() }),
        }
    }

    fn is_anothers(&self) -> bool {
        self.before.uid() != geteuid().as_raw()
    }

    fn own(&self, (user, group): (u32, u32), mode: u32) -> Result<(), BackupError> {
        let owned = fchown(&self.folder, Some(user), Some(group));
        owned
            .and_then(|()| self.folder.set_permissions(Permissions::from_mode(mode & 0o7777)))
            .map_err(failed(self.path))
    }

    /// Everything in it belongs to its owner, and so does the folder again.
    fn give_back(self) -> Result<(), BackupError> {
        let owner = (self.before.uid(), self.before.gid());
        give(self.path, owner)?;
        if self.is_anothers() {
            self.own(owner, self.before.mode())?;
        }
        Ok(())
    }
}

/// The next file: its name, its content, and what follows.
fn next(bytes: &[u8]) -> Option<(&'static str, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    // Nothing is written but what is known, wherever a name would lead.
    let known = PARTS.iter().find(|part| part.name.as_bytes() == name)?;
    Some((known.name, content, rest))
}

/// Gives everything in a folder to somebody, if it is another's.
fn give(folder: &Path, owner: (u32, u32)) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if (found.uid(), found.gid()) != owner {
            lchown(&path, Some(owner.0), Some(owner.1)).map_err(failed(&path))?;
        }
        if found.is_dir() {
            give(&path, owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeOptions;

    /// A data directory with a file for each part.
    fn data() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for part in &PARTS {
            let path = dir.path().join(part.name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, format!("{}\n", part.name)).expect("a file");
        }
        dir
    }

    #[test]
    fn every_part_that_proves_an_earlier_run_is_copied() {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = Some(dir.path().to_owned());
        let settings = ServeOptions { data_dir, ..ServeOptions::default() }.check().expect("good");
        let copies = settings.witness_copies();
        for path in settings.state_parts().iter().chain(&copies).chain([&settings.proxies_file()]) {
            let name = path.strip_prefix(dir.path()).expect("within").to_str().expect("text");
            let within =
                |part: &Part| part.name == name || part.name.starts_with(&format!("{name}/"));
            assert!(PARTS.iter().any(within), "{name}");
        }
    }

    #[test]
    fn what_is_copied_is_put_back_as_it_was() {
        let (from, to) = (data(), tempfile::tempdir().expect("a directory"));
        fs::write(from.path().join(JOURNAL), "one\ntwo\nhal").expect("a file");
        let copied = read(from.path()).expect("copied");
        assert_eq!(copied.count(), PARTS.len());
        let copied = Copied::decode(&copied.encode()).expect("decoded");
        let place = to.path().join("a/data");
        copied.put_back(&place).expect("put back");
        for part in &PARTS {
            let path = place.join(part.name);
            let (content, mode) =
                (fs::read_to_string(&path), fs::metadata(&path).map(|m| m.mode()));
            let expected = match part.name {
                JOURNAL => "one\ntwo\n".to_owned(),
                name => format!("{name}\n"),
            };
            assert_eq!(content.expect("a file"), expected);
            let private = if part.name == PUBLIC { 0o644 } else { 0o600 };
            assert_eq!(mode.expect("a file") & 0o777, private, "{}", part.name);
        }
        assert!(place.join(LEDGER).is_dir());
        let rights = fs::metadata(place.join("ca")).expect("a folder").permissions();
        assert_eq!(rights.mode() & 0o777, 0o700);
        let again = copied.put_back(&place).expect_err("it is not empty").to_string();
        assert!(again.contains("is not empty"), "{again}");
    }

    #[test]
    fn nothing_is_put_where_somebody_else_is() {
        let (from, to) = (data(), tempfile::tempdir().expect("a directory"));
        let copied = read(from.path()).expect("copied");
        let control_plane = File::open(to.path()).expect("a folder");
        control_plane.try_lock().expect("nobody else has it");
        let error = copied.put_back(to.path()).expect_err("it is in use").to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(control_plane);
        let link = from.path().join("link");
        std::os::unix::fs::symlink("witness", &link).expect("a link");
        fs::remove_file(from.path().join("secrets.key")).expect("a file");
        fs::rename(&link, from.path().join("secrets.key")).expect("a link in its place");
        let error = read(from.path()).expect_err("a link is followed").to_string();
        assert!(error.contains("secrets.key") && error.contains("a link"), "{error}");
        assert_eq!(fs::read_dir(to.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_a_superuser_puts_back_belongs_to_the_owner_of_the_folder() {
        if !geteuid().is_root() {
            return;
        }
        let (from, to) = (data(), tempfile::tempdir().expect("a directory"));
        let place = to.path().join("data");
        fs::create_dir(&place).expect("a folder");
        fs::set_permissions(&place, Permissions::from_mode(0o750)).expect("chmod");
        lchown(&place, Some(1337), Some(1338)).expect("chown");
        read(from.path()).expect("copied").put_back(&place).expect("put back");
        let owned = |path: PathBuf| {
            let found = fs::symlink_metadata(path).expect("it is there");
            (found.uid(), found.gid(), found.mode() & 0o777)
        };
        assert_eq!(owned(place.clone()), (1337, 1338, 0o750));
        assert_eq!(owned(place.join("ca/key")), (1337, 1338, 0o600));
        assert_eq!(owned(place.join("ca")), (1337, 1338, 0o700));
    }

    #[test]
    fn without_the_authority_or_the_store_there_is_nothing_to_copy() {
        for part in PARTS.iter().filter(|part| part.needed) {
            let from = data();
            fs::remove_file(from.path().join(part.name)).expect("it was there");
            let error = read(from.path()).expect_err(part.name).to_string();
            assert!(error.contains(part.name) && error.contains("--data-dir"), "{error}");
        }
        let from = data();
        for part in PARTS.iter().filter(|part| !part.needed) {
            fs::remove_file(from.path().join(part.name)).expect("it was there");
        }
        assert_eq!(read(from.path()).expect("copied").count(), 4);
    }

    #[test]
    fn nothing_is_written_but_what_is_known() {
        let file = |name: &str| {
            let length = u8::try_from(name.len()).expect("short");
            [&[length][..], name.as_bytes(), &1u64.to_be_bytes(), b"x"].concat()
        };
        assert!(Copied::decode(&file("witness")).is_ok());
        let mut cut = file("witness");
        cut.pop();
        let twice = [file("witness"), file("witness")].concat();
        for bad in [file("../witness"), file("/etc/passwd"), file("ca/other"), cut, twice] {
            assert!(matches!(Copied::decode(&bad), Err(BackupError::Unknown)), "{bad:?}");
        }
    }
}
