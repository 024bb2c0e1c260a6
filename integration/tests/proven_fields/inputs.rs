//! The inputs of tests: objects in the texts of test functions and in files that tests read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use ferromesh_integration::{paths, random_mesh::fields_of};
use ferromesh_xds_translator::yaml;
use serde_json::Value;

use crate::matrix;

/// Folders of sources whose tests count, and of files that tests read whole.
const SOURCES: [&str; 3] = ["xds-translator", "integration/tests", "control-plane/tests"];
const FILES: [&str; 3] = ["integration/corpus", "integration/tests", "xds-translator/tests/golden"];

/// The cases by the fields that their input has.
pub(crate) fn cases() -> BTreeMap<String, BTreeSet<String>> {
    let mut cases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |case: &str, text: &str| {
        for field in fields_of(&objects(text)) {
            cases.entry(field).or_default().insert(case.to_owned());
        }
    };
    for folder in SOURCES {
        each_file(folder, "rs", &mut |path, source| {
            for (function, text) in texts(source) {
                add(&format!("{path}::{function}"), &text);
            }
        });
    }
    for folder in FILES {
        each_file(folder, "yaml", &mut |path, text| add(path, text));
    }
    for (case, fields) in matrix::inputs() {
        for field in fields {
            cases.entry(field).or_default().insert(case.clone());
        }
    }
    cases
}

/// The objects of a text, which may be a format for texts.
fn objects(text: &str) -> Vec<Value> {
    if !text.contains("kind:") {
        return Vec::new();
    }
    let formatted = text.replace("{{", "{").replace("}}", "}");
    let found = |text: &str| -> Vec<Value> {
        let documents = yaml::split(text).into_iter();
        let trees = documents.filter_map(|document| yaml::parse(document.text).ok().flatten());
        trees.map(|tree| tree.to_json()).collect()
    };
    [text, &formatted]
        .into_iter()
        .map(found)
        .max_by_key(|found| fields_of(found).len())
        .unwrap_or_default()
}

fn each_file(folder: &str, extension: &str, take: &mut impl FnMut(&str, &str)) {
    let root = paths::project();
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let of_kind = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == extension);
    for path in files.iter().filter(of_kind) {
        let name = path.strip_prefix(&root).unwrap_or(Path::new("")).display().to_string();
        if let Ok(text) = fs::read_to_string(path)
            // The tests of this page have objects that prove nothing.
            && !name.contains("/proven_fields/")
            // What was made by chance is no case.
            && !name.starts_with("integration/corpus/fuzz/")
        {
            take(&name, &text);
        }
    }
}

/// The texts of a source within functions that are tests or stand among them, by the function's name;
/// constants of tests count by their own.
fn texts(source: &str) -> Vec<(String, String)> {
    // Production code says nothing of what is tested.
    let tests = match source.find("#[cfg(test)]\nmod tests {") {
        Some(begin) => &source[begin..],
        None if source.contains("#[test]") || source.contains("#[tokio::test") => source,
        None => return Vec::new(),
    };
    let mut found = Vec::new();
    let mut name = String::from("-");
    let mut rest = tests;
    while !rest.is_empty() {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some((text, behind)) = text_at(rest) {
            found.push((name.clone(), text));
            rest = behind;
        } else if let Some(behind) = character_at(rest) {
            rest = behind;
        } else if let Some(behind) =
            ["fn ", "const ", "static "].iter().find_map(|w| rest.strip_prefix(w))
        {
            let end =
                behind.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(behind.len());
            if end > 0 {
                name = behind[..end].to_owned();
            }
            rest = &behind[end..];
        } else {
            let next = rest.char_indices().nth(1).map_or(rest.len(), |(at, _)| at);
            rest = &rest[next..];
        }
    }
    found
}

/// A literal of text at the beginning, and what follows it.
fn text_at(source: &str) -> Option<(String, &str)> {
    if let Some(raw) = source.strip_prefix('r') {
        let signs = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[signs..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(signs));
        let (text, behind) = body.split_once(&end)?;
        return Some((text.to_owned(), behind));
    }
    let body = source.strip_prefix('"')?;
    let mut text = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &body[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                // A text that goes on in the next line begins behind its blanks.
                '\n' => {
                    let ahead = characters.as_str();
                    let blanks = ahead.len() - ahead.trim_start().len();
                    for _ in 0..ahead[..blanks].chars().count() {
                        characters.next();
                    }
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

/// What follows a literal of a character, which may be a quote.
fn character_at(source: &str) -> Option<&str> {
    let body = source.strip_prefix('\'')?;
    let mut characters = body.chars();
    let first = characters.next()?;
    if first == '\\' {
        let (_, behind) = body[1..].split_once('\'')?;
        return Some(behind);
    }
    characters.as_str().strip_prefix('\'')
}

#[test]
fn texts_are_found_by_their_functions() {
    let source = r##"
        #[test]
        fn one() { let c = '"'; check("a: 1\n\
            b: 2", r#"c: "3""#); } // "not this"
        const TWO: &str = "d";
    "##;
    let expected = [("one", "a: 1\nb: 2"), ("one", "c: \"3\""), ("TWO", "d")]
        .map(|(f, t)| (f.to_owned(), t.to_owned()));
    assert_eq!(texts(source), expected);
}
