//! Files of state, in a directory that a mistake or another program may have been at: opened only
//! where they are regular files, and made or replaced without following a link.
//!
//! A pipe would make a start wait for ever, and a link would have another file read or written.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::fcntl::OFlag;

/// Rights of group and others.
const OTHERS: u32 = 0o077;
/// Right of group and others to write.
const OTHERS_WRITE: u32 = 0o022;
/// Of a directory: only its owner removes a file.
const STICKY: u32 = 0o1000;

/// Opens a regular file as `options` say; a link is none.
///
/// # Errors
/// The system's, or that something else stands there, with the way back.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_with(path, options, OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW)
}

/// [`open`] for a file that somebody else keeps, to which a link may lead.
///
/// # Errors
/// As [`open`].
pub fn open_linked(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_with(path, options, OFlag::O_NONBLOCK)
}

fn open_with(path: &Path, options: &mut OpenOptions, flags: OFlag) -> io::Result<File> {
    match options.custom_flags(flags.bits()).open(path) {
        Ok(file) => {
            let kind = file.metadata()?.file_type();
            if kind.is_file() { Ok(file) } else { Err(no_file(kind)) }
        }
        // The system's words for a link or a pipe ("too many levels", "no such device") help nobody.
        Err(error) => match fs::symlink_metadata(path).map(|found| found.file_type()) {
            Ok(kind) if !kind.is_file() => Err(no_file(kind)),
            _ => Err(error),
        },
    }
}

/// What something is that is no regular file.
pub fn what(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn no_file(kind: FileType) -> io::Error {
    let message = format!(
        "it is {} and no regular file; restore it from a backup, or remove what stands there",
        what(kind)
    );
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and that it is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path, OpenOptions::new().read(true))?, limit)
}

/// [`read`] for what nobody but its owner may be able to read.
///
/// # Errors
/// As [`read`], and that others can read it.
pub fn read_private(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, OpenOptions::new().read(true))?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & OTHERS != 0 {
        let message = format!(
            "it is readable by others (mode {mode:03o}), expected 600; run: chmod 600 {}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    read_opened(file, limit)
}

/// Reads the text of a file that somebody has named, of at most `limit` bytes. It may be anything
/// that can be read: what is mounted is a link, what a command prints is a pipe.
///
/// # Errors
/// The system's; it is larger, or no UTF-8.
pub fn read_named(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read_opened(File::open(path)?, limit)?;
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text");
    String::from_utf8(bytes).map_err(no_text)
}

/// Reads what is left of an open file, of at most `limit` bytes.
///
/// # Errors
/// The system's, and that it is larger.
pub fn read_opened(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("it is larger than {limit} bytes, so it is not what belongs there");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Checks that `path` leads to the open `file`, which has `length` bytes: somebody may have moved,
/// removed, replaced or cut it meanwhile, and what is written to it then is lost.
///
/// # Errors
/// It does not, with the way back; or the system's.
pub fn must_be(path: &Path, file: &File, length: u64) -> io::Result<()> {
    let open = file.metadata()?;
    let found = match fs::symlink_metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let same = |found: &fs::Metadata| (found.dev(), found.ino()) == (open.dev(), open.ino());
    let what = match &found {
        None => "removed",
        Some(found) if !same(found) => "replaced",
        Some(_) if open.len() != length => "changed",
        Some(_) => return Ok(()),
    };
    let message = format!(
        "it was {what} by somebody else while it was in use; put it back as it was, or stop what \
         uses it, restore it from a backup, and start again"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Makes a file that is not there yet, with its content on the disk.
///
/// # Errors
/// The system's; something stands there already.
pub fn create(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Replaces a file: a reader, and a restart after a crash at any moment, see the old content or the
/// new one. The new content is made beside it, with `.new` after its name.
///
/// # Errors
/// The system's; nothing was replaced then.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(match fs::symlink_metadata(&fresh) {
                Ok(found) if found.is_dir() => no_file(found.file_type()),
                _ => error,
            });
        }
        _ => {}
    }
    create(&fresh, mode, content)?;
    fs::rename(&fresh, path).map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => no_file(found.file_type()),
        _ => error,
    })?;
    sync_parent(path)
}

/// Makes a directory that survives a power cut, and those above it that are missing.
///
/// # Errors
/// The system's; something else stands there.
pub fn create_directories(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && fs::symlink_metadata(above).is_err())
        .collect();
    fs::create_dir_all(path)?;
    // Who may write to a directory may not always read it; then it is as durable as any other.
    missing.into_iter().rev().for_each(|made| drop(sync_parent(made)));
    Ok(())
}

/// Makes a rename or a new file in `path`'s directory survive a power cut.
///
/// # Errors
/// The system's.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// [`take_rights`], said in the log.
///
/// # Errors
/// The system's.
pub fn tighten(path: &Path) -> io::Result<()> {
    let taken = take_rights(path)?;
    say_taken(path, taken, "others had rights to it; they were taken away");
    Ok(())
}

/// Takes the right to write from group and others to a directory in which others may read a file,
/// said in the log. Where everybody may only remove what is his own, as in `/tmp`, it stays.
///
/// # Errors
/// The system's.
pub fn tighten_shared(directory: &Path) -> io::Result<()> {
    if fs::metadata(directory)?.mode() & STICKY != 0 {
        return Ok(());
    }
    let taken = take(directory, OTHERS_WRITE)?;
    say_taken(directory, taken, "others could write to it; that right was taken away");
    Ok(())
}

/// Takes the rights of group and others from a file or directory; the mode before, if it had any.
///
/// # Errors
/// The system's.
pub fn take_rights(path: &Path) -> io::Result<Option<u32>> {
    take(path, OTHERS)
}

fn take(path: &Path, rights: u32) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & rights == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !rights))?;
    Ok(Some(mode & 0o777))
}

fn say_taken(path: &Path, before: Option<u32>, what: &'static str) {
    if let Some(mode) = before {
        let (path, before) = (path.display(), format!("{mode:03o}"));
        tracing::warn!(%path, before, "{what}");
    }
}

/// Checks that a directory of another library's files holds regular files and directories only.
///
/// # Errors
/// As [`open`], with the path.
pub fn only_regular(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            only_regular(&entry.path())?;
        } else if !kind.is_file() {
            let message = format!("{}: {}", entry.path().display(), no_file(kind));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        mkfifo(&path("pipe"), Mode::S_IRWXU).expect("a pipe");
        fs::create_dir(path("directory")).expect("a directory");
        fs::write(path("file"), "kept").expect("a file");
        symlink("file", path("link")).expect("a link");
        symlink("nowhere", path("dangling")).expect("a link");
        let ways: [fn(&mut OpenOptions) -> &mut OpenOptions; 3] = [
            |o| o.read(true),
            |o| o.write(true),
            |o| o.read(true).write(true).create(true).truncate(false),
        ];
        for (name, what) in
            [("pipe", "pipe"), ("directory", "directory"), ("link", "link"), ("dangling", "link")]
        {
            for way in ways {
                let error = open(&path(name), way(&mut OpenOptions::new())).expect_err(name);
                let text = error.to_string();
                assert!(text.contains(what) && text.contains("restore"), "{name}: {text}");
            }
        }
        assert!(!path("nowhere").exists(), "a file was made through a link");
        assert_eq!(read(&path("file"), 4).expect("a file"), b"kept");
        assert!(read(&path("file"), 3).is_err());
        let linked = open_linked(&path("link"), OpenOptions::new().read(true));
        assert!(linked.expect("to a file").metadata().expect("it is open").is_file());
    }

    #[test]
    fn replacing_never_writes_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("roots"), dir.path().join("journal"));
        fs::write(&other, "records").expect("a file");
        for link in ["roots", "roots.new"] {
            symlink("journal", dir.path().join(link)).expect("a link");
            replace(&path, 0o600, b"root").expect("replaced");
            assert_eq!(fs::read(&path).expect("a file"), b"root");
            assert_eq!(fs::read(&other).expect("a file"), b"records");
        }
        fs::create_dir(dir.path().join("roots.new")).expect("a directory");
        let error = replace(&path, 0o600, b"root").expect_err("in the way").to_string();
        assert!(error.contains("remove what stands there"), "{error}");
    }

    #[test]
    fn what_is_named_is_read_whatever_it_is_but_not_without_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, link) = (dir.path().join("settings"), dir.path().join("link"));
        fs::write(&path, "leaf-ttl: 1h\n").expect("a file");
        symlink("settings", &link).expect("a link");
        for named in [&path, &link] {
            assert_eq!(read_named(named, 64).expect("it is read"), "leaf-ttl: 1h\n");
        }
        let sparse = dir.path().join("sparse");
        File::create(&sparse).and_then(|file| file.set_len(3 << 30)).expect("a sparse file");
        for endless in [Path::new("/dev/zero"), &sparse, &path] {
            let error = read_named(endless, 8).expect_err("too large").to_string();
            assert!(error.contains("larger than 8 bytes"), "{error}");
        }
        fs::write(&path, [0xff]).expect("a file");
        assert!(read_named(&path, 64).is_err());
    }

    #[test]
    fn what_somebody_does_to_an_open_file_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, aside) = (dir.path().join("journal"), dir.path().join("aside"));
        let make = || {
            fs::write(&path, "records").expect("written");
            open(&path, OpenOptions::new().read(true)).expect("a file")
        };
        let file = make();
        must_be(&path, &file, 7).expect("it is there");
        type Deed = fn(&Path, &Path) -> io::Result<()>;
        let deeds: [(&str, Deed); 6] = [
            ("removed", |path, _| fs::remove_file(path)),
            ("removed", |path, aside| fs::rename(path, aside)),
            ("replaced", |path, aside| fs::copy(path, aside).and_then(|_| fs::rename(aside, path))),
            ("replaced", |path, aside| fs::rename(path, aside).and_then(|()| symlink(aside, path))),
            ("changed", |path, _| fs::write(path, "")),
            ("changed", |path, _| fs::write(path, "older records")),
        ];
        for (what, deed) in deeds {
            let _ = fs::remove_file(&path);
            let file = make();
            deed(&path, &aside).expect("done");
            let error = must_be(&path, &file, 7).expect_err(what).to_string();
            assert!(error.contains(what) && error.contains("put it back"), "{error}");
        }
        fs::remove_file(&path).expect("removed");
        let file = make();
        fs::rename(&path, &aside).and_then(|()| fs::rename(&aside, &path)).expect("put back");
        must_be(&path, &file, 7).expect("it is there again");
    }

    #[test]
    fn a_private_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        create(&path, 0o600, b"key").expect("made");
        assert_eq!(read_private(&path, 9).expect("private"), b"key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = read_private(&path, 9).expect_err("exposed").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        tighten(&path).expect("tightened");
        assert_eq!(read_private(&path, 9).expect("private again"), b"key");
    }

    #[test]
    fn a_shared_directory_is_written_to_by_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        for (mode, left) in [(0o777, 0o755), (0o2775, 0o2755), (0o700, 0o700), (0o1777, 0o1777)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("chmod");
            tighten_shared(dir.path()).expect("tightened");
            assert_eq!(fs::metadata(dir.path()).expect("there").mode() & 0o7777, left, "{mode:o}");
        }
    }
}
