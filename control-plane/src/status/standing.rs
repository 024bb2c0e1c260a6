//! What one proxy refuses: kept per resource, from the refusal until the proxy accepts that
//! resource or it is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use ferromesh_proto::{ResourceType, Version};
use ferromesh_xds_translator::diagnostic::Diagnostic;

use super::sync::{Sync, rfc3339};
use crate::{nack::Nack, pipeline::Blame};

/// Longest list of words of one type that a status shows, in bytes.
const MOST_WORDS: usize = 16 * 1024;

/// The refusals of one proxy that stand, by resource.
#[derive(Clone, Default, Debug)]
pub(super) struct Standing(BTreeMap<(ResourceType, Arc<str>), Arc<Cause>>);

/// Why a resource is refused.
#[derive(Debug)]
struct Cause {
    /// The proxy's words.
    message: String,
    /// Whether the proxy named the resource, or refused it with others without naming any.
    named: bool,
    version: Version,
    at: SystemTime,
    findings: Vec<Diagnostic>,
}

impl Standing {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refused resources.
    pub(super) fn resources(&self) -> BTreeSet<(ResourceType, Arc<str>)> {
        self.0.keys().cloned().collect()
    }

    /// Notes a refusal beside those that stand already; the newest words about a resource count.
    pub(super) fn refuse(
        &mut self,
        nack: &Nack,
        blame: Vec<Blame>,
        version: Version,
        at: SystemTime,
    ) {
        let cause = |blame: Blame| {
            let (named, findings) = (blame.resource.is_some(), blame.findings);
            Arc::new(Cause { message: nack.message.clone(), named, version, at, findings })
        };
        let causes: BTreeMap<_, _> =
            blame.into_iter().map(|b| (b.resource.clone(), cause(b))).collect();
        for name in &nack.suspects {
            if let Some(cause) = causes.get(&Some(name.clone())).or_else(|| causes.get(&None)) {
                self.0.insert((nack.kind, name.clone()), cause.clone());
            }
        }
    }

    /// Forgets what is refused no longer; whether there was anything.
    pub(super) fn keep(&mut self, outstanding: &BTreeSet<(ResourceType, Arc<str>)>) -> bool {
        let before = self.0.len();
        self.0.retain(|resource, _| outstanding.contains(resource));
        self.0.len() != before
    }

    /// How a type stands, if something of it is refused.
    pub(super) fn sync(&self, kind: ResourceType) -> Option<Sync> {
        let causes: Vec<_> = self.0.iter().filter(|((of, _), _)| *of == kind).collect();
        let newest = causes.iter().map(|(_, cause)| cause).max_by_key(|cause| cause.at)?;
        let mut words: Vec<&str> = Vec::new();
        for (_, cause) in &causes {
            if !words.contains(&cause.message.as_str())
                && words.iter().map(|w| w.len()).sum::<usize>() < MOST_WORDS
            {
                words.push(&cause.message);
            }
        }
        let named = causes.iter().filter(|(_, cause)| cause.named);
        Some(Sync::Nack {
            message: words.join("; "),
            resources: named.map(|((_, name), _)| name.clone()).collect(),
            version: newest.version,
            at: rfc3339(newest.at),
        })
    }

    /// How many resources of a type are refused.
    pub(super) fn count(&self, kind: ResourceType) -> usize {
        self.0.keys().filter(|(of, _)| *of == kind).count()
    }

    /// Each refused resource, with the proxy's words.
    pub(super) fn words(&self) -> impl Iterator<Item = (&(ResourceType, Arc<str>), &str)> {
        self.0.iter().map(|(resource, cause)| (resource, cause.message.as_str()))
    }

    /// What is said of objects for it; one finding may come several times.
    pub(super) fn findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.values().flat_map(|cause| &cause.findings)
    }
}
