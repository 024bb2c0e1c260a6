//! Files of the proxy's machine, which others keep: settings name them, and so do resources.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;

/// What a file may hold, in bytes: eight times the roots of the public PKI. Whoever may write a
/// rule can have a proxy read any path of its machine, and some never end.
const LARGEST: u64 = 2 << 20;

/// The content of a regular file, to which links may lead, of at most 2 MiB.
///
/// Blocks for as long as a disk does and no longer: a pipe is not waited for.
///
/// # Errors
/// The system's, or that it is larger or no regular file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    // A terminal that is opened would become this process's own.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused("it is no regular file".to_owned()));
    }
    let mut content = Vec::new();
    // What a file says of its own size is no promise: those of /proc say none.
    file.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(refused(format!("it holds more than {LARGEST} bytes")));
    }
    Ok(content)
}

/// [`read`] for a file of text.
///
/// # Errors
/// As [`read`], and that it is no UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::mpsc, thread, time::Duration};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    /// Reads with a limit of time, which nothing that is read may reach.
    fn in_time(path: &Path) -> Result<Vec<u8>, String> {
        let (answer, answered) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || answer.send(read(&path).map_err(|e| e.to_string())));
        answered.recv_timeout(Duration::from_secs(10)).expect("reading ends")
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let [small, link, large, pipe] =
            ["small", "link", "large", "pipe"].map(|name| folder.path().join(name));
        fs::write(&small, "text").unwrap();
        symlink(&small, &link).unwrap();
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(in_time(&small), Ok(b"text".to_vec()));
        assert_eq!(in_time(&link), Ok(b"text".to_vec()));
        for (path, expected) in [
            (large.as_path(), "it holds more than 2097152 bytes"),
            (&pipe, "it is no regular file"),
            (Path::new("/dev/zero"), "it is no regular file"),
            (folder.path(), "it is no regular file"),
        ] {
            assert_eq!(in_time(path), Err(expected.to_owned()), "{}", path.display());
        }
        File::options().write(true).open(&large).unwrap().set_len(LARGEST).unwrap();
        assert_eq!(in_time(&large).map(|content| content.len() as u64), Ok(LARGEST));
    }
}
