//! What the parts of a data directory were when they were seen last, kept beside them: a part of
//! another mesh, or one that is older than that, shows at the next start.
//!
//! It says which authority there is and how often its state was changed, which store there is and a
//! record that it holds, and which key seals its Secrets. All of that only grows or stays, so that
//! a witness that is older than the parts is none that refuses them. It is written at every start
//! and end, after every change of the authority, and now and then. What follows from a write to the
//! store is marked on its own, before the write is acknowledged.
//!
//! A copy lies in each part, so that a part which is put back together with the witness is proved
//! older by the other part. Of the copies of one mesh the one that saw most counts; what another
//! mesh's says shows in the part itself.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use ferromesh_cert_authority::{Authority, Generation as AuthorityGeneration, files};
use ferromesh_proto::recurring::Recurring;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::store::{AcceptState, Durable, Generation as StoreGeneration};

/// Larger files are not ours.
const LARGEST: u64 = 64 << 10;
/// The store is seen this often, if nothing else happens.
const EVERY: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Witness {
    authority: AuthorityGeneration,
    store: StoreGeneration,
    secrets_key: String,
    /// Whether there is an administrator's token of our own.
    admin_token: bool,
}

/// The witness and its copies: where each lies, and what it says, if it is known.
pub(super) struct Copies(Vec<(PathBuf, Option<Witness>)>);

/// What was seen last of every part.
pub(super) struct Seen {
    authority: AuthorityGeneration,
    /// The file that says so.
    authority_file: PathBuf,
    pub(super) store: StoreGeneration,
    /// The file that says so.
    pub(super) store_file: PathBuf,
    secrets_key: String,
    /// The file that says so.
    key_file: PathBuf,
    /// Whether there was an administrator's token of our own.
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

    /// Whether both are of one mesh.
    fn is_of_one_mesh(&self, other: &Self) -> bool {
        self.authority.root == other.authority.root && self.store.is_of_one_store(&other.store)
    }

    /// How much it has seen; all of it only grows.
    fn extent(&self) -> (u64, u64) {
        (self.store.records(), self.authority.sequence)
    }
}

impl Copies {
    /// Files of which nobody knows what they say, the witness itself first.
    pub(super) fn unread(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (file, None)).collect())
    }

    /// Reads them; a former version kept no copies, or no witness at all.
    ///
    /// # Errors
    /// One is damaged, or the witness itself is missing although there was one; with the way back.
    pub(super) fn read(
        files: impl IntoIterator<Item = PathBuf>,
        authority: &Authority,
        accept: &AcceptState,
    ) -> anyhow::Result<Self> {
        let mut copies = Self::unread(files);
        for (at, (file, says)) in copies.0.iter_mut().enumerate() {
            *says = match said(file) {
                Ok(None) if at == 0 && authority.is_witnessed() => {
                    bail!(unknown(file, "missing", accept))
                }
                Ok(said) => said,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    bail!(unknown(file, "damaged", accept))
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("reading {}", file.display()));
                }
            };
        }
        Ok(copies)
    }

    /// Whether there is a witness.
    fn stands(&self) -> bool {
        self.0.first().is_some_and(|(_, says)| says.is_some())
    }

    /// What was seen last; `None`: a former version kept no witness here.
    pub(super) fn seen(&self) -> Option<Seen> {
        let main = self.0.first()?.1.as_ref()?;
        let of_this_mesh = self.0.iter().filter_map(|(file, says)| {
            says.as_ref().filter(|says| says.is_of_one_mesh(main)).map(|says| (file, says))
        });
        // The first of equals is the witness itself.
        let most = |of: fn(&Witness) -> (u64, u64)| {
            of_this_mesh
                .clone()
                .reduce(|one, other| if of(other.1) > of(one.1) { other } else { one })
        };
        let (authority_file, by_authority) = most(|w| (w.authority.sequence, 0))?;
        let (store_file, by_store) = most(|w| (w.store.records(), 0))?;
        let (key_file, last) = most(Witness::extent)?;
        Some(Seen {
            authority: by_authority.authority.clone(),
            authority_file: authority_file.clone(),
            store: by_store.store.clone(),
            store_file: store_file.clone(),
            secrets_key: last.secrets_key.clone(),
            key_file: key_file.clone(),
            admin_token: last.admin_token,
        })
    }
}

/// What a file says; `None`: it is not there.
fn said(file: &Path) -> io::Result<Option<Witness>> {
    match files::read(file, LARGEST) {
        Ok(bytes) => {
            Witness::decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        // Without its folder there is no copy, of which others say more.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn unknown(file: &Path, state: &str, accept: &AcceptState) -> String {
    format!(
        "{} is {state}, so that nobody knows whether the parts of the data directory belong together; {}",
        file.display(),
        way_back(accept, "go on with what is there")
    )
}

impl Seen {
    /// Refuses an authority that is another one, or an older state of it.
    pub(super) fn check_authority(
        &self,
        authority: &Authority,
        place: &Path,
        accept: &AcceptState,
    ) -> anyhow::Result<()> {
        let (found, seen) = (authority.generation().borrow().clone(), &self.authority);
        let (place, file) = (place.display(), self.authority_file.display());
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
        accept: &AcceptState,
    ) -> anyhow::Result<()> {
        if found == self.secrets_key {
            return Ok(());
        }
        bail!(
            "{} is not the key of this data directory: its fingerprint is {found}, and {} expects {}; {}",
            key.display(),
            self.key_file.display(),
            self.secrets_key,
            way_back(accept, "go on with it")
        )
    }
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

/// Keeps the witness and its copies up to date.
pub(super) struct WitnessKeeper {
    pub(super) copies: Mutex<Copies>,
    pub(super) authority: Arc<Authority>,
    pub(super) store: Arc<Durable>,
    pub(super) secrets_key: String,
    pub(super) admin_token: bool,
    /// Writes that failed, as far as that was logged.
    pub(super) trouble: Mutex<Recurring>,
    /// Nobody else uses the data directory while this is held.
    pub(super) _alone: File,
}

const POISONED: &str = "no holder of this lock panics";

impl WitnessKeeper {
    /// Writes what is seen now into every file that says something else.
    ///
    /// # Errors
    /// The system's, of the first file that could not be written, with its name; it says what it
    /// said before then.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut copies = self.copies.lock().expect(POISONED);
        let seen = Witness {
            authority: self.authority.generation().borrow().clone(),
            store: self.store.generation(),
            secrets_key: self.secrets_key.clone(),
            admin_token: self.admin_token,
        };
        let mut written = Ok(());
        for (file, says) in copies.0.iter_mut().filter(|(_, says)| says.as_ref() != Some(&seen)) {
            match files::replace(file, 0o600, seen.encode().as_bytes()) {
                Ok(()) => *says = Some(seen.clone()),
                Err(error) => {
                    let named = format!("{}: {error}", file.display());
                    written = written.and(Err(io::Error::new(error.kind(), named)));
                }
            }
        }
        written
    }

    /// Writes it at a start, when every part was checked. One that stands refuses nothing that is
    /// there, so that a full disk is no reason not to start.
    ///
    /// # Errors
    /// There is none, or one that does not hold any more, and it cannot be written.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let stood = self.copies.lock().expect(POISONED).stands();
        match self.write() {
            Err(error) if stood => self.failed(&error),
            outcome => outcome.context("cannot write")?,
        }
        if !self.authority.is_witnessed() {
            self.authority.witness()?;
            // It changed.
            self.write_or_tell();
        }
        Ok(())
    }

    /// Writes it after every change of the authority, and now and then for the store.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.authority.generation();
        while !matches!(tokio::time::timeout(EVERY, changes.changed()).await, Ok(Err(_))) {
            self.clone().write_now().await;
        }
    }

    /// Writes it, off the reactor; what fails is said.
    pub(super) async fn write_now(self: Arc<Self>) {
        // The runtime is stopping: the next start finds the one before.
        let _ = tokio::task::spawn_blocking(move || self.write_or_tell()).await;
    }

    fn write_or_tell(&self) {
        match self.write() {
            Ok(()) => {
                let over = self.trouble.lock().expect(POISONED).worked(Instant::now());
                if let Some(failures) = over {
                    tracing::info!(failures, "the data directory is witnessed again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &io::Error) {
        let news = self.trouble.lock().expect(POISONED).failed(error, Instant::now());
        if let Some(failures) = news {
            tracing::error!(
                %error,
                failures,
                "what the data directory holds now is not witnessed: an older part of it would not show"
            );
        }
    }
}
