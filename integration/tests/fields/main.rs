//! Invariant 10: what is emitted is acted on. Every field that the translator emits, over the
//! example corpus and its goldens, is read by our proxy, refused by it, or stands in a list of
//! fields without effect on a request, with the reason.
//!
//! Each value that a resource sets is taken out or changed; if what the proxy compiles stays the
//! same, byte for byte of its debug form, nobody has read it. That the compiled form is acted on is
//! shown by the data plane's own tests, against what Envoy does.

mod formats;
mod inert;
mod leaf;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_dataplane::compile::Context;
use ferromesh_integration::certificate;
use ferromesh_proto::ResourceType;
use ferromesh_xds_translator::descriptors;
use prost::Message;
use prost_reflect::DynamicMessage;

use self::leaf::{Change, Leaf};

/// A pattern that no example of so many shows to be read is not read.
const EXAMPLES: usize = 40;
/// An enumeration has not more values.
const MOST_VALUES: usize = 24;

/// What the proxy makes of a resource: its compiled form, or the refusal.
fn compiled(kind: ResourceType, name: &str, body: &[u8]) -> Result<String, String> {
    let mut context = Context::default();
    let result = match kind {
        ResourceType::Cluster => {
            context.cluster(name, body).map(|c| format!("{:?}{:?}", c.value, c.needs))
        }
        ResourceType::Listener => {
            context.listener(name, 1, body).map(|c| format!("{:?}{:?}", c.value, c.needs))
        }
        ResourceType::Route => {
            context.routes(name, body).map(|c| format!("{:?}{:?}", c.value, c.needs))
        }
        ResourceType::Endpoint => {
            context.endpoints(name, body).map(|c| format!("{:?}{:?}", c.value, c.needs))
        }
        ResourceType::Secret => {
            context.secret(name, body).map(|c| format!("{:?}{:?}", c.value, c.needs))
        }
    };
    result.map_err(|rejection| rejection.to_string())
}

/// Whether changing the leaf changes what the proxy does.
fn is_read(
    kind: ResourceType,
    name: &str,
    message: &DynamicMessage,
    leaf: &Leaf,
    before: &str,
) -> bool {
    let changes = std::iter::once(Change::Clear).chain((0..MOST_VALUES).map(Change::Alter));
    let mut other = changes.filter_map(|change| leaf::changed(message, leaf, change));
    other.any(|message| compiled(kind, name, &message.encode_to_vec()).as_deref() != Ok(before))
}

#[derive(Default)]
struct Walk {
    read: BTreeSet<String>,
    /// How many examples were looked at in vain, and the last of them.
    unread: BTreeMap<String, (usize, String)>,
    refused: BTreeMap<String, String>,
}

/// Files that stand for those which examples name, since no machine has all of them.
struct Files {
    roots: String,
    certificate: String,
    _folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = certificate::self_signed(folder.path(), "a", &["-subj", "/CN=a"]);
        let (certificate, key) = (certificate.display(), key.display());
        Self {
            roots: format!("file-root:{certificate}"),
            certificate: format!("file-cert:{certificate}~{key}"),
            _folder: folder,
        }
    }

    fn instead_of(&self, text: &str) -> Option<String> {
        let roots = text.starts_with("file-root:").then_some(&self.roots);
        roots.or(text.starts_with("file-cert:").then_some(&self.certificate)).cloned()
    }
}

impl Walk {
    fn resource(&mut self, files: &Files, kind: ResourceType, name: &str, body: &[u8]) {
        let type_name = kind.type_url().rsplit('/').next().unwrap_or_default();
        let message = leaf::decode(descriptors::pool(), type_name, body);
        let message = leaf::with_texts(&message, &|text| files.instead_of(text));
        let before = match compiled(kind, name, &message.encode_to_vec()) {
            Ok(before) => before,
            Err(rejection) => {
                self.refused.insert(name.to_owned(), rejection);
                return;
            }
        };
        for leaf in leaf::leaves(&message) {
            let pattern = format!("{}.{}", kind.short_name(), leaf.pattern);
            let looked_at = self.unread.get(&pattern).map_or(0, |(count, _)| *count);
            if self.read.contains(&pattern) || looked_at >= EXAMPLES {
                continue;
            }
            if is_read(kind, name, &message, &leaf, &before) {
                self.unread.remove(&pattern);
                self.read.insert(pattern);
            } else {
                self.unread.insert(pattern, (looked_at + 1, name.to_owned()));
            }
        }
    }
}

#[test]
fn every_emitted_field_is_read_refused_or_listed_with_a_reason() {
    let (mut walk, files) = (Walk::default(), Files::new());
    for ((kind, name), bodies) in &resources::all() {
        bodies.iter().for_each(|body| walk.resource(&files, *kind, name, body));
    }
    assert!(walk.read.len() > 200, "only {} fields were looked at", walk.read.len());
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for (pattern, (_, example)) in &walk.unread {
        match inert::REASONS.iter().find(|(entry, _)| inert::covers(entry, pattern)) {
            Some((entry, _)) => drop(used.insert(*entry)),
            None => wrong.push(format!("emitted, but read by nobody: {pattern} (as in {example})")),
        }
    }
    let stale = inert::REASONS.iter().filter(|(entry, _)| !used.contains(entry));
    wrong.extend(stale.map(|(entry, _)| format!("listed, but read or not emitted: {entry}")));
    let unexpected = walk
        .refused
        .iter()
        .filter(|(_, why)| !inert::REFUSED.iter().any(|known| why.contains(known)));
    wrong.extend(unexpected.map(|(name, why)| format!("refused by our own proxy: {name}: {why}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
