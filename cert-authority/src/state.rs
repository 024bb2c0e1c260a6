//! The authority's secrets: one sealed document, made once, replaced as a whole, kept in a
//! [`StateStore`].

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{
    seal::{Label, SealError, SealingKey},
    signer::local::CaMaterial,
    store::{KEY, Kept, Revision, SEALED, StateStore, StoreError},
};

/// Everything that must not be lost or read by others; replicas that share a store share all of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) root: CaPair,
    pub(crate) intermediate: CaPair,
    /// Key of join tokens, PKCS#8.
    pub(crate) join_token_key: Secret,
    /// Serials that may not renew themselves, each with its expiry in seconds since 1970, after
    /// which it is dropped.
    pub(crate) revoked: BTreeMap<String, u64>,
    /// Whether somebody keeps a [`Generation`](crate::authority::Generation) of it elsewhere; states
    /// of former versions do not say it.
    #[serde(default)]
    pub(crate) witnessed: bool,
    /// Ids of join tokens of a single use that were used, each with its end in seconds since 1970,
    /// after which it is dropped; states of former versions have none.
    #[serde(default)]
    pub(crate) used_tokens: BTreeMap<String, u64>,
}

/// Bytes that are overwritten when dropped; base64 in the document.
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CaPair {
    certificate: Secret,
    key: Secret,
}

impl From<CaMaterial> for CaPair {
    fn from(material: CaMaterial) -> Self {
        Self {
            certificate: Secret(Zeroizing::new(material.certificate.to_vec())),
            key: Secret(material.key_pkcs8),
        }
    }
}

impl CaPair {
    pub(crate) fn material(&self) -> CaMaterial {
        CaMaterial {
            certificate: CertificateDer::from(self.certificate.0.to_vec()),
            key_pkcs8: self.key.0.clone(),
        }
    }
}

impl State {
    /// Whether both have the same root and the same key of join tokens, which never change.
    pub(crate) fn is_same_authority(&self, other: &Self) -> bool {
        self.root == other.root && self.join_token_key == other.join_token_key
    }
}

/// Why kept state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{half}: {why}")]
    Sealed { half: &'static str, why: SealError },
    #[error("{SEALED}: written by another version of this program")]
    Version,
}

/// Sealed state in its store, and the key that opens it.
pub(crate) struct SealedState {
    store: Arc<dyn StateStore>,
    key: SealingKey,
    label: Label,
    revision: Revision,
}

impl SealedState {
    /// Keeps a first state; [`StoreError::Conflict`] when there is one already.
    pub(crate) fn create(
        store: Arc<dyn StateStore>,
        trust_domain: &str,
        state: &State,
    ) -> Result<Self, StoreError> {
        let (key, label) = (SealingKey::generate(), Label::new(trust_domain));
        let revision = store.create(key.bytes(), &key.seal(&label, &document(state)))?;
        Ok(Self { store, key, label, revision })
    }

    /// Opens what is kept; `None`: nothing.
    pub(crate) fn open(
        store: Arc<dyn StateStore>,
        trust_domain: &str,
    ) -> Result<Option<(Self, State)>, StateError> {
        let Some(kept) = store.read()? else { return Ok(None) };
        let (key, label, state) = unseal(&kept, trust_domain)?;
        Ok(Some((Self { store, key, label, revision: kept.revision }, state)))
    }

    /// What is kept now, if it changed; [`StoreError::Gone`]: nothing any more.
    pub(crate) fn reread(&self) -> Result<Option<(Self, State)>, StateError> {
        let kept = self.store.read()?.ok_or(StoreError::Gone)?;
        if kept.revision == self.revision {
            return Ok(None);
        }
        let (key, label, state) = unseal(&kept, &self.label.trust_domain)?;
        Ok(Some((Self { store: self.store.clone(), key, label, revision: kept.revision }, state)))
    }

    /// Replaces the state durably; state that was taken away is put back.
    pub(crate) fn write(&mut self, state: &State) -> Result<(), StoreError> {
        let label = self.label.next();
        let sealed = self.key.seal(&label, &document(state));
        self.revision = match self.store.replace(&sealed, &self.revision) {
            Err(StoreError::Gone) => self.store.create(self.key.bytes(), &sealed)?,
            outcome => outcome?,
        };
        self.label = label;
        Ok(())
    }

    /// Rises with every write.
    pub(crate) fn sequence(&self) -> u64 {
        self.label.sequence
    }

    /// What to call the store.
    pub(crate) fn place(&self) -> String {
        self.store.place()
    }
}

fn unseal(kept: &Kept, trust_domain: &str) -> Result<(SealingKey, Label, State), StateError> {
    let key =
        SealingKey::from_bytes(&kept.key).map_err(|why| StateError::Sealed { half: KEY, why })?;
    let (label, document) = key
        .open(&kept.sealed, trust_domain)
        .map_err(|why| StateError::Sealed { half: SEALED, why })?;
    let state = serde_json::from_slice(&document).map_err(|_| StateError::Version)?;
    Ok((key, label, state))
}

fn document(state: &State) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(state).expect("the state has only text and numbers"))
}
