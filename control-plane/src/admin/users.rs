//! Users of the REST API beside the administrator: a file has a line for each, with a name, a role and
//! the hash of a token. It is read again when it changes, so that a user who is taken out is out.
//!
//! Whoever can write it can let anybody in: one that others may write is none.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::ValueEnum;
use ferromesh_cert_authority::files;
use zeroize::Zeroizing;

/// More of the file is not read.
const LARGEST: u64 = 4 << 20;
/// Random bytes in a token.
const ENTROPY: usize = 32;
/// Rights of group and others to write.
const OTHERS_WRITE: u32 = 0o022;
/// Times of files are told in steps, of two seconds on the coarsest disks: whatever is written within
/// the same step leaves the same time.
const STEP: Duration = Duration::from_secs(2);
/// Names that journals have for what is no user.
const NOBODY: [&str; 2] = [ADMINISTRATOR, "upgrade"];

const POISONED: &str = "no holder of this lock panics";

/// What somebody may do; each may do what those before may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Role {
    /// Read, and ask what would be.
    Viewer,
    /// Write objects.
    Editor,
    /// Make join tokens, and change what is logged.
    Admin,
}

impl Role {
    fn named(word: &str) -> Option<Self> {
        <Self as ValueEnum>::from_str(word, false).ok()
    }

    /// Its name in the file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// As the journal and the audit log have it.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// Why the file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The system refuses.
    #[error("the file of users {}: {source}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is none.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Who is to be put into it cannot be.
    #[error("{}: {what}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

/// A line of the file.
#[derive(Clone)]
struct User {
    who: Who,
    hash: Vec<u8>,
}

/// The users of a file.
pub struct Users {
    path: PathBuf,
    read: Mutex<Read>,
}

/// What was read, and of which file.
struct Read {
    stamp: Option<Stamp>,
    /// A later version of the file has another stamp.
    settled: bool,
    users: Arc<[User]>,
}

/// Which version of a file this is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    /// Of the last change of content, owner or rights, which nobody can set: since 1970.
    seconds: i64,
    nanoseconds: i64,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.path.display())
    }
}

impl Users {
    /// The users of a file.
    ///
    /// # Errors
    /// [`UsersError`].
    pub fn open(path: &Path) -> Result<Self, UsersError> {
        let stamp = stamp(path).map_err(failed(path))?;
        let settled = stamp.is_settled();
        let read = Read { stamp: Some(stamp), settled, users: read(path)?.into() };
        Ok(Self { path: path.to_owned(), read: Mutex::new(read) })
    }

    /// Whose token this is; takes the same time whichever it is.
    pub fn find(&self, token: &str) -> Option<Who> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let mut found = None;
        for User { who, hash: own } in self.users().iter() {
            let same = constant_time::verify_slices_are_equal(own, hash.as_ref()).is_ok();
            found = if same { Some(who.clone()) } else { found };
        }
        found
    }

    /// Who is in the file now. One that cannot be read lets nobody in: it may say who is out.
    fn users(&self) -> Arc<[User]> {
        let mut known = self.read.lock().expect(POISONED);
        let now = stamp(&self.path).ok();
        if now.is_none() || now != known.stamp || !known.settled {
            self.refresh(&mut known, now);
        }
        known.users.clone()
    }

    fn refresh(&self, known: &mut MutexGuard<'_, Read>, now: Option<Stamp>) {
        let settled = now.is_some_and(Stamp::is_settled);
        let users = read(&self.path).unwrap_or_else(|error| {
            // Said once for each version of the file.
            if now != known.stamp || !known.users.is_empty() {
                tracing::error!(%error, "users other than the administrator are let in no more");
            }
            Vec::new()
        });
        known.stamp = now;
        known.settled = settled;
        known.users = users.into();
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> UsersError {
    |source| UsersError::Failed { path: path.to_owned(), source }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let found = fs::metadata(path)?;
    let (seconds, nanoseconds) = (found.ctime(), found.ctime_nsec());
    Ok(Stamp { inode: found.ino(), length: found.len(), seconds, nanoseconds })
}

impl Stamp {
    /// Whether it is so old that whatever is written from now on has another.
    fn is_settled(self) -> bool {
        let written = u64::try_from(self.seconds).map(Duration::from_secs);
        let written = written.ok().and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        let age = written.and_then(|written| SystemTime::now().duration_since(written).ok());
        age.is_some_and(|age| age > STEP)
    }
}

fn read(path: &Path) -> Result<Vec<User>, UsersError> {
    parse(path, &text(path).map_err(failed(path))?)
}

/// What a file says that nobody else can write.
fn text(path: &Path) -> io::Result<String> {
    let mode = fs::metadata(path)?.mode() & 0o777;
    if mode & OTHERS_WRITE != 0 {
        let message = format!(
            "others can write it (mode {mode:03o}) and so let anybody in; run: chmod go-w {}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    files::read_named(path, LARGEST)
}

fn parse(path: &Path, text: &str) -> Result<Vec<User>, UsersError> {
    let mut users: Vec<User> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong =
            |what: String| UsersError::Line { path: path.to_owned(), line: number + 1, what };
        let user = user(line).map_err(wrong)?;
        if users.iter().any(|other| other.who.name == user.who.name) {
            return Err(wrong(format!("{:?} is written twice", user.who.name)));
        }
        if let Some(other) = users.iter().find(|other| other.hash == user.hash) {
            return Err(wrong(format!("it is the token of {:?} too", other.who.name)));
        }
        users.push(user);
    }
    Ok(users)
}

fn user(line: &str) -> Result<User, String> {
    let [name, role, hash] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(format!("expected NAME ROLE HASH, got {line:?}"));
    };
    check_name(name)?;
    let role = Role::named(role)
        .ok_or_else(|| format!("expected viewer, editor or admin, got {role:?}"))?;
    let hash = (hash.len() == 64 && hash.is_ascii()).then(|| bytes(hash)).flatten();
    let hash = hash.ok_or("expected the SHA-256 of a token, 64 hexadecimal digits")?;
    Ok(User { who: Who { name: name.into(), role }, hash })
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let pairs = (0..hexadecimal.len()).step_by(2).map(|at| hexadecimal.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// A name stands in journals and logs.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let is_taken = NOBODY.iter().any(|nobody| name.eq_ignore_ascii_case(nobody));
    match !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !is_taken {
        true => Ok(()),
        false => Err(format!(
            "{name:?}: expected a name of at most 64 letters, digits, - _ . @, and not {}",
            NOBODY.join(" or ")
        )),
    }
}

/// Whoever has the administrator's token.
pub const ADMINISTRATOR: &str = "administrator";

/// Puts a user into a file, which is made if there is none; the new token, which is nowhere else.
/// The file stays whose it was: a control plane that may read it goes on doing so.
///
/// # Errors
/// The name is taken or none, or the file cannot be used.
pub fn add(path: &Path, name: &str, role: Role) -> Result<Zeroizing<String>, UsersError> {
    let refused = |what: String| UsersError::Refused { path: path.to_owned(), what };
    check_name(name).map_err(refused)?;
    let mut file = alone(path).map_err(failed(path))?;
    let text = text(path).map_err(failed(path))?;
    if parse(path, &text)?.iter().any(|user| *user.who.name == *name) {
        return Err(refused(format!("{name:?} is there already; take its line out first")));
    }
    let mut random = Zeroizing::new([0; ENTROPY]);
    let no_bytes = |_| failed(path)(io::Error::other("the system gives no random bytes"));
    rand::fill(random.as_mut_slice()).map_err(no_bytes)?;
    let token = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()));
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let line = format!("{end}{name} {} {hash}\n", role.name());
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(path))?;
    Ok(token)
}

/// The file, made if there is none, to be written at its end by nobody else who asks here until it is
/// closed: two who are added at once would not see each other's names.
fn alone(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    loop {
        let file = options.open(path)?;
        file.lock()?;
        // An editor may have put another into its place meanwhile.
        let (open, found) = (file.metadata()?, fs::metadata(path));
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (open.dev(), open.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_and_go_with_the_lines_of_their_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        let ann = add(&path, "ann", Role::Editor).expect("added");
        let users = Users::open(&path).expect("opened");
        let bob = add(&path, "bob@example.com", Role::Viewer).expect("added");
        let named = |token: &str| users.find(token).map(|who| (who.name.to_string(), who.role));
        assert_eq!(named(&ann), Some(("ann".to_owned(), Role::Editor)));
        assert_eq!(named(&bob), Some(("bob@example.com".to_owned(), Role::Viewer)));
        assert_eq!(named(&ann[1..]), None);
        let twice = add(&path, "ann", Role::Admin).expect_err("she is there").to_string();
        assert!(twice.contains("there already"), "{twice}");

        let text = fs::read_to_string(&path).expect("the file");
        assert!(!text.contains(&**ann) && !text.contains(&**bob), "{text}");
        let without: String = text.lines().filter(|line| !line.starts_with("ann")).collect();
        fs::write(&path, without).expect("written");
        assert_eq!((named(&ann), named(&bob).is_some()), (None, true));
        fs::write(&path, "bob@example.com viewer").expect("written");
        assert_eq!(named(&bob), None, "a file that cannot be read lets nobody in");
        fs::remove_file(&path).expect("removed");
        assert_eq!(named(&bob), None);
    }

    #[test]
    fn a_version_of_the_same_length_and_moment_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        let ann = add(&path, "ann", Role::Editor).expect("added");
        let users = Users::open(&path).expect("opened");
        let text = fs::read_to_string(&path).expect("the file");
        for _ in 0..64 {
            for (word, role) in [("viewer", Role::Viewer), ("editor", Role::Editor)] {
                fs::write(&path, text.replace("editor", word)).expect("written");
                assert_eq!(users.find(&ann).map(|who| who.role), Some(role));
            }
        }
    }

    #[test]
    fn many_at_once_are_all_in_the_file_and_of_one_name_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        let tokens: Vec<_> = std::thread::scope(|scope| {
            let names = (0..16).map(|number| format!("user-{}", number / 2));
            let path = &path;
            let add = |name: String| scope.spawn(move || add(path, &name, Role::Viewer));
            let adding: Vec<_> = names.map(add).collect();
            adding.into_iter().filter_map(|one| one.join().expect("no panic").ok()).collect()
        });
        assert_eq!(tokens.len(), 8);
        let users = Users::open(&path).expect("opened");
        assert!(tokens.iter().all(|token| users.find(token).is_some()));
    }

    #[test]
    fn a_file_that_others_can_write_lets_nobody_in_and_stays_whose_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        let ann = add(&path, "ann", Role::Editor).expect("added");
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        let now = || fs::metadata(&path).expect("the file").mode() & 0o777;
        assert_eq!(now(), 0o600);
        let users = Users::open(&path).expect("opened");
        for open in [0o620, 0o602] {
            mode(open).expect("chmod");
            assert_eq!(users.find(&ann), None, "{open:o}");
            for error in [Users::open(&path).map(drop), add(&path, "bob", Role::Admin).map(drop)] {
                let error = error.expect_err("it is open").to_string();
                assert!(error.contains("chmod go-w"), "{error}");
            }
        }
        mode(0o640).expect("chmod");
        let bob = add(&path, "bob", Role::Viewer).expect("added");
        assert_eq!(now(), 0o640, "its group reads it still");
        assert!(users.find(&ann).is_some() && users.find(&bob).is_some());
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        let hash = "0".repeat(64);
        let table = [
            (format!("ann owner {hash}"), "expected viewer, editor or admin"),
            (format!("administrator admin {hash}"), "and not administrator"),
            (format!("Upgrade admin {hash}"), "or upgrade"),
            (format!("a/b admin {hash}"), "expected a name"),
            ("ann admin 00".to_owned(), "64 hexadecimal digits"),
            (format!("ann admin {}", "é".repeat(32)), "64 hexadecimal digits"),
            (format!("ann admin {hash} more"), "expected NAME ROLE HASH"),
            (format!("ann admin {hash}\nann viewer {hash}"), "written twice"),
            (format!("ann admin {hash}\nbob viewer {hash}"), "the token of \"ann\" too"),
        ];
        for (text, expected) in table {
            fs::write(&path, format!("# ours\n\n{text}\n")).expect("written");
            let error = Users::open(&path).expect_err(&text).to_string();
            assert!(error.contains(expected) && error.contains("users:"), "{error}");
        }
    }
}
