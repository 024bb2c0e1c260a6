//! Markdown as the rules see it: sections, list items, links and code spans.

use std::{collections::BTreeSet, fs};

use ferromesh_integration::paths;

fn read(name: &str) -> String {
    fs::read_to_string(paths::project().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The part of a document below the heading that contains `title`, up to the next heading of the
/// same depth.
pub(crate) fn section(name: &str, title: &str) -> String {
    let text = read(name);
    let depth = |line: &str| line.bytes().take_while(|b| *b == b'#').count();
    let mut lines = text.lines().skip_while(|l| depth(l) == 0 || !l.contains(title));
    let heading = lines.next().unwrap_or_else(|| panic!("{name} has no section {title:?}"));
    let below = lines.take_while(|l| depth(l) == 0 || depth(l) > depth(heading));
    below.collect::<Vec<_>>().join("\n")
}

/// The items of the lists of a text, each with the lines that continue it; rows of tables count as
/// items.
pub(crate) fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in text.lines() {
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let begins = line.starts_with("- ")
            || line.starts_with("* ")
            || (number.len() < line.len() && number.starts_with(". "));
        match items.last_mut() {
            _ if begins => items.push(line.to_owned()),
            Some(item) if line.starts_with(' ') => *item += &format!("\n{line}"),
            _ => {}
        }
    }
    items
}

/// Paragraphs and list items of a document, without fenced blocks, tables and headings.
pub(crate) fn paragraphs(name: &str) -> Vec<String> {
    let mut fenced = false;
    let mut paragraphs = vec![String::new()];
    for line in read(name).lines().map(str::trim) {
        let fence = line.starts_with("```");
        fenced ^= fence;
        let begins = |line: &str| ["- ", "* ", ". "].iter().any(|mark| line.starts_with(mark));
        let item = begins(line.trim_start_matches(|c: char| c.is_ascii_digit()));
        if item || fence || line.is_empty() || line.starts_with(['#', '|']) {
            paragraphs.push(String::new());
        }
        let prose = !fenced && !fence && !line.starts_with(['#', '|']);
        if let Some(last) = paragraphs.last_mut().filter(|_| prose) {
            *last += line;
            last.push(' ');
        }
    }
    paragraphs.retain(|paragraph| !paragraph.trim().is_empty());
    paragraphs
}

/// What stands between backticks, outside of fenced blocks.
pub(crate) fn code_spans(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// The words in code spans of a code map that belong to a crate: those behind its own `crate/`, up
/// to the next crate's. Paths count by their last part. `None`: the map does not name the crate.
pub(crate) fn crate_words(map: &str, name: &str) -> Option<BTreeSet<String>> {
    let crates = super::CRATES.map(|c| format!("{c}/"));
    let own = format!("{name}/");
    let mut spans = code_spans(map).into_iter().skip_while(|s| *s != own);
    spans.next()?;
    let below = spans.take_while(|s| !crates.iter().any(|c| c == s));
    let words = below.flat_map(|s| s.split([',', ' ', '{', '}'])).filter_map(|path| {
        let path = path.trim_end_matches('/').trim_end_matches(".rs");
        path.rsplit('/').next().map(str::to_owned)
    });
    Some(words.collect())
}

/// Links, and paths in code spans, of a document that lead nowhere.
pub(crate) fn dead_links(name: &str) -> Vec<String> {
    let text = read(name);
    let project = paths::project();
    let links = text.split("](").skip(1).filter_map(|l| l.split(')').next());
    let local = links
        .filter(|l| !l.contains("://") && !l.starts_with('#'))
        .map(|l| l.split('#').next().unwrap_or(l));
    let spans = code_spans(&text)
        .into_iter()
        .filter(|s| is_path(s))
        .map(|s| s.split("::").next().unwrap_or(s));
    let dead = local.chain(spans).filter(|path| !project.join(path).exists());
    dead.map(|path| format!("{name}: {path}")).collect()
}

/// Whether a code span is a path from the project's folder.
fn is_path(span: &str) -> bool {
    let plain =
        span.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':'));
    let first = span.split('/').next().unwrap_or_default();
    let ours = super::CRATES.contains(&first) || matches!(first, "helm" | ".ci");
    plain && span.contains('/') && ours
}

#[test]
fn a_code_map_is_read_crate_by_crate() {
    let map = "- `proto/`: `resource.rs`, `spiffe`\n- `dataplane/`: `dataplane/src/xds/`\n```\n`hidden`\n```\n";
    assert_eq!(crate_words(map, "proto"), Some(["resource", "spiffe"].map(str::to_owned).into()));
    assert_eq!(crate_words(map, "dataplane"), Some(["xds".to_owned()].into()));
    assert_eq!(crate_words(map, "integration"), None);
}
