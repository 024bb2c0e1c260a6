//! The administrator's token: made on first start and kept in a file that only its owner can read,
//! or given in a file.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ferromesh_cert_authority::files;
use zeroize::Zeroizing;

/// Random bytes in a token.
const ENTROPY: usize = 32;
/// More of a file is not read.
const LARGEST: u64 = 64 << 10;
/// Characters of a token that we made.
const TOKEN_LEN: usize = (ENTROPY * 8).div_ceil(6);

/// Why the token's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("cannot use the administrator's token file {path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others can read it.
    #[error("{path} is readable by others (mode {mode:03o}); run: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what was written there.
    #[error(
        "{path} is damaged: expected {expected} letters, digits, - and _; restore it from a backup, or delete it and start again: \
         what that start says is the step to get a new one",
        path = path.display(), expected = TOKEN_LEN
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is empty or too short to be secret.
    #[error("{path} holds no token; restore it from a backup, or delete it and start again: \
         what that start says is the step to get a new one", path = path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
    },
}

/// The token, kept as a hash: a core dump or a log has nothing to show.
pub struct AdminToken(digest::Digest);

impl AdminToken {
    /// Reads the token at `path`; makes one when there is none, and then returns its text too, to
    /// be shown once.
    ///
    /// # Errors
    /// The file cannot be used, or others can read it.
    pub fn open(path: &Path) -> Result<(Self, Option<Zeroizing<String>>), TokenError> {
        let io = |cause| TokenError::Io { path: path.to_owned(), cause };
        let file = match files::open(path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = make(path).map_err(io)?;
                return Ok((Self::of(&text), Some(text)));
            }
            Err(error) => return Err(io(error)),
        };
        let text = Self::text(path, file, 0o077)?;
        let token = Self::checked(path, &text)?;
        let ours = |text: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == ENTROPY)
        };
        if !text.strip_suffix('\n').is_some_and(ours) {
            return Err(TokenError::Damaged { path: path.to_owned() });
        }
        Ok((token, None))
    }

    /// Reads the token from a file that somebody else keeps, such as a mounted Secret, which its
    /// group may read.
    ///
    /// # Errors
    /// The file cannot be read or holds no token, or everybody can read it.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        // A mounted Secret is a link.
        let file = files::open_linked(path, OpenOptions::new().read(true))
            .map_err(|cause| TokenError::Io { path: path.to_owned(), cause })?;
        Self::checked(path, &Self::text(path, file, 0o007)?)
    }

    /// What the file says, if nobody has the rights `closed` to it.
    fn text(path: &Path, file: File, closed: u32) -> Result<Zeroizing<String>, TokenError> {
        let io = |cause| TokenError::Io { path: path.to_owned(), cause };
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & closed != 0 {
            return Err(TokenError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(LARGEST).read_to_string(&mut text).map_err(|cause| match cause.kind() {
            // No text.
            io::ErrorKind::InvalidData => TokenError::Damaged { path: path.to_owned() },
            _ => io(cause),
        })?;
        Ok(text)
    }

    fn checked(path: &Path, text: &str) -> Result<Self, TokenError> {
        if text.trim().len() < ENTROPY {
            return Err(TokenError::TooShort { path: path.to_owned() });
        }
        Ok(Self::of(text.trim()))
    }

    fn of(text: &str) -> Self {
        Self(digest::digest(&digest::SHA256, text.as_bytes()))
    }

    /// Whether `text` is the token; takes the same time whatever it is.
    pub fn accepts(&self, text: &str) -> bool {
        let other = digest::digest(&digest::SHA256, text.as_bytes());
        constant_time::verify_slices_are_equal(self.0.as_ref(), other.as_ref()).is_ok()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

fn make(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; ENTROPY]);
    rand::fill(bytes.as_mut_slice())
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    // All of it or nothing: half a token would be taken for a damaged one.
    files::replace(path, 0o600, Zeroizing::new(format!("{}\n", text.as_str())).as_bytes())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_first_start_shows_the_token_and_later_ones_accept_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let (_, shown) = AdminToken::open(&path).expect("made");
        let shown = shown.expect("shown once");
        let (token, again) = AdminToken::open(&path).expect("read");
        assert!(again.is_none());
        assert!(token.accepts(&shown));
        assert!(!token.accepts(""));
        assert!(!token.accepts(&shown[1..]));
    }

    #[test]
    fn a_damaged_token_is_refused_with_the_way_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        AdminToken::open(&path).expect("made");
        let good = fs::read(&path).expect("the token");
        let zeroed = vec![0; good.len()];
        let journal = format!("{:032x} {{\"seq\":1}}\n", 7).into_bytes();
        for bytes in [
            &good[..40],
            &good[..good.len() - 1],
            &zeroed,
            &journal,
            b"",
            &[&good[..], &good[..]].concat(),
        ] {
            fs::write(&path, bytes).expect("damaging");
            let error = AdminToken::open(&path).map(|_| ()).expect_err("refused").to_string();
            assert!(error.contains("to get a new one"), "{error}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        AdminToken::open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(AdminToken::open(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
        assert!(matches!(AdminToken::read(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn what_is_no_file_is_refused_at_once_and_only_a_given_token_may_be_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for refused in [AdminToken::open(&path).map(|_| ()), AdminToken::read(&path).map(|_| ())] {
            let error = refused.expect_err("a pipe").to_string();
            assert!(error.contains("remove what stands there"), "{error}");
        }
        let token = dir.path().join("token");
        AdminToken::open(&token).expect("made");
        std::os::unix::fs::symlink(&token, &link).expect("a link");
        assert!(AdminToken::open(&link).is_err());
        AdminToken::read(&link).expect("a mounted one");
    }

    #[test]
    fn a_given_token_may_be_read_by_its_group_and_is_never_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        assert!(matches!(AdminToken::read(&path), Err(TokenError::Io { .. })));
        let text = "t".repeat(ENTROPY);
        fs::write(&path, format!("{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("chmod");
        assert!(AdminToken::read(&path).expect("read").accepts(&text));
        assert!(matches!(AdminToken::open(&path), Err(TokenError::Exposed { mode: 0o440, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        fs::write(&path, "short").expect("written");
        assert!(matches!(AdminToken::read(&path), Err(TokenError::TooShort { .. })));
    }
}
