//! What one SDS stream has asked for, was sent and is owed: a state machine without sockets.
//!
//! State-of-the-world and delta streams differ only in how requests name secrets and how answers
//! are framed; both are a set of subscriptions compared with what was sent.

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_proto::{
    EncodedResource, Version,
    secret::{
        CertificateValidationContext, DataSource, Secret, TlsCertificate, data_source::Specifier,
        secret::Type,
    },
};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::identity::{
    Identity,
    files::{FileContent, FileError, FileSecret},
};

/// Name of the workload's certificate, as Istio's clusters and listeners refer to it.
pub const CERTIFICATE: &str = "default";
/// Name of the trust bundle.
pub const ROOTS: &str = "ROOTCA";

/// Secrets as SDS resources: an identity, its roots first, so that a receiver trusts new peers
/// before it shows a new certificate; then what lies in files.
#[derive(Default)]
pub struct Secrets(Vec<EncodedResource>);

impl Secrets {
    /// Encodes an identity.
    pub fn of(identity: &Identity) -> Self {
        let roots =
            CertificateValidationContext { trusted_ca: inline(&identity.roots_pem), crl: None };
        let certificate = TlsCertificate {
            certificate_chain: inline(&identity.chain_pem),
            private_key: inline(&identity.key_pem),
        };
        Self(vec![
            encode(ROOTS, Type::ValidationContext(roots)),
            encode(CERTIFICATE, Type::TlsCertificate(certificate)),
        ])
    }

    /// Adds those of `names` that lie in files which can be read now; answers why others cannot.
    pub fn add_files<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) -> Vec<FileError> {
        let files = names.into_iter().filter_map(|name| Some((name, FileSecret::parse(name)?)));
        let mut failed = Vec::new();
        for (name, files) in files {
            match files.read() {
                Ok(content) => self.0.push(encode(name, in_files(&content))),
                Err(error) => failed.push(error),
            }
        }
        failed
    }
}

fn in_files(content: &FileContent) -> Type {
    match content {
        FileContent::Roots { roots, revoked } => {
            Type::ValidationContext(CertificateValidationContext {
                trusted_ca: bytes(roots),
                crl: revoked.as_deref().and_then(bytes),
            })
        }
        FileContent::Certificate(chain, key) => Type::TlsCertificate(TlsCertificate {
            certificate_chain: bytes(chain),
            private_key: bytes(key),
        }),
    }
}

fn inline(pem: &str) -> Option<DataSource> {
    bytes(pem.as_bytes())
}

fn bytes(pem: &[u8]) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(pem.to_vec().into())) })
}

fn encode(name: &str, content: Type) -> EncodedResource {
    let body = Secret { name: name.to_owned(), r#type: Some(content) }.encode_to_vec();
    EncodedResource { name: name.into(), version: Version(xxh3_64(&body)), body: body.into() }
}

/// One answer that is owed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// Unique within the stream.
    pub nonce: String,
    /// Secrets to send, roots first.
    pub secrets: Vec<EncodedResource>,
    /// Names that were asked for and do not exist.
    pub unknown: Vec<String>,
}

impl Push {
    /// One version for the whole answer, as state-of-the-world streams want it.
    pub fn version(&self) -> String {
        self.secrets.iter().map(|s| s.version.to_string()).collect::<Vec<_>>().join("-")
    }
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct SecretStream {
    subscribed: BTreeSet<String>,
    sent: BTreeMap<String, Version>,
    unanswered: BTreeSet<String>,
    nonces: u64,
}

impl SecretStream {
    /// Whether a request answers the newest push or asks anew; one that answers an older push is
    /// outdated.
    pub fn is_current(&self, nonce: &str) -> bool {
        nonce.is_empty() || nonce == self.nonces.to_string()
    }

    /// Adds names; each is owed even if it was sent before, because a client that asks again has
    /// lost it.
    pub fn subscribe(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.sent.remove(&name);
            if !is_known(&name) {
                self.unanswered.insert(name.clone());
            }
            self.subscribed.insert(name);
        }
    }

    /// The names that are asked for and lie in files.
    pub fn files(&self) -> Vec<String> {
        self.subscribed.iter().filter(|name| FileSecret::parse(name).is_some()).cloned().collect()
    }

    /// Removes names.
    pub fn unsubscribe<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            self.subscribed.remove(name);
            self.sent.remove(name);
            self.unanswered.remove(name);
        }
    }

    /// Makes `names` the whole subscription; only the new ones are owed. The same names again are
    /// an ACK.
    pub fn replace(&mut self, names: Vec<String>) {
        let wanted: BTreeSet<String> = names.into_iter().collect();
        let gone: Vec<String> = self.subscribed.difference(&wanted).cloned().collect();
        self.unsubscribe(&gone);
        let new: Vec<String> = wanted.difference(&self.subscribed).cloned().collect();
        self.subscribe(new);
    }

    /// Takes the client's word for what it holds from an earlier stream.
    pub fn holds<'a>(&mut self, versions: impl IntoIterator<Item = (&'a String, &'a String)>) {
        for (name, version) in versions {
            if let Some(version) = Version::parse(version) {
                self.sent.insert(name.clone(), version);
            }
        }
    }

    /// What is owed now, if anything; it counts as sent from here on, whether the client then
    /// accepts it or not: what it refuses is sent again only when it changes.
    pub fn due(&mut self, secrets: Option<&Secrets>) -> Option<Push> {
        let known = secrets.map_or(&[][..], |secrets| &secrets.0);
        let owed = |s: &&EncodedResource| {
            self.subscribed.contains(&*s.name) && self.sent.get(&*s.name) != Some(&s.version)
        };
        let owed: Vec<EncodedResource> = known.iter().filter(owed).cloned().collect();
        let unknown: Vec<String> = std::mem::take(&mut self.unanswered).into_iter().collect();
        if owed.is_empty() && unknown.is_empty() {
            return None;
        }
        self.sent.extend(owed.iter().map(|s| (s.name.to_string(), s.version)));
        self.nonces += 1;
        Some(Push { nonce: self.nonces.to_string(), secrets: owed, unknown })
    }
}

fn is_known(name: &str) -> bool {
    matches!(name, CERTIFICATE | ROOTS) || FileSecret::parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing;

    fn secrets() -> Secrets {
        Secrets::of(&testing::identity("spiffe://cluster.local/ns/shop/sa/cart"))
    }

    fn names(push: Option<Push>) -> Vec<String> {
        push.into_iter().flat_map(|p| p.secrets).map(|s| s.name.to_string()).collect()
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn secrets_are_sent_when_they_exist_and_again_only_when_they_change() {
        let mut stream = SecretStream::default();
        stream.subscribe(list(&[CERTIFICATE, ROOTS]));
        assert_eq!(stream.due(None), None);
        let first = secrets();
        assert_eq!(names(stream.due(Some(&first))), [ROOTS, CERTIFICATE]);
        assert_eq!(stream.due(Some(&first)), None);
        assert_eq!(names(stream.due(Some(&secrets()))), [ROOTS, CERTIFICATE]);
    }

    #[test]
    fn unchanged_roots_are_not_sent_with_a_new_certificate() {
        let mut stream = SecretStream::default();
        stream.subscribe(list(&[CERTIFICATE, ROOTS]));
        let first = secrets();
        let roots = first.0[0].clone();
        stream.due(Some(&first));
        let renewed = secrets().0.remove(1);
        assert_eq!(names(stream.due(Some(&Secrets(vec![roots, renewed])))), [CERTIFICATE]);
    }

    #[test]
    fn the_same_names_again_are_an_ack_and_new_names_are_a_question() {
        let mut stream = SecretStream::default();
        let held = secrets();
        stream.replace(list(&[CERTIFICATE]));
        assert_eq!(names(stream.due(Some(&held))), [CERTIFICATE]);
        stream.replace(list(&[CERTIFICATE]));
        assert_eq!(stream.due(Some(&held)), None);
        stream.replace(list(&[CERTIFICATE, ROOTS]));
        assert_eq!(names(stream.due(Some(&held))), [ROOTS]);
        stream.replace(list(&[ROOTS]));
        assert_eq!(
            names(stream.due(Some(&secrets()))),
            [ROOTS],
            "the certificate is no longer wanted"
        );
    }

    #[test]
    fn a_returning_client_is_not_sent_what_it_holds() {
        let held = secrets();
        let versions: BTreeMap<String, String> =
            held.0.iter().map(|s| (s.name.to_string(), s.version.to_string())).collect();
        let mut stream = SecretStream::default();
        stream.subscribe(list(&[CERTIFICATE, ROOTS]));
        stream.holds(&versions);
        assert_eq!(stream.due(Some(&held)), None);
        assert_eq!(names(stream.due(Some(&secrets()))), [ROOTS, CERTIFICATE]);
    }

    #[test]
    fn outdated_nonces_are_told_apart() {
        let mut stream = SecretStream::default();
        stream.subscribe(list(&[ROOTS]));
        let first = stream.due(Some(&secrets())).unwrap().nonce;
        assert!(stream.is_current("") && stream.is_current(&first));
        stream.due(Some(&secrets())).unwrap();
        assert!(!stream.is_current(&first));
    }

    #[test]
    fn a_name_that_does_not_exist_is_answered_once() {
        let mut stream = SecretStream::default();
        stream.subscribe(list(&["file-cert:x"]));
        assert_eq!(stream.due(None).unwrap().unknown, ["file-cert:x"]);
        assert_eq!(stream.due(Some(&secrets())), None);
    }

    #[test]
    fn a_file_is_served_once_it_is_there_and_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let name = format!("file-root:{}", path.display());
        let mut stream = SecretStream::default();
        stream.subscribe([name.clone()]);
        let mut look = || {
            let mut secrets = Secrets::default();
            let failed = secrets.add_files(&stream.files());
            (names(stream.due(Some(&secrets))), failed.len())
        };
        assert_eq!(look(), (vec![], 1));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(look(), (vec![name.clone()], 0));
        assert_eq!(look(), (vec![], 0));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(look(), (vec![name], 0));
    }

    #[test]
    fn keys_are_never_printed() {
        let mut stream = SecretStream::default();
        stream.subscribe(list(&[CERTIFICATE]));
        let printed = format!("{:?}", stream.due(Some(&secrets())));
        assert!(!printed.contains("PRIVATE KEY"), "{printed}");
    }
}
