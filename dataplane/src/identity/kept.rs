//! The identity over a restart: key, certificate and roots in one file of the proxy's own, so that a
//! machine that reboots needs no new join token while the certificate is valid.
//!
//! One file, so that no crash leaves a key beside another's certificate. What is read is believed
//! only if it fits together, is of the identity that is asked for, and nobody else could read it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ferromesh_proto::SpiffeId;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Identity, IdentityError};

const FILE: &str = "identity.json";
/// Longer files are not ours.
const LARGEST: u64 = 1 << 20;
/// Rights of group and others.
const OTHERS: u32 = 0o077;

/// Where an identity is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    file: PathBuf,
    id: SpiffeId,
}

/// Why an identity that lies there is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("others can read it (mode {0:03o}): expected 600")]
    Readable(u32),
    #[error("it is no regular file of at most {LARGEST} bytes")]
    NoFile,
    #[error("not what this program writes: {0}")]
    Form(#[from] serde_json::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("it is that of {0}")]
    Foreign(SpiffeId),
    #[error("its certificate has ended")]
    Ended,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pems {
    chain: String,
    key: String,
    roots: String,
}

impl Drop for Pems {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Kept {
    /// The identity `id` in a directory of this proxy's own, which is made with mode 0700 if it is
    /// missing.
    pub fn new(directory: &Path, id: SpiffeId) -> Self {
        Self { file: directory.join(FILE), id }
    }

    /// What is kept and may still be used; anything else is said and counts for nothing.
    pub(super) fn load(&self, now: SystemTime) -> Option<Identity> {
        match self.read(now) {
            Ok(identity) => Some(identity),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(why) => {
                let file = self.file.display();
                tracing::warn!(%file, %why, "the kept identity is not used");
                None
            }
        }
    }

    fn read(&self, now: SystemTime) -> Result<Identity, Unusable> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&self.file)?;
        let found = file.metadata()?;
        if !found.is_file() || found.len() > LARGEST {
            return Err(Unusable::NoFile);
        }
        if found.mode() & OTHERS != 0 {
            return Err(Unusable::Readable(found.mode() & 0o777));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.read_to_end(&mut text)?;
        let mut pems: Pems = serde_json::from_slice(&text)?;
        let key = Zeroizing::new(std::mem::take(&mut pems.key));
        let (chain, roots) = (std::mem::take(&mut pems.chain), std::mem::take(&mut pems.roots));
        let identity = Identity::from_pem(chain, key, roots)?;
        match identity {
            other if other.spiffe_id != self.id => Err(Unusable::Foreign(other.spiffe_id.clone())),
            ended if ended.not_after <= now => Err(Unusable::Ended),
            identity => Ok(identity),
        }
    }

    /// Replaces what is kept. That it cannot be is said: the proxy goes on without.
    pub(super) fn save(&self, identity: &Identity) {
        if let Err(error) = self.write(identity) {
            let file = self.file.display();
            tracing::warn!(
                %file, %error,
                "the identity cannot be kept: after a restart this proxy needs a join token that \
                 is valid; --work-dir names another place"
            );
        }
    }

    fn write(&self, identity: &Identity) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let pems = Pems {
            chain: identity.chain_pem.clone(),
            key: identity.key_pem.to_string(),
            roots: identity.roots_pem.clone(),
        };
        let text = Zeroizing::new(serde_json::to_vec(&pems)?);
        let fresh = self.file.with_extension("json.new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)?;
        fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        time::Duration,
    };

    use super::*;
    use crate::identity::testing;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn an_identity_comes_back_as_it_was_and_only_its_owner_may_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("work");
        let kept = Kept::new(&directory, ID.parse().unwrap());
        let now = SystemTime::now();
        assert!(kept.read(now).is_err());
        for _ in 0..2 {
            let identity = testing::identity(ID);
            kept.save(&identity);
            let back = kept.load(now).unwrap();
            assert_eq!(back.chain_pem, identity.chain_pem);
            assert_eq!(
                (&*back.key_pem, &back.roots_pem),
                (&*identity.key_pem, &identity.roots_pem)
            );
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&kept.file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing lies beside it");
    }

    #[test]
    fn what_cannot_be_trusted_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let kept = |id: &str| Kept::new(parent.path(), id.parse().unwrap());
        let own = kept(ID);
        let (now, later) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(7200));
        own.save(&testing::identity(ID));
        assert!(own.read(now).is_ok());
        assert!(matches!(own.read(later), Err(Unusable::Ended)));
        let other = kept("spiffe://cluster.local/ns/shop/sa/other");
        assert!(matches!(other.read(now), Err(Unusable::Foreign(_))));
        fs::set_permissions(&own.file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(own.read(now), Err(Unusable::Readable(0o640))));
        let elsewhere = parent.path().join("elsewhere");
        fs::set_permissions(&own.file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&own.file, &elsewhere).unwrap();
        symlink(&elsewhere, &own.file).unwrap();
        assert!(matches!(own.read(now), Err(Unusable::Io(_))), "a link is not followed");
        fs::remove_file(&own.file).unwrap();
        fs::create_dir(&own.file).unwrap();
        assert!(matches!(own.read(now), Err(Unusable::NoFile)));
        fs::remove_dir(&own.file).unwrap();
        let mine: serde_json::Value =
            serde_json::from_slice(&fs::read(&elsewhere).unwrap()).unwrap();
        let theirs = testing::pems(ID);
        let mut mixed = mine.clone();
        mixed["key"] = theirs.key.as_str().into();
        for bad in [mixed.to_string(), "{}".to_owned(), mine.to_string()[..200].to_owned()] {
            fs::write(&own.file, bad).unwrap();
            fs::set_permissions(&own.file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(own.read(now).is_err());
        }
    }
}
