//! Credentials as SDS resources: which names a stream may have, and what they are made of.
//!
//! `kubernetes://NAME` is a certificate with its key, `kubernetes://NAME-cacert` the CA for
//! clients, and `image-pull://NAMESPACE/NAME` what registries of images take. A name outside the proxy's class is never answered but as one that does not exist, and
//! the audit log hears of it. Bodies hold private keys: they are never logged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use ferromesh_proto::{
    EncodedResource, IMAGE_PULL, Version,
    secret::{
        CertificateValidationContext, DataSource, GenericSecret, Secret, TlsCertificate,
        data_source, secret::Type,
    },
};
use futures_util::StreamExt;
use prost::Message;
use tokio_stream::{StreamMap, wrappers::WatchStream};
use xxhash_rust::xxh3::xxh3_64;

use crate::secret::{SecretMaterial, SecretProvider, SecretWatch};

const SCHEME: &str = "kubernetes://";
const CA_SUFFIX: &str = "-cacert";

/// The secrets that one stream follows.
pub(super) struct FollowedSecrets {
    provider: Arc<dyn SecretProvider>,
    followed: BTreeMap<Arc<str>, Vec<SecretWatch>>,
    /// Names that were asked for in vain, and reported.
    refused: BTreeSet<Arc<str>>,
    changes: StreamMap<Source, WatchStream<Option<Arc<SecretMaterial>>>>,
}

/// A resource's name, and the position of a Secret among those that it may be made of.
type Source = (Arc<str>, usize);

impl FollowedSecrets {
    pub(super) fn new(provider: Arc<dyn SecretProvider>) -> Self {
        Self {
            provider,
            followed: BTreeMap::new(),
            refused: BTreeSet::new(),
            changes: StreamMap::new(),
        }
    }

    /// Follows those of `wanted` that are allowed, and nothing else. Returns the names that are no
    /// longer followed.
    pub(super) fn follow(
        &mut self,
        wanted: &[Arc<str>],
        allowed: &BTreeSet<Arc<str>>,
        namespace: &str,
    ) -> Vec<Arc<str>> {
        let sources: BTreeMap<&Arc<str>, Vec<&str>> = wanted
            .iter()
            .map(|name| (name, sources_of(name, allowed)))
            .filter(|(_, s)| !s.is_empty())
            .collect();
        let dropped: Vec<Arc<str>> =
            self.followed.keys().filter(|name| !sources.contains_key(name)).cloned().collect();
        for name in &dropped {
            let watches = self.followed.remove(name).map_or(0, |w| w.len());
            (0..watches).for_each(|i| drop(self.changes.remove(&(name.clone(), i))));
        }
        for (name, secrets) in sources {
            if self.followed.contains_key(name) {
                continue;
            }
            let subscribe = |secret: &&str| match pulled(secret) {
                Some((other, secret)) => self.provider.subscribe(other, secret),
                None => self.provider.subscribe(namespace, secret),
            };
            let watches: Vec<SecretWatch> = secrets.iter().map(subscribe).collect();
            for (i, watch) in watches.iter().enumerate() {
                self.changes.insert((name.clone(), i), WatchStream::new(watch.clone()));
            }
            self.followed.insert(name.clone(), watches);
        }
        dropped
    }

    /// Those of `wanted` that are not `allowed`, as far as they were not reported before.
    pub(super) fn newly_refused(
        &mut self,
        wanted: &[Arc<str>],
        allowed: &BTreeSet<Arc<str>>,
    ) -> Vec<Arc<str>> {
        let refused =
            wanted.iter().filter(|name| sources_of(name, allowed).is_empty()).cloned().collect();
        let before = std::mem::replace(&mut self.refused, refused);
        self.refused.difference(&before).cloned().collect()
    }

    /// Names that are followed, sorted.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.followed.keys().cloned().collect()
    }

    /// The next secret that appeared, changed or went. Never returns while nothing is followed.
    pub(super) async fn next(&mut self) -> (Arc<str>, Option<Arc<EncodedResource>>) {
        loop {
            let Some(((name, _), _)) = self.changes.next().await else {
                std::future::pending().await
            };
            if let Some(watches) = self.followed.get(&name) {
                let secret = watches.iter().find_map(|w| encode(&name, w.borrow().as_deref()?));
                return (name, secret);
            }
        }
    }
}

/// The Secrets that a resource may be made of, in order of preference; empty when the stream may
/// not have it.
fn sources_of<'a>(resource: &'a str, allowed: &BTreeSet<Arc<str>>) -> Vec<&'a str> {
    if pulled(resource).is_some() {
        return allowed.get(resource).map(|_| resource).into_iter().collect();
    }
    let Some(name) = resource.strip_prefix(SCHEME) else { return Vec::new() };
    let stripped = name.strip_suffix(CA_SUFFIX);
    if !allowed.contains(name) && !stripped.is_some_and(|s| allowed.contains(s)) {
        return Vec::new();
    }
    [name].into_iter().chain(stripped).collect()
}

/// Namespace and name of a Secret that registries take.
fn pulled(resource: &str) -> Option<(&str, &str)> {
    resource.strip_prefix(IMAGE_PULL)?.split_once('/')
}

/// Why a proxy of `namespace` may not have a secret, for the audit log.
pub(super) fn why_refused(resource: &str, namespace: &str, proven: bool) -> String {
    if !proven {
        return "the port proves nobody's identity, and serves no secrets".to_owned();
    }
    if pulled(resource).is_some() {
        return format!("no extension that selects this proxy of {namespace} names it");
    }
    let Some(name) = resource.strip_prefix(SCHEME) else {
        return format!("not a name of a credential: expected {SCHEME}NAME");
    };
    match name.split_once('/') {
        Some((other, _)) => {
            format!(
                "it is of namespace {other}: a proxy of {namespace} gets secrets of {namespace} only"
            )
        }
        None => {
            format!(
                "no Gateway or DestinationRule that selects this proxy names it in namespace {namespace}"
            )
        }
    }
}

/// The resource, or `None` when the Secret lacks what it needs.
fn encode(resource: &Arc<str>, material: &SecretMaterial) -> Option<Arc<EncodedResource>> {
    let inline = |bytes: &[u8]| {
        Some(DataSource {
            specifier: Some(data_source::Specifier::InlineBytes(Bytes::copy_from_slice(bytes))),
        })
    };
    let content = if pulled(resource).is_some() {
        Type::GenericSecret(GenericSecret { secret: inline(material.registries.as_deref()?) })
    } else if resource.ends_with(CA_SUFFIX) {
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(material.ca_pem.as_deref()?),
            crl: material.crl_pem.as_deref().and_then(inline),
        })
    } else if material.private_key_pem.is_empty() {
        return None;
    } else {
        Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&material.certificate_chain_pem),
            private_key: inline(&material.private_key_pem),
        })
    };
    let version = Version(xxh3_64(format!("{resource} {}", material.fact.fingerprint).as_bytes()));
    let body = Secret { name: resource.to_string(), r#type: Some(content) }.encode_to_vec().into();
    Some(Arc::new(EncodedResource { name: resource.clone(), version, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_reported_once_and_again_when_it_is_asked_for_again() {
        let mut secrets = FollowedSecrets::new(Arc::new(crate::secret::Secrets::default()));
        let allowed: BTreeSet<Arc<str>> = ["web"].map(Arc::from).into();
        let mut check = |wanted: &[&str], expected: &[&str]| {
            let wanted: Vec<Arc<str>> = wanted.iter().map(|n| Arc::from(*n)).collect();
            let refused = secrets.newly_refused(&wanted, &allowed);
            assert_eq!(
                refused.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
                expected,
                "{wanted:?}"
            );
        };
        check(&["kubernetes://web"], &[]);
        check(&["kubernetes://bank/web", "kubernetes://web"], &["kubernetes://bank/web"]);
        check(&["kubernetes://bank/web", "kubernetes://other"], &["kubernetes://other"]);
        check(&["kubernetes://web"], &[]);
        check(&["kubernetes://other"], &["kubernetes://other"]);
    }

    #[test]
    fn a_refusal_has_a_reason() {
        let check = |resource: &str, proven: bool, expected: &str| {
            let why = why_refused(resource, "shop", proven);
            assert!(why.contains(expected), "{resource}: {why}");
        };
        check("kubernetes://bank/web", true, "of namespace bank");
        check("kubernetes://web", true, "no Gateway");
        check("default", true, "expected kubernetes://NAME");
        check("kubernetes://web", false, "proves nobody");
    }

    #[test]
    fn only_names_of_the_class_are_made_of_anything() {
        let allowed: BTreeSet<Arc<str>> =
            ["web", "mutual", "mutual-cacert", "own-ca"].map(Arc::from).into();
        let table: [(&str, &[&str]); 8] = [
            ("kubernetes://web", &["web"]),
            ("kubernetes://web-cacert", &["web-cacert", "web"]),
            ("kubernetes://mutual-cacert", &["mutual-cacert", "mutual"]),
            ("kubernetes://own-ca-cacert", &["own-ca-cacert", "own-ca"]),
            ("kubernetes://other", &[]),
            ("kubernetes://other-cacert", &[]),
            ("web", &[]),
            ("default", &[]),
        ];
        for (resource, expected) in table {
            assert_eq!(sources_of(resource, &allowed), expected, "{resource}");
        }
    }
}
