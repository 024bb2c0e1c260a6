//! The authority's secrets as they lie on disk: one sealed document, made once, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{
    seal::{self, Label, SealError, SealingKey},
    signer::local::CaMaterial,
};

const KEY_FILE: &str = "key";
const STATE_FILE: &str = "authority.sealed";

/// Everything that must not be lost or read by others.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) root: CaPair,
    pub(crate) intermediate: CaPair,
    /// Key of join tokens, PKCS#8.
    pub(crate) join_token_key: Secret,
    /// Serials that may not renew themselves, each with its expiry in seconds since 1970, after which it is dropped.
    pub(crate) revoked: BTreeMap<String, u64>,
}

/// Bytes that are overwritten when dropped; base64 in the document.
pub(crate) struct Secret(pub(crate) Zeroizing<Vec<u8>>);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

/// A certificate of the authority and its key.
#[derive(Serialize, Deserialize)]
pub(crate) struct CaPair {
    certificate: Secret,
    key: Secret,
}

impl From<CaMaterial> for CaPair {
    fn from(material: CaMaterial) -> Self {
        Self { certificate: Secret(Zeroizing::new(material.certificate.to_vec())), key: Secret(material.key_pkcs8) }
    }
}

impl CaPair {
    pub(crate) fn material(&self) -> CaMaterial {
        CaMaterial { certificate: CertificateDer::from(self.certificate.0.to_vec()), key_pkcs8: self.key.0.clone() }
    }
}

/// What lies in an authority's directory.
pub(crate) enum Found {
    /// Nothing: the directory is missing or empty.
    Nothing,
    /// Key and sealed state.
    Both,
    /// Something is missing or foreign; never to be written over.
    Incomplete {
        /// What is there without its other half, or nothing of ours.
        why: String,
    },
}

/// Looks without touching.
pub(crate) fn find(dir: &Path) -> io::Result<Found> {
    let names: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e),
    };
    let has = |name: &str| names.iter().any(|n| n == name);
    Ok(match (has(KEY_FILE), has(STATE_FILE)) {
        (true, true) => Found::Both,
        (true, false) => Found::Incomplete { why: format!("{STATE_FILE} is missing, {KEY_FILE} is there") },
        (false, true) => Found::Incomplete { why: format!("{KEY_FILE} is missing, {STATE_FILE} is there") },
        (false, false) if names.is_empty() => Found::Nothing,
        (false, false) => Found::Incomplete { why: "it holds other files and no authority".into() },
    })
}

/// The sealed state on disk and the key that opens it.
pub(crate) struct SealedState {
    path: PathBuf,
    key: SealingKey,
    label: Label,
}

impl SealedState {
    /// Makes the directory with key and state in one step: it appears complete or not at all.
    pub(crate) fn create(dir: &Path, trust_domain: &str, state: &State) -> Result<Self, SealError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| SealError::Io { path, source }
        };
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let nascent = dir.with_file_name(format!(".{name}.new"));
        // Left by a crash before it was ever published: nobody has seen that root.
        match fs::remove_dir_all(&nascent) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(&nascent)(e)),
            _ => {}
        }
        seal::create_private_dir(&nascent).map_err(io(&nascent))?;
        let key = SealingKey::create(&nascent.join(KEY_FILE))?;
        let mut authority_id = [0; 16];
        rand::fill(&mut authority_id).expect("the system's random source works");
        let label = Label { trust_domain: trust_domain.to_owned(), authority_id, sequence: 0 };
        let mut sealed = Self { path: nascent.join(STATE_FILE), key, label };
        sealed.write(state)?;
        fs::rename(&nascent, dir).and_then(|()| seal::sync_parent(dir)).map_err(io(dir))?;
        sealed.path = dir.join(STATE_FILE);
        Ok(sealed)
    }

    /// Opens what [`create`](Self::create) made.
    pub(crate) fn open(dir: &Path, trust_domain: &str) -> Result<(Self, State), SealError> {
        let path = dir.join(STATE_FILE);
        let key = SealingKey::read(&dir.join(KEY_FILE))?;
        let (label, document) = seal::read(&path, &key, trust_domain)?;
        let state = serde_json::from_slice(&document).map_err(|_| SealError::Damaged {
            path: path.clone(),
            why: "written by another version of this program",
        })?;
        Ok((Self { path, key, label }, state))
    }

    /// Replaces the state durably.
    pub(crate) fn write(&mut self, state: &State) -> Result<(), SealError> {
        let document = Zeroizing::new(serde_json::to_vec(state).expect("the state has only text and numbers"));
        let label = Label { sequence: self.label.sequence + 1, ..self.label.clone() };
        seal::write(&self.path, &self.key, &label, &document)?;
        self.label = label;
        Ok(())
    }
}
