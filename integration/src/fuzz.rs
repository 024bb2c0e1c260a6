//! Inputs that nobody would write, for each stage of the translator: mutations of texts and of trees,
//! what a stage may cost, and the smallest input that still costs too much.
//!
//! What says something new (a finding of another code at another field) is kept and mutated further;
//! the build has no other instrument for what an input reaches.

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ferromesh_xds_translator::{
    analyze::analyze_input,
    class::NodeIdentity,
    compiler::Change,
    diagnostic::{Diagnostic, Segment},
    dialect::{Kind, Object, lower, parse_file, parse_value},
    ir::MeshDefaults,
    translate::translate,
    yaml,
};
use serde_json::{Map, Value, json};

use crate::{
    paths,
    random_mesh::{self, Dice},
};

/// Longest input.
const MAX_BYTES: usize = 64 << 10;
/// What one input may take, in a build without optimisation, on a busy machine.
const MAX_TIME: Duration = Duration::from_secs(20);
/// What one input may add to the most memory that the process had at a time.
const MAX_MEMORY: u64 = 512 << 20;
/// Most inputs that are kept because they said something new.
const MAX_KEPT: usize = 4_000;
/// Most attempts to make an input smaller.
const MAX_ATTEMPTS: usize = 1_500;
const MAX_SLOW_ATTEMPTS: usize = 15;

/// A stage of the translator; each is given what the stages before it made of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Text to documents and trees, and what can be saved of broken ones.
    Yaml,
    /// Trees to objects.
    Decode,
    /// Objects to items.
    Lower,
    /// Items to the plans of every kind of client.
    Plan,
    /// Messages with users' changes in them.
    Patch,
    /// Plans to encoded resources.
    Emit,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] =
        [Self::Yaml, Self::Decode, Self::Lower, Self::Plan, Self::Patch, Self::Emit];

    /// Puts an input through the stage; what is said of it.
    fn run(self, text: &[u8]) -> Vec<Diagnostic> {
        match self {
            Self::Yaml => {
                let text = String::from_utf8_lossy(text);
                for document in yaml::split(&text) {
                    drop(yaml::parse(document.text));
                    drop(yaml::salvage(document.text));
                }
                parse_file("fuzz.yaml", text.as_bytes()).diagnostics
            }
            Self::Decode => parse_file("fuzz.yaml", text).diagnostics,
            Self::Lower => {
                let parsed = parse_file("fuzz.yaml", text);
                let lowered = parsed
                    .everything()
                    .flat_map(|object| lower(object, &MeshDefaults::default()).diagnostics);
                parsed.diagnostics.iter().cloned().chain(lowered).collect()
            }
            Self::Plan => analyze_input(&parse_file("fuzz.yaml", text), &MeshDefaults::default()),
            Self::Patch | Self::Emit => {
                let objects = parse_file("fuzz.yaml", text).objects;
                NODES.iter().flat_map(|node| emitted(node, &objects)).collect()
            }
        }
    }
}

/// A sidecar and a gateway of random meshes, and one beside nothing.
const NODES: [&str; 3] = [
    "sidecar~10.244.0.10~app-0.shop~shop.svc.cluster.local",
    "router~10.244.2.10~edge-0.istio-system~istio-system.svc.cluster.local",
    "sidecar~10.99.9.9~nobody.bank~bank.svc.cluster.local",
];

fn emitted(node: &str, objects: &[Object]) -> Vec<Diagnostic> {
    let node = ferromesh_proto::discovery::Node { id: node.to_owned(), ..Default::default() };
    let node = NodeIdentity::parse(&node, None).expect("a good node id");
    let changes = objects.iter().map(|object| Change::Upsert(Box::new(object.clone()))).collect();
    let translation = translate(MeshDefaults::default(), changes, &node);
    translation.map(|translation| translation.diagnostics).unwrap_or_default()
}

/// What was wrong with a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It panicked.
    Panic,
    /// It took longer than it may.
    Slow,
    /// It took more memory than it may.
    Large,
}

/// Puts an input through a stage; what is said of it, or what is wrong with the stage.
///
/// # Errors
/// The stage fails.
pub fn examine(stage: Stage, text: &[u8]) -> Result<Vec<Diagnostic>, Failure> {
    let peak = Peak::begin();
    let begin = Instant::now();
    let said = panic::catch_unwind(AssertUnwindSafe(|| stage.run(text)));
    let (took, memory) = (begin.elapsed(), peak.end());
    match said {
        Err(_) => Err(Failure::Panic),
        Ok(_) if took > MAX_TIME => Err(Failure::Slow),
        Ok(_) if memory > MAX_MEMORY => Err(Failure::Large),
        Ok(said) => Ok(said),
    }
}

/// The most memory that the process had since a moment. The kernel counts: an allocator that did
/// would need code that this project forbids.
struct Peak {
    before: u64,
}

impl Peak {
    fn begin() -> Self {
        // 5: forget the most that there was. Where that is not allowed, only the whole run counts.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { before: Self::now() }
    }

    fn now() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
    }

    fn end(self) -> u64 {
        Self::now().saturating_sub(self.before)
    }
}

/// Mutates inputs for one stage.
pub struct Fuzzer {
    stage: Stage,
    dice: Dice,
    texts: Vec<String>,
    trees: Vec<Value>,
    said: BTreeSet<String>,
    kept: usize,
}

impl Fuzzer {
    /// Begins with every example of the project.
    pub fn new(stage: Stage, seed: u64) -> Self {
        Self::of(stage, seed, examples())
    }

    fn of(stage: Stage, seed: u64, texts: Vec<String>) -> Self {
        let documents = texts.iter().flat_map(|text| yaml::split(text));
        let trees = documents
            .filter_map(|document| yaml::parse(document.text).ok().flatten())
            .map(|tree| tree.to_json())
            .collect();
        Self { stage, dice: Dice::new(seed), texts, trees, said: BTreeSet::new(), kept: 0 }
    }

    /// How many inputs are kept because they said something new.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = match self.stage {
            Stage::Yaml => self.text(),
            Stage::Decode if self.dice.chance(30) => self.text(),
            Stage::Decode | Stage::Lower => self.objects(1),
            Stage::Plan | Stage::Emit => self.mesh(|_| true),
            Stage::Patch => self.mesh(|kind| kind == Kind::ENVOY_FILTER),
        };
        input.truncate(MAX_BYTES);
        input
    }

    /// Keeps an input that says something new.
    pub fn learn(&mut self, input: &[u8], said: &[Diagnostic]) {
        let new = said.iter().filter(|finding| self.said.insert(signature(finding))).count();
        let Ok(text) = std::str::from_utf8(input) else { return };
        if new == 0 || self.kept == MAX_KEPT {
            return;
        }
        self.kept += 1;
        match self.stage {
            Stage::Yaml => self.texts.push(text.to_owned()),
            _ => {
                let documents = yaml::split(text).into_iter();
                let trees = documents.filter_map(|d| yaml::parse(d.text).ok().flatten());
                self.trees.extend(trees.map(|tree| tree.to_json()));
            }
        }
    }

    /// A text with its lines and characters changed.
    fn text(&mut self) -> Vec<u8> {
        let mut text = self.dice.one(&self.texts).clone();
        for _ in 0..=self.dice.below(8) {
            text = self.changed_text(&text);
            cut(&mut text);
        }
        text.into_bytes()
    }

    fn changed_text(&mut self, text: &str) -> String {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let (a, b) = (self.dice.below(lines.len()), self.dice.below(lines.len()));
        let (first, last) = (a.min(b), a.max(b));
        let part =
            |from: usize, to: usize| lines[from.min(lines.len())..to.min(lines.len())].concat();
        let all = lines.len();
        match self.dice.below(9) {
            // A line, or a few, less, twice, elsewhere, further in.
            0 => part(0, first) + &part(first + 1 + self.dice.below(4), all),
            1 => part(0, last) + &part(first, last) + &part(first, all),
            2 => part(0, first) + &part(last, all) + &part(first, last),
            3 => {
                let margin = " ".repeat(self.dice.below(5));
                part(0, first) + &margin + &part(first, all)
            }
            // Another text within.
            4 => {
                let other = self.dice.one(&self.texts).clone();
                let other: Vec<&str> = other.split_inclusive('\n').collect();
                let from = self.dice.below(other.len());
                let to = (from + 1 + self.dice.below(20)).min(other.len());
                part(0, first) + &other[from.min(other.len())..to].concat() + &part(first, all)
            }
            // Signs that mean something.
            5 | 6 => {
                let sign = *self.dice.one(SIGNS);
                let at = floor(text, self.dice.below(text.len() + 1));
                format!("{}{sign}{}", &text[..at], &text[at..])
            }
            // Characters less.
            7 => {
                let from = floor(text, self.dice.below(text.len() + 1));
                let to = floor(text, (from + self.dice.below(12)).min(text.len()));
                format!("{}{}", &text[..from], &text[to.max(from)..])
            }
            // One sign many times.
            _ => {
                let sign = self.dice.one(SIGNS).repeat(1 << self.dice.below(12));
                let at = floor(text, self.dice.below(text.len() + 1));
                format!("{}{sign}{}", &text[..at], &text[at..])
            }
        }
    }

    /// Objects with their trees changed.
    fn objects(&mut self, most: usize) -> Vec<u8> {
        let count = 1 + self.dice.below(most);
        let objects: Vec<Value> = (0..count)
            .map(|_| {
                let mut tree = match self.dice.chance(50) {
                    true => self.dice.one(&self.trees).clone(),
                    false => self.random_object(|_| true),
                };
                self.change(&mut tree);
                tree
            })
            .collect();
        documents(&objects)
    }

    fn random_object(&mut self, of: impl Fn(Kind) -> bool) -> Value {
        let kinds: Vec<Kind> = random_mesh::kinds().filter(|kind| of(*kind)).collect();
        let kind = *self.dice.one(&kinds);
        let number = self.dice.below(3);
        random_mesh::object(&mut self.dice, kind, number)
    }

    /// A mesh, of which some objects are changed but taken all the same.
    fn mesh(&mut self, of: impl Fn(Kind) -> bool) -> Vec<u8> {
        const OBJECTS: usize = 12;
        const ADDRESSES: [&str; 2] = ["10.244.0.10", "10.244.2.10"];
        let mut objects = random_mesh::base(ADDRESSES, ["", "", ""]);
        for _ in 0..=self.dice.below(OBJECTS) {
            let mut object = match self.dice.chance(25) {
                true => self.dice.one(&self.trees).clone(),
                false => self.random_object(|_| true),
            };
            for _ in 0..self.dice.below(3) {
                self.keep_taken(&mut object);
            }
            objects.push(object);
        }
        let mut special = self.random_object(of);
        for _ in 0..4 {
            self.keep_taken(&mut special);
        }
        objects.push(special);
        documents(&objects)
    }

    /// Changes an object, unless it is refused then.
    fn keep_taken(&mut self, object: &mut Value) {
        let before = object.clone();
        self.change(object);
        let copy = object.clone();
        let taken = panic::catch_unwind(AssertUnwindSafe(|| parse_value(copy).is_ok()));
        // Who panics here is found by the stages before.
        if !taken.unwrap_or(false) {
            *object = before;
        }
    }

    /// Changes one place of a tree.
    fn change(&mut self, tree: &mut Value) {
        let places = count(tree);
        let mut at = self.dice.below(places);
        let Some(place) = nth(tree, &mut at) else { return };
        match self.dice.below(10) {
            0..=3 => *place = self.scalar(),
            // What stands under the same name elsewhere, or anything.
            4 => *place = self.part(),
            5 => match place {
                Value::Object(map) => {
                    let keys: Vec<String> = map.keys().cloned().collect();
                    if !keys.is_empty() {
                        map.remove(self.dice.one(&keys));
                    }
                }
                Value::Array(list) => drop(list.pop()),
                _ => *place = Value::Null,
            },
            6 => match place {
                Value::Array(list) => {
                    let copies = 1 << self.dice.below(7);
                    let more: Vec<Value> = list.iter().cycle().take(copies).cloned().collect();
                    list.extend(more);
                }
                Value::Object(map) => {
                    let key = (*self.dice.one(WORDS)).to_owned();
                    let value = self.scalar();
                    map.insert(key, value);
                }
                _ => *place = json!([place.clone()]),
            },
            7 => *place = json!({ (*self.dice.one(WORDS)): place.clone() }),
            8 => {
                let part = self.part();
                match place {
                    Value::Array(list) => list.push(part),
                    Value::Object(map) => {
                        let other = part.as_object().cloned().unwrap_or_else(Map::new);
                        map.extend(other);
                    }
                    _ => *place = part,
                }
            }
            _ => {
                if let Value::String(text) = place {
                    let changed = self.changed_text(text);
                    *place = changed.into();
                }
            }
        }
    }

    /// A part of another tree.
    fn part(&mut self) -> Value {
        let mut tree = self.dice.one(&self.trees).clone();
        let mut at = self.dice.below(count(&tree));
        nth(&mut tree, &mut at).map(|part| part.take()).unwrap_or_default()
    }

    fn scalar(&mut self) -> Value {
        match self.dice.below(4) {
            0 => (*self.dice.one(NUMBERS)).into(),
            1 => self.dice.chance(50).into(),
            2 => self.dice.one(WORDS).repeat(1 << self.dice.below(9)).into(),
            _ => (*self.dice.one(WORDS)).into(),
        }
    }
}

/// Signs of YAML, and what upsets readers of text.
const SIGNS: &[&str] = &[
    ":",
    ": ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: *a\n",
    "|\n",
    ">-\n",
    "|2\n",
    "\"",
    "'",
    "#",
    " #",
    "%",
    "@",
    "`",
    "!!str ",
    "!!binary ",
    "---\n",
    "...\n",
    "\t",
    "\r",
    "\0",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\u{1f600}",
    "\\x",
    "~",
    "0x",
    "1e999",
    "-0",
    ".inf",
    "99999999999999999999",
    "spec:\n",
    "  ",
    "kind: List\nitems:\n",
    "apiVersion: v1\n",
];

/// Texts that mean something somewhere.
const WORDS: &[&str] = &[
    "",
    "*",
    "*.",
    ".",
    "..",
    "/",
    "~",
    "-",
    ":",
    "@",
    "%",
    "%%",
    "a",
    "A",
    "mesh",
    "v1",
    "*.a",
    "a.*",
    "svc",
    "service0",
    "shop/service0",
    "/{*}/",
    "/{**}/x",
    "(",
    "[a-",
    "a{1,9999}",
    "(?i)x",
    "10.0.0.0/8",
    "::/0",
    "0.0.0.0",
    "fe80::1%eth0",
    "300.0.0.1",
    "5s",
    "-5s",
    "1e9h",
    "0.0001ms",
    "spiffe://cluster.local/ns/a/sa/b",
    "spiffe://",
    "cluster.local",
    "https://a/",
    "unix:///x",
    "%REQ(x)%",
    "%REQ(",
    "request.headers[",
    "request.auth.claims[a][b]",
    "http",
    "STRICT",
    "eu/*",
    "\u{0}",
    "\n",
    "é",
    "\u{202e}",
    "xn--a",
    "true",
    "null",
    "spec",
    "hosts",
    "name",
    "match",
];

const NUMBERS: &[f64] = &[
    0.0,
    1.0,
    -1.0,
    0.5,
    80.0,
    443.0,
    65_535.0,
    65_536.0,
    4_294_967_295.0,
    4_294_967_296.0,
    1e18,
    -1e18,
    1e300,
    100.0,
    101.0,
    15_001.0,
    15_006.0,
];

/// What of a finding is not the user's own words.
fn signature(finding: &Diagnostic) -> String {
    let fields = finding.field.0.iter().map(|segment| match segment {
        Segment::Field(name) if name.len() < 40 => &**name,
        _ => "",
    });
    let kind = finding.object.as_ref().map(|id| id.kind.kind_name()).unwrap_or_default();
    format!("{} {kind} {}", finding.code, fields.collect::<Vec<_>>().join("."))
}

fn documents(objects: &[Value]) -> Vec<u8> {
    objects.iter().map(|object| format!("{object}\n---\n")).collect::<String>().into_bytes()
}

/// How many places a tree has.
fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Object(map) => map.values().map(count).sum(),
        Value::Array(list) => list.iter().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The place with a number, in the order in which they are written.
fn nth<'a>(tree: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(tree);
    }
    *at -= 1;
    match tree {
        Value::Object(map) => map.values_mut().find_map(|value| nth(value, at)),
        Value::Array(list) => list.iter_mut().find_map(|value| nth(value, at)),
        _ => None,
    }
}

/// The last place at or before this one between two characters.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

fn cut(text: &mut String) {
    let end = floor(text, MAX_BYTES);
    text.truncate(end);
}

/// The texts of every example in the project.
fn examples() -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["integration/corpus", "integration/tests", "xds-translator", "control-plane"] {
        collect(&paths::project().join(folder), &mut files);
    }
    files.sort();
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

/// The smallest input found that fails as this one does: documents, then lines, then characters
/// are left out as long as it does.
pub fn minimised(stage: Stage, input: &[u8], failure: &Failure) -> Vec<u8> {
    let fails = |input: &[u8]| examine(stage, input).as_ref().err() == Some(failure);
    // What is slow is tried as often as there is time for.
    let mut attempts = if *failure == Failure::Slow { MAX_SLOW_ATTEMPTS } else { MAX_ATTEMPTS };
    let text = String::from_utf8_lossy(input).into_owned();
    let documents: Vec<String> = text.split_inclusive("---\n").map(str::to_owned).collect();
    let kept = without(documents, &mut attempts, |parts| fails(parts.concat().as_bytes())).concat();
    let lines: Vec<String> = kept.split_inclusive('\n').map(str::to_owned).collect();
    let kept = without(lines, &mut attempts, |parts| fails(parts.concat().as_bytes())).concat();
    let characters: Vec<String> = kept.chars().map(String::from).collect();
    let kept = without(characters, &mut attempts, |parts| fails(parts.concat().as_bytes()));
    kept.concat().into_bytes()
}

/// Leaves out as many parts as it can, halves first.
fn without(
    mut parts: Vec<String>,
    attempts: &mut usize,
    holds: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let mut size = parts.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < parts.len() {
            if *attempts == 0 {
                return parts;
            }
            *attempts -= 1;
            let end = (at + size).min(parts.len());
            let fewer = [&parts[..at], &parts[end..]].concat();
            if holds(&fewer) { parts = fewer } else { at += size }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    parts
}

/// Where what was found is kept.
pub fn found() -> PathBuf {
    paths::project().join("integration/corpus/fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found once is put through every stage, whichever failed then.
    #[test]
    fn what_was_found_is_mended() {
        let mut files = Vec::new();
        collect(&found(), &mut files);
        for file in files {
            let text = fs::read(&file).expect("a file");
            for stage in Stage::ALL {
                let failed = examine(stage, &text).err();
                assert_eq!(failed, None, "{stage:?}: {}", file.display());
            }
        }
    }

    #[test]
    fn mutations_are_the_same_again_and_differ() {
        for stage in Stage::ALL {
            let inputs = |seed| {
                let texts = vec!["a: 1\nb: [c, d]\n".to_owned(), "kind: Pod\n".to_owned()];
                let mut fuzzer = Fuzzer::of(stage, seed, texts);
                (0..5).map(|_| fuzzer.next_input()).collect::<Vec<_>>()
            };
            let first = inputs(3);
            assert_eq!(first, inputs(3), "{stage:?}");
            assert_ne!(first, inputs(4), "{stage:?}");
            assert!(first.iter().all(|input| input.len() <= MAX_BYTES));
        }
    }

    #[test]
    fn an_input_is_made_smaller_as_long_as_it_fails() {
        let parts = |text: &str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
        let needs = |parts: &[String]| {
            ["b\n", "e\n"].iter().all(|part| parts.iter().any(|own| own == part))
        };
        let mut attempts = 100;
        let kept = without(parts("a\nb\nc\nd\ne\nf\n"), &mut attempts, needs);
        assert_eq!(kept.concat(), "b\ne\n");
    }
}
