//! Files that only this authority can read and nobody can change unnoticed: AES-256-GCM under a key of its own.
//!
//! Layout of a sealed file, big-endian: magic, format version (1), length and bytes of the trust domain, authority id
//! (16), write sequence (8), nonce (12), ciphertext with tag. Everything before the nonce is authenticated, so a file of
//! another authority or trust domain does not open even under the same key.
//!
//! The key lies beside the sealed file, so it protects backups and copies of one of the two, not a stolen disk; it is a
//! separate file so that it can be kept elsewhere.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 14] = b"FERROMESH-SEAL";
const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
/// Larger files are not ours: the state is a few kilobytes.
const MAX_SEALED: u64 = 16 << 20;

/// Why a sealed file or its key cannot be used. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: readable by others (mode {mode:03o}): expected 600; run `chmod 600 {path}`", path = .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path}: expected a key of 32 bytes, got {got}", path = .path.display())]
    KeyLength { path: PathBuf, got: usize },
    #[error("{path}: {why}", path = .path.display())]
    Damaged { path: PathBuf, why: &'static str },
    #[error("{path}: belongs to trust domain {got:?}, expected {expected:?}", path = .path.display())]
    TrustDomain { path: PathBuf, got: String, expected: String },
}

impl SealError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What is authenticated along with the secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Label {
    pub(crate) trust_domain: String,
    pub(crate) authority_id: [u8; 16],
    /// Rises with every write.
    pub(crate) sequence: u64,
}

impl Label {
    fn encode(&self) -> Vec<u8> {
        let length = u16::try_from(self.trust_domain.len()).expect("a trust domain has at most 255 bytes");
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.trust_domain.as_bytes());
        bytes.extend(self.authority_id);
        bytes.extend(self.sequence.to_be_bytes());
        bytes
    }

    /// Splits a file into its label and the rest, or `None` when it is too short or of another format.
    fn decode(file: &[u8]) -> Option<(Self, &[u8])> {
        let rest = file.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (trust_domain, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (authority_id, rest) = rest.split_first_chunk::<16>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let trust_domain = String::from_utf8(trust_domain.to_vec()).ok()?;
        Some((Self { trust_domain, authority_id: *authority_id, sequence: u64::from_be_bytes(*sequence) }, rest))
    }
}

/// The key that seals; read from a file of mode 0600.
pub(crate) struct SealingKey(RandomizedNonceKey);

impl SealingKey {
    /// Makes a key file that must not exist yet.
    pub(crate) fn create(path: &Path) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        rand::fill(bytes.as_mut()).expect("the system's random source works");
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(SealError::io(path))?;
        file.write_all(bytes.as_ref()).and_then(|()| file.sync_all()).map_err(SealError::io(path))?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Reads a key file, which nobody but its owner may be able to read.
    pub(crate) fn read(path: &Path) -> Result<Self, SealError> {
        let mode = fs::metadata(path).map_err(SealError::io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealError::Exposed { path: path.to_owned(), mode });
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(SealError::io(path))?);
        let key: &[u8; KEY_LEN] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| SealError::KeyLength { path: path.to_owned(), got: bytes.len() })?;
        Ok(Self::from_bytes(key))
    }

    fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("the length is AES-256's"))
    }
}

/// Replaces `path` durably: a reader, and a restart after a crash at any moment, see the old content or the new one.
pub(crate) fn write(path: &Path, key: &SealingKey, label: &Label, secret: &[u8]) -> Result<(), SealError> {
    let mut file = label.encode();
    let mut body = secret.to_vec();
    // In place: the plain text is overwritten by the cipher text.
    let nonce = key
        .0
        .seal_in_place_append_tag(Aad::from(&file), &mut body)
        .map_err(|_| SealError::Damaged { path: path.to_owned(), why: "cannot be encrypted" })?;
    file.extend(nonce.as_ref());
    file.extend(body);
    replace(path, &file).map_err(SealError::io(path))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a rename or a new file in `path`'s directory survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes a directory that only its owner can enter; its parents are made with default rights.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}

/// Reads and opens a sealed file of `trust_domain`.
pub(crate) fn read(
    path: &Path,
    key: &SealingKey,
    trust_domain: &str,
) -> Result<(Label, Zeroizing<Vec<u8>>), SealError> {
    let damaged = |why| SealError::Damaged { path: path.to_owned(), why };
    if fs::metadata(path).map_err(SealError::io(path))?.len() > MAX_SEALED {
        return Err(damaged("too large to be a sealed file"));
    }
    let file = fs::read(path).map_err(SealError::io(path))?;
    let (label, rest) = Label::decode(&file).ok_or_else(|| damaged("not a sealed file, or cut short"))?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(|| damaged("cut short"))?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key
        .0
        .open_in_place(Nonce::from(nonce), Aad::from(label.encode()), &mut body)
        .map_err(|_| damaged("does not open with the key beside it: the file is damaged or the key is another's"))?
        .len();
    body.truncate(length);
    if label.trust_domain != trust_domain {
        let expected = trust_domain.to_owned();
        return Err(SealError::TrustDomain { path: path.to_owned(), got: label.trust_domain, expected });
    }
    Ok((label, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { trust_domain: "cluster.local".into(), authority_id: [7; 16], sequence: 3 }
    }

    fn sealed(dir: &Path) -> (PathBuf, SealingKey) {
        let key = SealingKey::create(&dir.join("key")).unwrap();
        let path = dir.join("state.sealed");
        write(&path, &key, &label(), b"the secret").unwrap();
        (path, key)
    }

    #[test]
    fn what_is_sealed_opens_again_with_a_key_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sealed(dir.path());
        let key = SealingKey::read(&dir.path().join("key")).unwrap();
        let (read_label, secret) = read(&path, &key, "cluster.local").unwrap();
        assert_eq!((read_label, secret.as_slice()), (label(), b"the secret".as_slice()));
        for name in ["key", "state.sealed"] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!fs::read(&path).unwrap().windows(10).any(|w| w == b"the secret"));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = sealed(dir.path());
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(read(&path, &key, "cluster.local").is_err(), "byte {position}");
            fs::write(&path, &good[..position]).unwrap();
            assert!(read(&path, &key, "cluster.local").is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_nonce_is_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = sealed(dir.path());
        let first = fs::read(&path).unwrap();
        write(&path, &key, &label(), b"the secret").unwrap();
        assert_ne!(first, fs::read(&path).unwrap());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, _) = sealed(dir.path());
        let path = dir.path().join("key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SealingKey::read(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_foreign_key_or_trust_domain_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = sealed(dir.path());
        let foreign = SealingKey::create(&dir.path().join("other")).unwrap();
        assert!(read(&path, &foreign, "cluster.local").is_err());
        assert!(matches!(read(&path, &key, "other.domain"), Err(SealError::TrustDomain { .. })));
    }
}
