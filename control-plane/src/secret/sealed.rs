//! Secrets at rest: what the REST API stores of a Secret, so that no key lies readable in the
//! journal.
//!
//! Everything but kind, type, name and labels is replaced by one sealed text (AES-256-GCM, the
//! object's name as associated data): tools keep copies of whole objects in annotations. What stays
//! is for people who audit the journal.

use std::{fs, io, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use ferromesh_cert_authority::files;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::store::{Entry, StoreKey};

/// The field that takes the place of what is sealed.
const SEALED: &str = "sealedData";
/// Fields that stay readable, and those of them in the metadata.
const READABLE: [&str; 4] = ["apiVersion", "kind", "type", "metadata"];
const READABLE_METADATA: [&str; 3] = ["name", "namespace", "labels"];
const KEY_LEN: usize = 32;

/// Why a sealed secret cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be used.
    #[error(
        "cannot use the key of stored secrets, {path}: {cause}; if it is lost, restore it from a backup of the data directory",
        path = path.display()
    )]
    Key {
        /// The key file.
        path: std::path::PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The store has Secrets that the key does not open.
    #[error(
        "{secrets} Secrets of the store are sealed under another key than {path} {state}; restore that file from a backup of the \
         data directory, or start once with --discard-sealed-secrets, which deletes them, and write them again",
        path = path.display()
    )]
    Lost {
        /// The key file.
        path: std::path::PathBuf,
        /// `holds`, or `held`: it is missing.
        state: &'static str,
        /// How many.
        secrets: usize,
    },
    /// The text was not sealed with this key for this object.
    #[error("{}: its sealed data does not open: it was written under another key, or changed", .0.0)]
    Refused(StoreKey),
}

/// Seals and opens the content of stored Secrets.
pub struct Vault(RandomizedNonceKey);

impl Vault {
    /// Reads the key at `path`, or makes one there that only its owner can read.
    ///
    /// # Errors
    /// The file cannot be read or made, or is not a key.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let failed = |cause| SealError::Key { path: path.to_owned(), cause };
        let key = match files::read_private(path, KEY_LEN as u64) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_key(path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| {
            failed(io::Error::new(io::ErrorKind::InvalidData, format!("expected {KEY_LEN} bytes")))
        })?;
        Ok(Self(key))
    }

    /// Opens the key at `path` beside what a store holds: a key that is missing is made anew only
    /// where nothing is sealed, and one that does not open everything is another store's. What is
    /// sealed shut is given to `discard`, if there is one.
    ///
    /// # Errors
    /// The key cannot be used; it does not open everything, and nothing may be discarded; or
    /// discarding fails.
    pub fn open_beside<E: From<SealError>>(
        path: &Path,
        entries: &[Entry],
        discard: Option<impl Fn(&StoreKey) -> Result<(), E>>,
    ) -> Result<Self, E> {
        let is_sealed = |entry: &&Entry| entry.value.get(SEALED).is_some();
        let sealed: Vec<&Entry> = entries.iter().filter(is_sealed).collect();
        let missing = fs::symlink_metadata(path).is_err();
        if missing && !sealed.is_empty() && discard.is_none() {
            return Err(SealError::Lost {
                path: path.to_owned(),
                state: "held",
                secrets: sealed.len(),
            }
            .into());
        }
        let vault = Self::open(path)?;
        let shut = |entry: &&&Entry| vault.open_object(&entry.key, entry.value.clone()).is_err();
        let lost: Vec<&StoreKey> = sealed.iter().filter(shut).map(|entry| &entry.key).collect();
        match discard {
            Some(discard) => lost.into_iter().try_for_each(discard)?,
            None if lost.is_empty() => {}
            None => {
                return Err(SealError::Lost {
                    path: path.to_owned(),
                    state: "holds",
                    secrets: lost.len(),
                }
                .into());
            }
        }
        Ok(vault)
    }

    /// The object with its content sealed; objects of other kinds are returned as they are.
    ///
    /// # Panics
    /// Never: sealing fails only for texts of many gigabytes.
    pub fn seal(&self, key: &StoreKey, mut object: Value) -> Value {
        let Some(map) = secret(&mut object) else { return object };
        let mut text = hidden(map).to_string().into_bytes();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(key.0.as_bytes()), &mut text)
            .expect("a short text is sealed");
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        map.insert(SEALED.to_owned(), Value::String(BASE64_STANDARD.encode(sealed)));
        object
    }

    /// The object as it was before it was sealed.
    ///
    /// # Errors
    /// [`SealError::Refused`] when the text is not what this vault sealed for this object.
    pub fn open_object(&self, key: &StoreKey, mut object: Value) -> Result<Value, SealError> {
        let Some(map) = secret(&mut object) else { return Ok(object) };
        let Some(sealed) = map.remove(SEALED) else { return Ok(object) };
        let refused = || SealError::Refused(key.clone());
        let bytes =
            sealed.as_str().and_then(|s| BASE64_STANDARD.decode(s).ok()).ok_or_else(refused)?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(key.0.as_bytes()), &mut text)
            .map_err(|_| refused())?;
        let values: Map<String, Value> = serde_json::from_slice(plain).map_err(|_| refused())?;
        map.extend(values.into_iter().filter(|(_, v)| !v.is_null()));
        Ok(object)
    }
}

/// Takes out of a Secret what nobody may read: the metadata whole, but its readable part stays too.
fn hidden(secret: &mut Map<String, Value>) -> Value {
    let whole = std::mem::take(secret);
    let (mut readable, mut hidden): (Map<_, _>, Map<_, _>) =
        whole.into_iter().partition(|(key, _)| READABLE.contains(&key.as_str()));
    if let Some(metadata) = readable.get_mut("metadata") {
        hidden.insert("metadata".to_owned(), metadata.clone());
        if let Some(fields) = metadata.as_object_mut() {
            fields.retain(|key, _| READABLE_METADATA.contains(&key.as_str()));
        }
    }
    *secret = readable;
    Value::Object(hidden)
}

/// What anybody may read of a stored Secret, where it says more than that; `None`: it says no more,
/// or is none.
pub fn readable(stored: &Value) -> Option<Value> {
    let mut left = stored.clone();
    let map = secret(&mut left)?;
    let sealed = map.remove(SEALED);
    hidden(map);
    map.extend(sealed.map(|text| (SEALED.to_owned(), text)));
    (left != *stored).then_some(left)
}

fn secret(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let map = object.as_object_mut()?;
    (map.get("kind").and_then(Value::as_str) == Some("Secret")).then_some(map)
}

fn make_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; KEY_LEN]);
    rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    // All of it or nothing: half a key would be taken for a damaged one.
    files::replace(path, 0o600, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    fn example() -> (StoreKey, Value) {
        let key = StoreKey::new("Secret", "shop", "cert");
        let object = json!({
            "kind": "Secret",
            "metadata": { "name": "cert", "labels": { "app": "shop" }, "annotations": { "copy": "very private" } },
            "immutable": true,
            "stringData": { "tls.key": "very private" },
        });
        (key, object)
    }

    #[test]
    fn what_is_sealed_is_unreadable_and_opens_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let (key, object) = example();
        let sealed = Vault::open(&path).expect("a new key").seal(&key, object.clone());
        assert!(!sealed.to_string().contains("very private"));
        assert_eq!(sealed["metadata"], json!({ "name": "cert", "labels": { "app": "shop" } }));
        let again = Vault::open(&path).expect("the same key");
        assert_eq!(again.open_object(&key, sealed.clone()).expect("opens"), object);
        let other = StoreKey::new("Secret", "shop", "another");
        assert!(again.open_object(&other, sealed).is_err(), "sealed data moved to another object");
    }

    #[test]
    fn what_says_more_than_anybody_may_read_is_known_and_cut_down() {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = Vault::open(&dir.path().join("key")).expect("a new key");
        let (key, object) = example();
        let sealed = vault.seal(&key, object.clone());
        assert_eq!(readable(&sealed), None, "it says no more");
        assert_eq!(readable(&json!({ "kind": "Service", "data": "anything" })), None);
        let left = readable(&object).expect("it says more");
        assert!(!left.to_string().contains("very private"), "{left}");
        assert_eq!(readable(&left), None);
        // As a former version sealed: the content alone.
        let mut former = sealed.clone();
        former["metadata"]["annotations"] = json!({ "copy": "very private" });
        let left = readable(&former).expect("it says more");
        assert!(!left.to_string().contains("very private"), "{left}");
        assert_eq!(left["sealedData"], sealed["sealedData"]);
    }

    #[test]
    fn other_kinds_pass_unchanged() {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = Vault::open(&dir.path().join("key")).expect("a new key");
        let service = json!({ "kind": "Service", "data": { "a": 1 } });
        assert_eq!(vault.seal(&StoreKey::new("Service", "shop", "a"), service.clone()), service);
    }

    #[test]
    fn a_key_that_is_lost_or_anothers_is_refused_and_nothing_is_made_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let (key, object) = example();
        let value = Vault::open(&path).expect("a new key").seal(&key, object);
        let entries = [Entry { key: key.clone(), revision: 1, value }];
        type Discard = fn(&StoreKey) -> Result<(), SealError>;
        let open =
            |entries: &[Entry]| Vault::open_beside(&path, entries, None::<Discard>).map(|_| ());
        open(&entries).expect("the key opens it");
        let good = fs::read(&path).expect("the key");
        for damage in ["removed", "zeroed", "flipped", "cut"] {
            let mut bytes = good.clone();
            match damage {
                "removed" => fs::remove_file(&path).expect("removing"),
                "zeroed" => bytes.fill(0),
                "flipped" => bytes[3] ^= 1,
                _ => bytes.truncate(7),
            }
            if damage != "removed" {
                let _ = fs::remove_file(&path);
                files::create(&path, 0o600, &bytes).expect("damaging");
            }
            let error = open(&entries).expect_err(damage).to_string();
            assert!(error.contains("restore"), "{damage}: {error}");
            assert_eq!(path.exists(), damage != "removed");
        }
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink("nowhere", &path).expect("a link");
        assert!(open(&entries).is_err() && open(&[]).is_err());
        fs::remove_file(&path).expect("removing");
        files::create(&path, 0o644, &good).expect("restoring");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = open(&entries).expect_err("others can read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::remove_file(&path).expect("removing");
        open(&[]).expect("nothing is lost with it");
        let discarded = std::cell::RefCell::new(Vec::new());
        let discard = |key: &StoreKey| {
            discarded.borrow_mut().push(key.clone());
            Ok::<(), SealError>(())
        };
        Vault::open_beside(&path, &entries, Some(discard)).map(|_| ()).expect("told to go on");
        assert_eq!(discarded.into_inner(), [key]);
    }
}
