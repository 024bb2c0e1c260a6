//! What the parts of a data directory were when they were seen last, kept beside them: a part of
//! another mesh, or one that is older than that, shows at the next start.
//!
//! It says which authority there is and how often its state was changed, which store there is and a
//! record that it holds, and which key seals its Secrets. All of that only grows or stays, so that
//! a witness that is older than the parts is none that refuses them. It is written at every start
//! and end and after every change of the authority. What follows from a write to the store is marked
//! on its own, before the write is acknowledged.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use ferromesh_cert_authority::{Authority, Generation as AuthorityGeneration, files};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::store::{AcceptState, Durable, Generation as StoreGeneration};

/// Larger files are not ours.
const LARGEST: u64 = 64 << 10;

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Witness {
    authority: AuthorityGeneration,
    pub(super) store: StoreGeneration,
    secrets_key: String,
    /// Whether there is an administrator's token of our own.
    pub(super) admin_token: bool,
}

impl Witness {
    /// `CHECKSUM JSON`, so that no flipped bit lowers a number.
    fn encode(&self) -> String {
        let text = serde_json::to_string(self).expect("a witness is plain JSON");
        format!("{:032x} {text}\n", xxh3_128(text.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (_, text) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let witness: Self = serde_json::from_str(text).ok()?;
        (witness.encode().as_bytes() == bytes).then_some(witness)
    }

    /// Refuses an authority that is another one, or an older state of it.
    pub(super) fn check_authority(
        &self,
        authority: &Authority,
        place: &Path,
        file: &Path,
        accept: &AcceptState,
    ) -> anyhow::Result<()> {
        let (found, seen) = (authority.generation().borrow().clone(), &self.authority);
        let (place, file) = (place.display(), file.display());
        if found.root != seen.root {
            bail!(
                "the certificate authority in {place} is not the one of this data directory: the SHA-256 of its root is {}, and {file} \
                 expects {}; {}",
                found.root,
                seen.root,
                way_back(accept, "go on with it (workloads that trust the other root are cut off)")
            );
        }
        if found.sequence < seen.sequence {
            bail!(
                "the certificate authority in {place} is an older state of it, after {} changes, and {file} expects at least {}: \
                 certificates that were revoked since would be valid again; {}",
                found.sequence,
                seen.sequence,
                way_back(accept, "go on with it")
            );
        }
        Ok(())
    }

    /// Refuses another key of stored Secrets.
    pub(super) fn check_key(
        &self,
        found: &str,
        key: &Path,
        file: &Path,
        accept: &AcceptState,
    ) -> anyhow::Result<()> {
        if found == self.secrets_key {
            return Ok(());
        }
        bail!(
            "{} is not the key of this data directory: its fingerprint is {found}, and {} expects {}; {}",
            key.display(),
            file.display(),
            self.secrets_key,
            way_back(accept, "go on with it")
        )
    }
}

/// What was seen last; `None`: a former version kept no witness here.
pub(super) fn read(
    file: &Path,
    authority: &Authority,
    accept: &AcceptState,
) -> anyhow::Result<Option<Witness>> {
    let state = match files::read(file, LARGEST) {
        Ok(bytes) => match Witness::decode(&bytes) {
            Some(witness) => return Ok(Some(witness)),
            None => "damaged",
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "damaged",
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !authority.is_witnessed() {
                return Ok(None);
            }
            "missing"
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    bail!(
        "{} is {state}, so that nobody knows whether the parts of the data directory belong together; {}",
        file.display(),
        way_back(accept, "go on with what is there")
    )
}

/// What to do about state that is lost.
pub(super) fn way_back(accept: &AcceptState, to: &str) -> String {
    format!("restore the whole data directory from a backup, or, to {to}, run: {}", accept.step())
}

/// Refuses a part that is missing, unless everything that is there is accepted.
pub(super) fn must_be_there(part: &Path, accept: &AcceptState) -> anyhow::Result<()> {
    let is_missing =
        fs::symlink_metadata(part).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if !is_missing || accept.stands() {
        return Ok(());
    }
    bail!(
        "{} is missing, but this control plane has run before; {}",
        part.display(),
        way_back(accept, "make a new one")
    )
}

/// Which key it is, without telling it.
pub(super) fn fingerprint(key: &Path) -> anyhow::Result<String> {
    let bytes = files::read_private(key, LARGEST)
        .map(zeroize::Zeroizing::new)
        .with_context(|| format!("reading {}", key.display()))?;
    let digest = digest::digest(&digest::SHA256, &bytes);
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Keeps the witness up to date.
pub(super) struct WitnessKeeper {
    pub(super) file: PathBuf,
    pub(super) authority: Arc<Authority>,
    pub(super) store: Arc<Durable>,
    pub(super) secrets_key: String,
    pub(super) admin_token: bool,
    /// What the file says.
    pub(super) written: Mutex<Option<Witness>>,
}

impl WitnessKeeper {
    /// Writes what is seen now, if the file says something else.
    ///
    /// # Errors
    /// The system's; the file says what it said before then.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut written = self.written.lock().expect("no holder of this lock panics");
        let seen = Witness {
            authority: self.authority.generation().borrow().clone(),
            store: self.store.generation(),
            secrets_key: self.secrets_key.clone(),
            admin_token: self.admin_token,
        };
        if written.as_ref() != Some(&seen) {
            files::replace(&self.file, 0o600, seen.encode().as_bytes())?;
            *written = Some(seen);
        }
        Ok(())
    }

    /// Writes it at a start, when every part was checked. One that stands refuses nothing that is
    /// there, so that a full disk is no reason not to start.
    ///
    /// # Errors
    /// There is none, or one that does not hold any more, and it cannot be written.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let stood = self.written.lock().expect("no holder of this lock panics").is_some();
        match self.write() {
            Err(error) if stood => self.say(&error),
            outcome => outcome.with_context(|| format!("cannot write {}", self.file.display()))?,
        }
        if !self.authority.is_witnessed() {
            self.authority.witness()?;
            // It changed.
            self.write().unwrap_or_else(|error| self.say(&error));
        }
        Ok(())
    }

    /// Writes it after every change of the authority.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.authority.generation();
        while changes.changed().await.is_ok() {
            self.clone().write_now().await;
        }
    }

    /// Writes it, off the reactor; what fails is said.
    pub(super) async fn write_now(self: Arc<Self>) {
        // The runtime is stopping: the next start finds the one before.
        let _ = tokio::task::spawn_blocking(move || {
            self.write().unwrap_or_else(|error| self.say(&error));
        })
        .await;
    }

    fn say(&self, error: &io::Error) {
        tracing::error!(
            %error, file = %self.file.display(),
            "what the data directory holds now is not witnessed: an older part of it would not show"
        );
    }
}
