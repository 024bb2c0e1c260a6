//! The rows of `integration/corpus/seeds/EXPECT.md`, and what they say of findings.

use std::{collections::BTreeMap, fs, path::PathBuf};

use ferromesh_integration::paths;
use ferromesh_xds_translator::{
    analyze::{Texts, analyze_input, fix},
    diagnostic::{Code, Diagnostic, Severity},
    dialect::{overlay, parse_files},
    ir::MeshDefaults,
    yaml,
};

/// A row: a document of an example.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// `s0-03#1`
    pub(crate) name: String,
    /// Kind and name, as the table has it.
    object: String,
    findings: String,
}

/// Kinds of Istio's that rows are about; what installs is about another thing.
const KINDS: [&str; 7] = [
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "PeerAuthentication",
    "AuthorizationPolicy",
    "RequestAuthentication",
    "Telemetry",
];

fn folder() -> PathBuf {
    paths::project().join("integration/corpus/seeds")
}

/// The rows about Istio's kinds, in their order.
pub(crate) fn rows() -> Vec<Row> {
    let text = fs::read_to_string(folder().join("EXPECT.md")).expect("the table");
    let rows = text.lines().filter(|line| line.starts_with("| `s")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [document, object, _, findings] = cells[..] else { panic!("four cells: {line}") };
        let (file, number) = document.trim_matches('`').split_once('#').expect("a document");
        // Other dialects have kinds of the same names.
        let is_other = ["linkerd", "cilium", "flagger"].iter().any(|other| file.contains(other));
        let kind = object.split(' ').next().unwrap_or_default();
        let served = !is_other && KINDS.contains(&kind);
        let row = Row {
            name: format!("{}#{number}", prefix(file)),
            object: object.to_owned(),
            findings: findings.to_owned(),
        };
        (served, row)
    });
    rows.filter_map(|(served, row)| served.then_some(row)).collect()
}

/// `s0-03` of `s0-03-istio-traffic-management.yaml`.
fn prefix(file: &str) -> String {
    file.splitn(3, '-').take(2).collect::<Vec<_>>().join("-")
}

/// The text of an example.
fn whole(prefix: &str) -> String {
    let mut files = fs::read_dir(folder()).expect("the corpus").flatten().map(|e| e.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{prefix}-")))
    };
    let file = files.find(named).unwrap_or_else(|| panic!("no example {prefix}"));
    fs::read_to_string(file).expect("a text") + "\n---\n"
}

/// Documents of an example, counted from 1; all of it where none is named.
pub(crate) fn example(prefix: &str, documents: &[usize]) -> String {
    let text = whole(prefix);
    if documents.is_empty() {
        return text;
    }
    let all = yaml::split(&text);
    documents.iter().map(|number| format!("{}\n---\n", all[number - 1].text)).collect()
}

/// The example as `ferromesh analyze --fix` leaves it.
pub(crate) fn fixed(text: String) -> String {
    let analyze = |texts: &Texts| {
        let files = texts.iter().map(|(name, text)| (&**name, text.as_bytes()));
        analyze_input(&parse_files(files), &MeshDefaults::default())
    };
    let mut done = fix(Texts::from([("example.yaml".into(), text)]), analyze);
    assert!(!done.fixed.is_empty(), "{:#?}", done.findings);
    done.texts.remove("example.yaml").expect("the text")
}

/// What a row says must be found, beside the files that must be loaded for it.
#[derive(Clone, Debug)]
struct Expected {
    severity: String,
    /// A field, with `*` for anything; empty: any.
    field: String,
    with: Vec<String>,
    /// Istio's code, or ours for what Istio has no code for.
    code: Option<String>,
}

impl Row {
    fn file(&self) -> &str {
        self.name.split('#').next().unwrap_or_default()
    }

    /// `VirtualService default/reviews`, as findings name an object.
    fn id(&self) -> String {
        let (kind, name) = self.object.split_once(' ').expect("kind and name");
        match name.contains('/') {
            true => self.object.clone(),
            false => format!("{kind} default/{name}"),
        }
    }

    /// Checks what is found with what the row says, in every set of files that it names.
    ///
    /// # Errors
    /// What is missing or too much.
    pub(crate) fn check_findings(&self) -> Result<(), String> {
        let expected = self.expected();
        let mut sets: BTreeMap<Vec<String>, Vec<&Expected>> = BTreeMap::new();
        sets.insert(Vec::new(), Vec::new());
        for one in &expected {
            sets.entry(one.with.clone()).or_default().push(one);
        }
        for (with, wanted) in sets {
            let found = findings(&with, self.file());
            let alone = with.is_empty();
            // One that is about two objects stands at one of them and names the other.
            let own = |finding: &&Diagnostic| {
                finding.object.as_ref().is_some_and(|object| object.to_string() == self.id())
                    || finding.related.iter().any(|one| one.object.to_string() == self.id())
            };
            for one in &wanted {
                // Beside others the one that loses has the finding.
                let of: Vec<&Diagnostic> = match alone {
                    true => found.iter().filter(own).collect(),
                    false => found.iter().collect(),
                };
                if !of.iter().any(|finding| one.is(finding)) {
                    return Err(format!(
                        "{} with {with:?}: no {one:?} in\n{}",
                        self.name,
                        listed(&found)
                    ));
                }
            }
            let more = found.iter().filter(own).filter(|f| f.severity != Severity::Info);
            let mut more = more.filter(|f| !wanted.iter().any(|one| one.is(f)));
            if alone && let Some(finding) = more.next() {
                return Err(format!("{}: unexpected {finding}", self.name));
            }
        }
        Ok(())
    }

    /// What the cell of findings says.
    fn expected(&self) -> Vec<Expected> {
        let mut found = Vec::new();
        let mut with: Vec<String> = vec![String::new()];
        // A sentence ends with a full stop before a blank; "fix: …" belongs to what it follows.
        for sentence in self.findings.split(". ") {
            let mut sentence = sentence.trim();
            if let Some((condition, rest)) = condition(sentence) {
                with = condition;
                sentence = rest;
            }
            let Some((severity, rest)) = severity(sentence) else { continue };
            let fields = rest.split_once(':').map_or(rest, |(fields, _)| fields);
            let fields: Vec<String> = fields
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|field| field.contains(['.', '[', '…']) || *field == "spec")
                .flat_map(spelled)
                .collect();
            let fields = if fields.is_empty() { vec!["*".to_owned()] } else { fields };
            for field in fields {
                for with in &with {
                    found.push(Expected {
                        severity: severity.to_owned(),
                        field: field.clone(),
                        with: [with.clone()].into_iter().filter(|w| !w.is_empty()).collect(),
                        code: code(rest),
                    });
                }
            }
        }
        found
    }
}

/// The files with which a sentence holds, and the rest of it. Without others, and without what the
/// base has not, an example is loaded alone.
fn condition(sentence: &str) -> Option<(Vec<String>, &str)> {
    let (condition, rest) = sentence.split_once(": ")?;
    if condition.starts_with("Without ") || condition.starts_with("If ") {
        return Some((vec![String::new()], rest));
    }
    let named = condition.strip_prefix("With ")?;
    let files = named.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((files, rest))
}

/// The code that a finding must have: Istio's where the sentence names it.
fn code(sentence: &str) -> Option<String> {
    if sentence.starts_with("duplicate object") {
        return Some(Code::DuplicateObject.to_string());
    }
    let at = sentence.find("IST0")?;
    sentence.get(at..at + "IST0000".len()).map(str::to_owned)
}

fn severity(sentence: &str) -> Option<(&str, &str)> {
    let severities = ["error-ref ", "error ", "warn ", "info "];
    let found = severities.iter().find(|severity| sentence.starts_with(**severity))?;
    Some((found.trim(), &sentence[found.len()..]))
}

/// A field of the table as patterns: `…` and `[*]` are anything, `[0..1]` is each of them.
fn spelled(field: &str) -> Vec<String> {
    let field = field.replace('…', "*");
    let Some((before, range)) = field.split_once('[').filter(|(_, range)| range.contains(".."))
    else {
        return vec![field];
    };
    let (range, after) = range.split_once(']').expect("a closed range");
    let (first, last) = range.split_once("..").expect("a range");
    let number = |text: &str| text.parse::<usize>().expect("a number");
    (number(first)..=number(last)).map(|n| format!("{before}[{n}]{after}")).collect()
}

impl Expected {
    fn is(&self, finding: &Diagnostic) -> bool {
        let field = finding.field.to_string();
        let codes = [Some(finding.code.to_string()), finding.istio_code.map(|c| c.to_string())];
        finding.severity.to_string() == self.severity
            && matches(&self.field, &field)
            && self.code.as_ref().is_none_or(|code| codes.contains(&Some(code.clone())))
    }
}

/// Whether a text is as a pattern says, in which `*` is anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

/// What is found in files of examples beside the base: the row's own comes first.
fn findings(with: &[String], own: &str) -> Vec<Diagnostic> {
    let base = fs::read(paths::project().join("integration/corpus/base.yaml")).expect("the base");
    let mut texts = vec![(own.to_owned(), whole(own))];
    for other in with {
        let (file, document) = other.split_once('#').unwrap_or((other, ""));
        let documents: Vec<usize> = document.parse().into_iter().collect();
        texts.push((file.to_owned(), example(file, &documents)));
    }
    let files = texts.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
    let parsed = [parse_files([("base", &base[..])]), parse_files(files)];
    analyze_input(&overlay(parsed), &MeshDefaults::default())
}

fn listed(found: &[Diagnostic]) -> String {
    found.iter().map(|finding| format!("  {finding}\n")).collect()
}
