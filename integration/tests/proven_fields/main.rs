//! The page `docs/fields.md`: of every field that is acted on, which case of the traffic matrix
//! proves it, and which test cases have it in their input. The page is made from the declarations
//! of the kinds, the cases, and the tests' own texts; `UPDATE_GOLDEN=1` writes it anew. Fields that
//! no case proves, and such as no test names, are listed, and both lists only shrink.

mod declared;
mod inputs;
mod matrix;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use ferromesh_integration::{
    paths,
    random_mesh::{Dice, declared_fields, fields_of, objects},
};

use crate::matrix::Proven;

/// Cases that are named for a field.
const NAMED: usize = 3;
/// Heading of the list of fields that no test names.
const UNNAMED: &str = "## Fields that no test names";
/// Heading of the list of fields that decide no request.
const SILENT: &str = "## Fields that decide no request";
/// Heading of the list of fields that no case proves.
const UNPROVEN: &str = "## Fields that no case proves";

#[test]
fn the_page_of_fields_is_current_and_what_no_test_names_only_shrinks() {
    let declared = declared_fields();
    let cases = inputs::cases();
    let random = served_at_random();
    let proven = Proven::of_matrix(&declared, declared::other_proofs(&declared, &cases));
    let reasons = declared::reasons(&declared);
    let both: Vec<&String> = reasons.keys().filter(|field| proven.is_proven(field)).collect();
    assert!(both.is_empty(), "these decide no request, it is said, and are proven: {both:#?}");
    let page = page(&declared, &proven, &reasons, &cases, &random);
    let path = paths::project().join("docs/fields.md");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let grown: Vec<String> = match committed.is_empty() {
        true => Vec::new(),
        false => unnamed(&page).difference(&unnamed(&committed)).cloned().collect(),
    };
    assert!(grown.is_empty(), "no test names these fields any more, or yet: {grown:#?}");
    let committed_counts = unproven_counts(&committed);
    let more = unproven_counts(&page).into_iter().filter(|(kind, count)| {
        !committed_counts.is_empty() && *count > committed_counts.get(kind).copied().unwrap_or(0)
    });
    let more: Vec<_> = more.collect();
    assert!(
        more.is_empty(),
        "more fields than before have no case that proves them ({}): {more:?}",
        ferromesh_integration::matrix::FOLDER
    );
    if paths::updates_goldens() {
        fs::write(&path, &page).expect("the page can be written");
        return;
    }
    assert!(page == committed, "docs/fields.md is not current; UPDATE_GOLDEN=1 writes it anew");
}

/// The fields of the configurations that the short run of `random_configurations` serves.
fn served_at_random() -> BTreeSet<String> {
    let (count, seed) = paths::CONFIGURATIONS;
    (0..count).flat_map(|number| fields_of(&objects(&mut Dice::new(seed + number)))).collect()
}

/// The fields of the list that only shrinks.
fn unnamed(page: &str) -> BTreeSet<String> {
    let list = page.split_once(UNNAMED).map(|(_, list)| list).unwrap_or_default();
    let fields = list.lines().filter_map(|line| line.strip_prefix("* `")?.split_once('`'));
    fields.map(|(field, _)| field.to_owned()).collect()
}

/// How many fields of each kind no case proves, as a page says it.
fn unproven_counts(page: &str) -> BTreeMap<String, usize> {
    let list = page.split_once(UNPROVEN).map(|(_, list)| list).unwrap_or_default();
    let list = list.split_once("\n## ").map_or(list, |(list, _)| list);
    let counts = list.lines().filter_map(|line| {
        let (kind, rest) = line.strip_prefix("* ")?.split_once(" (")?;
        let (count, _) = rest.split_once(' ')?;
        Some((kind.to_owned(), count.parse().ok()?))
    });
    counts.collect()
}

/// The list of fields that no case proves, a line for each kind, and of those that decide no
/// request, a line for each reason.
fn unproven(
    declared: &BTreeSet<String>,
    proven: &Proven,
    reasons: &BTreeMap<String, String>,
) -> String {
    let mut kinds: BTreeMap<&str, (Vec<String>, usize)> = BTreeMap::new();
    for field in declared {
        let (kind, path) = field.split_once('.').unwrap_or((field, ""));
        let (lacking, all) = kinds.entry(kind).or_default();
        *all += 1;
        if !proven.is_proven(field) {
            lacking.push(format!("`{path}`"));
        }
    }
    let count: usize = kinds.values().map(|(lacking, _)| lacking.len()).sum();
    let mut text = format!(
        "\n{UNPROVEN}\n\n{count} of {}; {} of them decide no request. Their number only shrinks, for \
         each kind.\n\n",
        declared.len(),
        reasons.len(),
    );
    for (kind, (lacking, all)) in kinds.iter().filter(|(_, (lacking, _))| !lacking.is_empty()) {
        let _ = writeln!(text, "* {kind} ({} of {all}): {}", lacking.len(), lacking.join(", "));
    }
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (field, reason) in reasons {
        groups.entry(reason).or_default().push(format!("`{field}`"));
    }
    let _ = write!(text, "\n{SILENT}\n\n");
    for (reason, fields) in groups {
        let _ = writeln!(text, "* {reason} ({}): {}", fields.len(), fields.join(", "));
    }
    text
}

fn page(
    declared: &BTreeSet<String>,
    proven: &Proven,
    reasons: &BTreeMap<String, String>,
    cases: &BTreeMap<String, BTreeSet<String>>,
    random: &BTreeSet<String>,
) -> String {
    let mut page = String::from(
        "# Fields, and what proves them\n\n\
         Made by `integration/tests/proven_fields` from the declarations of the kinds, the cases of the \
         traffic matrix and the texts of the tests; `UPDATE_GOLDEN=1` writes it anew. \"Proven by\": a \
         case of the matrix (`integration/tests/matrix/cases`). Its requests go through real sidecars \
         and gateways, Envoys and our proxies, with the field and without it; they have the answers \
         that are written down with it alone; or a test beside it, that fails without the field \
         (`integration/tests/proven_fields/others.yaml`). A test that has a field in its input compares what \
         comes of all of it: bytes (goldens), findings, or what became of requests; which of these, its \
         name says. Fields that are accepted and not acted on are not listed. \"Envoy\": a real Envoy \
         takes what comes of it in the short run of `random_configurations`.\n",
    );
    page.push_str(&unproven(declared, proven, reasons));
    let mut kind = "";
    for field in declared {
        let (of, path) = field.split_once('.').unwrap_or((field, ""));
        if of != kind {
            kind = of;
            let _ = write!(
                page,
                "\n## {kind}\n\n| field | proven by | tests | Envoy |\n|---|---|---|---|\n"
            );
        }
        let tests = cases.get(field).map(named).unwrap_or_default();
        let taken = if random.contains(field) { "yes" } else { "" };
        let proof = proven.named(field);
        let _ = writeln!(page, "| `{path}` | {proof} | {tests} | {taken} |");
    }
    let lacking: Vec<&String> =
        declared.iter().filter(|field| !cases.contains_key(*field)).collect();
    let _ = write!(
        page,
        "\n{UNNAMED}\n\n{} of {}. An entry goes when a test has it in its input; none may come.\n\n",
        lacking.len(),
        declared.len()
    );
    for field in lacking {
        let _ = writeln!(page, "* `{field}`");
    }
    page
}

/// Some of the cases by name, shortest first, since these say most of one field.
fn named(cases: &BTreeSet<String>) -> String {
    let mut sorted: Vec<&String> = cases.iter().collect();
    sorted.sort_by_key(|case| (case.len(), (*case).clone()));
    let shown: Vec<String> = sorted.iter().take(NAMED).map(|case| format!("`{case}`")).collect();
    // How many more there are would change with every test.
    let others = if cases.len() > NAMED { " and others" } else { "" };
    shown.join(", ") + others
}
