//! The layers of every crate: an ordered list of modules, of which each may import those before it.

use std::collections::BTreeSet;

use super::{CRATES, check, imports::Imports, source::Sources};

/// The modules at the top of each crate, lowest first.
const LAYERS: [&[&str]; 6] = [
    &["spiffe", "resource", "retry", "recurring", "stats", "bootstrap"],
    &[
        "descriptors",
        "debug",
        "ir",
        "diagnostic",
        "yaml",
        "snapshot",
        "dialect",
        "crds",
        "plan",
        "emit",
        "patch",
        "view",
        "closure",
        "class",
        "compiler",
        "translate",
        "explain",
        "forecast",
        "analyze",
    ],
    &[
        "files",
        "lock",
        "pem",
        "csr",
        "settings",
        "rotation",
        "store",
        "seal",
        "ledger",
        "trust",
        "quota",
        "turn",
        "authenticate",
        "policy",
        "signer",
        "state",
        "authority",
        "service",
    ],
    &[
        "config",
        "log",
        "event",
        "json",
        "nack",
        "tls",
        "store",
        "inject",
        "metrics",
        "accept",
        "secret",
        "precedence",
        "pipeline",
        "signatures",
        "judge",
        "status",
        "webhook",
        "kube_cluster",
        "source",
        "findings",
        "backup",
        "ads",
        "admin",
        "demo",
        "app",
        "cli",
    ],
    &[
        "log",
        "redirect",
        "file",
        "resolve",
        "node",
        "runtime",
        "identity",
        "telemetry",
        "tls",
        "codec",
        "pod",
        "machine",
        "upstream",
        "compile",
        "worker",
        "drain",
        "http",
        "tcp",
        "xds",
        "admin",
        "agent",
        "listen",
        "config",
        "app",
    ],
    &[
        "paths",
        "random_mesh",
        "matrix",
        "fuzz",
        "offline",
        "process",
        "certificate",
        "token",
        "wasm_module",
        "service",
        "namespace",
        "kube_cluster",
        "mesh",
        "plane",
        "sidecar",
        "workload",
    ],
];

/// Imports upwards that still stand: crate, module, and the later one that it imports. An entry
/// that is mended must go; none may come.
const UPWARDS: &[(&str, &str, &str)] = &[("cert-authority", "authenticate", "signer")];

/// Files within one module at the top that still import each other: the whole cycle. One that is
/// mended, or became smaller, must be changed here; none may come or grow.
const CYCLES: &[(&str, &[&str])] = &[];

/// A module may import those before it in its crate's list, and no file a file that imports it,
/// directly or over others.
///
/// What counts is production code: every `use` and every path from `crate`, `self`, `super` or a
/// child, followed through `use` declarations to the file that defines the name. What lies at the
/// crate's root is no module. Within a module a file may use what its parents' files define (a
/// parent is where children meet), so that this direction alone is no import; a parent that uses
/// its children is one, and a parent that hands on (`pub use`) what its children define is none.
#[test]
fn modules_import_downwards() {
    let sources = Sources::read();
    let mut violations = BTreeSet::new();
    for (folder, layers) in CRATES.into_iter().zip(LAYERS) {
        let imports = Imports::read(&format!("{folder}/src/"), sources.production());
        violations.extend(listed(folder, layers, &imports));
        violations.extend(upwards(folder, layers, &imports));
        violations.extend(cycles(folder, &imports));
    }
    check("modules import upwards or in a cycle", violations);
}

/// The list names every module at the top, once.
fn listed(folder: &str, layers: &[&str], imports: &Imports) -> Vec<String> {
    let (tops, listed) = (imports.tops(), layers.iter().map(|l| (*l).to_owned()).collect());
    let mut found: Vec<String> = tops
        .symmetric_difference(&listed)
        .map(|m| format!("{folder}: {m} is not in one of tree and list"))
        .collect();
    if listed.len() != layers.len() {
        found.push(format!("{folder}: a module is listed twice"));
    }
    found
}

fn upwards(folder: &str, layers: &[&str], imports: &Imports) -> Vec<String> {
    let place = |module: &str| layers.iter().position(|layer| *layer == module);
    let known = |from: &str, to: &str| UPWARDS.contains(&(folder, from, to));
    let mut found = Vec::new();
    let mut standing = BTreeSet::new();
    for ((from, to), file) in imports.between_tops() {
        if place(&from) > place(&to) {
            continue;
        }
        if !known(&from, &to) {
            found.push(format!("{folder}: {file} imports {to}, which is above {from}"));
        }
        standing.insert((from, to));
    }
    let listed = UPWARDS.iter().filter(|(of, ..)| *of == folder);
    let mended = listed.filter(|(_, a, b)| !standing.contains(&((*a).to_owned(), (*b).to_owned())));
    found.extend(mended.map(|(_, a, b)| format!("{folder}: {a} does not import {b} any more")));
    found
}

fn cycles(folder: &str, imports: &Imports) -> Vec<String> {
    let listed = CYCLES.iter().filter(|(of, _)| *of == folder);
    let listed: BTreeSet<BTreeSet<String>> =
        listed.map(|(_, files)| files.iter().map(|f| (*f).to_owned()).collect()).collect();
    let found = imports.cycles();
    let new = found.difference(&listed).map(|c| format!("{folder}: {c:?} import each other"));
    let mended = listed.difference(&found).map(|c| format!("{folder}: {c:?} is no cycle any more"));
    new.chain(mended).collect()
}
