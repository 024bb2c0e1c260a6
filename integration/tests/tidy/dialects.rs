//! Behind lowering nobody knows dialects: no name in code there speaks of one, or of its kinds.
//!
//! Names are what counts: types, functions, fields, variables, modules. Comments may say which
//! field of which object something comes from, and texts are what goes over the wire, where Istio's
//! spelling is a contract with whoever reads it (ALPN, metadata, labels). Names are taken apart
//! into words, so that `VirtualService`, `virtual_service` and `VIRTUAL_SERVICE` are one; words
//! that the field uses too (gateway, sidecar, service, listener) are no dialect's.

use super::{
    check,
    source::{Source, Sources},
};

/// What lies behind lowering, in the translator.
const BEHIND: [&str; 8] = [
    "xds-translator/src/ir/",
    "xds-translator/src/snapshot/",
    "xds-translator/src/plan/",
    "xds-translator/src/emit/",
    "xds-translator/src/view",
    "xds-translator/src/closure.rs",
    "xds-translator/src/class/",
    "xds-translator/src/compiler/",
];

/// Dialects, and kinds of theirs; the words of a kind stand beside each other.
const NAMES: [&[&str]; 19] = [
    &["istio"],
    &["linkerd"],
    &["smi"],
    &["cilium"],
    &["flagger"],
    &["virtual", "service"],
    &["destination", "rule"],
    &["service", "entry"],
    &["workload", "entry"],
    &["authorization", "policy"],
    &["peer", "authentication"],
    &["http", "route"],
    &["grpc", "route"],
    &["reference", "grant"],
    &["service", "profile"],
    &["network", "authentication"],
    &["traffic", "split"],
    &["traffic", "target"],
    &["canary"],
];

#[test]
fn behind_lowering_no_name_speaks_of_a_dialect() {
    let sources = Sources::read();
    let behind = |source: &&Source| BEHIND.iter().any(|place| source.path.starts_with(place));
    let mut violations = Vec::new();
    for source in sources.production().filter(behind) {
        let spoken = names(&source.code).filter(|name| of_a_dialect(name));
        violations.extend(spoken.map(|name| format!("{} names {name}", source.path)));
    }
    check("names of dialects behind lowering", violations);
}

/// The names in code without comments and texts.
fn names(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|name| !name.is_empty())
}

fn of_a_dialect(name: &str) -> bool {
    let words = words(name);
    let speaks = |of: &[&str]| words.windows(of.len()).any(|part| part == of);
    NAMES.iter().any(|of| speaks(of))
}

/// The words of a name, in lower case; letters in a row that are capitals are one word.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (at, &char) in chars.iter().enumerate() {
        let follows = |of: fn(&char) -> bool| chars.get(at + 1).is_some_and(of);
        let small = at > 0 && chars[at - 1].is_lowercase();
        let begins = char.is_uppercase() && (small || follows(|next| next.is_lowercase()));
        match words.last_mut() {
            _ if char == '_' => words.push(String::new()),
            Some(word) if !begins || word.is_empty() => word.extend(char.to_lowercase()),
            _ => words.push(char.to_lowercase().collect()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn a_name_is_told_by_its_words() {
    let table: [(&str, &[&str]); 5] = [
        ("VirtualService", &["virtual", "service"]),
        ("VIRTUAL_SERVICE", &["virtual", "service"]),
        ("virtual_service_of", &["virtual", "service", "of"]),
        ("HTTPRoute", &["http", "route"]),
        ("IstioMetadata", &["istio", "metadata"]),
    ];
    for (name, expected) in table {
        assert_eq!(words(name), expected, "{name}");
        assert!(of_a_dialect(name), "{name}");
    }
    for name in ["VirtualHost", "Service", "services_visible", "Gateway", "smile", "TrafficPolicy"]
    {
        assert!(!of_a_dialect(name), "{name}");
    }
}
