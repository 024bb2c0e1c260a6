//! Invariant 10: what is accepted is acted on. The data plane's table of fields
//! (`dataplane/src/compile/known`) says of every field that the API has whether it is read, refused,
//! or without effect on a request, and why; here it is held against the API's descriptors, against
//! the compiler, and against everything that the translator emits over the example corpus and its
//! goldens.
//!
//! Each value that a resource sets is taken out or changed; if what the proxy compiles stays the
//! same, byte for byte of its debug form, nobody has read it. That the compiled form is acted on is
//! shown by the data plane's own tests, against what Envoy does.

mod expressions;
mod formats;
mod leaf;
mod probe;
mod resources;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_dataplane::compile::Context;
use ferromesh_integration::certificate::{self, Revocations};
use ferromesh_proto::ResourceType;
use ferromesh_xds_translator::descriptors;
use prost::Message;
use prost_reflect::DynamicMessage;

use self::{
    leaf::{Change, Leaf},
    table::Row,
};

/// A pattern that no example of so many shows to be read is not read.
const EXAMPLES: usize = 40;
/// An enumeration has not more values.
const MOST_VALUES: usize = 24;

/// Refusals that examples of the corpus lead to: what they ask for is not served by our proxy, and
/// said to be so.
const REFUSED: &[&str] = &[
    // A log that goes to Envoy's own service.
    "access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    // A Sidecar whose application listens on a Unix socket.
    "endpoint.address: expected a socket_address, others are not supported by this proxy",
];

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
        _ => return Err(context.untaken(kind, name).to_string()),
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
    /// Patterns and rows that were shown to be read.
    read: BTreeSet<String>,
    rows: BTreeSet<Row>,
    /// How many examples were looked at in vain, the last of them, and the row that speaks of it.
    unread: BTreeMap<String, (usize, String, Option<Row>)>,
    refused: BTreeMap<String, String>,
    /// Said to be without effect, but read.
    wrong: BTreeSet<String>,
}

/// Files that stand for those which examples name, since no machine has all of them.
struct Files {
    certificate: String,
    key: String,
    pem: [String; 2],
    /// Of revoked certificates, as text and as a file.
    list: (String, String),
    _folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = certificate::self_signed(folder.path(), "a", &["-subj", "/CN=a"]);
        let pem =
            [&certificate, &key].map(|path| std::fs::read_to_string(path).expect("a PEM file"));
        let authority = (certificate.clone(), key.clone());
        let list = Revocations::new(folder.path().join("ca"), &authority).list(&[]);
        let file = folder.path().join("revoked.pem");
        std::fs::write(&file, &list).expect("a file");
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let list = (list, file.display().to_string());
        Self { certificate, key, pem, list, _folder: folder }
    }

    fn instead_of(&self, text: &str) -> Option<String> {
        let (certificate, key) = (&self.certificate, &self.key);
        match text {
            "PEM certificate" => Some(self.pem[0].clone()),
            "PEM key" => Some(self.pem[1].clone()),
            "PEM list" => Some(self.list.0.clone()),
            "FILE certificate" => Some(certificate.clone()),
            _ if text.starts_with("file-root:") && text.contains('~') => {
                Some(format!("file-root:{certificate}~{}", self.list.1))
            }
            _ if text.starts_with("file-root:") => Some(format!("file-root:{certificate}")),
            _ if text.starts_with("file-cert:") => Some(format!("file-cert:{certificate}~{key}")),
            _ => None,
        }
    }
}

impl Walk {
    /// Looks at every value of a resource.
    fn resource(&mut self, kind: ResourceType, name: &str, message: &DynamicMessage) {
        let before = match compiled(kind, name, &message.encode_to_vec()) {
            Ok(before) => before,
            Err(rejection) => {
                self.refused.insert(name.to_owned(), rejection);
                return;
            }
        };
        for leaf in leaf::leaves(message) {
            let pattern = format!("{}.{}", kind.short_name(), leaf.pattern);
            let looked_at = self.unread.get(&pattern).map_or(0, |(count, ..)| *count);
            if self.read.contains(&pattern) || looked_at >= EXAMPLES {
                continue;
            }
            let trace = table::trace(kind, &leaf.steps);
            let read = is_read(kind, name, message, &leaf, &before);
            if read && trace.reason.is_some() && !trace.zero {
                self.wrong.insert(format!("without effect by the table, but read: {pattern}"));
            }
            if read {
                self.unread.remove(&pattern);
                self.read.insert(pattern);
                self.rows.extend(trace.rows);
            } else {
                // Of a message that is read by its fields, one without any says nothing.
                let says = trace.reason.is_none() && trace.message.is_none();
                let row = trace.rows.last().filter(|_| says).cloned();
                self.unread.insert(pattern, (looked_at + 1, name.to_owned(), row));
            }
        }
    }
}

#[test]
fn the_table_speaks_of_every_field_that_the_api_has() {
    let differences = table::differences(descriptors::pool());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(table::messages().len() > 100);
}

#[test]
fn every_emitted_field_is_read_refused_or_listed_with_a_reason() {
    let (mut walk, files) = (Walk::default(), Files::new());
    resources::whole(&files).for_each(|(kind, name, body)| walk.resource(kind, &name, &body));
    assert_eq!(walk.refused, BTreeMap::new());
    walk.unread.clear();
    for ((kind, name), bodies) in &resources::all() {
        for body in bodies {
            walk.resource(*kind, name, &resources::decode(&files, *kind, body));
        }
    }
    assert!(walk.read.len() > 200, "only {} fields were looked at", walk.read.len());
    let mut wrong: Vec<_> = walk.wrong.into_iter().collect();
    for (pattern, (_, example, row)) in &walk.unread {
        if row.as_ref().is_some_and(|row| !walk.rows.contains(row)) {
            wrong.push(format!("emitted, but read by nobody: {pattern} (as in {example})"));
        }
    }
    let unexpected =
        walk.refused.iter().filter(|(_, why)| !REFUSED.iter().any(|known| why.contains(known)));
    wrong.extend(unexpected.map(|(name, why)| format!("refused by our own proxy: {name}: {why}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each field that the API has, set alone in a resource that otherwise sets nearly everything.
#[test]
fn what_is_set_changes_what_is_compiled_or_is_refused_or_has_a_reason() {
    let (mut walk, files) = (Walk::default(), Files::new());
    for (kind, name, body) in resources::whole(&files) {
        walk.resource(kind, &name, &body);
    }
    assert_eq!(walk.refused, BTreeMap::new());
    let mut probe = probe::Probe::new(walk.rows);
    for (kind, name, body) in resources::whole(&files) {
        probe.resource(kind, &name, &body);
    }
    let mut wrong = probe.wrong;
    wrong.extend(walk.wrong);
    for (message, place) in table::messages() {
        let unproven = message
            .fields
            .iter()
            .filter(|field| table::claims(field) && !probe.read.contains(&Row::of(message, field)));
        wrong.extend(unproven.map(|field| {
            format!("read by the table, but by nothing else: {place}.{}", field.name)
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}
