//! Rules of this repository that neither the compiler nor clippy can check: who may import whom,
//! where the environment is read, and that ARCHITECTURE.md tells the truth. Needs nothing but the
//! files.

mod dialects;
mod document;
mod imports;
mod layers;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use ferromesh_integration::paths;
use source::{Source, Sources, names_word};

const CRATES: [&str; 6] =
    ["proto", "xds-translator", "cert-authority", "control-plane", "dataplane", "integration"];

/// Fails with every violation at once.
fn check(rule: &str, violations: impl IntoIterator<Item = String>) {
    let violations: BTreeSet<String> = violations.into_iter().collect();
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.into_iter().collect::<Vec<_>>().join("\n  ")
    );
}

#[test]
fn every_source_file_is_part_of_its_crate() {
    check("no `mod` declaration leads to these files", Sources::read().unreachable);
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent = Sources::read().files.into_iter().filter(|s| !s.text.starts_with("//!"));
    check("these files do not begin with `//!`", silent.map(|s| s.path));
}

/// A word that production code may name in some places only.
struct Border {
    words: &'static [&'static str],
    /// Where the rule holds; empty: everywhere.
    within: &'static [&'static str],
    /// Where the word is at home.
    except: &'static [&'static str],
}

/// Everything but `sled`'s own name, which our modules around it have too.
const SLED: &[&str] = &[
    "sled::Config",
    "sled::Db",
    "sled::Tree",
    "sled::Error",
    "sled::Result",
    "sled::Batch",
    "sled::IVec",
    "sled::open",
];

const BORDERS: &[Border] = &[
    // Envoy's types stay behind the stages that write and read them; `closure` and
    // `explain` read what was written, as a proxy does.
    Border {
        words: &["envoy_types"],
        within: &[],
        except: &[
            "xds-translator/src/emit/",
            "xds-translator/src/patch",
            "xds-translator/src/debug",
            "xds-translator/src/closure.rs",
            "xds-translator/src/explain/",
            "dataplane/src/compile/",
        ],
    },
    Border {
        words: SLED,
        within: &[],
        except: &["control-plane/src/store/sled.rs", "cert-authority/src/ledger/sled.rs"],
    },
    Border {
        words: &["rcgen"],
        within: &[],
        except: &[
            "cert-authority/src/signer/local.rs",
            "dataplane/src/identity/csr_client.rs",
            "control-plane/src/demo/",
        ],
    },
    Border {
        words: &["kube", "k8s_openapi"],
        within: &[],
        except: &["control-plane/src/source/kubernetes/", "control-plane/src/kube_cluster/"],
    },
    // The control plane starts the data plane as a process of its own; they meet on the wire.
    Border {
        words: &["ferromesh_dataplane"],
        within: &[],
        except: &[
            "control-plane/src/demo/",
            "control-plane/src/cli/mod.rs",
            "dataplane/src/main.rs",
            "integration/tests/fields/",
        ],
    },
    Border {
        words: &["ferromesh_xds_translator"],
        within: &["dataplane/", "cert-authority/", "proto/"],
        except: &[],
    },
    // The translator is a pure function.
    Border {
        words: &[
            "std::fs",
            "fs::",
            "std::env",
            "env::",
            "std::net::TcpStream",
            "std::process",
            "std::thread",
            "SystemTime",
            "Instant",
            "tokio",
            "kube",
            "tonic",
            "sled",
        ],
        within: &["xds-translator/src/"],
        except: &[],
    },
    // Behind lowering nobody knows which dialect an item came from.
    Border {
        words: &[
            "crate::dialect",
            "istio::",
            "kubernetes::",
            "gateway_api::",
            "linkerd::",
            "smi::",
            "cilium::",
            "flagger::",
        ],
        within: &[
            "xds-translator/src/ir/",
            "xds-translator/src/snapshot/",
            "xds-translator/src/plan/",
            "xds-translator/src/emit/",
            "xds-translator/src/patch/",
            "xds-translator/src/view",
            "xds-translator/src/closure.rs",
        ],
        except: &[],
    },
    // Plans see a snapshot only through what records their reads.
    Border { words: &["MeshSnapshot"], within: &["xds-translator/src/plan/"], except: &[] },
    // `HashMap`'s order would leak into names, bytes and goldens.
    Border {
        words: &["std::collections::HashMap", "HashSet"],
        within: &["xds-translator/src/"],
        except: &["xds-translator/src/emit/", "xds-translator/src/debug.rs"],
    },
    Border {
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os", "env::set_var"],
        within: &[],
        except: &[
            "control-plane/src/config.rs",
            "control-plane/src/config/contexts.rs",
            "control-plane/src/config/remote.rs",
            "dataplane/src/config.rs",
            "integration/src/paths.rs",
            "xds-translator/build.rs",
        ],
    },
    Border { words: &["dbg!", "todo!", "unimplemented!"], within: &[], except: &[] },
    // Whoever reads to the end reads for ever what has none; these say how much they read.
    Border {
        words: &["fs::read", "fs::read_to_string", "read_to_end", "read_to_string"],
        within: &["control-plane/src/", "cert-authority/src/"],
        except: &[
            "cert-authority/src/files.rs",
            "control-plane/src/admin/token.rs",
            "control-plane/src/demo/",
            "control-plane/src/source/directory/listing.rs",
            // As long as what was acknowledged.
            "control-plane/src/store/journal.rs",
        ],
    },
    // They panic where nobody reads any more, and a closed pipe must end no program.
    Border {
        words: &["print!", "println!", "eprint!", "eprintln!"],
        within: &[
            "control-plane/src/",
            "dataplane/src/",
            "cert-authority/src/",
            "xds-translator/src/",
            "proto/src/",
        ],
        except: &[],
    },
];

#[test]
fn words_stay_within_their_borders() {
    let sources = Sources::read();
    let begins =
        |source: &Source, folders: &[&str]| folders.iter().any(|f| source.path.starts_with(f));
    let mut violations = Vec::new();
    for border in BORDERS {
        let bound = |s: &&Source| border.within.is_empty() || begins(s, border.within);
        for source in sources.production().filter(bound).filter(|s| !begins(s, border.except)) {
            let named = border.words.iter().filter(|word| names_word(&source.code, word));
            violations.extend(named.map(|word| format!("{} names {word}", source.path)));
        }
    }
    check("these files name what they must not know", violations);
}

#[test]
fn borders_are_about_files_that_exist() {
    let sources = Sources::read();
    let places = BORDERS.iter().flat_map(|b| b.within.iter().chain(b.except));
    let missing = places.filter(|p| !sources.files.iter().any(|s| s.path.starts_with(**p)));
    check("a rule names a place that is gone", missing.map(ToString::to_string));
}

/// Which crates of this workspace each may import, and which foreign ones it may not.
const IMPORTS: [(&str, &[&str], &[&str]); 6] = [
    ("proto", &[], &["envoy-types", "tokio", "kube", "sled", "rcgen"]),
    (
        "xds-translator",
        &["ferromesh-proto"],
        &["tokio", "kube", "tonic", "sled", "rcgen", "hyper", "axum"],
    ),
    ("cert-authority", &["ferromesh-proto"], &["envoy-types", "kube", "axum"]),
    (
        "control-plane",
        &[
            "ferromesh-xds-translator",
            "ferromesh-cert-authority",
            "ferromesh-proto",
            "ferromesh-dataplane",
        ],
        &["envoy-types"],
    ),
    ("dataplane", &["ferromesh-proto"], &["sled", "kube"]),
    (
        "integration",
        &["ferromesh-proto", "ferromesh-xds-translator", "ferromesh-cert-authority"],
        &["sled"],
    ),
];

#[test]
fn crates_import_each_other_in_one_direction() {
    let mut violations = Vec::new();
    for (folder, allowed, forbidden) in IMPORTS {
        for dependency in dependencies(folder) {
            let ours =
                dependency.starts_with("ferromesh-") && !allowed.contains(&dependency.as_str());
            if ours || forbidden.contains(&dependency.as_str()) {
                violations.push(format!("{folder} imports {dependency}"));
            }
        }
    }
    let demo =
        fs::read_to_string(paths::project().join("control-plane/Cargo.toml")).expect("a manifest");
    if !demo.contains("ferromesh-dataplane = { workspace = true, optional = true }") {
        violations.push("control-plane imports the data plane unconditionally".to_owned());
    }
    check("imports against the direction of the design", violations);
}

/// The names under `[dependencies]` of a crate's manifest.
fn dependencies(folder: &str) -> Vec<String> {
    let text =
        fs::read_to_string(paths::project().join(folder).join("Cargo.toml")).expect("a manifest");
    let sections = text.split("\n[").filter_map(|s| s.strip_prefix("dependencies]"));
    let lines = sections
        .flat_map(str::lines)
        .filter(|l| l.starts_with(|c: char| c.is_ascii_alphanumeric()));
    lines.filter_map(|l| l.split(['.', ' ', '=']).next()).map(str::to_owned).collect()
}

/// Invariant 8: kinds of proxies fork once, where a node is classified and where its view is
/// planned.
const FORKS: [(&str, &[&str]); 2] = [
    ("NodeKind::", &["xds-translator/src/class/mod.rs", "xds-translator/src/class/node.rs"]),
    ("ViewKey::", &["xds-translator/src/plan/mod.rs"]),
];

#[test]
fn kinds_of_proxies_fork_once() {
    let sources = Sources::read();
    let mut violations = Vec::new();
    for (word, homes) in FORKS {
        for source in sources.production() {
            let arms = source
                .code
                .lines()
                .filter(|l| l.split_once("=>").is_some_and(|(arm, _)| names_word(arm, word)));
            let count = arms.count();
            match homes.contains(&source.path.as_str()) {
                false if count > 0 => violations.push(format!("{} matches on {word}", source.path)),
                _ => {}
            }
        }
    }
    let planned =
        sources.files.iter().find(|s| s.path == FORKS[1].1[0]).expect("the planner's entry");
    let forks = planned.code.matches("ViewKey::Outbound").count();
    assert_eq!(forks, 1, "{} forks {forks} times", planned.path);
    check("`match` on the kind of proxy outside its place", violations);
}

/// What no file of a finished project contains. Spelled in pieces, so that this file is none of
/// them.
fn traces() -> Vec<String> {
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["..", "/shared"],
        ["replace", "-with"],
        ["index", "-url"],
        ["#[ig", "nore"],
    ];
    let folders = ["work", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    words.map(|pieces| pieces.concat()).into_iter().chain(folders).collect()
}

#[test]
fn nothing_is_left_of_the_workshop() {
    let mut violations = Vec::new();
    for (path, text) in source::texts() {
        for word in traces() {
            // In the middle of a longer path a folder is one of the system under test.
            let longer = |at: usize| {
                word.starts_with('/') && text[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
            };
            if text.match_indices(&word).any(|(at, _)| !longer(at)) {
                violations.push(format!("{path} contains {word}"));
            }
        }
    }
    check("traces of how it was made", violations);
}

/// Invariant 5, for what lies in the repository: outputs and test data show no key and no token.
#[test]
fn no_golden_holds_a_key_or_a_token() {
    let marks = [
        "PRIVATE KEY",
        "LS0tLS1CRUdJTiBQUklWQVRF",
        "LS0tLS1CRUdJTiBFQyBQUklWQVRF",
        "eyJhbGci",
        "eyJ0eXAi",
    ];
    let texts = source::texts();
    let outputs: Vec<_> = texts
        .iter()
        .filter(|(path, _)| path.contains("/golden/") || path.contains("/testdata/"))
        .collect();
    assert!(outputs.len() > 8, "the goldens have moved");
    let shown = outputs.iter().filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)));
    check("goldens and test data with keys or tokens", shown.map(|(path, _)| path.clone()));
}

#[test]
fn documents_that_are_named_exist() {
    let sources = source::texts();
    let known: BTreeSet<&str> =
        sources.iter().filter_map(|(path, _)| Path::new(path).file_name()?.to_str()).collect();
    // A standard, and what comes with the corpus.
    let foreign = ["SPIFFE-ID.md", "EXPECT.md"];
    let mut violations = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !path.contains("/corpus/")) {
        let words =
            text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
        let documents =
            words.map(|w| w.trim_matches('.')).filter(|w| w.len() > 3 && w.ends_with(".md"));
        let missing = documents.filter(|w| !known.contains(w) && !foreign.contains(w));
        violations.extend(missing.map(|word| format!("{path} names {word}")));
    }
    check("documents that do not exist", violations);
}

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    let documents = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"];
    check("dead links", documents.iter().flat_map(|name| document::dead_links(name)));
}

/// Words of a paragraph; who reads a page for the first time loses the thread in a longer one.
const LONGEST_PARAGRAPH: usize = 80;

#[test]
fn paragraphs_of_documents_are_short() {
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    let violations = documents.into_iter().flat_map(|name| {
        let paragraphs = document::paragraphs(name).into_iter();
        let words = |paragraph: &String| paragraph.split_whitespace().count();
        let long = paragraphs.filter(move |paragraph| words(paragraph) > LONGEST_PARAGRAPH);
        long.map(move |p| format!("{name}: {} words: {:.60}…", words(&p), p))
    });
    check("paragraphs of more than 80 words", violations);
}

#[test]
fn the_code_map_names_every_module() {
    let map = document::section("ARCHITECTURE.md", "Code map");
    let mut violations = Vec::new();
    for (crate_name, modules) in modules() {
        let Some(named) = document::crate_words(&map, crate_name) else {
            violations.push(format!("{crate_name}/ is missing"));
            continue;
        };
        let missing = modules.iter().filter(|module| !named.contains(*module));
        violations.extend(missing.map(|module| format!("{crate_name}/src/{module} is missing")));
    }
    check("ARCHITECTURE.md's code map does not match the tree", violations);
}

/// The modules at the top of every crate.
fn modules() -> BTreeMap<&'static str, BTreeSet<String>> {
    let sources = Sources::read();
    let of = |crate_name: &'static str| {
        let prefix = format!("{crate_name}/src/");
        let below = sources.production().filter_map(|s| s.path.strip_prefix(&prefix));
        let tops =
            below.map(|p| p.split('/').next().unwrap_or(p).trim_end_matches(".rs").to_owned());
        (crate_name, tops.filter(|m| !matches!(m.as_str(), "lib" | "main" | "bin")).collect())
    };
    CRATES.into_iter().map(of).collect()
}

#[test]
fn every_invariant_names_the_tests_that_break_with_it() {
    let section = document::section("ARCHITECTURE.md", "Invariants");
    let items = document::items(&section);
    assert!(items.len() >= 8, "ARCHITECTURE.md lists {} invariants, expected 8", items.len());
    let mut violations = Vec::new();
    for item in &items {
        let tests: Vec<(&str, &str)> = document::code_spans(item)
            .into_iter()
            .filter_map(|span| span.split_once(".rs::"))
            .collect();
        if tests.is_empty() {
            violations.push(format!("no test: {}", item.lines().next().unwrap_or_default()));
        }
        for (file, test) in tests {
            let path = paths::project().join(format!("{file}.rs"));
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !text.contains(&format!("fn {test}(")) {
                violations.push(format!("{file}.rs has no test {test}"));
            }
        }
    }
    check("invariants without their tests", violations);
}
