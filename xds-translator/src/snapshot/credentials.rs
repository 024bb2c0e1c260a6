//! What is known of credentials. They come from a source of their own, not from objects.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    MeshSnapshot,
    change::ChangeSet,
    reader::{Dep, Reader},
};

/// Namespace and name of a credential.
pub type CredentialName = (Arc<str>, Arc<str>);

/// What is known of a credential; its key material stays with the secret provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFact {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: Arc<str>,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
    /// Whether it holds a CA for the certificates of clients.
    pub holds_ca: bool,
}

/// What is known of credentials, by namespace and name.
pub type Credentials = BTreeMap<CredentialName, CredentialFact>;

impl MeshSnapshot {
    /// Records or forgets a credential.
    pub(crate) fn set_credential(
        &mut self,
        namespace: &str,
        name: &str,
        fact: Option<CredentialFact>,
        changes: &mut ChangeSet,
    ) {
        let key = (Arc::from(namespace), Arc::from(name));
        if self.credentials.get(&key) == fact.as_ref() {
            return;
        }
        let credentials = Arc::make_mut(&mut self.credentials);
        let appears = fact.is_some();
        let old = match fact {
            Some(fact) => credentials.insert(key.clone(), fact),
            None => credentials.remove(&key),
        };
        if old.is_some() != appears {
            changes.touch(Dep::Credential(key.0, key.1));
        }
    }
}

impl Reader<'_> {
    /// Whether a credential with this name exists in the namespace.
    pub fn credential(&self, namespace: &str, name: &str) -> bool {
        self.record(Dep::Credential(namespace.into(), name.into()));
        self.snapshot().credentials().contains_key(&(Arc::from(namespace), Arc::from(name)))
    }
}
