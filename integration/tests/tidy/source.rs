//! The repository's files as the rules see them: which are production code, and what that code says
//! without its comments and texts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use ferromesh_integration::paths;

use super::CRATES;

/// One Rust file.
pub(crate) struct Source {
    /// From the project's folder, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without comments, texts and inline test modules.
    pub(crate) code: String,
}

/// Every Rust file that was written by hand.
pub(crate) struct Sources {
    /// Sorted by path.
    pub(crate) files: Vec<Source>,
    /// Paths of files that only tests have.
    tests: BTreeSet<String>,
    /// Files below a `src` that no module declares.
    pub(crate) unreachable: Vec<String>,
}

impl Sources {
    pub(crate) fn read() -> Self {
        let texts: BTreeMap<String, String> =
            texts().into_iter().filter(|(p, _)| p.ends_with(".rs")).collect();
        let mut found = BTreeMap::new();
        for path in texts.keys().filter(|p| is_root(p)) {
            let test = path.contains("/tests/") || path.contains("/benches/");
            follow(&texts, path, test, &mut found);
        }
        let written = |path: &str| !path.contains("/generated/");
        let unreachable =
            texts.keys().filter(|p| written(p) && !found.contains_key(*p)).cloned().collect();
        let tests = found.iter().filter(|(_, test)| **test).map(|(path, _)| path.clone()).collect();
        let file = |(path, text): (String, String)| Source {
            code: without_test_modules(&mask(&text)),
            path,
            text,
        };
        let files = texts.into_iter().filter(|(p, _)| written(p)).map(file).collect();
        Self { files, tests, unreachable }
    }

    /// Files that become part of a program or library.
    pub(crate) fn production(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|s| !self.tests.contains(&s.path))
    }
}

/// Every text file of the project with its path, sorted; without what was built, downloaded or
/// copied.
pub(crate) fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    list(&paths::project(), "", &mut found);
    found.sort();
    found
}

fn list(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a readable folder").map(|e| e.expect("an entry")) {
        let name = entry.file_name().into_string().expect("names of ours are text");
        let ours = !name.starts_with("target") && (!name.starts_with('.') || name == ".ci");
        let path = format!("{prefix}{name}");
        if !ours || path == "integration/corpus" {
            continue;
        }
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{path}/"), found);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            found.push((path, text));
        }
    }
}

/// Whether cargo compiles the file by itself.
fn is_root(path: &str) -> bool {
    let Some((folder, rest)) = path.split_once('/') else { return false };
    let parts: Vec<&str> = rest.split('/').collect();
    CRATES.contains(&folder)
        && match parts.as_slice() {
            ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["tests" | "benches", _] => true,
            ["src", "bin", _, file] => *file == "main.rs",
            ["tests" | "benches", _, file] => *file == "main.rs",
            _ => false,
        }
}

/// Notes `path` and every file that its `mod` declarations lead to, and whether each is for tests.
fn follow(
    texts: &BTreeMap<String, String>,
    path: &str,
    test: bool,
    found: &mut BTreeMap<String, bool>,
) {
    let Some(text) = texts.get(path) else { return };
    if found.insert(path.to_owned(), test).is_some() {
        return;
    }
    let (folder, file) = path.rsplit_once('/').expect("a file lies in a crate");
    let stem = file.trim_end_matches(".rs");
    let own = matches!(stem, "mod" | "lib" | "main") || is_root(path);
    let folder = if own { folder.to_owned() } else { format!("{folder}/{stem}") };
    let code = mask(text);
    let mut before = "";
    for line in code.lines().map(str::trim) {
        if let Some(name) = declared(line) {
            let only_tests = test || before.starts_with("#[cfg(test)]");
            for candidate in [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")] {
                follow(texts, &candidate, only_tests, found);
            }
        }
        before = line;
    }
}

/// The module that a line declares as a file of its own.
fn declared(line: &str) -> Option<&str> {
    without_visibility(line).strip_prefix("mod ")?.strip_suffix(';').map(str::trim)
}

fn without_visibility(line: &str) -> &str {
    ["pub(crate) ", "pub(super) ", "pub "].iter().fold(line, |l, v| l.strip_prefix(v).unwrap_or(l))
}

/// Whether code names a word or path, not as a part of a longer name.
pub(crate) fn names_word(code: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let open_end = word.ends_with(|c: char| !(c.is_alphanumeric() || c == '_'));
    code.match_indices(word).any(|(at, _)| {
        !inside(code[..at].chars().next_back())
            && (open_end || !inside(code[at + word.len()..].chars().next()))
    })
}

/// Blanks comments and the content of texts; keeps lines.
fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().filter(|c| **c == '\n'));
            out.push(' ');
            at = end;
        }
    }
    out
}

/// Where the comment or text that begins here ends; `at` itself when none begins.
fn skipped(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let find = |from: usize, pattern: &[char]| {
        let found = chars[from..].windows(pattern.len()).position(|w| w == pattern);
        found.map_or(chars.len(), |i| from + i + pattern.len())
    };
    let in_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => find(at, &['\n']) - 1,
        ['/', '*', ..] => find(at + 2, &['*', '/']),
        ['r', '"', ..] if !in_name => find(at + 2, &['"']),
        ['r', '#', '"', ..] if !in_name => find(at + 3, &['"', '#']),
        ['"', ..] => at + 1 + text_length(&rest[1..]),
        ['\'', '\\', ..] => find(at + 3, &['\'']),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

/// Length of a text up to and with its closing quote.
fn text_length(chars: &[char]) -> usize {
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Leaves out `#[cfg(test)] mod … { … }`. Works on masked code, where braces are braces.
fn without_test_modules(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        out.push_str(&rest[..at]);
        let module = without_visibility(after.trim_start()).starts_with("mod ");
        rest = if module { &after[block_end(after)..] } else { after };
    }
    out + rest
}

/// Where the first block, or the declaration that comes before any, ends.
fn block_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_texts_and_test_modules_do_not_count() {
    let code = |text: &str| without_test_modules(&mask(text));
    let hidden = [
        "// sled::Db\n",
        "/* sled::Db */",
        "\"sled::Db\"",
        "r\"sled::Db\"",
        "r#\"a \" sled::Db\"#",
        "\"\\\" sled::Db\"",
        "#[cfg(test)]\nmod tests { fn a() { sled::Db } }",
    ];
    for text in hidden {
        assert!(!names_word(&code(text), "sled::Db"), "{text}");
    }
    for text in [
        "'\"' sled::Db",
        "b'\\'' sled::Db",
        "&'a sled::Db",
        "\"//\" sled::Db",
        "mod t { } sled::Db",
    ] {
        assert!(names_word(&code(text), "sled::Db"), "{text}");
    }
    for text in ["my_sled::Db", "sled::Dbs"] {
        assert!(!names_word(text, "sled::Db"), "{text}");
    }
}
